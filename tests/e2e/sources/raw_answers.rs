//! Answers below HTTP and JSON-RPC, as a hostile or broken server writes them byte by byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{configured, token, walked};
use crate::harness::TestApp;

/// What a server writes to the request with this id: first the one, then the other without end.
type Writes = fn(&str) -> (Vec<u8>, Vec<u8>);

/// A server that answers calls with these bytes, one table row after the other, and everything else honestly.
struct RawServer {
    url: String,
    calls: Arc<AtomicUsize>,
}

impl RawServer {
    async fn start(answers: &'static [(&'static str, Writes, &'static str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://127.0.0.1:{}/mcp", listener.local_addr().unwrap().port());
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection, Arc::clone(&counted), answers));
            }
        });
        Self { url, calls }
    }
}

async fn serve(
    mut connection: TcpStream,
    calls: Arc<AtomicUsize>,
    answers: &'static [(&'static str, Writes, &'static str)],
) {
    while let Some(message) = request(&mut connection).await {
        let id = message["id"].to_string();
        let honest = |result: Value| (json_of(&id, &result.to_string()), Vec::new());
        let (once, forever) = match message["method"].as_str().unwrap_or_default() {
            "server/discover" => {
                honest(json!({ "supportedVersions": ["2026-07-28"], "capabilities": { "tools": {} } }))
            }
            "tools/list" => {
                honest(json!({ "tools": [{ "name": "greet", "inputSchema": { "type": "object" } }] }))
            }
            "tools/call" => (answers[calls.fetch_add(1, Ordering::SeqCst)].1)(&id),
            _ => honest(json!({})),
        };
        if connection.write_all(&once).await.is_err() {
            return;
        }
        while !forever.is_empty() {
            if connection.write_all(&forever).await.is_err() {
                return;
            }
        }
        if !once.starts_with(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ") {
            return;
        }
    }
}

/// The message of the next request on a connection.
async fn request(connection: &mut TcpStream) -> Option<Value> {
    let (mut read, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1)?.split('\r').next()?.parse::<usize>().ok()?;
            if read.len() >= end + 4 + length {
                return serde_json::from_slice(&read[end + 4..end + 4 + length]).ok();
            }
        }
        match connection.read(&mut piece).await {
            Ok(0) | Err(_) => return None,
            Ok(length) => read.extend_from_slice(&piece[..length]),
        }
    }
}

fn answer(kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn json_of(id: &str, result: &str) -> Vec<u8> {
    answer("application/json", message(id, result).as_bytes())
}

fn message(id: &str, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

const HELLO: &str = r#"{"content":[{"type":"text","text":"hello"}]}"#;
const OTHER: &str = r#"{"content":[{"type":"text","text":"of somebody else"}]}"#;
const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";

fn once(bytes: impl Into<Vec<u8>>) -> (Vec<u8>, Vec<u8>) {
    (bytes.into(), Vec::new())
}

fn json(text: &str) -> (Vec<u8>, Vec<u8>) {
    once(answer("application/json", text.as_bytes()))
}

fn events(text: &str) -> (Vec<u8>, Vec<u8>) {
    once(answer("text/event-stream", text.as_bytes()))
}

/// What is written, and how the call ends.
const ANSWERS: &[(&str, Writes, &str)] = &[
    ("a result for another id", |_| json(&message("999", OTHER)), "unknown"),
    (
        "an error for another id",
        |_| json(r#"{"jsonrpc":"2.0","id":999,"error":{"code":-32000,"message":"of somebody else"}}"#),
        "unknown",
    ),
    (
        "an error without an id",
        |_| json(r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"unreadable"}}"#),
        "error",
    ),
    ("its id as a string", |id| json(&message(&format!("\"{id}\""), OTHER)), "unknown"),
    ("its id as a fraction", |id| json(&message(&format!("{id}.0"), OTHER)), "unknown"),
    ("two answers in one body", |id| json(&message(id, OTHER).repeat(2)), "unknown"),
    ("a batch", |id| json(&format!("[{}]", message(id, OTHER))), "unknown"),
    ("a result twice", |id| json(&message(id, &format!("{OTHER},\"result\":{OTHER}"))), "unknown"),
    (
        "a result and an error",
        |id| json(&message(id, &format!("{OTHER},\"error\":{{\"code\":1,\"message\":\"x\"}}"))),
        "unknown",
    ),
    (
        "bytes that are not UTF-8",
        |id| {
            let text = message(id, HELLO).replace("hello", "\u{1}");
            once(answer(
                "application/json",
                &text.bytes().map(|b| if b == 1 { 0xff } else { b }).collect::<Vec<_>>(),
            ))
        },
        "unknown",
    ),
    ("another version", |id| json(&message(id, OTHER).replace("2.0", "1.0")), "unknown"),
    (
        "a compressed body",
        |_| {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 20\r\n\r\n";
            once([head.as_bytes(), b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x03\0\0\0\0\0\0\0\0\0"].concat())
        },
        "unknown",
    ),
    (
        "two answers in a stream",
        |id| events(&format!("data: {}\n\ndata: {}\n\n", message(id, HELLO), message(id, OTHER))),
        "ok",
    ),
    (
        "another id first in a stream",
        |id| events(&format!("data: {}\n\ndata: {}\n\n", message("999", OTHER), message(id, HELLO))),
        "ok",
    ),
    (
        "an event of another type",
        |id| events(&format!("event: other\ndata: {}\n\n", message(id, OTHER))),
        "unknown",
    ),
    ("half an event", |id| events(&format!("data: {}\n", message(id, OTHER))), "unknown"),
    ("text that is not MCP", |_| once(answer("text/html", b"<p>hello</p>")), "unknown"),
    (
        "nothing",
        |_| once(&b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n"[..]),
        "unknown",
    ),
    ("no content", |_| once(&b"HTTP/1.1 204 No Content\r\n\r\n"[..]), "unknown"),
    (
        "another protocol",
        |_| once(&b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"[..]),
        "unknown",
    ),
    ("what is not HTTP", |_| once(&b"SSH-2.0-OpenSSH_9.6\r\n\r\n"[..]), "unknown"),
    (
        "a body that ends early",
        |_| once(&b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\ncontent-length: 99\r\n\r\n{"[..]),
        "unknown",
    ),
    (
        "two lengths",
        |_| {
            once(&b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}}"[..])
        },
        "unknown",
    ),
    ("the largest chunk", |_| once(format!("{CHUNKED}ffffffffffffffff\r\n{{")), "unknown"),
    ("a chunk whose size is too long", |_| once(format!("{CHUNKED}fffffffffffffffffff\r\n{{")), "unknown"),
    ("a chunk of negative size", |_| once(format!("{CHUNKED}-1\r\n{{")), "unknown"),
    ("chunks without their ends", |id| once(format!("{CHUNKED}5\r\n{}", message(id, OTHER))), "unknown"),
    ("an endless chunk extension", |_| (format!("{CHUNKED}1;").into(), vec![b'a'; 4096]), "unknown"),
    ("endless trailers", |_| (format!("{CHUNKED}0\r\n").into(), b"a: b\r\n".repeat(1000)), "unknown"),
    (
        "endless chunks",
        |_| (CHUNKED.into(), format!("3e8\r\n{}\r\n", " ".repeat(1000)).repeat(10).into()),
        "too_large",
    ),
    ("endless headers", |_| (b"HTTP/1.1 200 OK\r\n".to_vec(), b"a: b\r\n".repeat(1000)), "unknown"),
    ("an endless header", |_| (b"HTTP/1.1 200 OK\r\na: ".to_vec(), vec![b'a'; 4096]), "unknown"),
    ("endless early hints", |_| (Vec::new(), b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100)), "timed_out"),
    ("an answer", |id| once(json_of(id, HELLO)), "ok"),
];

/// SRC-08, SRC-12, MCP-03: whatever bytes a server writes, the call ends in its class and in time, is not sent again, and
/// nothing of an answer to somebody else is handed on.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_server_writes_a_call_ends_in_its_class() {
    let server = RawServer::start(ANSWERS).await;
    let rules = configured("raw", &server.url, "timeout = \"3s\"", &["raw_greet".to_owned()]);
    let app = TestApp::start_configured(&rules).await;
    let token = token(&app).await;
    walked(&app, "source.changed", 1).await;
    let mut wrong = Vec::new();
    for (nth, (what, _, class)) in ANSWERS.iter().enumerate() {
        let begun = Instant::now();
        let result = app.call_tool(&token, "raw_greet", json!({})).await.text().await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        let ended = app.audit().into_iter().rfind(|one| one["event"] == "mcp.result").unwrap();
        let right = ended["detail"]["result"] == *class && result.contains("hello") == (*class == "ok");
        if !right || result.contains("of somebody else") {
            wrong.push(format!("{what}: {} instead of {class}: {result}", ended["detail"]["result"]));
        }
        assert_eq!(server.calls.load(Ordering::SeqCst), nth + 1, "{what}: it was sent once");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

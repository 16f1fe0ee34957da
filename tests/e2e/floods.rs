//! Floods of requests and slow clients. The server keeps serving others.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::certificates::unused_port;
use crate::harness::TestApp;
use crate::process::Process;
use crate::raw::{Handshake, Raw, Stream, assert_after, port};

async fn assert_serves(app: &TestApp) {
    assert_eq!(app.get("/healthz").await.status(), 200);
    assert_eq!(app.get("/readyz").await.status(), 200);
}

/// Sends requests and reads nothing, until the connection ends.
async fn never_reads(mut stream: impl Stream + 'static, host: String) {
    let asked = format!("GET /assets/portcullis.css HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let asked = asked.repeat(100);
    while stream.write_all(asked.as_bytes()).await.is_ok() {}
}

/// HTTP-09, HTTP-10: a client that sends requests and does not read is waited for half a minute, and does not
/// affect others.
#[tokio::test]
async fn a_reader_that_stalls_is_cut_off() {
    let plain = TestApp::start().await;
    let secured = TestApp::start_secured("").await;
    let authority = std::fs::read(secured.data_dir().parent().unwrap().join("gate.ca")).unwrap();
    let host = |app: &TestApp| app.origin.split_once("://").unwrap().1.to_owned();
    let stream = TcpStream::connect(("127.0.0.1", port(&plain.origin))).await.unwrap();
    let readers = [
        tokio::spawn(never_reads(stream, host(&plain))),
        tokio::spawn(never_reads(
            Handshake::new(&authority).shake(&secured.origin).await.unwrap(),
            host(&secured),
        )),
    ];
    assert_serves(&plain).await;
    assert_serves(&secured).await;
    tokio::time::pause();
    let begun = Instant::now();
    for reader in readers {
        reader.await.unwrap();
    }
    assert_after(begun, 30);
}

/// HTTP-09, HTTP-10: hundreds of incomplete requests, in head or body, do not affect others, and are answered
/// or ended in time.
#[tokio::test]
async fn half_a_request_keeps_nobody_out() {
    let app = TestApp::start().await;
    let form = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n";
    let mut halves = Vec::new();
    for n in 0..400 {
        let mut raw = Raw::open(&app.origin).await;
        match n % 4 {
            0 => raw.send("GET / HTTP/1.1\r\nHost: localh").await,
            1 => raw.send("POST /token HTTP/1.1\r\nX-A: b\r\n").await,
            2 => raw.ask("POST /token", form, "grant_type=").await,
            _ => raw.ask("POST /register", "Transfer-Encoding: chunked\r\n", "5\r\nab").await,
        }
        halves.push(raw);
    }
    assert_serves(&app).await;
    tokio::time::pause();
    let begun = Instant::now();
    for raw in &mut halves {
        while raw.answer().await.is_some() {}
    }
    assert_after(begun, 30);
}

/// HTTP-10: more connections than the limit, none of which starts a handshake, do not affect others.
#[tokio::test]
async fn connections_without_a_handshake_keep_nobody_out() {
    let app = TestApp::start_secured("").await;
    let mut silent = Vec::new();
    for _ in 0..2_500 {
        silent.push(TcpStream::connect(("127.0.0.1", port(&app.origin))).await.unwrap());
    }
    assert_serves(&app).await;
    tokio::time::pause();
    let begun = Instant::now();
    for mut stream in silent {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    assert_after(begun, 10);
}

/// HTTP-10: the memory of a connection is bounded: hundreds that send the largest possible head, chunk
/// extension or body cost a few megabytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_costs_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(&dir.path().join("data"), &format!("localhost:{}", unused_port()), None);
    let host = process.listen();
    let before = process.memory();
    let mut open = Vec::new();
    for n in 0..200 {
        let mut stream = TcpStream::connect(("127.0.0.1", port(&process.origin))).await.unwrap();
        let head = match n % 4 {
            0 => format!("GET / HTTP/1.1\r\nHost: {host}\r\nX: "),
            1 => format!("POST /register HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n5;"),
            2 => format!(
                "POST /token HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n"
            ),
            _ => format!("POST /mcp HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100000000\r\n\r\n"),
        };
        let _ = stream.write_all(head.as_bytes()).await;
        // Send until the server stops reading.
        let flood = async { while stream.write_all(&[b'x'; 8_192]).await.is_ok() {} };
        let _ = tokio::time::timeout(Duration::from_millis(50), flood).await;
        open.push(stream);
    }
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    assert_eq!(http.get(format!("{}/healthz", process.origin)).send().await.unwrap().status(), 200);
    let grown = process.memory().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more");
    drop(open);
}

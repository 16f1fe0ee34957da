use std::sync::atomic::AtomicUsize;

use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};
use shared::outbound::NotSent;

use super::super::link::{Link, deaf};
use super::super::request::Headers;
use super::super::testing::{ReceivedRequest, Reply, TestServer, error, legacy, modern, result};
use super::super::walk;
use super::super::wire::Heard;
use super::*;
use crate::item::Kind;
use crate::progress::Progress;

fn client(upstream: &TestServer) -> Client {
    Client::new(upstream.outbound(), "/mcp?x=1".to_owned(), None)
}

/// How long a walk may take.
const PATIENCE: Duration = Duration::from_mins(1);

fn nobody() -> Identity {
    Identity::default()
}

fn call() -> Request<'static> {
    Request {
        method: "tools/call",
        params: r#""name":"greet","arguments":{"b":1}"#.to_owned(),
        item: Some(Headers {
            name: Some("greet"),
            mirrored: vec![(HeaderName::from_static("mcp-param-b"), HeaderValue::from_static("1"))],
        }),
        most: 10_000,
        memory: None,
        deadline: Instant::now() + Duration::from_mins(1),
    }
}

async fn ask(client: &Client) -> Result<Answered, NoResult> {
    client.ask(&nobody(), &call(), &mut deaf).await
}

fn hello(request: &ReceivedRequest) -> Reply {
    Reply::Json(200, result(request, &json!({ "content": [] })))
}

fn none() -> Value {
    json!([])
}

/// MCP-05, MCP-07, RS-15: a modern request has its required metadata, and no header of the client.
#[tokio::test]
async fn a_modern_request_is_rewritten_for_the_upstream() {
    let upstream =
        TestServer::start(|request| modern(request, &none()).unwrap_or_else(|| hello(request))).await;
    let client = client(&upstream);
    assert_eq!(ask(&client).await.unwrap().unwrap().get(), r#"{"content":[]}"#);
    ask(&client).await.unwrap().unwrap();
    assert_eq!(upstream.methods(), ["server/discover", "tools/call", "tools/call"]);
    let arrived = &upstream.arrived()[1];
    let mut names: Vec<_> = arrived.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    let expected =
        ["accept", "content-length", "content-type", "host", "mcp-method", "mcp-name", "mcp-param-b"];
    assert_eq!(names, [&expected[..], &["mcp-protocol-version"]].concat());
    assert_eq!(arrived.header("mcp-name"), "greet");
    let id = arrived.body["id"].clone();
    let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { "name": "portcullis", "version": env!("CARGO_PKG_VERSION") },
        "io.modelcontextprotocol/clientCapabilities": {}, "progressToken": id });
    assert_eq!(arrived.body["params"], json!({ "name": "greet", "arguments": { "b": 1 }, "_meta": meta }));
    assert_ne!(upstream.arrived()[2].body["id"], id);
}

/// SRC-07: answers that determine the era, and answers that do not and are asked for again.
#[tokio::test]
async fn the_first_question_tells_the_eras_apart() {
    let supported = |versions: &[&str]| json!({ "jsonrpc": "2.0", "id": 1, "error": { "code": -32022, "message": "", "data": { "supported": versions } } });
    let code = |code: i64| json!({ "jsonrpc": "2.0", "id": 1, "error": { "code": code, "message": "" } });
    let found =
        |versions: &[&str]| json!({ "jsonrpc": "2.0", "id": 1, "result": { "supportedVersions": versions } });
    let modern = Some(SpokenEra::Modern(Capabilities::default()));
    for (status, body, speaks) in [
        (200, found(&["2026-07-28", "2025-11-25"]), modern),
        (200, found(&["2025-11-25"]), Some(SpokenEra::Legacy)),
        (200, found(&["1999-01-01"]), None),
        (200, code(-32601), Some(SpokenEra::Legacy)),
        (200, json!({ "x": 1 }), None),
        (400, Value::Null, Some(SpokenEra::Legacy)),
        (404, json!("gone"), Some(SpokenEra::Legacy)),
        (405, code(-32000), Some(SpokenEra::Legacy)),
        (400, code(-32020), modern),
        (400, supported(&["2026-07-28"]), modern),
        (400, supported(&["2025-11-25"]), Some(SpokenEra::Legacy)),
        (401, Value::Null, None),
        (403, Value::Null, None),
        (429, Value::Null, None),
        (500, Value::Null, None),
        (503, code(-32000), None),
    ] {
        let answer = body.clone();
        let upstream = TestServer::start(move |request| match request.method() {
            "server/discover" => Reply::Json(status, answer.clone()),
            _ => Reply::Silence,
        })
        .await;
        assert_eq!(client(&upstream).probe(&nobody()).await.ok(), speaks, "{status} {body}");
    }
}

/// SRC-07: a server of the HTTP+SSE transport is refused by name; one that only answers alike is not.
#[tokio::test]
async fn the_transport_before_streamable_http_is_named() {
    for (status, stream, named) in [
        (405, "event: endpoint\ndata: /messages?id=1\n\n", true),
        (404, ": hello\n\nevent:endpoint\r\ndata: /messages\r\n\r\n", true),
        (405, "event: message\ndata: {}\n\n", false),
        (405, "", false),
        (401, "event: endpoint\ndata: /messages\n\n", false),
    ] {
        let upstream = TestServer::start(move |request| match request.method() {
            "server/discover" => Reply::Json(405, Value::Null),
            "initialize" => Reply::Json(status, Value::Null),
            _ => Reply::Events(stream.to_owned()),
        })
        .await;
        let failed = ask(&client(&upstream)).await.unwrap_err();
        assert!(!failed.sent);
        assert_eq!(failed.why == Failed::OldTransport, named, "{status} {stream}: {}", failed.why);
        let asked = upstream.arrived().len();
        assert_eq!(asked, if status == 401 { 2 } else { 3 }, "it is looked at once");
    }
}

/// SRC-07: a session is started once for all waiting callers, and once more when the upstream has forgotten it.
#[tokio::test]
async fn a_forgotten_session_is_begun_again_once() {
    let begun = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&begun);
    let upstream = TestServer::start(move |request| {
        if request.method() == "initialize" {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        let session = if counted.load(Ordering::SeqCst) < 2 { "first" } else { "second" };
        legacy(request, session, &none()).unwrap_or_else(|| hello(request))
    })
    .await;
    let client = client(&upstream);
    let (one, other) = tokio::join!(ask(&client), ask(&client));
    assert!(one.unwrap().is_ok() && other.unwrap().is_ok());
    assert_eq!(begun.load(Ordering::SeqCst), 1);
    let called = upstream.arrived().into_iter().find(|one| one.method() == "tools/call").unwrap();
    assert_eq!(
        (called.header("mcp-session-id"), called.header("mcp-protocol-version")),
        ("first", "2025-06-18")
    );
    assert_eq!(called.header("mcp-method"), "");
    begun.store(2, Ordering::SeqCst);
    // The server was restarted: it knows only "second", which was not started yet.
    assert!(ask(&client).await.unwrap().is_ok());
    assert_eq!(begun.load(Ordering::SeqCst), 3);
    assert!(ask(&client).await.unwrap().is_ok());
    assert_eq!(begun.load(Ordering::SeqCst), 3);
}

/// SRC-07, SRC-08: an upstream that forgets every session is asked at most twice, and its error about this
/// request is the answer.
#[tokio::test]
async fn an_upstream_that_always_forgets_is_asked_twice() {
    for (status, ours, calls) in [(404, false, 2), (400, false, 2), (400, true, 1), (403, false, 1)] {
        let upstream = TestServer::start(move |request| match request.method() {
            "tools/call" if ours => Reply::Json(status, error(request, -32602)),
            "tools/call" => Reply::Json(status, json!({ "error": "No session" })),
            _ => legacy(request, "s", &none()).unwrap_or_else(|| hello(request)),
        })
        .await;
        let failed = ask(&client(&upstream)).await.unwrap_err();
        let Failed::Status(refusal) = failed.why else { panic!("{failed:?}") };
        assert_eq!((failed.sent, refusal.status.as_u16(), refusal.ours), (true, status, ours));
        let methods = upstream.methods();
        assert_eq!(methods.iter().filter(|method| *method == "tools/call").count(), calls, "{methods:?}");
    }
}

/// SRC-08, SRC-13: an answer may be in a stream, after notifications and requests of the upstream. Progress
/// counts only with this request's token.
#[tokio::test]
async fn an_answer_may_come_in_a_stream() {
    let upstream = TestServer::start(|request| match request.method() {
        "tools/call" => {
            let id = request.body["id"].as_u64().unwrap();
            let progress = |token: u64, n: f64| {
                json!({ "jsonrpc": "2.0", "method": "notifications/progress",
                    "params": { "progressToken": token, "progress": n } })
            };
            let events = [
                json!({ "jsonrpc": "2.0", "id": "p", "method": "ping" }),
                progress(id, 1.0),
                progress(id + 1, 9.0),
                json!({ "jsonrpc": "2.0", "id": id + 7, "result": { "another": true } }),
                json!("noise"),
                json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" }),
                progress(id, 2.5),
                result(request, &json!({ "content": [ 1 ] })),
                result(request, &json!({ "late": true })),
            ];
            Reply::Events(events.map(|event| format!("event: message\ndata: {event}\n\n")).concat())
        }
        "" if request.http == http::Method::POST => Reply::Json(202, Value::Null),
        _ => legacy(request, "s", &none()).unwrap(),
    })
    .await;
    let (client, mut heard) = (client(&upstream), Vec::new());
    let answered = client.ask(&nobody(), &call(), &mut |one| heard.push(one)).await;
    assert_eq!(answered.unwrap().unwrap().get(), r#"{"content":[1]}"#);
    assert_eq!(
        heard,
        [Heard::Progress(Progress::new(1.0)), Heard::ListChanged, Heard::Progress(Progress::new(2.5))]
    );
}

/// SRC-12: a broken stream of an older revision is resumed after its last event, a limited number of times.
#[tokio::test]
async fn a_stream_is_resumed_after_its_last_event() {
    for resumable in [true, false] {
        let upstream = TestServer::start(move |request| match (request.method(), &request.http) {
            ("tools/call", _) => Reply::Events(format!("id: {}\nretry: 0\ndata:\n\n", request.body["id"])),
            ("", &http::Method::GET) => {
                let id: u64 = request.header("last-event-id").parse().unwrap();
                let answer = json!({ "jsonrpc": "2.0", "id": id, "result": { "resumed": true } });
                Reply::Events(if resumable { format!("data: {answer}\n\n") } else { String::new() })
            }
            _ => legacy(request, "s", &none()).unwrap(),
        })
        .await;
        let answered = ask(&client(&upstream)).await;
        let gets = upstream.arrived().iter().filter(|one| one.http == http::Method::GET).count();
        if resumable {
            assert_eq!(answered.unwrap().unwrap().get(), r#"{"resumed":true}"#);
            assert_eq!(gets, 1);
        } else {
            let failed = answered.unwrap_err();
            assert!(failed.sent && matches!(failed.why, Failed::Lost(_)), "{failed:?}");
            assert_eq!(gets, 3);
        }
    }
}

/// SRC-09: when a call of an older revision is dropped, the upstream is told, with the request's id.
#[tokio::test]
async fn a_dropped_call_is_cancelled_at_the_upstream() {
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let upstream = TestServer::start(move |request| {
        let _ = told.send(request.clone());
        match request.method() {
            "tools/call" => Reply::Silence,
            _ => legacy(request, "s", &none()).unwrap(),
        }
    })
    .await;
    let client = client(&upstream);
    let asking = tokio::spawn(async move { ask(&client).await });
    let called = loop {
        let one = heard.recv().await.unwrap();
        if one.method() == "tools/call" {
            break one;
        }
    };
    asking.abort();
    let cancelled = heard.recv().await.unwrap();
    assert_eq!(cancelled.method(), "notifications/cancelled");
    assert_eq!(cancelled.body["params"]["requestId"], called.body["id"]);
    assert_eq!(cancelled.header("mcp-session-id"), "s");
}

/// SRC-08: a request that was not sent is distinguished; an unreachable port counts as not sent.
#[tokio::test]
async fn an_unreachable_server_counts_as_not_sent() {
    let upstream = TestServer::start(hello).await;
    let mut to = upstream.destination();
    to.networks = vec!["10.0.0.0/8".parse().unwrap()];
    let client =
        Client::new(Outbound::new(to), "/".to_owned(), Some(SpokenEra::Modern(Capabilities::default())));
    let failed = ask(&client).await.unwrap_err();
    let address = Failed::NotSent(NotSent::Address("127.0.0.1".parse().unwrap()));
    assert_eq!(failed, NoResult { sent: false, why: address });
    assert!(upstream.arrived().is_empty());
}

/// MCP-03, SRC-12: anything that is not an answer to this request is an error.
#[tokio::test]
async fn other_messages_are_not_accepted_as_answers() {
    for (status, body) in [
        (200, json!({ "jsonrpc": "2.0", "id": 999_999, "result": {} })),
        (200, json!([])),
        (200, json!({ "jsonrpc": "2.0", "method": "notifications/x" })),
        (202, Value::Null),
        (200, json!({ "jsonrpc": "2.0", "id": 2, "result": "x".repeat(100_000) })),
    ] {
        let answer = body.clone();
        let upstream = TestServer::start(move |request| {
            modern(request, &none()).unwrap_or_else(|| Reply::Json(status, answer.clone()))
        })
        .await;
        let failed = ask(&client(&upstream)).await.unwrap_err();
        assert!(failed.sent, "{status} {failed:?}");
    }
}

/// SRC-02: a listing has all pages or fails; an empty cursor is a cursor, and an endless list fails.
#[tokio::test]
async fn a_list_is_read_completely_or_not_used() {
    let tool = |name: &str| json!({ "name": name, "inputSchema": {} });
    for (pages, outcome) in [
        (vec![(json!([tool("a")]), json!("")), (json!([tool("b")]), Value::Null)], Ok(2)),
        (vec![(json!([]), Value::Null)], Ok(0)),
        (vec![(json!([tool("a")]), json!("x")), (json!([tool("b")]), json!("x"))], Err("circle")),
        (vec![(json!({ "a": 1 }), Value::Null)], Err("is not a list")),
        (vec![(json!([tool("a")]), json!("x")), (Value::Null, Value::Null)], Err("is not a list")),
        ((0..200).map(|n| (json!([tool("a")]), json!(n.to_string()))).collect(), Err("has more than")),
        (vec![(Value::from(vec![tool("a"); 5001]), Value::Null)], Err("has more than")),
        (vec![(json!([tool(&"x".repeat(9 << 20))]), Value::Null)], Err("has more than")),
    ] {
        for (kind, method, member) in LISTS {
            let (turned, pages) = (AtomicUsize::new(0), pages.clone());
            let upstream = TestServer::start(move |request| match request.method() {
                called if called == method => {
                    let (items, next) = pages[turned.fetch_add(1, Ordering::SeqCst)].clone();
                    Reply::Json(200, result(request, &json!({ member: items, "nextCursor": next })))
                }
                _ => everything(request).unwrap(),
            })
            .await;
            let walked =
                walk::items(&Link::Http(client(&upstream)), &nobody(), kind, PATIENCE, &mut deaf).await;
            match (walked, outcome) {
                (Ok(items), Ok(count)) => assert_eq!(items.len(), count, "{method}"),
                (Err(why), Err(says)) => {
                    let why = why.to_string();
                    assert!(why.contains(says) && why.contains(method), "{why}");
                }
                (walked, _) => panic!("{method}: {walked:?}"),
            }
        }
    }
}

const LISTS: [(Kind, &str, &str); 4] = [
    (Kind::Tool, "tools/list", "tools"),
    (Kind::Prompt, "prompts/list", "prompts"),
    (Kind::Resource, "resources/list", "resources"),
    (Kind::Template, "resources/templates/list", "resourceTemplates"),
];

/// What a server of the newest revision says that has every kind of list and tells of changes.
fn everything(request: &ReceivedRequest) -> Option<Reply> {
    let changes = json!({ "listChanged": true });
    let found = json!({ "resultType": "complete", "supportedVersions": ["2026-07-28"], "ttlMs": 0,
        "cacheScope": "public", "capabilities": { "tools": {}, "prompts": changes, "resources": changes } });
    (request.method() == "server/discover").then(|| Reply::Json(200, result(request, &found)))
}

/// SRC-02: a list that a server does not speak of is empty and is not asked for; tools alone are asked for anyway.
#[tokio::test]
async fn only_declared_lists_are_requested() {
    let upstream = TestServer::start(|request| match request.method() {
        "server/discover" => {
            let found = json!({ "supportedVersions": ["2026-07-28"], "capabilities": { "resources": {} } });
            Reply::Json(200, result(request, &found))
        }
        "resources/list" => Reply::Json(200, result(request, &json!({ "resources": [{ "uri": "a:b" }] }))),
        // 2026-07-28: HTTP 404 with the error; older servers answer 200.
        "tools/list" => Reply::Json(404, error(request, -32601)),
        _ => Reply::Json(200, error(request, -32601)),
    })
    .await;
    let client = client(&upstream);
    for (kind, _, _) in LISTS {
        let walked =
            walk::items(&Link::Http(client.clone()), &nobody(), kind, PATIENCE, &mut deaf).await.unwrap();
        assert_eq!(walked.len(), usize::from(kind == Kind::Resource), "{kind:?}");
    }
    let expected = ["server/discover", "tools/list", "resources/list", "resources/templates/list"];
    assert_eq!(upstream.methods(), expected);
}

/// SRC-13: a subscription asks for the changes that the upstream tells of, and hears each of them.
#[tokio::test]
async fn a_subscription_hears_of_every_list() {
    let upstream = TestServer::start(|request| {
        everything(request).unwrap_or_else(|| {
            let note = |method: &str| {
                format!("data: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/{method}\"}}\n\n")
            };
            let told = ["tools/list_changed", "prompts/list_changed", "message", "resources/list_changed"];
            Reply::Events(told.map(note).concat())
        })
    })
    .await;
    let mut heard = Vec::new();
    let client = client(&upstream);
    client.listen(&nobody(), &mut |one| heard.push(one)).await.unwrap().unwrap();
    assert_eq!(heard, [Heard::Listening, Heard::ListChanged, Heard::ListChanged, Heard::ListChanged]);
    let asked = &upstream.arrived()[1].body["params"]["notifications"];
    assert_eq!(*asked, json!({ "promptsListChanged": true, "resourcesListChanged": true }));
}

/// SRC-12: all of a stream is bounded, however small its events are.
#[tokio::test]
async fn a_stream_of_small_events_is_bounded() {
    for method in ["tools/call", "subscriptions/listen"] {
        let upstream = TestServer::start(move |request| {
            if request.method() != method {
                return everything(request).unwrap();
            }
            Reply::Events("data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\n\n".repeat(2_000_000))
        })
        .await;
        let client = client(&upstream);
        let why = match method {
            "tools/call" => ask(&client).await.unwrap_err().why,
            _ => client.listen(&nobody(), &mut deaf).await.unwrap().unwrap_err(),
        };
        assert!(matches!(why, Failed::TooLarge(_)), "{method}: {why:?}");
    }
}

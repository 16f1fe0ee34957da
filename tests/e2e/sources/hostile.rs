//! A server that behaves as a test says, usually badly.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::response::Response;
use futures_util::stream::{self, StreamExt};
use http::HeaderMap;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Its behaviour on a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallBehaviour {
    Answer,
    /// A good answer, a moment later.
    Late,
    /// A good answer; and it lists schemas that take no argument.
    Close,
    /// HTTP 401.
    Unauthorized,
    /// HTTP 503, to everything.
    Down,
    /// A result of 10 MiB.
    Large,
    /// Endless events without an answer.
    Endless,
    /// One endless event.
    EndlessEvent,
    /// A byte from time to time.
    Drip,
    Redirect,
    Hang,
    Garbage,
    /// Closes the connection in the middle.
    BreakOff,
    /// An answer of 10 MiB that does not say how long it is.
    LargeUnannounced,
    /// The most that may be answered, but for its last byte.
    Stall,
    /// An answer that is nested 100,000 levels deep.
    Deep,
    /// A list whose pages name each other.
    Circle,
    /// A list of 6,000 items on one page.
    Many,
}

/// The methods that ask for something, each with what an honest answer has in it.
pub const METHODS: [&str; 8] = [
    "tools/list",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    "tools/call",
    "prompts/get",
    "resources/read",
    "completion/complete",
];

/// A request as it arrived: its headers and its message.
pub type ReceivedRequest = (HeaderMap, Value);

/// The server.
#[derive(Clone)]
pub struct HostileServer {
    pub url: String,
    /// What it does with which method; answers, if nothing is said.
    does: Arc<Mutex<BTreeMap<String, CallBehaviour>>>,
    arrived: Arc<Mutex<Vec<ReceivedRequest>>>,
}

impl HostileServer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://127.0.0.1:{}/mcp", listener.local_addr().unwrap().port());
        let hostile = Self { url, does: Arc::default(), arrived: Arc::default() };
        let serving = hostile.clone();
        let app = axum::Router::new().fallback(move |request: axum::extract::Request| {
            let serving = serving.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = to_bytes(body, 1 << 20).await.unwrap();
                let message: Value = serde_json::from_slice(&body).unwrap_or_default();
                serving.arrived.lock().unwrap().push((parts.headers, message.clone()));
                if serving.does("tools/call") == CallBehaviour::Late && message["method"] == "tools/call" {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                serving.answer(&message)
            }
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        hostile
    }

    /// What it does with calls from now on.
    pub fn will(&self, does: CallBehaviour) {
        self.will_for("tools/call", does);
    }

    /// What it does with this method from now on.
    pub fn will_for(&self, method: &str, does: CallBehaviour) {
        self.does.lock().unwrap().insert(method.to_owned(), does);
    }

    fn does(&self, method: &str) -> CallBehaviour {
        self.does.lock().unwrap().get(method).copied().unwrap_or(CallBehaviour::Answer)
    }

    /// All that has arrived.
    pub fn arrived(&self) -> Vec<ReceivedRequest> {
        self.arrived.lock().unwrap().clone()
    }

    /// The calls that have arrived.
    pub fn calls(&self) -> Vec<ReceivedRequest> {
        self.arrived().into_iter().filter(|(_, message)| message["method"] == "tools/call").collect()
    }

    fn answer(&self, message: &Value) -> Response {
        let result = |result: Value| {
            let answer = json!({ "jsonrpc": "2.0", "id": message["id"], "result": result });
            respond(200, "application/json", Body::from(answer.to_string()))
        };
        let method = message["method"].as_str().unwrap_or_default();
        let called = self.does("tools/call");
        if called == CallBehaviour::Down {
            return respond(503, "text/plain", Body::empty());
        }
        if method == "server/discover" {
            let capabilities = json!({ "tools": {}, "prompts": {}, "resources": {}, "completions": {} });
            return result(json!({ "supportedVersions": ["2026-07-28"], "capabilities": capabilities }));
        }
        if method == "tools/list" && called == CallBehaviour::Close {
            let closed = json!({ "type": "object", "properties": {}, "additionalProperties": false });
            return result(json!({ "tools": [{ "name": "greet", "inputSchema": closed }] }));
        }
        let does = self.does(method);
        let id = &message["id"];
        match does {
            CallBehaviour::Answer | CallBehaviour::Late | CallBehaviour::Close => result(honest(method)),
            CallBehaviour::Unauthorized | CallBehaviour::Down => respond(401, "text/plain", Body::empty()),
            CallBehaviour::Large => result(json!({ "content": "x".repeat(10 << 20) })),
            CallBehaviour::Stall => {
                let piece = Bytes::from(vec![b' '; 1 << 16]);
                let pieces = stream::repeat_with(move || Ok::<_, std::io::Error>(piece.clone())).take(127);
                let body = Body::from_stream(pieces.chain(stream::pending()));
                respond(200, "application/json", body)
            }
            CallBehaviour::LargeUnannounced => {
                let text = format!(
                    r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":"{}"}}}}"#,
                    "x".repeat(10 << 20)
                );
                let pieces: Vec<Piece> =
                    text.as_bytes().chunks(1 << 16).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
                respond(200, "application/json", Body::from_stream(stream::iter(pieces)))
            }
            CallBehaviour::Deep => {
                let (open, close) = ("[".repeat(100_000), "]".repeat(100_000));
                let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"deep":{open}{close}}}}}"#);
                respond(200, "application/json", Body::from(text))
            }
            CallBehaviour::Circle => result(json!({ member(method): [], "nextCursor": "again" })),
            CallBehaviour::Many => {
                let items: Vec<_> = (0..6_000).map(|n| item(method, &format!("n{n}"))).collect();
                result(json!({ member(method): items }))
            }
            CallBehaviour::Endless => {
                slowly("text/event-stream", b"data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\n\n")
            }
            CallBehaviour::EndlessEvent => endless(),
            CallBehaviour::Drip => slowly("application/json", b" "),
            CallBehaviour::Redirect => {
                let response = Response::builder().status(307);
                let to = "http://169.254.169.254/latest/meta-data/";
                response.header("location", to).body(Body::empty()).unwrap()
            }
            CallBehaviour::Hang => {
                respond(200, "text/event-stream", Body::from_stream(stream::pending::<Piece>()))
            }
            CallBehaviour::Garbage => respond(200, "application/json", Body::from(vec![0xff_u8; 4096])),
            CallBehaviour::BreakOff => {
                let pieces: Vec<Piece> =
                    vec![Ok(Bytes::from_static(b"{\"jsonrpc\"")), Err(std::io::Error::other("gone"))];
                respond(200, "application/json", Body::from_stream(stream::iter(pieces)))
            }
        }
    }
}

/// The member of a list's result that holds its items.
fn member(method: &str) -> &'static str {
    match method {
        "tools/list" => "tools",
        "prompts/list" => "prompts",
        "resources/list" => "resources",
        _ => "resourceTemplates",
    }
}

/// An item of a list.
fn item(method: &str, name: &str) -> Value {
    match method {
        "tools/list" => json!({ "name": name, "inputSchema": { "type": "object" } }),
        "prompts/list" => json!({ "name": name }),
        "resources/list" => json!({ "uri": format!("bad://host/{name}"), "name": name }),
        _ => json!({ "uriTemplate": format!("bad://host/{name}/{{id}}"), "name": name }),
    }
}

fn honest(method: &str) -> Value {
    match method {
        "tools/list" | "prompts/list" | "resources/list" | "resources/templates/list" => {
            json!({ member(method): [item(method, "greet"), item(method, "unruled")] })
        }
        "prompts/get" => {
            json!({ "messages": [{ "role": "user", "content": { "type": "text", "text": "hello" } }] })
        }
        "resources/read" => json!({ "contents": [{ "uri": "bad://host/greet", "text": "hello" }] }),
        "completion/complete" => json!({ "completion": { "values": ["hello"] } }),
        _ => json!({ "content": [{ "type": "text", "text": "hello" }] }),
    }
}

type Piece = std::io::Result<Bytes>;

fn respond(status: u16, kind: &str, body: Body) -> Response {
    Response::builder().status(status).header("content-type", kind).body(body).unwrap()
}

fn endless() -> Response {
    let piece = Bytes::from(vec![b'x'; 1 << 16]);
    respond(
        200,
        "text/event-stream",
        Body::from_stream(stream::repeat_with(move || Piece::Ok(piece.clone()))),
    )
}

fn slowly(kind: &str, piece: &'static [u8]) -> Response {
    let pieces = stream::repeat_with(move || Piece::Ok(Bytes::from_static(piece))).then(|piece| async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        piece
    });
    respond(200, kind, Body::from_stream(pieces))
}

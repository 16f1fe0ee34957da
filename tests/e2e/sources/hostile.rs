//! A server that behaves as a test says, badly for the most part.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::response::Response;
use futures_util::stream::{self, StreamExt};
use http::HeaderMap;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// What it does with a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Does {
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
    /// Events without end, none of them the answer.
    Endless,
    /// One event without end.
    EndlessEvent,
    /// A byte now and then.
    Drip,
    Redirect,
    Hang,
    Garbage,
    /// The connection ends in the middle.
    BreakOff,
}

/// A request as it arrived: its headers and its message.
pub type Arrived = (HeaderMap, Value);

/// The server.
#[derive(Clone)]
pub struct Hostile {
    pub url: String,
    does: Arc<Mutex<Does>>,
    arrived: Arc<Mutex<Vec<Arrived>>>,
}

impl Hostile {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://127.0.0.1:{}/mcp", listener.local_addr().unwrap().port());
        let hostile = Self { url, does: Arc::new(Mutex::new(Does::Answer)), arrived: Arc::default() };
        let serving = hostile.clone();
        let app = axum::Router::new().fallback(move |request: axum::extract::Request| {
            let serving = serving.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = to_bytes(body, 1 << 20).await.unwrap();
                let message: Value = serde_json::from_slice(&body).unwrap_or_default();
                serving.arrived.lock().unwrap().push((parts.headers, message.clone()));
                if serving.does() == Does::Late && message["method"] == "tools/call" {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                serving.answer(&message)
            }
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        hostile
    }

    /// What it does from now on.
    pub fn will(&self, does: Does) {
        *self.does.lock().unwrap() = does;
    }

    fn does(&self) -> Does {
        *self.does.lock().unwrap()
    }

    /// All that has arrived.
    pub fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().unwrap().clone()
    }

    /// The calls that have arrived.
    pub fn calls(&self) -> Vec<Arrived> {
        self.arrived().into_iter().filter(|(_, message)| message["method"] == "tools/call").collect()
    }

    fn answer(&self, message: &Value) -> Response {
        let result = |result: Value| {
            let answer = json!({ "jsonrpc": "2.0", "id": message["id"], "result": result });
            respond(200, "application/json", Body::from(answer.to_string()))
        };
        let tools = json!([{ "name": "greet", "inputSchema": { "type": "object" } },
            { "name": "unruled", "inputSchema": { "type": "object" } }]);
        if self.does() == Does::Down {
            return respond(503, "text/plain", Body::empty());
        }
        let tools = if self.does() == Does::Close {
            json!([{ "name": "greet", "inputSchema": { "type": "object", "properties": {}, "additionalProperties": false } }])
        } else {
            tools
        };
        match message["method"].as_str().unwrap_or_default() {
            "server/discover" => result(json!({ "supportedVersions": ["2026-07-28"], "capabilities": {} })),
            "tools/list" => result(json!({ "tools": tools })),
            _ => match self.does() {
                Does::Unauthorized | Does::Down => respond(401, "text/plain", Body::empty()),
                Does::Answer | Does::Late | Does::Close => {
                    result(json!({ "content": [{ "type": "text", "text": "hello" }] }))
                }
                Does::Large => result(json!({ "content": "x".repeat(10 << 20) })),
                Does::Endless => slowly(
                    "text/event-stream",
                    b"data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\n\n",
                ),
                Does::EndlessEvent => endless(),
                Does::Drip => slowly("application/json", b" "),
                Does::Redirect => {
                    let response = Response::builder().status(307);
                    let to = "http://169.254.169.254/latest/meta-data/";
                    response.header("location", to).body(Body::empty()).unwrap()
                }
                Does::Hang => {
                    respond(200, "text/event-stream", Body::from_stream(stream::pending::<Piece>()))
                }
                Does::Garbage => respond(200, "application/json", Body::from(vec![0xff_u8; 4096])),
                Does::BreakOff => {
                    let pieces: Vec<Piece> =
                        vec![Ok(Bytes::from_static(b"{\"jsonrpc\"")), Err(std::io::Error::other("gone"))];
                    respond(200, "application/json", Body::from_stream(stream::iter(pieces)))
                }
            },
        }
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

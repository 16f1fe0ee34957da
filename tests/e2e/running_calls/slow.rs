//! A server behind the gate whose calls take as long as a test says.

use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::response::Response;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What its calls answer, once they do.
pub const SECRET: &str = "the falcon launches at dawn";

/// The server. `late` answers when it is told to, every other tool never.
#[derive(Clone)]
pub struct SlowServer {
    pub url: String,
    /// How many calls have begun, and how many of those ended before they were answered.
    counts: Arc<watch::Sender<(usize, usize)>>,
    answers: Arc<watch::Sender<bool>>,
}

impl SlowServer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://127.0.0.1:{}/mcp", listener.local_addr().unwrap().port());
        let slow = Self {
            url,
            counts: Arc::new(watch::channel((0, 0)).0),
            answers: Arc::new(watch::channel(false).0),
        };
        let serving = slow.clone();
        let app = axum::Router::new().fallback(move |request: axum::extract::Request| {
            let serving = serving.clone();
            async move {
                let body = to_bytes(request.into_body(), 1 << 20).await.unwrap();
                serving.answer(&serde_json::from_slice(&body).unwrap_or_default())
            }
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        slow
    }

    /// Waits until this many calls have begun.
    pub async fn begun(&self, calls: usize) {
        self.counts.subscribe().wait_for(|(begun, _)| *begun >= calls).await.unwrap();
    }

    /// Waits until this many calls were cancelled.
    pub async fn cancelled(&self, calls: usize) {
        self.counts.subscribe().wait_for(|(_, left)| *left >= calls).await.unwrap();
    }

    /// Answers what is to be answered late.
    pub fn answer_now(&self) {
        self.answers.send_replace(true);
    }

    fn answer(&self, message: &Value) -> Response {
        let result =
            |result: Value| json!({ "jsonrpc": "2.0", "id": message["id"], "result": result }).to_string();
        let tool = |name: &str| json!({ "name": name, "inputSchema": { "type": "object" } });
        let body = match message["method"].as_str().unwrap_or_default() {
            "server/discover" => {
                Body::from(result(json!({ "supportedVersions": ["2026-07-28"], "capabilities": { "tools": {} } })))
            }
            "tools/list" => Body::from(result(json!({ "tools": [tool("reads"), tool("writes"), tool("late")] }))),
            "tools/call" => {
                let is_late = message["params"]["name"] == "late";
                let answer = result(json!({ "content": [{ "type": "text", "text": SECRET }] }));
                let (call, answers) = (Begun::new(&self.counts), self.answers.subscribe());
                Body::from_stream(stream::unfold(Some((call, answers)), move |state| {
                    let answer = answer.clone();
                    async move {
                        let (mut call, mut answers) = state?;
                        answers.wait_for(|now| *now && is_late).await.ok()?;
                        call.answered = true;
                        Some((Ok::<_, std::io::Error>(Bytes::from(answer)), None))
                    }
                }))
            }
            _ => Body::from(json!({ "jsonrpc": "2.0", "id": message["id"], "error": { "code": -32601, "message": "no" } }).to_string()),
        };
        Response::builder().header("content-type", "application/json").body(body).unwrap()
    }
}

/// A call that has begun.
struct Begun {
    counts: Arc<watch::Sender<(usize, usize)>>,
    answered: bool,
}

impl Begun {
    fn new(counts: &Arc<watch::Sender<(usize, usize)>>) -> Self {
        counts.send_modify(|(begun, _)| *begun += 1);
        Self { counts: Arc::clone(counts), answered: false }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.answered {
            self.counts.send_modify(|(_, left)| *left += 1);
        }
    }
}

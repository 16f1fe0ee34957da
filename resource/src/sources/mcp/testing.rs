//! An upstream that a test controls.

use std::sync::{Arc, Mutex};

use axum::body::{Body, to_bytes};
use axum::response::Response;
use http::{HeaderMap, Method};
use serde_json::{Value, json};
use shared::outbound::{Destination, Outbound, Security};
use tokio::net::TcpListener;

/// A received request.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedRequest {
    pub(crate) http: Method,
    pub(crate) headers: HeaderMap,
    /// Null if there is no body.
    pub(crate) body: Value,
}

impl ReceivedRequest {
    pub(crate) fn method(&self) -> &str {
        self.body["method"].as_str().unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// An answer.
pub(crate) enum Reply {
    Json(u16, Value),
    /// A result with a session id.
    Session(&'static str, Value),
    /// A stream with this text, which then ends.
    Events(String),
    /// Never answers.
    Silence,
}

/// A server on this computer.
#[derive(Clone)]
pub(crate) struct TestServer {
    pub(crate) port: u16,
    arrived: Arc<Mutex<Vec<ReceivedRequest>>>,
}

impl TestServer {
    pub(crate) async fn start(act: impl Fn(&ReceivedRequest) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, act) = (listener.local_addr().unwrap().port(), Arc::new(act));
        let arrived = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&arrived);
        let answer = move |request: axum::extract::Request| {
            let (act, heard) = (Arc::clone(&act), Arc::clone(&heard));
            async move {
                let (parts, body) = request.into_parts();
                let body = to_bytes(body, 1 << 20).await.unwrap();
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                let request = ReceivedRequest { http: parts.method, headers: parts.headers, body };
                heard.lock().unwrap().push(request.clone());
                match act(&request) {
                    Reply::Json(status, body) => respond(status, "application/json", None, body.to_string()),
                    Reply::Session(id, body) => respond(200, "application/json", Some(id), body.to_string()),
                    Reply::Events(text) => respond(200, "text/event-stream", None, text),
                    Reply::Silence => std::future::pending().await,
                }
            }
        };
        let app = axum::Router::new().fallback(answer);
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { port, arrived }
    }

    /// All requests so far.
    pub(crate) fn arrived(&self) -> Vec<ReceivedRequest> {
        self.arrived.lock().unwrap().clone()
    }

    /// The methods of the received messages; for a request without one, its HTTP method.
    pub(crate) fn methods(&self) -> Vec<String> {
        let name = |one: &ReceivedRequest| match one.method() {
            "" => one.http.to_string(),
            method => method.to_owned(),
        };
        self.arrived().iter().map(name).collect()
    }

    pub(crate) fn destination(&self) -> Destination {
        Destination {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            authority: format!("127.0.0.1:{}", self.port),
            security: Security::Plain,
            networks: Vec::new(),
        }
    }

    pub(crate) fn outbound(&self) -> Outbound {
        Outbound::new(self.destination())
    }
}

fn respond(status: u16, kind: &str, session: Option<&str>, body: String) -> Response {
    let response = Response::builder().status(status).header("content-type", kind);
    let response = session.into_iter().fold(response, |response, id| response.header("mcp-session-id", id));
    response.body(Body::from(body)).unwrap()
}

/// A result for this request.
pub(crate) fn result(request: &ReceivedRequest, result: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": request.body["id"], "result": result })
}

/// An error for this request.
pub(crate) fn error(request: &ReceivedRequest, code: i64) -> Value {
    json!({ "jsonrpc": "2.0", "id": request.body["id"], "error": { "code": code, "message": "No." } })
}

/// The answers of a server of an older revision to everything except calls; it lists these tools, and knows
/// this session.
pub(crate) fn legacy(request: &ReceivedRequest, session: &'static str, tools: &Value) -> Option<Reply> {
    let known = request.header("mcp-session-id") == session;
    match request.method() {
        "initialize" => {
            let agreed = json!({ "protocolVersion": "2025-06-18", "capabilities": { "tools": {} },
                "serverInfo": { "name": "old", "version": "1" } });
            Some(Reply::Session(session, result(request, &agreed)))
        }
        "notifications/initialized" | "notifications/cancelled" => Some(Reply::Json(202, Value::Null)),
        "" if request.http == Method::DELETE => Some(Reply::Json(200, Value::Null)),
        _ if !known => {
            let none =
                json!({ "jsonrpc": "2.0", "id": null, "error": { "code": -32000, "message": "No session" } });
            Some(Reply::Json(if request.headers.contains_key("mcp-session-id") { 404 } else { 400 }, none))
        }
        "tools/list" => Some(Reply::Json(200, result(request, &json!({ "tools": tools })))),
        _ => None,
    }
}

/// The answers of a server of the newest revision to everything except calls.
pub(crate) fn modern(request: &ReceivedRequest, tools: &Value) -> Option<Reply> {
    match request.method() {
        "server/discover" => {
            let found = json!({ "resultType": "complete", "supportedVersions": ["2026-07-28"],
                "capabilities": { "tools": {} }, "ttlMs": 0, "cacheScope": "public" });
            Some(Reply::Json(200, result(request, &found)))
        }
        "tools/list" => {
            let listed =
                json!({ "resultType": "complete", "tools": tools, "ttlMs": 0, "cacheScope": "public" });
            Some(Reply::Json(200, result(request, &listed)))
        }
        _ => None,
    }
}

//! Third-party servers in separate processes, and a direct client for them.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::certificates::unused_port;
use crate::process::{clients, node};

/// A server in a separate process. Killed when dropped.
pub struct Server {
    child: Child,
    pub url: String,
}

impl Server {
    /// `@modelcontextprotocol/server-everything`, on this port or any.
    pub fn everything(port: Option<u16>) -> Self {
        let port = port.unwrap_or_else(unused_port);
        let mut command = node();
        command
            .arg("node_modules/@modelcontextprotocol/server-everything/dist/index.js")
            .arg("streamableHttp");
        command.env("PORT", port.to_string()).current_dir(clients());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("listening") {
            line.clear();
            assert_ne!(said.read_line(&mut line).unwrap(), 0, "the server did not start: run tests/install");
        }
        // Read the pipe, so that it does not fill up.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Self { child, url: format!("http://127.0.0.1:{port}/mcp") }
    }

    /// `mcp-server-time` behind fastmcp's proxy.
    pub fn time() -> Self {
        let folder = clients().join("python");
        let mut command = Command::new(folder.join(".venv/bin/python"));
        command.arg(folder.join("time_server.py")).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Self { child, url: format!("http://127.0.0.1:{}/mcp", port.trim()) }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client of a server without the gate, in the server's revision.
pub struct Direct {
    http: reqwest::Client,
    url: String,
    session: HeaderMap,
    modern: bool,
}

impl Direct {
    pub async fn legacy(url: &str) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut direct = Self { http, url: url.to_owned(), session: HeaderMap::new(), modern: false };
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": { "name": "direct", "version": "1" } });
        let begun =
            direct.post(json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params })).await;
        let session = begun.headers().get("mcp-session-id").cloned();
        begun.text().await.unwrap();
        direct.session.extend(session.map(|id| (Some("mcp-session-id".parse().unwrap()), id)));
        direct.session.insert("mcp-protocol-version", HeaderValue::from_static("2025-11-25"));
        direct.post(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
        direct
    }

    pub fn modern(url: &str) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut session = HeaderMap::new();
        session.insert("mcp-protocol-version", HeaderValue::from_static("2026-07-28"));
        Self { http, url: url.to_owned(), session, modern: true }
    }

    async fn post(&self, message: Value) -> reqwest::Response {
        let mut request = self.http.post(&self.url).headers(self.session.clone());
        request = request.header("accept", "application/json, text/event-stream");
        if self.modern {
            request = request.header("mcp-method", message["method"].as_str().unwrap());
            let params = &message["params"];
            if let Some(name) = params["name"].as_str().or(params["uri"].as_str()) {
                request = request.header("mcp-name", name);
            }
        }
        request.json(&message).send().await.unwrap()
    }

    /// The raw result.
    pub async fn ask(&self, method: &str, mut params: Value) -> Box<RawValue> {
        if self.modern {
            params["_meta"] = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {} });
        }
        let message = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
        let text = self.post(message).await.text().await.unwrap();
        let mut messages = text.lines().map(|line| line.strip_prefix("data: ").unwrap_or(line));
        let answer = messages.find(|line| line.contains("\"result\"")).unwrap_or_else(|| panic!("{text}"));
        member(answer, "result")
    }
}

/// A raw member of an object.
pub fn member(object: &str, name: &str) -> Box<RawValue> {
    let members: std::collections::BTreeMap<String, Box<RawValue>> = serde_json::from_str(object).unwrap();
    members.get(name).unwrap_or_else(|| panic!("no {name}: {object}")).clone()
}

/// The raw items of an array.
pub fn items(array: &RawValue) -> Vec<Box<RawValue>> {
    serde_json::from_str(array.get()).unwrap()
}

//! MCP requests as their bytes, in two revisions.

use serde_json::{Value, json};

use crate::machine::wire::{Connection, post};

/// The two revisions that are measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Revision {
    Legacy,
    Modern,
}

impl Revision {
    pub const fn version(self) -> &'static str {
        match self {
            Self::Legacy => "2025-11-25",
            Self::Modern => "2026-07-28",
        }
    }
}

/// An MCP endpoint, and a token for it.
#[derive(Clone)]
pub struct Endpoint {
    pub origin: String,
    pub token: Option<String>,
}

impl Endpoint {
    pub fn bare(origin: &str) -> Self {
        Self { origin: origin.to_owned(), token: None }
    }

    /// A call of a tool without arguments.
    pub fn call(&self, revision: Revision, session: Option<&str>, tool: &str) -> Vec<u8> {
        self.request(revision, session, "tools/call", json!({ "name": tool, "arguments": {} }))
    }

    /// The list of tools.
    pub fn list(&self, revision: Revision) -> Vec<u8> {
        self.request(revision, None, "tools/list", json!({}))
    }

    /// Starts a session, as clients of the older revisions do.
    pub async fn session(&self) -> Option<String> {
        let params = json!({ "protocolVersion": Revision::Legacy.version(), "capabilities": {},
            "clientInfo": { "name": "bench", "version": "1" } });
        let request = self.request(Revision::Legacy, None, "initialize", params);
        let mut connection = Connection::open(&self.origin).await;
        connection.ask(&request).await;
        connection.header("mcp-session-id")
    }

    fn request(&self, revision: Revision, session: Option<&str>, method: &str, mut params: Value) -> Vec<u8> {
        let version = revision.version();
        let mut head =
            format!("Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: {version}\r\n");
        let mut line = |name: &str, value: Option<&str>| {
            head.extend(value.into_iter().flat_map(|value| [name, ": ", value, "\r\n"]));
        };
        line("Authorization", self.token.as_ref().map(|token| format!("Bearer {token}")).as_deref());
        line("Mcp-Session-Id", session);
        if revision == Revision::Modern {
            line("Mcp-Method", Some(method));
            line("Mcp-Name", params["name"].as_str());
            params["_meta"] = json!({
                "io.modelcontextprotocol/protocolVersion": version,
                "io.modelcontextprotocol/clientInfo": { "name": "bench", "version": "1" },
                "io.modelcontextprotocol/clientCapabilities": {},
            });
        }
        let body = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
        post(&self.origin, "/mcp", "application/json", &head, &body.to_string())
    }
}

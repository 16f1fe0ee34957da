//! The yardstick for tool calls: a bare rmcp server over axum that answers with JSON, without sessions and without tokens. It
//! also plays the upstream servers: it can list many tools, and has a tool that hangs.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt;
use rmcp::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData, ListToolsResult,
    PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::json;
use tokio::net::TcpListener;

use super::machine::roles::say;

/// The role of this server; its arguments are the bytes of a result, and the number of further tools.
pub const ROLE: &str = "rmcp";
/// A tool that answers, another one that counts as writing, and one that hangs for a minute.
pub const ECHO: &str = "echo";
pub const PUT: &str = "put";
pub const HANG: &str = "hang";

#[derive(Clone)]
struct Bare {
    text: Arc<str>,
    tools: Arc<Vec<Tool>>,
}

/// Serves until it is killed.
pub async fn serve(bytes: usize, more: usize) {
    let schema = json!({
        "type": "object",
        "properties": { "text": { "type": "string", "description": "What is said again." } },
    });
    let schema = Arc::new(schema.as_object().cloned().unwrap_or_default());
    let tool = |name: String| {
        Tool::new(name, "Says what it is told, as a tool of a bench does.", Arc::clone(&schema))
    };
    let names =
        [ECHO, PUT, HANG].map(str::to_owned).into_iter().chain((0..more).map(|n| format!("tool_{n}")));
    let bare = Bare { text: "x".repeat(bytes).into(), tools: Arc::new(names.map(tool).collect()) };
    let config =
        StreamableHttpServerConfig::default().with_legacy_session_mode(false).with_json_response(true);
    let service =
        StreamableHttpService::new(move || Ok(bare.clone()), LocalSessionManager::default().into(), config);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    say(format_args!("http://{}", listener.local_addr().expect("it is bound")));
    let listener = listener.tap_io(|socket| drop(socket.set_nodelay(true)));
    axum::serve(listener, Router::new().nest_service("/mcp", service))
        .await
        .expect("it serves until it is killed");
}

impl ServerHandler for Bare {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        if request.name == HANG {
            tokio::time::sleep(Duration::from_mins(1)).await;
        }
        Ok(CallToolResult::success(vec![ContentBlock::text(&*self.text)]).into())
    }

    fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> impl Future<Output = Result<ListToolsResult, ErrorData>> + Send + '_ {
        std::future::ready(Ok(ListToolsResult::with_all_items(self.tools.to_vec())))
    }
}

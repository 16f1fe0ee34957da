//! What the protocol library calls. It answers only what the gate admitted: a request that is read
//! differently here than there is refused (MCP-03).

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use http::request::Parts;
use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, CustomRequest, CustomResult, DiscoverResult,
    ErrorCode, Implementation, InitializeRequestParams, InitializeResult, ListToolsResult, MetaObject,
    PaginatedRequestParams, ProtocolVersion, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use shared::ResourceUri;

use super::call::Call;
use super::era::Era;
use super::tools::{Caller, Tools};
use crate::bearer::Checked;
use crate::policy::Decision;
use crate::sources::docs::Docs;

/// How long a client may keep a list (MCP 2026-07-28, Caching). Entitlements change; lists follow.
const FRESH_MS: u64 = 60_000;
const SERVER_INFO_META: &str = "io.modelcontextprotocol/serverInfo";
const INSTRUCTIONS: &str = "Portcullis guards this organisation's tools. Search the documentation with \
     docs_search and read it with docs_read. If a tool is missing or refused, whoami says what is granted.";

/// What the gate decided, on its way to the handler in the request's extensions.
#[derive(Clone)]
pub(crate) struct Admitted {
    pub(crate) call: Arc<Call>,
    pub(crate) era: Era,
    pub(crate) decision: Decision,
    pub(crate) caller: Checked,
    /// How a tool call ended, for the record, or that `initialize` succeeded; set by the handler.
    pub(crate) ended: Arc<OnceLock<Ended>>,
}

/// How a call ended, if the handler got to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    Answered,
    ToolError,
}

/// The handler. Made anew for every request, so it is cheap to clone.
#[derive(Clone)]
pub(crate) struct Handler(Arc<Inner>);

struct Inner {
    tools: Arc<Tools>,
    docs: Arc<Docs>,
    resource: ResourceUri,
    config: ServerConfig,
}

impl Handler {
    pub(crate) fn new(tools: Arc<Tools>, docs: Arc<Docs>, resource: ResourceUri) -> Self {
        let server = Implementation::new("portcullis", env!("CARGO_PKG_VERSION")).with_title("Portcullis");
        let config = ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(server)
            .with_instructions(INSTRUCTIONS)
            // What `initialize` falls back to.
            .with_protocol_version(ProtocolVersion::V_2025_11_25);
        Self(Arc::new(Inner { tools, docs, resource, config }))
    }

    /// Newer results say who made them (MCP 2026-07-28 basic, per-response protocol fields).
    fn meta(&self, era: Era) -> Option<MetaObject> {
        let server = serde_json::to_value(&self.0.config.server_info).ok().filter(|_| era == Era::Modern)?;
        let mut meta = MetaObject::default();
        meta.insert(SERVER_INFO_META.to_owned(), server);
        Some(meta)
    }
}

/// The gate's decision, if it was about this method and this name, and the request may be answered.
fn admitted(
    context: &RequestContext<RoleServer>,
    method: &str,
    tool: Option<&str>,
) -> Result<Admitted, ErrorData> {
    // What is above the client's ceiling is answered with words, which is all that happens then.
    let answered = |decision: &Decision| matches!(decision, Decision::Allow | Decision::AboveCeiling { .. });
    let parts = context.extensions.get::<Parts>();
    let admitted = parts.and_then(|parts| parts.extensions.get::<Admitted>());
    match admitted {
        Some(admitted)
            if admitted.call.method() == method
                && admitted.call.tool() == tool
                && answered(&admitted.decision) =>
        {
            Ok(admitted.clone())
        }
        _ => {
            tracing::error!(mcp.method = method, "a request reached the handler that the gate did not admit");
            Err(ErrorData::internal_error("Internal error", None))
        }
    }
}

impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        self.0.config.clone()
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Borrowed(&[
            ProtocolVersion::V_2026_07_28,
            ProtocolVersion::V_2025_11_25,
            ProtocolVersion::V_2025_06_18,
            ProtocolVersion::V_2025_03_26,
        ])
    }

    async fn ping(&self, context: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        admitted(&context, "ping", None).map(drop)
    }

    async fn initialize(
        &self,
        request: InitializeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        let admitted = admitted(&context, "initialize", None)?;
        let result = self.negotiate_initialize(&request)?;
        let _ = admitted.ended.set(Ended::Answered);
        Ok(result)
    }

    async fn discover(&self, context: RequestContext<RoleServer>) -> Result<DiscoverResult, ErrorData> {
        admitted(&context, "server/discover", None)?;
        let versions = self.supported_protocol_versions().into_owned();
        Ok(DiscoverResult::from_server_info(versions, self.get_info()).with_ttl_ms(FRESH_MS))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.0.tools.find(name).map(|tool| tool.definition().clone())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let admitted = admitted(&context, "tools/list", None)?;
        let listed = |name| self.0.tools.decide_for(&admitted.caller, name).listed();
        let tools = self.0.tools.iter().filter(|tool| listed(tool.name()));
        let mut result =
            ListToolsResult::with_all_items(tools.map(|tool| tool.definition().clone()).collect());
        result.meta = self.meta(admitted.era);
        if admitted.era == Era::Modern {
            return Ok(result.with_ttl_ms(FRESH_MS).with_cache_scope(CacheScope::Private));
        }
        Ok(result)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let admitted = admitted(&context, "tools/call", Some(&request.name))?;
        let tools = &self.0.tools;
        let Some(tool) = tools.find(&request.name) else {
            return Err(ErrorData::internal_error("Internal error", None));
        };
        let mut result = match &admitted.decision {
            Decision::Allow => {
                let arguments = request.arguments.unwrap_or_default();
                let caller =
                    Caller { checked: &admitted.caller, resource: &self.0.resource, docs: &self.0.docs };
                tools.call(tool, arguments, caller).await
            }
            Decision::AboveCeiling { beyond } => Tools::withheld(&admitted.caller.token().client_id, beyond),
            Decision::ScopeMissing { .. } | Decision::NotEntitled | Decision::NoUser | Decision::Unknown => {
                return Err(ErrorData::internal_error("Internal error", None));
            }
        };
        let ended = if result.is_error == Some(true) { Ended::ToolError } else { Ended::Answered };
        let _ = admitted.ended.set(ended);
        result.meta = self.meta(admitted.era);
        Ok(CallToolResponse::Complete(result))
    }

    /// The gate hands on known methods only: one that comes out as custom has parameters that do
    /// not fit its method.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        _: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        let message = format!("Invalid params: they do not fit {}", request.method);
        Err(ErrorData::new(ErrorCode::INVALID_PARAMS, message, None))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Request;
    use http_body_util::{BodyExt, Full};
    use serde_json::{Value, json};

    use super::super::call::ToolCall;
    use super::*;
    use crate::testing::{App, NOW, bearer, token};

    /// Sends a call of `whoami` straight to the protocol library, past the gate.
    async fn past_the_gate(app: &App, admitted: Option<Admitted>) -> Value {
        let body = json!({
            "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": { "name": "whoami", "arguments": {} }
        });
        let mut request = Request::post("/")
            .header("host", "localhost")
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2025-11-25")
            .body(Full::new(Bytes::from(body.to_string())))
            .unwrap();
        if let Some(admitted) = admitted {
            request.extensions_mut().insert(admitted);
        }
        let response = app.resource.mcp().handle(request).await;
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    /// MCP-03: the handler does only what was decided on: this method, this name, and allowed.
    #[tokio::test]
    async fn what_was_not_admitted_is_not_done() {
        let app = App::start();
        let header = bearer(&token("docs.read")).parse().unwrap();
        let caller = app.resource.bearer().check(&header, NOW).unwrap();
        let tool =
            |name: &str| Call::Tool(ToolCall { name: name.to_owned(), arguments: serde_json::Map::new() });
        let admitted = |call: Call, decision: Decision| Admitted {
            call: Arc::new(call),
            era: Era::Legacy("2025-11-25"),
            decision,
            caller: caller.clone(),
            ended: Arc::new(OnceLock::new()),
        };
        for other in [
            None,
            Some(admitted(Call::Tools, Decision::Allow)),
            Some(admitted(Call::Ping, Decision::Allow)),
            Some(admitted(tool("docs_read"), Decision::Allow)),
            Some(admitted(tool("whoami"), Decision::NotEntitled)),
            Some(admitted(tool("whoami"), Decision::Unknown)),
            Some(admitted(tool("whoami"), Decision::ScopeMissing { needed: shared::Scope::empty() })),
        ] {
            assert_eq!(past_the_gate(&app, other).await["error"]["code"], -32603);
        }
        let good = admitted(tool("whoami"), Decision::Allow);
        assert_eq!(past_the_gate(&app, Some(good)).await["result"]["isError"], false);
    }
}

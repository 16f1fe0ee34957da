//! `initialize` and `server/discover`: this server's description, in the types of the protocol library.

use std::sync::LazyLock;

use rmcp::model::{
    DiscoverResult, Implementation, InitializeRequestParams, JsonObject, MetaObject, PromptsCapability,
    ProtocolVersion, ResourcesCapability, ServerCapabilities, ServerConfig, ToolsCapability,
};
use serde_json::{Map, Value, json};

use super::era::Era;
use crate::revision::SERVER_META;

/// How long a client may cache a list (MCP 2026-07-28, Caching). Lists change with entitlements.
pub(crate) const FRESH_MS: u64 = 60_000;
const INSTRUCTIONS: &str = "Portcullis guards this organisation's tools. Search the documentation with \
     docs_search and read it with docs_read. If a tool is missing or refused, whoami says what is granted.";

/// The supported revisions, newest first.
const VERSIONS: [ProtocolVersion; 4] = [
    ProtocolVersion::V_2026_07_28,
    ProtocolVersion::V_2025_11_25,
    ProtocolVersion::V_2025_06_18,
    ProtocolVersion::V_2025_03_26,
];

/// What this server does, for every caller: each list can be asked for, and may be empty. So a client learns nothing from
/// what is declared (MCP-09), and asks again for a list that was empty when its session began. Only sessions have a stream
/// in which changes can be told.
fn capabilities(tells_changes: bool) -> ServerCapabilities {
    let told = tells_changes.then_some(true);
    let (mut tools, mut prompts) = (ToolsCapability::default(), PromptsCapability::default());
    let mut resources = ResourcesCapability::default();
    (tools.list_changed, prompts.list_changed, resources.list_changed) = (told, told, told);
    let mut capabilities = ServerCapabilities::default();
    capabilities.tools = Some(tools);
    capabilities.prompts = Some(prompts);
    capabilities.resources = Some(resources);
    capabilities.completions = Some(JsonObject::new());
    capabilities
}

static DISCOVERED: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let result = DiscoverResult::from_server_info(VERSIONS.to_vec(), config(false)).with_ttl_ms(FRESH_MS);
    serde_json::to_vec(&result).expect("our own words are JSON")
});

fn config(tells_changes: bool) -> ServerConfig {
    let config = ServerConfig::new(capabilities(tells_changes));
    config.with_server_info(server()).with_instructions(INSTRUCTIONS)
}

fn server() -> Implementation {
    Implementation::new("portcullis", env!("CARGO_PKG_VERSION")).with_title("Portcullis")
}

/// The server's description in results of the modern era.
pub(crate) fn result_meta() -> String {
    let mut meta = MetaObject::default();
    let server = serde_json::to_value(server()).expect("our own words are JSON");
    meta.insert(SERVER_META.to_owned(), server);
    json!(meta).to_string()
}

/// The result of `server/discover`.
pub(super) fn discover() -> &'static [u8] {
    &DISCOVERED
}

/// The result of `initialize` in this era; `None` if the parameters are invalid.
pub(super) fn initialize(params: Map<String, Value>, era: Era) -> Option<Vec<u8>> {
    serde_json::from_value::<InitializeRequestParams>(Value::Object(params)).ok()?;
    let version = VERSIONS.into_iter().find(|version| version.as_str() == era.version())?;
    serde_json::to_vec(&config(true).with_protocol_version(version)).ok()
}

//! `initialize` and `server/discover`: what this server says of itself, in the protocol library's types.

use std::sync::LazyLock;

use rmcp::model::{
    DiscoverResult, Implementation, InitializeRequestParams, MetaObject, ProtocolVersion, ServerCapabilities,
    ServerConfig,
};
use serde_json::{Map, Value, json};

use super::era::Era;
use crate::revision::SERVER_META;

/// How long a client may keep a list (MCP 2026-07-28, Caching). Entitlements change; lists follow.
pub(crate) const FRESH_MS: u64 = 60_000;
const INSTRUCTIONS: &str = "Portcullis guards this organisation's tools. Search the documentation with \
     docs_search and read it with docs_read. If a tool is missing or refused, whoami says what is granted.";

/// The revisions that this server speaks, newest first.
const VERSIONS: [ProtocolVersion; 4] = [
    ProtocolVersion::V_2026_07_28,
    ProtocolVersion::V_2025_11_25,
    ProtocolVersion::V_2025_06_18,
    ProtocolVersion::V_2025_03_26,
];

static DISCOVERED: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let result = DiscoverResult::from_server_info(VERSIONS.to_vec(), config()).with_ttl_ms(FRESH_MS);
    serde_json::to_vec(&result).expect("our own words are JSON")
});

fn config() -> ServerConfig {
    let server = Implementation::new("portcullis", env!("CARGO_PKG_VERSION")).with_title("Portcullis");
    ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
        .with_server_info(server)
        .with_instructions(INSTRUCTIONS)
}

/// What newer results say of who made them.
pub(crate) fn result_meta() -> String {
    let mut meta = MetaObject::default();
    let server = serde_json::to_value(config().server_info).expect("our own words are JSON");
    meta.insert(SERVER_META.to_owned(), server);
    json!(meta).to_string()
}

/// The result of `server/discover`.
pub(crate) fn discover() -> &'static [u8] {
    &DISCOVERED
}

/// The result of `initialize` in this era; `None` if the parameters do not fit the method.
pub(crate) fn initialize(params: Map<String, Value>, era: Era) -> Option<Vec<u8>> {
    serde_json::from_value::<InitializeRequestParams>(Value::Object(params)).ok()?;
    let version = VERSIONS.into_iter().find(|version| version.as_str() == era.version())?;
    serde_json::to_vec(&config().with_protocol_version(version)).ok()
}

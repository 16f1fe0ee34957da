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

/// Of which kinds there is something for the caller to see, beside tools.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Shown {
    pub(super) prompts: bool,
    pub(super) resources: bool,
    pub(super) completions: bool,
}

impl Shown {
    const VARIANTS: usize = 8;

    /// Its place among all that there can be.
    fn index(self) -> usize {
        usize::from(self.prompts) << 2 | usize::from(self.resources) << 1 | usize::from(self.completions)
    }

    fn at(index: usize) -> Self {
        let bit = |bit: usize| index >> bit & 1 == 1;
        Self { prompts: bit(2), resources: bit(1), completions: bit(0) }
    }

    /// What is declared. Only sessions have a stream in which changes can be told.
    fn capabilities(self, tells_changes: bool) -> ServerCapabilities {
        let told = tells_changes.then_some(true);
        let mut capabilities = ServerCapabilities::builder().enable_tools().build();
        let mut tools = ToolsCapability::default();
        tools.list_changed = told;
        capabilities.tools = Some(tools);
        if self.prompts {
            let mut prompts = PromptsCapability::default();
            prompts.list_changed = told;
            capabilities.prompts = Some(prompts);
        }
        if self.resources {
            let mut resources = ResourcesCapability::default();
            resources.list_changed = told;
            capabilities.resources = Some(resources);
        }
        if self.completions {
            capabilities.completions = Some(JsonObject::new());
        }
        capabilities
    }
}

static DISCOVERED: LazyLock<[Vec<u8>; Shown::VARIANTS]> = LazyLock::new(|| {
    std::array::from_fn(|index| {
        let config = config(Shown::at(index).capabilities(false));
        let result = DiscoverResult::from_server_info(VERSIONS.to_vec(), config).with_ttl_ms(FRESH_MS);
        serde_json::to_vec(&result).expect("our own words are JSON")
    })
});

fn config(capabilities: ServerCapabilities) -> ServerConfig {
    ServerConfig::new(capabilities).with_server_info(server()).with_instructions(INSTRUCTIONS)
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
pub(super) fn discover(shown: Shown) -> &'static [u8] {
    &DISCOVERED[shown.index()]
}

/// The result of `initialize` in this era; `None` if the parameters are invalid.
pub(super) fn initialize(params: Map<String, Value>, era: Era, shown: Shown) -> Option<Vec<u8>> {
    serde_json::from_value::<InitializeRequestParams>(Value::Object(params)).ok()?;
    let version = VERSIONS.into_iter().find(|version| version.as_str() == era.version())?;
    let config = config(shown.capabilities(true));
    serde_json::to_vec(&config.with_protocol_version(version)).ok()
}

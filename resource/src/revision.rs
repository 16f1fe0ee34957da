//! The supported revisions of MCP, for clients and upstreams.

/// The revision in which every request states its own version and capabilities.
pub(crate) const MODERN: &str = "2026-07-28";
/// The revisions that start with `initialize`, newest first.
pub(crate) const LEGACY: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];

pub(crate) const VERSION_HEADER: &str = "mcp-protocol-version";
pub(crate) const VERSION_META: &str = "io.modelcontextprotocol/protocolVersion";
pub(crate) const CAPABILITIES_META: &str = "io.modelcontextprotocol/clientCapabilities";
pub(crate) const SERVER_META: &str = "io.modelcontextprotocol/serverInfo";

/// The kind of revision that a request or a server uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Era {
    Modern,
    /// With the negotiated or proposed revision.
    Legacy(&'static str),
}

impl Era {
    /// The revision, as in the header.
    pub(crate) fn version(self) -> &'static str {
        match self {
            Self::Modern => MODERN,
            Self::Legacy(version) => version,
        }
    }
}

/// A known legacy revision.
pub(crate) fn legacy(version: &str) -> Option<&'static str> {
    LEGACY.into_iter().find(|known| *known == version)
}

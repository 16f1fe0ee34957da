//! The revisions of MCP that are spoken here, towards clients and towards upstreams.

/// The revision in which every request carries its own version and capabilities.
pub(crate) const MODERN: &str = "2026-07-28";
/// The revisions that begin with `initialize`, newest first.
pub(crate) const LEGACY: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];

pub(crate) const VERSION_HEADER: &str = "mcp-protocol-version";
pub(crate) const VERSION_META: &str = "io.modelcontextprotocol/protocolVersion";
pub(crate) const CAPABILITIES_META: &str = "io.modelcontextprotocol/clientCapabilities";
pub(crate) const SERVER_META: &str = "io.modelcontextprotocol/serverInfo";

/// What a request, or a server, turned out to speak.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Era {
    Modern,
    /// With the revision that was negotiated, or is to be.
    Legacy(&'static str),
}

impl Era {
    /// The revision, as the header names it.
    pub(crate) fn version(self) -> &'static str {
        match self {
            Self::Modern => MODERN,
            Self::Legacy(version) => version,
        }
    }
}

/// A legacy revision that is known.
pub(crate) fn legacy(version: &str) -> Option<&'static str> {
    LEGACY.into_iter().find(|known| *known == version)
}

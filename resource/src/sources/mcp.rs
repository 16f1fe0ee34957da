//! The MCP client for all upstreams: JSON-RPC whose results stay as they were written (SRC-05).

pub(crate) mod client;
pub(crate) mod definition;
mod events;
pub(crate) mod failed;
mod handshake;
pub(crate) mod link;
pub(crate) mod message;
pub(crate) mod mirror;
mod pipes;
pub(crate) mod processes;
pub(crate) mod request;
pub(crate) mod result;
mod room;
pub(crate) mod speaks;
#[cfg(test)]
pub(crate) mod testing;
mod unsaid;
pub(crate) mod walk;
mod wire;

pub(crate) use wire::Heard;

/// Errors that the upstream answers with before it runs anything (SRC-08).
pub(crate) const HEADER_MISMATCH: i64 = -32020;
pub(crate) const MISSING_CAPABILITY: i64 = -32021;
pub(crate) const UNSUPPORTED_VERSION: i64 = -32022;
/// There is no such method (JSON-RPC 2.0 §5.1).
pub(crate) const METHOD_NOT_FOUND: i64 = -32601;

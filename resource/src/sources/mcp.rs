//! The thin MCP client that all upstreams share: JSON-RPC whose results stay as they were written (SRC-05).

pub(crate) mod client;
pub(crate) mod definition;
mod events;
pub(crate) mod failed;
pub(crate) mod message;
pub(crate) mod mirror;
pub(crate) mod result;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod walk;
mod wire;

pub(crate) use wire::Heard;

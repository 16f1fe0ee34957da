//! The MCP endpoint: a gate that decides about every request, and behind it the protocol library,
//! which sees nothing but what the gate wrote itself.

pub(crate) mod arguments;
mod call;
mod era;
mod exchange;
mod front;
pub(crate) mod gate;
pub(crate) mod handler;
mod media;
mod message;
pub(crate) mod mirror;
pub(crate) mod record;
pub(crate) mod refusal;
pub(crate) mod session;
pub(crate) mod stream;
pub(crate) mod tools;

pub(crate) use front::Front;

//! The front door: everything between a socket and a router.

pub(crate) mod entrance;
pub(crate) mod http;
pub mod listen;
pub mod proxies;
pub mod tls;

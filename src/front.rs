//! The front end: everything between a socket and a router.

pub mod address;
pub mod config;
pub(crate) mod entrance;
pub(crate) mod http;
pub mod listen;
pub mod proxies;
pub mod tls;

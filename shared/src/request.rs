//! The request context in audit records.

use std::net::IpAddr;

use crate::id::public_random_128;

/// The request of an action: its id and its address.
#[derive(Clone, Debug)]
pub struct Request {
    /// `r_…`, made here. It is in logs, audit records and error pages.
    pub id: String,
    /// The peer's address; `None` for the console.
    pub address: Option<IpAddr>,
}

impl Request {
    /// A new request from this address.
    pub fn from(address: Option<IpAddr>) -> Self {
        Self { id: format!("r_{}", public_random_128()), address }
    }
}

//! What every record of a request says about where it came from.

use std::net::IpAddr;

use crate::id::public_random_128;

/// The request that an action belongs to: its id, and the address it came from.
#[derive(Clone, Debug)]
pub struct Request {
    /// `r_…`, made here; it stands in logs, audit records and error pages.
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

//! What servers behind the gate are built with, besides what the configuration says of each.

use keys::identity::Identities;
use keys::secrets::Secrets;
use shared::outbound::memory::Memory;
use shared::{Clock, Db, Issuer};

use super::mcp::processes::Launching;

/// What servers are built with.
#[derive(Clone)]
pub struct Means {
    /// For telling a server who asks; a gateway alone has none.
    pub identities: Option<Identities>,
    /// The sealed store; a gateway alone has none.
    pub secrets: Option<Secrets>,
    pub issuer: Issuer,
    pub db: Db,
    pub clock: Clock,
    /// For what they answer (RATE-07).
    pub memory: Memory,
    /// For those that are programs.
    pub launching: Launching,
}

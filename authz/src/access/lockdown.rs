//! Everything ends at once: for the day on which nobody knows yet what was stolen.

use serde::{Deserialize, Serialize};
use shared::audit::{self, Event, Name};
use shared::{Fault, Tx};

use crate::Authz;
use crate::store::everything;
use crate::store::grants::Reason;

/// What a lockdown ends.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct BlastRadius {
    /// What people let clients do.
    pub grants: u32,
    /// People who did.
    pub users: u32,
    /// Clients that have any of it.
    pub clients: u32,
    /// What clients hold in their own name.
    pub client_grants: u32,
    /// Browsers that are signed in.
    pub sessions: u32,
    /// Setup and enrolment links that were not used.
    pub links: u32,
    /// Sign-ins and devices that wait for somebody.
    pub waiting: u32,
}

/// What a lockdown would end now.
///
/// # Errors
/// The database's fault.
pub fn measure(tx: &Tx<'_>) -> Result<BlastRadius, Fault> {
    let counts = everything::count(tx, tx.now())?;
    Ok(BlastRadius {
        grants: counts.grants,
        users: counts.users,
        clients: counts.clients,
        client_grants: counts.client_grants,
        sessions: counts.sessions,
        links: counts.links,
        waiting: counts.waiting,
    })
}

/// Ends it: every token issued so far is refused from the next request on, every grant and session ends, links and
/// requests that wait are void, and nothing that was allowed is remembered. Passkeys, clients and their credentials
/// stay: whoever has one of those can come back.
///
/// # Errors
/// The database's fault.
pub fn lock_down(authz: &Authz, tx: &Tx<'_>, uid: u32) -> Result<BlastRadius, Fault> {
    let ended = measure(tx)?;
    everything::end(tx, Reason::Lockdown)?;
    authz.status.void_tokens_so_far(tx)?;
    let event = Event::allowed(Name::TokenRevoked)
        .by_console(uid)
        .detail("token", "everything")
        .detail("grants_ended", ended.grants)
        .detail("client_grants_ended", ended.client_grants)
        .detail("sessions_ended", ended.sessions)
        .detail("links_voided", ended.links)
        .detail("requests_cancelled", ended.waiting);
    audit::append(tx, event)?;
    Ok(ended)
}

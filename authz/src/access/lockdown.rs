//! Lockdown: ends all access at once, for an incident whose extent is not known yet.

use serde::{Deserialize, Serialize};
use shared::audit::{self, Event, Name};
use shared::db::Conn;
use shared::{Fault, Timestamp, Tx};

use crate::Authz;
use crate::store::everything::{self, Counts};

/// What a lockdown ends.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct BlastRadius {
    /// Grants of users to clients; `None` if there was no time to count them.
    #[serde(flatten)]
    pub held: Option<AccessCounts>,
    /// Grants that clients hold in their own name.
    pub client_grants: u32,
    /// Signed-in browser sessions.
    pub sessions: u32,
    /// Unused setup and enrolment links.
    pub links: u32,
    /// Pending sign-ins and device authorizations.
    pub waiting: u32,
    /// Initial access tokens, which let clients register.
    pub registration_tokens: u32,
}

/// Counts of what users let clients do.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct AccessCounts {
    pub grants: u32,
    /// Users who have a live grant.
    pub users: u32,
    /// Clients that have a live grant.
    pub clients: u32,
}

impl BlastRadius {
    fn of(counts: Counts) -> Self {
        Self {
            held: None,
            client_grants: counts.client_grants,
            sessions: counts.sessions,
            links: counts.links,
            waiting: counts.waiting,
            registration_tokens: counts.initial_access_tokens,
        }
    }
}

/// Counts what a lockdown would end now. It reads every grant, so it must not run on the writer.
///
/// # Errors
/// A database fault.
pub fn measure(authz: &Authz, conn: &Conn<'_>) -> Result<BlastRadius, Fault> {
    let now = authz.clock.now();
    let counts = everything::count(conn, now)?;
    let held = Locked { before: everything::ended_until(conn)?, at: now }.held(conn)?;
    Ok(BlastRadius { held: Some(held), ..BlastRadius::of(counts) })
}

/// A lockdown that has happened.
#[derive(Clone, Copy, Debug)]
pub struct Locked {
    /// When the previous lockdown was.
    before: Option<Timestamp>,
    at: Timestamp,
}

impl Locked {
    /// Counts the grants of users that this lockdown ended.
    ///
    /// # Errors
    /// A database fault.
    pub fn held(self, conn: &Conn<'_>) -> Result<AccessCounts, Fault> {
        let counted = everything::count_grants(conn, self.before, self.at)?;
        Ok(AccessCounts { grants: counted.count, users: counted.users, clients: counted.clients })
    }
}

/// Performs a lockdown. Every token issued so far is refused from the next request on; every grant and session
/// ends; links, initial access tokens and pending requests are void; consents are forgotten. Passkeys, clients
/// and their credentials stay, so their owners can sign in again.
///
/// Takes the same time however many grants there are; they can be counted later.
///
/// # Errors
/// A database fault.
pub fn lock_down(authz: &Authz, tx: &Tx<'_>, uid: u32) -> Result<(BlastRadius, Locked), Fault> {
    let ended = BlastRadius::of(everything::count(tx, tx.now())?);
    let locked = Locked { before: everything::ended_until(tx)?, at: tx.now() };
    everything::end(tx)?;
    authz.status.void_tokens_so_far(tx)?;
    let event = Event::allowed(Name::TokenRevoked)
        .by_console(uid)
        .detail("token", "everything")
        .detail("client_grants_ended", ended.client_grants)
        .detail("sessions_ended", ended.sessions)
        .detail("links_voided", ended.links)
        .detail("registration_tokens_voided", ended.registration_tokens)
        .detail("requests_cancelled", ended.waiting);
    audit::append(tx, event)?;
    Ok((ended, locked))
}

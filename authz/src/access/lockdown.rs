//! Everything ends at once: for the day on which nobody knows yet what was stolen.

use serde::{Deserialize, Serialize};
use shared::audit::{self, Event, Name};
use shared::db::Conn;
use shared::{Fault, Timestamp, Tx};

use crate::Authz;
use crate::store::everything::{self, Counts};

/// What a lockdown ends.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct BlastRadius {
    /// Of what people let clients do; none if there was no time to count it.
    #[serde(flatten)]
    pub held: Option<Held>,
    /// What clients hold in their own name.
    pub client_grants: u32,
    /// Browsers that are signed in.
    pub sessions: u32,
    /// Setup and enrolment links that were not used.
    pub links: u32,
    /// Sign-ins and devices that wait for somebody.
    pub waiting: u32,
    /// Initial access tokens: links for clients.
    pub registration_tokens: u32,
}

/// What people let clients do.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Held {
    pub grants: u32,
    /// People who did.
    pub users: u32,
    /// Clients that have any of it.
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

/// What a lockdown would end now. It looks at every grant, so it is no work for the writer.
///
/// # Errors
/// The database's fault.
pub fn measure(authz: &Authz, conn: &Conn<'_>) -> Result<BlastRadius, Fault> {
    let now = authz.clock.now();
    let counts = everything::count(conn, now)?;
    let held = Locked { before: everything::ended_until(conn)?, at: now }.held(conn)?;
    Ok(BlastRadius { held: Some(held), ..BlastRadius::of(counts) })
}

/// A lockdown that was made.
#[derive(Clone, Copy, Debug)]
pub struct Locked {
    /// The one before it.
    before: Option<Timestamp>,
    at: Timestamp,
}

impl Locked {
    /// What people had let clients do until then.
    ///
    /// # Errors
    /// The database's fault.
    pub fn held(self, conn: &Conn<'_>) -> Result<Held, Fault> {
        let counted = everything::count_grants(conn, self.before, self.at)?;
        Ok(Held { grants: counted.count, users: counted.users, clients: counted.clients })
    }
}

/// Ends it: every token issued so far is refused from the next request on, every grant and session ends, links,
/// initial access tokens and requests that wait are void, and nothing that was allowed is remembered. Passkeys, clients
/// and their credentials stay: whoever has one of those can come back.
///
/// It takes the same time however many grants there are; they can be counted later.
///
/// # Errors
/// The database's fault.
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

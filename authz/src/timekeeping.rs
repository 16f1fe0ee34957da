//! Confirms a clock that was set back (OPS-04).

use keys::{Cause, NewKey};
use serde::{Deserialize, Serialize};
use shared::audit::{self, Event, Name};
use shared::timekeeping::{self, Refusal};
use shared::{Fault, Timestamp, Tx};

use crate::Authz;
use crate::store::grants::Reason;
use crate::store::{everything, future};

/// What confirming the clock ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Confirmed {
    /// The latest time known before.
    pub before: Timestamp,
    /// The time from now on.
    pub now: Timestamp,
    pub grants_ended: usize,
    pub sessions_ended: usize,
    pub keys_replaced: usize,
}

/// Makes the new signing keys for a confirmation. Slow, so call it before the job.
///
/// # Errors
/// A fault of the database or of the cryptographic library.
pub fn prepare(authz: &Authz) -> Result<Vec<NewKey>, Fault> {
    let algorithms = authz.db.read(|conn| authz.keys.active_algorithms(conn))?;
    let made = algorithms.into_iter().map(NewKey::generate).collect::<Result<_, _>>();
    made.map_err(|error| Fault::Storage(error.to_string()))
}

/// Accepts the machine's clock although it was set back. Grants, sessions and links made in the future time
/// would last too long, so they end, as do older grants that were refreshed in it, and all access tokens (by
/// new signing keys). Older refresh tokens continue.
///
/// # Errors
/// A database fault.
pub fn confirm(
    authz: &Authz,
    tx: &Tx<'_>,
    uid: u32,
    made: &[NewKey],
) -> Result<Result<Confirmed, Refusal>, Fault> {
    if !authz.clock.is_behind() {
        return Ok(Err(Refusal::NotBehind));
    }
    let before = tx.now();
    let now = timekeeping::restart(tx, &authz.clock)?;
    let ended = future::revoke_grants(tx, now, Reason::ClockSetBack)?;
    for grant in &ended {
        authz.status.kill_grant(tx, grant);
    }
    authz.status.clock_was_set_back(tx, now)?;
    everything::clock_was_set_back(tx, now)?;
    let sessions_ended = future::forget(tx, now)?;
    authz.status.secrets_were_moved(tx, now)?;
    let confirmed = Confirmed {
        before,
        now,
        grants_ended: ended.len(),
        sessions_ended,
        keys_replaced: authz.keys.replace_all(tx, made, now, Cause::console(uid, "clock_set_back"))?,
    };
    let event = Event::allowed(Name::ClockStep)
        .by_console(uid)
        .detail("confirmed", true)
        .detail("before", before.to_string())
        .detail("after", now.to_string())
        .detail("grants_ended", confirmed.grants_ended)
        .detail("sessions_ended", confirmed.sessions_ended);
    audit::append(tx, event)?;
    Ok(Ok(confirmed))
}

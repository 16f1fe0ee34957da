//! A clock that was set back, at a gateway alone: it issues nothing, and goes by the time that it told before (OPS-04).

use serde::{Deserialize, Serialize};
use shared::audit::{self, Event, Name};
use shared::timekeeping::{self, Refusal};
use shared::{Clock, Fault, Timestamp, Tx};

use crate::store::sessions;

/// What taking the machine's clock for right ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Confirmed {
    /// The time that decided before.
    pub before: Timestamp,
    /// Time in use now.
    pub now: Timestamp,
    /// MCP sessions of the time that is yet to come.
    pub sessions_ended: usize,
}

/// Takes the machine's clock for right, although it was set back. Whether a token is good, its issuer says.
///
/// # Errors
/// A database fault.
pub fn confirm(tx: &Tx<'_>, clock: &Clock, uid: u32) -> Result<Result<Confirmed, Refusal>, Fault> {
    if !clock.is_behind() {
        return Ok(Err(Refusal::NotBehind));
    }
    let before = tx.now();
    let now = timekeeping::restart(tx, clock)?;
    let confirmed = Confirmed { before, now, sessions_ended: sessions::forget(tx, now)? };
    let event = Event::allowed(Name::ClockStep)
        .by_console(uid)
        .detail("confirmed", true)
        .detail("before", before.to_string())
        .detail("after", now.to_string())
        .detail("sessions_ended", confirmed.sessions_ended);
    audit::append(tx, event)?;
    Ok(Ok(confirmed))
}

//! Confirms a clock that was set back, at a gateway alone. It issues nothing, and uses the time that it
//! returned before (OPS-04).

use serde::{Deserialize, Serialize};
use shared::audit::{self, Event, Name};
use shared::timekeeping::{self, Refusal};
use shared::{Clock, Fault, Timestamp, Tx};

use crate::store::{call_counts, sessions};

/// What confirming the clock ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Confirmed {
    /// The latest time known before.
    pub before: Timestamp,
    /// The time from now on.
    pub now: Timestamp,
    /// MCP sessions dated in the future.
    pub sessions_ended: usize,
}

/// Accepts the machine's clock although it was set back. The issuer decides whether tokens are valid.
///
/// # Errors
/// A database fault.
pub fn confirm(tx: &Tx<'_>, clock: &Clock, uid: u32) -> Result<Result<Confirmed, Refusal>, Fault> {
    if !clock.is_behind() {
        return Ok(Err(Refusal::NotBehind));
    }
    let before = tx.now();
    let now = timekeeping::restart(tx, clock)?;
    call_counts::no_later_than(tx, now)?;
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

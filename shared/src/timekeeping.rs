//! The latest time, kept in the database so that time does not go back across a restart either (OPS-04).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Clock, Moment, Timestamp};
use crate::db::{Conn, Fault, Tx, params};

/// How often it is written while there is other work.
const EVERY: Duration = Duration::from_secs(1);
const READ: &str = "SELECT value FROM setting WHERE name = ?1";
const WRITE: &str =
    "INSERT INTO setting (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2";
/// The setting with the latest time, in Unix milliseconds.
const TIME: &str = "time";
/// The setting with the latest time and the moment when it was written: the boot id, milliseconds since boot,
/// the time.
const MOMENT: &str = "time_moment";

/// The readings of the clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Time {
    /// The time in use.
    pub now: Timestamp,
    /// The machine's clock.
    pub clock: Timestamp,
    /// Milliseconds by which the machine's clock is behind.
    pub behind_ms: u64,
    /// Whether issuance is paused because of it.
    pub paused: bool,
}

impl Time {
    /// The current readings.
    pub fn of(clock: &Clock) -> Self {
        Self {
            now: clock.now(),
            clock: clock.wall(),
            behind_ms: u64::try_from(clock.behind().as_millis()).unwrap_or(u64::MAX),
            paused: clock.is_behind(),
        }
    }
}

/// Why a command refuses to confirm the clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// The clock is not behind.
    #[error("the clock is not behind: there is nothing to confirm")]
    NotBehind,
}

/// What the writer last stored.
pub(crate) struct Mark {
    clock: Clock,
    kept: Option<Timestamp>,
}

impl Mark {
    /// Reads what an earlier process stored, and continues the clock from there. The time in between is added
    /// if the machine has not been restarted since; otherwise it is unknown.
    pub(crate) fn load(conn: &Conn<'_>, clock: &Clock) -> Result<Self, Fault> {
        let read = |name: &str| -> Result<Option<String>, Fault> {
            conn.query_row(READ, params![name], |row| row.get(0))
        };
        let kept = match read(TIME)? {
            None => None,
            Some(text) => {
                let bad = |_| Fault::Corrupt("the stored time is not a number".to_owned());
                Some(Timestamp(text.parse().map_err(bad)?))
            }
        };
        if let Some(kept) = kept {
            let moment = read(MOMENT)?.and_then(|text| written_at(&text, kept));
            clock.at_least(kept + gone_by(moment, clock.moment()));
        }
        Ok(Self { clock: clock.clone(), kept })
    }

    /// Stores the time in the transaction of a batch, unless it was stored a moment ago.
    pub(crate) fn keep(&mut self, conn: &Conn<'_>, now: Timestamp) -> Result<(), Fault> {
        if self.kept.is_some_and(|kept| kept <= now && now.since(kept) < EVERY) {
            return Ok(());
        }
        for (name, value) in rows(&self.clock, now) {
            conn.change(WRITE, params![name, value])?;
        }
        self.kept = Some(now);
        Ok(())
    }
}

fn rows(clock: &Clock, now: Timestamp) -> [(&'static str, String); 2] {
    let moment = clock
        .moment()
        .map(|Moment { boot, since_boot }| format!("{boot} {} {}", since_boot.as_millis(), now.0));
    [(TIME, now.0.to_string()), (MOMENT, moment.unwrap_or_default())]
}

/// The moment when this time was stored, if the text belongs to this time.
fn written_at(text: &str, kept: Timestamp) -> Option<Moment> {
    let mut words = text.split(' ');
    let (boot, since_boot, time) = (words.next()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let moment = Moment { boot: boot.to_owned(), since_boot: Duration::from_millis(since_boot) };
    (Timestamp(time) == kept).then_some(moment)
}

fn gone_by(then: Option<Moment>, now: Option<Moment>) -> Duration {
    match (then, now) {
        (Some(then), Some(now)) if then.boot == now.boot => now.since_boot.saturating_sub(then.since_boot),
        _ => Duration::ZERO,
    }
}

/// Accepts the machine's clock from the commit on, although it was set back. Answers with its time.
///
/// # Errors
/// A database fault.
pub fn restart(tx: &Tx<'_>, clock: &Clock) -> Result<Timestamp, Fault> {
    let wall = clock.wall();
    for (name, value) in rows(clock, wall) {
        tx.execute(WRITE, params![name, value])?;
    }
    let clock = clock.clone();
    tx.after_commit(move || clock.restart());
    Ok(wall)
}

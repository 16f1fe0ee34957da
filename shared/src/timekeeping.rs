//! The latest time that was told, kept in the database, so that it does not go back across a restart
//! either (OPS-04).

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use crate::clock::{Clock, Timestamp};
use crate::db::{Fault, Tx};

/// How often it is written while there is other work.
const EVERY: Duration = Duration::from_secs(1);
const WRITE: &str =
    "INSERT INTO setting (name, value) VALUES ('time', ?1) ON CONFLICT (name) DO UPDATE SET value = ?1";

/// What the writer remembers of what it wrote.
pub(crate) struct Mark(Option<Timestamp>);

impl Mark {
    /// Reads what an earlier process left, and has the clock go on from there.
    pub(crate) fn load(connection: &Connection, clock: &Clock) -> Result<Self, Fault> {
        let text: Option<String> = connection
            .query_row("SELECT value FROM setting WHERE name = 'time'", [], |row| row.get(0))
            .optional()?;
        let kept = match text {
            None => None,
            Some(text) => {
                let bad = |_| Fault::Corrupt("the time that was kept is no number".to_owned());
                Some(Timestamp(text.parse().map_err(bad)?))
            }
        };
        if let Some(kept) = kept {
            clock.at_least(kept);
        }
        Ok(Self(kept))
    }

    /// Writes the time, in the transaction of a batch, if it was not written a moment ago.
    pub(crate) fn keep(&mut self, connection: &Connection, now: Timestamp) -> Result<(), Fault> {
        if self.0.is_some_and(|kept| kept <= now && now.since(kept) < EVERY) {
            return Ok(());
        }
        connection.prepare_cached(WRITE)?.execute(params![now.0.to_string()])?;
        self.0 = Some(now);
        Ok(())
    }
}

/// Takes the machine's clock for right from the commit on, although it was set back. Answers with the
/// time that it says.
///
/// # Errors
/// The database's fault.
pub fn restart(tx: &Tx<'_>, clock: &Clock) -> Result<Timestamp, Fault> {
    let wall = clock.wall();
    tx.execute(WRITE, params![wall.0.to_string()])?;
    let clock = clock.clone();
    tx.after_commit(move || clock.restart());
    Ok(wall)
}

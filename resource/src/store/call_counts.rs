//! Calls that count against limits whose window is an hour or longer (LIMIT-02).

use std::time::Duration;

use shared::db::{Conn, params};
use shared::{Digest, Fault, Timestamp, Tx};

use crate::call_limits::LONGEST;

/// What is counted together, by a digest of what and whose, and how long it is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Counter {
    pub(crate) digest: Digest,
    pub(crate) keep: Duration,
}

/// When a further call may be made, if `most` were made within `window`.
///
/// A call counts while less than the window has passed since it. One that is dated in the future, because the clock was wrong
/// then, counts from now on, so that it is neither forgotten nor counted until that time (OPS-04).
pub(crate) fn full_until(
    tx: &Tx<'_>,
    counter: &Digest,
    most: u32,
    window: Duration,
) -> Result<Option<Timestamp>, Fault> {
    let before = i64::from(most) - 1;
    let newest = "SELECT counted_at FROM call_count WHERE counter = ?1 AND counted_at > ?2 ORDER BY counted_at DESC LIMIT 1 OFFSET ?3";
    let decisive: Option<Timestamp> =
        tx.query_row(newest, params![counter, tx.now() - window, before], |row| row.get(0))?;
    Ok(decisive.map(|at| at + window))
}

/// Forgets what no longer counts, and moves to now what is dated in the future.
pub(crate) fn tidy(tx: &Tx<'_>, counter: &Counter) -> Result<(), Fault> {
    let now = tx.now();
    tx.execute(
        "UPDATE call_count SET counted_at = ?2 WHERE counter = ?1 AND counted_at > ?2",
        params![counter.digest, now],
    )?;
    let gone = "DELETE FROM call_count WHERE counter = ?1 AND counted_at <= ?2";
    tx.execute(gone, params![counter.digest, now - counter.keep])?;
    Ok(())
}

/// Counts a call.
pub(crate) fn add(tx: &Tx<'_>, counter: &Digest, call: &str) -> Result<(), Fault> {
    let insert = "INSERT INTO call_count (counter, counted_at, call) VALUES (?1, ?2, ?3)";
    tx.execute(insert, params![counter, tx.now(), call])?;
    Ok(())
}

/// Takes a call back that was never sent.
pub(crate) fn remove(tx: &Tx<'_>, counter: &Digest, call: &str) -> Result<(), Fault> {
    tx.execute("DELETE FROM call_count WHERE counter = ?1 AND call = ?2", params![counter, call])?;
    Ok(())
}

/// Whether [`sweep`] has anything to do.
pub(crate) fn any_to_sweep(conn: &Conn<'_>, now: Timestamp) -> Result<bool, Fault> {
    let oldest = "SELECT 1 FROM call_count WHERE counted_at <= ?1 LIMIT 1";
    Ok(conn.query_row(oldest, params![now - LONGEST], |_| Ok(()))?.is_some())
}

/// Forgets what counts against no limit that there can be.
pub(crate) fn sweep(tx: &Tx<'_>) -> Result<(), Fault> {
    tx.execute("DELETE FROM call_count WHERE counted_at <= ?1", params![tx.now() - LONGEST])?;
    Ok(())
}

/// Counts from now on what is dated later than now, after the clock was set back (OPS-04).
pub(crate) fn no_later_than(tx: &Tx<'_>, now: Timestamp) -> Result<(), Fault> {
    tx.execute("UPDATE call_count SET counted_at = ?1 WHERE counted_at > ?1", params![now])?;
    Ok(())
}

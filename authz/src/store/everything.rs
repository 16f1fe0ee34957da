//! Everything that was allowed, over all tables: counts it and ends it.
//!
//! There may be a million grants and as many remembered consents. A lockdown ends them by one setting: all that
//! were made until that moment have ended. Every query for live rows includes this condition.

use shared::db::{Conn, params};
use shared::{Fault, Timestamp, Tx};

use super::settings;

/// The setting for that moment: Unix milliseconds, as text.
const ENDED_UNTIL: &str = "everything_ended_until";

/// SQL for that moment, or for one before any other.
macro_rules! ended_until {
    () => {
        "(SELECT coalesce(max(CAST(value AS INTEGER)), -1) FROM setting WHERE name = 'everything_ended_until')"
    };
}
pub(crate) use ended_until as ended_until_sql;

/// SQL condition: row `g` of `access_grant` has ended neither by itself nor in a lockdown. It may have expired.
macro_rules! alive {
    () => {
        concat!("g.revoked_at IS NULL AND g.created_at > ", $crate::store::everything::ended_until_sql!())
    };
}
pub(crate) use alive;

/// Counts of everything that a lockdown ends, except grants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub client_grants: u32,
    pub sessions: u32,
    pub links: u32,
    pub waiting: u32,
    pub initial_access_tokens: u32,
}

/// Counts the live rows.
pub(crate) fn count(conn: &Conn<'_>, now: Timestamp) -> Result<Counts, Fault> {
    let counted = conn.query_row(
        "SELECT (SELECT count(*) FROM client_grant WHERE revoked_at IS NULL),
                (SELECT count(*) FROM session),
                (SELECT count(*) FROM link WHERE used_at IS NULL AND voided_at IS NULL AND expires_at > ?1),
                (SELECT count(*) FROM authorization_transaction WHERE decided_at IS NULL AND expires_at > ?1)
                    + (SELECT count(*) FROM device_authorization WHERE spent_at IS NULL AND expires_at > ?1),
                (SELECT count(*) FROM initial_access_token WHERE expires_at > ?1)",
        params![now],
        |row| {
            Ok(Counts {
                client_grants: row.get(0)?,
                sessions: row.get(1)?,
                links: row.get(2)?,
                waiting: row.get(3)?,
                initial_access_tokens: row.get(4)?,
            })
        },
    )?;
    counted.ok_or_else(nothing)
}

/// The grants of a period.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grants {
    pub count: u32,
    pub users: u32,
    pub clients: u32,
}

/// Counts the grants that were not ended one by one, were made after the first of these moments and not after
/// the second, and would have lasted beyond the second. Reads each of them.
pub(crate) fn count_grants(
    conn: &Conn<'_>,
    after: Option<Timestamp>,
    until: Timestamp,
) -> Result<Grants, Fault> {
    let counted = conn.query_row(
        "SELECT count(*), count(DISTINCT user_id), count(DISTINCT client_id) FROM access_grant
         WHERE revoked_at IS NULL AND created_at > coalesce(?1, -1) AND created_at <= ?2 AND expires_at > ?2",
        params![after, until],
        |row| Ok(Grants { count: row.get(0)?, users: row.get(1)?, clients: row.get(2)? }),
    )?;
    counted.ok_or_else(nothing)
}

fn nothing() -> Fault {
    Fault::Corrupt("a count without a number".to_owned())
}

/// The moment of the last lockdown; `None` if there was none.
pub(crate) fn ended_until(conn: &Conn<'_>) -> Result<Option<Timestamp>, Fault> {
    let Some(text) = settings::get(conn, ENDED_UNTIL)? else { return Ok(None) };
    let moment =
        text.parse().map_err(|_| Fault::Corrupt(format!("a setting {ENDED_UNTIL} that is not a time")))?;
    Ok(Some(Timestamp(moment)))
}

/// Whether there was a lockdown at this moment or later.
pub(crate) fn has_ended_since(conn: &Conn<'_>, moment: Timestamp) -> Result<bool, Fault> {
    Ok(ended_until(conn)?.is_some_and(|until| moment <= until))
}

/// Ends everything. The caller must also refuse all tokens issued so far.
pub(crate) fn end(tx: &Tx<'_>) -> Result<(), Fault> {
    let now = tx.now();
    // Only `clock_was_set_back` lowers this value.
    settings::put(tx, ENDED_UNTIL, &now.0.to_string())?;
    tx.execute("UPDATE client_grant SET revoked_at = ?1 WHERE revoked_at IS NULL", params![now])?;
    tx.execute("UPDATE link SET voided_at = ?1 WHERE used_at IS NULL AND voided_at IS NULL", params![now])?;
    for emptied in [
        "DELETE FROM session",
        "DELETE FROM ceremony",
        "DELETE FROM authorization_transaction",
        "DELETE FROM device_authorization",
        "DELETE FROM initial_access_token",
    ] {
        tx.execute(emptied, [])?;
    }
    Ok(())
}

/// Adapts to a clock that was set back to before that moment: rows made from now on are live. Grants made in
/// the future time were ended one by one; consents of that time are forgotten here.
pub(crate) fn clock_was_set_back(tx: &Tx<'_>, now: Timestamp) -> Result<(), Fault> {
    if ended_until(tx)?.is_some_and(|until| until > now) {
        tx.execute("DELETE FROM consent WHERE granted_at > ?1", params![now])?;
        settings::put(tx, ENDED_UNTIL, &now.0.to_string())?;
    }
    Ok(())
}

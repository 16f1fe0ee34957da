//! Everything that somebody was let do, over all tables: counted, and ended.
//!
//! There may be a million grants, and as many remembered consents. They end by one number: the moment until which all
//! have ended that were made. Whoever asks for what is alive asks for that too.

use shared::db::{Conn, params};
use shared::{Fault, Timestamp, Tx};

use super::settings;

/// The setting with that moment: Unix milliseconds, as text.
const ENDED_UNTIL: &str = "everything_ended_until";

/// That moment, or one before any other.
macro_rules! ended_until {
    () => {
        "(SELECT coalesce(max(CAST(value AS INTEGER)), -1) FROM setting WHERE name = 'everything_ended_until')"
    };
}
pub(crate) use ended_until as ended_until_sql;

/// Whether a row `g` of `access_grant` has not ended, neither by itself nor with everything; it may have run out.
macro_rules! alive {
    () => {
        concat!("g.revoked_at IS NULL AND g.created_at > ", $crate::store::everything::ended_until_sql!())
    };
}
pub(crate) use alive;

/// How much there is of everything that can be ended, save grants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub client_grants: u32,
    pub sessions: u32,
    pub links: u32,
    pub waiting: u32,
    pub initial_access_tokens: u32,
}

/// Counts what is alive.
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

/// The grants of a span of time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grants {
    pub count: u32,
    pub users: u32,
    pub clients: u32,
}

/// Counts the grants that nobody ended one by one and that were made after the first of these moments, not after the
/// second, and would have lasted longer than that. It looks at each of them.
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

/// The moment until which everything has ended; none if nothing ever ended it.
pub(crate) fn ended_until(conn: &Conn<'_>) -> Result<Option<Timestamp>, Fault> {
    let Some(text) = settings::get(conn, ENDED_UNTIL)? else { return Ok(None) };
    let moment =
        text.parse().map_err(|_| Fault::Corrupt(format!("a setting {ENDED_UNTIL} that is not a time")))?;
    Ok(Some(Timestamp(moment)))
}

/// Whether everything was ended at this moment or later.
pub(crate) fn has_ended_since(conn: &Conn<'_>, moment: Timestamp) -> Result<bool, Fault> {
    Ok(ended_until(conn)?.is_some_and(|until| moment <= until))
}

/// Ends all of it. Whoever calls this lets no token count that was issued so far.
pub(crate) fn end(tx: &Tx<'_>) -> Result<(), Fault> {
    let now = tx.now();
    // Time never goes back while this is larger (`clock_was_set_back`).
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

/// The clock was set back behind that moment: what is made from now on counts. Grants of the time that is yet to come
/// again were ended one by one; what was remembered in it is forgotten here.
pub(crate) fn clock_was_set_back(tx: &Tx<'_>, now: Timestamp) -> Result<(), Fault> {
    if ended_until(tx)?.is_some_and(|until| until > now) {
        tx.execute("DELETE FROM consent WHERE granted_at > ?1", params![now])?;
        settings::put(tx, ENDED_UNTIL, &now.0.to_string())?;
    }
    Ok(())
}

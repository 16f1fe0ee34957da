//! Everything that somebody was let do, over all tables: counted, and ended.

use shared::db::{Conn, params};
use shared::{Fault, Timestamp, Tx};

use super::grants::Reason;

/// How much there is of everything that can be ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub grants: u32,
    pub users: u32,
    pub clients: u32,
    pub client_grants: u32,
    pub sessions: u32,
    pub links: u32,
    pub waiting: u32,
}

/// Counts what is alive.
pub(crate) fn count(conn: &Conn<'_>, now: Timestamp) -> Result<Counts, Fault> {
    let counted = conn.query_row(
        "SELECT count(*), count(DISTINCT user_id), count(DISTINCT client_id),
                (SELECT count(*) FROM client_grant WHERE revoked_at IS NULL),
                (SELECT count(*) FROM session),
                (SELECT count(*) FROM link WHERE used_at IS NULL AND voided_at IS NULL AND expires_at > ?1),
                (SELECT count(*) FROM authorization_transaction WHERE decided_at IS NULL AND expires_at > ?1)
                    + (SELECT count(*) FROM device_authorization WHERE spent_at IS NULL AND expires_at > ?1)
         FROM access_grant WHERE revoked_at IS NULL AND expires_at > ?1",
        params![now],
        |row| {
            Ok(Counts {
                grants: row.get(0)?,
                users: row.get(1)?,
                clients: row.get(2)?,
                client_grants: row.get(3)?,
                sessions: row.get(4)?,
                links: row.get(5)?,
                waiting: row.get(6)?,
            })
        },
    )?;
    counted.ok_or_else(|| Fault::Corrupt("a count without a number".to_owned()))
}

/// Ends all of it. Whoever calls this lets no token count that was issued so far.
pub(crate) fn end(tx: &Tx<'_>, reason: Reason) -> Result<(), Fault> {
    let now = tx.now();
    tx.execute(
        "UPDATE access_grant SET revoked_at = ?1, revoked_because = ?2 WHERE revoked_at IS NULL",
        params![now, reason.as_str()],
    )?;
    tx.execute("UPDATE client_grant SET revoked_at = ?1 WHERE revoked_at IS NULL", params![now])?;
    tx.execute("UPDATE link SET voided_at = ?1 WHERE used_at IS NULL AND voided_at IS NULL", params![now])?;
    for emptied in [
        "DELETE FROM session",
        "DELETE FROM ceremony",
        "DELETE FROM authorization_transaction",
        "DELETE FROM device_authorization",
        "DELETE FROM consent",
    ] {
        tx.execute(emptied, [])?;
    }
    Ok(())
}

//! Rows of a time that is yet to come: made while the clock was wrong (OPS-04).

use shared::db::params;
use shared::{Fault, GrantId, Timestamp, Tx};

use super::grants::Reason;

/// Ends every grant that was made later than this. Whoever calls it publishes them.
pub(crate) fn revoke_grants(tx: &Tx<'_>, after: Timestamp, reason: Reason) -> Result<Vec<GrantId>, Fault> {
    tx.query(
        "UPDATE access_grant SET revoked_at = ?2, revoked_because = ?3
         WHERE created_at > ?1 AND revoked_at IS NULL RETURNING id",
        params![after, tx.now(), reason.as_str()],
        |row| row.get(0),
    )
}

/// Forgets sessions, links and everything else of a short life that was begun later than this: it would go on
/// until that time comes. How many people's sessions ended.
pub(crate) fn forget(tx: &Tx<'_>, after: Timestamp) -> Result<usize, Fault> {
    let sessions = tx.execute("DELETE FROM session WHERE auth_time > ?1 OR seen_at > ?1", params![after])?;
    for statement in [
        "DELETE FROM mcp_session WHERE created_at > ?1 OR seen_at > ?1",
        "DELETE FROM authorization_transaction WHERE created_at > ?1",
        "DELETE FROM device_authorization WHERE created_at > ?1",
        "UPDATE link SET voided_at = ?1 WHERE created_at > ?1 AND used_at IS NULL AND voided_at IS NULL",
    ] {
        tx.execute(statement, params![after])?;
    }
    // They say only when they end, which is minutes away; a new one is quickly begun.
    tx.execute("DELETE FROM ceremony", params![])?;
    Ok(sessions)
}

//! Clients that were never approved, or that are no longer used (RATE-06, DCR-12).

use shared::db::{Conn, params};
use shared::{ClientId, Fault, Timestamp, Tx};

/// Stops counting a client for an address.
pub(super) fn release(tx: &Tx<'_>, id: &ClientId) -> Result<(), Fault> {
    let sql = "UPDATE client SET holder = NULL, network = NULL WHERE id = ?1 AND holder IS NOT NULL";
    tx.execute(sql, params![id])?;
    Ok(())
}

/// The condition for clients that may be removed when unused: self-registered, and never verified by an
/// administrator.
macro_rules! vanishing {
    ($rest:literal) => {
        concat!(
            "client WHERE last_used_at IS NULL AND source = 'self_registered' AND trust <> 'verified'",
            $rest
        )
    };
}

/// Clients that were registered before then and never approved.
pub(crate) fn never_used_since(conn: &Conn<'_>, before: Timestamp) -> Result<Vec<ClientId>, Fault> {
    let sql = concat!("SELECT id FROM ", vanishing!(" AND created_at < ?1 ORDER BY created_at"));
    conn.query(sql, params![before], |row| row.get(0))
}

/// The oldest never-approved client of this address.
pub(crate) fn oldest_of(conn: &Conn<'_>, holder: &str) -> Result<Option<ClientId>, Fault> {
    let sql = "SELECT id FROM client WHERE holder = ?1 ORDER BY created_at, rowid LIMIT 1";
    conn.query_row(sql, params![holder], |row| row.get(0))
}

/// Unverified clients that were neither approved nor used since then.
pub(crate) fn idle_since(conn: &Conn<'_>, before: Timestamp) -> Result<Vec<ClientId>, Fault> {
    conn.query(
        "SELECT id FROM client WHERE last_used_at < ?1 AND source IN ('self_registered', 'unknown_url') AND trust <> 'verified'
         AND NOT EXISTS (SELECT 1 FROM access_grant g WHERE g.client_id = client.id
             AND (g.created_at >= ?1 OR g.last_used_at >= ?1))
         ORDER BY last_used_at LIMIT 1000",
        params![before],
        |row| row.get(0),
    )
}

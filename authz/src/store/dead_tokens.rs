//! Access tokens that were revoked one by one (REVOKE-04), kept until they have expired.

use shared::db::{Conn, params};
use shared::{Fault, Jti, Timestamp, Tx};

/// Lists a token; false if it was already listed.
pub(crate) fn insert(tx: &Tx<'_>, jti: &Jti, expires_at: Timestamp) -> Result<bool, Fault> {
    let listed = tx.execute(
        "INSERT INTO dead_token (jti, expires_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        params![jti, expires_at],
    )?;
    Ok(listed == 1)
}

/// Whether this token is listed.
pub(crate) fn lists(conn: &Conn<'_>, jti: &Jti) -> Result<bool, Fault> {
    Ok(conn.query_row("SELECT 1 FROM dead_token WHERE jti = ?1", params![jti], |_| Ok(()))?.is_some())
}

/// Deletes tokens that expired before this moment.
pub(crate) fn sweep(tx: &Tx<'_>, expired_before: Timestamp) -> Result<(), Fault> {
    tx.execute("DELETE FROM dead_token WHERE expires_at < ?1", params![expired_before])?;
    Ok(())
}

/// The tokens that expire after this moment.
pub(crate) fn expiring_after(conn: &Conn<'_>, moment: Timestamp) -> Result<Vec<(Jti, Timestamp)>, Fault> {
    conn.query("SELECT jti, expires_at FROM dead_token WHERE expires_at > ?1", params![moment], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
}

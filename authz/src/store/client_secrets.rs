//! Secrets of confidential clients, by digest (CAUTH-03, CAUTH-04).

use shared::db::{Conn, params};
use shared::{ClientId, Digest, Fault, Timestamp, Tx};

/// Adds a secret.
#[expect(dead_code, reason = "registration and the commands about clients will")]
pub(crate) fn insert(
    tx: &Tx<'_>,
    client: &ClientId,
    digest: &Digest,
    expires_at: Option<Timestamp>,
) -> Result<(), Fault> {
    tx.execute(
        "INSERT INTO client_secret (digest, client_id, created_at, expires_at) VALUES (?1, ?2, ?3, ?4)",
        params![digest, client, tx.now(), expires_at],
    )?;
    Ok(())
}

/// The digests of a client's secrets that are live.
pub(crate) fn live(conn: &Conn<'_>, client: &ClientId, now: Timestamp) -> Result<Vec<Digest>, Fault> {
    conn.query(
        "SELECT digest FROM client_secret WHERE client_id = ?1 AND (expires_at IS NULL OR expires_at > ?2)",
        params![client, now],
        |row| row.get(0),
    )
}

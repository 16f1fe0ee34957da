//! Secrets of confidential clients, by digest (CAUTH-03, CAUTH-04).

use std::time::Duration;

use shared::db::{Conn, params};
use shared::{ClientId, Digest, Fault, Secret, Timestamp, Tx};

use super::clients::Source;

/// The most live secrets of one client (CAUTH-04).
const MOST: u32 = 2;

/// Gives a client a new secret, of which only the digest is stored. The newest earlier one stays valid for
/// `overlap`, so that its holder can switch; all others end.
pub(crate) fn issue(tx: &Tx<'_>, client: &ClientId, overlap: Duration) -> Result<Secret, Fault> {
    tx.execute(
        "UPDATE client_secret SET expires_at = min(coalesce(expires_at, ?2), ?2) WHERE client_id = ?1",
        params![client, tx.now() + overlap],
    )?;
    tx.execute(
        "DELETE FROM client_secret WHERE client_id = ?1 AND (expires_at <= ?2 OR digest NOT IN
         (SELECT digest FROM client_secret WHERE client_id = ?1 ORDER BY created_at DESC, rowid DESC LIMIT ?3))",
        params![client, tx.now(), MOST - 1],
    )?;
    let secret = Secret::random("cs_");
    tx.execute(
        "INSERT INTO client_secret (digest, client_id, created_at) VALUES (?1, ?2, ?3)",
        params![secret.digest(), client, tx.now()],
    )?;
    Ok(secret)
}

/// Deletes expired secrets.
pub(crate) fn sweep(tx: &Tx<'_>) -> Result<(), Fault> {
    tx.execute("DELETE FROM client_secret WHERE expires_at <= ?1", params![tx.now()])?;
    Ok(())
}

/// Adds a secret that was made elsewhere.
pub(crate) fn insert(tx: &Tx<'_>, client: &ClientId, digest: &Digest) -> Result<(), Fault> {
    tx.execute(
        "INSERT INTO client_secret (digest, client_id, created_at) VALUES (?1, ?2, ?3)",
        params![digest, client, tx.now()],
    )?;
    Ok(())
}

/// Ends every secret of a client except these; true if there was another.
pub(crate) fn keep_only(tx: &Tx<'_>, client: &ClientId, digests: &[Digest]) -> Result<bool, Fault> {
    let mut ended = false;
    for digest in all(tx, client)?.iter().filter(|digest| !digests.contains(digest)) {
        tx.execute("DELETE FROM client_secret WHERE digest = ?1", params![digest])?;
        ended = true;
    }
    Ok(ended)
}

/// The digests of a client's secrets, live or not.
pub(crate) fn all(conn: &Conn<'_>, client: &ClientId) -> Result<Vec<Digest>, Fault> {
    conn.query("SELECT digest FROM client_secret WHERE client_id = ?1", params![client], |row| row.get(0))
}

/// The client that has this secret, and its source.
pub(crate) fn holder(conn: &Conn<'_>, digest: &Digest) -> Result<Option<(ClientId, Source)>, Fault> {
    conn.query_row(
        "SELECT c.id, c.source FROM client_secret s JOIN client c ON c.id = s.client_id WHERE s.digest = ?1",
        params![digest],
        |row| Ok((row.get(0)?, Source::parse(&row.get::<String>(1)?)?)),
    )
}

/// Deletes all secrets of a client.
pub(crate) fn delete(tx: &Tx<'_>, client: &ClientId) -> Result<(), Fault> {
    tx.execute("DELETE FROM client_secret WHERE client_id = ?1", params![client])?;
    Ok(())
}

/// Sets when a secret ends.
pub(crate) fn end_at(tx: &Tx<'_>, digest: &Digest, expires_at: Timestamp) -> Result<(), Fault> {
    tx.execute("UPDATE client_secret SET expires_at = ?2 WHERE digest = ?1", params![digest, expires_at])?;
    Ok(())
}

/// The digests of a client's live secrets.
pub(crate) fn live(conn: &Conn<'_>, client: &ClientId, now: Timestamp) -> Result<Vec<Digest>, Fault> {
    conn.query(
        "SELECT digest FROM client_secret WHERE client_id = ?1 AND (expires_at IS NULL OR expires_at > ?2)",
        params![client, now],
        |row| row.get(0),
    )
}

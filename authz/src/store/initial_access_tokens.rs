//! Initial access tokens by digest, with which clients register in mode `token` (DCR-01).

use shared::db::{Conn, Row, params};
use shared::{Digest, Fault, Timestamp, Tx};

/// A stored token.
#[derive(Clone, Debug)]
pub(crate) struct InitialAccessToken {
    pub digest: Digest,
    /// Its purpose, in the administrator's words.
    pub label: String,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
}

fn token(row: &Row<'_>) -> Result<InitialAccessToken, Fault> {
    Ok(InitialAccessToken {
        digest: row.get(0)?,
        label: row.get(1)?,
        created_at: row.get(2)?,
        expires_at: row.get(3)?,
    })
}

/// Adds a token and deletes expired ones.
pub(crate) fn insert(tx: &Tx<'_>, digest: &Digest, label: &str, expires_at: Timestamp) -> Result<(), Fault> {
    sweep(tx)?;
    tx.execute(
        "INSERT INTO initial_access_token (digest, label, created_at, expires_at) VALUES (?1, ?2, ?3, ?4)",
        params![digest, label, tx.now(), expires_at],
    )?;
    Ok(())
}

/// Deletes expired tokens.
pub(crate) fn sweep(tx: &Tx<'_>) -> Result<(), Fault> {
    tx.execute("DELETE FROM initial_access_token WHERE expires_at <= ?1", params![tx.now()])?;
    Ok(())
}

/// The live token with this digest.
pub(crate) fn find(
    conn: &Conn<'_>,
    digest: &Digest,
    now: Timestamp,
) -> Result<Option<InitialAccessToken>, Fault> {
    conn.query_row(
        "SELECT digest, label, created_at, expires_at FROM initial_access_token WHERE digest = ?1 AND expires_at > ?2",
        params![digest, now],
        token,
    )
}

/// All live tokens, oldest first.
pub(crate) fn all(conn: &Conn<'_>, now: Timestamp) -> Result<Vec<InitialAccessToken>, Fault> {
    conn.query(
        "SELECT digest, label, created_at, expires_at FROM initial_access_token WHERE expires_at > ?1 ORDER BY created_at, label",
        params![now],
        token,
    )
}

/// Deletes the token with this label; true if there was one.
pub(crate) fn delete(tx: &Tx<'_>, label: &str) -> Result<bool, Fault> {
    Ok(tx.execute("DELETE FROM initial_access_token WHERE label = ?1", params![label])? > 0)
}

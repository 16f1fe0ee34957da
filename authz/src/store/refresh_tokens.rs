//! Refresh tokens by digest. A family's leaf is the token that was not rotated (REFRESH-04).

use shared::db::{Conn, Row, params};
use shared::{Digest, Fault, GrantId, Timestamp, Tx};

/// A refresh token.
#[derive(Clone, Debug)]
pub(crate) struct RefreshToken {
    pub digest: Digest,
    pub grant_id: GrantId,
    /// 0 for the family's first token, plus one for each rotation.
    pub generation: u32,
    /// The end of its idle time (REFRESH-07).
    pub expires_at: Timestamp,
    pub rotated_at: Option<Timestamp>,
}

fn token(row: &Row<'_>) -> Result<RefreshToken, Fault> {
    Ok(RefreshToken {
        digest: row.get(0)?,
        grant_id: row.get(1)?,
        generation: row.get(2)?,
        expires_at: row.get(3)?,
        rotated_at: row.get(4)?,
    })
}

/// Adds a token.
pub(crate) fn insert(tx: &Tx<'_>, t: &RefreshToken) -> Result<(), Fault> {
    tx.execute(
        "INSERT INTO refresh_token (digest, grant_id, generation, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![t.digest, t.grant_id, t.generation, tx.now(), t.expires_at],
    )?;
    Ok(())
}

/// The token with this digest, rotated or not.
pub(crate) fn find(conn: &Conn<'_>, digest: &Digest) -> Result<Option<RefreshToken>, Fault> {
    conn.query_row(
        "SELECT digest, grant_id, generation, expires_at, rotated_at FROM refresh_token WHERE digest = ?1",
        params![digest],
        token,
    )
}

/// The newest token of a family.
pub(crate) fn leaf(conn: &Conn<'_>, grant: &GrantId) -> Result<Option<RefreshToken>, Fault> {
    conn.query_row(
        "SELECT digest, grant_id, generation, expires_at, rotated_at FROM refresh_token
         WHERE grant_id = ?1 ORDER BY generation DESC LIMIT 1",
        params![grant],
        token,
    )
}

/// Marks a token rotated; false if it already was.
pub(crate) fn rotate(tx: &Tx<'_>, digest: &Digest) -> Result<bool, Fault> {
    let changed = tx.execute(
        "UPDATE refresh_token SET rotated_at = ?2 WHERE digest = ?1 AND rotated_at IS NULL",
        params![digest, tx.now()],
    )?;
    Ok(changed == 1)
}

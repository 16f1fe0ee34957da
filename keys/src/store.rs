//! The table `signing_key`.

use shared::db::{Conn, Row, params};
use shared::{Fault, Tx};

use crate::jwt::Algorithm;
use crate::rotation::{NewKey, State};

/// The table's name, which sealed values are bound to.
pub(crate) const TABLE: &str = "signing_key";

/// A row. The public key in it is for people to read; what is used comes out of `sealed`.
pub(crate) struct StoredKey {
    pub(crate) kid: String,
    pub(crate) algorithm: Algorithm,
    pub(crate) state: State,
    pub(crate) sealed: Vec<u8>,
}

/// Whether there is any key at all.
pub(crate) fn any(conn: &Conn<'_>) -> Result<bool, Fault> {
    Ok(conn.query_row("SELECT 1 FROM signing_key LIMIT 1", [], |_| Ok(()))?.is_some())
}

/// Every key, oldest first.
pub(crate) fn all(conn: &Conn<'_>) -> Result<Vec<StoredKey>, Fault> {
    conn.query("SELECT kid, alg, state, sealed FROM signing_key ORDER BY created_at, kid", [], stored)
}

/// The key with this name.
pub(crate) fn find(conn: &Conn<'_>, kid: &str) -> Result<Option<StoredKey>, Fault> {
    conn.query_row("SELECT kid, alg, state, sealed FROM signing_key WHERE kid = ?1", params![kid], stored)
}

/// The name of the key that signs with this algorithm. There is one at most, by the table's index.
pub(crate) fn active(conn: &Conn<'_>, algorithm: Algorithm) -> Result<Option<String>, Fault> {
    conn.query_row(
        "SELECT kid FROM signing_key WHERE alg = ?1 AND state = 'active'",
        params![algorithm.as_str()],
        |row| row.get(0),
    )
}

/// Adds a key in state next.
pub(crate) fn insert(tx: &Tx<'_>, key: &NewKey) -> Result<(), Fault> {
    tx.execute(
        "INSERT INTO signing_key (kid, alg, state, public_jwk, sealed, created_at)
         VALUES (?1, ?2, 'next', ?3, ?4, ?5)",
        params![key.kid(), key.algorithm().as_str(), key.public_jwk(), key.sealed(), tx.now()],
    )
    .map(drop)
}

/// Next becomes active; false if it was not next.
pub(crate) fn activate(tx: &Tx<'_>, kid: &str) -> Result<bool, Fault> {
    let changed = tx.execute(
        "UPDATE signing_key SET state = 'active', activated_at = ?2 WHERE kid = ?1 AND state = 'next'",
        params![kid, tx.now()],
    )?;
    Ok(changed == 1)
}

/// Active becomes retired; false if it was not active.
pub(crate) fn retire(tx: &Tx<'_>, kid: &str) -> Result<bool, Fault> {
    let changed = tx.execute(
        "UPDATE signing_key SET state = 'retired', retired_at = ?2 WHERE kid = ?1 AND state = 'active'",
        params![kid, tx.now()],
    )?;
    Ok(changed == 1)
}

fn stored(row: &Row<'_>) -> Result<StoredKey, Fault> {
    let algorithm: String = row.get(1)?;
    let state: String = row.get(2)?;
    let unknown = |what: &str| Fault::Corrupt(format!("a signing key with {what}"));
    Ok(StoredKey {
        kid: row.get(0)?,
        algorithm: algorithm.parse().map_err(|_| unknown("an unknown algorithm"))?,
        state: State::named(&state).ok_or_else(|| unknown("an unknown state"))?,
        sealed: row.get(3)?,
    })
}

//! The table `signing_key`.

use shared::db::{Conn, Row, params};
use shared::{Fault, Timestamp, Tx};

use crate::algorithm::Algorithm;
use crate::state::State;

/// The table's name, to which sealed values are bound.
pub(crate) const TABLE: &str = "signing_key";

/// A row. The table's public key column is for people; the key in use is derived from `sealed`.
#[derive(Clone, Debug)]
pub(crate) struct StoredKey {
    pub(crate) kid: String,
    pub(crate) algorithm: Algorithm,
    pub(crate) state: State,
    /// The private key, or the public one after it was retired.
    pub(crate) sealed: Vec<u8>,
    pub(crate) created_at: Timestamp,
    /// When a next key becomes active.
    pub(crate) activate_at: Option<Timestamp>,
    pub(crate) activated_at: Option<Timestamp>,
    pub(crate) retired_at: Option<Timestamp>,
}

const COLUMNS: &str = "kid, alg, state, sealed, created_at, activate_at, activated_at, retired_at";

/// Whether there is any key at all.
pub(crate) fn any(conn: &Conn<'_>) -> Result<bool, Fault> {
    Ok(conn.query_row("SELECT 1 FROM signing_key LIMIT 1", [], |_| Ok(()))?.is_some())
}

/// All keys, oldest first.
pub(crate) fn all(conn: &Conn<'_>) -> Result<Vec<StoredKey>, Fault> {
    conn.query(&format!("SELECT {COLUMNS} FROM signing_key ORDER BY created_at, kid"), [], stored)
}

/// The key with this `kid`.
pub(crate) fn find(conn: &Conn<'_>, kid: &str) -> Result<Option<StoredKey>, Fault> {
    conn.query_row(&format!("SELECT {COLUMNS} FROM signing_key WHERE kid = ?1"), params![kid], stored)
}

/// The active key of this algorithm. The table's index allows at most one.
pub(crate) fn active(conn: &Conn<'_>, algorithm: Algorithm) -> Result<Option<StoredKey>, Fault> {
    conn.query_row(
        &format!("SELECT {COLUMNS} FROM signing_key WHERE alg = ?1 AND state = 'active'"),
        params![algorithm.as_str()],
        stored,
    )
}

/// The next key of this algorithm: the oldest, if there are several.
pub(crate) fn next(conn: &Conn<'_>, algorithm: Algorithm) -> Result<Option<StoredKey>, Fault> {
    conn.query_row(
        &format!(
            "SELECT {COLUMNS} FROM signing_key WHERE alg = ?1 AND state = 'next' ORDER BY created_at, kid LIMIT 1"
        ),
        params![algorithm.as_str()],
        stored,
    )
}

/// Adds a key in state next.
pub(crate) fn insert(
    tx: &Tx<'_>,
    kid: &str,
    algorithm: Algorithm,
    public_jwk: &str,
    sealed: &[u8],
    activate_at: Timestamp,
) -> Result<(), Fault> {
    tx.execute(
        "INSERT INTO signing_key (kid, alg, state, public_jwk, sealed, created_at, activate_at)
         VALUES (?1, ?2, 'next', ?3, ?4, ?5, ?6)",
        params![kid, algorithm.as_str(), public_jwk, sealed, tx.now(), activate_at],
    )
    .map(drop)
}

/// Changes when a next key becomes active.
pub(crate) fn reschedule(tx: &Tx<'_>, kid: &str, activate_at: Timestamp) -> Result<bool, Fault> {
    let changed = tx.execute(
        "UPDATE signing_key SET activate_at = ?2 WHERE kid = ?1 AND state = 'next'",
        params![kid, activate_at],
    )?;
    Ok(changed == 1)
}

/// Makes a next key active; false if it was not next.
pub(crate) fn activate(tx: &Tx<'_>, kid: &str) -> Result<bool, Fault> {
    let changed = tx.execute(
        "UPDATE signing_key SET state = 'active', activated_at = ?2 WHERE kid = ?1 AND state = 'next'",
        params![kid, tx.now()],
    )?;
    Ok(changed == 1)
}

/// Makes an active key retired and overwrites its sealed value; false if it was not active.
pub(crate) fn retire(tx: &Tx<'_>, kid: &str, sealed: &[u8]) -> Result<bool, Fault> {
    let changed = tx.execute(
        "UPDATE signing_key SET state = 'retired', retired_at = ?2, sealed = ?3 WHERE kid = ?1 AND state = 'active'",
        params![kid, tx.now(), sealed],
    )?;
    Ok(changed == 1)
}

/// Deletes a key; false if there was none.
pub(crate) fn remove(tx: &Tx<'_>, kid: &str) -> Result<bool, Fault> {
    Ok(tx.execute("DELETE FROM signing_key WHERE kid = ?1", params![kid])? == 1)
}

/// Limits all times in the table to this moment.
pub(crate) fn date(tx: &Tx<'_>, at: Timestamp) -> Result<(), Fault> {
    tx.execute(
        "UPDATE signing_key SET created_at = min(created_at, ?1), activated_at = min(activated_at, ?1)",
        params![at],
    )
    .map(drop)
}

/// Stores the value sealed with another key.
pub(crate) fn reseal(tx: &Tx<'_>, kid: &str, sealed: &[u8]) -> Result<bool, Fault> {
    Ok(tx.execute("UPDATE signing_key SET sealed = ?2 WHERE kid = ?1", params![kid, sealed])? == 1)
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
        created_at: row.get(4)?,
        activate_at: row.get(5)?,
        activated_at: row.get(6)?,
        retired_at: row.get(7)?,
    })
}

//! Single-use links (ENROL-01, ENROL-02).

use shared::db::{Conn, params};
use shared::{Digest, Fault, Timestamp, Tx, UserId};

/// Stores a setup link and voids all others.
pub(crate) fn replace_setup(tx: &Tx<'_>, digest: &Digest, expires_at: Timestamp) -> Result<(), Fault> {
    tx.execute(
        "UPDATE link SET voided_at = ?1 WHERE purpose = 'setup' AND voided_at IS NULL AND used_at IS NULL",
        params![tx.now()],
    )?;
    tx.execute(
        "INSERT INTO link (digest, purpose, created_at, expires_at) VALUES (?1, 'setup', ?2, ?3)",
        params![digest, tx.now(), expires_at],
    )?;
    Ok(())
}

/// Voids the unused links of a user.
pub(crate) fn void_enrol(tx: &Tx<'_>, user: &UserId) -> Result<(), Fault> {
    tx.execute(
        "UPDATE link SET voided_at = ?2 WHERE user_id = ?1 AND voided_at IS NULL AND used_at IS NULL",
        params![user, tx.now()],
    )?;
    Ok(())
}

/// Stores an enrolment link and voids the user's others (ENROL-02).
pub(crate) fn replace_enrol(
    tx: &Tx<'_>,
    digest: &Digest,
    user: &UserId,
    expires_at: Timestamp,
) -> Result<(), Fault> {
    void_enrol(tx, user)?;
    tx.execute(
        "INSERT INTO link (digest, purpose, user_id, created_at, expires_at) VALUES (?1, 'enrol', ?2, ?3, ?4)",
        params![digest, user, tx.now(), expires_at],
    )?;
    Ok(())
}

/// Deletes links that can no longer be used. Answers with the user of each that expired unused; `None` for a
/// setup link.
pub(crate) fn sweep(tx: &Tx<'_>) -> Result<Vec<Option<UserId>>, Fault> {
    tx.execute("DELETE FROM link WHERE used_at IS NOT NULL OR voided_at IS NOT NULL", [])?;
    tx.query("DELETE FROM link WHERE expires_at <= ?1 RETURNING user_id", params![tx.now()], |row| row.get(0))
}

/// The user of an enrolment link, if it would be accepted now.
pub(crate) fn live_enrol(conn: &Conn<'_>, digest: &Digest, now: Timestamp) -> Result<Option<UserId>, Fault> {
    conn.query_row(
        "SELECT user_id FROM link WHERE digest = ?1 AND purpose = 'enrol' AND used_at IS NULL AND voided_at IS NULL AND expires_at > ?2",
        params![digest, now],
        |row| row.get(0),
    )
}

/// Whether a setup link would be accepted now.
pub(crate) fn is_live_setup(conn: &Conn<'_>, digest: &Digest, now: Timestamp) -> Result<bool, Fault> {
    let found = conn.query_row(
        "SELECT 1 FROM link WHERE digest = ?1 AND purpose = 'setup' AND used_at IS NULL AND voided_at IS NULL AND expires_at > ?2",
        params![digest, now],
        |_| Ok(()),
    )?;
    Ok(found.is_some())
}

/// Uses up a link; false if it is used, voided, expired or unknown.
pub(crate) fn spend(tx: &Tx<'_>, digest: &Digest) -> Result<bool, Fault> {
    let changed = tx.execute(
        "UPDATE link SET used_at = ?2 WHERE digest = ?1 AND used_at IS NULL AND voided_at IS NULL AND expires_at > ?2",
        params![digest, tx.now()],
    )?;
    Ok(changed == 1)
}

//! Authorization codes: single use, 60 seconds, always with a challenge.

use shared::db::{Conn, params};
use shared::{Digest, Fault, GrantId, RedirectUri, Timestamp, Tx};

/// The number of wrong verifiers that destroys a code (PKCE-04).
const FAILURES: u32 = 3;

/// An issued code.
#[derive(Clone, Debug)]
pub(crate) struct IssuedCode {
    pub digest: Digest,
    pub grant_id: GrantId,
    pub redirect_uri: RedirectUri,
    pub code_challenge: String,
    pub expires_at: Timestamp,
    /// There were too many wrong verifiers.
    pub destroyed: bool,
    pub spent: bool,
}

/// Adds a code. It is deleted with its grant.
pub(crate) fn insert(tx: &Tx<'_>, code: &IssuedCode) -> Result<(), Fault> {
    tx.execute(
        "INSERT INTO authorization_code (digest, grant_id, redirect_uri, code_challenge, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![code.digest, code.grant_id, code.redirect_uri, code.code_challenge, code.expires_at],
    )?;
    Ok(())
}

/// The code with this digest, in any state.
pub(crate) fn find(conn: &Conn<'_>, digest: &Digest) -> Result<Option<IssuedCode>, Fault> {
    conn.query_row(
        "SELECT digest, grant_id, redirect_uri, code_challenge, expires_at, failures, spent_at
         FROM authorization_code WHERE digest = ?1",
        params![digest],
        |row| {
            let spent_at: Option<Timestamp> = row.get(6)?;
            Ok(IssuedCode {
                digest: row.get(0)?,
                grant_id: row.get(1)?,
                redirect_uri: row.get(2)?,
                code_challenge: row.get(3)?,
                expires_at: row.get(4)?,
                destroyed: row.get::<u32>(5)? >= FAILURES,
                spent: spent_at.is_some(),
            })
        },
    )
}

/// Deletes up to a hundred grants whose codes expired before then without being redeemed; no token was issued
/// on them. Answers with their number.
pub(crate) fn sweep_unspent(tx: &Tx<'_>, ran_out_before: Timestamp) -> Result<usize, Fault> {
    tx.execute(
        "DELETE FROM access_grant WHERE id IN
         (SELECT grant_id FROM authorization_code WHERE spent_at IS NULL AND expires_at < ?1 LIMIT 100)",
        params![ran_out_before],
    )
}

/// Marks a code spent; false if it was spent before.
///
/// Check and mark are one statement: of two redemptions racing each other, one wins (TOKEN-05).
pub(crate) fn spend(tx: &Tx<'_>, digest: &Digest) -> Result<bool, Fault> {
    let changed = tx.execute(
        "UPDATE authorization_code SET spent_at = ?2 WHERE digest = ?1 AND spent_at IS NULL",
        params![digest, tx.now()],
    )?;
    Ok(changed == 1)
}

/// Counts a wrong verifier; the third one destroys the code (PKCE-04). A spent code is not changed, because
/// destroying it would hide its replay (TOKEN-06).
pub(crate) fn count_failure(tx: &Tx<'_>, digest: &Digest) -> Result<(), Fault> {
    tx.execute(
        "UPDATE authorization_code SET failures = failures + 1 WHERE digest = ?1 AND spent_at IS NULL",
        params![digest],
    )?;
    Ok(())
}

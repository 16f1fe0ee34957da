//! Client assertions that were used, until they have run out (CAUTH-05).

use shared::db::params;
use shared::{Digest, Fault, Timestamp, Tx};

/// Spends an assertion; false if it was spent before. Check and mark are one statement: of two requests that
/// race, one wins.
pub(crate) fn spend(tx: &Tx<'_>, digest: &Digest, until: Timestamp) -> Result<bool, Fault> {
    sweep(tx)?;
    let inserted = tx.execute(
        "INSERT INTO client_assertion (digest, expires_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        params![digest, until],
    )?;
    Ok(inserted == 1)
}

/// Forgets assertions that are refused for their age anyway.
pub(crate) fn sweep(tx: &Tx<'_>) -> Result<(), Fault> {
    tx.execute("DELETE FROM client_assertion WHERE expires_at <= ?1", params![tx.now()])?;
    Ok(())
}

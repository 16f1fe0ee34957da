//! How what was given ends: in the database and, before the commit, in the memory that decides (RS-08).

use shared::{Fault, GrantId, Jti, Timestamp, Tx};

use crate::Authz;
use crate::status::LISTED_AFTER_EXPIRY;
use crate::store::dead_tokens;
use crate::store::grants::{self, Reason};

/// Ends a grant and every token on it; false if it had ended before.
///
/// # Errors
/// The database's fault.
pub(crate) fn grant(authz: &Authz, tx: &Tx<'_>, id: &GrantId, reason: Reason) -> Result<bool, Fault> {
    let ended = grants::revoke(tx, id, reason)?;
    if ended {
        authz.status.kill_grant(tx, id);
    }
    Ok(ended)
}

/// Ends one access token, whose grant goes on; false if it had ended before.
///
/// # Errors
/// The database's fault.
pub(crate) fn token(authz: &Authz, tx: &Tx<'_>, jti: &Jti, expires_at: Timestamp) -> Result<bool, Fault> {
    dead_tokens::sweep(tx, tx.now() - LISTED_AFTER_EXPIRY)?;
    let ended = dead_tokens::insert(tx, jti, expires_at)?;
    if ended {
        authz.status.kill_token(tx, jti, expires_at);
    }
    Ok(ended)
}

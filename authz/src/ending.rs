//! Ends grants and tokens: in the database and, before the commit, in the memory that decides (RS-08).

use shared::{ClientId, Fault, GrantId, Jti, Timestamp, Tx, UserId};

use crate::Authz;
use crate::status::{LISTED, LISTED_AFTER_EXPIRY};
use crate::store::client_documents;
use crate::store::grants::{self, Grant, Reason};
use crate::store::{client_grants, clients, consents, dead_tokens};

/// Ends a grant and all its tokens; false if it had already ended.
///
/// # Errors
/// A database fault.
pub(crate) fn grant(authz: &Authz, tx: &Tx<'_>, id: &GrantId, reason: Reason) -> Result<bool, Fault> {
    let ended = grants::revoke(tx, id, reason)?;
    if ended {
        authz.status.kill_grant(tx, id);
    }
    Ok(ended)
}

/// Ends all grants of a user to a client and forgets the consents between them. Answers with the ended grants
/// and the number of consents (REVOKE-07, CONSENT-07).
///
/// # Errors
/// A database fault.
pub(crate) fn all_between(
    authz: &Authz,
    tx: &Tx<'_>,
    user: &UserId,
    client: &ClientId,
    reason: Reason,
) -> Result<(Vec<Grant>, usize), Fault> {
    let forgotten = consents::forget(tx, user, client, None)?;
    let ended = grants::between(tx, user, client)?;
    for ending in &ended {
        grant(authz, tx, &ending.id, reason)?;
    }
    Ok((ended, forgotten))
}

/// Ends all grants of a user and forgets all their consents. Answers with the number of grants (REFRESH-08).
///
/// # Errors
/// A database fault.
pub(crate) fn all_of(authz: &Authz, tx: &Tx<'_>, user: &UserId, reason: Reason) -> Result<usize, Fault> {
    let ended = grants::revoke_all_of(tx, user, reason)?;
    for grant in &ended {
        authz.status.kill_grant(tx, grant);
    }
    Ok(ended.len())
}

/// Ends a grant that a client holds in its own name. Answers with the client, if there was one.
///
/// # Errors
/// A database fault.
pub(crate) fn own_grant(authz: &Authz, tx: &Tx<'_>, id: &GrantId) -> Result<Option<ClientId>, Fault> {
    let client = client_grants::revoke(tx, id)?;
    if client.is_some() {
        authz.status.kill_grant(tx, id);
    }
    Ok(client)
}

/// Ends all grants of a client and forgets its consents. Answers with the number of grants (REFRESH-08).
///
/// # Errors
/// A database fault.
pub(crate) fn all_through(
    authz: &Authz,
    tx: &Tx<'_>,
    client: &ClientId,
    reason: Reason,
) -> Result<usize, Fault> {
    clients::forget_consents(tx, client)?;
    let ended = grants::revoke_all_through(tx, client, reason)?;
    for grant in &ended {
        authz.status.kill_grant(tx, grant);
    }
    Ok(ended.len())
}

/// Deletes a client and all its rows. Answers with the number of grants. Access tokens on them stay dead
/// although the rows are gone, also after a restart.
///
/// # Errors
/// A database fault.
pub(crate) fn client(authz: &Authz, tx: &Tx<'_>, id: &ClientId) -> Result<usize, Fault> {
    let buried = grants::bury(tx, id, tx.now() - LISTED)?;
    for grant in &buried {
        authz.status.kill_grant(tx, grant);
    }
    clients::delete(tx, id)?;
    // Otherwise its next request would make it known again (CIMD-01).
    client_documents::remove_imported(tx, id.as_str())?;
    authz.status.remove_client(tx, id);
    authz.status.client_changed(tx, id)?;
    Ok(buried.len())
}

/// Forgets revoked tokens that have expired.
///
/// # Errors
/// A database fault.
pub(crate) fn sweep(tx: &Tx<'_>) -> Result<(), Fault> {
    dead_tokens::sweep(tx, tx.now() - LISTED_AFTER_EXPIRY)
}

/// Ends one access token; its grant continues. False if it had already ended.
///
/// # Errors
/// A database fault.
pub(crate) fn token(authz: &Authz, tx: &Tx<'_>, jti: &Jti, expires_at: Timestamp) -> Result<bool, Fault> {
    sweep(tx)?;
    let ended = dead_tokens::insert(tx, jti, expires_at)?;
    if ended {
        authz.status.kill_token(tx, jti, expires_at);
    }
    Ok(ended)
}

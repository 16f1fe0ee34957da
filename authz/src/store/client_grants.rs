//! Grants that clients hold in their own name (CC-01): one row for each client and resource.

use shared::db::params;
use shared::{ClientId, Fault, GrantId, ResourceUri, Timestamp, Tx};

/// Ends a grant; answers with its client, if there was one.
pub(crate) fn revoke(tx: &Tx<'_>, id: &GrantId) -> Result<Option<ClientId>, Fault> {
    tx.query_row(
        "UPDATE client_grant SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL RETURNING client_id",
        params![id, tx.now()],
        |row| row.get(0),
    )
}

/// The live grant of a client for a resource; made if there is none.
pub(crate) fn live(tx: &Tx<'_>, client: &ClientId, resource: &ResourceUri) -> Result<GrantId, Fault> {
    let found = tx.query_row(
        "SELECT id FROM client_grant WHERE client_id = ?1 AND resource = ?2 AND revoked_at IS NULL",
        params![client, resource],
        |row| row.get(0),
    )?;
    if let Some(id) = found {
        return Ok(id);
    }
    let id = GrantId::random();
    tx.execute(
        "INSERT INTO client_grant (id, client_id, resource, created_at) VALUES (?1, ?2, ?3, ?4)",
        params![id, client, resource, tx.now()],
    )?;
    Ok(id)
}

/// Deletes grants that ended so long ago that none of their tokens can be valid.
pub(crate) fn sweep(tx: &Tx<'_>, ended_before: Timestamp) -> Result<(), Fault> {
    tx.execute("DELETE FROM client_grant WHERE revoked_at < ?1", params![ended_before])?;
    Ok(())
}

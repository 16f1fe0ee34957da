//! Resource servers: clients that may introspect, and for which resources (INTRO-01, INTRO-04).

use shared::db::{Conn, params};
use shared::{ClientId, Fault, ResourceUri, Tx};

/// Lets a client introspect tokens for this resource.
pub(crate) fn add_audience(tx: &Tx<'_>, client: &ClientId, resource: &ResourceUri) -> Result<(), Fault> {
    tx.execute(
        "INSERT INTO resource_server_audience (client_id, resource) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        params![client, resource],
    )?;
    Ok(())
}

/// The resources whose tokens a client may introspect, sorted; empty if it is not a resource server.
pub(crate) fn audiences(conn: &Conn<'_>, client: &ClientId) -> Result<Vec<ResourceUri>, Fault> {
    conn.query(
        "SELECT resource FROM resource_server_audience WHERE client_id = ?1 ORDER BY resource",
        params![client],
        |row| row.get(0),
    )
}

/// The enabled resource server of this resource, its name and whether it introspects; if there are several, one
/// that does.
pub(crate) fn serving(conn: &Conn<'_>, resource: &ResourceUri) -> Result<Option<(String, bool)>, Fault> {
    conn.query_row(
        "SELECT c.name, c.auth_method <> 'none' AS introspects
         FROM resource_server_audience a JOIN client c ON c.id = a.client_id
         WHERE a.resource = ?1 AND c.disabled_at IS NULL ORDER BY introspects DESC, c.id LIMIT 1",
        params![resource],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
}

/// Every resource server, by name.
pub(crate) fn all(conn: &Conn<'_>) -> Result<Vec<ClientId>, Fault> {
    conn.query(
        "SELECT id FROM client WHERE id IN (SELECT client_id FROM resource_server_audience)
         ORDER BY name, id",
        [],
        |row| row.get(0),
    )
}

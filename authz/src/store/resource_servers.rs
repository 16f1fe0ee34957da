//! Resource servers: clients that may introspect, and what each may ask about (INTRO-01, INTRO-04).

use shared::db::{Conn, params};
use shared::{ClientId, Fault, ResourceUri, Tx};

/// Lets a client ask about tokens for this resource.
pub(crate) fn add_audience(tx: &Tx<'_>, client: &ClientId, resource: &ResourceUri) -> Result<(), Fault> {
    tx.execute(
        "INSERT INTO resource_server_audience (client_id, resource) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        params![client, resource],
    )?;
    Ok(())
}

/// What a client may ask about, in order; nothing if it is no resource server.
pub(crate) fn audiences(conn: &Conn<'_>, client: &ClientId) -> Result<Vec<ResourceUri>, Fault> {
    conn.query(
        "SELECT resource FROM resource_server_audience WHERE client_id = ?1 ORDER BY resource",
        params![client],
        |row| row.get(0),
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

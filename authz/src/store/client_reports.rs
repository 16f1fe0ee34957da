//! Reports about clients for administrators (REVOKE-07).

use shared::db::{Conn, Row, params};
use shared::{ClientId, Digest, Fault, GrantId, ResourceUri, Scope, Timestamp, UserId};

use super::everything::alive;

/// A client with its counts.
pub(crate) struct ClientUsage {
    pub id: ClientId,
    pub name: String,
    pub source: String,
    pub trust: String,
    pub auth_method: String,
    pub grant_types: Vec<String>,
    pub disabled: bool,
    pub created_at: Timestamp,
    pub last_used_at: Option<Timestamp>,
    /// The number of users with a live grant for it.
    pub users: u32,
}

/// A live grant of a user to a client.
pub(crate) struct Access {
    pub grant_id: GrantId,
    pub user_id: UserId,
    pub user: String,
    pub client_id: ClientId,
    pub client: String,
    pub resource: ResourceUri,
    pub scope: Scope,
    pub created_at: Timestamp,
    pub last_used_at: Option<Timestamp>,
    pub expires_at: Timestamp,
    pub address: Option<String>,
}

/// A secret's digest and expiry.
pub(crate) struct SecretAge {
    pub digest: Digest,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
}

// The client's `last_used_at` is its last approval; later uses are in its grants.
const STANDING: &str = concat!(
    "SELECT id, name, source, trust, auth_method, grant_types, disabled_at, created_at,
     (SELECT max(at) FROM (SELECT client.last_used_at AS at
         UNION ALL SELECT last_used_at FROM access_grant WHERE client_id = client.id)),
     (SELECT count(DISTINCT user_id) FROM access_grant g WHERE client_id = client.id AND expires_at > ?1 AND ",
    alive!(),
    ") FROM client"
);

fn standing(row: &Row<'_>) -> Result<ClientUsage, Fault> {
    let disabled_at: Option<Timestamp> = row.get(6)?;
    Ok(ClientUsage {
        id: row.get(0)?,
        name: row.get(1)?,
        source: row.get(2)?,
        trust: row.get(3)?,
        auth_method: row.get(4)?,
        grant_types: row.get::<String>(5)?.split_ascii_whitespace().map(str::to_owned).collect(),
        disabled: disabled_at.is_some(),
        created_at: row.get(7)?,
        last_used_at: row.get(8)?,
        users: row.get(9)?,
    })
}

/// Every client, by name.
pub(crate) fn all(conn: &Conn<'_>, now: Timestamp) -> Result<Vec<ClientUsage>, Fault> {
    conn.query(&format!("{STANDING} ORDER BY name, id"), params![now], standing)
}

/// One client.
pub(crate) fn one(conn: &Conn<'_>, id: &ClientId, now: Timestamp) -> Result<Option<ClientUsage>, Fault> {
    conn.query_row(&format!("{STANDING} WHERE id = ?2"), params![now, id], standing)
}

/// Which grants to list.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct GrantFilter<'a> {
    pub user: Option<&'a UserId>,
    pub client: Option<&'a ClientId>,
}

/// Live grants, newest first, at most `most`.
pub(crate) fn access(
    conn: &Conn<'_>,
    whose: GrantFilter<'_>,
    now: Timestamp,
    most: u32,
) -> Result<Vec<Access>, Fault> {
    // Separate statements, so that each uses an index.
    let condition = match whose {
        GrantFilter { user: None, client: None } => "?1 IS NULL AND ?2 IS NULL",
        GrantFilter { user: Some(_), client: None } => "g.user_id = ?1 AND ?2 IS NULL",
        GrantFilter { user: None, client: Some(_) } => "?1 IS NULL AND g.client_id = ?2",
        GrantFilter { user: Some(_), client: Some(_) } => "g.user_id = ?1 AND g.client_id = ?2",
    };
    let alive = alive!();
    conn.query(
        &format!(
            "SELECT g.id, g.user_id, u.name, g.client_id, c.name, g.resource, g.scope, g.created_at, g.last_used_at,
                    g.expires_at, g.address
             FROM access_grant g JOIN user u ON u.id = g.user_id JOIN client c ON c.id = g.client_id
             WHERE {condition} AND g.expires_at > ?3 AND {alive}
             ORDER BY g.created_at DESC, g.id LIMIT ?4"
        ),
        params![whose.user, whose.client, now, most],
        |row| {
            Ok(Access {
                grant_id: row.get(0)?,
                user_id: row.get(1)?,
                user: row.get(2)?,
                client_id: row.get(3)?,
                client: row.get(4)?,
                resource: row.get(5)?,
                scope: row.get(6)?,
                created_at: row.get(7)?,
                last_used_at: row.get(8)?,
                expires_at: row.get(9)?,
                address: row.get(10)?,
            })
        },
    )
}

/// A client's live secrets, oldest first.
pub(crate) fn secrets(conn: &Conn<'_>, id: &ClientId, now: Timestamp) -> Result<Vec<SecretAge>, Fault> {
    conn.query(
        "SELECT digest, created_at, expires_at FROM client_secret
         WHERE client_id = ?1 AND (expires_at IS NULL OR expires_at > ?2) ORDER BY created_at, rowid",
        params![id, now],
        |row| Ok(SecretAge { digest: row.get(0)?, created_at: row.get(1)?, expires_at: row.get(2)? }),
    )
}

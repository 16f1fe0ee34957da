//! OAuth clients and their redirect URIs.

use shared::db::{Conn, params};
use shared::{ClientId, Fault, RedirectUri, Timestamp, Tx};

/// How far a client is trusted (DCR-08).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Trust {
    /// It could send its answers over the network, and nobody vouches for it.
    Unverified,
    /// Its answers can only reach the user's own computer.
    Known,
    /// An administrator vouches for it.
    Verified,
}

impl Trust {
    fn as_str(self) -> &'static str {
        match self {
            Self::Unverified => "unverified",
            Self::Known => "known",
            Self::Verified => "verified",
        }
    }

    fn parse(text: &str) -> Result<Self, Fault> {
        match text {
            "unverified" => Ok(Self::Unverified),
            "known" => Ok(Self::Known),
            "verified" => Ok(Self::Verified),
            other => Err(Fault::Corrupt(format!("a client of trust {other}"))),
        }
    }
}

/// A client.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub id: ClientId,
    /// What it calls itself.
    pub name: String,
    pub trust: Trust,
    pub grant_types: Vec<String>,
    pub redirect_uris: Vec<RedirectUri>,
    pub disabled: bool,
}

impl Client {
    /// Whether it registered this grant type (TOKEN-13).
    pub(crate) fn has_grant(&self, grant_type: &str) -> bool {
        self.grant_types.iter().any(|g| g == grant_type)
    }
}

/// What a registration stores besides the client itself.
pub(crate) struct Registration<'a> {
    pub auth_method: &'a str,
    pub application_type: &'a str,
    /// The answer of the registration endpoint, as JSON.
    pub metadata: &'a str,
}

/// The client with this id.
pub(crate) fn find(conn: &Conn<'_>, id: &ClientId) -> Result<Option<Client>, Fault> {
    let Some(mut client) = conn.query_row(
        "SELECT id, name, trust, grant_types, disabled_at FROM client WHERE id = ?1",
        params![id],
        |row| {
            let disabled_at: Option<Timestamp> = row.get(4)?;
            Ok(Client {
                id: row.get(0)?,
                name: row.get(1)?,
                trust: Trust::parse(&row.get::<String>(2)?)?,
                grant_types: row.get::<String>(3)?.split(' ').map(str::to_owned).collect(),
                redirect_uris: Vec::new(),
                disabled: disabled_at.is_some(),
            })
        },
    )?
    else {
        return Ok(None);
    };
    client.redirect_uris =
        conn.query("SELECT uri FROM client_redirect_uri WHERE client_id = ?1", params![id], |row| {
            row.get(0)
        })?;
    Ok(Some(client))
}

/// Every disabled client's id.
pub(crate) fn disabled(conn: &Conn<'_>) -> Result<Vec<ClientId>, Fault> {
    conn.query("SELECT id FROM client WHERE disabled_at IS NOT NULL", [], |row| row.get(0))
}

/// Adds a self-registered client.
pub(crate) fn insert(tx: &Tx<'_>, client: &Client, registration: &Registration<'_>) -> Result<(), Fault> {
    tx.execute(
        "INSERT INTO client (id, name, source, trust, auth_method, application_type, grant_types, metadata, created_at)
         VALUES (?1, ?2, 'self_registered', ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            client.id,
            client.name,
            client.trust.as_str(),
            registration.auth_method,
            registration.application_type,
            client.grant_types.join(" "),
            registration.metadata,
            tx.now()
        ],
    )?;
    for uri in &client.redirect_uris {
        tx.execute(
            "INSERT INTO client_redirect_uri (client_id, uri) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            params![client.id, uri],
        )?;
    }
    Ok(())
}

/// Notes that somebody approved this client: it is in use from now on.
pub(crate) fn touch(tx: &Tx<'_>, id: &ClientId) -> Result<(), Fault> {
    tx.execute("UPDATE client SET last_used_at = ?2 WHERE id = ?1", params![id, tx.now()])?;
    Ok(())
}

/// How many clients registered and were never approved by anyone.
pub(crate) fn count_unused(conn: &Conn<'_>) -> Result<u32, Fault> {
    let count =
        conn.query_row("SELECT count(*) FROM client WHERE last_used_at IS NULL", [], |row| row.get(0))?;
    Ok(count.unwrap_or(0))
}

/// Removes never-approved clients: those registered before `created_before`, and the oldest one
/// beyond them if `make_room` (DCR-11, DCR-12). Answers with their ids.
pub(crate) fn expire_unused(
    tx: &Tx<'_>,
    created_before: Timestamp,
    make_room: bool,
) -> Result<Vec<ClientId>, Fault> {
    let mut gone = tx.query(
        "DELETE FROM client WHERE last_used_at IS NULL AND created_at < ?1 RETURNING id",
        params![created_before],
        |row| row.get(0),
    )?;
    if make_room && gone.is_empty() {
        gone = tx.query(
            "DELETE FROM client WHERE id = (SELECT id FROM client WHERE last_used_at IS NULL ORDER BY created_at LIMIT 1) RETURNING id",
            [],
            |row| row.get(0),
        )?;
    }
    Ok(gone)
}

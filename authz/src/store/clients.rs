//! OAuth clients and their redirect URIs.

mod unused;

use shared::audit::ClientStanding;
use shared::db::{Conn, Row, params};
use shared::share::Holder;
use shared::token_status::Ceiling;
use shared::{ClientId, Digest, Fault, RedirectUri, Scope, Timestamp, Tx};

use crate::visible::skeleton;
use unused::release;
pub(crate) use unused::{idle_since, never_used_since, oldest_of};

/// The grant by which a client gets tokens in its own name (OAuth 2.1 §4.2).
pub(crate) const CLIENT_CREDENTIALS: &str = "client_credentials";

/// How a client became known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// Dynamic client registration (RFC 7591).
    SelfRegistered,
    /// An administrator's command.
    Administrator,
    /// `portcullis.toml`.
    Configuration,
    /// The built-in catalogue of client id metadata documents (CIMD-13).
    Catalogue,
    /// A client id metadata document that an administrator imported (CIMD-05).
    Imported,
    /// A client id metadata document from the network (CIMD-07).
    Fetched,
    /// A URL whose document could not be had; treated like a self-registration (CIMD-09).
    UnknownUrl,
}

impl Source {
    const ALL: [Self; 7] = [
        Self::SelfRegistered,
        Self::Administrator,
        Self::Configuration,
        Self::Catalogue,
        Self::Imported,
        Self::Fetched,
        Self::UnknownUrl,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::SelfRegistered => "self_registered",
            Self::Administrator => "administrator",
            Self::Configuration => "configuration",
            Self::Catalogue => "catalogue",
            Self::Imported => "imported",
            Self::Fetched => "fetched",
            Self::UnknownUrl => "unknown_url",
        }
    }

    /// Whether the client's row follows from a document at a URL.
    pub(crate) fn is_by_document(self) -> bool {
        matches!(self, Self::Catalogue | Self::Imported | Self::Fetched | Self::UnknownUrl)
    }

    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        let found = Self::ALL.into_iter().find(|source| source.as_str() == text);
        found.ok_or_else(|| Fault::Corrupt(format!("a client from {text}")))
    }
}

/// How a client authenticates at the token endpoint (RFC 7591 §2, `token_endpoint_auth_method`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AuthMethod {
    None,
    ClientSecretBasic,
    ClientSecretPost,
    PrivateKeyJwt,
}

impl AuthMethod {
    /// All of them.
    pub(crate) const ALL: [Self; 4] =
        [Self::None, Self::ClientSecretBasic, Self::ClientSecretPost, Self::PrivateKeyJwt];

    /// The name on the wire.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ClientSecretBasic => "client_secret_basic",
            Self::ClientSecretPost => "client_secret_post",
            Self::PrivateKeyJwt => "private_key_jwt",
        }
    }

    /// Whether the client authenticates with a secret that this server issued.
    pub(crate) fn is_by_secret(self) -> bool {
        matches!(self, Self::ClientSecretBasic | Self::ClientSecretPost)
    }

    /// The method with this name; `None` if it is not supported.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == name)
    }
}

/// How far a client is trusted (DCR-08).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Trust {
    /// Not verified, and its answers could go over the network.
    Unverified,
    /// Not verified, but its answers reach only the user's own computer.
    Known,
    /// Verified by an administrator.
    Verified,
}

impl Trust {
    /// The ceiling of such a client (DCR-08).
    pub(crate) fn ceiling(self) -> Ceiling {
        match self {
            Self::Unverified => Ceiling::LowRisk,
            Self::Known | Self::Verified => Ceiling::Any,
        }
    }

    /// The name in the database and in reports.
    pub(crate) fn as_str(self) -> &'static str {
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
    pub source: Source,
    pub trust: Trust,
    pub auth_method: AuthMethod,
    /// It registered no method, so both Basic and the form are accepted (CAUTH-01).
    pub auth_defaulted: bool,
    /// Its public keys, as JSON (RFC 7517 §5), if it signs assertions.
    pub jwks: Option<String>,
    pub grant_types: Vec<String>,
    pub redirect_uris: Vec<RedirectUri>,
    /// The scope that it may have in its own name (CC-01). It does not limit what users grant to it.
    pub scope: Scope,
    pub disabled: bool,
}

impl Client {
    /// Whether it registered this grant type (TOKEN-13).
    pub(crate) fn has_grant(&self, grant_type: &str) -> bool {
        self.grant_types.iter().any(|g| g == grant_type)
    }

    /// Whether an administrator added it.
    pub(crate) fn is_added(&self) -> bool {
        matches!(self.source, Source::Administrator | Source::Configuration)
    }

    /// Whether it gets tokens in its own name: only a client that an administrator added and that authenticates
    /// (CC-01).
    pub(crate) fn acts_in_its_own_name(&self) -> bool {
        self.is_added() && self.auth_method != AuthMethod::None && self.has_grant(CLIENT_CREDENTIALS)
    }

    /// The methods by which it may send a secret: the registered one, or both if it registered none (CAUTH-01).
    pub(crate) fn secret_methods(&self) -> Vec<AuthMethod> {
        let by_secret = [AuthMethod::ClientSecretBasic, AuthMethod::ClientSecretPost];
        let accepted = |method: &AuthMethod| self.auth_defaulted || self.auth_method == *method;
        if !by_secret.contains(&self.auth_method) {
            return Vec::new();
        }
        by_secret.into_iter().filter(accepted).collect()
    }
}

/// The registration columns besides the client itself.
pub(crate) struct Registration<'a> {
    pub application_type: &'a str,
    /// The registration response, or the document, as JSON.
    pub metadata: &'a str,
    /// The registration's fingerprint, which prevents storing it twice (DCR-12).
    pub fingerprint: Option<&'a Digest>,
    /// The digest of the registration access token (DCR-09).
    pub management: Option<Digest>,
    /// The holder of the client until it is approved (RATE-06).
    pub holder: Option<&'a Holder>,
}

const COLUMNS: &str = "SELECT id, name, source, trust, auth_method, auth_defaulted, jwks, grant_types, scope, disabled_at FROM client";

fn client(row: &Row<'_>) -> Result<Client, Fault> {
    let disabled_at: Option<Timestamp> = row.get(9)?;
    let method: String = row.get(4)?;
    Ok(Client {
        id: row.get(0)?,
        name: row.get(1)?,
        source: Source::parse(&row.get::<String>(2)?)?,
        trust: Trust::parse(&row.get::<String>(3)?)?,
        auth_method: AuthMethod::parse(&method)
            .ok_or_else(|| Fault::Corrupt(format!("a client that authenticates by {method}")))?,
        auth_defaulted: row.get(5)?,
        jwks: row.get(6)?,
        grant_types: row.get::<String>(7)?.split_ascii_whitespace().map(str::to_owned).collect(),
        redirect_uris: Vec::new(),
        scope: row.get(8)?,
        disabled: disabled_at.is_some(),
    })
}

/// The client with this id. Both queries run whether or not it exists, so that the time reveals nothing about
/// guessed ids (CAUTH-03).
pub(crate) fn find(conn: &Conn<'_>, id: &ClientId) -> Result<Option<Client>, Fault> {
    let redirect_uris = conn.query(
        "SELECT uri FROM client_redirect_uri WHERE client_id = ?1 ORDER BY uri",
        params![id],
        |row| row.get(0),
    )?;
    let found = conn.query_row(&format!("{COLUMNS} WHERE id = ?1"), params![id], client)?;
    Ok(found.map(|client| Client { redirect_uris, ..client }))
}

/// How well the server knows a client (AUDIT-06).
pub(crate) fn acquaintance(conn: &Conn<'_>, id: &ClientId) -> Result<ClientStanding, Fault> {
    let sql = "SELECT holder IS NOT NULL FROM client WHERE id = ?1";
    Ok(match conn.query_row(sql, params![id], |row| row.get(0))? {
        None => ClientStanding::Unknown,
        Some(true) => ClientStanding::SelfMade,
        Some(false) => ClientStanding::Known,
    })
}

/// The ids of all disabled clients.
pub(crate) fn disabled(conn: &Conn<'_>) -> Result<Vec<ClientId>, Fault> {
    conn.query("SELECT id FROM client WHERE disabled_at IS NOT NULL", [], |row| row.get(0))
}

/// The ids of trusted clients.
pub(crate) fn trusted(conn: &Conn<'_>) -> Result<Vec<ClientId>, Fault> {
    conn.query("SELECT id FROM client WHERE trust <> 'unverified'", [], |row| row.get(0))
}

/// The ids of the clients with this name.
pub(crate) fn named(conn: &Conn<'_>, name: &str) -> Result<Vec<ClientId>, Fault> {
    conn.query("SELECT id FROM client WHERE name = ?1 ORDER BY created_at, id", params![name], |row| {
        row.get(0)
    })
}

/// Clients whose names look like this one but differ, at most a few.
pub(crate) fn looking_like(conn: &Conn<'_>, name: &str) -> Result<Vec<(ClientId, String)>, Fault> {
    let wanted = skeleton(name);
    let mut alike = Vec::new();
    conn.for_each("SELECT id, name FROM client WHERE name <> ?1", params![name], |row| {
        let other: String = row.get(1)?;
        if skeleton(&other) == wanted {
            alike.push((row.get(0)?, other));
        }
        Ok(alike.len() < 3)
    })?;
    Ok(alike)
}

/// Why a client is disabled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DisabledReason {
    /// By an administrator. Only an administrator enables it again.
    Administrator,
    /// `portcullis.toml` no longer names it. It is enabled when the file names it again.
    LeftConfiguration,
}

impl DisabledReason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Administrator => "administrator",
            Self::LeftConfiguration => "left_configuration",
        }
    }
}

/// Why a client is disabled; `None` if it is enabled. Rows from before this was stored count as disabled by an
/// administrator.
pub(crate) fn stopped(conn: &Conn<'_>, id: &ClientId) -> Result<Option<DisabledReason>, Fault> {
    let row = conn.query_row(
        "SELECT disabled_because FROM client WHERE id = ?1 AND disabled_at IS NOT NULL",
        params![id],
        |row| row.get::<Option<String>>(0),
    )?;
    Ok(row.map(|because| match because.as_deref() {
        Some("left_configuration") => DisabledReason::LeftConfiguration,
        _ => DisabledReason::Administrator,
    }))
}

/// Disables a client.
pub(crate) fn stop(tx: &Tx<'_>, id: &ClientId, because: DisabledReason) -> Result<(), Fault> {
    tx.execute(
        "UPDATE client SET disabled_at = coalesce(disabled_at, ?2), disabled_because = ?3 WHERE id = ?1",
        params![id, tx.now(), because.as_str()],
    )?;
    Ok(())
}

/// Enables a client.
pub(crate) fn admit(tx: &Tx<'_>, id: &ClientId) -> Result<(), Fault> {
    tx.execute("UPDATE client SET disabled_at = NULL, disabled_because = NULL WHERE id = ?1", params![id])?;
    Ok(())
}

/// Sets a client's trust.
pub(crate) fn set_trust(tx: &Tx<'_>, id: &ClientId, trust: Trust) -> Result<(), Fault> {
    tx.execute("UPDATE client SET trust = ?2 WHERE id = ?1", params![id, trust.as_str()])?;
    if trust == Trust::Verified { release(tx, id) } else { Ok(()) }
}

/// Clients that act in their own name: resource servers, and those with the client credentials grant.
pub(crate) fn acting_in_their_own_name(conn: &Conn<'_>) -> Result<Vec<ClientId>, Fault> {
    conn.query(
        "SELECT client_id FROM resource_server_audience
         UNION SELECT id FROM client WHERE instr(' ' || grant_types || ' ', ' ' || ?1 || ' ')",
        params![CLIENT_CREDENTIALS],
        |row| row.get(0),
    )
}

/// Adds a client.
pub(crate) fn insert(tx: &Tx<'_>, client: &Client, registration: &Registration<'_>) -> Result<(), Fault> {
    tx.execute(
        "INSERT INTO client (id, name, source, trust, auth_method, auth_defaulted, jwks, application_type, grant_types, scope,
         metadata, fingerprint, management, created_at, holder, network)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
        params![
            client.id,
            client.name,
            client.source.as_str(),
            client.trust.as_str(),
            client.auth_method.as_str(),
            client.auth_defaulted,
            client.jwks,
            registration.application_type,
            client.grant_types.join(" "),
            client.scope,
            registration.metadata,
            registration.fingerprint,
            registration.management,
            tx.now(),
            registration.holder.map(Holder::name),
            registration.holder.map(Holder::network)
        ],
    )?;
    insert_redirect_uris(tx, client)
}

fn insert_redirect_uris(tx: &Tx<'_>, client: &Client) -> Result<(), Fault> {
    for uri in &client.redirect_uris {
        tx.execute(
            "INSERT INTO client_redirect_uri (client_id, uri) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            params![client.id, uri],
        )?;
    }
    Ok(())
}

/// A verified client.
pub(crate) struct Verified {
    pub id: ClientId,
    pub name: String,
    pub source: Source,
}

/// All verified clients.
pub(crate) fn verified(conn: &Conn<'_>) -> Result<Vec<Verified>, Fault> {
    conn.query("SELECT id, name, source FROM client WHERE trust = 'verified'", [], |row| {
        let source = Source::parse(&row.get::<String>(2)?)?;
        Ok(Verified { id: row.get(0)?, name: row.get(1)?, source })
    })
}

/// The ids of the clients with this source.
pub(crate) fn of_source(conn: &Conn<'_>, source: Source) -> Result<Vec<ClientId>, Fault> {
    conn.query("SELECT id FROM client WHERE source = ?1 ORDER BY id", params![source.as_str()], |row| {
        row.get(0)
    })
}

/// Updates an existing client. Its source, its trust and whether it is disabled do not change.
pub(crate) fn replace(tx: &Tx<'_>, client: &Client, registration: &Registration<'_>) -> Result<(), Fault> {
    tx.execute(
        "UPDATE client SET name = ?2, auth_method = ?3, auth_defaulted = ?4, jwks = ?5, application_type = ?6,
         grant_types = ?7, scope = ?8, metadata = ?9, fingerprint = ?10, management = ?11 WHERE id = ?1",
        params![
            client.id,
            client.name,
            client.auth_method.as_str(),
            client.auth_defaulted,
            client.jwks,
            registration.application_type,
            client.grant_types.join(" "),
            client.scope,
            registration.metadata,
            registration.fingerprint,
            registration.management
        ],
    )?;
    tx.execute("DELETE FROM client_redirect_uri WHERE client_id = ?1", params![client.id])?;
    insert_redirect_uris(tx, client)
}

/// When a client became known.
pub(crate) fn created_at(conn: &Conn<'_>, id: &ClientId) -> Result<Timestamp, Fault> {
    let found =
        conn.query_row("SELECT created_at FROM client WHERE id = ?1", params![id], |row| row.get(0))?;
    found.ok_or_else(|| Fault::Corrupt("a client vanished in a transaction".to_owned()))
}

/// Deletes a client and its dependent rows.
pub(crate) fn delete(tx: &Tx<'_>, id: &ClientId) -> Result<(), Fault> {
    tx.execute("DELETE FROM client WHERE id = ?1", params![id])?;
    Ok(())
}

/// Updates a client's row from its document, with the document's source and the resulting trust. Whether it is
/// disabled does not change.
pub(crate) fn follow_document(
    tx: &Tx<'_>,
    client: &Client,
    registration: &Registration<'_>,
) -> Result<(), Fault> {
    tx.execute(
        "UPDATE client SET source = ?2, trust = ?3 WHERE id = ?1",
        params![client.id, client.source.as_str(), client.trust.as_str()],
    )?;
    replace(tx, client, registration)
}

/// All clients that are known by a document or by its URL.
pub(crate) fn by_document(conn: &Conn<'_>) -> Result<Vec<ClientId>, Fault> {
    conn.query(
        "SELECT id FROM client WHERE source IN ('catalogue', 'imported', 'fetched', 'unknown_url') ORDER BY id",
        [],
        |row| row.get(0),
    )
}

/// Forgets the remembered consents for this client (CONSENT-04).
pub(crate) fn forget_consents(tx: &Tx<'_>, id: &ClientId) -> Result<(), Fault> {
    tx.execute("DELETE FROM consent WHERE client_id = ?1", params![id])?;
    Ok(())
}

/// Notes that a user approved this client. It is in use now, and no longer counts for the address that
/// registered it.
pub(crate) fn touch(tx: &Tx<'_>, id: &ClientId) -> Result<(), Fault> {
    tx.execute("UPDATE client SET last_used_at = ?2 WHERE id = ?1", params![id, tx.now()])?;
    release(tx, id)
}

/// The stored response of a registration with this fingerprint, if it was made since then and no user has
/// approved the client.
pub(crate) fn same_registration(
    conn: &Conn<'_>,
    fingerprint: &Digest,
    since: Timestamp,
) -> Result<Option<String>, Fault> {
    conn.query_row(
        "SELECT metadata FROM client WHERE fingerprint = ?1 AND created_at >= ?2 AND last_used_at IS NULL AND disabled_at IS NULL",
        params![fingerprint, since],
        |row| row.get(0),
    )
}

/// Lets the next registration with this fingerprint make a new client.
pub(crate) fn forget_fingerprint(tx: &Tx<'_>, fingerprint: &Digest) -> Result<(), Fault> {
    tx.execute("UPDATE client SET fingerprint = NULL WHERE fingerprint = ?1", params![fingerprint])?;
    Ok(())
}

/// Whether this is the registration access token of this client (RFC 7592 §1.3).
pub(crate) fn is_managed_by(conn: &Conn<'_>, id: &ClientId, token: &Digest) -> Result<bool, Fault> {
    let found: Option<Option<Digest>> =
        conn.query_row("SELECT management FROM client WHERE id = ?1", params![id], |row| row.get(0))?;
    Ok(found.flatten().as_ref() == Some(token))
}

/// The stored registration response of a client, as JSON.
pub(crate) fn metadata(conn: &Conn<'_>, id: &ClientId) -> Result<Option<String>, Fault> {
    conn.query_row("SELECT metadata FROM client WHERE id = ?1", params![id], |row| row.get(0))
}

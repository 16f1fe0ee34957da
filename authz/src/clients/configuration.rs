//! Clients named in `portcullis.toml`: added, changed and disabled to match the file at every start.

use serde_json::Value;
use shared::audit::{self, Event, Name};
use shared::db::Conn;
use shared::{ClientId, Digest, Fault, Issuer, Tx};

use super::administration::{about, registered, stop, trust};
use super::names::{self, NameConflict};
use super::preregistered::Preregistered;
use crate::store::client_secrets;
use crate::store::clients::{self, Client, DisabledReason, Source, Trust};
use crate::store::grants::{self, Reason};
use crate::{Authz, ending};

/// A client as the file describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Configured {
    id: ClientId,
    wanted: Preregistered,
    /// At most two (CAUTH-04).
    secrets: Vec<Digest>,
}

/// Why the file's clients cannot be applied; one line each.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Obstacle {
    #[error(
        "the client {0} in portcullis.toml has a title that looks like this server's name; give it another title"
    )]
    NameOurs(ClientId),
    #[error(
        "the client {0} in portcullis.toml has a title that looks like the verified client {1}; give it another title, or run: portcullis client unverify {1}"
    )]
    NameTaken(ClientId, ClientId),
    #[error(
        "a client {0} exists that does not come from portcullis.toml; remove it from portcullis.toml, or run: portcullis client delete {0}"
    )]
    IdTaken(ClientId),
    #[error(
        "the client {0} in portcullis.toml has the same secret as another client; give it its own secret"
    )]
    SecretTaken(ClientId),
}

impl Configured {
    /// The client with this name in the file; `None` if the name cannot be part of a client id.
    pub fn new(name: &str, wanted: Preregistered, secrets: Vec<Digest>) -> Option<Self> {
        Some(Self { id: ClientId::configured(name)?, wanted, secrets })
    }

    /// Its id. It is derived from the name in the file, so that clients can be set up before the server.
    pub fn id(&self) -> &ClientId {
        &self.id
    }

    /// The client's description.
    pub fn wanted(&self) -> &Preregistered {
        &self.wanted
    }

    /// Whether the two names look alike to a person (DCR-13).
    pub fn reads_like(&self, other: &Self) -> bool {
        crate::visible::reads_like(&self.wanted.name, &other.wanted.name)
    }

    /// Whether the two share a secret, so that one could pass for the other.
    pub fn shares_a_secret_with(&self, other: &Self) -> bool {
        self.secrets.iter().any(|secret| other.secrets.contains(secret))
    }
}

/// The first obstacle to applying the file, if there is one.
///
/// # Errors
/// A database fault.
pub fn obstacle(
    conn: &Conn<'_>,
    issuer: &Issuer,
    configured: &[Configured],
) -> Result<Option<Obstacle>, Fault> {
    for wanted in configured {
        let id = || wanted.id.clone();
        match names::taken(issuer, conn, &wanted.wanted.name, |_, source| source == Source::Configuration)? {
            None => {}
            Some(NameConflict::Ours) => return Ok(Some(Obstacle::NameOurs(id()))),
            Some(NameConflict::Verified(other)) => return Ok(Some(Obstacle::NameTaken(id(), other))),
        }
        if clients::find(conn, &wanted.id)?.is_some_and(|client| client.source != Source::Configuration) {
            return Ok(Some(Obstacle::IdTaken(id())));
        }
        for secret in &wanted.secrets {
            // Secrets within the file are compared when the file is read. In the database they may be about to
            // move to another client.
            let holder = client_secrets::holder(conn, secret)?;
            if holder.is_some_and(|(_, source)| source != Source::Configuration) {
                return Ok(Some(Obstacle::SecretTaken(id())));
            }
        }
    }
    Ok(None)
}

/// Makes the clients match the file, in one transaction. If there is an obstacle, nothing changes.
///
/// # Errors
/// A database fault.
pub(crate) fn follow(
    authz: &Authz,
    tx: &Tx<'_>,
    configured: &[Configured],
) -> Result<Result<(), Obstacle>, Fault> {
    if let Some(obstacle) = obstacle(tx, &authz.issuer, configured)? {
        return Ok(Err(obstacle));
    }
    let mut fewer_secrets = Vec::new();
    for id in clients::of_source(tx, Source::Configuration)? {
        // First, because a secret may move from one client to another.
        let wanted = configured.iter().find(|wanted| wanted.id == id);
        let fewer = client_secrets::keep_only(tx, &id, wanted.map_or(&[], |wanted| &wanted.secrets))?;
        match wanted {
            None => leave(authz, tx, &id)?,
            Some(_) if fewer => fewer_secrets.push(id),
            Some(_) => {}
        }
    }
    for wanted in configured {
        match clients::find(tx, &wanted.id)? {
            Some(client) => update(authz, tx, &client, wanted, fewer_secrets.contains(&wanted.id))?,
            None => add(tx, wanted)?,
        }
    }
    for id in clients::of_source(tx, Source::Configuration)? {
        authz.status.client_changed(tx, &id)?;
    }
    Ok(Ok(()))
}

fn add(tx: &Tx<'_>, wanted: &Configured) -> Result<(), Fault> {
    let client = wanted.wanted.insert(tx, wanted.id.clone(), Source::Configuration)?;
    for secret in &wanted.secrets {
        client_secrets::insert(tx, &client.id, secret)?;
    }
    audit::append(tx, registered(Event::allowed(Name::ClientRegistered).by_server(), &client))
}

/// Disables a client that the file no longer names. It is no longer verified, and its name is free.
fn leave(authz: &Authz, tx: &Tx<'_>, id: &ClientId) -> Result<(), Fault> {
    let Some(client) = clients::find(tx, id)?.filter(|client| client.trust == Trust::Verified) else {
        return Ok(());
    };
    // A client that an administrator disabled stays disabled, even when the file names it again.
    let because = clients::stopped(tx, id)?.unwrap_or(DisabledReason::LeftConfiguration);
    let ended = stop(authz, tx, id, because)?;
    trust(authz, tx, id, authz.config.redirects.trust(&client.redirect_uris))?;
    let event = about(Event::allowed(Name::ClientDisabled).by_server(), &client);
    audit::append(
        tx,
        event.detail("because", DisabledReason::LeftConfiguration.as_str()).detail("grants_ended", ended),
    )
}

fn update(
    authz: &Authz,
    tx: &Tx<'_>,
    client: &Client,
    wanted: &Configured,
    fewer_secrets: bool,
) -> Result<(), Fault> {
    let mut changed = wanted.wanted.differences(client);
    let mut ended = 0;
    if ["redirect_uris", "jwks", "token_endpoint_auth_method"].iter().any(|field| changed.contains(field)) {
        // Users consented to a client with other redirect URIs or another owner (DCR-10).
        ended = ending::all_through(authz, tx, &client.id, Reason::ClientChanged)?;
    } else if changed.contains(&"scope") {
        for grant in grants::revoke_own(tx, &client.id)? {
            authz.status.kill_grant(tx, &grant);
            ended += 1;
        }
    }
    wanted.wanted.replace(tx, client)?;
    let secrets = client_secrets::all(tx, &client.id)?;
    let new: Vec<_> = wanted.secrets.iter().filter(|secret| !secrets.contains(secret)).collect();
    for secret in &new {
        client_secrets::insert(tx, &client.id, secret)?;
    }
    if fewer_secrets || !new.is_empty() {
        changed.push("client_secret");
    }
    if client.trust != Trust::Verified {
        trust(authz, tx, &client.id, Trust::Verified)?;
        changed.push("trust");
        if clients::stopped(tx, &client.id)? == Some(DisabledReason::LeftConfiguration) {
            clients::admit(tx, &client.id)?;
            authz.status.enable_client(tx, &client.id);
            changed.push("disabled");
        }
    }
    if changed.is_empty() {
        return Ok(());
    }
    let changed: Vec<Value> = changed.into_iter().map(Value::from).collect();
    let event = about(Event::allowed(Name::ClientUpdated).by_server(), client);
    audit::append(tx, event.detail("changed_fields", changed).detail("grants_ended", ended))
}

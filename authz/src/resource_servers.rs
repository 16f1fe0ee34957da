//! Resource servers elsewhere in the administrator's commands: which may introspect, and for which resources
//! (INTRO-01, INTRO-04).
//!
//! Each is a client without redirect URIs and grants. Clients can request tokens for its resources.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::audit::{self, Event, Name};
use shared::{ClientId, Digest, Fault, ResourceUri, Scope, Secret, Tx};

use crate::clients::names;
use crate::people::accepted;
use crate::people::name::valid_name;
use crate::store::clients::{self, AuthMethod, Client, Registration, Source, Trust};
use crate::store::{client_reports, client_secrets, resource_servers};
use crate::visible::reads_like;
use crate::{Authz, ending};

/// A resource server. Times are Unix milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ResourceServer {
    pub id: ClientId,
    pub name: String,
    /// The resources whose tokens it may introspect.
    pub audiences: Vec<ResourceUri>,
    /// Its authentication method (`token_endpoint_auth_method`).
    pub auth_method: String,
    pub disabled: bool,
    pub secrets: Vec<SecretAge>,
}

/// A live secret: the first hexadecimal digits of its SHA-256, and when it ends.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SecretAge {
    pub sha256_8: String,
    pub created_at: i64,
    pub expires_at: Option<i64>,
}

/// How a resource server authenticates.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proof {
    /// By a secret, in the header or in the form.
    Secret,
    /// By assertions signed with one of these keys (a JWK set, RFC 7517 §5).
    Keys(Value),
    /// Not at all: it does not introspect, and checks only signature and expiry.
    None,
}

/// Why a command about resource servers is refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("no resource server `{0}`; `portcullis rs list` shows all resource servers")]
    Unknown(String),
    #[error("`{0}` is not a valid name: use 1 to 64 visible characters, and do not start with c_")]
    NameInvalid(String),
    #[error("`{0}` is taken, or looks like a name that is taken; choose another name")]
    NameTaken(String),
    #[error("`{0}` is not a valid audience: use an absolute http or https URL without a fragment")]
    AudienceInvalid(String),
    #[error("add the URL that it serves: --audience URL")]
    NoAudience,
    #[error("the key set cannot be used: {0}")]
    Keys(String),
    #[error("`{0}` has no secret")]
    NoSecret(String),
}

/// A refusal is an answer and changes nothing; a fault rolls back.
pub type Answer<T> = Result<Result<T, Refusal>, Fault>;

/// Adds a resource server. Its secret, if it has one, is shown only once.
///
/// # Errors
/// A database fault.
pub fn add(
    authz: &Authz,
    tx: &Tx<'_>,
    uid: u32,
    (name, audiences): (&str, &[String]),
    proof: &Proof,
) -> Answer<(ResourceServer, Option<Secret>)> {
    let Some(name) = valid_name(name).ok().filter(|name| !name.starts_with("c_")) else {
        return Ok(Err(Refusal::NameInvalid(name.to_owned())));
    };
    let alike = list(tx)?.iter().any(|other| reads_like(&other.name, &name));
    if names::taken(&authz.issuer, tx, &name, |_, _| false)?.is_some() || alike {
        return Ok(Err(Refusal::NameTaken(name)));
    }
    let audiences = accepted!(parse(audiences));
    let (auth_method, jwks) = match proof {
        Proof::Secret => (AuthMethod::ClientSecretBasic, None),
        Proof::None => (AuthMethod::None, None),
        Proof::Keys(set) => match keys::ClientKeys::parse(set) {
            Ok(keys) => (AuthMethod::PrivateKeyJwt, Some(keys.to_json().to_string())),
            Err(bad) => return Ok(Err(Refusal::Keys(bad.to_string()))),
        },
    };
    let client = insert(tx, name, auth_method, jwks)?;
    for audience in &audiences {
        resource_servers::add_audience(tx, &client.id, audience)?;
    }
    let secret = match proof {
        Proof::Secret => Some(client_secrets::issue(tx, &client.id, Duration::ZERO)?),
        Proof::Keys(_) | Proof::None => None,
    };
    authz.status.client_changed(tx, &client.id)?;
    let names: Vec<String> = audiences.iter().map(ToString::to_string).collect();
    let event = record(Name::ClientRegistered, uid, &client).detail("audiences", names);
    audit::append(tx, event.detail("auth_method", client.auth_method.as_str()))?;
    Ok(Ok((describe(tx, &client)?, secret)))
}

/// Parses the audiences of a command; repeated ones are removed.
fn parse(audiences: &[String]) -> Result<Vec<ResourceUri>, Refusal> {
    let parsed = audiences
        .iter()
        .map(|text| ResourceUri::parse(text).map_err(|_| Refusal::AudienceInvalid(text.clone())));
    let mut parsed = parsed.collect::<Result<Vec<_>, _>>()?;
    parsed.sort();
    parsed.dedup();
    if parsed.is_empty() { Err(Refusal::NoAudience) } else { Ok(parsed) }
}

/// Adds the client row of a resource server, without redirect URIs and grants.
fn insert(tx: &Tx<'_>, name: String, auth_method: AuthMethod, jwks: Option<String>) -> Result<Client, Fault> {
    let client = Client {
        id: ClientId::random(),
        name,
        source: Source::Administrator,
        trust: Trust::Verified,
        auth_method,
        // The administrator chose "a secret" and not how it is sent, so both ways are accepted (CAUTH-01).
        auth_defaulted: auth_method == AuthMethod::ClientSecretBasic,
        jwks,
        grant_types: Vec::new(),
        redirect_uris: Vec::new(),
        scope: Scope::empty(),
        disabled: false,
    };
    let metadata = serde_json::json!({ "client_id": client.id, "client_name": client.name }).to_string();
    let registration = Registration {
        application_type: "web",
        metadata: &metadata,
        fingerprint: None,
        management: None,
        holder: None,
    };
    clients::insert(tx, &client, &registration)?;
    Ok(client)
}

/// All resource servers.
///
/// # Errors
/// A database fault.
pub fn list(tx: &Tx<'_>) -> Result<Vec<ResourceServer>, Fault> {
    let mut all = Vec::new();
    for id in resource_servers::all(tx)? {
        if let Some(client) = clients::find(tx, &id)? {
            all.push(describe(tx, &client)?);
        }
    }
    Ok(all)
}

/// One resource server, by id or name.
///
/// # Errors
/// A database fault.
pub fn show(tx: &Tx<'_>, who: &str) -> Answer<ResourceServer> {
    let client = accepted!(find(tx, who)?);
    Ok(Ok(describe(tx, &client)?))
}

/// Gives a resource server a new secret. The previous one works for `overlap` longer (CAUTH-04).
///
/// # Errors
/// A database fault.
pub fn rotate_secret(
    authz: &Authz,
    tx: &Tx<'_>,
    uid: u32,
    who: &str,
    overlap: Duration,
) -> Answer<(ResourceServer, Secret)> {
    let client = accepted!(find(tx, who)?);
    if !matches!(client.auth_method, AuthMethod::ClientSecretBasic | AuthMethod::ClientSecretPost) {
        return Ok(Err(Refusal::NoSecret(client.name)));
    }
    let secret = client_secrets::issue(tx, &client.id, overlap)?;
    authz.status.client_changed(tx, &client.id)?;
    let event = record(Name::ClientUpdated, uid, &client)
        .detail("changed_fields", vec!["client_secret".to_owned()])
        .detail("secret_sha256_8", secret.digest().short());
    audit::append(tx, event)?;
    Ok(Ok((describe(tx, &client)?, secret)))
}

/// Deletes a resource server. It can no longer introspect, and tokens are no longer issued for resources that
/// only it served.
///
/// # Errors
/// A database fault.
pub fn delete(authz: &Authz, tx: &Tx<'_>, uid: u32, who: &str) -> Answer<ResourceServer> {
    let client = accepted!(find(tx, who)?);
    let gone = describe(tx, &client)?;
    ending::client(authz, tx, &client.id)?;
    audit::append(tx, record(Name::ClientDeleted, uid, &client))?;
    Ok(Ok(gone))
}

fn record(name: Name, uid: u32, client: &Client) -> Event {
    let event = Event::allowed(name).by_console(uid).client(&client.id).subject(&client.name);
    event.detail("source", client.source.as_str()).detail("role", "resource_server")
}

fn find(tx: &Tx<'_>, who: &str) -> Answer<Client> {
    for id in resource_servers::all(tx)? {
        if let Some(client) = clients::find(tx, &id)?
            && (client.id.as_str() == who || client.name == who)
        {
            return Ok(Ok(client));
        }
    }
    Ok(Err(Refusal::Unknown(who.to_owned())))
}

fn describe(tx: &Tx<'_>, client: &Client) -> Result<ResourceServer, Fault> {
    let secret = |digest: Digest, created_at, expires_at| SecretAge {
        sha256_8: digest.short(),
        created_at,
        expires_at,
    };
    let secrets = client_reports::secrets(tx, &client.id, tx.now())?.into_iter();
    Ok(ResourceServer {
        id: client.id.clone(),
        name: client.name.clone(),
        audiences: resource_servers::audiences(tx, &client.id)?,
        auth_method: client.auth_method.as_str().to_owned(),
        disabled: client.disabled,
        secrets: secrets.map(|s| secret(s.digest, s.created_at.0, s.expires_at.map(|at| at.0))).collect(),
    })
}

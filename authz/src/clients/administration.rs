//! Clients in the administrator's commands: listed, shown and changed (ADMIN-05, REVOKE-07).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::audit::{self, Event, Name};
use shared::db::Conn;
use shared::{ClientId, Fault, GrantId, RedirectUri, Scope, Secret, Timestamp, Tx, UserId};

use super::names::{self, NameConflict};
use super::preregistered::{Description, Mistake, Preregistered};
use crate::Authz;
use crate::ending;
use crate::people::accepted;
use crate::store::client_reports::{self, ClientUsage, GrantFilter};
use crate::store::client_secrets;
use crate::store::clients::{self, AuthMethod, Client, DisabledReason, Source, Trust};
use crate::store::grants::Reason;
use crate::visible;

/// A client in a list. Times are Unix milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    pub id: ClientId,
    pub name: String,
    /// How it became known.
    pub source: String,
    /// `unverified`, `known` or `verified` (DCR-08).
    pub trust: String,
    /// Its authentication method (`token_endpoint_auth_method`).
    pub auth_method: String,
    pub grant_types: Vec<String>,
    pub disabled: bool,
    /// How many users have a live grant for it.
    pub users: u32,
    pub created_at: i64,
    pub last_used_at: Option<i64>,
}

/// Everything known of a client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Details {
    #[serde(flatten)]
    pub summary: Summary,
    /// `administrator` or `left_configuration` if it is disabled, else `None`.
    pub disabled_because: Option<String>,
    pub redirect_uris: Vec<Redirect>,
    /// The scope that it may have in its own name (CC-01).
    pub scope: Scope,
    pub secrets: Vec<SecretAge>,
    /// The ids (`kid`) of its public keys.
    pub keys: Vec<String>,
    /// The live grants of users to it.
    pub access: Vec<Access>,
}

/// A redirect URI, and whether it may be used at the client's current trust (DCR-05).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Redirect {
    pub uri: String,
    pub usable: bool,
}

/// A live secret: the first hexadecimal digits of its SHA-256, and when it ends.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SecretAge {
    pub sha256_8: String,
    pub created_at: i64,
    pub expires_at: Option<i64>,
}

/// One user's grant to the client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Access {
    pub grant_id: GrantId,
    pub user_id: UserId,
    pub user: String,
    pub resource: String,
    pub scope: Scope,
    pub created_at: i64,
    pub last_used_at: Option<i64>,
    pub expires_at: i64,
    pub address: Option<String>,
}

/// Why a command about clients is refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("no client `{0}`; `portcullis client list` shows all clients")]
    Unknown(String),
    #[error(
        "{1} clients are called `{0}`; use an id instead: {2}; `portcullis client list` shows all clients"
    )]
    Ambiguous(String, usize, String),
    #[error(
        "other clients have names that look like `{0}`: {1}. Use the id of the one you mean; `portcullis client list` shows all clients"
    )]
    LooksLike(String, String),
    #[error("`{0}` is this server's own name; choose a name that people cannot confuse with it")]
    NameOurs(String),
    #[error(
        "`{0}` looks like the name of the verified client {1}; choose a name that people can tell apart, or change that client: portcullis client set {1} --redirect-uri URI"
    )]
    NameTaken(String, ClientId),
    #[error("`{0}` is no longer in portcullis.toml; put it back there and run: portcullis reload")]
    LeftConfiguration(String),
    #[error("`{0}` is defined in portcullis.toml; change it there and run: portcullis reload")]
    Configured(String),
    #[error(
        "`{0}` registered itself, so only the client can change its registration. Let it register again, or delete it: portcullis client delete {1}"
    )]
    RegisteredItself(String, ClientId),
    #[error(
        "the addresses and the name of `{0}` come from its client ID metadata document {1}; import a newer one: portcullis client import-metadata"
    )]
    Documented(String, ClientId),
    #[error(
        "this server has not read the document `{0}`, so it cannot be verified; import the document first"
    )]
    NoDocument(String),
    #[error("{0}")]
    Mistake(Mistake),
    #[error(
        "it would have no use: add --redirect-uri URI to sign people in, --device for terminals without a browser, or --client-credentials --scope SCOPE for a scope of its own"
    )]
    NoUse,
    #[error(
        "the redirect URI `{0}` has a scheme that any program can claim; add it to `app_schemes` under [registration] in portcullis.toml and restart the server"
    )]
    SchemeNotListed(String),
    #[error("no tool needs a scope `{0}`; `portcullis check` shows all scopes")]
    ScopeUnknown(String),
    #[error("`{0}` has no secret: it authenticates by {1}")]
    NoSecret(String, &'static str),
}

impl From<Mistake> for Refusal {
    fn from(mistake: Mistake) -> Self {
        match mistake {
            Mistake::Nothing => Self::NoUse,
            other => Self::Mistake(other),
        }
    }
}

/// A client's new secret. It is shown only once.
#[derive(Debug)]
pub struct Issued {
    pub client: Details,
    pub secret: Secret,
    /// When the previous secret ends, if there is one.
    pub previous_ends_at: Option<Timestamp>,
}

/// A refusal is an answer and changes nothing; a fault rolls back.
pub type Answer<T> = Result<Result<T, Refusal>, Fault>;

/// Every client.
///
/// # Errors
/// A database fault.
pub fn list(tx: &Tx<'_>) -> Result<Vec<Summary>, Fault> {
    Ok(client_reports::all(tx, tx.now())?.into_iter().map(summary).collect())
}

/// One client, by id or name.
///
/// # Errors
/// A database fault.
pub fn show(authz: &Authz, tx: &Tx<'_>, who: &str) -> Answer<Details> {
    let client = accepted!(find(tx, who)?);
    Ok(Ok(details(authz, tx, &client)?))
}

/// Adds a client. One that authenticates by secret gets one, which ends after `lifetime` if that is given.
///
/// # Errors
/// A database fault.
pub fn add(
    authz: &Authz,
    tx: &Tx<'_>,
    uid: u32,
    description: &Description,
    lifetime: Option<Duration>,
) -> Answer<(Details, Option<Secret>)> {
    let wanted = accepted!(Preregistered::new(description).map_err(Refusal::from));
    accepted!(check_name(authz, tx, &wanted.name, None)?);
    accepted!(wanted.check_schemes(&authz.config.redirects).map_err(Refusal::SchemeNotListed));
    let scopes = authz.grantable();
    if let Some(unknown) = wanted.scope.iter().find(|scope| !scopes.contains(scope)) {
        return Ok(Err(Refusal::ScopeUnknown(unknown.to_owned())));
    }
    let client = wanted.insert(tx, ClientId::random(), Source::Administrator)?;
    let secret = match client.auth_method {
        AuthMethod::ClientSecretBasic => Some(issue(tx, &client, Duration::ZERO, lifetime)?),
        _ => None,
    };
    authz.status.client_changed(tx, &client.id)?;
    audit::append(tx, registered(Event::allowed(Name::ClientRegistered).by_console(uid), &client))?;
    Ok(Ok((details(authz, tx, &client)?, secret)))
}

/// Gives a client a new secret. The previous one works for `overlap` longer, so that the client can switch;
/// there are never three (CAUTH-04).
///
/// # Errors
/// A database fault.
pub fn rotate_secret(
    authz: &Authz,
    tx: &Tx<'_>,
    uid: u32,
    who: &str,
    overlap: Duration,
    lifetime: Option<Duration>,
) -> Answer<Issued> {
    let client = accepted!(find(tx, who)?);
    if client.source == Source::Configuration {
        return Ok(Err(Refusal::Configured(client.name)));
    }
    if !matches!(client.auth_method, AuthMethod::ClientSecretBasic | AuthMethod::ClientSecretPost) {
        return Ok(Err(Refusal::NoSecret(client.name, client.auth_method.as_str())));
    }
    let secret = issue(tx, &client, overlap, lifetime)?;
    authz.status.client_changed(tx, &client.id)?;
    let digest = secret.digest();
    let live = client_reports::secrets(tx, &client.id, tx.now())?;
    let previous = live.into_iter().find(|other| other.digest != digest).and_then(|other| other.expires_at);
    let mut event = updated(uid, &client, &["client_secret"]).detail("secret_sha256_8", digest.short());
    if let Some(at) = previous {
        event = event.detail("previous_ends_at", at.to_string());
    }
    audit::append(tx, event)?;
    Ok(Ok(Issued { client: details(authz, tx, &client)?, secret, previous_ends_at: previous }))
}

fn issue(
    tx: &Tx<'_>,
    client: &Client,
    overlap: Duration,
    lifetime: Option<Duration>,
) -> Result<Secret, Fault> {
    let secret = client_secrets::issue(tx, &client.id, overlap)?;
    if let Some(lifetime) = lifetime {
        client_secrets::end_at(tx, &secret.digest(), tx.now() + lifetime)?;
    }
    Ok(secret)
}

/// Marks a client as verified (DCR-08): all redirect URIs that it registered may be used (DCR-05), and it may
/// be granted high-risk scopes.
///
/// # Errors
/// A database fault.
pub fn verify(authz: &Authz, tx: &Tx<'_>, uid: u32, who: &str) -> Answer<Details> {
    let client = accepted!(find(tx, who)?);
    if client.source == Source::UnknownUrl {
        return Ok(Err(Refusal::NoDocument(client.id.to_string())));
    }
    if has_left_configuration(&client) {
        return Ok(Err(Refusal::LeftConfiguration(client.name)));
    }
    accepted!(check_name(authz, tx, &client.name, Some(&client.id))?);
    trust(authz, tx, &client.id, Trust::Verified)?;
    authz.status.set_ceiling(tx, &client.id, Trust::Verified.ceiling());
    let event = Event::allowed(Name::ClientVerified).by_console(uid);
    audit::append(
        tx,
        about(event, &client).detail("before", client.trust.as_str()).detail("after", "verified"),
    )?;
    show(authz, tx, client.id.as_str())
}

/// Withdraws the verification of a client. Its grants end, because users decided about a verified client.
///
/// # Errors
/// A database fault.
pub fn unverify(authz: &Authz, tx: &Tx<'_>, uid: u32, who: &str) -> Answer<Details> {
    let client = accepted!(find(tx, who)?);
    if client.source == Source::Configuration {
        return Ok(Err(Refusal::Configured(client.name)));
    }
    let lower = match client.source {
        // DCR-08: an administrator or this project has reviewed these documents.
        Source::Catalogue | Source::Imported => Trust::Known,
        _ => authz.config.redirects.trust(&client.redirect_uris),
    };
    let mut ended = 0;
    if client.trust == Trust::Verified {
        trust(authz, tx, &client.id, lower)?;
        ended = ending::all_through(authz, tx, &client.id, Reason::ClientChanged)?;
    }
    let after = if client.trust == Trust::Verified { lower } else { client.trust };
    let event = updated(uid, &client, &["trust"]).detail("before", client.trust.as_str());
    audit::append(tx, event.detail("after", after.as_str()).detail("grants_ended", ended))?;
    show(authz, tx, client.id.as_str())
}

/// Disables a client: its tokens are refused from the next request on and every grant ends. Enabling it again
/// does not restore them (AUTHZ-17).
///
/// # Errors
/// A database fault.
pub fn disable(authz: &Authz, tx: &Tx<'_>, uid: u32, who: &str) -> Answer<Details> {
    let client = accepted!(find(tx, who)?);
    let ended = stop(authz, tx, &client.id, DisabledReason::Administrator)?;
    let event = Event::allowed(Name::ClientDisabled).by_console(uid);
    audit::append(tx, about(event, &client).detail("grants_ended", ended))?;
    show(authz, tx, client.id.as_str())
}

/// Enables a client again. Its users must sign in again.
///
/// # Errors
/// A database fault.
pub fn enable(authz: &Authz, tx: &Tx<'_>, uid: u32, who: &str) -> Answer<Details> {
    let client = accepted!(find(tx, who)?);
    if has_left_configuration(&client) {
        return Ok(Err(Refusal::LeftConfiguration(client.name)));
    }
    clients::admit(tx, &client.id)?;
    authz.status.enable_client(tx, &client.id);
    authz.status.client_changed(tx, &client.id)?;
    let event = updated(uid, &client, &["disabled"]).detail("before", client.disabled);
    audit::append(tx, event.detail("after", false))?;
    show(authz, tx, client.id.as_str())
}

/// Deletes a client and all its grants; the audit log keeps its records. Its id is never issued again.
///
/// # Errors
/// A database fault.
pub fn delete(authz: &Authz, tx: &Tx<'_>, uid: u32, who: &str) -> Answer<Details> {
    let client = accepted!(find(tx, who)?);
    if client.source == Source::Configuration && !has_left_configuration(&client) {
        return Ok(Err(Refusal::Configured(client.name)));
    }
    let gone = details(authz, tx, &client)?;
    let ended = ending::client(authz, tx, &client.id)?;
    let event = Event::allowed(Name::ClientDeleted).by_console(uid);
    audit::append(tx, about(event, &client).detail("grants_ended", ended))?;
    Ok(Ok(gone))
}

/// Stores a client's trust and publishes it to the token status.
pub(super) fn trust(authz: &Authz, tx: &Tx<'_>, id: &ClientId, trust: Trust) -> Result<(), Fault> {
    clients::set_trust(tx, id, trust)?;
    authz.status.set_ceiling(tx, id, trust.ceiling());
    Ok(())
}

/// Marks a client as disabled and ends its grants. Answers with their number.
pub(super) fn stop(
    authz: &Authz,
    tx: &Tx<'_>,
    id: &ClientId,
    because: DisabledReason,
) -> Result<usize, Fault> {
    clients::stop(tx, id, because)?;
    authz.status.disable_client(tx, id);
    authz.status.client_changed(tx, id)?;
    ending::all_through(authz, tx, id, Reason::ClientDisabled)
}

/// Whether the client came from the configuration file and is no longer in it. Its verification ended with that.
fn has_left_configuration(client: &Client) -> bool {
    client.source == Source::Configuration && client.trust != Trust::Verified
}

/// DCR-13: users recognise verified clients by their names, so those must stay unique.
pub(super) fn check_name(authz: &Authz, tx: &Tx<'_>, name: &str, itself: Option<&ClientId>) -> Answer<()> {
    Ok(match names::taken(&authz.issuer, tx, name, |id, _| Some(id) == itself)? {
        None => Ok(()),
        Some(NameConflict::Ours) => Err(Refusal::NameOurs(name.to_owned())),
        Some(NameConflict::Verified(other)) => Err(Refusal::NameTaken(name.to_owned(), other)),
    })
}

/// The client with this id, or the one with this name if no other client has it.
pub(crate) fn find(tx: &Tx<'_>, who: &str) -> Answer<Client> {
    if let Some(id) = ClientId::parse(who)
        && let Some(client) = clients::find(tx, &id)?
    {
        return Ok(Ok(client));
    }
    let named = clients::named(tx, who)?;
    if named.len() < 2 {
        // Names that look alike to a person count as the same name.
        let alike = clients::looking_like(tx, who)?;
        if !alike.is_empty() {
            let one = |(id, name): &(ClientId, String)| format!("`{}` ({id})", visible::clean(name));
            let alike = alike.iter().map(one).collect::<Vec<_>>().join(" and ");
            return Ok(Err(Refusal::LooksLike(who.to_owned(), alike)));
        }
    }
    let client = match named.as_slice() {
        [only] => clients::find(tx, only)?,
        [] => None,
        many => {
            let examples: Vec<&str> = many.iter().take(3).map(ClientId::as_str).collect();
            let more = match many.len() - examples.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let examples = examples.join(", ") + &more;
            return Ok(Err(Refusal::Ambiguous(who.to_owned(), many.len(), examples)));
        }
    };
    Ok(client.ok_or_else(|| Refusal::Unknown(who.to_owned())))
}

/// The name for an audit record: of the client with this id, as long as it exists.
///
/// # Errors
/// A database fault.
pub fn name_on_record(conn: &Conn<'_>, id: &str) -> Result<Option<String>, Fault> {
    let Some(id) = ClientId::parse(id) else { return Ok(None) };
    Ok(clients::find(conn, &id)?.map(|client| client.name))
}

/// Adds the client to an audit record (AUDIT-08).
pub(super) fn about(event: Event, client: &Client) -> Event {
    event.client(&client.id).subject(&client.name).detail("source", client.source.as_str())
}

/// Adds the client's metadata to the audit record of its creation (AUDIT-08).
pub(super) fn registered(event: Event, client: &Client) -> Event {
    let hosts: Vec<String> = client.redirect_uris.iter().map(RedirectUri::host_for_people).collect();
    about(event, client)
        .detail("redirect_hosts", hosts)
        .detail("auth_method", client.auth_method.as_str())
        .detail("grant_types", client.grant_types.clone())
}

pub(super) fn updated(uid: u32, client: &Client, changed: &[&str]) -> Event {
    let changed: Vec<String> = changed.iter().map(|&field| field.to_owned()).collect();
    about(Event::allowed(Name::ClientUpdated).by_console(uid), client).detail("changed_fields", changed)
}

fn summary(standing: ClientUsage) -> Summary {
    Summary {
        id: standing.id,
        name: standing.name,
        source: standing.source,
        trust: standing.trust,
        auth_method: standing.auth_method,
        grant_types: standing.grant_types,
        disabled: standing.disabled,
        users: standing.users,
        created_at: standing.created_at.0,
        last_used_at: standing.last_used_at.map(|at| at.0),
    }
}

pub(super) fn details(authz: &Authz, tx: &Tx<'_>, client: &Client) -> Result<Details, Fault> {
    let (now, id) = (tx.now(), &client.id);
    let standing = client_reports::one(tx, id, now)?;
    let standing = standing.ok_or_else(|| Fault::Corrupt("a client vanished in a transaction".to_owned()))?;
    let redirect = |uri: &RedirectUri| Redirect {
        usable: authz.config.redirects.admit_client(client, uri),
        uri: uri.to_string(),
    };
    let secret = |secret: client_reports::SecretAge| SecretAge {
        sha256_8: secret.digest.short(),
        created_at: secret.created_at.0,
        expires_at: secret.expires_at.map(|at| at.0),
    };
    let access = |grant: client_reports::Access| Access {
        grant_id: grant.grant_id,
        user_id: grant.user_id,
        user: grant.user,
        resource: grant.resource.to_string(),
        scope: grant.scope,
        created_at: grant.created_at.0,
        last_used_at: grant.last_used_at.map(|at| at.0),
        expires_at: grant.expires_at.0,
        address: grant.address,
    };
    // Keys without a `kid` are found by trying each one.
    let key = |key: &Value| key["kid"].as_str().unwrap_or("unnamed").to_owned();
    let jwks = client.jwks.as_deref().and_then(|jwks| serde_json::from_str::<Value>(jwks).ok());
    let keys = jwks.as_ref().and_then(|jwks| jwks["keys"].as_array());
    Ok(Details {
        keys: keys.into_iter().flatten().map(key).collect(),
        summary: summary(standing),
        disabled_because: clients::stopped(tx, id)?.map(|because| because.as_str().to_owned()),
        redirect_uris: client.redirect_uris.iter().map(redirect).collect(),
        scope: client.scope.clone(),
        secrets: client_reports::secrets(tx, id, now)?.into_iter().map(secret).collect(),
        access: client_reports::access(tx, GrantFilter { user: None, client: Some(id) }, now, u32::MAX)?
            .into_iter()
            .map(access)
            .collect(),
    })
}

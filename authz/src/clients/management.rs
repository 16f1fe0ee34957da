//! A client reads, changes and removes its own registration (RFC 7592).

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};
use shared::audit::{self, Event, Name};
use shared::db::Conn;
use shared::{ClientId, Digest, Fault, Request, Secret, Tx};

use super::metadata::Metadata;
use super::registration::{
    answer, bearer, give_management, give_secret, name_taken, read, refused, stored, understood,
};
use super::{administration, names};
use crate::Authz;
use crate::ending;
use crate::error::{Code, OAuthError, no_store};
use crate::store::clients::{self, AuthMethod, Client, Registration, Trust};
use crate::store::grants::Reason;
use crate::store::{client_secrets, transactions};

type Answer = Result<Map<String, Value>, OAuthError>;

/// `GET /register/{id}` (RFC 7592 §2.1): reads the registration.
pub(crate) async fn get(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let found = credentials(&id, &headers).and_then(|(id, token)| show(&authz, &id, &token));
    respond(&authz, found, Name::ClientRegistered, &request).await
}

/// `PUT /register/{id}` (RFC 7592 §2.2): replaces it.
pub(crate) async fn put(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let changed = change(&authz, &id, &headers, &body, &request).await;
    respond(&authz, changed, Name::ClientUpdated, &request).await
}

/// `DELETE /register/{id}` (RFC 7592 §2.3): deletes it.
pub(crate) async fn delete(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    match remove(&authz, &id, &headers, &request).await {
        Ok(()) => {
            let mut response = StatusCode::NO_CONTENT.into_response();
            no_store(&mut response);
            response
        }
        Err(refusal) => respond(&authz, Err(refusal), Name::ClientDeleted, &request).await,
    }
}

async fn respond(authz: &Authz, outcome: Answer, name: Name, request: &Request) -> Response {
    match outcome {
        Ok(members) => answer(StatusCode::OK, members),
        Err(refusal) => {
            let event = Event::denied(name, refusal.code.as_str());
            refused(authz, refusal, event, request).await
        }
    }
}

/// The client id and the registration access token of a request.
fn credentials(id: &str, headers: &HeaderMap) -> Result<(ClientId, Secret), OAuthError> {
    ClientId::parse(id).zip(bearer(headers)).ok_or_else(unauthorized)
}

/// DCR-10: a wrong token and a deleted client get the same answer.
fn unauthorized() -> OAuthError {
    OAuthError::new(Code::InvalidToken, "the registration access token does not belong to this client")
}

fn bad(description: &'static str) -> OAuthError {
    OAuthError::new(Code::InvalidClientMetadata, description)
}

fn show(authz: &Authz, id: &ClientId, token: &Secret) -> Answer {
    let digest = token.digest();
    let found = authz.db.read(|conn| {
        let metadata = clients::metadata(conn, id)?;
        Ok(if clients::is_managed_by(conn, id, &digest)? { metadata } else { None })
    })?;
    let mut members = stored(&found.ok_or_else(unauthorized)?)?;
    // Return the token that was presented: the database has only its digest.
    give_management(authz, id, token, &mut members);
    Ok(members)
}

async fn change(authz: &Authz, id: &str, headers: &HeaderMap, body: &[u8], request: &Request) -> Answer {
    let (id, token) = credentials(id, headers)?;
    let (digest, db) = (token.digest(), authz.db.clone());
    // Do not read the body of an unauthenticated request.
    let current = db.read(|conn| managed(conn, &id, &digest))?.ok_or_else(unauthorized)?;
    let asked = read(headers, body)?;
    let secret = asked.get("client_secret").filter(|secret| !secret.is_null()).cloned();
    // Keys and URLs are parsed here and not on the writer, where other requests would wait (RATE-05).
    let wanted = RequestedMetadata { metadata: resulting(authz, &current, asked)?, secret, seen: current };
    let (authz, request) = (authz.clone(), request.clone());
    db.write(move |tx| replace(&authz, tx, &digest, wanted, &request)).await?
}

/// The client whose registration this token may change.
fn managed(conn: &Conn<'_>, id: &ClientId, token: &Digest) -> Result<Option<Client>, Fault> {
    let client = clients::find(conn, id)?;
    Ok(if clients::is_managed_by(conn, id, token)? { client } else { None })
}

/// A client's requested metadata, fully checked as for a new registration.
struct RequestedMetadata {
    metadata: Metadata,
    /// The secret repeated in the request.
    secret: Option<Value>,
    /// The client as it was during the check. If its authentication changes before the job, the request fails as busy.
    seen: Client,
}

/// Replaces the client's metadata.
fn replace(
    authz: &Authz,
    tx: &Tx<'_>,
    token: &Digest,
    wanted: RequestedMetadata,
    request: &Request,
) -> Result<Answer, Fault> {
    let RequestedMetadata { metadata, secret, seen } = wanted;
    let id = &seen.id;
    let (Some(current), Some(before)) = (managed(tx, id, token)?, clients::metadata(tx, id)?) else {
        return Ok(Err(unauthorized()));
    };
    if (current.auth_method, current.auth_defaulted) != (seen.auth_method, seen.auth_defaulted) {
        return Err(Fault::Busy);
    }
    let before = stored(&before)?;
    if secret.is_some() && !is_its_secret(tx, id, secret.as_ref())? {
        return Ok(Err(bad("client_secret is not the issued one")));
    }
    if names::taken(&authz.issuer, tx, &metadata.name, |other, _| other == id)?.is_some() {
        return Ok(Err(name_taken()));
    }
    let issued_at = before.get("client_id_issued_at").and_then(Value::as_i64).unwrap_or_default();
    let mut members = metadata.registered(id, issued_at);
    let changed = changed_fields(&before, &members);
    let mut client = with(&current, &metadata);
    client.trust = trust(authz, &current, &client);
    let next = Secret::random("rat_");
    let registration = Registration {
        application_type: metadata.application_type,
        metadata: &Value::Object(members.clone()).to_string(),
        fingerprint: None,
        management: Some(next.digest()),
        holder: None,
    };
    clients::replace(tx, &client, &registration)?;
    let ended = publish(authz, tx, &current, &client)?;
    match (current.auth_method.is_by_secret(), client.auth_method.is_by_secret()) {
        (false, true) => give_secret(tx, &client, &mut members)?,
        (true, false) => client_secrets::delete(tx, id)?,
        _ => members.extend(secret.map(|secret| ("client_secret".to_owned(), secret))),
    }
    give_management(authz, id, &next, &mut members);
    let event = Event::allowed(Name::ClientUpdated).by_client(id);
    audit::append(
        tx,
        administration::registered(event, &client)
            .request(request)
            .detail("changed_fields", changed)
            .detail("trust", client.trust.as_str())
            .detail("grants_ended", ended),
    )?;
    Ok(Ok(members))
}

/// The metadata that the client would have, if it may have it (DCR-10).
fn resulting(authz: &Authz, current: &Client, mut asked: Map<String, Value>) -> Result<Metadata, OAuthError> {
    // RFC 7592 §2.2: "The client MUST NOT include" these.
    let ours = [
        "registration_access_token",
        "registration_client_uri",
        "client_secret_expires_at",
        "client_id_issued_at",
    ];
    if ours.iter().any(|member| asked.contains_key(*member)) {
        return Err(bad("the request contains members that only the server may set"));
    }
    if asked.get("client_id").and_then(Value::as_str) != Some(current.id.as_str()) {
        return Err(bad("client_id does not match this registration"));
    }
    // If the request omits the method, the current one stays: the default must not weaken it.
    let said = asked.get("token_endpoint_auth_method").is_some_and(|method| !method.is_null());
    if !said {
        asked.insert("token_endpoint_auth_method".to_owned(), current.auth_method.as_str().into());
    }
    let mut metadata = understood(authz, &asked)?;
    metadata.auth_defaulted = !said && current.auth_defaulted;
    if strength(metadata.auth_method) < strength(current.auth_method) {
        return Err(bad("token_endpoint_auth_method cannot be changed to a weaker one; register again"));
    }
    Ok(metadata)
}

fn strength(method: AuthMethod) -> u8 {
    match method {
        AuthMethod::None => 0,
        AuthMethod::ClientSecretBasic | AuthMethod::ClientSecretPost => 1,
        AuthMethod::PrivateKeyJwt => 2,
    }
}

/// The client with this metadata; what a client cannot say of itself stays as it is.
fn with(current: &Client, metadata: &Metadata) -> Client {
    Client {
        name: metadata.name.clone(),
        auth_method: metadata.auth_method,
        auth_defaulted: metadata.auth_defaulted,
        jwks: metadata.jwks.as_ref().map(Value::to_string),
        grant_types: metadata.grant_types.clone(),
        redirect_uris: metadata.redirect_uris.clone(),
        ..current.clone()
    }
}

/// The new trust, never more than before (DCR-10). An administrator verified the client as it was then.
fn trust(authz: &Authz, current: &Client, client: &Client) -> Trust {
    let by_itself = authz.config.redirects.trust(&client.redirect_uris);
    let same =
        current.name == client.name && !redirects_changed(current, client) && !keys_changed(current, client);
    match current.trust {
        Trust::Verified if same => Trust::Verified,
        Trust::Verified | Trust::Known => by_itself,
        Trust::Unverified => Trust::Unverified,
    }
}

fn redirects_changed(current: &Client, client: &Client) -> bool {
    let sorted = |client: &Client| {
        let mut uris = client.redirect_uris.clone();
        uris.sort();
        uris
    };
    sorted(current) != sorted(client)
}

fn keys_changed(current: &Client, client: &Client) -> bool {
    current.auth_method != client.auth_method || current.jwks != client.jwks
}

/// Publishes the change. If the client's redirect URIs, its keys or its trust changed, users consented to something
/// else, so its grants and pending requests end (DCR-10). Answers with the number of grants.
fn publish(authz: &Authz, tx: &Tx<'_>, current: &Client, client: &Client) -> Result<usize, Fault> {
    let other_trust = current.trust != client.trust;
    if other_trust {
        clients::set_trust(tx, &client.id, client.trust)?;
        authz.status.set_ceiling(tx, &client.id, client.trust.ceiling());
    }
    if !other_trust && !redirects_changed(current, client) && !keys_changed(current, client) {
        return Ok(0);
    }
    transactions::cancel_of(tx, &client.id)?;
    ending::all_through(authz, tx, &client.id, Reason::ClientChanged)
}

fn is_its_secret(tx: &Tx<'_>, id: &ClientId, secret: Option<&Value>) -> Result<bool, Fault> {
    let digest = secret.and_then(Value::as_str).map(|text| Secret::presented(text).digest());
    let live = client_secrets::live(tx, id, tx.now())?;
    Ok(digest.is_some_and(|digest| live.contains(&digest)))
}

fn changed_fields(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<String> {
    let differs = |name: &&String| before.get(*name) != after.get(*name);
    let mut names: Vec<String> = before.keys().chain(after.keys()).filter(differs).cloned().collect();
    names.sort();
    names.dedup();
    names
}

async fn remove(authz: &Authz, id: &str, headers: &HeaderMap, request: &Request) -> Result<(), OAuthError> {
    let (id, token) = credentials(id, headers)?;
    let (digest, db) = (token.digest(), authz.db.clone());
    let (authz, request) = (authz.clone(), request.clone());
    db.write(move |tx| {
        let Some(client) = managed(tx, &id, &digest)? else { return Ok(Err(unauthorized())) };
        let ended = ending::client(&authz, tx, &id)?;
        transactions::cancel_of(tx, &id)?;
        let event = Event::allowed(Name::ClientDeleted).by_client(&id).request(&request);
        audit::append(tx, administration::about(event, &client).detail("grants_ended", ended))?;
        Ok(Ok(()))
    })
    .await?
}

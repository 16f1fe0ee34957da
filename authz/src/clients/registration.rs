//! Dynamic client registration (RFC 7591).

use std::borrow::Cow;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Map, Value};
use shared::audit::{self, Event, Name};
use shared::db::Conn;
use shared::rate::Origin;
use shared::share::Holder;
use shared::{ClientId, Digest, Fault, Request, Scope, Secret, Timestamp, Tx, json};

use super::metadata::Metadata;
use super::{administration, expiry, names};
use crate::Authz;
use crate::config::RegistrationMode;
use crate::current::Current;
use crate::error::{Code, OAuthError, no_store};
use crate::form::has_media_type;
use crate::rate::refund::Harmless;
use crate::store::clients::{self, AuthMethod, Client, Registration, Source};
use crate::store::{client_secrets, initial_access_tokens};
use crate::visible::Reading;

/// Within this time the same registration gets the same client.
const SAME: Duration = Duration::from_mins(10);

/// `POST /register`.
pub(crate) async fn post(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match register(&authz, &request, &headers, &body).await {
        Ok(Registered { members, stored }) => {
            let mut response = answer(StatusCode::CREATED, members);
            if !stored {
                response.extensions_mut().insert(Harmless);
            }
            response
        }
        Err(refusal) => {
            let event = Event::denied(Name::ClientRegistered, refusal.code.as_str());
            refused(&authz, refusal, event, &request).await
        }
    }
}

/// The result of a registration (RFC 7591 §3.2.1).
struct Registered {
    members: Map<String, Value>,
    /// False if the client already existed.
    stored: bool,
}

/// A success response (DCR-02).
pub(super) fn answer(status: StatusCode, members: Map<String, Value>) -> Response {
    let mut response = (status, Json(Value::Object(members))).into_response();
    no_store(&mut response);
    response
}

/// A refusal, after it was recorded (AUDIT-06).
pub(super) async fn refused(authz: &Authz, refusal: OAuthError, event: Event, request: &Request) -> Response {
    let at_fault = matches!(refusal.code, Code::TemporarilyUnavailable | Code::ServerError);
    let refusal = if at_fault {
        refusal
    } else {
        let event = event.request(request).detail("error_description", &*refusal.description);
        let recorded = authz.refusals.record(&authz.db, event).await;
        recorded.map_or_else(OAuthError::from, |()| refusal)
    };
    let code = refusal.code;
    let mut response = refusal.into_response();
    if code == Code::InvalidToken {
        // RFC 6750 §3
        let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

async fn register(
    authz: &Authz,
    request: &Request,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Registered, OAuthError> {
    // Do not read the body of an unauthorized request. The job checks again (SESSION-05).
    let token = bearer(headers).map(|token| token.digest());
    let now = authz.clock.now();
    authz.db.read(|conn| invitation(authz, conn, token.as_ref(), now))??;
    let metadata = understood(authz, &read(headers, body)?)?;
    // Computed before the job: on the writer's thread every other writer would wait for it.
    let name = Reading::of(&metadata.name);
    if names::is_this_server(&authz.issuer, &name) {
        return Err(name_taken());
    }
    let fingerprint = fingerprint(authz, &metadata, request);
    let (db, request) = (authz.db.clone(), request.clone());
    let authz = authz.clone();
    db.write(move |tx| {
        // The token may have been deleted or have expired since the request arrived.
        let invited = Current::read(tx, |tx| invitation(&authz, tx, token.as_ref(), tx.now()))?.allowed();
        let invited_by = match invited {
            Ok(invited_by) => invited_by,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if names::verified_like(tx, &name, |_, _| false)?.is_some() {
            return Ok(Err(name_taken()));
        }
        settle(&authz, tx, (metadata, fingerprint), &invited_by, &request)
    })
    .await?
}

/// DCR-01: in mode `token`, the label of the initial access token (RFC 7591 §3).
fn invitation(
    authz: &Authz,
    conn: &Conn<'_>,
    token: Option<&Digest>,
    now: Timestamp,
) -> Result<Result<Option<String>, OAuthError>, Fault> {
    if authz.config.registration.mode != RegistrationMode::Token {
        return Ok(Ok(None));
    }
    let found = match token {
        Some(token) => initial_access_tokens::find(conn, token, now)?,
        None => None,
    };
    let invalid = || OAuthError::new(Code::InvalidToken, "registration needs a valid initial access token");
    Ok(found.map(|token| Some(token.label)).ok_or_else(invalid))
}

/// The token of `Authorization: Bearer`, if there is exactly one (RFC 6750 §2.1).
pub(super) fn bearer(headers: &HeaderMap) -> Option<Secret> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Secret::presented(token.trim()))
}

/// Parses the metadata in a body: one unambiguous JSON object (DCR-02).
pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Map<String, Value>, OAuthError> {
    let bad = |description| Err(OAuthError::new(Code::InvalidClientMetadata, description));
    if !has_media_type(headers, "application/json") {
        return bad("send application/json");
    }
    json::object(body).or_else(|why| {
        tracing::info!(client.metadata.error = %why, "client metadata could not be read");
        bad("the body must be one JSON object with at most 32 levels and 1000 members, and no duplicate members")
    })
}

/// Applies the site's rules to metadata: unusable redirect URIs are left out (DCR-05, REDIR-05).
pub(super) fn understood(authz: &Authz, asked: &Map<String, Value>) -> Result<Metadata, OAuthError> {
    let mut metadata = Metadata::validate(asked)?;
    metadata.redirect_uris.retain(|uri| authz.config.redirects.admit(uri));
    if metadata.redirect_uris.is_empty() {
        let description = "none of the redirect URIs has a scheme that this server allows";
        return Err(OAuthError::new(Code::InvalidRedirectUri, description));
    }
    Ok(metadata)
}

/// DCR-13: the error for a name that looks like this server's or a verified client's.
pub(super) fn name_taken() -> OAuthError {
    OAuthError::new(Code::InvalidClientMetadata, "client_name looks like this server or a verified client")
}

/// RATE-06: the limit of never-approved clients has been reached, and no address has more than its share.
const FULL: OAuthError = OAuthError {
    code: Code::TemporarilyUnavailable,
    description: Cow::Borrowed("too many registered clients have never been used; try again later"),
};

fn settle(
    authz: &Authz,
    tx: &Tx<'_>,
    (metadata, fingerprint): (Metadata, Option<Digest>),
    invited_by: &Current<'_, Option<String>>,
    request: &Request,
) -> Result<Result<Registered, OAuthError>, Fault> {
    if let Some(fingerprint) = &fingerprint {
        if let Some(same) = clients::same_registration(tx, fingerprint, tx.now() - SAME)? {
            return Ok(Ok(Registered { members: stored(&same)?, stored: false }));
        }
        clients::forget_fingerprint(tx, fingerprint)?;
    }
    expiry::sweep(authz, tx)?;
    let holder = Holder::from(request);
    if expiry::make_room(authz, tx, &holder)?.is_err() {
        return Ok(Err(FULL));
    }
    let id = ClientId::random_dynamic();
    let mut members = metadata.registered(&id, tx.now().seconds());
    let client = Client {
        id,
        name: metadata.name,
        source: Source::SelfRegistered,
        trust: authz.config.redirects.trust(&metadata.redirect_uris),
        auth_method: metadata.auth_method,
        auth_defaulted: metadata.auth_defaulted,
        jwks: metadata.jwks.map(|jwks| jwks.to_string()),
        scope: Scope::empty(),
        grant_types: metadata.grant_types,
        redirect_uris: metadata.redirect_uris,
        disabled: false,
    };
    let management = authz.config.registration.management.then(|| Secret::random("rat_"));
    let registration = Registration {
        application_type: metadata.application_type,
        metadata: &Value::Object(members.clone()).to_string(),
        fingerprint: fingerprint.as_ref(),
        management: management.as_ref().map(Secret::digest),
        holder: Some(&holder),
    };
    clients::insert(tx, &client, &registration)?;
    give_secret(tx, &client, &mut members)?;
    if let Some(token) = &management {
        give_management(authz, &client.id, token, &mut members);
    }
    let mut event =
        administration::registered(Event::allowed(Name::ClientRegistered), &client).request(request);
    if let Some(label) = invited_by.as_deref() {
        event = event.detail("initial_access_token", label);
    }
    audit::append(tx, event)?;
    Ok(Ok(Registered { members, stored: true }))
}

/// A new secret for a client that authenticates by one (DCR-06). It does not expire; unused clients are removed
/// instead (DCR-11).
pub(super) fn give_secret(
    tx: &Tx<'_>,
    client: &Client,
    members: &mut Map<String, Value>,
) -> Result<(), Fault> {
    if !client.auth_method.is_by_secret() {
        return Ok(());
    }
    let secret = client_secrets::issue(tx, &client.id, Duration::ZERO)?;
    members.insert("client_secret".to_owned(), secret.expose().into());
    members.insert("client_secret_expires_at".to_owned(), 0.into());
    Ok(())
}

/// Adds the client's registration access token and configuration URL (RFC 7592 §3, DCR-09).
pub(super) fn give_management(
    authz: &Authz,
    id: &ClientId,
    token: &Secret,
    members: &mut Map<String, Value>,
) {
    members.insert("registration_access_token".to_owned(), token.expose().into());
    let uri = authz.issuer.url(&format!("/register/{id}"));
    members.insert("registration_client_uri".to_owned(), uri.into());
}

/// A stored registration response.
pub(super) fn stored(metadata: &str) -> Result<Map<String, Value>, Fault> {
    serde_json::from_str(metadata)
        .map_err(|_| Fault::Corrupt("a client's metadata is not a JSON object".to_owned()))
}

/// The fingerprint by which a repeated registration is recognised: all its metadata and its address. `None` for
/// a registration that is never treated as a repetition.
///
/// A client that registers again at every attempt, or in a loop, must not push others out (DCR-12). So the same
/// registration from the same address within ten minutes gets the same client, as long as no user has approved
/// it. This reveals only a client id, which is not secret: it is in every authorization request, and all
/// installations of a client with a document share one (CIMD-12). Codes, tokens and transactions are bound to
/// users, browsers and keys, not to who registered. A registration with a secret or a registration access token
/// is always new, because only one party may have those.
fn fingerprint(authz: &Authz, metadata: &Metadata, request: &Request) -> Option<Digest> {
    let shareable = matches!(metadata.auth_method, AuthMethod::None | AuthMethod::PrivateKeyJwt);
    if !shareable || authz.config.registration.management {
        return None;
    }
    let members = Value::Object(metadata.members()).to_string();
    Some(Digest::of(format!("{:?} {members}", Origin::from(request)).as_bytes()))
}

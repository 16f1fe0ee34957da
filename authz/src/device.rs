//! The device authorization grant (RFC 8628, DEV-01). A program without a browser shows a short code, a person
//! types it at `/device` and decides there, and the program polls `/token` until they have.
//!
//! An attacker who persuades a person to type a code gets what that person grants. So only clients that an
//! administrator added for it may use this grant, high-risk scopes are never granted, and each decision takes a
//! passkey assertion.

pub(crate) mod decision;
pub(crate) mod page;
mod typed;
mod user_code;

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use shared::audit::{self, Event, Name};
use shared::db::Conn;
use shared::share::Holder;
use shared::{Fault, Request, ResourceUri, Scope, Secret, Tx};

use crate::Authz;
use crate::client_auth::{self, Authorization, Unauthenticated};
use crate::current::Current;
use crate::endpoint::{self, Endpoint, Settled};
use crate::error::{Code, OAuthError, no_store};
use crate::form::Params;
use crate::grants::GrantType;
use crate::grants::device_code::grantable;
use crate::rate::refund::earned;
use crate::scope::{LONGEST_SCOPE, OFFLINE_ACCESS};
use crate::store::clients::{AuthMethod, Client};
use crate::store::devices::{self, Device, Stage};
use user_code::UserCode;

/// The lifetime of a user code.
const LIFETIME: Duration = Duration::from_mins(10);
/// The initial interval between polls (RFC 8628 §3.2).
const INTERVAL: Duration = Duration::from_secs(5);
/// The longest that a device's grant lasts, however often it is refreshed.
pub(crate) const FAMILY: Duration = Duration::from_hours(24);

/// Why the device authorization endpoint refused. The variant is for the audit log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Refusal {
    Unauthenticated(Unauthenticated),
    NotAllowed,
    ResourceMissing,
    ResourceUnknown,
    ScopeMalformed,
    ScopeUnknown,
    Full,
}

impl Refusal {
    fn reason(self) -> String {
        match self {
            Self::Unauthenticated(why) => why.to_string(),
            Self::NotAllowed => "device_grant_not_allowed".to_owned(),
            Self::ResourceMissing => "resource_missing".to_owned(),
            Self::ResourceUnknown => "resource_unknown".to_owned(),
            Self::ScopeMalformed => "scope_malformed".to_owned(),
            Self::ScopeUnknown => "scope_unknown".to_owned(),
            Self::Full => "full".to_owned(),
        }
    }
}

const ENDPOINT: Endpoint = Endpoint { refused: Name::AuthzError };

impl endpoint::Refusal for Refusal {
    fn wire(self, authz: &Authz) -> OAuthError {
        let (code, description) = match self {
            Self::Unauthenticated(why) => return why.wire(),
            Self::NotAllowed => (Code::UnauthorizedClient, "this client may not use the device grant"),
            Self::ResourceMissing => return authz.resource_missing(),
            Self::ResourceUnknown => {
                (Code::InvalidTarget, "the resource is not one this server issues tokens for")
            }
            // RATE-06: the table is full.
            Self::Full => {
                (Code::TemporarilyUnavailable, "too many devices are waiting for approval; try again later")
            }
            Self::ScopeMalformed => (Code::InvalidScope, "the scope is malformed"),
            Self::ScopeUnknown => {
                (Code::InvalidScope, "none of the requested scopes can be granted to a device")
            }
        };
        OAuthError::new(code, description)
    }
}

/// The response to the device (RFC 8628 §3.2).
#[derive(Serialize)]
struct Authorized {
    device_code: String,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: String,
    expires_in: u64,
    interval: u64,
}

/// `POST /device_authorization` (RFC 8628 §3.1).
pub(crate) async fn post(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match authorize(&authz, request, query.as_deref(), &headers, &body).await {
        Ok(response) => response,
        Err(error) => error.challenging(&headers),
    }
}

async fn authorize(
    authz: &Authz,
    request: Request,
    query: Option<&str>,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, OAuthError> {
    ENDPOINT.unless_paused(authz, &request).await?;
    let (params, authorization) = ENDPOINT.read(authz, &request, query, headers, body).await?;
    let examined = client_auth::examine(authz, &request, &params, &authorization)?;
    let job = {
        let (authz, request) = (authz.clone(), request.clone());
        move |tx: &Tx<'_>| {
            let answer = match client_auth::authenticate(&authz, tx, &examined)? {
                Ok(client) => begin(&authz, tx, &client, &params, &request)?,
                Err(why) => Err(Refusal::Unauthenticated(why)),
            };
            let refusal = answer.as_ref().err();
            let unrecorded = refusal.map(|refusal| refused(&params, &authorization, *refusal, &request));
            Ok(Settled { answer, unrecorded })
        }
    };
    let (authorized, proven) = ENDPOINT.issue(authz, &request, job).await?;
    let mut response = (StatusCode::OK, Json(authorized)).into_response();
    no_store(&mut response);
    // A public client's id is known to anyone, so such a request is not refunded (RATE-05).
    Ok(if proven { earned(response) } else { response })
}

/// Checks the request and stores the device. Also tells whether its client was authenticated.
fn begin(
    authz: &Authz,
    tx: &Tx<'_>,
    client: &Current<'_, Client>,
    params: &Params,
    request: &Request,
) -> Result<Result<(Authorized, bool), Refusal>, Fault> {
    if !GrantType::DeviceCode.is_allowed(client) {
        return Ok(Err(Refusal::NotAllowed));
    }
    let (resource, scope) = match asked(authz, tx, params)? {
        Ok(asked) => asked,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let device_code = Secret::random("dc_");
    let device = Device {
        code: device_code.digest(),
        client_id: client.id.clone(),
        scope,
        resource,
        address: request.address.map(|address| address.to_canonical().to_string()),
        created_at: tx.now(),
        expires_at: tx.now() + LIFETIME,
        interval: INTERVAL,
        polled_at: None,
        stage: Stage::Waiting,
    };
    let holder = Holder::from(request);
    if devices::make_room(tx, &holder)?.is_err() {
        return Ok(Err(Refusal::Full));
    }
    let user_code = store(authz, tx, &device, client, &holder)?;
    audit::append(
        tx,
        Event::allowed(Name::AuthzRequest)
            .by_client(&client.id)
            .client(&client.id)
            .resource(&device.resource)
            .scope(&device.scope)
            .request(request)
            .detail("grant_type", GrantType::DeviceCode.name())
            .detail("auth_method", client.auth_method.as_str()),
    )?;
    let page = authz.issuer.url("/device");
    let authorized = Authorized {
        device_code: device_code.expose().to_owned(),
        verification_uri_complete: format!("{page}?user_code={user_code}"),
        verification_uri: page,
        user_code: user_code.to_string(),
        expires_in: LIFETIME.as_secs(),
        interval: INTERVAL.as_secs(),
    };
    Ok(Ok((authorized, client.auth_method != AuthMethod::None)))
}

/// Stores the device under an unused user code.
fn store(
    authz: &Authz,
    tx: &Tx<'_>,
    device: &Device,
    client: &Current<'_, Client>,
    holder: &Holder,
) -> Result<UserCode, Fault> {
    for _ in 0..8 {
        let user_code = UserCode::random();
        if devices::insert(tx, device, &user_code.digest(&authz.seal), client, holder)? {
            return Ok(user_code);
        }
    }
    Err(Fault::Storage("eight random user codes in a row were taken".to_owned()))
}

/// The resource and scope of a request (RFC 8707 §2, AUTHZ-13, AUTHZ-14). Unknown scopes are dropped; an absent
/// scope means the default. High-risk scopes are kept apart: the page mentions them and does not offer them.
fn asked(
    authz: &Authz,
    conn: &Conn<'_>,
    params: &Params,
) -> Result<Result<(ResourceUri, Scope), Refusal>, Fault> {
    let asked = params.get("resource");
    let Some(endpoint) = authz.asked_resource(conn, asked)? else {
        return Ok(Err(if asked.is_some() { Refusal::ResourceUnknown } else { Refusal::ResourceMissing }));
    };
    Ok(scope_asked(authz, params, endpoint.default_scope).map(|scope| (endpoint.resource, scope)))
}

fn scope_asked(authz: &Authz, params: &Params, default: Scope) -> Result<Scope, Refusal> {
    let scope: Scope = match params.get("scope") {
        Some(text) if text.len() > LONGEST_SCOPE => return Err(Refusal::ScopeMalformed),
        Some(text) => text.parse().map_err(|_| Refusal::ScopeMalformed)?,
        None => Scope::empty(),
    };
    let named: Scope = scope.iter().filter(|name| *name != OFFLINE_ACCESS).collect();
    let wanted = if named.is_empty() { default } else { named };
    let scope = wanted.intersection(&authz.grantable());
    let possible = !scope.intersection(&grantable(authz)).is_empty();
    if possible { Ok(scope) } else { Err(Refusal::ScopeUnknown) }
}

fn refused(params: &Params, authorization: &Authorization, refusal: Refusal, request: &Request) -> Event {
    let name = match refusal {
        Refusal::Unauthenticated(_) => Name::ClientAuthFailed,
        _ => Name::AuthzError,
    };
    let event = Event::denied(name, &refusal.reason())
        .request(request)
        .detail("grant_type", GrantType::DeviceCode.name());
    match client_auth::claimed_client(params, authorization) {
        Some(client) => event.client(&client),
        None => event,
    }
}

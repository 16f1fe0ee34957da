//! The token endpoint (RFC 6749 §3.2): it reads the request and chooses the grant; the grant decides.

use std::cell::OnceCell;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use shared::audit::{Event, Name};
use shared::{AccessToken, ClientId, Fault, Request, Scope, Secret, Tx};

use crate::client_auth::{self, Unauthenticated};
use crate::clients::metadata_document::freshness::{Freshness, freshen};
use crate::clients::preregistered::CLIENT_CREDENTIALS;
use crate::device;
use crate::endpoint::{self, Endpoint, Refusal as _, Settled};
use crate::error::{Code, OAuthError, no_store};
use crate::form::Params;
use crate::grants::{Context, authorization_code, client_credentials, device_code, refresh_token};
use crate::{Authz, rate};

/// What a grant answers: rows are written, the JWT is signed after the commit.
#[derive(Debug)]
pub(crate) struct Minted {
    pub claims: AccessToken,
    pub refresh_token: Option<Secret>,
    pub scope: Scope,
}

/// Why the token endpoint refused. The variant is for the log and the audit trail; the client is
/// told the RFC 6749 §5.2 code and no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    Client(#[from] Unauthenticated),
    #[error("grant_type_missing")]
    GrantTypeMissing,
    #[error("grant_type_unsupported")]
    GrantTypeUnsupported,
    #[error("grant_type_not_registered")]
    GrantTypeNotRegistered,
    #[error("code_missing")]
    CodeMissing,
    #[error("code_unknown")]
    CodeUnknown,
    #[error("code_replayed")]
    CodeReplayed,
    #[error("verifier_missing")]
    VerifierMissing,
    #[error("verifier_malformed")]
    VerifierMalformed,
    #[error("verifier_wrong")]
    VerifierWrong,
    #[error("redirect_uri_differs")]
    RedirectUriDiffers,
    #[error("resource_missing")]
    ResourceMissing,
    #[error("resource_unknown")]
    ResourceUnknown,
    #[error("scope_exceeds_registration")]
    ScopeExceedsRegistration,
    #[error("resource_differs")]
    ResourceDiffers,
    #[error("scope_exceeds_grant")]
    ScopeExceedsGrant,
    #[error("refresh_token_missing")]
    RefreshTokenMissing,
    #[error("refresh_token_unknown")]
    RefreshTokenUnknown,
    #[error("refresh_token_reused")]
    RefreshTokenReused,
    #[error("grant_ended")]
    GrantEnded,
    #[error("device_code_missing")]
    DeviceCodeMissing,
    #[error("device_code_unknown")]
    DeviceCodeUnknown,
    #[error("device_code_spent")]
    DeviceCodeSpent,
    #[error("device_pending")]
    DevicePending,
    #[error("device_slow_down")]
    DeviceSlowDown,
    #[error("device_expired")]
    DeviceExpired,
    #[error("device_denied")]
    DeviceDenied,
    #[error("device_policy")]
    DevicePolicy,
}

impl endpoint::Refusal for Refusal {
    fn wire(self) -> OAuthError {
        let (code, description) = match self {
            Self::Client(why) => return why.wire(),
            Self::GrantTypeMissing => (Code::InvalidRequest, "grant_type is missing"),
            Self::GrantTypeUnsupported => {
                (Code::UnsupportedGrantType, "this server does not support this grant type")
            }
            Self::GrantTypeNotRegistered => {
                (Code::UnauthorizedClient, "the client may not use this grant type")
            }
            Self::CodeMissing => (Code::InvalidRequest, "code is missing"),
            Self::VerifierMissing => (Code::InvalidRequest, "code_verifier is missing"),
            Self::VerifierMalformed => (Code::InvalidRequest, "code_verifier is malformed"),
            Self::RefreshTokenMissing => (Code::InvalidRequest, "refresh_token is missing"),
            Self::CodeUnknown | Self::CodeReplayed | Self::VerifierWrong | Self::RedirectUriDiffers => {
                (Code::InvalidGrant, "the code is invalid, expired, used, or was issued for another request")
            }
            Self::RefreshTokenUnknown | Self::RefreshTokenReused | Self::GrantEnded => {
                (Code::InvalidGrant, "the grant is invalid, expired or revoked")
            }
            Self::ResourceDiffers => (Code::InvalidTarget, "the grant is for another resource"),
            // RFC 8707 §2: "invalid, missing, unknown, or malformed"
            Self::ResourceMissing => (Code::InvalidTarget, "resource is missing"),
            Self::ResourceUnknown => {
                (Code::InvalidTarget, "the resource is not one this server issues tokens for")
            }
            Self::ScopeExceedsRegistration => {
                (Code::InvalidScope, "the scope is malformed or wider than the client may have")
            }
            Self::DeviceCodeMissing => (Code::InvalidRequest, "device_code is missing"),
            Self::DeviceCodeUnknown | Self::DeviceCodeSpent => {
                (Code::InvalidGrant, "the device code is invalid, used, or was issued to another client")
            }
            Self::DevicePending => (Code::AuthorizationPending, "the user has not answered yet"),
            Self::DeviceSlowDown => {
                (Code::SlowDown, "the user has not answered yet; wait five seconds longer between requests")
            }
            Self::DeviceExpired => (Code::ExpiredToken, "the device code has expired"),
            Self::DeviceDenied => (Code::AccessDenied, "the user refused"),
            Self::DevicePolicy => (Code::AccessDenied, "none of the granted scopes is allowed now"),
            Self::ScopeExceedsGrant => (Code::InvalidScope, "the scope is malformed or wider than granted"),
        };
        OAuthError::new(code, description)
    }
}

const ENDPOINT: Endpoint = Endpoint { refused: Name::TokenRefused };

/// A refusal commits (what it revokes stays revoked); a fault rolls back.
pub(crate) type Answer = Result<Minted, Refusal>;

/// `POST /token`.
pub(crate) async fn post(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match exchange(&authz, request, query.as_deref(), &headers, &body).await {
        Ok(response) => response,
        Err(error) => {
            let pending = error.code == Code::AuthorizationPending;
            let mut response = error.challenging(&headers);
            if pending {
                response.extensions_mut().insert(rate::Harmless);
            }
            response
        }
    }
}

async fn exchange(
    authz: &Authz,
    request: Request,
    query: Option<&str>,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, OAuthError> {
    ENDPOINT.unless_paused(authz, &request).await?;
    let (params, authorization) = ENDPOINT.read(authz, &request, query, headers, body).await?;
    let claimed = client_auth::claimed_client(&params, &authorization);
    // A client that is known by a document from the network is known no more when its document is gone (CIMD-08).
    let gone = match &claimed {
        Some(client_id) => freshen(authz, &request, client_id.as_str(), true).await? == Freshness::Refused,
        None => false,
    };
    if gone {
        let refusal = Refusal::Client(Unauthenticated::Unknown);
        let event = refused(claimed.as_ref(), refusal, &request);
        authz.refusals.record(&authz.db, event).await?;
        return Err(refusal.wire());
    }
    let examined = client_auth::examine(authz, &request, &params, &authorization)?;
    let job = {
        let (authz, request) = (authz.clone(), request.clone());
        move |tx: &Tx<'_>| {
            let met = OnceCell::new();
            let (answer, met) = match client_auth::authenticate(&authz, tx, &examined)? {
                Ok(client) => {
                    let cx = Context { authz: &authz, tx, client: &client, request: &request, met };
                    (choose(&cx, &params)?, cx.met.into_inner())
                }
                Err(why) => (Err(why.into()), None),
            };
            let unrecorded = match answer {
                // A poll that hears to wait decided nothing.
                Ok(_) | Err(Refusal::DevicePending) => None,
                Err(refusal) => {
                    let event = refused(claimed.as_ref(), refusal, &request);
                    Some(match met {
                        Some((grant, user)) => event.grant(&grant).subject(user.as_str()),
                        None => event,
                    })
                }
            };
            Ok(Settled { answer, unrecorded })
        }
    };
    let minted = ENDPOINT.issue(authz, &request, job).await?;
    respond(authz, &minted)
}

fn choose(cx: &Context<'_>, params: &Params) -> Result<Answer, Fault> {
    let (authz, client) = (cx.authz, cx.client);
    let grant_type = match params.get("grant_type") {
        None => return Ok(Err(Refusal::GrantTypeMissing)),
        Some(supported @ ("authorization_code" | "refresh_token")) => supported,
        Some(device::GRANT_TYPE) if authz.config.device => device::GRANT_TYPE,
        Some(CLIENT_CREDENTIALS) if authz.status.has_own_tokens() => CLIENT_CREDENTIALS,
        Some(_) => return Ok(Err(Refusal::GrantTypeUnsupported)),
    };
    let allowed = match grant_type {
        device::GRANT_TYPE => device::is_allowed(client),
        CLIENT_CREDENTIALS => client_credentials::is_allowed(client),
        registered => client.has_grant(registered),
    };
    if !allowed {
        return Ok(Err(Refusal::GrantTypeNotRegistered));
    }
    match grant_type {
        "authorization_code" => authorization_code::redeem(cx, params),
        device::GRANT_TYPE => device_code::redeem(cx, params),
        CLIENT_CREDENTIALS => client_credentials::issue(cx, params),
        _ => refresh_token::rotate(cx, params),
    }
}

/// The record of a refusal.
pub(crate) fn refused(claimed: Option<&ClientId>, refusal: Refusal, request: &Request) -> Event {
    let name = match refusal {
        Refusal::Client(_) => Name::ClientAuthFailed,
        _ => Name::TokenRefused,
    };
    let event = Event::denied(name, &refusal.to_string()).request(request);
    match claimed {
        Some(client) => event.client(client),
        None => event,
    }
}

#[derive(Serialize)]
struct TokenResponse<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
    scope: &'a Scope,
}

/// Signs what was minted, off the writer thread (TOKEN-02).
fn respond(authz: &Authz, minted: &Minted) -> Result<Response, OAuthError> {
    let signed = authz.keys.sign(&minted.claims).map_err(|error| {
        tracing::error!(keys.error = %error, "an access token could not be signed");
        OAuthError::new(Code::ServerError, "the token could not be signed")
    })?;
    let body = TokenResponse {
        access_token: &signed.text,
        token_type: "Bearer",
        expires_in: minted.claims.exp - minted.claims.iat,
        refresh_token: minted.refresh_token.as_ref().map(Secret::expose),
        scope: &minted.scope,
    };
    let mut response = (StatusCode::OK, Json(body)).into_response();
    no_store(&mut response);
    Ok(rate::earned(response))
}

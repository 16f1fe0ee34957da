//! The token endpoint (RFC 6749 §3.2). It reads the request and chooses the grant type, whose file decides.

use std::cell::OnceCell;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use shared::audit::Name;
use shared::{Fault, Request, Scope, Secret, Tx};

use crate::Authz;
use crate::client_auth::{self, Unauthenticated};
use crate::clients::metadata_document::freshness::{Freshness, freshen};
use crate::endpoint::{Endpoint, Refusal as _, Settled};
use crate::error::{Code, OAuthError, no_store};
use crate::form::Params;
use crate::grants::{Answer, Context, GrantType, Minted, Refusal};
use crate::rate::refund::{Harmless, earned};

const ENDPOINT: Endpoint = Endpoint { refused: Name::TokenRefused };

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
                response.extensions_mut().insert(Harmless);
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
    // A client known by a fetched document is unknown once the document cannot be fetched (CIMD-08).
    let gone = match &claimed {
        Some(client_id) => freshen(authz, &request, client_id.as_str(), true).await? == Freshness::Refused,
        None => false,
    };
    if gone {
        let refusal = Refusal::Client(Unauthenticated::Unknown);
        let event = refusal.record(claimed.as_ref(), &request);
        authz.refusals.record(&authz.db, event).await?;
        return Err(refusal.wire(authz));
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
                // A poll that is told to wait decided nothing.
                Ok(_) | Err(Refusal::DevicePending) => None,
                Err(refusal) => {
                    let event = refusal.record(claimed.as_ref(), &request);
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
    let Some(name) = params.get("grant_type") else { return Ok(Err(Refusal::GrantTypeMissing)) };
    match GrantType::named(name).filter(|grant_type| grant_type.is_on(cx.authz)) {
        None => Ok(Err(Refusal::GrantTypeUnsupported)),
        Some(grant_type) if !grant_type.is_allowed(cx.client) => Ok(Err(Refusal::GrantTypeNotRegistered)),
        Some(grant_type) => grant_type.redeem(cx, params),
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

/// Signs the new tokens, on the caller's thread and not on the writer (TOKEN-02).
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
    Ok(earned(response))
}

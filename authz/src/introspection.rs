//! Introspection (RFC 7662): a resource server asks whether a token is active and what it allows.
//!
//! Requests do not wait for the writer, with two exceptions: a resource server's first question about a refresh
//! token's generation, and clients that sign assertions. Callers are recognised from memory, a token's
//! signature is verified once, and answers are recorded as counts.

mod answer;
mod record;

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use keys::Remembered;
use serde_json::json;
use shared::audit::{Event, Name};
use shared::rate::TooMany;
use shared::token_status::Standing;
use shared::{ClientId, Digest, Fault, Request, Secret, TokenStatus, Tx};

use crate::client_auth::{self, Authorization, Unauthenticated};
use crate::error::{Code, OAuthError, no_store};
use crate::form::{self, Params};
use crate::status::LEEWAY;
use crate::status::machines::ResourceServer;
use crate::store::clients::{AuthMethod, Client};
use crate::store::resource_servers;
use crate::{Authz, rate};
pub(crate) use answer::Answers;
pub(crate) use record::Records;

/// The whole response for any token that is not active (INTRO-03).
const INACTIVE: &str = r#"{"active":false}"#;
/// The approximate number of response headers.
const HEADERS: usize = 12;

/// Why a question is refused.
#[derive(Debug)]
enum Refused {
    /// The request or its authentication is invalid (INTRO-01).
    Told(OAuthError),
    /// The client is not a resource server.
    WrongRole,
    /// The resource server has too many requests in flight (INTRO-07).
    TooManyInFlight,
    /// The address has failed to authenticate too often.
    RateLimited(TooMany),
}

impl From<OAuthError> for Refused {
    fn from(error: OAuthError) -> Self {
        Self::Told(error)
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self::Told(fault.into())
    }
}

impl Refused {
    fn respond(self, headers: &HeaderMap) -> Response {
        match self {
            Self::Told(error) => error.challenging(headers),
            Self::WrongRole => {
                refusal(StatusCode::FORBIDDEN, "access_denied", "the client is not a resource server")
            }
            Self::RateLimited(too_many) => rate::oauth(too_many),
            Self::TooManyInFlight => {
                let words = "this resource server has 64 requests in progress, which is the limit";
                let mut response = refusal(StatusCode::TOO_MANY_REQUESTS, "temporarily_unavailable", words);
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
                response
            }
        }
    }
}

fn refusal(status: StatusCode, code: &str, description: &str) -> Response {
    let body = json!({ "error": code, "error_description": description });
    let mut response = (status, axum::Json(body)).into_response();
    no_store(&mut response);
    response
}

/// `POST /introspect`. The response is JSON, regardless of `Accept` (INTRO-08).
pub(crate) async fn post(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    RawQuery(query): RawQuery,
    mut asked: axum::extract::Request,
) -> Response {
    // Move the headers; nothing else needs them.
    let headers = std::mem::take(asked.headers_mut());
    let body = match Bytes::from_request(asked, &()).await {
        Ok(body) => body,
        Err(refused) => return refused.into_response(),
    };
    match introspect(&authz, &request, query.as_deref(), &headers, &body).await {
        Ok(json) => {
            let mut response = Response::new(Body::from(json));
            // Reserve room for the headers that every response gets, so that the map does not grow later.
            response.headers_mut().reserve(HEADERS);
            let content_type = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, content_type);
            no_store(&mut response);
            response
        }
        Err(refused) => refused.respond(&headers),
    }
}

async fn introspect(
    authz: &Authz,
    request: &Request,
    query: Option<&str>,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Bytes, Refused> {
    let params = match form::read(query, headers, body) {
        Ok(params) => params,
        Err(error) => {
            // Check the limit before recording: a request that cannot be read counts as a failure of its
            // address.
            authz.limits.may_fail(request).map_err(Refused::RateLimited)?;
            authz.limits.not_readable(request);
            authz.introspections.refused(&authz.db, "malformed", None, request).await?;
            return Err(error.into());
        }
    };
    let authorization = Authorization::of(headers);
    let by_secret = known(authz, &params, &authorization);
    let is_by_secret = by_secret.is_some();
    let caller = if let Some(caller) = by_secret {
        caller
    } else {
        let subject = rate::subject(request, headers, body);
        authz.limits.may_prove(&subject, request).map_err(Refused::RateLimited)?;
        let proven = authenticated(authz, request, &params, &authorization).await;
        if let Err(Refused::Told(OAuthError { code: Code::InvalidClient, .. })) = proven {
            authz.limits.not_proven(&subject);
        }
        proven?
    };
    // Stop answering if answers cannot be recorded (AUDIT-04).
    authz.introspections.require_recorded()?;
    let Ok(_in_flight) = caller.in_flight.try_acquire() else {
        authz.introspections.too_many(&caller.id);
        return Err(Refused::TooManyInFlight);
    };
    let Some(token) = params.get("token") else {
        authz.introspections.refused(&authz.db, "token_missing", Some(&caller.id), request).await?;
        return Err(OAuthError::new(Code::InvalidRequest, "token is missing").into());
    };
    let question = Question { authz, caller: &caller };
    let answer = match question.answer(token)? {
        None => None,
        Some(Answer::Told(json)) => Some(json),
        Some(Answer::Unseen(unseen)) => {
            question.see(&unseen).await?;
            // Caller and token may have ended while this waited (SESSION-05, RS-08).
            let still = if is_by_secret {
                known(authz, &params, &authorization)
            } else {
                authz.status.resource_server(&caller.id)
            };
            let Some(caller) = still else {
                authz.introspections.refused(&authz.db, "client_gone", Some(&caller.id), request).await?;
                return Err(Unauthenticated::Unknown.wire().into());
            };
            Question { authz, caller: &caller }.about(&unseen)?
        }
    };
    authz.introspections.answered(&caller.id, answer.is_some());
    Ok(answer.unwrap_or_else(|| Bytes::from_static(INACTIVE.as_bytes())))
}

/// The resource server that authenticates by its own secret, found in memory, because each tool call elsewhere
/// may wait for this. Other callers are authenticated like any client.
fn known(authz: &Authz, params: &Params, authorization: &Authorization) -> Option<Arc<ResourceServer>> {
    if params.get("client_assertion").is_some() || params.get("client_assertion_type").is_some() {
        return None;
    }
    let named = params.get("client_id");
    let (method, id, secret) = match (authorization, params.get("client_secret")) {
        (Authorization::Basic { client_id, secret }, None)
            if named.is_none_or(|named| named == client_id) =>
        {
            (AuthMethod::ClientSecretBasic, client_id.as_str(), secret.digest())
        }
        (Authorization::Absent, Some(secret)) => {
            (AuthMethod::ClientSecretPost, named?, Secret::presented(secret).digest())
        }
        _ => return None,
    };
    let server = authz.status.resource_server(&ClientId::parse(id)?)?;
    server.is_proven_by(method, &secret, authz.clock.now()).then_some(server)
}

/// INTRO-01: any registered method is accepted, and the client must be a resource server.
async fn authenticated(
    authz: &Authz,
    request: &Request,
    params: &Params,
    authorization: &Authorization,
) -> Result<Arc<ResourceServer>, Refused> {
    let claimed = client_auth::claimed_client(params, authorization);
    let examined = client_auth::examine(authz, request, params, authorization)?;
    let job = {
        let authz = authz.clone();
        move |tx: &Tx<'_>| {
            let client = match client_auth::authenticate(&authz, tx, &examined)? {
                Ok(client) => client,
                Err(why) => return Ok(Err(why)),
            };
            let is_server = !resource_servers::audiences(tx, &client.id)?.is_empty();
            Ok(Ok(((*client).clone(), is_server)))
        }
    };
    let (client, is_server): (Client, bool) = match authz.db.write(job).await? {
        Ok(made_out) => made_out,
        Err(why) => {
            let event = Event::denied(Name::ClientAuthFailed, &why.to_string()).request(request);
            let event = claimed.map_or_else(|| event.clone(), |client| event.clone().client(&client));
            authz.introspections.refuse(&authz.db, event).await?;
            return Err(why.wire().into());
        }
    };
    // A `none` client has not authenticated.
    if client.auth_method == AuthMethod::None {
        authz.introspections.refused(&authz.db, "public_client", Some(&client.id), request).await?;
        return Err(Unauthenticated::WrongMethod.wire().into());
    }
    if let Some(server) = authz.status.resource_server(&client.id).filter(|_| is_server) {
        return Ok(server);
    }
    authz.introspections.refused(&authz.db, "not_a_resource_server", Some(&client.id), request).await?;
    Err(Refused::WrongRole)
}

/// The answer about an active token.
enum Answer {
    Told(Bytes),
    /// Not available yet: the use of the token must be recorded first (REFRESH-06).
    Unseen(Arc<Remembered<Answers>>),
}

/// A question of a resource server.
struct Question<'a> {
    authz: &'a Authz,
    caller: &'a ResourceServer,
}

impl Question<'_> {
    /// The answer about an active token; `None` for any other, which all look alike (INTRO-03).
    fn answer(&self, text: &str) -> Result<Option<Answer>, Fault> {
        let digest = Digest::of(text.as_bytes());
        let memory = &self.authz.memory;
        let (token, fresh) = match memory.get(&digest) {
            Some(token) => (token, false),
            // Refresh tokens, codes and assertions are not access tokens and fail here (INTRO-05).
            None => match memory.verify(text) {
                Ok(token) => (token, true),
                Err(_) => return Ok(None),
            },
        };
        let Some(answer) = self.about(&token)? else {
            if !fresh {
                memory.forget(&digest);
            }
            return Ok(None);
        };
        if fresh {
            memory.keep(digest, &token);
        }
        Ok(Some(if token.is_seen() { Answer::Told(answer) } else { Answer::Unseen(token) }))
    }

    /// The response for a token; `None` if it is not active, has no scope left, or is not for this caller
    /// (INTRO-04, INTRO-06).
    fn about(&self, remembered: &Remembered<Answers>) -> Result<Option<Bytes>, Fault> {
        let verified = remembered.verified();
        let token = &verified.token;
        let now = self.authz.clock.now();
        let acceptable = self.caller.audiences.contains(&token.aud)
            && self.authz.memory.knows_key_of(remembered)
            && keys::check(token, self.authz.issuer.as_str(), &token.aud, now, LEEWAY).is_ok()
            // No leeway here: `exp` was set by this server's own clock.
            && now < token.expires();
        if !acceptable {
            return Ok(None);
        }
        match self.authz.status.standing(token, &verified.kid) {
            Standing::Live { entitled, ceiling } => {
                remembered.note().about(self.authz, token, &entitled, ceiling)
            }
            Standing::Dead => Ok(None),
        }
    }

    /// REFRESH-06: presenting this token proves that the client received the refresh token issued with it.
    async fn see(&self, token: &Arc<Remembered<Answers>>) -> Result<(), Fault> {
        if !self.authz.status.is_seen(&token.verified().token) {
            let (status, seen) = (Arc::clone(&self.authz.status), Arc::clone(token));
            self.authz.db.write(move |tx| status.mark_seen(tx, &seen.verified().token)).await?;
        }
        token.mark_seen();
        Ok(())
    }
}

//! The gate: one pipeline for every request to an endpoint. It answers every refusal itself, and passes on only
//! what it has parsed and written again (MCP-07).

mod answer;
mod call;
pub(crate) mod denials;
mod denied;
mod era;
mod exchange;
mod front;
mod lifecycle;
pub(crate) mod limits;
mod listening;
mod lists;
mod media;
mod message;
mod mirror;
pub(crate) mod refusal;
mod reply;
pub(crate) mod session;
pub(crate) mod stream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use shared::Request;
use shared::rate::TooMany;

use crate::Resource;
use crate::bearer::{CheckedToken, Refused};
use crate::metadata;
use crate::profile::Profile;
use crate::registry::Snapshot;
use era::Era;
use exchange::Exchange;
pub(crate) use front::Front;
use listening::Listening;
use message::Message;
use refusal::{INVALID_REQUEST, Refusal, TOO_MANY, UNAUTHENTICATED};
use session::SESSION_HEADER;

/// The largest body in bytes (standards §1).
pub(crate) const LARGEST: usize = 1 << 20;
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The endpoint of a request and the snapshot of items, both used to the end of the request.
#[derive(Clone)]
pub(crate) struct GateContext {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) profile: Arc<Profile>,
}

impl GateContext {
    /// `/mcp`, or the profile of this name; `None` if there is none.
    fn of(resource: &Resource, profile: Option<&str>) -> Option<Self> {
        let snapshot = resource.registry().snapshot();
        let profile = Arc::clone(snapshot.profile(profile)?);
        Some(Self { snapshot, profile })
    }

    /// The same endpoint in another snapshot; `None` if it no longer exists.
    fn in_snapshot(&self, snapshot: &Arc<Snapshot>) -> Option<Self> {
        let profile = Arc::clone(snapshot.profile_of(self.profile.uri())?);
        Some(Self { snapshot: Arc::clone(snapshot), profile })
    }
}

/// `/mcp`, for any method.
pub(crate) async fn main(State(resource): State<Resource>, request: axum::extract::Request) -> Response {
    enter(&resource, None, request).await
}

/// `/mcp/NAME`, for any method (POL-03).
pub(crate) async fn profile(State(resource): State<Resource>, request: axum::extract::Request) -> Response {
    let name = metadata::profile_in(request.uri()).to_owned();
    enter(&resource, Some(&name), request).await
}

async fn enter(resource: &Resource, profile: Option<&str>, request: axum::extract::Request) -> Response {
    let (parts, mut body) = request.into_parts();
    let front = resource.front();
    let origin = front.check_origin(&parts.headers).map(Option::<&_>::cloned);
    let host = front.check_host(&parts.uri, &parts.headers);
    let (origin, answer) = match (host, origin) {
        (Ok(()), Ok(origin)) => (origin, answer(resource, profile, &parts, &mut body).await),
        (Err(refusal), origin) => (origin.ok().flatten(), Err(refusal)),
        (Ok(()), Err(refusal)) => (None, Err(refusal)),
    };
    let mut response = answer.unwrap_or_else(IntoResponse::into_response);
    Front::share(&mut response, origin);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if media::is(response.headers(), CONTENT_TYPE, b"text/event-stream") {
        response.headers_mut().insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    }
    response
}

async fn answer(
    resource: &Resource,
    profile: Option<&str>,
    parts: &Parts,
    body: &mut Body,
) -> Result<Response, Refusal> {
    let began = Instant::now();
    let Some(at) = GateContext::of(resource, profile) else { return Err(no_endpoint()) };
    match parts.method {
        Method::POST => {}
        Method::OPTIONS => return Ok(Front::preflight(&parts.headers)),
        Method::GET | Method::HEAD | Method::DELETE => return without_body(resource, &at, parts).await,
        _ => return Err(method_not_allowed()),
    }
    bounded(&parts.headers)?;
    let request = from_peer(parts);
    let caller = authenticate(resource, &at.profile, &parts.headers, &request).await?;
    admit(resource, &caller, &request)?;
    media::check(&parts.headers)?;
    let body = read(body).await?;
    let message = Message::parse(&body)?;
    let id = message.id.clone();
    let exchange = Exchange { resource, at: &at, headers: &parts.headers, request: &request, began };
    exchange.answer(message, &caller).await.map_err(|refusal| refusal.about(id.as_ref()))
}

/// The request's context for logs, or a new one.
fn from_peer(parts: &Parts) -> Request {
    if let Some(request) = parts.extensions.get::<Request>() {
        return request.clone();
    }
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
    Request::from(peer)
}

/// Whether a request without a body names a session. The modern era has none (MCP-02).
fn names_session(headers: &HeaderMap) -> bool {
    headers.contains_key(SESSION_HEADER) && !matches!(era::stated_by_header(headers), Ok(Some(Era::Modern)))
}

/// GET listens to what a session's client is to be told, DELETE ends the session (MCP 2025-11-25
/// transports); HEAD does nothing. None is answered without a token (RS-01): some clients look for the challenge with
/// GET or HEAD before they post anything.
async fn without_body(resource: &Resource, at: &GateContext, parts: &Parts) -> Result<Response, Refusal> {
    let request = from_peer(parts);
    let caller = authenticate(resource, &at.profile, &parts.headers, &request).await?;
    if parts.method == Method::HEAD || !names_session(&parts.headers) {
        return Err(method_not_allowed());
    }
    let (bearer, now) = (resource.bearer(), resource.clock().now());
    let caller = match bearer.confirm(&caller, now, bearer.check_for(None)).await {
        Ok(caller) => caller,
        Err(refused) => return Err(unauthenticated(resource, &at.profile, &refused, &request).await),
    };
    admit(resource, &caller, &request)?;
    let stated = era::stated_by_header(&parts.headers)?;
    let session = resource.sessions().named(&parts.headers, &caller).await?;
    let session = session.ok_or_else(method_not_allowed)?;
    if stated.is_some_and(|era| era != Era::Legacy(session.version)) {
        return Err(session.speaks_another());
    }
    if parts.method == Method::DELETE {
        resource.sessions().end(&session).await?;
        resource.upstreams().session_ended(&session.name());
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    media::check_stream(&parts.headers)?;
    let feed = Listening::new(resource.clone(), session.digest, caller.clone());
    stream::open(resource, caller, feed)
}

/// GET and DELETE without a session, and all other methods (MCP-02).
fn method_not_allowed() -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, INVALID_REQUEST, "Use POST.").header(ALLOW, front::METHODS)
}

/// A path below `/mcp` that is not a profile.
fn no_endpoint() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, INVALID_REQUEST, "There is no MCP endpoint at this address.")
}

/// Refuses a body that declares itself too large before reading it.
fn bounded(headers: &HeaderMap) -> Result<(), Refusal> {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > LARGEST as u64) { Err(too_large()) } else { Ok(()) }
}

fn too_large() -> Refusal {
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID_REQUEST, "The body is larger than 1 MiB.")
}

/// Authenticates the caller before any of the body is read (RS-01).
async fn authenticate(
    resource: &Resource,
    profile: &Profile,
    headers: &HeaderMap,
    request: &Request,
) -> Result<CheckedToken, Refusal> {
    let caller = match resource.bearer().admit(headers, profile.uri(), resource.clock().now()).await {
        Ok(caller) => caller,
        Err(refused) => return Err(unauthenticated(resource, profile, &refused, request).await),
    };
    // Adds the caller to the request's log lines.
    let span = tracing::Span::current();
    span.record("user.id", caller.token().sub.as_str())
        .record("client.id", caller.token().client_id.as_str());
    if caller.is_seen() {
        return Ok(caller);
    }
    let status = resource.bearer().status();
    if status.is_seen(caller.token()) {
        caller.mark_seen();
        return Ok(caller);
    }
    // REFRESH-06: record that the refresh token was received before anything is decided with this token.
    let (status, seen) = (Arc::clone(status), caller.clone());
    let marked = resource.db().write(move |tx| status.mark_seen(tx, seen.token())).await;
    marked.map_err(|fault| {
        tracing::error!(db.fault = %fault, "a token could not be marked as seen");
        Refusal::unavailable()
    })?;
    caller.mark_seen();
    Ok(caller)
}

/// Counts a request of this principal, within the rate limit (RATE-01).
fn admit(resource: &Resource, caller: &CheckedToken, request: &Request) -> Result<(), Refusal> {
    resource.limits().take(caller, request).map_err(told_to_wait)
}

fn told_to_wait(too_many: TooMany) -> Refusal {
    let words = "Too many requests. Wait for the time given in Retry-After.";
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, TOO_MANY, words)
        .header(RETRY_AFTER, HeaderValue::from(too_many.retry_after))
}

/// The challenge. An invalid token is recorded or counted first; missing credentials are not. Beyond its
/// sender's rate limit (RATE-01) an invalid token gets 429 and is only counted.
pub(crate) async fn unauthenticated(
    resource: &Resource,
    profile: &Profile,
    refused: &Refused,
    request: &Request,
) -> Refusal {
    if let Refused::Unavailable = refused {
        return Refusal::nobody_to_ask();
    }
    if let Refused::Invalid(invalid) = refused {
        if let Err(too_many) = resource.limits().refused(invalid, request) {
            return told_to_wait(too_many);
        }
        if let Err(unavailable) = resource.denials().record(profile.uri(), invalid, request).await {
            return unavailable;
        }
    }
    let (status, challenge, words) = profile.challenges().answer(refused);
    let code = if status == StatusCode::UNAUTHORIZED { UNAUTHENTICATED } else { INVALID_REQUEST };
    Refusal::new(status, code, words).header(WWW_AUTHENTICATE, challenge)
}

async fn read(body: &mut Body) -> Result<Bytes, Refusal> {
    match Limited::new(body, LARGEST).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(_) => Err(Refusal::bad_request(INVALID_REQUEST, "The body could not be read.")),
    }
}

#[cfg(test)]
mod tests;
/// The same tests at a profile (POL-03).
#[cfg(test)]
#[path = "gate/tests.rs"]
mod tests_at_a_profile;

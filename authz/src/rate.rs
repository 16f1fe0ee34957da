//! The rate limits of each endpoint (RATE-01). Each is by address, or by address and subject, so that an
//! attacker cannot use up the limit of a user elsewhere (RATE-02). An answer that cost its sender something,
//! such as a grant or a passkey, is refunded; one that anyone can get counts like a refusal (RATE-05).

pub(crate) mod refund;

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::json;
use shared::rate::{Buckets, Origin, Quota, Tally, TooMany};
use shared::route::Limit;
use shared::{Clock, Digest, Request, UserId};

use crate::Authz;
use crate::client_auth::Authorization;
use crate::consent;
use crate::error::{Code, PageError, no_store};
use crate::form::Params;
use crate::pages::ErrorPage;
use refund::{Harmless, is_earned};

/// The rate limits of the authorization server.
pub(crate) struct Limits {
    token_address: Buckets<Origin>,
    token_client: Buckets<(Origin, Digest)>,
    register: Buckets<Origin>,
    /// Registrations that stored nothing. A separate bucket, so that a client that registers in a loop does not
    /// slow down the token endpoint.
    registering: Buckets<Origin>,
    client_auth: Buckets<(Origin, Digest)>,
    authorize: Buckets<Origin>,
    page: Buckets<Origin>,
    passkey_address: Buckets<Origin>,
    passkey_user: Buckets<(Origin, UserId)>,
    user_code: Buckets<Guesser>,
    document: Buckets<Origin>,
}

impl Limits {
    pub(crate) fn new(limits: shared::rate::Limits, clock: &Clock, tally: &Arc<Tally>) -> Self {
        Self {
            token_address: Buckets::new("token_address", limits.token_address, clock, tally),
            token_client: Buckets::new("token_client", limits.token_client, clock, tally),
            register: Buckets::new("register", limits.register, clock, tally),
            registering: Buckets::new("token_address", limits.token_address, clock, tally),
            client_auth: Buckets::new("client_auth", limits.client_auth, clock, tally),
            authorize: Buckets::new("authorize", limits.authorize, clock, tally),
            page: Buckets::new("page", limits.page, clock, tally),
            passkey_address: Buckets::new("passkey_address", limits.passkey_address, clock, tally),
            passkey_user: Buckets::new("passkey_user", limits.passkey_user, clock, tally),
            user_code: Buckets::new("user_code", USER_CODE, clock, tally),
            document: Buckets::new("document", DOCUMENT, clock, tally),
        }
    }

    /// Replaces the quotas (POL-04).
    pub(crate) fn set(&self, limits: shared::rate::Limits) {
        self.token_address.set_quota(limits.token_address);
        self.token_client.set_quota(limits.token_client);
        self.register.set_quota(limits.register);
        self.registering.set_quota(limits.token_address);
        self.client_auth.set_quota(limits.client_auth);
        self.authorize.set_quota(limits.authorize);
        self.page.set_quota(limits.page);
        self.passkey_address.set_quota(limits.passkey_address);
        self.passkey_user.set_quota(limits.passkey_user);
    }

    /// Counts one use of a passkey of this user.
    ///
    /// # Errors
    /// If the address has used too many.
    pub(crate) fn passkey_of(&self, user: &UserId, request: &Request) -> Result<(), TooMany> {
        self.passkey_user.take(&(request.into(), user.clone()), request)
    }

    /// Whether the address may try to authenticate as a resource server. Only failures are counted, so that
    /// resource servers can ask as often as they like (INTRO-07).
    ///
    /// # Errors
    /// If there were too many failures.
    pub(crate) fn may_prove(&self, subject: &Subject, request: &Request) -> Result<(), TooMany> {
        self.token_address.check(&subject.0, request)?;
        self.client_auth.check(subject, request)
    }

    /// Counts a failed authentication.
    pub(crate) fn not_proven(&self, subject: &Subject) {
        self.token_address.spend(&subject.0);
        self.client_auth.spend(subject);
    }

    /// Whether the address may send another request that cannot be authenticated.
    ///
    /// # Errors
    /// If there were too many failures.
    pub(crate) fn may_fail(&self, request: &Request) -> Result<(), TooMany> {
        self.token_address.check(&request.into(), request)
    }

    /// Counts a request without usable authentication.
    pub(crate) fn not_readable(&self, request: &Request) {
        self.token_address.spend(&request.into());
    }
}

/// Documents fetched for one requester (CIMD-07). Not configurable.
const DOCUMENT: Quota = Quota::per_minute(10);

impl Limits {
    /// Counts one document that is fetched because of this request.
    ///
    /// # Errors
    /// If the address has caused too many.
    pub(crate) fn document(&self, request: &Request) -> Result<(), TooMany> {
        self.document.take(&request.into(), request)
    }
}

/// Wrong user codes (DEV-01). Not configurable.
const USER_CODE: Quota = Quota::per(5, Duration::from_mins(10));

/// The person who types a device's code. A signed-in user has their own limit: strangers at the same address,
/// such as behind a proxy, use up only their own guesses (RATE-02).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Guesser {
    Stranger(Origin),
    User(UserId),
}

impl Limits {
    /// Counts one guess at a user code, before it is known whether it is right, so that simultaneous guesses
    /// are all counted.
    ///
    /// # Errors
    /// If no guess is left.
    pub(crate) fn guess(&self, guesser: &Guesser, request: &Request) -> Result<(), TooMany> {
        self.user_code.take(guesser, request)
    }

    /// Refunds a guess that was right.
    pub(crate) fn guessed(&self, guesser: &Guesser) {
        self.user_code.refund(guesser);
    }
}

/// Wraps a handler in its rate limit.
pub(crate) fn limited(authz: &Authz, limit: Limit, handler: MethodRouter<Authz>) -> MethodRouter<Authz> {
    match limit {
        // These handlers count by themselves.
        Limit::Free(_) | Limit::Failures => handler,
        _ => handler.layer(from_fn_with_state((authz.clone(), limit), around)),
    }
}

async fn around(
    State((authz, limit)): State<(Authz, Limit)>,
    asked: axum::extract::Request,
    next: Next,
) -> Response {
    let request = asked.extensions().get::<Request>().cloned();
    let Some(request) = request.filter(|_| limit.counts(asked.method())) else {
        return next.run(asked).await;
    };
    let origin = Origin::from(&request);
    match limit {
        Limit::Token | Limit::Client => by_client(&authz, &request, limit, asked, next).await,
        Limit::Register => {
            let (registering, register) = (&authz.limits.registering, &authz.limits.register);
            if let Err(too_many) =
                registering.take(&origin, &request).and_then(|()| register.take(&origin, &request))
            {
                return oauth(too_many);
            }
            let response = next.run(asked).await;
            // Spend one of the two buckets.
            let stored =
                response.status() == StatusCode::CREATED && response.extensions().get::<Harmless>().is_none();
            if stored {
                registering.refund(&origin);
            } else {
                register.refund(&origin);
            }
            response
        }
        Limit::Authorize => match authz.limits.authorize.take(&origin, &request) {
            Ok(()) => {
                let response = next.run(asked).await;
                if is_earned(&response) {
                    authz.limits.authorize.refund(&origin);
                }
                response
            }
            Err(too_many) => page(&authz, &request, too_many),
        },
        Limit::Decision | Limit::Change => decided(&authz, &request, limit, asked, next).await,
        Limit::DeviceDecision => match authz.limits.passkey_address.take(&origin, &request) {
            Ok(()) => {
                let response = next.run(asked).await;
                if is_earned(&response) {
                    authz.limits.passkey_address.refund(&origin);
                }
                response
            }
            Err(too_many) => page(&authz, &request, too_many),
        },
        Limit::Passkey => {
            if let Err(too_many) = authz.limits.passkey_address.take(&origin, &request) {
                return PageError::from(too_many).into_response();
            }
            let response = next.run(asked).await;
            if is_earned(&response) {
                authz.limits.passkey_address.refund(&origin);
                // Refunds what the start of the ceremony took.
                authz.limits.page.refund(&origin);
            }
            response
        }
        Limit::Start | Limit::Form => {
            if let Err(too_many) = authz.limits.page.take(&origin, &request) {
                return match limit {
                    Limit::Start => PageError::from(too_many).into_response(),
                    _ => page(&authz, &request, too_many),
                };
            }
            let response = next.run(asked).await;
            if is_earned(&response) {
                authz.limits.page.refund(&origin);
            }
            response
        }
        Limit::Management => match authz.limits.token_address.take(&origin, &request) {
            Ok(()) => next.run(asked).await,
            Err(too_many) => oauth(too_many),
        },
        Limit::Free(_) | Limit::Failures | Limit::Mcp => next.run(asked).await,
    }
}

/// Splits a request into its head and its body, which names the subject that is counted.
async fn with_body(asked: axum::extract::Request) -> Result<(Parts, Bytes), Response> {
    let (parts, body) = asked.into_parts();
    let read = Bytes::from_request(http::Request::from_parts(parts.clone(), body), &()).await;
    read.map(|body| (parts, body)).map_err(IntoResponse::into_response)
}

async fn by_client(
    authz: &Authz,
    request: &Request,
    limit: Limit,
    asked: axum::extract::Request,
    next: Next,
) -> Response {
    let (limits, origin) = (&authz.limits, Origin::from(request));
    // Before any of the body is read (RATE-05).
    if let Err(too_many) = limits.token_address.take(&origin, request) {
        return oauth(too_many);
    }
    let (parts, body) = match with_body(asked).await {
        Ok(read) => read,
        Err(refused) => return refused,
    };
    let subject = subject(request, &parts.headers, &body);
    let admitted = limits.client_auth.check(&subject, request).and_then(|()| match limit {
        Limit::Token => limits.token_client.take(&subject, request),
        _ => Ok(()),
    });
    if let Err(too_many) = admitted {
        return oauth(too_many);
    }
    let response = next.run(http::Request::from_parts(parts, Body::from(body))).await;
    let harmless = response.extensions().get::<Harmless>().is_some();
    if is_earned(&response) || harmless {
        limits.token_address.refund(&origin);
    }
    if harmless {
        limits.token_client.refund(&subject);
    }
    if response.status() == StatusCode::UNAUTHORIZED {
        // Simultaneous requests may all fail; the bucket then stays empty.
        limits.client_auth.spend(&subject);
    }
    response
}

/// Counts a decision. With an assertion it is a use of a passkey from this address (CONSENT-08, WEBAUTHN-12). A
/// decision about an authorization request refunds that request.
async fn decided(
    authz: &Authz,
    request: &Request,
    limit: Limit,
    asked: axum::extract::Request,
    next: Next,
) -> Response {
    let (parts, body) = match with_body(asked).await {
        Ok(read) => read,
        Err(refused) => return refused,
    };
    let (limits, origin) = (&authz.limits, Origin::from(request));
    let confirms = consent::form(authz, &body).is_ok_and(|form| form.get("assertion").is_some());
    let limit_of_this = if confirms { &limits.passkey_address } else { &limits.page };
    if let Err(too_many) = limit_of_this.take(&origin, request) {
        return page(authz, request, too_many);
    }
    let response = next.run(http::Request::from_parts(parts, Body::from(body))).await;
    if is_earned(&response) {
        if confirms {
            limits.passkey_address.refund(&origin);
        }
        // Without an assertion it was taken above; with one, when the ceremony began.
        limits.page.refund(&origin);
        if limit == Limit::Decision {
            limits.authorize.refund(&origin);
        }
    }
    response
}

/// A client at an address, as the request claims.
pub(crate) type Subject = (Origin, Digest);

/// The claimed client of a request, and its address.
pub(crate) fn subject(request: &Request, headers: &HeaderMap, body: &[u8]) -> Subject {
    (request.into(), claimed_client(headers, body))
}

/// The client id that a request claims. It is not verified, so it is counted together with the address. As a
/// digest, so that its length is bounded.
fn claimed_client(headers: &HeaderMap, body: &[u8]) -> Digest {
    if let Authorization::Basic { client_id, .. } = Authorization::of(headers) {
        return Digest::of(client_id.as_bytes());
    }
    let params = Params::of_body(body).unwrap_or_default();
    let name = params.get("client_id").or(params.get("client_assertion")).unwrap_or_default();
    Digest::of(name.as_bytes())
}

/// The error for a client (standards §6.1).
pub(crate) fn oauth(too_many: TooMany) -> Response {
    let body = json!({
        "error": Code::TemporarilyUnavailable.as_str(),
        "error_description": "too many requests; try again later",
    });
    let mut response = (StatusCode::TOO_MANY_REQUESTS, axum::Json(body)).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(too_many.retry_after));
    no_store(&mut response);
    response
}

/// The page for a person.
fn page(authz: &Authz, request: &Request, too_many: TooMany) -> Response {
    let page = ErrorPage::new(
        "rate_limited",
        &request.id,
        "Too many sign-in requests",
        "Your network sent more sign-in requests than this server accepts per minute.",
        "Wait a minute, then start again from your application.",
    );
    let mut response = authz.page(StatusCode::TOO_MANY_REQUESTS, &page);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(too_many.retry_after));
    response
}

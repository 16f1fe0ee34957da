//! Revocation (RFC 7009): a client revokes its own tokens.

use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use keys::Verified;
use shared::audit::{self, Event, Name};
use shared::token_status::Standing;
use shared::{Fault, Request, Secret, TokenStatus, Tx};

use crate::Authz;
use crate::client_auth;
use crate::current::Current;
use crate::ending;
use crate::endpoint::{self, Endpoint};
use crate::error::{Code, OAuthError, no_store};
use crate::form::Params;
use crate::grants::Refusal as TokenRefusal;
use crate::rate::refund::earned;
use crate::status::LEEWAY;
use crate::store::clients::Client;
use crate::store::grants::{self, Grant, Reason};
use crate::store::refresh_tokens;

/// Why the revocation endpoint refused. An invalid token is not a reason: it counts as revoked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Refusal {
    Client(TokenRefusal),
    TokenMissing,
    /// REVOKE-03: the token belongs to another client.
    OtherClient,
}

const ENDPOINT: Endpoint = Endpoint { refused: Name::TokenRevoked };

impl endpoint::Refusal for Refusal {
    fn wire(self, authz: &Authz) -> OAuthError {
        match self {
            Self::Client(refusal) => refusal.wire(authz),
            Self::TokenMissing => OAuthError::new(Code::InvalidRequest, "token is missing"),
            Self::OtherClient => {
                OAuthError::new(Code::InvalidGrant, "the token was issued to another client")
            }
        }
    }
}

/// `POST /revoke`.
pub(crate) async fn post(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match revoke(&authz, request, query.as_deref(), &headers, &body).await {
        // REVOKE-01. RFC 7009 §2.2: "The content of the response body is ignored by the client"
        Ok(revoked) => {
            let mut response = StatusCode::OK.into_response();
            no_store(&mut response);
            if revoked == Revoked::Something { earned(response) } else { response }
        }
        Err(error) => error.challenging(&headers),
    }
}

async fn revoke(
    authz: &Authz,
    request: Request,
    query: Option<&str>,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Revoked, OAuthError> {
    let (params, authorization) = ENDPOINT.read(authz, &request, query, headers, body).await?;
    // Verifying a signature takes longer than everything else here, and the writer has only one thread.
    let examined = client_auth::examine(authz, &request, &params, &authorization)?;
    let access_token = params.get("token").and_then(|text| genuine(authz, text));
    let job = {
        let authz = authz.clone();
        move |tx: &Tx<'_>| {
            // REVOKE-02: with the method that the client registered.
            let client = match client_auth::authenticate(&authz, tx, &examined)? {
                Ok(client) => client,
                Err(why) => {
                    let refusal = TokenRefusal::from(why);
                    let claimed = client_auth::claimed_client(&params, &authorization);
                    let event = refusal.record(claimed.as_ref(), &request);
                    return Ok(Settled { answer: Err(Refusal::Client(refusal)), unrecorded: Some(event) });
                }
            };
            settle(
                &Revocation { authz: &authz, tx, client: &client, request: &request },
                &params,
                access_token.as_ref(),
            )
        }
    };
    // Answers after the commit: what could not be stored is not reported as revoked (REVOKE-05).
    ENDPOINT.answer(authz, job).await
}

/// An access token signed by this server, alive or not.
fn genuine(authz: &Authz, text: &str) -> Option<Verified> {
    let verified = authz.keys.verifier().verify(text).ok()?;
    (verified.token.iss == authz.issuer.as_str()).then_some(verified)
}

fn settle(cx: &Revocation<'_>, params: &Params, access_token: Option<&Verified>) -> Answer {
    // RFC 7009 §2.1: the hint may be wrong, so it is ignored.
    let Some(presented) = params.get("token") else {
        return Ok(cx.refused(Refusal::TokenMissing, Event::denied(Name::TokenRevoked, "token_missing")));
    };
    if let Some(token) = access_token {
        return cx.access_token(token);
    }
    match refresh_tokens::find(cx.tx, &Secret::presented(presented).digest())? {
        Some(token) => match grants::find(cx.tx, &token.grant_id)? {
            Some(grant) => cx.refresh_token(&grant),
            None => Ok(cx.nothing("unknown", |event| event)),
        },
        // RFC 7009 §2.2: "invalid tokens do not cause an error response"
        None => Ok(cx.nothing("unknown", |event| event)),
    }
}

struct Revocation<'a> {
    authz: &'a Authz,
    tx: &'a Tx<'a>,
    client: &'a Current<'a, Client>,
    request: &'a Request,
}

/// The result of a request that was not refused. A request with an invalid token gets the same answer, but is
/// not refunded (RATE-05).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Revoked {
    Something,
    Nothing,
}

type Settled = endpoint::Settled<Revoked, Refusal>;
type Answer = Result<Settled, Fault>;

impl Revocation<'_> {
    /// REVOKE-04: the whole family ends, with all its access tokens.
    fn refresh_token(&self, grant: &Grant) -> Answer {
        let about =
            |event: Event| event.subject(grant.user_id.as_str()).grant(&grant.id).resource(&grant.resource);
        if grant.client_id != self.client.id {
            return Ok(self.other_client(about));
        }
        if !ending::grant(self.authz, self.tx, &grant.id, Reason::RevokedByClient)? {
            return Ok(self.nothing("ended_before", about));
        }
        self.revoked(about(Event::allowed(Name::TokenRevoked)).detail("token", "refresh_token"))
    }

    /// REVOKE-04: this token ends, and its grant continues.
    fn access_token(&self, Verified { token, kid }: &Verified) -> Answer {
        let about = |event: Event| {
            event.subject(&token.sub).grant(&token.grant_id).jti(token.jti.as_str()).resource(&token.aud)
        };
        if token.client_id != self.client.id {
            return Ok(self.other_client(about));
        }
        if self.tx.now() >= token.expires() + LEEWAY {
            return Ok(self.nothing("expired", about));
        }
        // Check the database too: memory does not know yet what an earlier job of this batch ended
        // (SESSION-05).
        let live = matches!(self.authz.status.standing(token, kid), Standing::Live { .. })
            && !grants::has_ended(self.tx, &token.grant_id)?;
        if !live || !ending::token(self.authz, self.tx, &token.jti, token.expires())? {
            return Ok(self.nothing("ended_before", about));
        }
        self.revoked(about(Event::allowed(Name::TokenRevoked)).detail("token", "access_token"))
    }

    fn revoked(&self, event: Event) -> Answer {
        audit::append(self.tx, self.by_client(event))?;
        Ok(Settled { answer: Ok(Revoked::Something), unrecorded: None })
    }

    fn other_client(&self, about: impl FnOnce(Event) -> Event) -> Settled {
        self.refused(Refusal::OtherClient, about(Event::denied(Name::TokenRevoked, "other_client")))
    }

    fn refused(&self, refusal: Refusal, event: Event) -> Settled {
        Settled { answer: Err(refusal), unrecorded: Some(self.by_client(event)) }
    }

    /// Nothing had to be revoked. The client gets a success response.
    fn nothing(&self, why: &str, about: impl FnOnce(Event) -> Event) -> Settled {
        let event = about(Event::failed(Name::TokenRevoked, why));
        Settled { answer: Ok(Revoked::Nothing), unrecorded: Some(self.by_client(event)) }
    }

    fn by_client(&self, event: Event) -> Event {
        event.by_client(&self.client.id).client(&self.client.id).request(self.request)
    }
}

//! Revocation (RFC 7009): a client gives back what it holds.

use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use keys::Verified;
use shared::audit::{self, Event, Name};
use shared::token_status::Standing;
use shared::{Fault, Request, Secret, TokenStatus, Tx};

use crate::Authz;
use crate::client_auth::{self, Authorization};
use crate::error::{Code, OAuthError, no_store};
use crate::form::{self, Params};
use crate::status::LEEWAY;
use crate::store::clients::Client;
use crate::store::grants::{self, Grant, Reason};
use crate::store::refresh_tokens;
use crate::{ending, token};

/// Why the revocation endpoint refused. A token that is worth nothing is no reason: it is revoked already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Refusal {
    Client(token::Refusal),
    TokenMissing,
    /// REVOKE-03
    OtherClient,
}

impl Refusal {
    fn wire(self) -> OAuthError {
        match self {
            Self::Client(refusal) => refusal.wire(),
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
        // RFC 7009 §2.2: "The content of the response body is ignored by the client"
        Ok(()) => {
            let mut response = StatusCode::OK.into_response();
            no_store(&mut response);
            response
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
) -> Result<(), OAuthError> {
    let params = match form::read(query, headers, body) {
        Ok(params) => params,
        Err(error) => {
            let event = Event::denied(Name::TokenRevoked, "malformed").request(&request);
            authz.db.record(move |tx| audit::append(tx, event)).await?;
            return Err(error);
        }
    };
    let authorization = Authorization::of(headers);
    // A signature takes longer than everything else here, and the writer has one thread.
    let access_token = params.get("token").and_then(|text| genuine(authz, text));
    let answer = {
        let authz = authz.clone();
        let db = authz.db.clone();
        db.write(move |tx| settle(&authz, tx, &params, &authorization, access_token.as_ref(), &request))
            .await?
    };
    answer.map_err(Refusal::wire)
}

/// An access token that this server signed; whether it is alive is another question.
fn genuine(authz: &Authz, text: &str) -> Option<Verified> {
    let verified = authz.keys.verifier().verify(text).ok()?;
    (verified.token.iss == authz.issuer.as_str()).then_some(verified)
}

fn settle(
    authz: &Authz,
    tx: &Tx<'_>,
    params: &Params,
    authorization: &Authorization,
    access_token: Option<&Verified>,
    request: &Request,
) -> Result<Result<(), Refusal>, Fault> {
    let client = match client_auth::authenticate(authz, tx, params, authorization)? {
        Ok(client) => client,
        Err(why) => {
            let refusal = token::Refusal::from(why);
            audit::append(tx, token::refused(params, authorization, refusal, request))?;
            return Ok(Err(Refusal::Client(refusal)));
        }
    };
    let cx = Revocation { authz, tx, client: &client, request };
    // RFC 7009 §2.1: the hint may be wrong, and nothing depends on it.
    let Some(presented) = params.get("token") else {
        cx.record(Event::denied(Name::TokenRevoked, "token_missing"))?;
        return Ok(Err(Refusal::TokenMissing));
    };
    if let Some(token) = access_token {
        return cx.access_token(token);
    }
    match refresh_tokens::find(tx, &Secret::presented(presented).digest())? {
        Some(token) => match grants::find(tx, &token.grant_id)? {
            Some(grant) => cx.refresh_token(&grant),
            None => cx.nothing("unknown"),
        },
        // RFC 7009 §2.2: "invalid tokens do not cause an error response"
        None => cx.nothing("unknown"),
    }
}

struct Revocation<'a> {
    authz: &'a Authz,
    tx: &'a Tx<'a>,
    client: &'a Client,
    request: &'a Request,
}

type Answer = Result<Result<(), Refusal>, Fault>;

impl Revocation<'_> {
    /// REVOKE-04: the family ends, and with it every access token that it bought.
    fn refresh_token(&self, grant: &Grant) -> Answer {
        let about =
            |event: Event| event.subject(grant.user_id.as_str()).grant(&grant.id).resource(&grant.resource);
        if grant.client_id != self.client.id {
            return self.other_client(about);
        }
        if !ending::grant(self.authz, self.tx, &grant.id, Reason::RevokedByClient)? {
            return self.nothing("ended_before");
        }
        let event = about(Event::allowed(Name::TokenRevoked));
        self.record(event.detail("token", "refresh_token"))?;
        Ok(Ok(()))
    }

    /// REVOKE-04: this token ends, and its grant goes on.
    fn access_token(&self, Verified { token, kid }: &Verified) -> Answer {
        let about = |event: Event| {
            event.subject(&token.sub).grant(&token.grant_id).jti(token.jti.as_str()).resource(&token.aud)
        };
        if token.client_id != self.client.id {
            return self.other_client(about);
        }
        if self.tx.now() >= token.expires() + LEEWAY {
            return self.nothing("expired");
        }
        let live = matches!(self.authz.status.standing(token, kid), Standing::Live { .. });
        if !live || !ending::token(self.authz, self.tx, &token.jti, token.expires())? {
            return self.nothing("ended_before");
        }
        self.record(about(Event::allowed(Name::TokenRevoked)).detail("token", "access_token"))?;
        Ok(Ok(()))
    }

    fn other_client(&self, about: impl FnOnce(Event) -> Event) -> Answer {
        self.record(about(Event::denied(Name::TokenRevoked, "other_client")))?;
        Ok(Err(Refusal::OtherClient))
    }

    /// There was nothing to revoke, which the client is told like a success.
    fn nothing(&self, why: &str) -> Answer {
        self.record(Event::failed(Name::TokenRevoked, why))?;
        Ok(Ok(()))
    }

    fn record(&self, event: Event) -> Result<(), Fault> {
        audit::append(self.tx, event.by_client(&self.client.id).client(&self.client.id).request(self.request))
    }
}

//! `private_key_jwt`: the required claims of an assertion, and its single use (RFC 7523 §3, RFC 10070).

use std::time::Duration;

use keys::{AssertionClaims, BadAssertion, ClientAssertion, ClientKeys};
use shared::rate::Origin;
use shared::{ClientId, Digest, Fault, Request, Timestamp, Tx};

use super::Unauthenticated;
use crate::form::Params;
use crate::store::assertions::{self, AssertionHolder, Spent};
use crate::store::clients::{Client, Source};

/// The value of `client_assertion_type` (RFC 7523 §2.2).
const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// The longest time from now to an assertion's `exp` (CAUTH-05).
const LONGEST: Duration = Duration::from_mins(5);
/// The tolerated difference between a client's clock and ours (standards §1).
const LEEWAY: Duration = Duration::from_mins(1);
/// The longest accepted `jti`, in bytes.
const LONGEST_JTI: usize = 256;

/// Reads the assertion from a form.
pub(super) fn read(params: &Params) -> Result<ClientAssertion<'_>, Unauthenticated> {
    let text = params.get("client_assertion").filter(|_| params.get("client_assertion_type") == Some(TYPE));
    text.and_then(|text| ClientAssertion::parse(text).ok()).ok_or(Unauthenticated::AssertionMalformed)
}

/// An assertion whose signature and claims are valid. Spending it authenticates its client.
pub(super) struct ValidAssertion {
    digest: Digest,
    expires: Timestamp,
    /// The keys that it was verified with. They must still be the client's when it is spent.
    jwks: Option<String>,
    client_id: ClientId,
    /// The sender's address. Assertions of self-registered clients are counted by it.
    origin: Origin,
}

/// Checks an assertion that claims to be from the client `id`. If that client does not exist, a signature is
/// checked anyway, so that the time is the same (CAUTH-03).
pub(super) fn check(
    issuer: &str,
    now: Timestamp,
    request: &Request,
    id: &ClientId,
    client: Option<&Client>,
    assertion: ClientAssertion<'_>,
) -> Result<Result<ValidAssertion, Unauthenticated>, Fault> {
    let jwks = client.and_then(|client| client.jwks.clone());
    let keys = jwks.as_deref().map(stored).transpose()?.unwrap_or_default();
    let claims = match assertion.verify(&keys) {
        Ok(claims) => claims,
        Err(BadAssertion::Malformed | BadAssertion::Typ) => {
            return Ok(Err(Unauthenticated::AssertionMalformed));
        }
        Err(BadAssertion::UnknownKey | BadAssertion::Signature) => {
            return Ok(Err(Unauthenticated::AssertionSignature));
        }
    };
    if let Err(why) = acceptable(&claims, id, issuer, now) {
        return Ok(Err(why));
    }
    let digest = Digest::of(format!("{id} {}", claims.jti).as_bytes());
    let expires = Timestamp::from_seconds(claims.exp);
    Ok(Ok(ValidAssertion { digest, expires, jwks, client_id: id.clone(), origin: request.into() }))
}

impl ValidAssertion {
    /// Spends the assertion in the transaction of the request that it came with. Checks again what may have
    /// changed since [`check`].
    pub(super) fn spend(&self, tx: &Tx<'_>, client: &Client) -> Result<Result<(), Unauthenticated>, Fault> {
        if client.jwks != self.jwks {
            return Ok(Err(Unauthenticated::AssertionSignature));
        }
        // Keep it until its age alone would make it refused.
        let until = self.expires + LEEWAY;
        if tx.now() >= until {
            return Ok(Err(Unauthenticated::AssertionExpired));
        }
        let stranger = matches!(client.source, Source::SelfRegistered | Source::UnknownUrl);
        let whose = if stranger {
            AssertionHolder::Stranger(self.origin.into())
        } else {
            AssertionHolder::Client(&self.client_id)
        };
        Ok(match assertions::spend(tx, &self.digest, &whose, until)? {
            Spent::Now => Ok(()),
            Spent::Before => Err(Unauthenticated::AssertionReplayed),
            Spent::NoRoom => Err(Unauthenticated::AssertionsTooMany),
        })
    }
}

fn stored(jwks: &str) -> Result<ClientKeys, Fault> {
    let corrupt = || Fault::Corrupt("a client's keys are not a JWK set".to_owned());
    let set = serde_json::from_str(jwks).map_err(|_| corrupt())?;
    ClientKeys::parse(&set).map_err(|_| corrupt())
}

/// CAUTH-05: the client is issuer and subject, this server is the audience, and the lifetime is short.
fn acceptable(
    claims: &AssertionClaims,
    id: &ClientId,
    issuer: &str,
    now: Timestamp,
) -> Result<(), Unauthenticated> {
    let from_itself = claims.iss == id.as_str() && claims.sub == id.as_str();
    // Only the issuer is accepted as audience: an endpoint's URL could be another server's issuer (RFC 10070).
    let for_us = claims.aud == issuer;
    let has_jti = !claims.jti.is_empty() && claims.jti.len() <= LONGEST_JTI;
    if !(from_itself && for_us && has_jti) {
        return Err(Unauthenticated::AssertionClaims);
    }
    let date = Timestamp::from_seconds;
    let expired = now >= date(claims.exp) + LEEWAY;
    let too_long = date(claims.exp) > now + LONGEST + LEEWAY;
    let too_early = [claims.nbf, claims.iat].into_iter().flatten().any(|at| date(at) > now + LEEWAY);
    if expired || too_long || too_early {
        return Err(Unauthenticated::AssertionExpired);
    }
    Ok(())
}

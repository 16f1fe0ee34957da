//! Bearer tokens (RFC 6750): from the `Authorization` header to a token that is valid now.

mod challenge;

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use keys::{Memory, Remembered, TokenRefusal, Unverified, Verifier};
use shared::audit::Event;
use shared::clock::LEEWAY;
use shared::token_status::{Ceiling, Standing};
use shared::{
    AccessToken, ClientId, Digest, Issuer, ResourceUri, Scope, Secret, Timestamp, TokenStatus, UserId,
};

use crate::policy::Caller;
use crate::remote::{Check, Remote, Unavailable};

pub(crate) use challenge::Challenges;

/// The longest token that is parsed, in bytes (RS-05).
const LONGEST: usize = 8 * 1024;

/// Checks bearer tokens, given the endpoint that was called.
///
/// The signature of a token is verified once; afterwards its SHA-256 finds the claims. Everything else is
/// checked each time: whether the key is still published, issuer and audience, times, and whether grant, user
/// and client are live (RS-05).
pub struct Bearer {
    issuer: Issuer,
    status: Arc<dyn TokenStatus>,
    /// The authorization server, if it is elsewhere; it is asked first.
    remote: Option<Arc<Remote>>,
    memory: Memory,
}

/// A valid token, and what its user may be granted now.
#[derive(Clone, Debug)]
pub struct CheckedToken {
    digest: Digest,
    verified: Arc<Remembered>,
    entitled: Arc<Scope>,
    ceiling: Ceiling,
    /// The token's text, kept only if an authorization server elsewhere is asked about it.
    text: Option<Arc<Secret>>,
}

impl CheckedToken {
    /// The token's claims.
    pub fn token(&self) -> &AccessToken {
        &self.verified.verified().token
    }

    /// The SHA-256 of the token.
    pub(crate) fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The refusal for a token that has ended since it was checked.
    pub(crate) fn ended(&self) -> Refused {
        let verified = Some(Arc::clone(&self.verified));
        Refused::Invalid(Invalid { reason: "revoked", token: self.digest, verified })
    }

    /// The endpoint, which was compared with the token's audience (RS-05).
    fn endpoint(&self) -> &ResourceUri {
        &self.token().aud
    }

    /// Whether its use is known to be recorded.
    pub(crate) fn is_seen(&self) -> bool {
        self.verified.is_seen()
    }

    /// Notes that its use is recorded.
    pub(crate) fn mark_seen(&self) {
        self.verified.mark_seen();
    }

    /// The user's current entitlement. A call may use its intersection with the token's scope.
    pub fn entitled(&self) -> &Scope {
        &self.entitled
    }

    /// The client's ceiling (DCR-08).
    pub fn ceiling(&self) -> Ceiling {
        self.ceiling
    }

    /// The principal, for data that is kept for callers.
    pub fn principal(&self) -> Principal {
        Principal::of(self.token())
    }

    /// The caller, as the policy sees them.
    pub(crate) fn caller(&self) -> Caller<'_> {
        let token = self.token();
        let (scope, has_user) = (&token.scope, !token.of_client());
        Caller { scope, entitled: &self.entitled, ceiling: self.ceiling, has_user }
    }

    /// The caller, as sources see them. `withheld` is the scope that this client is not granted.
    pub(crate) fn asker(&self, withheld: Scope) -> CallerIdentity {
        CallerIdentity {
            verified: Arc::clone(&self.verified),
            entitled: Arc::clone(&self.entitled),
            withheld,
            session: None,
        }
    }

    /// Adds the actor to an audit record: the user of the token, or the client if there is none (RS-14: never
    /// by e-mail or name).
    pub(crate) fn acting(&self, event: Event) -> Event {
        let token = self.token();
        if token.of_client() {
            return event.by_client(&token.client_id);
        }
        event.by_user(&UserId::from_subject(&token.sub))
    }
}

/// The caller, as sources see them: the token's claims, without the token (SRC-01).
#[derive(Clone, Debug)]
pub(crate) struct CallerIdentity {
    verified: Arc<Remembered>,
    entitled: Arc<Scope>,
    withheld: Scope,
    /// The session of the request, by its digest.
    session: Option<Arc<str>>,
}

impl CallerIdentity {
    fn token(&self) -> &AccessToken {
        &self.verified.verified().token
    }

    /// The same in this session.
    pub(crate) fn within(self, session: Option<Arc<str>>) -> Self {
        Self { session, ..self }
    }

    /// The session of the request, by its digest.
    pub(crate) fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    pub(crate) fn principal(&self) -> Principal {
        Principal::of(self.token())
    }

    /// The user's id.
    pub(crate) fn user(&self) -> &str {
        &self.token().sub
    }

    /// Whether it is a person, and not a program in its own name.
    pub(crate) fn has_user(&self) -> bool {
        !self.token().of_client()
    }

    pub(crate) fn client(&self) -> &ClientId {
        &self.token().client_id
    }

    /// The endpoint that was called.
    pub(crate) fn resource(&self) -> &ResourceUri {
        &self.token().aud
    }

    /// The scope that the user granted to the client.
    pub(crate) fn scope(&self) -> &Scope {
        &self.token().scope
    }

    /// The user's current entitlement.
    pub(crate) fn entitled(&self) -> &Scope {
        &self.entitled
    }

    /// The part of the entitlement that this client is not granted.
    pub(crate) fn withheld(&self) -> &Scope {
        &self.withheld
    }

    /// When the token expires.
    pub(crate) fn expires(&self) -> Timestamp {
        self.token().expires()
    }
}

/// A user through a client, as one issuer identifies them (RS-14).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Principal {
    pub iss: String,
    pub sub: String,
    pub client_id: ClientId,
}

impl Principal {
    /// The principal of a verified token.
    pub(crate) fn of(token: &AccessToken) -> Self {
        Self { iss: token.iss.clone(), sub: token.sub.clone(), client_id: token.client_id.clone() }
    }

    /// As one text, different for different principals.
    pub(crate) fn to_text(&self) -> String {
        serde_json::json!([self.iss, self.sub, self.client_id.as_str()]).to_string()
    }

    /// The user or program in such a text.
    pub(crate) fn subject_in(text: &str) -> Option<String> {
        let [_, subject, _] = serde_json::from_str::<[String; 3]>(text).ok()?;
        Some(subject)
    }
}

/// Why credentials were refused.
#[derive(Clone, Debug)]
pub enum Refused {
    /// No credentials, or another scheme (RS-02).
    Absent,
    /// The header does not follow RFC 6750 §2.1, or occurs twice (RS-04).
    Malformed,
    /// The token is not valid (RS-03).
    Invalid(Invalid),
    /// The authorization server cannot be asked (RS-09).
    Unavailable,
}

impl From<Unavailable> for Refused {
    fn from(_: Unavailable) -> Self {
        Self::Unavailable
    }
}

/// Details of a refused token, for the audit log and not for the client.
#[derive(Clone, Debug)]
pub struct Invalid {
    /// A short stable keyword for the cause.
    pub reason: &'static str,
    /// A digest, of which a part is recorded (AUDIT-05).
    pub token: Digest,
    /// Who signed says: the claims, if the signature was good.
    pub verified: Option<Arc<Remembered>>,
}

impl Invalid {
    /// Whether it only expired: the one cause that the client is told (RS-03).
    pub fn expired(&self) -> bool {
        self.reason == EXPIRED
    }
}

const EXPIRED: &str = "expired";

impl Bearer {
    /// A check for tokens of this issuer.
    pub fn new(issuer: Issuer, verifier: Verifier, status: Arc<dyn TokenStatus>) -> Self {
        Self { issuer, status, remote: None, memory: Memory::new(verifier) }
    }

    /// A check for tokens of an authorization server elsewhere.
    pub(crate) fn of_remote(issuer: Issuer, remote: Arc<Remote>) -> Self {
        let status = Arc::clone(&remote) as Arc<dyn TokenStatus>;
        let memory = Memory::new(remote.verifier());
        Self { issuer, status, remote: Some(remote), memory }
    }

    /// Checks the `Authorization` header of a request to this endpoint, before it is known which scopes the
    /// request needs. Does not wait if the authorization server is in this process.
    ///
    /// # Errors
    /// See [`Refused`].
    pub(crate) async fn admit(
        &self,
        headers: &HeaderMap,
        endpoint: &ResourceUri,
        now: Timestamp,
    ) -> Result<CheckedToken, Refused> {
        let Some(remote) = &self.remote else { return self.check_headers(headers, endpoint, now) };
        let presented = presented(the_one(headers)?)?;
        if presented.len() > LONGEST {
            return Err(refused("too_long", Digest::of(presented)));
        }
        let digest = Digest::of(presented);
        let text = well_formed(presented)?;
        remote.keys().await?;
        let verified = self.verified_by(remote, digest, text).await?;
        self.acceptable(&verified, endpoint, now).map_err(|reason| {
            let verified = Some(Arc::clone(&verified));
            Refused::Invalid(Invalid { reason, token: digest, verified })
        })?;
        let text = Some(Arc::new(Secret::presented(text)));
        let (entitled, ceiling) = (Arc::default(), Ceiling::LowRisk);
        let checked = CheckedToken { digest, verified, entitled, ceiling, text };
        let checked = self.confirm(&checked, now, remote.floor()).await;
        match &checked {
            Ok(checked) => self.memory.keep(digest, &checked.verified),
            Err(Refused::Invalid(_)) => self.memory.forget(&digest),
            Err(_) => {}
        }
        checked
    }

    async fn verified_by(
        &self,
        remote: &Remote,
        digest: Digest,
        text: &str,
    ) -> Result<Arc<Remembered>, Refused> {
        if let Some(verified) = self.memory.get(&digest) {
            return Ok(verified);
        }
        let mut verified = self.memory.verify(text);
        if matches!(verified, Err(Unverified::UnknownKey)) && remote.look_again().await? {
            verified = self.memory.verify(text);
        }
        verified.map_err(|why| refused(word_for_unverified(why), digest))
    }

    /// Checks again that a token is still valid, as strictly as these scopes require. Called after every wait
    /// and before every decision (RS-08).
    ///
    /// # Errors
    /// See [`Refused`].
    pub(crate) async fn confirm(
        &self,
        checked: &CheckedToken,
        now: Timestamp,
        check: Check,
    ) -> Result<CheckedToken, Refused> {
        let (Some(remote), Some(text)) = (&self.remote, &checked.text) else {
            return self.recheck(checked, now);
        };
        let dead = |reason| {
            let verified = Some(Arc::clone(&checked.verified));
            Refused::Invalid(Invalid { reason, token: checked.digest, verified })
        };
        // Check its claims first: do not introspect an expired token.
        self.acceptable(&checked.verified, checked.endpoint(), now).map_err(dead)?;
        match remote.ask(text, checked.token(), check).await? {
            Standing::Live { entitled, ceiling } => Ok(CheckedToken { entitled, ceiling, ..checked.clone() }),
            Standing::Dead => Err(dead("revoked")),
        }
    }

    /// Whether the authorization server is elsewhere, and tokens end there.
    pub(crate) fn asks_elsewhere(&self) -> bool {
        self.remote.is_some()
    }

    /// How strictly a token is checked for these scopes.
    pub(crate) fn check_for(&self, needs: Option<&Scope>) -> Check {
        self.remote.as_ref().map_or(Check::Always, |remote| remote.check_for(needs))
    }

    /// Checks the `Authorization` header of a request to this endpoint. The checks are the same whether the
    /// authorization server is in this process or elsewhere (RS-16), and a cookie is never read (SESSION-08).
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn check_headers(
        &self,
        headers: &HeaderMap,
        endpoint: &ResourceUri,
        now: Timestamp,
    ) -> Result<CheckedToken, Refused> {
        self.check(the_one(headers)?, endpoint, now)
    }

    /// Checks the value of an `Authorization` header of a request to this endpoint.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn check(
        &self,
        authorization: &HeaderValue,
        endpoint: &ResourceUri,
        now: Timestamp,
    ) -> Result<CheckedToken, Refused> {
        let presented = presented(authorization)?;
        if presented.len() > LONGEST {
            return Err(refused("too_long", Digest::of(presented)));
        }
        let digest = Digest::of(presented);
        let (verified, fresh) = match self.memory.get(&digest) {
            Some(verified) => (verified, false),
            None => match self.memory.verify(well_formed(presented)?) {
                Ok(verified) => (verified, true),
                Err(why) => return Err(refused(word_for_unverified(why), digest)),
            },
        };
        match self.standing(&verified, endpoint, now) {
            Ok((entitled, ceiling)) => {
                if fresh {
                    self.memory.keep(digest, &verified);
                }
                Ok(CheckedToken { digest, verified, entitled, ceiling, text: None })
            }
            Err(reason) => {
                if !fresh {
                    self.memory.forget(&digest);
                }
                Err(Refused::Invalid(Invalid { reason, token: digest, verified: Some(verified) }))
            }
        }
    }

    /// Checks again that a token is still valid. Called after every wait (RS-08).
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn recheck(&self, checked: &CheckedToken, now: Timestamp) -> Result<CheckedToken, Refused> {
        let verified = Arc::clone(&checked.verified);
        match self.standing(&verified, checked.endpoint(), now) {
            Ok((entitled, ceiling)) => Ok(CheckedToken { entitled, ceiling, ..checked.clone() }),
            Err(reason) => {
                Err(Refused::Invalid(Invalid { reason, token: checked.digest, verified: Some(verified) }))
            }
        }
    }

    /// Everything except the signature; cached tokens are checked like this too (RS-05).
    fn standing(
        &self,
        remembered: &Remembered,
        endpoint: &ResourceUri,
        now: Timestamp,
    ) -> Result<(Arc<Scope>, Ceiling), &'static str> {
        self.acceptable(remembered, endpoint, now)?;
        let verified = remembered.verified();
        match self.status.standing(&verified.token, &verified.kid) {
            Standing::Live { entitled, ceiling } => Ok((entitled, ceiling)),
            Standing::Dead => Err("revoked"),
        }
    }

    /// Checks a token's key and claims.
    fn acceptable(
        &self,
        remembered: &Remembered,
        endpoint: &ResourceUri,
        now: Timestamp,
    ) -> Result<(), &'static str> {
        if !self.memory.knows_key_of(remembered) {
            return Err("key_removed");
        }
        let token = &remembered.verified().token;
        keys::check(token, self.issuer.as_str(), endpoint, now, LEEWAY).map_err(word_for_unacceptable)
    }

    /// The token status.
    pub(crate) fn status(&self) -> &Arc<dyn TokenStatus> {
        &self.status
    }
}

/// The only `Authorization` header (RS-04).
fn the_one(headers: &HeaderMap) -> Result<&HeaderValue, Refused> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let first = values.next().ok_or(Refused::Absent)?;
    if values.next().is_some() { Err(Refused::Malformed) } else { Ok(first) }
}

/// The text after `Bearer`; the scheme is case-insensitive (RS-04).
fn presented(authorization: &HeaderValue) -> Result<&[u8], Refused> {
    let bytes = authorization.as_bytes();
    let scheme = bytes.split(|b| *b == b' ').next().unwrap_or_default();
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err(Refused::Absent);
    }
    Ok(bytes[scheme.len()..].trim_ascii())
}

/// Checks the token's syntax (RFC 6750 §2.1): `1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="`. A
/// cached token was checked before, so a cache hit skips this.
fn well_formed(presented: &[u8]) -> Result<&str, Refused> {
    let padded = presented.iter().position(|b| *b == b'=').unwrap_or(presented.len());
    let (text, padding) = presented.split_at(padded);
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || b"-._~+/".contains(b);
    if text.is_empty() || !text.iter().all(allowed) || padding.iter().any(|b| *b != b'=') {
        return Err(Refused::Malformed);
    }
    std::str::from_utf8(presented).map_err(|_| Refused::Malformed)
}

fn refused(reason: &'static str, token: Digest) -> Refused {
    Refused::Invalid(Invalid { reason, token, verified: None })
}

fn word_for_unverified(why: Unverified) -> &'static str {
    match why {
        Unverified::TooLong => "too_long",
        Unverified::NotThreeParts => "not_a_jwt",
        Unverified::Header => "header",
        Unverified::Typ => "typ",
        Unverified::UnknownKey => "unknown_key",
        Unverified::Algorithm => "algorithm",
        Unverified::Signature => "signature",
        Unverified::Claims => "claims",
    }
}

fn word_for_unacceptable(why: TokenRefusal) -> &'static str {
    match why {
        TokenRefusal::Issuer => "issuer",
        TokenRefusal::Audience => "audience",
        TokenRefusal::Expired => EXPIRED,
        TokenRefusal::NotYetValid => "not_yet_valid",
        TokenRefusal::IssuedInFuture => "issued_in_future",
    }
}

#[cfg(test)]
mod tests;

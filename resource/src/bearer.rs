//! Access tokens as requests present them (RFC 6750): from the `Authorization` header to a token
//! that is good at this moment.

mod challenge;

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use keys::{Memory, Remembered, Unacceptable, Unverified, Verifier};
use shared::audit::Event;
use shared::clock::LEEWAY;
use shared::token_status::{Ceiling, Standing};
use shared::{
    AccessToken, ClientId, Digest, Issuer, ResourceUri, Scope, Secret, Timestamp, TokenStatus, UserId,
};

use crate::policy::Caller;
use crate::remote::{Check, Remote, Unavailable};

pub(crate) use challenge::Challenges;

/// Longer tokens are not looked at (RS-05).
const LONGEST: usize = 8 * 1024;

/// Checks bearer tokens. Whoever asks says for which endpoint.
///
/// The signature of a token is checked once; after that its SHA-256 finds the claims again. All
/// else is checked every time: that the key is still published, issuer and audience, times, and
/// whether grant, user and client are alive (RS-05).
pub struct Bearer {
    issuer: Issuer,
    status: Arc<dyn TokenStatus>,
    /// The authorization server, if it is elsewhere: then it is asked first.
    remote: Option<Arc<Remote>>,
    memory: Memory,
}

/// A token that is good now, and what its user may be granted now.
#[derive(Clone, Debug)]
pub struct Checked {
    digest: Digest,
    verified: Arc<Remembered>,
    entitled: Arc<Scope>,
    ceiling: Ceiling,
    /// The token itself, kept only where somebody elsewhere is asked about it.
    text: Option<Arc<Secret>>,
}

impl Checked {
    /// The token's claims.
    pub fn token(&self) -> &AccessToken {
        &self.verified.verified().token
    }

    /// The refusal of a token that has ended since it was checked.
    pub(crate) fn ended(&self) -> Refused {
        let verified = Some(Arc::clone(&self.verified));
        Refused::Invalid(Invalid { reason: "revoked", token: self.digest, verified })
    }

    /// The endpoint that it was admitted to: its audience was compared with it then (RS-05).
    fn endpoint(&self) -> &ResourceUri {
        &self.token().aud
    }

    /// Whether its use is known to be on record.
    pub(crate) fn is_seen(&self) -> bool {
        self.verified.is_seen()
    }

    /// Its use is on record from now on.
    pub(crate) fn mark_seen(&self) {
        self.verified.mark_seen();
    }

    /// What the user is entitled to at this moment; a call may do this ∩ the token's scope.
    pub fn entitled(&self) -> &Scope {
        &self.entitled
    }

    /// What the client can be granted at most, whoever uses it (DCR-08).
    pub fn ceiling(&self) -> Ceiling {
        self.ceiling
    }

    /// Who calls, as far as anything may be kept for them.
    pub fn principal(&self) -> Principal {
        Principal::of(self.token())
    }

    /// What the policy decides on.
    pub(crate) fn caller(&self) -> Caller<'_> {
        let token = self.token();
        let (scope, has_user) = (&token.scope, !token.of_client());
        Caller { scope, entitled: &self.entitled, ceiling: self.ceiling, has_user }
    }

    /// What a source may know of them. `withheld` is what this client is not granted.
    pub(crate) fn asker(&self, withheld: Scope) -> Asker {
        Asker { verified: Arc::clone(&self.verified), entitled: Arc::clone(&self.entitled), withheld }
    }

    /// A record of what the caller did: the person behind the token, or the client if there is none (RS-14: never
    /// by mail or name).
    pub(crate) fn acting(&self, event: Event) -> Event {
        let token = self.token();
        if token.of_client() {
            return event.by_client(&token.client_id);
        }
        event.by_user(&UserId::from_subject(&token.sub))
    }
}

/// Whoever asks, as a source may know them: what the token said, and not the token (SRC-01).
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    verified: Arc<Remembered>,
    entitled: Arc<Scope>,
    withheld: Scope,
}

impl Asker {
    fn token(&self) -> &AccessToken {
        &self.verified.verified().token
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

    /// What the user allowed the client.
    pub(crate) fn scope(&self) -> &Scope {
        &self.token().scope
    }

    /// What the user may be granted at this moment.
    pub(crate) fn entitled(&self) -> &Scope {
        &self.entitled
    }

    /// What of that this client is not granted, whatever the user allows.
    pub(crate) fn withheld(&self) -> &Scope {
        &self.withheld
    }

    /// Until when the user's word holds.
    pub(crate) fn expires(&self) -> Timestamp {
        self.token().expires()
    }
}

/// A person through a client, as one issuer knows them (RS-14).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Principal {
    pub iss: String,
    pub sub: String,
    pub client_id: ClientId,
}

impl Principal {
    /// Whom a token is for. It must be verified.
    pub(crate) fn of(token: &AccessToken) -> Self {
        Self { iss: token.iss.clone(), sub: token.sub.clone(), client_id: token.client_id.clone() }
    }
}

/// Why credentials were not accepted.
#[derive(Clone, Debug)]
pub enum Refused {
    /// None were sent, or of another scheme (RS-02).
    Absent,
    /// The header does not follow RFC 6750 §2.1, or there are two (RS-04).
    Malformed,
    /// A token was sent, and it is not good (RS-03).
    Invalid(Invalid),
    /// Nobody could say whether it is (RS-09).
    Unavailable,
}

impl From<Unavailable> for Refused {
    fn from(_: Unavailable) -> Self {
        Self::Unavailable
    }
}

/// What is known about a token that was refused: for the record, not for its holder.
#[derive(Clone, Debug)]
pub struct Invalid {
    /// A short stable word for the cause.
    pub reason: &'static str,
    /// Enough of the token's hash to recognise it (AUDIT-05).
    pub token: Digest,
    /// Who signed says: the claims, if the signature was good.
    pub verified: Option<Arc<Remembered>>,
}

impl Invalid {
    /// The one cause that the client is told apart (RS-03).
    pub fn expired(&self) -> bool {
        self.reason == EXPIRED
    }
}

const EXPIRED: &str = "expired";

impl Bearer {
    /// A check of this issuer's tokens.
    pub fn new(issuer: Issuer, verifier: Verifier, status: Arc<dyn TokenStatus>) -> Self {
        Self { issuer, status, remote: None, memory: Memory::new(verifier) }
    }

    /// The same for tokens of an authorization server elsewhere.
    pub(crate) fn of_remote(issuer: Issuer, remote: Arc<Remote>) -> Self {
        let status = Arc::clone(&remote) as Arc<dyn TokenStatus>;
        let memory = Memory::new(remote.verifier());
        Self { issuer, status, remote: Some(remote), memory }
    }

    /// Whose the one `Authorization` header of a request to this endpoint is, before it is known what for. With the
    /// authorization server in this process nothing is waited for.
    ///
    /// # Errors
    /// See [`Refused`].
    pub(crate) async fn admit(
        &self,
        headers: &HeaderMap,
        endpoint: &ResourceUri,
        now: Timestamp,
    ) -> Result<Checked, Refused> {
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
        let checked = Checked { digest, verified, entitled, ceiling, text };
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

    /// Whether a token that was good a moment ago still is, for what is checked like this: asked again after every
    /// wait, and before every decision (RS-08).
    ///
    /// # Errors
    /// See [`Refused`].
    pub(crate) async fn confirm(
        &self,
        checked: &Checked,
        now: Timestamp,
        check: Check,
    ) -> Result<Checked, Refused> {
        let (Some(remote), Some(text)) = (&self.remote, &checked.text) else {
            return self.recheck(checked, now);
        };
        let dead = |reason| {
            let verified = Some(Arc::clone(&checked.verified));
            Refused::Invalid(Invalid { reason, token: checked.digest, verified })
        };
        // What its text tells comes first: nobody is asked about what has expired.
        self.acceptable(&checked.verified, checked.endpoint(), now).map_err(dead)?;
        match remote.ask(text, checked.token(), check).await? {
            Standing::Live { entitled, ceiling } => Ok(Checked { entitled, ceiling, ..checked.clone() }),
            Standing::Dead => Err(dead("revoked")),
        }
    }

    /// Whether the authorization server is elsewhere, and tokens end there.
    pub(crate) fn asks_elsewhere(&self) -> bool {
        self.remote.is_some()
    }

    /// How a token is checked for what needs these scopes.
    pub(crate) fn check_for(&self, needs: Option<&Scope>) -> Check {
        self.remote.as_ref().map_or(Check::Always, |remote| remote.check_for(needs))
    }

    /// Checks the one `Authorization` header of a request to this endpoint.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn check_headers(
        &self,
        headers: &HeaderMap,
        endpoint: &ResourceUri,
        now: Timestamp,
    ) -> Result<Checked, Refused> {
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
    ) -> Result<Checked, Refused> {
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
                Ok(Checked { digest, verified, entitled, ceiling, text: None })
            }
            Err(reason) => {
                if !fresh {
                    self.memory.forget(&digest);
                }
                Err(Refused::Invalid(Invalid { reason, token: digest, verified: Some(verified) }))
            }
        }
    }

    /// Whether a token that was good a moment ago still is: asked again after every wait (RS-08).
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn recheck(&self, checked: &Checked, now: Timestamp) -> Result<Checked, Refused> {
        let verified = Arc::clone(&checked.verified);
        match self.standing(&verified, checked.endpoint(), now) {
            Ok((entitled, ceiling)) => Ok(Checked { entitled, ceiling, ..checked.clone() }),
            Err(reason) => {
                Err(Refused::Invalid(Invalid { reason, token: checked.digest, verified: Some(verified) }))
            }
        }
    }

    /// Everything but the signature: what a remembered token goes through too (RS-05).
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

    /// What a token itself tells, by its key and its claims.
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

    /// What tells whether tokens are alive.
    pub(crate) fn status(&self) -> &Arc<dyn TokenStatus> {
        &self.status
    }
}

/// The one header with credentials (RS-04).
fn the_one(headers: &HeaderMap) -> Result<&HeaderValue, Refused> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let first = values.next().ok_or(Refused::Absent)?;
    if values.next().is_some() { Err(Refused::Malformed) } else { Ok(first) }
}

/// What stands after `Bearer`; the scheme's case does not matter (RS-04).
fn presented(authorization: &HeaderValue) -> Result<&[u8], Refused> {
    let bytes = authorization.as_bytes();
    let scheme = bytes.split(|b| *b == b' ').next().unwrap_or_default();
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err(Refused::Absent);
    }
    Ok(bytes[scheme.len()..].trim_ascii())
}

/// The same as a token, if it is one by RFC 6750 §2.1: `1*( ALPHA / DIGIT / "-" / "." / "_" / "~" /
/// "+" / "/" ) *"="`. What is remembered was one, so a hit does not look again.
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

fn word_for_unacceptable(why: Unacceptable) -> &'static str {
    match why {
        Unacceptable::Issuer => "issuer",
        Unacceptable::Audience => "audience",
        Unacceptable::Expired => EXPIRED,
        Unacceptable::NotYetValid => "not_yet_valid",
        Unacceptable::IssuedInFuture => "issued_in_future",
    }
}

#[cfg(test)]
mod tests;

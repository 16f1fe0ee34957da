//! An authorization server elsewhere (split mode): its keys, cached as long as it allows (KEYS-07), and
//! introspection of tokens (RFC 7662, RS-08, RS-09).
//!
//! The gate works in two steps: first the calls that may wait, [`Remote::keys`] and [`Remote::ask`]; then, from
//! memory, [`TokenStatus`] like the authorization side in the same process.

mod discovery;
mod origin;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use data_encoding::BASE64;
use http::{HeaderValue, StatusCode};
use keys::{PublishedKeys, Verifier};
use quick_cache::sync::Cache;
use serde::Deserialize;
use shared::catalogue::Risk;
use shared::db::Conn;
use shared::token_status::{Ceiling, Standing};
use shared::{AccessToken, Clock, Fault, Issuer, Jti, Scope, Secret, TokenStatus, Tx};
use tokio::sync::{Mutex, Semaphore};

use discovery::Endpoints;
use origin::{Answer, Origin};

/// The minimum interval between fetches of the key set because of an unknown key (KEYS-07).
const COOLDOWN: Duration = Duration::from_secs(30);
/// After a failure no request is sent for this long, so that requests do not all wait for the same timeout.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest that a key set is used, whatever its issuer says (standards §1).
const LONGEST: Duration = Duration::from_mins(15);
/// The most cached answers.
const REMEMBERED: usize = 100_000;
/// The most questions in flight: fewer than the authorization server accepts (INTRO-07).
const IN_FLIGHT: usize = 48;

/// The settings of a gateway: its credentials, and how it checks tokens.
#[derive(Clone, Debug)]
pub struct Config {
    pub issuer: Issuer,
    pub client_id: String,
    pub client_secret: Secret,
    /// The certificate authorities for the issuer's host; `None` for the system's.
    pub ca: Option<PathBuf>,
    /// How long an answer may be reused: at most 60 seconds (standards §1).
    pub cache: Duration,
    /// How strictly tokens are checked for these scopes, if it does not follow from the risk.
    pub checks: BTreeMap<String, Check>,
}

/// How strictly a token is checked beyond signature and expiry, in increasing order (RS-08).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Check {
    /// Not at all: a revoked token is valid until it expires. The authorization server is told that it is in
    /// use, without waiting for the answer.
    ExpiryOnly,
    /// By an answer that is at most a few seconds old.
    Cached,
    /// By a question for this request.
    Always,
}

impl Check {
    /// The name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ExpiryOnly => "expiry-only",
            Self::Cached => "cached",
            Self::Always => "always",
        }
    }

    /// The check that follows from a scope's risk.
    pub fn of(risk: Risk) -> Self {
        match risk {
            Risk::Low => Self::Cached,
            Risk::High => Self::Always,
        }
    }
}

/// The authorization server could not be asked, so nothing may be accepted (RS-09).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the authorization server cannot be asked")]
pub struct Unavailable;

/// The authorization server, as seen by the gateway.
pub struct Remote {
    config: Config,
    origin: Origin,
    clock: Clock,
    authorization: HeaderValue,
    keys: PublishedKeys,
    /// The uptime in milliseconds until which the key set may be used. Read at every request, without a lock.
    keys_until: AtomicU64,
    known: Mutex<Fetched>,
    answers: Cache<Jti, TimedAnswer>,
    /// Tokens that were mentioned to the authorization server without waiting.
    mentioned: Cache<Jti, ()>,
    /// Held while an answer replaces another.
    answering: std::sync::Mutex<()>,
    in_flight: Semaphore,
    /// What is asked of every token, before it is known what for.
    floor: Check,
}

/// What was fetched, and when.
#[derive(Default)]
struct Fetched {
    endpoints: Option<Endpoints>,
    /// When an unknown key last caused a fetch.
    looked: Option<Duration>,
    failed: Option<Duration>,
    complained: Option<Duration>,
}

/// An answer, and when its question was sent.
#[derive(Clone)]
struct TimedAnswer {
    at: Duration,
    standing: Standing,
}

impl Remote {
    /// Fetches nothing yet. `scopes` are all existing scopes.
    ///
    /// # Errors
    /// If the credentials cannot be sent in a header.
    pub fn new(
        config: Config,
        scopes: impl IntoIterator<Item = (String, Risk)>,
        clock: Clock,
    ) -> Result<Arc<Self>, Unavailable> {
        let basic = format!("{}:{}", config.client_id, config.client_secret.expose());
        let basic = format!("Basic {}", BASE64.encode(basic.as_bytes()));
        let mut authorization = HeaderValue::try_from(basic).map_err(|_| Unavailable)?;
        authorization.set_sensitive(true);
        let mut config = config;
        for (scope, risk) in scopes {
            config.checks.entry(scope).or_insert(Check::of(risk));
        }
        let floor = config.checks.values().copied().min().unwrap_or(Check::Cached).min(Check::Cached);
        Ok(Arc::new(Self {
            origin: Origin::new(&config.issuer, config.ca.clone()),
            config,
            clock,
            authorization,
            keys: PublishedKeys::default(),
            keys_until: AtomicU64::new(0),
            known: Mutex::default(),
            answers: Cache::new(REMEMBERED),
            mentioned: Cache::new(REMEMBERED),
            answering: std::sync::Mutex::default(),
            in_flight: Semaphore::new(IN_FLIGHT),
            floor,
        }))
    }

    /// A verifier with the issuer's keys.
    pub fn verifier(&self) -> Verifier {
        self.keys.verifier()
    }

    /// How strictly tokens are checked for these scopes: the strictest of them decides. Without a scope, as for
    /// low risk.
    pub(crate) fn check_for(&self, needs: Option<&Scope>) -> Check {
        let of = |scope: &str| self.config.checks.get(scope).copied().unwrap_or(Check::Always);
        needs.and_then(|needs| needs.iter().map(of).max()).unwrap_or(Check::Cached)
    }

    /// What is asked of every token, before it is known what for.
    pub(crate) fn floor(&self) -> Check {
        self.floor
    }

    /// Makes sure that the key set is not older than its issuer allows.
    pub(crate) async fn keys(&self) -> Result<(), Unavailable> {
        if self.keys_are_fresh() {
            return Ok(());
        }
        let mut known = self.known.lock().await;
        // Another request may have fetched it while this one waited.
        if self.keys_are_fresh() {
            return Ok(());
        }
        self.fetch_keys(&mut known).await
    }

    /// Fetches the key set for an unknown key; false if that was done recently.
    pub(crate) async fn look_again(&self) -> Result<bool, Unavailable> {
        let mut known = self.known.lock().await;
        let now = self.clock.uptime();
        if known.looked.is_some_and(|looked| now < looked + COOLDOWN) {
            return Ok(false);
        }
        known.looked = Some(now);
        self.fetch_keys(&mut known).await.map(|()| true)
    }

    fn keys_are_fresh(&self) -> bool {
        milliseconds(self.clock.uptime()) < self.keys_until.load(Ordering::Acquire)
    }

    async fn fetch_keys(&self, known: &mut Fetched) -> Result<(), Unavailable> {
        let now = self.clock.uptime();
        let path = self.endpoints(known).await?.jwks.clone();
        let answer = self.origin.get(&path).await;
        let read = answer.map_err(|error| error.to_string()).and_then(|answer| match answer.status {
            StatusCode::OK => {
                self.keys.replace(&answer.body).map_err(|error| format!("the key set: {error}"))?;
                Ok(lifetime(&answer))
            }
            other => Err(format!("the key set has status {other}")),
        });
        match read {
            Ok(lifetime) => {
                known.failed = None;
                self.keys_until.store(milliseconds(now + lifetime), Ordering::Release);
                Ok(())
            }
            Err(why) => Err(self.failed(known, &why)),
        }
    }

    /// Where everything is: from the issuer's own document (RFC 8414), read again when it is old.
    async fn endpoints<'k>(&self, known: &'k mut Fetched) -> Result<&'k Endpoints, Unavailable> {
        let now = self.clock.uptime();
        if known.failed.is_some_and(|failed| now < failed + PAUSE) {
            return Err(Unavailable);
        }
        if known.endpoints.as_ref().is_none_or(|endpoints| now >= endpoints.until) {
            match discovery::read(&self.origin, &self.config.issuer, now).await {
                Ok(endpoints) => known.endpoints = Some(endpoints),
                Err(why) => return Err(self.failed(known, &why)),
            }
        }
        known.endpoints.as_ref().ok_or(Unavailable)
    }

    fn failed(&self, known: &mut Fetched, why: &str) -> Unavailable {
        known.failed = Some(self.clock.uptime());
        self.complain(known, why)
    }

    /// Logs what went wrong, not more often than once in a while.
    fn complain(&self, known: &mut Fetched, why: &str) -> Unavailable {
        let now = self.clock.uptime();
        if known.complained.is_some_and(|complained| now < complained + PAUSE) {
            return Unavailable;
        }
        known.complained = Some(now);
        tracing::error!(remote.issuer = %self.config.issuer, remote.error = why, "the authorization server cannot be asked");
        Unavailable
    }

    /// The token's status now, by an answer that is recent enough for this check.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        text: &Secret,
        token: &AccessToken,
        check: Check,
    ) -> Result<Standing, Unavailable> {
        let now = self.clock.uptime();
        // For `Always`, only an answer to this question counts: an earlier one may precede a revocation.
        let window = match check {
            Check::ExpiryOnly => {
                self.mention(text, token);
                return Ok(unasked(token));
            }
            Check::Cached => Some(self.config.cache),
            Check::Always => None,
        };
        let known = self.answers.get(&token.jti);
        if let Some(said) = known.filter(|said| window.is_some_and(|window| now < said.at + window)) {
            return Ok(said.standing);
        }
        let _place = self.in_flight.acquire().await.map_err(|_| Unavailable)?;
        let path = self.endpoints(&mut *self.known.lock().await).await?.introspection.clone();
        let at = self.clock.uptime();
        // The gate has checked its characters: of them only `+` and `=` are special in a form.
        let form = format!("token={}", text.expose().replace('+', "%2B").replace('=', "%3D"));
        let answer = self.origin.post(&path, &self.authorization, form).await;
        let answer = match answer {
            Ok(answer) => Ok(answer),
            // Reached or not, it said nothing about anybody: the next request need not wait for the same.
            Err(why) if !why.is_of_this_answer() => {
                return Err(self.failed(&mut *self.known.lock().await, &why.to_string()));
            }
            Err(why) => Err(why.to_string()),
        };
        match answer.and_then(|answer| said(&answer, token)) {
            Ok(standing) => {
                self.remember(&token.jti, TimedAnswer { at, standing: standing.clone() });
                Ok(standing)
            }
            // What is wrong with an answer about one token says nothing about other tokens.
            Err(why) => Err(self.complain(&mut *self.known.lock().await, &why)),
        }
    }

    /// Reports once that a token is in use, without waiting, so that the authorization server can detect a
    /// stolen refresh token (REFRESH-06). If it fails, the next use reports it.
    fn mention(self: &Arc<Self>, text: &Secret, token: &AccessToken) {
        let known = self.mentioned.get(&token.jti).is_some() || self.answers.get(&token.jti).is_some();
        if known || self.in_flight.available_permits() == 0 {
            return;
        }
        self.mentioned.insert(token.jti.clone(), ());
        let (remote, text, token) = (Arc::clone(self), text.clone(), token.clone());
        tokio::spawn(async move {
            // A boxed future, because the compiler sees a possible recursion.
            let asked: Pin<Box<dyn Future<Output = _> + Send>> =
                Box::pin(remote.ask(&text, &token, Check::Cached));
            if asked.await.is_err() {
                remote.mentioned.remove(&token.jti);
            }
        });
    }

    /// Keeps an answer, unless one to a later question is there.
    fn remember(&self, jti: &Jti, said: TimedAnswer) {
        let _turn = self.answering.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.answers.get(jti).is_none_or(|there| there.at <= said.at) {
            self.answers.insert(jti.clone(), said);
        }
    }
}

/// The status of a token that is not introspected.
fn unasked(token: &AccessToken) -> Standing {
    Standing::Live { entitled: Arc::new(token.scope.clone()), ceiling: Ceiling::Any }
}

impl TokenStatus for Remote {
    /// The cached answer, while it may be used. Callers that can wait use [`Remote::ask`] instead.
    fn standing(&self, token: &AccessToken, _kid: &str) -> Standing {
        let now = self.clock.uptime();
        match self.answers.get(&token.jti).filter(|said| now < said.at + self.config.cache) {
            Some(said) => said.standing,
            None if self.floor == Check::ExpiryOnly => unasked(token),
            None => Standing::Dead,
        }
    }

    /// The gateway's own database ends no token; the authorization server was asked just before.
    fn has_ended_in(&self, _conn: &Conn<'_>, _token: &AccessToken) -> Result<bool, Fault> {
        Ok(false)
    }

    /// Introspection recorded the use.
    fn is_seen(&self, _token: &AccessToken) -> bool {
        true
    }

    fn mark_seen(&self, _tx: &Tx<'_>, _token: &AccessToken) -> Result<(), Fault> {
        Ok(())
    }
}

/// The response members of RFC 7662 §2.2 that are used here (INTRO-02).
#[derive(Deserialize)]
struct Introspection {
    active: bool,
    scope: Option<Scope>,
    /// The user's current entitlement, so that a missing scope can be told from one that the user cannot have.
    entitled_scope: Option<Scope>,
    sub: Option<String>,
    jti: Option<String>,
    client_id: Option<String>,
}

fn said(answer: &Answer, token: &AccessToken) -> Result<Standing, String> {
    match answer.status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            return Err(format!(
                "the authorization server does not know this resource server ({}): see [remote]",
                answer.status
            ));
        }
        other => return Err(format!("introspection has status {other}")),
    }
    let said: Introspection =
        serde_json::from_slice(&answer.body).map_err(|error| format!("introspection: {error}"))?;
    if !said.active {
        return Ok(Standing::Dead);
    }
    // The answer must be about this token; otherwise answers were mixed up.
    let about_it = said.sub.as_deref() == Some(token.sub.as_str())
        && said.jti.as_deref() == Some(token.jti.as_str())
        && said.client_id.as_deref() == Some(token.client_id.as_str());
    if !about_it {
        return Err("introspection answered about another token".to_owned());
    }
    let entitled = said.entitled_scope.or(said.scope).ok_or("introspection says nothing about scopes")?;
    Ok(Standing::Live { entitled: Arc::new(entitled), ceiling: Ceiling::Any })
}

/// How long a response may be cached (RFC 9111 §5.2.2.1).
fn lifetime(answer: &Answer) -> Duration {
    let values = answer.headers.get_all(http::header::CACHE_CONTROL).iter();
    let directives = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let seconds = directives.filter_map(|directive| directive.trim().strip_prefix("max-age=")?.parse().ok());
    seconds.min().map_or(Duration::ZERO, Duration::from_secs).min(LONGEST)
}

fn milliseconds(uptime: Duration) -> u64 {
    u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;

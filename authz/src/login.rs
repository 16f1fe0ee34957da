//! Signing in: passkeys only.

mod authenticator_data;
pub(crate) mod challenge;
pub(crate) mod destination;
pub(crate) mod enrolment;
pub(crate) mod passkey;
pub(crate) mod response;

use std::time::Duration;

use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::audit::{Event, Name};
use shared::rate::TooMany;
use shared::share::{Full, Holder};
use shared::{Digest, Fault, Request, Secret, Timestamp, Tx, UserId};

use self::response::Malformed;
use crate::Authz;
use crate::current::Current;
use crate::error::PageError;
use crate::store::ceremonies::{self, Ceremony, Purpose};

/// The time limit of a ceremony.
const CEREMONY: Duration = Duration::from_mins(5);

/// Stores a ceremony and answers with its handle (WEBAUTHN-03). `purpose` is computed in the job that stores
/// it, by the same check that admitted the request, because the result may have changed meanwhile (SESSION-05).
pub(crate) async fn begin<S: Serialize>(
    authz: &Authz,
    browser: Digest,
    state: &S,
    request: &Request,
    purpose: impl FnOnce(&Tx<'_>) -> Result<Result<Purpose, PageError>, Fault> + Send + 'static,
) -> Result<String, PageError> {
    let handle = Secret::random("cer_");
    let state = serde_json::to_string(state).map_err(|e| Fault::Storage(e.to_string()))?;
    let (digest, holder) = (handle.digest(), Holder::from(request));
    let job = move |tx: &Tx<'_>| match Current::read(tx, purpose)?.allowed() {
        Ok(purpose) => Ok(store(tx, &digest, browser, purpose, state, &holder)?.map_err(PageError::from)),
        Err(refused) => Ok(Err(refused)),
    };
    authz.db.record(job).await??;
    Ok(handle.expose().to_owned())
}

/// Stores a ceremony for a purpose that was checked in this job.
pub(crate) fn store(
    tx: &Tx<'_>,
    handle: &Digest,
    browser: Digest,
    purpose: Current<'_, Purpose>,
    state: String,
    holder: &Holder,
) -> Result<Result<(), Full>, Fault> {
    let expires_at = tx.now() + CEREMONY;
    let ceremony = purpose.map(|purpose| Ceremony { browser, purpose, state, expires_at });
    ceremonies::insert(tx, handle, &ceremony, holder)
}

/// A ceremony that was taken from the database.
pub(crate) struct TakenCeremony<S> {
    pub purpose: Purpose,
    pub state: S,
    pub begun_at: Timestamp,
}

/// Takes a ceremony. It is used up even if its verification fails.
pub(crate) async fn take<S: DeserializeOwned>(
    authz: &Authz,
    browser: Digest,
    handle: &str,
) -> Result<TakenCeremony<S>, Failed> {
    let digest = Secret::presented(handle).digest();
    let taken = authz.db.write(move |tx| ceremonies::take(tx, &digest)).await?;
    let Some(ceremony) = taken else { return Err(Failed::Because("ceremony_unknown")) };
    if ceremony.browser != browser {
        return Err(Failed::Because("other_browser"));
    }
    if authz.clock.now() >= ceremony.expires_at {
        return Err(Failed::Because("ceremony_expired"));
    }
    let state = serde_json::from_str(&ceremony.state).map_err(|_| Failed::Because("other_purpose"))?;
    Ok(TakenCeremony { purpose: ceremony.purpose, state, begun_at: ceremony.expires_at - CEREMONY })
}

/// A failed ceremony. The reason is for the audit log; the browser gets the same message for every cause
/// (WEBAUTHN-05).
#[derive(Debug)]
pub(crate) enum Failed {
    Because(&'static str),
    Helped(Box<Help>),
    Told(PageError),
    /// The rate limit was exceeded; the limiter records it (RATE-01).
    TooMany(TooMany),
    Fault(Fault),
}

/// A cause with details: words for the user, or the passkey's owner for the audit log. A cause has words only
/// if they reveal nothing to a stranger: it was found after a known passkey's signature was verified, or the
/// response itself shows it.
#[derive(Debug)]
pub(crate) struct Help {
    pub reason: &'static str,
    /// `None`: the user gets the general message (WEBAUTHN-05).
    pub words: Option<&'static str>,
    /// The user whose passkey was used or named, and the passkey.
    pub whose: Option<(UserId, String)>,
}

impl Failed {
    /// A cause that the response itself shows.
    pub(crate) fn helped(reason: &'static str, words: &'static str) -> Self {
        Self::Helped(Box::new(Help { reason, words: Some(words), whose: None }))
    }

    /// The words for the user beyond the general message.
    pub(crate) fn words(&self) -> Option<&'static str> {
        match self {
            Self::Helped(help) => help.words,
            _ => None,
        }
    }
}

impl From<Malformed> for Failed {
    fn from(malformed: Malformed) -> Self {
        Self::Because(malformed.reason())
    }
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<TooMany> for Failed {
    fn from(too_many: TooMany) -> Self {
        Self::TooMany(too_many)
    }
}

impl From<PageError> for Failed {
    fn from(error: PageError) -> Self {
        Self::Told(error)
    }
}

const NOT_CHECKED: &str = "The passkey could not be checked. Reload the page and try again.";

/// Records a failed ceremony and makes the browser's error.
pub(crate) async fn explain(authz: &Authz, request: &Request, failed: Failed) -> PageError {
    let failure = |words| PageError::new(StatusCode::BAD_REQUEST, "webauthn_failed", words).about(request);
    let event = |reason| Event::failed(Name::WebauthnFailed, reason).request(request);
    let (event, told) = match failed {
        Failed::Fault(fault) => return PageError::from(fault).about(request),
        Failed::TooMany(too_many) => return PageError::from(too_many).about(request),
        Failed::Told(error) => (event(error.code), error.about(request)),
        Failed::Helped(help) => {
            let event = match &help.whose {
                Some((user, credential)) => {
                    event(help.reason).by_user(user).detail("credential_sha256_8", credential.as_str())
                }
                None => event(help.reason),
            };
            (event, failure(help.words.unwrap_or(NOT_CHECKED)))
        }
        Failed::Because(reason) => (event(reason), failure(NOT_CHECKED)),
    };
    match authz.refusals.record(&authz.db, event).await {
        Ok(()) => told,
        Err(fault) => PageError::from(fault).about(request),
    }
}

/// Records refusals that happen before the ceremony is looked at: a wrong origin, a dead link, a missing cookie
/// (AUDIT-06).
pub(crate) async fn recorded(
    authz: &Authz,
    request: &Request,
    answer: Result<Response, PageError>,
) -> Result<Response, PageError> {
    match answer {
        Err(error) if error.status.is_client_error() => {
            Err(explain(authz, request, Failed::Told(error)).await)
        }
        other => other.map_err(|error| error.about(request)),
    }
}

//! How people get in: passkeys, and nothing else.

pub(crate) mod enrolment;
pub(crate) mod passkey;

use std::time::Duration;

use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::audit::{Event, Name};
use shared::rate::TooMany;
use shared::{Digest, Fault, Request, Secret, json};

use crate::Authz;
use crate::error::PageError;
use crate::refusals::Kind;
use crate::store::ceremonies::{self, Ceremony, Purpose};

/// How long a ceremony may take.
const CEREMONY: Duration = Duration::from_mins(5);

/// Stores a ceremony and answers with its handle (WEBAUTHN-03).
pub(crate) async fn begin<S: Serialize>(
    authz: &Authz,
    browser: Digest,
    purpose: Purpose,
    state: &S,
) -> Result<String, PageError> {
    let handle = Secret::random("cer_");
    let ceremony = Ceremony {
        browser,
        purpose,
        state: serde_json::to_string(state).map_err(|e| Fault::Storage(e.to_string()))?,
        expires_at: authz.clock.now() + CEREMONY,
    };
    let digest = handle.digest();
    authz.db.record(move |tx| ceremonies::insert(tx, &digest, &ceremony)).await?;
    Ok(handle.expose().to_owned())
}

/// Takes a ceremony, once: it is used up whether it verifies or not.
pub(crate) async fn take<S: DeserializeOwned>(
    authz: &Authz,
    browser: Digest,
    handle: &str,
) -> Result<(Purpose, S), Failed> {
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
    Ok((ceremony.purpose, state))
}

/// A ceremony that did not end well. The reason is for the audit log; the browser is told the same
/// for every cause (WEBAUTHN-05).
#[derive(Debug)]
pub(crate) enum Failed {
    Because(&'static str),
    Told(PageError),
    /// Counted, and on record with the others that were too many (RATE-01).
    TooMany(TooMany),
    Fault(Fault),
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

/// Records a failed ceremony and words it for the browser.
pub(crate) async fn explain(authz: &Authz, request: &Request, failed: Failed) -> PageError {
    let (reason, told) = match failed {
        Failed::Fault(fault) => return fault.into(),
        Failed::TooMany(too_many) => return too_many.into(),
        Failed::Told(error) => (error.code, error),
        Failed::Because(reason) => (
            reason,
            PageError::new(
                StatusCode::BAD_REQUEST,
                "webauthn_failed",
                "The passkey could not be checked. Load the page again and try once more.",
            ),
        ),
    };
    let event = Event::failed(Name::WebauthnFailed, reason).request(request);
    match authz.refusals.record(&authz.db, Kind::Ceremony, event).await {
        Ok(()) => told,
        Err(fault) => fault.into(),
    }
}

/// Records what an endpoint of a ceremony refused before the ceremony itself was looked at: a wrong origin, a
/// dead link, no cookie (AUDIT-06).
pub(crate) async fn recorded(
    authz: &Authz,
    request: &Request,
    answer: Result<Response, PageError>,
) -> Result<Response, PageError> {
    match answer {
        Err(error) if error.status.is_client_error() => {
            Err(explain(authz, request, Failed::Told(error)).await)
        }
        other => other,
    }
}

/// What webauthn-rs does not look at (WEBAUTHN-01, WEBAUTHN-05): the origin letter by letter, nothing framed
/// by another site, and one id.
pub(crate) fn is_plain(authz: &Authz, client_data_json: &[u8], id: &str, raw_id: &[u8]) -> bool {
    is_plain_for(authz.issuer.as_str(), client_data_json, id, raw_id)
}

fn is_plain_for(origin: &str, client_data_json: &[u8], id: &str, raw_id: &[u8]) -> bool {
    let Ok(client_data) = json::object(client_data_json) else { return false };
    if client_data.get("origin").is_none_or(|named| named != origin) {
        return false;
    }
    let framed =
        client_data.get("crossOrigin").is_some_and(|v| v != false) || client_data.get("topOrigin").is_some();
    !framed && data_encoding::BASE64URL_NOPAD.encode(raw_id) == id
}

#[cfg(test)]
mod tests {
    use super::*;

    /// WEBAUTHN-01, WEBAUTHN-05
    #[test]
    fn framed_assertions_other_origins_and_two_ids_are_refused() {
        let plain = |client_data: &[u8], id| is_plain_for("http://localhost:1", client_data, id, &[1, 2]);
        assert!(plain(br#"{"origin":"http://localhost:1","crossOrigin":false}"#, "AQI"));
        assert!(plain(br#"{"origin":"http://localhost:1"}"#, "AQI"));
        assert!(!plain(br#"{"origin":"http://localhost:1","crossOrigin":true}"#, "AQI"));
        assert!(!plain(br#"{"origin":"http://localhost:1","topOrigin":"https://evil.example"}"#, "AQI"));
        assert!(!plain(br#"{"origin":"http://LOCALHOST:1"}"#, "AQI"));
        assert!(!plain(br#"{"origin":"http://localhost:1/"}"#, "AQI"));
        assert!(!plain(br#"{"origin":"http://localhost:1"}"#, "AQM"));
        assert!(!plain(b"{}", "AQI"));
        assert!(!plain(b"no json", "AQI"));
    }
}

//! How people get in: passkeys, and nothing else.

pub(crate) mod passkey;
pub(crate) mod setup;

use std::time::Duration;

use http::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::audit::{self, Event, Name};
use shared::{Digest, Fault, Request, Secret};

use crate::Authz;
use crate::error::PageError;
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
    Fault(Fault),
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
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
    match authz.db.record(move |tx| audit::append(tx, event)).await {
        Ok(()) => told,
        Err(fault) => fault.into(),
    }
}

/// What webauthn-rs does not look at (WEBAUTHN-05): nothing framed by another site, and one id.
pub(crate) fn is_plain(client_data_json: &[u8], id: &str, raw_id: &[u8]) -> bool {
    let Ok(client_data) = serde_json::from_slice::<serde_json::Value>(client_data_json) else { return false };
    let framed =
        client_data.get("crossOrigin").is_some_and(|v| v != false) || client_data.get("topOrigin").is_some();
    !framed && data_encoding::BASE64URL_NOPAD.encode(raw_id) == id
}

#[cfg(test)]
mod tests {
    use super::*;

    /// WEBAUTHN-05
    #[test]
    fn framed_assertions_and_two_ids_are_refused() {
        assert!(is_plain(br#"{"type":"webauthn.get","crossOrigin":false}"#, "AQI", &[1, 2]));
        assert!(is_plain(br#"{"type":"webauthn.get"}"#, "AQI", &[1, 2]));
        assert!(!is_plain(br#"{"crossOrigin":true}"#, "AQI", &[1, 2]));
        assert!(!is_plain(br#"{"topOrigin":"https://evil.example"}"#, "AQI", &[1, 2]));
        assert!(!is_plain(b"{}", "AQM", &[1, 2]));
        assert!(!is_plain(b"no json", "AQI", &[1, 2]));
    }
}

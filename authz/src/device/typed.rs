//! A typed code: the browser it was typed in and the user who may decide it (RFC 8628 §3.3).

use axum::response::Response;
use http::StatusCode;
use shared::audit::{Event, Name};
use shared::db::Conn;
use shared::{Fault, Request};

use crate::Authz;
use crate::error::Code;
use crate::grants::GrantType;
use crate::pages::ErrorPage;
use crate::session::{self, Browser, SignedIn};
use crate::store::clients::{self, Client};
use crate::store::devices::{self, Device, Stage, Typed};

/// Why the device page stops.
pub(super) enum Stop {
    Page {
        reason: &'static str,
        response: Box<Response>,
    },
    /// The limit was exceeded; the limiter records it.
    TooMany(Box<Response>),
    Fault(Fault),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

const START_AGAIN: &str = "Start again on your device to get a new code.";

impl Stop {
    /// An error page that says what happened and how to start again.
    pub(super) fn page(
        authz: &Authz,
        request: &Request,
        status: StatusCode,
        reason: &'static str,
        title: &str,
        what: &str,
    ) -> Self {
        let page = ErrorPage::new(Code::InvalidRequest.as_str(), &request.id, title, what, START_AGAIN);
        Self::Page { reason, response: Box::new(authz.page(status, &page)) }
    }

    /// The request came from another site (CONSENT-03, SESSION-07).
    pub(super) fn forbidden(authz: &Authz, request: &Request, reason: &'static str) -> Self {
        let what = "Answers are accepted only from the page that asks for them. Nothing was decided.";
        let title = "This answer did not come from our page";
        Self::page(authz, request, StatusCode::FORBIDDEN, reason, title, what)
    }

    /// This device was already decided (CONSENT-06).
    pub(super) fn decided(authz: &Authz, request: &Request) -> Self {
        let what = "Your answer has already been sent to the device.";
        let title = "Already answered";
        Self::page(authz, request, StatusCode::BAD_REQUEST, "decided", title, what)
    }

    /// Records the refusal and answers (AUDIT-06).
    pub(super) async fn respond(self, authz: &Authz, request: &Request) -> Response {
        match self {
            Self::Page { reason, response } => {
                let event = Event::denied(Name::AuthzDenied, reason).request(request);
                let event = event.detail("grant_type", GrantType::DeviceCode.name());
                match authz.refusals.record(&authz.db, event).await {
                    Ok(()) => *response,
                    Err(fault) => authz.unavailable(request, &fault),
                }
            }
            Self::TooMany(response) => *response,
            Self::Fault(fault) => authz.unavailable(request, &fault),
        }
    }
}

/// A waiting device whose code was typed in this browser.
pub(super) struct Open {
    pub(super) typed: Typed,
    pub(super) device: Device,
    pub(super) client: Client,
}

/// The waiting device with this handle, if it belongs to this browser (AUTHZ-15).
pub(super) fn open(authz: &Authz, request: &Request, browser: &Browser, handle: &str) -> Result<Open, Stop> {
    let bad =
        |reason, title, what| Err(Stop::page(authz, request, StatusCode::BAD_REQUEST, reason, title, what));
    let found = authz.db.read(|conn| {
        let Some(typed) = devices::find_typed(conn, handle)? else { return Ok(None) };
        let Some(device) = devices::find(conn, &typed.device_code)? else { return Ok(None) };
        let client = clients::find(conn, &device.client_id)?;
        Ok(client.map(|client| Open { typed, device, client }))
    })?;
    let Some(open) = found.filter(|open| authz.clock.now() < open.device.expires_at) else {
        let what = "A code is valid for ten minutes. This one is too old, or was entered in another browser.";
        return bad("transaction_unknown", "This code has expired", what);
    };
    if browser.id().ok() != Some(open.typed.browser) {
        let what = "Finish it in the browser where you entered the code.";
        return bad("other_browser", "This was started in another browser", what);
    }
    if open.typed.decided || open.device.stage != Stage::Waiting {
        return Err(Stop::decided(authz, request));
    }
    Ok(open)
}

/// The user who may decide: the one who made a passkey assertion for this device. An earlier session never
/// counts, under any issuer: otherwise a stranger's code would be one click away from an approval.
pub(super) fn signed_in(
    authz: &Authz,
    conn: &Conn<'_>,
    browser: &Browser,
    typed: &Typed,
) -> Result<Option<SignedIn>, Fault> {
    let signed_in = session::signed_in_with(authz, conn, browser)?;
    Ok(signed_in.filter(|who| {
        let made = typed.signed_in.as_ref();
        made.is_some_and(|made| made.session == who.session.digest && made.user_id == who.user.id)
    }))
}

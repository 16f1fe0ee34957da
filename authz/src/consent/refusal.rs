//! Refusals of the consent page and its decision (AUTHZ-15, CONSENT-06).

use axum::response::Response;
use http::StatusCode;
use shared::audit::{Event, Name};
use shared::db::Conn;
use shared::{Fault, Request};

use super::client_of;
use crate::Authz;
use crate::answer::{Refused, Return, Via};
use crate::error::Code;
use crate::pages::ErrorPage;
use crate::session::Browser;
use crate::store::transactions::{self, Transaction};

/// Answers after a fault. The client is told, since its request was valid (AUTHZ-18); if even that fails, the
/// person is told.
pub(super) fn tell(
    authz: &Authz,
    request: &Request,
    via: Via,
    transaction: &Transaction,
    fault: &Fault,
) -> Response {
    match authz.db.read(|conn| client_of(authz, conn, transaction)) {
        Ok(Some(client)) => {
            tracing::error!(db.fault = %fault, request.id = %request.id, "a decision could not be served");
            let back = Return::new(&client, &transaction.redirect_uri, transaction.state.as_deref());
            back.refused(authz, via, &Refused::fault(fault))
        }
        _ => authz.unavailable(request, fault),
    }
}

/// Records a refusal and answers with its page.
pub(super) async fn refuse(authz: &Authz, request: &Request, refusal: Refusal) -> Response {
    let (status, reason, page) = match refusal {
        Refusal::Page(status, reason, page) => (status, reason, page),
        Refusal::Fault(fault) => return authz.unavailable(request, &fault),
    };
    let event = Event::denied(Name::AuthzDenied, reason).request(request);
    match authz.refusals.record(&authz.db, event).await {
        Ok(()) => authz.page(status, page.as_ref()),
        Err(fault) => authz.unavailable(request, &fault),
    }
}

/// Why a decision, or the page for it, is refused.
pub(super) enum Refusal {
    Page(StatusCode, &'static str, Box<ErrorPage>),
    Fault(Fault),
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Refusal {
    pub(super) fn page(
        request: &Request,
        status: StatusCode,
        reason: &'static str,
        title: &str,
        what: &str,
    ) -> Self {
        let next_step = "Go back to your application and sign in again.";
        let page = ErrorPage::new(Code::InvalidRequest.as_str(), &request.id, title, what, next_step);
        Self::Page(status, reason, Box::new(page))
    }
}

/// Row 2 of the decision table, at a later moment: a disabled or deleted client gets no redirect.
pub(super) fn client_gone(request: &Request) -> Refusal {
    Refusal::page(
        request,
        StatusCode::BAD_REQUEST,
        "client_gone",
        "This application is no longer allowed",
        "It was disabled, removed or changed while this page was open. Nothing was allowed.",
    )
}

pub(super) fn decided(request: &Request) -> Refusal {
    Refusal::page(
        request,
        StatusCode::BAD_REQUEST,
        "decided",
        "Already answered",
        "Your answer has already been sent to the application.",
    )
}

/// The transaction with this handle, if it is open and belongs to this browser (AUTHZ-15).
pub(super) fn open_transaction(
    authz: &Authz,
    conn: &Conn<'_>,
    request: &Request,
    browser: &Browser,
    handle: Option<&str>,
) -> Result<Transaction, Refusal> {
    let found = match handle {
        Some(handle) => transactions::find(conn, handle)?,
        None => None,
    };
    let bad = |reason, title: &str, what: &str| {
        Err(Refusal::page(request, StatusCode::BAD_REQUEST, reason, title, what))
    };
    let Some(transaction) = found.filter(|t| authz.clock.now() < t.expires_at) else {
        return bad(
            "transaction_unknown",
            "This sign-in has expired",
            "It is too old, or another person has signed in since.",
        );
    };
    if browser.id().ok() != Some(transaction.browser) {
        return bad(
            "other_browser",
            "This sign-in was started in another browser",
            "Finish it in the browser window that your application opened.",
        );
    }
    if transaction.decided {
        return Err(decided(request));
    }
    Ok(transaction)
}

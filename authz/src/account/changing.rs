//! `POST /account/change`: the only way to end something on the account page (SESSION-07, REVOKE-07). It takes
//! a form of that page with the token of its session. Every change on loopback, and changes of passkeys
//! anywhere, also take a passkey assertion for exactly that change (`confirm`). `effect` makes the change.

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use shared::audit::{Event, Name};
use shared::{Digest, Fault, Request, Secret, Tx};

use super::change::{Change, FORM};
use super::effect::{Applied, ChangedBy};
use super::{confirm, signed_out_here};
use crate::Authz;
use crate::form::Params;
use crate::login::passkey::VerifiedPasskey;
use crate::login::{Failed, explain};
use crate::pages::ErrorPage;
use crate::rate::refund::earned;
use crate::session::{self, Browser, SignedIn};

/// Why a change was refused.
struct Refusal {
    name: Name,
    status: StatusCode,
    reason: &'static str,
    title: &'static str,
    what: &'static str,
    /// The signed-in user, if there was one.
    by: Option<SignedIn>,
}

/// A refusal or a fault.
enum Stop {
    Refused(Box<Refusal>),
    Failed(Failed),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault.into())
    }
}

impl From<Failed> for Stop {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

/// Handles the form.
pub(crate) async fn post(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match make(&authz, &request, &headers, &body).await {
        Ok(response) => response,
        Err(Stop::Refused(refusal)) => refuse(&authz, &request, *refusal).await,
        Err(Stop::Failed(Failed::Fault(fault))) => authz.unavailable(&request, &fault),
        Err(Stop::Failed(failed)) => {
            let told = explain(&authz, &request, failed).await;
            let mut response = nothing_changed(
                &authz,
                &request,
                told.status,
                told.code,
                "Nothing was changed",
                told.message,
            );
            if let Some(seconds) = told.retry_after {
                response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            }
            response
        }
    }
}

/// Records a refusal and answers with its page.
async fn refuse(authz: &Authz, request: &Request, refusal: Refusal) -> Response {
    let Refusal { name, status, reason, title, what, by } = refusal;
    let event = Event::denied(name, reason).request(request);
    let event = match &by {
        Some(signed_in) => event.by_user(&signed_in.user.id),
        None => event,
    };
    match authz.refusals.record(&authz.db, event).await {
        Ok(()) => nothing_changed(authz, request, status, reason, title, what),
        Err(fault) => authz.unavailable(request, &fault),
    }
}

fn nothing_changed(
    authz: &Authz,
    request: &Request,
    status: StatusCode,
    code: &str,
    title: &str,
    what: &str,
) -> Response {
    let next_step = "Open your account from the home page to see the current state. Sign in first if asked.";
    authz.page(status, &ErrorPage::new(code, &request.id, title, what, next_step))
}

/// The form as it was received.
struct ReceivedForm {
    params: Params,
    change: Option<Change>,
    browser: Browser,
    signed_in: Option<SignedIn>,
}

impl ReceivedForm {
    fn read(authz: &Authz, headers: &HeaderMap, body: &[u8]) -> Result<Self, Fault> {
        let params = Params::of_body(body).unwrap_or_default();
        let change = Change::parse(|name| params.get(name));
        let browser = Browser::from_headers(&authz.cookies, headers);
        let signed_in = session::signed_in(authz, &browser)?;
        Ok(Self { params, change, browser, signed_in })
    }

    /// Checks that a signed-in user asks from our own page, and for a known change.
    fn check(&self, authz: &Authz, headers: &HeaderMap) -> Result<(SignedIn, Change), Stop> {
        if !session::is_same_origin(&authz.issuer, headers) {
            return Err(self.not_ours("origin"));
        }
        let Some(signed_in) = self.signed_in.clone() else { return Err(self.signed_out()) };
        if !session::csrf_matches(authz, &signed_in.session.digest, FORM, self.params.get("csrf")) {
            return Err(self.not_ours("csrf"));
        }
        let Some(change) = self.change.clone() else { return Err(self.unknown()) };
        Ok((signed_in, change))
    }

    fn refused(
        &self,
        status: StatusCode,
        reason: &'static str,
        title: &'static str,
        what: &'static str,
    ) -> Stop {
        let name = self.change.as_ref().map_or(Name::ConsentWithdrawn, Change::name);
        let by = self.signed_in.clone();
        Stop::Refused(Box::new(Refusal { name, status, reason, title, what, by }))
    }

    fn not_ours(&self, reason: &'static str) -> Stop {
        let what =
            "Changes are accepted only from the latest copy of your account page. Nothing was changed.";
        self.refused(StatusCode::FORBIDDEN, reason, "This request did not come from your account page", what)
    }

    fn signed_out(&self) -> Stop {
        let what = "Your session in this browser has ended. Nothing was changed.";
        self.refused(StatusCode::UNAUTHORIZED, "login_required", "You are signed out", what)
    }

    /// The refusal for something that belongs to another user or has already ended. The two are answered alike.
    fn unknown(&self) -> Stop {
        let what = "The item you chose no longer exists. Nothing was changed.";
        self.refused(StatusCode::NOT_FOUND, "unknown", "Already gone", what)
    }

    fn unfit(&self, (reason, title, why): (&'static str, &'static str, &'static str)) -> Stop {
        self.refused(StatusCode::BAD_REQUEST, reason, title, why)
    }

    fn last_passkey(&self) -> Stop {
        let what =
            "This is the last passkey you can sign in with. Add another one first. Nothing was changed.";
        self.refused(StatusCode::CONFLICT, "last_passkey", "This passkey cannot be removed", what)
    }

    fn no_passkey(&self) -> Stop {
        let what = "This change needs your passkey, and browsers give passkeys only to scripts. Allow JavaScript on this page, then try again.";
        self.refused(StatusCode::FORBIDDEN, "step_up_required", "A passkey is needed", what)
    }
}

async fn make(authz: &Authz, request: &Request, headers: &HeaderMap, body: &[u8]) -> Result<Response, Stop> {
    let asked = ReceivedForm::read(authz, headers, body)?;
    let (signed_in, change) = asked.check(authz, headers)?;
    if let Some(why) = change.unfit() {
        return Err(asked.unfit(why));
    }
    let used = if change.takes_a_passkey(authz) {
        let fields = (asked.params.get("ceremony"), asked.params.get("assertion"));
        let (Some(ceremony), Some(assertion)) = fields else { return Err(asked.no_passkey()) };
        Some(confirm::finish(authz, request, &asked.browser, &signed_in, &change, ceremony, assertion).await?)
    } else {
        None
    };
    let job = {
        let (authz, request, browser, change) =
            (authz.clone(), request.clone(), asked.browser.clone(), change.clone());
        move |tx: &Tx<'_>| apply(&authz, tx, &request, &browser, &signed_in, &change, used.as_ref())
    };
    match authz.db.write(job).await? {
        Applied::Done { session, cookie } => Ok(earned(back(authz, &change, &session, cookie.as_ref()))),
        Applied::SignedOutHere => Ok(earned(signed_out_here(authz))),
        Applied::SignedOutBefore => Err(asked.signed_out()),
        Applied::Unknown => Err(asked.unknown()),
        Applied::LastPasskey => Err(asked.last_passkey()),
        Applied::PasskeyUnusable => Err(Failed::Because("credential_unusable").into()),
    }
}

/// Makes the change if its user is still signed in (SESSION-05, SESSION-06).
pub(super) fn apply(
    authz: &Authz,
    tx: &Tx<'_>,
    request: &Request,
    browser: &Browser,
    signed_in: &SignedIn,
    change: &Change,
    used: Option<&VerifiedPasskey>,
) -> Result<Applied, Fault> {
    match session::present(authz, tx, browser, signed_in)? {
        Some(signed_in) => ChangedBy { authz, tx, request, browser, signed_in }.apply(change, used),
        None => Ok(Applied::SignedOutBefore),
    }
}

/// Redirects back to the account page, which says what was done.
fn back(authz: &Authz, change: &Change, session: &Digest, cookie: Option<&Secret>) -> Response {
    let token = session::csrf_token(authz, session, change.done().0);
    let location = format!("/account?done={token}");
    let mut response = (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response();
    crate::error::no_store(&mut response);
    if let Some(secret) = cookie {
        response.headers_mut().append(header::SET_COOKIE, authz.cookies.set_session(secret));
    }
    response
}

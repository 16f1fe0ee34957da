//! `/device`: where a person types the code that their device shows (RFC 8628 §3.3), and signs in for it.
//!
//! A link may carry the code (§3.3.1). It is shown and not filled in: whoever types it has looked at a device.

use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use shared::audit::{Event, Name};
use shared::db::Conn;
use shared::rate::TooMany;
use shared::share::Holder;
use shared::{Fault, Request, Secret, Tx};

use super::{UserCode, decision, is_allowed};
use crate::Authz;
use crate::clients::metadata_document::words;
use crate::current::Current;
use crate::error::Code;
use crate::form::Params;
use crate::pages::{self, ErrorPage};
use crate::rate::Guesser;
use crate::session::{self, Browser, SignedIn};
use crate::store::clients::{self, Client};
use crate::store::devices::{self, Device, Stage, Typed};

/// `GET /device`: the form for the code; with a `transaction` what comes after it.
pub(crate) async fn get(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let params = Params::parse(query.as_deref().unwrap_or_default()).unwrap_or_default();
    let Some(handle) = params.get("transaction") else {
        let linked = params.get("user_code").and_then(UserCode::parse);
        return form(&authz, StatusCode::OK, linked.as_ref(), None);
    };
    let browser = Browser::from_headers(&authz.cookies, &headers);
    let shown = open(&authz, &request, &browser, handle).and_then(|open| {
        match authz.db.read(|conn| signed_in(&authz, conn, &browser, &open.typed))? {
            Some(signed_in) if proves(&open.typed, params.get("proof")) => {
                Ok(decision::page(&authz, &browser, &open, &signed_in))
            }
            _ => Ok(sign_in_page(&authz, &open)),
        }
    });
    match shown {
        Ok(response) => response,
        Err(stop) => stop.respond(&authz, &request).await,
    }
}

fn form(authz: &Authz, status: StatusCode, linked: Option<&UserCode>, problem: Option<&str>) -> Response {
    let page = pages::DeviceCode {
        server_name: authz.server_name(),
        linked_code: linked.map(ToString::to_string),
        problem: problem.map(str::to_owned),
    };
    authz.page(status, &page)
}

/// Why somebody comes no further.
pub(super) enum Stop {
    Page {
        reason: &'static str,
        response: Box<Response>,
    },
    /// Counted already, to go on record with the others.
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
    /// A page that says what happened, and to start again.
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

    /// The answer came from somewhere else (CONSENT-03, SESSION-07).
    pub(super) fn forbidden(authz: &Authz, request: &Request, reason: &'static str) -> Self {
        let what = "Answers are accepted only from the page that asks for them. Nothing was decided.";
        let title = "This answer did not come from our page";
        Self::page(authz, request, StatusCode::FORBIDDEN, reason, title, what)
    }

    /// This device has had its answer (CONSENT-06).
    pub(super) fn decided(authz: &Authz, request: &Request) -> Self {
        let what = "Your answer has already been sent to the device.";
        let title = "Already answered";
        Self::page(authz, request, StatusCode::BAD_REQUEST, "decided", title, what)
    }

    /// Records it, and answers (AUDIT-06).
    pub(super) async fn respond(self, authz: &Authz, request: &Request) -> Response {
        match self {
            Self::Page { reason, response } => {
                let event = Event::denied(Name::AuthzDenied, reason).request(request);
                let event = event.detail("grant_type", super::GRANT_TYPE);
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

/// A device that waits for whoever typed its code here.
pub(super) struct Open {
    pub(super) typed: Typed,
    pub(super) device: Device,
    pub(super) client: Client,
}

/// What belongs to this handle, if it waits for this browser (AUTHZ-15).
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

/// Who decides: whoever used a passkey for just this. An earlier session does not count, under any issuer: no code
/// that a stranger sent may be one click away from an answer.
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

/// Whether whoever asks is the page that made the assertion (SESSION-01): cookies alone do not show it.
fn proves(typed: &Typed, proof: Option<&str>) -> bool {
    let made = typed.signed_in.as_ref();
    made.is_some_and(|made| proof.is_some_and(|proof| Secret::presented(proof).digest() == made.proof))
}

fn sign_in_page(authz: &Authz, open: &Open) -> Response {
    let page = pages::Login {
        server_name: authz.server_name(),
        transaction: Some(open.typed.id.clone()),
        client_name: Some(open.client.name.clone()),
        client_source: words::unproven(&open.client),
        client_claim: Some(words::claim(open.client.source).to_owned()),
        redirect_host: Some(match &open.device.address {
            Some(address) => format!("the device that asked from {address}"),
            None => "the device that asked".to_owned(),
        }),
        resource_name: authz.resource(&open.device.resource).map(|endpoint| endpoint.name),
        fresh: true,
        destination: None,
    };
    authz.page(StatusCode::OK, &page)
}

/// `POST /device`: a typed code.
pub(crate) async fn post(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match enter(&authz, &request, &headers, &body).await {
        Ok(response) => response,
        Err(stop) => stop.respond(&authz, &request).await,
    }
}

async fn enter(authz: &Authz, request: &Request, headers: &HeaderMap, body: &[u8]) -> Result<Response, Stop> {
    if !session::is_same_origin(&authz.issuer, headers) {
        return Err(Stop::forbidden(authz, request, "origin"));
    }
    let params = Params::of_body(body).map_err(|_| Stop::forbidden(authz, request, "malformed"))?;
    let Some(text) = params.get("user_code") else {
        return Ok(form(
            authz,
            StatusCode::BAD_REQUEST,
            None,
            Some("Enter the code that your device shows."),
        ));
    };
    let browser = Browser::from_headers(&authz.cookies, headers);
    let guesser = match session::signed_in(authz, &browser)? {
        Some(signed_in) => Guesser::User(signed_in.user.id),
        None => Guesser::Stranger(request.into()),
    };
    authz.limits.guess(&guesser, request).map_err(|wait| too_many(authz, request, wait))?;
    let code = UserCode::parse(text);
    let found = match &code {
        Some(code) => authz.db.read(|conn| waiting(authz, conn, code))?,
        None => None,
    };
    let (Some(code), Some(device)) = (code, found) else { return Err(unknown_code(authz)) };
    // A person types a code once or twice. A stranger with a device of their own could type its code for ever (RATE-05).
    if matches!(guesser, Guesser::User(_))
        || !authz.db.read(|conn| devices::is_typed_often(conn, &device.code))?
    {
        authz.limits.guessed(&guesser);
    }
    let (browser_id, set_browser) = browser.id_or_new(&authz.cookies);
    let typed = Typed {
        id: format!("d_{}", shared::id::random_128()),
        device_code: device.code,
        browser: browser_id,
        signed_in: None,
        expires_at: device.expires_at,
        decided: false,
    };
    let location = format!("/device?transaction={}", typed.id);
    let holder = match guesser {
        Guesser::User(user) => Holder::user(&user),
        Guesser::Stranger(origin) => origin.into(),
    };
    let job = {
        let authz = authz.clone();
        move |tx: &Tx<'_>| match Current::read(tx, |tx| waiting(&authz, tx, &code))?.found() {
            Some(device) => devices::insert_typed(tx, &typed, &device, &holder).map(Some),
            None => Ok(None),
        }
    };
    match authz.db.record(job).await? {
        Some(Ok(())) => {}
        Some(Err(_)) => return Err(Stop::TooMany(Box::new(authz.full(request)))),
        None => return Err(unknown_code(authz)),
    }
    let mut response = (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response();
    crate::error::no_store(&mut response);
    if let Some(cookie) = set_browser {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// The device that waits with this code, for a client that may still ask (AUTHZ-17).
fn waiting(authz: &Authz, conn: &Conn<'_>, code: &UserCode) -> Result<Option<Device>, Fault> {
    for digest in code.digests(&authz.seal) {
        let Some(device) = devices::find_by_user_code(conn, &digest)? else { continue };
        let waits = device.stage == Stage::Waiting && authz.clock.now() < device.expires_at;
        let client = clients::find(conn, &device.client_id)?.filter(|client| !client.disabled);
        return Ok(client.filter(|client| waits && is_allowed(client)).map(|_| device));
    }
    Ok(None)
}

fn unknown_code(authz: &Authz) -> Stop {
    let problem = "No device is waiting with this code. Check the code on the device: it is valid for ten minutes and works once.";
    let response = form(authz, StatusCode::BAD_REQUEST, None, Some(problem));
    Stop::Page { reason: "user_code_unknown", response: Box::new(response) }
}

/// DEV-01, RATE-02: no more guesses for now; whoever has a passkey can go on all the same.
fn too_many(authz: &Authz, request: &Request, too_many: TooMany) -> Stop {
    let status = StatusCode::TOO_MANY_REQUESTS;
    let page = ErrorPage::new(
        Code::TemporarilyUnavailable.as_str(),
        &request.id,
        "Too many wrong codes",
        "Five wrong codes were entered from your network address or by you.",
        "Wait a few minutes, then enter the code that your device shows. If somebody else used this network address, sign in on the home page first: each signed-in person has five tries of their own.",
    );
    let mut response = authz.page(status, &page);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(too_many.retry_after));
    Stop::TooMany(Box::new(response))
}

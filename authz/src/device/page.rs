//! `/device`: the page where a person types the code that their device shows (RFC 8628 §3.3), and signs in.
//!
//! A link may carry the code (§3.3.1). The code is shown but not filled in: typing it proves that the person
//! has looked at a device.

use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use shared::db::Conn;
use shared::rate::TooMany;
use shared::share::Holder;
use shared::{Fault, Request, Secret, Tx};

use super::typed::{Open, Stop, open, signed_in};
use super::{UserCode, decision};
use crate::Authz;
use crate::clients::metadata_document::words;
use crate::current::Current;
use crate::error::Code;
use crate::form::Params;
use crate::grants::GrantType;
use crate::pages::{self, ErrorPage};
use crate::rate::Guesser;
use crate::session::{self, Browser};
use crate::store::clients::{self, Trust};
use crate::store::devices::{self, Device, Stage, Typed};

/// `GET /device`: the form for the code; with a `transaction`, the next step.
pub(crate) async fn get(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let params = Params::parse(query.as_deref().unwrap_or_default()).unwrap_or_default();
    let Some(handle) = params.get("transaction") else {
        let linked = params.get("user_code").and_then(UserCode::parse);
        return form(&authz, StatusCode::OK, linked.as_ref(), "", None);
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

/// The page, with what was typed before and why it was not accepted.
fn form(
    authz: &Authz,
    status: StatusCode,
    linked: Option<&UserCode>,
    typed: &str,
    problem: Option<&str>,
) -> Response {
    let page = pages::DeviceCode {
        server_name: authz.server_name(),
        linked_code: linked.map(ToString::to_string),
        // As much as the field takes.
        typed: typed.chars().take(32).collect(),
        problem: problem.map(str::to_owned),
    };
    authz.page(status, &page)
}

/// Whether the request comes from the page that made the assertion (SESSION-01). Cookies alone do not prove
/// that.
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
        client_verified: open.client.trust == Trust::Verified,
        signed_out_meanwhile: false,
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

/// `POST /device`: handles a typed code.
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
            "",
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
    let (Some(code), Some(device)) = (code, found) else { return Err(unknown_code(authz, text)) };
    // A person types a code once or twice. A stranger who owns a device could type its code without end
    // (RATE-05).
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
        None => return Err(unknown_code(authz, text)),
    }
    let mut response = (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response();
    crate::error::no_store(&mut response);
    if let Some(cookie) = set_browser {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// The waiting device with this code, if its client may still use the grant (AUTHZ-17).
fn waiting(authz: &Authz, conn: &Conn<'_>, code: &UserCode) -> Result<Option<Device>, Fault> {
    for digest in code.digests(&authz.seal) {
        let Some(device) = devices::find_by_user_code(conn, &digest)? else { continue };
        let waits = device.stage == Stage::Waiting && authz.clock.now() < device.expires_at;
        let client = clients::find(conn, &device.client_id)?.filter(|client| !client.disabled);
        return Ok(client.filter(|client| waits && GrantType::DeviceCode.is_allowed(client)).map(|_| device));
    }
    Ok(None)
}

fn unknown_code(authz: &Authz, typed: &str) -> Stop {
    let problem = if UserCode::parse(typed).is_some() {
        "No device is waiting with this code. Check the code on the device: it is valid for ten minutes and works once."
    } else {
        "This cannot be a code: a code has eight letters, without vowels and without digits, such as BCDF-GHJK. Check it on the device."
    };
    let response = form(authz, StatusCode::BAD_REQUEST, None, typed, Some(problem));
    Stop::Page { reason: "user_code_unknown", response: Box::new(response) }
}

/// DEV-01, RATE-02: no more guesses for now. A user who signs in first can continue.
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

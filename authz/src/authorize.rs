//! The authorization endpoint (RFC 6749 §3.1, RFC 7636, RFC 8707, RFC 9207): from a request to its first page
//! or its refusal. The decision table is in `checks`.

mod checks;

use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use shared::audit::{self, Event, Name};
use shared::share::{Full, Holder};
use shared::{ClientId, Fault, Request, Tx};

use checks::Checks;

use crate::answer::{Refused, Return, Via};
use crate::clients::metadata_document::freshness::freshen;
use crate::current::Current;
use crate::error::Code;
use crate::form::{Params, has_media_type};
use crate::oxide;
use crate::pages::ErrorPage;
use crate::session::Browser;
use crate::store::clients::Client;
use crate::store::transactions::{self, Transaction};
use crate::{Authz, consent, login};

/// The longest request target that is read, in bytes (§1 of the matrix).
const LONGEST_TARGET: usize = 8 * 1024;

/// `GET /authorize`. Each request starts its own transaction, so it can be repeated (AUTHZ-20).
pub(crate) async fn get(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    answer(&authz, &request, Via::Get, query.as_deref().unwrap_or_default(), &headers).await
}

/// `POST /authorize`: the same checks on form parameters (AUTHZ-01).
pub(crate) async fn post(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let form = std::str::from_utf8(&body).ok().filter(|_| has_media_type(&headers, FORM));
    if let Some(again) = form.and_then(|form| as_get(&authz, form, &headers)) {
        return again;
    }
    answer(&authz, &request, Via::Post, form.unwrap_or("%ff"), &headers).await
}

const FORM: &str = "application/x-www-form-urlencoded";

/// The same request as a GET, for a form that another site posted. Browsers do not send our cookies with such a
/// form, and answering it with new cookies would detach the browser from its other requests (AUTHZ-15). The GET
/// brings the cookies. A form too long for a URL is handled as it is.
fn as_get(authz: &Authz, form: &str, headers: &HeaderMap) -> Option<Response> {
    let from_elsewhere = headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin");
    if !from_elsewhere || Browser::from_headers(&authz.cookies, headers).id().is_ok() {
        return None;
    }
    let location = format!("/authorize?{}", Params::parse(form).ok()?.encoded());
    let location =
        HeaderValue::try_from(location).ok().filter(|location| location.len() <= LONGEST_TARGET)?;
    let mut response = (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response();
    crate::error::no_store(&mut response);
    Some(response)
}

async fn answer(authz: &Authz, request: &Request, via: Via, text: &str, headers: &HeaderMap) -> Response {
    if authz.clock.is_behind() {
        return paused(authz, request);
    }
    let browser = Browser::from_headers(&authz.cookies, headers);
    match begin(authz, request, via, text, &browser).await {
        Ok(response) => response,
        Err(stop) => refuse(authz, request, via, stop).await,
    }
}

/// OPS-04: no tokens are issued while the clock is behind, so no request is started.
fn paused(authz: &Authz, request: &Request) -> Response {
    let page = ErrorPage::new(
        "temporarily_unavailable",
        &request.id,
        "Not available right now",
        "This server's clock was set back. Nobody can sign in to an application until the clock is corrected.",
        "Tell your administrator (`portcullis clock show` says more). Then start again from your application.",
    );
    let mut response = authz.page(StatusCode::SERVICE_UNAVAILABLE, &page);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
    response
}

/// Why a request stops, and how that is answered.
enum Stop {
    /// Not redirected: an error page for the person (AUTHZ-02).
    Page(Box<PageStop>),
    /// Redirected: the client gets an error at its redirect URI (AUTHZ-08).
    Return(Box<Return>, Refused),
    /// The table of pending requests is full (RATE-06).
    Full,
    Fault(Fault),
}

struct PageStop {
    reason: &'static str,
    client_id: Option<ClientId>,
    page: ErrorPage,
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Checks and stores the request, and shows the first page.
async fn begin(
    authz: &Authz,
    request: &Request,
    via: Via,
    text: &str,
    browser: &Browser,
) -> Result<Response, Stop> {
    let mut checks = Checks::new(authz, request, browser, text)?;
    if let Some(client_id) = checks.params.get("client_id") {
        // Continue even if the fetch fails: the checks then use what is stored.
        freshen(authz, request, client_id, false).await?;
    }
    let scope = oxide::authorize(&checks.params.clone(), &mut checks)?;
    let (browser_id, set_browser) = browser.id_or_new(&authz.cookies);
    let back = checks.back()?;
    let transaction = Transaction {
        id: format!("t_{}", shared::id::random_128()),
        browser: browser_id,
        client_id: back.client_id.clone(),
        redirect_uri: back.redirect_uri.clone(),
        state: back.state.clone(),
        code_challenge: checks.code_challenge.clone().ok_or(Checks::bug())?,
        scope,
        resource: checks.resource.clone().ok_or(Checks::bug())?,
        prompt_login: checks.prompt.login,
        prompt_consent: checks.prompt.consent,
        max_age: checks.max_age,
        signed_in: None,
        user_id: None,
        expires_at: authz.clock.now() + authz.config.transaction_lifetime,
        decided: false,
    };
    let params = std::mem::take(&mut checks.params);
    let answered = if checks.prompt.none {
        silently(authz, request, via, browser, transaction).await
    } else {
        match show(authz, request, via, browser, transaction).await {
            Ok(Shown::Page(response)) => Ok(Ok(response)),
            Ok(Shown::Full) => return Err(Stop::Full),
            // Something that the request depends on ended meanwhile. Check again to find out what.
            Ok(Shown::NotAnyMore) => {
                let mut again =
                    Checks { params: params.clone(), ..Checks::new(authz, request, browser, "")? };
                oxide::authorize(&params, &mut again)?;
                Err(Fault::Busy)
            }
            Err(fault) => Err(fault),
        }
    };
    let mut response = match answered {
        Ok(Ok(response)) => response,
        Ok(Err(refused)) => return Err(Stop::Return(Box::new(back), refused)),
        Err(fault) => {
            // Client and redirect URI are valid by now, so the client is told (AUTHZ-18).
            tracing::error!(db.fault = %fault, request.id = %request.id, "an authorization request could not be served");
            return Err(Stop::Return(Box::new(back), Refused::fault(&fault)));
        }
    };
    if let Some(cookie) = set_browser {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Stores the request and shows its first page; `None` if the request would no longer pass the checks.
async fn show(
    authz: &Authz,
    request: &Request,
    via: Via,
    browser: &Browser,
    transaction: Transaction,
) -> Result<Shown, Fault> {
    let decider = consent::decider(authz, browser, &transaction)?;
    let holder = decider.as_ref().map_or_else(|| Holder::from(request), |who| Holder::user(&who.user.id));
    let job = {
        let (authz, transaction, request) = (authz.clone(), transaction.clone(), request.clone());
        move |tx: &Tx<'_>| {
            let client = Current::read(tx, |tx| consent::client_to_answer(&authz, tx, &transaction))?.found();
            match client {
                Some(client) => store(tx, &transaction, &client, &request, &holder).map(Some),
                None => Ok(None),
            }
        }
    };
    match authz.db.record(job).await? {
        None => return Ok(Shown::NotAnyMore),
        Some(Err(_)) => return Ok(Shown::Full),
        Some(Ok(())) => {}
    }
    // The user may have been signed out while this waited.
    let response = match consent::decider(authz, browser, &transaction)? {
        Some(decider) => consent::ask(authz, request, via, browser, transaction, decider).await,
        None => login::passkey::page(authz, Some(&transaction)),
    };
    response.map(Shown::Page)
}

/// `prompt=none`: an answer without a page, or the error that says why a page is needed (AUTHZ-16).
async fn silently(
    authz: &Authz,
    request: &Request,
    via: Via,
    browser: &Browser,
    transaction: Transaction,
) -> Result<Result<Response, Refused>, Fault> {
    match consent::decider(authz, browser, &transaction)? {
        Some(decider) => consent::silently(authz, request, via, browser, transaction, decider).await,
        None => Ok(Err(Refused::new(Code::LoginRequired, "nobody is signed in, or not recently enough"))),
    }
}

/// The result of storing a request.
enum Shown {
    Page(Response),
    Full,
    /// The request would no longer pass the checks.
    NotAnyMore,
}

/// Stores a request of this holder together with its audit record.
pub(crate) fn store(
    tx: &Tx<'_>,
    transaction: &Transaction,
    client: &Current<'_, Client>,
    request: &Request,
    holder: &Holder,
) -> Result<Result<(), Full>, Fault> {
    if let Err(full) = transactions::insert(tx, transaction, client, holder)? {
        return Ok(Err(full));
    }
    let event = Event::allowed(Name::AuthzRequest).by_client(&client.id);
    audit::append(
        tx,
        event.client(&client.id).resource(&transaction.resource).scope(&transaction.scope).request(request),
    )?;
    Ok(Ok(()))
}

async fn refuse(authz: &Authz, request: &Request, via: Via, stop: Stop) -> Response {
    let (event, response) = match stop {
        Stop::Page(stop) => {
            let mut event =
                Event::denied(Name::AuthzError, stop.reason).detail("error", stop.page.code.clone());
            if let Some(client_id) = &stop.client_id {
                event = event.client(client_id);
            }
            (event, authz.page(StatusCode::BAD_REQUEST, &stop.page))
        }
        Stop::Return(back, refused) => (back.event(&refused), back.refused(authz, via, &refused)),
        Stop::Full => return authz.full(request),
        Stop::Fault(fault) => return authz.unavailable(request, &fault),
    };
    let event = event.request(request);
    match authz.refusals.record(&authz.db, event).await {
        // An error redirect may be sent without its record: it only tells the client to stop.
        Err(fault) if !response.status().is_redirection() => authz.unavailable(request, &fault),
        _ => response,
    }
}

//! The authorization endpoint (RFC 6749 §3.1, RFC 7636, RFC 8707, RFC 9207): from a request to the first
//! page, or to the refusal. The decision table is in `checks`.

mod checks;

use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use shared::audit::{self, Event, Name};
use shared::{ClientId, Fault, RedirectUri, Request};

use checks::Checks;

use crate::clients::metadata_document::freshness::freshen;
use crate::error::Code;
use crate::oxide;
use crate::pages::ErrorPage;
use crate::session::{self, Browser, SignedIn};
use crate::store::transactions::{self, Transaction};
use crate::{Authz, consent, login};

/// Asked for by clients that want a refresh token; not a permission (REFRESH-01).
pub(crate) const OFFLINE_ACCESS: &str = "offline_access";

/// `GET /authorize`. Repeatable: each one starts its own transaction (AUTHZ-20).
pub(crate) async fn get(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    answer(&authz, &request, &Method::GET, query.as_deref().unwrap_or_default(), &headers).await
}

/// `POST /authorize`: the same checks on form parameters (AUTHZ-01).
pub(crate) async fn post(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let form = std::str::from_utf8(&body).unwrap_or("%ff");
    answer(&authz, &request, &Method::POST, form, &headers).await
}

async fn answer(
    authz: &Authz,
    request: &Request,
    method: &Method,
    text: &str,
    headers: &HeaderMap,
) -> Response {
    if authz.clock.is_behind() {
        return paused(authz, request);
    }
    let browser = Browser::from_headers(&authz.cookies, headers);
    match begin(authz, request, text, &browser).await {
        Ok(response) => response,
        Err(stop) => refuse(authz, request, method, stop).await,
    }
}

/// OPS-04: what this would lead to could not be had, so nobody is led on.
fn paused(authz: &Authz, request: &Request) -> Response {
    let page = ErrorPage::new(
        "temporarily_unavailable",
        &request.id,
        "Not just now",
        "The clock of this server was set back, and until it is right again nobody can sign in to an application.",
        "Tell whoever runs this server: `portcullis clock show` has more. Then start again from your application.",
    );
    let mut response = authz.page(StatusCode::SERVICE_UNAVAILABLE, &page);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
    response
}

/// Why a request goes no further, and how that is said.
enum Stop {
    /// Nothing is redirected: a page for the person (AUTHZ-02).
    Page(Box<PageStop>),
    /// The client is told at its redirect URI (AUTHZ-08).
    Redirect {
        to: Return,
        code: Code,
        description: &'static str,
    },
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

/// Where an answer goes, once the redirect URI is trusted.
#[derive(Clone, Debug)]
pub(crate) struct Return {
    pub client_id: ClientId,
    pub redirect_uri: RedirectUri,
    pub state: Option<String>,
}

impl Return {
    /// The redirect that carries an answer, with `state` if one was sent, and `iss` (AUTHZ-08).
    pub(crate) fn redirect(&self, authz: &Authz, method: &Method, answer: &[(&str, &str)]) -> Response {
        let mut parameters = answer.to_vec();
        if let Some(state) = &self.state {
            parameters.push(("state", state));
        }
        parameters.push(("iss", authz.issuer.as_str()));
        let location = self.redirect_uri.with_parameters(&parameters);
        // 307 and 308 would repeat the POST at the client (AUTHZ-10).
        let status = if *method == Method::GET { StatusCode::FOUND } else { StatusCode::SEE_OTHER };
        let mut response = status.into_response();
        let headers = response.headers_mut();
        match HeaderValue::try_from(location) {
            Ok(location) => headers.insert(header::LOCATION, location),
            Err(_) => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        };
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        if authz.issuer.is_loopback() {
            // The client's callback may be on this host too, and cookies ignore ports (SESSION-01).
            headers.append(header::SET_COOKIE, authz.cookies.expire_session());
        }
        response
    }
}

/// Checks the request, stores it, and shows the first page.
async fn begin(authz: &Authz, request: &Request, text: &str, browser: &Browser) -> Result<Response, Stop> {
    let mut checks = Checks::new(authz, request, browser, text)?;
    if let Some(client_id) = checks.params.get("client_id") {
        // Whatever came of it: the checks see what is at hand then.
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
        expires_at: authz.clock.now() + authz.config.transaction_lifetime,
        decided: false,
    };
    let signed_in =
        session::signed_in(authz, browser)?.filter(|s| consent::session_counts(authz, &transaction, s));
    if checks.prompt.none {
        let (code, description) = match signed_in {
            None => (Code::LoginRequired, "nobody is signed in"),
            Some(_) => (Code::ConsentRequired, "the user must be asked"),
        };
        return Err(checks.redirect(code, description));
    }
    // From here on the client can be told, so it is (AUTHZ-18).
    match show(authz, request, &transaction, signed_in).await {
        Ok(mut response) => {
            if let Some(cookie) = set_browser {
                response.headers_mut().append(header::SET_COOKIE, cookie);
            }
            Ok(response)
        }
        Err(fault) => {
            tracing::error!(db.fault = %fault, "an authorization request could not be stored");
            Err(checks
                .redirect(Code::TemporarilyUnavailable, "the server cannot do this at the moment; try again"))
        }
    }
}

/// Stores the request and shows its first page.
async fn show(
    authz: &Authz,
    request: &Request,
    transaction: &Transaction,
    signed_in: Option<SignedIn>,
) -> Result<Response, Fault> {
    {
        let (transaction, request) = (transaction.clone(), request.clone());
        authz
            .db
            .record(move |tx| {
                transactions::insert(tx, &transaction)?;
                audit::append(
                    tx,
                    Event::allowed(Name::AuthzRequest)
                        .by_client(&transaction.client_id)
                        .client(&transaction.client_id)
                        .resource(&transaction.resource)
                        .scope(&transaction.scope)
                        .request(&request),
                )
            })
            .await?;
    }
    match signed_in {
        Some(signed_in) => consent::page(authz, transaction, &signed_in),
        None => login::passkey::page(authz, Some(transaction)),
    }
}

async fn refuse(authz: &Authz, request: &Request, method: &Method, stop: Stop) -> Response {
    let (event, response) = match stop {
        Stop::Page(stop) => {
            let mut event =
                Event::denied(Name::AuthzError, stop.reason).detail("error", stop.page.code.clone());
            if let Some(client_id) = &stop.client_id {
                event = event.client(client_id);
            }
            (event, authz.page(StatusCode::BAD_REQUEST, &stop.page))
        }
        Stop::Redirect { to, code, description } => {
            let event = Event::denied(Name::AuthzError, code.as_str())
                .client(&to.client_id)
                .detail("description", description)
                .detail("redirect_host", to.redirect_uri.host_for_people());
            let answer = [("error", code.as_str()), ("error_description", description)];
            (event, to.redirect(authz, method, &answer))
        }
        Stop::Fault(fault) => return authz.unavailable(request, &fault),
    };
    let event = event.request(request);
    match authz.db.record(move |tx| audit::append(tx, event)).await {
        // A redirect carries nothing that needed the record first: it only tells the client to stop.
        Err(fault) if !response.status().is_redirection() => authz.unavailable(request, &fault),
        _ => response,
    }
}

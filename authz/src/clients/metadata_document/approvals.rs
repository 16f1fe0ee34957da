//! Approval requests for URLs without a usable document (decision row 3). The page names the URL's host, and a
//! signed-in user may ask an administrator to approve the client, once per URL (CIMD-09).

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode, header};
use shared::audit::{self, Event, Name};
use shared::{ClientId, Fault, RedirectUri, Request, Tx};

use super::{DocumentUrl, host_for_people};
use crate::Authz;
use crate::clients::{self, LookupPurpose, Resolved, Undocumented};
use crate::current::Current;
use crate::error::Code;
use crate::form::Params;
use crate::pages::{AskForApproval, ErrorPage, Labelled, Notice};
use crate::rate::refund::earned;
use crate::session::{self, Browser, SignedIn};
use crate::store::approval_requests;

/// The form's target.
pub(crate) const PATH: &str = "/account/client-requests";
/// The most requests that one user may make within [`WINDOW`] (RATE-03). `shared::share` limits the total.
const MOST_OF_ONE: u32 = 5;
const WINDOW: Duration = Duration::from_hours(1);
/// A request that was not decided is removed after this time.
const FORGOTTEN: Duration = Duration::from_hours(30 * 24);

/// The page of decision row 3, with the client id for the audit log.
///
/// # Errors
/// A database fault.
pub(crate) fn page(
    authz: &Authz,
    request: &Request,
    browser: &Browser,
    client_id: &str,
    redirect_uri: Option<&str>,
    undocumented: Undocumented,
) -> Result<(ErrorPage, Option<ClientId>), Fault> {
    let host = host_for_people(client_id);
    let what = match undocumented.reason {
        "url_malformed" => {
            format!("Its client ID is a URL on {host} that is not in the required form. Nothing was sent.")
        }
        _ => format!(
            "Its client ID is a URL on {host}, and this server has no metadata document for it. Nothing was sent."
        ),
    };
    let mut page = ErrorPage::new(
        Code::InvalidClient.as_str(),
        &request.id,
        "This application is not known on this server",
        what,
        "If your application can register itself or accept a client ID, use that. Otherwise tell your administrator.",
    );
    page.received = Some(Labelled { label: "Client ID received".to_owned(), value: client_id.to_owned() });
    // Offer the form only for a client that could be approved as requested.
    let askable =
        DocumentUrl::parse(client_id).ok().zip(redirect_uri.and_then(|uri| RedirectUri::parse(uri).ok()));
    if let Some((url, redirect_uri)) = askable.filter(|_| undocumented.may_be_asked_for) {
        match session::signed_in(authz, browser)? {
            Some(signed_in) => {
                "An administrator can approve it. Send a request here, and start again from your application when it is approved."
                    .clone_into(&mut page.next_step);
                page.ask = Some(AskForApproval {
                    action: PATH,
                    csrf: session::csrf_token(
                        authz,
                        &signed_in.session.digest,
                        &purpose(&url, &redirect_uri),
                    ),
                    client_id: url.as_str().to_owned(),
                    redirect_uri: redirect_uri.to_string(),
                    user_name: signed_in.user.name,
                });
            }
            None => {
                page.next_step = format!(
                    "An administrator can approve it. To send a request, sign in at {} and then reload this page.",
                    authz.issuer
                );
            }
        }
    }
    Ok((page, ClientId::parse(client_id)))
}

/// The purpose of the form's CSRF token: exactly this request.
fn purpose(url: &DocumentUrl, redirect_uri: &RedirectUri) -> String {
    format!("client-request\n{}\n{redirect_uri}", url.as_str())
}

/// The result of an approval request.
enum Outcome {
    Filed,
    /// The client was already requested.
    Waiting,
    TooMany,
    /// The client has become known meanwhile, or the site accepts no requests.
    NotNeeded,
}

/// `POST /account/client-requests`.
pub(crate) async fn post(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match ask(&authz, &request, &headers, &body).await {
        Ok(response) => response,
        Err(fault) => authz.unavailable(&request, &fault),
    }
}

async fn ask(authz: &Authz, request: &Request, headers: &HeaderMap, body: &[u8]) -> Result<Response, Fault> {
    let browser = Browser::from_headers(&authz.cookies, headers);
    let params = Params::of_body(body).unwrap_or_default();
    let signed_in = session::signed_in(authz, &browser)?;
    let url = params.get("client_id").and_then(|text| DocumentUrl::parse(text).ok());
    let redirect_uri = params.get("redirect_uri").and_then(|text| RedirectUri::parse(text).ok());
    let (Some(signed_in), Some(url), Some(redirect_uri)) = (signed_in, url, redirect_uri) else {
        return not_from_our_page(authz, request).await;
    };
    let token = purpose(&url, &redirect_uri);
    if !session::is_same_origin(&authz.issuer, headers)
        || !session::csrf_matches(authz, &signed_in.session.digest, &token, params.get("csrf"))
    {
        return not_from_our_page(authz, request).await;
    }
    let host = url.host().to_owned();
    let outcome = {
        let (authz, request) = (authz.clone(), request.clone());
        let db = authz.db.clone();
        db.write(move |tx| {
            let Some(signed_in) = session::present(&authz, tx, &browser, &signed_in)? else {
                return Ok(None);
            };
            let (outcome, event) = file(&authz, tx, &url, &redirect_uri, &signed_in)?;
            let event = event.by_user(&signed_in.user.id).client(url.id()).request(&request);
            audit::append(
                tx,
                event.detail("url", url.as_str()).detail("redirect_uri", redirect_uri.as_str()),
            )?;
            Ok(Some(outcome))
        })
        .await?
    };
    let Some(outcome) = outcome else { return not_from_our_page(authz, request).await };
    let start_again = "Start again from your application.".to_owned();
    let (status, title, words, next_step) = match outcome {
        Outcome::Filed => (
            StatusCode::OK,
            "Request saved",
            format!("Administrators can now see that you want to use the application from {host}."),
            "When it is approved, start again from your application.".to_owned(),
        ),
        Outcome::Waiting => (
            StatusCode::OK,
            "Request already sent",
            format!("The application from {host} is waiting for an administrator's approval."),
            "When it is approved, start again from your application.".to_owned(),
        ),
        Outcome::TooMany => (
            StatusCode::TOO_MANY_REQUESTS,
            "Too many approval requests",
            "Your request was not saved.".to_owned(),
            "Try again in an hour, or ask an administrator directly.".to_owned(),
        ),
        Outcome::NotNeeded => (
            StatusCode::CONFLICT,
            "This request is no longer possible",
            format!("The rules for the application from {host} have changed in the meantime."),
            start_again,
        ),
    };
    let page = Notice { title: title.to_owned(), paragraphs: vec![words], next_step: Some(next_step) };
    // The sender is signed in and has their own limit.
    let mut response = earned(authz.page(status, &page));
    if status == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(header::RETRY_AFTER, http::HeaderValue::from(WINDOW.as_secs()));
    }
    Ok(response)
}

/// Removes requests that were not decided in time.
///
/// # Errors
/// A database fault.
pub(crate) fn sweep(tx: &Tx<'_>) -> Result<(), Fault> {
    approval_requests::sweep(tx, tx.now() - FORGOTTEN)
}

/// Stores an approval request if it is allowed, together with its audit record.
fn file(
    authz: &Authz,
    tx: &Tx<'_>,
    url: &DocumentUrl,
    redirect_uri: &RedirectUri,
    signed_in: &Current<'_, SignedIn>,
) -> Result<(Outcome, Event), Fault> {
    let denied = |reason| Event::denied(Name::CimdApprovalRequested, reason);
    let asked = LookupPurpose::Request(Some(redirect_uri.as_str()));
    match clients::resolve(authz, tx, url.id(), asked)? {
        Resolved::Undocumented(Undocumented { may_be_asked_for: true, .. }) => {}
        _ => return Ok((Outcome::NotNeeded, denied("not_needed"))),
    }
    sweep(tx)?;
    if approval_requests::find(tx, url.as_str())?.is_some() {
        return Ok((Outcome::Waiting, denied("asked_before")));
    }
    let own = approval_requests::count(tx, &signed_in.user.id, tx.now() - WINDOW)?;
    if own >= MOST_OF_ONE
        || approval_requests::insert(tx, url.as_str(), redirect_uri, &signed_in.user.id)?.is_err()
    {
        return Ok((Outcome::TooMany, denied("too_many")));
    }
    Ok((Outcome::Filed, Event::allowed(Name::CimdApprovalRequested)))
}

async fn not_from_our_page(authz: &Authz, request: &Request) -> Result<Response, Fault> {
    let event = Event::denied(Name::CimdApprovalRequested, "not_from_our_page").request(request);
    authz.refusals.record(&authz.db, event).await?;
    let page = ErrorPage::new(
        Code::InvalidRequest.as_str(),
        &request.id,
        "This request did not come from our page",
        "Approval requests are accepted only from the page that offers them, by the person who is signed in there.",
        "Start again from your application.",
    );
    Ok(authz.page(StatusCode::FORBIDDEN, &page))
}

//! A passkey assertion for one decision (CONSENT-08). High-risk scopes are granted only with it; the assertion
//! of the sign-in does not count. Its challenge is bound to this request, this user and exactly the ticked
//! scopes.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::audit::{self, Name};
use shared::db::Conn;
use shared::{Digest, Fault, Request, Scope, Tx, UserId};
use webauthn_rs::prelude::Passkey;

use super::offer::offer;
use super::{Question, Refusal, check_csrf, client_to_answer, decider_with, open_transaction};
use crate::Authz;
use crate::error::PageError;
use crate::login::challenge::{RequestOptions, challenge};
use crate::login::passkey::{self, VerifiedPasskey};
use crate::login::{Failed, TakenCeremony, begin, recorded, response as sent, take};
use crate::rate::refund::earned;
use crate::session::{self, Browser};
use crate::store::ceremonies::Purpose;
use crate::store::sessions::Authentication;
use crate::store::transactions::Transaction;
use crate::store::users;

/// Where the page's script starts the assertion.
pub(super) const PATH: &str = "/consent/confirm";

/// The scopes that are about to be allowed.
#[derive(Deserialize)]
struct Start {
    transaction: String,
    csrf: String,
    scopes: Vec<String>,
}

/// `POST /consent/confirm`: the options for the assertion.
pub(crate) async fn start(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, PageError> {
    recorded(&authz, &request, begin_confirmation(&authz, &request, &headers, &body).await).await
}

async fn begin_confirmation(
    authz: &Authz,
    request: &Request,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, PageError> {
    session::require_json_from_us(&authz.issuer, headers)?;
    let body: Start = crate::read_json(body)?;
    let browser = Browser::from_headers(&authz.cookies, headers);
    let (_, passkeys) = authz.db.read(|conn| confirmable(authz, conn, request, &browser, &body))??;
    let (options, state) = challenge(authz, &passkeys)?;
    let browser_id = browser.id()?;
    let purpose = {
        let (authz, request) = (authz.clone(), request.clone());
        move |tx: &Tx<'_>| {
            let confirmable = confirmable(&authz, tx, &request, &browser, &body)?;
            Ok(confirmable.map(|(purpose, _)| purpose))
        }
    };
    let ceremony = begin(authz, browser_id, &state, request, purpose).await?;
    let mut response = Json(RequestOptions { ceremony, options }).into_response();
    crate::error::no_store(&mut response);
    Ok(earned(response))
}

/// The ticked scopes that can be confirmed at this moment, with the passkeys that can confirm them.
fn confirmable(
    authz: &Authz,
    conn: &Conn<'_>,
    request: &Request,
    browser: &Browser,
    body: &Start,
) -> Result<Result<(Purpose, Vec<Passkey>), PageError>, Fault> {
    let refused = |status, code, message| Ok(Err(PageError::new(status, code, message)));
    let transaction = match open_transaction(authz, conn, request, browser, Some(&body.transaction)) {
        Ok(transaction) => transaction,
        Err(Refusal::Fault(fault)) => return Err(fault),
        Err(Refusal::Page(..)) => {
            let message = "This sign-in has expired, was answered already, or belongs to another browser. Start again from your application.";
            return refused(StatusCode::BAD_REQUEST, "transaction_unknown", message);
        }
    };
    let Some(decider) = decider_with(authz, conn, browser, &transaction)? else {
        let message = "You are signed out. Load the page again and sign in.";
        return refused(StatusCode::UNAUTHORIZED, "login_required", message);
    };
    if !check_csrf(authz, &transaction, &decider, Some(&body.csrf)) {
        let message = "This request did not come from a page on this server.";
        return refused(StatusCode::FORBIDDEN, "wrong_origin", message);
    }
    let user = &decider.user.id;
    let ticked: Scope = body.scopes.iter().map(String::as_str).collect();
    let may_be_confirmed = match client_to_answer(authz, conn, &transaction)? {
        Some(client) => {
            let offer = offer(authz, conn, &transaction.scope, user, client.trust.ceiling())?;
            // The assertion must cover exactly the scopes that the page will send.
            ticked.is_subset(&offer.scope) && !offer.high_risk_of(&ticked).is_empty()
        }
        None => false,
    };
    if !may_be_confirmed {
        let message = "You can no longer allow what is ticked. Reload the page.";
        return refused(StatusCode::BAD_REQUEST, "nothing_to_confirm", message);
    }
    let binding = binding(&transaction, user, &ticked);
    let purpose = Purpose::Consent { user: user.clone(), transaction: transaction.id, binding };
    Ok(Ok((purpose, users::passkeys(conn, user)?)))
}

/// A digest of what an assertion confirms.
fn binding(transaction: &Transaction, user: &UserId, scope: &Scope) -> Digest {
    Digest::of(json!(["consent", transaction.id, user, scope]).to_string().as_bytes())
}

/// A passkey assertion that was made for a decision.
pub(super) struct Confirmed {
    used: VerifiedPasskey,
    binding: Digest,
}

impl Confirmed {
    /// Whether the assertion was made for exactly this decision.
    pub(super) fn covers(&self, question: &Question, scope: &Scope) -> bool {
        self.binding == binding(&question.transaction, &question.decider.user.id, scope)
    }

    /// Stores the use of the passkey; false if another request used the same counter value first.
    pub(super) fn settle(&self, tx: &Tx<'_>, question: &Question) -> Result<bool, Fault> {
        let settled = self.used.settle(tx)?;
        if settled {
            audit::append(tx, question.about(self.used.event(Name::StepUp)).detail("for", "consent"))?;
        }
        Ok(settled)
    }

    /// How the user authenticated.
    pub(super) fn authentication(&self) -> Authentication {
        self.used.authentication()
    }
}

/// Checks the assertion that came with a decision. The ceremony is used up even if the assertion fails.
pub(super) async fn finish(
    authz: &Authz,
    browser: &Browser,
    question: &Question,
    ceremony: &str,
    assertion: &str,
) -> Result<Confirmed, Failed> {
    let TakenCeremony { purpose, state, .. } = take::<Value>(authz, browser.id()?, ceremony).await?;
    let user = &question.decider.user;
    let binding = match purpose {
        Purpose::Consent { user: id, transaction, binding }
            if id == user.id && transaction == question.transaction.id =>
        {
            binding
        }
        _ => return Err(Failed::Because("other_purpose")),
    };
    let response = sent::in_form(assertion)?;
    let used = passkey::used_by(authz, &question.request, user, &response, state, |_| true).await?;
    Ok(Confirmed { used, binding })
}

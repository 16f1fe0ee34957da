//! A passkey used for one decision (CONSENT-08): high-risk scopes are granted with it and not without it, and the
//! sign-in before it never counts. Its challenge belongs to this request, this user and exactly the scopes that were
//! ticked.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::audit::{self, Name};
use shared::{Digest, Fault, Request, Scope, Tx, UserId};

use super::offer::offer;
use super::{Question, check_csrf, client_of, decider, open_transaction};
use crate::Authz;
use crate::error::PageError;
use crate::login::passkey::{self, PublicKey, RequestOptions, Used};
use crate::login::{Failed, begin, recorded, response as sent, take};
use crate::rate::earned;
use crate::session::{self, Browser};
use crate::store::ceremonies::Purpose;
use crate::store::sessions::Authentication;
use crate::store::transactions::Transaction;
use crate::store::users;

/// Where the page starts it.
pub(super) const PATH: &str = "/consent/confirm";

/// What is about to be allowed.
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
    let stale = |_| {
        PageError::new(
            StatusCode::BAD_REQUEST,
            "transaction_unknown",
            "This sign-in has run out, was answered, or belongs to another browser. Start again from your application.",
        )
    };
    let transaction = open_transaction(authz, request, &browser, Some(&body.transaction)).map_err(stale)?;
    let Some(decider) = decider(authz, &browser, &transaction)? else {
        return Err(PageError::new(
            StatusCode::UNAUTHORIZED,
            "login_required",
            "You are signed out. Load the page again and sign in.",
        ));
    };
    if !check_csrf(authz, &transaction, &decider, Some(&body.csrf)) {
        return Err(PageError::new(
            StatusCode::FORBIDDEN,
            "wrong_origin",
            "This request did not come from a page of this server.",
        ));
    }
    let nothing = || {
        PageError::new(
            StatusCode::BAD_REQUEST,
            "nothing_to_confirm",
            "What is ticked can no longer be allowed. Load the page again.",
        )
    };
    let Some(client) = authz.db.read(|conn| client_of(authz, conn, &transaction))? else {
        return Err(nothing());
    };
    let user = &decider.user.id;
    let ticked: Scope = body.scopes.iter().map(String::as_str).collect();
    let offer = offer(authz, &transaction.scope, user, client.trust.ceiling());
    // A person must not be asked for less, or for more, than the page will then send.
    if !ticked.is_subset(&offer.scope) || offer.high_risk_of(&ticked).is_empty() {
        return Err(nothing());
    }
    let passkeys = authz.db.read(|conn| users::passkeys(conn, user))?;
    let (challenge, state) =
        authz.webauthn.start_passkey_authentication(&passkeys).map_err(crate::webauthn_fault)?;
    let mut public_key = challenge.public_key;
    public_key.hints = Some(passkey::hints());
    let purpose = Purpose::Consent {
        user: user.clone(),
        transaction: transaction.id.clone(),
        binding: binding(&transaction, user, &ticked),
    };
    let ceremony = begin(authz, browser.id()?, purpose, &state, request).await?;
    let mut response = Json(RequestOptions { ceremony, options: PublicKey { public_key } }).into_response();
    crate::error::no_store(&mut response);
    Ok(earned(response))
}

/// What an assertion confirms, as a digest.
fn binding(transaction: &Transaction, user: &UserId, scope: &Scope) -> Digest {
    Digest::of(json!(["consent", transaction.id, user, scope]).to_string().as_bytes())
}

/// A passkey that was used for a decision.
pub(super) struct Confirmed {
    used: Used,
    binding: Digest,
}

impl Confirmed {
    /// Whether the passkey was used for allowing exactly this.
    pub(super) fn covers(&self, question: &Question, scope: &Scope) -> bool {
        self.binding == binding(&question.transaction, &question.decider.user.id, scope)
    }

    /// Writes the use down; false if another use of the same counter was faster.
    pub(super) fn settle(&self, tx: &Tx<'_>, question: &Question) -> Result<bool, Fault> {
        let settled = self.used.settle(tx)?;
        if settled {
            audit::append(tx, question.about(self.used.event(Name::StepUp)).detail("for", "consent"))?;
        }
        Ok(settled)
    }

    /// How the user has proved who they are.
    pub(super) fn authentication(&self) -> Authentication {
        self.used.authentication()
    }
}

/// Checks the assertion that a decision came with. The ceremony is used up whatever comes of it.
pub(super) async fn finish(
    authz: &Authz,
    browser: &Browser,
    question: &Question,
    ceremony: &str,
    assertion: &str,
) -> Result<Confirmed, Failed> {
    let (purpose, state) = take::<Value>(authz, browser.id()?, ceremony).await?;
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

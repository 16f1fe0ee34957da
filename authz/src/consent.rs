//! The consent page and its decision (CONSENT).
//!
//! A request arrives here when the user who may decide it is known. If an earlier consent covers it, it is
//! approved without a question (`remembered`). Otherwise the page asks (`page`). The answer is a form; for
//! high-risk scopes it includes a passkey assertion (`confirm`). `decision` stores the result.

pub(crate) mod confirm;
pub(crate) mod decision;
pub(crate) mod offer;
mod page;
mod refusal;
pub(crate) mod remembered;

use std::ops::Deref;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode, header};
use shared::audit::{self, Event, Name};
use shared::db::Conn;
use shared::{Fault, Request, Secret, Tx};

use crate::answer::{Refused, Return, Via};
use crate::clients::{self, LookupPurpose};
use crate::error::Code;
use crate::form::{Params, Unreadable};
use crate::login::explain;
use crate::session::{self, Browser, SignedIn};
use crate::store::clients::Client;
use crate::store::transactions::Transaction;
use crate::{Authz, login};
use decision::{NotAsked, Outcome, SubmittedDecision};
use offer::{Offer, offer};
pub(crate) use page::in_words;
use refusal::{Refusal, client_gone, decided, open_transaction, refuse, tell};
use remembered::Recall;

/// Who decides which request, in which browser.
#[derive(Clone, Debug)]
struct SignIn {
    transaction: Transaction,
    decider: SignedIn,
    browser: Browser,
    request: Request,
}

impl SignIn {
    /// Adds this request's details to an audit record.
    fn about(&self, event: Event) -> Event {
        event
            .by_user(&self.decider.user.id)
            .client(&self.transaction.client_id)
            .resource(&self.transaction.resource)
            .request(&self.request)
    }
}

/// A question: the request, its client and what may be allowed.
#[derive(Clone, Debug)]
struct Question {
    sign_in: SignIn,
    client: Client,
    offer: Offer,
}

impl Deref for Question {
    type Target = SignIn;
    fn deref(&self) -> &SignIn {
        &self.sign_in
    }
}

impl Question {
    fn back(&self) -> Return {
        let Transaction { redirect_uri, state, .. } = &self.transaction;
        Return::new(&self.client, redirect_uri, state.as_deref())
    }
}

/// The user who may decide a transaction, if there is one.
///
/// On loopback only a passkey assertion made in the transaction counts, because any program on the computer may
/// have seen the session cookie (SESSION-01). The assertion counts even if the answer to another tab has
/// removed the cookie from the browser (AUTHZ-15). Elsewhere an earlier session counts too, unless the client
/// wants a new sign-in (AUTHZ-16); without a live session nothing counts.
pub(crate) fn decider(
    authz: &Authz,
    browser: &Browser,
    transaction: &Transaction,
) -> Result<Option<SignedIn>, Fault> {
    authz.db.read(|conn| decider_with(authz, conn, browser, transaction))
}

/// Like [`decider`], as seen by the job that stores the decision.
fn decider_with(
    authz: &Authz,
    conn: &Conn<'_>,
    browser: &Browser,
    transaction: &Transaction,
) -> Result<Option<SignedIn>, Fault> {
    if let Some(made) = &transaction.signed_in {
        return session::asserted(authz, conn, browser, made);
    }
    let signed_in = session::signed_in_with(authz, conn, browser)?;
    Ok(signed_in.filter(|signed_in| counts_from_before(authz, transaction, signed_in)))
}

/// Whether a session that began before the transaction may decide it.
fn counts_from_before(authz: &Authz, transaction: &Transaction, signed_in: &SignedIn) -> bool {
    let age = authz.clock.now().since(signed_in.session.auth_time);
    let oldest = |seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let fresh_enough = transaction.max_age.is_none_or(|seconds| age <= oldest(seconds));
    let its_user = transaction.user_id.as_ref().is_none_or(|user| *user == signed_in.user.id);
    !authz.issuer.is_loopback() && !transaction.prompt_login && fresh_enough && its_user
}

/// Whether the request comes from the page that made the transaction's assertion. Cookies do not prove that: on
/// loopback, browsers send them to every program that listens on this host (SESSION-01). Only that page knows
/// the proof. The decision itself needs no proof, because its CSRF token is only on the page shown after this
/// check.
fn made_the_assertion(transaction: &Transaction, proof: Option<&str>) -> bool {
    transaction
        .signed_in
        .as_ref()
        .is_none_or(|made| proof.is_some_and(|proof| Secret::presented(proof).digest() == made.proof))
}

/// The form's CSRF token (CONSENT-03), derived from the assertion made in the transaction, or else from the
/// session.
fn csrf_token(authz: &Authz, transaction: &Transaction, decider: &SignedIn) -> String {
    session::csrf_token(authz, session::csrf_key(transaction.signed_in.as_ref(), decider), &transaction.id)
}

fn check_csrf(authz: &Authz, transaction: &Transaction, decider: &SignedIn, presented: Option<&str>) -> bool {
    let key = session::csrf_key(transaction.signed_in.as_ref(), decider);
    session::csrf_matches(authz, key, &transaction.id, presented)
}

/// The client of a transaction, if it may still get an answer at its redirect URI (AUTHZ-17, DCR-05).
fn client_of(authz: &Authz, conn: &Conn<'_>, transaction: &Transaction) -> Result<Option<Client>, Fault> {
    let uri = &transaction.redirect_uri;
    let client = clients::resolve(authz, conn, &transaction.client_id, LookupPurpose::Transaction(uri))?;
    Ok(client.client().filter(|client| {
        let registered = client.redirect_uris.iter().any(|registered| registered.matches(uri));
        !client.disabled && registered && authz.config.redirects.admit_client(client, uri)
    }))
}

/// Like [`client_of`], but only while the requested resource still exists.
pub(crate) fn client_to_answer(
    authz: &Authz,
    conn: &Conn<'_>,
    transaction: &Transaction,
) -> Result<Option<Client>, Fault> {
    let client = client_of(authz, conn, transaction)?;
    Ok(if authz.resource_in(conn, &transaction.resource)?.is_some() { client } else { None })
}

/// The next step for the user who may decide: an answer from a remembered consent, or the question.
pub(crate) async fn ask(
    authz: &Authz,
    request: &Request,
    via: Via,
    browser: &Browser,
    transaction: Transaction,
    decider: SignedIn,
) -> Result<Response, Fault> {
    if !session::touch(authz, &decider.session).await? {
        return login::passkey::page_again(authz, Some(&transaction));
    }
    let Some(question) = question(authz, request, browser, transaction, decider)? else {
        let refusal = client_gone(request);
        return Ok(refuse(authz, request, refusal).await);
    };
    if authz.db.read(|conn| remembered::recall(conn, &question, authz.clock.now()))? == Recall::Covers
        && let Some(response) = from_memory(authz, via, &question, true).await?
    {
        return Ok(response);
    }
    present(authz, question).await
}

/// `prompt=none`: an answer without a page, or the error that says why a page is needed (AUTHZ-16). Nothing is
/// stored until it is known that there is an answer.
pub(crate) async fn silently(
    authz: &Authz,
    request: &Request,
    via: Via,
    browser: &Browser,
    transaction: Transaction,
    decider: SignedIn,
) -> Result<Result<Response, Refused>, Fault> {
    let refused = |code, description| Ok(Err(Refused::new(code, description)));
    let Some(question) = question(authz, request, browser, transaction, decider)? else {
        return refused(Code::AccessDenied, "the client may be answered no more");
    };
    if question.offer.scope.is_empty() {
        return refused(Code::AccessDenied, "the user may not grant any of this");
    }
    match authz.db.read(|conn| remembered::recall(conn, &question, authz.clock.now()))? {
        Recall::Covers => match from_memory(authz, via, &question, false).await? {
            Some(response) => Ok(Ok(response)),
            None => refused(Code::ConsentRequired, "the user must be asked"),
        },
        Recall::NeedsPasskey => refused(Code::InteractionRequired, "the user must use a passkey for this"),
        Recall::Nothing => refused(Code::ConsentRequired, "the user must be asked"),
    }
}

fn question(
    authz: &Authz,
    request: &Request,
    browser: &Browser,
    transaction: Transaction,
    decider: SignedIn,
) -> Result<Option<Question>, Fault> {
    let found = authz.db.read(|conn| {
        let Some(client) = client_of(authz, conn, &transaction)? else { return Ok(None) };
        let ceiling = client.trust.ceiling();
        Ok(Some((offer(authz, conn, &transaction.scope, &decider.user.id, ceiling)?, client)))
    })?;
    let Some((offer, client)) = found else { return Ok(None) };
    let (browser, request) = (browser.clone(), request.clone());
    Ok(Some(Question { sign_in: SignIn { transaction, decider, browser, request }, client, offer }))
}

/// The answer that a remembered consent allows; `None` if the consent has changed since it was looked up.
/// `stored` says whether the request is in the database.
async fn from_memory(
    authz: &Authz,
    via: Via,
    question: &Question,
    stored: bool,
) -> Result<Option<Response>, Fault> {
    let code = {
        let (authz, question) = (authz.clone(), question.clone());
        let db = authz.db.clone();
        db.write(move |tx| decision::settle_from_memory(&authz, tx, &question, stored)).await?
    };
    Ok(code.map(|code| question.back().approved(authz, via, &code)))
}

/// The page with the question, or the page that says why nothing can be asked. From here on the request belongs
/// to this user (SESSION-09).
async fn present(authz: &Authz, question: Question) -> Result<Response, Fault> {
    let mut question = question;
    if question.offer.scope.is_empty() || question.transaction.user_id.is_none() {
        let job = {
            let (authz, question) = (authz.clone(), question.clone());
            move |tx: &Tx<'_>| decision::bind(&authz, tx, &question)
        };
        question = match authz.db.record(job).await? {
            Ok(question) => question,
            Err(NotAsked::SignedOut) => {
                return login::passkey::page_again(authz, Some(&question.transaction));
            }
            Err(NotAsked::ClientGone) => {
                return Ok(refuse(authz, &question.request, client_gone(&question.request)).await);
            }
            Err(NotAsked::Decided) => {
                return Ok(refuse(authz, &question.request, decided(&question.request)).await);
            }
        };
    }
    if question.offer.scope.is_empty() {
        page::nothing_to_allow(authz, &question)
    } else {
        page::question(authz, &question, StatusCode::OK, None)
    }
}

/// `GET /consent?transaction=…&proof=…`: the question, or first the sign-in page.
pub(crate) async fn get(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let browser = Browser::from_headers(&authz.cookies, &headers);
    let params = Params::parse(query.as_deref().unwrap_or_default()).unwrap_or_default();
    let handle = params.get("transaction");
    let found = authz.db.read(|conn| Ok(open_transaction(&authz, conn, &request, &browser, handle)));
    let transaction = match found.unwrap_or_else(|fault| Err(fault.into())) {
        Ok(transaction) => transaction,
        Err(refusal) => return refuse(&authz, &request, refusal).await,
    };
    let shown = async {
        match decider(&authz, &browser, &transaction)? {
            Some(decider) if made_the_assertion(&transaction, params.get("proof")) => {
                ask(&authz, &request, Via::Get, &browser, transaction.clone(), decider).await
            }
            _ => login::passkey::page(&authz, Some(&transaction)),
        }
    };
    match shown.await {
        Ok(response) => response,
        Err(fault) => tell(&authz, &request, Via::Get, &transaction, &fault),
    }
}

/// `POST /consent`: the only endpoint that decides (CONSENT-03).
pub(crate) async fn post(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let browser = Browser::from_headers(&authz.cookies, &headers);
    match decide(&authz, &request, &browser, &headers, &body).await {
        Ok(response) => response,
        Err(refusal) => refuse(&authz, &request, refusal).await,
    }
}

async fn decide(
    authz: &Authz,
    request: &Request,
    browser: &Browser,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, Refusal> {
    let forbidden = |reason| {
        Refusal::page(
            request,
            StatusCode::FORBIDDEN,
            reason,
            "This answer did not come from our page",
            "Decisions are accepted only from the page that asks for them. Nothing was decided.",
        )
    };
    if !session::is_same_origin(&authz.issuer, headers) {
        return Err(forbidden("origin"));
    }
    let params = form(authz, body).map_err(|_| forbidden("malformed"))?;
    let handle = params.get("transaction");
    let transaction = authz.db.read(|conn| Ok(open_transaction(authz, conn, request, browser, handle)))??;
    let Some(decider) = decider(authz, browser, &transaction)? else {
        // The user was signed out meanwhile: sign in again, in the same transaction.
        return Ok(login::passkey::page_again(authz, Some(&transaction))?);
    };
    if !check_csrf(authz, &transaction, &decider, params.get("csrf")) {
        return Err(forbidden("csrf"));
    }
    let Some(question) = question(authz, request, browser, transaction.clone(), decider.clone())? else {
        return no_client(authz, request, browser, transaction, decider).await;
    };
    match answer(authz, &question, &params).await {
        Ok(response) => response,
        Err(fault) => Ok(tell(authz, request, Via::Form, &question.transaction, &fault)),
    }
}

/// Refuses a request whose client was disabled or deleted meanwhile, even if the user pressed Allow (AUTHZ-17).
async fn no_client(
    authz: &Authz,
    request: &Request,
    browser: &Browser,
    transaction: Transaction,
    decider: SignedIn,
) -> Result<Response, Refusal> {
    let back = Return::to_whom_it_was_promised(&transaction);
    let sign_in = SignIn { transaction, decider, browser: browser.clone(), request: request.clone() };
    let outcome = {
        let (authz, db) = (authz.clone(), authz.db.clone());
        db.write(move |tx| decision::settle_without_client(&authz, tx, &sign_in)).await?
    };
    match outcome {
        Outcome::ClientGone(refused) => Ok(back.refused(authz, Via::Form, &refused)),
        Outcome::SignedOut => Ok(login::passkey::page_again(authz, None)?),
        _ => Err(decided(request)),
    }
}

/// Parses the decision form. Each ticked scope is a parameter of its own.
pub(crate) fn form(authz: &Authz, body: &[u8]) -> Result<Params, Unreadable> {
    Params::of_choice(authz.catalogue.scopes().len(), body)
}

/// Stores the decision and makes the response.
async fn answer(
    authz: &Authz,
    question: &Question,
    params: &Params,
) -> Result<Result<Response, Refusal>, Fault> {
    let request = &question.request;
    let approve = params.get("decision") == Some("approve");
    let confirmed = match (params.get("ceremony"), params.get("assertion")) {
        (Some(ceremony), Some(assertion)) if approve => {
            match confirm::finish(authz, &question.browser, question, ceremony, assertion).await {
                Ok(confirmed) => Some(confirmed),
                Err(login::Failed::Fault(fault)) => return Err(fault),
                Err(failed) => {
                    let words = failed.words().unwrap_or(UNCONFIRMED);
                    let told = explain(authz, request, failed).await;
                    let problem = format!("{words} Reference: {}", request.id);
                    return page::question(authz, question, told.status, Some(&problem)).map(Ok);
                }
            }
        }
        _ => None,
    };
    let pressed = SubmittedDecision { approve, ticked: params.all("scope").collect(), confirmed };
    let outcome = {
        let (authz, question) = (authz.clone(), question.clone());
        let db = authz.db.clone();
        db.write(move |tx| decision::settle(&authz, tx, &question, &pressed)).await?
    };
    let back = question.back();
    Ok(match outcome {
        Outcome::Approved(approved) => {
            let mut response = back.approved(authz, Via::Form, &approved.code);
            if let Some(session) = &approved.session {
                response.headers_mut().append(header::SET_COOKIE, authz.cookies.set_session(session));
            }
            Ok(response)
        }
        Outcome::Refused(refused) => Ok(back.refused(authz, Via::Form, &refused)),
        Outcome::Unconfirmed(reason) => {
            let event = question.about(Event::denied(Name::AuthzDenied, reason));
            authz.db.record(move |tx| audit::append(tx, event)).await?;
            Ok(page::question(authz, question, StatusCode::BAD_REQUEST, Some(UNCONFIRMED))?)
        }
        Outcome::ClientGone(refused) => {
            Ok(Return::to_whom_it_was_promised(&question.transaction).refused(authz, Via::Form, &refused))
        }
        // Sign in again, in the same transaction.
        Outcome::SignedOut => Ok(login::passkey::page_again(authz, Some(&question.transaction))?),
        Outcome::DecidedBefore => Err(decided(request)),
    })
}

const UNCONFIRMED: &str = "Your passkey was used for a different selection, so nothing was decided. Tick what you want to allow and try again.";

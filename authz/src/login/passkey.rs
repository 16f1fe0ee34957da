//! Signing in with a passkey (WebAuthn §7.2): discoverable only, so nothing can be enumerated
//! (WEBAUTHN-11).

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::audit::{self, Event, Name};
use shared::work::{self, Work};
use shared::{Digest, Fault, Request, Secret, Tx};
use webauthn_rs::prelude::{
    AuthenticationResult, DiscoverableAuthentication, Passkey, PasskeyAuthentication, PublicKeyCredential,
    WebauthnError,
};
use webauthn_rs_proto::{PublicKeyCredentialHints, PublicKeyCredentialRequestOptions};

use super::{Failed, begin, explain, is_plain, recorded, take};
use crate::Authz;
use crate::clients::metadata_document::words;
use crate::clients::{self, Asked};
use crate::error::PageError;
use crate::pages;
use crate::rate::earned;
use crate::session::{self, Browser};
use crate::store::ceremonies::Purpose;
use crate::store::sessions::Authentication;
use crate::store::transactions::{self, Assertion, SignInFor, Transaction};
use crate::store::users::{self, StoredPasskey, User};

/// Where somebody goes who has signed in for no transaction: one of our own pages, and no address that anybody sends
/// (REDIR-08).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Destination {
    #[default]
    Home,
    Account,
}

impl Destination {
    /// The destination of this name; home for any other.
    fn named(name: Option<&str>) -> Self {
        if name == Self::Account.name() { Self::Account } else { Self::Home }
    }

    fn name(self) -> Option<&'static str> {
        match self {
            Self::Home => None,
            Self::Account => Some("account"),
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Home => "/",
            Self::Account => "/account",
        }
    }
}

/// The sign-in page in place of one that only somebody who is signed in may see.
pub(crate) fn page_for(authz: &Authz, destination: Destination) -> Response {
    let page = pages::Login {
        server_name: authz.server_name(),
        transaction: None,
        client_source: None,
        client_claim: None,
        client_name: None,
        redirect_host: None,
        resource_name: None,
        fresh: false,
        destination: destination.name(),
    };
    authz.page(StatusCode::OK, &page)
}

/// The sign-in page, for a transaction or by itself.
pub(crate) fn page(authz: &Authz, transaction: Option<&Transaction>) -> Result<Response, Fault> {
    let client = match transaction {
        Some(t) => {
            let asked = Asked::Transaction(&t.redirect_uri);
            authz.db.read(|conn| clients::resolve(authz, conn, &t.client_id, asked))?.client()
        }
        None => None,
    };
    let page = pages::Login {
        server_name: authz.server_name(),
        transaction: transaction.map(|t| t.id.clone()),
        client_source: client.as_ref().and_then(words::unproven),
        client_claim: client.as_ref().map(|client| words::claim(client.source).to_owned()),
        client_name: client.map(|client| client.name),
        redirect_host: transaction.map(|t| {
            if t.redirect_uri.target().is_local() {
                "this computer".to_owned()
            } else {
                t.redirect_uri.host_for_people()
            }
        }),
        resource_name: transaction.and_then(|t| authz.resource(&t.resource)).map(|e| e.name),
        fresh: transaction.is_some_and(|t| t.prompt_login),
        destination: None,
    };
    Ok(authz.page(StatusCode::OK, &page))
}

#[derive(Deserialize)]
pub(crate) struct Start {
    transaction: Option<String>,
}

/// Options for `navigator.credentials.get`, with the ceremony they start.
#[derive(Serialize)]
pub(crate) struct RequestOptions {
    pub ceremony: String,
    pub options: PublicKey,
}

#[derive(Serialize)]
pub(crate) struct PublicKey {
    #[serde(rename = "publicKey")]
    pub public_key: PublicKeyCredentialRequestOptions,
}

/// Prefers what works without the internet over a phone's (WEBAUTHN-14).
pub(crate) fn hints() -> Vec<PublicKeyCredentialHints> {
    vec![PublicKeyCredentialHints::ClientDevice, PublicKeyCredentialHints::SecurityKey]
}

/// `POST /login/start`.
pub(crate) async fn start(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> Result<Response, PageError> {
    recorded(&authz, &request, begin_sign_in(&authz, &headers, &body).await).await
}

async fn begin_sign_in(authz: &Authz, headers: &HeaderMap, body: &[u8]) -> Result<Response, PageError> {
    session::require_json_from_us(&authz.issuer, headers)?;
    let body: Start = crate::read_json(body)?;
    let browser = Browser::from_headers(&authz.cookies, headers);
    // Signing in needs no page before it, so a browser without an id gets one here.
    let (browser_id, set_browser) = match body.transaction {
        Some(_) => (browser.id()?, None),
        None => browser.id_or_new(&authz.cookies),
    };
    if let Some(handle) = &body.transaction {
        check_open(authz, handle, browser_id)?;
    }
    let (challenge, state) =
        authz.webauthn.start_discoverable_authentication().map_err(crate::webauthn_fault)?;
    let mut public_key = challenge.public_key;
    public_key.hints = Some(hints());
    let ceremony =
        begin(authz, browser_id, Purpose::SignIn { transaction: body.transaction }, &state).await?;
    let mut response = Json(RequestOptions { ceremony, options: PublicKey { public_key } }).into_response();
    crate::error::no_store(&mut response);
    if let Some(cookie) = set_browser {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// The transaction a sign-in is for must be open, and this browser's.
fn check_open(authz: &Authz, handle: &str, browser: Digest) -> Result<(), PageError> {
    let waits_in = authz.db.read(|conn| transactions::waits_in(conn, handle, authz.clock.now()))?;
    if waits_in == Some(browser) {
        return Ok(());
    }
    Err(PageError::new(
        StatusCode::BAD_REQUEST,
        "transaction_unknown",
        "This sign-in has run out, or belongs to another browser. Start again from your application.",
    ))
}

/// What a browser sends back after a ceremony.
#[derive(Deserialize)]
pub(crate) struct Finish<R> {
    pub ceremony: String,
    pub response: R,
}

/// The same for a sign-in, with the name of the page to go on to where no transaction says that.
#[derive(Deserialize)]
struct FinishSignIn {
    ceremony: String,
    response: PublicKeyCredential,
    destination: Option<String>,
}

/// `POST /login/finish`.
pub(crate) async fn finish(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> Result<Response, PageError> {
    let signed_in = async {
        session::require_json_from_us(&authz.issuer, &headers)?;
        let FinishSignIn { ceremony, response, destination } = crate::read_json(&body)?;
        let body = Finish { ceremony, response };
        let browser = Browser::from_headers(&authz.cookies, &headers);
        sign_in(&authz, &request, &browser, &body, Destination::named(destination.as_deref())).await
    };
    match signed_in.await {
        Ok(response) => Ok(response),
        Err(failed) => Err(explain(&authz, &request, failed).await),
    }
}

async fn sign_in(
    authz: &Authz,
    request: &Request,
    browser: &Browser,
    body: &Finish<PublicKeyCredential>,
    destination: Destination,
) -> Result<Response, Failed> {
    let (purpose, state) = take::<DiscoverableAuthentication>(authz, browser.id()?, &body.ceremony).await?;
    let Purpose::SignIn { transaction } = purpose else { return Err(Failed::Because("other_purpose")) };
    let response = &body.response;
    if !is_plain(authz, &response.response.client_data_json, &response.id, &response.raw_id) {
        return Err(Failed::Because("client_data"));
    }
    let (handle, credential) = authz
        .webauthn
        .identify_discoverable_authentication(response)
        .map_err(|_| Failed::Because("no_user_handle"))?;
    let (user, stored) = authz
        .db
        .read(|conn| Ok((users::find_by_handle(conn, handle)?, users::find_passkey(conn, credential)?)))?;
    let (Some(user), Some(stored)) = (user, stored) else {
        return Err(Failed::Because("credential_unknown"));
    };
    // The handle is not signed: the credential says whose it is (WEBAUTHN-06).
    if stored.user_id != user.id || user.disabled || stored.suspended {
        return Err(Failed::Because("credential_unusable"));
    }
    let passkey = stored.passkey.clone();
    let verify = || authz.webauthn.finish_discoverable_authentication_v2(response, state, &passkey);
    let used = settle(authz, request, &user, stored, verify).await?;
    let job = {
        let (request, user, transaction) = (request.clone(), user.clone(), transaction.clone());
        let browser = browser.clone();
        move |tx: &Tx<'_>| {
            if let Some(handle) = &transaction {
                match transactions::stands(tx, handle, &user.id)? {
                    SignInFor::Open => {}
                    SignInFor::Over => return Ok(Err("transaction_decided")),
                    SignInFor::SomebodyElses => return Ok(Err("user_changed")),
                }
            }
            if users::find(tx, &user.id)?.is_none_or(|user| user.disabled) || !used.settle(tx)? {
                return Ok(Err("credential_unusable"));
            }
            audit::append(tx, used.event(Name::WebauthnAsserted).by_user(&user.id).request(&request))?;
            let how = used.authentication();
            let (secret, session) =
                session::start(tx, &user, how, &browser, transaction.as_deref(), &request)?;
            let proof = Secret::random("prf_");
            if let Some(handle) = &transaction {
                let assertion =
                    Assertion { session: session.digest, user_id: user.id.clone(), proof: proof.digest() };
                transactions::sign_in(tx, handle, &assertion)?;
            }
            Ok(Ok((secret, proof)))
        }
    };
    let (secret, proof) = authz.db.write(job).await?.map_err(Failed::Because)?;
    let location = transaction.map_or_else(
        || destination.path().to_owned(),
        |handle| {
            let page = if transactions::is_device(&handle) { "/device" } else { "/consent" };
            format!("{page}?transaction={handle}&proof={}", proof.expose())
        },
    );
    let mut response = Json(json!({ "location": location })).into_response();
    crate::error::no_store(&mut response);
    response.headers_mut().append(header::SET_COOKIE, authz.cookies.set_session(&secret));
    Ok(earned(response))
}

/// A passkey that has just proven itself.
pub(crate) struct Used {
    before: Passkey,
    after: Passkey,
    user_verified: bool,
    backup_eligible: bool,
    backup_state: bool,
    counter: u32,
}

impl Used {
    /// Writes the use down; false if another use of the same counter was faster.
    pub(crate) fn settle(&self, tx: &Tx<'_>) -> Result<bool, Fault> {
        users::update_passkey(tx, &self.before, &self.after)
    }

    /// How its user has proved who they are (SESSION-10, WEBAUTHN-13).
    pub(crate) fn authentication(&self) -> Authentication {
        Authentication {
            credential: self.after.cred_id().as_slice().to_owned(),
            amr: users::amr(self.backup_eligible).to_owned(),
            user_verified: self.user_verified,
            backed_up: self.backup_state,
        }
    }

    /// An audit record of the use (AUDIT-08).
    pub(crate) fn event(&self, name: Name) -> Event {
        Event::allowed(name)
            .detail("credential_sha256_8", Digest::of(self.after.cred_id().as_slice()).short())
            .detail("uv", self.user_verified)
            .detail("be", self.backup_eligible)
            .detail("bs", self.backup_state)
            .detail("count", self.counter)
    }
}

/// The use of a passkey by somebody who is signed in, for a ceremony that was found to be theirs and for this: with one
/// of their own passkeys that may be used for it (WebAuthn §7.2).
pub(crate) async fn used_by(
    authz: &Authz,
    request: &Request,
    user: &User,
    response: &PublicKeyCredential,
    state: &PasskeyAuthentication,
    may: impl Fn(&Passkey) -> bool,
) -> Result<Used, Failed> {
    if !is_plain(authz, &response.response.client_data_json, &response.id, &response.raw_id) {
        return Err(Failed::Because("client_data"));
    }
    let stored = authz.db.read(|conn| users::find_passkey(conn, &response.raw_id))?;
    let stored = stored.filter(|s| s.user_id == user.id && !s.suspended && may(&s.passkey));
    let Some(stored) = stored else { return Err(Failed::Because("credential_unusable")) };
    let verify = || authz.webauthn.finish_passkey_authentication(response, state);
    settle(authz, request, user, stored, verify).await
}

/// Has webauthn-rs check an assertion, unless there were too many (RATE-04), and weighs what it found: a counter that
/// went backwards suspends the passkey (WEBAUTHN-08).
async fn settle(
    authz: &Authz,
    request: &Request,
    user: &User,
    stored: StoredPasskey,
    verify: impl FnOnce() -> Result<AuthenticationResult, WebauthnError>,
) -> Result<Used, Failed> {
    authz.limits.passkey_of(&user.id, request)?;
    work::done(Work::Signature);
    match verify() {
        // webauthn-rs was told to demand it; nothing here counts without it.
        Ok(result) if !result.user_verified() => Err(Failed::Because("user_not_verified")),
        Ok(result) => {
            let mut after = stored.passkey.clone();
            after.update_credential(&result);
            Ok(Used {
                before: stored.passkey,
                after,
                user_verified: result.user_verified(),
                backup_eligible: result.backup_eligible(),
                backup_state: result.backup_state(),
                counter: result.counter(),
            })
        }
        Err(WebauthnError::CredentialPossibleCompromise) => {
            let (user, request) = (user.id.clone(), request.clone());
            authz
                .db
                .write(move |tx| {
                    users::suspend_passkey(tx, stored.passkey.cred_id())?;
                    let digest = Digest::of(stored.passkey.cred_id().as_slice()).short();
                    let event =
                        Event::denied(Name::CounterRegression, "counter_went_backwards").by_user(&user);
                    audit::append(tx, event.request(&request).detail("credential_sha256_8", digest))
                })
                .await?;
            Err(Failed::Because("counter_regression"))
        }
        Err(error) => {
            tracing::info!(webauthn.error = ?error, "an assertion did not verify");
            Err(Failed::Because("assertion"))
        }
    }
}

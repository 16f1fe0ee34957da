//! Signing in with a passkey (WebAuthn §7.2). Only discoverable passkeys are used, so that users cannot be
//! enumerated (WEBAUTHN-11).

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::audit::{self, Event, Name};
use shared::db::Conn;
use shared::work::{self, Work};
use shared::{Digest, Fault, Request, Secret, Tx, UserId};
use webauthn_rs::prelude::{AuthenticationResult, DiscoverableAuthentication, Passkey, WebauthnError};

use super::challenge::{PublicKey, RequestOptions, hints};
use super::destination::Destination;
use super::response::{Assertion as Shown, Finish};
use super::{Failed, Help, TakenCeremony, begin, explain, recorded, take};
use crate::Authz;
use crate::clients::metadata_document::words;
use crate::clients::{self, LookupPurpose};
use crate::error::PageError;
use crate::pages;
use crate::rate::refund::earned;
use crate::session::{self, Browser};
use crate::store::ceremonies::Purpose;
use crate::store::clients::Trust;
use crate::store::everything;
use crate::store::sessions::Authentication;
use crate::store::transactions::{self, Assertion, SignInFor, Transaction};
use crate::store::users::{self, StoredPasskey, User};

/// The sign-in page, shown instead of a page that requires a session.
pub(crate) fn page_for(authz: &Authz, destination: Destination) -> Response {
    let page = pages::Login {
        server_name: authz.server_name(),
        transaction: None,
        client_source: None,
        client_claim: None,
        client_verified: false,
        signed_out_meanwhile: false,
        client_name: None,
        redirect_host: None,
        resource_name: None,
        fresh: false,
        destination: destination.name(),
    };
    authz.page(StatusCode::OK, &page)
}

/// The sign-in page, with or without a transaction.
pub(crate) fn page(authz: &Authz, transaction: Option<&Transaction>) -> Result<Response, Fault> {
    page_with(authz, transaction, false)
}

/// The sign-in page for somebody who was signed in when they read the page before.
pub(crate) fn page_again(authz: &Authz, transaction: Option<&Transaction>) -> Result<Response, Fault> {
    page_with(authz, transaction, true)
}

fn page_with(
    authz: &Authz,
    transaction: Option<&Transaction>,
    signed_out_meanwhile: bool,
) -> Result<Response, Fault> {
    let client = match transaction {
        Some(t) => {
            let asked = LookupPurpose::Transaction(&t.redirect_uri);
            authz.db.read(|conn| clients::resolve(authz, conn, &t.client_id, asked))?.client()
        }
        None => None,
    };
    let page = pages::Login {
        server_name: authz.server_name(),
        transaction: transaction.map(|t| t.id.clone()),
        client_source: client.as_ref().and_then(words::unproven),
        client_claim: client.as_ref().map(|client| words::claim(client.source).to_owned()),
        client_verified: client.as_ref().is_some_and(|client| client.trust == Trust::Verified),
        signed_out_meanwhile,
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

/// `POST /login/start`.
pub(crate) async fn start(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> Result<Response, PageError> {
    recorded(&authz, &request, begin_sign_in(&authz, &request, &headers, &body).await).await
}

async fn begin_sign_in(
    authz: &Authz,
    request: &Request,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, PageError> {
    session::require_json_from_us(&authz.issuer, headers)?;
    let body: Start = crate::read_json(body)?;
    let browser = Browser::from_headers(&authz.cookies, headers);
    // Sign-in can start without an earlier page, so a browser without an id gets one here.
    let (browser_id, set_browser) = match body.transaction {
        Some(_) => (browser.id()?, None),
        None => browser.id_or_new(&authz.cookies),
    };
    authz.db.read(|conn| check_open(authz, conn, body.transaction.as_deref(), browser_id))??;
    let (challenge, state) =
        authz.webauthn.start_discoverable_authentication().map_err(crate::webauthn_fault)?;
    let mut public_key = challenge.public_key;
    public_key.hints = Some(hints());
    let purpose = {
        let authz = authz.clone();
        move |tx: &Tx<'_>| {
            let open = check_open(&authz, tx, body.transaction.as_deref(), browser_id)?;
            Ok(open.map(|()| Purpose::SignIn { transaction: body.transaction }))
        }
    };
    let ceremony = begin(authz, browser_id, &state, request, purpose).await?;
    let mut response = Json(RequestOptions { ceremony, options: PublicKey { public_key } }).into_response();
    crate::error::no_store(&mut response);
    if let Some(cookie) = set_browser {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// If the sign-in is for a transaction, the transaction must be open and in this browser.
fn check_open(
    authz: &Authz,
    conn: &Conn<'_>,
    transaction: Option<&str>,
    browser: Digest,
) -> Result<Result<(), PageError>, Fault> {
    let Some(handle) = transaction else { return Ok(Ok(())) };
    if transactions::waits_in(conn, handle, authz.clock.now())? == Some(browser) {
        return Ok(Ok(()));
    }
    Ok(Err(PageError::new(
        StatusCode::BAD_REQUEST,
        "transaction_unknown",
        "This sign-in has expired, or belongs to another browser. Start again from your application.",
    )))
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
        let body = Finish::read(&body)?;
        let destination = Destination::named(body.destination.as_deref());
        let browser = Browser::from_headers(&authz.cookies, &headers);
        sign_in(&authz, &request, &browser, &body, destination).await
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
    body: &Finish,
    destination: Destination,
) -> Result<Response, Failed> {
    let TakenCeremony { purpose, state, begun_at } =
        take::<Value>(authz, browser.id()?, &body.ceremony).await?;
    let Purpose::SignIn { transaction } = purpose else { return Err(Failed::Because("other_purpose")) };
    let assertion = Shown::read(authz.issuer.as_str(), &body.response)?;
    let id = &assertion.credential.raw_id;
    let found = authz.db.read(|conn| match users::find_passkey(conn, id)? {
        Some(stored) => Ok(users::find(conn, &stored.user_id)?.map(|user| (user, stored))),
        None => Ok(None),
    })?;
    let Some((user, stored)) = found else { return Err(Failed::Because("credential_unknown")) };
    // No user was identified before, so the authenticator must name the passkey's owner (WEBAUTHN-06).
    let says_whose = assertion.says_whose(&user, &stored.passkey)?;
    let used = verify(authz, request, &user, stored, &assertion, state).await?;
    if !says_whose {
        return Err(used.refused("no_user_handle", NO_USER_HANDLE));
    }
    let job = {
        let (request, user, transaction) = (request.clone(), user.clone(), transaction.clone());
        let browser = browser.clone();
        move |tx: &Tx<'_>| {
            // A lockdown deletes ceremonies, but this one was taken before it.
            if everything::has_ended_since(tx, begun_at)? {
                return Ok(Err(used.failed("ceremony_unknown")));
            }
            if let Some(handle) = &transaction {
                match transactions::stands(tx, handle, &user.id)? {
                    SignInFor::Open => {}
                    SignInFor::Over => return Ok(Err(used.failed("transaction_decided"))),
                    SignInFor::SomebodyElses => return Ok(Err(used.failed("user_changed"))),
                }
            }
            let Some(user) = users::enabled(tx, &user.id)? else {
                return Ok(Err(used.refused("user_disabled", USER_DISABLED)));
            };
            if !used.settle(tx)? {
                return Ok(Err(used.failed("credential_unusable")));
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
    let (secret, proof) = authz.db.write(job).await??;
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

/// A passkey whose assertion was just verified.
#[expect(clippy::struct_excessive_bools, reason = "flags of the authenticator, each by its own name")]
pub(crate) struct VerifiedPasskey {
    user: UserId,
    before: Passkey,
    after: Passkey,
    user_verified: bool,
    /// BE is set for the first time: the passkey's vault was moved or now synchronises it (WEBAUTHN-09).
    became_copyable: bool,
    backup_eligible: bool,
    backup_state: bool,
    counter: u32,
}

impl VerifiedPasskey {
    /// Stores the use; false if another request used the same counter value first.
    pub(crate) fn settle(&self, tx: &Tx<'_>) -> Result<bool, Fault> {
        users::update_passkey(tx, &self.before, &self.after)
    }

    /// A refusal of this use although its signature is right, with words for the user.
    pub(crate) fn refused(&self, reason: &'static str, words: &'static str) -> Failed {
        refused(&self.user, &self.before, reason, words)
    }

    /// Like [`Self::refused`], without words.
    fn failed(&self, reason: &'static str) -> Failed {
        failed(&self.user, self.before.cred_id(), reason)
    }

    /// How the user authenticated (SESSION-10, WEBAUTHN-13).
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
        let event = Event::allowed(name)
            .detail("credential_sha256_8", Digest::of(self.after.cred_id().as_slice()).short())
            .detail("uv", self.user_verified)
            .detail("be", self.backup_eligible)
            .detail("bs", self.backup_state)
            .detail("count", self.counter);
        if self.became_copyable { event.detail("be_before", false) } else { event }
    }
}

/// Verifies the assertion of a signed-in user, for a ceremony of theirs: the passkey must be one of theirs that
/// may be used for it (WebAuthn §7.2).
pub(crate) async fn used_by(
    authz: &Authz,
    request: &Request,
    user: &User,
    response: &Value,
    state: Value,
    may: impl Fn(&Passkey) -> bool,
) -> Result<VerifiedPasskey, Failed> {
    let assertion = Shown::read(authz.issuer.as_str(), response)?;
    let id = &assertion.credential.raw_id;
    let stored = authz.db.read(|conn| users::find_passkey(conn, id))?;
    let stored = stored.filter(|s| s.user_id == user.id && may(&s.passkey));
    let Some(stored) = stored.filter(|_| was_asked_for(&state, &assertion)) else {
        return Err(failed(&user.id, id, "credential_unusable"));
    };
    assertion.says_whose(user, &stored.passkey)?;
    verify(authz, request, user, stored, &assertion, state).await
}

/// Whether the passkey is one that the ceremony allowed (§7.2, step 5).
fn was_asked_for(state: &Value, assertion: &Shown) -> bool {
    let named = state["ast"]["credentials"].as_array();
    named.is_some_and(|named| named.iter().any(|one| one["cred_id"] == assertion.credential.id.as_str()))
}

impl Shown {
    /// Whether the authenticator named the passkey's owner.
    ///
    /// # Errors
    /// If it named another user.
    fn says_whose(&self, user: &User, passkey: &Passkey) -> Result<bool, Failed> {
        match &self.credential.response.user_handle {
            Some(handle) if handle == user.handle.as_bytes() => Ok(true),
            Some(_) => Err(failed(&user.id, passkey.cred_id(), "user_handle_mismatch")),
            None => Ok(false),
        }
    }
}

/// Verifies an assertion with webauthn-rs, within the rate limit (RATE-04), and checks the result. A refusal of
/// a passkey whose signature is right has words, because only its owner can see them.
async fn verify(
    authz: &Authz,
    request: &Request,
    user: &User,
    stored: StoredPasskey,
    assertion: &Shown,
    state: Value,
) -> Result<VerifiedPasskey, Failed> {
    authz.limits.passkey_of(&user.id, request)?;
    work::done(Work::Signature);
    // webauthn-rs refuses a changed BE flag before it verifies the signature. The change is handled below
    // (WEBAUTHN-09).
    let copyable = assertion.flags.backup_eligible();
    let as_shown = users::with(&stored.passkey, "backup_eligible", copyable.into())?;
    let result = match check(authz, assertion, &state, &as_shown)? {
        // webauthn-rs was told to require user verification; this checks it again.
        Ok(result) if !result.user_verified() => {
            return Err(failed(&user.id, stored.passkey.cred_id(), "user_not_verified"));
        }
        Ok(result) => Ok(result),
        // webauthn-rs checks the counter last, after the signature.
        Err(WebauthnError::CredentialPossibleCompromise) => Err(()),
        Err(error) => {
            tracing::info!(webauthn.error = ?error, "an assertion did not verify");
            let unverified = matches!(error, WebauthnError::UserNotVerified);
            return Err(if unverified && is_signed(authz, assertion, state, &as_shown)? {
                refused(&user.id, &stored.passkey, "user_not_verified", USER_NOT_VERIFIED)
            } else {
                failed(&user.id, stored.passkey.cred_id(), reason(&error))
            });
        }
    };
    let refused = |reason, words| Err(refused(&user.id, &stored.passkey, reason, words));
    if stored.suspended {
        return refused("credential_suspended", SUSPENDED);
    }
    let Ok(result) = result else {
        suspend(authz, request, &user.id, &stored.passkey).await?;
        return refused("counter_regression", SUSPENDED);
    };
    if user.disabled {
        return refused("user_disabled", USER_DISABLED);
    }
    let was_copyable = users::is_copyable(&stored.passkey)?;
    if was_copyable && !copyable {
        return refused("backup_eligibility_lost", BACKUP_ELIGIBILITY_LOST);
    }
    let mut after = stored.passkey.clone();
    after.update_credential(&result);
    Ok(VerifiedPasskey {
        user: user.id.clone(),
        before: stored.passkey,
        after,
        user_verified: result.user_verified(),
        became_copyable: copyable && !was_copyable,
        backup_eligible: result.backup_eligible(),
        backup_state: result.backup_state(),
        counter: result.counter(),
    })
}

/// Runs webauthn-rs's verification of an assertion with this passkey (§7.2).
fn check(
    authz: &Authz,
    assertion: &Shown,
    state: &Value,
    passkey: &Passkey,
) -> Result<Result<AuthenticationResult, WebauthnError>, Failed> {
    // The state has the same form for each kind of ceremony; the allowed passkeys were checked before.
    let state = DiscoverableAuthentication::deserialize(state);
    let state = state.map_err(|_| Failed::Because("other_purpose"))?;
    Ok(authz.webauthn.finish_discoverable_authentication_v2(&assertion.credential, state, passkey))
}

/// Whether everything but the user verification is right. This only chooses the words: the assertion is refused
/// in any case.
fn is_signed(authz: &Authz, assertion: &Shown, mut state: Value, passkey: &Passkey) -> Result<bool, Failed> {
    let lenient = "discouraged";
    state["ast"]["policy"] = lenient.into();
    let passkey = users::with(passkey, "registration_policy", lenient.into())?;
    let result = check(authz, assertion, &state, &passkey)?;
    Ok(matches!(result, Ok(_) | Err(WebauthnError::CredentialPossibleCompromise)))
}

/// Suspends a passkey whose counter went backwards (WEBAUTHN-08).
async fn suspend(authz: &Authz, request: &Request, user: &UserId, passkey: &Passkey) -> Result<(), Fault> {
    let (user, request, credential) = (user.clone(), request.clone(), passkey.cred_id().clone());
    let job = move |tx: &Tx<'_>| {
        if !users::suspend_passkey(tx, &credential)? {
            return Ok(());
        }
        let event = Event::denied(Name::CounterRegression, "counter_went_backwards").by_user(&user);
        let digest = Digest::of(credential.as_slice()).short();
        audit::append(tx, event.request(&request).detail("credential_sha256_8", digest))
    };
    authz.db.write(job).await
}

/// The keyword for the audit log.
fn reason(error: &WebauthnError) -> &'static str {
    match error {
        WebauthnError::MismatchedChallenge => "challenge",
        WebauthnError::InvalidRPIDHash => "rp_id",
        WebauthnError::UserNotPresent => "user_not_present",
        WebauthnError::UserNotVerified => "user_not_verified",
        _ => "assertion",
    }
}

fn refused(user: &UserId, passkey: &Passkey, reason: &'static str, words: &'static str) -> Failed {
    let whose = Some((user.clone(), Digest::of(passkey.cred_id().as_slice()).short()));
    Failed::Helped(Box::new(Help { reason, words: Some(words), whose }))
}

/// A failure recorded with the passkey's owner, so that a stranger's flood cannot hide it (AUDIT-06). The user
/// gets the general message.
fn failed(user: &UserId, credential: &[u8], reason: &'static str) -> Failed {
    let whose = Some((user.clone(), Digest::of(credential).short()));
    Failed::Helped(Box::new(Help { reason, words: None, whose }))
}

pub(super) const USER_NOT_VERIFIED: &str = "This authenticator did not verify that it is you. Set a PIN or a screen lock on it, then try again, or use another one.";
const NO_USER_HANDLE: &str = "This authenticator did not say whose passkey it used, so it cannot sign you in. Use another passkey. If you have no other, ask an administrator for a new link (portcullis user link).";
const SUSPENDED: &str = "This passkey is suspended: its counter went backwards, which can mean that it was copied. Use another passkey, or ask an administrator to restore it (portcullis user passkey unsuspend).";
const USER_DISABLED: &str =
    "Your account on this server is disabled. Ask an administrator to enable it (portcullis user enable).";
const BACKUP_ELIGIBILITY_LOST: &str = "This passkey was registered as one that can be copied to other devices, and now says that it cannot. Use another passkey, or ask an administrator to remove it and send you a new link (portcullis user passkey remove, portcullis user link).";

//! Setup and enrolment links, with which users create their first passkey (ENROL-01…03).

pub(crate) mod link;
pub(crate) mod look;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::audit::{self, Event, Name};
use shared::db::Conn;
use shared::work::{self, Work};
use shared::{Digest, Fault, Request, Secret, Tx, UserId};
use uuid::Uuid;
use webauthn_rs::prelude::{CredentialID, Passkey, PasskeyRegistration};
use webauthn_rs_proto::{PublicKeyCredentialCreationOptions, ResidentKeyRequirement};

use super::authenticator_data::{Flags, LONGEST_ID};
use super::challenge::hints;
use super::passkey::USER_NOT_VERIFIED;
use super::response::{Finish, Registration};
use super::{Failed, TakenCeremony, begin, explain, recorded, take};
use crate::Authz;
use crate::current::Current;
use crate::error::PageError;
use crate::pages;
use crate::people::name::valid_name;
use crate::rate::refund::earned;
use crate::session::{self, Browser};
use crate::store::ceremonies::Purpose;
use crate::store::links;
use crate::store::users::{self, Role, User};

/// Where somebody goes who has just made their first passkey: the home page, with a greeting.
const WELCOME: &str = "/?welcome";

/// `GET /setup`. The link's secret stays in the browser until the form is sent.
pub(crate) async fn setup_page(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    headers: HeaderMap,
) -> Response {
    let browser = Browser::from_headers(&authz.cookies, &headers);
    let signed_in = match signed_in_here(&authz, &browser) {
        Ok(signed_in) => signed_in,
        Err(fault) => return authz.unavailable(&request, &fault),
    };
    let page = pages::Setup {
        server_name: authz.server_name(),
        heading: "Set up this Portcullis".to_owned(),
        name_suggestion: "admin".to_owned(),
        needs_name: true,
        look_path: "/setup/look".to_owned(),
        start_path: "/setup/start".to_owned(),
        finish_path: "/setup/finish".to_owned(),
        signed_in,
    };
    with_browser_id(&authz, &browser, authz.page(StatusCode::OK, &page))
}

/// `GET /enrol`.
pub(crate) async fn enrol_page(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    headers: HeaderMap,
) -> Response {
    let browser = Browser::from_headers(&authz.cookies, &headers);
    let signed_in = match signed_in_here(&authz, &browser) {
        Ok(signed_in) => signed_in,
        Err(fault) => return authz.unavailable(&request, &fault),
    };
    let page = pages::Setup {
        server_name: authz.server_name(),
        heading: "Create your passkey".to_owned(),
        name_suggestion: String::new(),
        needs_name: false,
        look_path: "/enrol/look".to_owned(),
        start_path: "/enrol/start".to_owned(),
        finish_path: "/enrol/finish".to_owned(),
        signed_in,
    };
    with_browser_id(&authz, &browser, authz.page(StatusCode::OK, &page))
}

/// The user who is signed in here, with the form to sign out: the link may be for another user (ENROL-03).
fn signed_in_here(authz: &Authz, browser: &Browser) -> Result<Option<pages::SignedInHere>, Fault> {
    let Some(signed_in) = session::signed_in(authz, browser)? else { return Ok(None) };
    let csrf = session::sign_out_csrf(authz, browser, &signed_in);
    Ok(csrf.map(|sign_out_csrf| pages::SignedInHere { user_name: signed_in.user.name, sign_out_csrf }))
}

fn with_browser_id(authz: &Authz, browser: &Browser, mut page: Response) -> Response {
    if let (_, Some(cookie)) = browser.id_or_new(&authz.cookies) {
        page.headers_mut().append(header::SET_COOKIE, cookie);
    }
    page
}

#[derive(Deserialize)]
struct Start {
    token: String,
    name: Option<String>,
}

/// Options for `navigator.credentials.create`, with the ceremony's handle.
#[derive(Serialize)]
pub(crate) struct CreationOptions {
    pub ceremony: String,
    pub options: PublicKey,
}

#[derive(Serialize)]
pub(crate) struct PublicKey {
    #[serde(rename = "publicKey")]
    pub public_key: PublicKeyCredentialCreationOptions,
}

/// Starts a registration (WEBAUTHN-02). All options come from the server (WEBAUTHN-04).
pub(crate) fn creation_options(
    authz: &Authz,
    handle: Uuid,
    name: &str,
    existing: Vec<CredentialID>,
) -> Result<(PublicKeyCredentialCreationOptions, PasskeyRegistration), Fault> {
    let (challenge, state) = authz
        .webauthn
        .start_passkey_registration(handle, name, name, Some(existing))
        .map_err(crate::webauthn_fault)?;
    let mut options = challenge.public_key;
    // Sign-in does not ask for a name, so the passkey must be discoverable.
    if let Some(selection) = &mut options.authenticator_selection {
        selection.resident_key = Some(ResidentKeyRequirement::Required);
    }
    options.hints = Some(hints());
    Ok((options, state))
}

fn name_taken() -> PageError {
    PageError::new(
        StatusCode::BAD_REQUEST,
        "name_taken",
        "A user with this name, or one that looks like it, exists already. Choose another name.",
    )
}

fn dead_link(for_setup: bool) -> PageError {
    // The first administrator has nobody to ask.
    let message = if for_setup {
        "This link was used, was replaced by a newer one, or has expired. `portcullis setup-link`, run on the server, prints a new one."
    } else {
        "This link was used, was replaced by a newer one, or has expired. Ask your administrator for a new one: `portcullis user link` prints it."
    };
    PageError::new(StatusCode::BAD_REQUEST, "link_invalid", message)
}

/// `POST /setup/start`.
pub(crate) async fn setup_start(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, PageError> {
    recorded(&authz, &request, begin_setup(&authz, &request, &headers, &body).await).await
}

async fn begin_setup(
    authz: &Authz,
    request: &Request,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, PageError> {
    session::require_json_from_us(&authz.issuer, headers)?;
    let body: Start = crate::read_json(body)?;
    let browser = Browser::from_headers(&authz.cookies, headers).id()?;
    let name = valid_name(body.name.as_deref().unwrap_or_default())
        .map_err(|why| PageError::new(StatusCode::BAD_REQUEST, "name_invalid", why.advice()))?;
    let link = Secret::presented(body.token).digest();
    authz.db.read(|conn| may_set_up(authz, conn, &link, &name))??;
    let handle = Uuid::new_v4();
    let (public_key, state) = creation_options(authz, handle, &name, Vec::new())?;
    let purpose = {
        let authz = authz.clone();
        move |tx: &Tx<'_>| {
            let handle = handle.as_bytes().to_vec();
            Ok(may_set_up(&authz, tx, &link, &name)?.map(|()| Purpose::Setup { link, name, handle }))
        }
    };
    let ceremony = begin(authz, browser, &state, request, purpose).await?;
    Ok(answer(CreationOptions { ceremony, options: PublicKey { public_key } }))
}

/// Whether this link lets its holder become the administrator with this name now.
fn may_set_up(
    authz: &Authz,
    conn: &Conn<'_>,
    link: &Digest,
    name: &str,
) -> Result<Result<(), PageError>, Fault> {
    if let Err(dead) = is_live_setup(authz, conn, link)? {
        return Ok(Err(dead));
    }
    let taken = !users::reading_like(conn, name)?.is_empty();
    Ok(if taken { Err(name_taken()) } else { Ok(()) })
}

/// Whether this link still makes somebody the first administrator.
fn is_live_setup(authz: &Authz, conn: &Conn<'_>, link: &Digest) -> Result<Result<(), PageError>, Fault> {
    let live = links::is_live_setup(conn, link, authz.clock.now())? && !users::admin_exists(conn)?;
    Ok(if live { Ok(()) } else { Err(dead_link(true)) })
}

/// `POST /enrol/start`.
pub(crate) async fn enrol_start(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, PageError> {
    recorded(&authz, &request, begin_enrolment(&authz, &request, &headers, &body).await).await
}

async fn begin_enrolment(
    authz: &Authz,
    request: &Request,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, PageError> {
    session::require_json_from_us(&authz.issuer, headers)?;
    let body: Start = crate::read_json(body)?;
    let browser = Browser::from_headers(&authz.cookies, headers);
    let link = Secret::presented(body.token).digest();
    let (user, existing) = authz.db.read(|conn| may_enrol(authz, conn, &browser, &link))??;
    let existing = existing.iter().map(|passkey| passkey.cred_id().clone()).collect();
    let (public_key, state) = creation_options(authz, user.handle, &user.name, existing)?;
    let browser_id = browser.id()?;
    let purpose = {
        let authz = authz.clone();
        move |tx: &Tx<'_>| {
            let may = may_enrol(&authz, tx, &browser, &link)?;
            Ok(may.map(|(user, _)| Purpose::Enrol { link, user: user.id }))
        }
    };
    let ceremony = begin(authz, browser_id, &state, request, purpose).await?;
    Ok(answer(CreationOptions { ceremony, options: PublicKey { public_key } }))
}

/// The user whom this link lets create a passkey in this browser now, with their existing passkeys.
fn may_enrol(
    authz: &Authz,
    conn: &Conn<'_>,
    browser: &Browser,
    link: &Digest,
) -> Result<Result<(User, Vec<Passkey>), PageError>, Fault> {
    let user = match links::live_enrol(conn, link, authz.clock.now())? {
        Some(user) => users::find(conn, &user)?,
        None => None,
    };
    let Some(user) = user.filter(|user| !user.disabled) else { return Ok(Err(dead_link(false))) };
    // The link must neither add a passkey to the signed-in user nor replace one user by another (ENROL-03).
    if is_another_here(authz, conn, browser, &user.id)? {
        return Ok(Err(signed_in_as_another()));
    }
    let existing = users::passkeys(conn, &user.id)?;
    let full = existing.len() >= users::MOST_PASSKEYS;
    Ok(if full { Err(too_many_passkeys()) } else { Ok((user, existing)) })
}

/// Whether another user is signed in in this browser (ENROL-03).
fn is_another_here(authz: &Authz, conn: &Conn<'_>, browser: &Browser, user: &UserId) -> Result<bool, Fault> {
    let here = session::signed_in_with(authz, conn, browser)?;
    Ok(here.is_some_and(|signed_in| signed_in.user.id != *user))
}

fn signed_in_as_another() -> PageError {
    PageError::new(
        StatusCode::FORBIDDEN,
        "signed_in_as_another",
        "This link is for a different person than the one signed in here. Sign out, then open the link again. Or open it in another browser.",
    )
}

fn answer(options: CreationOptions) -> Response {
    let mut response = Json(options).into_response();
    crate::error::no_store(&mut response);
    response
}

/// `POST /setup/finish` and `POST /enrol/finish`; the ceremony says which.
pub(crate) async fn finish(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, PageError> {
    let enrolled = async {
        session::require_json_from_us(&authz.issuer, &headers)?;
        let body = Finish::read(&body)?;
        let browser = Browser::from_headers(&authz.cookies, &headers);
        enrol(&authz, &request, &browser, &body).await
    };
    match enrolled.await {
        Ok(response) => Ok(response),
        Err(failed) => Err(explain(&authz, &request, failed).await),
    }
}

async fn enrol(
    authz: &Authz,
    request: &Request,
    browser: &Browser,
    body: &Finish,
) -> Result<Response, Failed> {
    let TakenCeremony { purpose, state, .. } =
        take::<PasskeyRegistration>(authz, browser.id()?, &body.ceremony).await?;
    let made = verify(authz, &body.response, &state)?;
    let authentication = users::registered_with(&made.passkey)?;
    let job = {
        let (authz, request, browser) = (authz.clone(), request.clone(), browser.clone());
        move |tx: &Tx<'_>| -> Result<Result<Secret, Failed>, Fault> {
            // Check before the link is used up, so that it can be tried again (WEBAUTHN-07).
            if users::find_passkey(tx, made.passkey.cred_id())?.is_some() {
                return Ok(Err(Failed::Because("credential_registered")));
            }
            if let Purpose::Enrol { user, .. } = &purpose {
                // Another user may have signed in since the ceremony began.
                if is_another_here(&authz, tx, &browser, user)? {
                    return Ok(Err(signed_in_as_another().into()));
                }
                if users::passkeys(tx, user)?.len() >= users::MOST_PASSKEYS {
                    return Ok(Err(too_many_passkeys().into()));
                }
            }
            let for_setup = matches!(purpose, Purpose::Setup { .. });
            let user = match purpose {
                Purpose::Setup { name, .. } if !users::reading_like(tx, &name)?.is_empty() => {
                    return Ok(Err(name_taken().into()));
                }
                Purpose::Setup { link, name, handle } => {
                    first_administrator(&authz, tx, &request, &link, name, &handle)?
                }
                Purpose::Enrol { link, user } => invited(tx, &link, &user)?,
                Purpose::SignIn { .. }
                | Purpose::StepUp { .. }
                | Purpose::AddPasskey { .. }
                | Purpose::Consent { .. }
                | Purpose::Change { .. } => None,
            };
            let Some(user) = user else { return Ok(Err(dead_link(for_setup).into())) };
            if !users::insert_passkey(tx, &user, &made.passkey, browser.name())? {
                return Err(Fault::Storage("a passkey appeared within a transaction".to_owned()));
            }
            audit::append(tx, Event::allowed(Name::LinkUsed).by_user(&user.id).request(&request))?;
            audit::append(tx, made.event(&user.id).request(&request))?;
            let (secret, _) = session::start(tx, &user, authentication, &browser, None, &request)?;
            Ok(Ok(secret))
        }
    };
    let db = authz.db.clone();
    let secret = db.write(job).await??;
    let mut response = Json(json!({ "location": WELCOME })).into_response();
    crate::error::no_store(&mut response);
    response.headers_mut().append(header::SET_COOKIE, authz.cookies.set_session(&secret));
    Ok(earned(response))
}

/// Creates the first administrator, if the link is still valid and there is no administrator yet.
fn first_administrator<'t>(
    authz: &Authz,
    tx: &'t Tx<'_>,
    request: &Request,
    link: &Digest,
    name: String,
    handle: &[u8],
) -> Result<Option<Current<'t, User>>, Fault> {
    if users::admin_exists(tx)? || !links::spend(tx, link)? {
        return Ok(None);
    }
    let handle = Uuid::from_slice(handle).map_err(|e| Fault::Corrupt(e.to_string()))?;
    let user = User { id: UserId::random(), name, handle, disabled: false };
    if !users::insert(tx, &user, Role::Admin)? {
        return Err(Fault::Storage("the first administrator's name is taken".to_owned()));
    }
    authz.status.set_groups(tx, &user.id, &[]);
    let created = Event::allowed(Name::UserCreated).by_user(&user.id).subject(user.id.as_str());
    audit::append(tx, created.request(request).detail("role", "admin"))?;
    users::enabled(tx, &user.id)
}

/// The user of an enrolment link, if the link is still valid.
fn invited<'t>(tx: &'t Tx<'_>, link: &Digest, user: &UserId) -> Result<Option<Current<'t, User>>, Fault> {
    let user = users::enabled(tx, user)?;
    Ok(if user.is_some() && links::spend(tx, link)? { user } else { None })
}

/// A verified passkey that is not stored yet.
pub(crate) struct NewPasskey {
    pub passkey: Passkey,
    flags: Flags,
    counter: u32,
    /// The authenticator model.
    aaguid: Uuid,
}

impl NewPasskey {
    /// The audit record of its creation (AUDIT-08).
    pub(crate) fn event(&self, user: &UserId) -> Event {
        Event::allowed(Name::WebauthnRegistered)
            .by_user(user)
            .detail("credential_sha256_8", Digest::of(self.passkey.cred_id().as_slice()).short())
            .detail("aaguid", self.aaguid.to_string())
            .detail("uv", self.flags.user_verified())
            .detail("be", self.flags.backup_eligible())
            .detail("bs", self.flags.backup_state())
            .detail("count", self.counter)
    }
}

/// Verifies a registration (WebAuthn §7.1). A refusal uses up only the ceremony.
pub(crate) fn verify(
    authz: &Authz,
    response: &Value,
    state: &PasskeyRegistration,
) -> Result<NewPasskey, Failed> {
    let Registration { credential, data, attested } = Registration::read(authz.issuer.as_str(), response)?;
    if attested.id.len() > LONGEST_ID {
        return Err(Failed::Because("credential_id_too_long"));
    }
    if !data.flags.user_verified() {
        return Err(Failed::helped("user_not_verified", USER_NOT_VERIFIED));
    }
    work::done(Work::Signature);
    let passkey = authz.webauthn.finish_passkey_registration(&credential, state).map_err(|error| {
        tracing::info!(webauthn.error = ?error, "a registration did not verify");
        Failed::Because("registration")
    })?;
    // Sign-in does not ask for a name, so a passkey that is not discoverable could not sign in (WEBAUTHN-02).
    if credential.extensions.cred_props.is_some_and(|props| props.rk == Some(false)) {
        return Err(Failed::helped("not_discoverable", NOT_DISCOVERABLE));
    }
    let aaguid = Uuid::from_bytes(attested.aaguid);
    Ok(NewPasskey { passkey, flags: data.flags, counter: data.counter, aaguid })
}

const NOT_DISCOVERABLE: &str = "This authenticator did not store the passkey, so you could not sign in with it. Nothing was saved. Use another device or security key. If this one can store passkeys, set a PIN on it or free some space on it first, then try again.";

pub(crate) fn too_many_passkeys() -> PageError {
    PageError::new(
        StatusCode::BAD_REQUEST,
        "too_many_passkeys",
        "You have 20 passkeys, which is the limit. Remove one first.",
    )
}

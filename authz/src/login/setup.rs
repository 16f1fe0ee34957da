//! The first administrator: a one-use link, a name, a passkey (ENROL-01).

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::audit::{self, Event, Name};
use shared::{Digest, Fault, Request, Secret, Tx, UserId};
use uuid::Uuid;
use webauthn_rs::prelude::{CredentialID, Passkey, PasskeyRegistration, RegisterPublicKeyCredential};
use webauthn_rs_proto::{PublicKeyCredentialCreationOptions, ResidentKeyRequirement};

use super::passkey::{Finish, hints};
use super::{Failed, begin, explain, is_plain, take};
use crate::Authz;
use crate::error::PageError;
use crate::pages;
use crate::session::{self, Browser};
use crate::store::ceremonies::Purpose;
use crate::store::links;
use crate::store::users::{self, Role, User};

/// How long a setup link works.
const LINK: Duration = Duration::from_hours(1);
const LONGEST_NAME: usize = 64;

/// Makes a new setup link, the only one that works; `None` once there is an administrator.
pub(crate) fn issue_link(authz: &Authz, tx: &Tx<'_>, uid: u32) -> Result<Option<String>, Fault> {
    if users::admin_exists(tx)? {
        return Ok(None);
    }
    let secret = Secret::random("enr_");
    links::replace_setup(tx, &secret.digest(), tx.now() + LINK)?;
    audit::append(tx, Event::allowed(Name::LinkIssued).by_console(uid).detail("purpose", "setup"))?;
    // The secret sits behind #, so that it reaches no server log and no Referer.
    Ok(Some(format!("{}#{}", authz.issuer.url("/setup"), secret.expose())))
}

/// `GET /setup`. The link's secret stays in the browser until the form is sent.
pub(crate) async fn page(State(authz): State<Authz>, headers: HeaderMap) -> Response {
    let page = pages::Setup {
        server_name: authz.server_name(),
        heading: "Set up this Portcullis".to_owned(),
        name_suggestion: "admin".to_owned(),
        needs_name: true,
        start_path: "/setup/start".to_owned(),
        finish_path: "/setup/finish".to_owned(),
    };
    let mut response = authz.page(StatusCode::OK, &page);
    let browser = Browser::from_headers(&authz.cookies, &headers);
    if let (_, Some(cookie)) = browser.id_or_new(&authz.cookies) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

#[derive(Deserialize)]
struct Start {
    token: String,
    name: String,
}

/// Options for `navigator.credentials.create`, with the ceremony they start.
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

/// Starts a registration (WEBAUTHN-02): the options are ours alone, whatever the browser sends.
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
    // Sign-in asks for no name, so the passkey should know whose it is.
    if let Some(selection) = &mut options.authenticator_selection {
        selection.resident_key = Some(ResidentKeyRequirement::Preferred);
    }
    options.hints = Some(hints());
    Ok((options, state))
}

fn dead_link() -> PageError {
    PageError::new(
        StatusCode::BAD_REQUEST,
        "link_invalid",
        "This setup link is used up or has run out. Run `portcullis setup-link` on the server for a new one.",
    )
}

/// `POST /setup/start`.
pub(crate) async fn start(
    State(authz): State<Authz>,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> Result<Response, PageError> {
    session::require_json_from_us(&authz.issuer, &headers)?;
    let body: Start = crate::read_json(&body)?;
    let browser = Browser::from_headers(&authz.cookies, &headers).id()?;
    let name = body.name.trim().to_owned();
    if name.is_empty() || name.chars().count() > LONGEST_NAME || name.chars().any(char::is_control) {
        return Err(PageError::new(
            StatusCode::BAD_REQUEST,
            "name_invalid",
            "Choose a name of 1 to 64 characters, without line breaks.",
        ));
    }
    let link = Secret::presented(body.token).digest();
    let live = authz.db.read(|conn| {
        Ok(links::is_live_setup(conn, &link, authz.clock.now())? && !users::admin_exists(conn)?)
    })?;
    if !live {
        return Err(dead_link());
    }
    let handle = Uuid::new_v4();
    let (public_key, state) = creation_options(&authz, handle, &name, Vec::new())?;
    let purpose = Purpose::Setup { link, name, handle: handle.as_bytes().to_vec() };
    let ceremony = begin(&authz, browser, purpose, &state).await?;
    let mut response = Json(CreationOptions { ceremony, options: PublicKey { public_key } }).into_response();
    crate::error::no_store(&mut response);
    Ok(response)
}

/// `POST /setup/finish`.
pub(crate) async fn finish(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> Result<Response, PageError> {
    session::require_json_from_us(&authz.issuer, &headers)?;
    let body: Finish<RegisterPublicKeyCredential> = crate::read_json(&body)?;
    let browser = Browser::from_headers(&authz.cookies, &headers);
    match enrol(&authz, &request, &browser, &body).await {
        Ok(response) => Ok(response),
        Err(failed) => Err(explain(&authz, &request, failed).await),
    }
}

async fn enrol(
    authz: &Authz,
    request: &Request,
    browser: &Browser,
    body: &Finish<RegisterPublicKeyCredential>,
) -> Result<Response, Failed> {
    let (purpose, state) = take::<PasskeyRegistration>(authz, browser.id()?, &body.ceremony).await?;
    let Purpose::Setup { link, name, handle } = purpose else { return Err(Failed::Because("other_purpose")) };
    let passkey = verify(authz, &body.response, &state)?;
    let user = User {
        id: UserId::random(),
        name,
        handle: Uuid::from_slice(&handle).map_err(|e| Fault::Corrupt(e.to_string()))?,
        disabled: false,
    };
    let previous = browser.session_digest();
    let job = {
        let (authz, request) = (authz.clone(), request.clone());
        move |tx: &Tx<'_>| -> Result<Option<Secret>, Fault> {
            if users::admin_exists(tx)? || !links::spend_setup(tx, &link)? {
                return Ok(None);
            }
            if !users::insert(tx, &user, Role::Admin)? || !users::insert_passkey(tx, &user.id, &passkey)? {
                // Not a refusal: the link that was just spent must come back.
                return Err(Fault::Storage("the first user or passkey exists already".to_owned()));
            }
            authz.status.add_user(tx, &user.id);
            let created = Event::allowed(Name::UserCreated).by_user(&user.id).detail("role", "admin");
            audit::append(tx, created.request(&request))?;
            audit::append(tx, Event::allowed(Name::LinkUsed).by_user(&user.id).request(&request))?;
            audit::append(tx, registered(&user.id, &passkey).request(&request))?;
            let (secret, _) = session::start(tx, &user, passkey.cred_id().as_slice(), "hwk user", previous)?;
            audit::append(tx, Event::allowed(Name::SessionCreated).by_user(&user.id).request(&request))?;
            Ok(Some(secret))
        }
    };
    let db = authz.db.clone();
    let Some(secret) = db.write(job).await? else { return Err(dead_link().into()) };
    let mut response = Json(json!({ "location": "/" })).into_response();
    crate::error::no_store(&mut response);
    response.headers_mut().append(header::SET_COOKIE, authz.cookies.set_session(&secret));
    Ok(response)
}

/// Verifies a registration (WebAuthn §7.1).
pub(crate) fn verify(
    authz: &Authz,
    response: &RegisterPublicKeyCredential,
    state: &PasskeyRegistration,
) -> Result<Passkey, Failed> {
    if !is_plain(&response.response.client_data_json, &response.id, &response.raw_id) {
        return Err(Failed::Because("client_data"));
    }
    authz.webauthn.finish_passkey_registration(response, state).map_err(|error| {
        tracing::info!(webauthn.error = ?error, "a registration did not verify");
        Failed::Because("registration")
    })
}

/// An audit record of a new passkey (AUDIT-08).
pub(crate) fn registered(user: &UserId, passkey: &Passkey) -> Event {
    Event::allowed(Name::WebauthnRegistered)
        .by_user(user)
        .detail("credential_sha256_8", Digest::of(passkey.cred_id().as_slice()).short())
        .detail("uv", true)
}

//! The home page (who is signed in, how to connect a client, whether a second passkey is missing) and the
//! account page (`page`, `change`).

mod change;
pub(crate) mod changing;
pub(crate) mod confirm;
mod effect;
mod label;
mod moment;
mod own_secrets;
pub(crate) mod page;
mod pasted;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Value, json};
use shared::audit::{self, Event, Name};
use shared::catalogue::{Endpoint, Risk, ToolDescription};
use shared::db::Conn;
use shared::share::Holder;
use shared::{Fault, Request, Scope, Secret, Tx, UserId};
use webauthn_rs::prelude::{Passkey, PasskeyRegistration};

use crate::error::PageError;
use crate::form::Params;
use crate::login::challenge::{RequestOptions, challenge};
use crate::login::enrolment::{self, CreationOptions};
use crate::login::passkey;
use crate::login::response::Finish;
use crate::login::{Failed, TakenCeremony, begin, explain, recorded, take};
use crate::pages::{self, Snippet, UsableProfile, UsableTool};
use crate::rate::refund::earned;
use crate::session::{self, Browser, SignedIn};
use crate::store::ceremonies::Purpose;
use crate::store::sessions::{self, Session};
use crate::store::transactions::CancelledRequests;
use crate::store::users::{self, Role};
use crate::{Authz, login};

/// `GET /`.
pub(crate) async fn home(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let browser = Browser::from_headers(&authz.cookies, &headers);
    let newcomer = query.as_deref() == Some("welcome");
    let shown = async {
        match session::signed_in(&authz, &browser)? {
            Some(signed_in) if session::touch(&authz, &signed_in.session).await? => {
                connect(&authz, &signed_in, newcomer)
            }
            _ => signed_out(&authz),
        }
    };
    match shown.await {
        Ok(mut response) => {
            if let (_, Some(cookie)) = browser.id_or_new(&authz.cookies) {
                response.headers_mut().append(header::SET_COOKIE, cookie);
            }
            response
        }
        Err(fault) => authz.unavailable(&request, &fault),
    }
}

fn signed_out(authz: &Authz) -> Result<Response, Fault> {
    let setup_pending = !authz.db.read(users::admin_exists)?;
    let page = pages::SignedOut {
        server_name: authz.server_name(),
        mcp_url: authz.mcp_url(),
        setup_pending,
        can_sign_in: !setup_pending || authz.db.read(users::anybody_has_a_passkey)?,
    };
    Ok(authz.page(StatusCode::OK, &page))
}

fn connect(authz: &Authz, signed_in: &SignedIn, newcomer: bool) -> Result<Response, Fault> {
    let passkeys = authz.db.read(|conn| users::passkeys(conn, &signed_in.user.id))?.len();
    let entitled = authz.status.entitled(&signed_in.user.id);
    let endpoints = authz.catalogue.endpoints();
    let mcp_url = authz.mcp_url();
    let what = |endpoint: &Endpoint| -> Vec<UsableTool> {
        let tools = authz.catalogue.usable(&endpoint.resource, &entitled);
        let tool = |tool: ToolDescription| UsableTool {
            name: tool.name,
            title: tool.title,
            high_risk: tool.risk == Risk::High,
        };
        tools.into_iter().map(tool).collect()
    };
    // One where this user may use no more than what every token opens is of no use to them.
    let opens_something = |endpoint: &&Endpoint| {
        let usable = |scope: &Scope| authz.catalogue.usable(&endpoint.resource, scope).len();
        usable(&entitled) > usable(&Scope::empty())
    };
    let profiles = endpoints.iter().skip(1).filter(opens_something).map(|endpoint| UsableProfile {
        name: endpoint.name.clone(),
        url: endpoint.resource.to_string(),
        what: what(endpoint),
    });
    let page = pages::Connect {
        server_name: authz.server_name(),
        user_name: signed_in.user.name.clone(),
        snippets: mcp_url.as_deref().map(snippets).unwrap_or_default(),
        mcp_url,
        elsewhere: endpoints.is_empty(),
        passkeys: u32::try_from(passkeys).unwrap_or(u32::MAX),
        show_nudge: passkeys < 2,
        sign_out_csrf: session::csrf_token(authz, &signed_in.session.digest, session::SIGN_OUT),
        welcome: if newcomer { Some(authz.db.read(|conn| welcome(conn, &signed_in.user.id))?) } else { None },
        what: endpoints.first().map(what).unwrap_or_default(),
        profiles: profiles.collect(),
    };
    Ok(authz.page(StatusCode::OK, &page))
}

fn welcome(conn: &Conn<'_>, user: &UserId) -> Result<&'static str, Fault> {
    let (role, _) = users::role_and_age(conn, user)?;
    Ok(if role == Role::Admin.as_str() { "administrator" } else { "user" })
}

/// Connection instructions, ready to paste, for common clients.
pub fn snippets(mcp_url: &str) -> Vec<Snippet> {
    let snippet = |client: &str, how: &str, code: String| Snippet {
        client: client.to_owned(),
        how: how.to_owned(),
        code,
    };
    let mut snippets = vec![
        snippet(
            "Claude Code",
            "Run in a terminal, then choose Authenticate under /mcp",
            format!("claude mcp add --transport http portcullis {mcp_url}"),
        ),
        snippet(
            "VS Code",
            "Run in a terminal",
            format!("code --add-mcp '{{\"name\":\"portcullis\",\"type\":\"http\",\"url\":\"{mcp_url}\"}}'"),
        ),
        snippet(
            "Cursor",
            "Add to ~/.cursor/mcp.json",
            format!("{{ \"mcpServers\": {{ \"portcullis\": {{ \"url\": \"{mcp_url}\" }} }} }}"),
        ),
        snippet(
            "Codex",
            "Run in a terminal",
            format!("codex mcp add portcullis --url {mcp_url} && codex mcp login portcullis"),
        ),
        snippet(
            "GitHub Copilot CLI",
            "Run in a terminal, then start copilot",
            format!("copilot mcp add --transport http portcullis {mcp_url}"),
        ),
        snippet(
            "Gemini CLI",
            "Run in a terminal, then /mcp auth portcullis in gemini",
            format!("gemini mcp add --scope user --transport http portcullis {mcp_url}"),
        ),
        snippet(
            "opencode",
            "Add to opencode.json, then run opencode mcp auth portcullis",
            format!(
                "{{ \"mcp\": {{ \"portcullis\": {{ \"type\": \"remote\", \"url\": \"{mcp_url}\" }} }} }}"
            ),
        ),
        snippet(
            "Any client that uses stdio",
            "Use this as the server's command",
            format!("npx mcp-remote {mcp_url}"),
        ),
    ];
    if mcp_url.starts_with("https:") {
        // Node, which most of these clients run on, does not read the computer's trust store.
        snippets.push(snippet(
            "If the certificate is from your own authority",
            "Set this before a client on Node starts (SSL_CERT_FILE for those in Python or Rust)",
            "export NODE_EXTRA_CA_CERTS=/path/to/authority.pem".to_owned(),
        ));
    }
    snippets
}

/// `POST /sign-out` (SESSION-04).
pub(crate) async fn sign_out(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match end_session(&authz, &request, &headers, &body).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn end_session(
    authz: &Authz,
    request: &Request,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, PageError> {
    let browser = Browser::from_headers(&authz.cookies, headers);
    let params = Params::of_body(body).unwrap_or_default();
    let digest = browser.session_digest().filter(|digest| {
        session::is_same_origin(&authz.issuer, headers)
            && session::csrf_matches(authz, digest, session::SIGN_OUT, params.get("csrf"))
    });
    let Some(digest) = digest else {
        let event = Event::denied(Name::SessionEnded, "not_from_our_page").request(request);
        authz.refusals.record(&authz.db, event).await?;
        return Err(PageError::new(
            StatusCode::FORBIDDEN,
            "wrong_origin",
            "This request did not come from a page on this server.",
        ));
    };
    let (request, browser) = (request.clone(), browser.id());
    let job = move |tx: &Tx<'_>| {
        if let Some(user) = sessions::delete(tx, &digest)? {
            audit::append(tx, Event::allowed(Name::SessionEnded).by_user(&user).request(&request))?;
            if let Ok(browser) = &browser {
                // After signing out, the next user of this browser must not answer pending requests in this
                // one's name (SESSION-09).
                session::cancel_requests(tx, browser, CancelledRequests::Of(&user), None, &user, &request)?;
            }
        }
        Ok(())
    };
    authz.db.write(job).await?;
    Ok(earned(signed_out_here(authz)))
}

/// The answer after signing out. It removes everything of the user from the browser (SESSION-04).
fn signed_out_here(authz: &Authz) -> Response {
    let mut response = home_again();
    let headers = response.headers_mut();
    headers.insert("clear-site-data", HeaderValue::from_static("\"cookies\", \"storage\""));
    headers.append(header::SET_COOKIE, authz.cookies.expire_session());
    response
}

/// Redirects to the home page, where users sign in.
fn home_again() -> Response {
    let mut response = (StatusCode::SEE_OTHER, [(header::LOCATION, "/")]).into_response();
    crate::error::no_store(&mut response);
    response
}

/// The signed-in user who changes their passkeys. The request must come from one of our pages.
fn someone(authz: &Authz, headers: &HeaderMap) -> Result<(Browser, SignedIn), PageError> {
    session::require_json_from_us(&authz.issuer, headers)?;
    let browser = Browser::from_headers(&authz.cookies, headers);
    let signed_in = session::signed_in(authz, &browser)?;
    Ok((browser, signed_in.ok_or_else(no_session)?))
}

fn no_session() -> PageError {
    PageError::new(StatusCode::UNAUTHORIZED, "login_required", "You are signed out. Sign in, then try again.")
}

/// A user's passkeys, if the user may add another one (WEBAUTHN-07).
fn room_for_one_more(conn: &Conn<'_>, user: &UserId) -> Result<Result<Vec<Passkey>, PageError>, Fault> {
    let existing = users::passkeys(conn, user)?;
    Ok(if existing.len() < users::MOST_PASSKEYS { Ok(existing) } else { Err(enrolment::too_many_passkeys()) })
}

/// `POST /account/passkeys/start`: adding a passkey takes an assertion by an existing one, because a session
/// alone must not be enough (WEBAUTHN-12).
pub(crate) async fn add_start(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    recorded(&authz, &request, step_up(&authz, &request, &headers).await).await
}

async fn step_up(authz: &Authz, request: &Request, headers: &HeaderMap) -> Result<Response, PageError> {
    let (browser, signed_in) = someone(authz, headers)?;
    let existing = authz.db.read(|conn| room_for_one_more(conn, &signed_in.user.id))??;
    let (options, state) = challenge(authz, &existing)?;
    let browser_id = browser.id()?;
    let purpose = {
        let authz = authz.clone();
        move |tx: &Tx<'_>| {
            let Some(present) = session::present(&authz, tx, &browser, &signed_in)? else {
                return Ok(Err(no_session()));
            };
            let user = present.user.id.clone();
            Ok(room_for_one_more(tx, &user)?.map(|_| Purpose::StepUp { user }))
        }
    };
    let ceremony = begin(authz, browser_id, &state, request, purpose).await?;
    let mut response = Json(RequestOptions { ceremony, options }).into_response();
    crate::error::no_store(&mut response);
    Ok(response)
}

/// `POST /account/passkeys/confirm`: checks the assertion and answers with options for the new passkey.
pub(crate) async fn add_confirm(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, PageError> {
    let confirmed = async {
        let (browser, signed_in) = someone(&authz, &headers)?;
        let body = Finish::read(&body)?;
        confirm(&authz, &request, &browser, &signed_in, &body).await
    };
    match confirmed.await {
        Ok(response) => Ok(response),
        Err(failed) => Err(explain(&authz, &request, failed).await),
    }
}

async fn confirm(
    authz: &Authz,
    request: &Request,
    browser: &Browser,
    signed_in: &SignedIn,
    body: &Finish,
) -> Result<Response, Failed> {
    let TakenCeremony { purpose, state, .. } = take::<Value>(authz, browser.id()?, &body.ceremony).await?;
    let user = &signed_in.user;
    if !matches!(&purpose, Purpose::StepUp { user: id } if *id == user.id) {
        return Err(Failed::Because("other_purpose"));
    }
    let used = passkey::used_by(authz, request, user, &body.response, state, |_| true).await?;
    let existing = authz.db.read(|conn| users::passkeys(conn, &user.id))?;
    let existing = existing.iter().map(|p| p.cred_id().clone()).collect();
    let (public_key, state) = enrolment::creation_options(authz, user.handle, &user.name, existing)?;
    let state = serde_json::to_string(&state).map_err(|e| Fault::Storage(e.to_string()))?;
    let (browser_id, handle) = (browser.id()?, Secret::random("cer_"));
    let ceremony = handle.expose().to_owned();
    let job = {
        let (authz, request) = (authz.clone(), request.clone());
        let (browser, signed_in) = (browser.clone(), signed_in.clone());
        move |tx: &Tx<'_>| {
            let Some(present) = session::present(&authz, tx, &browser, &signed_in)? else {
                return Ok(Err(Failed::Because("session_ended")));
            };
            if !used.settle(tx)? {
                return Ok(Err(Failed::Because("credential_unusable")));
            }
            let user = present.map(|present| present.user);
            let event = used.event(Name::StepUp).by_user(&user.id).request(&request);
            audit::append(tx, event.detail("for", "add_passkey"))?;
            // After using a passkey, the session continues under a new id (SESSION-02).
            let started = session::start(tx, &user, used.authentication(), &browser, None, &request)?;
            let purpose = user.map(|user| Purpose::AddPasskey { user: user.id });
            let holder = Holder::user(&signed_in.user.id);
            if let Err(full) = login::store(tx, &handle.digest(), browser_id, purpose, state, &holder)? {
                return Ok(Err(PageError::from(full).into()));
            }
            Ok(Ok(started))
        }
    };
    let (secret, session) = authz.db.write(job).await??;
    let options = CreationOptions { ceremony, options: enrolment::PublicKey { public_key } };
    let mut response = Json(Confirmed { options, csrf: Tokens::of(authz, &session) }).into_response();
    crate::error::no_store(&mut response);
    response.headers_mut().append(header::SET_COOKIE, authz.cookies.set_session(&secret));
    Ok(earned(response))
}

/// The answer after a passkey was used: the next step, and the tokens that the page's forms must carry from now
/// on.
#[derive(Serialize)]
struct Confirmed {
    #[serde(flatten)]
    options: CreationOptions,
    csrf: Tokens,
}

/// The CSRF tokens of a session's forms, by form.
#[derive(Serialize)]
struct Tokens {
    #[serde(rename = "/sign-out")]
    sign_out: String,
    #[serde(rename = "/account/change")]
    change: String,
}

impl Tokens {
    fn of(authz: &Authz, session: &Session) -> Self {
        Self {
            sign_out: session::csrf_token(authz, &session.digest, session::SIGN_OUT),
            change: session::csrf_token(authz, &session.digest, change::FORM),
        }
    }
}

/// `POST /account/passkeys/finish`.
pub(crate) async fn add_finish(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, PageError> {
    let added = async {
        let (browser, signed_in) = someone(&authz, &headers)?;
        let body = Finish::read(&body)?;
        add(&authz, &request, &browser, &signed_in, &body).await
    };
    match added.await {
        Ok(response) => Ok(response),
        Err(failed) => Err(explain(&authz, &request, failed).await),
    }
}

async fn add(
    authz: &Authz,
    request: &Request,
    browser: &Browser,
    signed_in: &SignedIn,
    body: &Finish,
) -> Result<Response, Failed> {
    let TakenCeremony { purpose, state, .. } =
        take::<PasskeyRegistration>(authz, browser.id()?, &body.ceremony).await?;
    let user = &signed_in.user;
    if !matches!(&purpose, Purpose::AddPasskey { user: id } if *id == user.id) {
        return Err(Failed::Because("other_purpose"));
    }
    let made = enrolment::verify(authz, &body.response, &state)?;
    let job = {
        let (authz, request) = (authz.clone(), request.clone());
        let (browser, signed_in) = (browser.clone(), signed_in.clone());
        move |tx: &Tx<'_>| {
            let Some(present) = session::present(&authz, tx, &browser, &signed_in)? else {
                return Ok(Err(Failed::Because("session_ended")));
            };
            let user = present.map(|present| present.user);
            let existing = users::passkeys(tx, &user.id)?.len();
            if existing >= users::MOST_PASSKEYS
                || !users::insert_passkey(tx, &user, &made.passkey, browser.name())?
            {
                return Ok(Err(Failed::Because("credential_registered")));
            }
            audit::append(tx, made.event(&user.id).request(&request))?;
            Ok(Ok(existing + 1))
        }
    };
    let count = authz.db.write(job).await??;
    let mut response = Json(json!({ "passkeys": count })).into_response();
    crate::error::no_store(&mut response);
    Ok(earned(response))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OPS-08: over TLS, users are told what a private certificate authority requires; over plain HTTP, not.
    #[test]
    fn connect_lines_take_a_private_authority_into_account() {
        let told = |url| snippets(url).iter().any(|snippet| snippet.code.contains("NODE_EXTRA_CA_CERTS="));
        assert!(told("https://gate.lab.internal/mcp") && !told("http://localhost:8080/mcp"));
    }
}

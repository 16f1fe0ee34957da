//! What is asked, and what the person decides (CONSENT).

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::{HeaderMap, Method, StatusCode};
use shared::audit::{self, Event, Name};
use shared::catalogue::Risk;
use shared::{Fault, GrantId, Request, Scope, Secret, Tx};

use crate::authorize::Return;
use crate::clients::metadata_document::words;
use crate::clients::{self, Asked};
use crate::error::Code;
use crate::form::Params;
use crate::pages::{self, ConsentScope, ErrorPage};
use crate::session::{self, Browser, SignedIn};
use crate::store::clients::{Client, Source, Trust};
use crate::store::codes::{self, IssuedCode};
use crate::store::grants::{self, Grant};
use crate::store::transactions::{self, Transaction};
use crate::store::{sessions, users};
use crate::{Authz, login, store};

/// Whether a session may decide a transaction (AUTHZ-16). On loopback only a passkey assertion made
/// in the transaction counts, because any program on the computer may have seen the cookie
/// (SESSION-01).
pub(crate) fn session_counts(authz: &Authz, transaction: &Transaction, signed_in: &SignedIn) -> bool {
    let session = &signed_in.session;
    let asserted_here = transaction
        .signed_in
        .as_ref()
        .is_some_and(|made| made.session == session.digest && made.user_id == session.user_id);
    if asserted_here {
        return true;
    }
    let age = i64::try_from(authz.clock.now().since(session.auth_time).as_secs()).unwrap_or(i64::MAX);
    let fresh_enough = transaction.max_age.is_none_or(|max_age| age <= max_age);
    !authz.issuer.is_loopback() && !transaction.prompt_login && fresh_enough
}

/// Whether whoever asks is the page that made the transaction's assertion. Its cookies alone do not show it:
/// on loopback every program that listens on this host is sent them too (SESSION-01). The form's token follows
/// from seeing the page, so the decision needs no proof of its own.
fn made_the_assertion(transaction: &Transaction, proof: Option<&str>) -> bool {
    transaction
        .signed_in
        .as_ref()
        .is_none_or(|made| proof.is_some_and(|proof| Secret::presented(proof).digest() == made.proof))
}

/// `GET /consent?transaction=…&proof=…`: the question, or the sign-in that comes before it.
pub(crate) async fn get(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let browser = Browser::from_headers(&authz.cookies, &headers);
    let params = Params::parse(query.as_deref().unwrap_or_default()).unwrap_or_default();
    let shown =
        open_transaction(&authz, &request, &browser, params.get("transaction")).and_then(|transaction| {
            match session::signed_in(&authz, &browser)? {
                Some(signed_in)
                    if session_counts(&authz, &transaction, &signed_in)
                        && made_the_assertion(&transaction, params.get("proof")) =>
                {
                    Ok(page(&authz, &transaction, &signed_in)?)
                }
                _ => Ok(login::passkey::page(&authz, Some(&transaction))?),
            }
        });
    match shown {
        Ok(response) => response,
        Err(refusal) => refuse(&authz, &request, refusal).await,
    }
}

/// Records a refusal, and words it.
async fn refuse(authz: &Authz, request: &Request, refusal: Refusal) -> Response {
    let event = Event::denied(Name::AuthzDenied, refusal.reason()).request(request);
    match authz.db.record(move |tx| audit::append(tx, event)).await {
        Ok(()) => refusal.respond(authz, request),
        Err(fault) => authz.unavailable(request, &fault),
    }
}

/// Why a decision, or the page for it, is refused.
enum Refusal {
    Page(StatusCode, &'static str, Box<ErrorPage>),
    Fault(Fault),
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Refusal {
    fn page(request: &Request, status: StatusCode, reason: &'static str, title: &str, what: &str) -> Self {
        let next_step = "Go back to your application and sign in again.";
        let page = ErrorPage::new(Code::InvalidRequest.as_str(), &request.id, title, what, next_step);
        Self::Page(status, reason, Box::new(page))
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Page(_, reason, _) => reason,
            Self::Fault(_) => "fault",
        }
    }

    fn respond(self, authz: &Authz, request: &Request) -> Response {
        match self {
            Self::Page(status, _, page) => authz.page(status, page.as_ref()),
            Self::Fault(fault) => authz.unavailable(request, &fault),
        }
    }
}

/// The transaction with this handle, if it is open and belongs to this browser (AUTHZ-15).
fn open_transaction(
    authz: &Authz,
    request: &Request,
    browser: &Browser,
    handle: Option<&str>,
) -> Result<Transaction, Refusal> {
    let found = match handle {
        Some(handle) => authz.db.read(|conn| transactions::find(conn, handle))?,
        None => None,
    };
    let bad = |reason, title: &str, what: &str| {
        Err(Refusal::page(request, StatusCode::BAD_REQUEST, reason, title, what))
    };
    let Some(transaction) = found.filter(|t| authz.clock.now() < t.expires_at) else {
        return bad(
            "transaction_unknown",
            "This sign-in has run out",
            "It was started too long ago, or never here.",
        );
    };
    if browser.id().ok() != Some(transaction.browser) {
        return bad(
            "other_browser",
            "This sign-in belongs to another browser",
            "It can only be finished in the browser window that your application opened.",
        );
    }
    if transaction.decided {
        return bad(
            "decided",
            "This has been decided already",
            "Your answer was sent to the application once, and only once.",
        );
    }
    Ok(transaction)
}

/// The consent page (CONSENT-01).
pub(crate) fn page(
    authz: &Authz,
    transaction: &Transaction,
    signed_in: &SignedIn,
) -> Result<Response, Fault> {
    let asked = Asked::Transaction(&transaction.redirect_uri);
    let client = authz.db.read(|conn| clients::resolve(authz, conn, &transaction.client_id, asked))?.client();
    let Some(client) = client else {
        return Ok(client_gone(authz));
    };
    let offered = offered(authz, transaction, &client, signed_in);
    let endpoint = authz.resource(&transaction.resource);
    let lifetimes = authz.config.refresh_lifetimes(client.trust);
    let on_this_computer = transaction.redirect_uri.target().is_local();
    let scopes = authz
        .catalogue
        .scopes()
        .into_iter()
        .filter(|scope| offered.contains(&scope.name))
        .map(|scope| ConsentScope {
            high_risk: scope.risk == Risk::High,
            ticked: scope.risk == Risk::Low,
            required: false,
            name: scope.name,
            title: scope.title,
        })
        .collect();
    let mut warnings = Vec::new();
    if client.source == Source::UnknownUrl {
        warnings.push(words::unchecked(&client.name));
    }
    if on_this_computer && (client.trust != Trust::Verified || client.source.is_by_document()) {
        warnings.push(
            "Any program on this computer can claim this name. Allow it only if you started it just now."
                .to_owned(),
        );
    }
    let page = pages::Consent {
        transaction: transaction.id.clone(),
        csrf: session::csrf_token(authz, &signed_in.session.digest, &transaction.id),
        client_name: client.name.clone(),
        client_id: client.id.to_string(),
        client_verified: client.trust == Trust::Verified,
        client_id_host: words::host(&client),
        client_source: words::source(client.source).to_owned(),
        redirect_host: if on_this_computer {
            "this computer".to_owned()
        } else {
            transaction.redirect_uri.host_for_people()
        },
        redirect_uri: transaction.redirect_uri.to_string(),
        resource_name: endpoint.map_or_else(|| transaction.resource.to_string(), |e| e.name),
        resource: transaction.resource.to_string(),
        scopes,
        user_name: signed_in.user.name.clone(),
        access_lifetime: in_words(authz.config.access_token_lifetime),
        refresh_lifetime: in_words(lifetimes.family),
        warnings,
        confirm_path: None,
    };
    Ok(authz.page(StatusCode::OK, &page))
}

/// A client that is known by a document can be known no more, while somebody reads what it asks for.
fn client_gone(authz: &Authz) -> Response {
    let page = pages::Notice {
        title: "This application is not known here any more".to_owned(),
        paragraphs: vec!["What it says of itself cannot be had any more. Nothing was decided.".to_owned()],
        next_step: Some("Start again from your application.".to_owned()),
    };
    authz.page(StatusCode::BAD_REQUEST, &page)
}

/// What can be granted at most: asked for ∩ entitled to ∩ what the client's trust allows (DCR-08).
fn offered(authz: &Authz, transaction: &Transaction, client: &Client, signed_in: &SignedIn) -> Scope {
    let entitled = authz.status.entitled(&signed_in.user.id);
    let descriptions = authz.catalogue.scopes();
    let allowed: Scope = descriptions
        .iter()
        .filter(|scope| scope.risk == Risk::Low || client.trust == Trust::Verified)
        .map(|scope| scope.name.as_str())
        .collect();
    transaction.scope.intersection(&entitled).intersection(&allowed)
}

/// A time as it follows "lasts".
pub(crate) fn in_words(lifetime: Duration) -> String {
    let minutes = lifetime.as_secs() / 60;
    let (count, unit) = match minutes {
        0..120 => (minutes, "minute"),
        120..2880 => (minutes / 60, "hour"),
        _ => (minutes / 1440, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// `POST /consent`: the only way to decide (CONSENT-03).
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
            "A decision counts only when it is made on the page that asked for it. Nothing was decided.",
        )
    };
    if !session::is_same_origin(&authz.issuer, headers) {
        return Err(forbidden("origin"));
    }
    let params = std::str::from_utf8(body).ok().and_then(|text| Params::parse(text).ok());
    let params = params.ok_or_else(|| forbidden("malformed"))?;
    let transaction = open_transaction(authz, request, browser, params.get("transaction"))?;
    let Some(signed_in) =
        session::signed_in(authz, browser)?.filter(|s| session_counts(authz, &transaction, s))
    else {
        // Signed out meanwhile: sign in again, in the same transaction.
        return Ok(login::passkey::page(authz, Some(&transaction))?);
    };
    if !session::csrf_matches(authz, &signed_in.session.digest, &transaction.id, params.get("csrf")) {
        return Err(forbidden("csrf"));
    }
    let back = Return {
        client_id: transaction.client_id.clone(),
        redirect_uri: transaction.redirect_uri.clone(),
        state: transaction.state.clone(),
    };
    let ticked: Scope = params.all("scope").collect();
    let decision = Decision {
        approved: params.get("decision") == Some("approve"),
        ticked,
        transaction,
        signed_in,
        request: request.clone(),
    };
    let outcome = {
        let authz = authz.clone();
        let db = authz.db.clone();
        db.write(move |tx| settle(&authz, tx, &decision)).await?
    };
    Ok(match outcome {
        Outcome::Approved(code) => back.redirect(authz, &Method::POST, &[("code", code.expose())]),
        Outcome::Denied(description) => {
            let answer = [("error", Code::AccessDenied.as_str()), ("error_description", description)];
            back.redirect(authz, &Method::POST, &answer)
        }
        Outcome::DecidedBefore => {
            return Err(Refusal::page(
                request,
                StatusCode::BAD_REQUEST,
                "decided",
                "This has been decided already",
                "Your answer was sent to the application once, and only once.",
            ));
        }
    })
}

struct Decision {
    approved: bool,
    ticked: Scope,
    transaction: Transaction,
    signed_in: SignedIn,
    request: Request,
}

enum Outcome {
    Approved(Secret),
    Denied(&'static str),
    DecidedBefore,
}

/// Writes the decision down: in one step the transaction is decided, the grant and its code exist.
fn settle(authz: &Authz, tx: &Tx<'_>, decision: &Decision) -> Result<Outcome, Fault> {
    let transaction = &decision.transaction;
    if !transactions::decide(tx, &transaction.id)? {
        return Ok(Outcome::DecidedBefore);
    }
    if authz.issuer.is_loopback() && sessions::delete(tx, &decision.signed_in.session.digest)?.is_some() {
        let ended = Event::allowed(Name::SessionEnded).by_user(&decision.signed_in.user.id);
        audit::append(tx, ended.request(&decision.request).detail("because", "answered_a_client"))?;
    }
    let user = users::find(tx, &decision.signed_in.user.id)?.filter(|user| !user.disabled);
    let asked = Asked::Transaction(&transaction.redirect_uri);
    let client = clients::resolve(authz, tx, &transaction.client_id, asked)?.client();
    let client = client.filter(|client| !client.disabled);
    let denied = |name: Event| {
        name.by_user(&decision.signed_in.user.id)
            .client(&transaction.client_id)
            .resource(&transaction.resource)
            .request(&decision.request)
    };
    let (Some(user), Some(client)) = (user, client) else {
        audit::append(tx, denied(Event::denied(Name::AuthzDenied, "disabled")))?;
        return Ok(Outcome::Denied("the user or the client is disabled"));
    };
    let scope = offered(authz, transaction, &client, &decision.signed_in).intersection(&decision.ticked);
    if !decision.approved || scope.is_empty() {
        let reason = if decision.approved { "nothing_ticked" } else { "refused" };
        audit::append(tx, denied(Event::denied(Name::AuthzDenied, reason)))?;
        return Ok(Outcome::Denied("the user refused"));
    }
    let session = &decision.signed_in.session;
    let grant = Grant {
        id: GrantId::random(),
        user_id: user.id.clone(),
        client_id: client.id.clone(),
        resource: transaction.resource.clone(),
        scope: scope.clone(),
        amr: session.amr.clone(),
        auth_time: session.auth_time,
        expires_at: tx.now() + authz.config.refresh_lifetimes(client.trust).family,
        seen_generation: None,
        revoked: false,
    };
    grants::sweep(tx, tx.now() - Duration::from_hours(2))?;
    clients::adopt(authz, tx, &client, &decision.request)?;
    grants::insert(tx, &grant)?;
    store::clients::touch(tx, &client.id)?;
    authz.status.set_ceiling(tx, &client.id, client.trust.ceiling());
    let code = Secret::random("ac_");
    let issued = IssuedCode {
        digest: code.digest(),
        grant_id: grant.id.clone(),
        redirect_uri: transaction.redirect_uri.clone(),
        code_challenge: transaction.code_challenge.clone(),
        expires_at: tx.now() + authz.config.code_lifetime,
        destroyed: false,
        spent: false,
    };
    // A spent code is remembered as long as its grant, so that a replay is seen as one.
    codes::insert(tx, &issued)?;
    audit::append(
        tx,
        Event::allowed(Name::AuthzApproved)
            .by_user(&user.id)
            .client(&client.id)
            .grant(&grant.id)
            .resource(&grant.resource)
            .scope(&scope)
            .request(&decision.request)
            .detail("scopes_asked", transaction.scope.to_string())
            .detail("scopes_given", scope.to_string())
            .detail("redirect_host", transaction.redirect_uri.host_for_people())
            .detail("verified", client.trust == Trust::Verified),
    )?;
    Ok(Outcome::Approved(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_read_like_words() {
        let words = |secs| in_words(Duration::from_secs(secs));
        assert_eq!(words(60), "1 minute");
        assert_eq!(words(900), "15 minutes");
        assert_eq!(words(86_400), "24 hours");
        assert_eq!(words(30 * 86_400), "30 days");
    }
}

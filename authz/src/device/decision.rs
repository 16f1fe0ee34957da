//! The consent page for a device and its decision, as for any client (CONSENT) with two differences: every
//! decision takes a passkey assertion, and the tokens go to the device, which may belong to another person.

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use shared::audit::{self, Event, Name};
use shared::{Fault, GrantId, Request, Scope, Tx};

use super::FAMILY;
use super::typed::{self, Open, Stop};
use crate::Authz;
use crate::clients::metadata_document::words;
use crate::consent::{self, decision, in_words};
use crate::current::Current;
use crate::grants::GrantType;
use crate::grants::device_code::grantable;
use crate::opened;
use crate::pages::{self, ConsentScope};
use crate::rate::refund::earned;
use crate::session::{self, Browser, SignedIn};
use crate::store::clients::{self, Trust};
use crate::store::devices;
use crate::store::grants::Grant;
use crate::store::users;

/// The consent page (CONSENT-01).
pub(super) fn page(authz: &Authz, browser: &Browser, open: &Open, signed_in: &SignedIn) -> Response {
    let Open { typed, device, client } = open;
    let offered = offered(authz, &device.scope, &authz.status.entitled(&signed_in.user.id));
    let described = authz.catalogue.scopes();
    let scopes = described.iter().filter(|scope| offered.contains(&scope.name)).map(|scope| ConsentScope {
        name: scope.name.clone(),
        title: scope.title.clone(),
        high_risk: false,
        risk_text: String::new(),
        opens: opened::by_scope(authz, &device.resource, &scope.name),
        ticked: true,
        required: false,
    });
    let may = grantable(authz);
    let left_out = |high_risk: bool| {
        let asked = described.iter().filter(|scope| device.scope.contains(&scope.name));
        let left_out = asked.filter(|scope| !offered.contains(&scope.name));
        let because = left_out.filter(|scope| may.contains(&scope.name) != high_risk);
        because.map(|scope| scope.title.clone()).collect()
    };
    let endpoint = authz.resource(&device.resource);
    let family = authz.config.refresh_lifetimes(client.trust).family.min(FAMILY);
    let page = pages::DeviceConsent {
        transaction: typed.id.clone(),
        csrf: session::csrf_token(authz, session::csrf_key(typed.signed_in.as_ref(), signed_in), &typed.id),
        client_name: client.name.clone(),
        client_id: client.id.to_string(),
        client_verified: client.trust == Trust::Verified,
        client_claim: words::claim(client.source).to_owned(),
        address: device.address.clone().unwrap_or_else(|| "an unknown address".to_owned()),
        asked: match authz.clock.now().since(device.created_at) {
            moment if moment.as_secs() < 60 => "just now".to_owned(),
            while_ago => format!("{} ago", in_words(while_ago)),
        },
        asked_at: device.created_at.to_string(),
        resource_name: endpoint.map_or_else(|| device.resource.to_string(), |endpoint| endpoint.name),
        resource: device.resource.to_string(),
        scopes: scopes.collect(),
        not_entitled: left_out(false),
        high_risk: left_out(true),
        user_name: signed_in.user.name.clone(),
        sign_out_csrf: session::sign_out_csrf(authz, browser, signed_in),
        access_lifetime: in_words(authz.config.tokens.access),
        refresh_lifetime: GrantType::RefreshToken.is_allowed(client).then(|| in_words(family)),
    };
    authz.page(StatusCode::OK, &page)
}

/// What can be granted: requested ∩ entitled ∩ what devices may have.
fn offered(authz: &Authz, asked: &Scope, entitled: &Scope) -> Scope {
    asked.intersection(entitled).intersection(&grantable(authz))
}

/// `POST /device/decision`: the only endpoint that decides (CONSENT-03).
pub(crate) async fn post(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match decide(&authz, &request, &headers, &body).await {
        Ok(response) => response,
        Err(stop) => stop.respond(&authz, &request).await,
    }
}

async fn decide(
    authz: &Authz,
    request: &Request,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, Stop> {
    let forbidden = |reason| Stop::forbidden(authz, request, reason);
    if !session::is_same_origin(&authz.issuer, headers) {
        return Err(forbidden("origin"));
    }
    let params = consent::form(authz, body).map_err(|_| forbidden("malformed"))?;
    let browser = Browser::from_headers(&authz.cookies, headers);
    let open = typed::open(authz, request, &browser, params.get("transaction").unwrap_or_default())?;
    let signed_in = authz.db.read(|conn| typed::signed_in(authz, conn, &browser, &open.typed))?;
    let signed_in = signed_in.ok_or_else(|| forbidden("session"))?;
    let key = session::csrf_key(open.typed.signed_in.as_ref(), &signed_in);
    if !session::csrf_matches(authz, key, &open.typed.id, params.get("csrf")) {
        return Err(forbidden("csrf"));
    }
    let client_name = open.client.name.clone();
    let decision = Decision {
        approved: params.get("decision") == Some("approve"),
        ticked: params.all("scope").collect(),
        open,
        signed_in,
        browser,
        request: request.clone(),
    };
    let outcome = {
        let authz = authz.clone();
        let db = authz.db.clone();
        db.write(move |tx| settle(&authz, tx, &decision)).await?
    };
    let (title, what, next) = match outcome {
        Outcome::Approved => (
            "Go back to your device",
            format!("{client_name} may now act for you. Your device will continue in a few seconds."),
            Some(
                "If your device does not continue, somebody else may have sent you the code: tell an administrator.",
            ),
        ),
        Outcome::Denied => {
            ("Refused", format!("{client_name} was refused. Your device will say so in a few seconds."), None)
        }
        Outcome::SignedOut => return Err(forbidden("session")),
        Outcome::DecidedBefore => return Err(Stop::decided(authz, request)),
    };
    let notice =
        pages::Notice { title: title.to_owned(), paragraphs: vec![what], next_step: next.map(str::to_owned) };
    Ok(earned(authz.page(StatusCode::OK, &notice)))
}

struct Decision {
    approved: bool,
    ticked: Scope,
    open: Open,
    signed_in: SignedIn,
    browser: Browser,
    request: Request,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Approved,
    Denied,
    /// The session ended after the answer was sent: nothing was decided (SESSION-05, SESSION-06).
    SignedOut,
    DecidedBefore,
}

/// Stores the decision: in one step the device is decided and the grant exists.
fn settle(authz: &Authz, tx: &Tx<'_>, decision: &Decision) -> Result<Outcome, Fault> {
    let (device, signed_in) = (&decision.open.device, &decision.signed_in);
    if typed::signed_in(authz, tx, &decision.browser, &decision.open.typed)?.is_none() {
        return Ok(Outcome::SignedOut);
    }
    if !devices::decide(tx, &device.code)? {
        return Ok(Outcome::DecidedBefore);
    }
    let about = |event: Event| {
        event
            .by_user(&signed_in.user.id)
            .client(&device.client_id)
            .resource(&device.resource)
            .request(&decision.request)
            .detail("grant_type", GrantType::DeviceCode.name())
            .detail("asked_from", device.address.clone().unwrap_or_default())
    };
    let denied = |reason| audit::append(tx, about(Event::denied(Name::AuthzDenied, reason)));
    let client = Current::read(tx, |tx| {
        let client = clients::find(tx, &device.client_id)?.filter(|client| !client.disabled);
        Ok(client.filter(|client| GrantType::DeviceCode.is_allowed(client)))
    })?;
    let (Some(user), Some(client)) = (users::enabled(tx, &signed_in.user.id)?, client.found()) else {
        denied("disabled")?;
        return Ok(Outcome::Denied);
    };
    if authz.resource_in(tx, &device.resource)?.is_none() {
        denied("resource_gone")?;
        return Ok(Outcome::Denied);
    }
    let entitled = authz.status.entitled_in(tx, &user.id)?;
    let scope = offered(authz, &device.scope, &entitled).intersection(&decision.ticked);
    if !decision.approved || scope.is_empty() {
        denied(if decision.approved { "nothing_ticked" } else { "refused" })?;
        return Ok(Outcome::Denied);
    }
    let session = &signed_in.session;
    let grant = Grant {
        id: GrantId::random(),
        user_id: user.id.clone(),
        client_id: client.id.clone(),
        resource: device.resource.clone(),
        scope: scope.clone(),
        amr: session.authentication.amr.clone(),
        auth_time: session.auth_time,
        expires_at: tx.now() + authz.config.refresh_lifetimes(client.trust).family.min(FAMILY),
        seen_generation: None,
        revoked: false,
    };
    decision::insert(authz, tx, &client, &grant)?;
    devices::approve(tx, &device.code, &grant.id)?;
    let approved = about(Event::allowed(Name::AuthzApproved)).grant(&grant.id).scope(&scope);
    audit::append(
        tx,
        approved
            .detail("scopes_asked", device.scope.to_string())
            .detail("scopes_given", scope.to_string())
            .detail("verified", client.trust == Trust::Verified),
    )?;
    Ok(Outcome::Approved)
}

#[cfg(test)]
mod tests;

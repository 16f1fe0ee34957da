//! `GET /account`: the user's connected applications, sessions and passkeys (REVOKE-07, SESSION-06,
//! WEBAUTHN-12). Users see only their own.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode, header};
use shared::db::Conn;
use shared::{ClientId, Digest, Fault, Request, ResourceUri, Scope, Timestamp};

use super::change::{self, FORM};
use super::moment::moment;
use super::{confirm, own_secrets};
use crate::clients::metadata_document::words;
use crate::consent::in_words;
use crate::consent::remembered::{self, RememberedApproval};
use crate::form::Params;
use crate::login::destination::Destination;
use crate::pages::{self, ConnectedClient, Connection, OwnPasskey, RememberedAnswer, SignedInBrowser};
use crate::session::{self, Browser, SignedIn};
use crate::store::client_reports::{self, Access, GrantFilter};
use crate::store::clients::{self, Client, Trust};
use crate::store::consents::{self, Consent};
use crate::store::passkeys;
use crate::store::sessions::{self, Listed};
use crate::{Authz, login, opened, store};

/// The most grants that the page reads; the newest.
const MOST: u32 = 1000;
/// The most grants of one client that it shows.
const SHOWN: usize = 3;

/// The account page, or the sign-in page.
pub(crate) async fn get(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let browser = Browser::from_headers(&authz.cookies, &headers);
    let params = Params::parse(query.as_deref().unwrap_or_default()).unwrap_or_default();
    let shown = async {
        let mut signed_in = session::signed_in(&authz, &browser)?;
        if let Some(here) = &signed_in
            && !session::touch(&authz, &here.session).await?
        {
            signed_in = None;
        }
        let Some(signed_in) = signed_in else {
            let mut page = login::passkey::page_for(&authz, Destination::Account);
            if let (_, Some(cookie)) = browser.id_or_new(&authz.cookies) {
                page.headers_mut().append(header::SET_COOKIE, cookie);
            }
            return Ok(page);
        };
        show(&authz, &signed_in, params.get("done"))
    };
    shown.await.unwrap_or_else(|fault| authz.unavailable(&request, &fault))
}

fn show(authz: &Authz, signed_in: &SignedIn, done: Option<&str>) -> Result<Response, Fault> {
    let now = authz.clock.now();
    let (user, session) = (&signed_in.user, &signed_in.session);
    let page = authz.db.read(|conn| {
        let (signed_in_after, seen_after) = session::alive_since(now);
        let browsers = sessions::list(conn, Some(&user.id), signed_in_after, seen_after)?;
        let connected = connected(authz, conn, signed_in, now)?;
        Ok(pages::Account {
            user_name: user.name.clone(),
            csrf: session::csrf_token(authz, &session.digest, FORM),
            sign_out_csrf: session::csrf_token(authz, &session.digest, session::SIGN_OUT),
            confirm_path: confirm::PATH.to_owned(),
            // On loopback a session alone only reads.
            always_confirm: authz.issuer.is_loopback(),
            done: change::done(authz, &session.digest, done).map(str::to_owned),
            remembered: answers(authz, conn, signed_in, &connected, now)?,
            clients: connected,
            browsers: browsers.iter().map(|listed| browser_of(listed, &session.digest, now)).collect(),
            passkeys: own_passkeys(conn, signed_in, now)?,
            secrets: own_secrets::of(authz, conn, &user.id, now)?,
        })
    })?;
    Ok(authz.page(StatusCode::OK, &page))
}

/// The user's connected applications, the most recently connected first.
fn connected(
    authz: &Authz,
    conn: &Conn<'_>,
    signed_in: &SignedIn,
    now: Timestamp,
) -> Result<Vec<ConnectedClient>, Fault> {
    let whose = GrantFilter { user: Some(&signed_in.user.id), client: None };
    let mut connected: Vec<ConnectedClient> = Vec::new();
    // What each grant allows at this moment, which may be less than its tokens say.
    let mut usable: Vec<Scope> = Vec::new();
    for access in client_reports::access(conn, whose, now, MOST)? {
        let newest = connected.len();
        let before = connected.iter().position(|client| client.client_id == access.client_id.as_str());
        if before.is_none() {
            let client = client(conn, &access.client_id)?;
            let entitled = authz.status.entitled(&signed_in.user.id);
            usable.push(entitled.intersection(&authz.grantable_to(client.trust.ceiling())));
            connected.push(connected_client(&client));
        }
        let at = before.unwrap_or(newest);
        let client = &mut connected[at];
        if client.connections.len() < SHOWN {
            client.connections.push(connection(authz, access, &usable[at], now));
        } else {
            client.more += 1;
        }
    }
    Ok(connected)
}

fn client(conn: &Conn<'_>, id: &ClientId) -> Result<Client, Fault> {
    clients::find(conn, id)?.ok_or_else(|| Fault::Corrupt("a grant without its client".to_owned()))
}

fn connected_client(client: &Client) -> ConnectedClient {
    ConnectedClient {
        client_id: client.id.to_string(),
        name: client.name.clone(),
        verified: client.trust == Trust::Verified,
        source: words::source(client.source).to_owned(),
        claim: words::claim(client.source).to_owned(),
        disabled: client.disabled,
        connections: Vec::new(),
        more: 0,
    }
}

fn connection(authz: &Authz, access: Access, usable: &Scope, now: Timestamp) -> Connection {
    let now_usable = access.scope.intersection(usable);
    Connection {
        opens: opened::by_all(authz, &access.resource, &now_usable),
        scopes: titles(authz, &now_usable),
        not_now: titles(authz, &access.scope.without(usable)),
        resource_name: resource_name(authz, &access.resource),
        resource: access.resource.to_string(),
        connected: moment(access.created_at, now),
        last_used: access.last_used_at.map(|at| moment(at, now)),
        address: access.address,
        ends: in_words(access.expires_at.since(now)),
    }
}

/// The remembered consents (CONSENT-07). One that skips no question is listed only if its application has no
/// grant in the list above, because disconnecting the application forgets it too.
fn answers(
    authz: &Authz,
    conn: &Conn<'_>,
    signed_in: &SignedIn,
    connected: &[ConnectedClient],
    now: Timestamp,
) -> Result<Vec<RememberedAnswer>, Fault> {
    let mut answers = Vec::new();
    for (id, resource, consent) in consents::of(conn, &signed_in.user.id)? {
        let client = client(conn, &id)?;
        let lets_in = remembered::lets_in(authz, &client, &consent, now);
        if lets_in.is_some() || !connected.iter().any(|other| other.client_id == id.as_str()) {
            answers.push(answer(authz, &client, &resource, &consent, lets_in, now));
        }
    }
    Ok(answers)
}

fn answer(
    authz: &Authz,
    client: &Client,
    resource: &ResourceUri,
    consent: &Consent,
    lets_in: Option<RememberedApproval>,
    now: Timestamp,
) -> RememberedAnswer {
    RememberedAnswer {
        client_id: client.id.to_string(),
        name: client.name.clone(),
        resource_name: resource_name(authz, resource),
        resource: resource.to_string(),
        scopes: titles(authz, lets_in.as_ref().map_or(&consent.scope, |lets_in| &lets_in.scope)),
        given: moment(consent.granted_at, now),
        counts_for: lets_in.map(|lets_in| in_words(lets_in.until.since(now))),
    }
}

fn browser_of(listed: &Listed, this: &Digest, now: Timestamp) -> SignedInBrowser {
    SignedInBrowser {
        id: listed.name(),
        this: listed.digest == *this,
        signed_in: moment(listed.auth_time, now),
        seen: moment(listed.seen_at, now),
        address: listed.address.clone(),
        name: listed.browser.clone(),
    }
}

fn own_passkeys(conn: &Conn<'_>, signed_in: &SignedIn, now: Timestamp) -> Result<Vec<OwnPasskey>, Fault> {
    let listed = passkeys::of(conn, &signed_in.user.id)?;
    let own = |passkey: &store::passkeys::Listed| {
        Ok(OwnPasskey {
            id: passkey.digest().hex(),
            digest: passkey.digest().short(),
            label: passkey.label.clone(),
            added: moment(passkey.created_at, now),
            last_used: passkey.last_used_at.map(|at| moment(at, now)),
            copyable: passkey.copyable()?,
            suspended: passkey.suspended,
            this: passkey.credential == signed_in.session.authentication.credential,
            removable: passkeys::others(&listed, passkey).next().is_some(),
        })
    };
    listed.iter().map(own).collect()
}

/// The titles of scopes. A scope that was removed from the configuration is shown by name.
fn titles(authz: &Authz, scope: &Scope) -> Vec<String> {
    let described = authz.catalogue.scopes();
    let title = |name: &str| {
        let found = described.iter().find(|scope| scope.name == name);
        found.map_or_else(|| name.to_owned(), |scope| scope.title.clone())
    };
    scope.iter().map(title).collect()
}

fn resource_name(authz: &Authz, resource: &ResourceUri) -> Option<String> {
    authz.resource(resource).map(|endpoint| endpoint.name)
}

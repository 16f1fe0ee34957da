//! A passkey assertion for one change of the account. Its challenge is bound to this user, this session and
//! exactly this change (SESSION-01, WEBAUTHN-12).

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use shared::db::Conn;
use shared::{Digest, Fault, Request, Tx};
use webauthn_rs::prelude::Passkey;

use super::change::{self, Change, FORM};
use super::{no_session, someone};
use crate::Authz;
use crate::error::PageError;
use crate::login::challenge::{RequestOptions, challenge};
use crate::login::passkey::{self, VerifiedPasskey};
use crate::login::{Failed, TakenCeremony, begin, recorded, response as sent, take};
use crate::session::{self, Browser, SignedIn};
use crate::store::ceremonies::Purpose;
use crate::store::users;

/// Where the page's script starts the assertion.
pub(super) const PATH: &str = "/account/change/start";

/// `POST /account/change/start`: the options for the assertion.
pub(crate) async fn start(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, PageError> {
    recorded(&authz, &request, begin_change(&authz, &request, &headers, &body).await).await
}

async fn begin_change(
    authz: &Authz,
    request: &Request,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, PageError> {
    let (browser, signed_in) = someone(authz, headers)?;
    let fields: Value = crate::read_json(body)?;
    if !session::csrf_matches(authz, &signed_in.session.digest, FORM, fields["csrf"].as_str()) {
        return Err(PageError::new(
            StatusCode::FORBIDDEN,
            "csrf",
            "This page is out of date. Reload it, then try again.",
        ));
    }
    let change = change::from_json(&fields).ok_or_else(|| {
        PageError::new(StatusCode::BAD_REQUEST, "invalid_request", "This change does not exist.")
    })?;
    if let Some((code, _, why)) = change.unfit() {
        return Err(PageError::new(StatusCode::BAD_REQUEST, code, why));
    }
    let passkeys = authz.db.read(|conn| usable(conn, &signed_in, &change))??;
    let (options, state) = challenge(authz, &passkeys)?;
    let browser_id = browser.id()?;
    let purpose = {
        let authz = authz.clone();
        move |tx: &Tx<'_>| {
            let Some(present) = session::present(&authz, tx, &browser, &signed_in)? else {
                return Ok(Err(no_session()));
            };
            let (user, binding) = (present.user.id.clone(), change.binding(&present));
            Ok(usable(tx, &present, &change)?.map(|_| Purpose::Change { user, binding }))
        }
    };
    let ceremony = begin(authz, browser_id, &state, request, purpose).await?;
    let mut response = Json(RequestOptions { ceremony, options }).into_response();
    crate::error::no_store(&mut response);
    Ok(response)
}

/// The passkeys that may confirm a change. A passkey cannot confirm its own removal: the user shows that they
/// can sign in without it, and may have lost it.
fn usable(
    conn: &Conn<'_>,
    signed_in: &SignedIn,
    change: &Change,
) -> Result<Result<Vec<Passkey>, PageError>, Fault> {
    let mut passkeys = users::passkeys(conn, &signed_in.user.id)?;
    passkeys.retain(|passkey| may_confirm(change, passkey.cred_id()));
    if passkeys.is_empty() {
        return Ok(Err(PageError::new(
            StatusCode::CONFLICT,
            "last_passkey",
            "This is the last passkey you can sign in with. Add another one first.",
        )));
    }
    Ok(Ok(passkeys))
}

fn may_confirm(change: &Change, credential: &[u8]) -> bool {
    !matches!(change, Change::RemovePasskey { passkey, .. } if *passkey == Digest::of(credential))
}

/// Checks the assertion that came with a change. The ceremony is used up even if the assertion fails.
pub(super) async fn finish(
    authz: &Authz,
    request: &Request,
    browser: &Browser,
    signed_in: &SignedIn,
    change: &Change,
    ceremony: &str,
    assertion: &str,
) -> Result<VerifiedPasskey, Failed> {
    let TakenCeremony { purpose, state, .. } = take::<Value>(authz, browser.id()?, ceremony).await?;
    let user = &signed_in.user;
    match purpose {
        Purpose::Change { user: id, binding } if id == user.id && binding == change.binding(signed_in) => {}
        _ => return Err(Failed::Because("other_purpose")),
    }
    let response = sent::in_form(assertion)?;
    let may = |passkey: &Passkey| may_confirm(change, passkey.cred_id());
    passkey::used_by(authz, request, user, &response, state, may).await
}

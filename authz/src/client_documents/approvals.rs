//! Approval requests of users, and the administrator's decision (CIMD-09).

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::audit::{self, Event, Name};
use shared::{Fault, RedirectUri, Tx, UserId};

use super::import;
use super::{Answer, Change, Refusal};
use crate::Authz;
use crate::clients::metadata_document::host_for_people;
use crate::store::approval_requests::{self, ApprovalRequest};
use crate::store::users;

/// An approval request. The time is Unix milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PendingApproval {
    pub url: String,
    pub redirect_uri: RedirectUri,
    /// `None` if the user was deleted.
    pub user: Option<String>,
    pub user_id: UserId,
    pub created_at: i64,
}

/// All pending requests, oldest first.
///
/// # Errors
/// A database fault.
pub fn list(tx: &Tx<'_>) -> Result<Vec<PendingApproval>, Fault> {
    let mut waiting = Vec::new();
    for request in approval_requests::list(tx)? {
        let user = users::find(tx, &request.user_id)?.map(|user| user.name);
        let ApprovalRequest { url, redirect_uri, user_id, created_at, .. } = request;
        waiting.push(PendingApproval { url, redirect_uri, user, user_id, created_at: created_at.0 });
    }
    Ok(waiting)
}

/// Imports a document for a client that a user requested: the given one, or a minimal one made from the
/// request.
///
/// # Errors
/// A database fault.
pub fn approve(
    authz: &Authz,
    tx: &Tx<'_>,
    uid: u32,
    url: &str,
    body: Option<&str>,
    confirm: Option<&str>,
) -> Answer<Change> {
    let Some(request) = approval_requests::find(tx, url)? else {
        return Ok(Err(Refusal::NotAskedFor(url.to_owned())));
    };
    let made = body.is_none().then(|| smallest(&request).to_string());
    let body = body.or(made.as_deref()).unwrap_or_default();
    import::one(authz, tx, uid, body, Some(url), confirm)
}

/// A minimal document made from an approval request.
fn smallest(request: &ApprovalRequest) -> Value {
    json!({
        "client_id": request.url,
        "client_name": host_for_people(&request.url),
        "redirect_uris": [request.redirect_uri.without_port()],
        "grant_types": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_method": "none",
    })
}

/// Removes an approval request. Users may make it again.
///
/// # Errors
/// A database fault.
pub fn refuse(tx: &Tx<'_>, uid: u32, url: &str) -> Answer<()> {
    if !approval_requests::delete(tx, url)? {
        return Ok(Err(Refusal::NotAskedFor(url.to_owned())));
    }
    let event = Event::denied(Name::CimdRefused, "approval_refused").by_console(uid);
    audit::append(tx, event.detail("url", url))?;
    Ok(Ok(()))
}

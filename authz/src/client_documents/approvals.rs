//! What users asked for, and what an administrator does about it (CIMD-09).

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

/// What a user asked for. The time is Unix milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Waiting {
    pub url: String,
    pub redirect_uri: RedirectUri,
    /// `None` if the user is gone.
    pub user: Option<String>,
    pub user_id: UserId,
    pub created_at: i64,
}

/// Everything that waits, oldest first.
///
/// # Errors
/// The database's fault.
pub fn list(tx: &Tx<'_>) -> Result<Vec<Waiting>, Fault> {
    let mut waiting = Vec::new();
    for request in approval_requests::list(tx)? {
        let user = users::find(tx, &request.user_id)?.map(|user| user.name);
        let ApprovalRequest { url, redirect_uri, user_id, created_at, .. } = request;
        waiting.push(Waiting { url, redirect_uri, user, user_id, created_at: created_at.0 });
    }
    Ok(waiting)
}

/// Pins a document for a client that users asked for: one that is brought, or what the request says.
///
/// # Errors
/// The database's fault.
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

/// The least that a document can say, out of what was asked.
fn smallest(request: &ApprovalRequest) -> Value {
    json!({
        "client_id": request.url,
        "client_name": host_for_people(&request.url),
        "redirect_uris": [request.redirect_uri.without_port()],
        "grant_types": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_method": "none",
    })
}

/// Takes a wish off the list. Whoever filed it may file it again.
///
/// # Errors
/// The database's fault.
pub fn refuse(tx: &Tx<'_>, uid: u32, url: &str) -> Answer<()> {
    if !approval_requests::delete(tx, url)? {
        return Ok(Err(Refusal::NotAskedFor(url.to_owned())));
    }
    let event = Event::denied(Name::CimdRefused, "approval_refused").by_console(uid);
    audit::append(tx, event.detail("url", url))?;
    Ok(Ok(()))
}

//! Browser sessions, listed and ended by an administrator (SESSION-06).

use serde::{Deserialize, Serialize};
use shared::audit::{self, Event, Name};
use shared::{Fault, Tx, UserId};

use super::{Answer, Refusal, user_id};
use crate::people::accepted;
use crate::session;
use crate::store::sessions::{self, Listed};

/// A signed-in browser of a user. Times are Unix milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Session {
    /// The first hexadecimal digits of the SHA-256 of its cookie. It identifies the session and cannot be used
    /// as the cookie.
    pub id: String,
    pub user_id: UserId,
    pub user: String,
    pub signed_in_at: i64,
    pub seen_at: i64,
    /// The browser's address when it signed in.
    pub address: Option<String>,
    /// What the browser calls itself, such as "Firefox on Linux".
    pub browser: Option<String>,
}

impl From<&Listed> for Session {
    fn from(listed: &Listed) -> Self {
        Self {
            id: listed.name(),
            user_id: listed.user_id.clone(),
            user: listed.user.clone(),
            signed_in_at: listed.auth_time.0,
            seen_at: listed.seen_at.0,
            address: listed.address.clone(),
            browser: listed.browser.clone(),
        }
    }
}

/// The live sessions of one user or of all, newest first.
///
/// # Errors
/// A database fault.
pub fn sessions(tx: &Tx<'_>, user: Option<&str>) -> Answer<Vec<Session>> {
    let user = match user {
        Some(who) => Some(accepted!(user_id(tx, who)?)),
        None => None,
    };
    Ok(Ok(alive(tx, user.as_ref())?.iter().map(Session::from).collect()))
}

/// Ends a session. Its user's grants continue (REFRESH-08).
///
/// # Errors
/// A database fault.
pub fn end_session(tx: &Tx<'_>, uid: u32, id: &str) -> Answer<Session> {
    let wanted = id.to_ascii_lowercase();
    let found = alive(tx, None)?.into_iter().find(|listed| listed.name() == wanted);
    let Some(found) = found else { return Ok(Err(Refusal::SessionUnknown(id.to_owned()))) };
    end(tx, uid, &found)?;
    Ok(Ok(Session::from(&found)))
}

/// Ends all sessions of a user.
///
/// # Errors
/// A database fault.
pub fn end_sessions_of(tx: &Tx<'_>, uid: u32, user: &str) -> Answer<Vec<Session>> {
    let user = accepted!(user_id(tx, user)?);
    let ended = alive(tx, Some(&user))?;
    for session in &ended {
        end(tx, uid, session)?;
    }
    Ok(Ok(ended.iter().map(Session::from).collect()))
}

fn alive(tx: &Tx<'_>, user: Option<&UserId>) -> Result<Vec<Listed>, Fault> {
    let (signed_in_after, seen_after) = session::alive_since(tx.now());
    sessions::list(tx, user, signed_in_after, seen_after)
}

fn end(tx: &Tx<'_>, uid: u32, session: &Listed) -> Result<(), Fault> {
    sessions::delete(tx, &session.digest)?;
    let event = Event::allowed(Name::SessionEnded).by_console(uid).subject(session.user_id.as_str());
    audit::append(tx, event.detail("because", "administrator"))
}

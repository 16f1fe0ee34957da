//! Commands about grants, tokens and sessions.

use authz::Authz;
use authz::access::{self, Refusal};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::{Fault, Tx};

use super::Answer;

/// What is shown or ended.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Request {
    Grants {
        user: Option<String>,
        client: Option<String>,
    },
    RevokeGrant {
        grant: String,
    },
    RevokeToken {
        token: String,
    },
    Sessions {
        user: Option<String>,
    },
    EndSession {
        session: String,
    },
    EndSessions {
        user: String,
    },
    /// What a lockdown would end.
    Measure,
    Lockdown,
}

/// Does it, in one transaction.
pub(super) fn execute(authz: &Authz, tx: &Tx<'_>, uid: u32, request: Request) -> Result<Answer, Fault> {
    fn answer<T: Serialize>(name: &str, answer: Result<T, Refusal>) -> Result<Value, Refusal> {
        answer.map(|value| json!({ name: value }))
    }
    let done = match request {
        Request::Grants { user, client } => {
            answer("grants", access::grants(tx, user.as_deref(), client.as_deref())?)
        }
        Request::RevokeGrant { grant } => answer("revoked", access::revoke_grant(authz, tx, uid, &grant)?),
        Request::RevokeToken { token } => answer("revoked", access::revoke_token(authz, tx, uid, &token)?),
        Request::Sessions { user } => answer("sessions", access::sessions(tx, user.as_deref())?),
        Request::EndSession { session } => {
            answer("ended", access::end_session(tx, uid, &session)?.map(|session| [session]))
        }
        Request::EndSessions { user } => answer("ended", access::end_sessions_of(tx, uid, &user)?),
        Request::Measure => answer("blast_radius", Ok(access::measure(tx)?)),
        Request::Lockdown => answer("ended", Ok(access::lock_down(authz, tx, uid)?)),
    };
    Ok(match done {
        Ok(value) => Answer::Ok(value),
        Err(refusal) => Answer::error("refused", &refusal.to_string()),
    })
}

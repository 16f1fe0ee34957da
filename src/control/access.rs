//! Commands about grants, tokens and sessions.

use std::time::Duration;

use authz::Authz;
use authz::access::{self, BlastRadius, Named, Refusal};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::db::Conn;
use shared::{Db, Fault, Tx};

use super::Answer;

/// How long what a lockdown has ended is counted.
const COUNTED_WITHIN: Duration = Duration::from_secs(5);

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

/// Has it done. What counts grants has them counted beside the writer, which others wait for.
pub(super) async fn perform(authz: &Authz, db: &Db, uid: u32, request: Request) -> Result<Answer, Fault> {
    match request {
        Request::Measure => {
            let measured = reading(authz, db, access::measure).await?;
            Ok(Answer::Ok(json!({ "blast_radius": measured })))
        }
        Request::Lockdown => {
            let (writing, authz) = (authz.clone(), authz.clone());
            let (ended, locked) = db.write(move |tx| access::lock_down(&writing, tx, uid)).await?;
            // It is done; nobody should have to wait long to hear so.
            let counted = reading(&authz, db, move |_, conn| locked.held(conn));
            let held = tokio::time::timeout(COUNTED_WITHIN, counted).await.ok().and_then(Result::ok);
            Ok(Answer::Ok(json!({ "ended": BlastRadius { held, ..ended } })))
        }
        Request::RevokeToken { token } => {
            let authz = authz.clone();
            let named = Named::read(&authz, &token);
            let ended = db.write(move |tx| access::revoke_token(&authz, tx, uid, &named)).await?;
            Ok(answered(ended.map(|ended| json!({ "revoked": ended }))))
        }
        request => {
            let authz = authz.clone();
            db.write(move |tx| execute(&authz, tx, uid, request)).await
        }
    }
}

/// Reads on a thread that may take its time.
async fn reading<T: Send + 'static>(
    authz: &Authz,
    db: &Db,
    work: impl FnOnce(&Authz, &Conn<'_>) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let db = db.clone();
    super::blocking(authz, move |authz| db.read(|conn| work(authz, conn))).await?
}

/// Does it, in one transaction.
fn execute(authz: &Authz, tx: &Tx<'_>, uid: u32, request: Request) -> Result<Answer, Fault> {
    fn answer<T: Serialize>(name: &str, answer: Result<T, Refusal>) -> Result<Value, Refusal> {
        answer.map(|value| json!({ name: value }))
    }
    let done = match request {
        Request::Grants { user, client } => {
            answer("grants", access::grants(tx, user.as_deref(), client.as_deref())?)
        }
        Request::RevokeGrant { grant } => answer("revoked", access::revoke_grant(authz, tx, uid, &grant)?),
        Request::Sessions { user } => answer("sessions", access::sessions(tx, user.as_deref())?),
        Request::EndSession { session } => {
            answer("ended", access::end_session(tx, uid, &session)?.map(|session| [session]))
        }
        Request::EndSessions { user } => answer("ended", access::end_sessions_of(tx, uid, &user)?),
        // More than a transaction: `perform` has them done.
        Request::RevokeToken { .. } | Request::Measure | Request::Lockdown => {
            return Ok(Answer::error("unknown_command", "this is done elsewhere"));
        }
    };
    Ok(answered(done))
}

fn answered(done: Result<Value, Refusal>) -> Answer {
    match done {
        Ok(value) => Answer::Ok(value),
        Err(refusal) => Answer::error("refused", &refusal.to_string()),
    }
}

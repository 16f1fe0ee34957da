//! Commands about signing keys and the key that seals them.

use std::fmt::Display;
use std::path::PathBuf;

use authz::Authz;
use authz::signing_keys::{self, Refusal};
use keys::seal::Pending;
use keys::{Algorithm, NewKey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::{Db, Fault, Tx};

use super::{Answer, blocking};

/// What is done about which key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Request {
    List,
    Show {
        kid: String,
    },
    Rotate {
        alg: Option<Algorithm>,
        now: bool,
        #[serde(skip)]
        made: Option<NewKey>,
    },
    Remove {
        kid: String,
        reason: String,
        #[serde(skip)]
        made: Option<NewKey>,
    },
    Reseal {
        /// A new file for the new key, where the present one is a credential.
        elsewhere: Option<PathBuf>,
        /// A new file for the old key.
        keep: Option<PathBuf>,
        #[serde(skip)]
        pending: Option<Pending>,
    },
}

impl Request {
    /// Does what takes too long for a transaction, or is no part of one. Blocks.
    pub(super) fn prepare(&mut self, authz: &Authz) -> Result<(), Answer> {
        let broken = |error: &dyn Display| Answer::error("unavailable", &error.to_string());
        match self {
            Self::List | Self::Show { .. } => {}
            Self::Rotate { alg, made, .. } => {
                *made = Some(signing_keys::make(authz, *alg).map_err(|e| broken(&e))?);
            }
            Self::Remove { kid, made, .. } => {
                *made = signing_keys::make_successor(authz, kid).map_err(|e| broken(&e))?;
            }
            Self::Reseal { elsewhere, keep, pending } => {
                let prepared = signing_keys::prepare_reseal(authz, elsewhere.as_deref(), keep.as_deref());
                *pending = Some(prepared.map_err(|e| Answer::error("refused", &e.to_string()))?);
            }
        }
        Ok(())
    }

    /// What is left to do once the transaction is committed.
    pub(super) fn pending(&self) -> Option<Pending> {
        match self {
            Self::Reseal { pending, .. } => pending.clone(),
            _ => None,
        }
    }
}

/// Does it, in one transaction. What [`Request::prepare`] makes must be there.
fn execute(authz: &Authz, tx: &Tx<'_>, uid: u32, request: Request) -> Result<Answer, Fault> {
    fn answer<T: Serialize>(name: &str, answer: Result<T, Refusal>) -> Answer {
        match answer {
            Ok(value) => Answer::Ok(json!({ name: value })),
            Err(refusal) => Answer::error("refused", &refusal.to_string()),
        }
    }
    Ok(match request {
        Request::List => Answer::Ok(json!({ "keys": signing_keys::list(authz, tx)? })),
        Request::Show { kid } => match signing_keys::inspect(authz, tx, &kid)? {
            Ok(inspected) => Answer::Ok(serde_json::to_value(inspected).unwrap_or(Value::Null)),
            Err(refusal) => Answer::error("refused", &refusal.to_string()),
        },
        Request::Rotate { now, made, .. } => {
            let made = made.ok_or(Fault::Busy)?;
            answer("rotated", signing_keys::rotate(authz, tx, uid, &made, now)?)
        }
        Request::Remove { kid, reason, made } => {
            answer("removed", signing_keys::remove(authz, tx, uid, &kid, &reason, made.as_ref())?)
        }
        Request::Reseal { pending, .. } => {
            let pending = pending.ok_or(Fault::Busy)?;
            Answer::Ok(json!({ "resealed": signing_keys::reseal(authz, tx, uid, &pending)? }))
        }
    })
}

/// Has a command about keys done: what takes a moment first, then its transaction, then what only makes sense
/// after it.
pub(super) async fn perform(authz: &Authz, db: &Db, uid: u32, mut request: Request) -> Result<Answer, Fault> {
    let prepared = blocking(authz, move |authz| request.prepare(authz).map(|()| request)).await?;
    let request = match prepared {
        Ok(request) => request,
        Err(refused) => return Ok(refused),
    };
    let (pending, executing) = (request.pending(), authz.clone());
    let answer = db.write(move |tx| execute(&executing, tx, uid, request)).await?;
    if let Some(pending) = pending {
        let finished = blocking(authz, move |authz| signing_keys::finish_reseal(authz, &pending)).await?;
        if let Err(error) = finished {
            // Done all the same: the file has both keys, and the next start takes the old one out.
            tracing::error!(keys.error = %error, "the old seal key could not be taken out of its file");
        }
    }
    Ok(answer)
}

//! Commands about signing keys.

use authz::Authz;
use authz::signing_keys::{self, Refusal};
use keys::{Algorithm, NewKey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::{Fault, Tx};

use super::Answer;

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
}

impl Request {
    /// Makes the key that the command will need: that takes too long for a transaction. Blocks.
    pub(super) fn prepare(&mut self, authz: &Authz) -> Result<(), Fault> {
        match self {
            Self::List | Self::Show { .. } => {}
            Self::Rotate { alg, made, .. } => {
                let key = signing_keys::make(authz, *alg);
                *made = Some(key.map_err(|error| Fault::Storage(error.to_string()))?);
            }
            Self::Remove { kid, made, .. } => *made = signing_keys::make_successor(authz, kid)?,
        }
        Ok(())
    }
}

/// Does it, in one transaction.
pub(super) fn execute(authz: &Authz, tx: &Tx<'_>, uid: u32, request: Request) -> Result<Answer, Fault> {
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
    })
}

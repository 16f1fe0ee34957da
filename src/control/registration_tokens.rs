//! Commands about initial access tokens.

use std::time::Duration;

use authz::Authz;
use authz::clients::initial_access;
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::{Fault, Tx};

use super::Answer;

/// What is done about which token. A token is named by its label.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Request {
    Add {
        label: String,
        /// How long it works, in milliseconds.
        lifetime_ms: u64,
    },
    List,
    Delete {
        label: String,
    },
}

/// Does it, in one transaction.
pub(super) fn execute(authz: &Authz, tx: &Tx<'_>, uid: u32, request: Request) -> Result<Answer, Fault> {
    let refused = |refusal: &initial_access::Refusal| Answer::error("refused", &refusal.to_string());
    let needed = initial_access::are_needed(authz);
    Ok(match request {
        Request::Add { label, lifetime_ms } => {
            match initial_access::add(tx, uid, &label, Duration::from_millis(lifetime_ms))? {
                Ok((token, secret)) => Answer::Ok(json!({
                    "registration_token": token,
                    "initial_access_token": secret.expose(),
                    "needed": needed,
                })),
                Err(refusal) => refused(&refusal),
            }
        }
        Request::List => {
            Answer::Ok(json!({ "registration_tokens": initial_access::list(tx)?, "needed": needed }))
        }
        Request::Delete { label } => match initial_access::delete(tx, uid, &label)? {
            Ok(()) => Answer::Ok(json!({ "deleted": label })),
            Err(refusal) => refused(&refusal),
        },
    })
}

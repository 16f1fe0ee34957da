//! Commands about clients.

use std::time::Duration;

use authz::Authz;
use authz::clients::administration::{self, Details, Refusal};
use authz::clients::preregistered::Description;
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::{Fault, Tx};

use super::Answer;

/// What is done about which client. A client is named by its id or its name.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Request {
    Add {
        description: Description,
        /// How long its secret lasts, in milliseconds.
        lifetime_ms: Option<u64>,
    },
    RotateSecret {
        client: String,
        overlap_ms: u64,
        lifetime_ms: Option<u64>,
    },
    List,
    Show {
        client: String,
    },
    Verify {
        client: String,
    },
    Unverify {
        client: String,
    },
    Disable {
        client: String,
    },
    Enable {
        client: String,
    },
    Delete {
        client: String,
    },
}

/// Does it, in one transaction.
pub(super) fn execute(authz: &Authz, tx: &Tx<'_>, uid: u32, request: Request) -> Result<Answer, Fault> {
    let client = |answer: Result<Details, Refusal>| match answer {
        Ok(client) => Answer::Ok(json!({ "client": client })),
        Err(refusal) => Answer::error("refused", &refusal.to_string()),
    };
    let time = |ms: Option<u64>| ms.map(Duration::from_millis);
    Ok(match request {
        Request::Add { description, lifetime_ms } => {
            match administration::add(authz, tx, uid, &description, time(lifetime_ms))? {
                Ok((client, None)) => Answer::Ok(json!({ "client": client })),
                Ok((client, Some(secret))) => {
                    Answer::Ok(json!({ "client": client, "client_secret": secret.expose() }))
                }
                Err(refusal) => Answer::error("refused", &refusal.to_string()),
            }
        }
        Request::RotateSecret { client: who, overlap_ms, lifetime_ms } => {
            let overlap = Duration::from_millis(overlap_ms);
            match administration::rotate_secret(authz, tx, uid, &who, overlap, time(lifetime_ms))? {
                Ok(issued) => Answer::Ok(json!({
                    "client": issued.client,
                    "client_secret": issued.secret.expose(),
                    "previous_ends_at": issued.previous_ends_at,
                })),
                Err(refusal) => Answer::error("refused", &refusal.to_string()),
            }
        }
        Request::List => Answer::Ok(json!({ "clients": administration::list(tx)? })),
        Request::Show { client: who } => client(administration::show(authz, tx, &who)?),
        Request::Verify { client: who } => client(administration::verify(authz, tx, uid, &who)?),
        Request::Unverify { client: who } => client(administration::unverify(authz, tx, uid, &who)?),
        Request::Disable { client: who } => client(administration::disable(authz, tx, uid, &who)?),
        Request::Enable { client: who } => client(administration::enable(authz, tx, uid, &who)?),
        Request::Delete { client: who } => client(administration::delete(authz, tx, uid, &who)?),
    })
}

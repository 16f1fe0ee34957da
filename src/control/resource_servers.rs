//! Commands about resource servers.

use std::time::Duration;

use authz::Authz;
use authz::resource_servers::{self, Proof, ResourceServer};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::{Fault, Secret, Tx};

use super::Answer;

/// What is done about which resource server. One is named by its id or its name.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Request {
    Add { name: String, audiences: Vec<String>, proof: Proof },
    List,
    Show { name: String },
    RotateSecret { name: String, overlap_ms: u64 },
    Delete { name: String },
}

/// Does it, in one transaction.
pub(super) fn execute(authz: &Authz, tx: &Tx<'_>, uid: u32, request: Request) -> Result<Answer, Fault> {
    let done = match request {
        Request::Add { name, audiences, proof } => {
            let added = resource_servers::add(authz, tx, uid, (&name, &audiences), &proof)?;
            added.map(|(server, secret)| with_secret(&server, secret.as_ref()))
        }
        Request::List => Ok(json!({ "resource_servers": resource_servers::list(tx)? })),
        Request::Show { name } => resource_servers::show(tx, &name)?.map(|server| with_secret(&server, None)),
        Request::RotateSecret { name, overlap_ms } => {
            let overlap = Duration::from_millis(overlap_ms);
            let rotated = resource_servers::rotate_secret(authz, tx, uid, &name, overlap)?;
            rotated.map(|(server, secret)| with_secret(&server, Some(&secret)))
        }
        Request::Delete { name } => {
            resource_servers::delete(authz, tx, uid, &name)?.map(|server| with_secret(&server, None))
        }
    };
    Ok(match done {
        Ok(value) => Answer::Ok(value),
        Err(refusal) => Answer::error("refused", &refusal.to_string()),
    })
}

fn with_secret(server: &ResourceServer, secret: Option<&Secret>) -> Value {
    let mut value = json!({ "resource_server": server });
    if let Some(secret) = secret {
        value["client_secret"] = secret.expose().into();
    }
    value
}

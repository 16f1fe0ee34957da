//! Commands about clients.

use authz::Authz;
use authz::clients::administration::{self, Details, Refusal};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::{Fault, Tx};

use super::Answer;

/// What is done about which client. A client is named by its id or its name.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Request {
    List,
    Show { client: String },
    Verify { client: String },
    Unverify { client: String },
    Disable { client: String },
    Enable { client: String },
    Delete { client: String },
}

/// Does it, in one transaction.
pub(super) fn execute(authz: &Authz, tx: &Tx<'_>, uid: u32, request: Request) -> Result<Answer, Fault> {
    let client = |answer: Result<Details, Refusal>| match answer {
        Ok(client) => Answer::Ok(json!({ "client": client })),
        Err(refusal) => Answer::error("refused", &refusal.to_string()),
    };
    Ok(match request {
        Request::List => Answer::Ok(json!({ "clients": administration::list(tx)? })),
        Request::Show { client: who } => client(administration::show(tx, &who)?),
        Request::Verify { client: who } => client(administration::verify(authz, tx, uid, &who)?),
        Request::Unverify { client: who } => client(administration::unverify(authz, tx, uid, &who)?),
        Request::Disable { client: who } => client(administration::disable(authz, tx, uid, &who)?),
        Request::Enable { client: who } => client(administration::enable(authz, tx, uid, &who)?),
        Request::Delete { client: who } => client(administration::delete(authz, tx, uid, &who)?),
    })
}

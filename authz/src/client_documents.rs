//! Client id metadata documents, as an administrator at the console sees and changes them (CIMD-05, CIMD-09,
//! CIMD-13).
//!
//! What changes who may be answered where is shown first: a [`Command`] without `confirm` changes nothing and
//! answers with a [`Change`], and the same command goes through with that change's `state`, if nothing has
//! happened since.

mod approvals;
mod catalogue;
mod import;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::{Fault, Tx};

use crate::Authz;
use crate::clients::metadata_document::catalogue::NotTaken;
use crate::people::accepted;

/// What an administrator wants.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Command {
    /// Takes a document in place of whatever is known of its URL.
    Import {
        body: String,
        /// What the document's `client_id` has to be, if it was named.
        url: Option<String>,
        confirm: Option<String>,
    },
    /// Forgets an imported document. The built-in catalogue counts again, if it has one.
    Remove {
        url: String,
        confirm: Option<String>,
    },
    CatalogueList,
    /// Switches an entry of the built-in catalogue off: its clients are not let in any more.
    CatalogueDisable {
        entry: String,
    },
    CatalogueEnable {
        entry: String,
    },
    /// Takes every document of a catalogue.
    CatalogueImport {
        body: String,
        confirm: Option<String>,
    },
    ApprovalsList,
    /// Takes a document for a client that users asked for: one that is brought, or what the request says.
    Approve {
        url: String,
        body: Option<String>,
        confirm: Option<String>,
    },
    /// Removes what users asked for.
    RefuseApproval {
        url: String,
    },
}

/// What a command does, or would do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Change {
    pub url: String,
    /// What is known of the client now, in the words of RFC 7591 with its `source`; nothing if it is not known.
    pub before: Option<Value>,
    pub after: Option<Value>,
    /// What differs between the two.
    pub changed_fields: Vec<String>,
    /// How many grants end.
    pub grants_ended: usize,
    pub applied: bool,
    /// What to confirm with: it stands for all of the above.
    pub state: String,
}

/// Why a command is refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("the document {0}")]
    NotTaken(String),
    #[error("the document has no `client_id`; it must be the URL that the document is served at")]
    NoClientId,
    #[error("the document's client_id is {found}, not {wanted}")]
    OtherClient { found: String, wanted: String },
    #[error("the document's client_name `{0}` looks like this server or a verified client")]
    NameTaken(String),
    #[error("the catalogue {0}")]
    BadCatalogue(String),
    #[error("no imported document for {0}; `portcullis client list` shows all clients")]
    NotImported(String),
    #[error("no entry `{0}` in the built-in catalogue; `portcullis client catalogue list` shows all entries")]
    NoEntry(String),
    #[error("no approval request for {0}; `portcullis client approvals list` shows all open requests")]
    NotAskedFor(String),
    #[error("the client changed while you were looking at it; run the command again")]
    ChangedMeanwhile,
}

impl From<NotTaken> for Refusal {
    fn from(why: NotTaken) -> Self {
        Self::NotTaken(why.to_string())
    }
}

/// A refusal is an answer; a fault rolls back.
type Answer<T> = Result<Result<T, Refusal>, Fault>;

/// Does what an administrator at the console wants, and answers with what they are shown.
///
/// # Errors
/// The database's fault.
pub fn execute(authz: &Authz, tx: &Tx<'_>, uid: u32, command: Command) -> Answer<Value> {
    let json = |value: Result<Value, serde_json::Error>| value.map_err(|e| Fault::Corrupt(e.to_string()));
    let change = |answer: Result<Change, Refusal>| match answer {
        Ok(change) => {
            json(serde_json::to_value(change)).map(|change| Ok(serde_json::json!({ "change": change })))
        }
        Err(refusal) => Ok(Err(refusal)),
    };
    match command {
        Command::Import { body, url, confirm } => {
            change(import::one(authz, tx, uid, &body, url.as_deref(), confirm.as_deref())?)
        }
        Command::Remove { url, confirm } => change(import::remove(authz, tx, uid, &url, confirm.as_deref())?),
        Command::CatalogueList => Ok(Ok(catalogue::list(tx)?)),
        Command::CatalogueDisable { entry } => catalogue::disable(authz, tx, uid, &entry),
        Command::CatalogueEnable { entry } => catalogue::enable(tx, uid, &entry),
        Command::CatalogueImport { body, confirm } => {
            catalogue::import(authz, tx, uid, &body, confirm.as_deref())
        }
        Command::ApprovalsList => Ok(Ok(approvals::list(tx)?)),
        Command::Approve { url, body, confirm } => {
            change(approvals::approve(authz, tx, uid, &url, body.as_deref(), confirm.as_deref())?)
        }
        Command::RefuseApproval { url } => approvals::refuse(tx, uid, &url),
    }
}

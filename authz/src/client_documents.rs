//! Client id metadata documents, as an administrator at the console sees and changes them (CIMD-05, CIMD-09,
//! CIMD-13).
//!
//! What changes who may be answered where is shown first: without `confirm` nothing is changed, and the answer is a
//! [`Change`]; the same goes through with that change's `state`, if nothing has happened since.

pub mod approvals;
pub mod catalogue;
pub mod import;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::Fault;

use crate::clients::metadata_document::catalogue::NotTaken;
use crate::people::accepted;

/// What is done, or would be.
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
pub type Answer<T> = Result<Result<T, Refusal>, Fault>;

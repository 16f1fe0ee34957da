//! Client id metadata documents in the administrator's commands (CIMD-05, CIMD-09, CIMD-13).
//!
//! A command that changes where a client's answers may go first shows its effect: without `confirm` it changes
//! nothing and answers with a [`Change`]. Repeated with that change's `state` it is carried out, provided that
//! nothing has changed meanwhile.

pub mod approvals;
pub mod catalogue;
pub mod import;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::Fault;

use crate::clients::metadata_document::catalogue::DocumentRefusal;
use crate::people::accepted;

/// A change to a client's document, made or proposed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Change {
    pub url: String,
    /// What is known of the client now, as RFC 7591 metadata plus `source`; `None` if nothing is known.
    pub before: Option<Value>,
    pub after: Option<Value>,
    /// The members that differ between before and after.
    pub changed_fields: Vec<String>,
    /// How many grants end.
    pub grants_ended: usize,
    pub applied: bool,
    /// The confirmation value: a digest of everything above.
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

impl From<DocumentRefusal> for Refusal {
    fn from(why: DocumentRefusal) -> Self {
        Self::NotTaken(why.to_string())
    }
}

/// A refusal is an answer; a fault rolls back.
pub type Answer<T> = Result<Result<T, Refusal>, Fault>;

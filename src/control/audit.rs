//! Commands about the audit log that write to it.

use keys::{Checkpoints, KeysError};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::audit::{self, Event, Name};
use shared::{Db, Fault};

use super::Answer;

/// What is done with the log.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Request {
    /// Signs what is on record.
    Checkpoint,
    /// The same, and puts on record that all of it is written to a file.
    Export,
}

/// Has it done.
pub(super) async fn perform(
    checkpoints: &Checkpoints,
    db: &Db,
    uid: u32,
    request: Request,
) -> Result<Answer, Fault> {
    let made = {
        let checkpoints = checkpoints.clone();
        tokio::task::spawn_blocking(move || checkpoints.make(|event| event.by_console(uid))).await
    };
    let made = match made.map_err(|error| Fault::Storage(error.to_string()))? {
        Ok(made) => made,
        Err(KeysError::Fault(fault)) => return Err(fault),
        Err(other) => return Ok(Answer::error("unavailable", &other.to_string())),
    };
    let exported = match request {
        Request::Checkpoint => None,
        Request::Export => {
            let job = move |tx: &shared::Tx<'_>| {
                let to = audit::head(tx)?.seq();
                audit::append(tx, Event::allowed(Name::AuditExported).by_console(uid).detail("to", to))?;
                Ok(to)
            };
            Some(db.write(job).await?)
        }
    };
    Ok(Answer::Ok(json!({ "made": made, "exported_to": exported })))
}

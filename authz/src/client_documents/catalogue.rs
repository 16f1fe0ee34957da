//! The built-in catalogue in the administrator's commands (CIMD-13).

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::audit::{self, Event, Name};
use shared::{Fault, Tx};

use super::import::{Plan, sha256};
use super::{Answer, Change, Refusal, accepted};
use crate::Authz;
use crate::clients::metadata_document::catalogue::{self, Entry};
use crate::ending;
use crate::store::client_documents::{self, Origin};
use crate::store::clients::{self, Source};
use crate::store::grants::Reason;

/// A catalogue entry and its state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listed {
    pub name: String,
    pub source: String,
    pub date: String,
    pub note: Option<String>,
    pub document: Value,
    /// `enabled`, `disabled`, or `overridden` by an imported document.
    pub state: String,
}

/// The result of enabling or disabling an entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Switched {
    pub entry: String,
    pub state: String,
}

/// What an import changes, or would change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Changes {
    pub changes: Vec<Change>,
    pub applied: bool,
    /// The confirmation value: a digest of all changes.
    pub state: String,
}

/// Every entry with its state.
///
/// # Errors
/// A database fault.
pub fn list(tx: &Tx<'_>) -> Result<Vec<Listed>, Fault> {
    let listed = |entry: &Entry| {
        let state = state(tx, entry)?.to_owned();
        let Entry { name, source, date, note, document } = entry.clone();
        Ok(Listed { name, source, date, note, document, state })
    };
    catalogue::entries().iter().map(listed).collect()
}

fn state(tx: &Tx<'_>, entry: &Entry) -> Result<&'static str, Fault> {
    let imported = client_documents::find(tx, entry.client_id())?;
    if imported.is_some_and(|stored| stored.origin == Origin::Imported) {
        return Ok("overridden");
    }
    Ok(if client_documents::is_disabled(tx, entry.client_id())? { "disabled" } else { "enabled" })
}

fn switched(tx: &Tx<'_>, entry: &Entry) -> Result<Switched, Fault> {
    Ok(Switched { entry: entry.name.clone(), state: state(tx, entry)?.to_owned() })
}

/// Disables an entry and ends the grants of its clients. Answers with their number.
///
/// # Errors
/// A database fault.
pub fn disable(authz: &Authz, tx: &Tx<'_>, uid: u32, name: &str) -> Answer<(Switched, usize)> {
    let entry = accepted!(find(name));
    let mut grants_ended = 0;
    if client_documents::disable_entry(tx, entry.client_id())? {
        for id in clients::by_document(tx)? {
            let member = catalogue::is_member(entry.client_id(), id.as_str());
            if member && clients::find(tx, &id)?.is_some_and(|row| row.source == Source::Catalogue) {
                grants_ended += ending::all_through(authz, tx, &id, Reason::ClientDisabled)?;
            }
        }
        let event = Event::allowed(Name::ClientDisabled).by_console(uid).subject(&entry.name);
        let event = event.detail("source", Source::Catalogue.as_str()).detail("url", entry.client_id());
        audit::append(tx, event.detail("grants_ended", grants_ended))?;
    }
    Ok(Ok((switched(tx, entry)?, grants_ended)))
}

/// Enables an entry again.
///
/// # Errors
/// A database fault.
pub fn enable(tx: &Tx<'_>, uid: u32, name: &str) -> Answer<Switched> {
    let entry = accepted!(find(name));
    if client_documents::enable_entry(tx, entry.client_id())? {
        let event = Event::allowed(Name::ClientUpdated).by_console(uid).subject(&entry.name);
        let event = event.detail("source", Source::Catalogue.as_str()).detail("url", entry.client_id());
        audit::append(tx, event.detail("changed_fields", vec!["enabled"]))?;
    }
    Ok(Ok(switched(tx, entry)?))
}

/// Imports every document of a catalogue file: a newer version of the built-in one, or a site's own.
///
/// # Errors
/// A database fault.
pub fn import(authz: &Authz, tx: &Tx<'_>, uid: u32, body: &str, confirm: Option<&str>) -> Answer<Changes> {
    let entries = match catalogue::parse(body.as_bytes()) {
        Ok(entries) => entries,
        Err(why) => {
            let event = Event::denied(Name::CimdRefused, "catalogue_not_taken").by_console(uid);
            audit::append(
                tx,
                event.detail("doc_sha256", sha256(body.as_bytes())).detail("why", why.as_str()),
            )?;
            return Ok(Err(Refusal::BadCatalogue(why)));
        }
    };
    let mut plans = Vec::new();
    for entry in entries {
        let plan = accepted!(Plan::of(authz, tx, &entry.document.to_string(), Some(entry.client_id()))?);
        // If nothing would change, no confirmation is needed.
        if !plan.change.changed_fields.is_empty() {
            plans.push(plan);
        }
    }
    let states: Vec<&str> = plans.iter().map(|plan| plan.change.state.as_str()).collect();
    let state = sha256(states.join(" ").as_bytes());
    let Some(confirm) = confirm else {
        let changes = plans.into_iter().map(|plan| plan.change).collect();
        return Ok(Ok(Changes { changes, applied: false, state }));
    };
    if confirm != state {
        return Ok(Err(Refusal::ChangedMeanwhile));
    }
    let changes = plans.into_iter().map(|plan| plan.apply(authz, tx, uid));
    let changes = changes.collect::<Result<Vec<_>, _>>()?;
    Ok(Ok(Changes { changes, applied: true, state }))
}

/// The entry with this name or client id.
fn find(name: &str) -> Result<&'static Entry, Refusal> {
    let mut entries = catalogue::entries().iter();
    let found = entries
        .find(|e| e.name == name || catalogue::is_member(e.client_id(), name) || e.client_id() == name);
    found.ok_or_else(|| Refusal::NoEntry(name.to_owned()))
}

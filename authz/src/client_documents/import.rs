//! Imports and removes a client id metadata document (CIMD-05).

use serde_json::Value;
use shared::audit::{self, Event, Name};
use shared::{ClientId, Digest, Fault, Tx, json};

use super::{Answer, Change, Refusal, accepted};
use crate::Authz;
use crate::clients::metadata_document::catalogue;
use crate::clients::metadata_document::{Document, DocumentUrl};
use crate::clients::names;
use crate::clients::{changed_fields, registration_of, summary};
use crate::ending;
use crate::store::approval_requests;
use crate::store::client_documents::{self, Origin};
use crate::store::clients::{self, Client, Source};
use crate::store::grants::{self, Reason};

/// Imports one document (CIMD-05), replacing what is known of its URL. The URL is `url` or the document's
/// `client_id`.
///
/// # Errors
/// A database fault.
pub fn one(
    authz: &Authz,
    tx: &Tx<'_>,
    uid: u32,
    body: &str,
    url: Option<&str>,
    confirm: Option<&str>,
) -> Answer<Change> {
    let plan = match Plan::of(authz, tx, body, url)? {
        Ok(plan) => plan,
        Err(refusal) => {
            let event = Event::denied(Name::CimdRefused, "document_not_taken").by_console(uid);
            audit::append(
                tx,
                event.detail("doc_sha256", sha256(body.as_bytes())).detail("why", refusal.to_string()),
            )?;
            return Ok(Err(refusal));
        }
    };
    let Some(confirm) = confirm else { return Ok(Ok(plan.change)) };
    if confirm != plan.change.state {
        return Ok(Err(Refusal::ChangedMeanwhile));
    }
    Ok(Ok(plan.apply(authz, tx, uid)?))
}

/// An import before it is made: the document and its effects.
pub(super) struct Plan {
    /// The client id, or the pattern of a family of ids.
    key: String,
    body: String,
    /// The existing clients under that id.
    clients: Vec<Client>,
    pub change: Change,
}

impl Plan {
    /// Computes what importing this document would change.
    pub(super) fn of(authz: &Authz, tx: &Tx<'_>, body: &str, url: Option<&str>) -> Answer<Self> {
        let named = json::object(body.as_bytes()).ok();
        let named = named.as_ref().and_then(|members| members.get("client_id")).and_then(Value::as_str);
        // Everything else in the document is checked below.
        let Some(key) = named.or(url) else { return Ok(Err(Refusal::NoClientId)) };
        if let Some(wanted) = url.filter(|wanted| *wanted != key) {
            return Ok(Err(Refusal::OtherClient { found: key.to_owned(), wanted: wanted.to_owned() }));
        }
        let document = accepted!(catalogue::check_family(key, body.as_bytes()).map_err(Refusal::from));
        let itself = |id: &ClientId, _| catalogue::is_member(key, id.as_str());
        if names::taken(&authz.issuer, tx, &document.name, itself)?.is_some() {
            return Ok(Err(Refusal::NameTaken(document.name)));
        }
        let mut clients = Vec::new();
        for id in rows(tx, key)? {
            let Ok(url) = DocumentUrl::parse(id.as_str()) else { continue };
            if let Some(Ok(document)) = catalogue::document(key, body, &url) {
                clients.push(document.client(&url, Source::Imported));
            }
        }
        // A catalogue client that was never used has no row. It gets one now, so that it is listed and can be
        // disabled.
        if let (true, Ok(url)) = (clients.is_empty(), DocumentUrl::parse(key)) {
            clients.push(document.client(&url, Source::Imported));
        }
        let after = shown(key, &document, Source::Imported);
        let before = before(tx, key)?;
        let grants_ended = grants_of_others(tx, &clients)?;
        Ok(Ok(Self {
            change: change(key, before, Some(after), grants_ended),
            key: key.to_owned(),
            body: body.to_owned(),
            clients,
        }))
    }

    /// Carries out the import. Grants that were given to any other record of the URL end (CIMD-09); consents
    /// that were given to an older version of the document are forgotten.
    pub(super) fn apply(self, authz: &Authz, tx: &Tx<'_>, uid: u32) -> Result<Change, Fault> {
        let mut change = self.change;
        client_documents::import(tx, &self.key, self.body.as_bytes(), &format!("uid {uid}"))?;
        approval_requests::delete(tx, &self.key)?;
        change.grants_ended = 0;
        for client in &self.clients {
            let summary = summary(client).to_string();
            let registration = registration_of(client, &summary);
            let Some(row) = clients::find(tx, &client.id)? else {
                clients::insert(tx, client, &registration)?;
                continue;
            };
            if row.source != Source::Imported {
                change.grants_ended += ending::all_through(authz, tx, &client.id, Reason::ClientChanged)?;
            } else if !changed_fields(&row, client).is_empty() {
                clients::forget_consents(tx, &client.id)?;
            }
            clients::follow_document(tx, client, &registration)?;
            authz.status.set_ceiling(tx, &client.id, client.trust.ceiling());
        }
        let event = Event::allowed(Name::CimdImported).by_console(uid).detail("url", self.key.as_str());
        audit::append(
            tx,
            event
                .detail("doc_sha256", sha256(self.body.as_bytes()))
                .detail("changed_fields", change.changed_fields.clone())
                .detail("grants_ended", change.grants_ended)
                .detail("before", change.before.clone().unwrap_or_default())
                .detail("after", change.after.clone().unwrap_or_default()),
        )?;
        change.applied = true;
        Ok(change)
    }
}

/// Removes an imported document; the built-in catalogue's entry applies again, if there is one. The grants of
/// its clients end.
///
/// # Errors
/// A database fault.
pub fn remove(authz: &Authz, tx: &Tx<'_>, uid: u32, url: &str, confirm: Option<&str>) -> Answer<Change> {
    let stored = client_documents::find(tx, url)?.filter(|stored| stored.origin == Origin::Imported);
    let Some(stored) = stored else { return Ok(Err(Refusal::NotImported(url.to_owned()))) };
    let mut ids = Vec::new();
    for id in rows(tx, url)? {
        if clients::find(tx, &id)?.is_some_and(|row| row.source == Source::Imported) {
            ids.push(id);
        }
    }
    let mut live = 0;
    for id in &ids {
        live += grants::count_live_through(tx, id)?;
    }
    // What applies from now on.
    let after = catalogue::entries().iter().find(|entry| entry.client_id() == url);
    let after = match after {
        Some(entry) if !client_documents::is_disabled(tx, url)? => {
            catalogue::check_family(url, &entry.body())
                .ok()
                .map(|document| shown(url, &document, Source::Catalogue))
        }
        _ => None,
    };
    let mut change = change(url, before(tx, url)?, after, live);
    let Some(confirm) = confirm else { return Ok(Ok(change)) };
    if confirm != change.state {
        return Ok(Err(Refusal::ChangedMeanwhile));
    }
    client_documents::remove_imported(tx, url)?;
    for id in &ids {
        ending::client(authz, tx, id)?;
    }
    let event =
        Event::allowed(Name::ClientDeleted).by_console(uid).detail("source", "imported").detail("url", url);
    audit::append(tx, event.detail("doc_sha256", sha256(&stored.body)).detail("grants_ended", live))?;
    change.applied = true;
    Ok(Ok(change))
}

/// The metadata known of a client now, found as CIMD-01 says; otherwise as the client was last seen.
fn before(tx: &Tx<'_>, key: &str) -> Result<Option<Value>, Fault> {
    let stored = client_documents::find(tx, key)?;
    let shown = |body: &[u8], source| {
        catalogue::check_family(key, body).ok().map(|document| shown(key, &document, source))
    };
    if let Some(stored) = stored.as_ref().filter(|stored| stored.origin == Origin::Imported) {
        return Ok(shown(&stored.body, Source::Imported));
    }
    let entry = catalogue::entries().iter().find(|entry| entry.client_id() == key);
    if let Some(entry) = entry
        && !client_documents::is_disabled(tx, key)?
    {
        return Ok(shown(&entry.body(), Source::Catalogue));
    }
    if let Some(stored) = stored {
        return Ok(shown(&stored.body, Source::Fetched));
    }
    let row = match ClientId::parse(key) {
        Some(id) => clients::find(tx, &id)?,
        None => None,
    };
    Ok(row.map(|row| with_source(summary(&row), row.source)))
}

fn with_source(mut summary: Value, source: Source) -> Value {
    summary["source"] = source.as_str().into();
    summary
}

/// A document as RFC 7591 metadata; a family's keeps its placeholder.
fn shown(key: &str, document: &Document, source: Source) -> Value {
    let sample = key.replace(catalogue::PLACEHOLDER, catalogue::SAMPLE);
    let summary = DocumentUrl::parse(&sample).map(|url| summary(&document.client(&url, source)));
    let text = summary.unwrap_or_default().to_string();
    let text = if key == sample { text } else { text.replace(catalogue::SAMPLE, catalogue::PLACEHOLDER) };
    with_source(serde_json::from_str(&text).unwrap_or_default(), source)
}

/// The clients that have a row under a client id, or under a family's pattern.
fn rows(tx: &Tx<'_>, key: &str) -> Result<Vec<ClientId>, Fault> {
    let all = clients::by_document(tx)?.into_iter();
    Ok(all.filter(|id| catalogue::is_member(key, id.as_str())).collect())
}

/// Counts the grants of clients whose record was not imported.
fn grants_of_others(tx: &Tx<'_>, clients: &[Client]) -> Result<usize, Fault> {
    let mut live = 0;
    for client in clients {
        if clients::find(tx, &client.id)?.is_some_and(|row| row.source != Source::Imported) {
            live += grants::count_live_through(tx, &client.id)?;
        }
    }
    Ok(live)
}

fn change(url: &str, before: Option<Value>, after: Option<Value>, grants_ended: usize) -> Change {
    let mut changed_fields = Vec::new();
    for field in
        ["source", "client_name", "redirect_uris", "grant_types", "token_endpoint_auth_method", "jwks"]
    {
        let of = |side: &Option<Value>| side.as_ref().and_then(|side| side.get(field)).cloned();
        if of(&before) != of(&after) {
            changed_fields.push(field.to_owned());
        }
    }
    let all = serde_json::json!([url, before, after, grants_ended]);
    Change {
        url: url.to_owned(),
        changed_fields,
        grants_ended,
        applied: false,
        state: sha256(all.to_string().as_bytes()),
        before,
        after,
    }
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Digest::of(bytes).0)
}

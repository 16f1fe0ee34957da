//! The cache of fetched documents (CIMD-07, CIMD-08). Concurrent requests share one fetch, documents are kept
//! while they are valid, and each requester has a rate limit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use shared::audit::{self, Event, Name};
use shared::{ClientId, Digest, Fault, Request};
use tokio::sync::OnceCell;

use super::fetch::{FetchError, Fetched, fetch};
use super::{Document, DocumentUrl, catalogue};
use crate::Authz;
use crate::clients::names;
use crate::clients::resolution::STALE;
use crate::store::client_documents::{self, Origin};
use crate::store::clients::{self, Source};

/// Fetches in progress.
#[derive(Default)]
pub(crate) struct Fetcher {
    in_flight: Mutex<HashMap<String, Arc<OnceCell<Freshness>>>>,
}

/// The result of refreshing a document.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Freshness {
    /// Nothing had to be fetched, or the fetched document was stored.
    Settled,
    /// The origin is down or was not asked. An older copy may still serve existing grants.
    Down,
    /// The origin answered without a valid document.
    Refused,
}

impl Fetcher {
    /// The fetch of this URL that is in progress.
    fn reading(&self, url: &DocumentUrl) -> Arc<OnceCell<Freshness>> {
        let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(in_flight.entry(url.as_str().to_owned()).or_default())
    }

    fn finished(&self, url: &DocumentUrl, cell: &Arc<OnceCell<Freshness>>) {
        let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        // Another request may have started a new fetch meanwhile.
        if in_flight.get(url.as_str()).is_some_and(|current| Arc::ptr_eq(current, cell)) {
            in_flight.remove(url.as_str());
        }
    }
}

/// Fetches the document of a client id if it is one that is fetched and there is no valid copy. `holds_a_grant`
/// is for requests of clients that already have a grant.
///
/// # Errors
/// A database fault.
pub(crate) async fn freshen(
    authz: &Authz,
    request: &Request,
    client_id: &str,
    holds_a_grant: bool,
) -> Result<Freshness, Fault> {
    let Ok(url) = DocumentUrl::parse(client_id) else { return Ok(Freshness::Settled) };
    if authz.config.cimd.allowed(&url).is_none() || !is_due(authz, &url, holds_a_grant)? {
        return Ok(Freshness::Settled);
    }
    if authz.limits.document(request).is_err() {
        return Ok(Freshness::Down);
    }
    let cell = authz.fetcher.reading(&url);
    let read = cell.get_or_try_init(|| read(authz, request, &url)).await.copied();
    authz.fetcher.finished(&url, &cell);
    read
}

/// Whether this client is known only by fetching, and no copy is valid.
fn is_due(authz: &Authz, url: &DocumentUrl, holds_a_grant: bool) -> Result<bool, Fault> {
    let now = authz.clock.now();
    authz.db.read(|conn| {
        let family = client_documents::imported_families(conn)?;
        if family.iter().any(|family| catalogue::is_member(&family.url, url.as_str()))
            || catalogue::find(url).is_some()
        {
            return Ok(false);
        }
        if let Some(stored) = client_documents::find(conn, url.as_str())? {
            return Ok(matches!(stored.origin, Origin::Fetched { expires_at } if now >= expires_at));
        }
        let by_fetched = |id: &ClientId| {
            clients::find(conn, id).map(|row| row.is_some_and(|r| r.source == Source::Fetched))
        };
        if holds_a_grant { by_fetched(url.id()) } else { Ok(true) }
    })
}

/// Fetches the document and stores it if it is valid. A failure is recorded but not remembered: the next
/// request fetches again.
async fn read(authz: &Authz, request: &Request, url: &DocumentUrl) -> Result<Freshness, Fault> {
    match checked(authz, url).await {
        Ok((fetched, document)) => {
            let (url, request) = (url.clone(), request.clone());
            let (authz, db) = (authz.clone(), authz.db.clone());
            let keep = db.write(move |tx| {
                if names::taken(&authz.issuer, tx, &document.name, |id, _| id == url.id())?.is_some() {
                    let event =
                        Event::denied(Name::CimdRefused, "client_name_taken").client(url.id()).by_server();
                    audit::append(tx, event.request(&request).detail("url", url.as_str()))?;
                    return Ok(Freshness::Refused);
                }
                let expires_at = tx.now() + fetched.lifetime;
                let kept = client_documents::keep_fetched(
                    tx,
                    url.as_str(),
                    &fetched.body,
                    expires_at,
                    tx.now() - STALE,
                    &(&request).into(),
                )?;
                if kept.is_err() {
                    return Ok(Freshness::Down);
                }
                let event = Event::allowed(Name::CimdFetched).client(url.id()).by_server().request(&request);
                let digest = data_encoding::HEXLOWER.encode(&Digest::of(&fetched.body).0);
                audit::append(tx, event.detail("url", url.as_str()).detail("doc_sha256", digest))?;
                Ok(Freshness::Settled)
            });
            keep.await
        }
        Err(error) => {
            tracing::info!(cimd.url = url.as_str(), cimd.error = %error, "a document could not be had");
            refused(authz, request, url, error.reason()).await?;
            Ok(if error.is_down() { Freshness::Down } else { Freshness::Refused })
        }
    }
}

async fn checked(authz: &Authz, url: &DocumentUrl) -> Result<(Fetched, Document), FetchError> {
    let allowed = authz.config.cimd.allowed(url);
    let allowed = allowed.ok_or_else(|| FetchError::Unreachable("it is not allowed".to_owned()))?;
    let fetched = fetch(allowed, url).await?;
    let document = Document::parse(url, &fetched.body)?;
    Ok((fetched, document))
}

async fn refused(
    authz: &Authz,
    request: &Request,
    url: &DocumentUrl,
    reason: &'static str,
) -> Result<(), Fault> {
    let event = Event::denied(Name::CimdRefused, reason).client(url.id()).by_server().request(request);
    let event = event.detail("url", url.as_str());
    authz.db.record(move |tx| audit::append(tx, event)).await
}

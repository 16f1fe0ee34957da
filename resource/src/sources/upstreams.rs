//! The servers behind the gate, as the configuration names them and the database remembers them.

use std::sync::Arc;

use keys::identity::Identities;
use serde_json::value::RawValue;
use shared::{Clock, Db, Fault, Issuer, Secret};
use tokio::sync::watch;

use super::http::{Http, HttpSource};
use super::identity::Credentials;
use super::mcp::definition::offers;
use crate::item::{Offered, SourceName};
use crate::store::snapshots;

/// All of them, the one that was added first at the beginning: it keeps a name that another one claims too (MCP-11).
#[derive(Clone)]
pub struct Upstreams {
    pub(crate) http: Vec<Http>,
    pub(crate) changed: watch::Sender<u64>,
}

/// A server with its credential: the whole value of `Authorization`.
#[derive(Clone, Debug)]
pub struct Configured {
    pub source: HttpSource,
    pub authorization: Option<Secret>,
}

/// Why the servers cannot be used as they are configured.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error(transparent)]
    Fault(#[from] Fault),
    #[error("the credential of [sources.{0}] contains characters that a header cannot carry")]
    Credential(String),
    #[error(
        "[sources.{0}] has `identity = \"jwt\"`, and a gateway alone has no keys to sign with; remove it, or run the whole server"
    )]
    NoKeys(String),
}

impl Default for Upstreams {
    fn default() -> Self {
        Self { http: Vec::new(), changed: watch::Sender::new(0) }
    }
}

impl Upstreams {
    /// Makes the database follow the configuration, and brings along what each server listed before (SRC-02). It blocks,
    /// and waits for no server.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub fn open(
        configured: &[Configured],
        identities: Option<&Identities>,
        issuer: &Issuer,
        db: &Db,
        clock: &Clock,
    ) -> Result<Self, UpstreamError> {
        let targets: Vec<_> =
            configured.iter().map(|one| (one.source.name.clone(), one.source.target())).collect();
        let stored = db.write_blocking(move |tx| snapshots::follow(tx, &targets))?;
        let changed = watch::Sender::new(0);
        let mut http = Vec::new();
        for stored in stored {
            let Some(Configured { source, authorization }) =
                configured.iter().find(|one| one.source.name == stored.name)
            else {
                continue;
            };
            let bad = || UpstreamError::Credential(source.name.clone());
            let mut credentials = Credentials::new(authorization.as_ref()).ok_or_else(bad)?;
            if source.identity {
                let signer = identities.ok_or_else(|| UpstreamError::NoKeys(source.name.clone()))?;
                credentials = credentials.telling(signer.clone(), issuer.clone(), source.url.clone());
            }
            let definitions = db.read(|conn| snapshots::definitions(conn, &stored.id))?;
            http.push(Http::new(source.clone(), credentials, (stored, &definitions), &changed, db, clock));
        }
        Ok(Self { http, changed })
    }
}

/// What these servers listed in their last complete walks, without any of them being asked.
///
/// # Errors
/// A database fault.
pub(crate) fn remembered(db: &Db, sources: &[HttpSource]) -> Result<Vec<Arc<Offered>>, Fault> {
    let stored = db.read(snapshots::all)?;
    let mut all = Vec::new();
    for stored in stored {
        let known =
            sources.iter().find(|source| source.name == stored.name && source.target() == stored.target);
        let Some(source) = known else { continue };
        let written = db.read(|conn| snapshots::definitions(conn, &stored.id))?;
        let written: Vec<_> =
            written.into_iter().filter_map(|text| RawValue::from_string(text).ok()).collect();
        let (offers, _) = offers(&source.name, source.names, &written);
        all.push(Arc::new(Offered { source: SourceName::from(source.name.as_str()), offers }));
    }
    Ok(all)
}

//! The servers behind the gate, from the configuration (MCP-15) and what the database keeps of their lists.

use std::sync::Arc;

use arc_swap::ArcSwap;
use shared::db::Conn;
use shared::outbound::memory::Memory;
use shared::{Fault, Tx};
use tokio::sync::watch;

use super::Source;
use super::declared::{Declared, DeclaredConfigured, DeclaredSource};
use super::endpoint::Endpoint;
use super::identity::{Credentials, SecretLocation};
use super::mcp::definition::offers;
use super::means::Means;
use super::upstream::{Configured, SourceSettings, Upstream};
use crate::item::{Offered, SourceName};
use crate::store::snapshots::{self, Stored};

/// All of them, in the order in which they were added: the first keeps a name that another offers too (MCP-11).
/// Cheap to clone.
#[derive(Clone)]
pub struct Upstreams {
    present: Arc<ArcSwap<Vec<Upstream>>>,
    /// Those whose tools the configuration declares.
    declared: Arc<ArcSwap<Vec<Declared>>>,
    /// Counts up whenever there are others, or one of them offers something else than before.
    changed: watch::Sender<u64>,
    /// For what they answer.
    memory: Memory,
}

/// Why the configured servers cannot be used.
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
    #[error(
        "[sources.{0}] has a secret in the sealed store, and a gateway alone has none; write \"file:/path\" or \"env:NAME\", or run the whole server"
    )]
    NoStore(String),
    #[error("[sources.{0}]: {1}")]
    Declaration(String, String),
}

impl Default for Upstreams {
    fn default() -> Self {
        Self {
            present: Arc::default(),
            declared: Arc::default(),
            changed: watch::Sender::new(0),
            memory: Memory::default(),
        }
    }
}

impl Upstreams {
    /// Updates the database from the configuration, and loads what each server listed before (SRC-02). Blocks,
    /// but waits for no server.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub fn open(
        configured: &[Configured],
        declared: &[DeclaredConfigured],
        means: &Means,
    ) -> Result<Self, UpstreamError> {
        let upstreams = Self::default();
        let others = upstreams.others(configured, declared, means)?;
        let servers = means.db.write_blocking(move |tx| others.take_up(tx))?;
        upstreams.replace(servers);
        Ok(upstreams)
    }

    /// What this configuration makes of the servers, before anything is done. A server that is configured as before
    /// stays, with its sessions.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub fn others(
        &self,
        configured: &[Configured],
        declared: &[DeclaredConfigured],
        means: &Means,
    ) -> Result<Others, UpstreamError> {
        let present = self.all();
        let other = |configured: &Configured| {
            Ok(match present.iter().find(|one| one.is_as(configured)) {
                Some(one) => Other::Stays(one.clone()),
                None => {
                    Other::Begins(Box::new(configured.clone()), Arc::new(credentials(configured, means)?))
                }
            })
        };
        let servers = configured.iter().map(other).collect::<Result<_, UpstreamError>>()?;
        let known = self.declared();
        let declared =
            declared.iter().map(|configured| match known.iter().find(|one| one.is_as(configured)) {
                Some(one) => Ok(one.clone()),
                None => begun(configured, means),
            });
        let declared = declared.collect::<Result<_, UpstreamError>>()?;
        Ok(Others { servers, declared, changed: self.changed.clone(), means: means.clone() })
    }

    /// The same with this memory for what they answer (RATE-07).
    #[must_use]
    pub fn within(self, memory: Memory) -> Self {
        Self { memory, ..self }
    }

    /// The memory for what they answer.
    pub(crate) fn memory(&self) -> Memory {
        self.memory.clone()
    }

    /// The servers at this moment.
    pub(crate) fn all(&self) -> Arc<Vec<Upstream>> {
        self.present.load_full()
    }

    /// Those whose tools the configuration declares, at this moment.
    pub(crate) fn declared(&self) -> Arc<Vec<Declared>> {
        self.declared.load_full()
    }

    /// The one of these with this name.
    pub(crate) fn find_declared(&self, name: &str) -> Option<Declared> {
        self.declared().iter().find(|source| source.is_called(name)).cloned()
    }

    /// All of them, to be run.
    pub(crate) fn sources(&self) -> Vec<Source> {
        Servers { servers: self.all().to_vec(), declared: self.declared().to_vec() }.sources()
    }

    /// Puts others in their place.
    pub(crate) fn replace(&self, servers: Servers) {
        self.present.store(Arc::new(servers.servers));
        self.declared.store(Arc::new(servers.declared));
        self.changed.send_modify(|generation| *generation += 1);
    }

    /// Told whenever there are others, or one of them offers something else.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// A session of a client has ended: what served it alone ends too.
    pub(crate) fn session_ended(&self, session: &str) {
        self.all().iter().for_each(|source| source.session_ended(session));
    }

    /// The server of this name.
    pub(crate) fn find(&self, name: &str) -> Option<Upstream> {
        self.all().iter().find(|source| source.is_called(name)).cloned()
    }
}

/// A source whose tools are declared, with its credentials.
fn begun(configured: &DeclaredConfigured, means: &Means) -> Result<Declared, UpstreamError> {
    let DeclaredConfigured { source, credentials } = configured;
    let all_here = credentials.iter().all(|credential| matches!(credential.kept, SecretLocation::Here(_)));
    if !all_here && means.secrets.is_none() {
        return Err(UpstreamError::NoStore(source.name.clone()));
    }
    let none = Credentials::none(&source.name, source.target(), &means.issuer);
    let showing = none.showing(credentials, None, means.secrets.as_ref());
    let credentials = showing.ok_or_else(|| UpstreamError::Credential(source.name.clone()))?;
    let declared = Declared::new(configured.clone(), Arc::new(credentials), &means.clock);
    declared.map_err(|why| UpstreamError::Declaration(source.name.clone(), why))
}

fn credentials(configured: &Configured, means: &Means) -> Result<Credentials, UpstreamError> {
    let Configured { source, credentials, lists_with } = configured;
    let here = |kept: &SecretLocation| matches!(kept, SecretLocation::Here(_));
    let all_here = credentials.iter().map(|credential| &credential.kept).chain(lists_with).all(here);
    if !all_here && means.secrets.is_none() {
        return Err(UpstreamError::NoStore(source.name.clone()));
    }
    let none = Credentials::none(&source.name, source.target(), &means.issuer);
    let showing = none.showing(credentials, lists_with.as_ref(), means.secrets.as_ref());
    let credentials = showing.ok_or_else(|| UpstreamError::Credential(source.name.clone()))?;
    let Endpoint::Http(address) = &source.endpoint else { return Ok(credentials) };
    if !address.identity {
        return Ok(credentials);
    }
    let signer = means.identities.as_ref().ok_or_else(|| UpstreamError::NoKeys(source.name.clone()))?;
    Ok(credentials.telling(signer.clone(), means.issuer.clone(), address.url.clone()))
}

/// Servers that are ready to take the place of the present ones.
pub struct Servers {
    pub(crate) servers: Vec<Upstream>,
    pub(crate) declared: Vec<Declared>,
}

impl Servers {
    /// All of them, to be run. What the site declares itself comes first, so that no server takes its names (MCP-11).
    pub(crate) fn sources(&self) -> Vec<Source> {
        let declared = self.declared.iter().cloned().map(Source::Declared);
        declared.chain(self.servers.iter().cloned().map(Source::Upstream)).collect()
    }
}

/// Servers as another configuration names them.
pub struct Others {
    servers: Vec<Other>,
    declared: Vec<Declared>,
    changed: watch::Sender<u64>,
    means: Means,
}

enum Other {
    /// It is configured as before.
    Stays(Upstream),
    Begins(Box<Configured>, Arc<Credentials>),
}

impl Other {
    fn settings(&self) -> &SourceSettings {
        match self {
            Self::Stays(upstream) => upstream.settings(),
            Self::Begins(configured, _) => &configured.source,
        }
    }
}

impl Others {
    /// Whether all of these are among them already, and no others.
    pub fn are_as(&self, upstreams: &Upstreams) -> bool {
        let stay = |other: &Other| matches!(other, Other::Stays(_));
        let known = upstreams.declared();
        let same = |one: &Declared| known.iter().any(|other| other.is(one));
        self.servers.len() == upstreams.all().len()
            && self.servers.iter().all(stay)
            && self.declared.len() == known.len()
            && self.declared.iter().all(same)
    }

    /// What they offer before any of them is asked.
    pub(crate) fn offered(&self, conn: &Conn<'_>) -> Result<Vec<Arc<Offered>>, Fault> {
        let settings: Vec<_> = self.servers.iter().map(Other::settings).cloned().collect();
        let mut offered: Vec<_> = self.declared.iter().map(Declared::offered).collect();
        offered.extend(remembered(conn, &settings)?);
        Ok(offered)
    }

    /// Makes the rows follow, and builds those that begin, with what is remembered of each.
    ///
    /// # Errors
    /// The database's fault.
    pub fn take_up(self, tx: &Tx<'_>) -> Result<Servers, Fault> {
        let Self { mut servers, declared, changed, means } = self;
        let targets: Vec<_> =
            servers.iter().map(|other| (other.settings().name.clone(), other.settings().target())).collect();
        let mut built = Vec::with_capacity(servers.len());
        for stored in snapshots::follow(tx, &targets)? {
            let Some(at) = servers.iter().position(|other| other.settings().name == stored.name) else {
                continue;
            };
            built.push(match servers.swap_remove(at) {
                Other::Stays(upstream) => upstream,
                Other::Begins(configured, credentials) => {
                    let definitions = snapshots::definitions(tx, &stored.id)?;
                    Upstream::new(*configured, credentials, (stored, &definitions), &changed, &means)
                }
            });
        }
        Ok(Servers { servers: built, declared })
    }
}

/// Those of these servers of which no complete walk is remembered, so that nobody knows what they offer.
///
/// # Errors
/// A database fault.
pub fn never_walked(conn: &Conn<'_>, sources: &[SourceSettings]) -> Result<Vec<String>, Fault> {
    let stored = snapshots::all(conn)?;
    let is_known = |source: &&SourceSettings| {
        stored.iter().any(|stored| {
            stored.name == source.name && stored.target == source.target() && stored.walked_at.is_some()
        })
    };
    Ok(sources.iter().filter(|source| !is_known(source)).map(|source| source.name.clone()).collect())
}

/// What these servers listed last, without contacting them.
///
/// # Errors
/// A database fault.
pub(crate) fn remembered(conn: &Conn<'_>, sources: &[SourceSettings]) -> Result<Vec<Arc<Offered>>, Fault> {
    let is_known = |source: &SourceSettings, stored: &Stored| {
        source.name == stored.name && source.target() == stored.target
    };
    let mut all = Vec::new();
    for stored in snapshots::all(conn)? {
        let Some(source) = sources.iter().find(|source| is_known(source, &stored)) else { continue };
        let written = snapshots::definitions(conn, &stored.id)?;
        let (offers, _) = offers(&source.name, source.names, &written);
        let own_secret = source.own_secret.then(|| source.target().into());
        all.push(Arc::new(Offered { source: SourceName::from(source.name.as_str()), offers, own_secret }));
    }
    Ok(all)
}

/// What these sources offer, of which nobody has to be asked.
pub(crate) fn declared(sources: &[DeclaredSource]) -> impl Iterator<Item = Arc<Offered>> {
    sources.iter().map(|source| Arc::new(source.offered()))
}

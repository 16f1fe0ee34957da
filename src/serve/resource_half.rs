//! The gateway in a running server, beside an authorization server or alone.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use axum::response::Response;
use children::Executable;
use children::pool::ChildSlots;
use http::HeaderMap;
use keys::identity::Identities;
use keys::secrets::Secrets;
use resource::catalogue::BuiltIn;
use resource::remote::Remote;
use resource::sources::docs::{Docs, Folder, Watch};
use resource::sources::{Launching, Means};
use resource::{Authority, Resource};
use shared::audit::{self, Event, Name};
use shared::outbound::memory::Memory;
use shared::{Clock, Db, Issuer, TokenStatus, Tx};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::authz_half::{AuthzHalf, StartNotice};
use crate::base::Store;
use crate::config::{self, File};
use crate::front::http::Sharing;
use crate::handbook::HANDBOOK;

/// The most processes of all programs behind the gate.
const MOST_PROGRAMS: usize = 1000;

pub(super) struct ResourceHalf {
    pub(super) resource: Resource,
    /// What servers behind the gate are built with.
    pub(super) means: Means,
    docs: Arc<Docs>,
}

/// The authorization server whose tokens are accepted.
struct Trusted<'t> {
    issuer: &'t Issuer,
    authority: Authority,
    /// Signs the user's identity for sources. A gateway alone has no keys for that.
    identities: Option<Identities>,
    /// The sealed store; a gateway alone has none.
    secrets: Option<Secrets>,
}

impl ResourceHalf {
    /// Opens a gateway beside an authorization server. Blocks.
    pub(super) fn beside(
        half: &AuthzHalf,
        file: &File,
        store: &Store,
        children: &Executable,
        clock: &Clock,
    ) -> anyhow::Result<Self> {
        let status = Arc::clone(&half.status) as Arc<dyn TokenStatus>;
        let trusted = Trusted {
            issuer: half.authz.issuer(),
            authority: Authority::Here { verifier: half.keys.verifier(), status },
            identities: Some(half.keys.identities()),
            secrets: Some(half.authz.secrets().clone()),
        };
        Self::open(file, store, trusted, children, clock)
    }

    /// Opens a gateway with its own address, for tokens of this issuer. Blocks.
    pub(super) fn alone(
        file: &File,
        origin: &Issuer,
        issuer: &Issuer,
        children: &Executable,
        clock: &Clock,
    ) -> anyhow::Result<(Self, Store)> {
        let catalogue = BuiltIn::at(origin, issuer, &file.rules)?;
        let settings = file.remote.settings(issuer.clone())?;
        let remote = Remote::new(settings, catalogue.risks(), clock.clone());
        let remote = remote
            .context("[remote] client_id or the secret contains characters that a header cannot carry")?;
        let store = Store::open_or_create(file, catalogue, clock)?;
        let authority = Authority::Elsewhere(remote);
        let trusted = Trusted { issuer, authority, identities: None, secrets: None };
        Ok((Self::open(file, &store, trusted, children, clock)?, store))
    }

    /// Opens the documents, and what the servers behind the gate listed before. None of them is asked.
    fn open(
        file: &File,
        store: &Store,
        trusted: Trusted<'_>,
        children: &Executable,
        clock: &Clock,
    ) -> anyhow::Result<Self> {
        let folder = file.resource.docs.clone().map_or(Folder::Handbook(HANDBOOK), Folder::Directory);
        let docs = Arc::new(Docs::open(&store.dir.docs_database(), folder, clock)?);
        let Trusted { issuer, authority, identities, secrets } = trusted;
        let (issuer, db) = (issuer.clone(), store.db.clone());
        let memory = Memory::within(file.front.memory.bytes());
        let launching = launching(file, store, children);
        let means = Means {
            identities,
            secrets,
            issuer,
            db,
            clock: clock.clone(),
            memory: memory.clone(),
            launching,
        };
        let (sources, declared) = (file.sources.values(), file.declared.values());
        let upstreams = config::Source::open(sources, declared, store.dir.path(), &means)?.within(memory);
        let resource = Resource::new(resource::Config {
            catalogue: store.catalogue.clone(),
            db: store.db.clone(),
            clock: clock.clone(),
            authority,
            docs: Arc::clone(&docs),
            upstreams,
            settings: file.resource.clone(),
            limits: file.limits,
            tally: Arc::clone(&store.tally),
        });
        Ok(Self { resource, means, docs })
    }

    /// Starts its background tasks, which run until `stop`. The documents are watched until the returned value
    /// is dropped.
    pub(super) fn keep(&self, tasks: &mut JoinSet<()>, stop: &CancellationToken) -> Watch {
        let (resource, stop) = (self.resource.clone(), stop.clone());
        tasks.spawn(async move { resource.keep_sources(stop).await });
        Arc::clone(&self.docs).watch()
    }
}

impl Sharing for Resource {
    fn share(&self, origins: &HeaderMap, response: &mut Response) {
        Self::share(self, origins, response);
    }
}

/// What programs behind the gate are started with. None of them may use what belongs to this server (SRC-11).
fn launching(file: &File, store: &Store, executable: &Executable) -> Launching {
    let own = [file.front.tls.key.as_deref(), file.remote.secret_file.as_deref(), Some(store.dir.path())];
    let secrets = file.sources.values().flat_map(config::Source::secret_files);
    let keep_out = own.into_iter().flatten().chain(secrets).map(Path::to_owned).collect();
    Launching { executable: executable.clone(), keep_out, places: ChildSlots::new(MOST_PROGRAMS) }
}

/// Records the start of a gateway alone.
pub(super) async fn begin(db: &Db, issuer: Option<Issuer>) -> anyhow::Result<StartNotice> {
    let uid = rustix::process::getuid().as_raw();
    let event = Event::allowed(Name::ServerStart).by_console(uid).detail("only", "resource");
    let event = match issuer {
        Some(issuer) => event.detail("issuer", issuer.to_string()),
        None => event,
    };
    db.write(move |tx: &Tx<'_>| audit::append(tx, event)).await?;
    Ok(StartNotice::default())
}

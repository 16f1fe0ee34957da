//! A running server, whole or one half: builds the parts, joins their routers, and serves until it is stopped.

mod authz_half;
mod counts;
mod resource_half;

use std::sync::Arc;

use authz::{Authz, issuer_change};
use children::Executable;
use resource::sources::docs::Folder;
use resource::sources::never_walked;
use shared::audit::{self, Event, Name};
use shared::db::ReadOnly;
use shared::route::{Routes, Table};
use shared::schema::SCHEMA;
use shared::{Clock, Db, Issuer, Tx};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::base::{Base, Store};
use crate::commands::frame::{ServerParts, socket};
use crate::config::{File, OneHalf, Running, authority, distinct};
use crate::doubts;
use crate::front::address::Listen;
use crate::front::entrance::Entrance;
use crate::front::http::{ErrorPages, Halves, Sharing, around};
use crate::front::listen::Listeners;
use crate::readiness::Readiness;
use crate::reload::{Parts, Reloader};
use crate::routes;
use crate::timekeeping::{self, Issues};
use authz_half::{AuthzHalf, StartNotice};
use counts::Counts;
use resource_half::ResourceHalf;

/// The settings of a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which half runs; `None` for both.
    pub only: Option<OneHalf>,
    pub file: File,
    /// The configuration as read, to read it again on a reload (POL-04).
    pub running: Arc<Running>,
    /// The program that supervises and launches the programs behind the gate: this one, unless a test says otherwise.
    pub children: Executable,
}

/// A server that is ready to serve: sockets are bound and parts are built.
pub struct Server {
    /// Its address.
    address: Issuer,
    /// The authorization server of a gateway alone.
    elsewhere: Option<Issuer>,
    clock: Clock,
    entrance: Entrance,
    listeners: Listeners,
    control: socket::Control,
    /// What the control socket is asked.
    requests: socket::Find,
    reloader: Reloader,
    begun: StartNotice,
    authz: Option<AuthzHalf>,
    resource: Option<ResourceHalf>,
    // Last: the lock must be released after everything else.
    store: Store,
}

/// What takes a moment to open.
struct Opened {
    authz: Option<AuthzHalf>,
    resource: Option<ResourceHalf>,
    store: Store,
}

impl Server {
    /// Binds, opens and builds everything. The authorization server of a gateway alone does not need to run
    /// yet.
    ///
    /// # Errors
    /// What prevents the start, worded for the administrator.
    pub(crate) async fn start(
        options: Options,
        requests: socket::Find,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let Options { only, file, running, children } = options;
        let (listen, _) = (file.front.listen()?, file.front.tls()?);
        // Before a data directory is made for a server that cannot start.
        if let Some(folder) = file.resource.docs.clone().filter(|_| only != Some(OneHalf::Authz)) {
            Folder::Directory(folder).check()?;
        }
        let issuer = issuer_elsewhere(only, &file)?;
        let listeners = bind(listen, only, &file).await?;
        let port = listeners.port()?;
        let (entrance, address) = match &issuer {
            None => Entrance::open(&file.front, "issuer", file.issuer.as_deref(), port, &clock)?,
            Some(_) => Entrance::open(&file.front, "origin", file.origin.as_deref(), port, &clock)?,
        };
        let clients = file.clients.clone();
        // Opening generates keys and reads documents, so it runs on another thread.
        let opened = {
            let (address, issuer, clock) = (address.clone(), issuer.clone(), clock.clone());
            tokio::task::spawn_blocking(move || {
                let opened = Opened::open(&file, only, address, issuer.as_ref(), &children, &clock)?;
                warn_of_doubtful_rules(&opened.store, &file)?;
                anyhow::Ok(opened)
            })
        };
        let opened = opened.await??;
        let begun = match &opened.authz {
            Some(authz) => authz.begin(&opened.store.db, clients).await?,
            None => resource_half::begin(&opened.store.db, issuer.clone()).await?,
        };
        let control = socket::listen(opened.store.dir.path())?;
        let reloader = Reloader::new(&running, opened.parts());
        let Opened { store, authz, resource } = opened;
        Ok(Self {
            address,
            elsewhere: issuer,
            clock,
            entrance,
            listeners,
            control,
            requests,
            reloader,
            begun,
            authz,
            resource,
            store,
        })
    }

    /// The server's address: the issuer, or the origin of a gateway alone.
    pub fn address(&self) -> &Issuer {
        &self.address
    }

    /// The declarations of all routes.
    pub fn table(&self) -> Table {
        self.routes().split().1
    }

    /// The port that it listens on.
    ///
    /// # Errors
    /// If the operating system does not report it.
    pub fn port(&self) -> anyhow::Result<u16> {
        Ok(self.listeners.port()?)
    }

    /// Notify it to reload the configuration.
    pub fn reconfigure(&self) -> Arc<Notify> {
        self.reloader.hangup()
    }

    /// Notify it to reload the certificate, before it notices that the files have changed.
    pub fn reload(&self) -> Arc<Notify> {
        Arc::clone(&self.entrance.reload)
    }

    /// Its authorization server.
    pub fn authz(&self) -> Option<&Authz> {
        self.authz.as_ref().map(|half| &half.authz)
    }

    /// Its database.
    pub fn db(&self) -> &Db {
        &self.store.db
    }

    /// The setup link, while there are no administrators.
    pub fn setup_link(&self) -> Option<&str> {
        self.begun.setup_link.as_deref()
    }

    /// Whether there are administrators, but none can sign in.
    pub(crate) fn is_locked_out(&self) -> bool {
        self.begun.locked_out
    }

    /// Serves until `stop` is cancelled, then shuts down in order (OPS-07).
    pub async fn run(self, stop: CancellationToken) {
        let app = around(self.routes(), self.address.clone(), self.halves(), &self.entrance);
        let (place, counts) = (self.place(), self.counts());
        let Self { clock, entrance, listeners, control, requests, reloader, authz, resource, store, .. } =
            self;
        let issues = if authz.is_some() { Issues::Tokens } else { Issues::Nothing };
        let mut tasks = JoinSet::new();
        tasks.spawn(reloader.follow_signals(stop.clone()));
        tasks.spawn(socket::serve(control, requests, place, stop.clone()));
        tasks.spawn(counts.clone().keep(stop.clone()));
        tasks.spawn(timekeeping::watch(clock.clone(), store.db.clone(), issues, stop.clone()));
        tasks.spawn(entrance.watch(clock, store.db.clone(), stop.clone()));
        if let Some(half) = &authz {
            half.keep(&mut tasks, &stop);
        }
        let watching = resource.as_ref().map(|half| half.keep(&mut tasks, &stop));
        listeners.serve(app, entrance, stop.clone()).await;
        stop.cancel();
        while tasks.join_next().await.is_some() {}
        counts.flush(true).await;
        let stopped = |tx: &Tx<'_>| audit::append(tx, Event::allowed(Name::ServerStop).by_server());
        if let Err(fault) = store.db.write(stopped).await {
            tracing::error!(db.fault = %fault, "the stop was not recorded");
        }
        // This joins threads, so it must not run on the runtime's own threads.
        let end = move || {
            if let Some(half) = &authz {
                half.end();
            }
            drop((watching, counts, resource, authz, store));
        };
        let _ = tokio::task::spawn_blocking(end).await;
    }

    fn routes(&self) -> Routes {
        routes::all(
            self.authz.as_ref().map(|half| half.authz.routes()),
            self.resource.as_ref().map(|half| half.resource.routes()),
            Readiness::of(&self.store.db, &self.clock),
        )
    }

    fn halves(&self) -> Halves {
        let pages = self.authz.as_ref().map(|half| Arc::new(half.authz.clone()) as Arc<dyn ErrorPages>);
        let sharing = self.resource.as_ref().map(|half| Arc::new(half.resource.clone()) as Arc<dyn Sharing>);
        Halves { pages, start: self.elsewhere.clone(), sharing }
    }

    fn counts(&self) -> Counts {
        Counts {
            authz: self.authz().cloned(),
            resource: self.resource.as_ref().map(|half| half.resource.clone()),
            tally: Arc::clone(&self.store.tally),
            db: self.store.db.clone(),
        }
    }

    /// Where requests of the control socket are done.
    fn place(&self) -> ServerParts {
        let upstreams = self.resource.as_ref().map(|half| half.resource.upstreams().clone());
        let calls = self.resource.as_ref().map(|half| half.resource.calls());
        ServerParts {
            clock: self.clock.clone(),
            db: self.store.db.clone(),
            authority: self.authz.as_ref().map(|half| half.authority(&self.store.catalogue)),
            reloader: Some(self.reloader.clone()),
            upstreams: Some(upstreams.unwrap_or_default()),
            calls: Some(calls.unwrap_or_default()),
        }
    }
}

impl Opened {
    /// Opens the halves that run. A gateway alone is at this address, and the issuer is elsewhere.
    fn open(
        file: &File,
        only: Option<OneHalf>,
        address: Issuer,
        elsewhere: Option<&Issuer>,
        children: &Executable,
        clock: &Clock,
    ) -> anyhow::Result<Self> {
        if let Some(issuer) = elsewhere {
            distinct(&address, issuer)?;
            let (half, store) = ResourceHalf::alone(file, &address, issuer, children, clock)?;
            return Ok(Self { authz: None, resource: Some(half), store });
        }
        let has_gateway = only.is_none();
        let (half, store) = AuthzHalf::of(Base::open_or_create(file, has_gateway, address, clock)?);
        let gateway =
            has_gateway.then(|| ResourceHalf::beside(&half, file, &store, children, clock)).transpose()?;
        half.cover()?;
        Ok(Self { authz: Some(half), resource: gateway, store })
    }

    /// The parts that follow the configuration.
    fn parts(&self) -> Parts {
        Parts {
            db: self.store.db.clone(),
            catalogue: self.store.catalogue.clone(),
            resource: self.resource.as_ref().map(|half| (half.resource.clone(), half.means.clone())),
            authority: self.authz.as_ref().map(|half| (half.authz.clone(), Arc::clone(&half.status))),
        }
    }
}

/// Warns about rules that match nothing, which may be misspelled. Rules about a source that has listed nothing yet are in
/// order.
fn warn_of_doubtful_rules(store: &Store, file: &File) -> anyhow::Result<()> {
    let sources: Vec<_> = file.sources.values().map(|source| source.settings.clone()).collect();
    let never_walked = store.db.read(|conn| never_walked(conn, &sources))?;
    for doubt in doubts::about(&store.catalogue, file, &never_walked) {
        tracing::warn!(rule.doubt = %doubt, "a rule in the configuration has no effect now");
    }
    Ok(())
}

/// The issuer of a gateway alone.
fn issuer_elsewhere(only: Option<OneHalf>, file: &File) -> anyhow::Result<Option<Issuer>> {
    (only == Some(OneHalf::Resource)).then(|| authority(file.issuer.as_deref())).transpose()
}

/// Binds. Port 0 without an issuer means any port for a new data directory, and otherwise the stored issuer's
/// port, because another port would be another issuer.
async fn bind(listen: Listen, only: Option<OneHalf>, file: &File) -> anyhow::Result<Listeners> {
    if listen == Listen::Loopback(0)
        && only != Some(OneHalf::Resource)
        && file.issuer.is_none()
        && let Some(port) = port_before(file)
        && let Ok(listeners) = Listeners::bind(Listen::Loopback(port)).await
    {
        return Ok(listeners);
    }
    Listeners::bind(listen).await
}

fn port_before(file: &File) -> Option<u16> {
    let db = ReadOnly::open(&file.data_dir_or_default().join("portcullis.db"), &SCHEMA).ok()?;
    let issuer = Issuer::parse(&db.read(issuer_change::stored).ok()??).ok()?;
    issuer.is_loopback().then(|| issuer.port())
}

//! `portcullis serve --only resource`: the MCP gateway alone, for tokens of an authorization server elsewhere.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::routing::get;
use resource::catalogue::{BuiltIn, Rules};
use resource::remote::Remote;
use resource::sources::docs::Docs;
use resource::{Authority, Resource};
use shared::audit::{self, Event, Name};
use shared::data_dir::DataDir;
use shared::rate::{Quota, Tally};
use shared::schema::SCHEMA;
use shared::{Clock, Db, Issuer, Tx};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Listen};
use crate::entrance::{Entrance, Way};
use crate::http::{around, healthz};
use crate::listen::Listeners;
use crate::proxies::Proxies;
use crate::serve::{FLUSH, folder, readyz};
use crate::{timekeeping, tls};

/// What a gateway is started with.
#[derive(Clone, Debug)]
pub struct Options {
    pub listen: Listen,
    /// The address that clients know the gateway by.
    pub origin: Option<String>,
    pub tls: Option<tls::Files>,
    pub proxies: Proxies,
    /// Pages that may call the endpoint from a browser.
    pub allowed_origins: Vec<String>,
    /// The authorization server.
    pub issuer: Issuer,
    pub remote: config::Remote,
    pub docs: Option<PathBuf>,
    pub data_dir: PathBuf,
    pub rules: Rules,
    pub quota: Quota,
}

impl Options {
    fn way(&self) -> Way<'_> {
        Way {
            called: "origin",
            address: self.origin.as_deref(),
            listen: self.listen,
            tls: self.tls.clone(),
            proxies: &self.proxies,
        }
    }
}

/// A gateway that is ready: sockets bound, parts built, nothing served yet.
pub struct Gateway {
    origin: Issuer,
    clock: Clock,
    entrance: Entrance,
    db: Db,
    tally: Arc<Tally>,
    resource: Resource,
    docs: Arc<Docs>,
    listeners: Listeners,
    // Last: the lock goes when everything else is gone.
    dir: DataDir,
}

impl Gateway {
    /// Binds, opens and builds everything. The authorization server need not be there yet.
    ///
    /// # Errors
    /// Whatever is in the way, worded for whoever starts the gateway.
    pub async fn start(options: Options, clock: Clock) -> anyhow::Result<Self> {
        let listeners = Listeners::bind(options.listen).await?;
        let (entrance, origin) = Entrance::open(options.way(), listeners.port()?, &clock)?;
        let catalogue = BuiltIn::at(&origin, &options.issuer, &options.rules)?;
        let settings = options.remote.settings(options.issuer.clone())?;
        let remote = Remote::new(settings, catalogue.risks(), clock.clone());
        let remote = remote.context("[remote] client_id and the secret cannot stand in a header")?;
        let opened = {
            let (clock, options) = (clock.clone(), options.clone());
            tokio::task::spawn_blocking(move || open(&options, &clock))
        };
        let (dir, db, docs) = opened.await??;
        let tally = Arc::new(Tally::default());
        let resource = Resource::new(resource::Config {
            catalogue,
            db: db.clone(),
            clock: clock.clone(),
            authority: Authority::Elsewhere(remote),
            docs: Arc::clone(&docs),
            allowed_origins: options.allowed_origins,
            quota: options.quota,
            tally: Arc::clone(&tally),
        });
        let uid = rustix::process::getuid().as_raw();
        let issuer = options.issuer.to_string();
        let started = move |tx: &Tx<'_>| {
            let event = Event::allowed(Name::ServerStart).by_console(uid);
            audit::append(tx, event.detail("only", "resource").detail("issuer", issuer))
        };
        db.write(started).await?;
        Ok(Self { origin, clock, entrance, db, tally, resource, docs, listeners, dir })
    }

    /// The address it is known by.
    pub fn origin(&self) -> &Issuer {
        &self.origin
    }

    /// The port that it listens on.
    ///
    /// # Errors
    /// If the socket does not say.
    pub fn port(&self) -> std::io::Result<u16> {
        self.listeners.port()
    }

    /// What makes it read its certificate anew, without waiting until it sees that the files have changed.
    pub fn reload(&self) -> Arc<Notify> {
        Arc::clone(&self.entrance.reload)
    }

    /// Serves until `stop` is cancelled, then ends in good order (OPS-07).
    pub async fn run(self, stop: CancellationToken) {
        let Self { origin, clock, entrance, db, tally, resource, docs, listeners, dir } = self;
        let ready = {
            let db = db.clone();
            get(move || readyz(db.clone()))
        };
        let routes =
            Router::new().merge(resource.router()).route("/healthz", get(healthz)).route("/readyz", ready);
        let app = around(routes, origin, None, &entrance);
        let flushing = tokio::spawn(flush(resource.clone(), Arc::clone(&tally), db.clone(), stop.clone()));
        let watching_time = tokio::spawn(timekeeping::watch(clock.clone(), db.clone(), stop.clone()));
        let certificates = tokio::spawn(entrance.watch(clock, db.clone(), stop.clone()));
        let watching = docs.watch();
        listeners.serve(app, entrance, stop.clone()).await;
        stop.cancel();
        let _ = tokio::join!(flushing, watching_time, certificates);
        record(&resource, &tally, &db).await;
        let stopped = |tx: &Tx<'_>| audit::append(tx, Event::allowed(Name::ServerStop).by_server());
        if let Err(fault) = db.write(stopped).await {
            tracing::error!(db.fault = %fault, "the stop was not recorded");
        }
        // Threads end here; not on the runtime's own.
        let _ = tokio::task::spawn_blocking(move || drop((watching, resource, db, dir))).await;
    }
}

async fn flush(resource: Resource, tally: Arc<Tally>, db: Db, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => {
                // Or each open stream would hold the stop up until its time is over.
                resource.end_streams();
                return;
            }
            () = tokio::time::sleep(FLUSH) => record(&resource, &tally, &db).await,
        }
    }
}

/// What was only counted so far goes on record.
async fn record(resource: &Resource, tally: &Tally, db: &Db) {
    resource.flush().await;
    if let Err(fault) = tally.flush(db).await {
        tracing::error!(db.fault = %fault, "requests that were too many were not recorded");
    }
}

/// What blocks while it opens.
fn open(options: &Options, clock: &Clock) -> anyhow::Result<(DataDir, Db, Arc<Docs>)> {
    let dir = DataDir::open_or_create(&options.data_dir)?;
    let db = Db::open(&dir.database(), &SCHEMA, Some(&dir.backups()), clock)?;
    let docs = Docs::open(&dir.docs_database(), folder(options.docs.as_ref()), clock)?;
    Ok((dir, db, Arc::new(docs)))
}

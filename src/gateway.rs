//! `portcullis serve --only resource`: the MCP gateway alone, for tokens of an authorization server elsewhere.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use resource::catalogue::{BuiltIn, Rules};
use resource::remote::Remote;
use resource::sources::Upstreams;
use resource::sources::docs::Docs;
use resource::{Authority, Resource};
use serde_json::json;
use shared::audit::{self, Event, Name};
use shared::data_dir::DataDir;
use shared::rate::{Limits, Tally};
use shared::schema::SCHEMA;
use shared::{Clock, Db, Issuer, Tx};
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::commands::frame::{Place, socket};
use crate::commands::serve::Serve;
use crate::config::{self, File, Listen, Running};
use crate::front::entrance::{Entrance, Way};
use crate::front::http::{Halves, around};
use crate::front::listen::{Budget, Listeners};
use crate::front::proxies::Proxies;
use crate::front::tls;
use crate::hangups::Hangups;
use crate::output::{self, say};
use crate::readiness::Readiness;
use crate::reload::{Parts, Reloader};
use crate::serve::{FLUSH, folder, stop_on_signal, unheard, warn_of_doubtful_rules};
use crate::timekeeping::{self, Issues};
use crate::{commands, routes};

/// What a gateway is started with.
#[derive(Clone, Debug)]
pub struct Options {
    pub listen: Listen,
    /// The address that clients know the gateway by.
    pub origin: Option<String>,
    pub tls: Option<tls::Files>,
    pub proxies: Proxies,
    /// How much memory connections may hold.
    pub memory: Budget,
    /// Pages that may call the endpoint from a browser.
    pub allowed_origins: Vec<String>,
    /// The authorization server.
    pub issuer: Issuer,
    pub remote: config::Remote,
    pub docs: Option<PathBuf>,
    pub data_dir: PathBuf,
    pub rules: Rules,
    pub limits: Limits,
    /// What all this was read from, so that it can be read again (POL-04).
    pub running: Arc<Running>,
    /// Servers behind the gate.
    pub sources: Vec<config::Source>,
}

impl Options {
    /// What the configuration says.
    ///
    /// # Errors
    /// What is missing, or cannot be read, worded for whoever starts the gateway.
    pub fn of(running: &Arc<Running>) -> anyhow::Result<Self> {
        let file = &running.reading.file;
        Ok(Self {
            listen: Listen::parse(file.listen_or_default())?,
            origin: file.origin.clone(),
            tls: file.tls()?,
            proxies: file.proxies.clone(),
            memory: file.memory,
            allowed_origins: file.allowed_origins.clone(),
            issuer: authority(file)?,
            remote: file.remote.clone(),
            docs: file.docs.clone(),
            data_dir: file.data_dir_or_default(),
            rules: file.rules.clone(),
            limits: file.limits,
            running: Arc::clone(running),
            sources: file.sources.values().cloned().collect(),
        })
    }

    fn way(&self) -> Way<'_> {
        Way {
            called: "origin",
            address: self.origin.as_deref(),
            listen: self.listen,
            tls: self.tls.clone(),
            proxies: &self.proxies,
            memory: self.memory,
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
    control: UnixListener,
    reloader: Reloader,
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
        distinct(&origin, &options.issuer)?;
        let catalogue = BuiltIn::at(&origin, &options.issuer, &options.rules)?;
        let settings = options.remote.settings(options.issuer.clone())?;
        let remote = Remote::new(settings, catalogue.risks(), clock.clone());
        let remote = remote
            .context("[remote] client_id or the secret contains characters that a header cannot carry")?;
        let opened = {
            let (clock, options) = (clock.clone(), options.clone());
            tokio::task::spawn_blocking(move || open(&options, &clock))
        };
        let (dir, db, docs, upstreams) = opened.await??;
        let tally = Arc::new(Tally::default());
        let resource = Resource::new(resource::Config {
            catalogue: catalogue.clone(),
            db: db.clone(),
            clock: clock.clone(),
            authority: Authority::Elsewhere(remote),
            docs: Arc::clone(&docs),
            upstreams,
            allowed_origins: options.allowed_origins,
            limits: options.limits,
            tally: Arc::clone(&tally),
        });
        warn_of_doubtful_rules(&catalogue);
        let uid = rustix::process::getuid().as_raw();
        let issuer = options.issuer.to_string();
        let started = move |tx: &Tx<'_>| {
            let event = Event::allowed(Name::ServerStart).by_console(uid);
            audit::append(tx, event.detail("only", "resource").detail("issuer", issuer))
        };
        db.write(started).await?;
        let control = socket::listen(dir.path())?;
        let (resources, authority) = (Some(resource.clone()), None);
        let parts = Parts { db: db.clone(), catalogue, resource: resources, authority };
        let reloader = Reloader::new(&options.running, parts);
        Ok(Self { origin, clock, entrance, db, tally, resource, docs, listeners, control, reloader, dir })
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

    /// What makes it take its configuration up again.
    pub fn reconfigure(&self) -> Arc<Notify> {
        self.reloader.hangup()
    }

    /// What makes it read its certificate anew, without waiting until it sees that the files have changed.
    pub fn reload(&self) -> Arc<Notify> {
        Arc::clone(&self.entrance.reload)
    }

    /// Serves until `stop` is cancelled, then ends in good order (OPS-07).
    pub async fn run(self, stop: CancellationToken) {
        let Self { origin, clock, entrance, db, tally, resource, docs, listeners, control, reloader, dir } =
            self;
        let routes = routes::all(None, Some(resource.routes()), Readiness::of(&db, &clock));
        let app = around(routes, origin, Halves { authz: None, resource: Some(resource.clone()) }, &entrance);
        let place = Place::gateway(&db, &clock).running(&reloader, resource.upstreams());
        let reloading = tokio::spawn(reloader.follow_signals(stop.clone()));
        let commands = tokio::spawn(socket::serve(control, commands::request, place, stop.clone()));
        let flushing = tokio::spawn(flush(resource.clone(), Arc::clone(&tally), db.clone(), stop.clone()));
        let watching_time =
            tokio::spawn(timekeeping::watch(clock.clone(), db.clone(), Issues::Nothing, stop.clone()));
        let certificates = tokio::spawn(entrance.watch(clock, db.clone(), stop.clone()));
        let sources = tokio::spawn({
            let (resource, stop) = (resource.clone(), stop.clone());
            async move { resource.keep_sources(stop).await }
        });
        let watching = docs.watch();
        listeners.serve(app, entrance, stop.clone()).await;
        stop.cancel();
        let _ = tokio::join!(commands, reloading, flushing, watching_time, certificates, sources);
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

/// The authorization server whose tokens are accepted.
///
/// # Errors
/// If none is named.
pub(crate) fn authority(file: &File) -> anyhow::Result<Issuer> {
    let issuer = file.issuer.as_deref().context(
        "--only resource needs --issuer: the address of the authorization server whose tokens are accepted",
    )?;
    Issuer::parse(issuer).with_context(|| format!("--issuer {issuer}"))
}

/// Refuses a gateway at the authorization server's own address: that is where clients look for the other one.
///
/// # Errors
/// If the two are the same.
pub(crate) fn distinct(origin: &Issuer, issuer: &Issuer) -> anyhow::Result<()> {
    anyhow::ensure!(
        origin != issuer,
        "the origin {origin} is the authorization server's own address; give the gateway's own with --origin"
    );
    Ok(())
}

/// Runs `serve --only resource`.
pub(crate) fn run(
    command: &Serve,
    running: &Arc<Running>,
    runtime: &Runtime,
    hangups: &Hangups,
) -> anyhow::Result<()> {
    let file = running.reading.file.clone();
    let options = Options::of(running)?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let signals = stop_on_signal(stop.clone())?;
        let secured = options.tls.is_some();
        let issuer = options.issuer.clone();
        let gateway = Gateway::start(options, timekeeping::clock()?).await?;
        hangups.reconfigure(gateway.reconfigure());
        if secured {
            hangups.reload(gateway.reload());
        }
        unheard(announce(&gateway, &issuer, &file, command.json));
        gateway.run(stop).await;
        signals.abort();
        Ok(())
    })
}

/// Says that it is ready, on standard output.
fn announce(gateway: &Gateway, issuer: &Issuer, file: &File, json: bool) -> anyhow::Result<()> {
    let mcp_url = gateway.origin().url("/mcp");
    if json {
        return output::json(&json!({ "issuer": issuer, "mcp_url": mcp_url, "setup_link": null }));
    }
    say!("Portcullis {} is ready: the gateway alone.\n", env!("CARGO_PKG_VERSION"))?;
    say!("  MCP URL    {mcp_url}")?;
    say!("  Tokens of  {issuer}")?;
    say!("  Data       {}", file.data_dir_or_default().display())?;
    say!("\nStop with Ctrl-C.")
}

/// What blocks while it opens.
fn open(options: &Options, clock: &Clock) -> anyhow::Result<(DataDir, Db, Arc<Docs>, Upstreams)> {
    let dir = DataDir::open_or_create(&options.data_dir)?;
    let db = Db::open_mirrored(&dir.database(), &dir.audit_head(), &SCHEMA, Some(&dir.backups()), clock)?;
    let docs = Docs::open(&dir.docs_database(), folder(options.docs.as_ref()), clock)?;
    let configured =
        options.sources.iter().map(config::Source::settings).collect::<anyhow::Result<Vec<_>>>()?;
    // A gateway alone has no keys to tell a server who asks.
    let upstreams = Upstreams::open(&configured, None, &options.issuer, &db, clock)?;
    Ok((dir, db, Arc::new(docs), upstreams))
}

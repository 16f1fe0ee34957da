//! `portcullis serve`: builds the parts, joins their routers, runs until it is told to stop.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use authz::{Authz, issuer_change};
use resource::catalogue::BuiltIn;
use resource::sources::Upstreams;
use resource::sources::docs::{Docs, Folder};
use resource::{Authority, Resource};
use serde_json::json;
use shared::audit::{self, Event, Name};
use shared::db::ReadOnly;
use shared::rate::Tally;
use shared::route::{Routes, Table};
use shared::schema::SCHEMA;
use shared::{Clock, Db, Issuer, TokenStatus, Tx};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::base::{Base, Settings};
use crate::commands::frame::{Place, socket};
use crate::commands::serve::Serve;
use crate::config::{self, File, Listen, Only, Origin, Running};
use crate::front::entrance::{Entrance, Way};
use crate::front::http::{Halves, around};
use crate::front::listen::{Budget, Listeners};
use crate::front::proxies::Proxies;
use crate::front::tls;
use crate::gateway;
use crate::handbook::HANDBOOK;
use crate::hangups::Hangups;
use crate::output::{self, say};
use crate::readiness::Readiness;
use crate::reload::{Parts, Reloader};
use crate::timekeeping::{self, Issues};
use crate::{checkpoints, commands, rotation, routes};

/// How often counted refusals are written down.
pub(crate) const FLUSH: Duration = Duration::from_secs(10);
/// How often what nobody uses is looked for.
const SWEEP: Duration = Duration::from_hours(1);

/// What a server is started with.
#[derive(Clone, Debug)]
pub struct Options {
    pub listen: Listen,
    pub issuer: Option<String>,
    pub tls: Option<tls::Files>,
    pub proxies: Proxies,
    /// How much memory connections may hold.
    pub memory: Budget,
    /// Pages that may call the MCP endpoint from a browser; on loopback every loopback page may anyway.
    pub allowed_origins: Vec<String>,
    /// A folder of documents; `None` for the built-in handbook.
    pub docs: Option<PathBuf>,
    pub base: Settings,
    /// What all this was read from, so that it can be read again (POL-04).
    pub running: Arc<Running>,
}

impl Options {
    fn way(&self) -> Way<'_> {
        Way {
            called: "issuer",
            address: self.issuer.as_deref(),
            listen: self.listen,
            tls: self.tls.clone(),
            proxies: &self.proxies,
            memory: self.memory,
        }
    }
}

/// A server that is ready: sockets bound, parts built, nothing served yet.
pub struct Server {
    setup_link: Option<String>,
    /// There are administrators, and none of them can sign in.
    locked_out: bool,
    gateway: bool,
    clock: Clock,
    entrance: Entrance,
    resource: Resource,
    docs: Arc<Docs>,
    listeners: Listeners,
    control: tokio::net::UnixListener,
    reloader: Reloader,
    base: Base,
}

impl Server {
    /// Binds, opens and builds everything.
    ///
    /// # Errors
    /// Whatever is in the way, worded for whoever starts the server.
    pub async fn start(options: Options, clock: Clock) -> anyhow::Result<Self> {
        let listeners = listen(&options).await?;
        let gateway = options.base.gateway;
        let (limits, clients) = (options.base.limits, options.base.clients.clone());
        let (entrance, issuer) = Entrance::open(options.way(), listeners.port()?, &clock)?;
        let (allowed_origins, running) = (options.allowed_origins.clone(), Arc::clone(&options.running));
        // Opening makes keys and reads documents: work for a thread of its own.
        let opened = {
            let clock = clock.clone();
            tokio::task::spawn_blocking(move || open(&options, issuer, &clock))
        };
        let (base, docs, upstreams) = opened.await??;
        // What a killed process left unsigned.
        let checkpoints = base.checkpoints.clone();
        tokio::task::spawn_blocking(move || checkpoints.cover()).await??;
        let resource = Resource::new(resource::Config {
            catalogue: base.catalogue.clone(),
            db: base.db.clone(),
            clock: clock.clone(),
            authority: Authority::Here {
                verifier: base.keys.verifier(),
                status: Arc::clone(&base.status) as Arc<dyn TokenStatus>,
            },
            docs: Arc::clone(&docs),
            upstreams,
            allowed_origins,
            limits,
            tally: Arc::clone(&base.tally),
        });
        warn_of_doubtful_rules(&base.catalogue);
        let uid = rustix::process::getuid().as_raw();
        let (setup_link, locked_out) = {
            let authz = base.authz.clone();
            let started = move |tx: &Tx<'_>| {
                if let Err(obstacle) = authz.follow_configuration(tx, &clients)? {
                    return Ok(Err(obstacle));
                }
                audit::append(tx, Event::allowed(Name::ServerStart).by_console(uid))?;
                authz.reconcile(tx)?;
                Ok(Ok((authz.setup_link(tx, uid)?, authz.is_locked_out(tx)?)))
            };
            base.db.write(started).await??
        };
        let control = socket::listen(base.dir.path())?;
        let reloader = Reloader::new(
            &running,
            Parts {
                db: base.db.clone(),
                catalogue: base.catalogue.clone(),
                resource: gateway.then(|| resource.clone()),
                authority: Some((base.authz.clone(), Arc::clone(&base.status))),
            },
        );
        Ok(Self {
            setup_link,
            locked_out,
            gateway,
            clock,
            entrance,
            resource,
            docs,
            listeners,
            control,
            reloader,
            base,
        })
    }

    /// The address it is known by.
    pub fn issuer(&self) -> &Issuer {
        self.base.authz.issuer()
    }

    /// What is declared about every path that it serves.
    pub fn table(&self) -> Table {
        routes(&self.base, &self.clock, &self.resource, self.gateway).split().1
    }

    /// The port that it listens on.
    ///
    /// # Errors
    /// If the operating system does not tell.
    pub fn port(&self) -> anyhow::Result<u16> {
        Ok(self.listeners.port()?)
    }

    /// What makes it take its configuration up again.
    pub fn reconfigure(&self) -> Arc<Notify> {
        self.reloader.hangup()
    }

    /// What makes it read its certificate anew, without waiting until it sees that the files have changed.
    pub fn reload(&self) -> Arc<Notify> {
        Arc::clone(&self.entrance.reload)
    }

    /// Its authorization server.
    pub fn authz(&self) -> &Authz {
        &self.base.authz
    }

    /// Its database.
    pub fn db(&self) -> &Db {
        &self.base.db
    }

    /// The link for the first administrator, while there is none.
    pub fn setup_link(&self) -> Option<&str> {
        self.setup_link.as_deref()
    }

    /// Serves until `stop` is cancelled, then ends in good order (OPS-07).
    pub async fn run(self, stop: CancellationToken) {
        let Self {
            setup_link: _,
            locked_out: _,
            gateway,
            clock,
            entrance,
            resource,
            docs,
            listeners,
            control,
            reloader,
            base,
        } = self;
        let routes = routes(&base, &clock, &resource, gateway);
        let halves = Halves { authz: Some(base.authz.clone()), resource: gateway.then(|| resource.clone()) };
        let app = around(routes, base.authz.issuer().clone(), halves, &entrance);
        let place = Place::of(&base, &clock).running(&reloader, resource.upstreams());
        let reloading = tokio::spawn(reloader.follow_signals(stop.clone()));
        let commands = tokio::spawn(socket::serve(control, commands::request, place, stop.clone()));
        let flushing = tokio::spawn(flush(resource.clone(), counts(&base), stop.clone()));
        let sweeping = tokio::spawn(sweep(base.authz.clone(), stop.clone()));
        let timekeeping =
            tokio::spawn(timekeeping::watch(clock.clone(), base.db.clone(), Issues::Tokens, stop.clone()));
        let rotating = tokio::spawn(rotation::keep(base.keys.clone(), stop.clone()));
        let signing = tokio::spawn(checkpoints::keep(base.checkpoints.clone(), stop.clone()));
        let certificates = tokio::spawn(entrance.watch(clock, base.db.clone(), stop.clone()));
        let sources = tokio::spawn({
            let (resource, stop) = (resource.clone(), stop.clone());
            async move { resource.keep_sources(stop).await }
        });
        let watching = docs.watch();
        listeners.serve(app, entrance, stop.clone()).await;
        stop.cancel();
        let _ = tokio::join!(
            commands,
            reloading,
            flushing,
            sweeping,
            timekeeping,
            rotating,
            signing,
            certificates,
            sources
        );
        resource.flush().await;
        counts(&base).flush(true).await;
        let stopped = |tx: &Tx<'_>| audit::append(tx, Event::allowed(Name::ServerStop).by_server());
        if let Err(fault) = base.db.write(stopped).await {
            tracing::error!(db.fault = %fault, "the stop was not recorded");
        }
        // Threads end here; not on the runtime's own.
        let end = move || {
            if let Err(error) = base.checkpoints.cover() {
                tracing::error!(audit.error = %error, "the end of the audit log was not signed");
            }
            drop((watching, resource, base));
        };
        let _ = tokio::task::spawn_blocking(end).await;
    }
}

/// What was only counted so far, and where it goes on record.
struct Counts {
    authz: Authz,
    tally: Arc<Tally>,
    db: Db,
}

fn counts(base: &Base) -> Counts {
    Counts { authz: base.authz.clone(), tally: Arc::clone(&base.tally), db: base.db.clone() }
}

impl Counts {
    /// Records the counts; all of them before the server stops.
    async fn flush(&self, last: bool) {
        self.authz.flush(last).await;
        if let Err(fault) = self.tally.flush(&self.db).await {
            tracing::error!(db.fault = %fault, "requests that were too many were not recorded");
        }
    }
}

async fn flush(resource: Resource, counts: Counts, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => {
                // Or each open stream would hold the stop up until its time is over.
                resource.end_streams();
                return;
            }
            () = tokio::time::sleep(FLUSH) => {
                resource.flush().await;
                counts.flush(false).await;
            }
        }
    }
}

/// Clears away what nobody uses any more.
async fn sweep(authz: Authz, stop: CancellationToken) {
    loop {
        authz.sweep().await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SWEEP) => {}
        }
    }
}

fn routes(base: &Base, clock: &Clock, resource: &Resource, gateway: bool) -> Routes {
    let resource = gateway.then(|| resource.routes());
    routes::all(Some(base.authz.routes()), resource, Readiness::of(&base.db, clock))
}

/// Binds. Port 0 without an issuer is any port for a new data directory, and the one that it is known by for one that
/// was served before: another would be another issuer.
async fn listen(options: &Options) -> anyhow::Result<Listeners> {
    if options.listen == Listen::Loopback(0)
        && options.issuer.is_none()
        && let Some(port) = port_before(&options.base)
        && let Ok(listeners) = Listeners::bind(Listen::Loopback(port)).await
    {
        return Ok(listeners);
    }
    Listeners::bind(options.listen).await
}

fn port_before(base: &Settings) -> Option<u16> {
    let db = ReadOnly::open(&base.data_dir.join("portcullis.db"), &SCHEMA).ok()?;
    let issuer = Issuer::parse(&db.read(issuer_change::stored).ok()??).ok()?;
    issuer.is_loopback().then(|| issuer.port())
}

/// What blocks while it opens.
fn open(options: &Options, issuer: Issuer, clock: &Clock) -> anyhow::Result<(Base, Arc<Docs>, Upstreams)> {
    let base = Base::open_or_create(&options.base, issuer, clock)?;
    let docs = Docs::open(&base.dir.docs_database(), folder(options.docs.as_ref()), clock)?;
    let upstreams = if options.base.gateway {
        upstreams(&base, &options.base.sources, clock)?
    } else {
        Upstreams::default()
    };
    Ok((base, Arc::new(docs), upstreams))
}

/// The servers behind the gate, with what they listed before. None of them is asked.
fn upstreams(base: &Base, sources: &[config::Source], clock: &Clock) -> anyhow::Result<Upstreams> {
    let configured = sources.iter().map(config::Source::settings).collect::<anyhow::Result<Vec<_>>>()?;
    let (identities, issuer) = (base.keys.identities(), base.authz.issuer());
    Ok(Upstreams::open(&configured, Some(&identities), issuer, &base.db, clock)?)
}

/// Warns about rules that match nothing now: they may be misspelled, or are about a server that was never there.
pub(crate) fn warn_of_doubtful_rules(catalogue: &BuiltIn) {
    for doubt in catalogue.doubts() {
        tracing::warn!(rule.doubt = %doubt, "a rule in the configuration has no effect now");
    }
}

/// The folder of documents, or what is built in.
pub(crate) fn folder(docs: Option<&PathBuf>) -> Folder {
    match docs {
        Some(path) => Folder::Directory(path.clone()),
        None => Folder::Handbook(HANDBOOK),
    }
}

/// Runs the command.
pub(crate) fn run(command: &Serve, named: Option<PathBuf>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    // First of all: a SIGHUP that comes while the server starts must not end it.
    let hangups = runtime.block_on(async { Hangups::hear() })?;
    runtime.block_on(async { refuse_to_die_of_a_file() })?;
    let origin = Origin { named, given: command.settings.clone() };
    let reading = origin.read().map_err(|unreadable| unreadable.why)?;
    let running = Arc::new(Running { origin, reading });
    if command.settings.only == Some(Only::Resource) {
        return gateway::run(command, &running, &runtime, &hangups);
    }
    let file = running.reading.file.clone();
    if file.remote != config::Remote::default() {
        tracing::warn!("[remote] is used only with --only resource; this is a whole server");
    }
    let options = Options {
        listen: Listen::parse(file.listen_or_default())?,
        issuer: file.issuer.clone(),
        tls: file.tls()?,
        proxies: file.proxies.clone(),
        memory: file.memory,
        allowed_origins: file.allowed_origins.clone(),
        docs: file.docs.clone(),
        base: Settings {
            gateway: command.settings.only != Some(Only::Authz),
            ..file.base(file.data_dir_or_default())
        },
        running,
    };
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let signals = stop_on_signal(stop.clone())?;
        let secured = options.tls.is_some();
        let server = Server::start(options, timekeeping::clock()?).await?;
        hangups.reconfigure(server.reconfigure());
        if secured {
            hangups.reload(server.reload());
        }
        unheard(announce(&server, &file, command.json));
        server.run(stop).await;
        signals.abort();
        Ok(())
    })
}

/// Stops in good order at the first SIGTERM or SIGINT, at once at the second.
pub(crate) fn stop_on_signal(stop: CancellationToken) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::spawn(async move {
        for attempt in 0.. {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if attempt > 0 {
                std::process::exit(130);
            }
            tracing::info!("stopping; requests under way have 10 seconds");
            stop.cancel();
        }
    }))
}

/// A file that may grow no further (`LimitFSIZE=`) makes a write fail, like a full disk; by itself it ends the process.
fn refuse_to_die_of_a_file() -> io::Result<()> {
    // Once it is heard, it is heard for as long as the process runs.
    signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())).map(drop)
}

/// A server whose standard output takes nothing serves all the same.
pub(crate) fn unheard(announced: anyhow::Result<()>) {
    if let Err(error) = announced {
        tracing::warn!(
            stdout.error = %error.root_cause(),
            "the server is ready, and could not say so on standard output; `portcullis setup-link` prints a link for the first administrator"
        );
    }
}

/// Says what to do next, on standard output.
fn announce(server: &Server, file: &File, json: bool) -> anyhow::Result<()> {
    let mcp_url = server.gateway.then(|| server.issuer().url("/mcp"));
    if json {
        return output::json(
            &json!({ "issuer": server.issuer().as_str(), "mcp_url": mcp_url, "setup_link": server.setup_link }),
        );
    }
    let half = if server.gateway { "" } else { ": the authorization server alone" };
    say!("Portcullis {} is ready{half}.\n", env!("CARGO_PKG_VERSION"))?;
    match &mcp_url {
        Some(url) => say!("  MCP URL    {url}")?,
        None => say!("  Issuer     {}", server.issuer())?,
    }
    say!("  Data       {}", file.data_dir_or_default().display())?;
    if server.gateway {
        match &file.docs {
            Some(folder) => say!("  Documents  {}", folder.display())?,
            None => say!("  Documents  the built-in handbook; serve your own with --docs DIR")?,
        }
    }
    if let Some(link) = &server.setup_link {
        say!("\nYou are its first administrator. Open this link within 60 minutes and create a passkey:\n")?;
        say!("  {link}\n")?;
        say!("A new link: portcullis setup-link")?;
    }
    if server.locked_out {
        say!("\nNo administrator can sign in. To print a link for one: portcullis setup-link")?;
    }
    if let Some(url) = &mcp_url {
        say!("\nConnect a client:\n")?;
        for snippet in authz::snippets(url) {
            say!("  {}: {}", snippet.client, snippet.how)?;
            say!("    {}", snippet.code)?;
        }
    } else {
        say!("\nTo register a gateway: portcullis rs add NAME --audience URL")?;
    }
    say!("\nStop with Ctrl-C.")
}

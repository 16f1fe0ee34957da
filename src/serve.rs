//! `portcullis serve`: builds the parts, joins their routers, runs until it is told to stop.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use authz::{Authz, Parts, Status};
use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use keys::{Algorithm, Keys, Seal};
use resource::Resource;
use resource::catalogue::BuiltIn;
use resource::sources::docs::{Docs, Folder};
use serde_json::json;
use shared::audit::{self, Event, Name};
use shared::data_dir::DataDir;
use shared::schema::SCHEMA;
use shared::{Catalogue, Clock, Db, Issuer, Scope};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli::Serve;
use crate::config::{self, Listen};
use crate::control;
use crate::handbook::HANDBOOK;
use crate::http::{around, healthz};
use crate::listen::Listeners;

/// How often counted refusals are written down.
const FLUSH: Duration = Duration::from_secs(10);

/// What a server is started with.
#[derive(Clone, Debug)]
pub struct Options {
    pub listen: Listen,
    pub issuer: Option<String>,
    pub data_dir: PathBuf,
    /// A folder of documents; `None` for the built-in handbook.
    pub docs: Option<PathBuf>,
    pub authz: authz::Config,
}

/// A server that is ready: sockets bound, parts built, nothing served yet.
pub struct Server {
    issuer: Issuer,
    setup_link: Option<String>,
    db: Db,
    authz: Authz,
    resource: Resource,
    docs: Arc<Docs>,
    listeners: Listeners,
    control: tokio::net::UnixListener,
    // Last: the lock goes when everything else is gone.
    dir: DataDir,
}

impl Server {
    /// Binds, opens and builds everything.
    ///
    /// # Errors
    /// Whatever is in the way, worded for whoever starts the server.
    pub async fn start(options: Options, clock: Clock) -> anyhow::Result<Self> {
        let listeners = Listeners::bind(options.listen).await?;
        let issuer = config::issuer(options.issuer.as_deref(), options.listen, listeners.port()?)?;
        let catalogue = BuiltIn::new(&issuer);
        // Opening makes keys and reads documents: work for a thread of its own.
        let opened = {
            let (catalogue, clock) = (catalogue.clone(), clock.clone());
            tokio::task::spawn_blocking(move || Opened::open(&options, &catalogue, &clock))
        };
        let Opened { dir, db, seal, keys, status, docs, config } = opened.await??;
        let authz = Authz::new(Parts {
            config,
            issuer: issuer.clone(),
            db: db.clone(),
            clock: clock.clone(),
            keys: keys.clone(),
            seal,
            status: Arc::clone(&status),
            catalogue: Arc::new(catalogue.clone()),
        })?;
        let resource = Resource::new(resource::Config {
            catalogue,
            db: db.clone(),
            clock,
            verifier: keys.verifier(),
            status,
            docs: Arc::clone(&docs),
            allowed_origins: Vec::new(),
        });
        let uid = rustix::process::getuid().as_raw();
        let setup_link = {
            let authz = authz.clone();
            let started = move |tx: &shared::Tx<'_>| {
                audit::append(tx, Event::allowed(Name::ServerStart).by_console(uid))?;
                authz.setup_link(tx, uid)
            };
            db.write(started).await?
        };
        let control = control::listen(dir.path())?;
        Ok(Self { issuer, setup_link, db, authz, resource, docs, listeners, control, dir })
    }

    /// The address it is known by.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// The link for the first administrator, while there is none.
    pub fn setup_link(&self) -> Option<&str> {
        self.setup_link.as_deref()
    }

    /// Serves until `stop` is cancelled, then ends in good order (OPS-07).
    pub async fn run(self, stop: CancellationToken) {
        let Self { issuer, setup_link: _, db, authz, resource, docs, listeners, control, dir } = self;
        let ready = {
            let db = db.clone();
            get(move || readyz(db.clone()))
        };
        let routes = Router::new()
            .merge(authz.router())
            .merge(resource.router())
            .route("/healthz", get(healthz))
            .route("/readyz", ready);
        let app = around(routes, issuer, authz.clone());
        let commands = tokio::spawn(control::serve(control, authz, db.clone(), stop.clone()));
        let flushing = tokio::spawn(flush(resource.clone(), stop.clone()));
        let watching = docs.watch();
        listeners.serve(app, stop.clone()).await;
        stop.cancel();
        let _ = tokio::join!(commands, flushing);
        resource.flush().await;
        let stopped =
            move |tx: &shared::Tx<'_>| audit::append(tx, Event::allowed(Name::ServerStop).by_server());
        if let Err(fault) = db.write(stopped).await {
            tracing::error!(db.fault = %fault, "the stop was not recorded");
        }
        drop(watching);
        drop(dir);
    }
}

async fn flush(resource: Resource, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(FLUSH) => resource.flush().await,
        }
    }
}

/// `GET /readyz`: the database can be written (OPS-05).
async fn readyz(db: Db) -> Response {
    match db.record(|_| Ok(())).await {
        Ok(()) => "ready\n".into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response(),
    }
}

/// What blocks while it opens.
struct Opened {
    dir: DataDir,
    db: Db,
    seal: Arc<Seal>,
    keys: Keys,
    status: Arc<Status>,
    docs: Arc<Docs>,
    config: authz::Config,
}

impl Opened {
    fn open(options: &Options, catalogue: &BuiltIn, clock: &Clock) -> anyhow::Result<Self> {
        let dir = DataDir::open_or_create(&options.data_dir)?;
        let db = Db::open(&dir.database(), &SCHEMA, Some(&dir.backups()), clock)?;
        let seal = Arc::new(Seal::open_or_create(&dir.seal_key(), !Keys::exist(&db)?)?);
        let keys = Keys::open(&db, Arc::clone(&seal), Algorithm::default())?;
        // Without groups, everyone may be granted what the endpoints ask for by default.
        let endpoints = catalogue.endpoints();
        let everyone = endpoints.iter().fold(Scope::empty(), |all, e| all.union(&e.default_scope));
        let status = Status::load(&db, everyone, clock.now())?;
        let folder = match &options.docs {
            Some(path) => Folder::Directory(path.clone()),
            None => Folder::Handbook(HANDBOOK),
        };
        let docs = Arc::new(Docs::open(&dir.docs_database(), folder, clock)?);
        Ok(Self { dir, db, seal, keys, status, docs, config: options.authz.clone() })
    }
}

/// Runs the command.
pub(crate) fn run(command: &Serve) -> anyhow::Result<()> {
    let options = Options {
        listen: Listen::parse(&command.listen)?,
        issuer: command.issuer.clone(),
        data_dir: command.data.data_dir.clone(),
        docs: command.docs.clone(),
        authz: authz::Config::default(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let signals = stop_on_signal(stop.clone())?;
        let server = Server::start(options, Clock::system()).await?;
        announce(&server, command);
        server.run(stop).await;
        signals.abort();
        Ok(())
    })
}

/// Stops in good order at the first SIGTERM or SIGINT, at once at the second.
fn stop_on_signal(stop: CancellationToken) -> anyhow::Result<tokio::task::JoinHandle<()>> {
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

/// Says what to do next, on standard output.
fn announce(server: &Server, command: &Serve) {
    let mcp_url = server.issuer.url("/mcp");
    if command.json {
        println!(
            "{}",
            json!({ "issuer": server.issuer.as_str(), "mcp_url": mcp_url, "setup_link": server.setup_link })
        );
        return;
    }
    println!("Portcullis {} is ready.\n", env!("CARGO_PKG_VERSION"));
    println!("  MCP URL    {mcp_url}");
    println!("  Data       {}", command.data.data_dir.display());
    match &command.docs {
        Some(folder) => println!("  Documents  {}", folder.display()),
        None => println!("  Documents  the built-in handbook; serve your own with --docs DIR"),
    }
    if let Some(link) = &server.setup_link {
        println!(
            "\nYou are its first administrator. Open this link within 60 minutes and create a passkey:\n"
        );
        println!("  {link}\n");
        println!("A new link: portcullis setup-link");
    }
    println!("\nConnect a client:\n");
    for snippet in authz::snippets(&mcp_url) {
        println!("  {}: {}", snippet.client, snippet.how);
        println!("    {}", snippet.code);
    }
    println!("\nStop with Ctrl-C.");
}

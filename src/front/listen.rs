//! Listening sockets: bound first, and served until the server stops.

mod connection;
mod connections;
mod heads;
mod memory;
mod wire;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::extract::Request;
use axum::response::Response;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shared::rate::Origin;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::address::Listen;
use super::entrance::Entrance;
use connections::Connections;
pub(crate) use heads::{BadHead, LARGEST_HEADERS, LONGEST_TARGET, MOST_HEADERS};
pub use memory::Budget;
pub(crate) use memory::RequestMemory;

/// How long requests may take after the server is asked to stop (OPS-07).
const GRACE: Duration = Duration::from_secs(10);
/// The most open connections, whatever the system allows.
const MOST_CONNECTIONS: usize = 8192;
/// Files other than connections: databases, the log, documents.
const OTHER_FILES: u64 = 64;

/// What answers requests.
pub(crate) type Application = Arc<dyn Fn(Request) -> Answering + Send + Sync>;
/// An answer that is being made.
pub(crate) type Answering = Pin<Box<dyn Future<Output = Response> + Send>>;

/// Bound sockets.
pub(crate) struct Listeners(Vec<TcpListener>);

impl Listeners {
    /// Binds every address; with port 0 all get the port of the first one.
    pub(crate) async fn bind(listen: Listen) -> anyhow::Result<Self> {
        // The first address's port may be in use for another family; then try again.
        for _ in 0..16 {
            if let Some(listeners) = Self::try_bind(listen).await? {
                return Ok(listeners);
            }
        }
        bail!("no port is free on both 127.0.0.1 and [::1]; choose one with --listen")
    }

    async fn try_bind(listen: Listen) -> anyhow::Result<Option<Self>> {
        let mut listeners: Vec<TcpListener> = Vec::new();
        for mut address in listen.addresses() {
            let asked_port = address.port();
            if let Some(first) = listeners.first() {
                address.set_port(first.local_addr()?.port());
            }
            match TcpListener::bind(address).await {
                Ok(listener) => listeners.push(listener),
                // Without IPv6 no client can use the other family (OPS-03).
                Err(e) if !listeners.is_empty() && is_absent_family(&e) => {}
                Err(e)
                    if !listeners.is_empty() && asked_port == 0 && e.kind() == io::ErrorKind::AddrInUse =>
                {
                    return Ok(None);
                }
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
                    bail!(
                        "{address} is in use by another program; stop it, or choose another port with --listen"
                    )
                }
                Err(e) => return Err(e).with_context(|| format!("cannot listen on {address}")),
            }
        }
        Ok(Some(Self(listeners)))
    }

    /// The port.
    pub(crate) fn port(&self) -> io::Result<u16> {
        self.0.first().map_or(Ok(0), |listener| listener.local_addr().map(|address| address.port()))
    }

    /// Serves until `stop`, then lets current requests end.
    pub(crate) async fn serve(self, app: Application, entrance: Entrance, stop: CancellationToken) {
        let places = connection_limit();
        let connections = Connections::new(places, places / 4, entrance.config.memory);
        let door = Arc::new(ConnectionContext { app, entrance, stop: stop.clone() });
        let (tasks, cut_off) = (TaskTracker::new(), CancellationToken::new());
        for listener in self.0 {
            let accepting =
                accept(listener, Arc::clone(&door), connections.clone(), tasks.clone(), cut_off.clone());
            tasks.spawn(accepting);
        }
        stop.cancelled().await;
        tasks.close();
        if tokio::time::timeout(GRACE, tasks.wait()).await.is_err() {
            tracing::warn!("some requests did not end in time and were cut off");
            cut_off.cancel();
            tasks.wait().await;
        }
    }
}

/// Whether a bind failed because the machine lacks the address family.
fn is_absent_family(error: &io::Error) -> bool {
    let unsupported = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(unsupported)
}

/// The limit of open connections: most of the process's file descriptors, after raising their limit.
fn connection_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = MOST_CONNECTIONS as u64 + OTHER_FILES;
    let allowed = limit.maximum.unwrap_or(wanted).min(wanted);
    if limit.current.is_some_and(|current| current < allowed) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum: limit.maximum });
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(wanted);
    usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX).clamp(16, MOST_CONNECTIONS)
}

/// What every connection needs.
struct ConnectionContext {
    app: Application,
    entrance: Entrance,
    stop: CancellationToken,
}

async fn accept(
    listener: TcpListener,
    door: Arc<ConnectionContext>,
    connections: Connections,
    tasks: TaskTracker,
    cut_off: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = door.stop.cancelled() => return,
            accepted = async { connections.room().await; listener.accept().await } => accepted,
        };
        match accepted {
            Ok((socket, peer)) => {
                let origin = Origin::of(peer.ip());
                let Some(guest) = connections.enter(origin, door.entrance.config.proxies.trust(peer.ip()))
                else {
                    tracing::debug!(http.peer = %peer, "an address has all its connections, and all are busy");
                    continue;
                };
                let (door, cut_off) = (Arc::clone(&door), cut_off.clone());
                tasks.spawn(async move {
                    tokio::select! {
                        () = connection::serve(&door, socket, peer, guest) => {}
                        () = cut_off.cancelled() => {}
                    }
                });
            }
            Err(error) => {
                // Probably out of file descriptors: try again a little later.
                tracing::warn!(listen.error = %error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

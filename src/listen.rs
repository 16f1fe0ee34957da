//! Sockets: bound before anything else happens, accepted until the server stops.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tower_http::timeout::TimeoutBody;

use crate::config::Listen;

/// How long requests under way may take once the server is asked to stop (OPS-07).
const GRACE: Duration = Duration::from_secs(10);
/// How long a client may take to send a request's head (HTTP-09).
const SLOW_HEAD: Duration = Duration::from_secs(10);
/// How long a client may pause in a request's body (HTTP-09).
const SLOW_BODY: Duration = Duration::from_secs(30);
/// The most that a request's head may hold: target and headers.
const HEAD: usize = 24 * 1024;

/// Bound sockets.
pub(crate) struct Listeners(Vec<TcpListener>);

impl Listeners {
    /// Binds every address; with port 0 all get the port that the first one got.
    pub(crate) async fn bind(listen: Listen) -> anyhow::Result<Self> {
        // Another family may have lost the port that the first one was given; then try another.
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
                // A machine without IPv6 has nobody on the other family either (OPS-03).
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

    /// Serves until `stop`, then lets requests under way end.
    pub(crate) async fn serve(self, app: Router, stop: CancellationToken) {
        let graceful = Arc::new(GracefulShutdown::new());
        let places = Arc::new(Semaphore::new(connection_limit()));
        let tasks: Vec<_> = self
            .0
            .into_iter()
            .map(|listener| {
                let door =
                    Door { app: app.clone(), graceful: Arc::clone(&graceful), places: Arc::clone(&places) };
                tokio::spawn(accept(listener, door, stop.clone()))
            })
            .collect();
        for task in tasks {
            let _ = task.await;
        }
        let Some(graceful) = Arc::into_inner(graceful) else { return };
        if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
            tracing::warn!("some requests did not end in time and were cut off");
        }
    }
}

/// Whether a bind failed because the machine does not have the address family at all.
fn is_absent_family(error: &io::Error) -> bool {
    let unsupported = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(unsupported)
}

/// How many connections may be open: most of the files the process may have, the rest being for the database.
fn connection_limit() -> usize {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1024);
    usize::try_from(files.saturating_sub(64).clamp(16, 8192)).unwrap_or(8192)
}

/// What every connection needs.
struct Door {
    app: Router,
    graceful: Arc<GracefulShutdown>,
    places: Arc<Semaphore>,
}

async fn accept(listener: TcpListener, door: Door, stop: CancellationToken) {
    loop {
        // Taken before the connection is: who says nothing gives the place back within seconds.
        let place = tokio::select! {
            () = stop.cancelled() => return,
            place = Arc::clone(&door.places).acquire_owned() => place,
        };
        let Ok(place) = place else { return };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => door.connect(stream, peer, place),
            Err(error) => {
                // Out of file descriptors, most likely: the next connection will do better in a while.
                tracing::warn!(listen.error = %error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

impl Door {
    fn connect(&self, stream: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit) {
        // It decides between 344 and 6,568 streamed answers a second.
        let _ = stream.set_nodelay(true);
        let service = self.app.clone().map_request(move |request: hyper::Request<hyper::body::Incoming>| {
            let mut request = request.map(|body| Body::new(TimeoutBody::new(SLOW_BODY, body)));
            request.extensions_mut().insert(ConnectInfo(peer));
            request
        });
        // HTTP/1.1 alone: without TLS nothing negotiates another version, and sniffing for one would leave a
        // silent connection without a timer.
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(SLOW_HEAD)
            .max_buf_size(HEAD)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let connection = self.graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(http.error = %error, "a connection ended early");
            }
            drop(place);
        });
    }
}

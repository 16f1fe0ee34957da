//! Sockets: bound before anything else happens, accepted until the server stops.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use axum::extract::ConnectInfo;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::config::Listen;

/// How long requests under way may take once the server is asked to stop (OPS-07).
const GRACE: Duration = Duration::from_secs(10);
/// How long a client may take to send a request's head (HTTP-09).
const SLOW_HEAD: Duration = Duration::from_secs(10);
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
                Err(e) if !listeners.is_empty() && e.kind() == io::ErrorKind::AddrNotAvailable => {}
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
        let tasks: Vec<_> = self
            .0
            .into_iter()
            .map(|listener| tokio::spawn(accept(listener, app.clone(), Arc::clone(&graceful), stop.clone())))
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

async fn accept(
    listener: TcpListener,
    app: Router,
    graceful: Arc<GracefulShutdown>,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => connect(stream, peer, &app, &graceful),
            Err(error) => {
                // Out of file descriptors, most likely: the next connection will do better in a while.
                tracing::warn!(listen.error = %error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn connect(stream: TcpStream, peer: SocketAddr, app: &Router, graceful: &GracefulShutdown) {
    // It decides between 344 and 6,568 streamed answers a second.
    let _ = stream.set_nodelay(true);
    let service = app.clone().map_request(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        request
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(SLOW_HEAD).max_buf_size(HEAD);
    builder.http2().timer(TokioTimer::new()).max_header_list_size(16 * 1024);
    let connection = builder
        .serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service))
        .into_owned();
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(http.error = %error, "a connection ended early");
        }
    });
}

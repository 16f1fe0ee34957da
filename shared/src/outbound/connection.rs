//! Connections: one request at a time on each, and a small pool for reuse.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::failure::{NoAnswer, NotSent};

/// The most bytes of a response's head.
const MOST_HEAD: usize = 16 * 1024;
/// The most connections in the pool.
const KEPT: usize = 64;
/// How long an idle connection is kept. Many servers close after five seconds, and a request that crosses such
/// a close is lost.
const KEPT_FOR: Duration = Duration::from_secs(4);

/// An open connection. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    _task: AbortOnDropHandle<()>,
}

/// Why a request was lost.
pub(super) enum Lost {
    /// Before any of it was written.
    Before,
    After(NoAnswer),
}

impl Connection {
    pub(super) async fn over<S>(stream: S) -> Result<Self, NotSent>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let handshake = http1::Builder::new().max_buf_size(MOST_HEAD).handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| NotSent::Unreachable(error.to_string()))?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(outbound.error = %error, "a connection ended");
            }
        });
        Ok(Self { sender, _task: AbortOnDropHandle::new(task) })
    }

    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Lost> {
        self.sender.try_send_request(request).await.map_err(|mut lost| match lost.take_message() {
            Some(_) => Lost::Before,
            None => Lost::After(NoAnswer::broken(lost.error())),
        })
    }
}

/// A pool of idle connections. Cheap to clone.
#[derive(Clone, Default, Debug)]
pub(super) struct Pool(Arc<Mutex<Vec<(Connection, Instant)>>>);

impl Pool {
    /// The most recently used connection that is ready.
    pub(super) fn take(&self) -> Option<Connection> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        kept.retain(|(connection, since)| !connection.sender.is_closed() && now < *since + KEPT_FOR);
        let ready = kept.iter().rposition(|(connection, _)| connection.sender.is_ready())?;
        Some(kept.remove(ready).0)
    }

    /// Returns a connection whose response was read to its end.
    pub(super) fn keep(&self, connection: Connection) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT && !connection.sender.is_closed() {
            kept.push((connection, Instant::now()));
        }
    }
}

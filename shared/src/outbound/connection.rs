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
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::failure::{CertificateRefused, NoAnswer, NotSent};

/// The most bytes of a response's head.
const MOST_HEAD: usize = 16 * 1024;
/// The most connections in the pool.
const KEPT: usize = 64;
/// How long an idle connection is kept. Many servers close after five seconds, and a request that crosses such
/// a close is lost.
const KEPT_FOR: Duration = Duration::from_secs(4);
/// How long a connection that has failed may take to say why.
const ENDING: Duration = Duration::from_secs(1);

/// An open connection. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Comes to what the connection ended with.
    task: AbortOnDropHandle<Option<CertificateRefused>>,
}

/// Why a request was lost.
pub(super) enum LostRequest {
    /// Before any of it was written.
    Before,
    /// The same, because of what the other side wanted to see.
    Refused(CertificateRefused),
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
            let error = connection.await.err()?;
            tracing::debug!(outbound.error = %error, "a connection ended");
            CertificateRefused::of(&error)
        });
        Ok(Self { sender, task: AbortOnDropHandle::new(task) })
    }

    pub(super) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, LostRequest> {
        let mut lost = match self.sender.try_send_request(request).await {
            Ok(response) => return Ok(response),
            Err(lost) => lost,
        };
        let unsent = lost.take_message().is_some();
        // The connection itself knows whether the other side said why.
        let ended = timeout(ENDING, &mut self.task).await;
        let refused = ended.ok().and_then(Result::ok).flatten().or(CertificateRefused::of(lost.error()));
        Err(match (unsent, refused) {
            (true, None) => LostRequest::Before,
            (true, Some(refused)) => LostRequest::Refused(refused),
            (false, None) => LostRequest::After(NoAnswer::broken(lost.error())),
            (false, Some(refused)) => LostRequest::After(NoAnswer::Certificate(refused)),
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

    /// Closes those that wait.
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Returns a connection whose response was read to its end.
    pub(super) fn keep(&self, connection: Connection) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT && !connection.sender.is_closed() {
            kept.push((connection, Instant::now()));
        }
    }
}

//! Request bodies: the minimum speed (HTTP-09), and what happens to an unread rest.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::BoxError;
use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::front::listen::RequestMemory;

/// How long a client may pause in a body, and how long a body may take, plus a second for each
/// [`BYTES_A_SECOND`] bytes.
const SLOW: Duration = Duration::from_secs(30);
const BYTES_A_SECOND: u64 = 16 * 1024;
/// How long the rest of an answered request is waited for, and how much of it is discarded.
const PATIENCE: Duration = Duration::from_secs(2);
const MOST: u64 = 1 << 20;

/// How a request's body ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// With its last byte: another request can follow.
    Clean,
    /// Unknown: nothing can follow on this connection.
    Unknown,
    /// It took too long.
    Late,
}

/// The state of a body after its reader was dropped.
enum State {
    Reading,
    /// Dropped before its end.
    Left(Body),
    Ended(End),
}

/// A body that must come at a pace, and a handle on what is left of it. What its reader takes of it counts as memory of the
/// request (RATE-07).
pub(super) fn paced(body: Body, memory: Option<RequestMemory>) -> (Body, Rest) {
    // Most requests have no body, and nothing has to be watched.
    if body.is_end_stream() {
        return (body, Rest(None));
    }
    let state = Arc::new(Mutex::new(State::Reading));
    let (began, late, rest) = (Instant::now(), None, Handle(Arc::clone(&state)));
    (Body::new(Paced { body: Some(body), began, read: 0, late, rest, memory }), Rest(Some(Handle(state))))
}

/// A body that must come at a pace.
struct Paced {
    /// Gone once it has ended.
    body: Option<Body>,
    began: Instant,
    read: u64,
    late: Option<Pin<Box<Sleep>>>,
    rest: Handle,
    memory: Option<RequestMemory>,
}

impl Paced {
    /// Until when there must be more: soon, and in all not later than its size allows.
    fn deadline(&self) -> Instant {
        let whole = SLOW + Duration::from_secs(self.read / BYTES_A_SECOND);
        (Instant::now() + SLOW).min(self.began + whole)
    }

    fn end(&mut self, end: End) {
        self.body = None;
        self.rest.set(State::Ended(end));
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        match Pin::new(body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                if let Some(memory) = &self.memory {
                    memory.add(length);
                }
                self.read += length as u64;
                self.late = None;
                if self.body.as_ref().is_some_and(HttpBody::is_end_stream) {
                    self.end(End::Clean);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.end(End::Unknown);
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                self.end(End::Clean);
                Poll::Ready(None)
            }
            Poll::Pending => {
                let deadline = self.deadline();
                let late = self.late.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
                ready!(late.as_mut().poll(cx));
                self.end(End::Late);
                Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::TimedOut).into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Paced {
    fn drop(&mut self) {
        if let Some(body) = self.body.take()
            && !body.is_end_stream()
        {
            self.rest.set(State::Left(body));
        }
    }
}

/// The rest of a body; `None` if the request has none.
pub(super) struct Rest(Option<Handle>);

impl Rest {
    /// Reads what is left, which most refusals come before. Unread bytes make hyper cut the connection, and with it the
    /// answer, or the request that the client, who was told nothing, sends next (RFC 9112 §9.6). Who waits to be asked
    /// for the body has not sent it.
    pub(super) async fn end(self, waits_for_us: bool) -> End {
        let Some(handle) = self.0 else { return End::Clean };
        let mut body = match handle.set(State::Ended(End::Unknown)) {
            State::Ended(end) => return end,
            // Somebody holds it still.
            State::Reading => return End::Unknown,
            State::Left(body) => body,
        };
        if waits_for_us || body.size_hint().lower() > MOST {
            return End::Unknown;
        }
        let mut room = MOST;
        let to_the_end = async {
            while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                let Ok(frame) = frame else { return End::Unknown };
                let read = frame.data_ref().map_or(0, |data| data.len() as u64);
                let Some(left) = room.checked_sub(read) else { return End::Unknown };
                room = left;
            }
            End::Clean
        };
        tokio::time::timeout(PATIENCE, to_the_end).await.unwrap_or(End::Unknown)
    }
}

/// The state that the reader and [`Rest`] share.
struct Handle(Arc<Mutex<State>>);

impl Handle {
    fn set(&self, state: State) -> State {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut current, state)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;

    use super::*;

    async fn read(paced: Body) -> Result<Bytes, axum::Error> {
        axum::body::to_bytes(paced, usize::MAX).await
    }

    fn pieces(count: usize, size: usize, pause: Duration) -> Body {
        Body::from_stream(stream::unfold(0, move |n| async move {
            if n == count {
                return None;
            }
            tokio::time::sleep(pause).await;
            Some((Ok::<_, Infallible>(vec![b'x'; size]), n + 1))
        }))
    }

    /// HTTP-09: 30 seconds without a byte.
    #[tokio::test(start_paused = true)]
    async fn a_pause_ends_a_body() {
        let (body, rest) = paced(pieces(2, 1, Duration::from_secs(31)), None);
        let begun = Instant::now();
        assert!(read(body).await.is_err());
        assert_eq!(begun.elapsed(), SLOW);
        assert_eq!(rest.end(false).await, End::Late);
    }

    /// HTTP-09: 30 seconds in all for a small body that arrives slowly.
    #[tokio::test(start_paused = true)]
    async fn a_trickle_ends_a_body() {
        let (body, rest) = paced(pieces(1000, 1, Duration::from_secs(1)), None);
        let begun = Instant::now();
        assert!(read(body).await.is_err());
        assert_eq!(begun.elapsed(), SLOW);
        assert_eq!(rest.end(false).await, End::Late);
    }

    /// A large body over a slow line is accepted.
    #[tokio::test(start_paused = true)]
    async fn a_large_body_has_its_time() {
        let (body, rest) = paced(pieces(60, 17 * 1024, Duration::from_secs(1)), None);
        assert_eq!(read(body).await.unwrap().len(), 60 * 17 * 1024);
        assert_eq!(rest.end(false).await, End::Clean);
    }

    /// HTTP-09; RFC 9112 §9.6: an unread rest is read to its end, up to a limit.
    #[tokio::test(start_paused = true)]
    async fn the_rest_is_read() {
        let left = |body| {
            let (body, rest) = paced(body, None);
            drop(body);
            rest
        };
        assert_eq!(left(Body::empty()).end(false).await, End::Clean);
        assert_eq!(left(Body::from("x")).end(false).await, End::Clean);
        assert_eq!(left(pieces(3, 1000, Duration::from_millis(10))).end(false).await, End::Clean);
        assert_eq!(left(pieces(3, 1000, Duration::from_millis(10))).end(true).await, End::Unknown);
        assert_eq!(left(pieces(3, 1000, Duration::from_secs(1))).end(false).await, End::Unknown);
        assert_eq!(left(pieces(1000, 1 << 16, Duration::ZERO)).end(false).await, End::Unknown);
        assert_eq!(left(Body::from(vec![0; (1 << 20) + 1])).end(false).await, End::Unknown);
        let (held, rest) = paced(Body::from("x"), None);
        assert_eq!(rest.end(false).await, End::Unknown);
        drop(held);
    }
}

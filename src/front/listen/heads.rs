//! Reads HTTP/1 before hyper does, to refuse ambiguous requests (HTTP-09; RFC 9112 §6.3, §11.2).
//!
//! If there is both, hyper uses `Transfer-Encoding` and does not report the `Content-Length`. A proxy in front
//! may use the latter, and then the two disagree about where the next request begins. So each head is held back
//! until it is complete and was checked. A refused head never reaches hyper: a harmless one is passed instead,
//! and its [`Verdict`] in the queue says how to answer. Bodies are parsed only to find their end.

mod chunks;
mod framing;

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::memory::Charge;
use chunks::Chunks;
pub(super) use framing::LARGEST_HEAD;
use framing::{Body, Found, Scan};
pub(crate) use framing::{LARGEST_HEADERS, LONGEST_TARGET, MOST_HEADERS};

/// The time limit of a request's head (HTTP-09).
const SLOW: Duration = Duration::from_secs(10);
/// Replaces a refused head. Its response is the last one on the connection.
const INSTEAD: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";

/// Why a head was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BadHead {
    pub(crate) status: StatusCode,
    pub(crate) description: &'static str,
}

impl BadHead {
    pub(super) const MALFORMED: Self =
        Self { status: StatusCode::BAD_REQUEST, description: "the request is not valid HTTP/1.1" };
    const SLOW: Self = Self {
        status: StatusCode::REQUEST_TIMEOUT,
        description: "the request's headers took longer than 10 seconds",
    };

    const fn new(status: StatusCode, description: &'static str) -> Self {
        Self { status, description }
    }
}

/// The verdict on a request's head.
type Verdict = Result<(), BadHead>;

/// The verdicts on the passed heads in order: one for each request that hyper will see.
#[derive(Clone, Default)]
pub(super) struct Verdicts(Arc<Mutex<VecDeque<Verdict>>>);

impl Verdicts {
    /// The verdict on the next request. If there is none, hyper saw a request where this reader saw no head,
    /// which must be refused.
    pub(super) fn next(&self) -> Verdict {
        self.lock().pop_front().unwrap_or(Err(BadHead::MALFORMED))
    }

    fn push(&self, verdict: Verdict) {
        self.lock().push_back(verdict);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Verdict>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What comes next on the connection.
enum Next {
    Head(Scan),
    /// This many bytes of a body.
    Body(u64),
    Chunks(Chunks),
    /// Nothing: the connection ends after the refusal.
    Nothing,
}

/// A reader that holds heads back.
pub(super) struct Heads<T> {
    inner: T,
    /// Read and not passed on yet.
    held: BytesMut,
    /// How much of it may be passed on.
    cleared: usize,
    next: Next,
    /// When the head must be complete. `None` until its first byte.
    deadline: Option<Pin<Box<Sleep>>>,
    verdicts: Verdicts,
    /// For what is held.
    memory: Charge,
}

impl<T> Heads<T> {
    /// A reader, and the verdicts that it comes to. The first head has its time from now on.
    pub(super) fn new(inner: T, memory: Charge) -> (Self, Verdicts) {
        let verdicts = Verdicts::default();
        let this = Self {
            inner,
            held: BytesMut::new(),
            cleared: 0,
            next: Next::Head(Scan::default()),
            deadline: Some(Box::pin(tokio::time::sleep(SLOW))),
            verdicts: verdicts.clone(),
            memory,
        };
        (this, verdicts)
    }

    pub(super) fn into_inner(self) -> T {
        self.inner
    }

    /// Checks the held bytes; true if more of them may be passed on.
    fn look(&mut self) -> io::Result<bool> {
        match &mut self.next {
            Next::Head(scan) => match scan.find(&self.held) {
                Ok(Found::Nothing) => return Ok(false),
                Ok(Found::Incomplete) => {
                    self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(SLOW)));
                    return Ok(false);
                }
                Ok(Found::Head { length, body }) => {
                    self.verdicts.push(Ok(()));
                    self.cleared = length;
                    self.deadline = None;
                    self.next = match body {
                        Body::Length(0) => Next::Head(Scan::default()),
                        Body::Length(length) => Next::Body(length),
                        Body::Chunked => Next::Chunks(Chunks::default()),
                    };
                }
                Err(bad) => self.refuse(bad),
            },
            Next::Body(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(self.held.len());
                self.cleared = here;
                *left -= here as u64;
                if *left == 0 {
                    self.next = Next::Head(Scan::default());
                }
            }
            Next::Chunks(chunks) => {
                let Some(here) = chunks.advance(&self.held) else {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "a chunk is malformed"));
                };
                self.cleared = here;
                if chunks.is_over() {
                    self.next = Next::Head(Scan::default());
                }
            }
            Next::Nothing => return Ok(false),
        }
        Ok(self.cleared > 0)
    }

    fn refuse(&mut self, bad: BadHead) {
        self.verdicts.push(Err(bad));
        self.held.clear();
        self.held.extend_from_slice(INSTEAD);
        self.cleared = INSTEAD.len();
        self.deadline = None;
        self.next = Next::Nothing;
    }

    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        matches!(self.next, Next::Head(_))
            && self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Heads<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.cleared > 0 || this.look()? {
                let here = this.cleared.min(buffer.remaining());
                buffer.put_slice(&this.held[..here]);
                this.held.advance(here);
                this.cleared -= here;
                if this.held.is_empty() {
                    // Most connections are idle most of the time, and need no buffer then.
                    this.held = BytesMut::new();
                }
                this.memory.set(this.held.capacity());
                return Poll::Ready(Ok(()));
            }
            if matches!(this.next, Next::Nothing) {
                // Only the refusal is still to be sent; reporting the end of the stream would prevent it.
                return Poll::Pending;
            }
            if this.is_late(cx) {
                if this.held.is_empty() {
                    // It never sent anything, and gets no answer.
                    return Poll::Ready(Ok(()));
                }
                this.refuse(BadHead::SLOW);
                continue;
            }
            let mut space = [const { std::mem::MaybeUninit::<u8>::uninit() }; 8192];
            let mut read = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.held.extend_from_slice(read.filled());
            this.memory.set(this.held.capacity());
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Heads<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;

//! A stream that ends with an error when more arrives than a call may have: a row can be as large as a gigabyte, and is
//! otherwise read as a whole.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use shared::outbound::dial::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most bytes for one call.
const MOST: usize = 16 << 20;

/// How much may still arrive. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Allowance(Arc<AtomicUsize>);

impl Allowance {
    pub(super) fn renew(&self) {
        self.0.store(MOST, Ordering::Relaxed);
    }

    /// Whether more arrived than it allowed.
    pub(super) fn is_spent(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

/// The stream.
pub(super) struct Metered {
    inner: Box<dyn Stream>,
    left: Allowance,
}

impl Metered {
    pub(super) fn around(inner: Box<dyn Stream>) -> (Self, Allowance) {
        let left = Allowance(Arc::new(AtomicUsize::new(MOST)));
        (Self { inner, left: left.clone() }, left)
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = to.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, to);
        let arrived = to.filled().len() - before;
        let left = self.left.0.load(Ordering::Relaxed);
        self.left.0.store(left.saturating_sub(arrived), Ordering::Relaxed);
        if arrived >= left { Poll::Ready(Err(io::Error::other("the result is too large"))) } else { read }
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

//! The transport: a socket, with or without TLS. A peer that does not read is not waited for, and connections
//! are closed so that the last bytes arrive.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use shared::Issuer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_openssl::SslStream;

use crate::front::http::signpost;

/// How long a peer may read nothing of the available data.
const STALLED: Duration = Duration::from_secs(30);
/// How long a peer's data are read and discarded after the last response, and how much.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 4 << 20;
/// When the system gives up on a peer that acknowledges nothing, for example after power loss.
const UNACKNOWLEDGED: u32 = 60_000;

/// What is below.
pub(super) enum Transport {
    Plain(TcpStream),
    Tls(SslStream<TcpStream>),
}

impl Transport {
    /// Configures an accepted socket.
    pub(super) fn prepare(socket: &TcpStream) {
        // It makes the difference between 344 and 6,568 streamed responses per second.
        let _ = socket.set_nodelay(true);
        let _ = rustix::net::sockopt::set_tcp_user_timeout(socket, UNACKNOWLEDGED);
    }

    fn socket(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_mut(),
        }
    }
}

/// A transport with a time limit for writing.
pub(super) struct Wire {
    transport: Transport,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Wire {
    pub(super) fn new(transport: Transport) -> Self {
        Self { transport, stalled: None }
    }

    /// Closes the connection properly. Closing a socket with unread bytes resets it, and then the peer may lose
    /// the last response; so further bytes are read and discarded (RFC 9112 §9.6).
    pub(super) async fn close(mut self) {
        let goodbye = async {
            self.shutdown().await?;
            let mut rest = self.transport.socket().take(LINGER_BYTES);
            tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
        };
        let _ = tokio::time::timeout(LINGER, goodbye).await;
    }

    /// Passes on a write result, unless it has been pending for too long.
    fn patiently<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALLED)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = match &mut self.transport {
            Transport::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        };
        self.patiently(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.transport {
            Transport::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        };
        self.patiently(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        matches!(self.transport, Transport::Plain(_))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = match &mut self.transport {
            Transport::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        };
        self.patiently(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = match &mut self.transport {
            Transport::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        };
        self.patiently(cx, shut)
    }
}

/// Answers a client that uses plain HTTP on a TLS port (HTTP-01). It is not redirected: what it sent was
/// readable to others, and a redirect would let it do so again.
///
/// A browser, as far as the start of what it sent shows, is told the right address on a page.
pub(super) async fn refuse_plain(socket: TcpStream, peer: SocketAddr, start: &[u8], address: &Issuer) {
    const ANSWER: &str = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 75\r\n\
        cache-control: no-store\r\nx-content-type-options: nosniff\r\nreferrer-policy: no-referrer\r\n\
        cross-origin-resource-policy: same-origin\r\nconnection: close\r\n\r\n\
        {\"error\":\"tls_required\",\"error_description\":\"this port accepts only https\"}";
    tracing::debug!(http.peer = %peer, "plain HTTP on a port that speaks TLS was refused");
    let page = accepts_page(start).then(|| signpost::plain_http(address.as_str()));
    let answer = page.as_deref().unwrap_or(ANSWER);
    let mut wire = Wire::new(Transport::Plain(socket));
    let _ = tokio::time::timeout(LINGER, wire.write_all(answer.as_bytes())).await;
    wire.close().await;
}

/// Whether a request's head, or the start of it, has an `Accept` header that names HTML.
fn accepts_page(start: &[u8]) -> bool {
    start.split(|byte| *byte == b'\n').any(|line| {
        let line = line.to_ascii_lowercase();
        line.starts_with(b"accept:") && line.windows(9).any(|part| part == b"text/html")
    })
}

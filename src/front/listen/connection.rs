//! One connection, from its handshake to its end: HTTP/1.1 or HTTP/2, as negotiated.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::ConnectInfo;
use axum::response::Response;
use bytes::Buf;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::connections::{ConnectionGuard, OpenRequest};
use super::heads::{Heads, LARGEST_HEAD, LARGEST_HEADERS, Verdicts};
use super::memory::{Account, Charge, HTTP1, HTTP2, RequestMemory, SECURED, WINDOW};
use super::wire::{Transport, Wire, refuse_plain};
use super::{Answering, ConnectionContext};

/// The time limit of a handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection may be idle between requests: longer than most clients keep one, so that the client
/// ends it.
const IDLE: Duration = Duration::from_secs(75);
/// How long an HTTP/2 client may read nothing although data are available. The socket does not show this: the
/// client may keep the connection active and its windows closed.
const STALLED: Duration = Duration::from_secs(30);
/// How long a connection that is asked to end may take if it has no requests.
const LEAVING: Duration = Duration::from_secs(2);
/// The first byte of a TLS connection: a handshake record (RFC 8446 §5.1).
const HANDSHAKE_RECORD: u8 = 22;
/// How much of a connection's start is looked at to tell TLS from plain HTTP, and a browser from a program.
const PEEKED: usize = 2048;

/// Serves a connection to its end.
pub(super) async fn serve(
    door: &ConnectionContext,
    socket: TcpStream,
    peer: SocketAddr,
    mut guest: ConnectionGuard,
) {
    Transport::prepare(&socket);
    let leave = guest.leave.clone();
    let served = async {
        if door.entrance.tls.is_some() {
            guest.grow(SECURED);
        }
        let Some(transport) = secured(door, socket, peer).await else { return };
        let is_http2 = matches!(&transport, Transport::Tls(stream)
            if stream.ssl().selected_alpn_protocol() == Some(b"h2".as_slice()));
        let wire = Wire::new(transport);
        guest.grow(if is_http2 { HTTP2 } else { HTTP1 });
        if is_http2 {
            http2(door, wire, peer, &guest).await;
        } else {
            http1(door, wire, peer, &guest).await;
        }
    };
    // A connection that is asked to leave is idle or uses too much memory: end it at once.
    leave.run_until_cancelled(served).await;
}

/// Shakes hands, if there is TLS. `None` if nothing came of it.
async fn secured(door: &ConnectionContext, socket: TcpStream, peer: SocketAddr) -> Option<Transport> {
    let Some(tls) = &door.entrance.tls else { return Some(Transport::Plain(socket)) };
    let handshake = async {
        let mut first = [0; PEEKED];
        if let Ok(read @ 1..) = socket.peek(&mut first).await
            && first[0] != HANDSHAKE_RECORD
        {
            refuse_plain(socket, peer, &first[..read], &door.entrance.address).await;
            return None;
        }
        match tls.accept(socket).await {
            Ok(stream) => Some(Transport::Tls(stream)),
            Err(error) => {
                tracing::debug!(tls.error = %error, http.peer = %peer, "a handshake failed");
                None
            }
        }
    };
    tokio::select! {
        // There is no request, so nothing is waited for when the server stops.
        () = door.stop.cancelled() => None,
        shaken = tokio::time::timeout(HANDSHAKE, handshake) => shaken.ok().flatten(),
    }
}

async fn http1(door: &ConnectionContext, wire: Wire, peer: SocketAddr, guest: &ConnectionGuard) {
    let (heads, verdicts) = Heads::new(wire, guest.account.charge(0));
    let service = service(door, peer, guest, Some(verdicts));
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // The head reader in front of this limits the time.
        .header_read_timeout(None)
        .max_buf_size(LARGEST_HEAD + 8 * 1024)
        .serve_connection(TokioIo::new(heads), TowerToHyperService::new(service));
    let mut stopping = pin!(ending(door, guest));
    let mut is_stopping = false;
    loop {
        let ended = tokio::select! {
            biased; // Nothing is gained by a fair draw, and it would be made for every request.
            ended = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)) => Some(ended),
            () = stopping.as_mut(), if !is_stopping => None,
        };
        match ended {
            Some(Ok(())) => break,
            Some(Err(error)) => {
                tracing::debug!(http.error = %error, http.peer = %peer, "a connection ended early");
                break;
            }
            None => {
                is_stopping = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
    }
    connection.into_parts().io.into_inner().into_inner().close().await;
}

/// HTTP/2, with what keeps one client from asking for everything at once. A stream that is reset before it was looked at
/// counts (hyper ends the connection at 20 of them), and so do headers that go on for ever.
async fn http2(door: &ConnectionContext, wire: Wire, peer: SocketAddr, guest: &ConnectionGuard) {
    let service = service(door, peer, guest, None);
    let connection = http2::Builder::new(Streams(guest.leave.clone()))
        .timer(TokioTimer::new())
        .max_concurrent_streams(64)
        // Each field counts 32 bytes more than its content (RFC 9113 §6.5.2).
        .max_header_list_size(u32::try_from(LARGEST_HEADERS + 8 * 1024 + 32 * 100).unwrap_or(u32::MAX))
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(64 * 1024)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .serve_connection(TokioIo::new(wire), TowerToHyperService::new(service));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = guest.activity.stalled_for(STALLED) => Ok(()),
        () = ending(door, guest) => {
            connection.as_mut().graceful_shutdown();
            // Current requests are waited for; a client without requests is not.
            let left = async {
                tokio::time::sleep(LEAVING).await;
                guest.activity.idle_for(LEAVING).await;
            };
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = left => Ok(()),
                () = guest.activity.stalled_for(STALLED) => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(http.error = %error, http.peer = %peer, "a connection ended early");
    }
}

/// Waits until the server stops, or the connection has been idle for too long.
async fn ending(door: &ConnectionContext, guest: &ConnectionGuard) {
    tokio::select! {
        () = door.stop.cancelled() => {}
        () = guest.activity.idle_for(IDLE) => {}
    }
}

/// Runs the requests of an HTTP/2 connection. Each is a task, which must not outlive a connection that is
/// closed because of its memory.
#[derive(Clone)]
struct Streams(CancellationToken);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        tokio::spawn(self.0.clone().run_until_cancelled_owned(stream));
    }
}

/// The application, with the client's address and the verdict on the request's head.
fn service(
    door: &ConnectionContext,
    peer: SocketAddr,
    guest: &ConnectionGuard,
    verdicts: Option<Verdicts>,
) -> impl tower::Service<
    hyper::Request<Incoming>,
    Response = Response<Answer>,
    Error = std::convert::Infallible,
    Future: Send + Unpin + 'static,
> + Clone
+ Send
+ 'static {
    let (app, activity, account) = (door.app.clone(), guest.activity.clone(), guest.account.clone());
    tower::service_fn(move |request: hyper::Request<Incoming>| {
        let (asked, account) = (activity.request(), account.clone());
        let (mut head, body) = request.into_parts();
        let memory = account.request(&head);
        head.extensions.insert(memory.clone());
        head.extensions.insert(ConnectInfo(peer));
        if let Some(Err(bad)) = verdicts.as_ref().map(Verdicts::next) {
            head.extensions.insert(bad);
        }
        let body = if body.is_end_stream() { Body::empty() } else { Body::new(body) };
        let answering = app(hyper::Request::from_parts(head, body));
        Serving { answering, asked: Some(asked), memory: Some(memory), account }
    })
}

/// A request until there is a response.
struct Serving {
    answering: Answering,
    asked: Option<OpenRequest>,
    memory: Option<RequestMemory>,
    account: Account,
}

impl Future for Serving {
    type Output = Result<Response<Answer>, std::convert::Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let response = ready!(this.answering.as_mut().poll(cx));
        this.memory = None;
        let asked = this.asked.take().expect("a future is not polled after its end");
        Poll::Ready(Ok(response.map(|body| Answer::new(body, asked, &this.account))))
    }
}

/// A response's body. The request lasts until it is sent.
pub(super) struct Answer {
    body: Body,
    asked: OpenRequest,
    /// For what is still in the body.
    memory: Charge,
}

impl Answer {
    fn new(body: Body, mut asked: OpenRequest, account: &Account) -> Self {
        asked.offers(true);
        let memory = account.answer(body.size_hint().lower());
        Self { body, asked, memory }
    }
}

impl HttpBody for Answer {
    type Data = Piece;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, axum::Error>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        this.asked.offers(polled.is_ready());
        let piece = |bytes: Bytes| Piece { _memory: this.memory.split(bytes.len()), bytes };
        polled.map(|frame| frame.map(|frame| frame.map(|frame| frame.map_data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A piece of a response, charged until its last byte is sent.
pub(super) struct Piece {
    bytes: Bytes,
    _memory: Charge,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

//! HTTP/2 frame by frame (RFC 9113), as no proper client would send them. An abusive connection ends without
//! affecting others.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

use crate::harness::TestApp;
use crate::raw::{Handshake, assert_after};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

const CANCEL: u32 = 8;
const PROTOCOL_ERROR: u32 = 1;
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    pub kind: u8,
    flags: u8,
    pub stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    /// The code of a RST_STREAM or GOAWAY, or the increment of a WINDOW_UPDATE.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header without table references (RFC 7541 §6.2.2).
fn literal(name: &str, value: &str) -> Vec<u8> {
    [&[0][..], &text(name), &text(value)].concat()
}

/// RFC 7541 §5.2, without Huffman coding.
fn text(text: &str) -> Vec<u8> {
    let mut rest = text.len();
    let mut bytes = Vec::new();
    if rest < 127 {
        bytes.push(u8::try_from(rest).unwrap());
    } else {
        bytes.push(127);
        rest -= 127;
        while rest >= 128 {
            bytes.push(u8::try_from(rest % 128).unwrap() | 128);
            rest /= 128;
        }
        bytes.push(u8::try_from(rest).unwrap());
    }
    bytes.extend(text.as_bytes());
    bytes
}

/// A connection that answers nothing by itself.
pub struct Connection {
    stream: SslStream<TcpStream>,
    read: Vec<u8>,
    authority: String,
}

impl Connection {
    /// Negotiates HTTP/2, and sends the preface with these settings.
    async fn open(app: &TestApp, settings: &[(u16, u32)]) -> Self {
        let authority = std::fs::read(app.data_dir().parent().unwrap().join("gate.ca")).unwrap();
        Self::to(&app.origin, &authority, settings).await.unwrap()
    }

    /// The same with the server at this origin, whose certificate is from this authority.
    pub async fn to(origin: &str, authority: &[u8], settings: &[(u16, u32)]) -> Result<Self, String> {
        let handshake = Handshake { protocols: b"\x02h2", ..Handshake::new(authority) };
        let stream = handshake.shake(origin).await?;
        let authority = origin.strip_prefix("https://").unwrap().to_owned();
        let mut connection = Self { stream, read: Vec::new(), authority };
        let settings: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        connection.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        connection.send(&frame(SETTINGS, 0, 0, &settings)).await;
        Ok(connection)
    }

    /// Sends bytes. Errors are ignored: whether the connection was closed shows when reading.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    /// The header block of a valid request, with these additional headers.
    pub fn block(&self, method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
        let pseudo =
            [(":method", method), (":scheme", "https"), (":authority", &self.authority), (":path", path)];
        pseudo.iter().chain(more).flat_map(|(name, value)| literal(name, value)).collect()
    }

    pub async fn ask(&mut self, stream: u32, method: &str, path: &str, flags: u8) {
        let block = self.block(method, path, &[]);
        self.send(&frame(HEADERS, END_HEADERS | flags, stream, &block)).await;
    }

    /// The next frame; `None` if the connection has ended.
    pub async fn next(&mut self) -> Option<Frame> {
        self.fill(9).await.then_some(())?;
        let length = u32::from_be_bytes([0, self.read[0], self.read[1], self.read[2]]);
        let length = usize::try_from(length).unwrap();
        self.fill(9 + length).await.then_some(())?;
        let mut bytes: Vec<u8> = self.read.drain(..9 + length).collect();
        let payload = bytes.split_off(9);
        let stream = u32::from_be_bytes(bytes[5..9].try_into().unwrap());
        Some(Frame { kind: bytes[3], flags: bytes[4], stream, payload })
    }

    async fn fill(&mut self, length: usize) -> bool {
        while self.read.len() < length {
            // Nothing here takes that long; a hanging server must not hang its test.
            let more = tokio::time::timeout(Duration::from_mins(10), self.stream.read_buf(&mut self.read));
            if !matches!(more.await.expect("a frame or an end"), Ok(1..)) {
                return false;
            }
        }
        true
    }

    /// Reads frames until the wanted one, answering pings.
    pub async fn until(&mut self, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            let next = self.next().await?;
            if next.kind == PING && next.flags & ACK == 0 {
                let pong = frame(PING, ACK, 0, &next.payload);
                self.send(&pong).await;
            }
            if wanted(&next) {
                return Some(next);
            }
        }
    }

    /// The error code with which the server ended the connection.
    async fn goodbye(&mut self) -> u32 {
        let goodbye = self.until(|frame| frame.kind == GOAWAY && frame.code() != 0).await;
        goodbye.expect("a goodbye with a reason").code()
    }

    /// The first byte of a stream's response headers, which is the status for common ones.
    async fn status(&mut self, stream: u32) -> u16 {
        let answer = self.until(|frame| frame.stream == stream && matches!(frame.kind, HEADERS | RST_STREAM));
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.kind, HEADERS, "the stream was reset: {}", answer.code());
        // RFC 7541, appendix A; other statuses are literals, and are not expected here.
        match answer.payload.iter().find(|byte| **byte >= 0x80 || **byte & 0xe0 != 0x20) {
            Some(0x88) => 200,
            Some(0x89) => 204,
            Some(0x8c) => 400,
            Some(0x8d) => 404,
            _ => 0,
        }
    }
}

async fn start() -> TestApp {
    TestApp::start_secured("").await
}

/// Another client is served as usual.
async fn assert_serves(app: &TestApp) {
    assert_eq!(app.get("/readyz").await.status(), 200);
    let mut other = Connection::open(app, &[]).await;
    other.ask(1, "GET", "/healthz", END_STREAM).await;
    assert_eq!(other.status(1).await, 200);
}

/// HTTP-10, CVE-2023-44487: a connection that resets its requests at once is ended.
#[tokio::test]
async fn rapid_resets_end_their_connection() {
    let app = start().await;
    let mut connection = Connection::open(&app, &[]).await;
    let block = connection.block("GET", "/jwks.json", &[]);
    let burst: Vec<u8> = (0..500)
        .flat_map(|n| {
            let stream = 2 * n + 1;
            let asked = frame(HEADERS, END_HEADERS | END_STREAM, stream, &block);
            [asked, frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())].concat()
        })
        .collect();
    connection.send(&burst).await;
    assert_eq!(connection.goodbye().await, ENHANCE_YOUR_CALM);
    assert!(connection.until(|_| false).await.is_none());
    assert_serves(&app).await;
}

/// HTTP-09, HTTP-10, CVE-2024-27316: endless headers are not collected.
#[tokio::test]
async fn endless_headers_end_their_connection() {
    let app = start().await;
    let mut connection = Connection::open(&app, &[]).await;
    let block = connection.block("GET", "/", &[]);
    connection.send(&frame(HEADERS, END_STREAM, 1, &block)).await;
    let filler = literal("x", &"y".repeat(16_000));
    for _ in 0..1_000 {
        connection.send(&frame(CONTINUATION, 0, 1, &filler)).await;
    }
    assert_eq!(connection.goodbye().await, ENHANCE_YOUR_CALM);
    assert!(connection.until(|_| false).await.is_none());
    // The same in a thousand small pieces.
    let mut connection = Connection::open(&app, &[]).await;
    connection.send(&frame(HEADERS, END_STREAM, 1, &block)).await;
    let pieces: Vec<u8> = (0..100_000).flat_map(|_| frame(CONTINUATION, 0, 1, &[])).collect();
    connection.send(&pieces).await;
    assert_eq!(connection.goodbye().await, ENHANCE_YOUR_CALM);
    assert_serves(&app).await;
}

/// HTTP-09: headers beyond the limit are refused, and the connection continues.
#[tokio::test]
async fn headers_beyond_the_limit_are_refused() {
    let app = start().await;
    let mut connection = Connection::open(&app, &[]).await;
    let many: Vec<(&str, &str)> = vec![("a", "b"); 101];
    let block = connection.block("GET", "/healthz", &many);
    connection.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).await;
    assert_eq!(connection.status(1).await, 0, "431 has no number of its own");
    let wide = "y".repeat(8_100);
    let block = connection.block("GET", "/healthz", &[("x", &wide), ("y", &wide)]);
    let (first, second) = block.split_at(10_000);
    connection.send(&frame(HEADERS, END_STREAM, 3, first)).await;
    connection.send(&frame(CONTINUATION, END_HEADERS, 3, second)).await;
    assert_eq!(connection.status(3).await, 200, "within the limit");
    let block = connection.block("GET", "/healthz", &[("x", &wide), ("y", &wide), ("z", &wide)]);
    let (first, second) = block.split_at(16_000);
    connection.send(&frame(HEADERS, END_STREAM, 5, first)).await;
    connection.send(&frame(CONTINUATION, END_HEADERS, 5, second)).await;
    assert_eq!(connection.status(5).await, 0, "beyond it");
    connection.ask(7, "GET", "/healthz", END_STREAM).await;
    assert_eq!(connection.status(7).await, 200);
}

/// HTTP-10: the number of concurrent requests is limited; the next one is refused and may be repeated after
/// another was answered.
#[tokio::test]
async fn the_streams_of_a_connection_are_limited() {
    let app = start().await;
    let mut connection = Connection::open(&app, &[]).await;
    // The server's limits apply once they were acknowledged (RFC 9113 §6.5.3).
    connection.until(|frame| frame.kind == SETTINGS && frame.flags & ACK == 0).await.unwrap();
    connection.send(&frame(SETTINGS, ACK, 0, &[])).await;
    for n in 0..65 {
        connection.ask(2 * n + 1, "POST", "/token", 0).await;
    }
    let refused = connection.until(|frame| frame.kind == RST_STREAM).await.unwrap();
    assert_eq!((refused.stream, refused.code()), (129, REFUSED_STREAM));
    connection.send(&frame(DATA, END_STREAM, 1, b"")).await;
    connection.until(|frame| frame.stream == 1 && frame.kind == HEADERS).await.unwrap();
    connection.ask(131, "GET", "/healthz", END_STREAM).await;
    assert_eq!(connection.status(131).await, 200);
    assert_serves(&app).await;
}

/// HTTP-09, HTTP-10: a connection that sends requests and opens no window for the responses is ended after
/// about a minute.
#[tokio::test]
async fn shut_windows_end_their_connection() {
    const INITIAL_WINDOW_SIZE: u16 = 4;
    let app = start().await;
    let mut connection = Connection::open(&app, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    for n in 0..64 {
        connection.ask(2 * n + 1, "GET", "/healthz", END_STREAM).await;
    }
    for n in 0..64 {
        let stream = 2 * n + 1;
        assert_eq!(connection.status(stream).await, 200);
    }
    assert_serves(&app).await;
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    assert!(connection.until(|frame| frame.kind == DATA).await.is_none(), "and nothing was sent");
    assert_after(begun, 30);
}

/// HTTP-09: an announced body that does not arrive is waited for half a minute, each separately.
#[tokio::test]
async fn bodies_that_do_not_come_are_given_up() {
    let app = start().await;
    let mut connection = Connection::open(&app, &[]).await;
    let block = connection.block(
        "POST",
        "/register",
        &[("content-length", "100"), ("content-type", "application/json")],
    );
    for n in 0..10 {
        connection.send(&frame(HEADERS, END_HEADERS, 2 * n + 1, &block)).await;
    }
    connection.ask(21, "GET", "/healthz", END_STREAM).await;
    assert_eq!(connection.status(21).await, 200);
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    for n in 0..10 {
        let stream = 2 * n + 1;
        let ended =
            connection.until(|frame| frame.stream == stream && matches!(frame.kind, HEADERS | RST_STREAM));
        ended.await.expect("an answer");
    }
    assert_after(begun, 30);
}

/// HTTP-09: a client that answers pings and sends no requests may stay for a limited time; one that does not
/// answer them is ended sooner.
#[tokio::test]
async fn idle_connections_end() {
    let app = start().await;
    let mut connection = Connection::open(&app, &[]).await;
    connection.ask(1, "GET", "/healthz", END_STREAM).await;
    assert_eq!(connection.status(1).await, 200);
    let mut dead = Connection::open(&app, &[]).await;
    dead.ask(1, "GET", "/healthz", END_STREAM).await;
    assert_eq!(dead.status(1).await, 200);
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    let dead = tokio::spawn(async move {
        while dead.next().await.is_some() {}
        begun.elapsed().as_secs()
    });
    let polite = tokio::spawn(async move {
        assert!(connection.until(|_| false).await.is_none());
        begun.elapsed().as_secs()
    });
    // Advance in steps of a second, so that an answer arrives before its deadline.
    while !(dead.is_finished() && polite.is_finished()) && begun.elapsed() < Duration::from_mins(10) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    let (dead, polite) = (dead.await.unwrap(), polite.await.unwrap());
    assert!((30..60).contains(&dead) && (70..90).contains(&polite), "{dead} {polite}");
}

/// HTTP-03, HTTP-09: ambiguous requests are refused.
#[tokio::test]
async fn malformed_requests_are_refused() {
    let app = start().await;
    for (what, more) in [
        ("a header of HTTP/1", &[("connection", "close")][..]),
        ("another one", &[("transfer-encoding", "chunked")]),
        ("a capital letter", &[("Accept", "*/*")]),
        ("a line break", &[("x", "a\r\nhost: evil.example")]),
        ("a zero byte", &[("x", "a\0b")]),
        ("a second path", &[(":path", "/jwks.json")]),
        ("a wrong length", &[("content-length", "5")]),
    ] {
        let mut connection = Connection::open(&app, &[]).await;
        let block = connection.block("GET", "/healthz", more);
        connection.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).await;
        let wanted = |frame: &Frame| frame.stream == 1 || (frame.kind == GOAWAY && frame.code() != 0);
        let answer = connection.until(wanted).await.unwrap_or_else(|| panic!("{what}: no answer"));
        assert!(matches!(answer.kind, RST_STREAM | GOAWAY), "{what}: {answer:?}");
        assert_eq!(answer.code(), PROTOCOL_ERROR, "{what}");
    }
    for (path, host, expected) in [
        ("/healthz", None, 200),
        ("//healthz", None, 400),
        ("/x/../healthz", None, 400),
        ("/%2e%2e/healthz", None, 400),
        ("/healthz/", None, 404),
        ("/healthz", Some("evil.example"), 400),
    ] {
        let mut connection = Connection::open(&app, &[]).await;
        let more: Vec<_> = host.map(|host| ("host", host)).into_iter().collect();
        let block = connection.block("GET", path, &more);
        connection.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).await;
        assert_eq!(connection.status(1).await, expected, "{path} {host:?}");
    }
    // Another authority than ours: 421.
    let mut connection = Connection::open(&app, &[]).await;
    connection.authority = "evil.example".to_owned();
    connection.ask(1, "GET", "/jwks.json", END_STREAM).await;
    assert_eq!(connection.status(1).await, 0);
}

/// HTTP-10: after any frames the server still answers.
#[tokio::test]
async fn strange_frames_stop_nothing() {
    let app = start().await;
    // The same pseudo-random bytes each time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..100 {
        let mut connection = Connection::open(&app, &[]).await;
        for _ in 0..noise() % 20 {
            let [kind, flags, stream, length, ..] = noise().to_le_bytes();
            let block = connection.block("POST", "/token", &[]);
            let payload = if length % 2 == 0 {
                block
            } else {
                noise().to_le_bytes()[..usize::from(length % 8)].to_vec()
            };
            connection.send(&frame(kind % 12, flags, u32::from(stream % 8), &payload)).await;
        }
    }
    assert_serves(&app).await;
}

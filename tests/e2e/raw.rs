//! Hand-made HTTP/1.1: requests that no proper client would send, and their responses.

use std::time::Duration;

use openssl::ssl::{SslConnector, SslMethod, SslVersion};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

use crate::certificates::HOST;

/// A socket, with or without TLS.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A connection.
pub struct Raw {
    stream: Box<dyn Stream>,
    read: Vec<u8>,
    /// The value of `Host`.
    host: String,
}

/// A response.
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// The port of an origin.
pub fn port(origin: &str) -> u16 {
    url::Url::parse(origin).unwrap().port().unwrap()
}

/// A socket without Nagle's algorithm.
async fn connect(origin: &str) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port(origin))).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

impl Raw {
    /// A plain connection to the server of this origin.
    pub async fn open(origin: &str) -> Self {
        Self::over(connect(origin).await, origin)
    }

    pub fn over(stream: impl Stream + 'static, origin: &str) -> Self {
        let host = origin.split_once("://").unwrap().1.to_owned();
        Self { stream: Box::new(stream), read: Vec::new(), host }
    }

    /// Sends bytes unchanged. Errors are ignored: whether the connection was closed shows when reading.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
        let _ = self.stream.flush().await;
    }

    /// Sends a request with the right `Host`, and these additional headers.
    pub async fn ask(&mut self, line: &str, headers: &str, body: &str) {
        let host = self.host.clone();
        self.send(format!("{line} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n{body}")).await;
    }

    /// The next response; `None` if the connection ended first.
    pub async fn answer(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            self.more().await.then_some(())?;
        };
        let head = String::from_utf8(self.read.drain(..end).collect()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<_> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut answer = Answer { status, headers, body: Vec::new() };
        if status == 100 {
            return Some(answer);
        }
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        while self.read.len() < length {
            assert!(self.more().await, "an answer was cut off: {head}");
        }
        answer.body = self.read.drain(..length).collect();
        Some(answer)
    }

    /// Whether the connection has ended without further data.
    pub async fn is_over(&mut self) -> bool {
        self.read.is_empty() && !self.more().await
    }

    async fn more(&mut self) -> bool {
        // Nothing here takes that long; a hanging server must not hang its test.
        let read = tokio::time::timeout(Duration::from_mins(5), self.stream.read_buf(&mut self.read));
        matches!(read.await.expect("an answer or an end"), Ok(1..))
    }
}

/// Asserts that this many seconds have passed since `begun` on the paused clock, plus at most two.
pub fn assert_after(begun: tokio::time::Instant, seconds: u64) {
    let gone_by = begun.elapsed();
    let least = Duration::from_millis(seconds * 1000 - 500);
    assert!(gone_by >= least && gone_by <= least + Duration::from_secs(4), "{seconds}: {gone_by:?}");
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} {}", self.status, self.headers, self.text())
    }
}

impl Answer {
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} twice in {self:?}");
        value
    }

    pub fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// The parameters of a client's TLS handshake.
pub struct Handshake<'h> {
    pub authority: &'h [u8],
    pub protocols: &'h [u8],
    pub versions: Option<(SslVersion, SslVersion)>,
    /// For TLS 1.2.
    pub ciphers: Option<&'h str>,
}

impl<'h> Handshake<'h> {
    /// A handshake that succeeds.
    pub fn new(authority: &'h [u8]) -> Self {
        Self { authority, protocols: b"\x08http/1.1", versions: None, ciphers: None }
    }

    /// Runs the handshake with the server at this origin.
    pub async fn shake(&self, origin: &str) -> Result<SslStream<TcpStream>, String> {
        let stream = connect(origin).await;
        let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
        let mut store = X509StoreBuilder::new().unwrap();
        store.add_cert(X509::from_pem(self.authority).unwrap()).unwrap();
        builder.set_cert_store(store.build());
        // The server must be the one that refuses.
        builder.set_security_level(0);
        if !self.protocols.is_empty() {
            builder.set_alpn_protos(self.protocols).unwrap();
        }
        if let Some((least, most)) = self.versions {
            builder.set_min_proto_version(Some(least)).unwrap();
            builder.set_max_proto_version(Some(most)).unwrap();
        }
        if let Some(ciphers) = self.ciphers {
            builder.set_cipher_list(ciphers).unwrap();
        }
        let ssl = builder.build().configure().unwrap().into_ssl(HOST).unwrap();
        let mut stream = SslStream::new(ssl, stream).unwrap();
        match std::pin::Pin::new(&mut stream).connect().await {
            Ok(()) => Ok(stream),
            Err(error) => Err(error.to_string()),
        }
    }
}

//! Requests to the authorization server's origin, and to no other: over TLS that the site's authorities vouch for,
//! or in plain on this computer (OPS-01, OPS-08).

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use openssl::ssl::{SslConnector, SslMethod, SslVersion};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;
use shared::Issuer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

/// How long one request may take, connecting included.
const PATIENCE: Duration = Duration::from_secs(5);
/// No answer that is of use here is longer.
const LARGEST: usize = 256 * 1024;
const MOST_HEADERS: usize = 16 * 1024;
/// How many connections are kept for the next requests.
const KEPT: usize = 64;
/// Where systems keep the authorities that they trust, if the site names none.
const SYSTEM: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

type Sender = SendRequest<Full<Bytes>>;

/// The way to one origin.
pub(super) struct Origin {
    issuer: Issuer,
    /// Certificates in PEM form; they are read for each connection, so that a new file counts at once.
    ca: Option<PathBuf>,
    idle: Mutex<Vec<Sender>>,
}

/// What was answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Why there is no answer. It is for the log; whoever waits for it learns that trying again may help.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    #[error("it does not prove who it is: {0}")]
    Tls(String),
    #[error("the certificates to trust cannot be read: {0}")]
    TrustStore(String),
    #[error("it took longer than 5 seconds")]
    TooSlow,
    #[error("what it answers is no HTTP, or too long: {0}")]
    Broken(String),
}

impl Origin {
    pub(super) fn new(issuer: Issuer, ca: Option<PathBuf>) -> Self {
        Self { issuer, ca, idle: Mutex::default() }
    }

    /// `GET` of a path.
    pub(super) async fn get(&self, path: &str) -> Result<Answer, NoAnswer> {
        self.send(Method::GET, path, None, String::new()).await
    }

    /// `POST` of a form, authenticated.
    pub(super) async fn post(
        &self,
        path: &str,
        authorization: &HeaderValue,
        form: String,
    ) -> Result<Answer, NoAnswer> {
        self.send(Method::POST, path, Some(authorization), form).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        authorization: Option<&HeaderValue>,
        form: String,
    ) -> Result<Answer, NoAnswer> {
        let form = Bytes::from(form);
        let request = || {
            let authority = self.issuer.as_str().split_once("://").map_or("", |(_, authority)| authority);
            let mut request = Request::builder().method(method.clone()).uri(path);
            request = request.header(header::HOST, authority).header(header::ACCEPT, "application/json");
            if let Some(authorization) = authorization {
                request = request.header(header::AUTHORIZATION, authorization);
                request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
            }
            let request = request.body(Full::new(form.clone()));
            request.map_err(|error| NoAnswer::Broken(error.to_string()))
        };
        let all = async {
            // One that was kept may have been closed meanwhile; everything here can be asked twice.
            if let Some(kept) = self.kept()
                && let Ok(answer) = self.exchange(kept, request()?).await
            {
                return Ok(answer);
            }
            self.exchange(self.connect().await?, request()?).await
        };
        tokio::time::timeout(PATIENCE, all).await.map_err(|_| NoAnswer::TooSlow)?
    }

    fn kept(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| idle.pop()).find(|sender| !sender.is_closed() && sender.is_ready())
    }

    fn keep(&self, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT && !sender.is_closed() {
            idle.push(sender);
        }
    }

    async fn exchange(&self, mut sender: Sender, request: Request<Full<Bytes>>) -> Result<Answer, NoAnswer> {
        let broken = |error: &dyn std::fmt::Display| NoAnswer::Broken(error.to_string());
        let response = sender.send_request(request).await.map_err(|e| broken(&e))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, LARGEST).collect().await.map_err(|e| broken(&e))?;
        if sender.ready().await.is_ok() {
            self.keep(sender);
        }
        Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes() })
    }

    async fn connect(&self) -> Result<Sender, NoAnswer> {
        let unreachable = |error: std::io::Error| NoAnswer::Unreachable(error.to_string());
        let host = self.issuer.host();
        let tcp = TcpStream::connect((host, self.issuer.port())).await.map_err(unreachable)?;
        tcp.set_nodelay(true).map_err(unreachable)?;
        if self.issuer.is_loopback() {
            return speak(tcp).await;
        }
        let mut stream = tls(self.ca.as_deref(), host, tcp)?;
        Pin::new(&mut stream).connect().await.map_err(|error| NoAnswer::Tls(error.to_string()))?;
        speak(stream).await
    }
}

async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Result<Sender, NoAnswer> {
    let handshake = http1::Builder::new().max_buf_size(MOST_HEADERS).handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(|error| NoAnswer::Broken(error.to_string()))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(remote.error = %error, "a connection to the authorization server ended");
        }
    });
    Ok(sender)
}

/// TLS 1.2 or newer to a host that one of the authorities vouches for.
fn tls(ca: Option<&Path>, host: &str, tcp: TcpStream) -> Result<SslStream<TcpStream>, NoAnswer> {
    let certificates = certificates(ca).map_err(NoAnswer::TrustStore)?;
    let connected = || -> Result<_, openssl::error::ErrorStack> {
        let mut store = X509StoreBuilder::new()?;
        for certificate in certificates {
            store.add_cert(certificate)?;
        }
        let mut connector = SslConnector::builder(SslMethod::tls_client())?;
        connector.set_min_proto_version(Some(SslVersion::TLS1_2))?;
        connector.set_cert_store(store.build());
        SslStream::new(connector.build().configure()?.into_ssl(host)?, tcp)
    };
    connected().map_err(|error| NoAnswer::Tls(error.to_string()))
}

fn certificates(ca: Option<&Path>) -> Result<Vec<X509>, String> {
    let path = match ca {
        Some(path) => path,
        None => SYSTEM.into_iter().map(Path::new).find(|path| path.exists()).ok_or_else(|| {
            "this system keeps none where they are looked for; name a file in [remote] ca".to_owned()
        })?,
    };
    let pem = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    match X509::stack_from_pem(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(format!("{} holds no certificate in PEM form", path.display())),
    }
}

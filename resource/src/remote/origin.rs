//! Requests to the authorization server's origin, and to no other: over TLS that the site's authorities vouch for,
//! or in plain on this computer (OPS-01, OPS-08).

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use shared::Issuer;
use shared::tls::{self, TlsError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// How long one request may take, connecting included.
const PATIENCE: Duration = Duration::from_secs(5);
/// No answer that is of use here is longer.
const LARGEST: usize = 256 * 1024;
const MOST_HEADERS: usize = 16 * 1024;
/// How many connections are kept for the next requests.
const KEPT: usize = 64;

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
    #[error("its TLS certificate is not trusted: {0}")]
    Tls(String),
    #[error("the CA certificates cannot be read: {0}")]
    TrustStore(String),
    #[error("it took longer than 5 seconds")]
    TooSlow,
    #[error("its answer is not valid HTTP, or too long: {0}")]
    Broken(String),
}

impl From<TlsError> for NoAnswer {
    fn from(error: TlsError) -> Self {
        match error {
            TlsError::TrustStore(why) => Self::TrustStore(why),
            TlsError::Unproven(why) => Self::Tls(why),
            TlsError::Broken(why) => Self::Unreachable(why),
        }
    }
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
        let ca = self.ca.as_deref().or_else(|| tls::system_authorities()).ok_or_else(|| {
            let words = "this system has no CA certificates in the usual places; set [remote] ca to a file";
            NoAnswer::TrustStore(words.to_owned())
        })?;
        speak(tls::connect(ca, host, tcp).await?).await
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

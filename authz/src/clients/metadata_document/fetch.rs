//! Reading a document from the network (CIMD-06, CIMD-07): one request to an address that was checked, over TLS
//! that the site's own authorities vouch for, and nothing else.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use shared::tls::{self, TlsError};
use tokio::net::{TcpStream, lookup_host};

use super::{DocumentError, DocumentUrl, LARGEST};
use crate::config::AllowedHost;

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The shortest and the longest time that a document counts without being read again (CIMD-08).
const SHORTEST: Duration = Duration::from_mins(5);
const LONGEST: Duration = Duration::from_hours(24);
/// How much of a response's headers is read.
const MOST_HEADERS: usize = 16 * 1024;

/// A document as it was served.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub body: Vec<u8>,
    /// How long it counts without being read again.
    pub lifetime: Duration,
}

/// Why there is no document. Whoever asked for the client is not told (CIMD-07).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("the host name resolves to {0}, which is not in its networks in [[cimd.allow]]")]
    Address(IpAddr),
    #[error("the host cannot be reached: {0}")]
    Unreachable(String),
    #[error("it took longer than 5 seconds")]
    TooSlow,
    #[error("the certificates of [[cimd.allow]] `ca` cannot be read: {0}")]
    TrustStore(String),
    #[error("the host's TLS certificate is not trusted: {0}")]
    Tls(String),
    #[error("the answer is not valid HTTP")]
    NotHttp,
    #[error("the answer has status {0}; only 200 is accepted, and redirects are not followed")]
    Status(u16),
    #[error("the answer is not JSON")]
    MediaType,
    #[error("the answer is larger than 5 KiB, or compressed")]
    TooLarge,
    #[error("the document {0}")]
    Document(#[from] DocumentError),
}

impl From<TlsError> for FetchError {
    fn from(error: TlsError) -> Self {
        match error {
            TlsError::TrustStore(why) => Self::TrustStore(why),
            TlsError::Unproven(why) => Self::Tls(why),
            TlsError::Broken(why) => Self::Unreachable(why),
        }
    }
}

impl FetchError {
    /// The word for it in the audit log.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Address(_) => "address_not_allowed",
            Self::Unreachable(_) => "unreachable",
            Self::TooSlow => "too_slow",
            Self::TrustStore(_) => "trust_store",
            Self::Tls(_) => "tls",
            Self::NotHttp => "not_http",
            Self::Status(_) => "status",
            Self::MediaType => "media_type",
            Self::TooLarge => "too_large",
            Self::Document(why) => why.reason(),
        }
    }

    /// Whether the origin is down, so that what it said before may count a while longer (CIMD-08). An answer
    /// that is no document is an answer.
    pub(crate) fn is_down(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::TooSlow | Self::NotHttp => true,
            Self::Status(status) => *status >= 500,
            _ => false,
        }
    }
}

/// Reads the document of this URL from the host that the site allows.
pub(crate) async fn fetch(allowed: &AllowedHost, url: &DocumentUrl) -> Result<Fetched, FetchError> {
    tokio::time::timeout(PATIENCE, get(allowed, url)).await.map_err(|_| FetchError::TooSlow)?
}

async fn get(allowed: &AllowedHost, url: &DocumentUrl) -> Result<Fetched, FetchError> {
    let unreachable = |error: std::io::Error| FetchError::Unreachable(error.to_string());
    let host = url.host().trim_start_matches('[').trim_end_matches(']');
    let addresses = addresses(allowed, host, url.port()).await?;
    // The addresses that were checked are the ones that are dialled: nothing is resolved twice.
    let tcp = TcpStream::connect(&addresses[..]).await.map_err(unreachable)?;
    // In place of the system's authorities, which vouch for hosts that this network has no use for.
    let stream = tls::connect(&allowed.ca, host, tcp).await?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MOST_HEADERS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| FetchError::NotHttp)?;
    // No cookie, no credential, nothing of whoever caused this.
    let request = Request::builder()
        .method(Method::GET)
        .uri(url.path())
        .header(header::HOST, url.authority())
        .header(header::ACCEPT, "application/json")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|_| FetchError::NotHttp)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|_| FetchError::NotHttp)?;
        read(response).await
    };
    tokio::pin!(answer);
    // The connection is driven here, so that it ends when we do.
    tokio::select! {
        answer = &mut answer => answer,
        _ = connection => answer.await,
    }
}

/// CIMD-06: every address that a name stands for is one that the site named.
async fn addresses(allowed: &AllowedHost, host: &str, port: u16) -> Result<Vec<SocketAddr>, FetchError> {
    let unreachable = |error: std::io::Error| FetchError::Unreachable(error.to_string());
    let found: Vec<IpAddr> = match host.parse() {
        Ok(address) => vec![address],
        Err(_) => lookup_host((host, port)).await.map_err(unreachable)?.map(|found| found.ip()).collect(),
    };
    check(allowed, &found)?;
    Ok(found.into_iter().map(|address| SocketAddr::new(address.to_canonical(), port)).collect())
}

fn check(allowed: &AllowedHost, found: &[IpAddr]) -> Result<(), FetchError> {
    let admitted = |address: &IpAddr| allowed.networks.iter().any(|network| network.admits(*address));
    match found.iter().find(|address| !admitted(address)) {
        Some(outside) => Err(FetchError::Address(*outside)),
        None if found.is_empty() => Err(FetchError::Unreachable("its name has no address".to_owned())),
        None => Ok(()),
    }
}

async fn read(response: http::Response<hyper::body::Incoming>) -> Result<Fetched, FetchError> {
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status().as_u16()));
    }
    if !is_json(response.headers()) {
        return Err(FetchError::MediaType);
    }
    let plain = |encoding: &http::HeaderValue| encoding.as_bytes().eq_ignore_ascii_case(b"identity");
    if !response.headers().get_all(header::CONTENT_ENCODING).iter().all(plain) {
        return Err(FetchError::TooLarge);
    }
    let lifetime = lifetime(response.headers());
    let body = Limited::new(response.into_body(), LARGEST).collect().await;
    let body = body.map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            FetchError::TooLarge
        } else {
            FetchError::NotHttp
        }
    })?;
    Ok(Fetched { body: body.to_bytes().to_vec(), lifetime })
}

/// `application/json`, or a more specific kind of it (§4.1).
fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let essence = value.to_str().ok().and_then(|value| value.split(';').next()).unwrap_or_default();
    let essence = essence.trim().to_ascii_lowercase();
    essence == "application/json"
        || essence.strip_prefix("application/").is_some_and(|kind| kind.len() > 5 && kind.ends_with("+json"))
}

/// How long a response counts (CIMD-08): what `Cache-Control` says (RFC 9111 §5.2.2), within our bounds.
fn lifetime(headers: &HeaderMap) -> Duration {
    let directives = headers.get_all(header::CACHE_CONTROL);
    let directives =
        directives.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let directives: Vec<String> = directives.map(|directive| directive.trim().to_ascii_lowercase()).collect();
    if directives
        .iter()
        .any(|directive| matches!(directive.split('=').next(), Some("no-store" | "no-cache" | "private")))
    {
        return SHORTEST;
    }
    let seconds = |name: &str| {
        let values =
            directives.iter().filter_map(|directive| directive.strip_prefix(name)?.strip_prefix('='));
        values.filter_map(|value| value.trim_matches('"').parse::<u64>().ok()).min()
    };
    let age = headers.get(header::AGE).and_then(|age| age.to_str().ok()?.trim().parse::<u64>().ok());
    let said = seconds("s-maxage").or_else(|| seconds("max-age")).unwrap_or(0);
    Duration::from_secs(said.saturating_sub(age.unwrap_or(0))).clamp(SHORTEST, LONGEST)
}

#[cfg(test)]
mod tests;

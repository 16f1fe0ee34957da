//! Fetches a document from the network (CIMD-06, CIMD-07): one request to a checked address, over TLS verified
//! against the site's own certificate authorities.

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use shared::outbound::{
    Answer, Destination, Failure, NoAnswer, NotSent, Outbound, Outgoing, Security, Trust,
};
use tokio::time::Instant;

use super::{DocumentError, DocumentUrl, LARGEST};
use crate::config::AllowedHost;

/// The time limit for the whole fetch.
const PATIENCE: Duration = Duration::from_secs(5);
/// The shortest and the longest time that a document is valid before it is fetched again (CIMD-08).
const SHORTEST: Duration = Duration::from_mins(5);
const LONGEST: Duration = Duration::from_hours(24);

/// A fetched document.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub body: Vec<u8>,
    /// How long it is valid before it must be fetched again.
    pub lifetime: Duration,
}

/// Why a document could not be fetched. The requester is not told (CIMD-07).
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

impl From<Failure> for FetchError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotSent(NotSent::Address(address)) => Self::Address(address),
            Failure::NotSent(NotSent::TrustStore(why)) => Self::TrustStore(why),
            Failure::NotSent(NotSent::Unproven(why) | NotSent::Identity(why)) => Self::Tls(why),
            Failure::NotSent(NotSent::Unreachable(why) | NotSent::Unwritable(why)) => Self::Unreachable(why),
            Failure::NotSent(NotSent::Certificate(why)) => Self::Tls(why.to_string()),
            Failure::NotSent(NotSent::TooSlow) => Self::TooSlow,
            Failure::NoAnswer(why) => why.into(),
        }
    }
}

impl From<NoAnswer> for FetchError {
    fn from(why: NoAnswer) -> Self {
        match why {
            NoAnswer::Broken(_) => Self::NotHttp,
            NoAnswer::Certificate(why) => Self::Tls(why.to_string()),
            NoAnswer::TooLarge(_) | NoAnswer::NoMemory => Self::TooLarge,
            NoAnswer::TooSlow => Self::TooSlow,
        }
    }
}

impl FetchError {
    /// The keyword for it in the audit log.
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

    /// Whether the origin is down, in which case its previous document stays valid a while longer (CIMD-08). An
    /// answer without a document means that the origin is up.
    pub(crate) fn is_down(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::TooSlow | Self::NotHttp => true,
            Self::Status(status) => *status >= 500,
            _ => false,
        }
    }
}

/// Fetches the document of this URL from a host that the site allows.
pub(crate) async fn fetch(allowed: &AllowedHost, url: &DocumentUrl) -> Result<Fetched, FetchError> {
    tokio::time::timeout(PATIENCE, get(allowed, url)).await.map_err(|_| FetchError::TooSlow)?
}

async fn get(allowed: &AllowedHost, url: &DocumentUrl) -> Result<Fetched, FetchError> {
    let destination = Destination {
        host: url.host().trim_start_matches('[').trim_end_matches(']').to_owned(),
        port: url.port(),
        authority: url.authority().to_owned(),
        // Used instead of the system's certificate authorities, most of which this network does not need.
        security: Security::Tls(Trust { ca: Some(allowed.ca.clone()), identity: None }),
        networks: allowed.networks.clone(),
    };
    // Send no cookie, no credential, and nothing from the request that caused this fetch.
    let mut outgoing = Outgoing::get(url.path());
    outgoing.headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    outgoing.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    read(Outbound::new(destination).send(&outgoing, Instant::now() + PATIENCE).await?).await
}

async fn read(answer: Answer) -> Result<Fetched, FetchError> {
    if answer.status != StatusCode::OK {
        return Err(FetchError::Status(answer.status.as_u16()));
    }
    if !is_json(&answer.headers) {
        return Err(FetchError::MediaType);
    }
    let plain = |encoding: &http::HeaderValue| encoding.as_bytes().eq_ignore_ascii_case(b"identity");
    if !answer.headers.get_all(header::CONTENT_ENCODING).iter().all(plain) {
        return Err(FetchError::TooLarge);
    }
    let lifetime = lifetime(&answer.headers);
    let body = answer.body.read(LARGEST).await?;
    Ok(Fetched { body: body.to_vec(), lifetime })
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

/// How long a response is valid (CIMD-08): as `Cache-Control` says (RFC 9111 §5.2.2), within our bounds.
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

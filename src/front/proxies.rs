//! Trusted proxies, which name the client's address (HTTP-01, HTTP-02). The headers of other peers are ignored.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, header};
use shared::Network;
use shared::rate::Origin;

/// The most hops that are followed.
const MOST_HOPS: usize = 32;
/// How often a warning about the same peer is logged.
const COMPLAINT: Duration = Duration::from_mins(1);
/// The most peers that are remembered for it.
const MOST_PEERS: usize = 1024;
/// Headers of proxies about their clients. Only the address is used, and only from a trusted proxy.
static SAID_BY_PROXIES: [HeaderName; 6] = [
    header::FORWARDED,
    X_FORWARDED_FOR,
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-real-ip"),
];
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The header in which the proxies name their clients. Exactly one: a proxy that writes one passes on the other
/// unchanged from strangers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ClientHeader {
    #[default]
    XForwardedFor,
    /// RFC 7239.
    Forwarded,
}

impl ClientHeader {
    /// The header's name as it is written in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::XForwardedFor => "X-Forwarded-For",
            Self::Forwarded => "Forwarded",
        }
    }
}

/// The trusted proxies.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Proxies {
    pub networks: Vec<Network>,
    pub naming: ClientHeader,
}

impl Proxies {
    /// Whether this peer is one of them.
    pub fn trust(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.networks.iter().any(|network| network.contains(peer))
    }

    /// The client's address: the right-most hop that is not a trusted proxy (RATE-01).
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut nearest = peer.to_canonical();
        let hops = match self.naming {
            ClientHeader::XForwardedFor => listed(headers),
            ClientHeader::Forwarded => forwarded(headers),
        };
        for hop in hops.into_iter().rev().take(MOST_HOPS) {
            if !self.trust(nearest) {
                break;
            }
            // Nothing is known beyond a malformed entry: the last valid address counts.
            let Some(hop) = hop else { break };
            nearest = hop.to_canonical();
        }
        nearest
    }
}

/// `X-Forwarded-For`: addresses, the nearest last.
fn listed(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let values = headers.get_all(X_FORWARDED_FOR).iter();
    values.flat_map(|value| value.as_bytes().split(|b| *b == b',')).map(|hop| node(text(hop)?)).collect()
}

/// `Forwarded` (RFC 7239 §4): elements of `name=value` pairs, of which `for` is used.
fn forwarded(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let values = headers.get_all(header::FORWARDED).iter();
    // No valid address has a comma or a semicolon in quotes; other values break the chain there.
    let elements = values.flat_map(|value| value.as_bytes().split(|b| *b == b','));
    elements
        .map(|element| {
            let mut wanted = element.split(|b| *b == b';').filter_map(|pair| {
                let (name, value) = text(pair)?.split_once('=')?;
                name.trim().eq_ignore_ascii_case("for").then(|| value.trim())
            });
            let value = wanted.next()?;
            let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            wanted.next().is_none().then(|| node(unquoted.unwrap_or(value)))?
        })
        .collect()
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().map(str::trim)
}

/// An address, with or without brackets and port.
fn node(text: &str) -> Option<IpAddr> {
    let bracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = bracketed.unwrap_or(text).parse().ok();
    address.or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// Peers that sent headers which only a proxy may send, and when that was last logged.
#[derive(Default)]
pub(crate) struct Complaints(Mutex<HashMap<Origin, Instant>>);

impl Complaints {
    /// Warns about a peer that forwards requests without being declared: either the configuration lacks it, or
    /// it pretends to be another client.
    pub(crate) fn about(&self, peer: IpAddr, headers: &HeaderMap) {
        let Some(said) = SAID_BY_PROXIES.iter().find(|name| headers.contains_key(*name)) else { return };
        if self.is_new(peer, Instant::now()) {
            tracing::warn!(
                http.peer = %peer.to_canonical(),
                http.header = %said,
                "a peer that is not a trusted proxy sent forwarding headers; they were ignored. If it is a proxy, add it to trusted_proxies"
            );
        }
    }

    fn is_new(&self, peer: IpAddr, now: Instant) -> bool {
        let mut complained = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = |at: &Instant| now.duration_since(*at) < COMPLAINT;
        if complained.get(&Origin::of(peer)).is_some_and(recent) {
            return false;
        }
        if complained.len() >= MOST_PEERS {
            complained.retain(|_, at| recent(at));
        }
        // After this many lines within a minute, another one would add nothing.
        complained.len() < MOST_PEERS
            && complained.insert(Origin::of(peer), now).is_none_or(|at| !recent(&at))
    }
}

#[cfg(test)]
mod tests;

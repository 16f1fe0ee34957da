//! The address to listen on, and the server's public address. Combinations in which others could read
//! connections are refused (OPS-03, HTTP-01).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, bail};
use shared::Issuer;

use super::proxies::Proxies;

/// The address to listen on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listen {
    /// Both loopback families, on one port.
    Loopback(u16),
    /// One address.
    One(SocketAddr),
}

impl Listen {
    /// Parses `HOST:PORT` or `PORT`.
    ///
    /// # Errors
    /// If the host is neither an IP address nor `localhost`, or the port is invalid.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let usage = || format!("--listen `{text}` is not HOST:PORT; write it like localhost:8080");
        if let Ok(port) = text.parse() {
            return Ok(Self::Loopback(port));
        }
        if let Some(port) = text.strip_prefix("localhost:") {
            return Ok(Self::Loopback(port.parse().with_context(usage)?));
        }
        Ok(Self::One(text.parse().with_context(usage)?))
    }

    /// The port; 0 for one that is chosen later.
    pub fn port(self) -> u16 {
        match self {
            Self::Loopback(port) => port,
            Self::One(address) => address.port(),
        }
    }

    /// Whether only this computer can connect.
    pub fn is_loopback(self) -> bool {
        match self {
            Self::Loopback(_) => true,
            Self::One(address) => address.ip().is_loopback(),
        }
    }

    /// The addresses to bind; if the port is 0, the first one decides it.
    pub fn addresses(self) -> Vec<SocketAddr> {
        match self {
            Self::One(address) => vec![address],
            Self::Loopback(port) => [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
                .map(|ip| SocketAddr::new(ip, port))
                .to_vec(),
        }
    }
}

/// How connections are protected from eavesdroppers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Protection {
    /// The loopback interface, which other computers cannot reach.
    Loopback,
    /// TLS in this process.
    Tls,
    /// Proxies that speak TLS; only they are answered.
    Proxies,
}

impl Protection {
    /// The protection in the configuration.
    pub(crate) fn of(tls: bool, proxies: &Proxies) -> Self {
        match (tls, proxies.networks.is_empty()) {
            (true, _) => Self::Tls,
            (false, false) => Self::Proxies,
            (false, true) => Self::Loopback,
        }
    }
}

/// The address of a server that listens on this port, after checking that the two match: the configuration's
/// `issuer`, or `origin` for a gateway alone.
///
/// # Errors
/// A malformed address; plain HTTP that other computers could reach; a port that the address does not name.
pub(crate) fn address(
    called: &str,
    configured: Option<&str>,
    listen: Listen,
    bound_port: u16,
    protection: Protection,
) -> anyhow::Result<Issuer> {
    let address = match (configured, protection) {
        (Some(text), _) => Issuer::parse(text).with_context(|| format!("--{called} {text}"))?,
        (None, Protection::Loopback) => Issuer::localhost(bound_port),
        (None, Protection::Tls | Protection::Proxies) => bail!(
            "no {called} is set; give the address that people will use with --{called}, like https://portcullis.example.internal"
        ),
    };
    // HTTP-01: plain HTTP only on loopback.
    if protection == Protection::Loopback && !listen.is_loopback() {
        bail!(
            "--listen is an address that other computers can reach, but TLS is not configured; set --tls-cert and --tls-key, or list your TLS proxies in trusted_proxies"
        );
    }
    if protection == Protection::Loopback && !address.is_loopback() {
        bail!(
            "the {called} {address} is https, but TLS is not configured; set --tls-cert and --tls-key, or list your TLS proxies, such as trusted_proxies = [\"127.0.0.1\", \"::1\"] for one on this machine"
        );
    }
    if protection != Protection::Loopback && address.is_loopback() {
        bail!(
            "the {called} {address} is http, but TLS or trusted_proxies are configured; use an https address with a host name"
        );
    }
    if address.is_loopback() && !matches!(listen, Listen::Loopback(_)) {
        bail!(
            "the {called} {address} is on localhost, so the server must listen on both 127.0.0.1 and [::1]; use --listen localhost:{bound_port}"
        );
    }
    if address.is_loopback() && address.port() != bound_port {
        bail!(
            "the {called} {address} has a different port than the server listens on, {bound_port}; change --{called} or --listen"
        );
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer(
        configured: Option<&str>,
        listen: Listen,
        port: u16,
        protection: Protection,
    ) -> anyhow::Result<Issuer> {
        address("issuer", configured, listen, port, protection)
    }

    #[test]
    fn listen_takes_an_address_or_a_port() {
        assert_eq!(Listen::parse("8080").unwrap(), Listen::Loopback(8080));
        assert_eq!(Listen::parse("localhost:0").unwrap(), Listen::Loopback(0));
        assert_eq!(Listen::parse("127.0.0.1:1").unwrap(), Listen::One("127.0.0.1:1".parse().unwrap()));
        for bad in ["", "localhost", "example.com:80", "localhost:x", "1.2.3.4", "99999"] {
            let refused = Listen::parse(bad).unwrap_err().to_string();
            assert!(refused.contains("--listen"), "{refused}");
        }
    }

    /// OPS-03, HTTP-01: plain HTTP is only for this computer, and for declared proxies.
    #[test]
    fn unsafe_combinations_are_refused() {
        let loopback = Listen::Loopback(8080);
        let one = |text: &str| Listen::One(text.parse().unwrap());
        let (everywhere, https) = (one("0.0.0.0:8080"), Some("https://a.example"));
        assert_eq!(
            issuer(None, loopback, 8080, Protection::Loopback).unwrap().as_str(),
            "http://localhost:8080"
        );
        for protection in [Protection::Tls, Protection::Proxies] {
            for listen in [loopback, everywhere, one("[::]:443"), one("192.0.2.1:8443")] {
                assert!(issuer(https, listen, 8080, protection).is_ok(), "{listen:?}");
            }
            for text in [None, Some("http://localhost:8080"), Some("http://a.example")] {
                assert!(issuer(text, loopback, 8080, protection).is_err(), "{text:?}");
            }
        }
        for (text, listen) in [
            (Some("http://a.example"), loopback),
            (Some("https://10.0.0.1"), loopback),
            (Some("http://localhost:9"), loopback),
            (https, loopback),
            (None, everywhere),
            (None, one("127.0.0.1:8080")),
            (https, everywhere),
            (https, one("192.0.2.1:8080")),
        ] {
            assert!(issuer(text, listen, 8080, Protection::Loopback).is_err(), "{text:?} {listen:?}");
        }
    }

    #[test]
    fn tls_takes_precedence_over_proxies() {
        let proxies = Proxies { networks: vec!["::1/128".parse().unwrap()], ..Proxies::default() };
        assert_eq!(Protection::of(true, &proxies), Protection::Tls);
        assert_eq!(Protection::of(true, &Proxies::default()), Protection::Tls);
        assert_eq!(Protection::of(false, &proxies), Protection::Proxies);
        assert_eq!(Protection::of(false, &Proxies::default()), Protection::Loopback);
    }
}

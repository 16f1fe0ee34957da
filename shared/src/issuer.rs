//! The issuer identifier (RFC 8414 §2): one configured origin, never derived from a request.

use std::fmt;

use serde::{Serialize, Serializer};
use url::{Host, Url};

/// The issuer: `https://host[:port]`, or `http://localhost[:port]` for one machine (META-01).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Issuer {
    text: String,
    host: String,
    port: u16,
    loopback: bool,
}

/// Why a text cannot be the issuer. Each message says what to do instead.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IssuerError {
    #[error("issuer `{0}` is no URL; write it like https://portcullis.example.internal")]
    NotAUrl(String),
    #[error(
        "issuer `{0}` has a path, query, fragment or user name; it must be an origin such as https://portcullis.example.internal"
    )]
    NotAnOrigin(String),
    #[error(
        "issuer `{0}` is an IP address; passkeys need a name: give the machine one in DNS or a hosts file"
    )]
    IpAddress(String),
    #[error("issuer `{0}` is http; off this computer it must be https (http is for http://localhost only)")]
    PlainHttp(String),
}

impl Issuer {
    /// Parses the configured issuer; the text must already be in its canonical form.
    ///
    /// # Errors
    /// Anything that is not an `https` origin with a host name, or `http://localhost[:port]`
    /// (META-01, OPS-03, WEBAUTHN-01).
    pub fn parse(text: &str) -> Result<Self, IssuerError> {
        let url = Url::parse(text).map_err(|_| IssuerError::NotAUrl(text.to_owned()))?;
        let host = match url.host() {
            Some(Host::Domain(host)) => host.to_owned(),
            Some(_) => return Err(IssuerError::IpAddress(text.to_owned())),
            None => return Err(IssuerError::NotAUrl(text.to_owned())),
        };
        let origin = url.origin().ascii_serialization();
        let loopback = match url.scheme() {
            "https" => false,
            "http" if host == "localhost" => true,
            "http" => return Err(IssuerError::PlainHttp(text.to_owned())),
            _ => return Err(IssuerError::NotAUrl(text.to_owned())),
        };
        if origin != text {
            return Err(IssuerError::NotAnOrigin(text.to_owned()));
        }
        let port = url.port_or_known_default().unwrap_or(443);
        Ok(Self { text: origin, host, port, loopback })
    }

    /// The development default on this port.
    pub fn localhost(port: u16) -> Self {
        let text =
            if port == 80 { "http://localhost".to_owned() } else { format!("http://localhost:{port}") };
        Self { text, host: "localhost".to_owned(), port, loopback: true }
    }

    /// Byte-identical wherever it is emitted (META-01).
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host name: the passkeys' relying-party id (WEBAUTHN-01).
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, spelled out or implied by the scheme.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether this is the `http://localhost` profile for one machine.
    pub fn is_loopback(&self) -> bool {
        self.loopback
    }

    /// Whether browsers may be told to use nothing but https for this host (HTTP-04). Not for `localhost`: they would
    /// apply it to every port, and so to every other program on their own computer, clients' callbacks among them.
    pub fn demands_https(&self) -> bool {
        !self.loopback && self.host != "localhost" && !self.host.ends_with(".localhost")
    }

    /// The absolute URL of a path, which starts with `/`.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.text)
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Issuer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// META-01, OPS-03, WEBAUTHN-01
    #[test]
    fn only_an_origin_with_a_name_is_an_issuer() {
        for good in ["https://a.example", "https://a:8443", "http://localhost:8080", "http://localhost"] {
            assert_eq!(Issuer::parse(good).unwrap().as_str(), good);
        }
        let refused = |text: &str| Issuer::parse(text).unwrap_err();
        assert!(matches!(refused("https://10.0.0.1"), IssuerError::IpAddress(_)));
        assert!(matches!(refused("http://127.0.0.1:8080"), IssuerError::IpAddress(_)));
        assert!(matches!(refused("https://[::1]"), IssuerError::IpAddress(_)));
        assert!(matches!(refused("http://a.example"), IssuerError::PlainHttp(_)));
        assert!(matches!(refused("ftp://a.example"), IssuerError::NotAUrl(_)));
        assert!(matches!(refused("a.example"), IssuerError::NotAUrl(_)));
        for bad in [
            "https://a.example/",
            "https://a.example/x",
            "https://a.example?q",
            "https://u@a.example",
            "https://A.example",
            "https://a.example:443",
        ] {
            assert!(matches!(refused(bad), IssuerError::NotAnOrigin(_)), "{bad}");
        }
    }

    /// HTTP-04: HSTS is for https, and never for a name that other programs on a browser's computer share.
    #[test]
    fn localhost_is_never_told_to_be_https_only() {
        let demands = |text: &str| Issuer::parse(text).unwrap().demands_https();
        assert!(demands("https://a.example") && demands("https://a.example:8443"));
        assert!(!demands("http://localhost:1") && !demands("https://localhost:8443"));
        assert!(!demands("https://gate.localhost"));
    }

    #[test]
    fn the_default_issuer_parses_as_itself() {
        assert_eq!(Issuer::parse("http://localhost:8080").unwrap(), Issuer::localhost(8080));
        assert_eq!(Issuer::parse("http://localhost").unwrap(), Issuer::localhost(80));
    }
}

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

/// Why a text is not a valid issuer. The message says what is wrong and what to do instead.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("issuer `{text}` {why}")]
pub struct IssuerError {
    text: String,
    /// What is wrong.
    pub why: Malformed,
}

/// What is wrong with a text that is not a valid issuer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    #[error("is empty; write it like https://portcullis.example.internal")]
    Empty,
    #[error("begins or ends with white space; remove it")]
    WhiteSpace,
    #[error("has no scheme; write https://{0}")]
    NoScheme(String),
    #[error("has the scheme {0}; it must be https, or http for http://localhost only")]
    Scheme(String),
    #[error("is not a valid URL ({0}); write it like https://portcullis.example.internal")]
    NotAUrl(String),
    #[error("contains a user name or a password; write an origin such as {0}")]
    UserInfo(String),
    #[error("has a path; write only the origin: {0}")]
    Path(String),
    #[error("ends with a slash; write {0}")]
    Slash(String),
    #[error("has a query; write only the origin: {0}")]
    Query(String),
    #[error("has a fragment; write only the origin: {0}")]
    Fragment(String),
    #[error("contains the default port of its scheme; write {0}")]
    DefaultPort(String),
    #[error("is not in canonical form; write {0}")]
    NotCanonical(String),
    #[error("is an IP address; passkeys need a name: give the machine one in DNS or a hosts file")]
    IpAddress,
    #[error(
        "has a host name that {0}; passkeys accept letters, digits and hyphens, in parts of at most 63 characters"
    )]
    Host(&'static str),
    #[error("has port 0, which cannot be connected to")]
    PortZero,
    #[error("is http; use https (http is allowed only for http://localhost)")]
    PlainHttp,
}

impl Issuer {
    /// Parses the configured issuer, which must be in its canonical form.
    ///
    /// # Errors
    /// Anything that is not an `https` origin with a host name, or `http://localhost[:port]` (META-01, OPS-03,
    /// WEBAUTHN-01).
    pub fn parse(text: &str) -> Result<Self, IssuerError> {
        Self::read(text).map_err(|why| IssuerError { text: text.to_owned(), why })
    }

    fn read(text: &str) -> Result<Self, Malformed> {
        if text.is_empty() {
            return Err(Malformed::Empty);
        }
        if text.trim() != text {
            return Err(Malformed::WhiteSpace);
        }
        if !text.contains("://") {
            return Err(Malformed::NoScheme(text.to_owned()));
        }
        let url = Url::parse(text).map_err(|why| Malformed::NotAUrl(why.to_string()))?;
        if !["https", "http"].contains(&url.scheme()) {
            return Err(Malformed::Scheme(url.scheme().to_owned()));
        }
        let host = match url.host() {
            Some(Host::Domain(host)) => host.to_owned(),
            Some(_) => return Err(Malformed::IpAddress),
            None => return Err(Malformed::NotAUrl("there is no host".to_owned())),
        };
        let loopback = url.scheme() == "http" && host == "localhost";
        let origin = url.origin().ascii_serialization();
        if url.scheme() == "http" && !loopback {
            return Err(Malformed::PlainHttp);
        }
        check_host(&host).map_err(Malformed::Host)?;
        if url.port() == Some(0) {
            return Err(Malformed::PortZero);
        }
        if origin != text {
            return Err(misspelt(text, &url, origin));
        }
        let port = url.port_or_known_default().unwrap_or(443);
        Ok(Self { text: origin, host, port, loopback })
    }

    /// The development issuer on this port.
    pub fn localhost(port: u16) -> Self {
        let text =
            if port == 80 { "http://localhost".to_owned() } else { format!("http://localhost:{port}") };
        Self { text, host: "localhost".to_owned(), port, loopback: true }
    }

    /// The text, identical wherever it is used (META-01).
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host name, which is the passkeys' relying-party id (WEBAUTHN-01).
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, explicit or implied by the scheme.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether this is the `http://localhost` profile for one machine.
    pub fn is_loopback(&self) -> bool {
        self.loopback
    }

    /// Whether browsers may be told to use only https for this host (HTTP-04). Not for `localhost`: they would
    /// apply it to every port, and so to other programs on the user's computer, such as clients' callbacks.
    pub fn demands_https(&self) -> bool {
        !self.loopback && self.host != "localhost" && !self.host.ends_with(".localhost")
    }

    /// The absolute URL of a path that starts with `/`.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.text)
    }
}

/// Why a host name cannot be a relying party's (WEBAUTHN-01).
fn check_host(host: &str) -> Result<(), &'static str> {
    let part = |part: &str| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        (1..=63).contains(&part.len())
            && part.bytes().all(fits)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    if host.ends_with('.') {
        Err("ends with a dot")
    } else if host.len() > 253 {
        Err("is longer than 253 characters")
    } else if host.split('.').all(part) {
        Ok(())
    } else {
        Err("has a part that is not a valid DNS label")
    }
}

/// What the text has besides the origin.
fn misspelt(text: &str, url: &Url, origin: String) -> Malformed {
    let authority = text.split("://").nth(1).unwrap_or_default();
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        Malformed::UserInfo(origin)
    } else if text.contains('#') {
        Malformed::Fragment(origin)
    } else if text.contains('?') {
        Malformed::Query(origin)
    } else if url.path() != "/" {
        Malformed::Path(origin)
    } else if text.ends_with('/') {
        Malformed::Slash(origin)
    } else if url.port().is_none() && authority.contains(':') {
        Malformed::DefaultPort(origin)
    } else {
        Malformed::NotCanonical(origin)
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

    /// META-01, OPS-03, WEBAUTHN-01: other texts are refused.
    #[test]
    fn only_an_origin_with_a_name_is_an_issuer() {
        for good in ["https://a.example", "https://a:8443", "http://localhost:8080", "http://localhost"] {
            assert_eq!(Issuer::parse(good).unwrap().as_str(), good);
        }
        let refused = |text: &str| Issuer::parse(text).unwrap_err().why;
        let origin = || "https://a.example".to_owned();
        for (text, why) in [
            ("", Malformed::Empty),
            (" https://a.example", Malformed::WhiteSpace),
            ("https://a.example\n", Malformed::WhiteSpace),
            ("a.example", Malformed::NoScheme("a.example".to_owned())),
            ("localhost:8080", Malformed::NoScheme("localhost:8080".to_owned())),
            ("ftp://a.example", Malformed::Scheme("ftp".to_owned())),
            ("wss://a.example", Malformed::Scheme("wss".to_owned())),
            ("https://10.0.0.1", Malformed::IpAddress),
            ("http://127.0.0.1:8080", Malformed::IpAddress),
            ("https://[::1]", Malformed::IpAddress),
            ("https://0x7f.1", Malformed::IpAddress),
            ("http://a.example", Malformed::PlainHttp),
            ("http://a.example/x", Malformed::PlainHttp),
            ("https://a.example/", Malformed::Slash(origin())),
            ("https://a.example/x", Malformed::Path(origin())),
            ("https://a.example?q", Malformed::Query(origin())),
            ("https://a.example/#f", Malformed::Fragment(origin())),
            ("https://u:p@a.example", Malformed::UserInfo(origin())),
            ("https://@a.example", Malformed::UserInfo(origin())),
            ("https://a.example:443", Malformed::DefaultPort(origin())),
            ("https://A.example", Malformed::NotCanonical(origin())),
            ("HTTPS://a.example", Malformed::NotCanonical(origin())),
            (
                "https://b\u{fc}cher.example",
                Malformed::NotCanonical("https://xn--bcher-kva.example".to_owned()),
            ),
            ("https://a.example:0", Malformed::PortZero),
            ("https://a.example.", Malformed::Host("ends with a dot")),
            ("https://a_b.example", Malformed::Host("has a part that is not a valid DNS label")),
            ("https://*.example", Malformed::Host("has a part that is not a valid DNS label")),
            ("https://a..example", Malformed::Host("has a part that is not a valid DNS label")),
            ("https://-a.example", Malformed::Host("has a part that is not a valid DNS label")),
        ] {
            assert_eq!(refused(text), why, "{text:?}");
        }
        for bad in ["https://", "https://a.example:99999", "https://a b", "https://a.example:x"] {
            assert!(matches!(refused(bad), Malformed::NotAUrl(_)), "{bad}");
        }
        let long = format!("https://{}", vec!["a"; 130].join("."));
        assert_eq!(refused(&long), Malformed::Host("is longer than 253 characters"));
    }

    /// HTTP-04: HSTS is sent for https only, and never for `localhost`, whose name other programs on the user's
    /// computer share.
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

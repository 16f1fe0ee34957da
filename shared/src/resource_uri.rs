//! Resource identifiers (RFC 8707 §2): one per MCP endpoint.

use std::fmt;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::issuer::Issuer;
use crate::percent::is_percent_encoded;

/// The canonical identifier of a protected resource, such as `https://portcullis.example/mcp`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResourceUri(String);

crate::db::text_column!(ResourceUri);

/// The text is not an absolute URI, or it has a fragment (RFC 8707 §2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a resource is an absolute URI without a fragment")]
pub struct MalformedResource;

impl ResourceUri {
    /// The endpoint at this path of the issuer's origin.
    pub fn at(issuer: &Issuer, path: &str) -> Self {
        Self(issuer.url(path))
    }

    /// Parses a `resource` parameter into canonical form: scheme and host in lower case, a bare origin without
    /// its slash (AUTHZ-14).
    ///
    /// # Errors
    /// If it is relative or has a fragment or a user name.
    pub fn parse(text: &str) -> Result<Self, MalformedResource> {
        let url = Url::parse(text).map_err(|_| MalformedResource)?;
        let plain = url.fragment().is_none() && url.username().is_empty() && url.password().is_none();
        if !plain || !matches!(url.scheme(), "http" | "https") || !is_percent_encoded(text) {
            return Err(MalformedResource);
        }
        let bare_origin = url.path() == "/" && url.query().is_none();
        let text = if bare_origin { url.origin().ascii_serialization() } else { url.to_string() };
        Ok(Self(text))
    }

    /// The identifier, as in the `aud` of tokens.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The URL's path.
    pub fn path(&self) -> &str {
        let after_scheme = self.0.find("://").map_or(0, |at| at + 3);
        self.0[after_scheme..].find('/').map_or("", |at| &self.0[after_scheme + at..])
    }
}

impl fmt::Display for ResourceUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AUTHZ-14: only the case of scheme and host may differ.
    #[test]
    fn case_of_scheme_and_host_is_tolerated_and_nothing_else() {
        let mcp = ResourceUri::at(&Issuer::localhost(8080), "/mcp");
        assert_eq!(ResourceUri::parse("HTTP://LocalHost:8080/mcp").unwrap(), mcp);
        for other in [
            "http://localhost:8080/MCP",
            "http://localhost:8080/mcp/",
            "http://localhost:8080/mcp?x",
            "http://localhost/mcp",
        ] {
            assert_ne!(ResourceUri::parse(other).unwrap(), mcp, "{other}");
        }
        assert_eq!(ResourceUri::parse("https://a.example/").unwrap().as_str(), "https://a.example");
        for bad in [
            "/mcp",
            "mcp",
            "http://localhost:8080/mcp#x",
            "http://u@localhost/mcp",
            "urn:x",
            "https://a.example/%zz",
        ] {
            assert_eq!(ResourceUri::parse(bad), Err(MalformedResource), "{bad}");
        }
    }

    #[test]
    fn the_path_is_what_follows_the_origin() {
        assert_eq!(ResourceUri::at(&Issuer::localhost(1), "/mcp/docs").path(), "/mcp/docs");
        assert_eq!(ResourceUri::parse("https://a.example").unwrap().path(), "");
    }
}

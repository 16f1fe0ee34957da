//! Discovery of the authorization server's endpoints (RFC 8414).

use std::time::Duration;

use serde::Deserialize;
use shared::Issuer;

use super::origin::Origin;

/// How long a document is valid (standards §1).
const COUNTS: Duration = Duration::from_hours(1);

/// The used paths on the issuer's origin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Endpoints {
    pub(super) jwks: String,
    pub(super) introspection: String,
    /// The uptime until which they are valid.
    pub(super) until: Duration,
}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
    introspection_endpoint: String,
}

/// Fetches the issuer's document. The error is for the log.
pub(super) async fn read(origin: &Origin, issuer: &Issuer, now: Duration) -> Result<Endpoints, String> {
    let answer = origin.get("/.well-known/oauth-authorization-server").await.map_err(|e| e.to_string())?;
    if answer.status != http::StatusCode::OK {
        return Err(format!("its metadata has status {}", answer.status));
    }
    parse(&answer.body, issuer, now)
}

fn parse(body: &[u8], issuer: &Issuer, now: Duration) -> Result<Endpoints, String> {
    let metadata: Metadata =
        serde_json::from_slice(body).map_err(|error| format!("its metadata: {error}"))?;
    // RS-07, RFC 8414 §3.3: "The 'issuer' value returned MUST be identical".
    if metadata.issuer != issuer.as_str() {
        return Err("its metadata names another issuer".to_owned());
    }
    Ok(Endpoints {
        jwks: path(issuer, &metadata.jwks_uri)?,
        introspection: path(issuer, &metadata.introspection_endpoint)?,
        until: now + COUNTS,
    })
}

/// Requires an endpoint on the issuer's origin: the credentials must not be sent elsewhere, whatever the
/// document says (RS-07).
fn path(issuer: &Issuer, url: &str) -> Result<String, String> {
    let path = url.strip_prefix(issuer.as_str()).filter(|path| path.starts_with('/'));
    let plain = path.filter(|path| path.bytes().all(|b| b.is_ascii_graphic() && b != b'#'));
    plain.map(str::to_owned).ok_or_else(|| "its metadata contains a URL on another origin".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// RS-07: the document must name the issuer, and only endpoints on its origin.
    #[test]
    fn a_document_that_leads_away_is_refused() {
        let issuer = Issuer::parse("https://auth.lab.internal").unwrap();
        let parse = |issuer_said: &str, jwks: &str, introspection: &str| {
            let body =
                json!({"issuer": issuer_said, "jwks_uri": jwks, "introspection_endpoint": introspection});
            parse(body.to_string().as_bytes(), &issuer, Duration::ZERO)
        };
        let (own, jwks, ask) = (
            "https://auth.lab.internal",
            "https://auth.lab.internal/jwks.json",
            "https://auth.lab.internal/introspect",
        );
        let endpoints = parse(own, jwks, ask).unwrap();
        assert_eq!(
            (endpoints.jwks.as_str(), endpoints.introspection.as_str()),
            ("/jwks.json", "/introspect")
        );
        for (issuer_said, jwks, ask) in [
            ("https://auth.lab.internal/", jwks, ask),
            ("https://evil.example", jwks, ask),
            (own, "https://evil.example/jwks.json", ask),
            (own, "https://auth.lab.internal.evil.example/jwks.json", ask),
            (own, "https://auth.lab.internal@evil.example/", ask),
            (own, "http://auth.lab.internal/jwks.json", ask),
            (own, jwks, "/introspect"),
            (own, jwks, "https://auth.lab.internal:8443/introspect"),
            (own, jwks, "https://auth.lab.internal/a b"),
            (own, jwks, "https://auth.lab.internal/a\r\nx: y"),
        ] {
            assert!(parse(issuer_said, jwks, ask).is_err(), "{issuer_said} {jwks} {ask}");
        }
        assert!(super::parse(b"{}", &issuer, Duration::ZERO).is_err());
    }
}

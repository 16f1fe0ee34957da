//! Who may read a path's answers from another origin (HTTP-06). `/mcp` has a list of its own; pages have nobody.

use http::{HeaderMap, HeaderValue, header};

/// What is said to pages of other origins. Never anything about credentials, so that none are sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cors {
    methods: &'static str,
    allow_headers: &'static str,
    expose: &'static str,
}

/// Documents that everybody may read.
const DOCUMENTS: Cors = Cors { methods: "GET, HEAD", allow_headers: "MCP-Protocol-Version", expose: "ETag" };
/// Endpoints of clients, which bring their own proof.
const CLIENTS: Cors = Cors {
    methods: "POST",
    allow_headers: "Authorization, Content-Type, DPoP, MCP-Protocol-Version",
    expose: "WWW-Authenticate, Retry-After, DPoP-Nonce",
};

impl Cors {
    /// The table of HTTP-06.
    pub(super) fn of(path: &str) -> Option<Self> {
        match path {
            "/jwks.json" => Some(DOCUMENTS),
            _ if path.starts_with("/.well-known/") => Some(DOCUMENTS),
            "/token" | "/revoke" | "/register" => Some(CLIENTS),
            _ if path.starts_with("/register/") => Some(Self { methods: "GET, PUT, DELETE", ..CLIENTS }),
            _ => None,
        }
    }

    /// Writes it, on errors as on answers.
    pub(super) fn write(self, preflight: bool, headers: &mut HeaderMap) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        if preflight {
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(self.methods));
            headers
                .insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(self.allow_headers));
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        } else {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(self.expose));
        }
    }
}

//! CORS: which other origins' pages may read a route's responses (HTTP-06). `/mcp` has its own list; pages have
//! none.

use http::{HeaderMap, HeaderValue, header};
use shared::route::Cors;

/// CORS headers. Credentials are never allowed.
#[derive(Clone, Copy, Debug)]
struct CorsHeaders {
    methods: &'static str,
    allow_headers: &'static str,
    expose: &'static str,
}

/// For documents that anyone may read.
const DOCUMENTS: CorsHeaders =
    CorsHeaders { methods: "GET, HEAD", allow_headers: "MCP-Protocol-Version", expose: "ETag" };
/// For endpoints of clients, which authenticate themselves.
const CLIENTS: CorsHeaders = CorsHeaders {
    methods: "POST",
    allow_headers: "Authorization, Content-Type, DPoP, MCP-Protocol-Version",
    expose: "WWW-Authenticate, Retry-After, DPoP-Nonce",
};
const MANAGEMENT: CorsHeaders = CorsHeaders { methods: "GET, PUT, DELETE", ..CLIENTS };

fn words(cors: Cors) -> Option<CorsHeaders> {
    match cors {
        Cors::Closed | Cors::ByHandler => None,
        Cors::Documents => Some(DOCUMENTS),
        Cors::Clients => Some(CLIENTS),
        Cors::Management => Some(MANAGEMENT),
    }
}

/// Whether OPTIONS is answered before the handler.
pub(super) fn is_answered_here(cors: Cors) -> bool {
    words(cors).is_some()
}

/// Writes the CORS headers, on errors too.
pub(super) fn write(cors: Cors, preflight: bool, headers: &mut HeaderMap) {
    let Some(words) = words(cors) else { return };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    if preflight {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(words.methods));
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(words.allow_headers));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    } else {
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(words.expose));
    }
}

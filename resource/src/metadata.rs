//! `/.well-known/oauth-protected-resource` (RFC 9728): where to get a token for an endpoint.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, CACHE_CONTROL, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use shared::Issuer;
use shared::catalogue::Endpoint;

use crate::Resource;

/// The well-known prefix; an endpoint's document is at this plus its path (RFC 9728 §3.1).
pub(crate) const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";
/// The document of the endpoint.
pub(crate) const MCP_WELL_KNOWN: &str = "/.well-known/oauth-protected-resource/mcp";
/// Where documents of other endpoints would be.
pub(crate) const OTHER_WELL_KNOWN: &str = "/.well-known/oauth-protected-resource/{*endpoint}";
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A document, written once.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    body: Bytes,
    etag: HeaderValue,
}

impl Document {
    /// The document of an endpoint (RFC 9728 §2, standards §2.2).
    pub(crate) fn new(issuer: &Issuer, endpoint: &Endpoint) -> Self {
        let mut document = json!({
            "resource": endpoint.resource,
            "authorization_servers": [issuer.as_str()],
            "bearer_methods_supported": ["header"],
            "resource_name": endpoint.name,
        });
        // META-07, META-09: the minimal useful set, and no empty arrays.
        if !endpoint.default_scope.is_empty() {
            document["scopes_supported"] = endpoint.default_scope.iter().collect();
        }
        let body = Bytes::from(document.to_string());
        let hash = data_encoding::BASE64URL_NOPAD.encode(&Sha256::digest(&body)[..16]);
        let etag = HeaderValue::from_str(&format!("\"{hash}\"")).expect("base64url is visible ASCII");
        Self { body, etag }
    }

    /// RFC 9110 §13.1.2: any of the listed tags, compared weakly.
    fn matches(&self, headers: &HeaderMap) -> bool {
        let tag = self.etag.as_bytes();
        headers.get_all(IF_NONE_MATCH).iter().flat_map(|value| value.as_bytes().split(|b| *b == b',')).any(
            |listed| {
                let listed = listed.trim_ascii();
                listed == b"*" || listed.strip_prefix(b"W/").unwrap_or(listed) == tag
            },
        )
    }
}

/// Answers at both addresses of the document (META-05, 06, 08).
pub(crate) async fn document(
    State(resource): State<Resource>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let document = resource.profile().metadata();
    let mut response = match method {
        Method::GET | Method::HEAD => {
            let caching = [
                (CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600")),
                (ETAG, document.etag.clone()),
            ];
            if document.matches(&headers) {
                (StatusCode::NOT_MODIFIED, caching).into_response()
            } else {
                // hyper leaves the body out of the answer to HEAD, and keeps its length.
                (caching, [(CONTENT_TYPE, JSON)], document.body.clone()).into_response()
            }
        }
        Method::OPTIONS => preflight(),
        _ => {
            let body = json!({ "error": "method_not_allowed", "error_description": "Use GET." });
            let headers = [(ALLOW, METHODS), (CONTENT_TYPE, JSON)];
            (StatusCode::METHOD_NOT_ALLOWED, headers, body.to_string()).into_response()
        }
    };
    public(&mut response);
    response
}

/// A metadata address that no endpoint has (HTTP-08).
pub(crate) async fn none_such() -> Response {
    let body =
        json!({ "error": "not_found", "error_description": "There is no MCP endpoint at this address." });
    let mut response = (StatusCode::NOT_FOUND, [(CONTENT_TYPE, JSON)], body.to_string()).into_response();
    public(&mut response);
    response
}

fn preflight() -> Response {
    let headers = [
        (ALLOW, METHODS),
        (ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD")),
        (ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("MCP-Protocol-Version")),
        (ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600")),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// Anyone may read it from any page, errors included (HTTP-06).
fn public(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("ETag"));
    headers.insert(
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("cross-origin"),
    );
}

#[cfg(test)]
mod tests;

//! `/.well-known/oauth-protected-resource` (RFC 9728): where to get a token for an endpoint.

use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, CONTENT_TYPE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use serde_json::json;
use shared::catalogue::Endpoint;
use shared::{Document, Issuer};

use crate::Resource;

/// The well-known prefix; an endpoint's document is at this prefix plus its path (RFC 9728 §3.1).
pub(crate) const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";
/// The document of `/mcp`.
pub(crate) const MCP_WELL_KNOWN: &str = "/.well-known/oauth-protected-resource/mcp";
/// The documents of profiles (POL-03).
pub(crate) const PROFILE_WELL_KNOWN: &str = "/.well-known/oauth-protected-resource/mcp/{profile}";
/// The paths of other documents, which do not exist.
pub(crate) const OTHER_WELL_KNOWN: &str = "/.well-known/oauth-protected-resource/{*endpoint}";
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The document of an endpoint (RFC 9728 §2, standards §2.2).
pub(crate) fn of(issuer: &Issuer, endpoint: &Endpoint) -> Document {
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
    Document::new(document.to_string(), "application/json", Duration::from_hours(1))
        .with(ACCESS_CONTROL_ALLOW_ORIGIN, "*")
        .with(ACCESS_CONTROL_EXPOSE_HEADERS, "ETag")
}

/// The document of `/mcp` (META-05).
pub(crate) async fn of_main(
    State(resource): State<Resource>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let snapshot = resource.registry().snapshot();
    answer(snapshot.profile(None).map(|profile| profile.metadata()), &method, &headers)
}

/// The document of a profile (META-05, POL-03).
pub(crate) async fn of_profile(
    State(resource): State<Resource>,
    uri: Uri,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let snapshot = resource.registry().snapshot();
    answer(snapshot.profile(Some(profile_in(&uri))).map(|profile| profile.metadata()), &method, &headers)
}

/// The profile name in a path that ends with it, exactly as sent: another spelling is another path (HTTP-03).
pub(crate) fn profile_in(uri: &Uri) -> &str {
    uri.path().rsplit('/').next().unwrap_or_default()
}

/// Clients fall back to the root. That is unambiguous only with one endpoint (META-06).
pub(crate) async fn of_the_only_one(
    State(resource): State<Resource>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let snapshot = resource.registry().snapshot();
    let mut profiles = snapshot.profiles();
    let only = profiles.next().filter(|_| profiles.next().is_none());
    answer(only.map(|profile| profile.metadata()), &method, &headers)
}

/// A document, or the answer to another method (META-08).
fn answer(document: Option<&Document>, method: &Method, headers: &HeaderMap) -> Response {
    let Some(document) = document else { return missing() };
    let mut response = match *method {
        Method::GET | Method::HEAD => return document.answer(headers),
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

/// A metadata path without an endpoint (HTTP-08).
pub(crate) async fn none_such() -> Response {
    missing()
}

fn missing() -> Response {
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

/// Readable by pages of any origin, including errors (HTTP-06).
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

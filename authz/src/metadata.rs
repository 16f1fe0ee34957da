//! `/.well-known/oauth-authorization-server` (RFC 8414) and `/jwks.json` (RFC 7517).

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use shared::{Digest, Issuer, Scope};

use crate::Authz;
use crate::authorize::OFFLINE_ACCESS;
use crate::device;

/// The document of RFC 8414 §2, made from what the handlers use (META-04).
#[derive(Serialize)]
pub(crate) struct Document {
    issuer: Issuer,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    registration_endpoint: String,
    revocation_endpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_authorization_endpoint: Option<String>,
    scopes_supported: Vec<String>,
    response_types_supported: [&'static str; 1],
    response_modes_supported: [&'static str; 1],
    grant_types_supported: Vec<&'static str>,
    code_challenge_methods_supported: [&'static str; 1],
    authorization_response_iss_parameter_supported: bool,
    token_endpoint_auth_methods_supported: [&'static str; 1],
    revocation_endpoint_auth_methods_supported: [&'static str; 1],
    protected_resources: Vec<String>,
}

impl Document {
    fn of(authz: &Authz) -> Self {
        let issuer = authz.issuer.clone();
        let scopes = authz.grantable().union(&[OFFLINE_ACCESS].into_iter().collect::<Scope>());
        Self {
            authorization_endpoint: issuer.url("/authorize"),
            token_endpoint: issuer.url("/token"),
            jwks_uri: issuer.url("/jwks.json"),
            registration_endpoint: issuer.url("/register"),
            revocation_endpoint: issuer.url("/revoke"),
            device_authorization_endpoint: authz.config.device.then(|| issuer.url("/device_authorization")),
            scopes_supported: scopes.iter().map(str::to_owned).collect(),
            response_types_supported: ["code"],
            response_modes_supported: ["query"],
            grant_types_supported: ["authorization_code", "refresh_token"]
                .into_iter()
                .chain(authz.config.device.then_some(device::GRANT_TYPE))
                .collect(),
            code_challenge_methods_supported: ["S256"],
            authorization_response_iss_parameter_supported: true,
            token_endpoint_auth_methods_supported: ["none"],
            revocation_endpoint_auth_methods_supported: ["none"],
            protected_resources: authz
                .catalogue
                .endpoints()
                .into_iter()
                .map(|e| e.resource.to_string())
                .collect(),
            issuer,
        }
    }
}

/// `GET /.well-known/oauth-authorization-server`.
pub(crate) async fn authorization_server(State(authz): State<Authz>, headers: HeaderMap) -> Response {
    match serde_json::to_vec(&Document::of(&authz)) {
        Ok(body) => {
            let etag = format!("\"{}\"", Digest::of(&body).short());
            document(&headers, body, &etag, "application/json", "public, max-age=3600")
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// `GET /jwks.json`: public keys only (KEYS-01).
pub(crate) async fn jwks(State(authz): State<Authz>, headers: HeaderMap) -> Response {
    let jwks = authz.keys.jwks();
    let set = "application/jwk-set+json";
    let wants_set = headers.get(header::ACCEPT).is_some_and(|v| v.to_str().is_ok_and(|v| v.contains(set)));
    let content_type = if wants_set { set } else { "application/json" };
    let mut response =
        document(&headers, jwks.body.to_vec(), &jwks.etag, content_type, "public, max-age=300");
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept"));
    response
}

/// A public document (META-08): any origin may read it, caches may keep it.
fn document(
    request: &HeaderMap,
    body: Vec<u8>,
    etag: &str,
    content_type: &'static str,
    cache: &'static str,
) -> Response {
    let unchanged = request.get(header::IF_NONE_MATCH).is_some_and(|v| {
        v.to_str().is_ok_and(|v| v.split(',').any(|tag| matches!(tag.trim(), t if t == etag || t == "*")))
    });
    let mut response = if unchanged {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        (StatusCode::OK, body).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("cross-origin"));
    if let Ok(etag) = HeaderValue::try_from(etag) {
        headers.insert(header::ETAG, etag);
    }
    response
}

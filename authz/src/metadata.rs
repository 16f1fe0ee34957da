//! `/.well-known/oauth-authorization-server` (RFC 8414) and `/jwks.json` (RFC 7517).

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use shared::{Digest, Fault, Issuer, Scope};

use crate::Authz;
use crate::authorize::OFFLINE_ACCESS;
use crate::clients;
use crate::clients::preregistered::CLIENT_CREDENTIALS;
use crate::config::RegistrationMode;
use crate::device;
use crate::error::OAuthError;
use crate::store::clients::AuthMethod;

/// How resource servers prove who they are (INTRO-01).
const INTROSPECTING: [AuthMethod; 3] =
    [AuthMethod::ClientSecretBasic, AuthMethod::ClientSecretPost, AuthMethod::PrivateKeyJwt];

/// The document of RFC 8414 §2, made from what the handlers use (META-04).
#[derive(Serialize)]
pub(crate) struct Document {
    issuer: Issuer,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    registration_endpoint: Option<String>,
    revocation_endpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_authorization_endpoint: Option<String>,
    introspection_endpoint: String,
    scopes_supported: Vec<String>,
    response_types_supported: [&'static str; 1],
    response_modes_supported: [&'static str; 1],
    grant_types_supported: Vec<&'static str>,
    code_challenge_methods_supported: [&'static str; 1],
    authorization_response_iss_parameter_supported: bool,
    token_endpoint_auth_methods_supported: [&'static str; 4],
    token_endpoint_auth_signing_alg_values_supported: [&'static str; 4],
    revocation_endpoint_auth_methods_supported: [&'static str; 4],
    revocation_endpoint_auth_signing_alg_values_supported: [&'static str; 4],
    introspection_endpoint_auth_methods_supported: [&'static str; 3],
    introspection_endpoint_auth_signing_alg_values_supported: [&'static str; 4],
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id_metadata_document_supported: Option<bool>,
    /// None of its own, where the gateway runs elsewhere (META-09).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    protected_resources: Vec<String>,
}

impl Document {
    fn of(authz: &Authz) -> Result<Self, Fault> {
        let issuer = authz.issuer.clone();
        let registers = authz.config.registration.mode != RegistrationMode::Off;
        let methods = AuthMethod::ALL.map(AuthMethod::as_str);
        let scopes = authz.grantable().union(&[OFFLINE_ACCESS].into_iter().collect::<Scope>());
        let documents = authz.db.read(|conn| clients::documents_lead_to_a_login(authz, conn))?;
        Ok(Self {
            client_id_metadata_document_supported: documents.then_some(true),
            authorization_endpoint: issuer.url("/authorize"),
            token_endpoint: issuer.url("/token"),
            jwks_uri: issuer.url("/jwks.json"),
            registration_endpoint: registers.then(|| issuer.url("/register")),
            revocation_endpoint: issuer.url("/revoke"),
            device_authorization_endpoint: authz.config.device.then(|| issuer.url("/device_authorization")),
            introspection_endpoint: issuer.url("/introspect"),
            scopes_supported: scopes.iter().map(str::to_owned).collect(),
            response_types_supported: ["code"],
            response_modes_supported: ["query"],
            grant_types_supported: ["authorization_code", "refresh_token"]
                .into_iter()
                .chain(authz.config.device.then_some(device::GRANT_TYPE))
                .chain(authz.status.has_own_tokens().then_some(CLIENT_CREDENTIALS))
                .collect(),
            code_challenge_methods_supported: ["S256"],
            authorization_response_iss_parameter_supported: true,
            token_endpoint_auth_methods_supported: methods,
            token_endpoint_auth_signing_alg_values_supported: keys::CLIENT_ALGORITHMS,
            revocation_endpoint_auth_methods_supported: methods,
            revocation_endpoint_auth_signing_alg_values_supported: keys::CLIENT_ALGORITHMS,
            introspection_endpoint_auth_methods_supported: INTROSPECTING.map(AuthMethod::as_str),
            introspection_endpoint_auth_signing_alg_values_supported: keys::CLIENT_ALGORITHMS,
            protected_resources: authz.resources().iter().map(ToString::to_string).collect(),
            issuer,
        })
    }
}

/// `GET /.well-known/oauth-authorization-server`.
pub(crate) async fn authorization_server(State(authz): State<Authz>, headers: HeaderMap) -> Response {
    let metadata = match Document::of(&authz) {
        Ok(metadata) => metadata,
        Err(fault) => return OAuthError::from(fault).into_response(),
    };
    match serde_json::to_vec(&metadata) {
        Ok(body) => {
            let etag = format!("\"{}\"", Digest::of(&body).short());
            document(&headers, body, &etag, "application/json", "public, max-age=3600")
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

const JSON: &str = "application/json";
/// RFC 7517 §8.5.2.
const JWK_SET: &str = "application/jwk-set+json";

/// Whether `Accept` names the set's own media type, and likes plain JSON no better (RFC 9110 §12.5.1).
/// Whoever has no opinion gets plain JSON, which everything can read.
fn prefers_set(headers: &HeaderMap) -> bool {
    let (mut set, mut json) = (0.0, 0.0);
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    for range in values.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let weight: f32 = weight.map_or(1.0, |text| text.parse().unwrap_or(0.0));
        if name.eq_ignore_ascii_case(JWK_SET) {
            set = weight;
        } else if name.eq_ignore_ascii_case(JSON) {
            json = weight;
        }
    }
    set > 0.0 && set >= json
}

/// `GET /jwks.json`: public keys only (KEYS-01).
pub(crate) async fn jwks(State(authz): State<Authz>, headers: HeaderMap) -> Response {
    let jwks = authz.keys.jwks();
    let content_type = if prefers_set(&headers) { JWK_SET } else { JSON };
    let max_age = authz.keys.config().jwks_max_age.as_secs();
    let cache = format!("public, max-age={max_age}");
    let mut response = document(&headers, jwks.body.to_vec(), &jwks.etag, content_type, &cache);
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept"));
    response
}

/// A public document (META-08): any origin may read it, caches may keep it.
fn document(
    request: &HeaderMap,
    body: Vec<u8>,
    etag: &str,
    content_type: &'static str,
    cache: &str,
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
    if let Ok(cache) = HeaderValue::try_from(cache) {
        headers.insert(header::CACHE_CONTROL, cache);
    }
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("cross-origin"));
    if let Ok(etag) = HeaderValue::try_from(etag) {
        headers.insert(header::ETAG, etag);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// KEYS-01: the set's own media type is for those who ask for it.
    #[test]
    fn accept_chooses_between_two_media_types() {
        let prefers = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::ACCEPT, HeaderValue::from_str(value).unwrap());
            }
            prefers_set(&headers)
        };
        for yes in [
            &["application/jwk-set+json"][..],
            &["application/jwk-set+json, application/json"],
            &["application/json;q=0.5, application/jwk-set+json"],
            &["text/html", "Application/JWK-Set+JSON; q=0.1"],
        ] {
            assert!(prefers(yes), "{yes:?}");
        }
        for no in [
            &[][..],
            &["*/*"],
            &["application/*"],
            &["application/json"],
            &["application/jwk-set+json;q=0"],
            &["application/jwk-set+json;q=0.5, application/json"],
            &["application/jwk-set+json;q=much"],
            &["application/jwk-set+jsonx"],
        ] {
            assert!(!prefers(no), "{no:?}");
        }
    }
}

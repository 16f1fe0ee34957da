//! `/.well-known/oauth-authorization-server` (RFC 8414) and `/jwks.json` (RFC 7517).

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use keys::Jwks;
use serde::Serialize;
use shared::{Fault, Issuer, Scope};

use crate::Authz;
use crate::clients;
use crate::config::RegistrationMode;
use crate::error::OAuthError;
use crate::grants::GrantType;
use crate::scope::OFFLINE_ACCESS;
use crate::store::clients::AuthMethod;

/// How resource servers can authenticate (INTRO-01).
const INTROSPECTING: [AuthMethod; 3] =
    [AuthMethod::ClientSecretBasic, AuthMethod::ClientSecretPost, AuthMethod::PrivateKeyJwt];

/// The document of RFC 8414 §2, made from the handlers' own settings (META-04).
#[derive(PartialEq, Serialize)]
struct Members {
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
    /// Empty if the gateway runs elsewhere (META-09).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    protected_resources: Vec<String>,
}

impl Members {
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
            grant_types_supported: GrantType::ALL
                .into_iter()
                .filter(|grant_type| grant_type.is_on(authz))
                .map(GrantType::name)
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

/// The documents as they were last made.
#[derive(Default)]
pub(crate) struct Published {
    metadata: ArcSwapOption<Metadata>,
    keys: ArcSwapOption<KeySet>,
}

/// The metadata, and the database change up to which it is known to be current.
struct Metadata {
    at: u64,
    says: Members,
    document: shared::Document,
}

/// The key set, in both media types.
struct KeySet {
    made_from: Arc<Jwks>,
    json: shared::Document,
    jwk_set: shared::Document,
}

/// The current metadata. Any commit may have changed it, so it is computed again after one; its bytes are made
/// again only if it differs.
fn metadata(authz: &Authz) -> Result<shared::Document, Fault> {
    let (at, published) = (authz.db.changes(), &authz.published.metadata);
    let before = published.load();
    if let Some(before) = before.as_ref().filter(|before| before.at == at) {
        return Ok(before.document.clone());
    }
    let says = Members::of(authz)?;
    let document = if let Some(before) = before.as_ref().filter(|before| before.says == says) {
        before.document.clone()
    } else {
        let body = serde_json::to_vec(&says).map_err(|e| Fault::Corrupt(e.to_string()))?;
        shared::Document::new(body, JSON, METADATA_MAX_AGE)
    };
    published.store(Some(Arc::new(Metadata { at, says, document: document.clone() })));
    Ok(document)
}

/// `GET /.well-known/oauth-authorization-server` (META-02).
pub(crate) async fn authorization_server(State(authz): State<Authz>, headers: HeaderMap) -> Response {
    match metadata(&authz) {
        Ok(document) => document.answer(&headers),
        Err(fault) => OAuthError::from(fault).into_response(),
    }
}

/// How long the metadata may be cached (META-08).
const METADATA_MAX_AGE: Duration = Duration::from_hours(1);
const JSON: &str = "application/json";
/// The media type of a key set (RFC 7517 §8.5.2).
const JWK_SET: &str = "application/jwk-set+json";

/// Whether `Accept` prefers the key set's own media type to plain JSON (RFC 9110 §12.5.1). Without a
/// preference, plain JSON is sent.
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
    let set = key_set(&authz);
    if prefers_set(&headers) { set.jwk_set.answer(&headers) } else { set.json.answer(&headers) }
}

fn key_set(authz: &Authz) -> Arc<KeySet> {
    let jwks = authz.keys.jwks();
    if let Some(before) =
        authz.published.keys.load_full().filter(|before| Arc::ptr_eq(&before.made_from, &jwks))
    {
        return before;
    }
    let max_age = authz.keys.config().jwks_max_age;
    let document = |content_type| {
        shared::Document::new(jwks.body.clone(), content_type, max_age).with(header::VARY, "Accept")
    };
    let set = Arc::new(KeySet { json: document(JSON), jwk_set: document(JWK_SET), made_from: jwks });
    authz.published.keys.store(Some(Arc::clone(&set)));
    set
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// KEYS-01: the key set's own media type is sent if it is requested.
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

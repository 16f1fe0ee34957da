//! Metadata and reality agree (META-04): everything advertised is used here, and disabled features are absent
//! from both.

use std::collections::BTreeSet;

use reqwest::Response;
use serde_json::{Value, json};

use crate::assertion::ClientKey;
use crate::harness::{TestApp, Tokens, error_of};

const EVERYTHING: &str = "device = true\n";
const AUTHORIZATION_CODE: &str = "authorization_code";
const REFRESH_TOKEN: &str = "refresh_token";
const CLIENT_CREDENTIALS: &str = "client_credentials";
const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";
const REDIRECT_URI: &str = "http://localhost/callback";

async fn document(app: &TestApp) -> Value {
    let response = app.get("/.well-known/oauth-authorization-server").await;
    assert_eq!(response.status(), 200);
    response.json().await.unwrap()
}

fn list<'a>(document: &'a Value, member: &str) -> Vec<&'a str> {
    let values = document[member].as_array().unwrap_or_else(|| panic!("no {member} in {document}"));
    values.iter().map(|value| value.as_str().unwrap()).collect()
}

/// A client with an authentication method, and the credentials that its requests need.
struct Proven {
    id: String,
    method: &'static str,
    secret: Option<String>,
    key: ClientKey,
}

impl Proven {
    /// `command` is `client add` or `rs add` with its arguments.
    fn add(app: &TestApp, command: &[&str], method: &'static str, alg: &'static str) -> Self {
        let key = ClientKey::generate(alg);
        let jwks = app.data_dir().join("client.jwks");
        std::fs::write(&jwks, key.jwks().to_string()).unwrap();
        // Names are unique; the third word is the name.
        let name = format!("{} {}", command[2], shared::id::random_128());
        let mut arguments = command.to_vec();
        arguments[2] = &name;
        match method {
            "none" => {}
            "private_key_jwt" => arguments.extend(["--jwks", jwks.to_str().unwrap()]),
            // Resource servers have a secret unless they have a key.
            _ if command[0] == "rs" => {}
            _ => arguments.push("--secret"),
        }
        let added = app.console(&arguments);
        let id = ["client", "resource_server"].iter().find_map(|kind| added[*kind]["id"].as_str());
        let secret = added["client_secret"].as_str().map(str::to_owned);
        Self { id: id.unwrap().to_owned(), method, secret, key }
    }

    async fn post(&self, app: &TestApp, url: &str, form: &[(&str, &str)]) -> Response {
        let mut form: Vec<(String, String)> =
            form.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut request = app.http.post(url);
        match self.method {
            "none" => form.push(("client_id".to_owned(), self.id.clone())),
            "client_secret_basic" => request = request.basic_auth(&self.id, self.secret.as_deref()),
            "client_secret_post" => {
                form.push(("client_id".to_owned(), self.id.clone()));
                form.push(("client_secret".to_owned(), self.secret.clone().unwrap()));
            }
            "private_key_jwt" => {
                form.extend(self.key.form(app, &self.id).map(|(name, value)| (name.to_owned(), value)));
            }
            other => panic!("this test knows no way to authenticate by {other}"),
        }
        request.form(&form).send().await.unwrap()
    }
}

fn known_method(name: &str) -> &'static str {
    let known = ["none", "client_secret_basic", "client_secret_post", "private_key_jwt"];
    known.into_iter().find(|known| *known == name).unwrap_or_else(|| panic!("{name} is not tested"))
}

fn known_algorithm(name: &str) -> &'static str {
    let known = crate::assertion::ALGORITHMS;
    known.into_iter().find(|known| *known == name).unwrap_or_else(|| panic!("{name} is not tested"))
}

const CLIENT: [&str; 5] = ["client", "add", "Walker", "--redirect-uri", REDIRECT_URI];

/// META-02, META-04, META-09: every endpoint exists, has an absolute URL on this origin, and accepts what it
/// should.
#[tokio::test(flavor = "multi_thread")]
async fn every_advertised_endpoint_answers() {
    let app = TestApp::start_configured(EVERYTHING).await;
    let document = document(&app).await;
    let members = document.as_object().unwrap();
    let endpoints: Vec<_> = members.iter().filter(|(name, _)| name.ends_with("_endpoint")).collect();
    assert!(endpoints.len() >= 6, "{document}");
    for (name, url) in endpoints {
        let url = url.as_str().unwrap();
        assert!(url.starts_with(&app.origin), "{name}: {url}");
        let asked = if name == "authorization_endpoint" { app.http.get(url) } else { app.http.post(url) };
        let status = asked.send().await.unwrap().status();
        assert!(status == 400 || status == 401, "{name}: {status}");
    }
    assert_eq!(app.http.get(document["jwks_uri"].as_str().unwrap()).send().await.unwrap().status(), 200);
    for resource in list(&document, "protected_resources") {
        let path = resource.strip_prefix(&app.origin).unwrap();
        let described: Value =
            app.get(&format!("/.well-known/oauth-protected-resource{path}")).await.json().await.unwrap();
        assert_eq!(
            (&described["resource"], &described["authorization_servers"][0]),
            (&json!(resource), &json!(app.origin))
        );
    }
    for (name, value) in members {
        assert!(!value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()), "{name}");
    }
}

/// META-04, CAUTH-01: every authentication method works at its endpoint, with every algorithm.
#[tokio::test(flavor = "multi_thread")]
async fn every_advertised_authentication_works() {
    let app = TestApp::start_configured(EVERYTHING).await;
    let document = document(&app).await;
    let token = document["token_endpoint"].as_str().unwrap();
    let revoke = document["revocation_endpoint"].as_str().unwrap();
    let introspect = document["introspection_endpoint"].as_str().unwrap();
    let unknown = [("grant_type", REFRESH_TOKEN), ("refresh_token", "rt_unknown")];
    for method in list(&document, "token_endpoint_auth_methods_supported") {
        let client = Proven::add(&app, &CLIENT, known_method(method), "ES256");
        let answer = error_of(client.post(&app, token, &unknown).await).await;
        assert_eq!(answer.1, "invalid_grant", "authenticated by {method}, and nothing else is wrong");
    }
    for method in list(&document, "revocation_endpoint_auth_methods_supported") {
        let client = Proven::add(&app, &CLIENT, known_method(method), "ES256");
        assert_eq!(client.post(&app, revoke, &[("token", "unknown")]).await.status(), 200, "{method}");
    }
    let server = ["rs", "add", "walker", "--audience", "https://walker.example/mcp"];
    for method in list(&document, "introspection_endpoint_auth_methods_supported") {
        let caller = Proven::add(&app, &server, known_method(method), "ES256");
        let answer: Value =
            caller.post(&app, introspect, &[("token", "unknown")]).await.json().await.unwrap();
        assert_eq!(answer, json!({"active": false}), "{method}");
    }
    for (member, url, form) in [
        ("token_endpoint_auth_signing_alg_values_supported", token, &unknown[..]),
        ("revocation_endpoint_auth_signing_alg_values_supported", revoke, &[("token", "unknown")]),
    ] {
        for alg in list(&document, member) {
            let client = Proven::add(&app, &CLIENT, "private_key_jwt", known_algorithm(alg));
            let answer = client.post(&app, url, form).await;
            assert_ne!(answer.status(), 401, "{member} {alg}");
        }
    }
    for alg in list(&document, "introspection_endpoint_auth_signing_alg_values_supported") {
        let caller = Proven::add(&app, &server, "private_key_jwt", known_algorithm(alg));
        assert_eq!(caller.post(&app, introspect, &[("token", "unknown")]).await.status(), 200, "{alg}");
    }
}

/// META-04, TOKEN-13: every grant type gives a token that the gate accepts, and there are no other grant types.
#[tokio::test(flavor = "multi_thread")]
async fn every_advertised_grant_works() {
    let app = TestApp::start_configured(EVERYTHING).await;
    let mut browser = app.admin().await;
    // Advertised once a client may use it.
    let add = ["client", "add", "Nightly", "--client-credentials", "--scope", "docs.read"];
    let nightly = Proven::add(&app, &add, "private_key_jwt", "ES256");
    let document = document(&app).await;
    let token = document["token_endpoint"].as_str().unwrap();
    let advertised: BTreeSet<&str> = list(&document, "grant_types_supported").into_iter().collect();
    let tested = [AUTHORIZATION_CODE, REFRESH_TOKEN, CLIENT_CREDENTIALS, DEVICE_CODE];
    assert_eq!(advertised, tested.into(), "every grant is tested below");

    let client = app.client().await;
    let tokens = app.tokens(&mut browser, &client).await;
    let refreshed = Tokens::of(app.refresh(&client, &tokens.refresh).await).await;
    let resource = app.mcp_url();
    let form = [("grant_type", CLIENT_CREDENTIALS), ("resource", resource.as_str()), ("scope", "docs.read")];
    let own: Value = nightly.post(&app, token, &form).await.json().await.unwrap();
    let device = crate::device::access_token(&app, &mut browser).await;
    for access in [&tokens.access, &refreshed.access, own["access_token"].as_str().unwrap(), &device] {
        let answer = app.call_tool(access, "docs_search", json!({"query": "falcon"})).await;
        assert_eq!(answer.status(), 200);
    }
    for unsupported in ["password", "implicit", "urn:ietf:params:oauth:grant-type:token-exchange", "x"] {
        let answer = app.token(&[("grant_type", unsupported), ("client_id", &client.id)]).await;
        assert_eq!(error_of(answer).await.1, "unsupported_grant_type", "{unsupported}");
    }
}

/// META-04, META-03, DCR-01, DEV-01, CIMD-02: a disabled feature is not advertised and does not exist.
#[tokio::test(flavor = "multi_thread")]
async fn disabled_endpoints_do_not_exist() {
    let app = TestApp::start_configured("[registration]\nmode = \"off\"\n[cimd]\nmode = \"off\"\n").await;
    let document = document(&app).await;
    for (member, path) in [
        ("registration_endpoint", "/register"),
        ("device_authorization_endpoint", "/device_authorization"),
        ("pushed_authorization_request_endpoint", "/par"),
        ("userinfo_endpoint", "/userinfo"),
    ] {
        assert!(document[member].is_null(), "{member}");
        let answer = app.http.post(app.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), 404, "{path}");
        assert_eq!(answer.headers()["content-type"], "application/json", "{path}");
    }
    assert!(document["client_id_metadata_document_supported"].is_null());
    assert!(!list(&document, "grant_types_supported").contains(&DEVICE_CODE));
    assert_eq!(app.get("/.well-known/openid-configuration").await.status(), 404);
}

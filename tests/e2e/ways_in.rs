//! Every way to get access, each with the same steps: sign in, call, refresh, revoke, be refused. The
//! differences are in the module named after each.

use reqwest::Response;
use serde_json::{Value, json};

use crate::assertion::ClientKey;
use crate::certificates::unused_port;
use crate::harness::{Browser, Client, TestApp, Tokens, error_of};
use crate::{cimd, device};

/// How a client authenticates.
enum Proof {
    Nothing,
    Secret(String),
    Key(ClientKey),
}

/// A client on its way in.
struct ClientJourney {
    name: &'static str,
    client: Client,
    proof: Proof,
}

/// A redirect URI with a random port, like a program on this computer.
fn callback(host: &str, path: &str) -> String {
    format!("http://{host}:{}{path}", unused_port())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

impl ClientJourney {
    fn new(name: &'static str, id: &str, redirect_uri: String, proof: Proof) -> Self {
        Self { name, client: Client { id: id.to_owned(), redirect_uri }, proof }
    }

    async fn registered(app: &TestApp, name: &'static str, method: &str) -> Self {
        let metadata = json!({
            "client_name": name, "redirect_uris": ["http://localhost/callback"], "token_endpoint_auth_method": method,
            "grant_types": ["authorization_code", "refresh_token"],
        });
        let response = app.register(&metadata).await;
        assert_eq!(response.status(), 201, "{name}");
        let body: Value = response.json().await.unwrap();
        let proof = body["client_secret"].as_str().map_or(Proof::Nothing, |s| Proof::Secret(s.to_owned()));
        Self::new(name, body["client_id"].as_str().unwrap(), callback("localhost", "/callback"), proof)
    }

    /// A client that an administrator added with these options.
    fn added(app: &TestApp, name: &'static str, options: &[&str], key: Option<ClientKey>) -> Self {
        let added = app.console(&[&["client", "add", name][..], options].concat());
        let proof = match (key, added["client_secret"].as_str()) {
            (Some(key), None) => Proof::Key(key),
            (None, Some(secret)) => Proof::Secret(secret.to_owned()),
            (None, None) => Proof::Nothing,
            (Some(_), Some(_)) => panic!("{name} has a key and a secret"),
        };
        Self::new(name, &text(&added["client"]["id"]), callback("127.0.0.1", "/cb"), proof)
    }

    async fn post(&self, app: &TestApp, path: &str, form: &[(&str, &str)]) -> Response {
        let id = self.client.id.as_str();
        let request = app.http.post(app.url(path));
        let mut form: Vec<(&str, &str)> = form.to_vec();
        match &self.proof {
            Proof::Nothing => {
                form.push(("client_id", id));
                request.form(&form)
            }
            Proof::Secret(secret) => request.basic_auth(id, Some(secret)).form(&form),
            Proof::Key(key) => {
                let proof = key.form(app, id);
                form.extend(proof.iter().map(|(name, value)| (*name, value.as_str())));
                request.form(&form)
            }
        }
        .send()
        .await
        .unwrap()
    }

    /// Signs in, in the browser.
    async fn sign_in(&self, app: &TestApp, browser: &mut Browser) -> Tokens {
        let code = browser.authorize(app, &self.client).await;
        let mut redemption = self.client.redemption(&code);
        redemption.retain(|(name, _)| *name != "client_id");
        let response = self.post(app, "/token", &redemption).await;
        assert_eq!(response.status(), 200, "{}", self.name);
        Tokens::of(response).await
    }

    async fn calls(&self, app: &TestApp, token: &str) -> bool {
        match app.call_tool(token, "docs_search", json!({"query": "falcon"})).await {
            answer if answer.status() == 401 => false,
            answer => {
                let body: Value = answer.json().await.unwrap();
                assert_eq!(body["result"]["isError"], false, "{}: {body}", self.name);
                true
            }
        }
    }

    async fn gives_back(&self, app: &TestApp, token: &str) {
        assert_eq!(self.post(app, "/revoke", &[("token", token)]).await.status(), 200, "{}", self.name);
    }

    /// The steps from the tokens on.
    async fn story(&self, app: &TestApp, tokens: Tokens) {
        let name = self.name;
        assert_eq!(tokens.claims()["client_id"], self.client.id, "{name}");
        assert!(self.calls(app, &tokens.access).await, "{name}");
        let refresh = async |token: &str| {
            let form = [("grant_type", "refresh_token"), ("refresh_token", token)];
            self.post(app, "/token", &form).await
        };
        let renewed = Tokens::of(refresh(&tokens.refresh).await).await;
        assert_ne!(renewed.access, tokens.access, "{name}");
        assert!(self.calls(app, &renewed.access).await, "{name}");
        self.gives_back(app, &renewed.refresh).await;
        for token in [&tokens.access, &renewed.access] {
            assert!(!self.calls(app, token).await, "{name}");
        }
        for token in [&tokens.refresh, &renewed.refresh] {
            assert_eq!(error_of(refresh(token).await).await.1, "invalid_grant", "{name}");
        }
    }
}

/// DCR-06, CAUTH-01, CAUTH-05, CIMD-01, REDIR-02, REFRESH-02, REVOKE-04: a self-registered client without and
/// with a secret, an administrator's with a secret and with a key, one of the catalogue, one with an imported
/// document, and an unknown one.
#[tokio::test(flavor = "multi_thread")]
async fn people_let_clients_in() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    cimd::import(&app, &cimd::reports());
    let key = ClientKey::generate("ES256");
    let jwks = cimd::file(&app, "keys.json", &key.jwks());
    let uri = ["--redirect-uri", "http://127.0.0.1/cb"];
    let secret = [&uri[..], &["--secret"]].concat();
    let keyed = [&uri[..], &["--jwks", &jwks]].concat();
    for way in [
        ClientJourney::registered(&app, "DCR public", "none").await,
        ClientJourney::registered(&app, "DCR confidential", "client_secret_basic").await,
        ClientJourney::added(&app, "pre-registered secret", &secret, None),
        ClientJourney::added(&app, "pre-registered key", &keyed, Some(key)),
        ClientJourney::new(
            "catalogue",
            cimd::CLAUDE_CODE,
            callback("localhost", "/callback"),
            Proof::Nothing,
        ),
        ClientJourney::new("imported", cimd::REPORTS, callback("localhost", "/cb"), Proof::Nothing),
        ClientJourney::new("unknown", cimd::STRANGER, callback("127.0.0.1", "/cb"), Proof::Nothing),
    ] {
        let tokens = way.sign_in(&app, &mut ada).await;
        way.story(&app, tokens).await;
    }
}

/// DEV-01, REFRESH-02, REVOKE-04: a device, whose user allows it elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_lets_a_device_in() {
    let app = TestApp::start_configured("device = true\n").await;
    let mut ada = app.admin().await;
    let way = ClientJourney::added(&app, "device", &["--device"], None);
    let asked = device::ask(&app, &way.client).await;
    device::approve(&app, &mut ada, &asked).await;
    let tokens = Tokens::of(device::poll(&app, &way.client, &asked).await).await;
    way.story(&app, tokens).await;
}

/// CC-01, REFRESH-01, REVOKE-04: a client in its own name, which has nothing to refresh with.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_comes_in_by_itself() {
    let app = TestApp::start().await;
    app.admin().await;
    let options = ["--secret", "--client-credentials", "--scope", "docs.read"];
    let way = ClientJourney::added(&app, "robot", &options, None);
    let form = [("grant_type", "client_credentials"), ("resource", &app.mcp_url())];
    let body: Value = way.post(&app, "/token", &form).await.json().await.unwrap();
    assert_eq!(body["refresh_token"], Value::Null);
    let token = text(&body["access_token"]);
    assert!(way.calls(&app, &token).await);
    let refresh = [("grant_type", "refresh_token"), ("refresh_token", token.as_str())];
    assert_eq!(error_of(way.post(&app, "/token", &refresh).await).await.1, "unauthorized_client");
    way.gives_back(&app, &token).await;
    assert!(!way.calls(&app, &token).await);
}

//! Clients that read, change and delete their own registrations (RFC 7592).

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::assertion::ClientKey;
use crate::harness::{Client, TestApp, error_of, header};

const ON: &str = "[registration]\nmanagement = true";

/// A client with its registration access token.
struct Managed {
    id: String,
    uri: String,
    token: String,
    /// The metadata that it sends in an update.
    metadata: Value,
}

impl Managed {
    async fn new(app: &TestApp, metadata: Value) -> (Self, Value) {
        let response = app.register(&metadata).await;
        assert_eq!(response.status(), 201);
        let body: Value = response.json().await.unwrap();
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        let mut metadata = metadata;
        metadata["client_id"] = body["client_id"].clone();
        let (id, uri, token) =
            (text("client_id"), text("registration_client_uri"), text("registration_access_token"));
        assert_eq!(uri, app.url(&format!("/register/{id}")));
        assert!(token.starts_with("rat_") && token.len() == 4 + 43);
        (Self { id, uri, token, metadata }, body)
    }

    async fn send(&self, app: &TestApp, method: Method, body: Option<&Value>) -> Response {
        let request = app.http.request(method, &self.uri).bearer_auth(&self.token);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        request.send().await.unwrap()
    }

    async fn get(&self, app: &TestApp) -> Response {
        self.send(app, Method::GET, None).await
    }

    /// Updates with these members, and keeps the new token.
    async fn put(&mut self, app: &TestApp, members: &[(&str, Value)]) -> Value {
        for (name, value) in members {
            self.metadata[*name] = value.clone();
        }
        let response = self.send(app, Method::PUT, Some(&self.metadata)).await;
        assert_eq!(response.status(), 200, "{}", self.metadata);
        let body: Value = response.json().await.unwrap();
        self.token = body["registration_access_token"].as_str().unwrap().to_owned();
        body
    }

    async fn refused(&self, app: &TestApp, member: &str, value: Value) -> (u16, String) {
        let mut metadata = self.metadata.clone();
        metadata[member] = value;
        let (status, error) = error_of(self.send(app, Method::PUT, Some(&metadata)).await).await;
        (status.as_u16(), error)
    }

    fn client(&self) -> Client {
        Client { id: self.id.clone(), redirect_uri: "http://localhost:5123/callback".to_owned() }
    }
}

fn public() -> Value {
    json!({
        "client_name": "Self-made", "redirect_uris": ["http://localhost/callback"],
        "grant_types": ["authorization_code", "refresh_token"], "token_endpoint_auth_method": "none",
    })
}

/// DCR-09: unless it is enabled, nothing advertises it and the endpoint does not exist.
#[tokio::test(flavor = "multi_thread")]
async fn management_is_off_unless_a_site_wants_it() {
    let app = TestApp::start().await;
    let body: Value = app.register(&public()).await.json().await.unwrap();
    assert!(body.get("registration_access_token").is_none() && body.get("registration_client_uri").is_none());
    let path = format!("/register/{}", body["client_id"].as_str().unwrap());
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let request = app.http.request(method.clone(), app.url(&path)).bearer_auth("rat_x");
        let answer = request.send().await.unwrap();
        assert_eq!(header(answer.headers(), "content-type"), Some("application/json"), "{method}");
        assert_eq!(answer.status(), 404, "{method}");
    }
}

/// DCR-09, DCR-10: a client reads, changes and deletes its registration; every change issues a new token.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_manages_itself() {
    let app = TestApp::start_configured(ON).await;
    let mut ada = app.admin().await;
    let (mut managed, registered) = Managed::new(&app, public()).await;
    let read = managed.get(&app).await;
    assert_eq!((read.status(), header(read.headers(), "cache-control")), (StatusCode::OK, Some("no-store")));
    assert_eq!(header(read.headers(), "access-control-allow-origin"), Some("*"));
    assert_eq!(read.json::<Value>().await.unwrap(), registered);
    let first = managed.token.clone();
    let changed =
        managed.put(&app, &[("client_name", json!("Self-made 2")), ("software_version", json!("2"))]).await;
    assert_eq!((&changed["client_name"], &changed["software_version"]), (&json!("Self-made 2"), &json!("2")));
    assert_eq!(changed["client_id_issued_at"], registered["client_id_issued_at"]);
    assert_ne!(managed.token, first);
    assert_eq!(managed.get(&app).await.json::<Value>().await.unwrap(), changed);
    let page = ada.consent_page(&app, &managed.client().authorize_url(&app)).await;
    assert!(page.html.contains("Self-made 2"));
    let record = app.audit().into_iter().find(|record| record["event"] == "client.updated").unwrap();
    assert_eq!(record["detail"]["changed_fields"], json!(["client_name", "software_version"]));
    assert_eq!(record["actor"], json!({"type": "client", "id": managed.id}));
    // The old token is invalid, and so is another client's.
    let (other, _) = Managed::new(&app, public()).await;
    for wrong in
        [first.as_str(), other.token.as_str(), "", "rat_x", registered["client_id"].as_str().unwrap()]
    {
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            let request =
                app.http.request(method.clone(), &managed.uri).bearer_auth(wrong).json(&managed.metadata);
            let refused = request.send().await.unwrap();
            assert_eq!(header(refused.headers(), "www-authenticate"), Some("Bearer error=\"invalid_token\""));
            assert_eq!(
                error_of(refused).await,
                (StatusCode::UNAUTHORIZED, "invalid_token".to_owned()),
                "{method}"
            );
        }
    }
    let tokens = app.tokens(&mut ada, &managed.client()).await;
    assert_eq!(managed.send(&app, Method::DELETE, None).await.status(), 204);
    assert_eq!(app.call_tool(&tokens.access, "whoami", json!({})).await.status(), 401);
    assert_eq!(error_of(app.refresh(&managed.client(), &tokens.refresh).await).await.1, "invalid_client");
    for method in [Method::GET, Method::DELETE] {
        assert_eq!(managed.send(&app, method, None).await.status(), 401);
    }
    assert!(app.has_event("client.deleted", None) && app.has_event("client.deleted", Some("invalid_token")));
    assert_eq!(other.get(&app).await.status(), 200);
}

/// DCR-10: the result is checked like a new registration, and members that only the server sets are refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_checked_in_full() {
    let app = TestApp::start_configured(ON).await;
    let (managed, before) = Managed::new(&app, public()).await;
    let bad = (400, "invalid_client_metadata".to_owned());
    for (member, value) in [
        ("client_id", json!("dyn_other")),
        ("client_id", json!(null)),
        ("client_secret", json!("cs_guess")),
        ("registration_access_token", json!(managed.token)),
        ("registration_client_uri", json!(managed.uri)),
        ("client_secret_expires_at", json!(0)),
        ("client_id_issued_at", json!(0)),
        ("client_name", json!("Portcullis")),
        ("grant_types", json!(["refresh_token"])),
        ("jwks_uri", json!("https://a.example/jwks")),
        ("token_endpoint_auth_method", json!("private_key_jwt")),
        ("token_endpoint_auth_method", json!("client_secret_jwt")),
    ] {
        assert_eq!(managed.refused(&app, member, value.clone()).await, bad, "{member} {value}");
    }
    for uris in
        [json!([]), json!(["http://evil.example/"]), json!(["javascript:alert(1)"]), json!(["zed://cb"])]
    {
        let refused = managed.refused(&app, "redirect_uris", uris.clone()).await;
        assert_eq!(refused, (400, "invalid_redirect_uri".to_owned()), "{uris}");
    }
    let request = app.http.put(&managed.uri).bearer_auth(&managed.token);
    let twice = format!(
        r#"{{"client_id":"{0}","client_id":"{0}","redirect_uris":["http://localhost/"]}}"#,
        managed.id
    );
    let refused = request.header("content-type", "application/json").body(twice).send().await.unwrap();
    assert_eq!(error_of(refused).await.1, "invalid_client_metadata");
    assert_eq!(managed.get(&app).await.json::<Value>().await.unwrap(), before, "nothing has changed");
}

/// DCR-04, DCR-10: an unusable informative member does not refuse a change and is dropped.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_not_refused_for_what_is_informative() {
    let app = TestApp::start_configured(ON).await;
    let (mut managed, _) = Managed::new(&app, public()).await;
    let kept = managed.put(&app, &[("client_uri", json!("https://a.example/"))]).await;
    assert_eq!(kept["client_uri"], "https://a.example/");
    let unusable = [
        ("client_uri", json!("http://localhost:5173")),
        ("logo_uri", json!("data:image/png;base64,AA")),
        ("tos_uri", json!("")),
        ("policy_uri", json!(7)),
        ("contacts", json!([])),
        ("jwks_uri", json!("")),
        ("client_secret", json!(null)),
    ];
    let changed = managed.put(&app, &unusable).await;
    for (gone, _) in &unusable {
        assert!(changed.get(*gone).is_none(), "{gone} {changed}");
    }
    assert_eq!(changed["client_name"], "Self-made");
}

/// DCR-10: authentication only becomes stronger, and stays if the request omits it.
#[tokio::test(flavor = "multi_thread")]
async fn authentication_is_never_made_weaker() {
    let app = TestApp::start_configured(ON).await;
    let (mut managed, _) = Managed::new(&app, public()).await;
    managed.metadata.as_object_mut().unwrap().remove("token_endpoint_auth_method");
    let kept = managed.put(&app, &[]).await;
    assert_eq!(kept["token_endpoint_auth_method"], "none");
    assert!(kept.get("client_secret").is_none());
    let id = managed.id.clone();
    let revoke = |secret: &str| {
        let form =
            [("client_id", id.clone()), ("client_secret", secret.to_owned()), ("token", "x".to_owned())];
        app.http.post(app.url("/revoke")).form(&form).send()
    };
    let stronger = managed.put(&app, &[("token_endpoint_auth_method", json!("client_secret_post"))]).await;
    let secret = stronger["client_secret"].as_str().unwrap().to_owned();
    assert_eq!(revoke(&secret).await.unwrap().status(), 200);
    let weaker = managed.refused(&app, "token_endpoint_auth_method", json!("none")).await;
    assert_eq!(weaker, (400, "invalid_client_metadata".to_owned()));
    // Repeated in the request, the secret is returned and stays valid.
    let same = managed.put(&app, &[("client_secret", json!(secret))]).await;
    assert_eq!(same["client_secret"], secret.as_str());
    assert_eq!(revoke(&secret).await.unwrap().status(), 200);
    let key = ClientKey::generate("ES256");
    let keyed = [("token_endpoint_auth_method", json!("private_key_jwt")), ("jwks", key.jwks())];
    assert_eq!(managed.put(&app, &keyed).await["jwks"], key.jwks());
    assert_eq!(revoke(&secret).await.unwrap().status(), 401);
    let mut by_key = key.form(&app, &id).to_vec();
    by_key.push(("token", "x".to_owned()));
    assert_eq!(app.http.post(app.url("/revoke")).form(&by_key).send().await.unwrap().status(), 200);
    managed.metadata.as_object_mut().unwrap().remove("client_secret");
    for method in ["none", "client_secret_basic", "client_secret_post"] {
        let weaker = managed.refused(&app, "token_endpoint_auth_method", json!(method)).await;
        assert_eq!(weaker, (400, "invalid_client_metadata".to_owned()), "{method}");
    }
    let shown = app.console(&["client", "show", &id]);
    assert_eq!(
        (&shown["client"]["auth_method"], &shown["client"]["secrets"]),
        (&json!("private_key_jwt"), &json!([]))
    );
    assert!(!app.audit().iter().any(|record| record.to_string().contains(&secret)));
}

/// DCR-10: users consented to a client with its redirect URIs; changing them ends their grants, and consent
/// pages that are open then decide nothing.
#[tokio::test(flavor = "multi_thread")]
async fn another_redirect_uri_ends_what_users_agreed_to() {
    let app = TestApp::start_configured(ON).await;
    let mut ada = app.admin().await;
    let (mut managed, _) = Managed::new(&app, public()).await;
    let tokens = app.tokens(&mut ada, &managed.client()).await;
    managed.put(&app, &[("client_uri", json!("https://a.example/"))]).await;
    assert_eq!(app.call_tool(&tokens.access, "whoami", json!({})).await.status(), 200);
    let waiting = ada.consent_page(&app, &managed.client().authorize_url(&app)).await;
    managed.put(&app, &[("redirect_uris", json!(["http://localhost/elsewhere"]))]).await;
    assert_eq!(app.call_tool(&tokens.access, "whoami", json!({})).await.status(), 401);
    assert_eq!(error_of(app.refresh(&managed.client(), &tokens.refresh).await).await.1, "invalid_grant");
    let decided = ada.decide(&app, &waiting, "approve").await;
    assert_eq!((decided.status(), header(decided.headers(), "location")), (StatusCode::BAD_REQUEST, None));
    let record = app.audit().into_iter().rfind(|record| record["event"] == "client.updated").unwrap();
    assert_eq!(record["detail"]["changed_fields"], json!(["redirect_uris"]));
    assert_eq!(record["detail"]["grants_ended"], 1);
    let page = app.http.get(managed.client().authorize_url(&app)).send().await.unwrap();
    assert_eq!(page.status(), 400);
}

/// DCR-10: a change raises no trust, ends a verification, and enables no disabled client.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_never_raises_trust() {
    let app = TestApp::start_configured(ON).await;
    let mut ada = app.admin().await;
    let trust = |id: &str| app.console(&["client", "show", id])["client"]["trust"].clone();
    let mut metadata = public();
    metadata["redirect_uris"] = json!(["https://app.example/cb"]);
    let (mut remote, _) = Managed::new(&app, metadata).await;
    assert_eq!(trust(&remote.id), "unverified");
    remote.put(&app, &[("redirect_uris", json!(["http://localhost/callback"]))]).await;
    assert_eq!(trust(&remote.id), "unverified");

    let (mut managed, _) = Managed::new(&app, public()).await;
    app.console(&["client", "verify", &managed.id]);
    let tokens = app.tokens(&mut ada, &managed.client()).await;
    managed.put(&app, &[("software_version", json!("3"))]).await;
    assert_eq!(trust(&managed.id), "verified");
    managed.put(&app, &[("client_name", json!("Somebody else"))]).await;
    assert_eq!(trust(&managed.id), "known");
    assert_eq!(app.call_tool(&tokens.access, "whoami", json!({})).await.status(), 401);

    app.console(&["client", "disable", &managed.id]);
    managed.put(&app, &[("software_version", json!("4"))]).await;
    assert_eq!(app.console(&["client", "show", &managed.id])["client"]["disabled"], true);
    assert_eq!(app.http.get(managed.client().authorize_url(&app)).send().await.unwrap().status(), 400);
}

/// DCR-14, HTTP-06: pages of other origins may manage clients too.
#[tokio::test(flavor = "multi_thread")]
async fn management_answers_other_origins() {
    let app = TestApp::start_configured(ON).await;
    let preflight = app.http.request(Method::OPTIONS, app.url("/register/dyn_x")).send().await.unwrap();
    assert_eq!(preflight.status(), 204);
    assert_eq!(header(preflight.headers(), "access-control-allow-methods"), Some("GET, PUT, DELETE"));
    assert_eq!(header(preflight.headers(), "access-control-allow-origin"), Some("*"));
    assert_eq!(header(preflight.headers(), "access-control-allow-credentials"), None);
    let post = app.http.post(app.url("/register/dyn_x")).send().await.unwrap();
    assert_eq!(post.status(), 405);
}

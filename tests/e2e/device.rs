//! The device authorization grant (RFC 8628): a device shows a code; a user types it and decides.

mod page;
mod polling;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::{
    Browser, Client, ConsentPage, TestApp, Tokens, attribute, error_of, header, redirect_parameter,
};
use crate::process::Process;

const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

const RULES: &str = r#"
    device = true
    [groups]
    engineers = ["docs.read", "docs.full", "docs.danger"]
    [scopes."docs.full"]
    title = "Read whole documents"
    [scopes."docs.danger"]
    title = "Change what others rely on"
    risk = "high"
    [tools.docs_read]
    scope = ["docs.full", "docs.danger"]
"#;

/// A server with the grant and its scopes, and a first administrator in a group.
async fn start() -> (TestApp, Browser) {
    let app = TestApp::start_configured(RULES).await;
    let browser = app.admin().await;
    app.console(&["user", "groups", "ada", "--add", "engineers"]);
    (app, browser)
}

/// Inserts a client of any kind into the database.
fn made(app: &TestApp, source: &str, grants: &str, method: &str) -> Client {
    let db = rusqlite::Connection::open(app.data_dir().join("portcullis.db")).unwrap();
    db.busy_timeout(Duration::from_secs(10)).unwrap();
    let id = format!("c_{}", shared::id::random_128());
    db.execute(
        "INSERT INTO client (id, name, source, trust, auth_method, application_type, grant_types, metadata, created_at, last_used_at)
         VALUES (?1, 'Lab console', ?2, 'verified', ?3, 'native', ?4, '{}', 1795435200000, 1795435200000)",
        rusqlite::params![id, source, method, grants],
    )
    .unwrap();
    Client { id, redirect_uri: String::new() }
}

/// Changes one row, which no command could.
fn change(app: &TestApp, sql: &str, id: &str) {
    let db = rusqlite::Connection::open(app.data_dir().join("portcullis.db")).unwrap();
    db.busy_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(db.execute(sql, [id]).unwrap(), 1);
}

fn device_client(app: &TestApp) -> Client {
    let name = format!("Lab console {}", &shared::id::random_128()[..6]);
    let added = app.console(&["client", "add", &name, "--device"]);
    Client { id: added["client"]["id"].as_str().unwrap().to_owned(), redirect_uri: String::new() }
}

/// The response to a device.
#[derive(Clone, Debug)]
pub struct Device {
    code: String,
    pub user_code: String,
    body: Value,
}

impl Device {
    /// The form that polls for its token.
    pub fn poll(&self, client: &Client) -> Vec<(&'static str, String)> {
        vec![
            ("grant_type", GRANT.to_owned()),
            ("device_code", self.code.clone()),
            ("client_id", client.id.clone()),
        ]
    }
}

async fn ask_with(app: &TestApp, form: &[(&str, &str)]) -> Response {
    app.http.post(app.url("/device_authorization")).form(form).send().await.unwrap()
}

async fn ask_for(app: &TestApp, client: &Client, scope: &str) -> Device {
    let response = ask_with(app, &[("client_id", &client.id), ("scope", scope)]).await;
    assert_eq!(response.status(), 200);
    let body: Value = response.json().await.unwrap();
    let text = |name: &str| body[name].as_str().unwrap().to_owned();
    Device { code: text("device_code"), user_code: text("user_code"), body }
}

pub async fn ask(app: &TestApp, client: &Client) -> Device {
    ask_for(app, client, "docs.read").await
}

pub async fn poll(app: &TestApp, client: &Client, device: &Device) -> Response {
    app.token(&[("grant_type", GRANT), ("device_code", &device.code), ("client_id", &client.id)]).await
}

/// The error of a poll.
async fn polled(app: &TestApp, client: &Client, device: &Device) -> String {
    let (status, error) = error_of(poll(app, client, device).await).await;
    assert_eq!(status, 400);
    error
}

async fn type_code(app: &TestApp, browser: &mut Browser, code: &str) -> Response {
    browser.post_form(app, "/device", &[("user_code", code)]).await
}

/// Types a valid code; returns the handle of the pending decision.
async fn entered(app: &TestApp, browser: &mut Browser, device: &Device) -> String {
    let answer = type_code(app, browser, &device.user_code).await;
    assert_eq!(answer.status(), 303);
    let location = header(answer.headers(), "location").unwrap();
    location.strip_prefix("/device?transaction=").unwrap().to_owned()
}

/// Types the code and signs in; returns the page that asks.
pub async fn question(app: &TestApp, browser: &mut Browser, device: &Device) -> ConsentPage {
    let handle = entered(app, browser, device).await;
    let page = browser.get(app, &app.url(&format!("/device?transaction={handle}"))).await;
    assert_eq!(page.status(), 200);
    let html = page.text().await.unwrap();
    assert_eq!(attribute(&html, "data-transaction"), Some(handle.clone()), "it asks to sign in");
    let signed_in = browser.sign_in(app, Some(&handle)).await;
    assert_eq!(signed_in.status(), 200);
    let location: Value = signed_in.json().await.unwrap();
    let url = app.url(location["location"].as_str().unwrap());
    let page = browser.get(app, &url).await;
    assert_eq!(page.status(), 200);
    ConsentPage::of(url, page.text().await.unwrap())
}

async fn decide(app: &TestApp, browser: &mut Browser, page: &ConsentPage, decision: &str) -> Response {
    let mut form =
        vec![("transaction", page.transaction.as_str()), ("csrf", &page.csrf), ("decision", decision)];
    form.extend(page.scopes.iter().map(|scope| ("scope", scope.as_str())));
    browser.post_form(app, "/device/decision", &form).await
}

/// Types the code, signs in and allows.
pub async fn approve(app: &TestApp, browser: &mut Browser, device: &Device) {
    let page = question(app, browser, device).await;
    assert_eq!(decide(app, browser, &page, "approve").await.status(), 200);
}

/// An access token of a new device that its user allowed.
pub async fn access_token(app: &TestApp, browser: &mut Browser) -> String {
    let client = device_client(app);
    let device = ask(app, &client).await;
    approve(app, browser, &device).await;
    Tokens::of(poll(app, &client, &device).await).await.access
}

async fn works(app: &TestApp, access_token: &str) -> bool {
    let answer = app.call_tool(access_token, "docs_search", json!({"query": "falcon"})).await;
    match answer.status().as_u16() {
        200 => true,
        401 => false,
        other => panic!("{other}"),
    }
}

/// DEV-01, REVOKE-04: a device gets what its user allowed, uses, refreshes and revokes it, and loses it with
/// its user.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_gets_what_its_user_allowed() {
    let (app, _) = start().await;
    let mut browser = app.enrol("bob", &["engineers"]).await;
    let client = device_client(&app);
    let device = ask_for(&app, &client, "docs.read docs.full offline_access made.up").await;
    assert!(device.code.starts_with("dc_") && device.code.len() == 3 + 43, "256 bits");
    let shape = |c: char| "BCDFGHJKLMNPQRSTVWXZ".contains(c);
    assert!(device.user_code.len() == 9 && device.user_code.replace('-', "").chars().all(shape));
    assert_eq!(device.body["verification_uri"], app.url("/device"));
    assert_eq!(
        device.body["verification_uri_complete"],
        app.url(&format!("/device?user_code={}", device.user_code))
    );
    assert_eq!((&device.body["expires_in"], &device.body["interval"]), (&json!(600), &json!(5)));

    assert_eq!(polled(&app, &client, &device).await, "authorization_pending");
    let page = question(&app, &mut browser, &device).await;
    assert_eq!(page.scopes, ["docs.full", "docs.read"]);
    for shown in ["Lab console", "127.0.0.1", "Read whole documents", "bob", "15 minutes", "24 hours"] {
        assert!(page.html.contains(shown), "{shown}");
    }
    assert!(
        page.html.contains(&client.id) && page.html.contains("Somebody else may have sent you this code")
    );
    let done = decide(&app, &mut browser, &page, "approve").await;
    assert_eq!(done.status(), 200);
    assert!(done.text().await.unwrap().contains("Go back to your device"));

    app.clock.advance(Duration::from_secs(5));
    let response = poll(&app, &client, &device).await;
    assert_eq!(response.status(), 200);
    assert_eq!(header(response.headers(), "cache-control"), Some("no-store"));
    let tokens = Tokens::of(response).await;
    assert_eq!(tokens.body["scope"], "docs.full docs.read");
    let claims = tokens.claims();
    assert_eq!((&claims["client_id"], &claims["aud"]), (&json!(client.id), &json!(app.mcp_url())));
    assert_eq!(claims["amr"], json!(["hwk", "user"]));
    assert!(works(&app, &tokens.access).await);

    let renewed = Tokens::of(app.refresh(&client, &tokens.refresh).await).await;
    assert!(works(&app, &renewed.access).await);
    let second = ask(&app, &client).await;
    approve(&app, &mut browser, &second).await;
    let given_back = Tokens::of(poll(&app, &client, &second).await).await;
    let form = [("token", given_back.refresh.as_str()), ("client_id", &client.id)];
    assert_eq!(app.http.post(app.url("/revoke")).form(&form).send().await.unwrap().status(), 200);
    assert!(!works(&app, &given_back.access).await && works(&app, &renewed.access).await);
    app.console(&["user", "disable", "bob"]);
    assert!(!works(&app, &renewed.access).await);
    assert_eq!(error_of(app.refresh(&client, &renewed.refresh).await).await.1, "invalid_grant");

    let audit = app.audit();
    let of = |event: &str| {
        audit.iter().find(|r| r["event"] == event && r["client_id"] == json!(client.id)).unwrap()
    };
    assert_eq!(of("authz.request")["detail"]["grant_type"], GRANT);
    let approved = of("authz.approved");
    assert_eq!(approved["detail"]["asked_from"], "127.0.0.1");
    assert_eq!(approved["detail"]["scopes_given"], "docs.full docs.read");
    assert_eq!(of("token.issued")["detail"]["grant_type"], GRANT);
}

/// DEV-01, META-04: unless it is enabled, no endpoint exists and nothing is advertised.
#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_device_flow_has_no_endpoints() {
    let app = TestApp::start().await;
    let client = device_client(&app);
    assert_eq!(ask_with(&app, &[("client_id", &client.id)]).await.status(), 404);
    for path in ["/device", "/device_authorization"] {
        assert_eq!(app.get(path).await.status(), 404, "{path}");
    }
    assert_eq!(app.http.post(app.url("/device/decision")).send().await.unwrap().status(), 404);
    let metadata: Value = app.get("/.well-known/oauth-authorization-server").await.json().await.unwrap();
    assert_eq!(metadata.get("device_authorization_endpoint"), None);
    assert!(!metadata["grant_types_supported"].as_array().unwrap().contains(&json!(GRANT)));
    let form = [("grant_type", GRANT), ("device_code", "dc_x"), ("client_id", client.id.as_str())];
    assert_eq!(error_of(app.token(&form).await).await.1, "unsupported_grant_type");
    let app = TestApp::start_configured("device = true").await;
    let metadata: Value = app.get("/.well-known/oauth-authorization-server").await.json().await.unwrap();
    assert_eq!(metadata["device_authorization_endpoint"], app.url("/device_authorization"));
    assert!(metadata["grant_types_supported"].as_array().unwrap().contains(&json!(GRANT)));
}

/// DEV-01, TOKEN-13: only clients that an administrator added for it may use the grant.
#[tokio::test(flavor = "multi_thread")]
async fn only_clients_that_an_administrator_made_may_ask() {
    let (app, _) = start().await;
    let both = format!("authorization_code {GRANT}");
    let refused = [
        made(&app, "self_registered", &both, "none"),
        made(&app, "catalogue", &both, "none"),
        made(&app, "imported", &both, "none"),
        made(&app, "fetched", &both, "none"),
        made(&app, "unknown_url", &both, "none"),
        made(&app, "administrator", "authorization_code refresh_token", "none"),
        made(&app, "configuration", "authorization_code", "none"),
    ];
    for client in &refused {
        let error = error_of(ask_with(&app, &[("client_id", &client.id)]).await).await;
        assert_eq!((error.0.as_u16(), error.1.as_str()), (400, "unauthorized_client"));
        let form = [("grant_type", GRANT), ("device_code", "dc_x"), ("client_id", client.id.as_str())];
        assert_eq!(error_of(app.token(&form).await).await.1, "unauthorized_client");
    }
    for source in ["administrator", "configuration"] {
        ask(&app, &made(&app, source, GRANT, "none")).await;
    }
    // A client cannot register the grant itself.
    let metadata =
        json!({"redirect_uris": ["http://localhost/cb"], "grant_types": ["authorization_code", GRANT]});
    let registered = app.register(&metadata).await;
    assert_eq!(registered.status(), 201);
    let registered: Value = registered.json().await.unwrap();
    assert_eq!(registered["grant_types"], json!(["authorization_code"]));
    assert!(app.has_event("authz.error", Some("device_grant_not_allowed")));
}

/// DEV-01, TOKEN-01, TOKEN-04, CAUTH-01, CAUTH-03, CAUTH-07, AUTHZ-13, AUTHZ-14: every request that is refused.
#[tokio::test(flavor = "multi_thread")]
async fn requests_of_devices_that_are_refused() {
    let (app, _) = start().await;
    let client = device_client(&app);
    let id = client.id.as_str();
    for (form, status, error) in [
        (vec![], 401, "invalid_client"),
        (vec![("client_id", "c_unknown")], 401, "invalid_client"),
        (vec![("client_id", id), ("client_secret", "cs_guess")], 401, "invalid_client"),
        (vec![("client_id", id), ("resource", "http://localhost:1/mcp")], 400, "invalid_target"),
        (vec![("client_id", id), ("resource", "mcp")], 400, "invalid_target"),
        (vec![("client_id", id), ("scope", "a\"b")], 400, "invalid_scope"),
        (vec![("client_id", id), ("scope", "unknown")], 400, "invalid_scope"),
        (vec![("client_id", id), ("scope", "docs.danger")], 400, "invalid_scope"),
        (vec![("client_id", id), ("client_id", id)], 400, "invalid_request"),
        (vec![("client_id", id), ("scope", "a\u{0}")], 400, "invalid_request"),
    ] {
        let response = ask_with(&app, &form).await;
        assert_eq!(header(response.headers(), "cache-control"), Some("no-store"), "{form:?}");
        let got = error_of(response).await;
        assert_eq!((got.0.as_u16(), got.1.as_str()), (status, error), "{form:?}");
    }
    let url = app.url("/device_authorization");
    let as_json = app.http.post(&url).json(&json!({"client_id": id})).send().await.unwrap();
    assert_eq!(error_of(as_json).await.1, "invalid_request");
    let in_url =
        app.http.post(format!("{url}?client_id={id}")).form(&[("scope", "docs.read")]).send().await.unwrap();
    assert_eq!(error_of(in_url).await.1, "invalid_request");
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let response = app.http.request(method.clone(), &url).send().await.unwrap();
        assert_eq!(response.status(), 405, "{method}");
        assert_eq!(header(response.headers(), "access-control-allow-origin"), None, "{method}");
    }
    // The scope may be omitted, which means the low-risk part of the default, and so may the only resource.
    assert!(ask_with(&app, &[("client_id", id)]).await.status().is_success());
    assert!(app.has_event("client.auth_failed", Some("client_unknown")));
}

/// DEV-01, CAUTH-01, CAUTH-02: a client with a secret needs it for both requests, and a wrong one uses nothing
/// up.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_a_secret_needs_it() {
    let (app, mut browser) = start().await;
    let added =
        app.console(&["client", "add", "Lab server", "--device", "--secret", "--grant", "device_code"]);
    let client =
        Client { id: added["client"]["id"].as_str().unwrap().to_owned(), redirect_uri: String::new() };
    let secret = added["client_secret"].as_str().unwrap();
    assert_eq!(error_of(ask_with(&app, &[("client_id", &client.id)]).await).await.0, 401);
    let asked = |secret: &str| {
        app.http
            .post(app.url("/device_authorization"))
            .basic_auth(&client.id, Some(secret))
            .form(&[("scope", "docs.read")])
            .send()
    };
    let refused = asked("cs_wrong").await.unwrap();
    assert_eq!(refused.status(), 401);
    assert_eq!(
        header(refused.headers(), "www-authenticate"),
        Some("Basic realm=\"token\", charset=\"UTF-8\"")
    );
    let body: Value = asked(secret).await.unwrap().json().await.unwrap();
    let device = Device {
        code: body["device_code"].as_str().unwrap().to_owned(),
        user_code: body["user_code"].as_str().unwrap().to_owned(),
        body,
    };
    approve(&app, &mut browser, &device).await;
    let form = [("grant_type", GRANT), ("device_code", device.code.as_str())];
    let redeem = |secret: Option<&str>| {
        let request = app.http.post(app.url("/token")).form(&form);
        match secret {
            Some(secret) => request.basic_auth(&client.id, Some(secret)).send(),
            None => request.send(),
        }
    };
    assert_eq!(redeem(None).await.unwrap().status(), 401);
    assert_eq!(redeem(Some("cs_wrong")).await.unwrap().status(), 401);
    assert_eq!(poll(&app, &client, &device).await.status(), 401);
    let tokens: Value = redeem(Some(secret)).await.unwrap().json().await.unwrap();
    assert!(works(&app, tokens["access_token"].as_str().unwrap()).await);
    assert_eq!(tokens.get("refresh_token"), None, "it did not register that grant");
}

/// STORE-01, HTTP-12: neither code can be read from the data directory, nor the short one found by search.
#[tokio::test(flavor = "multi_thread")]
async fn the_data_directory_holds_no_code() {
    let (app, mut browser) = start().await;
    let client = device_client(&app);
    let device = ask(&app, &client).await;
    question(&app, &mut browser, &device).await;
    let bare = device.user_code.replace('-', "");
    let digests = [&device.user_code, &bare].map(|code| Sha256::digest(code).to_vec());
    let mut read = 0;
    for file in std::fs::read_dir(app.data_dir()).unwrap() {
        let path = file.unwrap().path();
        if !path.is_file() {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        for secret in
            [device.code.as_bytes(), device.user_code.as_bytes(), bare.as_bytes(), &digests[0], &digests[1]]
        {
            assert!(!holds(secret), "{}", path.display());
        }
        read += usize::from(holds(&Sha256::digest(&device.code)));
    }
    assert!(read > 0, "the digest of the long one is there");
}

/// DEV-01, RATE-03, RATE-06: a flood of requests from one address removes only its own; typing a code often
/// keeps only the latest rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_device_requests_evicts_only_its_own_rows() {
    let (app, mut browser) = start().await;
    let (client, flooding) = (device_client(&app), device_client(&app));
    let quiet = ask(&app, &client).await;
    let db = rusqlite::Connection::open(app.data_dir().join("portcullis.db")).unwrap();
    db.busy_timeout(Duration::from_secs(10)).unwrap();
    db.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
         INSERT INTO device_authorization (device_code, user_code, client_id, scope, resource, created_at, expires_at, interval_ms, holder, network)
         SELECT randomblob(32), randomblob(32), ?1, 'docs.read', ?2, 1795435100000, 1795435800000, 5000, '203.0.113.9', '203.0.113.9' FROM n",
        [&flooding.id, &app.mcp_url()],
    )
    .unwrap();
    let count =
        || db.query_row("SELECT count(*) FROM device_authorization", [], |row| row.get::<_, u32>(0)).unwrap();
    let before = count();
    ask(&app, &flooding).await;
    assert_eq!(count(), before);
    assert_eq!(polled(&app, &client, &quiet).await, "authorization_pending");
    for _ in 0..20 {
        entered(&app, &mut browser, &quiet).await;
    }
    let typed: u32 = db.query_row("SELECT count(*) FROM device_transaction", [], |row| row.get(0)).unwrap();
    assert_eq!(typed, 16);
    approve(&app, &mut browser, &quiet).await;
    assert_eq!(poll(&app, &client, &quiet).await.status(), 200);
}

//! The client credentials grant: which clients may use it, for what, and what their tokens cannot do.

use std::time::Duration;

use data_encoding::{BASE64, BASE64URL_NOPAD};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::harness::{TestApp, error_of};

/// A client with a secret and its own scope.
#[derive(Clone)]
struct Robot {
    id: String,
    secret: String,
}

impl Robot {
    fn add(app: &TestApp, name: &str, scopes: &[&str]) -> Self {
        let mut arguments = vec!["client", "add", name, "--secret", "--client-credentials"];
        for scope in scopes {
            arguments.extend(["--scope", scope]);
        }
        let added = app.console(&arguments);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Self { id: text(&added["client"]["id"]), secret: text(&added["client_secret"]) }
    }

    async fn ask(&self, app: &TestApp, form: &[(&str, &str)]) -> Response {
        let basic = BASE64.encode(format!("{}:{}", self.id, self.secret).as_bytes());
        let form = [&[("grant_type", "client_credentials")], form].concat();
        let request = app.http.post(app.url("/token")).header("authorization", format!("Basic {basic}"));
        request.form(&form).send().await.unwrap()
    }

    async fn token(&self, app: &TestApp) -> String {
        let answer = self.ask(app, &[("resource", &app.mcp_url())]).await;
        assert_eq!(answer.status(), 200);
        let body: Value = answer.json().await.unwrap();
        body["access_token"].as_str().unwrap().to_owned()
    }
}

fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64URL_NOPAD.decode(payload.as_bytes()).unwrap()).unwrap()
}

async fn list(app: &TestApp, token: &str) -> Vec<String> {
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}});
    let request = app.http.post(app.mcp_url()).bearer_auth(token);
    let request = request.header("accept", "application/json");
    let answer: Value = request
        .header("mcp-protocol-version", "2025-11-25")
        .json(&list)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let tools = answer["result"]["tools"].as_array().unwrap().iter();
    tools.map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
}

/// CC-01, REFRESH-01, AT-02, AT-03: a token in the client's own name, for one resource, without a refresh
/// token.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_a_token_of_its_own() {
    let app = TestApp::start().await;
    let robot = Robot::add(&app, "Nightly report", &["docs.read"]);
    let answer =
        robot.ask(&app, &[("resource", &app.mcp_url()), ("scope", "docs.read offline_access")]).await;
    assert_eq!(answer.status(), 200);
    let body: Value = answer.json().await.unwrap();
    assert_eq!((&body["scope"], &body["expires_in"]), (&json!("docs.read"), &json!(900)));
    assert_eq!(body.get("refresh_token"), None);
    let claims = claims(body["access_token"].as_str().unwrap());
    assert_eq!((&claims["sub"], &claims["client_id"]), (&json!(robot.id), &json!(robot.id)));
    assert_eq!(claims["aud"], app.mcp_url());
    for of_users in ["auth_time", "acr", "amr"] {
        assert_eq!(claims.get(of_users), None);
    }
    let record = app.audit().into_iter().find(|r| r["event"] == "token.issued").unwrap();
    assert_eq!(record["actor"], json!({"type": "client", "id": robot.id}));
    assert_eq!(record["detail"]["grant_type"], "client_credentials");
    let token = robot.token(&app).await;
    assert_eq!(self::claims(&token)["grant_id"], claims["grant_id"], "one grant for a client and a resource");
    let answer = app.call_tool(&token, "docs_search", json!({"query": "falcon"})).await;
    assert!(answer.text().await.unwrap().contains("falcon.md"));
    let call = app.audit().into_iter().find(|r| r["event"] == "mcp.call").unwrap();
    assert_eq!(call["actor"], json!({"type": "client", "id": robot.id}));
    let app = app.restart().await;
    assert_eq!(app.call_tool(&token, "docs_search", json!({"query": "falcon"})).await.status(), 200);
}

/// CC-01: the resource must be named and known, and the scope within the registered one.
#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_scope_or_resource_is_refused() {
    let app = TestApp::start().await;
    let robot = Robot::add(&app, "Nightly report", &["docs.read"]);
    let mcp = app.mcp_url();
    for (form, error) in [
        (&[][..], "invalid_target"),
        (&[("resource", "")], "invalid_target"),
        (&[("resource", "https://elsewhere.example/mcp")], "invalid_target"),
        (&[("resource", "/mcp")], "invalid_target"),
        (&[("resource", &mcp), ("scope", "docs.write")], "invalid_scope"),
        (&[("resource", &mcp), ("scope", "docs.read docs.write")], "invalid_scope"),
        (&[("resource", &mcp), ("scope", "offline_access")], "invalid_scope"),
        (&[("resource", &mcp), ("scope", "a\"b")], "invalid_scope"),
    ] {
        assert_eq!(
            error_of(robot.ask(&app, form).await).await,
            (StatusCode::BAD_REQUEST, error.to_owned()),
            "{form:?}"
        );
    }
    let wrong = Robot { secret: format!("{}x", robot.secret), ..robot.clone() };
    assert_eq!(error_of(wrong.ask(&app, &[("resource", &mcp)]).await).await.1, "invalid_client");
    assert!(app.has_event("token.refused", Some("resource_missing")));
    assert!(app.has_event("token.refused", Some("scope_exceeds_registration")));
}

/// CC-01, TOKEN-13, META-04: only clients that an administrator added for it; without one, the grant is not
/// advertised.
#[tokio::test(flavor = "multi_thread")]
async fn only_preregistered_clients_may() {
    let app = TestApp::start().await;
    let grant_types = async || {
        let metadata: Value = app.get("/.well-known/oauth-authorization-server").await.json().await.unwrap();
        metadata["grant_types_supported"].clone()
    };
    let registered = json!({
        "client_name": "Hopeful", "redirect_uris": ["http://localhost/callback"],
        "grant_types": ["authorization_code", "client_credentials"], "scope": "docs.read",
        "token_endpoint_auth_method": "none",
    });
    let registered: Value = app.register(&registered).await.json().await.unwrap();
    assert!(!registered["grant_types"].as_array().unwrap().contains(&json!("client_credentials")));
    let mcp = app.mcp_url();
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", registered["client_id"].as_str().unwrap()),
        ("resource", mcp.as_str()),
    ];
    assert!(!grant_types().await.as_array().unwrap().contains(&json!("client_credentials")));
    assert_eq!(error_of(app.token(&form).await).await.1, "unsupported_grant_type");
    Robot::add(&app, "Nightly report", &["docs.read"]);
    assert!(grant_types().await.as_array().unwrap().contains(&json!("client_credentials")));
    assert_eq!(error_of(app.token(&form).await).await.1, "unauthorized_client");
    let portal =
        app.console(&["client", "add", "Portal", "--secret", "--redirect-uri", "https://portal.example/cb"]);
    let portal = Robot {
        id: portal["client"]["id"].as_str().unwrap().to_owned(),
        secret: portal["client_secret"].as_str().unwrap().to_owned(),
    };
    assert_eq!(error_of(portal.ask(&app, &[("resource", &mcp)]).await).await.1, "unauthorized_client");
}

/// CC-02, MCP-09: tools that need a user do not exist for a client in its own name.
#[tokio::test(flavor = "multi_thread")]
async fn scopes_that_need_a_user_are_refused() {
    let app = TestApp::start().await;
    let robot = Robot::add(&app, "Nightly report", &["docs.read"]);
    let token = robot.token(&app).await;
    assert_eq!(list(&app, &token).await, ["docs_read", "docs_search"]);
    let refused: Value = app.call_tool(&token, "whoami", json!({})).await.json().await.unwrap();
    assert_eq!(refused["error"]["message"], "Unknown tool: whoami");
    assert!(app.has_event("mcp.denied", Some("no_user")));
    let mut browser = app.admin().await;
    let client = app.client().await;
    let tokens = app.tokens(&mut browser, &client).await;
    assert_eq!(list(&app, &tokens.access).await, ["docs_read", "docs_search", "whoami"]);
}

/// CC-01, AUTHZ-17, REVOKE-04, RS-08: its tokens end with the client and with its scope, and can be revoked one
/// by one.
#[tokio::test(flavor = "multi_thread")]
async fn its_tokens_end_like_any_other() {
    let app = TestApp::start().await;
    let (robot, other) = (Robot::add(&app, "One", &["docs.read"]), Robot::add(&app, "Two", &["docs.read"]));
    let works =
        async |token: &str| app.call_tool(token, "docs_search", json!({"query": "x"})).await.status() == 200;
    let (first, second, third) = (robot.token(&app).await, robot.token(&app).await, other.token(&app).await);
    assert!(works(&first).await && works(&second).await && works(&third).await);
    let form = [("token", first.as_str()), ("client_id", &robot.id), ("client_secret", &robot.secret)];
    assert_eq!(app.http.post(app.url("/revoke")).form(&form).send().await.unwrap().status(), 200);
    assert!(!works(&first).await && works(&second).await);
    app.console(&["client", "disable", &robot.id]);
    assert!(!works(&second).await && works(&third).await);
    assert_eq!(error_of(robot.ask(&app, &[("resource", &app.mcp_url())]).await).await.1, "invalid_client");
    app.console(&["client", "enable", &robot.id]);
    assert!(!works(&second).await, "enabling brings nothing back");
    assert!(works(&robot.token(&app).await).await);
    app.console(&["client", "delete", &other.id, "--yes"]);
    assert!(!works(&third).await);
    let last = robot.token(&app).await;
    app.clock.advance(Duration::from_mins(16));
    assert!(!works(&last).await, "nothing renews it");
    assert!(works(&robot.token(&app).await).await);
}

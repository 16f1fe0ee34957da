//! Profiles from the file to the client: each `/mcp/NAME` is its own resource (POL-03).

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Browser, Client, TestApp, Tokens, authorize_url, error_of, redirect_parameter};

const TEAM: &str = r#"
[groups]
everyone = ["docs.read", "docs.full"]

[scopes."docs.full"]
title = "Read whole documents"

[tools.docs_read]
scope = "docs.full"
title = "Read a page"

[profiles.search]
title = "Search alone"
items = ["docs_search"]

[profiles.pages]
items = ["docs_read"]
scope = ["docs.full"]
"#;

/// Tokens for the endpoint at this path, with these scopes.
async fn tokens_at(app: &TestApp, browser: &mut Browser, client: &Client, path: &str, scope: &str) -> Tokens {
    let mut request = client.request(app);
    request.insert("resource", format!("{}{path}", app.origin));
    request.insert("scope", scope.to_owned());
    let page = browser.consent_page(app, &authorize_url(app, &request)).await;
    let code = redirect_parameter(&browser.decide(app, &page, "approve").await, "code").unwrap();
    let response = app.redeem(client, &code).await;
    assert_eq!(response.status(), 200);
    Tokens::of(response).await
}

async fn ask(app: &TestApp, path: &str, token: &str, method: &str, params: &Value) -> (StatusCode, Value) {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let request = app.http.post(app.url(path)).bearer_auth(token).json(&body);
    let response = request.header("mcp-protocol-version", "2025-11-25").send().await.unwrap();
    (response.status(), response.json().await.unwrap_or_default())
}

async fn tools(app: &TestApp, path: &str, token: &str) -> Vec<String> {
    let (_, list) = ask(app, path, token, "tools/list", &json!({})).await;
    let tools = list["result"]["tools"].as_array().unwrap();
    tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
}

/// POL-03, RS-05: registered once, a client gets a separate token for each endpoint, which is valid only there.
#[tokio::test]
async fn a_token_is_for_one_endpoint() {
    let app = TestApp::start_configured(TEAM).await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let endpoints = [
        ("/mcp", vec!["docs_read", "docs_search", "whoami"]),
        ("/mcp/search", vec!["docs_search", "whoami"]),
        ("/mcp/pages", vec!["docs_read", "whoami"]),
    ];
    for (own, expected) in &endpoints {
        let tokens = tokens_at(&app, &mut browser, &client, own, "docs.read docs.full").await;
        assert_eq!(tokens.claims()["aud"], format!("{}{own}", app.origin));
        assert_eq!(tools(&app, own, &tokens.access).await, *expected, "{own}");
        let refreshed = Tokens::of(app.refresh(&client, &tokens.refresh).await).await;
        for (other, _) in &endpoints {
            let status = ask(&app, other, &refreshed.access, "tools/list", &json!({})).await.0;
            assert_eq!(status == StatusCode::OK, own == other, "{own} at {other}: {status}");
        }
    }
}

/// POL-03, AUTHZ-14: the metadata lists several endpoints, and a request must name an existing one.
#[tokio::test]
async fn a_request_names_the_endpoint_that_it_means() {
    let app = TestApp::start_configured(TEAM).await;
    app.admin().await;
    let client = app.client().await;
    let metadata: Value = app.get("/.well-known/oauth-authorization-server").await.json().await.unwrap();
    let all = ["/mcp", "/mcp/pages", "/mcp/search"].map(|path| format!("{}{path}", app.origin));
    assert_eq!(metadata["protected_resources"], json!(all));
    for resource in [None, Some("/mcp/nothing"), Some("/mcp/search/"), Some("/mcp/Search")] {
        let mut request = client.request(&app);
        request.remove("resource");
        if let Some(path) = resource {
            request.insert("resource", format!("{}{path}", app.origin));
        }
        let answer = app.http.get(authorize_url(&app, &request)).send().await.unwrap();
        assert_eq!(redirect_parameter(&answer, "error").as_deref(), Some("invalid_target"), "{resource:?}");
    }
}

/// AUTHZ-14, AUTHZ-19, DEV-01, CC-01: where several endpoints are, a request without `resource` is told their addresses, at
/// every endpoint that takes one; a wrong one is told that it is wrong, and nothing of it is repeated.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_resource_is_answered_with_the_addresses() {
    let app = TestApp::start_configured(&format!("device = true\n{TEAM}")).await;
    app.admin().await;
    let client = app.client().await;
    let all = ["/mcp", "/mcp/pages", "/mcp/search"].map(|path| format!("{}{path}", app.origin)).join(", ");
    let missing = format!("resource is missing; this server has several: {all}");
    let unknown = "the resource is not one this server issues tokens for";
    let device = app.console(&["client", "add", "Console", "--device"]);
    let device = device["client"]["id"].as_str().unwrap();
    let own =
        app.console(&["client", "add", "CI", "--secret", "--client-credentials", "--scope", "docs.read"]);
    let [id, secret] = [&own["client"]["id"], &own["client_secret"]].map(|value| value.as_str().unwrap());
    for (resource, says) in [(None, missing.as_str()), (Some("https://elsewhere.example/mcp"), unknown)] {
        let mut request = client.request(&app);
        request.remove("resource");
        request.extend(resource.map(|resource| ("resource", resource.to_owned())));
        let answer = app.http.get(authorize_url(&app, &request)).send().await.unwrap();
        assert_eq!(redirect_parameter(&answer, "error_description").as_deref(), Some(says));
        let resource = resource.map(|resource| ("resource", resource));
        let form: Vec<_> = [("client_id", device)].into_iter().chain(resource).collect();
        let asked = app.http.post(app.url("/device_authorization")).form(&form).send().await.unwrap();
        let asked: Value = asked.json().await.unwrap();
        assert_eq!((&asked["error"], &asked["error_description"]), (&json!("invalid_target"), &json!(says)));
        let form: Vec<_> = [("grant_type", "client_credentials")].into_iter().chain(resource).collect();
        let asked = app.http.post(app.url("/token")).basic_auth(id, Some(secret)).form(&form);
        let asked: Value = asked.send().await.unwrap().json().await.unwrap();
        assert_eq!((&asked["error"], &asked["error_description"]), (&json!("invalid_target"), &json!(says)));
    }
}

/// POL-03, RS-02: discovery without a token leads to the profile's own documents.
#[tokio::test]
async fn a_client_discovers_the_profile() {
    let app = TestApp::start_configured(TEAM).await;
    let challenge = app.http.post(app.url("/mcp/pages")).send().await.unwrap();
    assert_eq!(challenge.status(), StatusCode::UNAUTHORIZED);
    let document = format!("{}/.well-known/oauth-protected-resource/mcp/pages", app.origin);
    assert_eq!(
        challenge.headers()["www-authenticate"],
        format!("Bearer resource_metadata=\"{document}\", scope=\"docs.full\"")
    );
    let told: Value = app.http.get(app.reach(&document)).send().await.unwrap().json().await.unwrap();
    assert_eq!(told["resource"], format!("{}/mcp/pages", app.origin));
    assert_eq!(
        (&told["resource_name"], &told["scopes_supported"]),
        (&json!("Portcullis: pages"), &json!(["docs.full"]))
    );
    let root = app.get("/.well-known/oauth-protected-resource").await;
    assert_eq!(error_of(root).await, (StatusCode::NOT_FOUND, "not_found".to_owned()));
    for path in ["/mcp/nothing", "/mcp/pages/x"] {
        assert_eq!(app.http.post(app.url(path)).send().await.unwrap().status(), StatusCode::NOT_FOUND);
    }
}

/// POL-03, CONSENT-01: the consent page names the endpoint and the tools that each scope opens there; so do the
/// home page and the account page.
#[tokio::test]
async fn pages_name_the_profile_and_its_tools() {
    let app = TestApp::start_configured(TEAM).await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let mut request = client.request(&app);
    request.insert("resource", format!("{}/mcp/search", app.origin));
    request.insert("scope", "docs.read docs.full".to_owned());
    let (_, response) = browser.after_sign_in(&app, &authorize_url(&app, &request)).await;
    let page = response.text().await.unwrap();
    assert!(page.contains("data-testid=\"resource-name\">Search alone<"), "{page}");
    assert!(page.contains("Opens: Search the documentation."), "{page}");
    assert!(!page.contains("Read a page"), "what the profile does not reach is not opened there: {page}");

    tokens_at(&app, &mut browser, &client, "/mcp/pages", "docs.full").await;
    browser.sign_in(&app, None).await;
    let account = browser.get(&app, &app.url("/account")).await.text().await.unwrap();
    assert!(account.contains("data-testid=\"opens\">Read a page<"), "{account}");
    assert!(account.contains("Portcullis: pages"), "{account}");
    let home = browser.get(&app, &app.url("/")).await.text().await.unwrap();
    assert!(home.contains("data-testid=\"profile\">Search alone<"), "{home}");
    assert!(home.contains(&format!("{}/mcp/search", app.origin)), "{home}");
}

/// RS-02, RS-03, META-07, AUTHZ-13, POL-03: a profile whose tools need only scopes that nobody asks for by themselves says
/// them in its challenge and its metadata, and they are what a request without `scope` means.
#[tokio::test]
async fn a_profile_without_default_scopes_can_be_connected() {
    let app = TestApp::start_configured(&format!("{TEAM}[profiles.full]\nitems = [\"docs_read\"]\n")).await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let challenge = app.http.post(app.url("/mcp/full")).send().await.unwrap();
    let challenge = challenge.headers()["www-authenticate"].to_str().unwrap().to_owned();
    assert!(challenge.contains("scope=\"docs.full\""), "{challenge}");
    let metadata = app.get("/.well-known/oauth-protected-resource/mcp/full").await;
    assert_eq!(metadata.json::<Value>().await.unwrap()["scopes_supported"], json!(["docs.full"]));
    let mut request = client.request(&app);
    request.insert("resource", format!("{}/mcp/full", app.origin));
    request.remove("scope");
    let page = browser.consent_page(&app, &authorize_url(&app, &request)).await;
    let code = redirect_parameter(&browser.decide(&app, &page, "approve").await, "code").unwrap();
    let tokens = Tokens::of(app.redeem(&client, &code).await).await;
    assert_eq!(tokens.claims()["scope"], "docs.full");
    assert_eq!(tools(&app, "/mcp/full", &tokens.access).await, ["docs_read", "whoami"]);
}

/// AUTHZ-13, POL-05: where there is nothing to ask for, `check` says so, and so does the error, which names no scope that
/// nobody requested.
#[tokio::test]
async fn a_profile_that_needs_no_scope_is_warned_about() {
    let toml = format!("{TEAM}[profiles.bare]\nitems = [\"whoami\"]\n");
    let app = TestApp::start_configured(&toml).await;
    app.admin().await;
    let client = app.client().await;
    let mut request = client.request(&app);
    request.insert("resource", format!("{}/mcp/bare", app.origin));
    request.remove("scope");
    let answer = app.http.get(authorize_url(&app, &request)).send().await.unwrap();
    assert_eq!(redirect_parameter(&answer, "error").as_deref(), Some("invalid_scope"));
    let words = redirect_parameter(&answer, "error_description").unwrap();
    assert!(words.starts_with("no scope was requested, and this resource has no default"), "{words}");
    let file = app.data_dir().with_file_name("portcullis.toml");
    let output = crate::process::portcullis(&["check", "--config", file.to_str().unwrap()]);
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(said.contains("the profile `bare`") && said.contains("needs a scope"), "{said}");
}

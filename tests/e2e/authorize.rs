//! The authorization endpoint's decision table, row by row.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use crate::authorize_errors::with as changed;
use crate::error_descriptions::all_of;
use crate::harness::{Client, TestApp, Tokens, authorize_url, challenge, header, redirect_parameter};
use crate::process::{Process, program};
use crate::raw::{Raw, port};

type Parameters = BTreeMap<&'static str, String>;

async fn with(app: &TestApp, client: &Client, change: impl FnOnce(&mut Parameters)) -> reqwest::Response {
    let mut parameters = client.request(app);
    change(&mut parameters);
    app.http.get(authorize_url(app, &parameters)).send().await.unwrap()
}

/// Rows 2 to 4, AUTHZ-02: nothing is redirected before client and redirect URI are valid.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_client_or_redirect_uri_gets_a_page() {
    let app = TestApp::start().await;
    let client = app.client().await;
    for (what, name, value) in [
        ("unknown client", "client_id", Some("dyn_unknown")),
        ("no client", "client_id", None),
        ("url client", "client_id", Some("https://evil.example/client.json?x")),
        ("other path", "redirect_uri", Some("http://localhost:1/evil")),
        ("other literal", "redirect_uri", Some("http://127.0.0.1:1/callback")),
        ("other host", "redirect_uri", Some("http://evil.example/callback")),
        ("user info", "redirect_uri", Some("http://localhost@evil.example/callback")),
        ("no address", "redirect_uri", Some("callback")),
        ("script", "redirect_uri", Some("javascript:alert(1)")),
    ] {
        let response = with(&app, &client, |p| {
            match value {
                Some(value) => p.insert(name, value.to_owned()),
                None => p.remove(name),
            };
        })
        .await;
        assert_eq!(response.status(), 400, "{what}");
        assert!(header(response.headers(), "location").is_none(), "{what}");
        assert_eq!(header(response.headers(), "cache-control"), Some("no-store"), "{what}");
        let html = response.text().await.unwrap();
        assert!(!html.contains("href=\"http://evil") && !html.contains("href=\"javascript"), "{what}");
    }
    assert!(app.has_event("authz.error", Some("client_unknown")));
    assert!(app.has_event("authz.error", Some("redirect_uri_unmatched")));
}

/// AUTHZ-03: a repeated client or redirect URI gets a page; any other repeated parameter, an error for the
/// client.
#[tokio::test(flavor = "multi_thread")]
async fn repeated_parameters_are_errors() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let url = client.authorize_url(&app);
    for name in ["client_id", "redirect_uri"] {
        let twice = format!("{url}&{name}=http%3A%2F%2Flocalhost%2Fcallback");
        assert_eq!(app.http.get(twice).send().await.unwrap().status(), 400, "{name}");
    }
    for (name, error) in [
        ("scope", "invalid_request"),
        ("state", "invalid_request"),
        ("code_challenge", "invalid_request"),
        ("resource", "invalid_target"),
        ("unknown", "invalid_request"),
    ] {
        let twice = format!("{url}&{name}=x&{name}=y");
        let response = app.http.get(twice).send().await.unwrap();
        assert_eq!(redirect_parameter(&response, "error").as_deref(), Some(error), "{name}");
    }
}

/// AUTHZ-03, AUTHZ-14: a resource that is named twice is accepted, and the code is for it.
#[tokio::test(flavor = "multi_thread")]
async fn equal_resources_are_one() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let mcp = app.mcp_url();
    let url = client.authorize_url(&app);
    assert!(url.contains("resource="), "{url}");
    for more in [vec![mcp.clone()], vec![mcp.replace("http://", "HTTP://"), mcp.clone()], vec![String::new()]]
    {
        let more = more.iter().fold(String::new(), |more, resource| more + "&resource=" + resource);
        let page = browser.consent_page(&app, &format!("{url}{more}")).await;
        let answer = browser.decide(&app, &page, "approve").await;
        let code = redirect_parameter(&answer, "code").expect(&more);
        assert_eq!(Tokens::of(app.redeem(&client, &code).await).await.claims()["aud"], mcp);
    }
    for other in [app.url("/"), format!("{mcp}/"), "x".to_owned(), mcp.to_uppercase()] {
        let response = app.http.get(format!("{url}&resource={other}")).send().await.unwrap();
        assert_eq!(redirect_parameter(&response, "error").as_deref(), Some("invalid_target"), "{other}");
    }
}

/// Rows 5 to 10: each error is redirected to the client with `state` and `iss` (AUTHZ-04…08, 13, 14, 16,
/// PKCE-01, 02, 03).
#[tokio::test(flavor = "multi_thread")]
async fn errors_reach_the_client_with_state_and_iss() {
    let app = TestApp::start().await;
    let client = app.client().await;
    for (name, value, error) in [
        ("response_type", None, "invalid_request"),
        ("response_type", Some("token"), "unsupported_response_type"),
        ("response_type", Some("code token"), "unsupported_response_type"),
        ("code_challenge", None, "invalid_request"),
        ("code_challenge", Some("short"), "invalid_request"),
        ("code_challenge_method", None, "invalid_request"),
        ("code_challenge_method", Some("plain"), "invalid_request"),
        ("request", Some("eyJ"), "request_not_supported"),
        ("request_uri", Some("https://evil.example/r"), "request_uri_not_supported"),
        ("response_mode", Some("fragment"), "invalid_request"),
        ("response_mode", Some("form_post"), "invalid_request"),
        ("prompt", Some("none login"), "invalid_request"),
        ("prompt", Some("none"), "login_required"),
        ("max_age", Some("-1"), "invalid_request"),
        ("max_age", Some("soon"), "invalid_request"),
        ("resource", Some("http://evil.example/mcp"), "invalid_target"),
        ("resource", Some("mcp"), "invalid_target"),
        ("scope", Some("a\"b"), "invalid_scope"),
        ("scope", Some("unknown"), "invalid_scope"),
        ("login_hint", Some("a\nb"), "invalid_request"),
    ] {
        let response = with(&app, &client, |p| {
            match value {
                Some(value) => p.insert(name, value.to_owned()),
                None => p.remove(name),
            };
        })
        .await;
        assert_eq!(response.status(), 302, "{name} {value:?}");
        let location = header(response.headers(), "location").unwrap();
        assert!(location.starts_with("http://localhost:5123/callback?"), "{location}");
        assert_eq!(redirect_parameter(&response, "error").as_deref(), Some(error), "{name} {value:?}");
        assert_eq!(redirect_parameter(&response, "state").as_deref(), Some("st ate&1"), "{name}");
        assert_eq!(redirect_parameter(&response, "iss"), Some(app.origin.clone()), "{name}");
        assert_eq!(redirect_parameter(&response, "code"), None, "{name}");
        let description = redirect_parameter(&response, "error_description").unwrap();
        assert!(description.is_ascii() && !description.contains("evil"), "{description}");
    }
}

/// AUTHZ-11: a value that could not be echoed gets a page.
#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_state_gets_a_page() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let response = with(&app, &client, |p| drop(p.insert("state", "x".repeat(4097)))).await;
    assert_eq!(response.status(), 400);
    let fits = with(&app, &client, |p| drop(p.insert("state", "x".repeat(4096)))).await;
    assert_eq!(fits.status(), 200);
}

/// AUTHZ-13, AUTHZ-14: the parameters that a client may omit.
#[tokio::test(flavor = "multi_thread")]
async fn scope_resource_and_state_may_be_absent() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let mut parameters = client.request(&app);
    for name in ["scope", "resource", "state"] {
        parameters.remove(name);
    }
    let page = browser.consent_page(&app, &authorize_url(&app, &parameters)).await;
    assert_eq!(page.scopes, ["docs.read"]);
    let answer = browser.decide(&app, &page, "approve").await;
    assert!(redirect_parameter(&answer, "code").is_some());
    assert_eq!(redirect_parameter(&answer, "state"), None);
}

/// AUTHZ-13: unknown scopes are dropped beside known ones; `offline_access` is not a permission.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_scopes_are_dropped() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let mut parameters = client.request(&app);
    parameters.insert("scope", "docs.read offline_access made.up".to_owned());
    let page = browser.consent_page(&app, &authorize_url(&app, &parameters)).await;
    assert_eq!(page.scopes, ["docs.read"]);
}

/// AUTHZ-01: POST works like GET; HEAD and other methods get 405 and start nothing.
#[tokio::test(flavor = "multi_thread")]
async fn only_get_and_post_authorize() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let url = client.authorize_url(&app);
    let posted = app.http.post(app.url("/authorize")).form(&client.request(&app)).send().await.unwrap();
    assert_eq!(posted.status(), 200);
    let before = app.events().len();
    for method in [Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS, Method::PATCH] {
        let response = app.http.request(method.clone(), &url).send().await.unwrap();
        assert_eq!(response.status(), 405, "{method}");
        assert_eq!(header(response.headers(), "allow"), Some("GET, POST"), "{method}");
        assert!(header(response.headers(), "set-cookie").is_none(), "{method}");
        assert!(header(response.headers(), "access-control-allow-origin").is_none(), "{method}");
    }
    assert_eq!(app.events().len(), before);
}

/// AUTHZ-20: a request without cookies neither uses up nor blocks a later one.
#[tokio::test(flavor = "multi_thread")]
async fn authorize_is_repeatable() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let url = client.authorize_url(&app);
    assert_eq!(app.http.get(&url).send().await.unwrap().status(), 200);
    assert_eq!(browser.get(&app, &url).await.status(), 200);
    let page = browser.consent_page(&app, &url).await;
    assert!(redirect_parameter(&browser.decide(&app, &page, "approve").await, "code").is_some());
}

/// DCR-05: a self-registered client cannot have its answer sent over the network.
#[tokio::test(flavor = "multi_thread")]
async fn a_remote_redirect_needs_an_administrator() {
    let app = TestApp::start().await;
    let registered = app
        .register(&json!({"redirect_uris": ["https://evil.example/cb", "http://localhost/cb"]}))
        .await
        .json::<serde_json::Value>()
        .await
        .unwrap();
    let id = registered["client_id"].as_str().unwrap().to_owned();
    let remote = Client { id: id.clone(), redirect_uri: "https://evil.example/cb".to_owned() };
    let response = app.http.get(remote.authorize_url(&app)).send().await.unwrap();
    assert_eq!(response.status(), 400);
    assert!(header(response.headers(), "location").is_none());
    let local = Client { id, redirect_uri: "http://localhost:9/cb".to_owned() };
    assert_eq!(app.http.get(local.authorize_url(&app)).send().await.unwrap().status(), 200);
    assert!(app.has_event("authz.error", Some("redirect_uri_remote")));
}

/// CONSENT-02: a hostile name is shown as text only.
#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_client_name_is_escaped() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let registered: serde_json::Value = app
        .register(&json!({"client_name": "\"><script>alert(1)</script>", "redirect_uris": ["http://localhost/callback"]}))
        .await
        .json()
        .await
        .unwrap();
    let client = Client {
        id: registered["client_id"].as_str().unwrap().to_owned(),
        redirect_uri: "http://localhost:1/callback".to_owned(),
    };
    let page = browser.consent_page(&app, &client.authorize_url(&app)).await;
    assert!(!page.html.contains("<script>alert"));
    assert!(page.html.contains("&lt;script&gt;"));
}

/// AUTHZ-15: a request expires ten minutes after it began.
#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_request_expires() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let page = browser.consent_page(&app, &client.authorize_url(&app)).await;
    app.clock.advance(std::time::Duration::from_mins(10));
    assert_eq!(browser.decide(&app, &page, "approve").await.status(), 400);
}

/// PKCE-06: the challenge appears in no response and in no record.
#[tokio::test(flavor = "multi_thread")]
async fn the_challenge_is_never_echoed() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let client = app.client().await;
    let mut answers = vec![
        ada.get(&app, &client.authorize_url(&app)).await,
        ada.get(&app, &changed(&app, &client, &[("scope", "made.up")])).await,
        ada.get(&app, &changed(&app, &client, &[("code_challenge_method", "plain")])).await,
        ada.get(&app, &changed(&app, &client, &[("redirect_uri", "http://localhost/other")])).await,
        ada.get(&app, &changed(&app, &client, &[("client_id", "nobody")])).await,
        ada.get(&app, &format!("{}&code_challenge={}", client.authorize_url(&app), challenge())).await,
    ];
    let page = ada.consent_page(&app, &client.authorize_url(&app)).await;
    let mut seen = page.html.clone();
    let answer = ada.decide(&app, &page, "approve").await;
    let code = redirect_parameter(&answer, "code").unwrap();
    let mut wrong = client.redemption(&code);
    wrong.retain(|(name, _)| *name != "code_verifier");
    let guess = challenge();
    wrong.push(("code_verifier", &guess));
    answers.extend([answer, ada.decide(&app, &page, "approve").await]);
    answers.extend([app.token(&wrong).await, app.redeem(&client, &code).await]);
    for answer in answers {
        seen.push_str(&all_of(answer).await.1);
    }
    seen.push_str(&serde_json::to_string(&app.audit()).unwrap());
    assert!(!seen.contains(&challenge()));
}

/// PKCE-06, HTTP-12: the challenge is not logged, at any log level.
#[test]
fn the_challenge_is_never_logged() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = program();
    command.env("PORTCULLIS_LOG", "trace").args(["serve", "--json", "--listen", "localhost:0", "--data-dir"]);
    command.arg(dir.path().join("data"));
    let server = Process::spawn(command);
    let http = reqwest::blocking::Client::builder().no_proxy().build().unwrap();
    let metadata = json!({"redirect_uris": ["http://localhost/callback"]});
    let registered: Value =
        http.post(format!("{}/register", server.origin)).json(&metadata).send().unwrap().json().unwrap();
    let request = |redirect_uri: &str, scope: &str| {
        let id = registered["client_id"].as_str().unwrap();
        let parameters = [
            ("response_type", "code"),
            ("client_id", id),
            ("redirect_uri", redirect_uri),
            ("code_challenge", &challenge()),
            ("code_challenge_method", "S256"),
            ("scope", scope),
        ];
        let url = url::Url::parse_with_params(&format!("{}/authorize", server.origin), parameters);
        http.get(url.unwrap()).send()
    };
    assert_eq!(request("http://localhost/callback", "docs.read").unwrap().status(), 200);
    assert_eq!(request("http://localhost/other", "docs.read").unwrap().status(), 400);
    // Nothing listens at the redirect URI.
    let _ = request("http://localhost:1/callback", "made.up");
    assert_eq!(http.get(format!("{}/healthz", server.origin)).send().unwrap().status(), 200);
    let log = server.log();
    assert!(log.contains("/authorize"), "nothing was logged: {log}");
    assert!(!log.contains(&challenge()), "{log}");
}

/// REDIR-08: a redirect from one of our hosts to another leads only to that host, however the path is written.
#[tokio::test(flavor = "multi_thread")]
async fn redirects_between_our_pages_stay_on_this_server() {
    let app = TestApp::start().await;
    let at = port(&app.origin);
    let mut redirected = 0;
    for path in [
        "/",
        "/setup",
        "/consent?transaction=//evil.example",
        "/authorize?return_to=//evil.example",
        "//evil.example",
        "/\\evil.example",
        "/%09/evil.example",
        "/%5Cevil.example",
        "/%2Fevil.example",
        "/.//evil.example",
        "/@evil.example",
        "/.evil.example",
        "http://evil.example/",
    ] {
        let mut raw = Raw::open(&app.origin).await;
        raw.send(format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{at}\r\nConnection: close\r\n\r\n")).await;
        let answer = raw.answer().await.unwrap();
        if let Some(location) = answer.header("location") {
            assert!(location.starts_with(&format!("{}/", app.origin)), "{path}: {location}");
            let url = url::Url::parse(location).unwrap();
            assert_eq!(url.origin().ascii_serialization(), app.origin, "{path}: {location}");
            redirected += 1;
        }
    }
    assert!(redirected >= 2);
}

//! Clients whose ids are URLs, on a network where the URLs cannot be fetched.

mod administration;
pub mod approvals;
mod fetch;

use std::time::Duration;

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Browser, Client, TestApp, Tokens, authorize_url, error_of, redirect_parameter};

pub const CLAUDE_CODE: &str = "https://claude.ai/oauth/claude-code-client-metadata";
pub const REPORTS: &str = "https://reports.corp.example/oauth/client.json";
pub const STRANGER: &str = "https://tools.example.net/client.json";

pub fn client(id: &str, redirect_uri: &str) -> Client {
    Client { id: id.to_owned(), redirect_uri: redirect_uri.to_owned() }
}

/// Claude Code on a random port.
pub fn claude_code() -> Client {
    client(CLAUDE_CODE, "http://localhost:57470/callback")
}

/// An unknown client on this computer.
pub fn stranger() -> Client {
    client(STRANGER, "http://127.0.0.1:4711/cb")
}

/// The document of a site's own application.
pub fn reports() -> Value {
    json!({
        "client_id": REPORTS,
        "client_name": "Reports",
        "redirect_uris": ["http://localhost/cb", "https://reports.corp.example/cb"],
        "grant_types": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_method": "none",
        "logo_uri": "https://cdn.example/logo.png",
    })
}

/// Writes a file for a command to read.
pub fn file(app: &TestApp, name: &str, content: &Value) -> String {
    let path = app.data_dir().parent().unwrap().join(name);
    std::fs::write(&path, content.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Imports a document.
pub fn import(app: &TestApp, document: &Value) -> Value {
    app.console(&["client", "import-metadata", &file(app, "document.json", document), "--yes"])["change"]
        .take()
}

pub async fn whoami(app: &TestApp, tokens: &Tokens) -> StatusCode {
    app.call_tool(&tokens.access, "whoami", json!({})).await.status()
}

/// A client's entry in the administrator's list; `None` if it is not listed.
pub fn listed(app: &TestApp, id: &str) -> Option<Value> {
    let clients = app.console(&["client", "list"]);
    clients["clients"].as_array().unwrap().iter().find(|client| client["id"] == id).cloned()
}

/// Asserts that a response is the page of decision row 3; returns its text.
pub async fn is_row_3(response: Response, host: &str) -> String {
    assert_eq!(response.status(), 400);
    assert!(response.headers().get("location").is_none());
    let page = response.text().await.unwrap();
    assert!(page.contains("This application is not known on this server"), "{page}");
    assert!(page.contains(host), "{page}");
    page
}

/// Signs in, calls, refreshes, revokes, and is then refused.
async fn lives_and_dies(app: &TestApp, browser: &mut Browser, client: &Client) {
    let first = app.tokens(browser, client).await;
    assert_eq!(first.claims()["client_id"], client.id);
    assert_eq!(whoami(app, &first).await, 200);
    let second = Tokens::of(app.refresh(client, &first.refresh).await).await;
    assert_eq!(whoami(app, &second).await, 200);
    let revoke = app.http.post(app.url("/revoke"));
    let revoked = revoke.form(&[("token", second.refresh.as_str()), ("client_id", &client.id)]).send().await;
    assert_eq!(revoked.unwrap().status(), 200);
    assert_eq!(whoami(app, &first).await, 401);
    assert_eq!(whoami(app, &second).await, 401);
    assert_eq!(error_of(app.refresh(client, &second.refresh).await).await.1, "invalid_grant");
}

/// CIMD-01, CIMD-13: a client of the catalogue signs in on any port, and everything works.
#[tokio::test(flavor = "multi_thread")]
async fn a_catalogue_client_needs_no_setup() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    assert!(listed(&app, CLAUDE_CODE).is_none(), "there is no row before somebody consents");
    for client in [
        claude_code(),
        client("https://github.com/copilot/cli/client-metadata.json", "http://127.0.0.1:60005/"),
        client(
            "https://chatgpt.com/oauth/codex/4-bzS8rt42zJ/client.json",
            "http://127.0.0.1:1/callback/4-bzS8rt42zJ",
        ),
    ] {
        lives_and_dies(&app, &mut ada, &client).await;
        let row = listed(&app, &client.id).unwrap();
        assert_eq!((&row["source"], &row["trust"]), (&json!("catalogue"), &json!("known")));
    }
    assert!(app.has_event("client.registered", None));
    assert!(!app.has_event("cimd.fetched", None));
}

/// CIMD-01, CIMD-05: an imported document makes a client known, on this computer and at its own host.
#[tokio::test(flavor = "multi_thread")]
async fn an_imported_client_signs_in() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let local = client(REPORTS, "http://localhost:9090/cb");
    is_row_3(
        ada.get(&app, &client(REPORTS, "https://reports.corp.example/cb").authorize_url(&app)).await,
        "reports.corp.example",
    )
    .await;
    let change = import(&app, &reports());
    assert_eq!((&change["applied"], &change["before"]), (&json!(true), &Value::Null));
    lives_and_dies(&app, &mut ada, &local).await;
    lives_and_dies(&app, &mut ada, &client(REPORTS, "https://reports.corp.example/cb")).await;
    let app = app.restart().await;
    lives_and_dies(&app, &mut ada, &local).await;
}

/// CIMD-09: an unknown client on this computer is treated like an unverified self-registered one: short grants,
/// a warning each time. Its record is made at the consent, from that request only.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_loopback_client_counts_as_unverified() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let page = ada.consent_page(&app, &stranger().authorize_url(&app)).await;
    for words in [
        "could not be checked on this network",
        "tools.example.net",
        "7 days",
        "Any program on this computer",
    ] {
        assert!(page.html.contains(words), "{words}: {}", page.html);
    }
    assert!(listed(&app, STRANGER).is_none());
    assert_eq!(redirect_parameter(&ada.decide(&app, &page, "deny").await, "error").unwrap(), "access_denied");
    assert!(listed(&app, STRANGER).is_none(), "a refusal leaves nothing behind");

    lives_and_dies(&app, &mut ada, &stranger()).await;
    let row = listed(&app, STRANGER).unwrap();
    assert_eq!(
        (&row["source"], &row["trust"], &row["name"]),
        (&json!("unknown_url"), &json!("unverified"), &json!("tools.example.net"))
    );
    assert!(
        app.console(&["client", "show", STRANGER])["client"]["redirect_uris"][0]["uri"]
            == "http://127.0.0.1:4711/cb"
    );

    // DCR-08: its grant ends after a day without use.
    let tokens = app.tokens(&mut ada, &stranger()).await;
    app.clock.advance(Duration::from_hours(25));
    assert_eq!(error_of(app.refresh(&stranger(), &tokens.refresh).await).await.1, "invalid_grant");
}

/// CIMD-09, DCR-08: an unknown client is offered no high-risk scope and cannot be verified.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_client_is_offered_nothing_dangerous() {
    let app = TestApp::start_configured(
        "[groups]\neveryone = [\"docs.read\", \"ci.run\"]\n[scopes.\"ci.run\"]\ntitle = \"Run things\"\nrisk = \"high\"\n[tools.docs_search]\nscope = \"ci.run\"\n",
    )
    .await;
    let mut ada = app.admin().await;
    let mut request = stranger().request(&app);
    request.insert("scope", "docs.read ci.run".to_owned());
    let page = ada.consent_page(&app, &authorize_url(&app, &request)).await;
    assert_eq!(page.scopes, ["docs.read"]);
    ada.decide(&app, &page, "approve").await;
    let refused = crate::clients::refused(&app, &["client", "verify", STRANGER]);
    assert!(refused.contains("has not read"), "{refused}");
}

/// CIMD-09, decision row 3: an unknown client with a remote redirect URI is refused in any case.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_remote_client_is_refused() {
    let app = TestApp::start().await;
    for redirect_uri in [
        "https://tools.example.net/cb",
        "cursor://anysphere.cursor-mcp/cb",
        "com.example.app:/cb",
        "http://10.0.0.1/cb",
    ] {
        let url = client(STRANGER, redirect_uri).authorize_url(&app);
        is_row_3(app.http.get(url).send().await.unwrap(), "tools.example.net").await;
    }
    let mut without = stranger().request(&app);
    without.remove("redirect_uri");
    is_row_3(app.http.get(authorize_url(&app, &without)).send().await.unwrap(), "tools.example.net").await;
    let twice = format!("{}&redirect_uri=http%3A%2F%2F127.0.0.1%2Fcb", stranger().authorize_url(&app));
    is_row_3(app.http.get(twice).send().await.unwrap(), "tools.example.net").await;
    assert!(app.has_event("authz.error", Some("url_unknown_not_loopback")));
    assert!(!app.has_event("authz.request", None), "no transaction was made");
    assert!(listed(&app, STRANGER).is_none());
}

/// CIMD-03: a URL that is not in its normal form is not a client id, and its redirect URI is not followed.
#[tokio::test(flavor = "multi_thread")]
async fn a_url_must_be_plain() {
    let app = TestApp::start().await;
    for id in [
        "http://tools.example.net/client.json",
        "https://tools.example.net",
        "https://tools.example.net/",
        "https://tools.example.net/x/../client.json",
        "https://tools.example.net/%2e%2e/client.json",
        "https://u:p@tools.example.net/client.json",
        "https://tools.example.net/client.json#x",
        "https://tools.example.net/client.json?x=1",
        "https://TOOLS.example.net/client.json",
        "https://tools.example.net:443/client.json",
        "HTTPS://tools.example.net/client.json",
    ] {
        let url = client(id, "http://localhost:1/cb").authorize_url(&app);
        let page = is_row_3(app.http.get(url).send().await.unwrap(), "example.net").await;
        assert!(page.contains("not in the required form"), "{id}");
        let refresh = app.refresh(&client(id, ""), "rt_x").await;
        assert_eq!(error_of(refresh).await.1, "invalid_client", "{id}");
    }
    // Another spelling of a known id is another id (CIMD-03: byte comparison).
    let other = client("https://claude.ai/oauth/claude-code-client-metadata/", "https://claude.ai/cb");
    is_row_3(app.http.get(other.authorize_url(&app)).send().await.unwrap(), "claude.ai").await;
    assert!(app.has_event("authz.error", Some("url_malformed")));
}

/// CIMD-01, CIMD-09: the site's policy for unknown URLs, and for URLs in general.
#[tokio::test(flavor = "multi_thread")]
async fn the_site_decides_about_unknown_urls() {
    for (unknown, reason) in [("ask", "url_unknown"), ("refuse", "url_unknown")] {
        let app = TestApp::start_configured(&format!("[cimd]\nunknown = \"{unknown}\"\n")).await;
        let page =
            is_row_3(app.http.get(stranger().authorize_url(&app)).send().await.unwrap(), "tools.example.net")
                .await;
        assert_eq!(page.contains("reload this page"), unknown == "ask", "{page}");
        assert!(app.has_event("authz.error", Some(reason)));
        let known = app.http.get(claude_code().authorize_url(&app)).send().await.unwrap();
        assert_eq!(known.status(), 200, "what is known needs no policy");
    }
    let app = TestApp::start_configured("[cimd]\nmode = \"off\"\n").await;
    for client in [stranger(), claude_code()] {
        is_row_3(app.http.get(client.authorize_url(&app)).send().await.unwrap(), "").await;
    }
    assert!(app.has_event("authz.error", Some("documents_off")));
}

/// CIMD-01, CIMD-09, TOKEN-15: a stricter policy ends grants that were given under a less strict one.
#[tokio::test(flavor = "multi_thread")]
async fn a_tightened_policy_counts_for_grants_that_there_are() {
    for toml in ["[cimd]\nunknown = \"ask\"\n", "[cimd]\nmode = \"off\"\n"] {
        let app = TestApp::start().await;
        let mut ada = app.admin().await;
        let tokens = app.tokens(&mut ada, &stranger()).await;
        let app = app.restart_configured(toml).await;
        assert_eq!(whoami(&app, &tokens).await, 401, "{toml}");
        assert_eq!(error_of(app.refresh(&stranger(), &tokens.refresh).await).await.1, "invalid_client");
    }
}

/// CIMD-12: a second device signs in and the first one continues; the same with another redirect URI of an
/// unknown client.
#[tokio::test(flavor = "multi_thread")]
async fn ending_one_device_of_a_shared_client_keeps_the_others() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let mut bob = app.enrol("bob", &[]).await;
    for (one, other) in [
        (claude_code(), client(CLAUDE_CODE, "http://127.0.0.1:9/callback")),
        (stranger(), client(STRANGER, "http://localhost:5/other")),
    ] {
        let laptop = app.tokens(&mut ada, &one).await;
        let desktop = app.tokens(&mut ada, &other).await;
        let bobs = app.tokens(&mut bob, &other).await;
        for tokens in [&laptop, &desktop, &bobs] {
            assert_eq!(whoami(&app, tokens).await, 200);
        }
        assert_eq!(app.refresh(&one, &laptop.refresh).await.status(), 200);
        assert_eq!(app.refresh(&other, &desktop.refresh).await.status(), 200);
        assert_eq!(app.refresh(&one, &bobs.refresh).await.status(), 200);
    }
}

/// CIMD-10, CIMD-11: the page names the host that serves the document and the receiver of the answer, and shows
/// no logo.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_names_the_host_and_fetches_nothing() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    import(&app, &reports());
    for (client, host, redirect) in [
        (claude_code(), "claude.ai", "this computer"),
        (client(REPORTS, "http://localhost:1/cb"), "reports.corp.example", "this computer"),
        (client(REPORTS, "https://reports.corp.example/cb"), "reports.corp.example", "reports.corp.example"),
    ] {
        let page = ada.consent_page(&app, &client.authorize_url(&app)).await;
        let html = &page.html;
        assert!(html.contains(&format!("data-testid=\"client-id-host\">{host}<")), "{html}");
        assert!(html.contains(&format!("data-testid=\"redirect-host\">{redirect}<")), "{html}");
        assert!(html.contains(&client.id));
        assert!(
            !html.contains("cdn.example") && !html.contains("logo_uri") && !html.contains("<img"),
            "{html}"
        );
        let local = redirect == "this computer";
        assert_eq!(html.contains("Any program on this computer can claim this name"), local, "{html}");
    }
    // Even for a verified client.
    app.tokens(&mut ada, &claude_code()).await;
    app.console(&["client", "verify", CLAUDE_CODE]);
    let page = ada.consent_page(&app, &claude_code().authorize_url(&app)).await;
    assert!(page.html.contains("Verified by your administrator"));
    assert!(page.html.contains("Any program on this computer can claim this name"));
    let headers = ada.get(&app, &page.url).await.headers().clone();
    assert!(headers["content-security-policy"].to_str().unwrap().contains("img-src 'self';"));
}

async fn advertised(app: &TestApp) -> Option<bool> {
    let metadata: Value = app.get("/.well-known/oauth-authorization-server").await.json().await.unwrap();
    let member = metadata.get("client_id_metadata_document_supported");
    member.map(|member| member.as_bool().expect("a boolean, or nothing"))
}

/// CIMD-02, META-04: the metadata advertises URL client ids exactly if one can lead to a sign-in.
#[tokio::test(flavor = "multi_thread")]
async fn metadata_follows_what_works() {
    let app = TestApp::start().await;
    assert_eq!(advertised(&app).await, Some(true));
    let entries = app.console(&["client", "catalogue", "list"]);
    for entry in entries["catalogue"].as_array().unwrap() {
        app.console(&["client", "catalogue", "disable", entry["name"].as_str().unwrap()]);
    }
    assert_eq!(advertised(&app).await, None);
    import(&app, &reports());
    assert_eq!(advertised(&app).await, Some(true));
    let app = app.restart().await;
    assert_eq!(advertised(&app).await, Some(true));
    app.console(&["client", "remove-metadata", REPORTS, "--yes"]);
    assert_eq!(advertised(&app).await, None);
    for (toml, says) in [
        ("[cimd]\nmode = \"off\"\n", None),
        ("[cimd]\nadvertise = false\n", None),
        ("[cimd]\nadvertise = true\n", Some(true)),
        ("[cimd]\nmode = \"off\"\nadvertise = true\n", None),
    ] {
        assert_eq!(advertised(&TestApp::start_configured(toml).await).await, says, "{toml}");
    }
}

//! Two halves: an authorization server, and a gateway elsewhere that introspects at it (`serve --only`).

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::gateway::{AUDIENCE, LocalGateway, ORIGIN, write_secret};
use crate::harness::{Browser, Client, TestApp, Tokens, authorize_url, header, redirect_parameter};
use crate::process::{Process, complaint, portcullis};
use crate::split_setup::check;

pub async fn tokens(app: &TestApp, browser: &mut Browser, client: &Client) -> Tokens {
    tokens_for(app, browser, client, AUDIENCE).await
}

async fn tokens_for(app: &TestApp, browser: &mut Browser, client: &Client, resource: &str) -> Tokens {
    let mut request = client.request(app);
    request.insert("resource", resource.to_owned());
    let page = browser.consent_page(app, &authorize_url(app, &request)).await;
    let answer = browser.decide(app, &page, "approve").await;
    let code = redirect_parameter(&answer, "code").unwrap();
    Tokens::of(app.redeem(client, &code).await).await
}

async fn revoke(app: &TestApp, client: &Client, token: &str) {
    let form = [("token", token), ("client_id", &client.id)];
    assert_eq!(app.http.post(app.url("/revoke")).form(&form).send().await.unwrap().status(), 200);
}

/// RS-02, RS-06, RS-16, META-05: a gateway elsewhere sends clients to the authorization server, and accepts
/// only tokens for itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_elsewhere_accepts_tokens_for_itself() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let gateway = LocalGateway::start(&app, "").await;
    let challenge = gateway.request(Method::POST, "/mcp").json(&json!({})).send().await.unwrap();
    assert_eq!(challenge.status(), 401);
    let challenge = header(challenge.headers(), "www-authenticate").unwrap().to_owned();
    assert!(challenge.contains(&format!("{ORIGIN}/.well-known/oauth-protected-resource/mcp")), "{challenge}");
    for path in ["/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-protected-resource"] {
        let metadata: Value = gateway.request(Method::GET, path).send().await.unwrap().json().await.unwrap();
        assert_eq!(
            (&metadata["resource"], &metadata["authorization_servers"]),
            (&json!(AUDIENCE), &json!([app.origin]))
        );
    }
    for path in ["/authorize", "/token", "/jwks.json", "/.well-known/oauth-authorization-server", "/"] {
        assert_eq!(gateway.request(Method::GET, path).send().await.unwrap().status(), 404, "{path}");
    }
    let document = format!("{}/.well-known/oauth-protected-resource", gateway.url);
    let elsewhere = gateway.http.get(document).send().await.unwrap();
    assert_eq!(elsewhere.status(), 421, "it is not known as localhost");

    let client = app.client().await;
    let good = tokens(&app, &mut browser, &client).await;
    let found = gateway.search(&good.access).await;
    assert_eq!(found.status(), 200);
    assert!(found.text().await.unwrap().contains("passkey"));
    let here = app.tokens(&mut browser, &client).await;
    assert_eq!(gateway.whoami(&here.access).await, 401, "it is for the other endpoint");
    assert_eq!(app.call_tool(&good.access, "whoami", json!({})).await.status(), 401);
    let (message, signature) = good.access.rsplit_once('.').unwrap();
    let forged = format!("{message}.{}", signature.chars().rev().collect::<String>());
    for bad in [&forged, "x", "a.b.c", &good.refresh, &good.access[1..]] {
        assert_eq!(gateway.whoami(bad).await, 401, "{bad}");
    }
    app.clock.advance(Duration::from_mins(16));
    let expired = gateway.call(&good.access, "whoami", json!({})).await;
    assert!(header(expired.headers(), "www-authenticate").unwrap().contains("expired"));
    let fresh = Tokens::of(app.refresh(&client, &good.refresh).await).await;
    assert_eq!(gateway.whoami(&fresh.access).await, 200);
    // The gateway records its own events.
    let events = gateway.events();
    assert!(events.iter().any(|e| e["event"] == "mcp.call" && e["detail"]["name"] == "docs_search"));
    assert!(events.iter().any(|e| e["event"] == "rs.denied" && e["reason"] == "audience"));
    gateway.end().await;
}

/// INTRO-02, RS-11, MCP-08: calls depend on the user's current entitlement; a missing scope is distinguished
/// from one that the user cannot have.
#[tokio::test(flavor = "multi_thread")]
async fn entitlement_is_of_this_moment() {
    let rules =
        "[scopes.\"docs.archive\"]\ntitle = \"Archive\"\n[tools.docs_read]\nscope = \"docs.archive\"\n";
    let app = TestApp::start_configured(&format!("[groups]\nkeepers = [\"docs.archive\"]\n{rules}")).await;
    app.admin().await;
    let gateway =
        LocalGateway::start(&app, &format!("[remote.checks]\n\"docs.archive\" = \"always\"\n{rules}")).await;
    let mut grace = app.enrol("grace", &["keepers"]).await;
    let client = app.client().await;
    let live = tokens(&app, &mut grace, &client).await;
    let read = json!({"path": "index.md"});
    let missing = gateway.call(&live.access, "docs_read", read.clone()).await;
    assert_eq!(missing.status(), 403);
    let challenge = header(missing.headers(), "www-authenticate").unwrap().to_owned();
    assert!(
        challenge.contains("insufficient_scope") && challenge.contains("docs.archive docs.read"),
        "{challenge}"
    );
    app.console(&["user", "groups", "grace", "--remove", "keepers"]);
    let gone = gateway.call(&live.access, "docs_read", read).await;
    assert_eq!(gone.status(), 200);
    assert!(gone.text().await.unwrap().contains("Unknown tool"));
    assert_eq!(gateway.search(&live.access).await.status(), 200);
    gateway.end().await;
}

/// RS-09: while the authorization server is down, only recently cached answers are accepted; afterwards no
/// restart is needed.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_authorization_server_nothing_is_accepted() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let gateway = LocalGateway::start(&app, "[remote.checks]\n\"docs.read\" = \"always\"\n").await;
    let client = app.client().await;
    let (live, other) =
        (tokens(&app, &mut browser, &client).await, tokens(&app, &mut browser, &client).await);
    assert_eq!(gateway.whoami(&live.access).await, 200);
    let clock = app.clock.clone();
    let stopped = app.stop().await;
    let refused = gateway.search(&live.access).await;
    assert_eq!(refused.status(), 503);
    assert!(header(refused.headers(), "retry-after").is_some());
    assert!(header(refused.headers(), "www-authenticate").is_none(), "signing in would not help");
    assert_eq!(gateway.whoami(&live.access).await, 200, "answered a moment ago");
    assert_eq!(gateway.whoami(&other.access).await, 503, "never asked about");
    clock.advance(Duration::from_secs(5));
    assert_eq!(gateway.whoami(&live.access).await, 503);
    assert_eq!(gateway.whoami("a.b.c").await, 401, "that is no token, whoever is there");
    let app = stopped.start().await;
    clock.advance(Duration::from_secs(1));
    assert_eq!(gateway.search(&live.access).await.status(), 200);
    assert_eq!(gateway.whoami(&other.access).await, 200);
    drop(app);
    gateway.end().await;
}

/// RS-08, RS-09: with `expiry-only` the gateway does not introspect while the key set may be cached;
/// higher-risk scopes are introspected anyway.
#[tokio::test(flavor = "multi_thread")]
async fn expiry_only_is_a_choice_for_each_scope() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let gateway = LocalGateway::start(&app, "[remote.checks]\n\"docs.read\" = \"expiry-only\"\n").await;
    let client = app.client().await;
    let live = tokens(&app, &mut browser, &client).await;
    assert_eq!(gateway.search(&live.access).await.status(), 200);
    revoke(&app, &client, &live.access).await;
    assert_eq!(gateway.search(&live.access).await.status(), 200, "that is the choice");
    app.clock.advance(Duration::from_secs(5));
    assert_eq!(gateway.whoami(&live.access).await, 401, "that is another one");
    let second = tokens(&app, &mut browser, &client).await;
    let clock = app.clock.clone();
    let stopped = app.stop().await;
    assert_eq!(gateway.search(&second.access).await.status(), 200);
    assert_eq!(gateway.whoami(&second.access).await, 503);
    clock.advance(Duration::from_mins(5));
    assert_eq!(gateway.search(&second.access).await.status(), 503, "the key set has had its lifetime");
    let _app = stopped.start().await;
    clock.advance(Duration::from_secs(1));
    assert_eq!(gateway.search(&second.access).await.status(), 200);
    gateway.end().await;
}

/// KEYS-07, KEYS-03: an unknown key is fetched, at most every thirty seconds.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_is_found_out_about() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let gateway = LocalGateway::start(&app, "").await;
    let client = app.client().await;
    let first = tokens(&app, &mut browser, &client).await;
    assert_eq!(gateway.whoami(&first.access).await, 200);
    app.console(&["key", "rotate", "--now", "--yes"]);
    let second = Tokens::of(app.refresh(&client, &first.refresh).await).await;
    assert_eq!((gateway.whoami(&second.access).await, gateway.whoami(&first.access).await), (200, 200));
    app.console(&["key", "rotate", "--now", "--yes"]);
    let third = Tokens::of(app.refresh(&client, &second.refresh).await).await;
    assert_eq!(gateway.whoami(&third.access).await, 401, "it looked a moment ago");
    app.clock.advance(Duration::from_secs(30));
    assert_eq!(gateway.whoami(&third.access).await, 200);
    // After a scheduled rotation no request waits.
    app.console(&["key", "rotate"]);
    app.clock.advance(Duration::from_mins(10));
    let mut fourth = Tokens::of(app.refresh(&client, &third.refresh).await).await;
    assert_eq!(gateway.whoami(&fourth.access).await, 200);
    for _ in 0..50 {
        fourth = Tokens::of(app.refresh(&client, &fourth.refresh).await).await;
        assert_eq!(gateway.whoami(&fourth.access).await, 200);
    }
    gateway.end().await;
}

/// RS-09: a gateway with wrong credentials accepts nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_with_wrong_credentials_accepts_no_token() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let gateway = LocalGateway::start(&app, "").await;
    let client = app.client().await;
    let live = tokens(&app, &mut browser, &client).await;
    let stranger = LocalGateway::known_as(&app, "c_nobody", "cs_wrong", "").await;
    assert_eq!((gateway.whoami(&live.access).await, stranger.whoami(&live.access).await), (200, 503));
    app.console(&["rs", "delete", "gateway", "--yes"]);
    app.clock.advance(Duration::from_secs(5));
    assert_eq!(gateway.whoami(&live.access).await, 503);
    gateway.end().await;
    stranger.end().await;
}

/// Both halves as programs: `--only authz` has no gateway, `--only resource` has only that.
#[test]
fn the_program_runs_either_half() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let serve = |more: &[&str], data: &str| {
        let mut command = crate::process::program();
        command.args(["serve", "--json", "--listen", "localhost:0", "--data-dir", &path(data)]).args(more);
        command
    };
    let http = reqwest::blocking::Client::builder().no_proxy().build().unwrap();
    let authz = Process::spawn(serve(&["--only", "authz"], "authz"));
    let get = |url: String| http.get(url).send().unwrap();
    assert_eq!(authz.mcp_url, "");
    assert_eq!(http.post(format!("{}/mcp", authz.origin)).send().unwrap().status(), 404);
    assert_eq!(get(format!("{}/.well-known/oauth-protected-resource", authz.origin)).status(), 404);
    let metadata: Value =
        get(format!("{}/.well-known/oauth-authorization-server", authz.origin)).json().unwrap();
    assert_eq!(metadata.get("protected_resources"), None, "there is nothing to ask tokens for yet");

    let added =
        portcullis(&["rs", "add", "gw", "--audience", AUDIENCE, "--json", "--data-dir", &path("authz")]);
    let added: Value = serde_json::from_slice(&added.stdout).unwrap();
    let id = added["resource_server"]["id"].as_str().unwrap();
    let config = path("gw.toml");
    let write = |remote: &str| std::fs::write(&config, format!("[remote]\n{remote}")).unwrap();
    write(&format!("client_id = \"{id}\"\nsecret_file = \"secret\"\n"));
    write_secret(&dir.path().join("secret"), added["client_secret"].as_str().unwrap(), 0o600);
    let only = ["--only", "resource", "--config", &config];
    let gateway = Process::spawn(serve(&[&only[..], &["--issuer", &authz.origin]].concat(), "gw"));
    assert_eq!(gateway.origin, authz.origin);
    assert_ne!(gateway.mcp_url, authz.mcp_url);
    assert_eq!(http.post(&gateway.mcp_url).send().unwrap().status(), 401);
    assert_eq!(get(gateway.mcp_url.replace("/mcp", "/readyz")).status(), 200);

    let authz_origin = authz.origin.clone();
    assert_eq!((gateway.stop(), authz.stop()), (Some(0), Some(0))); // It has no key to seal, and needs none.
    let checked = check(&[&only[..], &["--issuer", &authz_origin, "--data-dir", &path("gw")]].concat());
    assert_eq!(checked["problems"], json!([]));
}

/// META-03: an authorization server without a gateway shows no endpoint of its own; it lists the resources
/// elsewhere, and grants the default scope for them.
#[tokio::test(flavor = "multi_thread")]
async fn an_authorization_server_alone_shows_no_endpoint_of_its_own() {
    let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let mut command = crate::process::program();
    command.args(["serve", "--json", "--listen", "localhost:0", "--only", "authz", "--data-dir"]);
    let process = Process::spawn({
        command.arg(dir.path().join("data"));
        command
    });
    let app = TestApp::beside(&process, dir);
    let mut browser = app.admin().await;
    let own = app.mcp_url();
    let home = app.url("/");
    let signed_out = app.get("/").await.text().await.unwrap();
    let signed_in = browser.get(&app, &home).await.text().await.unwrap();
    for page in [&signed_out, &signed_in] {
        assert!(!page.contains(&own) && !page.contains("mcp-url"), "{page}");
    }
    assert!(signed_in.contains("data-testid=\"elsewhere\"") && !signed_in.contains("What you may use"));

    app.console(&["rs", "add", "gateway", "--audience", AUDIENCE]);
    let signed_out = app.get("/").await.text().await.unwrap();
    let signed_in = browser.get(&app, &home).await.text().await.unwrap();
    for page in [&signed_out, &signed_in] {
        assert!(!page.contains(&own) && page.contains(AUDIENCE), "{page}");
    }
    let metadata: Value = app.get("/.well-known/oauth-authorization-server").await.json().await.unwrap();
    assert_eq!(metadata["protected_resources"], json!([AUDIENCE]));
    let client = app.client().await;
    let mut request = client.request(&app);
    request.insert("resource", AUDIENCE.to_owned());
    request.remove("scope");
    let page = browser.consent_page(&app, &authorize_url(&app, &request)).await;
    let answer = browser.decide(&app, &page, "approve").await;
    let code = redirect_parameter(&answer, "code").unwrap();
    let tokens = Tokens::of(app.redeem(&client, &code).await).await;
    assert_eq!(tokens.claims()["scope"], "docs.read");
    assert_eq!(tokens.claims()["aud"], AUDIENCE);

    // The check decides about a client at the resource elsewhere.
    let check = ["policy", "check", "--user", "ada", "--tool", "docs_search", "--client", &client.id];
    assert_eq!(app.console(&check)["decision"], "allow");
    app.console(&["client", "disable", &client.id]);
    let data = app.data_dir();
    let refused = [&check[..], &["--data-dir", data.to_str().unwrap()]].concat();
    let said = String::from_utf8(portcullis(&refused).stdout).unwrap();
    assert!(said.contains("client_disabled"), "{said}");
    app.console(&["rs", "add", "another", "--audience", "https://another.lab.internal/mcp"]);
    let two = app.get("/").await.text().await.unwrap();
    assert!(!two.contains("mcp-url"), "there is not one address for everybody");
    assert!(complaint(&portcullis(&refused)).contains("leave out --client"));
}

//! Two halves: an authorization server, and a gateway elsewhere that asks it (`serve --only`).

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use portcullis::config::{File, Listen};
use portcullis::gateway::{Gateway, Options};
use portcullis::proxies::Proxies;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use shared::Issuer;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::harness::{Browser, Client, TestApp, Tokens, authorize_url, header, redirect_parameter};
use crate::process::{Process, complaint, portcullis};

const ORIGIN: &str = "https://gateway.lab.internal";
const AUDIENCE: &str = "https://gateway.lab.internal/mcp";

/// A gateway that runs in this process, by the same held clock as the authorization server.
struct Remote {
    http: reqwest::Client,
    url: String,
    stop: CancellationToken,
    task: JoinHandle<()>,
    dir: tempfile::TempDir,
}

impl Remote {
    async fn start(app: &TestApp, more: &str) -> Self {
        let added = app.console(&["rs", "add", "gateway", "--audience", AUDIENCE]);
        let id = added["resource_server"]["id"].as_str().unwrap();
        Self::known_as(app, id, added["client_secret"].as_str().unwrap(), more).await
    }

    async fn known_as(app: &TestApp, id: &str, secret: &str, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("portcullis.toml");
        std::fs::write(&path, format!("[remote]\nclient_id = \"{id}\"\nsecret_file = \"secret\"\n{more}"))
            .unwrap();
        write_secret(&dir.path().join("secret"), secret, 0o600);
        let file = File::load(Some(&path)).unwrap();
        let options = Options {
            listen: Listen::parse("localhost:0").unwrap(),
            origin: Some(ORIGIN.to_owned()),
            tls: None,
            // As if TLS were spoken in front of it.
            proxies: Proxies {
                networks: vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()],
                ..Proxies::default()
            },
            allowed_origins: Vec::new(),
            issuer: Issuer::parse(&app.origin).unwrap(),
            remote: file.remote.clone(),
            docs: None,
            data_dir: dir.path().join("data"),
            rules: file.rules.clone(),
            quota: shared::rate::Limits::off().mcp,
        };
        let gateway = Gateway::start(options, app.clock.clone()).await.unwrap();
        let url = format!("http://localhost:{}", gateway.port().unwrap());
        let stop = CancellationToken::new();
        let task = tokio::spawn(gateway.run(stop.clone()));
        Self { http: app.http.clone(), url, stop, task, dir }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).header("host", "gateway.lab.internal")
    }

    async fn call(&self, token: &str, tool: &str, arguments: Value) -> Response {
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}});
        let request = self.request(Method::POST, "/mcp").bearer_auth(token);
        let request = request.header("accept", "application/json, text/event-stream");
        request.header("mcp-protocol-version", "2025-11-25").json(&call).send().await.unwrap()
    }

    /// The status of a call that only needs a good token.
    async fn whoami(&self, token: &str) -> u16 {
        self.call(token, "whoami", json!({})).await.status().as_u16()
    }

    async fn search(&self, token: &str) -> Response {
        self.call(token, "docs_search", json!({"query": "passkey"})).await
    }

    fn events(&self) -> Vec<Value> {
        let db = self.dir.path().join("data/portcullis.db");
        let db = shared::db::ReadOnly::open(&db, &shared::schema::SCHEMA).unwrap();
        db.read(shared::audit::verify).unwrap().expect("the chain holds");
        db.read(|conn| shared::audit::tail(conn, 100_000, 0)).unwrap()
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

fn write_secret(path: &Path, secret: &str, mode: u32) {
    std::fs::write(path, format!("{secret}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

async fn tokens(app: &TestApp, browser: &mut Browser, client: &Client) -> Tokens {
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

/// RS-02, RS-06, RS-16, META-05: a gateway elsewhere sends clients to the authorization server, accepts tokens for
/// itself, and no others.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_elsewhere_accepts_tokens_for_itself() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let gateway = Remote::start(&app, "").await;
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
    let elsewhere = gateway.http.get(format!("{}/healthz", gateway.url)).send().await.unwrap();
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
    // What happened there is on record there.
    let events = gateway.events();
    assert!(events.iter().any(|e| e["event"] == "mcp.call" && e["detail"]["name"] == "docs_search"));
    assert!(events.iter().any(|e| e["event"] == "rs.denied" && e["reason"] == "audience"));
    gateway.end().await;
}

/// The command that kills a token, or how it is given back.
type Kill = fn(&TestApp, &Client, &Tokens) -> Vec<String>;

/// RS-08: whatever kills a token reaches the gateway at the next request if it asks every time, and within the cache's
/// five seconds if it does not.
#[tokio::test(flavor = "multi_thread")]
async fn every_killer_reaches_the_gateway() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let always = "[remote.checks]\n\"docs.read\" = \"always\"\n";
    let gateway = Remote::start(&app, always).await;
    let kills: [(&str, Kill); 5] = [
        ("the access token is given back", |_, _, tokens| vec!["revoke".to_owned(), tokens.access.clone()]),
        ("the refresh token is given back", |_, _, tokens| vec!["revoke".to_owned(), tokens.refresh.clone()]),
        ("the user is stopped", |_, _, _| ["user", "disable", "grace"].map(str::to_owned).to_vec()),
        ("the client is stopped", |_, client, _| {
            vec!["client".to_owned(), "disable".to_owned(), client.id.clone()]
        }),
        ("the key is removed", |_, _, tokens| {
            let header =
                data_encoding::BASE64URL_NOPAD.decode(tokens.access.split('.').next().unwrap().as_bytes());
            let header: Value = serde_json::from_slice(&header.unwrap()).unwrap();
            let kid = header["kid"].as_str().unwrap();
            ["key", "remove", "--kid", kid, "--reason", "test", "--yes"].map(str::to_owned).to_vec()
        }),
    ];
    let mut grace = app.enrol("grace", &[]).await;
    for (what, kill) in kills {
        let client = app.client().await;
        let live = tokens(&app, &mut grace, &client).await;
        assert_eq!(gateway.search(&live.access).await.status(), 200, "{what}");
        assert_eq!(gateway.whoami(&live.access).await, 200);
        let words = kill(&app, &client, &live);
        if words[0] == "revoke" {
            revoke(&app, &client, &words[1]).await;
        } else {
            app.console(&words.iter().map(String::as_str).collect::<Vec<_>>());
        }
        // Asked for every time: the very next request.
        let refused = gateway.search(&live.access).await;
        assert_eq!(refused.status(), 401, "{what}");
        assert!(header(refused.headers(), "www-authenticate").unwrap().contains("error=\"invalid_token\""));
        // What that question has learned counts for everything else.
        assert_eq!(gateway.whoami(&live.access).await, 401, "{what}");
        app.clock.advance(Duration::from_secs(5));
        assert_eq!(gateway.whoami(&live.access).await, 401, "{what}");
        if what.contains("user") {
            app.console(&["user", "enable", "grace"]);
        }
    }
    // Cached, and nothing asks in between: five seconds, and no more.
    let client = app.client().await;
    let live = tokens(&app, &mut ada, &client).await;
    assert_eq!(gateway.whoami(&live.access).await, 200);
    revoke(&app, &client, &live.access).await;
    app.clock.advance(Duration::from_secs(5));
    assert_eq!(gateway.whoami(&live.access).await, 401);
    gateway.end().await;
}

/// INTRO-02, RS-11, MCP-08: what a user may do is decided by what they are entitled to now; a scope that is missing is
/// told from one that cannot be had.
#[tokio::test(flavor = "multi_thread")]
async fn entitlement_is_of_this_moment() {
    let rules =
        "[scopes.\"docs.archive\"]\ntitle = \"Archive\"\n[tools.docs_read]\nscope = \"docs.archive\"\n";
    let app = TestApp::start_configured(&format!("[groups]\nkeepers = [\"docs.archive\"]\n{rules}")).await;
    app.admin().await;
    let gateway =
        Remote::start(&app, &format!("[remote.checks]\n\"docs.archive\" = \"always\"\n{rules}")).await;
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

/// RS-09: with nobody to ask nothing is accepted, beyond what was answered a moment ago; and no restart is needed
/// when there is somebody again.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_authorization_server_nothing_is_accepted() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let gateway = Remote::start(&app, "[remote.checks]\n\"docs.read\" = \"always\"\n").await;
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

/// RS-08, RS-09: `expiry-only` asks nobody, for as long as the key set may be kept; what is of higher risk is asked
/// about all the same.
#[tokio::test(flavor = "multi_thread")]
async fn expiry_only_is_a_choice_for_each_scope() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let gateway = Remote::start(&app, "[remote.checks]\n\"docs.read\" = \"expiry-only\"\n").await;
    let client = app.client().await;
    let live = tokens(&app, &mut browser, &client).await;
    assert_eq!(gateway.search(&live.access).await.status(), 200);
    revoke(&app, &client, &live.access).await;
    assert_eq!(gateway.search(&live.access).await.status(), 200, "that is the choice");
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

/// KEYS-07, KEYS-03: a key that the gateway has not seen yet is looked for, every thirty seconds at most.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_is_found_out_about() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let gateway = Remote::start(&app, "").await;
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
    // Rotated as it should be, nobody waits for anything.
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

/// RS-09: a gateway that the authorization server does not know accepts nothing.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_accept_nothing() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let gateway = Remote::start(&app, "").await;
    let client = app.client().await;
    let live = tokens(&app, &mut browser, &client).await;
    let stranger = Remote::known_as(&app, "c_nobody", "cs_wrong", "").await;
    assert_eq!((gateway.whoami(&live.access).await, stranger.whoami(&live.access).await), (200, 503));
    app.console(&["rs", "delete", "gateway"]);
    app.clock.advance(Duration::from_secs(5));
    assert_eq!(gateway.whoami(&live.access).await, 503);
    gateway.end().await;
    stranger.end().await;
}

/// RS-10: an open stream of a dead token ends, within the cache's time and two seconds.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_token() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let gateway = Remote::start(&app, "").await;
    let client = app.client().await;
    let live = tokens(&app, &mut browser, &client).await;
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25",
        "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}});
    let begun = gateway.request(Method::POST, "/mcp").bearer_auth(&live.access);
    let begun =
        begun.header("accept", "application/json, text/event-stream").json(&hello).send().await.unwrap();
    let session = header(begun.headers(), "mcp-session-id").unwrap().to_owned();
    let stream =
        gateway.request(Method::GET, "/mcp").bearer_auth(&live.access).header("accept", "text/event-stream");
    let mut stream = stream.header("mcp-session-id", session).send().await.unwrap();
    assert_eq!(stream.status(), 200);
    assert!(stream.chunk().await.unwrap().is_some());
    revoke(&app, &client, &live.access).await;
    app.clock.advance(Duration::from_secs(5));
    let to_its_end = async { while let Ok(Some(_)) = stream.chunk().await {} };
    tokio::time::timeout(Duration::from_secs(4), to_its_end).await.expect("the stream ends");
    gateway.end().await;
}

/// Both halves as programs: `--only authz` has no gateway, `--only resource` nothing else.
#[test]
fn the_program_runs_either_half() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let serve = |more: &[&str], data: &str| {
        let mut command = std::process::Command::new(crate::process::PORTCULLIS);
        command.args(["serve", "--json", "--listen", "localhost:0", "--data-dir", &path(data)]).args(more);
        command
    };
    let http = reqwest::blocking::Client::builder().no_proxy().build().unwrap();
    let authz = Process::spawn(serve(&["--only", "authz"], "authz"));
    let get = |url: String| http.get(url).send().unwrap();
    assert_eq!(http.post(&authz.mcp_url).send().unwrap().status(), 404);
    assert_eq!(get(format!("{}/.well-known/oauth-protected-resource", authz.origin)).status(), 404);
    let metadata: Value =
        get(format!("{}/.well-known/oauth-authorization-server", authz.origin)).json().unwrap();
    assert_eq!(metadata.get("protected_resources"), None);

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

    let refused = |more: &[&str], words: &str| {
        let output = serve(more, "refused").output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{more:?}");
        assert!(complaint(&output).contains(words), "{}", complaint(&output));
    };
    refused(&only, "--issuer");
    refused(&["--only", "resource", "--issuer", &authz.origin], "portcullis rs add");
    let both = [&only[..], &["--issuer", &authz.origin]].concat();
    std::fs::set_permissions(path("secret"), std::fs::Permissions::from_mode(0o644)).unwrap();
    refused(&both, "chmod 600");
    for (line, words) in [
        ("cache = \"61s\"", "60 seconds at most"),
        ("checks = { \"docs.raed\" = \"always\" }", "unknown scope"),
        ("checks = { \"docs.read\" = \"never\" }", "expiry-only"),
        ("secret = \"cs_x\"", "unknown key"),
    ] {
        write(line);
        refused(&both, words);
    }
    assert_eq!((gateway.stop(), authz.stop()), (Some(0), Some(0)));
}

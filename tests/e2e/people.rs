//! Entitlement per user, taking effect at once.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Browser, TestApp, Tokens, authorize_url, error_of, header, redirect_parameter};
use crate::process::{complaint, portcullis};

const TEAM: &str = r#"
[groups]
engineers = ["docs.full"]

[scopes."docs.full"]
title = "Read whole documents"

[tools.docs_read]
scope = "docs.full"
"#;

async fn answer(response: reqwest::Response) -> (StatusCode, Value) {
    (response.status(), response.json().await.unwrap())
}

async fn tools(app: &TestApp, token: &str) -> Vec<String> {
    let list = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/list"});
    let response = app
        .http
        .post(app.mcp_url())
        .bearer_auth(token)
        .header("accept", "application/json")
        .header("mcp-protocol-version", "2025-11-25")
        .json(&list)
        .send()
        .await
        .unwrap();
    let (_, body) = answer(response).await;
    body["result"]["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["name"].as_str().unwrap().to_owned())
        .collect()
}

/// MCP-08, MCP-09, MCP-10, RS-11: the intern does not see the tool and cannot distinguish it from an unknown
/// one; the engineer sees it, is told which scopes to request, steps up, and calls it.
#[tokio::test(flavor = "multi_thread")]
async fn an_intern_and_an_engineer() {
    let app = TestApp::start_configured(TEAM).await;
    app.admin().await;
    let client = app.client().await;
    let mut intern = app.enrol("ines", &[]).await;
    let mut engineer = app.enrol("ernie", &["engineers"]).await;

    let tokens = app.tokens(&mut intern, &client).await;
    assert_eq!(tools(&app, &tokens.access).await, ["docs_search", "whoami"]);
    let read = json!({"path": "falcon.md"});
    let denied = answer(app.call_tool(&tokens.access, "docs_read", read.clone()).await).await;
    let unknown = answer(app.call_tool(&tokens.access, "docs_rexd", read.clone()).await).await;
    let masked =
        |(status, body): &(StatusCode, Value), name: &str| (*status, body.to_string().replace(name, "NAME"));
    assert_eq!(masked(&denied, "docs_read"), masked(&unknown, "docs_rexd"));
    assert_eq!((denied.0.as_u16(), &denied.1["error"]["code"]), (200, &json!(-32602)));
    let decisions: Vec<Value> = app
        .audit()
        .iter()
        .filter(|record| record["event"] == "mcp.denied")
        .map(|record| record["detail"]["decision"].clone())
        .collect();
    assert_eq!(decisions, ["not_entitled", "unknown"]);

    // The intern cannot be granted the scope either, whatever the client requests.
    let mut wide = client.request(&app);
    wide.insert("scope", "docs.read docs.full".to_owned());
    let page = intern.consent_page(&app, &authorize_url(&app, &wide)).await;
    assert_eq!(page.scopes, ["docs.read"]);

    let tokens = app.tokens(&mut engineer, &client).await;
    assert_eq!(tools(&app, &tokens.access).await, ["docs_read", "docs_search", "whoami"]);
    let refused = app.call_tool(&tokens.access, "docs_read", read.clone()).await;
    assert_eq!(refused.status(), 403);
    let challenge = header(refused.headers(), "www-authenticate").unwrap();
    assert!(challenge.contains("error=\"insufficient_scope\""), "{challenge}");
    assert!(challenge.contains("scope=\"docs.full docs.read\""), "{challenge}");

    let page = engineer.consent_page(&app, &authorize_url(&app, &wide)).await;
    let code = redirect_parameter(&engineer.decide(&app, &page, "approve").await, "code").unwrap();
    let stepped_up = Tokens::of(app.redeem(&client, &code).await).await;
    let (status, body) = answer(app.call_tool(&stepped_up.access, "docs_read", read).await).await;
    assert_eq!(status, 200);
    assert!(body.to_string().contains("launches at dawn"), "{body}");
}

/// RS-08, REFRESH-08, SESSION-05: after a user is disabled by a command, the next call of a live token and its
/// refresh fail; enabling restores nothing.
#[tokio::test(flavor = "multi_thread")]
async fn disabling_a_user_refuses_their_next_request() {
    let app = TestApp::start_configured(TEAM).await;
    app.admin().await;
    let client = app.client().await;
    let mut engineer = app.enrol("ernie", &["engineers"]).await;
    let tokens = app.tokens(&mut engineer, &client).await;
    assert_eq!(engineer.sign_in(&app, None).await.status(), 200);
    assert_eq!(app.call_tool(&tokens.access, "whoami", json!({})).await.status(), 200);

    let disabled = app.console(&["user", "disable", "ernie"]);
    assert_eq!(disabled["user"]["disabled"], true);
    assert!(disabled["ended"]["grants"].as_u64().is_some_and(|ended| ended >= 1), "{disabled}");
    let refused = app.call_tool(&tokens.access, "whoami", json!({})).await;
    assert_eq!(refused.status(), 401);
    assert!(header(refused.headers(), "www-authenticate").unwrap().contains("invalid_token"));
    assert_eq!(error_of(app.refresh(&client, &tokens.refresh).await).await.1, "invalid_grant");
    assert!(!engineer.get(&app, &app.url("/")).await.text().await.unwrap().contains("connect-client"));
    assert_eq!(engineer.sign_in(&app, None).await.status(), 400);

    app.console(&["user", "enable", "ernie"]);
    assert_eq!(app.call_tool(&tokens.access, "whoami", json!({})).await.status(), 401);
    assert_eq!(error_of(app.refresh(&client, &tokens.refresh).await).await.1, "invalid_grant");
    let again = app.tokens(&mut engineer, &client).await;
    assert_eq!(app.call_tool(&again.access, "whoami", json!({})).await.status(), 200);

    // Also over a restart.
    app.console(&["user", "disable", "ernie"]);
    let app = app.restart().await;
    assert_eq!(app.call_tool(&again.access, "whoami", json!({})).await.status(), 401);
}

/// RS-08, MCP-09: after leaving a group, a live token loses its tools; after joining, it has them again.
#[tokio::test(flavor = "multi_thread")]
async fn leaving_a_group_takes_effect_at_once() {
    let app = TestApp::start_configured(TEAM).await;
    app.admin().await;
    let client = app.client().await;
    let mut engineer = app.enrol("ernie", &["engineers"]).await;
    let mut wide = client.request(&app);
    wide.insert("scope", "docs.read docs.full".to_owned());
    let page = engineer.consent_page(&app, &authorize_url(&app, &wide)).await;
    let code = redirect_parameter(&engineer.decide(&app, &page, "approve").await, "code").unwrap();
    let tokens = Tokens::of(app.redeem(&client, &code).await).await;
    let read = json!({"path": "falcon.md"});
    let works = |body: &Value| body["result"]["isError"] == false;
    assert!(works(&answer(app.call_tool(&tokens.access, "docs_read", read.clone()).await).await.1));
    app.console(&["user", "groups", "ernie", "--remove", "engineers"]);
    assert_eq!(
        answer(app.call_tool(&tokens.access, "docs_read", read.clone()).await).await.1["error"]["code"],
        -32602
    );
    assert_eq!(tools(&app, &tokens.access).await, ["docs_search", "whoami"]);
    let refreshed = Tokens::of(app.refresh(&client, &tokens.refresh).await).await;
    assert_eq!(refreshed.body["scope"], "docs.read");
    app.console(&["user", "groups", "ernie", "--add", "engineers"]);
    assert!(works(&answer(app.call_tool(&tokens.access, "docs_read", read).await).await.1));
}

/// A deleted user's tokens are dead, and their records stay.
#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_user_removes_their_access() {
    let app = TestApp::start().await;
    app.admin().await;
    let client = app.client().await;
    let mut user = app.enrol("ines", &[]).await;
    let tokens = app.tokens(&mut user, &client).await;
    app.console(&["user", "delete", "ines", "--yes"]);
    assert_eq!(app.call_tool(&tokens.access, "whoami", json!({})).await.status(), 401);
    assert_eq!(error_of(app.refresh(&client, &tokens.refresh).await).await.1, "invalid_grant");
    assert_eq!(user.sign_in(&app, None).await.status(), 400);
    assert!(app.has_event("user.deleted", None) && app.has_event("token.issued", None));
}

/// ENROL-02: an enrolment link works once, for one user, and a newer one voids it.
#[tokio::test(flavor = "multi_thread")]
async fn enrolment_links_work_once() {
    let app = TestApp::start().await;
    app.admin().await;
    let added = app.console(&["user", "add", "ines"]);
    let first = added["link"].as_str().unwrap();
    let newer = app.console(&["user", "link", "ines"]);
    let newer = newer["link"].as_str().unwrap();
    assert_eq!(Browser::new().follow_link(&app, first).await.status(), 400);
    let mut ines = Browser::new();
    assert_eq!(ines.follow_link(&app, newer).await.status(), 200);
    assert_eq!(Browser::new().follow_link(&app, newer).await.status(), 400);
    let late = app.console(&["user", "link", "ines"]);
    app.clock.advance(std::time::Duration::from_hours(24));
    assert_eq!(Browser::new().follow_link(&app, late["link"].as_str().unwrap()).await.status(), 400);
    assert!(app.has_event("webauthn.failed", Some("link_invalid")));
}

/// ENROL-03: a link is refused while another user is signed in; no passkey is added to either.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_never_swaps_people() {
    let app = TestApp::start().await;
    let mut admin = app.admin().await;
    let added = app.console(&["user", "add", "ines"]);
    let refused = admin.follow_link(&app, added["link"].as_str().unwrap()).await;
    assert_eq!(refused.status(), 403);
    assert_eq!(refused.json::<Value>().await.unwrap()["error"], "signed_in_as_another");
    assert_eq!(app.console(&["user", "show", "ines"])["user"]["passkeys"], 0);
    assert_eq!(Browser::new().follow_link(&app, added["link"].as_str().unwrap()).await.status(), 200);
}

/// ENROL-03: also if another user signs in between opening the link and creating the passkey.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_does_not_end_in_another_persons_session() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let added = app.console(&["user", "add", "ines"]);
    let (_, token) = added["link"].as_str().unwrap().split_once('#').unwrap();
    let mut browser = Browser::new();
    browser.get(&app, &app.url("/enrol")).await;
    let started = browser.post_json(&app, "/enrol/start", &json!({"token": token})).await;
    let started: Value = started.json().await.unwrap();
    let created = browser.create(&app, started["options"].clone());
    let session = admin.cookies.iter().find(|(name, _)| name.starts_with("sid_")).unwrap();
    browser.cookies.insert(session.0.clone(), session.1.clone());
    let finish = json!({"ceremony": started["ceremony"], "response": created});
    assert_eq!(browser.post_json(&app, "/enrol/finish", &finish).await.status(), 403);
    assert_eq!(app.console(&["user", "show", "ines"])["user"]["passkeys"], 0);
    assert!(app.has_event("webauthn.failed", Some("signed_in_as_another")));
}

/// ADMIN-03, and every other refusal of a command: one line, and nothing changed.
#[tokio::test(flavor = "multi_thread")]
async fn impossible_commands_are_explained() {
    let app = TestApp::start_configured(TEAM).await;
    app.admin().await;
    app.console(&["user", "add", "ines", "--group", "engineers"]);
    let data = app.data_dir();
    let before = app.events().len();
    for (arguments, says) in [
        (&["user", "show", "nobody"][..], "no user `nobody`"),
        (&["user", "add", "ines"], "called `ines` exists already"),
        (&["user", "add", " "], "is not a valid name"),
        (&["user", "add", "u_x"], "is not a valid name"),
        (&["user", "add", "eve", "--group", "wizards"], "no group `wizards`"),
        (&["user", "groups", "ines", "--add", "everyone"], "everybody is in `everyone` already"),
        (&["user", "groups", "ines", "--remove", "everyone"], "nobody can leave `everyone`"),
        (&["user", "add", "eve", "--group", "everyone"], "everybody is in `everyone` already"),
        (&["user", "disable", "ada"], "last enabled administrator"),
        (&["user", "delete", "ada", "--yes"], "last enabled administrator"),
        (&["setup-link"], "can sign in already"),
    ] {
        let mut all = arguments.to_vec();
        all.extend(["--data-dir", data.to_str().unwrap()]);
        let output = portcullis(&all);
        assert!(
            !output.status.success() && complaint(&output).contains(says),
            "{arguments:?}: {}",
            complaint(&output)
        );
    }
    assert_eq!(app.events().len(), before);
    let groups = app.console(&["group", "list"]);
    assert_eq!(groups["groups"][0], json!({"name": "engineers", "scopes": "docs.full", "members": 1}));
    let in_words =
        String::from_utf8(portcullis(&["group", "list", "--data-dir", data.to_str().unwrap()]).stdout);
    let in_words = in_words.unwrap();
    assert!(
        in_words.lines().any(|line| line.starts_with("everyone") && line.contains(" all ")),
        "{in_words}"
    );
    let users = app.console(&["user", "list"]);
    assert_eq!(users["users"].as_array().unwrap().len(), 2);
}

/// MCP-09: 200 interleaved requests of 20 users on 20 clients: every answer, list, log line and record belongs
/// to its user.
#[tokio::test(flavor = "multi_thread")]
async fn twenty_people_at_once() {
    let log = Log::capture();
    let app = TestApp::start_configured(TEAM).await;
    app.admin().await;
    let mut people = Vec::new();
    for i in 0..20 {
        let groups: &[&str] = if i % 2 == 0 { &["engineers"] } else { &[] };
        let mut browser = app.enrol(&format!("user {i}"), groups).await;
        let client = app.client().await;
        let tokens = app.tokens(&mut browser, &client).await;
        people.push((
            tokens.claims()["sub"].as_str().unwrap().to_owned(),
            client.id.clone(),
            tokens.access,
            i % 2 == 0,
        ));
    }
    let calls = (0..200).map(|i| {
        let (sub, client, access, engineer) = &people[i % 20];
        let app = &app;
        async move {
            if i % 3 == 0 {
                let expected: &[&str] = if *engineer {
                    &["docs_read", "docs_search", "whoami"]
                } else {
                    &["docs_search", "whoami"]
                };
                assert_eq!(tools(app, access).await, expected);
            } else {
                let (_, body) = answer(app.call_tool(access, "whoami", json!({})).await).await;
                let said = &body["result"]["structuredContent"];
                assert_eq!(
                    (said["user"].as_str(), said["client"].as_str()),
                    (Some(sub.as_str()), Some(client.as_str()))
                );
            }
        }
    });
    futures_util::future::join_all(calls).await;
    let calls: Vec<Value> = app.audit().into_iter().filter(|record| record["event"] == "mcp.call").collect();
    assert_eq!(calls.len(), 200 - 200_usize.div_ceil(3));
    let mut lines: Vec<Value> = log.lines();
    lines.retain(|line| line["message"] == "answered" && line["span"]["user.id"].is_string());
    assert_eq!(lines.len(), 200);
    for line in &lines {
        let owner =
            people.iter().find(|(sub, ..)| line["span"]["user.id"] == *sub).expect("one of the twenty");
        assert_eq!(line["span"]["client.id"], owner.1);
    }
    for record in calls {
        let owner = people.iter().find(|(sub, ..)| record["actor"]["id"] == *sub).expect("one of the twenty");
        assert_eq!(record["client_id"], owner.1);
        let mut of_it = lines.iter().filter(|line| line["span"]["request.id"] == record["request_id"]);
        let line = of_it.next().expect("each call has its line");
        assert_eq!((line["span"]["user.id"].as_str(), of_it.count()), (Some(owner.0.as_str()), 0));
    }
}

/// The log of this process from now on.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn capture() -> Self {
        let log = Self::default();
        let writer = log.clone();
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_writer(move || writer.clone())
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .init();
        log
    }

    fn lines(&self) -> Vec<Value> {
        let text = self.0.lock().unwrap();
        text.split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// MCP-12: a session belongs to its principal, survives a restart, and ends after 30 idle minutes.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_its_principals_alone() {
    let app = TestApp::start().await;
    app.admin().await;
    let (client, other_client) = (app.client().await, app.client().await);
    let (mut ines, mut omar) = (app.enrol("ines", &[]).await, app.enrol("omar", &[]).await);
    let tokens = app.tokens(&mut ines, &client).await;
    let foreign = [app.tokens(&mut omar, &client).await, app.tokens(&mut ines, &other_client).await];
    let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}});
    let begun = post(&app, &tokens.access, None, &initialize).await;
    assert_eq!(begun.status(), 200);
    let session = header(begun.headers(), "mcp-session-id").unwrap().to_owned();
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    let status =
        async |app: &TestApp, token: &str| post(app, token, Some(&session), &ping).await.status().as_u16();
    assert_eq!(status(&app, &tokens.access).await, 200);
    for foreign in &foreign {
        assert_eq!(status(&app, &foreign.access).await, 404);
    }
    let app = app.restart().await;
    assert_eq!(status(&app, &tokens.access).await, 200);
    app.clock.advance(std::time::Duration::from_mins(31));
    let tokens = Tokens::of(app.refresh(&client, &tokens.refresh).await).await;
    assert_eq!(status(&app, &tokens.access).await, 404);
}

async fn post(app: &TestApp, token: &str, session: Option<&str>, body: &Value) -> reqwest::Response {
    let mut request = app
        .http
        .post(app.mcp_url())
        .bearer_auth(token)
        .header("accept", "application/json")
        .header("mcp-protocol-version", "2025-11-25")
        .json(body);
    if let Some(session) = session {
        request = request.header("mcp-session-id", session);
    }
    request.send().await.unwrap()
}

/// ENROL-01, ENROL-02: a user who was enrolled before the first administrator can sign in, and the page says
/// what is missing.
#[tokio::test(flavor = "multi_thread")]
async fn users_can_sign_in_before_the_first_administrator() {
    let app = TestApp::start().await;
    let home = async || app.http.get(app.url("/")).send().await.unwrap().text().await.unwrap();
    let page = home().await;
    assert!(page.contains("setup-pending") && !page.contains("passkey-login"), "{page}");
    let mut ines = app.enrol("ines", &[]).await;
    let page = home().await;
    assert!(page.contains("setup-pending") && page.contains("passkey-login"), "{page}");
    assert_eq!(ines.sign_in(&app, None).await.status(), 200);
    app.admin().await;
    let page = home().await;
    assert!(!page.contains("setup-pending") && page.contains("passkey-login"), "{page}");
}

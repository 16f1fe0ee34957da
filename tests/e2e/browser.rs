//! Complete stories with real programs: Chromium, a passkey, the MCP TypeScript SDK.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::process::{Driver, Process, portcullis, program};

pub struct Story {
    pub dir: tempfile::TempDir,
    pub server: Process,
    pub browser: Driver,
}

impl Story {
    pub fn begin() -> Self {
        Self::begin_configured("")
    }

    /// Starts one with a `portcullis.toml`.
    pub fn begin_configured(toml: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let docs = dir.path().join("docs");
        fs::create_dir(&docs).unwrap();
        fs::write(
            docs.join("falcon.md"),
            "# Falcon\n\n## Launch\n\nThe falcon launches at dawn from pad seven.\n",
        )
        .unwrap();
        fs::write(dir.path().join("portcullis.toml"), toml).unwrap();
        let server = Self::serve(dir.path(), "localhost:0");
        let mut browser = Driver::browser(dir.path());
        browser.ok(&json!({"op": "setup", "url": server.setup_link, "name": "ada"}));
        Self { dir, server, browser }
    }

    pub fn client(&self, protocol: &str) -> Driver {
        Driver::typescript(&self.server.mcp_url, protocol, self.dir.path())
    }

    pub fn restart(&mut self) {
        let listen = self.server.listen();
        self.server.kill();
        self.server = Self::serve(self.dir.path(), &listen);
    }

    fn serve(dir: &Path, listen: &str) -> Process {
        let mut command = program();
        command.args(["serve", "--json", "--listen", listen, "--config"]).arg(dir.join("portcullis.toml"));
        command.arg("--data-dir").arg(dir.join("data")).arg("--docs").arg(dir.join("docs"));
        Process::spawn(command)
    }
}

pub fn search(client: &mut Driver, query: &str) -> Value {
    client.ok(&json!({"op": "call", "name": "docs_search", "arguments": {"query": query}}))
}

pub fn first_path(found: &Value) -> Option<&str> {
    found["result"]["structuredContent"]["hits"][0]["path"].as_str()
}

/// A first user's story, in both eras of the protocol: 401, discovery, registration, passkey, consent, token,
/// list, search, refresh; then the server is killed, and the same client continues without registering again
/// (ENROL-01, RS-02, META-05, DCR-02, REFRESH-02, OPS-07, SESSION-01).
fn a_client_signs_in_and_survives_a_crash(protocol: &str, negotiated: &str) {
    let mut story = Story::begin();
    let mut client = story.client(protocol);
    let connected = client.connect(&mut story.browser, "approve");
    assert_eq!(connected["ok"], true, "{connected}");
    assert_eq!((&connected["registered"], &connected["authorized"]), (&json!(true), &json!(true)));
    assert_eq!(connected["protocol_version"], negotiated);

    let exchanges = client.ok(&json!({"op": "http"}));
    let first = &exchanges["exchanges"][0];
    assert_eq!(first["status"], 401);
    let challenge = first["www_authenticate"].as_str().unwrap();
    assert!(
        challenge.contains("resource_metadata=\"") && challenge.contains("scope=\"docs.read\""),
        "{challenge}"
    );

    let callback = client.ok(&json!({"op": "callback"}));
    let cookies = callback["callback"]["headers"]["cookie"].as_str().expect("it saw the other cookies");
    assert!(!cookies.contains("sid_"), "the client's callback saw a session cookie: {cookies}");

    assert_eq!(client.ok(&json!({"op": "list"}))["names"], json!(["docs_read", "docs_search", "whoami"]));
    assert_eq!(first_path(&search(&mut client, "falcon dawn")), Some("falcon.md"));
    let refreshed = client.ok(&json!({"op": "refresh"}));
    assert_eq!(
        (&refreshed["access_token_changed"], &refreshed["refresh_token_changed"]),
        (&json!(true), &json!(true))
    );
    // An invalid access token: the SDK refreshes by itself.
    client.ok(&json!({"op": "forget_access"}));
    assert_eq!(first_path(&search(&mut client, "pad seven")), Some("falcon.md"));
    client.close();

    story.restart();
    let mut client = story.client(protocol);
    let connected = client.connect(&mut story.browser, "approve");
    assert_eq!(
        (&connected["registered"], &connected["authorized"]),
        (&json!(false), &json!(false)),
        "{connected}"
    );
    client.ok(&json!({"op": "refresh"}));
    assert_eq!(first_path(&search(&mut client, "launches")), Some("falcon.md"));
    client.close();

    let data = story.dir.path().join("data");
    story.browser.close();
    assert_eq!(story.server.stop(), Some(0));
    let verified = portcullis(&["audit", "verify", "--data-dir", data.to_str().unwrap()]);
    assert!(verified.status.success(), "{verified:?}");
}

#[test]
fn a_client_of_2025_signs_in_and_survives_a_crash() {
    a_client_signs_in_and_survives_a_crash("legacy", "2025-11-25");
}

#[test]
fn a_client_of_2026_signs_in_and_survives_a_crash() {
    a_client_signs_in_and_survives_a_crash("modern", "2026-07-28");
}

/// CONSENT-06: a refusal in the browser reaches the client as `access_denied`.
#[test]
fn refusing_in_the_browser_tells_the_client() {
    let mut story = Story::begin();
    let mut client = story.client("legacy");
    let refused = client.connect(&mut story.browser, "deny");
    assert_eq!((&refused["ok"], &refused["code"]), (&json!(false), &json!("access_denied")), "{refused}");
}

/// REVOKE-07, RS-08, SESSION-01: after a user disconnects a client on the account page with a passkey
/// assertion, its next call is refused, and it must send the user to the browser again.
#[test]
fn a_client_is_disconnected_on_the_account_page() {
    let mut story = Story::begin();
    let mut client = story.client("legacy");
    assert_eq!(client.connect(&mut story.browser, "approve")["ok"], true);
    assert_eq!(first_path(&search(&mut client, "falcon")), Some("falcon.md"));
    let browser = &mut story.browser;
    browser.ok(&json!({"op": "open", "url": story.server.origin}));
    browser.ok(&json!({"op": "click", "testid": "passkey-login"}));
    browser.ok(&json!({"op": "text", "selector": "[data-testid=connect-client]"}));
    browser.ok(&json!({"op": "click", "testid": "account"}));
    let shown = browser.ok(&json!({"op": "text", "selector": "[data-testid=client]"}));
    let shown = shown["text"].as_str().unwrap();
    for words in ["Not verified (self-registered)", "Search and read the documentation", " from "] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    let found = browser.ok(&json!({"op": "inspect"}));
    assert_eq!(found["problems"], json!([]));
    browser.ok(&json!({"op": "keyboard", "testid": "disconnect", "key": "Enter"}));
    let done = browser.ok(&json!({"op": "text", "selector": "[data-testid=done]"}));
    assert!(done["text"].as_str().unwrap().starts_with("Application disconnected."), "{done}");
    browser.ok(&json!({"op": "text", "selector": "[data-testid=no-clients]"}));
    client.send(&json!({"op": "call", "name": "docs_search", "arguments": {"query": "falcon"}}));
    assert_eq!(client.receive()["event"], "authorize");

    browser.ok(&json!({"op": "click", "testid": "end-session"}));
    browser.ok(&json!({"op": "text", "selector": "[data-testid=passkey-login]"}));
}

/// WEBAUTHN-12, SESSION-02: a second passkey on another authenticator can sign in alone. The page continues
/// with the session's new id: its sign-out button works.
#[test]
fn a_second_passkey_signs_in_alone() {
    let mut story = Story::begin();
    story.browser.ok(&json!({"op": "add_passkey"}));
    story.browser.ok(&json!({"op": "click", "testid": "sign-out"}));
    story.browser.ok(&json!({"op": "text", "selector": "[data-testid=passkey-login]"}));
    let mut client = story.client("legacy");
    let connected = client.connect(&mut story.browser, "approve");
    assert_eq!(connected["ok"], true, "{connected}");
    let held = story.browser.ok(&json!({"op": "credentials"}));
    let used: Vec<bool> =
        held["credentials"].as_array().unwrap().iter().map(|c| c["signCount"].as_u64() > Some(1)).collect();
    assert_eq!(used.len(), 2, "{held}");
}

/// WEBAUTHN-12, SESSION-05: a lost passkey is removed on the account page with the other one, and can no longer
/// sign in.
#[test]
fn a_lost_passkey_is_removed_on_the_account_page() {
    let mut story = Story::begin();
    let browser = &mut story.browser;
    browser.ok(&json!({"op": "add_passkey"}));
    browser.ok(&json!({"op": "click", "testid": "account"}));
    // The first passkey is the lost one.
    browser.ok(&json!({"op": "click", "testid": "passkey-remove-open"}));
    browser.ok(&json!({"op": "text", "selector": "[data-testid=passkey-remove]"}));
    let found = browser.ok(&json!({"op": "inspect"}));
    assert_eq!(found["problems"], json!([]));
    browser.ok(&json!({"op": "click", "testid": "passkey-remove"}));
    let told = browser.ok(&json!({"op": "text", "selector": "[data-testid=error]:visible"}));
    assert!(told["text"].as_str().unwrap().contains("device or security key you enrolled"), "{told}");
    browser.ok(&json!({"op": "use_authenticator", "authenticator": 1}));
    browser.ok(&json!({"op": "click", "testid": "passkey-remove"}));
    let done = browser.ok(&json!({"op": "text", "selector": "[data-testid=done]"}));
    assert!(done["text"].as_str().unwrap().starts_with("The passkey is removed"), "{done}");

    browser.ok(&json!({"op": "click", "testid": "sign-out"}));
    browser.ok(&json!({"op": "use_authenticator", "authenticator": 0}));
    browser.ok(&json!({"op": "click", "testid": "passkey-login"}));
    let told = browser.ok(&json!({"op": "text", "selector": "[data-testid=error]:visible"}));
    assert!(told["text"].as_str().unwrap().contains("could not be checked"), "{told}");
}

/// HTTP-05: every page works under its own content security policy; nothing is blocked and nothing is loaded
/// from elsewhere.
#[test]
fn pages_obey_their_own_policy() {
    let mut story = Story::begin();
    for path in ["/", "/setup", "/nowhere", "/authorize?client_id=nobody"] {
        let opened =
            story.browser.ok(&json!({"op": "open", "url": format!("{}{path}", story.server.origin)}));
        assert!(
            opened["title"].as_str().is_some_and(|title| title.contains("Portcullis")),
            "{path}: {opened}"
        );
    }
}

/// MCP-12: a session of the older revision continues after `kill -9`: the same client calls again without a new
/// session.
#[test]
fn a_legacy_session_survives_a_crash() {
    let mut story = Story::begin();
    let mut client = story.client("legacy");
    assert_eq!(client.connect(&mut story.browser, "approve")["ok"], true);
    assert_eq!(first_path(&search(&mut client, "falcon")), Some("falcon.md"));
    client.ok(&json!({"op": "http"}));
    story.restart();
    assert_eq!(first_path(&search(&mut client, "dawn")), Some("falcon.md"));
    let exchanges = client.ok(&json!({"op": "http"}));
    let exchanges = exchanges["exchanges"].as_array().unwrap();
    let calls: Vec<&Value> = exchanges.iter().filter(|e| e["method"] == "POST").collect();
    assert!(
        calls.iter().all(|e| e["headers"]["mcp-session-id"].as_str().is_some_and(|id| id.starts_with("ms_")))
    );
    assert!(
        !calls.iter().any(|e| e["body"].as_str().is_some_and(|b| b.contains("\"initialize\""))),
        "{exchanges:?}"
    );
}

/// MCP-09, MCP-10, RS-11: two users with their own clients. The intern's client is told that the tool does not
/// exist. The engineer's is refused with the scopes to request, requests them in the browser, and calls the
/// tool; after the engineer is disabled, the same client's next call is refused.
#[test]
fn an_intern_is_refused_and_an_engineer_steps_up() {
    let dir = tempfile::tempdir().unwrap();
    let (data, docs, config) =
        (dir.path().join("data"), dir.path().join("docs"), dir.path().join("portcullis.toml"));
    fs::create_dir(&docs).unwrap();
    fs::write(docs.join("falcon.md"), "# Falcon\n\nThe falcon launches at dawn.\n").unwrap();
    fs::write(
        &config,
        "docs = \"docs\"\n[groups]\nengineers = [\"docs.full\"]\n[scopes.\"docs.full\"]\ntitle = \"Read whole documents\"\n\
         [tools.docs_read]\nscope = \"docs.full\"\n",
    )
    .unwrap();
    let mut command = program();
    command
        .args(["serve", "--json", "--listen", "localhost:0", "--config"])
        .arg(&config)
        .arg("--data-dir")
        .arg(&data);
    let server = Process::spawn(command);
    let console = |arguments: &[&str]| -> Value {
        let output = portcullis(&[arguments, &["--json", "--data-dir", data.to_str().unwrap()]].concat());
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    // The intern's own client does not list the tool, and gets the same answer as for an unknown one.
    let intern_dir = tempfile::tempdir().unwrap();
    let added = console(&["user", "add", "ines"]);
    let mut intern_browser = Driver::browser(intern_dir.path());
    intern_browser.ok(&json!({"op": "setup", "url": added["link"], "name": "ines"}));
    let mut intern = Driver::typescript(&server.mcp_url, "legacy", intern_dir.path());
    assert_eq!(intern.connect(&mut intern_browser, "approve")["ok"], true);
    assert_eq!(intern.ok(&json!({"op": "list"}))["names"], json!(["docs_search", "whoami"]));
    let call = |name: &str| json!({"op": "call", "name": name, "arguments": {"path": "falcon.md"}});
    let [denied, unknown] =
        ["docs_read", "docs_rexd"].map(|name| intern.attempt(&call(name)).to_string().replace(name, "NAME"));
    assert!(denied.contains("-32602") && denied == unknown, "{denied} {unknown}");
    intern.close();
    intern_browser.close();
    assert!(recorded_decisions(&data).contains(&"not_entitled".to_owned()));

    let added = console(&["user", "add", "ernie", "--group", "engineers"]);
    let mut browser = Driver::browser(dir.path());
    browser.ok(&json!({"op": "setup", "url": added["link"], "name": "ernie"}));
    let mut client = Driver::typescript(&server.mcp_url, "legacy", dir.path());
    assert_eq!(client.connect(&mut browser, "approve")["ok"], true);
    assert_eq!(client.ok(&json!({"op": "list"}))["names"], json!(["docs_read", "docs_search", "whoami"]));

    let read = json!({"op": "call", "name": "docs_read", "arguments": {"path": "falcon.md"}});
    client.send(&read);
    let asked = client.receive();
    assert_eq!(asked["event"], "authorize", "{asked}");
    let url = asked["url"].as_str().unwrap();
    assert!(url.contains("docs.full") && url.contains("docs.read"), "{url}");
    browser.ok(&json!({"op": "authorize", "url": url, "decision": "approve"}));
    let answer = client.receive();
    assert_eq!(answer["ok"], true, "{answer}");
    assert!(answer["result"]["structuredContent"]["text"].as_str().unwrap().contains("dawn"), "{answer}");
    let refused = client.ok(&json!({"op": "http"}))["exchanges"].as_array().unwrap().iter().any(|exchange| {
        exchange["status"] == 403
            && exchange["www_authenticate"]
                .as_str()
                .is_some_and(|c| c.contains("scope=\"docs.full docs.read\""))
    });
    assert!(refused);

    console(&["user", "disable", "ernie"]);
    client.send(&read);
    // The SDK tries its refresh token, which is refused, and must send its user to the browser again.
    assert_eq!(client.receive()["event"], "authorize");
    let events = recorded_events(&data);
    assert!(events.iter().any(|event| event == "user.disabled"), "{events:?}");
    browser.close();
}

fn records(data: &std::path::Path) -> Vec<Value> {
    let tail = portcullis(&["audit", "tail", "-n", "10000", "--json", "--data-dir", data.to_str().unwrap()]);
    let lines = String::from_utf8(tail.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The events in the audit log.
fn recorded_events(data: &std::path::Path) -> Vec<String> {
    records(data).iter().map(|record| record["event"].as_str().unwrap().to_owned()).collect()
}

/// The gate's refusals in the audit log.
fn recorded_decisions(data: &std::path::Path) -> Vec<String> {
    let denied = records(data).into_iter().filter(|record| record["event"] == "mcp.denied");
    denied.map(|record| record["detail"]["decision"].as_str().unwrap().to_owned()).collect()
}

/// WEBAUTHN-09: a passkey that reports for the first time that it can be copied signs in, and that is recorded;
/// if it reports the opposite later, it is refused, and the page says what to do, with the reference of the
/// record.
#[test]
fn a_passkey_may_become_one_that_can_be_copied() {
    let mut story = Story::begin();
    let home = story.server.origin.clone();
    let mut sign_in = |copyable: bool, then: &str| {
        story.browser.ok(&json!({"op": "open", "url": home}));
        story.browser.ok(&json!({"op": "vault", "copyable": copyable}));
        story.browser.ok(&json!({"op": "evaluate", "expression": "document.querySelector('form[action=\"/sign-out\"]')?.submit()"}));
        story.browser.ok(&json!({"op": "click", "testid": "passkey-login"}));
        story.browser.ok(&json!({"op": "text", "selector": then}))["text"].as_str().unwrap().to_owned()
    };
    sign_in(true, "[data-testid=\"connect-client\"]");
    let said = sign_in(false, ".problem[data-testid=\"error\"]:visible");
    assert!(said.contains("user passkey remove") && said.contains("Reference: r_"), "{said}");
    let data = story.dir.path().join("data");
    let tail = portcullis(&["audit", "tail", "--json", "-n", "1000", "--data-dir", data.to_str().unwrap()]);
    let tail = String::from_utf8(tail.stdout).unwrap();
    assert!(tail.contains("\"be_before\":false") && tail.contains("backup_eligibility_lost"), "{tail}");
}

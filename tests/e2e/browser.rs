//! The whole story with real programs: Chromium, a passkey, the MCP TypeScript SDK.

use std::fs;

use serde_json::{Value, json};

use crate::process::{Driver, Process, portcullis};

pub struct Story {
    pub dir: tempfile::TempDir,
    pub server: Process,
    pub browser: Driver,
}

impl Story {
    pub fn begin() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let docs = dir.path().join("docs");
        fs::create_dir(&docs).unwrap();
        fs::write(
            docs.join("falcon.md"),
            "# Falcon\n\n## Launch\n\nThe falcon launches at dawn from pad seven.\n",
        )
        .unwrap();
        let server = Process::start(&dir.path().join("data"), "localhost:0", Some(&docs));
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
        self.server =
            Process::start(&self.dir.path().join("data"), &listen, Some(&self.dir.path().join("docs")));
    }
}

pub fn search(client: &mut Driver, query: &str) -> Value {
    client.ok(&json!({"op": "call", "name": "docs_search", "arguments": {"query": query}}))
}

pub fn first_path(found: &Value) -> Option<&str> {
    found["result"]["structuredContent"]["hits"][0]["path"].as_str()
}

/// The walk of a first user, in both eras of the protocol: 401, discovery, registration, passkey,
/// consent, token, list, search, refresh; then the server is killed, and the same client goes on
/// without registering again (ENROL-01, RS-02, META-05, DCR-02, REFRESH-02, OPS-07, SESSION-01).
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
    let cookies = callback["callback"]["headers"]["cookie"].as_str().unwrap_or_default();
    assert!(!cookies.contains("sid_"), "the client's callback saw a session cookie: {cookies}");

    assert_eq!(client.ok(&json!({"op": "list"}))["names"], json!(["docs_read", "docs_search", "whoami"]));
    assert_eq!(first_path(&search(&mut client, "falcon dawn")), Some("falcon.md"));
    let refreshed = client.ok(&json!({"op": "refresh"}));
    assert_eq!(
        (&refreshed["access_token_changed"], &refreshed["refresh_token_changed"]),
        (&json!(true), &json!(true))
    );
    // An access token that is worth nothing any more: the SDK refreshes by itself.
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

/// CONSENT-06: refusing in the browser reaches the client as `access_denied`.
#[test]
fn refusing_in_the_browser_tells_the_client() {
    let mut story = Story::begin();
    let mut client = story.client("legacy");
    let refused = client.connect(&mut story.browser, "deny");
    assert_eq!((&refused["ok"], &refused["code"]), (&json!(false), &json!("access_denied")), "{refused}");
}

/// WEBAUTHN-12: a second passkey on another authenticator, which then signs in alone.
#[test]
fn a_second_passkey_signs_in_alone() {
    let mut story = Story::begin();
    story.browser.ok(&json!({"op": "add_passkey"}));
    let mut client = story.client("legacy");
    let connected = client.connect(&mut story.browser, "approve");
    assert_eq!(connected["ok"], true, "{connected}");
    let held = story.browser.ok(&json!({"op": "credentials"}));
    let used: Vec<bool> =
        held["credentials"].as_array().unwrap().iter().map(|c| c["signCount"].as_u64() > Some(1)).collect();
    assert_eq!(used.len(), 2, "{held}");
}

/// HTTP-05: every page loads under its own policy; nothing is blocked, nothing comes from elsewhere.
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

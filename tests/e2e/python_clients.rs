//! The Python MCP clients: the SDK (`mcp`), and `fastmcp`, which is built on it.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::browser::{Story, first_path, search};
use crate::client_table::{FASTMCP as FASTMCP_ROW, PYTHON_MCP, Row};
use crate::process::{Driver, clients};

/// A driver's library and its peculiarities.
pub struct Library {
    driver: &'static str,
    /// After a restart it knows when its access token expires, and refreshes in time.
    remembers_expiry: bool,
    pub row: &'static Row,
}

pub const MCP: Library = Library { driver: "mcp_client.py", remembers_expiry: false, row: &PYTHON_MCP };
pub const FASTMCP: Library =
    Library { driver: "fastmcp_client.py", remembers_expiry: true, row: &FASTMCP_ROW };

impl Library {
    /// Starts it with the state that the previous one left.
    pub fn start(&self, story: &Story, protocol: &str) -> Driver {
        self.start_for(&story.server.mcp_url, protocol, story.dir.path())
    }

    /// Starts it for any server; its state is in the scratch directory.
    pub fn start_for(&self, mcp_url: &str, protocol: &str, scratch: &Path) -> Driver {
        let folder = clients().join("python");
        let mut command = Command::new(folder.join(".venv/bin/python"));
        command.arg(folder.join(self.driver)).args(["--url", mcp_url, "--protocol", protocol]);
        command.arg("--state").arg(scratch.join(self.driver).with_extension("state"));
        command.env("PYTHONDONTWRITEBYTECODE", "1").env("HOME", scratch);
        Driver::spawn(command)
    }
}

/// The result of an operation during which the library may open the browser.
fn with_person(client: &mut Driver, story: &mut Story, operation: &Value) -> Value {
    client.send(operation);
    let mut answer = client.receive();
    if answer["event"] == "authorize" {
        story.browser.ok(&json!({"op": "authorize", "url": answer["url"], "decision": "approve"}));
        answer = client.receive();
    }
    assert_eq!(answer["ok"], true, "{operation}: {answer}");
    answer
}

fn exchanges(client: &mut Driver) -> Vec<Value> {
    let taken = client.ok(&json!({"op": "http"}));
    taken["exchanges"].as_array().unwrap().clone()
}

/// The number of its token requests with this grant type.
fn grants(exchanges: &[Value], grant_type: &str) -> usize {
    let body = format!("grant_type={grant_type}");
    exchanges.iter().filter(|exchange| exchange["body"].as_str().unwrap().starts_with(&body)).count()
}

fn port(authorize_url: &Value) -> u16 {
    let url = url::Url::parse(authorize_url.as_str().unwrap()).unwrap();
    let (_, redirect) = url.query_pairs().find(|(name, _)| name == "redirect_uri").unwrap();
    url::Url::parse(&redirect).unwrap().port().unwrap()
}

/// A first user's story, then a client restarted with its stored state (RS-02, META-05, DCR-02, REFRESH-02).
fn signs_in_and_is_restarted(library: &Library, protocol: &str, negotiated: &str) {
    let mut story = Story::begin();
    let mut client = library.start(&story, protocol);
    client.send(&json!({"op": "connect"}));
    let asked = client.receive();
    let page = asked["url"].as_str().unwrap();
    story.browser.ok(&json!({"op": "authorize", "url": page, "decision": "approve"}));
    let connected = client.receive();
    assert_eq!(connected["ok"], true, "{connected}");
    assert_eq!((&connected["registered"], &connected["authorized"]), (&json!(true), &json!(true)));
    assert_eq!(connected["protocol_version"], negotiated);
    assert_eq!(client.ok(&json!({"op": "list"}))["names"], json!(["docs_read", "docs_search", "whoami"]));
    assert_eq!(first_path(&search(&mut client, "falcon dawn")), Some("falcon.md"));
    let mut made = exchanges(&mut client);
    let registered: Vec<Value> = made
        .iter()
        .filter(|exchange| exchange["status"] == 201)
        .map(|exchange| serde_json::from_str(exchange["body"].as_str().unwrap()).unwrap())
        .collect();
    // Both request the scope of the challenge, and add this one because our metadata offers it.
    assert_eq!(registered[0]["scope"], "docs.read offline_access");
    assert_eq!(registered[0]["token_endpoint_auth_method"], "none");

    let refreshed = client.ok(&json!({"op": "refresh"}));
    assert_eq!(
        (&refreshed["access_token_changed"], &refreshed["refresh_token_changed"]),
        (&json!(true), &json!(true)),
        "{refreshed}"
    );
    if protocol == "auto" {
        made.extend(exchanges(&mut client));
        library.row.compare(page, &made);
    }
    client.close();

    story.restart();
    let mut client = library.start(&story, protocol);
    let connected = client.connect(&mut story.browser, "approve");
    assert_eq!(
        (&connected["ok"], &connected["registered"], &connected["authorized"]),
        (&json!(true), &json!(false), &json!(false)),
        "{connected}"
    );
    assert_eq!(first_path(&search(&mut client, "launches")), Some("falcon.md"));
    client.close();
}

#[test]
fn mcp_of_2026_signs_in_and_is_restarted() {
    signs_in_and_is_restarted(&MCP, "auto", "2026-07-28");
}

#[test]
fn mcp_of_2025_signs_in_and_is_restarted() {
    signs_in_and_is_restarted(&MCP, "legacy", "2025-11-25");
}

#[test]
fn fastmcp_of_2026_signs_in_and_is_restarted() {
    signs_in_and_is_restarted(&FASTMCP, "auto", "2026-07-28");
}

#[test]
fn fastmcp_of_2025_signs_in_and_is_restarted() {
    signs_in_and_is_restarted(&FASTMCP, "legacy", "2025-11-25");
}

/// A limitation of the SDK, in both libraries: it refreshes when it believes its token expired, never because
/// of a server's answer. After a 401 it opens the browser although it has a valid refresh token.
fn answers_a_401_with_a_new_sign_in(library: &Library) {
    let mut story = Story::begin();
    let mut client = library.start(&story, "auto");
    with_person(&mut client, &mut story, &json!({"op": "connect"}));
    exchanges(&mut client);
    client.ok(&json!({"op": "forget_access"}));
    let called = with_person(&mut client, &mut story, &json!({"op": "call", "name": "whoami"}));
    assert_eq!((&called["authorized"], &called["registered"]), (&json!(true), &json!(false)));
    let made = exchanges(&mut client);
    assert_eq!((grants(&made, "refresh_token"), grants(&made, "authorization_code")), (0, 1));
    // Its latest tokens are valid again.
    client.ok(&json!({"op": "refresh"}));

    // Its token expires while it is not running.
    client.ok(&json!({"op": "expire"}));
    client.ok(&json!({"op": "forget_access"}));
    client.close();
    let mut client = library.start(&story, "auto");
    let connected = with_person(&mut client, &mut story, &json!({"op": "connect"}));
    assert_eq!(connected["registered"], false, "{connected}");
    assert_eq!(connected["authorized"], !library.remembers_expiry, "{connected}");
    let made = exchanges(&mut client);
    let refreshes = usize::from(library.remembers_expiry);
    assert_eq!(
        (grants(&made, "refresh_token"), grants(&made, "authorization_code")),
        (refreshes, 1 - refreshes)
    );
    if library.remembers_expiry {
        // It has not read the metadata yet and guesses this address, which is right.
        assert_eq!(made[0]["url"], format!("{}/token", story.server.origin));
    }
    client.close();
}

#[test]
fn mcp_answers_a_401_with_a_new_sign_in() {
    answers_a_401_with_a_new_sign_in(&MCP);
}

#[test]
fn fastmcp_answers_a_401_with_a_new_sign_in() {
    answers_a_401_with_a_new_sign_in(&FASTMCP);
}

/// AUTHZ-03 (RFC 8252 §7.3): fastmcp keeps its registration, but uses another port.
#[test]
fn fastmcp_comes_back_to_another_port() {
    let mut story = Story::begin();
    let mut client = FASTMCP.start(&story, "auto");
    let mut ports = Vec::new();
    for _ in 0..2 {
        client.send(&json!({"op": "connect"}));
        let asked = client.receive();
        assert_eq!(asked["event"], "authorize", "{asked}");
        ports.push(port(&asked["url"]));
        story.browser.ok(&json!({"op": "authorize", "url": asked["url"], "decision": "approve"}));
        let connected = client.receive();
        assert_eq!(connected["ok"], true, "{connected}");
        // It requests the URL itself, without cookies, before it opens the browser.
        let looked = |exchange: &Value| exchange["method"] == "GET" && exchange["url"] == asked["url"];
        assert!(exchanges(&mut client).iter().any(looked));
        client.ok(&json!({"op": "forget_access"}));
        client.close();
        client = FASTMCP.start(&story, "auto");
    }
    assert_ne!(ports[0], ports[1]);
}

/// CONSENT-06: a refusal in the browser reaches the client.
#[test]
fn refusing_in_the_browser_tells_the_python_clients() {
    let mut story = Story::begin();
    let refused = MCP.start(&story, "auto").connect(&mut story.browser, "deny");
    assert_eq!((&refused["ok"], &refused["code"]), (&json!(false), &json!("access_denied")), "{refused}");
    let refused = FASTMCP.start(&story, "auto").connect(&mut story.browser, "deny");
    assert_eq!(refused["ok"], false);
    assert!(refused["error"].as_str().unwrap().contains("Access was denied"), "{refused}");
}

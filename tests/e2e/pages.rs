//! Accessibility of the pages, in a real Chromium: contrast, names, order, focus, narrow windows, print; and
//! allowing a device with the keyboard alone.

use std::fs;
use std::path::PathBuf;

use reqwest::blocking::Client as Http;
use serde_json::{Value, json};

use crate::harness::challenge;
use crate::process::{Driver, Process, portcullis, program};

struct Story {
    server: Process,
    browser: Driver,
    http: Http,
    data: PathBuf,
    // Last: the others have files in it.
    _dir: tempfile::TempDir,
}

impl Story {
    /// A server with the device grant and without users.
    fn begin() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (data, config) = (dir.path().join("data"), dir.path().join("portcullis.toml"));
        fs::write(&config, "device = true\n").unwrap();
        let mut command = program();
        command.args(["serve", "--json", "--listen", "localhost:0", "--config"]).arg(config);
        let server = Process::spawn({
            command.arg("--data-dir").arg(&data);
            command
        });
        let browser = Driver::browser(dir.path());
        let http = Http::builder().no_proxy().build().unwrap();
        Self { server, browser, http, data, _dir: dir }
    }

    fn set_up(&mut self) {
        self.browser.ok(&json!({"op": "setup", "url": self.server.setup_link, "name": "ada"}));
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server.origin)
    }

    fn open(&mut self, path: &str) {
        let url = self.url(path);
        self.browser.ok(&json!({"op": "open", "url": url}));
    }

    /// Asserts that the open page has no accessibility error.
    fn inspect(&mut self, what: &str) {
        let found = self.browser.ok(&json!({"op": "inspect"}));
        assert_eq!(found["problems"], json!([]), "{what}");
    }

    fn keyboard(&mut self, testid: &str, text: Option<&str>, key: Option<&str>) {
        self.browser.ok(&json!({"op": "keyboard", "testid": testid, "text": text, "key": key}));
    }

    fn wait_for(&mut self, selector: &str) -> String {
        let found = self.browser.ok(&json!({"op": "text", "selector": selector}));
        found["text"].as_str().unwrap().to_owned()
    }

    fn console(&self, arguments: &[&str]) -> Value {
        let all = [arguments, &["--json", "--data-dir", self.data.to_str().unwrap()]].concat();
        let output = portcullis(&all);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn post(&self, path: &str, form: &[(&str, &str)]) -> (u16, Value) {
        let response = self.http.post(self.url(path)).form(form).send().unwrap();
        (response.status().as_u16(), response.json().unwrap())
    }
}

/// DEV-01, CONSENT-09: a device is allowed with the keyboard alone, from the link to the answer, with visible
/// focus and readable text at each step.
#[test]
fn a_device_is_allowed_with_the_keyboard_alone() {
    let mut story = Story::begin();
    story.set_up();
    let added = story.console(&["client", "add", "Lab console", "--device"]);
    let id = added["client"]["id"].as_str().unwrap();
    let (status, device) = story.post("/device_authorization", &[("client_id", id)]);
    assert_eq!(status, 200, "{device}");
    let text = |name: &str| device[name].as_str().unwrap().to_owned();

    let path = text("verification_uri_complete").replace(&story.server.origin, "");
    story.open(&path);
    assert_eq!(story.wait_for("[data-testid=linked-code]"), text("user_code"));
    story.inspect("the code's page");
    story.keyboard("user-code", Some("bcdf-ghjk"), Some("Enter"));
    story.wait_for(".problem");
    story.inspect("the code's page after a wrong one");
    story.open("/device");
    story.keyboard("user-code", Some(&text("user_code").to_lowercase()), Some("Enter"));
    story.wait_for("[data-testid=passkey-login]");
    story.inspect("the sign-in for a device");
    story.keyboard("passkey-login", None, Some("Enter"));
    story.wait_for("[data-testid=consent-approve]:enabled");
    assert_eq!(story.wait_for("[data-testid=device-address]"), "127.0.0.1");
    story.inspect("the question of a device");
    story.keyboard("consent-approve", None, Some("Enter"));
    story.wait_for("h1:has-text('Go back to your device')");
    story.inspect("the notice after it");

    let grant = "urn:ietf:params:oauth:grant-type:device_code";
    let code = text("device_code");
    let (status, tokens) =
        story.post("/token", &[("grant_type", grant), ("device_code", &code), ("client_id", id)]);
    assert_eq!((status, &tokens["scope"]), (200, &json!("docs.read")), "{tokens}");
}

/// ENROL-02, ENROL-03, SESSION-04: an enrolment link works after a reload, until it is used. If another user is
/// signed in, the page names them and lets them sign out, and the link still works.
#[test]
fn an_enrolment_link_survives_a_reload_and_a_sign_out() {
    let mut story = Story::begin();
    story.set_up();
    let added = story.console(&["user", "add", "ines"]);
    let link = added["link"].as_str().unwrap().to_owned();
    story.browser.ok(&json!({"op": "open", "url": link}));
    let here = |story: &mut Story| {
        story.browser.ok(&json!({"op": "evaluate", "expression": "location.pathname + location.hash"}))["value"]
            .take()
    };
    assert_eq!(here(&mut story), "/enrol", "the secret is out of sight");
    for reloaded in [false, true] {
        if reloaded {
            story.browser.ok(&json!({"op": "reload"}));
        }
        story.browser.ok(&json!({"op": "click", "testid": "passkey-register"}));
        let told = story.wait_for("[data-testid=error]:visible");
        assert!(told.contains("a different person") && told.contains("Sign out"), "{told}");
        assert!(story.wait_for("header").contains("Signed in as ada"));
        story.inspect("an enrolment link where somebody else is signed in");
    }
    story.browser.ok(&json!({"op": "click", "testid": "sign-out"}));
    story.wait_for("body:not(:has([data-testid=sign-out]))");
    assert_eq!(here(&mut story), "/enrol");
    story.browser.ok(&json!({"op": "reload"}));
    story.inspect("an enrolment link after a reload");
    story.keyboard("passkey-register", None, Some("Enter"));
    assert_eq!(story.wait_for("[data-testid=user-name]"), "ines");
    story.browser.ok(&json!({"op": "evaluate", "expression": "history.back()"}));
    let told = story.wait_for("[data-testid=error]:visible");
    assert!(told.contains("A passkey was created with this link"), "{told}");
}

/// REDIR-08: a user who opens the account page signed out is there after signing in.
#[test]
fn signing_in_leads_back_to_where_one_was_going() {
    let mut story = Story::begin();
    story.set_up();
    story.keyboard("sign-out", None, Some("Enter"));
    story.wait_for("[data-testid=passkey-login]");
    story.open("/account");
    story.wait_for("[data-testid=passkey-login]");
    story.inspect("the sign-in for the account");
    story.keyboard("passkey-login", None, Some("Enter"));
    story.wait_for("[data-testid=no-clients]");
}

/// CONSENT-01: the other pages that users see, successes and errors.
#[test]
fn every_page_can_be_read() {
    let mut story = Story::begin();
    for (path, what) in
        [("/", "the home page of a new server"), ("/setup", "the setup page without its link")]
    {
        story.open(path);
        story.inspect(what);
    }
    story.set_up();
    story.inspect("the home page of somebody who is signed in");
    story.open("/account");
    story.wait_for("[data-testid=no-clients]");
    story.inspect("the account of somebody with nothing");
    let metadata = json!({"client_name": "Laptop tool", "redirect_uris": ["http://localhost/callback", "https://tools.example/cb"]});
    let registered = story.http.post(story.url("/register")).json(&metadata).send().unwrap();
    let registered: Value = registered.json().unwrap();
    let id = registered["client_id"].as_str().unwrap();
    let request = |redirect: &str| {
        format!(
            "/authorize?response_type=code&client_id={id}&redirect_uri={redirect}&code_challenge={}&code_challenge_method=S256",
            challenge()
        )
    };
    for (path, what) in [
        ("/nowhere", "an address that leads nowhere"),
        ("/authorize?client_id=nobody", "a client that nobody knows"),
        (&request("http://localhost/other"), "a redirect URI that was not registered"),
        (&request("https://tools.example/cb"), "a redirect URI that needs an administrator"),
    ] {
        story.open(path);
        story.wait_for("[data-testid=error]");
        story.inspect(what);
    }
    story.console(&["client", "disable", id]);
    story.open(&request("http://localhost/callback"));
    assert!(story.wait_for("pre").contains(&format!("portcullis client enable {id}")));
    story.inspect("a client that was switched off");
    story.console(&["client", "enable", id]);
    story.open(&request("http://localhost/callback"));
    story.inspect("the sign-in for a client");
    story.keyboard("passkey-login", None, Some("Enter"));
    story.wait_for("[data-testid=consent-approve]:enabled");
    story.inspect("the consent page");
}

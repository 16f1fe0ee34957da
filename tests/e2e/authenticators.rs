//! Authenticators that cannot make a usable passkey, in a real browser: they are refused with helpful words,
//! nothing is used up, and the user continues with another one.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::process::{Driver, Process, portcullis, program};

/// An authenticator that lacks something required, and why it is refused.
struct Unfit {
    options: Value,
    /// The server's message if the browser does not filter the authenticator out.
    refusal: &'static str,
    words: &'static str,
}

const NOT_MADE: &str = "No passkey was made";
const NOT_KEPT: &str = "This authenticator did not store the passkey, so you could not sign in with it.";
const NOT_VERIFIED: &str = "This authenticator did not verify that it is you.";
const NOT_AGAIN: &str = "This device already has a passkey here. Use another device or a security key.";

fn unfit() -> [Unfit; 3] {
    let made = |options, refusal, words| Unfit { options, refusal, words };
    [
        // It stores no discoverable passkey, so users would have to name themselves to sign in.
        made(json!({"hasResidentKey": false}), "not_discoverable", NOT_KEPT),
        // It has neither a PIN nor a fingerprint reader.
        made(json!({"hasUserVerification": false}), "user_not_verified", NOT_VERIFIED),
        // It only supports U2F, which has neither.
        made(
            json!({"protocol": "u2f", "hasResidentKey": false, "hasUserVerification": false}),
            "user_not_verified",
            NOT_VERIFIED,
        ),
    ]
}

struct Scene {
    dir: tempfile::TempDir,
    server: Process,
}

impl Scene {
    fn set() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = program();
        command
            .args(["serve", "--json", "--listen", "localhost:0", "--data-dir"])
            .arg(dir.path().join("data"));
        command.current_dir(dir.path());
        let server = Process::spawn(command);
        Self { dir, server }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn browser(&self) -> Driver {
        Driver::browser(self.dir.path())
    }

    /// A browser that asks authenticators for less than the server required.
    fn careless_browser(&self) -> Driver {
        let mut browser = self.browser();
        browser.ok(&json!({"op": "ask_for_less"}));
        browser
    }

    fn setup_link(&self) -> String {
        self.server.setup_link.clone().unwrap()
    }

    fn console(&self, arguments: &[&str]) -> String {
        let data = self.data();
        let output = portcullis(&[arguments, &["--json", "--data-dir", data.to_str().unwrap()]].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn link(&self, arguments: &[&str]) -> String {
        let answer: Value = serde_json::from_str(&self.console(arguments)).unwrap();
        answer["link"].as_str().unwrap().to_owned()
    }

    fn passkeys(&self, user: &str) -> Value {
        let shown: Value = serde_json::from_str(&self.console(&["user", "show", user])).unwrap();
        shown["user"]["passkeys"].clone()
    }

    /// The cause of the newest failed ceremony.
    fn last_failure(&self) -> String {
        let tail = self.console(&["audit", "tail", "-n", "1000"]);
        let records = tail.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let failed: Vec<Value> = records.filter(|record| record["event"] == "webauthn.failed").collect();
        failed.last().map_or_else(String::new, |record| record["reason"].as_str().unwrap().to_owned())
    }

    /// Tries each unfit authenticator with this link: no passkey is made, and the user is told what to do.
    fn none_is_taken(&self, link: &str, name: &str) {
        let (mut careful, mut careless) = (self.browser(), self.careless_browser());
        for Unfit { options, refusal, words } in unfit() {
            for (browser, words) in [(&mut careful, NOT_MADE), (&mut careless, words)] {
                browser.ok(&json!({"op": "own", "options": options}));
                let told = browser.attempt(&json!({"op": "setup", "url": link, "name": name}));
                assert_eq!(
                    (&told["ok"], &told["page_error"]),
                    (&json!(false), &json!(true)),
                    "{options}: {told}"
                );
                let said = told["error"].as_str().unwrap();
                assert!(said.starts_with(words) && said.contains("ry again"), "{options}: {said}");
            }
            assert_eq!(self.last_failure(), refusal, "{options}");
        }
    }

    /// Tries the same link with a suitable authenticator: its user signs out and in again.
    fn another_is_taken(&self, link: &str, name: &str) {
        let mut browser = self.browser();
        browser.ok(&json!({"op": "setup", "url": link, "name": name}));
        browser.ok(&json!({"op": "click", "testid": "sign-out"}));
        browser.ok(&json!({"op": "click", "testid": "passkey-login"}));
        browser.ok(&json!({"op": "text", "selector": "[data-testid=connect-client]"}));
    }
}

/// WEBAUTHN-02, ENROL-01: the first administrator is not locked out: an unfit authenticator makes no passkey
/// and no user, and the link stays valid for another one.
#[test]
fn the_first_administrator_takes_another_authenticator() {
    let scene = Scene::set();
    scene.none_is_taken(&scene.setup_link(), "ada");
    let users: Value = serde_json::from_str(&scene.console(&["user", "list"])).unwrap();
    assert_eq!(users["users"], json!([]));
    scene.another_is_taken(&scene.setup_link(), "ada");
}

/// WEBAUTHN-02, ENROL-02: the same with an enrolment link.
#[test]
fn an_enrolment_link_is_good_for_another_authenticator() {
    let scene = Scene::set();
    scene.another_is_taken(&scene.setup_link(), "ada");
    let link = scene.link(&["user", "add", "ines"]);
    scene.none_is_taken(&link, "ines");
    assert_eq!(scene.passkeys("ines"), 0);
    scene.another_is_taken(&link, "ines");
    assert_eq!(scene.passkeys("ines"), 1);
}

/// WEBAUTHN-02, WEBAUTHN-12: the same for a second passkey. The first one does not change.
#[test]
fn a_second_passkey_is_made_by_another_authenticator() {
    let scene = Scene::set();
    let mut browser = scene.browser();
    browser.ok(&json!({"op": "setup", "url": scene.setup_link(), "name": "ada"}));
    // Reload the page each time, so that an earlier refusal is not read again.
    let home = json!({"op": "open", "url": scene.server.origin});
    for Unfit { options, .. } in unfit() {
        browser.ok(&home);
        let told = browser.attempt(&json!({"op": "add_passkey", "options": options}));
        assert!(told["error"].as_str().unwrap().starts_with(NOT_MADE), "{options}: {told}");
    }
    browser.ok(&json!({"op": "ask_for_less"}));
    for Unfit { options, refusal, words } in unfit() {
        browser.ok(&home);
        let told = browser.attempt(&json!({"op": "add_passkey", "options": options}));
        assert!(told["error"].as_str().unwrap().starts_with(words), "{options}: {told}");
        assert_eq!(scene.last_failure(), refusal, "{options}");
    }
    assert_eq!(scene.passkeys("ada"), 1);
    browser.ok(&json!({"op": "click", "testid": "sign-out"}));
    browser.ok(&json!({"op": "click", "testid": "passkey-login"}));
    browser.ok(&json!({"op": "text", "selector": "[data-testid=connect-client]"}));
}

/// WEBAUTHN-07: an authenticator that has a passkey of this user makes no second one, on the home page and with
/// a new link, which stays valid.
#[test]
fn an_authenticator_makes_one_passkey_for_a_person() {
    let scene = Scene::set();
    let mut browser = scene.browser();
    browser.ok(&json!({"op": "setup", "url": scene.setup_link(), "name": "ada"}));
    browser.ok(&json!({"op": "click", "testid": "passkey-add"}));
    let told = browser.ok(&json!({"op": "text", "selector": ".problem[data-testid=error]:visible"}));
    assert_eq!(told["text"], NOT_AGAIN);
    let link = scene.link(&["user", "link", "ada"]);
    let told = browser.attempt(&json!({"op": "setup", "url": link, "name": "ada"}));
    assert_eq!(told["error"], NOT_AGAIN);
    assert_eq!(scene.passkeys("ada"), 1);
    browser.ok(&json!({"op": "own", "options": {}}));
    browser.ok(&json!({"op": "setup", "url": link, "name": "ada"}));
    assert_eq!(scene.passkeys("ada"), 2);
}

//! OAuth libraries without knowledge of MCP or this server use the whole program: openid-client and
//! oauth4webapi from npm, and Authlib from PyPI. They are given only the issuer.

use std::process::Command;

use serde_json::{Value, json};

use crate::assertion::ClientKey;
use crate::browser::Story;
use crate::process::{Driver, clients, node, portcullis};

/// A library, by its driver.
#[derive(Clone, Copy)]
enum Library {
    OpenidClient,
    Oauth4webapi,
    Authlib,
}

impl Library {
    fn start(self, story: &Story) -> Driver {
        let mut command = match self {
            Self::OpenidClient => script("openid-client.mjs"),
            Self::Oauth4webapi => script("oauth4webapi.mjs"),
            Self::Authlib => {
                let folder = clients().join("python");
                let mut command = Command::new(folder.join(".venv/bin/python"));
                command.arg(folder.join("authlib_client.py")).env("PYTHONDONTWRITEBYTECODE", "1");
                command
            }
        };
        command.args(["--issuer", &story.server.origin]);
        Driver::spawn(command)
    }
}

fn script(name: &str) -> Command {
    let mut command = node();
    command.arg(name).current_dir(clients());
    command
}

/// A client of a library, a user, and an administrator at the console.
struct Walk {
    story: Story,
    client: Driver,
    redirect_uri: &'static str,
}

impl Walk {
    fn begin(library: Library, redirect_uri: &'static str) -> Self {
        Self::begin_configured("", library, redirect_uri)
    }

    /// Starts one with a `portcullis.toml`.
    fn begin_configured(toml: &str, library: Library, redirect_uri: &'static str) -> Self {
        let story = Story::begin_configured(toml);
        let client = library.start(&story);
        Self { story, client, redirect_uri }
    }

    fn console(&self, arguments: &[&str]) -> Value {
        let data = self.story.dir.path().join("data");
        let output = portcullis(&[arguments, &["--json", "--data-dir", data.to_str().unwrap()]].concat());
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The user signs in and allows; the client gets tokens.
    fn sign_in(&mut self) -> Value {
        let begun = self.client.ok(&json!({
            "op": "begin", "redirect_uri": self.redirect_uri, "scope": "docs.read", "resource": self.story.server.mcp_url,
        }));
        let allowed =
            self.story.browser.ok(&json!({"op": "authorize", "url": begun["url"], "decision": "approve"}));
        self.client.ok(&json!({"op": "finish", "url": allowed["redirected_to"]}))["tokens"].clone()
    }

    /// The status of a tool call.
    fn call(&self, tokens: &Value) -> u16 {
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "docs_search", "arguments": {"query": "falcon"}}});
        let client = reqwest::blocking::Client::builder().no_proxy().build().unwrap();
        let answer = client
            .post(&self.story.server.mcp_url)
            .bearer_auth(tokens["access_token"].as_str().unwrap())
            .header("accept", "application/json")
            .header("mcp-protocol-version", "2025-11-25")
            .json(&call)
            .send()
            .unwrap();
        answer.status().as_u16()
    }

    /// Sign-in, call, refresh, call, introspect, revoke; afterwards everything is refused.
    fn uses_tokens(&mut self) {
        let server = self.console(&["rs", "add", "gateway", "--audience", &self.story.server.mcp_url]);
        let gateway = json!({
            "client_id": server["resource_server"]["id"], "method": "client_secret_basic", "client_secret": server["client_secret"],
        });
        let introspect = |walk: &mut Self, token: &Value| {
            walk.client.ok(&json!({"op": "introspect", "token": token, "as": gateway}))["introspection"]
                .clone()
        };
        let first = self.sign_in();
        assert_eq!(self.call(&first), 200);
        let refreshed = self.client.ok(&json!({"op": "refresh", "refresh_token": first["refresh_token"]}));
        let second = refreshed["tokens"].clone();
        assert_ne!(second["refresh_token"], first["refresh_token"]);
        assert_eq!(self.call(&second), 200);
        let described = introspect(self, &second["access_token"]);
        assert_eq!((&described["active"], &described["scope"]), (&json!(true), &json!("docs.read")));
        self.client.ok(&json!({"op": "revoke", "token": second["refresh_token"]}));
        assert_eq!((self.call(&first), self.call(&second)), (401, 401));
        assert_eq!(introspect(self, &second["access_token"]), json!({"active": false}));
        let dead = self.client.attempt(&json!({"op": "refresh", "refresh_token": second["refresh_token"]}));
        assert_eq!((&dead["ok"], &dead["code"]), (&json!(false), &json!("invalid_grant")), "{dead}");
    }

    fn end(self) {
        self.client.close();
        self.story.browser.close();
    }
}

/// A self-registered client, with and without a secret.
fn registers_itself(library: Library, method: &str) {
    let mut walk = Walk::begin(library, "http://localhost:39999/callback");
    let registered = walk.client.ok(&json!({"op": "register", "metadata": {
        "client_name": "Stranger",
        "redirect_uris": [walk.redirect_uri],
        "grant_types": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_method": method,
    }}));
    assert_eq!(registered["client"]["client_secret"].is_string(), method != "none", "{registered}");
    walk.uses_tokens();
    walk.end();
}

/// DCR-02, TOKEN-02, REFRESH-02, REVOKE-01, REVOKE-02, REVOKE-04, INTRO-02, INTRO-03, META-02
#[test]
fn openid_client_registers_itself() {
    registers_itself(Library::OpenidClient, "none");
}

/// DCR-06, CAUTH-01, CAUTH-02, REVOKE-02
#[test]
fn openid_client_registers_itself_with_a_secret() {
    registers_itself(Library::OpenidClient, "client_secret_basic");
}

/// A client that an administrator added; `proof` are the arguments of `client add` for its authentication.
fn is_registered_beforehand(library: Library, proof: &[&str], method: &str) {
    let mut walk = Walk::begin(library, "http://localhost:39999/callback");
    let key = ClientKey::generate("ES256");
    let jwks = walk.story.dir.path().join("client.jwks");
    std::fs::write(&jwks, key.jwks().to_string()).unwrap();
    let mut arguments = vec!["client", "add", "Stranger", "--redirect-uri", walk.redirect_uri];
    arguments.extend(proof.iter().map(|part| if *part == "JWKS" { jwks.to_str().unwrap() } else { *part }));
    let added = walk.console(&arguments);
    let id = &added["client"]["id"];
    let (secret, private_key) = (&added["client_secret"], key.pem());
    walk.client.ok(&json!({
        "op": "use", "client_id": id, "method": method, "client_secret": secret, "private_key": private_key, "kid": key.header()["kid"],
    }));
    walk.uses_tokens();
    walk.end();
}

/// CAUTH-01, CAUTH-02, CAUTH-03
#[test]
fn openid_client_has_a_secret() {
    is_registered_beforehand(Library::OpenidClient, &["--secret"], "client_secret_basic");
}

/// CAUTH-05, CAUTH-06
#[test]
fn openid_client_has_a_key() {
    is_registered_beforehand(Library::OpenidClient, &["--jwks", "JWKS"], "private_key_jwt");
}

/// CAUTH-05, CAUTH-06
#[test]
fn oauth4webapi_has_a_key() {
    is_registered_beforehand(Library::Oauth4webapi, &["--jwks", "JWKS"], "private_key_jwt");
}

/// CAUTH-05, CAUTH-06: configured with the issuer as the assertion's audience.
#[test]
fn authlib_has_a_key() {
    is_registered_beforehand(Library::Authlib, &["--jwks", "JWKS"], "private_key_jwt");
}

/// DCR-02, TOKEN-02, TOKEN-03, REFRESH-02, REVOKE-01, REVOKE-04, INTRO-02, INTRO-03, AUTHZ-08: it checks `iss`.
#[test]
fn oauth4webapi_registers_itself() {
    registers_itself(Library::Oauth4webapi, "none");
}

/// DCR-06, CAUTH-01
#[test]
fn oauth4webapi_registers_itself_with_a_secret() {
    registers_itself(Library::Oauth4webapi, "client_secret_post");
}

/// DCR-02, TOKEN-02, REFRESH-02, REVOKE-01, INTRO-02, INTRO-03
#[test]
fn authlib_registers_itself() {
    registers_itself(Library::Authlib, "none");
}

/// DCR-06, CAUTH-01, CAUTH-02
#[test]
fn authlib_registers_itself_with_a_secret() {
    registers_itself(Library::Authlib, "client_secret_basic");
}

/// DEV-01, REFRESH-02, REVOKE-04: a library acts as a device: it polls until its user has decided elsewhere,
/// calls, refreshes, and revokes.
#[test]
fn openid_client_is_a_device() {
    let mut walk = Walk::begin_configured("device = true\n", Library::OpenidClient, "");
    let added = walk.console(&["client", "add", "Lab console", "--device"]);
    walk.client.ok(&json!({"op": "use", "client_id": added["client"]["id"], "method": "none"}));
    let asked = json!({"op": "device", "scope": "docs.read", "resource": walk.story.server.mcp_url});
    let authorization = walk.client.ok(&asked)["authorization"].take();
    assert_eq!(authorization["interval"], 5, "{authorization}");
    walk.client.send(&json!({"op": "poll"}));
    let browser = &mut walk.story.browser;
    browser.ok(&json!({"op": "open", "url": authorization["verification_uri"]}));
    browser.ok(
        &json!({"op": "keyboard", "testid": "user-code", "text": authorization["user_code"], "key": "Enter"}),
    );
    browser.ok(&json!({"op": "text", "selector": "[data-testid=passkey-login]"}));
    browser.ok(&json!({"op": "click", "testid": "passkey-login"}));
    browser.ok(&json!({"op": "text", "selector": "[data-testid=consent-approve]:enabled"}));
    browser.ok(&json!({"op": "click", "testid": "consent-approve"}));
    let polled = walk.client.receive();
    assert_eq!((&polled["ok"], &polled["tokens"]["scope"]), (&json!(true), &json!("docs.read")), "{polled}");
    let first = &polled["tokens"];
    assert_eq!(walk.call(first), 200);
    let refreshed = walk.client.ok(&json!({"op": "refresh", "refresh_token": first["refresh_token"]}));
    let second = &refreshed["tokens"];
    assert_eq!(walk.call(second), 200);
    walk.client.ok(&json!({"op": "revoke", "token": second["refresh_token"]}));
    assert_eq!((walk.call(first), walk.call(second)), (401, 401));
    let dead = walk.client.attempt(&json!({"op": "refresh", "refresh_token": second["refresh_token"]}));
    assert_eq!((&dead["ok"], &dead["code"]), (&json!(false), &json!("invalid_grant")), "{dead}");
    walk.end();
}

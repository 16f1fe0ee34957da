//! The resource servers in `examples/`, in Python and Node, run as users would run them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use reqwest::Response;
use serde_json::{Value, json};

use crate::harness::{Browser, Client, TestApp, authorize_url, header, redirect_parameter};
use crate::process::{Process, clients, node};

const AUDIENCE: &str = "http://localhost:9000/notes";
const CONFIG: &str = "[groups]\neveryone = [\"docs.read\", \"docs.other\"]\n\
    [scopes.\"docs.other\"]\ntitle = \"Something else\"\n[tools.docs_read]\nscope = \"docs.other\"\n";

#[derive(Clone, Copy)]
enum Language {
    Python,
    Node,
}

impl Language {
    fn command(self, scratch: &Path) -> Command {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
        match self {
            Self::Python => {
                let mut command = Command::new(clients().join("python/.venv/bin/python"));
                command.arg(examples.join("python/resource_server.py"));
                command.env("PYTHONDONTWRITEBYTECODE", "1");
                command
            }
            Self::Node => {
                // Modules are resolved beside the script; the installed ones are elsewhere.
                let script = scratch.join("resource-server.mjs");
                std::fs::copy(examples.join("node/resource-server.mjs"), &script).unwrap();
                let modules = scratch.join("node_modules");
                if !modules.exists() {
                    std::os::unix::fs::symlink(clients().join("node_modules"), modules).unwrap();
                }
                let mut command = node();
                command.arg(script);
                command
            }
        }
    }
}

/// A running example. Killed when dropped.
struct Example {
    child: Child,
    url: String,
}

impl Example {
    fn start(language: Language, app: &TestApp, scratch: &Path, credentials: Option<(&str, &str)>) -> Self {
        let mut command = language.command(scratch);
        command.args(["--issuer", &app.origin, "--audience", AUDIENCE, "--port", "0"]);
        command.env_remove("CLIENT_ID");
        for proxy in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"] {
            command.env_remove(proxy);
        }
        if let Some((id, secret)) = credentials {
            command.env("CLIENT_ID", id).env("CLIENT_SECRET", secret);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
        let mut child =
            child.unwrap_or_else(|e| panic!("the example does not start ({e}): run tests/install"));
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let ready: Value =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("the example ended: {line}"));
        Self { child, url: format!("http://127.0.0.1:{}", ready["port"]) }
    }

    async fn get(&self, app: &TestApp, token: &str) -> Response {
        app.http.get(format!("{}/notes", self.url)).bearer_auth(token).send().await.unwrap()
    }

    async fn post(&self, app: &TestApp, token: &str) -> Response {
        app.http.post(format!("{}/notes", self.url)).bearer_auth(token).send().await.unwrap()
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server in a separate process with the machine's clock, because the other programs use it too.
fn server(dir: &Path, listen: &str) -> Process {
    let config = dir.join("portcullis.toml");
    std::fs::write(&config, CONFIG).unwrap();
    let mut command = crate::process::program();
    command.args(["serve", "--json", "--listen", listen, "--config"]).arg(config);
    command.arg("--data-dir").arg(dir.join("data"));
    Process::spawn(command)
}

async fn tokens_for(
    app: &TestApp,
    browser: &mut Browser,
    client: &Client,
    resource: &str,
    scope: &str,
) -> String {
    let mut request = client.request(app);
    request.insert("resource", resource.to_owned());
    request.insert("scope", scope.to_owned());
    let page = browser.consent_page(app, &authorize_url(app, &request)).await;
    let answer = browser.decide(app, &page, "approve").await;
    let code = redirect_parameter(&answer, "code").unwrap();
    let body: Value = app.redeem(client, &code).await.json().await.unwrap();
    body["access_token"].as_str().unwrap().to_owned()
}

/// The same claims in an unsigned token.
fn unsigned(token: &str) -> String {
    let header = BASE64URL_NOPAD.encode(br#"{"alg":"none","typ":"at+jwt"}"#);
    format!("{header}.{}.", token.split('.').nth(1).unwrap())
}

async fn accepts_our_tokens(language: Language) {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let scratch: PathBuf = dir.path().join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    let mut process = server(dir.path(), "localhost:0");
    let app = TestApp::beside(&process, Arc::clone(&dir));
    let added = app.console(&["rs", "add", "notes", "--audience", AUDIENCE]);
    let (id, secret) = (&added["resource_server"]["id"], &added["client_secret"]);
    let credentials = Some((id.as_str().unwrap(), secret.as_str().unwrap()));
    let asking = Example::start(language, &app, &scratch, credentials);
    let trusting = Example::start(language, &app, &scratch, None);

    let mut browser = app.admin().await;
    let client = app.client().await;
    let token = tokens_for(&app, &mut browser, &client, AUDIENCE, "docs.read").await;
    let other_audience = tokens_for(&app, &mut browser, &client, &app.mcp_url(), "docs.read").await;
    let other_scope = tokens_for(&app, &mut browser, &client, AUDIENCE, "docs.other").await;
    for example in [&asking, &trusting] {
        let read: Value = example.get(&app, &token).await.json().await.unwrap();
        assert_eq!((&read["client_id"], &read["wrote"]), (&json!(client.id), &json!(false)));
        let wrote: Value = example.post(&app, &token).await.json().await.unwrap();
        assert_eq!((&wrote["sub"], &wrote["wrote"]), (&read["sub"], &json!(true)));

        let challenge = app.http.get(format!("{}/notes", example.url)).send().await.unwrap();
        assert_eq!(challenge.status(), 401);
        let challenge = header(challenge.headers(), "www-authenticate").unwrap().to_owned();
        assert!(challenge.contains("resource_metadata=") && !challenge.contains("error"), "{challenge}");
        let path = "/.well-known/oauth-protected-resource/notes";
        let metadata = app.http.get(format!("{}{path}", example.url)).send().await.unwrap();
        let metadata: Value = metadata.json().await.unwrap();
        assert_eq!(
            (&metadata["resource"], &metadata["authorization_servers"]),
            (&json!(AUDIENCE), &json!([app.origin]))
        );

        let (message, signature) = token.rsplit_once('.').unwrap();
        let forged = format!("{message}.{}", signature.chars().rev().collect::<String>());
        let long = "x".repeat(9000);
        for bad in [&other_audience, &unsigned(&token), &forged, "x", "a.b.c", &token[1..], &long] {
            let refused = example.post(&app, bad).await;
            assert_eq!(refused.status(), 401, "{bad}");
            assert!(
                header(refused.headers(), "www-authenticate").unwrap().contains("error=\"invalid_token\"")
            );
        }
        let refused = example.get(&app, &other_scope).await;
        assert_eq!(refused.status(), 403);
        assert!(header(refused.headers(), "www-authenticate").unwrap().contains("insufficient_scope"));
    }

    // After a revocation: with introspection it is refused at once for writing, and within five seconds for
    // reading.
    let again = tokens_for(&app, &mut browser, &client, AUDIENCE, "docs.read").await;
    let form = [("token", token.as_str()), ("client_id", &client.id)];
    assert_eq!(app.http.post(app.url("/revoke")).form(&form).send().await.unwrap().status(), 200);
    assert_eq!(asking.post(&app, &token).await.status(), 401);
    let reading = async {
        while asking.get(&app, &token).await.status() != 401 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(6), reading)
        .await
        .expect("a cached answer is five seconds old at most");
    assert_eq!(trusting.post(&app, &token).await.status(), 200, "as the documentation says");
    assert_eq!(asking.post(&app, &again).await.status(), 200);

    // While the authorization server is down everything is refused; afterwards no restart is needed.
    let listen = process.listen();
    process.kill();
    let refused = asking.post(&app, &again).await;
    assert_eq!(refused.status(), 503);
    assert!(header(refused.headers(), "retry-after").is_some());
    assert_eq!(trusting.post(&app, &again).await.status(), 200, "the key set is good for its lifetime");
    let _process = server(dir.path(), &listen);
    assert_eq!(asking.post(&app, &again).await.status(), 200);
    assert_eq!(asking.post(&app, &token).await.status(), 401);
}

/// RS-05, RS-06, RS-08, RS-09, KEYS-07, INTRO-02: the example in Python, with PyJWT.
#[tokio::test(flavor = "multi_thread")]
async fn the_example_in_python_accepts_our_tokens() {
    accepts_our_tokens(Language::Python).await;
}

/// RS-05, RS-06, RS-08, RS-09, KEYS-07, INTRO-02: the example in Node, with jose.
#[tokio::test(flavor = "multi_thread")]
async fn the_example_in_node_accepts_our_tokens() {
    accepts_our_tokens(Language::Node).await;
}

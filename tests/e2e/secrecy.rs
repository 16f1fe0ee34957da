//! Secrecy: after a complete story, no secret is in the log, in records or in files.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use hyper_util::rt::{TokioExecutor, TokioIo};
use reqwest::Response;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shared::Secret;

use crate::assertion::ClientKey;
use crate::certificates::{Authority, HOST, unused_port};
use crate::harness::{Browser, Client, ConsentPage, TestApp, Tokens, VERIFIER, attribute, challenge, header};
use crate::process::{Bare, Process, program};
use crate::raw::Handshake;

const RULES: &str = "device = true\n[registration]\nmanagement = true\n\
    [groups]\neveryone = [\"docs.read\", \"docs.full\"]\n\
    [scopes.\"docs.full\"]\ntitle = \"Read whole documents\"\nrisk = \"high\"\n[tools.docs_read]\nscope = \"docs.full\"\n";
/// The prefixes of our secrets, each followed by 43 characters.
const PREFIXES: [&str; 13] =
    ["ac_", "br_", "cer_", "cs_", "dc_", "enr_", "iat_", "ms_", "prf_", "rat_", "rt_", "sid_", "eyJ"];

/// A server with the most detailed log, its users and programs, and every secret that any of them was given.
struct Story {
    process: Process,
    app: TestApp,
    dir: Arc<tempfile::TempDir>,
    secrets: BTreeSet<String>,
}

impl Story {
    fn begin() -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let config = dir.path().join("portcullis.toml");
        std::fs::write(&config, RULES).unwrap();
        let mut command = program();
        command.args(["serve", "--json", "--listen", "localhost:0", "--config"]).arg(&config);
        command.arg("--data-dir").arg(dir.path().join("data")).env("PORTCULLIS_LOG", "trace");
        let process = Process::spawn(command);
        let app = TestApp::beside(&process, Arc::clone(&dir));
        let secrets = [VERIFIER.to_owned(), challenge()].into();
        Self { process, app, dir, secrets }
    }

    fn keep(&mut self, secret: impl Into<String>) -> String {
        let secret = secret.into();
        assert!(secret.len() >= 8, "{secret} is no secret");
        self.secrets.insert(secret.clone());
        secret
    }

    /// A secret member of a response.
    fn told(&mut self, answer: &Value, name: &str) -> String {
        let secret = answer[name].as_str().unwrap_or_else(|| panic!("no {name} in {answer}")).to_owned();
        self.keep(secret)
    }

    async fn tokens(&mut self, answer: Response) -> Tokens {
        assert_eq!(answer.status(), 200);
        let tokens = Tokens::of(answer).await;
        self.keep(&tokens.access);
        self.keep(&tokens.refresh);
        tokens
    }

    fn cookies(&mut self, browser: &Browser) {
        for value in browser.cookies.values() {
            self.keep(value);
        }
    }

    fn page(&mut self, page: &ConsentPage) {
        self.keep(&page.csrf);
        // Useless without the browser's cookies, and only while the request is pending.
        assert_eq!(in_query(&page.url), ["proof"]);
        let proof = page.url.split_once("proof=").unwrap().1;
        self.keep(proof);
        for attribute in ["href=\"", "action=\"", "src=\""] {
            for link in page.html.split(attribute).skip(1).filter_map(|rest| rest.split('"').next()) {
                assert_eq!(looks_like_a_secret(link), None, "a link of the page");
            }
        }
    }

    /// Registers, is allowed a scope, and gets tokens, authenticating by this method.
    async fn client(&mut self, browser: &mut Browser, method: &str, key: Option<&ClientKey>) -> Tokens {
        let iat = self.app.console(&["registration-token", "add", method]);
        let iat = self.told(&iat, "initial_access_token");
        let mut metadata = json!({
            "client_name": method,
            "redirect_uris": ["http://localhost/callback"],
            "grant_types": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_method": method,
        });
        if let Some(key) = key {
            metadata["jwks"] = key.jwks();
        }
        let request = self.app.http.post(self.app.url("/register")).bearer_auth(iat);
        let registered: Value = request.json(&metadata).send().await.unwrap().json().await.unwrap();
        self.told(&registered, "registration_access_token");
        let client = Client {
            id: registered["client_id"].as_str().unwrap().to_owned(),
            redirect_uri: "http://localhost:5123/callback".to_owned(),
        };
        let page = browser.consent_page(&self.app, &client.authorize_url(&self.app)).await;
        self.page(&page);
        self.cookies(browser);
        let answer = browser.decide(&self.app, &page, "approve").await;
        assert_eq!(in_query(header(answer.headers(), "location").unwrap()), ["code"], "RFC 6749 §4.1.2");
        let code = crate::harness::redirect_parameter(&answer, "code").unwrap();
        self.keep(&code);
        let secret = registered["client_secret"].as_str().map(|secret| self.keep(secret));
        let mut prove = |form: &[(&str, &str)]| {
            let mut form: Vec<_> = form.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            let mut request = self.app.http.post(self.app.url("/token"));
            match (&secret, key) {
                (Some(secret), _) => {
                    let basic = BASE64.encode(format!("{}:{secret}", client.id).as_bytes());
                    self.secrets.insert(basic.clone());
                    request = request.header("authorization", format!("Basic {basic}"));
                }
                (None, Some(key)) => {
                    for (name, value) in key.form(&self.app, &client.id) {
                        if name == "client_assertion" {
                            self.secrets.insert(value.clone());
                        }
                        form.push((name.to_owned(), value));
                    }
                }
                (None, None) => form.push(("client_id".to_owned(), client.id.clone())),
            }
            request.form(&form)
        };
        let redemption: Vec<_> =
            client.redemption(&code).into_iter().filter(|(name, _)| *name != "client_id").collect();
        let redeem = prove(&redemption);
        let tokens = redeem.send().await.unwrap();
        let replay = |tokens: &Tokens| {
            [("grant_type", "refresh_token".to_owned()), ("refresh_token", tokens.refresh.clone())]
        };
        let status = tokens.status();
        assert_eq!(status, 200, "{method}");
        let tokens = Tokens::of(tokens).await;
        let form = replay(&tokens);
        let form: Vec<_> = form.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let refreshed = prove(&form).send().await.unwrap();
        self.keep(&tokens.access);
        self.keep(&tokens.refresh);
        self.tokens(refreshed).await
    }

    /// A device gets what its user allows.
    async fn device(&mut self, browser: &mut Browser) {
        let added = self.app.console(&["client", "add", "Lab console", "--device", "--secret"]);
        let secret = self.told(&added, "client_secret");
        let id = added["client"]["id"].as_str().unwrap().to_owned();
        let proof = [("client_id", id.as_str()), ("client_secret", secret.as_str())];
        let form = [&proof[..], &[("scope", "docs.read")]].concat();
        let asked = self.app.http.post(self.app.url("/device_authorization")).form(&form).send();
        let asked: Value = asked.await.unwrap().json().await.unwrap();
        let (code, user_code) = (self.told(&asked, "device_code"), self.told(&asked, "user_code"));
        self.keep(user_code.replace('-', ""));
        let typed = browser.post_form(&self.app, "/device", &[("user_code", &user_code)]).await;
        let there = self.app.url(header(typed.headers(), "location").unwrap());
        let html = browser.get(&self.app, &there).await.text().await.unwrap();
        let handle = attribute(&html, "data-transaction").unwrap();
        let signed_in: Value = browser.sign_in(&self.app, Some(&handle)).await.json().await.unwrap();
        let url = self.app.url(signed_in["location"].as_str().unwrap());
        let html = browser.get(&self.app, &url).await.text().await.unwrap();
        let page = ConsentPage::of(url, html);
        self.page(&page);
        self.cookies(browser);
        let form = [
            ("transaction", page.transaction.as_str()),
            ("csrf", &page.csrf),
            ("decision", "approve"),
            ("scope", "docs.read"),
        ];
        assert_eq!(browser.post_form(&self.app, "/device/decision", &form).await.status(), 200);
        let grant = "urn:ietf:params:oauth:grant-type:device_code";
        let form = [&proof[..], &[("grant_type", grant), ("device_code", &code)]].concat();
        let polled = self.app.token(&form).await;
        assert_eq!(polled.status(), 200);
        let tokens: Value = polled.json().await.unwrap();
        self.told(&tokens, "access_token");
    }

    /// Sends secrets in every wrong place.
    async fn mishaps(&mut self, tokens: &Tokens) {
        let secrets: Vec<_> = self.secrets.iter().cloned().collect();
        for secret in &secrets {
            let http = &self.app.http;
            // A text that does not look like a secret is repeated as a name.
            let name = if Secret::is_likely(secret) { secret } else { "nobody" };
            // In the wrong place, of the wrong kind, malformed, to the wrong endpoint.
            let _ = self.app.token(&[("grant_type", secret), ("code", secret), ("client_id", name)]).await;
            let _ = self
                .app
                .token(&[
                    ("grant_type", "refresh_token"),
                    ("refresh_token", secret),
                    ("client_secret", secret),
                ])
                .await;
            let there = |path: &str, query: &[&str]| {
                let query = query.iter().map(|name| (*name, secret));
                url::Url::parse_with_params(&self.app.url(path), query).unwrap()
            };
            let _ = http.get(there("/authorize", &["redirect_uri", "state", "code_challenge"])).send().await;
            let _ = http.get(there("/consent", &["transaction", "proof"])).send().await;
            let _ = http.get(there("/nothing", &["access_token"])).header("cookie", secret).send().await;
            let _ = http
                .post(self.app.url("/mcp"))
                .bearer_auth(secret)
                .header("mcp-session-id", secret)
                .body(secret.clone())
                .send()
                .await;
            let _ = http
                .post(self.app.url("/revoke"))
                .basic_auth(name, Some(secret))
                .form(&[("token", secret)])
                .send()
                .await;
            let _ = http
                .post(self.app.url("/introspect"))
                .bearer_auth(secret)
                .form(&[("token", secret)])
                .send()
                .await;
            let metadata = json!({"redirect_uris": secret, "client_secret": secret, "client_name": [secret], "jwks": {"keys": [{"kty": secret, "d": secret}]}});
            let _ = http.post(self.app.url("/register")).bearer_auth(secret).json(&metadata).send().await;
            let _ = http
                .post(self.app.url("/enrol/start"))
                .header("origin", &self.app.origin)
                .json(&json!({"token": secret}))
                .send()
                .await;
            let _ = http
                .post(self.app.url("/login/finish"))
                .header("origin", &self.app.origin)
                .json(&json!({"ceremony": secret, "response": secret}))
                .send()
                .await;
            let _ = http
                .post(self.app.url("/sign-out"))
                .header("cookie", format!("{secret}={secret}"))
                .form(&[("csrf", secret)])
                .send()
                .await;
        }
        assert_eq!(
            self.app.call_tool(&tokens.access, "whoami", json!({"token": tokens.access})).await.status(),
            200
        );
    }

    /// The whole log, once it is complete.
    async fn log(&self) -> String {
        self.app.get("/the-end").await;
        loop {
            let log = self.process.log();
            if log.contains("/the-end") && log.ends_with('\n') {
                return log;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The parameters of a URL that hold a secret.
fn in_query(address: &str) -> Vec<String> {
    let address = url::Url::parse(address).unwrap();
    let secrets = address.query_pairs().filter(|(_, value)| Secret::is_likely(value));
    secrets.map(|(name, _)| name.into_owned()).collect()
}

/// The part of a text that looks like one of our secrets.
fn looks_like_a_secret(text: &str) -> Option<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let words = text.split(|c| !is_part(c)).filter(|word| word.len() >= 43);
    words
        .into_iter()
        .filter(|word| !is_a_checkpoint(word))
        .find(|word| PREFIXES.iter().any(|prefix| word.starts_with(prefix)))
}

/// A checkpoint of the audit log has the shape of a token and is public: its header identifies it.
fn is_a_checkpoint(word: &str) -> bool {
    let header = word.split('.').next().unwrap_or_default();
    let header = data_encoding::BASE64URL_NOPAD.decode(header.as_bytes()).unwrap_or_default();
    holds(&header, br#""typ":"portcullis-checkpoint+jws""#)
}

fn assert_clean(what: &str, text: &str, secrets: &BTreeSet<String>) {
    for secret in secrets {
        let at = text.find(secret.as_str());
        let around = at.map(|at| &text[at.saturating_sub(300)..(at + secret.len() + 100).min(text.len())]);
        assert!(around.is_none(), "{secret} is in {what}: {around:?}");
    }
    assert_eq!(looks_like_a_secret(text), None, "in {what}");
}

/// The content of all files below a directory.
fn files(dir: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else if path.is_file() {
            all.extend(std::fs::read(&path).unwrap());
        }
    }
    all
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

/// HTTP-12, HTTP-11, PKCE-06, STORE-01, AUDIT-05: after every feature was used, rightly and wrongly, no secret
/// is in the most detailed log, in any record or in any file. Only digests of secrets are stored.
#[tokio::test(flavor = "multi_thread")]
async fn a_whole_story_logs_no_secret() {
    let mut story = Story::begin();
    let link = story.app.setup_link.clone().unwrap();
    story.keep(link.split_once('#').unwrap().1);
    let mut ada = story.app.admin().await;
    story.cookies(&ada);
    let added = story.app.console(&["user", "add", "grace"]);
    let link = added["link"].as_str().unwrap().to_owned();
    story.keep(link.split_once('#').unwrap().1);
    let mut grace = Browser::new();
    assert_eq!(grace.follow_link(&story.app, &link).await.status(), 200);
    story.cookies(&grace);

    let public = story.client(&mut ada, "none", None).await;
    story.client(&mut grace, "client_secret_basic", None).await;
    let key = ClientKey::generate("ES256");
    story.keep(key.pem().lines().nth(1).unwrap());
    story.client(&mut ada, "private_key_jwt", Some(&key)).await;
    story.device(&mut grace).await;

    let server = story.app.console(&["rs", "add", "gateway", "--audience", &story.app.mcp_url()]);
    let secret = story.told(&server, "client_secret");
    let id = server["resource_server"]["id"].as_str().unwrap();
    for token in [&public.access, &public.refresh] {
        let asked = story.app.http.post(story.app.url("/introspect")).basic_auth(id, Some(&secret));
        assert_eq!(asked.form(&[("token", token)]).send().await.unwrap().status(), 200);
    }
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}});
    let request = story.app.http.post(story.app.mcp_url()).bearer_auth(&public.access);
    let request = request.header("accept", "application/json").json(&initialize);
    let begun = request.send().await.unwrap();
    let session = header(begun.headers(), "mcp-session-id").expect("a session").to_owned();
    story.keep(session);
    story.mishaps(&public).await;
    // An unused link and a pending device.
    let waiting = story.app.console(&["user", "add", "linus"]);
    let waiting = story.keep(waiting["link"].as_str().unwrap().split_once('#').unwrap().1);

    let log = story.log().await;
    assert!(log.lines().count() > 100 && log.contains("\"level\":\"DEBUG\""), "it tells all it does");
    assert_clean("the log", &log, &story.secrets);
    let audit = serde_json::to_string(&story.app.audit()).unwrap();
    assert_clean("the audit log", &audit, &story.secrets);
    let data = files(&story.app.data_dir());
    for secret in story.secrets.iter().filter(|secret| **secret != challenge()) {
        assert!(!holds(&data, secret.as_bytes()), "{secret} is in a file");
    }
    // Digests are stored, one for each kind that persists (HTTP-11).
    let kept: Vec<_> = ["ac_", "cs_", "dc_", "iat_", "ms_", "rat_", "rt_", "br_"]
        .into_iter()
        .map(|kind| {
            let digests = story.secrets.iter().filter(|secret| secret.starts_with(kind));
            (kind, digests.filter(|secret| holds(&data, &Sha256::digest(secret))).count())
        })
        .collect();
    assert!(kept.iter().all(|(_, digests)| *digests > 0), "{kept:?}");
    assert!(holds(&data, &Sha256::digest(&waiting)));
    assert!(story.dir.path().exists());
}

/// HTTP-12: the HTTP/2 library does not log what it sees at any log level.
#[tokio::test(flavor = "multi_thread")]
async fn frames_are_not_logged() {
    let dir = tempfile::tempdir().unwrap();
    let identity = Authority::new().issue(&[HOST], 90);
    identity.write(dir.path(), "gate");
    let port = unused_port();
    let mut command = program();
    command.current_dir(dir.path()).bare().env("PORTCULLIS_LOG", "trace,h2=trace,hyper=trace");
    command.args(["serve", "--json", "--data-dir", "data", "--listen", &format!("127.0.0.1:{port}")]);
    command.args([
        "--issuer",
        &format!("https://{HOST}:{port}"),
        "--tls-cert",
        "gate.pem",
        "--tls-key",
        "gate.key",
    ]);
    let process = Process::spawn(command);
    let handshake = Handshake { protocols: b"\x02h2", ..Handshake::new(&identity.authority) };
    let stream = handshake.shake(&process.origin).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let secret = "secret-0123456789-abcdefghijklmnopqrstuvwxyz";
    for (method, path) in [("POST", "/token"), ("GET", "/consent"), ("POST", "/mcp"), ("GET", "/the-end")] {
        let request = hyper::Request::builder()
            .method(method)
            .uri(format!("{}{path}?proof={secret}", process.origin))
            .header("authorization", format!("Bearer {secret}"))
            .header("cookie", format!("__Host-sid={secret}; __Host-txn={secret}"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(axum::body::Body::from(format!("grant_type=refresh_token&refresh_token={secret}")))
            .unwrap();
        assert!(sender.send_request(request).await.unwrap().status().is_client_error(), "{path}");
    }
    let log = loop {
        let log = process.log();
        if log.contains("/the-end") && log.ends_with('\n') {
            break log;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(!log.contains(secret), "{log}");
}

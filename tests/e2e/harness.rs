//! A server in this process on a free port, with a clock that stands still, and helpers for users and clients.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use authz::Authz;
use data_encoding::BASE64URL_NOPAD;
use portcullis::config::{CommandLineOptions, File, Origin, Running};
use portcullis::front;
use portcullis::front::address::Listen;
use portcullis::serve::{Options, Server};
use reqwest::header::{HeaderMap, HeaderValue, LOCATION};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shared::Db;
use shared::clock::{Clock, Timestamp};
use shared::db::ReadOnly;
use shared::rate::Limits;
use shared::route::Table;
use shared::schema::SCHEMA;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::certificates::{Authority, HOST, unused_port};
use crate::process::{Process, complaint, own_program, portcullis, share_clock};

#[path = "harness/browser.rs"] // benches take this file by its path, and a path below it is meant from here
mod browser;

pub use browser::*;

/// The verifier that matches [`Client::authorize_url`].
pub const VERIFIER: &str = "correct-horse-battery-staple-0123456789-abcdefg";

/// The challenge of [`VERIFIER`].
pub fn challenge() -> String {
    BASE64URL_NOPAD.encode(&Sha256::digest(VERIFIER))
}

/// A running server.
pub struct TestApp {
    pub origin: String,
    /// The address to connect to: its origin, or the port behind the TLS proxy that these tests simulate.
    reached_at: String,
    pub clock: Clock,
    /// The server's declared routes.
    pub table: Table,
    pub setup_link: Option<String>,
    pub http: reqwest::Client,
    dir: Arc<tempfile::TempDir>,
    options: Options,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl TestApp {
    /// Starts a server without users.
    pub async fn start() -> Self {
        Self::start_with(authz::Config::default()).await
    }

    /// Starts one with other lifetimes and rules.
    pub async fn start_with(config: authz::Config) -> Self {
        Self::start_from("", Some(config)).await
    }

    /// Starts one with a `portcullis.toml`.
    pub async fn start_configured(toml: &str) -> Self {
        Self::start_from(toml, None).await
    }

    /// Starts one as if behind a TLS proxy, so that it is not on loopback.
    pub async fn start_https(toml: &str) -> Self {
        Self::start_configured(&format!(
            "issuer = \"https://auth.example\"\ntrusted_proxies = [\"127.0.0.1\", \"::1\"]\n{toml}"
        ))
        .await
    }

    async fn start_from(toml: &str, config: Option<authz::Config>) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), toml, config).await
    }

    /// Starts one with these settings and also returns its writer, for tests that block it.
    pub async fn start_with_writer(toml: &str) -> (Self, Writer) {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let (clock, options) = Self::prepared(&dir, toml, None);
        share_clock(&options.file.data_dir_or_default(), &clock);
        let server = portcullis::start(options.clone(), clock.clone()).await.unwrap();
        let writer = Writer { authz: server.authz().unwrap().clone(), db: server.db().clone() };
        (Self::around(server, dir, clock, options), writer)
    }

    /// Starts one that speaks TLS as [`HOST`], with these additional settings.
    pub async fn start_secured(toml: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let identity = Authority::new().issue(&[HOST], 90);
        let [cert, key] = identity.write(dir.path(), "gate");
        let port = unused_port();
        let tls = format!(
            "issuer = \"https://{HOST}:{port}\"\nlisten = \"127.0.0.1:{port}\"\n{toml}\n[tls]\ncert = \"{}\"\nkey = \"{}\"\n",
            cert.display(),
            key.display()
        );
        Self::start_in(dir, &tls, None).await
    }

    async fn start_in(dir: tempfile::TempDir, toml: &str, config: Option<authz::Config>) -> Self {
        let dir = Arc::new(dir);
        let (clock, options) = Self::prepared(&dir, toml, config);
        Self::open(dir, clock, options).await
    }

    fn prepared(dir: &tempfile::TempDir, toml: &str, config: Option<authz::Config>) -> (Clock, Options) {
        let path = dir.path().join("portcullis.toml");
        std::fs::write(&path, toml).unwrap();
        let origin = Origin { named: Some(path), given: CommandLineOptions::default() };
        let reading = origin.read().map_err(|unreadable| unreadable.why).unwrap();
        let running = Arc::new(Running { origin, reading });
        let mut file = File { data_dir: Some(dir.path().join("data")), ..running.reading.file.clone() };
        file.authz = config.unwrap_or(file.authz);
        if !toml.contains("[rate]") {
            // A clock that stands still refills no bucket.
            file.limits = Limits::off();
        }
        // The clock is held, so that a test decides when steps of the schedule are due.
        file.signing.keys.look = std::time::Duration::from_millis(100);
        file.front.listen.get_or_insert_with(|| "localhost:0".to_owned());
        let docs = dir.path().join("docs");
        std::fs::create_dir(&docs).unwrap();
        std::fs::write(docs.join("falcon.md"), "# Falcon\n\n## Launch\n\nThe falcon launches at dawn.\n")
            .unwrap();
        file.resource.docs = Some(docs);
        // 2026-11-23, noon.
        let clock = Clock::held(Timestamp(1_795_435_200_000));
        let options = Options { only: None, file, running, children: own_program() };
        (clock, options)
    }

    async fn open(dir: Arc<tempfile::TempDir>, clock: Clock, options: Options) -> Self {
        share_clock(&options.file.data_dir_or_default(), &clock);
        let server = portcullis::start(options.clone(), clock.clone()).await.unwrap();
        Self::around(server, dir, clock, options)
    }

    fn around(server: Server, dir: Arc<tempfile::TempDir>, clock: Clock, mut options: Options) -> Self {
        let origin = server.address().to_string();
        let port = server.port().unwrap();
        let setup_link = server.setup_link().map(str::to_owned);
        let table = server.table();
        let stop = CancellationToken::new();
        let task = tokio::spawn(server.run(stop.clone()));
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy();
        let mut reached_at = origin.clone();
        let http = match (&options.file.front.tls.cert, origin.split_once("://")) {
            (Some(certificate), _) => {
                let authority = std::fs::read(certificate.with_extension("ca")).unwrap();
                let authority = reqwest::Certificate::from_pem(&authority).unwrap();
                client.add_root_certificate(authority).resolve(HOST, ([127, 0, 0, 1], port).into())
            }
            (None, Some(("https", host))) => {
                reached_at = format!("http://127.0.0.1:{port}");
                client.default_headers([(reqwest::header::HOST, host.parse().unwrap())].into_iter().collect())
            }
            _ => client,
        };
        if options.file.front.listen().unwrap() == Listen::Loopback(0) {
            options.file.front.listen = Some(format!("localhost:{port}"));
        }
        let http = http.build().unwrap();
        Self { origin, reached_at, clock, table, setup_link, http, dir, options, stop, task }
    }

    /// A server in a separate process, used like any other. This value does not stop it.
    pub fn beside(process: &Process, dir: Arc<tempfile::TempDir>) -> Self {
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .unwrap();
        Self {
            origin: process.origin.clone(),
            reached_at: process.origin.clone(),
            clock: Clock::system(),
            table: Table::default(),
            setup_link: process.setup_link.clone(),
            http,
            options: Options {
                only: None,
                file: File {
                    data_dir: Some(dir.path().join("data")),
                    front: front::config::Config {
                        listen: process.origin.strip_prefix("http://").map(str::to_owned),
                        ..front::config::Config::default()
                    },
                    ..File::default()
                },
                running: Arc::default(),
                children: own_program(),
            },
            dir,
            stop: CancellationToken::new(),
            task: tokio::spawn(async {}),
        }
    }

    /// Stops the server and starts it again on the same port and data.
    pub async fn restart(self) -> Self {
        self.stop().await.start().await
    }

    /// The same, as another process on the same machine, which has not returned a time yet.
    pub async fn restart_as_another_process(mut self) -> Self {
        self.clock = self.clock.of_another_process();
        self.restart().await
    }

    /// Stops the server; its data stay.
    pub async fn stop(self) -> Stopped {
        self.stop.cancel();
        self.task.await.unwrap();
        Stopped { dir: self.dir, clock: self.clock, options: self.options }
    }

    /// Restarts it with another `portcullis.toml`.
    pub async fn restart_configured(mut self, toml: &str) -> Self {
        self.options.file = self.configure(toml).unwrap();
        self.restart().await
    }

    /// Writes another `portcullis.toml`; returns the settings that a server would read from it.
    pub fn configure(&self, toml: &str) -> anyhow::Result<File> {
        let path = self.dir.path().join("portcullis.toml");
        std::fs::write(&path, toml).unwrap();
        let before = self.options.file.clone();
        Ok(File {
            issuer: before.issuer,
            data_dir: before.data_dir,
            front: before.front,
            resource: before.resource,
            limits: before.limits,
            ..File::load(Some(&path))?
        })
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.reached_at)
    }

    /// The address at which a URL of this server is reached.
    pub fn reach(&self, url: &str) -> String {
        url.replacen(&self.origin, &self.reached_at, 1)
    }

    /// The identifier of the MCP endpoint.
    pub fn mcp_url(&self) -> String {
        format!("{}/mcp", self.origin)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub async fn get(&self, path: &str) -> Response {
        self.http.get(self.url(path)).send().await.unwrap()
    }

    /// The first administrator, set up and signed in.
    pub async fn admin(&self) -> Browser {
        let mut browser = Browser::new();
        let link = self.setup_link.as_ref().expect("a new server has a setup link");
        let finished = browser.set_up(self, link, "ada").await;
        assert_eq!(finished.status(), 200);
        browser
    }

    /// Runs a command over the control socket, like the program itself.
    pub fn console(&self, arguments: &[&str]) -> Value {
        let data = self.data_dir();
        let mut all = arguments.to_vec();
        all.extend(["--json", "--data-dir", data.to_str().unwrap()]);
        let output = portcullis(&all);
        assert!(output.status.success(), "{arguments:?}: {}", complaint(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Adds a user to these groups, who opens the link and creates a passkey.
    pub async fn enrol(&self, name: &str, groups: &[&str]) -> Browser {
        let mut arguments = vec!["user", "add", name];
        for group in groups {
            arguments.extend(["--group", group]);
        }
        let added = self.console(&arguments);
        let mut browser = Browser::new();
        let finished = browser.follow_link(self, added["link"].as_str().unwrap()).await;
        assert_eq!(finished.status(), 200);
        browser
    }

    /// Registers a client with these redirect URIs.
    pub async fn register(&self, metadata: &Value) -> Response {
        self.http.post(self.url("/register")).json(metadata).send().await.unwrap()
    }

    /// A public client on this computer that uses refresh tokens.
    pub async fn client(&self) -> Client {
        let metadata = json!({
            "client_name": "Test client",
            "redirect_uris": ["http://localhost/callback"],
            "grant_types": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_method": "none",
            // Each is a separate installation: repeating a registration would return the same client.
            "software_id": shared::id::random_128(),
        });
        let response = self.register(&metadata).await;
        assert_eq!(response.status(), 201);
        let registered: Value = response.json().await.unwrap();
        Client {
            id: registered["client_id"].as_str().unwrap().to_owned(),
            redirect_uri: "http://localhost:5123/callback".to_owned(),
        }
    }

    /// Posts to the token endpoint.
    pub async fn token(&self, form: &[(&str, &str)]) -> Response {
        self.http.post(self.url("/token")).form(form).send().await.unwrap()
    }

    /// Redeems a code with a valid request.
    pub async fn redeem(&self, client: &Client, code: &str) -> Response {
        self.token(&client.redemption(code)).await
    }

    /// Uses a refresh token with a valid request.
    pub async fn refresh(&self, client: &Client, refresh_token: &str) -> Response {
        self.token(&[
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token),
            ("client_id", &client.id),
        ])
        .await
    }

    /// Signs in, approves and redeems: tokens for a client.
    pub async fn tokens(&self, browser: &mut Browser, client: &Client) -> Tokens {
        let code = browser.authorize(self, client).await;
        let response = self.redeem(client, &code).await;
        assert_eq!(response.status(), 200);
        Tokens::of(response).await
    }

    /// Calls a tool like a 2025-11-25 client without a session.
    pub async fn call_tool(&self, access_token: &str, name: &str, arguments: Value) -> Response {
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}});
        self.http
            .post(self.url("/mcp"))
            .bearer_auth(access_token)
            .header("accept", "application/json")
            .header("mcp-protocol-version", "2025-11-25")
            .json(&call)
            .send()
            .await
            .unwrap()
    }

    /// Every audit record so far.
    pub fn audit(&self) -> Vec<Value> {
        let db = ReadOnly::open(&self.data_dir().join("portcullis.db"), &SCHEMA).unwrap();
        db.read(shared::audit::verify).unwrap().expect("the chain holds");
        db.read(|conn| shared::audit::tail(conn, 100_000, 0)).unwrap()
    }

    /// The recorded events, in order, with their reasons.
    pub fn events(&self) -> Vec<(String, Option<String>)> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        self.audit().iter().map(|r| (text(&r["event"]).unwrap(), text(&r["reason"]))).collect()
    }

    /// Whether this event was recorded with this reason.
    pub fn has_event(&self, event: &str, reason: Option<&str>) -> bool {
        self.events().iter().any(|(e, r)| e == event && r.as_deref() == reason)
    }
}

/// A server's writer. While this exists, the server's database stays open.
pub struct Writer {
    pub authz: Authz,
    pub db: Db,
}

/// A stopped server.
pub struct Stopped {
    pub clock: Clock,
    dir: Arc<tempfile::TempDir>,
    options: Options,
}

impl Stopped {
    /// Starts it again on the same port.
    pub async fn start(self) -> TestApp {
        TestApp::open(self.dir, self.clock, self.options).await
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }
}

/// A registered client.
#[derive(Clone, Debug)]
pub struct Client {
    pub id: String,
    pub redirect_uri: String,
}

impl Client {
    /// The parameters of a valid authorization request.
    pub fn request(&self, app: &TestApp) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("response_type", "code".to_owned()),
            ("client_id", self.id.clone()),
            ("redirect_uri", self.redirect_uri.clone()),
            ("code_challenge", challenge()),
            ("code_challenge_method", "S256".to_owned()),
            ("state", "st ate&1".to_owned()),
            ("scope", "docs.read".to_owned()),
            ("resource", app.mcp_url()),
        ])
    }

    /// The URL of a valid authorization request.
    pub fn authorize_url(&self, app: &TestApp) -> String {
        authorize_url(app, &self.request(app))
    }

    /// The form that redeems a code with a valid request.
    pub fn redemption<'a>(&'a self, code: &'a str) -> Vec<(&'a str, &'a str)> {
        vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("client_id", &self.id),
            ("redirect_uri", &self.redirect_uri),
            ("code_verifier", VERIFIER),
        ]
    }
}

/// The authorization URL with these parameters.
pub fn authorize_url(app: &TestApp, parameters: &BTreeMap<&'static str, String>) -> String {
    Url::parse_with_params(&app.url("/authorize"), parameters).unwrap().to_string()
}

/// The response of the token endpoint.
#[derive(Clone, Debug)]
pub struct Tokens {
    pub access: String,
    pub refresh: String,
    pub body: Value,
}

impl Tokens {
    pub async fn of(response: Response) -> Self {
        let body: Value = response.json().await.unwrap();
        let text =
            |name: &str| body[name].as_str().unwrap_or_else(|| panic!("no {name} in {body}")).to_owned();
        Self { access: text("access_token"), refresh: text("refresh_token"), body }
    }

    /// The claims of the access token, unverified.
    pub fn claims(&self) -> Value {
        let payload = self.access.split('.').nth(1).unwrap();
        serde_json::from_slice(&BASE64URL_NOPAD.decode(payload.as_bytes()).unwrap()).unwrap()
    }
}

/// The status and `error` of an OAuth error.
pub async fn error_of(response: Response) -> (StatusCode, String) {
    let status = response.status();
    let body: Value = response.json().await.unwrap();
    (status, body["error"].as_str().unwrap_or_else(|| panic!("no error in {body}")).to_owned())
}

/// A parameter of the URL in a redirect.
pub fn redirect_parameter(response: &Response, name: &str) -> Option<String> {
    let location = Url::parse(header(response.headers(), LOCATION.as_str())?).unwrap();
    location.query_pairs().find(|(n, _)| n == name).map(|(_, value)| value.into_owned())
}

/// A header's text.
pub fn header<'a>(headers: &'a HeaderMap<HeaderValue>, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

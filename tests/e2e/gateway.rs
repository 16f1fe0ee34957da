//! A gateway elsewhere, run in the test's process, for tokens of the server under test.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis::config::{CommandLineOptions, File, OneHalf, Origin, Running};
use portcullis::front;
use portcullis::front::proxies::Proxies;
use portcullis::serve::Options;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use shared::Clock;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::harness::{TestApp, header};
use crate::process::{own_program, share_clock};

/// Its public origin. No resolver knows it.
pub const ORIGIN: &str = "https://gateway.lab.internal";
pub const AUDIENCE: &str = "https://gateway.lab.internal/mcp";

/// The address and URL of a gateway.
#[derive(Clone)]
pub struct GatewayAddress {
    pub http: reqwest::Client,
    pub url: String,
}

/// A gateway that runs in this process, by the same held clock as the authorization server if nothing is said.
pub struct LocalGateway {
    pub clock: Clock,
    door: GatewayAddress,
    options: Options,
    stop: CancellationToken,
    task: JoinHandle<()>,
    dir: Arc<tempfile::TempDir>,
}

impl GatewayAddress {
    /// A request under the name that it is known by.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).header("host", "gateway.lab.internal")
    }

    /// Calls a tool like a 2025-11-25 client without a session.
    pub async fn call(&self, token: &str, tool: &str, arguments: Value) -> Response {
        self.ask(token, "tools/call", json!({"name": tool, "arguments": arguments})).await
    }

    /// Sends a request like such a client.
    pub async fn ask(&self, token: &str, method: &str, params: Value) -> Response {
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let request = self.request(Method::POST, "/mcp").bearer_auth(token);
        let request = request.header("accept", "application/json");
        request.header("mcp-protocol-version", "2025-11-25").json(&message).send().await.unwrap()
    }

    /// The status of a call that needs only a valid token.
    pub async fn whoami(&self, token: &str) -> u16 {
        self.call(token, "whoami", json!({})).await.status().as_u16()
    }

    /// A call that needs `docs.read`.
    pub async fn search(&self, token: &str) -> Response {
        self.call(token, "docs_search", json!({"query": "passkey"})).await
    }

    /// Opens a GET stream of a session, like clients of the older revisions, and reads it to its end.
    pub async fn listen(&self, token: &str) -> Response {
        let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}});
        let begun = self.request(Method::POST, "/mcp").bearer_auth(token).json(&hello);
        let begun = begun.header("accept", "application/json").send().await.unwrap();
        assert_eq!(begun.status(), 200);
        let session = header(begun.headers(), "mcp-session-id").unwrap().to_owned();
        let stream = self.request(Method::GET, "/mcp").bearer_auth(token).header("mcp-session-id", session);
        let mut stream = stream.header("accept", "text/event-stream").send().await.unwrap();
        assert_eq!(stream.status(), 200);
        assert!(stream.chunk().await.unwrap().is_some(), "it says at once that it is open");
        stream
    }
}

impl std::ops::Deref for LocalGateway {
    type Target = GatewayAddress;

    fn deref(&self) -> &GatewayAddress {
        &self.door
    }
}

impl LocalGateway {
    /// One that the authorization server is told of, with this besides in its `[remote]`.
    pub async fn start(app: &TestApp, more: &str) -> Self {
        Self::start_by(app, more, app.clock.clone()).await
    }

    /// Starts one on a machine with its own clock.
    pub async fn start_by(app: &TestApp, more: &str, clock: Clock) -> Self {
        let added = app.console(&["rs", "add", "gateway", "--audience", AUDIENCE]);
        let id = added["resource_server"]["id"].as_str().unwrap();
        Self::known_by(app, id, added["client_secret"].as_str().unwrap(), more, clock).await
    }

    /// Starts one with these credentials.
    pub async fn known_as(app: &TestApp, id: &str, secret: &str, more: &str) -> Self {
        Self::known_by(app, id, secret, more, app.clock.clone()).await
    }

    async fn known_by(app: &TestApp, id: &str, secret: &str, more: &str, clock: Clock) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let path = dir.path().join("portcullis.toml");
        std::fs::write(&path, format!("[remote]\nclient_id = \"{id}\"\nsecret_file = \"secret\"\n{more}"))
            .unwrap();
        write_secret(&dir.path().join("secret"), secret, 0o600);
        let origin = Origin { named: Some(path), given: CommandLineOptions::default() };
        let reading = origin.read().map_err(|unreadable| unreadable.why).unwrap();
        let running = Arc::new(Running { origin, reading });
        // As behind a TLS proxy.
        let proxies = Proxies {
            networks: vec!["127.0.0.1/32".parse().unwrap(), "::1/128".parse().unwrap()],
            ..Proxies::default()
        };
        let listen = Some("localhost:0".to_owned());
        let file = File {
            front: front::config::Config { listen, proxies, ..front::config::Config::default() },
            origin: Some(ORIGIN.to_owned()),
            issuer: Some(app.origin.clone()),
            data_dir: Some(dir.path().join("data")),
            limits: shared::rate::Limits::off(),
            ..running.reading.file.clone()
        };
        let options = Options { only: Some(OneHalf::Resource), file, running, children: own_program() };
        Self::open(dir, options, clock, app.http.clone()).await
    }

    async fn open(
        dir: Arc<tempfile::TempDir>,
        options: Options,
        clock: Clock,
        http: reqwest::Client,
    ) -> Self {
        share_clock(&options.file.data_dir_or_default(), &clock);
        let gateway = portcullis::start(options.clone(), clock.clone()).await.unwrap();
        let url = format!("http://localhost:{}", gateway.port().unwrap());
        let stop = CancellationToken::new();
        let task = tokio::spawn(gateway.run(stop.clone()));
        Self { clock, door: GatewayAddress { http, url }, options, stop, task, dir }
    }

    /// Stops it, and starts it as another process on the same machine.
    pub async fn restart(self) -> Self {
        let (dir, options, http) = (Arc::clone(&self.dir), self.options.clone(), self.door.http.clone());
        let clock = self.clock.of_another_process();
        self.end().await;
        Self::open(dir, options, clock, http).await
    }

    /// Keeps its data after it stops.
    pub fn dir(&self) -> Arc<tempfile::TempDir> {
        Arc::clone(&self.dir)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Its audit records, after verifying the chain.
    pub fn events(&self) -> Vec<Value> {
        let db = self.dir.path().join("data/portcullis.db");
        let db = shared::db::ReadOnly::open(&db, &shared::schema::SCHEMA).unwrap();
        db.read(shared::audit::verify).unwrap().expect("the chain holds");
        db.read(|conn| shared::audit::tail(conn, 100_000, 0)).unwrap()
    }

    pub async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

/// Writes a file with a secret.
pub fn write_secret(path: &Path, secret: &str, mode: u32) {
    std::fs::write(path, format!("{secret}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

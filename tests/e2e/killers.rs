//! Whatever ends access, seen by a real client that holds an unexpired token and an open stream: its very next request
//! is refused as the standards say, its stream is closed within two seconds, introspection says `{"active":false}`, and
//! the audit log names who did it, to whom. So it is while the server runs, and for a server that starts after it.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::BASE64;
use reqwest::header::LOCATION;
use serde_json::{Value, json};
use url::Url;

use crate::harness::{Browser, TestApp, header, redirect_parameter};
use crate::process::{Driver, PORTCULLIS, Process, complaint, portcullis};
use crate::python_clients::MCP;

/// Somebody in the group that may read, who can be taken out of it.
const CONFIGURATION: &str = "[groups]\neveryone = []\nreaders = [\"docs.read\"]\n";
/// RS-10, in milliseconds.
const CLOSED_WITHIN: f64 = 2000.0;

/// What ends access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Killer {
    RefreshTokenRevoked,
    AccessTokenRevoked,
    UserDisabled,
    UserDeleted,
    ClientDisabled,
    ClientDeleted,
    GrantRevoked,
    TokenRevoked,
    Lockdown,
    GroupLeft,
    RefreshTokenReused,
    CodeReplayed,
    KeyRemoved,
}

impl Killer {
    /// Whether only what the client holds at this moment ends: its refresh token buys it another.
    fn leaves_the_grant(self) -> bool {
        matches!(self, Self::AccessTokenRevoked | Self::TokenRevoked | Self::KeyRemoved)
    }

    /// The command for it; none if it is no administrator's.
    fn command(self, held: &Held) -> Option<Vec<String>> {
        let words: &[&str] = match self {
            Self::UserDisabled => &["user", "disable", "ines"],
            Self::UserDeleted => &["user", "delete", "ines"],
            Self::ClientDisabled => &["client", "disable", &held.client_id],
            Self::ClientDeleted => &["client", "delete", &held.client_id],
            Self::GrantRevoked => &["grant", "revoke", &held.grant],
            Self::TokenRevoked => &["token", "revoke", &held.jti],
            Self::Lockdown => &["lockdown", "--yes"],
            Self::GroupLeft => &["user", "groups", "ines", "--remove", "readers"],
            Self::KeyRemoved => &["key", "remove", "--kid", &held.kid, "--reason", "it leaked", "--yes"],
            _ => return None,
        };
        Some(words.iter().map(|&word| word.to_owned()).collect())
    }

    /// The event on record, who did it, and what says whom it was done to.
    fn record(self, held: &Held) -> (&'static str, &'static str, &'static str, &str) {
        match self {
            Self::RefreshTokenRevoked => ("token.revoked", "client", "/grant_id", &held.grant),
            Self::AccessTokenRevoked => ("token.revoked", "client", "/jti", &held.jti),
            Self::UserDisabled => ("user.disabled", "console", "/subject", &held.user),
            Self::UserDeleted => ("user.deleted", "console", "/subject", &held.user),
            Self::ClientDisabled => ("client.disabled", "console", "/client_id", &held.client_id),
            Self::ClientDeleted => ("client.deleted", "console", "/client_id", &held.client_id),
            Self::GrantRevoked => ("token.revoked", "console", "/grant_id", &held.grant),
            Self::TokenRevoked => ("token.revoked", "console", "/jti", &held.jti),
            Self::Lockdown => ("token.revoked", "console", "/detail/token", "everything"),
            Self::GroupLeft => ("user.role_changed", "console", "/subject", &held.user),
            // Whoever came with it passed for this client.
            Self::RefreshTokenReused => ("token.refresh.reuse", "client", "/grant_id", &held.grant),
            Self::CodeReplayed => ("code.replay", "client", "/grant_id", &held.grant),
            Self::KeyRemoved => ("key.removed", "console", "/detail/kid", &held.kid),
        }
    }
}

/// The clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sdk {
    /// The MCP TypeScript SDK 2, in this revision.
    TypeScript(&'static str),
    /// The MCP Python SDK.
    Python(&'static str),
}

/// What the client has in its hands.
struct Held {
    access_token: String,
    refresh_token: String,
    client_id: String,
    user: String,
    grant: String,
    jti: String,
    kid: String,
}

impl Held {
    fn by(client: &mut Driver) -> Self {
        let tokens = client.ok(&json!({"op": "tokens"}));
        let text = |at: &str| {
            let found = tokens.pointer(at).and_then(Value::as_str);
            found.unwrap_or_else(|| panic!("no {at} in {tokens}")).to_owned()
        };
        let access_token = text("/access_token");
        let head = access_token.split('.').next().unwrap();
        let head: Value =
            serde_json::from_slice(&data_encoding::BASE64URL_NOPAD.decode(head.as_bytes()).unwrap()).unwrap();
        Self {
            refresh_token: text("/refresh_token"),
            client_id: text("/client_id"),
            user: text("/claims/sub"),
            grant: text("/claims/grant_id"),
            jti: text("/claims/jti"),
            kid: head["kid"].as_str().unwrap().to_owned(),
            access_token,
        }
    }
}

/// A server in its own process, Ines, her client, and a resource server that asks about its token.
struct Scene {
    dir: Arc<tempfile::TempDir>,
    process: Process,
    app: TestApp,
    client: Driver,
    sdk: Sdk,
    /// `Basic` credentials of the resource server.
    introspecting: String,
    /// What the browser took to the client.
    code: String,
    redirect_uri: String,
}

impl Scene {
    /// Up to the point where the client has a stream open, where its revision has any, and has used a tool.
    async fn set(sdk: Sdk) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        std::fs::write(dir.path().join("portcullis.toml"), CONFIGURATION).unwrap();
        let docs = dir.path().join("docs");
        std::fs::create_dir(&docs).unwrap();
        std::fs::write(docs.join("falcon.md"), "# Falcon\n\nThe falcon launches at dawn.\n").unwrap();
        let process = serve(dir.path(), "localhost:0");
        let app = TestApp::beside(&process, Arc::clone(&dir));
        app.admin().await;
        let mut ines = app.enrol("ines", &["readers"]).await;
        let server = app.console(&["rs", "add", "elsewhere", "--audience", &app.mcp_url()]);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (id, secret) = (text(&server["resource_server"]["id"]), text(&server["client_secret"]));
        let introspecting = format!("Basic {}", BASE64.encode(format!("{id}:{secret}").as_bytes()));
        let mut client = match sdk {
            Sdk::TypeScript(protocol) => Driver::typescript(&process.mcp_url, protocol, dir.path()),
            Sdk::Python(protocol) => MCP.start_for(&process.mcp_url, protocol, dir.path()),
        };
        let (code, redirect_uri) = sign_in(&app, &mut ines, &mut client).await;
        let mut scene = Self { dir, process, app, client, sdk, introspecting, code, redirect_uri };
        if scene.has_stream() {
            scene.client.ok(&json!({"op": "stream_opened"}));
        }
        assert_eq!(scene.call()["ok"], true);
        scene
    }

    /// Clients of the revisions with sessions open one; in the newest there is none to open.
    fn has_stream(&self) -> bool {
        self.sdk != Sdk::TypeScript("modern")
    }

    /// The client's next request.
    fn call(&mut self) -> Value {
        let call = json!({"op": "call", "name": "docs_search", "arguments": {"query": "falcon"}});
        self.client.attempt(&call)
    }

    /// The requests to the endpoint that were answered since it was asked last.
    fn answered(&mut self) -> Vec<Value> {
        let heard = self.client.ok(&json!({"op": "http"}));
        let to_endpoint =
            |exchange: &&Value| exchange["url"] == self.process.mcp_url && !exchange["status"].is_null();
        heard["exchanges"].as_array().unwrap().iter().filter(to_endpoint).cloned().collect()
    }

    /// Ends it. Returns when whoever ended it has been answered.
    async fn kill(&self, killer: Killer, held: &Held) {
        if let Some(command) = killer.command(held) {
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            self.app.console(&words);
            return;
        }
        let client_id = held.client_id.as_str();
        let verifier = || {
            let state = std::fs::read(self.dir.path().join("state.json")).unwrap();
            serde_json::from_slice::<Value>(&state).unwrap()["code_verifier"].as_str().unwrap().to_owned()
        };
        match killer {
            Killer::RefreshTokenRevoked => self.revoke(&held.refresh_token, client_id).await,
            Killer::AccessTokenRevoked => self.revoke(&held.access_token, client_id).await,
            Killer::RefreshTokenReused => {
                let form = [
                    ("grant_type", "refresh_token"),
                    ("refresh_token", &held.refresh_token),
                    ("client_id", client_id),
                ];
                assert_eq!(self.app.token(&form).await.status(), 400);
            }
            Killer::CodeReplayed => {
                let form = [
                    ("grant_type", "authorization_code"),
                    ("code", &self.code),
                    ("client_id", client_id),
                    ("redirect_uri", &self.redirect_uri),
                    ("code_verifier", &verifier()),
                ];
                assert_eq!(self.app.token(&form).await.status(), 400);
            }
            other => unreachable!("{other:?} is a command"),
        }
    }

    async fn revoke(&self, token: &str, client_id: &str) {
        let form = [("token", token), ("client_id", client_id)];
        let answer = self.app.http.post(self.app.url("/revoke")).form(&form).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }

    async fn introspected(&self, token: &str) -> Value {
        let request = self.app.http.post(self.app.url("/introspect"));
        let request = request.header("authorization", &self.introspecting).form(&[("token", token)]);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    }

    /// The client's next request, and what the endpoint answered first since it ended.
    fn is_refused(&mut self, killer: Killer) {
        let told = self.call();
        let answered = self.answered();
        let first = answered.first().unwrap_or_else(|| panic!("{killer:?}: nothing was answered: {told}"));
        let challenge = first["www_authenticate"].as_str().unwrap_or_default();
        if killer == Killer::GroupLeft {
            // MCP-09: what a user is not entitled to does not exist.
            assert_eq!(first["status"], 200, "{killer:?}: {first}");
            assert!(told["error"].as_str().unwrap().contains("Unknown tool: docs_search"), "{told}");
        } else {
            assert_eq!(first["status"], 401, "{killer:?}: {first}");
            assert!(challenge.contains("error=\"invalid_token\""), "{killer:?}: {first}");
        }
        // Nobody is there to sign in. The Python SDK does not refresh when it is told 401.
        let heals = killer.leaves_the_grant() && matches!(self.sdk, Sdk::TypeScript(_));
        assert_eq!(told["ok"], heals, "{killer:?}: {told}");
    }

    fn is_on_record(&self, killer: Killer, held: &Held) {
        let (event, actor, about, whom) = killer.record(held);
        let records: Vec<_> =
            self.app.audit().into_iter().filter(|record| record["event"] == event).collect();
        let found = records.iter().find(|record| {
            record.pointer(about).is_some_and(|value| value == whom) && record["actor"]["type"] == actor
        });
        let found = found.unwrap_or_else(|| panic!("{killer:?}: {records:?}"));
        let uid = format!("uid {}", rustix::process::getuid().as_raw());
        let id = if actor == "client" { &held.client_id } else { &uid };
        assert_eq!(found["actor"]["id"].as_str(), Some(id.as_str()), "{killer:?}: {found}");
    }
}

fn serve(dir: &Path, listen: &str) -> Process {
    let mut command = Command::new(PORTCULLIS);
    command.args(["serve", "--json", "--listen", listen, "--config"]).arg(dir.join("portcullis.toml"));
    command.arg("--data-dir").arg(dir.join("data")).arg("--docs").arg(dir.join("docs"));
    Process::spawn(command)
}

/// Connects the client. Its person allows it what it asks for; from then on nobody is there. What the browser took to
/// the client, and where.
async fn sign_in(app: &TestApp, person: &mut Browser, client: &mut Driver) -> (String, String) {
    client.send(&json!({"op": "connect"}));
    let asked = client.receive();
    assert_eq!(asked["event"], "authorize", "{asked}");
    let page = person.consent_page(app, asked["url"].as_str().unwrap()).await;
    let answer = person.decide(app, &page, "approve").await;
    let code = redirect_parameter(&answer, "code").unwrap();
    let mut back = Url::parse(header(answer.headers(), LOCATION.as_str()).unwrap()).unwrap();
    assert_eq!(app.http.get(back.clone()).send().await.unwrap().status(), 200);
    let connected = client.receive();
    assert_eq!(connected["ok"], true, "{connected}");
    client.ok(&json!({"op": "leave_alone"}));
    back.set_query(None);
    (code, back.into())
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() * 1000.0
}

/// One row of the table.
async fn ends(killer: Killer, sdk: Sdk) {
    let mut scene = Scene::set(sdk).await;
    let mut held = Held::by(&mut scene.client);
    if killer == Killer::RefreshTokenReused {
        // The successor of what comes back has been used: its client has it.
        for _ in 0..2 {
            scene.client.ok(&json!({"op": "refresh"}));
        }
        held = Held { refresh_token: held.refresh_token, ..Held::by(&mut scene.client) };
    }
    assert_eq!(scene.introspected(&held.access_token).await["active"], true);
    let before = scene.answered();
    let streams = before.iter().filter(|exchange| exchange["content_type"] == "text/event-stream").count();
    assert_eq!(streams, usize::from(scene.has_stream()), "{before:?}");

    scene.kill(killer, &held).await;
    let ended = now();
    assert_eq!(scene.introspected(&held.access_token).await, json!({"active": false}), "{killer:?}");
    scene.is_refused(killer);
    if scene.has_stream() {
        let stream = scene.client.ok(&json!({"op": "stream_ended"}));
        assert_eq!(stream["how"], "closed", "{killer:?}: {stream}");
        let after = stream["at"].as_f64().unwrap() - ended;
        assert!(after <= CLOSED_WITHIN, "{killer:?}: the stream was closed after {after} ms");
    }
    assert_eq!(scene.introspected(&held.access_token).await, json!({"active": false}), "{killer:?}");
    scene.is_on_record(killer, &held);
}

/// The same, done while no server runs: the next one knows.
async fn ends_without_a_server(killer: Killer) {
    let mut scene = Scene::set(Sdk::TypeScript("legacy")).await;
    let held = Held::by(&mut scene.client);
    assert_eq!(scene.introspected(&held.access_token).await["active"], true);
    let listen = scene.process.listen();
    scene.process.kill();
    scene.answered();
    let mut command = killer.command(&held).expect("an administrator's");
    command.extend(["--config".to_owned(), scene.dir.path().join("portcullis.toml").display().to_string()]);
    command.extend(["--data-dir".to_owned(), scene.dir.path().join("data").display().to_string()]);
    let output = portcullis(&command.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(output.status.success(), "{killer:?}: {}", complaint(&output));
    scene.process = serve(scene.dir.path(), &listen);
    assert_eq!(scene.introspected(&held.access_token).await, json!({"active": false}), "{killer:?}");
    scene.is_refused(killer);
    scene.is_on_record(killer, &held);
}

const LEGACY: Sdk = Sdk::TypeScript("legacy");

/// REVOKE-04, RS-08, RS-10, INTRO-06
#[tokio::test(flavor = "multi_thread")]
async fn its_client_revokes_the_refresh_token() {
    ends(Killer::RefreshTokenRevoked, LEGACY).await;
}

/// REVOKE-04, RS-08, RS-10, INTRO-06
#[tokio::test(flavor = "multi_thread")]
async fn its_client_revokes_the_access_token() {
    ends(Killer::AccessTokenRevoked, LEGACY).await;
}

/// REFRESH-08, RS-08, RS-10, INTRO-06
#[tokio::test(flavor = "multi_thread")]
async fn its_user_is_disabled() {
    ends(Killer::UserDisabled, LEGACY).await;
}

/// REFRESH-08, RS-08, RS-10, INTRO-06
#[tokio::test(flavor = "multi_thread")]
async fn its_user_is_deleted() {
    ends(Killer::UserDeleted, LEGACY).await;
}

/// REFRESH-08, RS-08, RS-10, INTRO-06
#[tokio::test(flavor = "multi_thread")]
async fn its_client_is_disabled() {
    ends(Killer::ClientDisabled, LEGACY).await;
}

/// REFRESH-08, RS-08, RS-10, INTRO-06
#[tokio::test(flavor = "multi_thread")]
async fn its_client_is_deleted() {
    ends(Killer::ClientDeleted, LEGACY).await;
}

/// REVOKE-07, REFRESH-08, RS-08, RS-10, INTRO-06
#[tokio::test(flavor = "multi_thread")]
async fn its_grant_is_revoked() {
    ends(Killer::GrantRevoked, LEGACY).await;
}

/// REVOKE-07, RS-08, RS-10, INTRO-06
#[tokio::test(flavor = "multi_thread")]
async fn it_is_revoked_by_its_jti() {
    ends(Killer::TokenRevoked, LEGACY).await;
}

/// REFRESH-08, RS-08, RS-10, INTRO-06
#[tokio::test(flavor = "multi_thread")]
async fn everything_is_locked_down() {
    ends(Killer::Lockdown, LEGACY).await;
}

/// RS-10, INTRO-06, MCP-09: what a user may do no more, their token cannot do, without a new sign-in.
#[tokio::test(flavor = "multi_thread")]
async fn its_user_leaves_a_group() {
    ends(Killer::GroupLeft, LEGACY).await;
}

/// REFRESH-05, RS-08, RS-10, INTRO-06
#[tokio::test(flavor = "multi_thread")]
async fn its_refresh_token_comes_back() {
    ends(Killer::RefreshTokenReused, LEGACY).await;
}

/// TOKEN-06, RS-08, RS-10, INTRO-06
#[tokio::test(flavor = "multi_thread")]
async fn its_code_comes_back() {
    ends(Killer::CodeReplayed, LEGACY).await;
}

/// KEYS-04, RS-08, RS-10, INTRO-06
#[tokio::test(flavor = "multi_thread")]
async fn its_key_is_removed() {
    ends(Killer::KeyRemoved, LEGACY).await;
}

/// RS-08: in the newest revision, which opens no stream here.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_2026_is_out_too() {
    ends(Killer::UserDisabled, Sdk::TypeScript("modern")).await;
}

/// REVOKE-04, RS-08, RS-10
#[tokio::test(flavor = "multi_thread")]
async fn a_python_client_gives_its_tokens_back() {
    ends(Killer::RefreshTokenRevoked, Sdk::Python("legacy")).await;
}

/// REFRESH-08, RS-08, RS-10
#[tokio::test(flavor = "multi_thread")]
async fn a_python_clients_user_is_disabled() {
    ends(Killer::UserDisabled, Sdk::Python("legacy")).await;
}

/// RS-10, MCP-09
#[tokio::test(flavor = "multi_thread")]
async fn a_python_clients_user_leaves_a_group() {
    ends(Killer::GroupLeft, Sdk::Python("legacy")).await;
}

/// KEYS-04, RS-08, RS-10
#[tokio::test(flavor = "multi_thread")]
async fn a_python_clients_key_is_removed() {
    ends(Killer::KeyRemoved, Sdk::Python("legacy")).await;
}

/// ADMIN-05, REFRESH-08
#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_disabled_without_a_server() {
    ends_without_a_server(Killer::UserDisabled).await;
}

/// ADMIN-05, REFRESH-08
#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_deleted_without_a_server() {
    ends_without_a_server(Killer::UserDeleted).await;
}

/// ADMIN-05, REFRESH-08
#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_disabled_without_a_server() {
    ends_without_a_server(Killer::ClientDisabled).await;
}

/// ADMIN-05, REFRESH-08
#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_deleted_without_a_server() {
    ends_without_a_server(Killer::ClientDeleted).await;
}

/// ADMIN-05, REVOKE-07
#[tokio::test(flavor = "multi_thread")]
async fn a_grant_is_revoked_without_a_server() {
    ends_without_a_server(Killer::GrantRevoked).await;
}

/// ADMIN-05, REVOKE-07
#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_revoked_without_a_server() {
    ends_without_a_server(Killer::TokenRevoked).await;
}

/// ADMIN-05, REFRESH-08
#[tokio::test(flavor = "multi_thread")]
async fn everything_is_locked_down_without_a_server() {
    ends_without_a_server(Killer::Lockdown).await;
}

/// ADMIN-05, MCP-09
#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_left_without_a_server() {
    ends_without_a_server(Killer::GroupLeft).await;
}

/// ADMIN-05, KEYS-04
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_removed_without_a_server() {
    ends_without_a_server(Killer::KeyRemoved).await;
}

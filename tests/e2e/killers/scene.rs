//! A server in a separate process, a user with a real connected client, and what each sees of its end.

use std::path::Path;
use std::sync::Arc;

use data_encoding::BASE64;
use reqwest::header::LOCATION;
use serde_json::{Value, json};
use url::Url;

use super::Killer;
use crate::account::another;
use crate::harness::{Browser, TestApp, header, redirect_parameter};

use crate::process::{Driver, Process, program};
use crate::python_clients::MCP;

/// A group that may read, from which the user can be removed.
const CONFIGURATION: &str = "[groups]\neveryone = []\nreaders = [\"docs.read\"]\n";

/// The clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sdk {
    /// The MCP TypeScript SDK 2, in this revision.
    TypeScript(&'static str),
    /// The MCP Python SDK.
    Python(&'static str),
}

/// The client's credentials.
pub struct HeldCredentials {
    pub access_token: String,
    pub refresh_token: String,
    pub client_id: String,
    pub user: String,
    pub grant: String,
    pub jti: String,
    pub kid: String,
}

impl HeldCredentials {
    pub fn by(client: &mut Driver) -> Self {
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

/// A server in a separate process, Ines, her client, and a resource server that introspects its token.
pub struct Scene {
    pub dir: Arc<tempfile::TempDir>,
    pub process: Process,
    app: TestApp,
    ines: Browser,
    /// The digest of her second passkey, which may have been stolen.
    stolen: Option<String>,
    pub client: Driver,
    sdk: Sdk,
    /// `Basic` credentials of the resource server.
    introspecting: String,
    /// The code that the browser sent to the client.
    code: String,
    redirect_uri: String,
}

impl Scene {
    /// Prepares everything until the client has opened a stream, if its revision has one, and used a tool.
    pub async fn set(sdk: Sdk) -> Self {
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
        let stolen = None;
        let mut scene =
            Self { dir, process, app, ines, stolen, client, sdk, introspecting, code, redirect_uri };
        if scene.has_stream() {
            scene.client.ok(&json!({"op": "stream_opened"}));
        }
        assert_eq!(scene.call()["ok"], true);
        scene
    }

    /// Clients of the revisions with sessions open a stream; the newest revision has none.
    pub fn has_stream(&self) -> bool {
        self.sdk != Sdk::TypeScript("modern")
    }

    /// The client's next request.
    fn call(&mut self) -> Value {
        let call = json!({"op": "call", "name": "docs_search", "arguments": {"query": "falcon"}});
        self.client.attempt(&call)
    }

    /// The answered requests to the endpoint since the last call of this function.
    pub fn answered(&mut self) -> Vec<Value> {
        let heard = self.client.ok(&json!({"op": "http"}));
        let to_endpoint =
            |exchange: &&Value| exchange["url"] == self.process.mcp_url && !exchange["status"].is_null();
        heard["exchanges"].as_array().unwrap().iter().filter(to_endpoint).cloned().collect()
    }

    /// Prepares what some killers need.
    pub async fn prepare(&mut self, killer: Killer) {
        if killer == Killer::PasskeyStolen {
            self.stolen = Some(another(&self.app, "ines").await.passkey_digest());
        }
        if matches!(killer, Killer::Disconnected | Killer::PasskeyStolen) {
            assert_eq!(self.ines.sign_in(&self.app, None).await.status(), 200);
        }
    }

    /// Ends the access. Returns when that was answered.
    pub async fn kill(&mut self, killer: Killer, held: &HeldCredentials) {
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
            Killer::Disconnected => self.change(&[("action", "disconnect"), ("client", client_id)]).await,
            Killer::PasskeyStolen => {
                let passkey = self.stolen.clone().expect("there is a second one");
                self.change(&[("action", "remove_passkey"), ("passkey", &passkey), ("stolen", "yes")]).await;
            }
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

    /// She makes a change on her account page.
    async fn change(&mut self, fields: &[(&str, &str)]) {
        assert_eq!(self.ines.change(&self.app, fields).await.status(), 303);
    }

    async fn revoke(&self, token: &str, client_id: &str) {
        let form = [("token", token), ("client_id", client_id)];
        let answer = self.app.http.post(self.app.url("/revoke")).form(&form).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }

    pub async fn introspected(&self, token: &str) -> Value {
        let request = self.app.http.post(self.app.url("/introspect"));
        let request = request.header("authorization", &self.introspecting).form(&[("token", token)]);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    }

    /// Checks the client's next request, and the endpoint's first answer afterwards.
    pub fn is_refused(&mut self, killer: Killer) {
        let told = self.call();
        let answered = self.answered();
        let first = answered.first().unwrap_or_else(|| panic!("{killer:?}: nothing was answered: {told}"));
        let challenge = first["www_authenticate"].as_str().unwrap_or_default();
        if killer == Killer::GroupLeft {
            // MCP-09: a tool that a user is not entitled to does not exist for them.
            assert_eq!(first["status"], 200, "{killer:?}: {first}");
            assert!(told["error"].as_str().unwrap().contains("Unknown tool: docs_search"), "{told}");
        } else {
            assert_eq!(first["status"], 401, "{killer:?}: {first}");
            assert!(challenge.contains("error=\"invalid_token\""), "{killer:?}: {first}");
        }
        // No user is present to sign in. The Python SDK does not refresh after a 401.
        let heals = killer.leaves_the_grant() && matches!(self.sdk, Sdk::TypeScript(_));
        assert_eq!(told["ok"], heals, "{killer:?}: {told}");
    }

    pub fn is_on_record(&self, killer: Killer, held: &HeldCredentials) {
        let (event, actor, about, whom) = killer.record(held);
        let records: Vec<_> =
            self.app.audit().into_iter().filter(|record| record["event"] == event).collect();
        let found = records.iter().find(|record| {
            record.pointer(about).is_some_and(|value| value == whom) && record["actor"]["type"] == actor
        });
        let found = found.unwrap_or_else(|| panic!("{killer:?}: {records:?}"));
        let uid = format!("uid {}", rustix::process::getuid().as_raw());
        let id = match actor {
            "client" => &held.client_id,
            "user" => &held.user,
            _ => &uid,
        };
        assert_eq!(found["actor"]["id"].as_str(), Some(id.as_str()), "{killer:?}: {found}");
    }
}

pub fn serve(dir: &Path, listen: &str) -> Process {
    let mut command = program();
    command.args(["serve", "--json", "--listen", listen, "--config"]).arg(dir.join("portcullis.toml"));
    command.arg("--data-dir").arg(dir.join("data")).arg("--docs").arg(dir.join("docs"));
    Process::spawn(command)
}

/// Connects the client; its user allows what it requests. Returns the callback's content and URL.
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

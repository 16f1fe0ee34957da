//! Everything that ends access: once the ending request is answered, no request is accepted, introspection
//! agrees, open streams close, and the record names the actor.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use reqwest::Response;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use crate::account::another;
use crate::harness::{Browser, Client, TestApp, Tokens, authorize_url, header, redirect_parameter};
use crate::process::control_key;

/// A group that may read, from which the user can be removed.
pub const CONFIGURATION: &str = "[groups]\neveryone = []\nreaders = [\"docs.read\"]\n";
/// The number of tasks that send requests while access is ended.
const ASKING: usize = 2;

/// A cause that ends access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Killer {
    RefreshTokenRevoked,
    AccessTokenRevoked,
    GrantRevoked,
    TokenRevoked,
    CodeReplayed,
    RefreshTokenReused,
    GroupLeft,
    UserDisabled,
    UserDeleted,
    ClientDisabled,
    ClientDeleted,
    KeyRemoved,
    Lockdown,
    /// By the user on the account page.
    Disconnected,
    /// The same, for a passkey that may have been stolen.
    PasskeyStolen,
}

impl Killer {
    /// How often each is tried, a thousand times in all; more often if it is quick to prepare.
    pub const ALL: [(Self, usize); 15] = [
        (Self::RefreshTokenRevoked, 50),
        (Self::AccessTokenRevoked, 280),
        (Self::GrantRevoked, 50),
        (Self::TokenRevoked, 280),
        (Self::CodeReplayed, 40),
        (Self::RefreshTokenReused, 40),
        (Self::GroupLeft, 140),
        (Self::UserDisabled, 20),
        (Self::UserDeleted, 10),
        (Self::ClientDisabled, 20),
        (Self::ClientDeleted, 10),
        (Self::KeyRemoved, 10),
        (Self::Lockdown, 10),
        (Self::Disconnected, 30),
        (Self::PasskeyStolen, 10),
    ];

    /// The recorded event and reason.
    fn record(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::RefreshTokenRevoked | Self::AccessTokenRevoked => ("token.revoked", Some("client")),
            Self::GrantRevoked | Self::TokenRevoked | Self::Lockdown => ("token.revoked", Some("console")),
            // No actor requested it: the client that used the code twice is named.
            Self::CodeReplayed => ("code.replay", None),
            Self::RefreshTokenReused => ("token.refresh.reuse", None),
            Self::GroupLeft => ("user.role_changed", Some("console")),
            Self::UserDisabled => ("user.disabled", Some("console")),
            Self::UserDeleted => ("user.deleted", Some("console")),
            Self::ClientDisabled => ("client.disabled", Some("console")),
            Self::ClientDeleted => ("client.deleted", Some("console")),
            Self::KeyRemoved => ("key.removed", Some("console")),
            Self::Disconnected => ("token.revoked", Some("user")),
            Self::PasskeyStolen => ("webauthn.removed", Some("user")),
        }
    }
}

impl HeldTokens {
    pub fn client(&self) -> &Client {
        &self.client
    }
}

/// A server with users, clients, and a resource server that introspects all tokens.
pub struct Stage {
    pub app: TestApp,
    /// The resource that tokens are requested for.
    resource: String,
    /// `Basic` credentials of a resource server.
    introspecting: String,
    count: usize,
}

/// A client's tokens.
pub struct HeldTokens {
    user: String,
    client: Client,
    code: String,
    pub tokens: Tokens,
    /// The family's first refresh token, if it was used.
    used: Option<String>,
    /// The user's second passkey, which may have been stolen.
    stolen: Option<String>,
}

impl Stage {
    async fn set() -> Self {
        let app = TestApp::start_configured(CONFIGURATION).await;
        app.admin().await;
        let server = app.console(&["rs", "add", "elsewhere", "--audience", &app.mcp_url()]);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (id, secret) = (text(&server["resource_server"]["id"]), text(&server["client_secret"]));
        let introspecting = format!("Basic {}", BASE64.encode(format!("{id}:{secret}").as_bytes()));
        Self { resource: app.mcp_url(), app, introspecting, count: 0 }
    }

    /// The same for a given server that has an administrator, with tokens for a resource elsewhere.
    pub fn around(app: TestApp, resource: &str) -> Self {
        Self { app, resource: resource.to_owned(), introspecting: String::new(), count: 0 }
    }

    /// A new user allows a new client, and the killer is prepared.
    pub async fn ready(&mut self, killer: Killer) -> (HeldTokens, Browser) {
        let (user, mut browser) = self.person().await;
        let client = self.app.client().await;
        let mut held = self.held(&user, &mut browser, &client).await;
        self.prepare(killer, &mut held, &mut browser).await;
        (held, browser)
    }

    pub async fn person(&mut self) -> (String, Browser) {
        self.count += 1;
        let name = format!("user{}", self.count);
        let browser = self.app.enrol(&name, &["readers"]).await;
        (name, browser)
    }

    /// Allows a client.
    pub async fn held(&self, user: &str, browser: &mut Browser, client: &Client) -> HeldTokens {
        let mut request = client.request(&self.app);
        request.insert("resource", self.resource.clone());
        let page = browser.consent_page(&self.app, &authorize_url(&self.app, &request)).await;
        let answer = browser.decide(&self.app, &page, "approve").await;
        let code = redirect_parameter(&answer, "code").expect("an approval redirects with a code");
        let tokens = Tokens::of(self.app.redeem(client, &code).await).await;
        HeldTokens { user: user.to_owned(), client: client.clone(), code, tokens, used: None, stolen: None }
    }

    /// Sends a command like the program, without starting a process.
    async fn command(&self, command: Value) {
        let mut line = command;
        line["v"] = json!(1);
        line["control_key"] = json!(control_key(&self.app.data_dir()));
        let stream = UnixStream::connect(self.app.data_dir().join("control.sock")).await.unwrap();
        let (reader, mut writer) = stream.into_split();
        writer.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        BufReader::new(reader).read_line(&mut answer).await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert!(answer.get("ok").is_some(), "{line}: {answer}");
    }

    async fn revoke(&self, client: &Client, token: &str) {
        let form = [("token", token), ("client_id", client.id.as_str())];
        let answer = self.app.http.post(self.app.url("/revoke")).form(&form).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }

    /// Prepares what some killers need.
    pub async fn prepare(&self, killer: Killer, held: &mut HeldTokens, browser: &mut Browser) {
        if matches!(killer, Killer::Disconnected | Killer::PasskeyStolen) {
            // On loopback, answering the client ended the session.
            assert_eq!(browser.sign_in(&self.app, None).await.status(), 200);
        }
        if killer == Killer::PasskeyStolen {
            held.stolen = Some(another(&self.app, &held.user).await.passkey_digest());
        }
        if killer == Killer::RefreshTokenReused {
            let first = held.tokens.clone();
            for _ in 0..2 {
                held.tokens = Tokens::of(self.app.refresh(&held.client, &held.tokens.refresh).await).await;
            }
            held.used = Some(first.refresh);
        }
    }

    /// Ends the access. Returns when that was answered.
    pub async fn kill(&self, killer: Killer, held: &HeldTokens, browser: &mut Browser) {
        let claims = held.tokens.claims();
        match killer {
            Killer::RefreshTokenRevoked => self.revoke(&held.client, &held.tokens.refresh).await,
            Killer::AccessTokenRevoked => self.revoke(&held.client, &held.tokens.access).await,
            Killer::GrantRevoked => {
                let grant = &claims["grant_id"];
                self.command(json!({"command": "grant-revoke", "grant": grant})).await;
            }
            Killer::TokenRevoked => {
                let jti = &claims["jti"];
                self.command(json!({"command": "token-revoke", "token": jti})).await;
            }
            Killer::CodeReplayed => {
                assert_eq!(self.app.redeem(&held.client, &held.code).await.status(), 400);
            }
            Killer::RefreshTokenReused => {
                let used = held.used.as_ref().unwrap();
                assert_eq!(self.app.refresh(&held.client, used).await.status(), 400);
            }
            Killer::GroupLeft => {
                let command =
                    json!({"command": "user-groups", "user": held.user, "add": [], "remove": ["readers"]});
                self.command(command).await;
            }
            Killer::UserDisabled => {
                self.command(json!({"command": "user-disable", "user": held.user})).await;
            }
            Killer::UserDeleted => {
                self.command(json!({"command": "user-delete", "user": held.user})).await;
            }
            Killer::ClientDisabled => {
                let id = &held.client.id;
                self.command(json!({"command": "client-disable", "client": id})).await;
            }
            Killer::ClientDeleted => {
                let id = &held.client.id;
                self.command(json!({"command": "client-delete", "client": id})).await;
            }
            Killer::KeyRemoved => {
                let kid = kid(&held.tokens.access);
                let command = json!({"command": "key-remove", "kid": kid, "reason": "it leaked"});
                self.command(command).await;
            }
            Killer::Lockdown => self.command(json!({"command": "lockdown"})).await,
            Killer::Disconnected => {
                let change = [("action", "disconnect"), ("client", held.client.id.as_str())];
                assert_eq!(browser.change(&self.app, &change).await.status(), 303);
            }
            Killer::PasskeyStolen => {
                let passkey = held.stolen.as_deref().unwrap();
                let change = [("action", "remove_passkey"), ("passkey", passkey), ("stolen", "yes")];
                assert_eq!(browser.change(&self.app, &change).await.status(), 303);
            }
        }
    }

    /// Restores what the next killer of this kind needs.
    pub async fn mend(&self, killer: Killer, held: &HeldTokens) {
        match killer {
            Killer::GroupLeft => {
                let command =
                    json!({"command": "user-groups", "user": held.user, "add": ["readers"], "remove": []});
                self.command(command).await;
            }
            Killer::UserDisabled => {
                self.command(json!({"command": "user-enable", "user": held.user})).await;
            }
            Killer::ClientDisabled => {
                let id = &held.client.id;
                self.command(json!({"command": "client-enable", "client": id})).await;
            }
            Killer::Lockdown => self.app.clock.advance(Duration::from_secs(1)),
            _ => {}
        }
    }

    async fn is_active(&self, token: &str) -> bool {
        let form = [("token", token)];
        let request = self.app.http.post(self.app.url("/introspect"));
        let request = request.header("authorization", &self.introspecting).form(&form);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let answer: Value = answer.json().await.unwrap();
        assert!(answer["active"] == true || answer == json!({"active": false}), "{answer}");
        answer["active"] == true
    }
}

fn kid(token: &str) -> Value {
    let head = data_encoding::BASE64URL_NOPAD.decode(token.split('.').next().unwrap().as_bytes()).unwrap();
    serde_json::from_slice::<Value>(&head).unwrap()["kid"].clone()
}

/// Whether a token is accepted for reading the documents.
async fn is_accepted(http: &reqwest::Client, url: &str, token: &str) -> bool {
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}});
    let request = http
        .post(url)
        .bearer_auth(token)
        .header("accept", "application/json")
        .header("mcp-protocol-version", "2025-11-25")
        .json(&list);
    let answer = request.send().await.unwrap();
    let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
    assert!(matches!(status, 200 | 401), "{status} {text}");
    status == 200 && text.contains("docs_search")
}

/// Somebody who asks again and again. Each answer: when it was asked for, and whether it was accepted.
struct Poller {
    enough: Arc<AtomicBool>,
    answers: JoinHandle<Vec<(Instant, bool)>>,
}

impl Poller {
    fn begin(app: &TestApp, token: &str) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let (stop, http, url, token) =
            (Arc::clone(&enough), app.http.clone(), app.mcp_url(), token.to_owned());
        let answers = tokio::spawn(async move {
            let mut answers = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let asked = Instant::now();
                answers.push((asked, is_accepted(&http, &url, &token).await));
            }
            answers
        });
        Self { enough, answers }
    }

    async fn end(self) -> Vec<(Instant, bool)> {
        self.enough.store(true, Ordering::Relaxed);
        self.answers.await.unwrap()
    }
}

/// RS-08, INTRO-06, REVOKE-04, REVOKE-07, REFRESH-05, REFRESH-08, TOKEN-06, KEYS-04: a thousand times access is
/// ended while requests are sent continuously. No request that begins after the answer is accepted.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_revocations_let_no_request_through() {
    let mut stage = Stage::set().await;
    let (mut kills, mut asked_after) = (0, 0);
    for (killer, times) in Killer::ALL {
        let (mut user, mut browser) = stage.person().await;
        let mut client = stage.app.client().await;
        let mut held: Option<HeldTokens> = None;
        for _ in 0..times {
            match killer {
                Killer::UserDeleted => (user, browser) = stage.person().await,
                Killer::ClientDeleted => client = stage.app.client().await,
                _ => {}
            }
            // One grant is used for many access tokens.
            let again =
                matches!(killer, Killer::AccessTokenRevoked | Killer::TokenRevoked | Killer::GroupLeft);
            let mut next = match held.take() {
                Some(mut before) if again => {
                    before.tokens =
                        Tokens::of(stage.app.refresh(&client, &before.tokens.refresh).await).await;
                    before
                }
                _ => stage.held(&user, &mut browser, &client).await,
            };
            stage.prepare(killer, &mut next, &mut browser).await;
            let token = next.tokens.access.clone();
            assert!(is_accepted(&stage.app.http, &stage.app.mcp_url(), &token).await, "{killer:?}");
            assert!(stage.is_active(&token).await, "{killer:?}");

            let asking: Vec<_> = (0..ASKING).map(|_| Poller::begin(&stage.app, &token)).collect();
            stage.kill(killer, &next, &mut browser).await;
            let answered = Instant::now();
            assert!(!is_accepted(&stage.app.http, &stage.app.mcp_url(), &token).await, "{killer:?}");
            assert!(!stage.is_active(&token).await, "{killer:?}");
            for asking in asking {
                for (asked, accepted) in asking.end().await {
                    assert!(asked < answered || !accepted, "{killer:?}: accepted after it was ended");
                    asked_after += usize::from(asked >= answered);
                }
            }
            stage.mend(killer, &next).await;
            held = Some(next);
            kills += 1;
        }
    }
    assert_eq!(kills, 1000);
    assert!(asked_after > 0, "nobody asked at the right moment");
    let records = stage.app.audit();
    for (killer, times) in Killer::ALL {
        let (event, actor) = killer.record();
        let by = |r: &&Value| r["event"] == event && actor.is_none_or(|actor| r["actor"]["type"] == actor);
        let recorded = records.iter().filter(by).count();
        assert!(recorded >= times, "{killer:?}: {recorded} of {times} are on record");
    }
}

/// Opens a GET stream of a session, like clients of the older revisions, and reads it to its end.
async fn listen(app: &TestApp, token: &str) -> Response {
    let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}});
    let request = app.http.post(app.mcp_url()).bearer_auth(token).json(&initialize);
    let begun = request.header("accept", "application/json").send().await.unwrap();
    assert_eq!(begun.status(), 200);
    let session = header(begun.headers(), "mcp-session-id").unwrap().to_owned();
    let request = app.http.get(app.mcp_url()).bearer_auth(token).header("mcp-session-id", session);
    let request = request.header("mcp-protocol-version", "2025-11-25");
    let mut stream = request.header("accept", "text/event-stream").send().await.unwrap();
    assert_eq!(stream.status(), 200);
    assert!(stream.chunk().await.unwrap().is_some(), "it says at once that it is open");
    stream
}

/// RS-10: each killer closes an open stream within two seconds of its answer; other streams stay open.
#[tokio::test(flavor = "multi_thread")]
async fn streams_close_within_two_seconds() {
    let mut stage = Stage::set().await;
    for (killer, _) in Killer::ALL {
        let (user, mut browser) = stage.person().await;
        let (other_user, mut other_browser) = stage.person().await;
        let (client, other_client) = (stage.app.client().await, stage.app.client().await);
        let mut held = stage.held(&user, &mut browser, &client).await;
        stage.prepare(killer, &mut held, &mut browser).await;
        let other = stage.held(&other_user, &mut other_browser, &other_client).await;
        let mut stream = listen(&stage.app, &held.tokens.access).await;
        let mut bystander = listen(&stage.app, &other.tokens.access).await;
        stage.kill(killer, &held, &mut browser).await;
        let ended = async { while stream.chunk().await.unwrap().is_some() {} };
        let closed = tokio::time::timeout(Duration::from_secs(2), ended).await;
        assert!(closed.is_ok(), "{killer:?}: the stream is still open");
        if !matches!(killer, Killer::KeyRemoved | Killer::Lockdown) {
            let still = tokio::time::timeout(Duration::from_millis(10), bystander.chunk()).await;
            assert!(still.is_err(), "{killer:?}: somebody else's stream was closed");
        }
        stage.mend(killer, &held).await;
    }
}

//! A resource server for tests: real keys, a real database, a clock that stands still, and [`Stage`] as the
//! authorization side.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::Request;
use http::request::Builder;
use http_body_util::BodyExt;
use keys::{Keys, Seal};
use serde_json::Value;
use shared::access_token::Jti;
use shared::db::Conn;
use shared::rate::Limits;
use shared::schema::SCHEMA;
use shared::token_status::{Ceiling, Standing};
use shared::{
    AccessToken, ClientId, Clock, Db, Fault, GrantId, Issuer, ResourceUri, Scope, Timestamp, TokenStatus, Tx,
    UserId, audit,
};
use tokio::sync::mpsc;
use tower::ServiceExt;

use crate::admission::{Ask, AskKind, Relay};
use crate::catalogue::{BuiltIn, Pattern, ProfileRule, Rules};
use crate::item::{Arguments, Effect, Kind, Mirrored, Offer, Offered};
use crate::progress::Progress;
use crate::sources::docs::{Docs, Folder};
use crate::sources::{Names, Outcome, Source, Sources, Upstream, Upstreams, answered, definition};
use crate::{Authority, Config, Resource, Settings};

/// The time of every test.
pub(crate) const NOW: Timestamp = Timestamp(1_800_000_000_000);
/// The profile that every server has beside `/mcp`, with the same items.
const EVERYTHING: &str = "all";
pub(crate) const MODERN: &str = "2026-07-28";
pub(crate) const HANDBOOK: &[(&str, &str)] = &[
    (
        "guides/backup.md",
        "# Backup\n\nEvery night at two.\n\n## Restore\n\nStop the server, then restore the newest copy.\n",
    ),
    ("guides/vpn.md", "# VPN\n\nAsk the network team for a certificate.\n"),
    ("notes.txt", "The coffee machine is restarted by holding both buttons.\n"),
];

/// Keys for all tests, because making them is slow.
pub(crate) fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        elsewhere(|| {
            let dir = tempfile::tempdir().unwrap();
            let seal = Seal::open_or_create(&dir.path().join("seal.key"), true).unwrap();
            let clock = Clock::held(NOW);
            let db = Db::open(&dir.path().join("keys.db"), &SCHEMA, None, &clock).unwrap();
            Keys::open(&db, Arc::new(seal), keys::Config::default(), &clock).unwrap()
        })
    })
}

/// Runs blocking work on its own thread, because tests are async tasks.
fn elsewhere<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap())
}

/// Plays the authorization side.
#[derive(Default)]
pub(crate) struct Stage(Mutex<State>);

#[derive(Default)]
struct State {
    dead: HashSet<String>,
    unseen: HashSet<String>,
    /// After how many more questions about a token what happens.
    soon: HashMap<String, (usize, PendingChange)>,
    marked: Vec<String>,
    entitled: Arc<Scope>,
    unverified: bool,
    broken: bool,
}

/// A change to a token in the middle of a request.
#[derive(Clone, Copy)]
enum PendingChange {
    Dies,
    LosesAll,
}

impl Stage {
    /// Revokes a token after this many more questions about it.
    pub(crate) fn kill_after(&self, token: &AccessToken, questions: usize) {
        self.0.lock().unwrap().soon.insert(token.jti.to_string(), (questions, PendingChange::Dies));
    }

    /// Removes the entitlement of a token's user after this many more questions about it.
    pub(crate) fn disentitle_after(&self, token: &AccessToken, questions: usize) {
        self.0.lock().unwrap().soon.insert(token.jti.to_string(), (questions, PendingChange::LosesAll));
    }

    pub(crate) fn entitle(&self, scope: &str) {
        self.0.lock().unwrap().entitled = Arc::new(scope.parse().unwrap());
    }

    /// Makes all clients unverified.
    pub(crate) fn distrust(&self) {
        self.0.lock().unwrap().unverified = true;
    }

    /// Revokes everything with this name: a `jti` or a `kid`.
    pub(crate) fn kill(&self, name: &str) {
        self.0.lock().unwrap().dead.insert(name.to_owned());
    }

    pub(crate) fn unseen(&self, token: &AccessToken) {
        self.0.lock().unwrap().unseen.insert(token.jti.to_string());
    }

    pub(crate) fn marked(&self) -> Vec<String> {
        self.0.lock().unwrap().marked.clone()
    }

    /// Makes recording a token's use fail.
    pub(crate) fn break_down(&self) {
        self.0.lock().unwrap().broken = true;
    }
}

impl TokenStatus for Stage {
    fn standing(&self, token: &AccessToken, kid: &str) -> Standing {
        let mut state = self.0.lock().unwrap();
        match state.soon.get_mut(token.jti.as_str()) {
            Some((0, PendingChange::Dies)) => return Standing::Dead,
            Some((0, PendingChange::LosesAll)) => state.entitled = Arc::default(),
            Some((questions, _)) => *questions -= 1,
            None => {}
        }
        if state.dead.contains(token.jti.as_str()) || state.dead.contains(kid) {
            return Standing::Dead;
        }
        let ceiling = if state.unverified { Ceiling::LowRisk } else { Ceiling::Any };
        Standing::Live { entitled: Arc::clone(&state.entitled), ceiling }
    }

    fn has_ended_in(&self, _: &Conn<'_>, token: &AccessToken) -> Result<bool, Fault> {
        Ok(self.0.lock().unwrap().dead.contains(token.jti.as_str()))
    }

    fn is_seen(&self, token: &AccessToken) -> bool {
        !self.0.lock().unwrap().unseen.contains(token.jti.as_str())
    }

    fn mark_seen(&self, _: &Tx<'_>, token: &AccessToken) -> Result<(), Fault> {
        let mut state = self.0.lock().unwrap();
        if state.broken {
            return Err(Fault::Busy);
        }
        state.unseen.remove(token.jti.as_str());
        state.marked.push(token.jti.to_string());
        Ok(())
    }
}

/// A valid token for `/mcp` with these scopes.
pub(crate) fn token(scope: &str) -> AccessToken {
    AccessToken {
        iss: Issuer::localhost(8080).as_str().to_owned(),
        sub: UserId::random().to_string(),
        aud: ResourceUri::at(&Issuer::localhost(8080), "/mcp"),
        client_id: ClientId::random_dynamic(),
        exp: NOW.seconds() + 900,
        iat: NOW.seconds() - 10,
        nbf: None,
        jti: Jti::random(0),
        scope: scope.parse().unwrap(),
        grant_id: GrantId::random(),
        auth_time: None,
        acr: None,
        amr: None,
    }
}

/// `Bearer` and the signed token.
pub(crate) fn bearer(token: &AccessToken) -> String {
    format!("Bearer {}", keys().sign(token).unwrap().text)
}

/// A resource server in this process.
pub(crate) struct App {
    pub(crate) stage: Arc<Stage>,
    pub(crate) clock: Clock,
    pub(crate) db: Db,
    pub(crate) resource: Resource,
    pub(crate) router: Router,
    /// The server behind the gate, if there is one.
    pub(crate) upstream: Option<Upstream>,
    dir: tempfile::TempDir,
}

impl App {
    /// On loopback, its user entitled to the documentation.
    pub(crate) fn start() -> Self {
        Self::with(&Issuer::localhost(8080), &[])
    }

    pub(crate) fn with(issuer: &Issuer, origins: &[&str]) -> Self {
        let stage = Arc::new(Stage::default());
        stage.entitle("docs.read");
        Self::open(tempfile::tempdir().unwrap(), stage, Clock::held(NOW), issuer, origins, &Rules::default())
    }

    /// On loopback, with these rules.
    pub(crate) fn ruled(rules: &Rules) -> Self {
        let (dir, issuer) = (tempfile::tempdir().unwrap(), Issuer::localhost(8080));
        Self::open(dir, Arc::new(Stage::default()), Clock::held(NOW), &issuer, &[], rules)
    }

    /// On loopback, with another source beside the built-in ones, and these scopes for its tools.
    pub(crate) fn staged(staged: &Arc<TestSource>, tools: &[(&str, &str)]) -> Self {
        let mut rules = Rules::default();
        for (name, scope) in tools {
            rules.need(name, scope);
        }
        Self::staged_under(staged, &rules)
    }

    /// The same under these rules.
    pub(crate) fn staged_under(staged: &Arc<TestSource>, rules: &Rules) -> Self {
        let stage = Arc::new(Stage::default());
        stage.entitle("docs.read");
        let dir = tempfile::tempdir().unwrap();
        let staged = Some(Arc::clone(staged));
        Self::build(dir, stage, Clock::held(NOW), &Issuer::localhost(8080), &[], rules, staged)
    }

    /// After a restart, on loopback: memory is lost, files are not.
    pub(crate) fn restart(self) -> Self {
        let Self { stage, clock, db, resource, router, upstream: _, dir } = self;
        drop((router, resource, db));
        Self::open(dir, stage, clock, &Issuer::localhost(8080), &[], &Rules::default())
    }

    fn open(
        dir: tempfile::TempDir,
        stage: Arc<Stage>,
        clock: Clock,
        issuer: &Issuer,
        origins: &[&str],
        rules: &Rules,
    ) -> Self {
        Self::build(dir, stage, clock, issuer, origins, rules, None)
    }

    fn build(
        dir: tempfile::TempDir,
        stage: Arc<Stage>,
        clock: Clock,
        issuer: &Issuer,
        origins: &[&str],
        rules: &Rules,
        staged: Option<Arc<TestSource>>,
    ) -> Self {
        let mut rules = rules.clone();
        let items = vec![Pattern::parse("*").unwrap()];
        rules.profiles.insert(EVERYTHING.to_owned(), ProfileRule { items, ..ProfileRule::default() });
        Self::build_exactly(dir, stage, clock, issuer, origins, &rules, staged)
    }

    /// Without an endpoint besides `/mcp`.
    pub(crate) fn with_one_endpoint() -> Self {
        let (dir, issuer) = (tempfile::tempdir().unwrap(), Issuer::localhost(8080));
        Self::build_exactly(dir, Arc::default(), Clock::held(NOW), &issuer, &[], &Rules::default(), None)
    }

    fn build_exactly(
        dir: tempfile::TempDir,
        stage: Arc<Stage>,
        clock: Clock,
        issuer: &Issuer,
        origins: &[&str],
        rules: &Rules,
        staged: Option<Arc<TestSource>>,
    ) -> Self {
        let db = Db::open(&dir.path().join("main.db"), &SCHEMA, None, &clock).unwrap();
        let index = dir.path().join("docs.db");
        let docs = elsewhere(|| Docs::open(&index, Folder::Handbook(HANDBOOK), &clock).unwrap());
        let docs = Arc::new(docs);
        let mut sources = vec![Source::Account, Source::Docs(Arc::clone(&docs))];
        sources.extend(staged.map(Source::Staged));
        let config = Config {
            catalogue: BuiltIn::of_any(issuer, rules),
            db: db.clone(),
            clock: clock.clone(),
            authority: Authority::Here {
                verifier: keys().verifier(),
                status: Arc::clone(&stage) as Arc<dyn TokenStatus>,
            },
            docs,
            upstreams: Upstreams::default(),
            settings: Settings {
                allowed_origins: origins.iter().map(|&origin| origin.to_owned()).collect(),
                ..Settings::default()
            },
            limits: Limits::off(),
            tally: Arc::default(),
        };
        let resource = Resource::with(config, Sources::new(sources));
        let (router, _) = resource.routes().split();
        Self { stage, clock, db, resource, router, upstream: None, dir }
    }

    /// On loopback, with a server behind the gate, and these scopes for its tools.
    pub(crate) async fn upstream(tools: &[(&str, &str)], open: impl AsyncFnOnce(&Db) -> Upstream) -> Self {
        let mut rules = Rules::default();
        for (name, scope) in tools {
            rules.need(name, scope);
        }
        Self::upstream_under(rules, open).await
    }

    /// The same under these rules.
    pub(crate) async fn upstream_under(rules: Rules, open: impl AsyncFnOnce(&Db) -> Upstream) -> Self {
        let (dir, issuer) = (tempfile::tempdir().unwrap(), Issuer::localhost(8080));
        let stage = Arc::new(Stage::default());
        stage.entitle("docs.read");
        let app = Self::open(dir, stage, Clock::held(NOW), &issuer, &[], &rules);
        let source = open(&app.db).await;
        let index = app.dir.path().join("more.db");
        let docs = elsewhere(|| Docs::open(&index, Folder::Handbook(HANDBOOK), &app.clock).unwrap());
        let config = Config {
            catalogue: BuiltIn::of_any(&issuer, &rules),
            db: app.db.clone(),
            clock: app.clock.clone(),
            authority: Authority::Here {
                verifier: keys().verifier(),
                status: Arc::clone(&app.stage) as Arc<dyn TokenStatus>,
            },
            docs: Arc::new(docs),
            upstreams: Upstreams::default(),
            settings: Settings::default(),
            limits: Limits::off(),
            tally: Arc::default(),
        };
        let resource =
            Resource::with(config, Sources::new([Source::Account, Source::Upstream(source.clone())]));
        let (router, _) = resource.routes().split();
        Self { resource, router, upstream: Some(source), ..app }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        Answer::read(self.open_answer(request).await).await
    }

    /// A response whose body was not read yet.
    pub(crate) async fn open_answer(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// The audit records of this event, oldest first.
    pub(crate) fn records(&self, event: &str) -> Vec<Value> {
        let mut records = self.db.read(|conn| audit::tail(conn, 10_000, 0)).unwrap();
        records.retain(|record| record["event"] == event);
        records
    }

    /// Makes recording fail.
    pub(crate) async fn break_audit(&self) {
        self.db.write(|tx| tx.execute("ALTER TABLE audit RENAME TO gone", []).map(drop)).await.unwrap();
    }
}

/// A POST to `/mcp` with the headers of every client.
pub(crate) fn post() -> Builder {
    Request::post("/mcp")
        .header("host", "localhost:8080")
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
}

/// A response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    async fn read(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Self { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// The answer; the last message of a stream of events.
    pub(crate) fn json(&self) -> Value {
        let is_stream = self.header("content-type") == "text/event-stream";
        let data = if is_stream { self.last_event() } else { Some(&self.body[..]) };
        let message = data.and_then(|data| serde_json::from_slice(data).ok());
        message.unwrap_or_else(|| panic!("no JSON: {self:?}"))
    }

    fn last_event(&self) -> Option<&[u8]> {
        let text = std::str::from_utf8(&self.body).ok()?;
        Some(text.rsplit_once("\ndata: ")?.1.trim_end().as_bytes())
    }

    /// The header's value; empty if absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The JSON-RPC error code; 0 if there is none.
    pub(crate) fn code(&self) -> i64 {
        self.json()["error"]["code"].as_i64().unwrap_or_default()
    }
}

/// What a staged source does with a call.
type Act = Box<
    dyn for<'a> Fn(&'a Ask, &'a Relay) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>> + Send + Sync,
>;

/// A source that a test controls, with a counter.
pub(crate) struct TestSource {
    offered: Arc<Offered>,
    act: Act,
    calls: AtomicUsize,
}

impl TestSource {
    /// A source with these tools and their effects.
    pub(crate) fn new<F>(
        tools: &[(&str, Effect)],
        act: impl Fn(&Arguments) -> F + Send + Sync + 'static,
    ) -> Arc<Self>
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let offered = Arc::new(offered("staged", tools));
        let act: Act = Box::new(move |ask, _| {
            let arguments = match ask.what() {
                AskKind::Tool(_, arguments) | AskKind::Prompt(_, arguments) => Arguments::clone(arguments),
                AskKind::Resource(..) | AskKind::Completion(..) => serde_json::Map::new().into(),
            };
            Box::pin(act(&arguments))
        });
        Arc::new(Self { offered, act, calls: AtomicUsize::new(0) })
    }

    /// A source with items of every kind, which answers at once and shows these links.
    pub(crate) fn of_every_kind(links: &'static [&'static str]) -> Arc<Self> {
        let act: Act = Box::new(move |_, _| {
            Box::pin(async move {
                let (members, meta) = (br#""from":"staged""#.to_vec(), String::new());
                let links = links.iter().map(|&link| link.to_owned()).collect();
                Outcome::Result { members, meta, is_error: false, links }
            })
        });
        Arc::new(Self { offered: Arc::new(of_every_kind("staged")), act, calls: AtomicUsize::new(0) })
    }

    /// A source that reports a test's progress values, and answers when the test stops.
    pub(crate) fn telling(tools: &[(&str, Effect)], told: mpsc::UnboundedReceiver<f64>) -> Arc<Self> {
        let told = Arc::new(tokio::sync::Mutex::new(told));
        let act: Act = Box::new(move |_, relay| {
            let told = Arc::clone(&told);
            Box::pin(async move {
                while let Some(progress) = told.lock().await.recv().await {
                    relay.progress(Progress::new(progress));
                }
                answered("done", &serde_json::json!({}))
            })
        });
        Arc::new(Self { offered: Arc::new(offered("staged", tools)), act, calls: AtomicUsize::new(0) })
    }

    /// A source that answers at once.
    pub(crate) fn prompt(tools: &[(&str, Effect)]) -> Arc<Self> {
        Self::new(tools, |_| async { answered("done", &serde_json::json!({})) })
    }

    /// The number of calls that reached it.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub(crate) fn offered(&self) -> Arc<Offered> {
        Arc::clone(&self.offered)
    }

    pub(crate) async fn run(&self, ask: &Ask, relay: &Relay) -> Outcome {
        self.calls.fetch_add(1, Ordering::SeqCst);
        (self.act)(ask, relay).await
    }
}

/// What a source of this name offers: a tool, a prompt, two resources and a template, of which it may not be the owner.
pub(crate) fn of_every_kind(source: &str) -> Offered {
    let written = [
        (Kind::Tool, r#"{"name":"tool","inputSchema":{"type":"object"}}"#),
        (Kind::Prompt, r#"{"name":"prompt","arguments":[{"name":"topic"}],"x":1.0}"#),
        (Kind::Resource, r#"{"uri":"Db://Host/Row/1","name":"row"}"#),
        (Kind::Resource, r#"{"uri":"db://host/secret","name":"secret"}"#),
        (Kind::Template, r#"{"uriTemplate":"db://host/made/{id}","name":"made"}"#),
    ];
    let written = written
        .map(|(kind, text)| (kind, serde_json::value::RawValue::from_string(text.to_owned()).unwrap()));
    let (offers, left_out) = definition::offers(source, Names::Prefixed, &written);
    assert!(left_out.is_empty());
    Offered { source: source.into(), offers, own_secret: None }
}

/// The offers of this source: tools whose argument `region` must be repeated in a header.
pub(crate) fn offered(source: &str, tools: &[(&str, Effect)]) -> Offered {
    let schema = serde_json::json!({
        "type": "object", "properties": { "region": { "type": "string", "x-mcp-header": "Region" } }
    });
    let offer = |(name, effect): &(&str, Effect)| {
        let listed = serde_json::json!({ "name": name, "inputSchema": schema, "source": source });
        Arc::new(Offer {
            kind: Kind::Tool,
            name: (*name).into(),
            at_source: (*name).into(),
            address: None,
            modern_output: false,
            title: name.to_uppercase(),
            listed: serde_json::value::to_raw_value(&listed).unwrap(),
            effect: *effect,
            needs: None,
            like: None,
            mirrored: Mirrored::in_schema(&schema),
        })
    };
    Offered { source: source.into(), offers: tools.iter().map(offer).collect(), own_secret: None }
}

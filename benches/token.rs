//! The throughput of the token endpoint: refreshes and code exchanges per second over HTTP, each durable before
//! it is answered, with 64 connections. Two upper bounds are measured in the same run with the same
//! connections: a bare axum handler that answers with as many bytes, and the same rows written in groups
//! without anything else.
//!
//! Server, clients and limits share the machine's cores, and take turns round by round; only ratios travel.
//!
//! Then what a refresh and a registration cost: `token/costs.rs`, alone with `cargo bench --bench token -- costs`.

#[path = "machine/bare_rmcp.rs"]
mod bare_rmcp;
#[allow(dead_code)]
#[path = "gate/calls.rs"]
mod calls;
#[allow(dead_code)]
#[path = "../tests/e2e/certificates.rs"]
mod certificates;
#[path = "token/costs.rs"]
mod costs;
#[allow(dead_code)]
#[path = "../tests/e2e/harness.rs"]
mod harness;
mod machine;
#[allow(dead_code)]
#[path = "../tests/e2e/process.rs"]
mod process;

use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::post;
use shared::audit::{self, Event, Name};
use shared::db::params;
use shared::schema::SCHEMA;
use shared::{ClientId, Clock, Db, Digest, Fault, GrantId, Jti, Request, ResourceUri, Tx};
use tokio::net::TcpListener;
use url::form_urlencoded;

use harness::{Browser, Client, TestApp, VERIFIER};
use machine::roles;
use machine::wire::{Connection, post as posted};

/// The number of rounds, and the length of a turn.
const ROUNDS: usize = 3;
const TURN: Duration = Duration::from_secs(2);
/// The number of concurrent connections.
const CONNECTIONS: usize = 64;
/// The number of codes that each connection exchanges in a turn; they are made in advance.
const CODES: usize = 10;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, role, bytes, more] = &arguments[..]
        && role == bare_rmcp::ROLE
    {
        let number = |text: &str| text.parse().expect("a number");
        roles::runtime().block_on(bare_rmcp::serve(number(bytes), number(more)));
        return;
    }
    if !machine::ready("token") {
        return;
    }
    tokio::runtime::Runtime::new().expect("a runtime starts").block_on(async {
        if !arguments.iter().any(|argument| argument == "costs") {
            rates().await;
        }
        costs::measured().await;
    });
    machine::load_after();
}

/// Requests per second.
async fn rates() {
    let app = TestApp::start().await;
    let (kind, device) = machine::file_system(&app.data_dir());
    println!("file system: {kind} on {device}");
    assert!(kind != "tmpfs" && kind != "ramfs", "memory is no disk; name another TMPDIR");
    let mut browser = app.admin().await;
    let client = app.client().await;

    let mut refreshing = Vec::new();
    for _ in 0..CONNECTIONS {
        let tokens = app.tokens(&mut browser, &client).await;
        refreshing.push(Refreshing { client: client.id.clone(), token: tokens.refresh });
    }
    let mut probe =
        Refreshing { client: client.id.clone(), token: app.tokens(&mut browser, &client).await.refresh };
    let request = probe.request();
    let answer = Connection::open(&app.origin).await.ask(&request_of(&app.origin, &request)).await.len();
    let bare = bare(answer).await;
    let mut rows = Rows::new().await;

    let (mut refreshes, mut exchanges, mut handled, mut written) = (vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        handled.push(turn(&bare, (0..CONNECTIONS).map(|_| Same(request.clone())).collect()).await.0);
        written.push(rows.turn().await);
        let (rate, back) = turn(&app.origin, refreshing).await;
        refreshes.push(rate);
        refreshing = back;
        let codes = codes(&app, &mut browser, &client).await;
        exchanges.push(turn(&app.origin, codes).await.0);
    }
    let [refreshes, exchanges, handled, written] =
        [refreshes, exchanges, handled, written].map(machine::median::<f64>);
    println!("a bare axum handler, {answer} bytes      {handled:>8.0} a second");
    println!("the rows of a refresh, in groups   {written:>8.0} a second");
    println!("refreshes                          {refreshes:>8.0} a second");
    println!("code exchanges                     {exchanges:>8.0} a second");
    let limit = handled.min(written);
    machine::ratio(
        "compared: code exchanges a second over HTTP, and the lower of the two limits",
        "exchange_over_limit",
        exchanges / limit,
    );
    machine::ratio(
        "compared: refreshes a second over HTTP, and the lower of the two limits; the aim is 0.5 or more",
        "refresh_over_limit",
        refreshes / limit,
    );
}

/// The next request of a connection, and what it learns from the response; `None` if there is no next request.
trait Asking: Send + 'static {
    fn next(&mut self) -> Option<String>;
    fn learn(&mut self, answer: &str);
}

/// Uses each response's token in the next request.
struct Refreshing {
    client: String,
    token: String,
}

impl Refreshing {
    fn request(&mut self) -> String {
        self.next().unwrap_or_default()
    }
}

impl Asking for Refreshing {
    fn next(&mut self) -> Option<String> {
        Some(form(&[
            ("grant_type", "refresh_token"),
            ("refresh_token", &self.token),
            ("client_id", &self.client),
        ]))
    }

    fn learn(&mut self, answer: &str) {
        let answer: serde_json::Value = serde_json::from_str(answer).expect("the answer is JSON");
        self.token = answer["refresh_token"].as_str().expect("a refresh yields a successor").to_owned();
    }
}

/// Exchanges each code once.
struct Exchanging {
    client: Client,
    codes: Vec<String>,
}

impl Asking for Exchanging {
    fn next(&mut self) -> Option<String> {
        let code = self.codes.pop()?;
        Some(form(&[
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("client_id", &self.client.id),
            ("redirect_uri", &self.client.redirect_uri),
            ("code_verifier", VERIFIER),
        ]))
    }

    fn learn(&mut self, answer: &str) {
        assert!(answer.contains("\"access_token\""), "{answer}");
    }
}

/// Sends the same request each time.
struct Same(String);

impl Asking for Same {
    fn next(&mut self) -> Option<String> {
        Some(self.0.clone())
    }

    fn learn(&mut self, _: &str) {}
}

/// A form on its way to the token endpoint.
fn request_of(origin: &str, form: &str) -> Vec<u8> {
    posted(origin, "/token", "application/x-www-form-urlencoded", "", form)
}

fn form(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

async fn codes(app: &TestApp, browser: &mut Browser, client: &Client) -> Vec<Exchanging> {
    let mut all = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut codes = Vec::new();
        for _ in 0..CODES {
            codes.push(browser.authorize(app, client).await);
        }
        all.push(Exchanging { client: client.clone(), codes });
    }
    all
}

/// Runs each client on its own connection until the turn is over or it has no more requests. Returns answers
/// per second.
async fn turn<A: Asking>(origin: &str, askers: Vec<A>) -> (f64, Vec<A>) {
    let mut connections = Vec::new();
    for _ in &askers {
        connections.push(Connection::open(origin).await);
    }
    let begun = Instant::now();
    let tasks: Vec<_> = askers
        .into_iter()
        .zip(connections)
        .map(|(mut asker, mut connection)| {
            let origin = origin.to_owned();
            tokio::spawn(async move {
                let mut answers = 0;
                while begun.elapsed() < TURN
                    && let Some(request) = asker.next()
                {
                    let answer = connection.ask(&request_of(&origin, &request)).await;
                    asker.learn(std::str::from_utf8(answer).expect("answers are text"));
                    answers += 1;
                }
                (answers, asker)
            })
        })
        .collect();
    let (mut answers, mut back) = (0, Vec::new());
    for task in tasks {
        let (count, asker) = task.await.expect("an asker does not panic");
        answers += count;
        back.push(asker);
    }
    (machine::per_second(answers, begun.elapsed()), back)
}

/// The first bound: a handler that only answers.
async fn bare(bytes: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let origin = format!("http://{}", listener.local_addr().expect("it is bound"));
    let body = "x".repeat(bytes);
    let app = Router::new().route("/token", post(move |_: String| std::future::ready(body.clone())));
    tokio::spawn(async move {
        axum::serve(axum::serve::ListenerExt::tap_io(listener, |s| drop(s.set_nodelay(true))), app).await
    });
    origin
}

/// The second bound: the rows that a refresh writes, by as many callers, without reading, checking, signing or
/// answering.
struct Rows {
    db: Db,
    _dir: tempfile::TempDir,
    families: Vec<Family>,
}

/// A refresh token family.
#[derive(Clone)]
struct Family {
    grant: GrantId,
    leaf: Digest,
    generation: u32,
}

impl Rows {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("TMPDIR is a directory to write to");
        let path = dir.path().join("rows.db");
        let opened = tokio::task::spawn_blocking(move || Db::open(&path, &SCHEMA, None, &Clock::system()));
        let db = opened.await.expect("opening does not panic").expect("a database can be made");
        let families: Vec<_> = (0..CONNECTIONS)
            .map(|_| Family {
                grant: GrantId::random(),
                leaf: Digest::of(&shared::secret::random::<32>()),
                generation: 0,
            })
            .collect();
        let filling = families.clone();
        db.write(move |tx| fill(tx, &filling)).await.expect("the disk has room");
        Self { db, _dir: dir, families }
    }

    async fn turn(&mut self) -> f64 {
        let begun = Instant::now();
        let tasks: Vec<_> = std::mem::take(&mut self.families)
            .into_iter()
            .map(|mut family| {
                let db = self.db.clone();
                tokio::spawn(async move {
                    let mut written = 0;
                    while begun.elapsed() < TURN {
                        family = db.write(move |tx| family.rotate(tx)).await.expect("the disk has room");
                        written += 1;
                    }
                    (written, family)
                })
            })
            .collect();
        let mut all = 0;
        for task in tasks {
            let (written, family) = task.await.expect("a writer does not panic");
            all += written;
            self.families.push(family);
        }
        machine::per_second(all, begun.elapsed())
    }
}

impl Family {
    /// Writes the rows of one refresh, including its audit record.
    fn rotate(mut self, tx: &Tx<'_>) -> Result<Self, Fault> {
        tx.execute(
            "UPDATE refresh_token SET rotated_at = ?2 WHERE digest = ?1 AND rotated_at IS NULL",
            params![self.leaf, tx.now()],
        )?;
        self.leaf = Digest::of(&self.leaf.0);
        self.generation += 1;
        self.insert(tx)?;
        let event = Event::allowed(Name::RefreshRotated)
            .by_client(&client())
            .subject("u_aaaaaaaaaaaaaaaaaaaaaaaaaa")
            .client(&client())
            .grant(&self.grant)
            .jti(Jti::random(self.generation).as_str())
            .resource(&ResourceUri::parse("http://localhost:8080/mcp").expect("it is one"))
            .scope(&["docs.read"].into_iter().collect())
            .request(&Request::from(Some([127, 0, 0, 1].into())))
            .detail("family", self.grant.as_str())
            .detail("generation", self.generation)
            .detail("grace_use", false)
            .detail("exp", 1_795_435_200);
        audit::append(tx, event)?;
        Ok(self)
    }

    fn insert(&self, tx: &Tx<'_>) -> Result<(), Fault> {
        tx.execute(
            "INSERT INTO refresh_token (digest, grant_id, generation, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![self.leaf, self.grant, self.generation, tx.now(), tx.now() + TURN],
        )?;
        Ok(())
    }
}

fn client() -> ClientId {
    ClientId::parse("dyn_aaaaaaaaaaaaaaaaaaaaaaaaaa").expect("it is one")
}

/// Inserts the rows that the family's rows refer to.
fn fill(tx: &Tx<'_>, families: &[Family]) -> Result<(), Fault> {
    tx.execute(
        "INSERT INTO user (id, name, role, handle, created_at) VALUES ('u', 'ada', 'none', x'01', 0)",
        [],
    )?;
    tx.execute(
        "INSERT INTO client (id, name, source, trust, auth_method, application_type, grant_types, metadata, created_at)
         VALUES (?1, 'one', 'self_registered', 'known', 'none', 'native', 'refresh_token', '{}', 0)",
        params![client()],
    )?;
    for family in families {
        tx.execute(
            "INSERT INTO access_grant (id, user_id, client_id, resource, scope, amr, auth_time, created_at, expires_at)
             VALUES (?1, 'u', ?2, 'http://localhost:8080/mcp', 'docs.read', 'hwk user', 0, 0, 9)",
            params![family.grant, client()],
        )?;
        family.insert(tx)?;
    }
    Ok(())
}

//! Everything that ends access, at gateways elsewhere: refused at the next request if each is introspected,
//! when the cached answer expires if answers are cached, and at the token's expiry without introspection; open
//! streams end accordingly.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::Response;
use shared::db::{ReadOnly, params};
use shared::rate::Limits;
use shared::schema::SCHEMA;
use tokio::task::JoinHandle;

use crate::certificates::unused_port;
use crate::gateway::{AUDIENCE, GatewayAddress, LocalGateway, ORIGIN, write_secret};
use crate::harness::{Browser, TestApp, Tokens, header};
use crate::kills::{CONFIGURATION, HeldTokens, Killer, Stage};
use crate::process::{Process, program};

/// The default cache time of an answer.
const CACHE: Duration = Duration::from_secs(5);
/// The time within which a stream must close (RS-10).
const AT_ONCE: Duration = Duration::from_secs(2);

/// Gateways on several machines with the same credentials.
struct Gateways {
    always: LocalGateway,
    cached: LocalGateway,
    expiry_only: LocalGateway,
}

impl Gateways {
    async fn start(app: &TestApp) -> Self {
        let added = app.console(&["rs", "add", "gateway", "--audience", AUDIENCE]);
        let id = added["resource_server"]["id"].as_str().unwrap();
        let secret = added["client_secret"].as_str().unwrap();
        let checks = |check: &str| format!("[remote.checks]\n\"docs.read\" = \"{check}\"\n");
        Self {
            always: LocalGateway::known_as(app, id, secret, &checks("always")).await,
            // What follows from the scope's risk.
            cached: LocalGateway::known_as(app, id, secret, "").await,
            expiry_only: LocalGateway::known_as(app, id, secret, &checks("expiry-only")).await,
        }
    }

    async fn end(self) {
        self.always.end().await;
        self.cached.end().await;
        self.expiry_only.end().await;
    }
}

/// An authorization server with an administrator, and tokens for the gateways.
async fn stage() -> (Stage, Gateways) {
    let app = TestApp::start_configured(CONFIGURATION).await;
    app.admin().await;
    let gateways = Gateways::start(&app).await;
    (Stage::around(app, AUDIENCE), gateways)
}

fn assert_refused(answer: &Response, killer: Killer) {
    assert_eq!(answer.status(), 401, "{killer:?}");
    let challenge = header(answer.headers(), "www-authenticate").unwrap();
    assert!(challenge.contains("error=\"invalid_token\""), "{killer:?}: {challenge}");
}

/// RS-08, INTRO-06, REVOKE-04, REFRESH-05, REFRESH-08, TOKEN-06, KEYS-04: each killer takes effect at a gateway
/// at the next request if each is introspected, and otherwise when the cached answer expires.
#[tokio::test(flavor = "multi_thread")]
async fn every_revocation_reaches_a_gateway_in_time() {
    let (mut stage, gateways) = stage().await;
    let clock = stage.app.clock.clone();
    for (killer, _) in Killer::ALL {
        let (held, mut browser) = stage.ready(killer).await;
        let token = held.tokens.access.as_str();
        for gateway in [&gateways.always, &gateways.cached, &gateways.expiry_only] {
            assert_eq!(gateway.search(token).await.status(), 200, "{killer:?}");
        }
        stage.kill(killer, &held, &mut browser).await;
        assert_refused(&gateways.always.search(token).await, killer);
        // The answer to that question also applies to tools without a scope.
        assert_eq!(gateways.always.whoami(token).await, 401, "{killer:?}");
        assert_eq!(gateways.cached.search(token).await.status(), 200, "{killer:?}: its answer still counts");
        clock.advance(CACHE.saturating_sub(Duration::from_millis(1)));
        assert_eq!(gateways.cached.search(token).await.status(), 200, "{killer:?}: its answer still counts");
        clock.advance(Duration::from_millis(1));
        assert_refused(&gateways.cached.search(token).await, killer);
        assert_refused(&gateways.always.search(token).await, killer);
        assert_eq!(gateways.expiry_only.search(token).await.status(), 200, "{killer:?}: it asks nobody");
        stage.mend(killer, &held).await;
    }
    for gateway in [&gateways.always, &gateways.cached] {
        let denied = gateway.events().into_iter().filter(|e| e["event"] == "rs.denied");
        let revoked = denied.filter(|e| e["reason"] == "revoked").count();
        assert!(revoked >= Killer::ALL.len(), "{revoked} are on record");
    }
    gateways.end().await;
}

/// RS-08: with `expiry-only` a revoked token works until it expires, and no longer.
#[tokio::test(flavor = "multi_thread")]
async fn expiry_only_ends_with_the_expiry() {
    let (mut stage, gateways) = stage().await;
    let (held, mut browser) = stage.ready(Killer::GrantRevoked).await;
    let token = held.tokens.access.as_str();
    stage.kill(Killer::GrantRevoked, &held, &mut browser).await;
    let lifetime = held.tokens.claims();
    let lifetime = lifetime["exp"].as_i64().unwrap() - lifetime["iat"].as_i64().unwrap();
    // The gateway's clock may differ by this much from the one that set the expiry.
    let ends = Duration::from_secs(u64::try_from(lifetime).unwrap()) + shared::clock::LEEWAY;
    stage.app.clock.advance(ends.saturating_sub(Duration::from_secs(1)));
    assert_eq!(gateways.expiry_only.search(token).await.status(), 200);
    stage.app.clock.advance(Duration::from_secs(1));
    let refused = gateways.expiry_only.search(token).await;
    assert_refused(&refused, Killer::GrantRevoked);
    assert!(header(refused.headers(), "www-authenticate").unwrap().contains("expired"));
    gateways.end().await;
}

/// REFRESH-06: a gateway without introspection still reports that a token is in use, so that a thief with the
/// previous refresh token is detected.
#[tokio::test(flavor = "multi_thread")]
async fn expiry_only_still_revokes_a_replayed_token() {
    let (mut stage, gateways) = stage().await;
    let (held, _) = stage.ready(Killer::GrantRevoked).await;
    let app = &stage.app;
    let client = held.client();
    let next = Tokens::of(app.refresh(client, &held.tokens.refresh).await).await;
    assert_eq!(gateways.expiry_only.search(&next.access).await.status(), 200);
    let db = ReadOnly::open(&app.data_dir().join("portcullis.db"), &SCHEMA).unwrap();
    let grant = next.claims()["grant_id"].as_str().unwrap().to_owned();
    let told = || {
        let (sql, grant) = ("SELECT seen_generation FROM access_grant WHERE id = ?1", grant.clone());
        db.read(move |conn| conn.query_row(sql, params![grant], |row| row.get::<Option<i64>>(0))).unwrap()
    };
    let told = async {
        while told().flatten().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), told).await.expect("the authorization server is told");
    app.clock.advance(Duration::from_mins(2));
    assert_eq!(app.refresh(client, &held.tokens.refresh).await.status(), 400, "its successor is in use");
    assert_eq!(app.refresh(client, &next.refresh).await.status(), 400, "and so all of it ends");
    gateways.end().await;
}

/// Reads a stream to its end.
async fn ends(stream: &mut Response) -> bool {
    let to_its_end = async { while let Ok(Some(_)) = stream.chunk().await {} };
    tokio::time::timeout(AT_ONCE, to_its_end).await.is_ok()
}

async fn is_open(stream: &mut Response) -> bool {
    tokio::time::timeout(Duration::from_millis(10), stream.chunk()).await.is_err()
}

/// RS-10: a gateway closes an open stream within two seconds of the killer, or of the cached answer's expiry.
/// Others stay open.
#[tokio::test(flavor = "multi_thread")]
async fn streams_elsewhere_end_in_time() {
    let (mut stage, gateways) = stage().await;
    for (killer, _) in Killer::ALL {
        let (held, mut browser) = stage.ready(killer).await;
        let (other, _) = stage.ready(Killer::GrantRevoked).await;
        let mut asking = gateways.always.listen(&held.tokens.access).await;
        let mut keeping = gateways.cached.listen(&held.tokens.access).await;
        let mut bystander = gateways.always.listen(&other.tokens.access).await;
        stage.kill(killer, &held, &mut browser).await;
        assert!(ends(&mut asking).await, "{killer:?}: the stream is still open");
        assert!(is_open(&mut keeping).await, "{killer:?}: an answer that still counts was not used");
        if !matches!(killer, Killer::KeyRemoved | Killer::Lockdown) {
            assert!(is_open(&mut bystander).await, "{killer:?}: somebody else's stream was closed");
        }
        stage.app.clock.advance(CACHE);
        assert!(ends(&mut keeping).await, "{killer:?}: the stream is still open");
        stage.mend(killer, &held).await;
    }
    gateways.end().await;
}

/// RS-09, RS-10: if introspection is unavailable, a stream that needs it ends; afterwards a new one can be
/// opened without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn streams_end_when_nobody_can_be_asked() {
    let (mut stage, gateways) = stage().await;
    let (held, _) = stage.ready(Killer::GrantRevoked).await;
    let token = held.tokens.access.as_str();
    let mut asking = gateways.always.listen(token).await;
    let mut keeping = gateways.cached.listen(token).await;
    let clock = stage.app.clock.clone();
    let stopped = stage.app.stop().await;
    assert!(ends(&mut asking).await, "nobody could be asked");
    assert!(is_open(&mut keeping).await, "its answer still counts");
    clock.advance(CACHE);
    assert!(ends(&mut keeping).await);
    for gateway in [&gateways.always, &gateways.cached] {
        let refused = gateway.search(token).await;
        assert_eq!(refused.status(), 503);
        assert!(header(refused.headers(), "retry-after").is_some());
    }
    let app = stopped.start().await;
    clock.advance(Duration::from_secs(1));
    gateways.always.listen(token).await;
    gateways.cached.listen(token).await;
    drop(app);
    gateways.end().await;
}

/// RS-10, RS-09: an authorization server that accepts questions and never answers does not keep a stream open.
#[tokio::test(flavor = "multi_thread")]
async fn streams_end_when_nobody_answers() {
    let (mut stage, gateways) = stage().await;
    let (held, _) = stage.ready(Killer::GrantRevoked).await;
    let mut asking = gateways.always.listen(&held.tokens.access).await;
    let address = stage.app.origin.replace("http://localhost", "127.0.0.1");
    let _stopped = stage.app.stop().await;
    let _silent = std::net::TcpListener::bind(address).unwrap();
    assert!(ends(&mut asking).await, "nobody answered");
    gateways.end().await;
}

/// Whether a gateway lets the holder of a token read the documents.
async fn is_accepted(door: &GatewayAddress, token: &str) -> bool {
    let answer = door.search(token).await;
    let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
    assert!(matches!(status, 200 | 401), "{status} {text}");
    status == 200 && !text.contains("Unknown tool")
}

/// Somebody who asks again and again. Each answer: when it was asked for, and whether it was accepted.
fn ask(door: &GatewayAddress, token: &str, enough: &Arc<AtomicBool>) -> JoinHandle<Vec<(Instant, bool)>> {
    let (door, token, enough) = (door.clone(), token.to_owned(), Arc::clone(enough));
    tokio::spawn(async move {
        let mut answers = Vec::new();
        while !enough.load(Ordering::Relaxed) {
            let asked = Instant::now();
            answers.push((asked, is_accepted(&door, &token).await));
        }
        answers
    })
}

/// Both halves, each in a separate process.
struct Halves {
    stage: Stage,
    door: GatewayAddress,
    _authz: Process,
    _gateway: Process,
}

impl Halves {
    async fn start() -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let config = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let serve = |half: &str, port: u16, config: &Path, data: &str| {
            let mut command = program();
            command.args(["serve", "--json", "--only", half, "--config"]).arg(config);
            command.args(["--listen", &format!("localhost:{port}"), "--data-dir"]).arg(dir.path().join(data));
            Process::spawn(command)
        };
        let off = format!("[rate]\n{} = \"off\"\n", Limits::NAMES.join(" = \"off\"\n"));
        let authz = serve("authz", 0, &config("authz.toml", &format!("{CONFIGURATION}{off}")), "data");
        let app = TestApp::beside(&authz, Arc::clone(&dir));
        app.admin().await;
        let added = app.console(&["rs", "add", "gateway", "--audience", AUDIENCE]);
        write_secret(&dir.path().join("secret"), added["client_secret"].as_str().unwrap(), 0o600);
        let port = unused_port();
        let gateway = serve(
            "resource",
            port,
            &config(
                "gateway.toml",
                &format!(
                    "issuer = \"{}\"\norigin = \"{ORIGIN}\"\ntrusted_proxies = [\"127.0.0.1\", \"::1\"]\n[remote]\nclient_id = {}\nsecret_file = \"secret\"\n[remote.checks]\n\"docs.read\" = \"always\"\n{off}",
                    app.origin, added["resource_server"]["id"]
                ),
            ),
            "elsewhere",
        );
        let door = GatewayAddress { http: app.http.clone(), url: format!("http://localhost:{port}") };
        Self { stage: Stage::around(app, AUDIENCE), door, _authz: authz, _gateway: gateway }
    }

    /// Ends this access while two tasks send requests continuously. Returns the number of requests after the
    /// answer.
    async fn kill(&self, killer: Killer, held: &HeldTokens, browser: &mut Browser) -> usize {
        let token = held.tokens.access.as_str();
        assert!(is_accepted(&self.door, token).await, "{killer:?}");
        let enough = Arc::new(AtomicBool::new(false));
        let asking = [(); 2].map(|()| ask(&self.door, token, &enough));
        self.stage.kill(killer, held, browser).await;
        let answered = Instant::now();
        assert!(!is_accepted(&self.door, token).await, "{killer:?}: accepted after it was ended");
        enough.store(true, Ordering::Relaxed);
        let mut after = 0;
        for asking in asking {
            for (asked, accepted) in asking.await.unwrap() {
                assert!(asked < answered || !accepted, "{killer:?}: accepted after it was ended");
                after += usize::from(asked >= answered);
            }
        }
        after
    }
}

/// RS-08: the same with two processes: 198 times access is ended at one while requests are sent to the other.
/// No request that begins after the answer is accepted.
#[tokio::test(flavor = "multi_thread")]
async fn two_processes_accept_no_revoked_token() {
    let mut halves = Halves::start().await;
    let (mut kills, mut asked_after) = (0, 0);
    let (last, others): (Vec<_>, Vec<_>) =
        Killer::ALL.into_iter().partition(|(killer, _)| *killer == Killer::Lockdown);
    for (killer, times) in [others, last].concat() {
        let (mut user, mut browser) = halves.stage.person().await;
        let mut client = halves.stage.app.client().await;
        // These clocks run: after a lockdown, which is last, no token is valid for the rest of the second, and
        // a gateway fetches an unknown key only every thirty seconds.
        let once = matches!(killer, Killer::KeyRemoved | Killer::Lockdown);
        for _ in 0..if once { 1 } else { times / 5 } {
            match killer {
                Killer::UserDeleted => (user, browser) = halves.stage.person().await,
                Killer::ClientDeleted => client = halves.stage.app.client().await,
                _ => {}
            }
            let mut held = halves.stage.held(&user, &mut browser, &client).await;
            halves.stage.prepare(killer, &mut held, &mut browser).await;
            asked_after += halves.kill(killer, &held, &mut browser).await;
            if killer != Killer::Lockdown {
                halves.stage.mend(killer, &held).await;
            }
            kills += 1;
        }
    }
    assert_eq!(kills, 198);
    assert!(asked_after > 0, "nobody asked at the right moment");
}

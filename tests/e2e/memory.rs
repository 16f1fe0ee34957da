//! The memory that strangers can occupy (RATE-07), measured on the program itself.

mod upstreams;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::certificates::{Authority, HOST, unused_port};
use crate::harness::TestApp;
use crate::http2::{Connection, DATA, END_HEADERS, HEADERS, WINDOW_UPDATE, frame};
use crate::process::{Process, program};
use crate::raw::{Handshake, Raw};
use crate::worst::{self, RequestParser};

const MIB: u64 = 1 << 20;
/// The share of one address with the default budget: a quarter of 256 MiB.
const SHARE: u64 = 64 * MIB;

/// A running program with this configuration, with or without TLS.
struct TestedServer {
    dir: Arc<tempfile::TempDir>,
    process: Process,
}

impl TestedServer {
    fn secured(toml: &str) -> Self {
        let port = unused_port();
        Self::start(&format!(
            "issuer = \"https://{HOST}:{port}\"\nlisten = \"127.0.0.1:{port}\"\n{toml}\n\
             [tls]\ncert = \"gate.pem\"\nkey = \"gate.key\"\n"
        ))
    }

    fn start(toml: &str) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        Authority::new().issue(&[HOST], 90).write(dir.path(), "gate");
        let config = dir.path().join("portcullis.toml");
        std::fs::write(&config, format!("data_dir = \"data\"\n{toml}")).unwrap();
        let mut command = measured();
        command.args(["serve", "--json", "--config"]).arg(&config).env_remove("RUST_LOG");
        let process = Process::spawn(command);
        Self { dir, process }
    }

    /// Runs an attack on this many connections. The process may grow by at most `most` meanwhile, and within
    /// ten seconds afterwards it may be at most a fifth larger than before.
    async fn endures(&self, what: &str, most: u64, connections: usize, attack: impl AsyncFn(usize)) {
        // Code and caches occupy memory at their first use.
        for _ in 0..50 {
            self.healthy().await;
        }
        attack(5).await;
        let before = self.settled().await;
        self.process.forget_peak();
        attack(connections).await;
        let grown = self.process.memory().saturating_sub(before);
        eprintln!("{what}: {before} bytes before, {grown} more at most");
        self.healthy().await;
        let (most_after, begun) = (before + before / 5, Instant::now());
        let mut after = self.process.resident();
        while after > most_after && begun.elapsed() < Duration::from_secs(10) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            after = self.process.resident();
        }
        eprintln!("{what}: {after} bytes after {:?}", begun.elapsed());
        assert!(grown <= most, "{what}: {grown} bytes more than {before}");
        assert!(after <= most_after, "{what}: {after} bytes stay of {before}");
    }

    /// The process's memory once it no longer shrinks.
    async fn settled(&self) -> u64 {
        let mut least = self.process.resident();
        loop {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let now = self.process.resident();
            if now >= least {
                return least;
            }
            least = now;
        }
    }

    async fn healthy(&self) {
        let authority = std::fs::read(self.dir.path().join("gate.ca")).unwrap();
        let mut raw = if self.process.origin.starts_with("https") {
            Raw::over(
                Handshake::new(&authority).shake(&self.process.origin).await.unwrap(),
                &self.process.origin,
            )
        } else {
            Raw::open(&self.process.origin).await
        };
        raw.ask("GET /healthz", "", "").await;
        assert_eq!(raw.answer().await.expect("an answer to somebody else").status, 200);
    }

    async fn http2(&self, settings: &[(u16, u32)]) -> Option<Connection> {
        let authority = std::fs::read(self.dir.path().join("gate.ca")).unwrap();
        Connection::to(&self.process.origin, &authority, settings).await.ok()
    }
}

/// The program under test, or another build of it to be measured.
fn measured() -> Command {
    std::env::var_os("PORTCULLIS_MEASURED").map_or_else(program, Command::new)
}

/// The paths of all endpoints that read a body; `every_route_is_walked` compares the list with the table of routes.
fn paths() -> Vec<&'static str> {
    let reads = |takes| matches!(takes, RequestParser::Form | RequestParser::Json);
    let endpoints = worst::ENDPOINTS.iter().filter(|(_, path, takes)| reads(*takes) && !path.contains('{'));
    endpoints.map(|(_, path, _)| *path).collect()
}

/// Sends as much as is allowed: on 64 streams, headers of 15 KB and 15 KB of an endless body, within the
/// server's windows; to the next endpoint on each. Stays until it is disconnected or all others are done.
async fn stall(mut connection: Connection, first: usize) {
    const PIECE: usize = 15_000;
    let filler = "y".repeat(PIECE);
    let more =
        [("content-type", "application/x-www-form-urlencoded"), ("content-length", "16000"), ("x", &filler)];
    let paths = paths();
    for n in 0..64 {
        let path = paths[(first + usize::try_from(n).unwrap()) % paths.len()];
        let block = connection.block("POST", path, &more);
        connection.send(&frame(HEADERS, END_HEADERS, 2 * n + 1, &block)).await;
    }
    let mut window = 65_535;
    let mut next = 0;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(4);
    loop {
        while next < 64 && window >= PIECE {
            connection.send(&frame(DATA, 0, 2 * next + 1, filler.as_bytes())).await;
            window -= PIECE;
            next += 1;
        }
        match tokio::time::timeout_at(deadline, connection.next()).await {
            Ok(Some(frame)) if frame.kind == WINDOW_UPDATE && frame.stream == 0 => {
                window += usize::try_from(frame.code()).unwrap();
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return,
        }
    }
}

/// RATE-07: 150 HTTP/2 connections with 64 streams each, large headers and stalled bodies, without a token, at every
/// endpoint that reads a body.
#[tokio::test(flavor = "multi_thread")]
async fn stalled_streams_cost_a_bounded_amount_of_memory() {
    let victim = TestedServer::secured("[rate]\ntoken_address = \"off\"\n");
    victim
        .endures("stalled streams", SHARE, 150, async |connections| {
            let mut attackers = JoinSet::new();
            for n in 0..connections {
                let Some(connection) = victim.http2(&[]).await else { continue };
                attackers.spawn(stall(connection, n));
            }
            attackers.join_all().await;
        })
        .await;
}

/// Sends a call of almost 1 MiB without its last byte. Stays until it is disconnected or all others are done.
async fn stall_call(origin: String, token: String) {
    let mut connection = Raw::open(&origin).await;
    let headers = format!(
        "Authorization: Bearer {token}\r\nContent-Type: application/json\r\nAccept: application/json\r\n\
         MCP-Protocol-Version: 2025-11-25\r\nContent-Length: {MIB}\r\n"
    );
    let body = " ".repeat(usize::try_from(MIB).unwrap() - 1);
    let stalled = async {
        connection.ask("POST /mcp", &headers, &body).await;
        connection.is_over().await
    };
    let _ = tokio::time::timeout(Duration::from_secs(4), stalled).await;
}

/// RATE-07: 200 HTTP/1 connections with a valid token and a stalled body of 1 MiB each. The budget counts body
/// bytes; a growing buffer briefly exists twice, so the process may grow by a quarter more.
#[tokio::test(flavor = "multi_thread")]
async fn stalled_calls_cost_a_bounded_amount_of_memory() {
    let victim = TestedServer::start("listen = \"localhost:0\"\n");
    let app = TestApp::beside(&victim.process, Arc::clone(&victim.dir));
    let (mut browser, client) = (app.admin().await, app.client().await);
    let token = app.tokens(&mut browser, &client).await.access;
    assert_eq!(app.call_tool(&token, "whoami", json!({})).await.status(), 200);
    victim
        .endures("stalled calls", SHARE + SHARE / 4, 200, async |connections| {
            let mut callers = JoinSet::new();
            for _ in 0..connections {
                callers.spawn(stall_call(victim.process.origin.clone(), token.clone()));
            }
            callers.join_all().await;
        })
        .await;
}

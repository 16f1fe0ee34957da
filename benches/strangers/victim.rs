//! The effect of a flood from one address on another user's complete sign-in, from the authorization request to
//! the tokens, compared with sign-ins without a flood.
//!
//! The server is a separate process on one core, with its default limits; the client uses the other core. The same
//! user signs in repeatedly, so they move to another address before one has used up what it may do in a minute.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::{Browser, Client, TestApp};
use crate::machine;
use crate::process::{self, Process};

/// The number of sign-ins timed in one run, and of runs with and without the flood.
const SIGN_INS: usize = 50;
const ROUNDS: usize = 8;
/// The number of sign-ins from one address: ten uses of a user's passkey are allowed there per minute.
const PER_ADDRESS: usize = 10;
/// The number of the flood's connections.
const CONNECTIONS: usize = 8;
/// The flood's address.
const FLOODER: &str = "127.0.0.2:0";

pub async fn measured() {
    let dir = Arc::new(tempfile::tempdir().expect("there is a place for files"));
    let mut serve = Command::new("taskset");
    serve.args(["-c", "0"]).arg(process::program().get_program());
    serve.args(["serve", "--json", "--listen", "localhost:0", "--data-dir"]).arg(dir.path().join("data"));
    let process = Process::spawn(serve);
    let here = std::process::id().to_string();
    let pinned = Command::new("taskset").args(["-a", "-c", "-p", "1", &here]).output();
    assert!(pinned.is_ok_and(|output| output.status.success()), "taskset keeps a process on one core");

    let app = TestApp::beside(&process, dir);
    let (browser, client) = (app.admin().await, app.client().await);
    let origin = app.origin.clone();
    let mut victim = Victim { app, browser, client, sign_ins: 0 };
    let (mut idle, mut flooded, mut sent) = (Vec::new(), Vec::new(), 0);
    victim.sign_ins().await;
    for _ in 0..ROUNDS {
        idle.extend(victim.sign_ins().await);
        let flood = Flood::start(&origin);
        flooded.extend(victim.sign_ins().await);
        sent += flood.stop();
    }
    let count = idle.len();
    for (what, times) in [("alone", &mut idle), ("beside a flood", &mut flooded)] {
        let [half, most] = [50, 99].map(|percent| machine::percentile(times, percent) * 1000.0);
        println!("a sign-in {what}: median {half:.2} ms, p99 {most:.2} ms, {count} of them");
    }
    println!("the flood sent {sent} requests meanwhile");
    machine::ratio(
        "compared: p99 of somebody's whole sign-in beside a flood from one other address at /login/start and /authorize, and alone; the aim is 2 or less",
        "victim_sign_in_p99_flood_over_idle",
        machine::percentile(&mut flooded, 99) / machine::percentile(&mut idle, 99),
    );
}

/// A user who signs in again and again.
struct Victim {
    app: TestApp,
    browser: Browser,
    client: Client,
    sign_ins: usize,
}

impl Victim {
    /// The duration of each sign-in, in seconds.
    async fn sign_ins(&mut self) -> Vec<f64> {
        let mut times = Vec::new();
        for _ in 0..SIGN_INS {
            if self.sign_ins.is_multiple_of(PER_ADDRESS) {
                self.move_on().await;
            }
            self.sign_ins += 1;
            let begun = Instant::now();
            let code = self.browser.authorize(&self.app, &self.client).await;
            assert_eq!(self.app.redeem(&self.client, &code).await.status(), 200);
            times.push(begun.elapsed().as_secs_f64());
        }
        times
    }

    /// Continues from another address, with an open connection.
    async fn move_on(&mut self) {
        let n = u16::try_from(self.sign_ins / PER_ADDRESS).expect("there are fewer addresses");
        let [high, low] = n.to_be_bytes();
        let address = IpAddr::from(Ipv4Addr::new(127, 1, high, low));
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy();
        self.app.http = http.local_address(address).build().expect("a client can be made");
        assert_eq!(self.app.get("/healthz").await.status(), 200);
    }
}

/// An address that starts sign-ins as fast as it gets answers.
struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Flood {
    fn start(origin: &str) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (origin, halt, count) = (origin.to_owned(), Arc::clone(&stop), Arc::clone(&sent));
        let thread = std::thread::spawn(move || {
            // Lowest priority, so that the timed sign-in does not wait for this thread.
            let _ = rustix::process::setpriority_process(None, 19);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime starts").block_on(async {
                let floods = (0..CONNECTIONS).map(|n| flood(n, &origin, &halt, &count));
                futures_util::future::join_all(floods).await;
            });
        });
        let flood = Self { stop, sent, thread };
        // Wait until the flood is being rate limited.
        while flood.sent.load(Ordering::Relaxed) < 500 {
            std::thread::sleep(Duration::from_millis(5));
        }
        flood
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the flood does not panic");
        self.sent.load(Ordering::Relaxed)
    }
}

async fn flood(connection: usize, origin: &str, stop: &AtomicBool, sent: &AtomicU64) {
    let host = origin.trim_start_matches("http://");
    let mut stream = None;
    let mut n = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let request = if n.is_multiple_of(2) {
            let query = format!(
                "response_type=code&client_id=https%3A%2F%2F{connection}-{n}.example%2Fclient&redirect_uri=http%3A%2F%2Flocalhost%3A1%2Fcb&code_challenge={}&code_challenge_method=S256",
                "a".repeat(43)
            );
            format!("GET /authorize?{query} HTTP/1.1\r\nHost: {host}\r\n\r\n")
        } else {
            format!(
                "POST /login/start HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
            )
        };
        stream = ask(stream, host, &request).await;
        sent.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends a request and reads the response; returns the connection if it stays open.
async fn ask(stream: Option<TcpStream>, host: &str, request: &str) -> Option<TcpStream> {
    let mut stream = if let Some(stream) = stream {
        stream
    } else {
        let socket = TcpSocket::new_v4().ok()?;
        socket.bind(FLOODER.parse().expect("an address")).expect("all of 127.0.0.0/8 is this machine");
        let there: SocketAddr = host.replace("localhost", "127.0.0.1").parse().expect("an address");
        let stream = socket.connect(there).await.ok()?;
        stream.set_nodelay(true).ok()?;
        stream
    };
    stream.write_all(request.as_bytes()).await.ok()?;
    let (mut read, mut buffer) = (Vec::new(), vec![0; 16 * 1024]);
    loop {
        let count = stream.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
        read.extend_from_slice(&buffer[..count]);
        let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
        let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        let length: usize = header("content-length: ").and_then(|length| length.trim().parse().ok())?;
        if read.len() >= end + 4 + length {
            return (header("connection: ") != Some("close")).then_some(stream);
        }
    }
}

//! What the way to a handler costs: processor time of the server for each request for a document that stays the same, and of
//! a bare axum handler that answers with as many bytes. A document is nearly all front, so this measures the front.
//!
//! Each server is a process of its own on one core, with the log and the limits that it has by default; whoever asks is on
//! the other core, over 16 connections. The servers take turns round by round.

mod machine;
#[allow(dead_code)]
#[path = "../tests/e2e/process.rs"]
mod process;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use process::Process;

/// How often each server has its turn, and how many requests each connection sends in one.
const ROUNDS: usize = 9;
const REQUESTS: usize = 1000;
const CONNECTIONS: usize = 16;
/// With this and a number of bytes, this program is the bare server.
const BARE: &str = "bare";

/// The name of a ratio, and the document that it is about.
const DOCUMENTS: [(&str, &str); 4] = [
    ("metadata_over_bare_axum", "/.well-known/oauth-authorization-server"),
    ("jwks_over_bare_axum", "/jwks.json"),
    ("resource_metadata_over_bare_axum", "/.well-known/oauth-protected-resource/mcp"),
    ("asset_over_bare_axum", "/assets/passkey.js"),
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = |workers: usize| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()
    };
    if let [_, role, bytes] = &arguments[..]
        && role == BARE
    {
        let bytes = bytes.parse().expect("a number of bytes");
        runtime(1).expect("a runtime starts").block_on(bare(bytes));
        return;
    }
    if machine::ready("front") {
        runtime(1).expect("a runtime starts").block_on(measure());
    }
}

async fn measure() {
    let dir = tempfile::tempdir().expect("there is a place for files");
    let mut serve = on_core_0(process::program().get_program());
    serve.args(["serve", "--json", "--listen", "localhost:0", "--data-dir"]).arg(dir.path().join("data"));
    let ours = Process::spawn(serve);
    let here = std::process::id().to_string();
    let pinned = Command::new("taskset").args(["-a", "-c", "-p", "1", &here]).output();
    assert!(pinned.is_ok_and(|output| output.status.success()), "taskset keeps a process on one core");

    let mut ratios = Vec::new();
    for (name, path) in DOCUMENTS {
        let bytes = Connection::open(&ours.origin).await.ask(path).await;
        let bare = Bare::start(bytes);
        let (mut own, mut others) = (Vec::new(), Vec::new());
        turn(&ours.origin, path, ours.id()).await;
        turn(&bare.origin, path, bare.child.id()).await;
        for _ in 0..ROUNDS {
            own.push(turn(&ours.origin, path, ours.id()).await);
            others.push(turn(&bare.origin, path, bare.child.id()).await);
        }
        let [own, others] = [own, others].map(machine::median::<f64>);
        println!(
            "{path}, {bytes} bytes: {own:.1} µs of processor time a request, a bare handler {others:.1} µs"
        );
        ratios.push((name, path, others / own));
    }
    machine::load_after();
    for (name, path, ratio) in ratios {
        let compared = format!(
            "compared: processor time of a bare axum handler that answers with as many bytes, and of GET {path}; the aim is 0.8 or more"
        );
        machine::ratio(&compared, name, ratio);
    }
}

fn on_core_0(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]).arg(program);
    command
}

/// Every connection sends its requests, one after the other. Microseconds of processor time that the process spends on each.
async fn turn(origin: &str, path: &'static str, process: u32) -> f64 {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut connection = Connection::open(origin).await;
        connection.ask(path).await;
        connections.push(connection);
    }
    let before = process::processor_time(process);
    let asking: Vec<_> = connections
        .into_iter()
        .map(|mut connection| {
            tokio::spawn(async move {
                for _ in 0..REQUESTS {
                    connection.ask(path).await;
                }
            })
        })
        .collect();
    for one in asking {
        one.await.expect("who asks does not panic");
    }
    let spent = process::processor_time(process).saturating_sub(before);
    spent.as_secs_f64() * 1e6 / machine::number(CONNECTIONS * REQUESTS)
}

/// A client that costs next to nothing: one HTTP/1.1 connection, one request at a time.
struct Connection {
    stream: TcpStream,
    host: String,
    read: Vec<u8>,
}

impl Connection {
    async fn open(origin: &str) -> Self {
        let host = origin.trim_start_matches("http://").to_owned();
        let stream = TcpStream::connect(host.replace("localhost", "127.0.0.1")).await.expect("it listens");
        stream.set_nodelay(true).expect("a socket takes its options");
        Self { stream, host, read: Vec::with_capacity(16 * 1024) }
    }

    /// Asks for a document; how many bytes it has.
    async fn ask(&mut self, path: &str) -> usize {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\n\r\n", self.host);
        self.stream.write_all(request.as_bytes()).await.expect("the server reads");
        self.read.clear();
        loop {
            let count = self.stream.read_buf(&mut self.read).await.expect("the server answers");
            assert!(count > 0, "the server closed the connection");
            let Some(end) = self.read.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
            let head = std::str::from_utf8(&self.read[..end]).expect("heads are ASCII");
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length").then(|| value.parse().ok())?
            });
            let length: usize = length.expect("the answer says how long it is");
            if self.read.len() >= end + 4 + length {
                return length;
            }
        }
    }
}

/// The yardstick, in a process of its own. Killed when dropped.
struct Bare {
    child: Child,
    origin: String,
}

impl Bare {
    fn start(bytes: usize) -> Self {
        let this = std::env::current_exe().expect("a program has a path");
        let mut command = on_core_0(this);
        command.args([BARE, &bytes.to_string()]).stdout(Stdio::piped());
        let mut child = command.spawn().expect("taskset starts");
        let mut origin = String::new();
        BufReader::new(child.stdout.as_mut().expect("it is piped"))
            .read_line(&mut origin)
            .expect("it says where");
        Self { child, origin: origin.trim().to_owned() }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A handler that does nothing but answer.
async fn bare(bytes: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    println!("http://{}", listener.local_addr().expect("it is bound"));
    std::io::stdout().flush().expect("somebody reads");
    let body = Bytes::from("x".repeat(bytes));
    let answer = move || std::future::ready(([(CONTENT_TYPE, "application/json")], body.clone()));
    let app = DOCUMENTS.iter().fold(Router::new(), |app, (_, path)| app.route(path, get(answer.clone())));
    let listener = axum::serve::ListenerExt::tap_io(listener, |s| drop(s.set_nodelay(true)));
    axum::serve(listener, app).await.expect("it serves until it is killed");
}

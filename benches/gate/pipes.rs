//! A server behind the gate that is a program, compared with a bare axum handler that writes each request to the same program
//! and answers with the line that it says; how long such a program takes to start; and what an idle session costs.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use axum::serve::ListenerExt;
use children::child::start;
use children::conversation::{Conversation, Skips};
use children::program::Program;
use children::{Executable, Ring, Unlimited};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;

use crate::Ratio;
use crate::bare_rmcp::ECHO;
use crate::calls::{Endpoint, Revision};
use crate::harness::TestApp;
use crate::latency::paced;
use crate::machine;
use crate::machine::roles::{ASKERS, Role, SERVERS, say};
use crate::process::program;

/// The role of the program; its argument is the bytes of a result.
pub const SERVER: &str = "pipes";
/// The role of the axum handler; its argument too.
pub const BRIDGE: &str = "pipe-bridge";
/// The source.
pub const SOURCE: &str = "piped";
/// Rounds of calls, starts, and users with several sessions each.
const TURNS: usize = 10;
const STARTS: usize = 20;
const USERS: usize = 32;
const SESSIONS: usize = 32;

/// The program and its arguments: pinned to the core of the other servers behind the gate.
pub fn command(bytes: usize) -> Vec<String> {
    let own = std::env::current_exe().expect("a program has a path").display().to_string();
    let (core, bytes) = (ASKERS.to_string(), bytes.to_string());
    ["taskset", "-c", &core, &own, SERVER, &bytes].map(str::to_owned).into()
}

/// Speaks MCP 2025-06-18 on standard input and output, with one tool.
pub fn serve(bytes: usize) {
    let text = "x".repeat(bytes);
    for line in std::io::stdin().lock().lines() {
        let Ok(request) = line.map(|line| serde_json::from_str::<Value>(&line).unwrap_or_default()) else {
            return;
        };
        let Some(id) = request.get("id") else { continue };
        let result = match request["method"].as_str() {
            Some("initialize") => json!({ "protocolVersion": "2025-06-18", "capabilities": { "tools": {} },
                "serverInfo": { "name": "bench", "version": "1" } }),
            Some("tools/list") => json!({ "tools": [{ "name": ECHO, "inputSchema": { "type": "object" } }] }),
            Some("tools/call") => json!({ "content": [{ "type": "text", "text": text }] }),
            _ => {
                let error = json!({ "code": -32601, "message": "Method not found" });
                say(json!({ "jsonrpc": "2.0", "id": id, "error": error }));
                continue;
            }
        };
        say(json!({ "jsonrpc": "2.0", "id": id, "result": result }));
    }
}

/// The pipes of the program, one request at a time.
type Pipes = Arc<Mutex<(ChildStdin, BufReader<ChildStdout>)>>;

/// Writes the body of each request to the program, and answers with the line that it says.
pub async fn bridge(bytes: usize) {
    let command = command(bytes);
    let mut child = Command::new(&command[0]);
    child.args(&command[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = child.spawn().expect("the program starts");
    let pipes = (child.stdin.take(), child.stdout.take());
    let pipes = (pipes.0.expect("it is piped"), BufReader::new(pipes.1.expect("it is piped")));
    let app = Router::new().route("/mcp", post(pass)).with_state(Arc::new(Mutex::new(pipes)));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    say(format_args!("http://{}", listener.local_addr().expect("it is bound")));
    let listener = listener.tap_io(|socket| drop(socket.set_nodelay(true)));
    axum::serve(listener, app).await.expect("it serves until it is killed");
}

async fn pass(State(pipes): State<Pipes>, body: String) -> String {
    let mut pipes = pipes.lock().await;
    pipes.0.write_all(format!("{body}\n").as_bytes()).await.expect("the program reads");
    let mut line = String::new();
    pipes.1.read_line(&mut line).await.expect("the program answers");
    line
}

/// The median latency through the gate, and through the bridge.
pub async fn latency(gate: &Endpoint, bytes: usize) -> Ratio {
    let bridge = Role::start(SERVERS, &[BRIDGE, &bytes.to_string()]);
    let passed = gate.call(Revision::Modern, None, &format!("{SOURCE}_{ECHO}"));
    let bridged = Endpoint::bare(&bridge.origin).call(Revision::Legacy, None, ECHO);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for turn in 0..=TURNS {
        let both = [(&bridge.origin, &bridged, &mut theirs), (&gate.origin, &passed, &mut ours)];
        for (origin, request, times) in both {
            let took = paced(origin, request).await;
            if turn > 0 {
                times.extend(took);
            }
        }
    }
    let [ours, theirs] = [ours, theirs].map(machine::median::<f64>);
    println!(
        "200 calls a second of a program: median {ours:.0} µs through the gate, {theirs:.0} µs through axum"
    );
    Ratio::new(
        "gate_stdio_p50_over_axum_pipe_bridge",
        ours / theirs,
        "the median time of a call of a program through the gate, and through a bare axum handler that writes it to the same program, 200 calls a second; the aim is 2 or less",
    )
}

/// How long it takes from the order to the first answer of a program that is supervised and confined.
pub async fn spawn(bytes: usize) {
    let executable = Executable::from(PathBuf::from(program().get_program()));
    let words = command(bytes);
    let mut took = Vec::new();
    for _ in 0..STARTS {
        let begun = Instant::now();
        let own = PathBuf::from(&words[3]);
        let launched = Program {
            args: words[4..].to_vec(),
            paths: BTreeMap::new(),
            ..Program::new("bench", &own.display().to_string())
        };
        let started = start(&executable, launched, &Ring::default()).await.expect("it starts");
        let conversation =
            Conversation::begin(started.stdin, started.stdout, Unlimited, &Skips::default(), |_, _| {});
        let mut asked = conversation.ask("initialize", Some("{}")).expect("it is asked");
        asked.answered().await.expect("it answers");
        took.push(begun.elapsed().as_secs_f64() * 1e3);
        let life = started.process.life();
        drop(started.process);
        life.gone().await;
    }
    println!("a program from its start to its first answer, the median of {STARTS}:");
    println!("stdio_spawn_ms {:.1}", machine::median(took));
}

/// What each of 1,024 idle sessions adds to the memory of the server.
pub async fn sessions(app: &TestApp, gate: &Endpoint, process: u32) {
    let client = app.client().await;
    let mut endpoints = Vec::new();
    for number in 0..USERS {
        let mut browser = app.enrol(&format!("session{number}"), &[]).await;
        let token = app.tokens(&mut browser, &client).await.access;
        endpoints.push(Endpoint { token: Some(token), ..gate.clone() });
    }
    // The first ones of each user make what all others share.
    for endpoint in &endpoints {
        endpoint.session().await;
    }
    let before = settled(process).await;
    for endpoint in &endpoints {
        for _ in 1..SESSIONS {
            endpoint.session().await;
        }
    }
    let after = settled(process).await;
    let count = u64::try_from(USERS * (SESSIONS - 1)).unwrap_or(u64::MAX);
    println!("the memory of {count} idle sessions, for each of them; the aim is 8192 or less:");
    println!("session_bytes {}", after.saturating_sub(before) / count);
}

/// The private memory of a process in bytes, when the allocator has given back what is free.
async fn settled(process: u32) -> u64 {
    tokio::time::sleep(Duration::from_secs(3)).await;
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux says it");
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kilobytes * 1024
}

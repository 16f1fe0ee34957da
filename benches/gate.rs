//! The cost of the gate. Compared are: a call of a built-in tool and a list of 500 tools, with a bare rmcp server; a call of a
//! server behind the gate, with a direct call and with a reverse proxy; calls that write, with their audit records alone; and
//! the latency of one source while another hangs; and a call of a program behind the gate, with one over a bare axum handler.
//!
//! The gate runs with its defaults: token check, policy, limits, audit log. Gate and yardsticks are separate processes on one
//! core. The client is on the other core, and so are the upstream servers. All take turns, round by round.
//!
//! `cargo bench --bench gate -- builtin list proxied write isolation stdio` runs the named parts only.

#[path = "machine/bare_rmcp.rs"]
mod bare_rmcp;
#[path = "gate/calls.rs"]
mod calls;
#[allow(dead_code)]
#[path = "../tests/e2e/certificates.rs"]
mod certificates;
#[allow(dead_code)]
#[path = "../tests/e2e/harness.rs"]
mod harness;
#[path = "gate/latency.rs"]
mod latency;
mod machine;
#[path = "gate/pipes.rs"]
mod pipes;
#[allow(dead_code)]
#[path = "../tests/e2e/process.rs"]
mod process;
#[path = "gate/yardsticks.rs"]
mod yardsticks;

use std::sync::Arc;
use std::time::{Duration, Instant};

use calls::{Endpoint, Revision};
use harness::TestApp;
use machine::roles::{self, ASKERS, Role, SERVERS};
use machine::wire::Connection;
use process::Process;

/// Rounds, connections, and requests of each connection in one round.
const ROUNDS: usize = 7;
const CONNECTIONS: usize = 16;
const REQUESTS: usize = 200;
/// Bytes of text in a result of an upstream.
const BYTES: usize = 1024;
/// Tools in the long list.
const TOOLS: usize = 500;
/// Callers that write at the same time, and the duration of one round.
const WRITERS: usize = 64;
const TURN: Duration = Duration::from_secs(2);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    let number = |text: &str| text.parse().expect("a number");
    match words[..] {
        [bare_rmcp::ROLE, bytes, more] => {
            roles::runtime().block_on(bare_rmcp::serve(number(bytes), number(more)));
        }
        [pipes::SERVER, bytes] => pipes::serve(number(bytes)),
        [pipes::BRIDGE, bytes] => roles::runtime().block_on(pipes::bridge(number(bytes))),
        [yardsticks::PROXY, upstream] => roles::runtime().block_on(yardsticks::proxy(upstream)),
        [yardsticks::RECORDS] => roles::runtime().block_on(yardsticks::records(WRITERS, TURN)),
        _ if machine::ready("gate") => roles::runtime().block_on(measure(&words)),
        _ => {}
    }
}

async fn measure(words: &[&str]) {
    let wanted = |name: &str| {
        let named = words.iter().filter(|word| !word.starts_with("--")).collect::<Vec<_>>();
        named.is_empty() || named.contains(&&name)
    };
    let bytes = BYTES.to_string();
    let upstream = Role::start(ASKERS, &[bare_rmcp::ROLE, &bytes, "0"]);
    let slow = Role::start(ASKERS, &[bare_rmcp::ROLE, &bytes, "0"]);
    let many = Role::start(ASKERS, &[bare_rmcp::ROLE, &bytes, &TOOLS.to_string()]);
    let gate = Gate::start(&upstream, &slow, &many).await;
    roles::stay_with_the_askers();
    let mut ratios = Vec::new();
    if wanted("builtin") {
        ratios.extend(built_in(&gate).await);
    }
    if wanted("list") {
        ratios.push(lists(&gate, &many).await);
    }
    if wanted("proxied") {
        ratios.push(passed_on(&gate, &upstream).await);
        ratios.push(latency::open_loop(&gate.endpoint, &upstream.origin).await);
    }
    if wanted("write") {
        ratios.push(writes(&gate).await);
    }
    if wanted("isolation") {
        ratios.extend(latency::isolation(&gate.endpoint).await);
    }
    if wanted("stdio") {
        ratios.push(pipes::latency(&gate.endpoint, BYTES).await);
        pipes::spawn(BYTES).await;
        pipes::sessions(&gate.app, &gate.endpoint, gate.process.id()).await;
    }
    machine::load_after();
    for Ratio { compared, name, value } in ratios {
        machine::ratio(&format!("compared: {compared}"), &name, value);
    }
}

/// A ratio, with a description of both sides.
pub struct Ratio {
    compared: String,
    name: String,
    value: f64,
}

impl Ratio {
    fn new(name: impl Into<String>, value: f64, compared: impl Into<String>) -> Self {
        Self { compared: compared.into(), name: name.into(), value }
    }
}

/// The limits are on, and too high to be reached. `up_put` counts as a tool that writes.
const LIMITS_AND_RULES: &str = r#"
[rate]
mcp = 100000000
[tokens]
access = "1h"
[tools]
up_echo = { scope = "docs.read", effect = "read" }
up_put = "docs.read"
slow_hang = { scope = "docs.read", effect = "read" }
"many_tool_*" = "docs.read"
piped_echo = { scope = "docs.read", effect = "read" }
"#;

/// The product with four servers behind it, and a token for their tools.
struct Gate {
    process: Process,
    endpoint: Endpoint,
    app: TestApp,
    _dir: Arc<tempfile::TempDir>,
}

impl Gate {
    async fn start(upstream: &Role, slow: &Role, many: &Role) -> Self {
        let dir = Arc::new(tempfile::tempdir().expect("there is a place for files"));
        let sources = [("up", upstream), ("slow", slow), ("many", many)].map(|(name, server)| {
            format!("[sources.{name}]\nkind = \"mcp-http\"\nurl = \"{}/mcp\"\n", server.origin)
        });
        let piped = format!(
            "[sources.{}]\nkind = \"mcp-stdio\"\ncommand = {}\npaths = {{ read = {} }}\n",
            pipes::SOURCE,
            serde_json::json!(pipes::command(BYTES)),
            serde_json::json!(std::env::current_exe().expect("a program has a path"))
        );
        let toml = [LIMITS_AND_RULES, &sources.concat(), &piped].concat();
        let config = dir.path().join("portcullis.toml");
        std::fs::write(&config, toml).expect("files can be written");
        let mut serve = roles::on_core(SERVERS, process::program().get_program());
        serve.args(["serve", "--json", "--listen", "localhost:0", "--config"]).arg(&config);
        let process = Process::spawn({
            serve.arg("--data-dir").arg(dir.path().join("data"));
            serve
        });
        let app = TestApp::beside(&process, Arc::clone(&dir));
        let (mut browser, client) = (app.admin().await, app.client().await);
        let token = app.tokens(&mut browser, &client).await.access;
        let endpoint = Endpoint { origin: process.origin.clone(), token: Some(token) };
        let gate = Self { process, endpoint, app, _dir: dir };
        gate.wait_for_tools().await;
        gate
    }

    /// Waits until the tools of all servers are listed.
    async fn wait_for_tools(&self) {
        let begun = Instant::now();
        let list = self.endpoint.list(Revision::Modern);
        let mut connection = Connection::open(&self.endpoint.origin).await;
        loop {
            let listed = String::from_utf8_lossy(connection.ask(&list).await).into_owned();
            if ["up_put", "slow_hang", "many_tool_9", "piped_echo"].iter().all(|name| listed.contains(name)) {
                return;
            }
            assert!(begun.elapsed() < Duration::from_mins(1), "the servers are walked: {listed}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// `whoami`, and a tool of the bare server with a result of the same size.
async fn built_in(gate: &Gate) -> Vec<Ratio> {
    let mut ratios = Vec::new();
    for revision in [Revision::Legacy, Revision::Modern] {
        let mut own = Vec::new();
        for _ in 0..CONNECTIONS {
            let session = if revision == Revision::Legacy { gate.endpoint.session().await } else { None };
            own.push(gate.endpoint.call(revision, session.as_deref(), "whoami"));
        }
        let answer = Connection::open(&gate.endpoint.origin).await.ask(&own[0]).await.len();
        let bytes = answer.saturating_sub(100).to_string();
        let bare = Role::start(SERVERS, &[bare_rmcp::ROLE, &bytes, "0"]);
        let endpoint = Endpoint::bare(&bare.origin);
        let theirs = vec![endpoint.call(revision, None, bare_rmcp::ECHO); CONNECTIONS];
        let (ours, theirs) =
            by_turns([(gate.process.id(), &gate.endpoint.origin, &own), (bare.id(), &bare.origin, &theirs)])
                .await;
        let version = revision.version();
        println!(
            "a call of a built-in tool in {version}, {answer} bytes: {ours:.1} µs, of a bare rmcp server {theirs:.1} µs"
        );
        let name = match revision {
            Revision::Legacy => "gate_builtin_over_bare_rmcp_2025",
            Revision::Modern => "gate_builtin_over_bare_rmcp_2026",
        };
        ratios.push(Ratio::new(
            name,
            theirs / ours,
            format!("processor time of a call of a bare rmcp server, and of a built-in tool, in {version}; the aim is 0.6 or more"),
        ));
    }
    let worst = ratios.iter().map(|ratio| ratio.value).fold(f64::INFINITY, f64::min);
    ratios.push(Ratio::new("gate_builtin_over_bare_rmcp", worst, "the same, the lower of the two"));
    ratios
}

/// The list of 500 tools.
async fn lists(gate: &Gate, many: &Role) -> Ratio {
    let bare = Role::start(SERVERS, &[bare_rmcp::ROLE, &BYTES.to_string(), &TOOLS.to_string()]);
    let own = vec![gate.endpoint.list(Revision::Modern); CONNECTIONS];
    let theirs = vec![Endpoint::bare(&many.origin).list(Revision::Modern); CONNECTIONS];
    let (ours, theirs) =
        by_turns([(gate.process.id(), &gate.endpoint.origin, &own), (bare.id(), &bare.origin, &theirs)])
            .await;
    println!("a list of {TOOLS} tools: {ours:.1} µs, of a bare rmcp server {theirs:.1} µs");
    Ratio::new(
        "list_500_tools_over_bare_rmcp",
        theirs / ours,
        "processor time of a list of a bare rmcp server, and of the gate; the aim is 0.67 or more",
    )
}

/// Calls of a server behind the gate, and behind a reverse proxy.
async fn passed_on(gate: &Gate, upstream: &Role) -> Ratio {
    let proxy = Role::start(SERVERS, &[yardsticks::PROXY, &upstream.origin]);
    let own = vec![gate.endpoint.call(Revision::Modern, None, "up_echo"); CONNECTIONS];
    let direct = Endpoint::bare(&proxy.origin).call(Revision::Modern, None, bare_rmcp::ECHO);
    let theirs = vec![direct; CONNECTIONS];
    let (ours, theirs) =
        by_turns([(gate.process.id(), &gate.endpoint.origin, &own), (proxy.id(), &proxy.origin, &theirs)])
            .await;
    println!(
        "a call of a server behind the gate: {ours:.1} µs of its own, behind a reverse proxy {theirs:.1} µs"
    );
    Ratio::new(
        "gate_http_cpu_over_hyper_reverse_proxy",
        ours / theirs,
        "processor time of the gate for a call of a server behind it, and of a hyper reverse proxy; the aim is 3 or less",
    )
}

/// Calls of a tool that may write: two records each. The first is on disk before the call is sent.
async fn writes(gate: &Gate) -> Ratio {
    let mut records = Role::start(SERVERS, &[yardsticks::RECORDS]);
    let request = gate.endpoint.call(Revision::Modern, None, "up_put");
    let (mut ours, mut alone) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.push(records.again().parse::<f64>().expect("a rate is a number"));
        ours.push(rate(&gate.endpoint.origin, &request).await);
    }
    let [ours, alone] = [ours, alone].map(machine::median::<f64>);
    println!("{WRITERS} callers that write: {ours:.0} calls a second, the records alone {alone:.0}");
    Ratio::new(
        "write_calls_over_raw_group_commit",
        ours / alone,
        "calls a second of a tool that may write, and of their two records in groups with nothing around them; the aim is 0.4 or more",
    )
}

async fn rate(origin: &str, request: &[u8]) -> f64 {
    let mut connections = Vec::new();
    for _ in 0..WRITERS {
        connections.push(Connection::open(origin).await);
    }
    let begun = Instant::now();
    let callers = connections.into_iter().map(|mut connection| {
        let request = request.to_vec();
        tokio::spawn(async move {
            let mut calls = 0_usize;
            while begun.elapsed() < TURN {
                connection.ask(&request).await;
                calls += 1;
            }
            calls
        })
    });
    let mut calls = 0;
    for caller in callers.collect::<Vec<_>>() {
        calls += caller.await.expect("a caller does not panic");
    }
    machine::per_second(calls, begun.elapsed())
}

/// Processor time of two servers for each request, in microseconds. They take turns.
async fn by_turns([first, second]: [(u32, &String, &Vec<Vec<u8>>); 2]) -> (f64, f64) {
    let (mut of_first, mut of_second) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        for ((process, origin, requests), costs) in [(first, &mut of_first), (second, &mut of_second)] {
            let cost = machine::cost(process, origin, requests, REQUESTS).await;
            // The first round warms up.
            if round > 0 {
                costs.push(cost);
            }
        }
    }
    (machine::median(of_first), machine::median(of_second))
}

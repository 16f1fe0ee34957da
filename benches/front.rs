//! The cost of the path to a handler: server CPU time per request for a static document, compared with a bare
//! axum handler that answers with as many bytes. Serving such a document is nearly all front-end work, so this
//! measures the front end.
//!
//! Each server is a separate process on one core, with its default log and limits; the client uses the other
//! core, over 16 connections. The servers take turns in each round.

mod machine;
#[allow(dead_code)]
#[path = "../tests/e2e/process.rs"]
mod process;

use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;

use machine::roles::{self, Role, SERVERS};
use machine::wire;
use process::Process;

/// The number of rounds, and of requests that each connection sends in a round.
const ROUNDS: usize = 9;
const REQUESTS: usize = 1000;
const CONNECTIONS: usize = 16;
/// With this argument and a number of bytes, this program is the bare server.
const BARE: &str = "bare";

/// The name of a ratio, and its document.
const DOCUMENTS: [(&str, &str); 4] = [
    ("metadata_over_bare_axum", "/.well-known/oauth-authorization-server"),
    ("jwks_over_bare_axum", "/jwks.json"),
    ("resource_metadata_over_bare_axum", "/.well-known/oauth-protected-resource/mcp"),
    ("asset_over_bare_axum", "/assets/passkey.js"),
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, role, bytes] = &arguments[..]
        && role == BARE
    {
        let bytes = bytes.parse().expect("a number of bytes");
        roles::runtime().block_on(bare(bytes));
        return;
    }
    if machine::ready("front") {
        roles::runtime().block_on(measure());
    }
}

async fn measure() {
    let dir = tempfile::tempdir().expect("there is a place for files");
    let mut serve = roles::on_core(SERVERS, process::program().get_program());
    serve.args(["serve", "--json", "--listen", "localhost:0", "--data-dir"]).arg(dir.path().join("data"));
    let ours = Process::spawn(serve);
    roles::stay_with_the_askers();

    let mut ratios = Vec::new();
    for (name, path) in DOCUMENTS {
        let request = wire::get(&ours.origin, path);
        let bytes = wire::Connection::open(&ours.origin).await.ask(&request).await.len();
        let bare = Role::start(SERVERS, &[BARE, &bytes.to_string()]);
        let own = vec![request; CONNECTIONS];
        let theirs = vec![wire::get(&bare.origin, path); CONNECTIONS];
        let (mut of_own, mut of_bare) = (Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            let costs = [
                machine::cost(ours.id(), &ours.origin, &own, REQUESTS).await,
                machine::cost(bare.id(), &bare.origin, &theirs, REQUESTS).await,
            ];
            // The first round warms up.
            if round > 0 {
                of_own.push(costs[0]);
                of_bare.push(costs[1]);
            }
        }
        let [own, others] = [of_own, of_bare].map(machine::median::<f64>);
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

/// A handler that only answers.
async fn bare(bytes: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    roles::say(format_args!("http://{}", listener.local_addr().expect("it is bound")));
    let body = Bytes::from("x".repeat(bytes));
    let answer = move || std::future::ready(([(CONTENT_TYPE, "application/json")], body.clone()));
    let app = DOCUMENTS.iter().fold(Router::new(), |app, (_, path)| app.route(path, get(answer.clone())));
    let listener = axum::serve::ListenerExt::tap_io(listener, |s| drop(s.set_nodelay(true)));
    axum::serve(listener, app).await.expect("it serves until it is killed");
}

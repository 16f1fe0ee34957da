//! The processor time of a refresh and of a registration, and of a tool call of a bare rmcp server.
//!
//! The servers are separate processes on one core, with the default log. The client is on the other core and has 16 connections.
//! A thousand clients wait for approval already, so each registration makes room first.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::bare_rmcp;
use crate::calls::{Endpoint, Revision};
use crate::form;
use crate::harness::TestApp;
use crate::machine::roles::{self, Role, SERVERS};
use crate::machine::wire::{Connection, post};
use crate::machine::{self, number};
use crate::process::{self, Process};

const ROUNDS: usize = 7;
const CONNECTIONS: usize = 16;
const REQUESTS: usize = 100;
/// How many clients may wait for approval.
const WAITING: usize = 1000;
/// The limits are on, and too high to be reached.
const CONFIGURATION: &str = "[rate]\ntoken_address = 100000000\ntoken_client = 100000000\nregister = 100000000\npasskey_user = 100000000\n";

pub async fn measured() {
    let dir = Arc::new(tempfile::tempdir().expect("there is a place for files"));
    let config = dir.path().join("portcullis.toml");
    std::fs::write(&config, CONFIGURATION).expect("files can be written");
    let mut serve = roles::on_core(SERVERS, process::program().get_program());
    serve.args(["serve", "--json", "--listen", "localhost:0", "--config"]).arg(&config);
    serve.arg("--data-dir").arg(dir.path().join("data"));
    let process = Process::spawn(serve);
    roles::stay_with_the_askers();
    let app = TestApp::beside(&process, dir);
    let (mut browser, client) = (app.admin().await, app.client().await);
    let mut chains = Vec::new();
    for _ in 0..CONNECTIONS {
        let token = app.tokens(&mut browser, &client).await.refresh;
        chains.push(Asker::new(&app.origin, What::Refresh { client: client.id.clone(), token }).await);
    }
    let mut registering = Vec::new();
    for n in 0..CONNECTIONS {
        registering.push(Asker::new(&app.origin, What::Register { asker: n, count: 0 }).await);
    }
    let bare = Role::start(SERVERS, &[bare_rmcp::ROLE, "98", "0"]);
    let call = Endpoint::bare(&bare.origin).call(Revision::Legacy, None, bare_rmcp::ECHO);
    let calls = vec![call; CONNECTIONS];
    cost(process.id(), &mut registering, WAITING / CONNECTIONS + 1).await;
    let (mut refreshes, mut registrations, mut echoes) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let refresh = cost(process.id(), &mut chains, REQUESTS).await;
        let registration = cost(process.id(), &mut registering, REQUESTS).await;
        let echo = machine::cost(bare.id(), &bare.origin, &calls, REQUESTS).await;
        // The first round warms up.
        if round > 0 {
            refreshes.push(refresh);
            registrations.push(registration);
            echoes.push(echo);
        }
    }
    let [refresh, registration, echo] = [refreshes, registrations, echoes].map(machine::median::<f64>);
    println!(
        "processor time: a refresh {refresh:.1} µs, a registration {registration:.1} µs, a call of a bare rmcp server {echo:.1} µs"
    );
    machine::ratio(
        "compared: processor time of a refresh and of a registration; the aim is 0.8 or more",
        "registration_over_refresh",
        refresh / registration,
    );
    machine::ratio(
        "compared: processor time of a refresh and of a call of a bare rmcp server; the aim is 4 or less",
        "refresh_over_bare_rmcp_call",
        refresh / echo,
    );
}

/// A client with its connection.
struct Asker {
    connection: Connection,
    origin: String,
    what: What,
}

/// The kind of its requests.
enum What {
    /// Each answer's token is the next request's.
    Refresh { client: String, token: String },
    /// Each one is different.
    Register { asker: usize, count: usize },
}

impl Asker {
    async fn new(origin: &str, what: What) -> Self {
        Self { connection: Connection::open(origin).await, origin: origin.to_owned(), what }
    }

    async fn ask(&mut self) {
        match &mut self.what {
            What::Refresh { client, token } => {
                let pairs = [
                    ("grant_type", "refresh_token"),
                    ("refresh_token", token.as_str()),
                    ("client_id", client.as_str()),
                ];
                let media_type = "application/x-www-form-urlencoded";
                let request = post(&self.origin, "/token", media_type, "", &form(&pairs));
                let answer: Value =
                    serde_json::from_slice(self.connection.ask(&request).await).expect("the answer is JSON");
                *token = answer["refresh_token"].as_str().expect("a refresh yields a successor").to_owned();
            }
            What::Register { asker, count } => {
                *count += 1;
                let metadata = json!({
                    "client_name": "Bench",
                    "redirect_uris": ["http://localhost/callback"],
                    "grant_types": ["authorization_code", "refresh_token"],
                    "token_endpoint_auth_method": "none",
                    "software_id": format!("{asker}-{count}"),
                });
                let request = post(&self.origin, "/register", "application/json", "", &metadata.to_string());
                self.connection.ask(&request).await;
            }
        }
    }
}

/// The processor time of a process for each request, in microseconds. Each client sends this many.
async fn cost(process: u32, askers: &mut Vec<Asker>, times: usize) -> f64 {
    let before = roles::processor_time(process);
    let asking = std::mem::take(askers).into_iter().map(|mut asker| {
        tokio::spawn(async move {
            for _ in 0..times {
                asker.ask().await;
            }
            asker
        })
    });
    for asker in asking.collect::<Vec<_>>() {
        askers.push(asker.await.expect("who asks does not panic"));
    }
    let spent = roles::processor_time(process).saturating_sub(before);
    spent.as_secs_f64() * 1e6 / number(askers.len() * times)
}

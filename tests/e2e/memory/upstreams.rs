//! How much memory a hostile server behind the gate can make the program take.

use serde_json::{Value, json};

use super::{MIB, TestedServer};
use crate::harness::TestApp;
use crate::sources::hostile::{CallBehaviour, HostileServer, METHODS};
use crate::sources::items::everything_of;
use std::sync::Arc;
use tokio::task::JoinSet;

/// What an answer of any kind may cost, however large it is.
const MOST: u64 = 16 * MIB;
/// The budget of the second test, in bytes. The allocator keeps what was freed for a second, so answers that are given up
/// and begun again at once take several times as much.
const BUDGET: u64 = 32 * MIB;

/// The request of each method that is about an item.
fn request(method: &str) -> Value {
    match method {
        "tools/call" | "prompts/get" => json!({ "name": "bad_greet" }),
        "resources/read" => json!({ "uri": "bad://host/greet" }),
        _ => {
            json!({ "ref": { "type": "ref/prompt", "name": "bad_greet" }, "argument": { "name": "a", "value": "" } })
        }
    }
}

/// SRC-02, SRC-08, SRC-12: answers of 10 MiB, events and streams without end, and lists without end cost a bounded amount of
/// memory, for every method, and nothing afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_server_costs_a_bounded_amount_of_memory() {
    let hostile = HostileServer::start().await;
    let toml = everything_of("bad", &hostile.url, "timeout = \"2s\"");
    let victim = TestedServer::start(&format!("listen = \"localhost:0\"\n{toml}"));
    let app = TestApp::beside(&victim.process, Arc::clone(&victim.dir));
    let (mut browser, client) = (app.admin().await, app.client().await);
    let token = app.tokens(&mut browser, &client).await.access;
    let ask = async |method: &str, params: Value| {
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let request = app.http.post(app.url("/mcp")).bearer_auth(&token).json(&message);
        let request = request.header("accept", "application/json");
        request.header("mcp-protocol-version", "2025-11-25").send().await.unwrap().text().await.unwrap()
    };
    let begun = std::time::Instant::now();
    while !ask("prompts/get", request("prompts/get")).await.contains("hello") {
        assert!(begun.elapsed().as_secs() < 30, "the server is walked");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    victim
        .endures("hostile answers", MOST, 50, async |rounds| {
            for round in 0..rounds {
                let does = [
                    CallBehaviour::Large,
                    CallBehaviour::LargeUnannounced,
                    CallBehaviour::EndlessEvent,
                    CallBehaviour::Deep,
                ][round % 4];
                for method in &METHODS[4..] {
                    hostile.will_for(method, does);
                    let answer = ask(method, request(method)).await;
                    assert!(
                        does == CallBehaviour::Deep || answer.contains("the limit is"),
                        "{method} {does:?}: {answer}"
                    );
                }
            }
        })
        .await;
    victim
        .endures("hostile lists", MOST, 12, async |rounds| {
            for round in 0..rounds {
                let all = [
                    CallBehaviour::Large,
                    CallBehaviour::LargeUnannounced,
                    CallBehaviour::EndlessEvent,
                    CallBehaviour::Many,
                    CallBehaviour::Circle,
                    CallBehaviour::Deep,
                ];
                for method in &METHODS[..4] {
                    hostile.will_for(method, all[round % all.len()]);
                }
                let data = app.data_dir();
                let arguments = ["source", "test", "bad", "--json", "--data-dir", data.to_str().unwrap()];
                assert!(!crate::process::portcullis(&arguments).status.success());
            }
        })
        .await;
    for method in METHODS {
        hostile.will_for(method, CallBehaviour::Answer);
    }
    assert!(ask("resources/read", request("resources/read")).await.contains("hello"));
}

/// RATE-07: answers that almost all arrive and then stall, for four people at once, stay within the budget: each call that
/// there is no memory for ends with words for the model, and other calls go on meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_stall_cost_a_bounded_amount_of_memory() {
    let hostile = HostileServer::start().await;
    let toml = everything_of("bad", &hostile.url, "timeout = \"4s\"");
    let toml = format!("listen = \"localhost:0\"\nmemory = \"32 MiB\"\n[rate]\nmcp = \"off\"\n{toml}");
    let victim = TestedServer::start(&toml);
    let app = TestApp::beside(&victim.process, Arc::clone(&victim.dir));
    let (mut browsers, client) = (vec![app.admin().await], app.client().await);
    for name in ["ann", "bob", "eve"] {
        browsers.push(app.enrol(name, &[]).await);
    }
    let mut tokens = Vec::new();
    for browser in &mut browsers {
        tokens.push(app.tokens(browser, &client).await.access);
    }
    let ask = |token: &str, method: &str| {
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": request(method) });
        let request = app.http.post(app.url("/mcp")).bearer_auth(token).json(&message);
        let request = request.header("accept", "application/json");
        let request = request.header("mcp-protocol-version", "2025-11-25");
        async move { request.send().await.unwrap().text().await.unwrap() }
    };
    let begun = std::time::Instant::now();
    while !ask(&tokens[0], "prompts/get").await.contains("hello") {
        assert!(begun.elapsed().as_secs() < 30, "the server is walked");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    hostile.will_for("tools/call", CallBehaviour::Stall);
    victim
        .endures("answers that stall", 4 * BUDGET, 29, async |calls| {
            let mut asking = JoinSet::new();
            for token in &tokens {
                (0..calls).for_each(|_| drop(asking.spawn(ask(token, "tools/call"))));
            }
            assert!(ask(&tokens[3], "prompts/get").await.contains("hello"), "others go on");
            let answers = asking.join_all().await;
            let given_up = answers.iter().filter(|answer| answer.contains("no memory left for the answer"));
            assert!(calls < 29 || given_up.count() > 29, "{answers:?}");
            assert!(answers.iter().all(|answer| answer.contains("\"isError\":true")), "{answers:?}");
        })
        .await;
    let records = app.audit();
    assert!(records.iter().any(|record| record["detail"]["result"] == "too_large"), "it is on record");
}

//! How much memory a hostile server behind the gate can make the program take.

use serde_json::{Value, json};

use super::{MIB, Victim};
use crate::harness::TestApp;
use crate::sources::hostile::{Does, Hostile, METHODS};
use crate::sources::items::everything_of;
use std::sync::Arc;

/// What an answer of any kind may cost, however large it is.
const MOST: u64 = 16 * MIB;

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
    let hostile = Hostile::start().await;
    let toml = everything_of("bad", &hostile.url, "timeout = \"2s\"");
    let victim = Victim::start(&format!("listen = \"localhost:0\"\n{toml}"));
    let app = TestApp::beside(&victim.process, Arc::clone(&victim.dir));
    let (mut browser, client) = (app.admin().await, app.client().await);
    let token = app.tokens(&mut browser, &client).await.access;
    let ask = async |method: &str, params: Value| {
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let request = app.http.post(app.url("/mcp")).bearer_auth(&token).json(&message);
        let request = request.header("accept", "application/json, text/event-stream");
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
                let does = [Does::Large, Does::LargeUnannounced, Does::EndlessEvent, Does::Deep][round % 4];
                for method in &METHODS[4..] {
                    hostile.will_for(method, does);
                    let answer = ask(method, request(method)).await;
                    assert!(
                        does == Does::Deep || answer.contains("the limit is"),
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
                    Does::Large,
                    Does::LargeUnannounced,
                    Does::EndlessEvent,
                    Does::Many,
                    Does::Circle,
                    Does::Deep,
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
        hostile.will_for(method, Does::Answer);
    }
    assert!(ask("resources/read", request("resources/read")).await.contains("hello"));
}

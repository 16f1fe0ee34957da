//! Limits on calls across crashes (LIMIT-02), and where `check` speaks of them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::harness::TestApp;
use crate::process::{Process, complaint, portcullis, program_on};

/// Three an hour through each client, and each call is on record before it is made.
const LIMITED: &str = "[rate]\nmcp = \"off\"\n[tools.docs_search]\nscope = \"docs.read\"\neffect = \"write\"\nlimit = \"3/hour/client\"\n";

fn server(dir: &Path, listen: &str) -> Process {
    let mut command = program_on(&dir.join("data"));
    command.args(["serve", "--json", "--listen", listen, "--config"]).arg(dir.join("portcullis.toml"));
    Process::spawn(command)
}

/// The words of an error in a result; `None` if the call was made.
fn refused(answer: &Value) -> Option<&str> {
    let result = &answer["result"];
    assert!(result.is_object(), "{answer}");
    (result["isError"] == true).then(|| result["content"][0]["text"].as_str().unwrap())
}

/// How many calls of this client were put on record before they were made.
fn admitted(app: &TestApp, client: &str) -> usize {
    let is_its = |record: &&Value| record["event"] == "mcp.call" && record["client_id"] == client;
    app.audit().iter().filter(is_its).count()
}

/// LIMIT-01, LIMIT-02: of 64 callers at the same time exactly three are admitted, also if the server is killed with `kill -9`
/// while they call and they call again afterwards. Later ones are told in the result when to come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_limit_survives_a_kill_under_load() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    std::fs::write(dir.path().join("portcullis.toml"), LIMITED).unwrap();
    let mut process = server(dir.path(), "localhost:0");
    let app = Arc::new(TestApp::beside(&process, Arc::clone(&dir)));
    let mut browser = app.admin().await;
    for round in 0..20 {
        let client = app.client().await;
        let access = app.tokens(&mut browser, &client).await.access;
        let answered = Arc::new(AtomicUsize::new(0));
        let storm = |counts: Arc<AtomicUsize>| {
            let callers = (0..64).map(|_| {
                let (app, access, counts) = (Arc::clone(&app), access.clone(), Arc::clone(&counts));
                tokio::spawn(async move {
                    let call = serde_json::json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
                        "params": {"name": "docs_search", "arguments": {"query": "backup"}}});
                    let request = app.http.post(app.url("/mcp")).bearer_auth(&access).json(&call);
                    let request = request.header("accept", "application/json, text/event-stream");
                    let answer = request.header("mcp-protocol-version", "2025-11-25").send().await.ok()?;
                    let answer: Value = answer.json().await.ok()?;
                    counts.fetch_add(1, Ordering::SeqCst);
                    Some(refused(&answer).is_none())
                })
            });
            callers.collect::<Vec<_>>()
        };
        let first = storm(Arc::clone(&answered));
        // Killed at a moment that depends on the load and not on the clock: after more answers in each round.
        while answered.load(Ordering::SeqCst) < round % 7 {
            tokio::task::yield_now().await;
        }
        process.kill();
        let mut made = 0;
        for caller in first {
            made += usize::from(caller.await.unwrap() == Some(true));
        }
        process = server(dir.path(), &process.listen());
        for caller in storm(answered) {
            made += usize::from(caller.await.unwrap().expect("the server is there"));
        }
        assert!(made <= 3, "round {round}: {made}");
        assert_eq!(admitted(&app, &client.id), 3, "round {round}");
        let late = app.call_tool(&access, "docs_search", serde_json::json!({"query": "backup"})).await;
        let late: Value = late.json().await.unwrap();
        let words = refused(&late).expect("it is over the limit");
        assert!(words.contains(
            "3 calls of the tool docs_search in 1 hour for each client. Nothing was done. Try again at 2"
        ));
    }
    let limited = app.audit().iter().filter(|record| record["reason"] == "limited").count();
    assert!(limited >= 20 * 61, "{limited}");
}

/// LIMIT-02: a gateway alone is told that each process counts for itself, and the whole server is not.
#[test]
fn check_says_that_limits_count_at_each_gateway() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("portcullis.toml");
    let check = |toml: &str, only: &[&str]| {
        std::fs::write(&config, toml).unwrap();
        let data = dir.path().join("data");
        let place = ["--config", config.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
        let checked = portcullis(&[&["check"], only, &place].concat());
        format!("{}{}", String::from_utf8(checked.stdout.clone()).unwrap(), complaint(&checked))
    };
    let says = "the limits on calls count at each gateway by itself";
    let limited = "[limits]\nlimit = \"100/day/user\"\n";
    assert!(check(limited, &["--only", "resource"]).contains(says));
    assert!(!check("", &["--only", "resource"]).contains(says) && !check(limited, &[]).contains(says));
}

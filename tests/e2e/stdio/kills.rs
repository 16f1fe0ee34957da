//! `kill -9` of the gateway leaves nothing of its programs (SRC-11).

use std::time::{Duration, Instant};

use serde_json::json;

use super::hostile::Scene;
use super::program::{chance, mark, marked, scripted, text, until};
use crate::process::{Process, program_on};

/// How often the gateway is killed; `PORTCULLIS_TEST_KILLS` says otherwise.
fn rounds() -> usize {
    std::env::var("PORTCULLIS_TEST_KILLS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(4)
}

/// SRC-11: whenever the gateway is killed, within a second there is no program, no process that one forked in a session of
/// its own and that ignores signals, and no temporary directory.
#[tokio::test(flavor = "multi_thread")]
async fn killing_the_gateway_leaves_nothing_of_its_programs() {
    let mut took = Vec::new();
    for round in 0..rounds() {
        let (more, mark) = mark();
        let toml = scripted("one", "legacy", &more) + &scripted("two", "modern", &more);
        let elapsed =
            if round % 2 == 0 { while_it_starts(&toml, &mark) } else { while_it_runs(&toml, &mark).await };
        took.push(elapsed);
    }
    took.sort_unstable();
    println!(
        "{} kills; all was gone after at most {:?}, median {:?}",
        took.len(),
        took[took.len() - 1],
        took[took.len() / 2]
    );
    // On a machine that does other things too, one may wait for its turn.
    assert!(took[took.len() * 9 / 10] <= Duration::from_secs(1), "{took:?}");
}

/// At any moment of the start.
fn while_it_starts(toml: &str, mark: &str) -> Duration {
    let dir = tempfile::tempdir().unwrap();
    let (config, scratch) = (dir.path().join("portcullis.toml"), dir.path().join("tmp"));
    std::fs::write(&config, format!("listen = \"localhost:0\"\n{toml}")).unwrap();
    std::fs::create_dir(&scratch).unwrap();
    let mut command = program_on(&dir.path().join("data"));
    command.arg("--config").arg(&config).args(["serve", "--json"]).env("TMPDIR", &scratch);
    let process = Process::spawn(command);
    std::thread::sleep(Duration::from_micros(chance(300_000)));
    drop(process);
    let begun = Instant::now();
    while !is_gone(mark, &scratch) {
        assert!(begun.elapsed() < super::program::PATIENCE, "{:?}", marked(mark));
        std::thread::sleep(Duration::from_millis(5));
    }
    begun.elapsed()
}

/// While calls run, and with daemons.
async fn while_it_runs(toml: &str, mark: &str) -> Duration {
    let Scene { process, app, token, dir } = Scene::start(toml, &["one", "two"]).await;
    for source in ["one", "two"] {
        text(&app, &token, &format!("{source}_daemon"), json!({})).await;
    }
    until("the daemons run", || marked(mark).len() >= 4).await;
    let calling = tokio::spawn({
        let (http, url) = (app.http.clone(), app.url("/mcp"));
        async move {
            let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "one_never", "arguments": {} } });
            let request = http.post(url).bearer_auth(token).json(&call);
            let _ = request.header("accept", "application/json, text/event-stream").send().await;
        }
    });
    tokio::time::sleep(Duration::from_micros(chance(50_000))).await;
    let scratch = dir.path().join("tmp");
    drop(process);
    let elapsed = until("nothing is left", || is_gone(mark, &scratch)).await;
    calling.await.unwrap();
    elapsed
}

fn is_gone(mark: &str, scratch: &std::path::Path) -> bool {
    marked(mark).is_empty() && std::fs::read_dir(scratch).unwrap().next().is_none()
}

//! Many users through the same programs: each message that a program writes carries its caller's canary, and nobody gets
//! another's (SRC-15).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::hostile::Scene;
use super::program::{chance, mark, marked, scripted, until};

/// Of processes that are not shared: too few for all at once.
const INSTANCES: usize = 8;

/// How many users there are and for how many seconds they call; `PORTCULLIS_TEST_CANARY=USERS,SECONDS` says otherwise.
fn size() -> (usize, u64) {
    let said = std::env::var("PORTCULLIS_TEST_CANARY").ok();
    let parsed = said.as_deref().and_then(|said| said.split_once(','));
    parsed.and_then(|(users, seconds)| Some((users.parse().ok()?, seconds.parse().ok()?))).unwrap_or((10, 4))
}

/// What came back to one caller.
#[derive(Default)]
struct Tally {
    own: AtomicUsize,
    misdirected: AtomicUsize,
    /// Other answers, by their text.
    others: std::sync::Mutex<BTreeMap<String, usize>>,
}

/// SRC-15, SRC-11: users interleaved through one shared program and one for each user get their own answers only, no more
/// processes run than are allowed, and none is left afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_what_is_anothers() {
    let (users, seconds) = size();
    let (more, mark) = mark();
    let toml = scripted("all", "legacy", &more)
        + &scripted("new", "modern", &more)
        + &scripted("each", "legacy", &format!("{more}\npool = \"per_user\"\ninstances = {INSTANCES}"));
    let scene = Scene::start(&toml, &["all", "new", "each"]).await;
    let mut tokens = vec![scene.token.clone()];
    let client = scene.app.client().await;
    for number in 1..users {
        let mut browser = scene.app.enrol(&format!("user{number}"), &[]).await;
        tokens.push(scene.app.tokens(&mut browser, &client).await.access);
    }
    let (tally, end) = (Arc::new(Tally::default()), Instant::now() + Duration::from_secs(seconds));
    let mut calling = JoinSet::new();
    for (number, token) in tokens.iter().enumerate() {
        for source in ["all", "new", "each"] {
            let (http, url) = (scene.app.http.clone(), scene.app.url("/mcp"));
            let (token, tally) = (token.clone(), Arc::clone(&tally));
            calling.spawn(async move {
                for round in 0.. {
                    if Instant::now() >= end {
                        return;
                    }
                    let canary = format!("canary-{number}-{source}-{round}-");
                    one(&http, &url, &token, source, &canary, number, &tally).await;
                }
            });
        }
    }
    let mut most = 0;
    while Instant::now() < end {
        // Two shared ones, and those of users and of the gateway itself.
        most = most.max(marked(&mark).len());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    calling.join_all().await;
    let others = tally.others.lock().unwrap().clone();
    let (own, misdirected) = (tally.own.load(Ordering::SeqCst), tally.misdirected.load(Ordering::SeqCst));
    println!(
        "{users} users, {seconds} s: {own} answers, {misdirected} misdirected, at most {most} processes; others: {others:?}"
    );
    assert_eq!(misdirected, 0);
    assert!(own > users * 3, "{own} {others:?}");
    // Where there are more callers than places, some are told that there is none.
    assert!(others.keys().all(|why| why.starts_with("The server `each` cannot be used")), "{others:?}");
    assert!(most <= INSTANCES + 2, "{most}");
    let Scene { process, app, dir, .. } = scene;
    let text = format!("{}{}", process.log(), app.console(&["source", "log", "all"]));
    assert!(!text.contains("canary-"), "{text}");
    drop(process);
    until("no process is left", || marked(&mark).is_empty()).await;
    drop(dir);
}

async fn one(
    http: &reqwest::Client,
    url: &str,
    token: &str,
    source: &str,
    canary: &str,
    number: usize,
    tally: &Tally,
) {
    let wait = Duration::from_millis(chance(20)).as_secs_f64();
    let params = json!({ "name": format!("{source}_echo"), "arguments": { "text": canary, "wait": wait },
        "_meta": { "progressToken": canary } });
    let message = json!({ "jsonrpc": "2.0", "id": canary, "method": "tools/call", "params": params });
    let request = http.post(url).bearer_auth(token).json(&message);
    let request = request.header("accept", "application/json, text/event-stream");
    let text =
        request.header("mcp-protocol-version", "2025-11-25").send().await.unwrap().text().await.unwrap();
    let own = format!("canary-{number}-");
    let foreign = text.match_indices("canary-").any(|(at, _)| !text[at..].starts_with(&own));
    // After progress, the answer is the last event of a stream.
    let answer = text.lines().rev().find_map(|line| line.strip_prefix("data: ")).unwrap_or(&text);
    let answer: Value = serde_json::from_str(answer).unwrap_or_default();
    let said = answer["result"]["content"][0]["text"].as_str().unwrap_or(&text);
    if foreign || said.starts_with("canary-") && said != canary || answer["id"] != canary {
        tally.misdirected.fetch_add(1, Ordering::SeqCst);
    } else if said == canary {
        tally.own.fetch_add(1, Ordering::SeqCst);
    } else {
        // What stands before the moment at which it last answered.
        let why = said.split(". It").next().unwrap_or_default().to_owned();
        *tally.others.lock().unwrap().entry(why).or_default() += 1;
    }
}

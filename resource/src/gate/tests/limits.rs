//! Limits on calls: how many in a time, how many at once, and what does not count (LIMIT-01, LIMIT-02).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::calls::{reached, waiting};
use super::*;
use crate::catalogue::{CallLimits, ItemRule, Kind, Pattern, Rules};
use crate::item::Effect;
use crate::sources::Outcome;
use crate::testing::{NOW, TestSource};

const TOOLS: [(&str, Effect); 2] = [("staged_read", Effect::ReadOnly), ("staged_write", Effect::Writes)];

fn limits(rates: &[&str], at_once: &[&str]) -> CallLimits {
    CallLimits {
        rates: rates.iter().map(|rate| rate.parse().unwrap()).collect(),
        at_once: at_once.iter().map(|limit| limit.parse().unwrap()).collect(),
    }
}

/// Both tools of a staged source, under these limits each.
fn rules(each: &CallLimits) -> Rules {
    let mut rules = Rules::default();
    let rule = ItemRule {
        at: Some("f:1".to_owned()),
        limits: each.clone(),
        ..ItemRule::needing("docs.read".parse().unwrap())
    };
    rules.tools.set(Pattern::parse("staged_*").unwrap(), rule);
    rules
}

fn limited(rates: &[&str]) -> (App, Arc<TestSource>) {
    let staged = TestSource::prompt(&TOOLS);
    (App::staged_under(&staged, &rules(&limits(rates, &[]))), staged)
}

fn calling(token: &AccessToken, tool: &str) -> HttpRequest<Body> {
    legacy(authorized(token), "tools/call", &call(tool, &json!({})))
}

/// The words of an error that stands in a result; `None` if the call was made.
async fn refused(app: &App, token: &AccessToken, tool: &str) -> Option<String> {
    let answer = app.send(calling(token, tool)).await;
    assert_eq!(answer.status, 200);
    let result = &answer.json()["result"];
    (result["isError"] == true).then(|| result["content"][0]["text"].as_str().unwrap().to_owned())
}

async fn passes(app: &App, token: &AccessToken, tool: &str) -> bool {
    refused(app, token, tool).await.is_none()
}

/// A token that outlives the windows of these tests.
fn lasting() -> AccessToken {
    let token = token("docs.read");
    AccessToken { exp: token.exp + 10_000_000, ..token }
}

/// A token of the same user through another client.
fn elsewhere(first: &AccessToken) -> AccessToken {
    AccessToken { sub: first.sub.clone(), exp: first.exp, ..token("docs.read") }
}

/// LIMIT-01, LIMIT-02: at most `count` calls in any period of this length; the answer says which limit and when, in the result,
/// and so does the record. Nobody else is held up.
#[tokio::test]
async fn a_rate_admits_its_count() {
    let (app, staged) = limited(&["3/hour/user"]);
    let alice = lasting();
    for minutes in [0, 10, 10] {
        app.clock.advance(Duration::from_mins(minutes));
        assert!(passes(&app, &alice, "staged_write").await);
    }
    let words = refused(&app, &alice, "staged_write").await.unwrap();
    assert_eq!(
        words,
        "Limit reached: 3 calls of the tool staged_write in 1 hour for each user. Nothing was done. Try again at 2027-01-15T09:00:00Z, in 40 minutes."
    );
    // Through another client it is the same user; another tool and another user have counts of their own.
    assert!(!passes(&app, &elsewhere(&alice), "staged_write").await);
    assert!(passes(&app, &alice, "staged_read").await && passes(&app, &lasting(), "staged_write").await);
    assert_eq!(staged.calls(), 5);
    let denied = app.records("mcp.denied");
    assert_eq!((denied.len(), &denied[0]["reason"]), (2, &json!("limited")));
    let detail = &denied[0]["detail"];
    let said = ["decision", "limit", "limit_of", "again_at", "name"].map(|key| detail[key].as_str().unwrap());
    assert_eq!(said, ["limited", "3/hour/user", "item", "2027-01-15T09:00:00.000Z", "staged_write"]);
    // The window slides: one more when the first is an hour old, and not a moment sooner.
    app.clock.advance(Duration::from_mins(40) - Duration::from_millis(1));
    assert!(!passes(&app, &alice, "staged_write").await);
    app.clock.advance(Duration::from_millis(1));
    assert!(passes(&app, &alice, "staged_write").await && !passes(&app, &alice, "staged_write").await);
}

/// LIMIT-02: of many callers at the same time exactly the limit get through, with windows of either sort, for read-only
/// calls and for others.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn parallel_callers_share_a_limit() {
    for (rate, tool) in
        [("3/hour/user", "staged_write"), ("3/hour/user", "staged_read"), ("3/minute/user", "staged_write")]
    {
        let (app, staged) = limited(&[rate]);
        let (app, alice) = (Arc::new(app), token("docs.read"));
        let callers = (0..64).map(|_| {
            let (app, alice) = (Arc::clone(&app), alice.clone());
            tokio::spawn(async move { passes(&app, &alice, tool).await })
        });
        let callers: Vec<_> = callers.collect();
        let mut admitted = 0;
        for caller in callers {
            admitted += usize::from(caller.await.unwrap());
        }
        assert_eq!((admitted, staged.calls()), (3, 3), "{rate} {tool}");
        assert_eq!(app.records("mcp.denied").len(), 61);
    }
}

/// LIMIT-02: for any timing of calls, no window holds more than its limit allows, and nobody waits longer than said.
#[tokio::test]
async fn no_window_holds_more() {
    for (rate, most, window) in [("4/minute/user", 4, 60), ("4/hour/user", 4, 3_600)] {
        let (app, _) = limited(&[rate]);
        let alice = lasting();
        let (mut admitted, mut step) = (Vec::new(), 7_u64);
        for _ in 0..200 {
            step = (step * 1_103_515_245 + 12_345) % 2_147_483_648;
            app.clock.advance(Duration::from_millis(step % (window * 400)));
            let now = app.clock.now();
            let inside = admitted.iter().filter(|at| now.since(**at) < Duration::from_secs(window)).count();
            let passed = passes(&app, &alice, "staged_read").await;
            assert_eq!(passed, inside < most, "{rate}: {inside} calls in the window before {now}");
            if passed {
                admitted.push(now);
            }
        }
        assert!(admitted.len() > 50 && admitted.len() < 200);
    }
}

/// LIMIT-01: users, clients, sources and everything together have limits, each with its own count; what stands closest is not
/// forgotten for what is further away.
#[tokio::test]
async fn each_thing_has_its_limit() {
    let staged = TestSource::prompt(&TOOLS);
    for (of, says) in [
        ("client", "2 calls of the tool staged_read in 1 day for each client"),
        ("source", "2 calls to the source staged in 1 minute"),
        ("all", "2 calls to this server in 7 days for each user"),
    ] {
        let mut rules =
            rules(&if of == "client" { limits(&["2/day/client"], &[]) } else { CallLimits::default() });
        match of {
            "source" => drop(rules.limits.sources.insert("staged".to_owned(), limits(&["2/minute"], &[]))),
            "all" => rules.limits.all = limits(&["2/week/user"], &[]),
            _ => {}
        }
        let app = App::staged_under(&staged, &rules);
        let (alice, bob) = (token("docs.read"), token("docs.read"));
        assert!(passes(&app, &alice, "staged_read").await);
        assert!(passes(&app, &alice, if of == "client" { "staged_read" } else { "staged_write" }).await);
        let words = refused(&app, &alice, "staged_read").await.unwrap();
        assert!(words.starts_with(&format!("Limit reached: {says}. Nothing was done.")), "{words}");
        assert_eq!(passes(&app, &elsewhere(&alice), "staged_read").await, of == "client");
        assert_eq!(passes(&app, &bob, "staged_read").await, of != "source");
        assert_eq!(passes(&app, &alice, "whoami").await, of != "all", "it is of another source");
    }
}

/// LIMIT-01: at most this many calls run at once; a further one is told to come back, and may when one has ended.
#[tokio::test]
async fn calls_at_once_are_limited() {
    let (staged, go) = waiting();
    let app = Arc::new(App::staged_under(&staged, &rules(&limits(&[], &["1/user", "2"]))));
    let (alice, bob) = (token("docs.read"), token("docs.read"));
    let spawn = |token: &AccessToken| {
        let (app, request) = (Arc::clone(&app), calling(token, "staged_read"));
        tokio::spawn(async move { app.send(request).await })
    };
    let first = spawn(&alice);
    reached(&staged, 1).await;
    let words = refused(&app, &alice, "staged_read").await.unwrap();
    let one = "1 call of the tool staged_read at once for each user";
    assert_eq!(
        words,
        format!("Limit reached: {one}. Nothing was done. Try again when one of them has ended.")
    );
    let second = spawn(&bob);
    reached(&staged, 2).await;
    let words = refused(&app, &token("docs.read"), "staged_read").await.unwrap();
    assert!(words.contains("2 calls of the tool staged_read at once."), "{words}");
    assert_eq!(app.records("mcp.denied")[0]["detail"]["limit"], "1/user at once");
    go.notify_one();
    go.notify_one();
    for call in [first, second] {
        assert_eq!(call.await.unwrap().json()["result"]["isError"], false);
    }
    go.notify_one();
    assert!(passes(&app, &alice, "staged_read").await);
}

/// LIMIT-02: what is refused does not count, neither for a limit nor for anything else, and what was never sent is taken back.
#[tokio::test]
async fn only_calls_that_were_made_count() {
    for rate in ["1/hour/user", "1/minute/user"] {
        for tool in ["staged_read", "staged_write"] {
            let is_there = Arc::new(AtomicBool::new(false));
            let told = Arc::clone(&is_there);
            let staged = TestSource::new(&TOOLS, move |_| {
                let outcome =
                    if told.load(Ordering::SeqCst) { Outcome::unknown() } else { Outcome::not_sent() };
                async { outcome }
            });
            let app = App::staged_under(&staged, &rules(&limits(&[rate], &["1"])));
            let alice = token("docs.read");
            let words = async || refused(&app, &alice, tool).await.unwrap();
            // Refused by policy, and by a token that ends between the count and the call.
            app.stage.entitle("");
            assert_eq!(app.send(calling(&alice, tool)).await.code(), -32602);
            app.stage.entitle("docs.read");
            let dying = AccessToken { sub: alice.sub.clone(), ..token("docs.read") };
            app.stage.kill_after(&dying, 2);
            assert_eq!(app.send(calling(&dying, tool)).await.status, 401);
            // The server behind it is not there.
            for _ in 0..3 {
                assert!(words().await.contains("cannot be reached"), "{rate} {tool}");
            }
            is_there.store(true, Ordering::SeqCst);
            // Nobody knows what it came to: it counts.
            let unknown = words().await;
            assert!(unknown.contains("It may have run"), "{unknown}");
            for _ in 0..3 {
                let over = words().await;
                assert!(over.starts_with("Limit reached: 1 call of the tool"), "{over}");
            }
        }
    }
}

/// LIMIT-02, OPS-04: a clock that is set back frees nothing, and nobody waits until the time that it showed.
#[tokio::test]
async fn a_clock_that_is_set_back_frees_nothing_and_blocks_nobody() {
    let (app, _) = limited(&["1/hour/user", "1/minute/user"]);
    let alice = lasting();
    let ahead = NOW + Duration::from_hours(100);
    app.clock.set(ahead);
    assert!(passes(&app, &alice, "staged_read").await);
    app.clock.set(NOW);
    assert!(!passes(&app, &alice, "staged_read").await, "time goes on from where it was");
    let clock = app.clock.clone();
    app.db.write(move |tx| crate::timekeeping::confirm(tx, &clock, 0)).await.unwrap().unwrap();
    assert_eq!(app.clock.now(), NOW);
    assert!(!passes(&app, &alice, "staged_read").await, "it counts from now on");
    app.clock.advance(Duration::from_hours(1) - Duration::from_millis(1));
    assert!(!passes(&app, &alice, "staged_read").await);
    app.clock.advance(Duration::from_millis(1));
    assert!(passes(&app, &alice, "staged_read").await);
}

/// LIMIT-01: where no result has room for words, they stand in an error; a completion counts nowhere; and what gives
/// away the same as a tool counts with it.
#[tokio::test]
async fn other_kinds_have_limits_too() {
    let staged = TestSource::of_every_kind(&[]);
    let mut rules = Rules::default();
    let rule = |limits| ItemRule {
        at: Some("f:1".to_owned()),
        limits,
        ..ItemRule::needing("docs.read".parse().unwrap())
    };
    rules.prompts.set(Pattern::parse("staged_*").unwrap(), rule(limits(&["1/day"], &[])));
    rules
        .resources
        .set(Pattern::parse_for_resources("staged_db://host/Row/*").unwrap(), rule(CallLimits::default()));
    rules.tools.set(Pattern::parse("docs_read").unwrap(), rule(limits(&["1/day/user"], &[])));
    rules.limits.sources.insert("staged".to_owned(), limits(&["2/day/user"], &[]));
    let app = App::staged_under(&staged, &rules);
    let alice = token("docs.read");
    let ask =
        async |method: &str, params: Value| app.send(modern(authorized(&alice), method, params)).await.json();
    let completing = json!({ "ref": { "type": "ref/prompt", "name": "staged_prompt" }, "argument": { "name": "topic", "value": "a" } });
    for _ in 0..4 {
        assert!(ask("completion/complete", completing.clone()).await["error"].is_null());
    }
    let prompt = json!({ "name": "staged_prompt" });
    assert!(ask("prompts/get", prompt.clone()).await["error"].is_null());
    let over = ask("prompts/get", prompt).await;
    assert_eq!(over["error"]["code"], 429, "{over}");
    assert!(
        over["error"]["message"].as_str().unwrap().contains("1 call of the prompt staged_prompt in 1 day.")
    );
    let row = json!({ "uri": "Db://Host/Row/1" });
    assert!(ask("resources/read", row.clone()).await["error"].is_null());
    assert_eq!(ask("resources/read", row).await["error"]["code"], 429);
    // A section is what docs_read gives away.
    let section = json!({ "uri": "docs:///guides/vpn.md" });
    let read = ask("resources/read", section.clone()).await;
    assert!(read["error"].is_null(), "{read}");
    assert!(!passes(&app, &alice, "docs_read").await);
    assert_eq!(ask("resources/read", section).await["error"]["code"], 429);
    assert_eq!(rules.of(Kind::Tool).get("docs_read").unwrap().limits.written(), ["1/day/user"]);
}

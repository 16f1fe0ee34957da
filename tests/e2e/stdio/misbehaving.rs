//! Programs that misbehave: each costs its own call and nobody else (SRC-11).

use std::time::{Duration, Instant};

use serde_json::json;

use super::program::{call, ended, mark, marked, records, scripted, started, text, until};
use crate::clients::refused;
use crate::harness::TestApp;

/// SRC-11, SRC-15: floods, banners, second and foreign answers and a line of 9 MiB cost at most their own call; another
/// source is not disturbed.
#[tokio::test(flavor = "multi_thread")]
async fn each_misbehaviour_costs_its_own_call() {
    let (app, token) = started(&(scripted("bad", "legacy", "") + &scripted("good", "modern", ""))).await;
    for (tool, says, class) in [
        ("bad_flood", "after the flood", "ok"),
        ("bad_banner", "after the banner", "ok"),
        ("bad_twice", "first", "ok"),
        ("bad_foreign", "own", "ok"),
        ("bad_long", "limit", "too_large"),
        ("bad_echo", "", "ok"),
    ] {
        assert!(text(&app, &token, tool, json!({})).await.contains(says), "{tool}");
        assert_eq!(ended(&app), class, "{tool}");
        assert_eq!(text(&app, &token, "good_echo", json!({ "text": "x" })).await, "x", "after {tool}");
    }
    let shown = app.console(&["source", "show", "bad"]);
    let skipped = &shown["processes"]["skipped"];
    assert_eq!((&skipped["too_long"], &shown["processes"]["running"]), (&json!(1), &json!(1)), "{shown}");
    assert!(skipped["not_messages"].as_u64() >= Some(5) && skipped["strays"].as_u64() >= Some(7), "{shown}");
    let log = app.console(&["source", "log", "bad"]);
    let errors = log["errors"].as_str().unwrap();
    assert!(errors.ends_with("the end of the flood\n") && errors.len() <= 64 << 10, "{}", errors.len());
    assert_eq!(app.console(&["source", "log", "good"])["errors"], "");
}

/// SRC-08, SRC-09: a call that is never answered is timed out, holds up no other, and is cancelled there.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_never_answered_is_timed_out_and_cancelled() {
    let (app, token) = started(&scripted("bad", "legacy", "timeout = \"1s\"")).await;
    let (never, echo) = tokio::join!(
        call(&app, &token, "bad_never", json!({})),
        call(&app, &token, "bad_echo", json!({ "text": "x" }))
    );
    assert_eq!(echo["content"][0]["text"], "x");
    assert!(never["isError"] == true && never.to_string().contains("within 1 second"), "{never}");
    assert!(records(&app, "mcp.result").iter().any(|one| one["detail"]["result"] == "timed_out"));
    let cancelled = text(&app, &token, "bad_cancelled", json!({})).await;
    assert_eq!(serde_json::from_str::<Vec<u64>>(&cancelled).unwrap().len(), 1, "{cancelled}");
    // Progress is a sign of life (LIMIT-04).
    assert_eq!(text(&app, &token, "bad_slow", json!({ "steps": 15 })).await, "at last");
}

/// SRC-08, SRC-11: `kill -9` of a program is noticed within a second: the running call may have run, and the next one has a
/// new program. What it forked is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_killed_is_noticed_and_started_again() {
    let (more, mark) = mark();
    let (app, token) = started(&scripted("bad", "legacy", &more)).await;
    text(&app, &token, "bad_daemon", json!({})).await;
    until("the daemon runs", || marked(&mark).len() >= 2).await;
    let pid: i32 = text(&app, &token, "bad_pid", json!({})).await.parse().unwrap();
    let begun = Instant::now();
    let (never, ()) = tokio::join!(call(&app, &token, "bad_never", json!({})), async {
        until("it is called", || app.console(&["source", "show", "bad"])["processes"]["in_use"] == 1).await;
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(pid).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
    });
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(never["isError"] == true && never.to_string().contains("It may have run"), "{never}");
    assert!(never.to_string().contains("it was killed by signal 9"), "{never}");
    assert_eq!(ended(&app), "unknown");
    until("it is on record", || !records(&app, "source.crashed").is_empty()).await;
    app.clock.advance(Duration::from_secs(1));
    let next: i32 = text(&app, &token, "bad_pid", json!({})).await.parse().unwrap();
    assert_ne!(next, pid);
    until("the daemon is gone", || marked(&mark).len() == 1).await;
    let crashed = records(&app, "source.crashed");
    assert_eq!((crashed.len(), &crashed[0]["detail"]["why"]), (1, &json!("it was killed by signal 9")));
    assert_eq!(crashed[0]["subject"], app.console(&["source", "show", "bad"])["id"]);
}

/// SRC-11, SRC-14: a program that crashes again and again is not started again until `source restart`; its last words are
/// shown.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_crashes_five_times_is_quarantined_until_a_restart() {
    let (app, token) = started(&scripted("bad", "legacy", "")).await;
    for crash in 1..=5 {
        let gone = call(&app, &token, "bad_exit", json!({})).await;
        assert!(gone.to_string().contains("It may have run"), "{gone}");
        until("it is on record", || records(&app, "source.crashed").len() == crash).await;
        app.clock.advance(Duration::from_secs(20));
    }
    let refused_call = text(&app, &token, "bad_echo", json!({})).await;
    assert!(refused_call.contains("five times within five minutes"), "{refused_call}");
    assert!(refused_call.contains("the last line on its standard error: the last words"), "{refused_call}");
    assert!(refused_call.contains("Nothing was done.") && ended(&app) == "not_sent", "{refused_call}");
    let shown = app.console(&["source", "show", "bad"]);
    assert_eq!((&shown["processes"]["quarantined"], &shown["tools"]), (&json!(1), &json!(15)), "{shown}");
    assert_eq!(records(&app, "source.quarantined").len(), 1);
    app.console(&["source", "restart", "bad"]);
    assert_eq!(text(&app, &token, "bad_echo", json!({ "text": "x" })).await, "x");
    assert_eq!(records(&app, "source.restarted").len(), 1);
    let kinds = app.console(&["source", "log", "bad"]);
    for kind in ["crashed", "quarantined", "restarted"] {
        assert!(kinds["entries"].as_array().unwrap().iter().any(|entry| entry["kind"] == kind), "{kinds}");
    }
}

/// SRC-02, SRC-11: what cannot be started says why in one line, and its last list stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_cannot_be_started_says_why() {
    let broken = scripted("broken", "broken", "");
    let missing = "[sources.missing]\nkind = \"mcp-stdio\"\ncommand = \"/nowhere/server\"\n";
    let app = TestApp::start_configured(&format!("{broken}{missing}")).await;
    for (name, says) in [("broken", "it is broken"), ("missing", "/nowhere/server")] {
        let why = refused(&app, &["source", "restart", name]);
        assert!(why.contains(says) && why.trim_end().lines().count() == 1, "{why}");
    }
    until("it is stale", || !records(&app, "source.stale").is_empty()).await;
    assert!(!app.console(&["source", "show", "broken"])["stale"].is_null());
}

/// SRC-11: the environment of a program is exactly what was declared, and it starts in a directory of its own.
#[tokio::test(flavor = "multi_thread")]
async fn the_environment_is_exactly_what_was_declared() {
    let more =
        "env = { CI_URL = \"http://ci.lab.internal\", EMPTY = \"\" }\ntmp_env = [\"HOME\", \"TMPDIR\"]";
    let (app, token) = started(&scripted("env", "legacy", more)).await;
    let directory = text(&app, &token, "env_where", json!({})).await;
    let environment = call(&app, &token, "env_environment", json!({})).await["structuredContent"].clone();
    println!("the environment of a program: {environment}");
    let mut expected =
        json!({ "CI_URL": "http://ci.lab.internal", "EMPTY": "", "HOME": directory, "TMPDIR": directory });
    // What Python's own start sets where nothing is said.
    if environment.get("LC_CTYPE").is_some() {
        expected["LC_CTYPE"] = environment["LC_CTYPE"].clone();
    }
    assert_eq!(environment, expected);
}

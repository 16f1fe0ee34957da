//! Who shares a program with whom, and when one ends (SRC-07, SRC-10, SRC-11).

use std::time::Duration;

use serde_json::json;

use super::program::{call, mark, marked, scripted, started, text, until};
use crate::clients::refused;
use crate::harness::TestApp;
use crate::process::complaint;
use crate::reload::write;
use crate::secrets::secret;

async fn pid(app: &TestApp, token: &str, source: &str) -> String {
    text(app, token, &format!("{source}_pid"), json!({})).await
}

/// SRC-07: one process for all, one for each user, one for each session.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_shared_as_is_configured() {
    let toml = scripted("all", "legacy", "")
        + &scripted("each", "legacy", "pool = \"per_user\"")
        + &scripted("session", "legacy", "pool = \"per_session\"");
    let (app, ada) = started(&toml).await;
    let mut bob = app.enrol("bob", &[]).await;
    let client = app.client().await;
    let bob = app.tokens(&mut bob, &client).await.access;
    assert_eq!(pid(&app, &ada, "all").await, pid(&app, &bob, "all").await);
    assert_ne!(pid(&app, &ada, "each").await, pid(&app, &bob, "each").await);
    assert_eq!(pid(&app, &ada, "each").await, pid(&app, &ada, "each").await);
    let mut seen = vec![pid(&app, &ada, "session").await];
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let session = begin_session(&app, &ada).await;
        let one = in_session(&app, &ada, &session).await;
        assert_eq!(one, in_session(&app, &ada, &session).await);
        assert!(!seen.contains(&one), "{seen:?} {one}");
        seen.push(one);
        sessions.push(session);
    }
    // The gateway's own, the one outside of sessions, and two.
    let running = || app.console(&["source", "show", "session"])["processes"]["running"].clone();
    assert_eq!(running(), 4);
    let ended = app.http.delete(app.url("/mcp")).bearer_auth(&ada).header("mcp-session-id", &sessions[0]);
    assert_eq!(ended.send().await.unwrap().status(), 204);
    assert_eq!(running(), 3);
}

async fn begin_session(app: &TestApp, token: &str) -> String {
    let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params });
    let request = app.http.post(app.url("/mcp")).bearer_auth(token).json(&message);
    let begun = request.header("accept", "application/json").send().await.unwrap();
    begun.headers()["mcp-session-id"].to_str().unwrap().to_owned()
}

async fn in_session(app: &TestApp, token: &str, session: &str) -> String {
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "session_pid", "arguments": {} } });
    let request = app.http.post(app.url("/mcp")).bearer_auth(token).json(&message);
    let request =
        request.header("accept", "application/json, text/event-stream").header("mcp-session-id", session);
    let answer: serde_json::Value = request.send().await.unwrap().json().await.unwrap();
    answer["result"]["content"][0]["text"].as_str().unwrap().to_owned()
}

/// SRC-10: each user's own secret is in the environment of their own program alone, another value replaces the program, and
/// nothing shows it.
#[tokio::test(flavor = "multi_thread")]
async fn each_users_own_secret_is_in_their_own_program() {
    let more = "pool = \"per_user\"\nsecrets = { CI_TOKEN = \"user\", SHARED = \"secret:shared\" }";
    let app = TestApp::start_configured(&scripted("own", "legacy", more)).await;
    let ada = crate::sources::token(&app).await;
    let set = |arguments: &[&str], value: &str| {
        let output = secret(&app, arguments, value);
        assert!(output.status.success(), "{}", complaint(&output));
    };
    set(&["set", "shared"], "shared-secret-1");
    app.console(&["source", "restart", "own"]);
    // Written backwards, because the secret itself is not passed on.
    let token = async |token: &str| call(&app, token, "own_environment", json!({ "reversed": true })).await;
    let missing = token(&ada).await;
    assert!(missing["isError"] == true && missing.to_string().contains("/account#secrets"), "{missing}");
    set(&["set", "own", "--user", "ada"], "adas-secret-1");
    let first = token(&ada).await["structuredContent"].clone();
    assert_eq!((&first["CI_TOKEN"], &first["SHARED"]), (&json!("1-terces-sada"), &json!("1-terces-derahs")));
    let before = pid(&app, &ada, "own").await;
    set(&["set", "own", "--user", "ada"], "adas-secret-2");
    assert_eq!(token(&ada).await["structuredContent"]["CI_TOKEN"], "2-terces-sada");
    assert_ne!(pid(&app, &ada, "own").await, before);
    until("the old program is gone", || marked("adas-secret-1").is_empty()).await;
    let all = format!(
        "{:?}{}{}",
        app.audit(),
        app.console(&["source", "log", "own"]),
        app.console(&["source", "list"])
    );
    assert!(!all.contains("adas-secret") && !all.contains("shared-secret"), "{all}");
}

/// POL-04, SRC-11: a reload starts, replaces and ends programs; when the server stops, nothing of them is left.
#[tokio::test(flavor = "multi_thread")]
async fn programs_come_and_go_with_the_configuration() {
    let (more, mark) = mark();
    let toml = scripted("one", "legacy", &more);
    let (app, token) = started(&toml).await;
    write(&app, &toml);
    app.console(&["reload"]);
    let before = pid(&app, &token, "one").await;
    // Another source changes nothing for the first; another setting is another process.
    write(&app, &(toml.clone() + &scripted("two", "legacy", &more)));
    assert_eq!(app.console(&["reload"])["changed"], json!(["tools", "sources"]));
    assert_eq!(pid(&app, &token, "one").await, before);
    until("the second one runs", || marked(&mark).len() == 2).await;
    write(&app, &scripted("one", "legacy", &format!("{more}\ntimeout = \"30s\"")));
    app.console(&["reload"]);
    assert_ne!(pid(&app, &token, "one").await, before);
    until("the others have ended", || marked(&mark).len() == 1).await;
    app.stop().await;
    assert_eq!(marked(&mark), Vec::<u32>::new());
}

/// SRC-11: one that nobody has used for a while is stopped, and one in use is not; the next call starts another.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_nobody_uses_is_stopped() {
    let (app, token) = started(&scripted("one", "legacy", "pool = \"per_user\"\nidle = \"1m\"")).await;
    pid(&app, &token, "one").await;
    let running = || app.console(&["source", "show", "one"])["processes"]["running"].clone();
    assert_eq!(running(), 2);
    let slow = call(&app, &token, "one_slow", json!({ "steps": 180 }));
    let slow = async {
        tokio::join!(slow, async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            app.clock.advance(Duration::from_secs(61));
            until("the idle one is stopped", || running() == 1).await
        })
        .0
    };
    assert_eq!(slow.await["content"][0]["text"], "at last");
}

/// SRC-11: no more processes run than are allowed, for any callers; callers take turns.
#[tokio::test(flavor = "multi_thread")]
async fn no_more_run_than_are_allowed() {
    let (more, mark) = mark();
    let toml = scripted("one", "legacy", &format!("{more}\npool = \"per_user\"\ninstances = 2"));
    let (app, ada) = started(&toml).await;
    let mut tokens = vec![ada];
    for name in ["bob", "eve", "joe"] {
        let mut browser = app.enrol(name, &[]).await;
        tokens.push(app.tokens(&mut browser, &app.client().await).await.access);
    }
    let calls = tokens.iter().map(|token| text(&app, token, "one_echo", json!({ "text": "x", "wait": 0.2 })));
    let running = async {
        let mut most = 0;
        for _ in 0..40 {
            most = most.max(marked(&mark).len());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        most
    };
    let (answers, most) = tokio::join!(futures_util::future::join_all(calls), running);
    assert!(answers.iter().all(|answer| answer == "x"), "{answers:?}");
    assert!((1..=2).contains(&most), "{most}");
}

/// SRC-11, SRC-14: a path that would open the gateway's own files is refused, in one line that says which.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_may_not_be_given_the_data_directory() {
    let app = TestApp::start().await;
    let data = app.data_dir();
    let toml = scripted("bad", "legacy", "")
        .replace("read = [", &format!("write = {}\nread = [", json!(data.parent().unwrap())));
    write(&app, &toml);
    app.console(&["reload"]);
    let why = refused(&app, &["source", "restart", "bad"]);
    assert!(why.contains("the gateway's own files in") && why.contains("Name narrower paths"), "{why}");
}

//! `portcullis source …`: what administrators see of sources, and can do with them (SRC-14).

use serde_json::{Value, json};

use super::hostile::{CallBehaviour, HostileServer};
use super::{configured, token, walked};
use crate::clients::refused;
use crate::harness::TestApp;
use crate::process::{complaint, portcullis};

async fn one(hostile: &HostileServer) -> TestApp {
    let app =
        TestApp::start_configured(&configured("one", &hostile.url, "", &["one_greet".to_owned()])).await;
    walked(&app, "source.changed", 1).await;
    app
}

fn in_words(app: &TestApp, arguments: &[&str]) -> String {
    let data = app.data_dir();
    let output = portcullis(&[arguments, &["--data-dir", data.to_str().unwrap()]].concat());
    assert!(output.status.success(), "{}", complaint(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn entries(app: &TestApp) -> Vec<(String, String, u64)> {
    let logged = app.console(&["source", "log", "one"]);
    let entry = |entry: &Value| {
        let text = |name: &str| entry[name].as_str().unwrap().to_owned();
        (text("kind"), text("text"), entry["times"].as_u64().unwrap())
    };
    logged["entries"].as_array().unwrap().iter().map(entry).collect()
}

/// SRC-14: list, show and test report a source's revision, its items and since when it does not answer, as text
/// and as JSON.
#[tokio::test(flavor = "multi_thread")]
async fn list_show_and_test_say_how_a_server_is() {
    let hostile = HostileServer::start().await;
    let app = one(&hostile).await;
    let listed = app.console(&["source", "list"])["sources"][0].clone();
    assert_eq!(
        (&listed["name"], &listed["era"], &listed["tools"]),
        (&json!("one"), &json!("2026-07-28"), &json!(2))
    );
    assert!(in_words(&app, &["source", "list"]).contains("one     2026-07-28  2"));
    assert_eq!(app.console(&["source", "show", "one"]), listed);
    let tested = app.console(&["source", "test", "one"]);
    let tools = tested["tools"].as_array().unwrap();
    assert_eq!(
        (tools.len(), &tools[0]["name"], &tools[0]["scope"]),
        (2, &json!("one_greet"), &json!("one.write"))
    );
    assert!(tools[0]["tokens"].as_u64().unwrap() > 5);
    assert!(in_words(&app, &["source", "test", "one"]).contains("It speaks 2026-07-28 and listed 2 tools, "));
    hostile.will(CallBehaviour::Down);
    let why = refused(&app, &["source", "test", "one"]);
    assert!(why.contains("the server `one` cannot be used: it answered with HTTP 503"), "{why}");
    let shown = app.console(&["source", "show", "one"]);
    assert_eq!((&shown["tools"], &shown["stale"]["why"]), (&json!(2), &json!("it answered with HTTP 503")));
    for command in ["show", "test", "log", "restart"] {
        let why = refused(&app, &["source", command, "none"]);
        assert!(why.contains("there is no source `none`; `portcullis"), "{command}: {why}");
    }
}

/// SRC-14: the log shows probes, failures and their number; it contains nothing from the content of calls.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_what_happened_lately() {
    let hostile = HostileServer::start().await;
    let app = one(&hostile).await;
    let token = token(&app).await;
    let kinds =
        |entries: &[(String, String, u64)]| entries.iter().map(|one| one.0.clone()).collect::<Vec<_>>();
    let begun = entries(&app);
    assert_eq!(kinds(&begun)[..3], ["probed", "connected", "walked"]);
    assert_eq!(begun[0].1, "it speaks 2026-07-28");
    assert!(begun[2].1.starts_with("listed 2 tools, 2 prompts, "), "{}", begun[2].1);
    hostile.will(CallBehaviour::Unauthorized);
    for _ in 0..3 {
        app.call_tool(&token, "one_greet", json!({ "secret": "canary-0123456789" })).await;
    }
    let entries = entries(&app);
    let (kind, text, times) = entries.last().unwrap();
    assert_eq!(
        (kind.as_str(), text.as_str(), *times),
        ("call_failed", "a call has no result: it answered with HTTP 401", 3)
    );
    let whole = in_words(&app, &["source", "log", "one"]);
    assert!(whole.contains("call_failed  3") && !whole.contains("canary"), "{whole}");
    assert_eq!(
        app.console(&["source", "log", "one", "--limit", "1"])["entries"].as_array().unwrap().len(),
        1
    );
    let data = app.data_dir();
    let app = app.stop().await;
    let output = portcullis(&["source", "log", "one", "--data-dir", data.to_str().unwrap()]);
    assert!(complaint(&output).contains("no server runs; start `portcullis serve"), "{}", complaint(&output));
    drop(app);
}

/// SRC-14, SRC-07: restart forgets what was negotiated: the source is probed and walked again. It is recorded.
#[tokio::test(flavor = "multi_thread")]
async fn restart_starts_a_new_connection() {
    let hostile = HostileServer::start().await;
    let app = one(&hostile).await;
    let asked =
        |method: &str| hostile.arrived().iter().filter(|(_, message)| message["method"] == method).count();
    assert_eq!([asked("server/discover"), asked("tools/list")], [1, 1]);
    let restarted = app.console(&["source", "restart", "one"]);
    assert_eq!((&restarted["name"], &restarted["stale"]), (&json!("one"), &Value::Null));
    assert_eq!([asked("server/discover"), asked("tools/list")], [2, 2]);
    assert!(entries(&app).iter().any(|(kind, ..)| kind == "restarted"));
    let record = app.audit().into_iter().rfind(|one| one["event"] == "source.restarted").unwrap();
    assert_eq!((&record["actor"]["type"], &record["detail"]["name"]), (&json!("console"), &json!("one")));
    assert_eq!(record["subject"], restarted["id"]);
    hostile.will(CallBehaviour::Down);
    let why = refused(&app, &["source", "restart", "one"]);
    assert!(why.contains("was restarted and cannot be used: it answered with HTTP 503"), "{why}");
}

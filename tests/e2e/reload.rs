//! Reloading the configuration of a running server (POL-04): completely in one step, or not at all.

mod sources;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use reqwest::StatusCode;
use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::clients::refused;
use crate::harness::{Browser, Client, TestApp, Tokens, authorize_url, redirect_parameter};
use crate::process::{Process, complaint, portcullis, program};

const SCOPES: &str = "[rate]\nmcp = \"off\"\n[scopes.\"docs.find\"]\ntitle = \"Find\"\n[scopes.\"docs.full\"]\ntitle = \"Read\"\n";

/// Writes the test server's file.
pub fn write(app: &TestApp, toml: &str) -> String {
    let text = format!("{SCOPES}{toml}");
    std::fs::write(app.data_dir().with_file_name("portcullis.toml"), &text).unwrap();
    data_encoding::HEXLOWER.encode(&Sha256::digest(&text))
}

/// Tokens with these scopes.
async fn tokens_with(app: &TestApp, browser: &mut Browser, client: &Client, scope: &str) -> Tokens {
    let mut request = client.request(app);
    request.insert("scope", scope.to_owned());
    let page = browser.consent_page(app, &authorize_url(app, &request)).await;
    let code = redirect_parameter(&browser.decide(app, &page, "approve").await, "code").unwrap();
    Tokens::of(app.redeem(client, &code).await).await
}

/// The result of a tool call: a status, and whether it has a result.
async fn called(app: &TestApp, token: &str, tool: &str) -> (StatusCode, bool) {
    let response = app.call_tool(token, tool, json!({ "query": "falcon", "path": "falcon.md" })).await;
    let status = response.status();
    let answer: Value = response.json().await.unwrap_or_default();
    (status, answer.get("result").is_some())
}

const BOTH: &str = "[groups]\neveryone = [\"docs.read\", \"docs.find\", \"docs.full\"]\n[tools]\ndocs_search = \"docs.find\"\ndocs_read = \"docs.full\"\n";

/// POL-04: losses and gains of scope apply from the next request on; the record has the digests of both files.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_takes_and_gives_at_once() {
    let app = TestApp::start_configured(&format!("{SCOPES}{BOTH}")).await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let token = tokens_with(&app, &mut browser, &client, "docs.read docs.find docs.full").await.access;
    for tool in ["docs_search", "docs_read"] {
        assert_eq!(called(&app, &token, tool).await, (StatusCode::OK, true), "{tool}");
    }
    let before = write(&app, BOTH);
    // A group loses a scope.
    let after = write(&app, &BOTH.replace(", \"docs.full\"]", "]"));
    let reloaded = app.console(&["reload"]);
    assert_eq!(reloaded, json!({ "before": before, "after": after, "changed": ["groups"] }));
    assert_eq!(called(&app, &token, "docs_read").await, (StatusCode::OK, false), "unknown to them now");
    assert_eq!(called(&app, &token, "docs_search").await, (StatusCode::OK, true));
    // The scope is added again, a tool is hidden, a profile is added.
    let hidden = BOTH.replace("docs_search = \"docs.find\"", "docs_search.hidden = true");
    let last = write(&app, &format!("{hidden}[profiles.pages]\nitems = \"docs_read\"\n"));
    assert_eq!(app.console(&["reload"])["changed"], json!(["groups", "tools", "profiles"]));
    assert_eq!(called(&app, &token, "docs_search").await, (StatusCode::OK, false));
    assert_eq!(called(&app, &token, "docs_read").await, (StatusCode::OK, true), "given back");
    let profile = || app.http.post(app.url("/mcp/pages")).send();
    assert_eq!(profile().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let none = write(&app, BOTH);
    app.console(&["reload"]);
    assert_eq!(profile().await.unwrap().status(), StatusCode::NOT_FOUND);
    assert_eq!(app.console(&["reload"])["changed"], json!([]));

    let records: Vec<Value> = app.audit().into_iter().filter(|r| r["event"] == "config.reloaded").collect();
    let digests: Vec<_> = records.iter().map(|r| [&r["detail"]["before"], &r["detail"]["after"]]).collect();
    assert_eq!(digests, [[&before, &after], [&after, &last], [&last, &none], [&none, &none]]);
    assert_eq!(records[0]["actor"]["type"], "console");
}

/// POL-04: with any error in the file the old one stays in force, and the answer says where, what and how to
/// fix it. The attempt is recorded with both digests.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_wrong_changes_nothing() {
    let app = TestApp::start_configured(&format!("{SCOPES}{BOTH}")).await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let token = tokens_with(&app, &mut browser, &client, "docs.find docs.full").await.access;
    let good = write(&app, BOTH);
    let file = app.data_dir().with_file_name("portcullis.toml");
    let at = |line: u32| format!("{}:{line}", file.display());
    let mut attempts = Vec::new();
    for (bad, reason, says) in [
        ("[tolos]", "unreadable", format!("unknown key `tolos` at {}; did you mean `tools`?", at(12))),
        (
            "docs_serch = \"docs.find\"",
            "unreadable",
            format!("unknown tool `docs_serch` at {}; did you mean `docs_search`?", at(12)),
        ),
        ("\"", "unreadable", format!("syntax error at {}: ", at(12))),
        (
            "\"docs_?ead\" = \"docs.find\"\n\"docs_r?ad\" = \"docs.find\"",
            "rules",
            "two rules match the tool `docs_read` and neither is more specific".to_owned(),
        ),
        (
            "[tokens]\naccess = \"10m\"",
            "needs_restart",
            format!("`tokens` at {} cannot change while the server runs; restart it", at(12)),
        ),
        ("[profiles.a]", "unreadable", format!("the profile `a` at {} selects nothing; write items", at(12))),
    ] {
        // Valid changes in the same file are not applied either.
        let text = BOTH.replace(
            "docs_read = \"docs.full\"\n",
            if bad.starts_with("\"docs_") { "" } else { "docs_read = \"docs.full\"\n" },
        );
        let text = format!("{}{bad}\n", text.replace("\"docs.read\", \"docs.find\"", "\"docs.read\""));
        attempts.push((reason, write(&app, &text)));
        let said = refused(&app, &["reload"]);
        assert!(said.contains(&says), "{bad}: {said}");
        assert_eq!(called(&app, &token, "docs_search").await, (StatusCode::OK, true), "{bad}");
    }
    let records: Vec<Value> =
        app.audit().into_iter().filter(|r| r["event"] == "config.reload_refused").collect();
    assert_eq!(records.len(), attempts.len());
    for (record, (reason, digest)) in records.iter().zip(&attempts) {
        assert_eq!((&record["outcome"], &record["reason"]), (&json!("denied"), &json!(reason)));
        assert_eq!(record["detail"]["after"], json!(digest));
        assert_eq!(record["detail"]["before"], json!(good));
        assert!(!record["detail"]["problem"].as_str().unwrap().is_empty());
    }
    write(&app, BOTH);
    assert_eq!(app.console(&["reload"])["changed"], json!([]));
}

/// POL-04: with hundreds of calls in flight, scopes, groups and tools are renamed repeatedly. A call that is
/// allowed before and after never fails in between; a user who loses a scope gets no call after the reload.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_under_load_fails_no_call() {
    let rules = |scope: &str, engineers: &str| {
        format!(
            "[groups]\neveryone = [\"{scope}\"]\nengineers = [{engineers}]\n[tools]\ndocs_search = \"{scope}\"\ndocs_read = \"docs.full\"\n"
        )
    };
    let app = TestApp::start_configured(&format!(
        "{SCOPES}[groups]\neveryone = [\"docs.read\", \"docs.find\"]\nengineers = [\"docs.full\"]\n[tools]\n\
         docs_search = [\"docs.read\", \"docs.find\"]\ndocs_read = \"docs.full\"\n"
    ))
    .await;
    let mut browser = app.admin().await;
    let mut engineer = app.enrol("ernie", &["engineers"]).await;
    let client = app.client().await;
    let all = "docs.read docs.find docs.full";
    let token = tokens_with(&app, &mut browser, &client, all).await.access;
    let loser = tokens_with(&app, &mut engineer, &client, all).await.access;
    let app = Arc::new(app);
    let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let calling: Vec<_> = (0..200)
        .map(|_| {
            let (app, token, stop, made) =
                (Arc::clone(&app), token.clone(), Arc::clone(&stop), Arc::clone(&made));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(called(&app, &token, "docs_search").await, (StatusCode::OK, true));
                    made.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for round in 0..6 {
        let scope = ["docs.read", "docs.find"][round % 2];
        for (engineers, may) in [("\"docs.full\"", true), ("", false)] {
            write(&app, &rules(scope, engineers));
            app.console(&["reload"]);
            assert_eq!(called(&app, &loser, "docs_read").await, (StatusCode::OK, may), "{round}");
        }
        let before = made.load(Ordering::Relaxed);
        while made.load(Ordering::Relaxed) < before + 50 {
            assert!(calling.iter().all(|calling| !calling.is_finished()), "a call failed");
            tokio::task::yield_now().await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for calling in calling {
        calling.await.unwrap();
    }
}

/// POL-04: SIGHUP does the same, recorded with the server as actor; without a server there is nothing to
/// reload.
#[test]
fn a_hangup_reloads() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("portcullis.toml");
    let data = dir.path().join("data");
    std::fs::write(&file, "listen = \"localhost:0\"\n").unwrap();
    let arguments = ["--config", file.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
    let mut command = program();
    command.args(["serve", "--json"]).args(arguments);
    let server = Process::spawn(command);
    let http = reqwest::blocking::Client::builder().no_proxy().build().unwrap();
    let challenge = || {
        let answer = http.post(&server.mcp_url).send().unwrap();
        answer.headers()["www-authenticate"].to_str().unwrap().to_owned()
    };
    assert!(challenge().ends_with("scope=\"docs.read\""));
    let more =
        "[scopes.\"docs.full\"]\ntitle = \"Read\"\ndefault = true\n[tools]\ndocs_read = \"docs.full\"\n";
    std::fs::write(&file, format!("listen = \"localhost:0\"\n{more}")).unwrap();
    server.signal(Signal::HUP);
    while !challenge().ends_with("scope=\"docs.full docs.read\"") {}
    let tail = portcullis(&[&["audit", "tail", "--json"][..], &arguments].concat());
    let tail = String::from_utf8(tail.stdout).unwrap();
    assert!(tail.contains("config.reloaded"), "{tail}");
    assert_eq!(server.stop(), Some(0));
    let alone = portcullis(&[&["reload"][..], &arguments].concat());
    assert!(complaint(&alone).contains("no server runs on"), "{}", complaint(&alone));
}

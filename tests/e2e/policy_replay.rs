//! `portcullis policy test`: recorded calls under another configuration (POL-06).

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Browser, Client, TestApp, Tokens, authorize_url, redirect_parameter};
use crate::process::portcullis;
use crate::sources::hostile::HostileServer;
use crate::sources::items::everything_of;
use crate::sources::{ask, walked};

const NOW: &str = r#"
[groups]
everyone = ["docs.read"]
engineers = ["docs.full"]

[scopes."docs.full"]
title = "Read whole documents"

[tools.docs_read]
scope = "docs.full"

[tools.docs_search]
scope = "docs.read"
args = { "/query" = { match = "[a-z ]+" } }
"#;

async fn tokens(app: &TestApp, browser: &mut Browser, client: &Client) -> String {
    let mut request = client.request(app);
    request.insert("scope", "docs.read docs.full".to_owned());
    let page = browser.consent_page(app, &authorize_url(app, &request)).await;
    let code = redirect_parameter(&browser.decide(app, &page, "approve").await, "code").unwrap();
    Tokens::of(app.redeem(client, &code).await).await.access
}

async fn search(app: &TestApp, token: &str, query: &str) {
    assert_eq!(app.call_tool(token, "docs_search", json!({ "query": query })).await.status(), 200);
}

/// The command's output and exit code for another file.
fn tested(app: &TestApp, other: &str, more: &[&str]) -> (Value, Option<i32>) {
    let file = app.data_dir().with_file_name("other.toml");
    std::fs::write(&file, other).unwrap();
    let (now, data) = (app.data_dir().with_file_name("portcullis.toml"), app.data_dir());
    let arguments = ["policy", "test", file.to_str().unwrap(), "--json", "--config", now.to_str().unwrap()];
    let output = portcullis(&[&arguments[..], &["--data-dir", data.to_str().unwrap()], more].concat());
    (serde_json::from_slice(&output.stdout).unwrap_or_default(), output.status.code())
}

/// A week of calls by an intern and an engineer; one call is older.
async fn week(app: &TestApp) {
    app.admin().await;
    let client = app.client().await;
    let mut intern = app.enrol("ines", &[]).await;
    let mut engineer = app.enrol("ernie", &["engineers"]).await;
    let old = tokens(app, &mut engineer, &client).await;
    search(app, &old, "launch").await;
    app.clock.advance(Duration::from_hours(8 * 24));
    let (ines, ernie) = (tokens(app, &mut intern, &client).await, tokens(app, &mut engineer, &client).await);
    search(app, &ines, "falcon").await;
    search(app, &ernie, "falcon 9").await;
    search(app, &ernie, "launch").await;
    for token in [&ines, &ernie] {
        app.call_tool(token, "docs_read", json!({ "path": "falcon.md" })).await;
        app.call_tool(token, "whoami", json!({})).await;
    }
}

/// POL-06: of a recorded week, exactly the calls that would be decided differently are shown, with both
/// decisions, and the exit code is 1. The same configuration shows none.
#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_week_shows_what_would_change() {
    let app = TestApp::start_configured(&format!("{NOW}\n[audit]\nrule_values = true\n")).await;
    week(&app).await;
    let other = NOW
        .replace("everyone = [\"docs.read\"]", "everyone = [\"docs.read\", \"docs.full\"]")
        .replace("[a-z ]+", "falcon.*");
    let (said, code) = tested(&app, &other, &[]);
    assert_eq!((code, &said["calls"], &said["undecided"]), (Some(1), &json!(7), &json!(0)), "{said}");
    let changed = said["changed"].as_array().unwrap();
    let words: Vec<_> = changed.iter().map(|c| [&c["name"], &c["before"], &c["after"]]).collect();
    assert_eq!(
        words,
        [
            ["docs_search", "argument_denied", "allow"],
            ["docs_search", "allow", "argument_denied"],
            ["docs_read", "not_entitled", "scope_missing"],
        ]
    );
    assert!(changed[2]["user"].as_str().unwrap().starts_with("u_"));
    // A longer period includes one more.
    let (said, _) = tested(&app, &other, &["--since", "9d"]);
    assert_eq!((&said["calls"], said["changed"].as_array().unwrap().len()), (&json!(8), 4));
    let (said, code) = tested(&app, NOW, &[]);
    assert_eq!((code, said["changed"].as_array().unwrap().len()), (Some(0), 0), "{said}");
    // Checks are not recorded.
    assert!(!app.audit().iter().any(|record| record.to_string().contains("other.toml")));
}

/// POL-06, AUDIT-05: calls whose decision depends on argument values count as undecided, because values are not
/// recorded.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_values_a_call_is_undecided() {
    let app = TestApp::start_configured(NOW).await;
    week(&app).await;
    let (said, code) = tested(&app, &NOW.replace("[a-z ]+", "falcon.*"), &[]);
    assert_eq!((code, &said["undecided"], &said["changed"]), (Some(0), &json!(3), &json!([])), "{said}");
    assert!(!app.audit().iter().any(|record| record["detail"].to_string().contains("falcon 9")));
    // An invalid file is an error and not a comparison.
    let (said, code) = tested(&app, "[tools.nothing]\nscope = \"docs.read\"\n", &[]);
    assert_eq!((said, code), (Value::Null, Some(1)));
}

/// A week of calls of a server's tool, prompt and resources, of the documentation's tool and sections, and one more of each
/// kind. Returns the number of calls.
async fn week_of_every_kind(app: &TestApp) -> usize {
    app.admin().await;
    let client = app.client().await;
    let mut ines = app.enrol("ines", &[]).await;
    walked(app, "source.changed", 1).await;
    let every_day = [
        ("tools/call", json!({ "name": "bad_greet", "arguments": { "x": 1 } })),
        ("tools/call", json!({ "name": "docs_search", "arguments": { "query": "launch" } })),
        ("prompts/get", json!({ "name": "bad_greet" })),
        ("resources/read", json!({ "uri": "bad://host/greet" })),
        ("resources/read", json!({ "uri": "bad://host/greet/7" })),
        ("resources/read", json!({ "uri": "docs:///falcon.md" })),
    ];
    let once = [
        ("tools/call", json!({ "name": "docs_search", "arguments": { "query": "falcon 9" } })),
        ("prompts/get", json!({ "name": "bad_unruled" })),
        ("resources/read", json!({ "uri": "BAD://host/unruled" })),
    ];
    let mut calls = 0;
    for day in 0..7 {
        let token = app.tokens(&mut ines, &client).await.access;
        for (method, params) in every_day.iter().chain(once.iter().filter(|_| day % 2 == 1).nth(day / 2)) {
            ask(app, &token, method, params.clone()).await;
            calls += 1;
        }
        app.clock.advance(Duration::from_hours(23));
    }
    calls
}

/// POL-06: of a recorded week with calls of tools, prompts and resources, exactly the three are shown that another file
/// decides differently, one of each kind.
#[tokio::test(flavor = "multi_thread")]
async fn exactly_the_calls_that_would_change_are_shown() {
    let server = HostileServer::start().await;
    let rules = everything_of("bad", &server.url, "");
    let search =
        "[tools.docs_search]\nscope = \"docs.read\"\nargs = { \"/query\" = { match = \"[a-z0-9 ]+\" } }\n";
    let now = format!("{rules}{search}");
    let app = TestApp::start_configured(&format!("{now}[audit]\nrule_values = true\n")).await;
    let calls = week_of_every_kind(&app).await;
    std::fs::write(app.data_dir().with_file_name("portcullis.toml"), &now).unwrap();
    let other = format!(
        "{}[prompts.bad_unruled]\nhidden = true\n[resources.\"bad_bad://host/unruled\"]\nscope = \"docs.full\"\n\
         [scopes.\"docs.full\"]\ntitle = \"All\"\n[groups]\nengineers = [\"docs.full\"]\n",
        now.replace("[a-z0-9 ]+", "[a-z ]+")
    );
    let (said, code) = tested(&app, &other, &[]);
    assert_eq!((code, &said["calls"], &said["undecided"]), (Some(1), &json!(calls), &json!(0)), "{said}");
    let changed = said["changed"].as_array().unwrap();
    let words: Vec<_> = changed.iter().map(|c| [&c["kind"], &c["name"], &c["before"], &c["after"]]).collect();
    assert_eq!(
        words,
        [
            ["tool", "docs_search", "allow", "argument_denied"],
            ["prompt", "bad_unruled", "allow", "hidden"],
            ["resource", "BAD://host/unruled", "allow", "not_entitled"],
        ]
    );
    let (said, code) = tested(&app, &now, &[]);
    assert_eq!((code, &said["calls"], &said["changed"]), (Some(0), &json!(calls), &json!([])), "{said}");
    // Without its source, every call of it would change.
    let (said, _) = tested(&app, search, &[]);
    let gone = said["changed"].as_array().unwrap();
    assert_eq!(gone.len(), 7 * 4 + 2, "{said}");
    assert!(gone.iter().all(|change| change["after"] == "unknown"), "{said}");
}

//! The machine's clock is set back (OPS-04).

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use shared::clock::{Clock, Timestamp};

use crate::harness::{Browser, TestApp, Tokens, error_of, header};
use crate::process::{Process, complaint, portcullis, share_clock};

/// More than the leeway.
const STEP: Duration = Duration::from_mins(10);

async fn recorded(app: &TestApp, reason: Option<&str>) {
    let patience = Duration::from_secs(20);
    let look = async {
        while !app.has_event("server.clock_step", reason) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(patience, look).await.expect("the step is on record");
}

fn set_back(app: &TestApp) -> Timestamp {
    let right = app.clock.now();
    app.clock.set(right - STEP);
    right
}

/// OPS-04: nothing is issued or used up, and existing tokens work until they expire; after the clock is
/// corrected, everything works again.
#[tokio::test(flavor = "multi_thread")]
async fn issuance_pauses_until_the_clock_is_set_right() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let tokens = app.tokens(&mut browser, &client).await;
    let code = browser.authorize(&app, &client).await;
    set_back(&app);
    let paused = app.redeem(&client, &code).await;
    assert!(header(paused.headers(), "retry-after").is_some());
    let (status, error) = error_of(paused).await;
    assert_eq!((status.as_u16(), error.as_str()), (503, "temporarily_unavailable"));
    assert_eq!(app.refresh(&client, &tokens.refresh).await.status(), 503);
    let page = browser.get(&app, &client.authorize_url(&app)).await;
    assert_eq!(page.status(), 503);
    assert!(page.text().await.unwrap().contains("clock was set back"));
    assert_eq!(app.call_tool(&tokens.access, "whoami", json!({})).await.status(), 200);
    recorded(&app, Some("set_back")).await;
    assert!(app.has_event("token.refused", Some("clock_behind")));

    app.clock.set(app.clock.now());
    let redeemed = Tokens::of(app.redeem(&client, &code).await).await;
    assert_eq!(app.call_tool(&redeemed.access, "whoami", json!({})).await.status(), 200);
    assert_eq!(app.refresh(&client, &tokens.refresh).await.status(), 200);
    recorded(&app, None).await;
}

/// OPS-04, RS-05: expired tokens stay expired, whatever the clock says, also across a restart.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_does_not_come_back() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let tokens = app.tokens(&mut browser, &client).await;
    app.clock.advance(Duration::from_mins(17));
    assert_eq!(app.call_tool(&tokens.access, "whoami", json!({})).await.status(), 401);
    set_back(&app);
    assert_eq!(app.call_tool(&tokens.access, "whoami", json!({})).await.status(), 401);
    // A process that never saw the right time.
    let wrong = app.clock.wall();
    let mut app = app;
    app.clock = shared::Clock::held(wrong);
    let app = app.restart().await;
    assert_eq!(app.call_tool(&tokens.access, "whoami", json!({})).await.status(), 401);
    assert_eq!(app.refresh(&client, &tokens.refresh).await.status(), 503);
    recorded(&app, Some("set_back")).await;
}

/// OPS-04: a step within the leeway has no effect: time goes on, and nothing pauses.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_clock_step_is_not_recorded() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let first = app.tokens(&mut browser, &client).await;
    app.clock.set(app.clock.now() - Duration::from_mins(1));
    let second = Tokens::of(app.refresh(&client, &first.refresh).await).await;
    assert_eq!(second.claims()["iat"], first.claims()["iat"]);
    assert_eq!(app.call_tool(&second.access, "whoami", json!({})).await.status(), 200);
    assert!(!app.has_event("server.clock_step", Some("set_back")));
}

/// OPS-04: an administrator confirms the clock. Everything made in the future time ends, and so does every
/// access token; older refresh tokens continue.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_can_be_confirmed() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let before = app.tokens(&mut browser, &client).await;
    let right = app.clock.now();
    let refused = portcullis(&["clock", "confirm", "--yes", "--data-dir", app.data_dir().to_str().unwrap()]);
    assert!(complaint(&refused).contains("nothing to confirm"), "{}", complaint(&refused));

    // A day ahead for a while, then corrected.
    app.clock.set(right + Duration::from_hours(24));
    let within = app.tokens(&mut browser, &client).await;
    let link = app.console(&["user", "add", "grace"])["link"].as_str().unwrap().to_owned();
    app.clock.set(right + Duration::from_mins(1));
    let shown = app.console(&["clock", "show"])["time"].clone();
    assert_eq!(
        (&shown["paused"], &shown["clock"]),
        (&json!(true), &json!((right + Duration::from_mins(1)).0))
    );
    assert_eq!(app.refresh(&client, &before.refresh).await.status(), 503);
    let unasked = portcullis(&["clock", "confirm", "--data-dir", app.data_dir().to_str().unwrap()]);
    assert!(complaint(&unasked).contains("--yes"), "{}", complaint(&unasked));

    let confirmed = app.console(&["clock", "confirm", "--yes"])["confirmed"].clone();
    assert_eq!(
        (&confirmed["grants_ended"], &confirmed["keys_replaced"]),
        (&json!(1), &json!(2)),
        "{confirmed}"
    );
    assert_eq!(app.clock.now(), right + Duration::from_mins(1));
    for dead in [&before, &within] {
        assert_eq!(app.call_tool(&dead.access, "whoami", json!({})).await.status(), 401);
    }
    let fresh = Tokens::of(app.refresh(&client, &before.refresh).await).await;
    assert_eq!(app.call_tool(&fresh.access, "whoami", json!({})).await.status(), 200);
    assert_eq!(error_of(app.refresh(&client, &within.refresh).await).await.1, "invalid_grant");
    assert_ne!(Browser::new().follow_link(&app, &link).await.status(), 200);
    let listed = app.console(&["key", "list"])["keys"].clone();
    assert_ne!(listed, json!([]));
    for key in listed.as_array().unwrap() {
        assert_eq!(key["activated_at"], json!((right + Duration::from_mins(1)).0));
    }
    let steps: Vec<_> = app.audit().into_iter().filter(|r| r["event"] == "server.clock_step").collect();
    assert!(steps.iter().any(|step| step["detail"]["confirmed"] == true), "{steps:?}");

    // When the wrong time arrives, the tokens made in it stay dead.
    let app = app.restart().await;
    app.clock.set(right + Duration::from_hours(24));
    assert_eq!(app.call_tool(&within.access, "whoami", json!({})).await.status(), 401);
    assert_eq!(error_of(app.refresh(&client, &within.refresh).await).await.1, "invalid_grant");
    assert_eq!(app.refresh(&client, &fresh.refresh).await.status(), 200);
}

/// The Rust files under these folders of the project, with their content.
fn sources(folders: &[&str]) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> =
        folders.iter().map(|folder| Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("clients") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                files.push((path, text));
            }
        }
    }
    files
}

/// The files in these folders that contain the text.
fn containing(folders: &[&str], text: &str) -> Vec<String> {
    let name =
        |path: &Path| path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_str().unwrap().to_owned();
    sources(folders).iter().filter(|(_, has)| has.contains(text)).map(|(path, _)| name(path)).collect()
}

/// Only one place starts the program, and gives it the time of the server in the test's process; and only one
/// place reads the system clock. Otherwise tests and commands would depend on today's date.
#[test]
fn processes_are_started_with_the_tests_clock() {
    let executable = concat!("CARGO_BIN_EXE_", "portcullis");
    assert_eq!(containing(&["tests", "benches"], executable), ["tests/e2e/process.rs"]);
    let machine = concat!("Clock::", "system()");
    let readers = containing(&["src"], machine);
    assert_eq!(readers, ["src/timekeeping.rs"], "ask timekeeping::clock()");
}

/// A debug build uses the clock that a test gives it. A release build ignores it, also if the tests are built
/// in release mode.
#[test]
fn only_a_debug_build_takes_its_time_from_a_test() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    assert_eq!(Process::start(&data, "localhost:0", None).stop(), Some(0));
    let year_2031 = 1_924_992_000_000_i64;
    share_clock(&data, &Clock::held(Timestamp(year_2031)));
    let shown = portcullis(&["clock", "show", "--json", "--data-dir", data.to_str().unwrap()]);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let clock = Timestamp(shown["time"]["clock"].as_i64().unwrap());
    let given = clock >= Timestamp(year_2031) && clock.since(Timestamp(year_2031)) < Duration::from_mins(1);
    assert_eq!(given, cfg!(debug_assertions), "{clock}");
}

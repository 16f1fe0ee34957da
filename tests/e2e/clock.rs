//! The machine's clock is set back (OPS-04).

use std::time::Duration;

use serde_json::json;
use shared::clock::Timestamp;

use crate::harness::{TestApp, Tokens, error_of, header};

/// By this much, more than clocks may differ.
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

/// OPS-04: nothing is issued, nothing is spent, and what is there goes on working until it expires; when
/// time has caught up everything works again.
#[tokio::test(flavor = "multi_thread")]
async fn issuance_pauses_until_time_catches_up() {
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
    assert!(page.text().await.unwrap().contains("clock of this server was set back"));
    assert_eq!(app.call_tool(&tokens.access, "whoami", json!({})).await.status(), 200);
    recorded(&app, Some("set_back")).await;
    assert!(app.has_event("token.refused", Some("clock_behind")));

    app.clock.advance(STEP);
    let redeemed = Tokens::of(app.redeem(&client, &code).await).await;
    assert_eq!(app.call_tool(&redeemed.access, "whoami", json!({})).await.status(), 200);
    assert_eq!(app.refresh(&client, &tokens.refresh).await.status(), 200);
    recorded(&app, None).await;
}

/// OPS-04, RS-05: what has expired stays so, whatever the clock says, also across a restart.
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

/// OPS-04: a step within the leeway is no event: time stands still until it has caught up.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_step_is_waited_for() {
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

//! Expired rows of strangers and users: their number is bounded, and they are deleted.

use std::time::Duration;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::harness::{Browser, TestApp};

fn database(app: &TestApp) -> Connection {
    let db = Connection::open(app.data_dir().join("portcullis.db")).unwrap();
    db.busy_timeout(Duration::from_secs(10)).unwrap();
    db
}

fn count(db: &Connection, table: &str) -> u32 {
    db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

/// Tables whose rows expire.
const PASSING: [&str; 9] = [
    "link",
    "session",
    "ceremony",
    "authorization_transaction",
    "authorization_code",
    "device_authorization",
    "device_transaction",
    "initial_access_token",
    "client_assertion",
];

/// Waits for the sweep that was requested before: it is done this many jobs later.
async fn empties(app: &TestApp, is_empty: impl Fn() -> bool) -> bool {
    for _ in 0..500 {
        if is_empty() {
            return true;
        }
        assert_eq!(app.get("/readyz").await.status(), 200);
    }
    false
}

/// Adds a row to every table of [`PASSING`] that will not be used.
async fn leave_something(app: &TestApp) {
    let mut ada = app.admin().await;
    let mut grace = app.enrol("grace", &[]).await;
    app.console(&["user", "add", "linus"]);
    app.console(&["registration-token", "add", "team"]);
    let client = app.client().await;
    ada.authorize(app, &client).await;
    let page = Browser::new().get(app, &client.authorize_url(app)).await;
    assert_eq!(page.status(), 200);
    let started = grace.post_json(app, "/login/start", &json!({})).await;
    assert_eq!(started.status(), 200);
    let device = app.console(&["client", "add", "Lab console", "--device"]);
    let form = [("client_id", device["client"]["id"].as_str().unwrap())];
    let asked = app.http.post(app.url("/device_authorization")).form(&form).send().await.unwrap();
    let asked: serde_json::Value = asked.json().await.unwrap();
    let typed = grace.post_form(app, "/device", &[("user_code", asked["user_code"].as_str().unwrap())]).await;
    assert_eq!(typed.status(), 303);
    let now = app.clock.now().0;
    database(app)
        .execute(
            "INSERT INTO client_assertion (digest, holder, stranger, expires_at) VALUES (randomblob(32), 'c_a', 0, ?1)",
            [now + 1000],
        )
        .unwrap();
    for table in PASSING {
        assert!(count(&database(app), table) > 0, "{table}");
    }
}

/// RATE-03: expired rows are deleted at the start, whether or not rows are added; an unused link is recorded.
#[tokio::test(flavor = "multi_thread")]
async fn expired_rows_are_deleted_at_the_start() {
    let app = TestApp::start_configured("device = true").await;
    leave_something(&app).await;
    let stopped = app.stop().await;
    stopped.clock.advance(Duration::from_hours(8 * 24));
    let app = stopped.start().await;
    for table in PASSING {
        assert!(empties(&app, || count(&database(&app), table) == 0).await, "still something in {table}");
    }
    let audit = app.audit();
    let expired: Vec<_> = audit.iter().filter(|record| record["event"] == "enrol.expired").collect();
    assert_eq!(expired.len(), 1, "{expired:?}");
    assert_eq!(expired[0]["detail"]["purpose"], "enrol");
    let linus = app.console(&["user", "show", "linus"]);
    assert_eq!(expired[0]["subject"], linus["user"]["id"]);
    // Users and their passkeys do not expire.
    assert_eq!(count(&database(&app), "user"), 3);
    assert_eq!(count(&database(&app), "passkey"), 2);
}

/// RATE-03: the same once an hour while the server runs.
#[tokio::test]
async fn expired_rows_are_deleted_every_hour() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let page = app.http.get(client.authorize_url(&app)).send().await.unwrap();
    assert_eq!(page.status(), 200);
    app.clock.advance(Duration::from_hours(2));
    assert_eq!(app.get("/readyz").await.status(), 200);
    let db = database(&app);
    let waiting = || (count(&db, "authorization_transaction"), count(&db, "link"));
    assert_eq!(waiting(), (1, 1), "nobody looked yet");
    tokio::time::pause();
    tokio::time::sleep(Duration::from_mins(61)).await;
    tokio::time::resume();
    assert!(empties(&app, || waiting() == (0, 0)).await, "{:?}", waiting());
    assert!(app.has_event("enrol.expired", None), "the setup link");
}

/// RATE-03, RATE-06, AUTHZ-15: ten thousand requests may be pending; a flood from one address removes only its
/// own, even if each of its requests names another client and all of them end later than the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_requests_evicts_only_its_own_rows() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let (quiet, flooding) = (app.client().await, app.client().await);
    let page = ada.consent_page(&app, &quiet.authorize_url(&app)).await;
    let db = database(&app);
    db.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9999)
         INSERT INTO authorization_transaction (id, browser, client_id, redirect_uri, code_challenge, scope, resource,
         prompt_login, prompt_consent, created_at, expires_at, holder, network)
         SELECT 't_' || i, randomblob(32), ?1 || i, 'http://localhost/callback', substr(hex(randomblob(22)), 1, 43), 'docs.read',
         ?2, 0, 0, 1795435200000, 1795435200000 + 600001 + i, '203.0.113.9', '203.0.113.9' FROM n",
        [&flooding.id, &app.mcp_url()],
    )
    .unwrap();
    app.clock.advance(Duration::from_millis(1));
    let before = count(&db, "authorization_transaction");
    assert_eq!(before, 10_000);
    for client in [&flooding, &quiet, &flooding] {
        let answer = app.http.get(client.authorize_url(&app)).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    assert!(count(&db, "authorization_transaction") <= before);
    assert_eq!(app.redeem(&quiet, &code(&ada.decide(&app, &page, "approve").await)).await.status(), 200);
}

fn code(answer: &reqwest::Response) -> String {
    crate::harness::redirect_parameter(answer, "code").expect("a code")
}

/// RATE-03, RATE-06: the number of ceremonies is bounded; the holder with most loses its oldest, and others
/// complete, also one that began before the flood.
#[tokio::test(flavor = "multi_thread")]
async fn ceremonies_are_bounded() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let begun: Value = ada.post_json(&app, "/login/start", &json!({})).await.json().await.unwrap();
    let db = database(&app);
    db.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
         INSERT INTO ceremony (digest, purpose, browser, state, expires_at, holder, network)
         SELECT randomblob(32), 'sign_in', randomblob(32), '{}', 1795435500000 + 20 * i, '203.0.113.9', '203.0.113.9' FROM n",
        [],
    )
    .unwrap();
    let oldest = || -> i64 {
        let sql = "SELECT min(expires_at) FROM ceremony WHERE holder = '203.0.113.9'";
        db.query_row(sql, [], |row| row.get(0)).unwrap()
    };
    let before = (count(&db, "ceremony"), oldest());
    assert_eq!(ada.sign_in(&app, None).await.status(), 200);
    for _ in 0..5 {
        Browser::new().post_json(&app, "/login/start", &json!({})).await;
    }
    assert!(count(&db, "ceremony") <= before.0 && oldest() > before.1);
    let response = ada.assert(&app, begun["options"].clone());
    let finish = json!({"ceremony": begun["ceremony"], "response": response});
    assert_eq!(ada.post_json(&app, "/login/finish", &finish).await.status(), 200);
}

//! The cost of a failed request: not more than of a successful one.

use rusqlite::Connection;
use serde_json::{Value, json};
use shared::audit::QUOTA;

use crate::assertion::ClientKey;
use crate::harness::{Browser, TestApp};

/// The number of audit records, and of rows in all other tables.
fn rows(app: &TestApp) -> (u32, u32) {
    let db = Connection::open(app.data_dir().join("portcullis.db")).unwrap();
    let count = |table: &str| -> u32 {
        db.query_row(&format!("SELECT count(*) FROM \"{table}\""), [], |row| row.get(0)).unwrap()
    };
    let mut tables = db.prepare("SELECT name FROM sqlite_master WHERE type = 'table'").unwrap();
    let names = tables.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let names: Vec<String> = names.map(Result::unwrap).filter(|name| name != "audit").collect();
    (count("audit"), names.iter().map(|name| count(name)).sum())
}

/// Sends a request of each kind that strangers can have refused.
async fn fail(app: &TestApp, kind: usize, client_id: &str) -> u16 {
    let http = &app.http;
    let request = match kind {
        0 => http.post(app.url("/token")).form(&[("grant_type", "refresh_token"), ("client_id", "nobody")]),
        1 => http.post(app.url("/token")).form(&[
            ("grant_type", "authorization_code"),
            ("code", "ac_guess"),
            ("client_id", client_id),
        ]),
        2 => http
            .post(app.url("/token"))
            .basic_auth(client_id, Some("cs_guess"))
            .form(&[("grant_type", "client_credentials")]),
        3 => http.post(app.url("/revoke")).form(&[("token", "rt_guess"), ("client_id", client_id)]),
        4 => http
            .post(app.url("/introspect"))
            .basic_auth("rs", Some("cs_guess"))
            .form(&[("token", "rt_guess")]),
        5 => http.post(app.url("/register")).json(&json!({"redirect_uris": ["javascript:1"]})),
        6 => http.get(app.url("/authorize?client_id=nobody")),
        7 => http.get(app.url("/consent?transaction=t_guess")),
        8 => http.post(app.url("/consent")).header("origin", "https://evil.example").form(&[("a", "b")]),
        9 => http
            .post(app.url("/login/finish"))
            .header("origin", &app.origin)
            .json(&json!({"ceremony": "cer_guess", "response": {}})),
        10 => http
            .post(app.url("/setup/start"))
            .header("origin", &app.origin)
            .json(&json!({"token": "enr_guess", "name": "ada"})),
        11 => http
            .post(app.url("/enrol/start"))
            .header("origin", &app.origin)
            .json(&json!({"token": "enr_guess"})),
        12 => http.post(app.url("/sign-out")).form(&[("csrf", "guess")]),
        13 => http.post(app.mcp_url()).bearer_auth("eyJhbGciOiJFUzI1NiJ9.e30.AA").json(&json!({})),
        14 => http.get(app.url("/nothing")),
        15 => http.post(app.url("/token")).body("%"),
        _ => http.post(app.url("/device/decision")).form(&[("transaction", "d_guess")]),
    };
    request.send().await.unwrap().status().as_u16()
}

/// RATE-04, AUDIT-06: a failed request writes at most one record, and nothing after many of its kind.
#[tokio::test]
async fn failures_write_nothing_in_the_end() {
    let app = TestApp::start_configured("device = true").await;
    let client = app.client().await;
    for kind in 0..17 {
        for _ in 0..=QUOTA {
            let status = fail(&app, kind, &client.id).await;
            // RFC 7009 §2.2: revoking an invalid token succeeds.
            assert!((400..500).contains(&status) || (kind, status) == (3, 200), "kind {kind}: {status}");
        }
        let (records, others) = rows(&app);
        for _ in 0..60 {
            fail(&app, kind, &client.id).await;
        }
        let (records_after, others_after) = rows(&app);
        assert_eq!(others_after, others, "kind {kind} leaves rows behind");
        // A few times a minute their number is recorded.
        assert!(records_after < records + 30, "kind {kind}: {} records more", records_after - records);
    }
}

/// RATE-04: an invalid assertion writes only the record of its refusal, and its `jti` is not stored.
#[tokio::test]
async fn a_bad_assertion_is_not_remembered() {
    let app = TestApp::start().await;
    let key = ClientKey::generate("ES256");
    let metadata = json!({
        "redirect_uris": ["http://localhost/callback"],
        "grant_types": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_method": "private_key_jwt",
        "jwks": key.jwks(),
    });
    let registered: Value = app.register(&metadata).await.json().await.unwrap();
    let id = registered["client_id"].as_str().unwrap();
    let db = Connection::open(app.data_dir().join("portcullis.db")).unwrap();
    let remembered =
        || -> u32 { db.query_row("SELECT count(*) FROM client_assertion", [], |row| row.get(0)).unwrap() };
    let other = ClientKey::generate("ES256");
    for n in 0..30 {
        let mut claims = crate::assertion::claims(&app, id);
        let assertion = match n % 3 {
            0 => other.sign(&key.header(), &claims),
            1 => {
                claims["aud"] = "https://elsewhere.example".into();
                key.sign(&key.header(), &claims)
            }
            _ => {
                claims["exp"] = 1.into();
                key.sign(&key.header(), &claims)
            }
        };
        let form = crate::assertion::form(assertion);
        let form = [&form[..], &[("grant_type", "refresh_token".to_owned())]].concat();
        assert_eq!(app.http.post(app.url("/token")).form(&form).send().await.unwrap().status(), 401);
    }
    assert_eq!(remembered(), 0);
    let form = [
        &key.form(&app, id)[..],
        &[("grant_type", "refresh_token".to_owned()), ("refresh_token", "rt_x".to_owned())],
    ]
    .concat();
    assert_eq!(app.http.post(app.url("/token")).form(&form).send().await.unwrap().status(), 400);
    assert_eq!(remembered(), 1, "a good one is");
}

/// RATE-04: beyond the limit, a passkey assertion is refused before its signature is verified, whether or not
/// it is valid.
#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_limit_no_signature_is_checked() {
    let app = TestApp::start_configured("[rate]\npasskey_user = 2\npasskey_address = \"off\"").await;
    let mut ada = app.admin().await;
    for _ in 0..2 {
        assert_eq!(ada.sign_in(&app, None).await.status(), 200);
    }
    let before = app.audit().len();
    for _ in 0..3 {
        assert_eq!(forged(&app, &mut ada).await, 429);
    }
    let failed = app.audit()[before..].iter().filter(|record| record["event"] == "webauthn.failed").count();
    assert_eq!(failed, 0);
    app.clock.advance(std::time::Duration::from_secs(30));
    assert_eq!(forged(&app, &mut ada).await, 400);
    assert!(app.has_event("webauthn.failed", Some("assertion")));
}

/// A sign-in with an invalid signature.
async fn forged(app: &TestApp, browser: &mut Browser) -> u16 {
    let started: Value = browser.post_json(app, "/login/start", &json!({})).await.json().await.unwrap();
    let assertion = browser.assert(app, started["options"].clone());
    let mut response = serde_json::to_value(&assertion).unwrap();
    let signature = response["response"]["signature"].as_str().unwrap().to_owned();
    let (start, end) = signature.split_at(30);
    let other = if end.starts_with('A') { "B" } else { "A" };
    response["response"]["signature"] = format!("{start}{other}{}", &end[1..]).into();
    let finish = json!({"ceremony": started["ceremony"], "response": response});
    browser.post_json(app, "/login/finish", &finish).await.status().as_u16()
}

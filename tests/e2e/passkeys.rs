//! Passkeys and roles in the administrator's commands.

use serde_json::{Value, json};

use crate::account::{another, is_signed_in};
use crate::clients::refused;
use crate::harness::{Browser, TestApp, Tokens};
use crate::process::portcullis;

/// The digits that identify a user's passkeys, oldest first.
fn passkeys(app: &TestApp, user: &str) -> Vec<String> {
    let answer = app.console(&["user", "passkeys", user]);
    let digits = |passkey: &Value| passkey["sha256"].as_str().unwrap()[..8].to_owned();
    answer["passkeys"].as_array().unwrap().iter().map(digits).collect()
}

/// SESSION-05, WEBAUTHN-12, REFRESH-08: a removed passkey cannot sign in, its user's sessions end, and grants
/// continue unless it was stolen.
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_passkey_signs_nobody_in() {
    let app = TestApp::start().await;
    app.admin().await;
    let client = app.client().await;
    let mut lost = app.enrol("ines", &[]).await;
    app.clock.advance(std::time::Duration::from_secs(1));
    let mut kept = another(&app, "ines").await;
    let tokens = app.tokens(&mut kept, &client).await;
    let [first, second] = passkeys(&app, "ines").try_into().unwrap();
    for browser in [&mut lost, &mut kept] {
        assert_eq!(browser.sign_in(&app, None).await.status(), 200);
        assert!(is_signed_in(&app, browser).await);
    }

    let removed = app.console(&["user", "passkey", "remove", "ines", &first, "--yes"]);
    assert_eq!(removed["user"]["passkeys"], 1);
    assert!(!is_signed_in(&app, &mut lost).await && !is_signed_in(&app, &mut kept).await);
    assert_eq!(lost.sign_in(&app, None).await.status(), 400);
    assert_eq!(kept.sign_in(&app, None).await.status(), 200);
    assert_eq!(app.call_tool(&tokens.access, "whoami", json!({})).await.status(), 200);

    let line = refused(&app, &["user", "passkey", "remove", "ines", &second, "--yes"]);
    assert!(line.contains("the last passkey") && line.contains("user link"), "{line}");
    another(&app, "ines").await;
    app.console(&["user", "passkey", "remove", "ines", &second, "--stolen", "--yes"]);
    assert_eq!(app.call_tool(&tokens.access, "whoami", json!({})).await.status(), 401);
    let refreshed = app.refresh(&client, &tokens.refresh).await;
    assert_eq!(crate::harness::error_of(refreshed).await.1, "invalid_grant");

    // A disabled user may be left without a passkey.
    app.console(&["user", "disable", "ines"]);
    let [third] = passkeys(&app, "ines").try_into().unwrap();
    app.console(&["user", "passkey", "remove", "ines", &third.to_uppercase(), "--yes"]);
    let removed: Vec<Value> =
        app.audit().into_iter().filter(|record| record["event"] == "webauthn.removed").collect();
    let details: Vec<_> =
        removed.iter().map(|r| (&r["detail"]["stolen"], &r["detail"]["grants_ended"])).collect();
    assert_eq!(details, [(&json!(false), &json!(0)), (&json!(true), &json!(1)), (&json!(false), &json!(0))]);
    assert_eq!(removed[0]["detail"]["credential_sha256_8"], first.as_str());
}

/// The number of a user's suspended passkeys, as `user show` and `user list` report, as text and as JSON.
fn suspended_of(app: &TestApp, user: &str) -> u64 {
    let shown = app.console(&["user", "show", user])["user"]["suspended_passkeys"].as_u64().unwrap();
    let listed = app.console(&["user", "list"])["users"].as_array().unwrap().clone();
    let listed = listed.iter().find(|listed| listed["name"] == user).unwrap();
    assert_eq!(listed["suspended_passkeys"], shown);
    let data = app.data_dir();
    for command in [&["user", "show", user][..], &["user", "list"]] {
        let output = portcullis(&[command, &["--data-dir", data.to_str().unwrap()]].concat());
        let words = String::from_utf8(output.stdout).unwrap();
        assert_eq!(words.contains(&format!("({shown} suspended)")), shown > 0, "{words}");
    }
    shown
}

/// WEBAUTHN-08: a suspended passkey cannot sign in until an administrator clears it; then its counter starts
/// again, and a copy is detected again.
#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_passkey_is_cleared_by_an_administrator() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let [passkey] = passkeys(&app, "ada").try_into().unwrap();
    let line = refused(&app, &["user", "passkey", "unsuspend", "ada", &passkey]);
    assert!(line.contains("is not suspended"), "{line}");
    let suspend = async |ada: &mut Browser| {
        let mut assertions = Vec::new();
        for _ in 0..2 {
            let started = ada.post_json(&app, "/login/start", &json!({"transaction": null})).await;
            let started: Value = started.json().await.unwrap();
            let response = ada.assert(&app, started["options"].clone());
            assertions.push(json!({"ceremony": started["ceremony"], "response": response}));
        }
        assert_eq!(ada.post_json(&app, "/login/finish", &assertions[1]).await.status(), 200);
        assert_eq!(ada.post_json(&app, "/login/finish", &assertions[0]).await.status(), 400);
        assert_eq!(ada.sign_in(&app, None).await.status(), 400);
    };
    suspend(&mut ada).await;
    let shown = app.console(&["user", "passkeys", "ada"])["passkeys"][0].clone();
    assert_eq!((&shown["suspended"], &shown["last_used_at"]), (&json!(true), &json!(app.clock.now().0)));
    // `user show` and `user list` show it too.
    assert_eq!(suspended_of(&app, "ada"), 1);
    app.console(&["user", "passkey", "unsuspend", "ada", &passkey]);
    assert_eq!(suspended_of(&app, "ada"), 0);
    assert_eq!(ada.sign_in(&app, None).await.status(), 200);
    assert_eq!(ada.sign_in(&app, None).await.status(), 200);
    suspend(&mut ada).await;
    let cleared = app.audit().into_iter().filter(|record| record["detail"]["cleared"] == true);
    let cleared: Vec<Value> = cleared.collect();
    assert_eq!((cleared.len(), &cleared[0]["event"]), (1, &json!("webauthn.counter_regression")));

    // A suspended passkey does not count as remaining.
    another(&app, "ada").await;
    let second = passkeys(&app, "ada").pop().unwrap();
    let line = refused(&app, &["user", "passkey", "remove", "ada", &second, "--yes"]);
    assert!(line.contains("the last passkey"), "{line}");
    app.console(&["user", "passkey", "remove", "ada", &passkey, "--yes"]);
}

/// ADMIN-03, ENROL-04, SESSION-02: commands add and remove administrators, but never the last one; a change
/// ends their sessions.
#[tokio::test(flavor = "multi_thread")]
async fn roles_change_at_the_console() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let mut ines = app.enrol("ines", &[]).await;
    let role = |user: &str, role: &str| app.console(&["user", "role", user, role])["user"]["role"].clone();
    let line = refused(&app, &["user", "role", "ada", "none"]);
    assert!(line.contains("the last enabled administrator"), "{line}");
    assert_eq!(ines.sign_in(&app, None).await.status(), 200);
    assert_eq!(role("ines", "none"), "none");
    assert!(is_signed_in(&app, &mut ines).await);
    assert_eq!(role("ines", "admin"), "admin");
    assert!(!is_signed_in(&app, &mut ines).await);
    // The console may make a link for an administrator.
    another(&app, "ines").await;
    assert_eq!(role("ada", "none"), "none");
    assert!(!is_signed_in(&app, &mut ada).await);
    let line = refused(&app, &["user", "disable", "ines"]);
    assert!(line.contains("the last enabled administrator"), "{line}");
    app.console(&["user", "disable", "ada"]);
    let line = refused(&app, &["user", "role", "ada", "admin"]);
    assert!(line.contains("is disabled"), "{line}");
    let changes: Vec<Value> = app
        .audit()
        .into_iter()
        .filter(|record| record["event"] == "user.role_changed")
        .map(|record| json!([record["detail"]["before"], record["detail"]["after"]]))
        .collect();
    assert_eq!(changes, [json!(["none", "admin"]), json!(["admin", "none"])]);
    // A role grants no scope.
    let client = app.client().await;
    let tokens: Tokens = app.tokens(&mut ines, &client).await;
    assert_eq!(tokens.body["scope"], "docs.read");
}

/// Digits that identify no passkey change nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_passkey_is_named_by_eight_digits() {
    let app = TestApp::start().await;
    app.admin().await;
    app.enrol("ines", &[]).await;
    let [passkey] = passkeys(&app, "ada").try_into().unwrap();
    for name in ["", "x", &passkey[..7], "00000000", &format!("{passkey}00000000")] {
        for (action, yes) in [("remove", &["--yes"][..]), ("unsuspend", &[])] {
            let line = refused(&app, &[&["user", "passkey", action, "ada", name], yes].concat());
            assert!(line.contains("has no passkey"), "{line}");
        }
    }
    // Nor do another user's.
    assert!(
        refused(&app, &["user", "passkey", "remove", "ines", &passkey, "--yes"]).contains("has no passkey")
    );
    assert!(refused(&app, &["user", "passkeys", "nobody"]).contains("no user `nobody`"));
    assert!(!app.has_event("webauthn.removed", None));
}

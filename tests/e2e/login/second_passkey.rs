//! Adding a passkey while signed in.

use super::*;

/// WEBAUTHN-12: adding a second passkey takes an assertion by the first; the second can then sign in alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_passkey_needs_the_first() {
    let app = TestApp::start().await;
    let mut first = app.admin().await;
    let mut second = Browser::new();
    let started: Value =
        first.post_json(&app, "/account/passkeys/start", &json!({})).await.json().await.unwrap();
    // Without the assertion there are no creation options.
    let skipped =
        json!({"ceremony": started["ceremony"], "response": second.create(&app, creation_like(&started))});
    assert_eq!(first.post_json(&app, "/account/passkeys/finish", &skipped).await.status(), 400);

    let started: Value =
        first.post_json(&app, "/account/passkeys/start", &json!({})).await.json().await.unwrap();
    let response = first.assert(&app, started["options"].clone());
    let confirmed = json!({"ceremony": started["ceremony"], "response": response});
    let options: Value =
        first.post_json(&app, "/account/passkeys/confirm", &confirmed).await.json().await.unwrap();
    let mut second = Browser::new();
    let created = second.create(&app, options["options"].clone());
    let finish = json!({"ceremony": options["ceremony"], "response": created});
    let added = first.post_json(&app, "/account/passkeys/finish", &finish).await;
    assert_eq!(added.json::<Value>().await.unwrap()["passkeys"], 2);
    assert_eq!(second.sign_in(&app, None).await.status(), 200);
    assert!(app.has_event("session.step_up", None));
}

/// Creation options that the server did not make, for an attempt without them.
fn creation_like(started: &Value) -> Value {
    json!({"publicKey": {
        "rp": {"name": "Portcullis", "id": "localhost"},
        "user": {"id": "AAAA", "name": "eve", "displayName": "eve"},
        "challenge": started["options"]["publicKey"]["challenge"],
        "pubKeyCredParams": [{"type": "public-key", "alg": -7}],
    }})
}

/// WEBAUTHN-12: a passkey cannot be added to another user's account, or without a session.
#[tokio::test(flavor = "multi_thread")]
async fn adding_a_passkey_needs_a_session() {
    let app = TestApp::start().await;
    let mut stranger = Browser::new();
    stranger.get(&app, &app.url("/")).await;
    for path in ["/account/passkeys/start", "/account/passkeys/confirm", "/account/passkeys/finish"] {
        assert_eq!(stranger.post_json(&app, path, &json!({})).await.status(), 401, "{path}");
    }
}

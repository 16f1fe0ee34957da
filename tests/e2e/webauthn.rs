//! The options of passkey ceremonies, and which passkeys are accepted (WEBAUTHN).

use reqwest::{Response, StatusCode};
use rusqlite::Connection;
use serde_json::{Value, json};
use webauthn_rs_proto::RegisterPublicKeyCredential;

use crate::harness::{Browser, TestApp, authorize_url, error_of, header};

/// The options of a ceremony without the random parts.
fn constant(mut options: Value) -> Value {
    let public_key = &mut options["publicKey"];
    assert!(public_key["challenge"].take().as_str().unwrap().len() >= 43, "32 random bytes");
    if let Some(user) = public_key.get_mut("user") {
        user["id"].take();
    }
    options
}

fn link_of(app: &TestApp, arguments: &[&str]) -> String {
    app.console(arguments)["link"].as_str().unwrap().to_owned()
}

/// Opens an enrolment link and starts.
async fn begin_enrolment(app: &TestApp, browser: &mut Browser, link: &str) -> Value {
    let (page, token) = link.split_once('#').unwrap();
    browser.get(app, page).await;
    let started = browser.post_json(app, "/enrol/start", &json!({"token": token})).await;
    assert_eq!(started.status(), 200);
    started.json().await.unwrap()
}

fn finish(started: &Value, response: &RegisterPublicKeyCredential) -> Value {
    json!({"ceremony": started["ceremony"], "response": response})
}

/// The options for a signed-in user's additional passkey.
async fn begin_another(app: &TestApp, browser: &mut Browser) -> Value {
    let options = confirm_another(app, browser).await;
    assert_eq!(options.status(), 200);
    options.json().await.unwrap()
}

/// The response to the assertion that an additional passkey takes.
async fn confirm_another(app: &TestApp, browser: &mut Browser) -> Response {
    let started = browser.post_json(app, "/account/passkeys/start", &json!({})).await;
    let started: Value = started.json().await.unwrap();
    let response = browser.assert(app, started["options"].clone());
    let confirmed = json!({"ceremony": started["ceremony"], "response": response});
    browser.post_json(app, "/account/passkeys/confirm", &confirmed).await
}

/// WEBAUTHN-02, WEBAUTHN-14: a registration requires user verification and a discoverable credential, requests
/// no attestation, lists the supported algorithms and the existing passkeys, and identifies its user by a
/// random UUID. Authenticators that need the internet are not suggested.
#[tokio::test(flavor = "multi_thread")]
async fn a_registration_asks_for_what_is_needed() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let link = link_of(&app, &["user", "add", "ines"]);
    let first = begin_enrolment(&app, &mut Browser::new(), &link).await;
    let again = begin_enrolment(&app, &mut Browser::new(), &link).await;
    let options = &first["options"]["publicKey"];
    let selection = &options["authenticatorSelection"];
    assert_eq!(
        (&selection["residentKey"], &selection["userVerification"]),
        (&json!("required"), &json!("required"))
    );
    assert_eq!(options["attestation"], "none");
    let algorithms: Vec<_> =
        options["pubKeyCredParams"].as_array().unwrap().iter().map(|p| p["alg"].as_i64().unwrap()).collect();
    assert_eq!(algorithms, [-7, -35, -257]);
    assert_eq!(options["rp"]["id"], "localhost");
    assert_eq!(options["hints"], json!(["client-device", "security-key"]));
    assert_eq!(options["excludeCredentials"].as_array().map_or(0, Vec::len), 0);

    let handle = |started: &Value| {
        let text = started["options"]["publicKey"]["user"]["id"].as_str().unwrap().to_owned();
        data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).unwrap()
    };
    let bytes = handle(&first);
    assert_eq!((bytes.len(), bytes[6] >> 4, bytes[8] >> 6), (16, 4, 2), "a random UUID");
    assert_eq!(bytes, handle(&again), "one person has one");
    let other = link_of(&app, &["user", "add", "bob"]);
    assert_ne!(bytes, handle(&begin_enrolment(&app, &mut Browser::new(), &other).await));

    let another = begin_another(&app, &mut ada).await;
    let excluded = another["options"]["publicKey"]["excludeCredentials"].as_array().unwrap();
    assert_eq!(excluded.len(), 1);
    let excluded =
        data_encoding::BASE64URL_NOPAD.decode(excluded[0]["id"].as_str().unwrap().as_bytes()).unwrap();
    assert_eq!(shared::Digest::of(&excluded).hex(), ada.passkey_digest());
    let registered: Vec<_> =
        app.audit().into_iter().filter(|r| r["event"] == "webauthn.registered").collect();
    assert_eq!(registered[0]["detail"]["uv"], true);
}

/// WEBAUTHN-04, WEBAUTHN-05: nothing that a browser sends changes an option; a passkey that was made or used
/// with weaker options, because a browser changed its own copy, is refused.
#[tokio::test(flavor = "multi_thread")]
async fn the_browser_chooses_no_option() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let mut bob = app.enrol("bob", &[]).await;
    let wishes = json!({
        "userVerification": "discouraged", "rpId": "evil.example", "rp": {"id": "evil.example"}, "attestation": "direct",
        "residentKey": "required", "authenticatorSelection": {"userVerification": "discouraged"}, "timeout": 1,
        "pubKeyCredParams": [{"type": "public-key", "alg": -65535}], "allowCredentials": [], "challenge": "AAAA",
        "publicKey": {"userVerification": "discouraged"}, "user": "ada", "name": "ada", "username": "ada",
    });
    let with = |body: &Value| {
        let mut all = wishes.clone();
        all.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        all
    };
    let link = link_of(&app, &["user", "add", "ines"]);
    let mut ines = Browser::new();
    begin_enrolment(&app, &mut ines, &link).await;
    let token = json!({"token": link.split_once('#').unwrap().1});
    let nothing = json!({});
    for (browser, path, body) in [
        (&mut ines, "/enrol/start", &token),
        (&mut ada, "/login/start", &nothing),
        (&mut bob, "/account/passkeys/start", &nothing),
    ] {
        let plain: Value = browser.post_json(&app, path, body).await.json().await.unwrap();
        let wished: Value = browser.post_json(&app, path, &with(body)).await.json().await.unwrap();
        assert_eq!(constant(plain["options"].clone()), constant(wished["options"].clone()), "{path}");
    }

    // Without user verification, which the browser removed from its copy.
    let mut started = begin_enrolment(&app, &mut ines, &link).await;
    started["options"]["publicKey"]["authenticatorSelection"]["userVerification"] = json!("discouraged");
    let response = ines.create(&app, started["options"].clone());
    let refused = ines.post_json(&app, "/enrol/finish", &finish(&started, &response)).await;
    assert_eq!(error_of(refused).await, (StatusCode::BAD_REQUEST, "webauthn_failed".to_owned()));
    let started = ada.post_json(&app, "/login/start", &nothing).await;
    let mut started: Value = started.json().await.unwrap();
    started["options"]["publicKey"]["userVerification"] = json!("discouraged");
    let response = ada.assert(&app, started["options"].clone());
    let answer = json!({"ceremony": started["ceremony"], "response": response});
    let refused = ada.post_json(&app, "/login/finish", &answer).await;
    assert_eq!(error_of(refused).await, (StatusCode::BAD_REQUEST, "webauthn_failed".to_owned()));
    assert_eq!(app.console(&["user", "show", "ines"])["user"]["passkeys"], 0);
}

/// The same credential with another id. Without attestation, as browsers send it, only the server can say whose
/// an id is.
fn with_id(mut response: RegisterPublicKeyCredential, id: &[u8]) -> RegisterPublicKeyCredential {
    let object: &mut Vec<u8> = response.response.attestation_object.as_mut();
    // The authenticator data are a byte string of less than 256 bytes; the id's length and the id follow after
    // 53 of them.
    let name = b"authData";
    let at = object.windows(name.len()).position(|bytes| bytes == name).unwrap() + name.len();
    assert_eq!(object[at], 0x58, "one byte of length");
    let (begin, end) = (at + 2, at + 2 + usize::from(object[at + 1]));
    let own = usize::from(u16::from_be_bytes([object[begin + 53], object[begin + 54]]));
    let length = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap().to_be_bytes();
    let data = [&object[begin..begin + 53], &length(id)[..], id, &object[begin + 55 + own..end]].concat();
    *object = [&b"\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x59"[..], &length(&data), &data].concat();
    response.raw_id = id.to_vec();
    response.id = data_encoding::BASE64URL_NOPAD.encode(id);
    response
}

/// WEBAUTHN-07: a credential id has at most 1023 bytes.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_not_too_long() {
    let app = TestApp::start().await;
    app.admin().await;
    let link = link_of(&app, &["user", "add", "ines"]);
    let mut ines = Browser::new();
    for (length, status) in [(1024, StatusCode::BAD_REQUEST), (1023, StatusCode::OK)] {
        let started = begin_enrolment(&app, &mut ines, &link).await;
        let response = with_id(ines.create(&app, started["options"].clone()), &vec![7; length]);
        let answer = ines.post_json(&app, "/enrol/finish", &finish(&started, &response)).await;
        assert_eq!(answer.status(), status, "{length}");
    }
    assert!(app.has_event("webauthn.failed", Some("credential_id_too_long")));
}

/// WEBAUTHN-07: an id that is already registered, to any user, is refused, and the link can be used again.
#[tokio::test(flavor = "multi_thread")]
async fn a_credential_is_registered_once() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let link = link_of(&app, &["user", "add", "ines"]);
    let mut ines = Browser::new();
    let copied = Connection::open(app.data_dir().join("portcullis.db"))
        .unwrap()
        .query_row("SELECT credential FROM passkey", [], |row| row.get::<_, Vec<u8>>(0))
        .unwrap();
    let started = begin_enrolment(&app, &mut ines, &link).await;
    let response = with_id(ines.create(&app, started["options"].clone()), &copied);
    let refused = ines.post_json(&app, "/enrol/finish", &finish(&started, &response)).await;
    assert_eq!(error_of(refused).await, (StatusCode::BAD_REQUEST, "webauthn_failed".to_owned()));
    assert!(app.has_event("webauthn.failed", Some("credential_registered")));
    assert_eq!(ines.follow_link(&app, &link).await.status(), 200);

    let started = begin_another(&app, &mut ines).await;
    let response = with_id(Browser::new().create(&app, started["options"].clone()), &copied);
    let refused = ines.post_json(&app, "/account/passkeys/finish", &finish(&started, &response)).await;
    assert_eq!(error_of(refused).await, (StatusCode::BAD_REQUEST, "webauthn_failed".to_owned()));
    assert_eq!(ada.sign_in(&app, None).await.status(), 200, "hers is what it was");
    for user in ["ada", "ines"] {
        assert_eq!(app.console(&["user", "show", user])["user"]["passkeys"], 1);
    }
}

/// WEBAUTHN-07: a user has at most 20 passkeys, also with concurrent ceremonies.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_has_more_than_twenty_passkeys() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let fill = |up_to: i64| {
        let db = Connection::open(app.data_dir().join("portcullis.db")).unwrap();
        let copy = "INSERT INTO passkey (credential, user_id, data, created_at)
                    SELECT randomblob(32), user_id, data, created_at FROM passkey LIMIT 1";
        let count = || db.query_row("SELECT count(*) FROM passkey", [], |row| row.get::<_, i64>(0)).unwrap();
        while count() < up_to {
            db.execute(copy, []).unwrap();
        }
    };
    fill(18);
    let link = link_of(&app, &["user", "link", "ada"]);
    let mut elsewhere = Browser::new();
    let by_link = begin_enrolment(&app, &mut elsewhere, &link).await;
    let by_tap = begin_another(&app, &mut ada).await;
    fill(20);
    let response = Browser::new().create(&app, by_tap["options"].clone());
    let refused = ada.post_json(&app, "/account/passkeys/finish", &finish(&by_tap, &response)).await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    let response = elsewhere.create(&app, by_link["options"].clone());
    let refused = elsewhere.post_json(&app, "/enrol/finish", &finish(&by_link, &response)).await;
    assert_eq!(error_of(refused).await, (StatusCode::BAD_REQUEST, "too_many_passkeys".to_owned()));

    let refused = ada.post_json(&app, "/account/passkeys/start", &json!({})).await;
    assert_eq!(error_of(refused).await, (StatusCode::BAD_REQUEST, "too_many_passkeys".to_owned()));
    let token = json!({"token": link.split_once('#').unwrap().1});
    let refused = elsewhere.post_json(&app, "/enrol/start", &token).await;
    assert_eq!(error_of(refused).await, (StatusCode::BAD_REQUEST, "too_many_passkeys".to_owned()));
    assert_eq!(app.console(&["user", "show", "ada"])["user"]["passkeys"], 20);
}

/// WEBAUTHN-11, WEBAUTHN-14: signing in asks for no name and no password, and its options are the same
/// whichever users exist, so users cannot be enumerated.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_types_a_name_or_a_password() {
    let app = TestApp::start().await;
    let mut stranger = Browser::new();
    let options = async |stranger: &mut Browser, body: Value| {
        let started = stranger.post_json(&app, "/login/start", &body).await;
        assert_eq!(started.status(), 200);
        constant(started.json::<Value>().await.unwrap()["options"].clone())
    };
    let empty = options(&mut stranger, json!({})).await;
    assert_eq!(empty["publicKey"]["allowCredentials"].as_array().map_or(0, Vec::len), 0);
    assert_eq!(empty["publicKey"]["userVerification"], "required");
    assert_eq!(empty["publicKey"]["hints"], json!(["client-device", "security-key"]));
    app.admin().await;
    for body in
        [json!({}), json!({"name": "ada"}), json!({"username": "nobody"}), json!({"transaction": null})]
    {
        assert_eq!(options(&mut stranger, body).await, empty);
    }
    let client = app.client().await;
    for page in [app.url("/"), client.authorize_url(&app)] {
        let html = stranger.get(&app, &page).await.text().await.unwrap();
        assert!(html.contains("passkey-login"));
        assert!(!html.contains("<input") && !html.contains("type=\"password\""), "{html}");
    }
}

/// WEBAUTHN-05: an assertion made in another site's frame signs nobody in, allows no high-risk scope, changes
/// no account and makes no passkey.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_a_frame_accepts_nothing() {
    let rules = r#"
[groups]
everyone = ["docs.read", "docs.full"]
[scopes."docs.full"]
title = "Read whole documents"
risk = "high"
[tools.docs_read]
scope = "docs.full"
"#;
    let app = TestApp::start_configured(rules).await;
    let mut ada = app.admin().await;
    let client = app.client().await;
    let held = app.tokens(&mut ada, &client).await;
    let mut asked = client.request(&app);
    asked.insert("scope", "docs.full".to_owned());
    let page = ada.consent_page(&app, &authorize_url(&app, &asked)).await;

    ada.framed = true;
    assert_eq!(ada.sign_in(&app, None).await.status(), 400);
    let confirmed = ada.confirm(&app, &page, &["docs.full"]).await;
    assert_eq!(ada.allow(&app, &page, &["docs.full"], Some(&confirmed)).await.status(), 400);
    let change = [("action", "disconnect"), ("client", client.id.as_str())];
    assert_eq!(ada.change(&app, &change).await.status(), 400);
    assert_eq!(confirm_another(&app, &mut ada).await.status(), 400);

    let told = app.events().into_iter().filter(|(_, reason)| reason.as_deref() == Some("client_data"));
    assert_eq!(told.count(), 4);
    assert_eq!(app.call_tool(&held.access, "whoami", json!({})).await.status(), 200);
}

/// WEBAUTHN-06, WEBAUTHN-05, AUDIT-06: an authenticator that does not name the passkey's owner, or did not
/// verify its user, cannot sign in. The owner is told what to do, with the reference of the record; a caller
/// without a valid signature is not.
#[tokio::test(flavor = "multi_thread")]
async fn an_authenticator_that_says_too_little_is_refused_with_words() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    for (verification, reason, words) in [
        ("required", "no_user_handle", "did not say whose passkey it used"),
        ("discouraged", "user_not_verified", "Set a PIN"),
    ] {
        for is_signed in [true, false] {
            let started = ada.post_json(&app, "/login/start", &json!({})).await;
            let mut started: Value = started.json().await.unwrap();
            started["options"]["publicKey"]["userVerification"] = json!(verification);
            let mut assertion = ada.assert(&app, started["options"].clone());
            if reason == "no_user_handle" {
                assertion.response.user_handle = None;
            }
            if !is_signed {
                assertion.response.signature = vec![0; 70];
            }
            let finish = json!({"ceremony": started["ceremony"], "response": assertion});
            let refused = ada.post_json(&app, "/login/finish", &finish).await;
            assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{reason}");
            let reference = header(refused.headers(), "x-request-id").unwrap().to_owned();
            let body: Value = refused.json().await.unwrap();
            let said = body["message"].as_str().unwrap();
            assert_eq!(said.contains(words), is_signed, "{reason}: {said}");
            assert_eq!(said.contains("could not be checked"), !is_signed, "{reason}: {said}");
            let record = app.audit().into_iter().find(|record| record["request_id"] == reference.as_str());
            let record = record.expect("it is on record");
            assert_eq!(record["event"], "webauthn.failed");
            assert!(!is_signed || record["reason"] == reason, "{record}");
        }
    }
    assert_eq!(ada.sign_in(&app, None).await.status(), 200);
}

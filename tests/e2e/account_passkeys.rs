//! Passkeys on the account page: listed, and removed with an assertion by another one (WEBAUTHN-12,
//! SESSION-05).

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::account::{another, is_signed_in};
use crate::harness::{Browser, Client, TestApp, Tokens, account_csrf, error_of};

/// The digests of a user's passkeys, oldest first.
fn passkeys(app: &TestApp, user: &str) -> Vec<String> {
    let answer = app.console(&["user", "passkeys", user]);
    let digest = |passkey: &Value| passkey["sha256"].as_str().unwrap().to_owned();
    answer["passkeys"].as_array().unwrap().iter().map(digest).collect()
}

fn remove(passkey: &str) -> [(&str, &str); 2] {
    [("action", "remove_passkey"), ("passkey", passkey)]
}

fn removed(app: &TestApp) -> Vec<Value> {
    app.audit().into_iter().filter(|record| record["event"] == "webauthn.removed").collect()
}

async fn someone() -> (TestApp, Browser, Client, Tokens) {
    let app = TestApp::start_https("").await;
    app.admin().await;
    let mut ines = app.enrol("ines", &[]).await;
    let client = app.client().await;
    let tokens = app.tokens(&mut ines, &client).await;
    (app, ines, client, tokens)
}

fn rename<'a>(passkey: &'a str, name: &'a str) -> [(&'a str, &'a str); 3] {
    [("action", "rename_passkey"), ("passkey", passkey), ("name", name)]
}

/// WEBAUTHN-12, SESSION-06: a passkey is named after the browser that registered it, until its user gives it another name; nobody
/// else can, and a name is one line of visible text. Pages and commands show it.
#[tokio::test(flavor = "multi_thread")]
async fn a_passkey_has_a_name() {
    let app = TestApp::start_https("").await;
    let mut ada = app.admin().await;
    let link = app.console(&["user", "add", "ines"])["link"].as_str().unwrap().to_owned();
    let mut ines = Browser::new();
    ines.agent = Some("Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0 <b>");
    assert_eq!(ines.follow_link(&app, &link).await.status(), 200);
    let [passkey] = passkeys(&app, "ines").try_into().unwrap();
    let named = || app.console(&["user", "passkeys", "ines"])["passkeys"][0]["name"].clone();
    assert_eq!(named(), "Made in Firefox on Linux");
    assert!(
        ines.account(&app).await.contains("<bdi data-testid=\"passkey-name\">Made in Firefox on Linux</bdi>")
    );

    for (name, why) in [
        ("", "The field is empty."),
        ("one\ntwo", "line breaks"),
        ("blue\u{202e}key", "cannot be seen"),
        (&"x".repeat(65), "longer than 64"),
    ] {
        let refused = ines.change(&app, &rename(&passkey, name)).await;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{name:?}");
        let page = refused.text().await.unwrap();
        assert!(page.contains("This name cannot be used") && page.contains(why), "{name:?}: {page}");
    }
    // Another user's passkey looks like one that does not exist.
    let unknown = "0".repeat(64);
    for (browser, passkey) in [(&mut ada, &passkey), (&mut ines, &unknown)] {
        assert_eq!(browser.change(&app, &rename(passkey, "mine")).await.status(), StatusCode::NOT_FOUND);
    }
    let bare = [("csrf", "x"), ("action", "rename_passkey"), ("passkey", passkey.as_str()), ("name", "mine")];
    assert_eq!(ines.post_form(&app, "/account/change", &bare).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(named(), "Made in Firefox on Linux");

    let answer = ines.change(&app, &rename(&passkey, " <i>blue</i> key & ring ")).await;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    assert_eq!(named(), "<i>blue</i> key & ring");
    let page = ines.account(&app).await;
    assert!(page.contains("&lt;i&gt;blue&lt;") && !page.contains("<i>blue"), "{page}");
    assert_eq!(ines.sign_in(&app, None).await.status(), 200);
    // The audit log names passkeys by digest alone.
    assert!(app.audit().iter().all(|record| !record.to_string().contains("blue")));
}

/// WEBAUTHN-12, SESSION-05, SESSION-02, REFRESH-08: a passkey is removed with an assertion by another one, and
/// every other session ends with it; grants continue. The last passkey stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_passkey_is_removed_with_another() {
    let (app, mut ines, _, tokens) = someone().await;
    let [lost] = passkeys(&app, "ines").try_into().unwrap();
    assert_eq!(lost, ines.passkey_digest());
    let page = ines.account(&app).await;
    assert!(page.contains(&format!("Passkey <span class=\"code\">{}</span>, <strong>used to", &lost[..8])));
    assert!(page.contains("so it cannot be removed") && !page.contains("remove_passkey"));
    let csrf = account_csrf(&page);
    let start = json!({"csrf": csrf, "action": "remove_passkey", "passkey": lost});
    let refused = ines.post_json(&app, "/account/change/start", &start).await;
    assert_eq!(error_of(refused).await, (StatusCode::CONFLICT, "last_passkey".to_owned()));

    app.clock.advance(std::time::Duration::from_secs(1));
    let mut kept = another(&app, "ines").await;
    assert!(ines.account(&app).await.contains("remove_passkey"));
    // The session that the remaining passkey started does not depend on the removed one.
    let before = kept.cookies.clone();
    let answer = kept.change(&app, &remove(&lost)).await;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    assert!(!is_signed_in(&app, &mut ines).await && is_signed_in(&app, &mut kept).await);
    assert_eq!(ines.sign_in(&app, None).await.status(), 400);
    let mut old = Browser::new();
    old.cookies = before;
    assert!(!is_signed_in(&app, &mut old).await, "the session has a new id");
    assert_eq!(app.call_tool(&tokens.access, "whoami", json!({})).await.status(), 200);
    let records = removed(&app);
    let me = app.console(&["user", "show", "ines"])["user"]["id"].clone();
    assert_eq!((records.len(), &records[0]["actor"]), (1, &json!({"type": "user", "id": me})));
    assert_eq!(
        records[0]["detail"],
        json!({"credential_sha256_8": lost[..8], "stolen": false, "grants_ended": 0})
    );
    assert_eq!(passkeys(&app, "ines").len(), 1);
}

/// WEBAUTHN-12, WEBAUTHN-06: neither the passkey itself, nor a session alone, nor a suspended passkey confirms
/// a removal.
#[tokio::test(flavor = "multi_thread")]
async fn a_passkey_does_not_remove_itself() {
    let (app, mut ines, _, _) = someone().await;
    app.clock.advance(std::time::Duration::from_secs(1));
    let second = another(&app, "ines").await.passkey_digest();
    let own = ines.passkey_digest();
    let answer = ines.change(&app, &remove(&own)).await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    let csrf = account_csrf(&ines.account(&app).await);
    let bare = [&[("csrf", csrf.as_str())], &remove(&second)[..]].concat();
    assert_eq!(ines.post_form(&app, "/account/change", &bare).await.status(), StatusCode::FORBIDDEN);
    // An assertion for one removal confirms neither another one nor that the passkey was stolen.
    let confirmed = ines.confirm_change(&app, &bare).await;
    let mut stolen = bare.clone();
    stolen.extend([("stolen", "yes"), ("ceremony", confirmed[0].as_str()), ("assertion", &confirmed[1])]);
    assert_eq!(ines.post_form(&app, "/account/change", &stolen).await.status(), StatusCode::BAD_REQUEST);

    let db = rusqlite::Connection::open(app.data_dir().join("portcullis.db")).unwrap();
    let suspend = "UPDATE passkey SET suspended_at = created_at WHERE created_at = (SELECT max(created_at) FROM passkey)";
    assert_eq!(db.execute(suspend, []).unwrap(), 1);
    let page = ines.account(&app).await;
    assert!(page.contains("<strong>suspended</strong>") && page.contains("so it cannot be removed"));
    assert_eq!(passkeys(&app, "ines").len(), 2);
    assert!(removed(&app).is_empty());
    assert!(is_signed_in(&app, &mut ines).await);
    // A suspended passkey can be removed.
    assert_eq!(ines.change(&app, &remove(&second)).await.status(), StatusCode::SEE_OTHER);
}

/// REFRESH-08, RS-08, SESSION-05: removing a stolen passkey ends the grants that its thief may have made.
#[tokio::test(flavor = "multi_thread")]
async fn reporting_a_stolen_passkey_revokes_its_grants() {
    let (app, mut ines, client, tokens) = someone().await;
    let mut kept = another(&app, "ines").await;
    let mut bob = app.enrol("bob", &[]).await;
    let of_bob = app.tokens(&mut bob, &client).await;
    let stolen = passkeys(&app, "ines").into_iter().find(|digest| *digest != kept.passkey_digest()).unwrap();
    let change = [&remove(&stolen)[..], &[("stolen", "yes")]].concat();
    assert_eq!(kept.change(&app, &change).await.status(), StatusCode::SEE_OTHER);
    assert_eq!(app.call_tool(&tokens.access, "whoami", json!({})).await.status(), 401);
    assert_eq!(error_of(app.refresh(&client, &tokens.refresh).await).await.1, "invalid_grant");
    assert_eq!(app.call_tool(&of_bob.access, "whoami", json!({})).await.status(), 200);
    assert!(!is_signed_in(&app, &mut ines).await && is_signed_in(&app, &mut kept).await);
    assert_eq!(removed(&app)[0]["detail"]["grants_ended"], 1);
}

/// SESSION-02, SESSION-04, WEBAUTHN-12: the assertion for adding a passkey gives the session a new id; the page
/// gets new tokens for its forms, and the old ones are refused.
#[tokio::test(flavor = "multi_thread")]
async fn adding_a_passkey_gives_the_session_a_new_id() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let old_csrf = account_csrf(&ada.account(&app).await);
    let before = ada.cookies.clone();
    let started = ada.post_json(&app, "/account/passkeys/start", &json!({})).await;
    let started: Value = started.json().await.unwrap();
    let response = ada.assert(&app, started["options"].clone());
    let confirmed = json!({"ceremony": started["ceremony"], "response": response});
    let options = ada.post_json(&app, "/account/passkeys/confirm", &confirmed).await;
    let options: Value = options.json().await.unwrap();
    let mut thief = Browser::new();
    thief.cookies = before;
    assert!(!is_signed_in(&app, &mut thief).await && is_signed_in(&app, &mut ada).await);
    let change = options["csrf"]["/account/change"].as_str().unwrap();
    assert_eq!(account_csrf(&ada.account(&app).await), change);
    assert_ne!(old_csrf, change);
    let created = Browser::new().create(&app, options["options"].clone());
    let finish = json!({"ceremony": options["ceremony"], "response": created});
    assert_eq!(thief.post_json(&app, "/account/passkeys/finish", &finish).await.status(), 401);
    let finished = ada.post_json(&app, "/account/passkeys/finish", &finish).await;
    assert_eq!(finished.json::<Value>().await.unwrap()["passkeys"], 2);
    let sign_out = options["csrf"]["/sign-out"].as_str().unwrap();
    for (csrf, status) in [(old_csrf.as_str(), StatusCode::FORBIDDEN), (sign_out, StatusCode::SEE_OTHER)] {
        assert_eq!(ada.post_form(&app, "/sign-out", &[("csrf", csrf)]).await.status(), status);
    }
    assert!(!is_signed_in(&app, &mut ada).await);
}

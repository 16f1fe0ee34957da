//! Setup, sign-in and consent: what a user does, and attacks on it.

mod second_passkey;

use serde_json::{Value, json};

use crate::harness::{Browser, TestApp, attribute, header, redirect_parameter};

/// ENROL-01: the setup link makes one administrator, once.
#[tokio::test(flavor = "multi_thread")]
async fn the_setup_link_works_once() {
    let app = TestApp::start().await;
    let link = app.setup_link.clone().unwrap();
    app.admin().await;
    let mut other = Browser::new();
    let again = other.set_up(&app, &link, "eve").await;
    assert_eq!(again.status(), 400);
    assert_eq!(again.json::<Value>().await.unwrap()["error"], "link_invalid");
    let app = app.restart().await;
    assert_eq!(app.setup_link, None);
}

/// ENROL-02: opening the link uses nothing up, and a newer link voids it.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_setup_link_voids_the_old_one() {
    let app = TestApp::start().await;
    let old = app.setup_link.clone().unwrap();
    let mut browser = Browser::new();
    for _ in 0..2 {
        assert_eq!(browser.get(&app, old.split_once('#').unwrap().0).await.status(), 200);
    }
    let app = app.restart().await;
    assert_eq!(browser.set_up(&app, &old, "eve").await.status(), 400);
    app.admin().await;
}

/// ENROL-01: the link expires after 60 minutes.
#[tokio::test(flavor = "multi_thread")]
async fn a_setup_link_expires() {
    let app = TestApp::start().await;
    app.clock.advance(std::time::Duration::from_hours(1));
    let link = app.setup_link.clone().unwrap();
    assert_eq!(Browser::new().set_up(&app, &link, "late").await.status(), 400);
}

/// WEBAUTHN-03: a ceremony is used up by the first response, valid or not.
#[tokio::test(flavor = "multi_thread")]
async fn a_ceremony_is_presented_once() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let started: Value =
        browser.post_json(&app, "/login/start", &json!({"transaction": null})).await.json().await.unwrap();
    let good = browser.assert(&app, started["options"].clone());
    let mut bad = good.clone();
    bad.response.signature = vec![0; 70];
    let finish = |response| json!({"ceremony": started["ceremony"], "response": response});
    let refused = browser.post_json(&app, "/login/finish", &finish(bad)).await;
    assert_eq!(refused.status(), 400);
    assert_eq!(refused.json::<Value>().await.unwrap()["error"], "webauthn_failed");
    // The right response comes too late: each challenge allows one attempt.
    assert_eq!(browser.post_json(&app, "/login/finish", &finish(good)).await.status(), 400);
    assert!(app.has_event("webauthn.failed", Some("assertion")));
    assert!(app.has_event("webauthn.failed", Some("ceremony_unknown")));
}

/// WEBAUTHN-03: a ceremony belongs to the browser that started it.
#[tokio::test(flavor = "multi_thread")]
async fn a_ceremony_stays_in_its_browser() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let started: Value =
        browser.post_json(&app, "/login/start", &json!({"transaction": null})).await.json().await.unwrap();
    let response = browser.assert(&app, started["options"].clone());
    let mut other = Browser::new();
    other.get(&app, &app.url("/")).await;
    let finish = json!({"ceremony": started["ceremony"], "response": response});
    assert_eq!(other.post_json(&app, "/login/finish", &finish).await.status(), 400);
    assert!(app.has_event("webauthn.failed", Some("other_browser")));
}

/// WEBAUTHN-03: a challenge expires after five minutes.
#[tokio::test(flavor = "multi_thread")]
async fn a_ceremony_expires() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let started: Value =
        browser.post_json(&app, "/login/start", &json!({"transaction": null})).await.json().await.unwrap();
    let response = browser.assert(&app, started["options"].clone());
    app.clock.advance(std::time::Duration::from_mins(5));
    let finish = json!({"ceremony": started["ceremony"], "response": response});
    assert_eq!(browser.post_json(&app, "/login/finish", &finish).await.status(), 400);
}

/// WEBAUTHN-06: the unsigned user handle does not decide whose credential it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_or_missing_user_handle_is_refused() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    for handle in [None, Some(vec![7; 16])] {
        let started: Value = browser
            .post_json(&app, "/login/start", &json!({"transaction": null}))
            .await
            .json()
            .await
            .unwrap();
        let mut response = browser.assert(&app, started["options"].clone());
        response.response.user_handle = handle;
        let finish = json!({"ceremony": started["ceremony"], "response": response});
        assert_eq!(browser.post_json(&app, "/login/finish", &finish).await.status(), 400);
    }
}

/// WEBAUTHN-09, AUDIT-06: a passkey that could be copied and now reports that it cannot is refused, with words,
/// a reason and the reference of its record; the same for a disabled user and a suspended passkey, but only if
/// the signature is valid.
#[tokio::test(flavor = "multi_thread")]
async fn the_passkey_holder_is_told_why_it_is_refused() {
    let app = TestApp::start().await;
    app.admin().await;
    let mut ines = app.enrol("ines", &[]).await;
    let database = rusqlite::Connection::open(app.data_dir().join("portcullis.db")).unwrap();
    let of_ines = "WHERE user_id = (SELECT id FROM user WHERE name = 'ines')";
    let set = |change: &str| assert_eq!(database.execute(change, []).unwrap(), 1, "{change}");
    let lost = |value| {
        format!(
            "UPDATE passkey SET data = json_set(data, '$.cred.backup_eligible', json('{value}')) {of_ines}"
        )
    };
    let disable = |at| format!("UPDATE user SET disabled_at = {at} WHERE name = 'ines'");
    let suspend = |at| format!("UPDATE passkey SET suspended_at = {at} {of_ines}");
    for (change, undo, reason, words) in [
        (lost("true"), lost("false"), "backup_eligibility_lost", "user passkey remove"),
        (disable("1"), disable("NULL"), "user_disabled", "account on this server is disabled"),
        (suspend("1"), suspend("NULL"), "credential_suspended", "user passkey unsuspend"),
    ] {
        set(&change);
        let answer = ines.sign_in(&app, None).await;
        assert_eq!(answer.status(), 400);
        let reference = header(answer.headers(), "x-request-id").unwrap().to_owned();
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["error"], "webauthn_failed");
        assert!(body["message"].as_str().unwrap().contains(words), "{body}");
        let record =
            app.audit().into_iter().find(|record| record["request_id"] == reference.as_str()).unwrap();
        assert_eq!((&record["event"], &record["reason"]), (&json!("webauthn.failed"), &json!(reason)));
        assert_eq!(record["detail"]["credential_sha256_8"], ines.passkey_digest()[..8]);

        // Without a valid signature the details are not shown.
        let started = ines.post_json(&app, "/login/start", &json!({})).await.json::<Value>().await.unwrap();
        let mut forged = ines.assert(&app, started["options"].clone());
        forged.response.signature = vec![0; 70];
        let finish = json!({"ceremony": started["ceremony"], "response": forged});
        let body: Value = ines.post_json(&app, "/login/finish", &finish).await.json().await.unwrap();
        assert!(body["message"].as_str().unwrap().contains("could not be checked"), "{body}");
        set(&undo);
    }
    assert_eq!(ines.sign_in(&app, None).await.status(), 200);
}

/// WEBAUTHN-02, WEBAUTHN-05: a passkey that is not discoverable, or whose response has padding, is refused; the
/// link can be used again.
#[tokio::test(flavor = "multi_thread")]
async fn a_passkey_that_could_not_sign_in_is_refused_and_spends_no_link() {
    let app = TestApp::start().await;
    let link = app.setup_link.clone().unwrap();
    let (page, token) = link.split_once('#').unwrap();
    let mut ada = Browser::new();
    ada.get(&app, page).await;
    for (member, value, words) in [
        ("extensions", json!({"credProps": {"rk": false}}), "did not store the passkey"),
        ("type", json!("x"), "could not be checked"),
    ] {
        let start = json!({"token": token, "name": "ada"});
        let started: Value = ada.post_json(&app, "/setup/start", &start).await.json().await.unwrap();
        let mut response = json!(ada.create(&app, started["options"].clone()));
        response[member] = value;
        let finish = json!({"ceremony": started["ceremony"], "response": response});
        let refused = ada.post_json(&app, "/setup/finish", &finish).await;
        assert_eq!(refused.status(), 400);
        let body: Value = refused.json().await.unwrap();
        assert!(body["message"].as_str().unwrap().contains(words), "{body}");
        let again = ada.post_json(&app, "/setup/finish", &finish).await;
        assert_eq!(again.status(), 400, "the ceremony is used up");
    }
    assert!(app.has_event("webauthn.failed", Some("not_discoverable")));
    assert_eq!(ada.set_up(&app, &link, "ada").await.status(), 200);
}

/// WEBAUTHN-15, SESSION-07: ceremonies answer only our own pages.
#[tokio::test(flavor = "multi_thread")]
async fn ceremonies_need_our_origin_and_json() {
    let app = TestApp::start().await;
    for path in ["/login/start", "/login/finish", "/setup/start", "/setup/finish", "/account/passkeys/start"]
    {
        let foreign = app.http.post(app.url(path)).header("origin", "http://localhost:1").json(&json!({}));
        assert_eq!(foreign.send().await.unwrap().status(), 403, "{path}");
        let absent = app.http.post(app.url(path)).json(&json!({}));
        assert_eq!(absent.send().await.unwrap().status(), 403, "{path}");
        let form = app.http.post(app.url(path)).header("origin", &app.origin).form(&[("a", "b")]);
        assert_eq!(form.send().await.unwrap().status(), 415, "{path}");
        let preflight =
            app.http.request(reqwest::Method::OPTIONS, app.url(path)).header("origin", "http://x");
        let preflight = preflight.send().await.unwrap();
        assert!(header(preflight.headers(), "access-control-allow-origin").is_none(), "{path}");
    }
}

/// SESSION-02: a planted session id is not used, and each sign-in makes a new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_planted_session_is_never_adopted() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let name = browser.cookies.keys().find(|name| name.starts_with("sid_")).unwrap().clone();
    let first = browser.cookies[&name].clone();
    browser.cookies.insert(name.clone(), "sid_planted".to_owned());
    assert_eq!(browser.sign_in(&app, None).await.status(), 200);
    assert_ne!(browser.cookies[&name], "sid_planted");
    assert_ne!(browser.cookies[&name], first);
}

/// SESSION-03: a session ends after an idle hour, and after twelve hours in any case.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_expire() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let home = |html: String| html.contains("connect-client");
    for _ in 0..13 {
        app.clock.advance(std::time::Duration::from_mins(55));
        assert!(home(browser.get(&app, &app.url("/")).await.text().await.unwrap()));
    }
    app.clock.advance(std::time::Duration::from_mins(6));
    assert!(!home(browser.get(&app, &app.url("/")).await.text().await.unwrap()));
    assert_eq!(browser.sign_in(&app, None).await.status(), 200);
    app.clock.advance(std::time::Duration::from_mins(61));
    assert!(!home(browser.get(&app, &app.url("/")).await.text().await.unwrap()));
}

/// SESSION-04, SESSION-07: signing out takes the page's CSRF token.
#[tokio::test(flavor = "multi_thread")]
async fn signing_out_needs_the_pages_token() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let html = browser.get(&app, &app.url("/")).await.text().await.unwrap();
    let csrf = attribute(html.split("name=\"csrf\"").nth(1).unwrap(), "value").unwrap();
    assert_eq!(browser.post_form(&app, "/sign-out", &[("csrf", "guess")]).await.status(), 403);
    let foreign =
        app.http.post(app.url("/sign-out")).header("origin", "http://evil.example").form(&[("csrf", &csrf)]);
    assert_eq!(browser.send(foreign).await.status(), 403);
    assert!(browser.get(&app, &app.url("/")).await.text().await.unwrap().contains("connect-client"));
    let out = browser.post_form(&app, "/sign-out", &[("csrf", &csrf)]).await;
    assert_eq!(out.status(), 303);
    assert_eq!(header(out.headers(), "clear-site-data"), Some("\"cookies\", \"storage\""));
    assert!(!browser.get(&app, &app.url("/")).await.text().await.unwrap().contains("connect-client"));
}

/// SESSION-01: on loopback, answering a client ends the session and removes its cookie.
#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_a_client_ends_the_session() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let page = browser.consent_page(&app, &client.authorize_url(&app)).await;
    let stolen = browser.cookies.clone();
    assert!(browser.session().is_some());
    let answer = browser.decide(&app, &page, "approve").await;
    assert_eq!(answer.status(), 303);
    assert_eq!(browser.session(), None);
    browser.cookies = stolen;
    assert!(!browser.get(&app, &app.url("/")).await.text().await.unwrap().contains("connect-client"));
}

/// SESSION-01: on loopback an earlier session decides nothing; each request takes a passkey assertion.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_alone_only_reads() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let html = browser.get(&app, &client.authorize_url(&app)).await.text().await.unwrap();
    assert!(html.contains("passkey-login") && !html.contains("consent-approve"));
}

/// AUTHZ-15: a transaction from another browser is refused and does not change.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_stays_in_its_browser() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let page = browser.consent_page(&app, &client.authorize_url(&app)).await;
    let mut other = Browser::new();
    other.get(&app, &app.url("/")).await;
    assert_eq!(other.get(&app, &page.url).await.status(), 400);
    assert_eq!(other.decide(&app, &page, "approve").await.status(), 400);
    assert!(redirect_parameter(&browser.decide(&app, &page, "approve").await, "code").is_some());
}

/// CONSENT-03: a decision without the token, from elsewhere, or by GET is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_decision_decides_nothing() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let page = browser.consent_page(&app, &client.authorize_url(&app)).await;
    let mut forged = page.clone();
    forged.csrf = "guess".to_owned();
    assert_eq!(browser.decide(&app, &forged, "approve").await.status(), 403);
    let form = [
        ("transaction", page.transaction.as_str()),
        ("csrf", &page.csrf),
        ("decision", "approve"),
        ("scope", "docs.read"),
    ];
    for origin in ["http://localhost:5123", "null", "http://evil.example"] {
        let foreign = app.http.post(app.url("/consent")).header("origin", origin).form(&form);
        assert_eq!(browser.send(foreign).await.status(), 403, "{origin}");
    }
    let no_origin = app.http.post(app.url("/consent")).form(&form);
    assert_eq!(browser.send(no_origin).await.status(), 403);
    let by_get = app.url(&format!(
        "/consent?transaction={}&csrf={}&decision=approve&scope=docs.read",
        page.transaction, page.csrf
    ));
    assert_eq!(browser.get(&app, &by_get).await.status(), 200);
    assert!(!app.has_event("authz.approved", None));
    assert!(redirect_parameter(&browser.decide(&app, &page, "approve").await, "code").is_some());
}

/// CONSENT-06: pressing the button twice does not make a second code.
#[tokio::test(flavor = "multi_thread")]
async fn a_decision_is_made_once() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let page = browser.consent_page(&app, &client.authorize_url(&app)).await;
    let cookies = browser.cookies.clone();
    assert_eq!(browser.decide(&app, &page, "approve").await.status(), 303);
    browser.cookies = cookies;
    let again = browser.decide(&app, &page, "approve").await;
    assert_eq!(again.status(), 400);
    assert_eq!(app.events().iter().filter(|(event, _)| event == "authz.approved").count(), 1);
}

/// CONSENT-05, CONSENT-06: refusing, and allowing with nothing ticked, both deny.
#[tokio::test(flavor = "multi_thread")]
async fn refusing_and_ticking_nothing_deny() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    for (decision, untick) in [("deny", false), ("approve", true), ("nonsense", false)] {
        let mut page = browser.consent_page(&app, &client.authorize_url(&app)).await;
        if untick {
            page.scopes.clear();
        }
        let answer = browser.decide(&app, &page, decision).await;
        assert_eq!(redirect_parameter(&answer, "error").as_deref(), Some("access_denied"));
        assert_eq!(redirect_parameter(&answer, "state").as_deref(), Some("st ate&1"));
        assert_eq!(redirect_parameter(&answer, "iss"), Some(app.origin.clone()));
    }
}

/// CONSENT-01: the client, the scopes, and the receiver of the answer.
#[tokio::test(flavor = "multi_thread")]
async fn the_consent_page_names_what_matters() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let page = browser.consent_page(&app, &client.authorize_url(&app)).await;
    for part in [
        "Test client",
        "this computer",
        "http://localhost:5123/callback",
        "Search and read the documentation",
        "ada",
        "15 minutes",
        "30 days",
        &app.mcp_url(),
    ] {
        assert!(page.html.contains(part), "{part}");
    }
}

/// HTTP-05: the consent page's form may redirect only to this client's callback.
#[tokio::test(flavor = "multi_thread")]
async fn the_consent_page_has_its_policy() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let page = browser.consent_page(&app, &client.authorize_url(&app)).await;
    let again = browser.get(&app, &page.url).await;
    let policy = header(again.headers(), "content-security-policy").unwrap();
    assert!(policy.contains("form-action 'self' http://localhost:5123;"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'"));
    assert_eq!(header(again.headers(), "cache-control"), Some("no-store"));
    assert_eq!(header(again.headers(), "referrer-policy"), Some("same-origin"));
    assert_eq!(header(again.headers(), "cross-origin-opener-policy"), None);
}

/// SESSION-01: on loopback, browsers send the cookies to other programs too; without the sign-in's proof those
/// see no consent page, and without the page's token they decide nothing.
#[tokio::test(flavor = "multi_thread")]
async fn stolen_cookies_cannot_go_on_with_a_sign_in() {
    let app = TestApp::start().await;
    let mut victim = app.admin().await;
    let client = app.client().await;
    let page = victim.consent_page(&app, &client.authorize_url(&app)).await;
    let mut thief = Browser::new();
    thief.cookies = victim.cookies.clone();
    for url in [
        app.url(&format!("/consent?transaction={}", page.transaction)),
        app.url(&format!("/consent?transaction={}&proof=prf_guess", page.transaction)),
    ] {
        let html = thief.get(&app, &url).await.text().await.unwrap();
        assert!(
            html.contains("passkey-login") && !html.contains("consent-approve") && !html.contains("csrf")
        );
    }
    let form = [("transaction", page.transaction.as_str()), ("decision", "approve"), ("scope", "docs.read")];
    assert_eq!(thief.post_form(&app, "/consent", &form).await.status(), 403);
    assert!(redirect_parameter(&victim.decide(&app, &page, "approve").await, "code").is_some());
}

/// SESSION-01: an error redirect to a client removes the session cookie too.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_redirect_carries_no_session_on() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let url = format!("{}&prompt=none", client.authorize_url(&app));
    assert!(browser.session().is_some(), "there is something to take away");
    let answer = browser.get(&app, &url).await;
    assert_eq!(redirect_parameter(&answer, "error").as_deref(), Some("login_required"));
    assert_eq!(browser.session(), None);
}

/// WEBAUTHN-08: a counter that went backwards means a copied authenticator: the passkey is suspended, and even
/// its newest assertion cannot sign in until an administrator clears it.
#[tokio::test(flavor = "multi_thread")]
async fn a_counter_that_goes_backwards_suspends_the_passkey() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let mut assertions = Vec::new();
    for _ in 0..3 {
        let started: Value = browser
            .post_json(&app, "/login/start", &json!({"transaction": null}))
            .await
            .json()
            .await
            .unwrap();
        let response = browser.assert(&app, started["options"].clone());
        assertions.push(json!({"ceremony": started["ceremony"], "response": response}));
    }
    let mut statuses = Vec::new();
    for index in [1, 0, 2] {
        let answer = browser.post_json(&app, "/login/finish", &assertions[index]).await;
        statuses.push(answer.status().as_u16());
    }
    assert_eq!(statuses, [200, 400, 400]);
    assert!(app.has_event("webauthn.counter_regression", Some("counter_went_backwards")));
    assert!(app.has_event("webauthn.failed", Some("credential_suspended")));
}

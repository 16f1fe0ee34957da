//! The device page: who may decide, and the limit on guesses.

use super::*;

/// DEV-01, CONSENT-03, SESSION-07, AUTHZ-15: a decision counts only from this page, browser and session.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_page_that_asked_decides() {
    let (app, mut browser) = start().await;
    let mut other = app.enrol("bob", &["engineers"]).await;
    let client = device_client(&app);
    let device = ask(&app, &client).await;
    let page = question(&app, &mut browser, &device).await;
    let form = [
        ("transaction", page.transaction.as_str()),
        ("csrf", &page.csrf),
        ("decision", "approve"),
        ("scope", "docs.read"),
    ];
    let url = app.url("/device/decision");
    let elsewhere = app.http.post(&url).header("origin", "http://evil.example").form(&form);
    assert_eq!(browser.send(elsewhere).await.status(), 403);
    let nowhere = app.http.post(&url).form(&form);
    assert_eq!(browser.send(nowhere).await.status(), 403);
    let mut forged = form;
    forged[1].1 = "forged";
    assert_eq!(browser.post_form(&app, "/device/decision", &forged).await.status(), 403);
    assert_eq!(browser.post_form(&app, "/device/decision", &form[..1]).await.status(), 403);
    assert_eq!(other.post_form(&app, "/device/decision", &form).await.status(), 400);
    for method in [Method::GET, Method::HEAD] {
        let asked =
            app.http.request(method, format!("{url}?decision=approve&transaction={}", page.transaction));
        assert_eq!(browser.send(asked).await.status(), 405);
    }
    let mut signed_out = Browser::new();
    signed_out.cookies = browser.cookies.clone();
    signed_out.cookies.retain(|name, _| name.starts_with("txn"));
    assert_eq!(signed_out.post_form(&app, "/device/decision", &form).await.status(), 403);
    assert_eq!(polled(&app, &client, &device).await, "authorization_pending", "untouched by all of it");
    for reason in ["origin", "csrf", "other_browser", "session"] {
        assert!(app.has_event("authz.denied", Some(reason)), "{reason}");
    }
    assert_eq!(decide(&app, &mut browser, &page, "approve").await.status(), 200);
}

/// DEV-01, SESSION-01: an earlier sign-in does not count, and neither do the cookies of a later one.
#[tokio::test(flavor = "multi_thread")]
async fn every_decision_takes_a_passkey_used_for_it() {
    let (app, mut browser) = start().await;
    let client = device_client(&app);
    let device = ask(&app, &client).await;
    assert_eq!(browser.sign_in(&app, None).await.status(), 200);
    let handle = entered(&app, &mut browser, &device).await;
    let url = app.url(&format!("/device?transaction={handle}"));
    let is_question = |html: &str| html.contains("/device/decision");
    assert!(!is_question(&browser.get(&app, &url).await.text().await.unwrap()));
    let page = question(&app, &mut browser, &device).await;
    // Another program on the computer may have every cookie, but not the proof that the page was told.
    let mut thief = Browser::new();
    thief.cookies = browser.cookies.clone();
    let without = app.url(&format!("/device?transaction={}", page.transaction));
    for url in [without.clone(), format!("{without}&proof=prf_guess"), format!("{without}&proof=")] {
        let html = thief.get(&app, &url).await.text().await.unwrap();
        assert!(!is_question(&html) && html.contains("passkey-login"), "{url}");
    }
    // An assertion for one device does not count for another.
    let second = ask(&app, &client).await;
    let handle = entered(&app, &mut browser, &second).await;
    let proof = page.url.split("proof=").nth(1).unwrap();
    let html = browser.get(&app, &app.url(&format!("/device?transaction={handle}&proof={proof}"))).await;
    assert!(!is_question(&html.text().await.unwrap()));
    assert_eq!(decide(&app, &mut browser, &page, "approve").await.status(), 200);
    // A session that begins later does not bring the question back.
    let third = ask(&app, &client).await;
    let page = question(&app, &mut browser, &third).await;
    assert_eq!(browser.sign_in(&app, None).await.status(), 200);
    assert!(!is_question(&browser.get(&app, &page.url).await.text().await.unwrap()));
    assert_eq!(decide(&app, &mut browser, &page, "approve").await.status(), 403);
    assert_eq!(polled(&app, &client, &third).await, "authorization_pending");
}

/// DEV-01: an assertion whose challenge was made before the decision, and that is used after it, has no effect.
#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_that_comes_too_late_is_refused() {
    let (app, mut ada) = start().await;
    let mut bob = app.enrol("bob", &["engineers"]).await;
    let client = device_client(&app);
    let device = ask(&app, &client).await;
    let handle = entered(&app, &mut ada, &device).await;
    let started = ada.post_json(&app, "/login/start", &json!({"transaction": handle})).await;
    let started: Value = started.json().await.unwrap();
    approve(&app, &mut bob, &device).await;
    let response = ada.assert(&app, started["options"].clone());
    let finish = json!({"ceremony": started["ceremony"], "response": response});
    assert_eq!(ada.post_json(&app, "/login/finish", &finish).await.status(), 400);
    assert!(app.has_event("webauthn.failed", Some("transaction_decided")));
    assert_eq!(ada.post_json(&app, "/login/start", &json!({"transaction": handle})).await.status(), 400);
    let elsewhere = bob.post_json(&app, "/login/start", &json!({"transaction": "d_unknown"})).await;
    assert_eq!(elsewhere.status(), 400);
}

/// DEV-01: a device's handle is not accepted as an authorization request's, nor the reverse.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_handle_is_accepted_only_as_a_device_handle() {
    let (app, mut browser) = start().await;
    let client = device_client(&app);
    let device = ask(&app, &client).await;
    let page = question(&app, &mut browser, &device).await;
    let consent = app.url(&page.url.split_once("/device").unwrap().1.replacen('?', "/consent?", 1));
    assert_eq!(browser.get(&app, &consent).await.status(), 400);
    let form = [
        ("transaction", page.transaction.as_str()),
        ("csrf", &page.csrf),
        ("decision", "approve"),
        ("scope", "docs.read"),
    ];
    let answer = browser.post_form(&app, "/consent", &form).await;
    assert_eq!((answer.status().as_u16(), redirect_parameter(&answer, "code")), (400, None));
    let ordinary = app.client().await;
    let asked = browser.consent_page(&app, &ordinary.authorize_url(&app)).await;
    let crossed = app.url(&format!("/device{}", asked.url.split_once("/consent").unwrap().1));
    assert_eq!(browser.get(&app, &crossed).await.status(), 400);
    assert_eq!(polled(&app, &client, &device).await, "authorization_pending");
}

/// DEV-01: the code in a link is shown for comparison and never filled in.
#[tokio::test(flavor = "multi_thread")]
async fn a_code_in_a_link_must_still_be_typed() {
    let (app, mut browser) = start().await;
    let client = device_client(&app);
    let device = ask(&app, &client).await;
    let page = browser.get(&app, device.body["verification_uri_complete"].as_str().unwrap()).await;
    assert_eq!(page.status(), 200);
    for (name, value) in [
        ("x-frame-options", "DENY"),
        ("cache-control", "no-store"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
    ] {
        assert_eq!(header(page.headers(), name), Some(value), "{name}");
    }
    let html = page.text().await.unwrap();
    assert!(html.contains(&device.user_code) && html.contains("Somebody else may have sent you"));
    let field = html.split("<input").find(|tag| tag.contains("user_code")).unwrap();
    assert!(!field.split('>').next().unwrap().contains("value="), "{field}");
    assert!(!html.contains("transaction"), "opening the link starts nothing");
    let odd = browser.get(&app, &app.url("/device?user_code=%3Cscript%3E")).await.text().await.unwrap();
    assert!(!odd.contains("script%3E") && !odd.contains("&lt;script"), "what is no code is not repeated");
    assert_eq!(type_code(&app, &mut browser, "").await.status(), 400);
    // What was typed stays to be corrected, as text; what cannot be a code is told from one that is not known.
    let short = type_code(&app, &mut browser, "abc\"><script>").await.text().await.unwrap();
    assert!(
        short.contains("value=\"abc&quot;&gt;&lt;script&gt;\"") && short.contains("eight letters"),
        "{short}"
    );
    let unknown = type_code(&app, &mut browser, "BBBB-BBBB").await.text().await.unwrap();
    assert!(unknown.contains("value=\"BBBB-BBBB\"") && unknown.contains("No device is waiting"), "{unknown}");
    let from_elsewhere = app
        .http
        .post(app.url("/device"))
        .header("origin", "http://evil.example")
        .form(&[("user_code", &device.user_code)]);
    assert_eq!(browser.send(from_elsewhere).await.status(), 403);
    // Codes are accepted as people type them.
    let sloppy = device.user_code.to_lowercase().replace('-', " ");
    assert_eq!(type_code(&app, &mut browser, &sloppy).await.status(), 303);
}

/// DEV-01, RATE-02: five wrong codes from an address are the limit; a signed-in user is not locked out by it.
#[tokio::test(flavor = "multi_thread")]
async fn guessing_ends_after_five() {
    let (app, mut ada) = start().await;
    let client = device_client(&app);
    let device = ask(&app, &client).await;
    let mut stranger = Browser::new();
    for _ in 0..3 {
        assert_eq!(
            type_code(&app, &mut stranger, &device.user_code).await.status(),
            303,
            "right codes cost nothing"
        );
    }
    let guesses = join_all((0..12).map(|_| {
        app.http
            .post(app.url("/device"))
            .header("origin", &app.origin)
            .form(&[("user_code", "BCDF-GHJK")])
            .send()
    }))
    .await;
    let statuses: Vec<u16> = guesses.into_iter().map(|answer| answer.unwrap().status().as_u16()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 400).count(), 5, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 7, "{statuses:?}");
    let refused = type_code(&app, &mut stranger, &device.user_code).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(header(refused.headers(), "retry-after"), Some("120"));
    assert!(refused.text().await.unwrap().contains("Too many wrong codes"));
    assert!(app.has_event("authz.denied", Some("user_code_unknown")));

    // Ada signed in with her passkey before, at the same address.
    assert_eq!(type_code(&app, &mut ada, &device.user_code).await.status(), 303);
    for _ in 0..5 {
        assert_eq!(type_code(&app, &mut ada, "nonsense").await.status(), 400);
    }
    assert_eq!(type_code(&app, &mut ada, &device.user_code).await.status(), 429);
    app.clock.advance(Duration::from_mins(10));
    let fresh = ask(&app, &client).await;
    assert_eq!(type_code(&app, &mut stranger, &fresh.user_code).await.status(), 303);
    // Refusals of this kind are counted and recorded together.
    let app = app.restart().await;
    assert!(app.has_event("rate.limited", Some("user_code")));
}

/// DEV-01, CONSENT-05, CONSENT-06: a refusal reaches the device, and so does an approval with nothing ticked.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_the_device() {
    let (app, mut browser) = start().await;
    let client = device_client(&app);
    let device = ask(&app, &client).await;
    let page = question(&app, &mut browser, &device).await;
    assert_eq!(decide(&app, &mut browser, &page, "deny").await.status(), 200);
    assert_eq!(polled(&app, &client, &device).await, "access_denied");
    assert_eq!(polled(&app, &client, &device).await, "access_denied");
    assert_eq!(decide(&app, &mut browser, &page, "approve").await.status(), 400, "already been sent");
    assert_eq!(polled(&app, &client, &device).await, "access_denied");

    let device = ask(&app, &client).await;
    let mut page = question(&app, &mut browser, &device).await;
    page.scopes.clear();
    decide(&app, &mut browser, &page, "approve").await;
    assert_eq!(polled(&app, &client, &device).await, "access_denied");
    for reason in ["refused", "nothing_ticked", "decided"] {
        assert!(app.has_event("authz.denied", Some(reason)), "{reason}");
    }
}

/// DEV-01, CONSENT-05: unticked scopes are not granted, and scopes that were not offered cannot be ticked.
#[tokio::test(flavor = "multi_thread")]
async fn only_what_was_offered_and_ticked_is_granted() {
    let (app, mut browser) = start().await;
    let client = device_client(&app);
    let device = ask_for(&app, &client, "docs.read docs.full docs.danger").await;
    let mut page = question(&app, &mut browser, &device).await;
    assert_eq!(
        page.scopes,
        ["docs.full", "docs.read"],
        "nothing of high risk, not even for a verified client"
    );
    let (_, withheld) = page.html.split_once("data-testid=\"withheld\"").expect("what was left out is said");
    let left_out = "Change what others rely on <span class=\"small\">– left out, because it is high risk";
    assert!(withheld.contains(left_out), "{withheld}");
    page.scopes = ["docs.read", "docs.danger", "made.up"].map(str::to_owned).to_vec();
    decide(&app, &mut browser, &page, "approve").await;
    let tokens = Tokens::of(poll(&app, &client, &device).await).await;
    assert_eq!(tokens.body["scope"], "docs.read");
}

/// DEV-01, CONSENT-01: the page says why each scope was left out, and nothing if none was.
#[tokio::test(flavor = "multi_thread")]
async fn omitted_scopes_are_named_with_their_reason() {
    let (app, mut browser) = start().await;
    let mut intern = app.enrol("ines", &[]).await;
    let client = device_client(&app);
    let device = ask_for(&app, &client, "docs.read docs.full docs.danger offline_access made.up").await;
    let page = question(&app, &mut intern, &device).await;
    let (_, withheld) = page.html.split_once("data-testid=\"withheld\"").unwrap();
    for (title, why) in [
        ("Read whole documents", "you are not entitled to it"),
        ("Change what others rely on", "left out, because it is high risk"),
    ] {
        assert!(withheld.contains(&format!("{title} <span class=\"small\">– {why}")), "{title}: {withheld}");
    }
    assert_eq!(page.scopes, ["docs.read"]);
    let device = ask_for(&app, &client, "docs.read").await;
    let page = question(&app, &mut browser, &device).await;
    assert!(!page.html.contains("data-testid=\"withheld\""), "{}", page.html);
}

/// DEV-01, AUTHZ-13: a user who is entitled to none of the scopes is told so and can only refuse.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_cannot_grant_scopes_that_they_do_not_have() {
    let (app, _) = start().await;
    let mut intern = app.enrol("ines", &[]).await;
    let client = device_client(&app);
    let device = ask_for(&app, &client, "docs.full").await;
    let mut page = question(&app, &mut intern, &device).await;
    assert!(page.scopes.is_empty() && page.html.contains("An administrator can change that"));
    assert!(page.html.contains("Read whole documents") && !page.html.contains("consent-approve"));
    page.scopes.push("docs.full".to_owned());
    decide(&app, &mut intern, &page, "approve").await;
    assert_eq!(polled(&app, &client, &device).await, "access_denied");
}

/// DEV-01, CONSENT-06: of concurrent decisions exactly one counts.
#[tokio::test(flavor = "multi_thread")]
async fn only_one_of_many_decisions_counts() {
    let (app, mut ada) = start().await;
    let mut bob = app.enrol("bob", &["engineers"]).await;
    let client = device_client(&app);
    let device = ask(&app, &client).await;
    let page = question(&app, &mut ada, &device).await;
    let rival = question(&app, &mut bob, &device).await;
    assert_eq!(decide(&app, &mut bob, &rival, "approve").await.status(), 200);
    assert_eq!(decide(&app, &mut ada, &page, "approve").await.status(), 400);
    let again = bob.get(&app, &rival.url).await;
    assert_eq!(again.status(), 400, "going back shows no second question");
    let subject = Tokens::of(poll(&app, &client, &device).await).await.claims()["sub"].clone();
    let listed = app.console(&["user", "show", "bob"]);
    assert_eq!(subject, listed["user"]["id"]);

    let device = ask(&app, &client).await;
    let page = question(&app, &mut ada, &device).await;
    let cookies: Vec<String> = ada.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let form = [
        ("transaction", page.transaction.as_str()),
        ("csrf", &page.csrf),
        ("decision", "approve"),
        ("scope", "docs.read"),
    ];
    let send = || {
        app.http
            .post(app.url("/device/decision"))
            .header("origin", &app.origin)
            .header("cookie", cookies.join("; "))
            .form(&form)
            .send()
    };
    let answers = join_all((0..16).map(|_| send())).await;
    let counted = answers.into_iter().filter(|answer| answer.as_ref().unwrap().status() == 200).count();
    assert_eq!(counted, 1);
}

/// DEV-01, AUTHZ-17: a client that was disabled while its question was open gets nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_disabled_meanwhile_gets_nothing() {
    let (app, mut browser) = start().await;
    let client = device_client(&app);
    let device = ask(&app, &client).await;
    let page = question(&app, &mut browser, &device).await;
    app.console(&["client", "disable", &client.id]);
    let answer = decide(&app, &mut browser, &page, "approve").await;
    assert!(answer.text().await.unwrap().contains("was refused"));
    assert!(app.has_event("authz.denied", Some("disabled")));
    app.console(&["client", "enable", &client.id]);
    assert_eq!(polled(&app, &client, &device).await, "access_denied");

    let device = ask(&app, &client).await;
    let page = question(&app, &mut browser, &device).await;
    change(&app, "UPDATE client SET grant_types = 'refresh_token' WHERE id = ?1", &client.id);
    let answer = decide(&app, &mut browser, &page, "approve").await;
    assert!(answer.text().await.unwrap().contains("was refused"), "nor one that may not ask any more");
}

/// DEV-01: a scope that becomes high-risk is granted to no device, whether before or after the decision.
#[tokio::test(flavor = "multi_thread")]
async fn scopes_that_became_high_risk_are_not_granted() {
    let (app, mut browser) = start().await;
    let client = device_client(&app);
    let device = ask(&app, &client).await;
    change(
        &app,
        "UPDATE device_authorization SET scope = 'docs.danger docs.read' WHERE client_id = ?1",
        &client.id,
    );
    let mut page = question(&app, &mut browser, &device).await;
    assert_eq!(page.scopes, ["docs.read"]);
    page.scopes.push("docs.danger".to_owned());
    decide(&app, &mut browser, &page, "approve").await;
    change(&app, "UPDATE access_grant SET scope = 'docs.danger docs.read' WHERE client_id = ?1", &client.id);
    let tokens = Tokens::of(poll(&app, &client, &device).await).await;
    assert_eq!(tokens.body["scope"], "docs.read");
    let approved = app.audit().into_iter().find(|record| record["event"] == "authz.approved").unwrap();
    assert_eq!(approved["detail"]["scopes_given"], "docs.read");
}

//! High-risk scopes: each decision takes a passkey assertion (CONSENT-08).

use serde_json::{Value, json};

use crate::harness::{
    Browser, Client, ConsentPage, TestApp, Tokens, authorize_url, header, redirect_parameter,
};

/// Here `docs.full` is high-risk, and all users may have it.
const RULES: &str = r#"
[groups]
everyone = ["docs.read", "docs.full"]
[scopes."docs.full"]
title = "Read whole documents"
risk = "high"
[tools.docs_read]
scope = "docs.full"
"#;

const BOTH: &[&str] = &["docs.full", "docs.read"];

async fn start() -> (TestApp, Browser, Client) {
    let app = TestApp::start_configured(RULES).await;
    let browser = app.admin().await;
    let client = app.client().await;
    (app, browser, client)
}

fn url(app: &TestApp, client: &Client) -> String {
    let mut parameters = client.request(app);
    parameters.insert("scope", BOTH.join(" "));
    authorize_url(app, &parameters)
}

fn code(response: &reqwest::Response) -> Option<String> {
    redirect_parameter(response, "code")
}

fn approvals(app: &TestApp) -> usize {
    app.events().iter().filter(|(event, _)| event == "authz.approved").count()
}

/// CONSENT-08, DCR-08: a known client is granted a high-risk scope with an assertion for the decision; the
/// assertion of the sign-in just before does not count. The page marks the scope and does not tick it.
#[tokio::test(flavor = "multi_thread")]
async fn a_high_risk_scope_takes_a_passkey_used_for_it() {
    let (app, mut browser, client) = start().await;
    let page = browser.consent_page(&app, &url(&app, &client)).await;
    let tag = |name: &str| {
        let tags = page.html.split("<input").filter_map(|rest| rest.split('>').next());
        tags.filter(|tag| tag.contains(&format!("value=\"{name}\""))).collect::<String>()
    };
    assert!(tag("docs.read").contains(" checked") && !tag("docs.read").contains("data-high-risk"));
    assert!(tag("docs.full").contains("data-high-risk") && !tag("docs.full").contains(" checked"));
    assert!(page.html.contains("High risk") && page.html.contains("data-confirm=\"/consent/confirm\""));

    let refused = browser.allow(&app, &page, BOTH, None).await;
    assert_eq!(refused.status(), 400);
    let html = refused.text().await.unwrap();
    assert!(html.contains("consent-approve") && html.contains("nothing was decided"), "{html}");
    assert_eq!(approvals(&app), 0);
    assert!(app.has_event("authz.denied", Some("not_confirmed")));

    app.clock.advance(std::time::Duration::from_secs(100));
    let confirmed = browser.confirm(&app, &page, BOTH).await;
    let answer = browser.allow(&app, &page, BOTH, Some(&confirmed)).await;
    let tokens = Tokens::of(app.redeem(&client, &code(&answer).unwrap()).await).await;
    assert_eq!(tokens.body["scope"], "docs.full docs.read");
    // The grant has the time of the user's last authentication.
    assert_eq!(tokens.claims()["auth_time"], app.clock.now().seconds());
    let read = app.call_tool(&tokens.access, "docs_read", json!({"path": "falcon.md"})).await;
    assert_eq!(read.json::<Value>().await.unwrap()["result"]["isError"], false);
    let records = app.audit();
    let tap = records.iter().find(|record| record["event"] == "session.step_up").unwrap();
    assert_eq!((&tap["detail"]["for"], &tap["client_id"]), (&json!("consent"), &json!(client.id)));
}

/// CONSENT-05, CONSENT-08: without the high-risk scope no assertion is required, and the grant has the ticked
/// scopes.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ticked_is_not_granted() {
    let (app, mut browser, client) = start().await;
    let page = browser.consent_page(&app, &url(&app, &client)).await;
    let answer = browser.allow(&app, &page, &["docs.read", "made.up", "offline_access"], None).await;
    let tokens = Tokens::of(app.redeem(&client, &code(&answer).unwrap()).await).await;
    assert_eq!(tokens.body["scope"], "docs.read");
    let refreshed = Tokens::of(app.refresh(&client, &tokens.refresh).await).await;
    assert_eq!(refreshed.body["scope"], "docs.read");
    let read = app.call_tool(&refreshed.access, "docs_read", json!({"path": "falcon.md"})).await;
    assert_eq!(read.status(), 403);
    let approved = app.audit().into_iter().find(|record| record["event"] == "authz.approved").unwrap();
    assert_eq!(approved["detail"]["scopes_asked"], "docs.full docs.read");
    assert_eq!(approved["detail"]["scopes_given"], "docs.read");
}

/// CONSENT-08, WEBAUTHN-03: an assertion confirms exactly these scopes of this request, once. Anything else
/// decides nothing and uses it up.
#[tokio::test(flavor = "multi_thread")]
async fn an_assertion_counts_for_exactly_what_it_confirmed() {
    let (app, mut browser, client) = start().await;
    let page = browser.consent_page(&app, &url(&app, &client)).await;
    let other = browser.consent_page(&app, &url(&app, &client)).await;

    let less = browser.confirm(&app, &page, &["docs.full"]).await;
    assert_eq!(browser.allow(&app, &page, BOTH, Some(&less)).await.status(), 400);
    assert_eq!(browser.allow(&app, &page, &["docs.full"], Some(&less)).await.status(), 400, "used up");

    let more = browser.confirm(&app, &page, BOTH).await;
    assert_eq!(browser.allow(&app, &page, &["docs.full"], Some(&more)).await.status(), 400);

    let elsewhere = browser.confirm(&app, &other, BOTH).await;
    assert_eq!(browser.allow(&app, &page, BOTH, Some(&elsewhere)).await.status(), 400);

    let [ceremony, assertion] = browser.confirm(&app, &page, BOTH).await;
    let mut forged: Value = serde_json::from_str(&assertion).unwrap();
    forged["response"]["signature"] = json!("A".repeat(96));
    assert_eq!(browser.allow(&app, &page, BOTH, Some(&[ceremony, forged.to_string()])).await.status(), 400);

    let good = browser.confirm(&app, &page, BOTH).await;
    app.clock.advance(std::time::Duration::from_mins(5));
    assert_eq!(browser.allow(&app, &page, BOTH, Some(&good)).await.status(), 400, "too late");
    for broken in ["", "{}", "no json"] {
        let fields = [good[0].clone(), broken.to_owned()];
        assert_eq!(browser.allow(&app, &page, BOTH, Some(&fields)).await.status(), 400, "{broken}");
    }
    assert_eq!(approvals(&app), 0);

    let good = browser.confirm(&app, &page, BOTH).await;
    assert!(code(&browser.allow(&app, &page, BOTH, Some(&good)).await).is_some());
    assert_eq!(browser.allow(&app, &page, BOTH, Some(&good)).await.status(), 400);
    assert_eq!(approvals(&app), 1);
    for reason in ["other_purpose", "assertion", "ceremony_expired", "ceremony_unknown"] {
        assert!(app.has_event("webauthn.failed", Some(reason)), "{reason}");
    }
}

/// CONSENT-08, WEBAUTHN-06: another user's passkey confirms nothing, a sign-in is not a confirmation, and a
/// confirmation is not a sign-in.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_deciders_own_passkey_confirms() {
    let (app, mut browser, client) = start().await;
    let mut ines = app.enrol("ines", &[]).await;
    let page = browser.consent_page(&app, &url(&app, &client)).await;
    let started: Value = browser.start_confirmation(&app, &page, BOTH).await.json().await.unwrap();
    let hers = serde_json::to_string(&ines.assert(&app, started["options"].clone())).unwrap();
    let fields = [started["ceremony"].as_str().unwrap().to_owned(), hers];
    assert_eq!(browser.allow(&app, &page, BOTH, Some(&fields)).await.status(), 400);

    let signing_in: Value = browser
        .post_json(&app, "/login/start", &json!({"transaction": page.transaction}))
        .await
        .json()
        .await
        .unwrap();
    let assertion = browser.assert(&app, signing_in["options"].clone());
    let fields =
        [signing_in["ceremony"].as_str().unwrap().to_owned(), serde_json::to_string(&assertion).unwrap()];
    assert_eq!(browser.allow(&app, &page, BOTH, Some(&fields)).await.status(), 400);

    let [ceremony, assertion] = browser.confirm(&app, &page, BOTH).await;
    let response: Value = serde_json::from_str(&assertion).unwrap();
    let finish = json!({"ceremony": ceremony, "response": response});
    for path in ["/login/finish", "/account/passkeys/confirm"] {
        assert_ne!(browser.post_json(&app, path, &finish).await.status(), 200, "{path}");
    }
    assert_eq!(approvals(&app), 0);
}

/// CONSENT-03, CONSENT-08, WEBAUTHN-15: the ceremony starts only for the page that asks, and only for scopes
/// that it can allow.
#[tokio::test(flavor = "multi_thread")]
async fn a_confirmation_starts_on_the_page_alone() {
    let (app, mut browser, client) = start().await;
    let page = browser.consent_page(&app, &url(&app, &client)).await;
    let start = |csrf: &str, scopes: &[&str]| json!({"transaction": page.transaction, "csrf": csrf, "scopes": scopes});
    let path = app.url("/consent/confirm");
    let foreign =
        app.http.post(&path).header("origin", "http://localhost:5123").json(&start(&page.csrf, BOTH));
    assert_eq!(browser.send(foreign).await.status(), 403);
    let form = app.http.post(&path).header("origin", &app.origin).form(&[("csrf", &page.csrf)]);
    assert_eq!(browser.send(form).await.status(), 415);
    assert_eq!(browser.post_json(&app, "/consent/confirm", &start("guess", BOTH)).await.status(), 403);
    for scopes in [&["docs.read"][..], &[], &["docs.full", "made.up"], &["made.up"]] {
        let refused = browser.post_json(&app, "/consent/confirm", &start(&page.csrf, scopes)).await;
        assert_eq!(refused.status(), 400, "{scopes:?}");
        assert!(header(refused.headers(), "access-control-allow-origin").is_none());
    }
    let mut stranger = Browser::new();
    stranger.get(&app, &app.url("/")).await;
    let refused = stranger.start_confirmation(&app, &page, BOTH).await;
    assert_eq!(refused.status(), 400);
    assert_eq!(browser.post_json(&app, "/consent/confirm", &json!({})).await.status(), 400);
    assert!(app.has_event("webauthn.failed", Some("nothing_to_confirm")));
}

/// CONSENT-08: a scope that the user loses while deciding is not granted, even if confirmed; and a passkey
/// suspended meanwhile confirms nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_confirmation_does_not_outlive_the_entitlement() {
    let rules = RULES.replace("everyone = [\"docs.read\", \"docs.full\"]", "readers = [\"docs.full\"]");
    let app = TestApp::start_configured(&rules).await;
    app.admin().await;
    let mut ines = app.enrol("ines", &["readers"]).await;
    let client = app.client().await;
    let page = ines.consent_page(&app, &url(&app, &client)).await;
    let confirmed = ines.confirm(&app, &page, BOTH).await;
    app.console(&["user", "groups", "ines", "--remove", "readers"]);
    let answer = ines.allow(&app, &page, BOTH, Some(&confirmed)).await;
    let tokens = Tokens::of(app.redeem(&client, &code(&answer).unwrap()).await).await;
    assert_eq!(tokens.body["scope"], "docs.read");
    // A scope that is regained later was not granted.
    app.console(&["user", "groups", "ines", "--add", "readers"]);
    let refreshed = Tokens::of(app.refresh(&client, &tokens.refresh).await).await;
    assert_eq!(refreshed.body["scope"], "docs.read");
}

/// CONSENT-08, SESSION-02: off loopback a confirmed decision changes the session id, like every step-up.
#[tokio::test(flavor = "multi_thread")]
async fn a_confirmation_changes_the_sessions_id() {
    let app = TestApp::start_https(RULES).await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let html = browser.get(&app, &url(&app, &client)).await.text().await.unwrap();
    let page = ConsentPage::of(String::new(), html);
    let before = browser.cookies["__Host-sid"].clone();
    let confirmed = browser.confirm(&app, &page, BOTH).await;
    let answer = browser.allow(&app, &page, BOTH, Some(&confirmed)).await;
    assert!(code(&answer).is_some());
    let after = browser.cookies["__Host-sid"].clone();
    assert_ne!(before, after);
    assert!(
        browser.get(&app, "https://auth.example/").await.text().await.unwrap().contains("connect-client")
    );
    browser.cookies.insert("__Host-sid".to_owned(), before);
    assert!(
        !browser.get(&app, "https://auth.example/").await.text().await.unwrap().contains("connect-client")
    );
}

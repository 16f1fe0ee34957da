//! Remembered consents, and when they replace the question (CONSENT-04, CONSENT-07, AUTHZ-16).

use std::time::Duration;

use serde_json::{Value, json};

use crate::assertion::ClientKey;
use crate::harness::{
    Browser, Client, ConsentPage, TestApp, attribute, authorize_url, header, redirect_parameter,
};

const WEB: &str = "https://portal.example/cb";
const DAY: Duration = Duration::from_hours(24);

const RULES: &str = r#"
[groups]
everyone = ["docs.read", "docs.list", "docs.full"]
[scopes."docs.list"]
title = "List documents"
[scopes."docs.full"]
title = "Read whole documents"
risk = "high"
[tools.docs_read]
scope = ["docs.full", "docs.list"]
"#;

/// A verified client.
fn added(app: &TestApp, name: &str, redirect_uri: &str, how: &[&str]) -> Client {
    let added = app.console(&[&["client", "add", name, "--redirect-uri", redirect_uri][..], how].concat());
    Client { id: added["client"]["id"].as_str().unwrap().to_owned(), redirect_uri: redirect_uri.to_owned() }
}

fn url(app: &TestApp, client: &Client, scope: &str, prompt: Option<&str>) -> String {
    let mut parameters = client.request(app);
    parameters.insert("scope", scope.to_owned());
    if let Some(prompt) = prompt {
        parameters.insert("prompt", prompt.to_owned());
    }
    authorize_url(app, &parameters)
}

/// The result of a request: a page, or the parameters for the client.
async fn outcome(browser: &mut Browser, app: &TestApp, url: &str) -> String {
    let answer = browser.get(app, url).await;
    if let Some(error) = redirect_parameter(&answer, "error") {
        assert_eq!(redirect_parameter(&answer, "code"), None);
        return error;
    }
    if answer.status().is_redirection() {
        assert_eq!(answer.status(), 302);
        assert_eq!(redirect_parameter(&answer, "state").as_deref(), Some("st ate&1"));
        assert_eq!(redirect_parameter(&answer, "iss"), Some(app.origin.clone()));
        assert!(redirect_parameter(&answer, "code").unwrap().starts_with("ac_"));
        return "code".to_owned();
    }
    let html = answer.text().await.unwrap();
    let page = [("passkey-login", "sign-in"), ("consent-approve", "question")];
    let page = page.iter().find(|(testid, _)| html.contains(testid));
    page.unwrap_or_else(|| panic!("{html}")).1.to_owned()
}

async fn question(browser: &mut Browser, app: &TestApp, url: &str) -> ConsentPage {
    ConsentPage::of(String::new(), browser.get(app, url).await.text().await.unwrap())
}

/// Allows a scope once.
async fn allow(browser: &mut Browser, app: &TestApp, client: &Client, asked: &str, ticked: &[&str]) {
    let page = question(browser, app, &url(app, client, asked, Some("consent"))).await;
    let answer = browser.allow(app, &page, ticked, None).await;
    assert!(redirect_parameter(&answer, "code").is_some());
}

/// CONSENT-04, AUTHZ-16: a verified client at its own site is asked for once: the next time the code comes at
/// once, on a new grant. `prompt=consent` asks anyway, and scopes that were not allowed are asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_verified_client_is_asked_for_once() {
    let app = TestApp::start_https(RULES).await;
    let mut ada = app.admin().await;
    let portal = added(&app, "Portal", WEB, &["--secret"]);
    let plain = url(&app, &portal, "docs.read", None);
    assert_eq!(outcome(&mut ada, &app, &plain).await, "question");
    allow(&mut ada, &app, &portal, "docs.read", &["docs.read"]).await;
    assert_eq!(outcome(&mut ada, &app, &plain).await, "code");
    assert_eq!(outcome(&mut ada, &app, &url(&app, &portal, "docs.read", Some("consent"))).await, "question");
    assert_eq!(outcome(&mut ada, &app, &url(&app, &portal, "docs.read docs.list", None)).await, "question");
    // The consent is for this user only, and needs her session.
    let mut ines = app.enrol("ines", &[]).await;
    assert_eq!(outcome(&mut ines, &app, &plain).await, "question");
    assert_eq!(outcome(&mut Browser::new(), &app, &plain).await, "sign-in");
    assert_eq!(outcome(&mut ada, &app, &url(&app, &portal, "docs.read", Some("login"))).await, "sign-in");
    // It does not apply to another client.
    let other = added(&app, "Other portal", WEB, &["--secret"]);
    assert_eq!(outcome(&mut ada, &app, &url(&app, &other, "docs.read", None)).await, "question");
    let approved: Vec<_> =
        app.audit().into_iter().filter(|record| record["event"] == "authz.approved").collect();
    assert_eq!(approved.len(), 2);
    assert_eq!(
        (&approved[0]["detail"]["remembered"], &approved[1]["detail"]["remembered"]),
        (&json!(false), &json!(true))
    );
    assert_ne!(approved[0]["grant_id"], approved[1]["grant_id"]);
    assert_eq!(app.events().iter().filter(|(event, _)| event == "consent.granted").count(), 1);
}

/// What the page says about remembering, and what the approval's record says.
async fn told_and_recorded(
    browser: &mut Browser,
    app: &TestApp,
    client: &Client,
    scopes: &[&str],
) -> (Option<String>, Value) {
    let page = question(browser, app, &url(app, client, &scopes.join(" "), Some("consent"))).await;
    let told = page.html.split_once("data-testid=\"remembered-for\">").map(|(_, rest)| {
        let (sentence, _) = rest.split_once("</p>").unwrap();
        sentence.to_owned()
    });
    let answer = browser.allow(app, &page, scopes, None).await;
    assert!(redirect_parameter(&answer, "code").is_some());
    let granted = app.audit().into_iter().rfind(|record| record["event"] == "consent.granted").unwrap();
    (told, granted["detail"].clone())
}

/// CONSENT-04, CONSENT-01: the page and the record say that an answer will be remembered, and for how long,
/// exactly if it will be.
#[tokio::test(flavor = "multi_thread")]
async fn the_consent_page_says_what_will_be_remembered() {
    let app = TestApp::start_https(RULES).await;
    let mut ada = app.admin().await;
    let portal = added(&app, "Portal", WEB, &["--secret"]);
    let (told, record) = told_and_recorded(&mut ada, &app, &portal, &["docs.read"]).await;
    assert!(told.as_ref().is_some_and(|told| told.contains("remembered for 180 days")), "{told:?}");
    assert_eq!(record["remembered"], "docs.read");
    let until = (app.clock.now() + 180 * DAY).to_string();
    assert_eq!(record["remembered_until"], until);

    // Adding a scope later does not extend the consent, and the page does not claim it.
    app.clock.advance(100 * DAY);
    assert_eq!(ada.sign_in(&app, None).await.status(), 200);
    let (told, record) = told_and_recorded(&mut ada, &app, &portal, &["docs.list"]).await;
    assert!(told.as_ref().is_some_and(|told| told.contains("remembered for 80 days")), "{told:?}");
    assert_eq!(
        (&record["remembered"], &record["remembered_until"]),
        (&json!("docs.list docs.read"), &json!(until))
    );

    // High-risk scopes are asked for each time.
    let page = question(&mut ada, &app, &url(&app, &portal, "docs.full", Some("consent"))).await;
    assert!(!page.html.contains("remembered-for"), "{}", page.html);
    let page = question(&mut ada, &app, &url(&app, &portal, "docs.full docs.read", Some("consent"))).await;
    assert!(page.html.contains("except for what is high risk"), "{}", page.html);

    // Consents for clients on this computer are not remembered, verified or not.
    let known = app.client().await;
    let phone = added(&app, "Phone app", "com.example.app:/cb", &[]);
    for client in [&known, &phone] {
        let (told, record) = told_and_recorded(&mut ada, &app, client, &["docs.read"]).await;
        assert_eq!(told, None);
        assert!(record.get("remembered").is_none() && record.get("remembered_until").is_none(), "{record}");
    }
    app.console(&["client", "verify", &known.id]);
    let (told, record) = told_and_recorded(&mut ada, &app, &known, &["docs.read"]).await;
    assert_eq!((told, record.get("remembered")), (None, None));
}

/// CONSENT-07, REVOKE-07: withdrawn access is asked for again, whether the user or an administrator withdrew
/// it.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_consent_is_asked_for_again() {
    let app = TestApp::start_https(RULES).await;
    app.admin().await;
    let mut ines = app.enrol("ines", &[]).await;
    let portal = added(&app, "Portal", WEB, &["--secret"]);
    let plain = url(&app, &portal, "docs.read", None);
    allow(&mut ines, &app, &portal, "docs.read", &["docs.read"]).await;
    assert_eq!(outcome(&mut ines, &app, &plain).await, "code");
    let grants = app.console(&["grant", "list", "--user", "ines"]);
    app.console(&["grant", "revoke", grants["grants"][0]["id"].as_str().unwrap()]);
    assert_eq!(outcome(&mut ines, &app, &plain).await, "question");
}

/// CONSENT-04: known, unverified and loopback clients are asked for every time, unless they authenticate with a
/// key.
#[tokio::test(flavor = "multi_thread")]
async fn a_loopback_client_is_asked_about_each_time() {
    let app = TestApp::start_https(RULES).await;
    let mut ada = app.admin().await;
    let known = app.client().await;
    allow(&mut ada, &app, &known, "docs.read", &["docs.read"]).await;
    assert_eq!(outcome(&mut ada, &app, &url(&app, &known, "docs.read", None)).await, "question");
    app.console(&["client", "verify", &known.id]);
    allow(&mut ada, &app, &known, "docs.read", &["docs.read"]).await;
    assert_eq!(outcome(&mut ada, &app, &url(&app, &known, "docs.read", None)).await, "question");
    let app_of_its_own = added(&app, "Phone app", "com.example.app:/cb", &[]);
    allow(&mut ada, &app, &app_of_its_own, "docs.read", &["docs.read"]).await;
    assert_eq!(outcome(&mut ada, &app, &url(&app, &app_of_its_own, "docs.read", None)).await, "question");

    let file = app.data_dir().with_file_name("keys.json");
    std::fs::write(&file, ClientKey::generate("ES256").jwks().to_string()).unwrap();
    let keyed = added(&app, "Desktop tool", "http://localhost/cb", &["--jwks", file.to_str().unwrap()]);
    allow(&mut ada, &app, &keyed, "docs.read", &["docs.read"]).await;
    assert_eq!(outcome(&mut ada, &app, &url(&app, &keyed, "docs.read", None)).await, "code");
}

/// CONSENT-04, CONSENT-05: scopes that were shown and not ticked are forgotten; scopes that were not shown
/// stay, with their old date.
#[tokio::test(flavor = "multi_thread")]
async fn a_remembered_consent_ends_when_unticked_or_expired() {
    let app = TestApp::start_https(RULES).await;
    let mut ada = app.admin().await;
    let portal = added(&app, "Portal", WEB, &["--secret"]);
    let (read, list) = (url(&app, &portal, "docs.read", None), url(&app, &portal, "docs.list", None));
    allow(&mut ada, &app, &portal, "docs.read docs.list", &["docs.read", "docs.list"]).await;
    assert_eq!(outcome(&mut ada, &app, &list).await, "code");
    allow(&mut ada, &app, &portal, "docs.read docs.list", &["docs.read"]).await;
    assert_eq!(outcome(&mut ada, &app, &list).await, "question");
    assert_eq!(outcome(&mut ada, &app, &read).await, "code");

    app.clock.advance(100 * DAY);
    assert_eq!(ada.sign_in(&app, None).await.status(), 200);
    allow(&mut ada, &app, &portal, "docs.list", &["docs.list"]).await;
    assert_eq!(outcome(&mut ada, &app, &read).await, "code", "it was not shown, and is remembered");
    app.clock.advance(80 * DAY);
    assert_eq!(ada.sign_in(&app, None).await.status(), 200);
    assert_eq!(outcome(&mut ada, &app, &read).await, "code", "180 days");
    app.clock.advance(Duration::from_secs(1));
    assert_eq!(outcome(&mut ada, &app, &read).await, "question", "and a second");
    allow(&mut ada, &app, &portal, "docs.read", &["docs.read"]).await;
    assert_eq!(outcome(&mut ada, &app, &read).await, "question", "the older part is in the same row");
    allow(&mut ada, &app, &portal, "docs.read docs.list", &["docs.read", "docs.list"]).await;
    assert_eq!(outcome(&mut ada, &app, &read).await, "code");
}

/// CONSENT-04, CIMD-05, DCR-10: a consent is for the client as it was.
#[tokio::test(flavor = "multi_thread")]
async fn another_client_under_the_same_id_is_asked_for_again() {
    let toml = |uri: &str| {
        format!(
            "issuer = \"https://auth.example\"\ntrusted_proxies = [\"127.0.0.1\", \"::1\"]\n{RULES}\n[clients.portal]\ntitle = \"Portal\"\npublic = true\nredirect_uris = [\"{WEB}\", \"{uri}\"]\n"
        )
    };
    let app = TestApp::start_configured(&toml("https://portal.example/a")).await;
    let mut ada = app.admin().await;
    let listed = app.console(&["client", "list"]);
    let id = listed["clients"][0]["id"].as_str().unwrap().to_owned();
    let portal = Client { id, redirect_uri: WEB.to_owned() };
    let read = url(&app, &portal, "docs.read", None);
    allow(&mut ada, &app, &portal, "docs.read", &["docs.read"]).await;
    assert_eq!(outcome(&mut ada, &app, &read).await, "code");
    let app = app.restart_configured(&toml("https://portal.example/a")).await;
    assert_eq!(outcome(&mut ada, &app, &read).await, "code", "nothing has changed");
    let app = app.restart_configured(&toml("https://portal.example/b")).await;
    assert_eq!(outcome(&mut ada, &app, &read).await, "question");
}

/// AUTHZ-16, CONSENT-08: `prompt=none` shows no page: it returns the code, or the error that says what is
/// missing.
#[tokio::test(flavor = "multi_thread")]
async fn prompt_none_says_what_is_missing() {
    let app = TestApp::start_https(RULES).await;
    let mut ada = app.admin().await;
    let portal = added(&app, "Portal", WEB, &["--secret"]);
    let silent = |scope: &str| url(&app, &portal, scope, Some("none"));
    assert_eq!(outcome(&mut Browser::new(), &app, &silent("docs.read")).await, "login_required");
    assert_eq!(outcome(&mut ada, &app, &silent("docs.read")).await, "consent_required");
    allow(&mut ada, &app, &portal, "docs.read", &["docs.read"]).await;
    assert_eq!(outcome(&mut ada, &app, &silent("docs.read")).await, "code");
    assert_eq!(outcome(&mut ada, &app, &silent("docs.read docs.list")).await, "consent_required");
    assert_eq!(outcome(&mut ada, &app, &silent("docs.read docs.full")).await, "interaction_required");
    assert_eq!(
        outcome(&mut ada, &app, &url(&app, &portal, "docs.read", Some("none consent"))).await,
        "invalid_request"
    );
    let mut stale = portal.request(&app);
    stale.extend([("prompt", "none".to_owned()), ("max_age", "600".to_owned())]);
    app.clock.advance(Duration::from_mins(10));
    assert_eq!(outcome(&mut ada, &app, &authorize_url(&app, &stale)).await, "code");
    app.clock.advance(Duration::from_secs(1));
    assert_eq!(outcome(&mut ada, &app, &authorize_url(&app, &stale)).await, "login_required");
    stale.insert("max_age", "0".to_owned());
    assert_eq!(outcome(&mut ada, &app, &authorize_url(&app, &stale)).await, "login_required");
}

/// AUTHZ-16, AUTHZ-17: nor is a request answered for a user who may no longer grant it or is disabled.
#[tokio::test(flavor = "multi_thread")]
async fn prompt_none_answers_for_no_user_who_lost_access() {
    let rules = "[groups]\nreaders = [\"docs.list\"]\neveryone = [\"docs.read\"]\n[scopes.\"docs.list\"]\ntitle = \"List\"\n[tools.docs_read]\nscope = \"docs.list\"\n";
    let app = TestApp::start_https(rules).await;
    app.admin().await;
    let mut ines = app.enrol("ines", &["readers"]).await;
    let portal = added(&app, "Portal", WEB, &["--secret"]);
    let silent = url(&app, &portal, "docs.list", Some("none"));
    allow(&mut ines, &app, &portal, "docs.list", &["docs.list"]).await;
    assert_eq!(outcome(&mut ines, &app, &silent).await, "code");
    app.console(&["user", "groups", "ines", "--remove", "readers"]);
    assert_eq!(outcome(&mut ines, &app, &silent).await, "access_denied");
    app.console(&["user", "groups", "ines", "--add", "readers"]);
    assert_eq!(outcome(&mut ines, &app, &silent).await, "code");
    app.console(&["user", "disable", "ines"]);
    assert_eq!(outcome(&mut ines, &app, &silent).await, "login_required");
    app.console(&["client", "unverify", &portal.id]);
    let page = ines.get(&app, &silent).await;
    assert_eq!(page.status(), 400, "nobody vouches for where the answer would go");
}

/// CONSENT-03, CONSENT-04: a remembered consent answers only GET requests, and on loopback only after a passkey
/// assertion.
#[tokio::test(flavor = "multi_thread")]
async fn a_remembered_consent_answers_only_get_requests() {
    let app = TestApp::start_configured(RULES).await;
    let mut ada = app.admin().await;
    let portal = added(&app, "Portal", WEB, &["--secret"]);
    let read = url(&app, &portal, "docs.read", None);
    let page = ada.consent_page(&app, &read).await;
    assert!(redirect_parameter(&ada.decide(&app, &page, "approve").await, "code").is_some());
    assert_eq!(
        outcome(&mut ada, &app, &url(&app, &portal, "docs.read", Some("none"))).await,
        "login_required"
    );
    let html = ada.get(&app, &read).await.text().await.unwrap();
    let transaction = attribute(&html, "data-transaction").unwrap();
    let signed_in = ada.sign_in(&app, Some(&transaction)).await;
    let location: serde_json::Value = signed_in.json().await.unwrap();
    let location = app.url(location["location"].as_str().unwrap());
    for method in [reqwest::Method::HEAD, reqwest::Method::OPTIONS, reqwest::Method::PUT] {
        let answer = ada.send(app.http.request(method.clone(), &location)).await;
        assert_eq!(answer.status(), 405, "{method}");
        assert_eq!(header(answer.headers(), "allow"), Some("GET, POST"));
    }
    // Another program on this computer has the cookies, but not the proof that the page was told.
    let mut thief = Browser::new();
    thief.cookies = ada.cookies.clone();
    assert!(thief.session().is_some());
    let without_proof = app.url(&format!("/consent?transaction={transaction}"));
    assert_eq!(outcome(&mut thief, &app, &without_proof).await, "sign-in");
    assert_eq!(outcome(&mut ada, &app, &location).await, "code");
    assert_eq!(ada.session(), None, "the answer ends the session");
    assert_eq!(ada.get(&app, &location).await.status(), 400, "once");
}

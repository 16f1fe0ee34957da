//! Users' own secrets: given on the account page, or by an administrator.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{RULES, done, offered, said, secret, shown, source};
use crate::harness::{
    Browser, Client, TestApp, account_csrf, authorize_url, error_of, header, redirect_parameter,
};
use crate::process::complaint;
use crate::sources::hostile::{CallBehaviour, HostileServer};

const OWN: &str = "bearer = \"user\"";

async fn signed_in(app: &TestApp, browser: &mut Browser, client: &Client, scope: &str) -> String {
    let mut request = client.request(app);
    request.insert("scope", scope.to_owned());
    let page = browser.consent_page(app, &authorize_url(app, &request)).await;
    let code = redirect_parameter(&browser.decide(app, &page, "approve").await, "code").unwrap();
    let answer: Value = app.redeem(client, &code).await.json().await.unwrap();
    answer["access_token"].as_str().unwrap().to_owned()
}

fn set<'a>(source: &'a str, value: &'a str) -> [(&'a str, &'a str); 3] {
    [("action", "set_secret"), ("source", source), ("secret", value)]
}

fn remove(source: &str) -> [(&str, &str); 2] {
    [("action", "remove_secret"), ("source", source)]
}

/// SRC-10, SRC-15: each user's calls carry only that user's secret; if it is missing, the answer names the page
/// and what to do; a new value, and its deletion, apply from the next request on.
#[tokio::test(flavor = "multi_thread")]
async fn each_user_is_asked_for_with_their_own() {
    let jira = HostileServer::start().await;
    let app = TestApp::start_https(&format!("{}{RULES}", source("jira", &jira, OWN))).await;
    let (mut ada, client) = (app.admin().await, app.client().await);
    let mut ines = app.enrol("ines", &[]).await;
    offered(&app, "jira").await;
    let of_ada = signed_in(&app, &mut ada, &client, "docs.read").await;
    let of_ines = signed_in(&app, &mut ines, &client, "docs.read").await;
    let (is_error, text) = said(&app, &of_ines, "jira_greet").await;
    let page = format!("Open {}/account#secrets in your browser", app.origin);
    assert!(is_error && text.contains(&page) && text.contains("\"Secrets for servers\""), "{text}");
    assert!(jira.calls().is_empty(), "it was asked in nobody's name");

    assert_eq!(ines.change(&app, &set("jira", " ines-one \n")).await.status(), StatusCode::SEE_OTHER);
    assert_eq!(said(&app, &of_ines, "jira_greet").await, (false, "hello".to_owned()));
    assert_eq!(shown(&jira, "authorization").as_deref(), Some("Bearer ines-one"));
    assert!(said(&app, &of_ada, "jira_greet").await.0 && jira.calls().len() == 1);
    ada.change(&app, &set("jira", "ada-one")).await;
    said(&app, &of_ada, "jira_greet").await;
    assert_eq!(shown(&jira, "authorization").as_deref(), Some("Bearer ada-one"));
    ines.change(&app, &set("jira", "ines-two")).await;
    said(&app, &of_ines, "jira_greet").await;
    assert_eq!(shown(&jira, "authorization").as_deref(), Some("Bearer ines-two"));

    // A bad one is told as what it is, and nobody else hears of it.
    jira.will(CallBehaviour::Unauthorized);
    let (is_error, text) = said(&app, &of_ines, "jira_greet").await;
    assert!(is_error && text.contains("it does not accept your own secret for it"), "{text}");
    assert!(
        text.contains("/account#secrets") && text.contains("Your own sign-in is not the problem"),
        "{text}"
    );
    assert_eq!(app.console(&["source", "show", "jira"])["stale"], Value::Null);
    jira.will(CallBehaviour::Answer);
    assert_eq!(said(&app, &of_ada, "jira_greet").await, (false, "hello".to_owned()));

    let calls = jira.calls().len();
    let answer = ines.change(&app, &remove("jira")).await;
    let location = header(answer.headers(), "location").unwrap().to_owned();
    let page = ines.get(&app, &app.url(&location)).await.text().await.unwrap();
    assert!(page.contains("The secret is removed.") && page.contains("secret-missing"), "{page}");
    assert!(said(&app, &of_ines, "jira_greet").await.0 && jira.calls().len() == calls);
    assert_eq!(ines.change(&app, &remove("jira")).await.status(), StatusCode::NOT_FOUND);
    let me = app.console(&["user", "show", "ines"])["user"]["id"].clone();
    let records = app.audit();
    let last =
        records.iter().rfind(|one| one["event"] == "secret.removed" && one["outcome"] == "allowed").unwrap();
    assert_eq!((&last["actor"], &last["subject"]), (&json!({ "type": "user", "id": me }), &me));
    assert_eq!(last["detail"], json!({ "source": "jira" }));
    // Deleting a user deletes their secrets.
    app.console(&["user", "delete", "ines", "--yes"]);
    let listed = app.console(&["secret", "list"]);
    assert_eq!(
        (listed["secrets"].as_array().unwrap().len(), &listed["secrets"][0]["user"]["name"]),
        (1, &json!("ada"))
    );
}

/// SRC-10: the page lists only the sources whose items the user may call; it shows no value.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_lists_what_a_person_may_use() {
    let (jira, ci) = (HostileServer::start().await, HostileServer::start().await);
    let toml = format!(
        "{}{}[scopes.\"ci.run\"]\ntitle = \"Run\"\n[groups]\nrelease = [\"ci.run\"]\n[tools.jira_greet]\nscope = \"docs.read\"\n[tools.ci_greet]\nscope = \"ci.run\"\n",
        source("jira", &jira, OWN),
        source("ci", &ci, OWN),
    );
    let app = TestApp::start_https(&toml).await;
    app.admin().await;
    let mut ines = app.enrol("ines", &[]).await;
    for name in ["jira", "ci"] {
        offered(&app, name).await;
    }
    let servers = |page: &str| -> Vec<String> {
        let cards = page.split("data-testid=\"secret\">").skip(1);
        cards.map(|card| card.split("<bdi>").nth(1).unwrap().split('<').next().unwrap().to_owned()).collect()
    };
    let page = ines.account(&app).await;
    assert_eq!(servers(&page), ["jira"]);
    assert!(page.contains("id=\"secrets\"") && page.contains("autocomplete=\"off\""));
    // She can give a secret only for sources that she may call.
    let unknown = ines.change(&app, &set("ci", "canary-ci")).await;
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    app.console(&["user", "groups", "ines", "--add", "release"]);
    assert_eq!(servers(&ines.account(&app).await), ["ci", "jira"]);
    assert_eq!(ines.change(&app, &set("ci", "canary-ci")).await.status(), StatusCode::SEE_OTHER);
    let page = ines.account(&app).await;
    assert!(!page.contains("canary") && page.contains("Replace"), "{page}");
    // She can delete her secret for a source that she may not call now.
    app.console(&["user", "groups", "ines", "--remove", "release"]);
    let page = ines.account(&app).await;
    assert!(page.contains("nothing uses it now") && servers(&page) == ["jira", "ci"], "{page}");
    assert_eq!(ines.change(&app, &remove("ci")).await.status(), StatusCode::SEE_OTHER);
    assert_eq!(servers(&ines.account(&app).await), ["jira"]);
}

/// SESSION-01, SESSION-07, WEBAUTHN-12: storing a secret needs a passkey assertion for exactly that change,
/// from our page.
#[tokio::test(flavor = "multi_thread")]
async fn giving_a_secret_takes_the_passkey() {
    let jira = HostileServer::start().await;
    let app = TestApp::start_https(&format!("{}{RULES}", source("jira", &jira, OWN))).await;
    app.admin().await;
    let mut ines = app.enrol("ines", &[]).await;
    offered(&app, "jira").await;
    let csrf = account_csrf(&ines.account(&app).await);
    let form = |value: &'static str| [&[("csrf", csrf.as_str())], &set("jira", value)[..]].concat();
    let bare = ines.post_form(&app, "/account/change", &form("canary-one")).await;
    assert_eq!(bare.status(), StatusCode::FORBIDDEN);
    assert!(bare.text().await.unwrap().contains("step_up_required"));
    let confirmed = ines.confirm_change(&app, &form("canary-one")).await;
    let [ceremony, assertion] = &confirmed;
    let other = [&form("canary-two")[..], &[("ceremony", ceremony), ("assertion", assertion)]].concat();
    assert_eq!(ines.post_form(&app, "/account/change", &other).await.status(), StatusCode::BAD_REQUEST);
    for (value, says) in [("", "empty"), ("a\nb", "line break"), ("naïve", "visible ASCII")] {
        let fields: std::collections::BTreeMap<_, _> = form(value).into_iter().collect();
        let refused = ines.post_json(&app, "/account/change/start", &json!(fields)).await;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{says}");
        let body: Value = refused.json().await.unwrap();
        assert!(body["message"].as_str().unwrap().contains(says), "{body}");
        let posted = ines.post_form(&app, "/account/change", &form(value)).await;
        assert_eq!(posted.status(), StatusCode::BAD_REQUEST);
    }
    let forged = [("csrf", "x"), ("action", "set_secret"), ("source", "jira"), ("secret", "canary-one")];
    assert_eq!(ines.post_form(&app, "/account/change", &forged).await.status(), StatusCode::FORBIDDEN);
    let fields: std::collections::BTreeMap<_, _> = forged.into_iter().collect();
    let refused = ines.post_json(&app, "/account/change/start", &json!(fields)).await;
    assert_eq!(error_of(refused).await, (StatusCode::FORBIDDEN, "csrf".to_owned()));
    assert!(app.console(&["secret", "list"])["secrets"].as_array().unwrap().is_empty());
    assert!(ines.change(&app, &set("jira", "canary-one")).await.status() == StatusCode::SEE_OTHER);
    // A signed-out browser cannot give a secret.
    let mut nobody = Browser::new();
    let out = nobody.post_form(&app, "/account/change", &form("canary-two")).await;
    assert_eq!(out.status(), StatusCode::UNAUTHORIZED);
    assert!(!serde_json::to_string(&app.audit()).unwrap().contains("canary"));
}

/// SRC-10: an administrator may store a user's own secret; one that was given for another address is not sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_for_one_address() {
    let (jira, moved) = (HostileServer::start().await, HostileServer::start().await);
    let toml = format!("{}{RULES}", source("jira", &jira, OWN));
    let app = TestApp::start_https(&toml).await;
    let file = app.data_dir().with_file_name("portcullis.toml");
    let toml = std::fs::read_to_string(&file).unwrap();
    app.admin().await;
    let (mut ines, client) = (app.enrol("ines", &[]).await, app.client().await);
    offered(&app, "jira").await;
    let output = done(&secret(&app, &["set", "jira", "--user", "ines"], "of-ines"));
    assert!(output.contains("The secret of ines for `jira` set."), "{output}");
    let token = signed_in(&app, &mut ines, &client, "docs.read").await;
    said(&app, &token, "jira_greet").await;
    assert_eq!(shown(&jira, "authorization").as_deref(), Some("Bearer of-ines"));
    std::fs::write(&file, toml.replace(&jira.url, &moved.url)).unwrap();
    app.console(&["reload"]);
    offered(&app, "jira").await;
    let (is_error, text) = said(&app, &token, "jira_greet").await;
    assert!(is_error && text.contains("needs a secret of your own") && moved.calls().is_empty(), "{text}");
    assert!(ines.account(&app).await.contains("secret-moved"));
    ines.change(&app, &set("jira", "of-ines-there")).await;
    said(&app, &token, "jira_greet").await;
    assert_eq!(shown(&moved, "authorization").as_deref(), Some("Bearer of-ines-there"));
    let asked = secret(&app, &["remove", "jira", "--user", "ines"], "");
    assert!(complaint(&asked).contains("will answer no call of ines"), "{}", complaint(&asked));
    let removed = done(&secret(&app, &["remove", "jira", "--user", "ines", "--yes"], ""));
    assert!(removed.contains("The secret of ines for `jira` removed."), "{removed}");
    assert!(said(&app, &token, "jira_greet").await.0);
}

/// SRC-10: the gateway reads the lists with its own credential if there is one; a client without a user gets no
/// user's secret.
#[tokio::test(flavor = "multi_thread")]
async fn lists_are_read_with_a_credential_for_them() {
    let jira = HostileServer::start().await;
    let shown = format!("{OWN}\nlists_with = \"secret:reader\"");
    let app = TestApp::start_https(&format!("{}{RULES}", source("jira", &jira, &shown))).await;
    app.admin().await;
    let why = crate::clients::refused(&app, &["source", "test", "jira"]);
    assert!(why.contains("its secret is not set; to set it, run `portcullis secret set"), "{why}");
    assert!(jira.arrived().is_empty());
    done(&secret(&app, &["set", "reader"], "reads-lists"));
    app.console(&["source", "test", "jira"]);
    let lists = jira.arrived();
    assert!(lists.iter().all(|(headers, _)| headers["authorization"] == "Bearer reads-lists"));
    let added = app.console(&[
        "client",
        "add",
        "Nightly",
        "--secret",
        "--client-credentials",
        "--scope",
        "docs.read",
    ]);
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", added["client"]["id"].as_str().unwrap()),
        ("client_secret", added["client_secret"].as_str().unwrap()),
        ("resource", &app.mcp_url()),
    ];
    let answer: Value = app.token(&form).await.json().await.unwrap();
    let (is_error, text) = said(&app, answer["access_token"].as_str().unwrap(), "jira_greet").await;
    assert!(is_error && text.contains("this program asks in its own name"), "{text}");
    assert!(jira.calls().is_empty());
}

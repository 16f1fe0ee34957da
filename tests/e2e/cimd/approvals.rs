//! Approval requests of users, and their decision.

use serde_json::{Value, json};

use super::{STRANGER, client, file, is_row_3, whoami};
use crate::clients::refused;
use crate::harness::{Browser, Client, TestApp, attribute};

const ASK: &str = "[cimd]\nunknown = \"ask\"\n";
const PATH: &str = "/account/client-requests";

/// The fields of the page's form.
pub fn form(html: &str) -> Vec<(String, String)> {
    let start = html.find("data-testid=\"ask-for-client\"").unwrap_or_else(|| panic!("no form in {html}"));
    let inputs = html[start..].split("<input").skip(1).filter_map(|rest| rest.split('>').next());
    inputs.filter_map(|tag| Some((attribute(tag, " name")?, attribute(tag, " value")?))).collect()
}

async fn page(app: &TestApp, browser: &mut Browser, client: &Client) -> String {
    is_row_3(browser.get(app, &client.authorize_url(app)).await, "example.net").await
}

async fn ask(app: &TestApp, browser: &mut Browser, client: &Client) -> (u16, String) {
    let form = form(&page(app, browser, client).await);
    let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let answer = browser.post_form(app, PATH, &form).await;
    (answer.status().as_u16(), answer.text().await.unwrap())
}

fn waiting(app: &TestApp) -> Vec<Value> {
    app.console(&["client", "approvals", "list"])["approvals"].as_array().unwrap().clone()
}

fn stranger() -> Client {
    client(STRANGER, "http://127.0.0.1:4711/cb")
}

/// CIMD-09, decision row 3: a signed-in user requests approval once per URL; an administrator approves the
/// client with a minimal document.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_asks_and_an_administrator_approves() {
    let app = TestApp::start_configured(ASK).await;
    let mut ada = app.admin().await;
    let mut nobody = Browser::new();
    let shown = page(&app, &mut nobody, &stranger()).await;
    assert!(shown.contains("reload this page") && !shown.contains("<form"), "{shown}");

    let shown = page(&app, &mut ada, &stranger()).await;
    assert!(shown.contains("Ask an administrator"), "{shown}");
    let headers = ada.get(&app, &stranger().authorize_url(&app)).await.headers().clone();
    assert_eq!(headers["referrer-policy"], "same-origin", "or the form would come from nowhere");
    let (status, said) = ask(&app, &mut ada, &stranger()).await;
    assert!(status == 200 && said.contains("Request saved"), "{said}");
    let mut bob = app.enrol("bob", &[]).await;
    let (status, said) = ask(&app, &mut bob, &client(STRANGER, "https://tools.example.net/cb")).await;
    assert!(status == 200 && said.contains("Request already sent"), "{said}");
    let list = waiting(&app);
    assert_eq!(list.len(), 1);
    assert_eq!(
        (&list[0]["user"], &list[0]["redirect_uri"]),
        (&json!("ada"), &json!("http://127.0.0.1:4711/cb"))
    );
    assert!(app.has_event("cimd.approval_requested", None));
    assert!(app.has_event("cimd.approval_requested", Some("asked_before")));

    let app = app.restart().await;
    let change = app.console(&["client", "approvals", "approve", STRANGER]);
    assert_eq!(change["change"]["after"]["redirect_uris"], json!(["http://127.0.0.1/cb"]));
    assert_eq!(change["change"]["after"]["client_name"], "tools.example.net");
    assert_eq!(waiting(&app).len(), 1, "so far it was only shown");
    app.console(&["client", "approvals", "approve", STRANGER, "--yes"]);
    assert!(waiting(&app).is_empty());
    let tokens = app.tokens(&mut ada, &client(STRANGER, "http://127.0.0.1:99/cb")).await;
    assert_eq!(whoami(&app, &tokens).await, 200);
    let why = refused(&app, &["client", "approvals", "approve", STRANGER, "--yes"]);
    assert!(why.contains("no approval request"), "{why}");
}

/// CIMD-09: an administrator approves with a given document, or refuses; after a refusal users may ask again.
#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_brings_the_document_or_refuses() {
    let app = TestApp::start_configured(ASK).await;
    let mut ada = app.admin().await;
    let remote = client(STRANGER, "https://tools.example.net/cb");
    assert_eq!(ask(&app, &mut ada, &remote).await.0, 200);
    let refusal = app.console(&["client", "approvals", "refuse", STRANGER]);
    assert_eq!(refusal["refused"], true);
    assert!(app.has_event("cimd.refused", Some("approval_refused")));
    page(&app, &mut ada, &remote).await;
    assert_eq!(ask(&app, &mut ada, &remote).await.0, 200);
    let document = json!({"client_id": STRANGER, "client_name": "Tools", "redirect_uris": ["https://tools.example.net/cb"],
        "grant_types": ["authorization_code", "refresh_token"], "token_endpoint_auth_method": "none"});
    let mut other = document.clone();
    other["client_id"] = json!("https://evil.example.net/client.json");
    let path = file(&app, "other.json", &other);
    let why = refused(&app, &["client", "approvals", "approve", STRANGER, "--document", &path, "--yes"]);
    assert!(why.contains("client_id is"), "{why}");
    let path = file(&app, "tools.json", &document);
    app.console(&["client", "approvals", "approve", STRANGER, "--document", &path, "--yes"]);
    let tokens = app.tokens(&mut ada, &remote).await;
    assert_eq!(whoami(&app, &tokens).await, 200);
}

/// CIMD-09, SESSION-07: a request is accepted only from the page that offered it, in its user's session, and
/// only for what it showed.
#[tokio::test(flavor = "multi_thread")]
async fn an_approval_request_from_another_page_is_refused() {
    let app = TestApp::start_configured(ASK).await;
    let mut ada = app.admin().await;
    let mut bob = app.enrol("bob", &[]).await;
    let good = form(&page(&app, &mut ada, &stranger()).await);
    let pairs = |form: &[(String, String)]| form.to_vec();
    let changed = |name: &str, value: &str| {
        let mut form = pairs(&good);
        form.iter_mut().filter(|(n, _)| n == name).for_each(|(_, v)| value.clone_into(v));
        form
    };
    let bobs = form(&page(&app, &mut bob, &stranger()).await);
    for bad in [
        changed("csrf", "x"),
        changed("csrf", ""),
        changed("client_id", "https://evil.example.net/client.json"),
        changed("redirect_uri", "https://evil.example.net/cb"),
        changed("client_id", "not a url"),
        changed("redirect_uri", "javascript:alert(1)"),
        pairs(&bobs),
        vec![],
    ] {
        let form: Vec<(&str, &str)> = bad.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(ada.post_form(&app, PATH, &form).await.status(), 403, "{form:?}");
    }
    let form: Vec<(&str, &str)> = good.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    for origin in [None, Some("https://evil.example"), Some("null")] {
        let mut request = app.http.post(app.url(PATH)).form(&form);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        assert_eq!(ada.send(request).await.status(), 403, "{origin:?}");
    }
    assert_eq!(Browser::new().post_form(&app, PATH, &form).await.status(), 403);
    assert!(waiting(&app).is_empty());
    assert!(app.has_event("cimd.approval_requested", Some("not_from_our_page")));
    assert_eq!(ada.post_form(&app, PATH, &form).await.status(), 200);
    // If the client has become known meanwhile, no request is stored.
    app.console(&["client", "approvals", "approve", STRANGER, "--yes"]);
    assert_eq!(ada.post_form(&app, PATH, &form).await.status(), 409);
}

/// CIMD-09, RATE-03: a user may make five requests an hour, and undecided ones are deleted.
#[tokio::test(flavor = "multi_thread")]
async fn approval_requests_are_bounded() {
    let app = TestApp::start_configured(ASK).await;
    let mut ada = app.admin().await;
    let mut bob = app.enrol("bob", &[]).await;
    let numbered = |n: u32| client(&format!("https://tools.example.net/{n}.json"), "http://127.0.0.1:1/cb");
    for n in 0..5 {
        assert_eq!(ask(&app, &mut ada, &numbered(n)).await.0, 200);
    }
    assert_eq!(ask(&app, &mut ada, &numbered(5)).await.0, 429);
    assert_eq!(ask(&app, &mut bob, &numbered(5)).await.0, 200);
    assert_eq!(waiting(&app).len(), 6);
    assert!(app.has_event("cimd.approval_requested", Some("too_many")));
    app.clock.advance(std::time::Duration::from_hours(31 * 24));
    assert_eq!(ada.sign_in(&app, None).await.status(), 200);
    assert_eq!(ask(&app, &mut ada, &numbered(7)).await.0, 200);
    assert_eq!(waiting(&app).len(), 1);
}

/// CIMD-09: in policy `loopback`, remote clients may be requested; in `refuse`, none.
#[tokio::test(flavor = "multi_thread")]
async fn only_requestable_scopes_can_be_requested() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let remote = client(STRANGER, "https://tools.example.net/cb");
    assert_eq!(ask(&app, &mut ada, &remote).await.0, 200);
    let unplain = client("https://tools.example.net/x/../y", "https://tools.example.net/cb");
    assert!(!page(&app, &mut ada, &unplain).await.contains("<form"));
    let nowhere = client(STRANGER, "javascript:alert(1)");
    assert!(!page(&app, &mut ada, &nowhere).await.contains("<form"));

    let app = TestApp::start_configured("[cimd]\nunknown = \"refuse\"\n").await;
    let mut ada = app.admin().await;
    let shown = page(&app, &mut ada, &remote).await;
    assert!(!shown.contains("<form") && !shown.contains("reload this page"), "{shown}");
}

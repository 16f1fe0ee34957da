//! Errors of the authorization endpoint: who is told, and how (AUTHZ-10, 12, 18).

use reqwest::Response;
use serde_json::{Value, json};

use crate::error_descriptions::{all_of, is_describing};
use crate::harness::{Client, ConsentPage, TestApp, attribute, authorize_url, header, redirect_parameter};

/// A broken database's error message, which no response may contain.
const INTERNAL: &str = "page 4711 of the file is unreadable";

/// Runs SQL on the server's database, which no command could.
fn sql(app: &TestApp, statements: &str) {
    let db = rusqlite::Connection::open(app.data_dir().join("portcullis.db")).unwrap();
    db.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    db.execute_batch(statements).unwrap();
}

/// Makes every change of this kind fail, like a full or broken disk.
fn break_change(app: &TestApp, change: &str) {
    sql(app, &format!("CREATE TRIGGER broken BEFORE {change} BEGIN SELECT RAISE(ABORT, '{INTERNAL}'); END"));
}

fn mend(app: &TestApp) {
    sql(app, "DROP TRIGGER broken");
}

/// Makes the users' rows unreadable: a handle must have 16 bytes.
fn spoil_users(app: &TestApp) {
    sql(app, "UPDATE user SET handle = CAST(handle || x'00' AS BLOB)");
}

fn mend_users(app: &TestApp) {
    sql(app, "UPDATE user SET handle = substr(handle, 1, 16)");
}

pub fn with(app: &TestApp, client: &Client, changes: &[(&'static str, &str)]) -> String {
    let mut parameters = client.request(app);
    parameters.extend(changes.iter().map(|(name, value)| (*name, (*value).to_owned())));
    authorize_url(app, &parameters)
}

fn shows_no_internals(text: &str) {
    for internal in
        [INTERNAL, "4711", "SQL", "sqlite", "trigger", "access_grant", "no such", ".rs:", "expected 16"]
    {
        assert!(!text.contains(internal), "{internal}: {text}");
    }
}

/// Asserts that the client is told of a fault like of any other error.
async fn is_told(app: &TestApp, response: Response, status: u16, error: &str) {
    assert_eq!(response.status(), status);
    let location = header(response.headers(), "location").unwrap();
    assert!(location.starts_with("http://localhost:5123/callback?error="), "{location}");
    assert_eq!(redirect_parameter(&response, "error").as_deref(), Some(error));
    assert_eq!(redirect_parameter(&response, "state").as_deref(), Some("st ate&1"));
    assert_eq!(redirect_parameter(&response, "iss"), Some(app.origin.clone()));
    assert_eq!(redirect_parameter(&response, "code"), None);
    assert!(is_describing(&redirect_parameter(&response, "error_description").unwrap()));
    shows_no_internals(&all_of(response).await.1);
}

/// AUTHZ-18: once client and redirect URI are valid, the client is told of a fault, with `state` and `iss` and
/// without internals. Nothing is left half done, and everything works after a repair.
#[tokio::test(flavor = "multi_thread")]
async fn a_fault_after_validation_is_told_to_the_client() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let client = app.client().await;
    let url = client.authorize_url(&app);

    break_change(&app, "INSERT ON authorization_transaction");
    let unavailable = "temporarily_unavailable";
    is_told(&app, ada.get(&app, &url).await, 302, unavailable).await;
    let posted = app.http.post(app.url("/authorize")).form(&client.request(&app)).send().await.unwrap();
    is_told(&app, posted, 303, unavailable).await;
    mend(&app);

    let page = ada.consent_page(&app, &url).await;
    break_change(&app, "INSERT ON access_grant");
    is_told(&app, ada.decide(&app, &page, "approve").await, 303, unavailable).await;
    mend(&app);
    // The fault rolled back the whole decision.
    assert!(redirect_parameter(&ada.decide(&app, &page, "approve").await, "code").is_some());
    assert_eq!(app.events().iter().filter(|(event, _)| event == "authz.approved").count(), 1);

    let page = ada.consent_page(&app, &url).await;
    break_change(&app, "INSERT ON audit");
    is_told(&app, ada.decide(&app, &page, "deny").await, 303, unavailable).await;
    mend(&app);

    // The stored data are invalid.
    spoil_users(&app);
    is_told(&app, ada.get(&app, &page.url).await, 302, "server_error").await;
    is_told(&app, ada.get(&app, &with(&app, &client, &[("prompt", "none")])).await, 302, "login_required")
        .await;
    mend_users(&app);
    assert!(redirect_parameter(&ada.decide(&app, &page, "approve").await, "code").is_some());
}

/// AUTHZ-18: the same if an earlier session counts, which is read before anything is shown.
#[tokio::test(flavor = "multi_thread")]
async fn a_fault_with_the_session_is_told_to_the_client() {
    let app = TestApp::start_https("").await;
    let mut ada = app.admin().await;
    let client = app.client().await;
    spoil_users(&app);
    for changes in [&[][..], &[("prompt", "none")]] {
        let told = ada.get(&app, &with(&app, &client, changes)).await;
        is_told(&app, told, 302, "server_error").await;
    }
    mend_users(&app);
    assert_eq!(ada.get(&app, &client.authorize_url(&app)).await.status(), 200);
}

/// AUTHZ-18, AUTHZ-02: before client and redirect URI are known to be valid, the user is told of a fault on a
/// page.
#[tokio::test(flavor = "multi_thread")]
async fn a_fault_before_validation_is_told_to_the_person() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let url = client.authorize_url(&app);
    let faults: [(&str, String, &str, &str); 3] = [
        (
            "the table is gone",
            url.clone(),
            "PRAGMA legacy_alter_table = ON; ALTER TABLE client RENAME TO away",
            "PRAGMA legacy_alter_table = ON; ALTER TABLE away RENAME TO client",
        ),
        (
            "the row makes no sense",
            url.clone(),
            "UPDATE client SET scope = 'a\"b'",
            "UPDATE client SET scope = ''",
        ),
        // A refusal that cannot be recorded becomes a fault.
        (
            "no record can be written",
            url.replace("%3A5123%2F", "%3A5123%2Felsewhere%2F"),
            "CREATE TRIGGER broken BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'page 4711'); END",
            "DROP TRIGGER broken",
        ),
    ];
    for (what, url, spoil, repair) in faults {
        sql(&app, spoil);
        let response = app.http.get(&url).send().await.unwrap();
        assert!(header(response.headers(), "location").is_none(), "{what}");
        assert_eq!(header(response.headers(), "content-type"), Some("text/html; charset=utf-8"), "{what}");
        let (status, text) = all_of(response).await;
        assert!(status == 500 || status == 503, "{what}: {status}");
        assert!(text.contains("data-testid=\"error\""), "{what}: {text}");
        shows_no_internals(&text);
        sql(&app, repair);
    }
    assert_eq!(app.http.get(&url).send().await.unwrap().status(), 200);
}

/// Unverified clients with remote redirect URIs, and one on this computer.
async fn remote(app: &TestApp) -> [Client; 3] {
    let uris = ["https://app.example/cb?tenant=7", "com.example.app:/cb", "http://localhost/cb"];
    let metadata =
        json!({"client_name": "Web thing", "redirect_uris": uris, "token_endpoint_auth_method": "none"});
    let body: Value = app.register(&metadata).await.json().await.unwrap();
    let id = body["client_id"].as_str().unwrap();
    uris.map(|uri| Client { id: id.to_owned(), redirect_uri: uri.to_owned() })
}

/// Asserts that the response is the page in between, which names the receiver and has a link to continue.
async fn is_asked_about(app: &TestApp, response: Response, error: &str) {
    assert_eq!(response.status(), 400, "{error}");
    assert!(header(response.headers(), "location").is_none(), "{error}");
    assert!(header(response.headers(), "refresh").is_none(), "{error}");
    let html = response.text().await.unwrap();
    assert!(html.contains("<bdi>app.example</bdi>") && !html.contains("http-equiv=\"refresh\""), "{html}");
    let link = html.split("<a ").find(|tag| tag.contains("data-testid=\"continue\"")).unwrap();
    let href = attribute(link, "href").unwrap();
    let href = href.replace("&amp;", "&").replace("&#x2F;", "/").replace("&#x27;", "'");
    let url = url::Url::parse(&href).unwrap();
    assert!(href.starts_with("https://app.example/cb?tenant=7&"), "{href}");
    let find = |name: &str| url.query_pairs().find(|(n, _)| n == name).map(|(_, value)| value.into_owned());
    assert_eq!(find("error").as_deref(), Some(error), "{href}");
    assert_eq!(find("state").as_deref(), Some("st ate&1"), "{href}");
    assert_eq!(find("iss"), Some(app.origin.clone()), "{href}");
}

/// AUTHZ-12: no error, at any stage, is redirected to an unverified https URI by itself: the user sees which
/// host it would be and may continue. An error for the user's own computer or for a verified client is
/// redirected at once.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_redirect_to_an_unverified_client_needs_a_click() {
    let app = TestApp::start_configured("[registration]\nremote_redirects = true").await;
    let mut ada = app.admin().await;
    let [https, scheme, loopback] = remote(&app).await;
    let errors: &[(&[(&'static str, &str)], &str)] = &[
        (&[("response_type", "token")], "unsupported_response_type"),
        (&[("code_challenge_method", "plain")], "invalid_request"),
        (&[("resource", "https://elsewhere.example/mcp")], "invalid_target"),
        (&[("scope", "made.up")], "invalid_scope"),
        (&[("prompt", "none")], "login_required"),
    ];
    for (changes, error) in errors {
        is_asked_about(&app, ada.get(&app, &with(&app, &https, changes)).await, error).await;
        for local in [&scheme, &loopback] {
            let told = ada.get(&app, &with(&app, local, changes)).await;
            assert_eq!(told.status(), 302, "{error}");
            let location = header(told.headers(), "location").unwrap();
            assert!(location.starts_with(&format!("{}?error={error}", local.redirect_uri)), "{location}");
        }
    }
    // The same holds after the user was asked.
    let page = ada.consent_page(&app, &https.authorize_url(&app)).await;
    is_asked_about(&app, ada.decide(&app, &page, "deny").await, "access_denied").await;
    assert!(app.has_event("authz.denied", Some("refused")));
    let page = ada.consent_page(&app, &https.authorize_url(&app)).await;
    break_change(&app, "INSERT ON access_grant");
    is_asked_about(&app, ada.decide(&app, &page, "approve").await, "temporarily_unavailable").await;
    mend(&app);

    app.console(&["client", "verify", &https.id]);
    let told = ada.get(&app, &with(&app, &https, errors[0].0)).await;
    assert_eq!(told.status(), 302);
    let page = ada.consent_page(&app, &https.authorize_url(&app)).await;
    let told = ada.decide(&app, &page, "deny").await;
    assert_eq!(redirect_parameter(&told, "error").as_deref(), Some("access_denied"));
}

/// AUTHZ-10: a response to a POST redirects with 303 and to a GET with 302, so that no browser repeats a form
/// at the client; it is not cached and sends no Referer.
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_repeats_a_form() {
    let app = TestApp::start_https("").await;
    let mut ada = app.admin().await;
    let [client, ..] = remote(&app).await;
    app.console(&["client", "verify", &client.id]);
    let post =
        |parameters: Vec<(&'static str, String)>| app.http.post(app.url("/authorize")).form(&parameters);
    let request = |changes: &[(&'static str, &str)]| {
        let mut parameters = client.request(&app);
        parameters.extend(changes.iter().map(|(name, value)| (*name, (*value).to_owned())));
        parameters.into_iter().collect::<Vec<_>>()
    };
    let wrong = [("scope", "made.up")];
    let question = |html: String| ConsentPage::of(String::new(), html);
    let page = question(ada.get(&app, &client.authorize_url(&app)).await.text().await.unwrap());
    let mut answers = vec![
        (302, ada.get(&app, &with(&app, &client, &wrong)).await),
        (303, ada.send(post(request(&wrong))).await),
        (303, ada.send(post(request(&[("prompt", "none")]))).await),
        (303, ada.decide(&app, &page, "deny").await),
    ];
    let page = question(ada.get(&app, &client.authorize_url(&app)).await.text().await.unwrap());
    answers.push((303, ada.decide(&app, &page, "approve").await));
    // Remembered from here on.
    answers.push((302, ada.get(&app, &client.authorize_url(&app)).await));
    answers.push((303, ada.send(post(request(&[]))).await));
    for (i, (status, answer)) in answers.into_iter().enumerate() {
        assert_eq!(answer.status(), status, "{i}");
        let location = header(answer.headers(), "location").unwrap();
        assert!(location.starts_with("https://app.example/cb?tenant=7&"), "{i}: {location}");
        assert_eq!(location.contains("code=ac_"), i >= 4, "{i}: {location}");
        assert_eq!(header(answer.headers(), "cache-control"), Some("no-store"), "{i}");
        assert_eq!(header(answer.headers(), "referrer-policy"), Some("no-referrer"), "{i}");
    }
}

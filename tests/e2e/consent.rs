//! Consent with several sign-ins, tabs and browsers at once: who is asked, when, and whose answer counts
//! (AUTHZ-13, 15, 16, 17, SESSION-01, 09).

use std::time::Duration;

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::harness::{
    Browser, Client, ConsentPage, TestApp, attribute, authorize_url, error_of, header, redirect_parameter,
};

fn with(app: &TestApp, client: &Client, changes: &[(&'static str, &str)]) -> String {
    let mut parameters = client.request(app);
    parameters.extend(changes.iter().map(|(name, value)| (*name, (*value).to_owned())));
    authorize_url(app, &parameters)
}

fn is_question(html: &str) -> bool {
    html.contains("consent-approve")
}

fn is_sign_in(html: &str) -> bool {
    html.contains("passkey-login")
}

async fn text(response: Response) -> String {
    response.text().await.unwrap()
}

fn code(response: &Response) -> Option<String> {
    redirect_parameter(response, "code")
}

/// Signs in for the request of a sign-in page, as this user in this browser.
async fn sign_in_at(browser: &mut Browser, app: &TestApp, html: &str) -> ConsentPage {
    let transaction = attribute(html, "data-transaction").unwrap();
    let signed_in = browser.sign_in(app, Some(&transaction)).await;
    assert_eq!(signed_in.status(), 200);
    let location: Value = signed_in.json().await.unwrap();
    let url = app.url(location["location"].as_str().unwrap());
    let html = text(browser.get(app, &url).await).await;
    ConsentPage::of(url, html)
}

/// SESSION-01: off loopback, the cookies have the prefix that binds them to this host, its root path and TLS.
#[tokio::test(flavor = "multi_thread")]
async fn cookies_elsewhere_have_the_host_prefix() {
    let app = TestApp::start_https("").await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let signed_in = browser.sign_in(&app, None).await;
    let mut stranger = Browser::new();
    let asked = stranger.get(&app, &client.authorize_url(&app)).await;
    for (response, name) in [(&signed_in, "__Host-sid="), (&asked, "__Host-txn=")] {
        let cookies: Vec<_> = response.headers().get_all("set-cookie").iter().collect();
        let [cookie] = cookies.as_slice() else { panic!("{cookies:?}") };
        let cookie = cookie.to_str().unwrap();
        assert!(cookie.starts_with(name), "{cookie}");
        let attributes: Vec<&str> = cookie.split("; ").skip(1).collect();
        assert_eq!(attributes, ["Path=/", "Secure", "HttpOnly", "SameSite=Lax"], "{cookie}");
    }
    // Answering a client does not end the session: no other program shares this host.
    let page =
        ConsentPage::of(String::new(), text(browser.get(&app, &client.authorize_url(&app)).await).await);
    assert!(code(&browser.decide(&app, &page, "approve").await).is_some());
    assert!(browser.cookies.contains_key("__Host-sid"));
}

/// AUTHZ-16: off loopback an earlier session counts, unless the client wants a new sign-in by `prompt=login`,
/// `select_account`, or an exceeded `max_age`. That sign-in cannot be skipped.
#[tokio::test(flavor = "multi_thread")]
async fn a_forced_sign_in_is_not_walked_around() {
    let app = TestApp::start_https("").await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    app.clock.advance(Duration::from_mins(10));
    assert!(is_question(&text(browser.get(&app, &client.authorize_url(&app)).await).await));
    for fresh in [("max_age", "600"), ("max_age", "4000000000"), ("prompt", "consent"), ("prompt", "unknown")]
    {
        let html = text(browser.get(&app, &with(&app, &client, &[fresh])).await).await;
        assert!(is_question(&html), "{fresh:?}");
    }
    for forced in [
        &[("prompt", "login")][..],
        &[("prompt", "login consent")],
        &[("prompt", "select_account")],
        &[("max_age", "599")],
        &[("max_age", "0")],
        &[("prompt", "login"), ("max_age", "600")],
    ] {
        let html = text(browser.get(&app, &with(&app, &client, forced)).await).await;
        assert!(is_sign_in(&html) && !is_question(&html), "{forced:?}");
        let transaction = attribute(&html, "data-transaction").unwrap();
        // The older session does not count here.
        let url = app.url(&format!("/consent?transaction={transaction}"));
        assert!(is_sign_in(&text(browser.get(&app, &url).await).await), "{forced:?}");
        let form = [("transaction", transaction.as_str()), ("decision", "approve"), ("scope", "docs.read")];
        let posted = browser.post_form(&app, "/consent", &form).await;
        assert!(is_sign_in(&text(posted).await), "{forced:?}");
        // A sign-in for something else is recent, but was not made for this request.
        assert_eq!(browser.sign_in(&app, None).await.status(), 200);
        let html_now = text(browser.get(&app, &url).await).await;
        assert_eq!(is_question(&html_now), forced == [("max_age", "599")], "{forced:?}");
        let page = sign_in_at(&mut browser, &app, &html).await;
        let answer = browser.decide(&app, &page, "approve").await;
        let tokens = app.redeem(&client, &code(&answer).unwrap()).await;
        assert_eq!(tokens.status(), 200, "{forced:?}");
        app.clock.advance(Duration::from_mins(10));
    }
}

/// AUTHZ-15, SESSION-01: tabs on loopback do not disturb each other: two requests are signed in to and both are
/// answered, although answering one removes the session cookie.
#[tokio::test(flavor = "multi_thread")]
async fn parallel_tabs_are_answered_each_on_its_own() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let (first, second) = (app.client().await, app.client().await);
    let one = browser.consent_page(&app, &with(&app, &first, &[("state", "one")])).await;
    let other = browser.consent_page(&app, &with(&app, &second, &[("state", "two")])).await;
    let session = browser.cookies.clone();
    assert!(browser.session().is_some());
    let answer = browser.decide(&app, &one, "approve").await;
    assert_eq!(redirect_parameter(&answer, "state").as_deref(), Some("one"));
    assert_eq!(app.redeem(&first, &code(&answer).unwrap()).await.status(), 200);
    assert_eq!(browser.session(), None);
    // A copied cookie is invalid, although the other tab's sign-in continues.
    let mut thief = Browser::new();
    thief.cookies = session;
    assert!(!text(thief.get(&app, &app.url("/")).await).await.contains("connect-client"));

    assert!(is_question(&text(browser.get(&app, &other.url).await).await), "loading the page again");
    let answer = browser.decide(&app, &other, "approve").await;
    assert_eq!(redirect_parameter(&answer, "state").as_deref(), Some("two"));
    assert_eq!(app.redeem(&second, &code(&answer).unwrap()).await.status(), 200);
    // CONSENT-06: the back button shows that the request was answered.
    for page in [&one, &other] {
        assert_eq!(browser.get(&app, &page.url).await.status(), 400);
        assert_eq!(browser.decide(&app, page, "approve").await.status(), 400);
    }
    assert_eq!(app.events().iter().filter(|(event, _)| event == "authz.approved").count(), 2);
}

/// AUTHZ-15: the same off loopback, where a second sign-in of the same user changes the session id.
#[tokio::test(flavor = "multi_thread")]
async fn parallel_tabs_elsewhere_too() {
    let app = TestApp::start_https("").await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let forced = with(&app, &client, &[("prompt", "login")]);
    let [one, other] = [browser.consent_page(&app, &forced).await, browser.consent_page(&app, &forced).await];
    assert!(code(&browser.decide(&app, &one, "approve").await).is_some());
    assert!(code(&browser.decide(&app, &other, "approve").await).is_some());
    let third = browser.consent_page(&app, &forced).await;
    browser.cookies.remove("__Host-sid");
    assert!(is_sign_in(&text(browser.decide(&app, &third, "approve").await).await), "signed out");
}

/// AUTHZ-15, AUTHZ-01: browsers send a form posted by another site without our cookies. It must not detach the
/// browser from its other requests, so it is redirected to the same request by GET.
#[tokio::test(flavor = "multi_thread")]
async fn a_form_of_another_site_cancels_no_request() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let post = |site: &'static str| {
        let request = app.http.post(app.url("/authorize")).form(&client.request(&app));
        request.header("sec-fetch-site", site).send()
    };
    let round = post("cross-site").await.unwrap();
    assert_eq!(round.status(), 303);
    assert!(header(round.headers(), "set-cookie").is_none());
    let location = header(round.headers(), "location").unwrap();
    assert!(location.starts_with("/authorize?"), "{location}");
    let mut browser = app.admin().await;
    let page = browser.get(&app, &app.url(location)).await;
    assert_eq!(page.status(), 200);
    let page = sign_in_at(&mut browser, &app, &text(page).await).await;
    let answer = browser.decide(&app, &page, "approve").await;
    assert_eq!(redirect_parameter(&answer, "state").as_deref(), Some("st ate&1"));
    assert_eq!(post("same-origin").await.unwrap().status(), 200);
    // A form too long for a URL is handled as it is; a body that is not a form is refused.
    let long: Vec<(&str, String)> =
        client.request(&app).into_iter().chain([("login_hint", "x".repeat(9000))]).collect();
    let posted = app.http.post(app.url("/authorize")).form(&long).header("sec-fetch-site", "cross-site");
    assert_eq!(posted.send().await.unwrap().status(), 200);
    let no_form = app.http.post(app.url("/authorize")).json(&client.request(&app)).send().await.unwrap();
    assert_eq!(no_form.status(), 400);
}

/// SESSION-09: when another user signs in, the first user's open requests in this browser end, and the page
/// says so.
#[tokio::test(flavor = "multi_thread")]
async fn another_user_cancels_what_was_open() {
    for (https, start) in [(false, TestApp::start().await), (true, TestApp::start_https("").await)] {
        let app = start;
        let mut ada = app.admin().await;
        let mut bob = app.enrol("bob", &[]).await;
        let client = app.client().await;
        let (open, question) = if https {
            let html = text(ada.get(&app, &client.authorize_url(&app)).await).await;
            let page = ConsentPage::of(String::new(), html);
            (app.url(&format!("/consent?transaction={}", page.transaction)), page)
        } else {
            let page = ada.consent_page(&app, &client.authorize_url(&app)).await;
            (page.url.clone(), page)
        };
        // Bob uses the same browser with his own passkey.
        bob.cookies = ada.cookies.clone();
        let forced = with(&app, &client, &[("prompt", "login")]);
        let his = bob.consent_page(&app, &forced).await;
        ada.cookies = bob.cookies.clone();
        let gone = ada.get(&app, &open).await;
        assert_eq!(gone.status(), 400);
        assert!(text(gone).await.contains("another person has signed in"));
        assert_eq!(ada.decide(&app, &question, "approve").await.status(), 400);
        assert!(app.has_event("authz.denied", Some("user_changed")));
        assert!(code(&bob.decide(&app, &his, "approve").await).is_some());
        let approved: Vec<_> =
            app.audit().into_iter().filter(|record| record["event"] == "authz.approved").collect();
        assert_eq!(approved.len(), 1);
        // A question that was Bob's is not shown to another user who signs in.
        let his = bob.consent_page(&app, &forced).await;
        ada.cookies = bob.cookies.clone();
        let refused = ada.sign_in(&app, Some(&his.transaction)).await;
        assert_eq!(refused.status(), 400);
        assert!(app.has_event("webauthn.failed", Some("user_changed")));
    }
}

/// SESSION-04, SESSION-09: signing out leaves no open request that another user could answer.
#[tokio::test(flavor = "multi_thread")]
async fn signing_out_cancels_what_was_open() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let client = app.client().await;
    let page = ada.consent_page(&app, &client.authorize_url(&app)).await;
    let html = text(ada.get(&app, &app.url("/")).await).await;
    let csrf = attribute(html.split("name=\"csrf\"").nth(1).unwrap(), "value").unwrap();
    assert_eq!(ada.post_form(&app, "/sign-out", &[("csrf", &csrf)]).await.status(), 303);
    assert_eq!(ada.decide(&app, &page, "approve").await.status(), 400);
    assert!(!app.has_event("authz.approved", None));
}

/// AUTHZ-17: a user who is disabled while being asked allows nothing, and their pending code is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_user_allows_nothing() {
    for app in [TestApp::start().await, TestApp::start_https("").await] {
        app.admin().await;
        let mut bob = app.enrol("bob", &[]).await;
        let client = app.client().await;
        let forced = with(&app, &client, &[("prompt", "login")]);
        let code = {
            let page = bob.consent_page(&app, &forced).await;
            code(&bob.decide(&app, &page, "approve").await).unwrap()
        };
        let page = bob.consent_page(&app, &forced).await;
        app.console(&["user", "disable", "bob"]);
        let answer = text(bob.decide(&app, &page, "approve").await).await;
        assert!(is_sign_in(&answer) && answer.contains("You were signed out meanwhile; sign in again."));
        assert_eq!(error_of(app.redeem(&client, &code).await).await.1, "invalid_grant");
        app.console(&["user", "enable", "bob"]);
        assert!(is_sign_in(&text(bob.decide(&app, &page, "approve").await).await), "nothing comes back");
        assert_eq!(error_of(app.redeem(&client, &code).await).await.1, "invalid_grant");
        assert_eq!(app.events().iter().filter(|(event, _)| event == "authz.approved").count(), 1);
    }
}

/// AUTHZ-13: a user who may grant none of the requested scopes is told why and who can change that; the client
/// is told when the user says so; once an administrator has helped, the same page asks.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_grant_nothing_is_told_who_can_help() {
    let rules = "[groups]\nengineers = [\"docs.full\"]\n[scopes.\"docs.full\"]\ntitle = \"Read whole documents\"\n[tools.docs_read]\nscope = \"docs.full\"\n";
    let app = TestApp::start_configured(rules).await;
    app.admin().await;
    let mut ines = app.enrol("ines", &[]).await;
    let client = app.client().await;
    let url = with(&app, &client, &[("scope", "docs.full")]);
    let page = ines.consent_page(&app, &url).await;
    assert!(!is_question(&page.html));
    let id = app.console(&["user", "show", "ines"])["user"]["id"].as_str().unwrap().to_owned();
    for part in [
        "Test client",
        "Read whole documents",
        "Only members of the group engineers",
        "Ask <bdi data-testid=\"who-can-grant\">ada</bdi>",
        &format!("portcullis user groups {id} --add engineers"),
    ] {
        assert!(page.html.contains(part), "{part}: {}", page.html);
    }
    assert!(app.has_event("authz.denied", Some("not_entitled")));
    // Nothing posted from there grants anything.
    let answer = ines.allow(&app, &page, &["docs.full", "docs.read"], None).await;
    assert_eq!(redirect_parameter(&answer, "error").as_deref(), Some("access_denied"));
    assert_eq!(redirect_parameter(&answer, "state").as_deref(), Some("st ate&1"));
    assert_eq!(redirect_parameter(&answer, "iss"), Some(app.origin.clone()));

    let page = ines.consent_page(&app, &url).await;
    app.console(&["user", "groups", "ines", "--add", "engineers"]);
    let html = text(ines.get(&app, &page.url).await).await;
    assert!(is_question(&html));
    let page = ConsentPage::of(page.url, html);
    assert!(code(&ines.decide(&app, &page, "approve").await).is_some());

    // A partly allowed request is narrowed, and the page says so.
    app.console(&["user", "groups", "ines", "--remove", "engineers"]);
    let page = ines.consent_page(&app, &with(&app, &client, &[("scope", "docs.full docs.read")])).await;
    assert_eq!(page.scopes, ["docs.read"]);
    assert!(page.html.contains("Read whole documents") && page.html.contains("you are not entitled to it"));
}

/// CONSENT-01, CONSENT-08: the page shows the real lifetimes: a client without refresh tokens renews nothing.
#[tokio::test(flavor = "multi_thread")]
async fn lifetimes_are_those_of_this_client() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let metadata = json!({"client_name": "Once", "redirect_uris": ["http://localhost/cb"], "token_endpoint_auth_method": "none"});
    let registered: Value = app.register(&metadata).await.json().await.unwrap();
    let once = Client {
        id: registered["client_id"].as_str().unwrap().to_owned(),
        redirect_uri: "http://localhost:7/cb".to_owned(),
    };
    let page = ada.consent_page(&app, &once.authorize_url(&app)).await;
    assert!(
        page.html.contains("Access lasts 15 minutes.") && !page.html.contains("renewed"),
        "{}",
        page.html
    );
    assert!(page.html.contains("Not verified (self-registered)"));
}

/// REDIR-07, REDIR-08, AUTHZ-07: after the first request no address, scope or state is read from the browser
/// again; redirects lead to our own pages, whatever a parameter says.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_request_is_read_again() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let client = app.client().await;
    let page = ada.consent_page(&app, &client.authorize_url(&app)).await;
    let extra = "&redirect_uri=http://localhost:5123/evil&state=other&client_id=other&scope=other&return_to=//evil.example&next=/%5Cevil";
    let html = text(ada.get(&app, &format!("{}{extra}", page.url)).await).await;
    assert!(!html.contains("evil") && is_question(&html));
    let form = [
        ("transaction", page.transaction.as_str()),
        ("csrf", &page.csrf),
        ("decision", "approve"),
        ("scope", "docs.read"),
        ("redirect_uri", "http://evil.example/cb"),
        ("state", "other"),
        ("client_id", "other"),
        ("code_challenge", "other"),
        ("return_to", "//evil.example"),
    ];
    let answer = ada.post_form(&app, "/consent", &form).await;
    let location = header(answer.headers(), "location").unwrap();
    assert!(location.starts_with("http://localhost:5123/callback?code=ac_"), "{location}");
    assert_eq!(redirect_parameter(&answer, "state").as_deref(), Some("st ate&1"));
    assert_eq!(app.redeem(&client, &code(&answer).unwrap()).await.status(), 200);

    for odd in [
        "//evil.example",
        "/\\evil.example",
        "/%09/evil.example",
        "https://evil.example",
        "../evil",
        "t_\u{e9}",
    ] {
        let started = ada.post_json(&app, "/login/start", &json!({"transaction": odd})).await;
        assert_eq!(started.status(), 400, "{odd}");
        let asked = url::form_urlencoded::byte_serialize(odd.as_bytes()).collect::<String>();
        let shown = ada.get(&app, &app.url(&format!("/consent?transaction={asked}"))).await;
        assert_eq!(shown.status(), 400, "{odd}");
        assert!(header(shown.headers(), "location").is_none());
    }
    for path in
        ["//evil.example", "/%2F%2Fevil.example", "/\\evil.example", "/%09/evil.example", "/%5Cevil.example"]
    {
        let answer = ada.get(&app, &format!("{}{path}", app.origin)).await;
        if let Some(location) = header(answer.headers(), "location") {
            assert!(location.starts_with(&app.origin), "{path}: {location}");
        }
    }
}

/// CONSENT-10: with the setting for clients that redirect onward, decisions are answered with a page that leads
/// to the client.
#[tokio::test(flavor = "multi_thread")]
async fn an_interstitial_leads_to_the_client() {
    let app = TestApp::start_configured("[consent]\ninterstitial = true\n").await;
    let mut ada = app.admin().await;
    let client = app.client().await;
    for (decision, expected) in [("approve", "code=ac_"), ("deny", "error=access_denied")] {
        let page = ada.consent_page(&app, &client.authorize_url(&app)).await;
        assert!(ada.session().is_some());
        let answer = ada.decide(&app, &page, decision).await;
        assert_eq!(answer.status(), 200);
        assert!(header(answer.headers(), "location").is_none());
        assert_eq!(header(answer.headers(), "cache-control"), Some("no-store"));
        assert_eq!(header(answer.headers(), "referrer-policy"), Some("no-referrer"));
        assert_eq!(ada.session(), None, "the client is what comes next");
        let html = text(answer).await;
        let uri = format!("http://localhost:5123/callback?{expected}");
        for part in [format!("content=\"0; url={uri}"), format!("href=\"{uri}")] {
            assert!(html.contains(&part) || html.contains(&part.replace('/', "&#x2F;")), "{part}: {html}");
        }
    }
    // A refusal before the question is redirected as usual.
    let refused = ada.get(&app, &with(&app, &client, &[("scope", "made.up")])).await;
    assert_eq!(refused.status(), 302);
}

/// CONSENT-03, AUTHZ-10: only POST decides, and no response makes the browser repeat it elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn only_post_decides() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let client = app.client().await;
    let page = ada.consent_page(&app, &client.authorize_url(&app)).await;
    let before = app.events().len();
    for method in [Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS, Method::PATCH] {
        let form =
            [("transaction", page.transaction.as_str()), ("csrf", &page.csrf), ("decision", "approve")];
        let request = app.http.request(method.clone(), &page.url).header("origin", &app.origin).form(&form);
        assert_eq!(ada.send(request).await.status(), 405, "{method}");
    }
    assert_eq!(app.events().len(), before);
    assert_eq!(ada.decide(&app, &page, "approve").await.status(), 303);
}

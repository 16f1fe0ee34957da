//! The account page: a user's connected applications and sessions, which the user can see and end (REVOKE-07,
//! SESSION-06).

mod forms;

use std::time::Duration;

use data_encoding::BASE64;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::harness::{
    Browser, Client, TestApp, Tokens, account_csrf, authorize_url, error_of, header, redirect_parameter,
};

const CHANGE: &str = "/account/change";

async fn works(app: &TestApp, tokens: &Tokens) -> bool {
    app.call_tool(&tokens.access, "whoami", json!({})).await.status() == 200
}

/// Gets tokens for a client, with a user's browser session.
async fn tokens(app: &TestApp, browser: &mut Browser, client: &Client) -> Tokens {
    app.tokens(browser, client).await
}

fn disconnect(client: &Client) -> [(&str, &str); 2] {
    [("action", "disconnect"), ("client", &client.id)]
}

/// Another signed-in browser of a user, with its own passkey.
pub async fn another(app: &TestApp, user: &str) -> Browser {
    let link = app.console(&["user", "link", user]);
    let mut browser = Browser::new();
    let finished = browser.follow_link(app, link["link"].as_str().unwrap()).await;
    assert_eq!(finished.status(), 200);
    browser
}

pub async fn is_signed_in(app: &TestApp, browser: &mut Browser) -> bool {
    browser.get(app, &app.url("/")).await.text().await.unwrap().contains("connect-client")
}

/// The names of the sessions on an account page; the current one first.
fn sessions(html: &str) -> (String, Vec<String>) {
    let of = |row: &str| {
        let (_, rest) = row.split_once("name=\"session\" value=\"").unwrap();
        rest.split('"').next().unwrap().to_owned()
    };
    let rows: Vec<&str> = html.split("data-testid=\"browser\"").skip(1).collect();
    let this = rows.iter().find(|row| row.contains("This browser")).unwrap();
    (of(this), rows.iter().filter(|row| !row.contains("This browser")).map(|row| of(row)).collect())
}

fn records(app: &TestApp, event: &str, outcome: &str) -> Vec<Value> {
    let of = |record: &Value| record["event"] == event && record["outcome"] == outcome;
    app.audit().into_iter().filter(of).collect()
}

async fn is_active(app: &TestApp, server: &Value, token: &str) -> bool {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let pair = format!("{}:{}", text(&server["resource_server"]["id"]), text(&server["client_secret"]));
    let request = app.http.post(app.url("/introspect")).form(&[("token", token)]);
    let request = request.header("authorization", format!("Basic {}", BASE64.encode(pair.as_bytes())));
    request.send().await.unwrap().json::<Value>().await.unwrap()["active"] == true
}

/// REVOKE-07, RS-08, REFRESH-08, CONSENT-07, INTRO-06: disconnecting ends every grant of this user to this
/// client before it is answered: access tokens, refresh tokens, and a pending code. Grants of other users and
/// to other clients continue. The record names the user.
#[tokio::test(flavor = "multi_thread")]
async fn disconnecting_ends_all_that_a_client_holds() {
    let app = TestApp::start_https("").await;
    app.admin().await;
    let server = app.console(&["rs", "add", "elsewhere", "--audience", &app.mcp_url()]);
    let mut ines = app.enrol("ines", &[]).await;
    let mut bob = app.enrol("bob", &[]).await;
    let (client, other) = (app.client().await, app.client().await);
    let laptop = tokens(&app, &mut ines, &client).await;
    let desktop = tokens(&app, &mut ines, &client).await;
    let waiting = ines.authorize(&app, &client).await;
    let of_other = tokens(&app, &mut ines, &other).await;
    let of_bob = tokens(&app, &mut bob, &client).await;
    for held in [&laptop, &desktop, &of_other, &of_bob] {
        assert!(works(&app, held).await && is_active(&app, &server, &held.access).await);
    }

    let answer = ines.change(&app, &disconnect(&client)).await;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    for held in [&laptop, &desktop] {
        assert_eq!(app.call_tool(&held.access, "whoami", json!({})).await.status(), 401);
        assert!(!is_active(&app, &server, &held.access).await);
        assert_eq!(error_of(app.refresh(&client, &held.refresh).await).await.1, "invalid_grant");
    }
    assert_eq!(error_of(app.redeem(&client, &waiting).await).await.1, "invalid_grant");
    assert!(works(&app, &of_other).await && works(&app, &of_bob).await);
    let location = header(answer.headers(), "location").unwrap().to_owned();
    let page = ines.get(&app, &app.url(&location)).await.text().await.unwrap();
    assert!(
        page.contains("Application disconnected.") && !page.contains(&client.id) && page.contains(&other.id)
    );
    let again = ines.change(&app, &disconnect(&client)).await;
    assert_eq!(again.status(), StatusCode::NOT_FOUND);

    let me = app.console(&["user", "show", "ines"])["user"]["id"].clone();
    let revoked = records(&app, "token.revoked", "allowed");
    assert_eq!(revoked.len(), 3);
    for record in &revoked {
        assert_eq!(record["actor"], json!({"type": "user", "id": me}));
        assert_eq!((&record["client_id"], &record["detail"]["token"]), (&json!(client.id), &json!("grant")));
    }
    let withdrawn = records(&app, "consent.withdrawn", "allowed");
    assert_eq!((withdrawn.len(), &withdrawn[0]["detail"]["grants_ended"]), (1, &json!(3)));
    let app = app.restart().await;
    assert!(!works(&app, &laptop).await && works(&app, &of_bob).await, "over a restart too");
}

/// SESSION-06: signed-in browsers are told apart by what they call themselves, in the words of a fixed list, whatever their
/// header contains.
#[tokio::test(flavor = "multi_thread")]
async fn signed_in_browsers_have_names() {
    let app = TestApp::start_https("").await;
    let mut ada = app.admin().await;
    let agents = [
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) Version/26.0 Mobile/15E148 Safari/604.1",
        "<script>alert(1)</script> Portcullis says: your administrator",
    ];
    for agent in agents {
        ada.agent = Some(agent);
        // Without its cookie it is another browser.
        ada.cookies.retain(|name, _| !name.contains("sid"));
        assert_eq!(ada.sign_in(&app, None).await.status(), 200);
    }
    let page = ada.account(&app).await;
    for words in
        ["<p>Chrome on Windows, at ", "<p>Safari on iPhone, at ", "<strong>This browser</strong>, at "]
    {
        assert!(page.contains(words), "{words}: {page}");
    }
    assert!(!page.contains("alert(1)") && !page.contains("your administrator"), "{page}");
    let listed = app.console(&["session", "list", "--user", "ada"]);
    let names: Vec<_> =
        listed["sessions"].as_array().unwrap().iter().map(|one| one["browser"].clone()).collect();
    for name in [json!("Chrome on Windows"), json!("Safari on iPhone"), Value::Null] {
        assert!(names.contains(&name), "{names:?}");
    }
    // Using a passkey gives the session a new id; its browser keeps its name.
    ada.agent = Some(agents[0]);
    assert_eq!(ada.sign_in(&app, None).await.status(), 200);
    assert!(ada.account(&app).await.contains("<strong>This browser</strong>, Chrome on Windows, at "));
}

/// REVOKE-07, SESSION-06: the page shows the user's clients: what they may do, where, since when, and their
/// last use; and nothing of other users.
#[tokio::test(flavor = "multi_thread")]
async fn the_account_page_shows_only_the_users_own_access() {
    let app = TestApp::start_https("").await;
    let mut ada = app.admin().await;
    let mut ines = app.enrol("ines", &[]).await;
    let client = app.client().await;
    let nobody = Browser::new().get(&app, &app.url("/account")).await;
    assert_eq!(nobody.status(), StatusCode::OK);
    let page = nobody.text().await.unwrap();
    assert!(page.contains("passkey-login") && !page.contains("Applications that act for you"), "{page}");

    let empty = ines.account(&app).await;
    assert!(empty.contains("no-clients") && empty.contains("none-remembered"));
    let held = tokens(&app, &mut ines, &client).await;
    app.clock.advance(Duration::from_mins(20));
    app.refresh(&client, &held.refresh).await;
    app.clock.advance(Duration::from_mins(10));
    let page = ines.account(&app).await;
    for words in [
        "<bdi>Test client</bdi>",
        "Not verified (self-registered): the name is the program’s own claim",
        "Search and read the documentation",
        &app.mcp_url(),
        ">30 minutes ago</time>, for another",
        ">10 minutes ago</time> from 127.0.0.1",
        &client.id,
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    app.console(&["client", "verify", &client.id]);
    assert!(ines.account(&app).await.contains("Verified by your administrator"));
    // An administrator too sees only their own account.
    let of_ada = ada.account(&app).await;
    assert!(of_ada.contains("no-clients") && !of_ada.contains(&client.id) && !of_ada.contains("ines"));
    for name in sessions(&page).1.iter().chain([&sessions(&page).0]) {
        assert!(!of_ada.contains(name));
    }
    // The message about a change appears only to the user who made it, and not through a stranger's link.
    for forged in ["disconnected", "Application disconnected.", "x"] {
        let page = ines.get(&app, &app.url(&format!("/account?done={forged}"))).await.text().await.unwrap();
        assert!(!page.contains("data-testid=\"done\""));
    }
}

/// REDIR-08: a user who opens the account page signed out comes back to it after signing in; only the names of
/// our own pages are accepted as destinations, never an address.
#[tokio::test(flavor = "multi_thread")]
async fn signing_in_leads_back_to_the_account() {
    let app = TestApp::start_https("").await;
    let mut ada = app.admin().await;
    let mut lead = async |destination: Value| {
        let started = ada.post_json(&app, "/login/start", &json!({"transaction": null})).await;
        let started: Value = started.json().await.unwrap();
        let response = ada.assert(&app, started["options"].clone());
        let finish =
            json!({"ceremony": started["ceremony"], "response": response, "destination": destination});
        let finished = ada.post_json(&app, "/login/finish", &finish).await;
        assert_eq!(finished.status(), 200, "{destination}");
        finished.json::<Value>().await.unwrap()["location"].take()
    };
    assert_eq!(lead(json!("account")).await, "/account");
    for elsewhere in [
        json!(null),
        json!(""),
        json!("/account"),
        json!("Account"),
        json!("//evil.example"),
        json!("/\\evil.example"),
        json!("/%09/evil.example"),
        json!("https://evil.example/"),
        json!("javascript:alert(1)"),
    ] {
        assert_eq!(lead(elsewhere.clone()).await, "/", "{elsewhere}");
    }
}

/// REVOKE-07: an application can use what its user is entitled to now, whatever was allowed earlier, and
/// nothing once it is disabled; the page says so.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_says_what_an_application_can_do_now() {
    let rules = "[groups]\neveryone = [\"docs.read\"]\nreaders = [\"docs.list\"]\n[scopes.\"docs.list\"]\ntitle = \"List documents\"\n[tools.docs_read]\nscope = [\"docs.read\", \"docs.list\"]\n";
    let app = TestApp::start_https(rules).await;
    app.admin().await;
    let mut ines = app.enrol("ines", &["readers"]).await;
    let client = app.client().await;
    let mut parameters = client.request(&app);
    parameters.insert("scope", "docs.read docs.list".to_owned());
    let page = ines.consent_page(&app, &authorize_url(&app, &parameters)).await;
    assert!(redirect_parameter(&ines.decide(&app, &page, "approve").await, "code").is_some());
    let page = ines.account(&app).await;
    assert!(!page.contains("not-now") && !page.contains("client-disabled"), "{page}");
    app.console(&["user", "groups", "ines", "--remove", "readers"]);
    let page = ines.account(&app).await;
    let (_, not_now) = page.split_once("data-testid=\"not-now\">").unwrap_or_else(|| panic!("{page}"));
    assert!(not_now.starts_with("List documents"), "{not_now}");
    app.console(&["user", "groups", "ines", "--add", "readers"]);
    assert!(!ines.account(&app).await.contains("not-now"));
}

/// The status and text of a response, without its reference.
async fn said(response: Response) -> (StatusCode, String) {
    let status = response.status();
    let page = response.text().await.unwrap();
    let references = page.split("r_").skip(1).map(|rest| rest[..26].to_owned());
    (status, references.fold(page.clone(), |page, reference| page.replace(&reference, "REFERENCE")))
}

/// REVOKE-07, SESSION-07, AUDIT-06: a request without a session, from another origin, without this session's
/// token, or by GET changes nothing. Another user's items look like missing ones. Each refusal is recorded.
#[tokio::test(flavor = "multi_thread")]
async fn other_requests_change_no_account() {
    let app = TestApp::start_https("").await;
    let mut ada = app.admin().await;
    let mut ines = app.enrol("ines", &[]).await;
    let mut mallory = app.enrol("mallory", &[]).await;
    let client = app.client().await;
    let held = tokens(&app, &mut ines, &client).await;
    let csrf = account_csrf(&ines.account(&app).await);
    let of_mallory = account_csrf(&mallory.account(&app).await);
    let form = |csrf: &str| {
        vec![
            ("csrf".to_owned(), csrf.to_owned()),
            ("action".to_owned(), "disconnect".to_owned()),
            ("client".to_owned(), client.id.clone()),
        ]
    };
    let post = |form: &[(String, String)]| app.http.post(app.url(CHANGE)).form(form);
    let reasons = || -> Vec<String> {
        let denied = records(&app, "consent.withdrawn", "denied");
        denied.iter().map(|record| record["reason"].as_str().unwrap().to_owned()).collect()
    };

    let stranger = Browser::new().send(post(&form(&csrf)).header("origin", &app.origin)).await;
    assert_eq!(stranger.status(), StatusCode::UNAUTHORIZED);
    for origin in ["https://evil.example", "null", "http://auth.example", "https://auth.example.evil.example"]
    {
        let answer = ines.send(post(&form(&csrf)).header("origin", origin)).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{origin}");
    }
    assert_eq!(ines.send(post(&form(&csrf))).await.status(), StatusCode::FORBIDDEN, "no origin at all");
    assert_eq!(reasons(), ["login_required", "origin", "origin", "origin", "origin", "origin"]);
    for wrong in ["", "x", &of_mallory] {
        let answer = ines.send(post(&form(wrong)).header("origin", &app.origin)).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{wrong}");
    }
    let answer = ines.send(post(&form(&csrf)[1..]).header("origin", &app.origin)).await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    assert_eq!(reasons()[6..], ["csrf", "csrf", "csrf", "csrf"]);
    for method in [reqwest::Method::GET, reqwest::Method::HEAD, reqwest::Method::PUT, reqwest::Method::DELETE]
    {
        let request = app.http.request(
            method.clone(),
            app.url(&format!("{CHANGE}?csrf={csrf}&action=disconnect&client={}", client.id)),
        );
        assert_eq!(ines.send(request).await.status(), StatusCode::METHOD_NOT_ALLOWED, "{method}");
    }

    // Mallory cannot end anything of Ines's, whatever she names.
    let (session, _) = sessions(&ines.account(&app).await);
    let passkey =
        app.console(&["user", "passkeys", "ines"])["passkeys"][0]["sha256"].as_str().unwrap().to_owned();
    let mcp = app.mcp_url();
    let foreign = [
        (
            vec![("action", "disconnect"), ("client", client.id.as_str())],
            vec![("action", "disconnect"), ("client", "dyn_nobody")],
        ),
        (
            vec![("action", "forget"), ("client", &client.id), ("resource", &mcp)],
            vec![("action", "forget"), ("client", "dyn_nobody"), ("resource", &mcp)],
        ),
        (
            vec![("action", "sign_out"), ("session", &session)],
            vec![("action", "sign_out"), ("session", "0123456789abcdef")],
        ),
    ];
    for (theirs, unknown) in &foreign {
        let (theirs, unknown) = (mallory.change(&app, theirs).await, mallory.change(&app, unknown).await);
        let (theirs, unknown) = (said(theirs).await, said(unknown).await);
        assert_eq!(theirs.0, StatusCode::NOT_FOUND);
        assert_eq!(theirs, unknown);
    }
    another(&app, "mallory").await;
    let removed = mallory.change(&app, &[("action", "remove_passkey"), ("passkey", &passkey)]).await;
    assert_eq!(removed.status(), StatusCode::NOT_FOUND);
    for nonsense in
        [&[("action", "delete")][..], &[("action", "disconnect")], &[("action", "sign_out"), ("session", "")]]
    {
        assert_eq!(mallory.change(&app, nonsense).await.status(), StatusCode::NOT_FOUND, "{nonsense:?}");
    }
    let me = app.console(&["user", "show", "mallory"])["user"]["id"].clone();
    let unknown: Vec<Value> = app
        .audit()
        .into_iter()
        .filter(|record| record["reason"] == "unknown" && record["outcome"] == "denied")
        .collect();
    assert!(unknown.iter().all(|record| record["actor"]["id"] == me), "{unknown:?}");
    assert_eq!(unknown.len(), 10);

    assert!(
        works(&app, &held).await && is_signed_in(&app, &mut ines).await && is_signed_in(&app, &mut ada).await
    );
    assert!(records(&app, "token.revoked", "allowed").is_empty());
    assert!(records(&app, "webauthn.removed", "allowed").is_empty());
    // After that, the right form still works.
    let answer = ines.send(post(&form(&csrf)).header("origin", &app.origin)).await;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    assert!(!works(&app, &held).await);
}

/// CONSENT-07, REVOKE-07: an answer that lets a client in unasked is shown, and can be forgotten; what the client
/// holds goes on. Disconnecting forgets it too.
#[tokio::test(flavor = "multi_thread")]
async fn a_remembered_answer_is_forgotten() {
    let app = TestApp::start_https("").await;
    let mut ada = app.admin().await;
    let added = app.console(&["client", "add", "Portal", "--redirect-uri", "https://portal.example/cb"]);
    let client = Client {
        id: added["client"]["id"].as_str().unwrap().to_owned(),
        redirect_uri: "https://portal.example/cb".to_owned(),
    };
    let asked = async |ada: &mut Browser| {
        let page = ada.get(&app, &client.authorize_url(&app)).await;
        page.status() == 200
    };
    assert!(asked(&mut ada).await);
    let code = ada.authorize(&app, &client).await;
    let access = app.redeem(&client, &code).await.json::<Value>().await.unwrap()["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(!asked(&mut ada).await);
    app.clock.advance(Duration::from_mins(2));
    let page = ada.account(&app).await;
    assert!(
        page.contains("may come back without asking you, for another 179 days")
            && page.contains("allowed <time")
    );
    let mcp = app.mcp_url();
    let forget = [("action", "forget"), ("client", &client.id), ("resource", &mcp)];
    assert_eq!(ada.change(&app, &forget).await.status(), StatusCode::SEE_OTHER);
    assert!(asked(&mut ada).await);
    assert_eq!(app.call_tool(&access, "whoami", json!({})).await.status(), 200);
    assert_eq!(ada.change(&app, &forget).await.status(), StatusCode::NOT_FOUND);
    assert!(ada.account(&app).await.contains("none-remembered"));

    ada.authorize(&app, &client).await;
    assert!(!asked(&mut ada).await);
    ada.change(&app, &disconnect(&client)).await;
    assert!(asked(&mut ada).await);
    let withdrawn = records(&app, "consent.withdrawn", "allowed");
    let ended: Vec<_> =
        withdrawn.iter().map(|record| record["detail"]["grants_ended"].as_u64().unwrap()).collect();
    assert_eq!((withdrawn.len(), ended[0]), (2, 0));
    assert!(ended[1] > 0 && withdrawn[0]["resource"] == mcp.as_str());
}

/// SESSION-06, SESSION-04, REFRESH-08: a user signs out one browser, all others, or all; their grants continue.
#[tokio::test(flavor = "multi_thread")]
async fn browsers_are_signed_out() {
    let app = TestApp::start_https("").await;
    app.admin().await;
    let mut ines = app.enrol("ines", &[]).await;
    let client = app.client().await;
    let held = tokens(&app, &mut ines, &client).await;
    let (mut laptop, mut phone) = (another(&app, "ines").await, another(&app, "ines").await);
    let mut bob = app.enrol("bob", &[]).await;
    let (of_phone, _) = sessions(&phone.account(&app).await);
    let (this, others) = sessions(&ines.account(&app).await);
    assert_eq!(others.len(), 2);
    assert!(others.contains(&of_phone) && !others.contains(&this));

    let answer = ines.change(&app, &[("action", "sign_out"), ("session", &of_phone)]).await;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    assert!(!is_signed_in(&app, &mut phone).await && is_signed_in(&app, &mut laptop).await);
    assert_eq!(phone.sign_in(&app, None).await.status(), 200);
    ines.change(&app, &[("action", "sign_out_elsewhere")]).await;
    assert!(!is_signed_in(&app, &mut phone).await && !is_signed_in(&app, &mut laptop).await);
    assert!(is_signed_in(&app, &mut ines).await);
    phone.sign_in(&app, None).await;
    let answer = ines.change(&app, &[("action", "sign_out_everywhere")]).await;
    assert_eq!(header(answer.headers(), "location"), Some("/"));
    assert_eq!(header(answer.headers(), "clear-site-data"), Some("\"cookies\", \"storage\""));
    assert!(!ines.cookies.contains_key("__Host-sid"));
    assert!(!is_signed_in(&app, &mut ines).await && !is_signed_in(&app, &mut phone).await);
    assert!(is_signed_in(&app, &mut bob).await && works(&app, &held).await);
    laptop.sign_in(&app, None).await;
    let (this, _) = sessions(&laptop.account(&app).await);
    laptop.change(&app, &[("action", "sign_out"), ("session", &this)]).await;
    assert!(!is_signed_in(&app, &mut laptop).await && works(&app, &held).await);

    let me = app.console(&["user", "show", "ines"])["user"]["id"].clone();
    let ended = records(&app, "session.ended", "allowed");
    let why: Vec<_> = ended
        .iter()
        .filter(|r| r["subject"] == me)
        .map(|r| r["detail"]["because"].as_str().unwrap())
        .collect();
    assert_eq!(
        why,
        [
            "ended_by_user",
            "signed_out_elsewhere",
            "signed_out_elsewhere",
            "signed_out_everywhere",
            "signed_out_everywhere",
            "ended_by_user"
        ]
    );
    assert!(
        ended.iter().filter(|r| r["subject"] == me).all(|r| r["actor"] == json!({"type": "user", "id": me}))
    );
}

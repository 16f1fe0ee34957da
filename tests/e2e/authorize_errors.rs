//! How the authorization endpoint tells of errors: to whom, by which way, and in which words (AUTHZ-10, 12, 18, 19).

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Client, ConsentPage, TestApp, authorize_url, challenge, header, redirect_parameter};

/// What a broken database says of itself, and nobody else may read.
const INTERNAL: &str = "page 4711 of the file is unreadable";

/// Runs SQL beside the server, as no command can.
fn sql(app: &TestApp, statements: &str) {
    let db = rusqlite::Connection::open(app.data_dir().join("portcullis.db")).unwrap();
    db.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    db.execute_batch(statements).unwrap();
}

/// Makes every such change fail, as a disk does that is full or broken.
fn break_change(app: &TestApp, change: &str) {
    sql(app, &format!("CREATE TRIGGER broken BEFORE {change} BEGIN SELECT RAISE(ABORT, '{INTERNAL}'); END"));
}

fn mend(app: &TestApp) {
    sql(app, "DROP TRIGGER broken");
}

/// What is on record of users is unreadable: a handle has 16 bytes and no more.
fn spoil_users(app: &TestApp) {
    sql(app, "UPDATE user SET handle = CAST(handle || x'00' AS BLOB)");
}

fn mend_users(app: &TestApp) {
    sql(app, "UPDATE user SET handle = substr(handle, 1, 16)");
}

fn with(app: &TestApp, client: &Client, changes: &[(&'static str, &str)]) -> String {
    let mut parameters = client.request(app);
    parameters.extend(changes.iter().map(|(name, value)| (*name, (*value).to_owned())));
    authorize_url(app, &parameters)
}

/// Whether a text has only characters that a description may have (RFC 6749 §4.1.2.1).
fn is_describing(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| matches!(b, 0x20..=0x21 | 0x23..=0x5B | 0x5D..=0x7E))
}

/// An answer with everything in it that somebody could read.
async fn all_of(response: Response) -> (StatusCode, String) {
    let status = response.status();
    let headers = format!("{:?}", response.headers());
    (status, headers + &response.text().await.unwrap())
}

fn shows_no_internals(text: &str) {
    for internal in
        [INTERNAL, "4711", "SQL", "sqlite", "trigger", "access_grant", "no such", ".rs:", "expected 16"]
    {
        assert!(!text.contains(internal), "{internal}: {text}");
    }
}

/// The client was told of a fault, as it is told of everything.
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

/// AUTHZ-18: once client and redirect URI are good, the client hears that something broke, with `state` and `iss` and
/// nothing of what it was; nothing is half done, and everything works when it works again.
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
    // The fault undid the decision with everything that belongs to it.
    assert!(redirect_parameter(&ada.decide(&app, &page, "approve").await, "code").is_some());
    assert_eq!(app.events().iter().filter(|(event, _)| event == "authz.approved").count(), 1);

    let page = ada.consent_page(&app, &url).await;
    break_change(&app, "INSERT ON audit");
    is_told(&app, ada.decide(&app, &page, "deny").await, 303, unavailable).await;
    mend(&app);

    // What is stored makes no sense.
    spoil_users(&app);
    is_told(&app, ada.get(&app, &page.url).await, 302, "server_error").await;
    is_told(&app, ada.get(&app, &with(&app, &client, &[("prompt", "none")])).await, 302, "login_required")
        .await;
    mend_users(&app);
    assert!(redirect_parameter(&ada.decide(&app, &page, "approve").await, "code").is_some());
}

/// AUTHZ-18: the same where an earlier session counts, which is read before anything is shown.
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

/// AUTHZ-18, AUTHZ-02: before client and redirect URI are known to be good, a fault is for the person, on a page.
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
        // A refusal that is not on record is not made.
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

/// A client whose answers leave the computer, and for which nobody vouches; besides, where it is on this computer.
async fn remote(app: &TestApp) -> [Client; 3] {
    let uris = ["https://app.example/cb?tenant=7", "com.example.app:/cb", "http://localhost/cb"];
    let metadata =
        json!({"client_name": "Web thing", "redirect_uris": uris, "token_endpoint_auth_method": "none"});
    let body: Value = app.register(&metadata).await.json().await.unwrap();
    let id = body["client_id"].as_str().unwrap();
    uris.map(|uri| Client { id: id.to_owned(), redirect_uri: uri.to_owned() })
}

/// The page in between: who it is about, and the way on for whoever wants it.
async fn is_asked_about(app: &TestApp, response: Response, error: &str) {
    assert_eq!(response.status(), 400, "{error}");
    assert!(header(response.headers(), "location").is_none(), "{error}");
    assert!(header(response.headers(), "refresh").is_none(), "{error}");
    let html = response.text().await.unwrap();
    assert!(html.contains("<bdi>app.example</bdi>") && !html.contains("http-equiv=\"refresh\""), "{html}");
    let link = html.split("<a ").find(|tag| tag.contains("data-testid=\"continue\"")).unwrap();
    let href = crate::harness::attribute(link, "href").unwrap();
    let href = href.replace("&amp;", "&").replace("&#x2F;", "/").replace("&#x27;", "'");
    let url = url::Url::parse(&href).unwrap();
    assert!(href.starts_with("https://app.example/cb?tenant=7&"), "{href}");
    let find = |name: &str| url.query_pairs().find(|(n, _)| n == name).map(|(_, value)| value.into_owned());
    assert_eq!(find("error").as_deref(), Some(error), "{href}");
    assert_eq!(find("state").as_deref(), Some("st ate&1"), "{href}");
    assert_eq!(find("iss"), Some(app.origin.clone()), "{href}");
}

/// AUTHZ-12: whatever the error is and whenever it comes, nobody is sent by it to an https address that nobody vouches
/// for: the person reads which host it would be, and may go on. The user's own computer is told at once, and so is
/// a client that an administrator verified.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_does_not_travel_by_itself() {
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
    // After the person was asked it is no other thing.
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

/// AUTHZ-10: an answer to a form is a 303, one to an address a 302, so that no browser repeats a form at the client;
/// it is in no cache and says to nobody where it comes from.
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

/// Occurs nowhere but where a request says it.
const MARK: &str = "Zq7mark";

/// AUTHZ-19: at the authorization endpoint each refusal has its fixed words, whatever the request holds: every parameter
/// that is not needed for this very refusal carries a mark, and only `state` comes back.
#[tokio::test(flavor = "multi_thread")]
async fn redirected_errors_repeat_nothing() {
    let app = TestApp::start_configured("[groups]\nothers = [\"docs.more\"]\n[scopes.\"docs.more\"]\ntitle = \"More\"\n[tools.docs_read]\nscope = \"docs.more\"\n").await;
    let mut ada = app.admin().await;
    let client = app.client().await;
    let marked = [
        ("login_hint", MARK),
        ("nonce", MARK),
        ("ui_locales", MARK),
        (MARK, MARK),
        ("code", MARK),
        ("error_description", MARK),
    ];
    let mark_in = |name: &'static str| (name, MARK);
    let cases: Vec<Vec<(&'static str, &str)>> = vec![
        vec![mark_in("response_type")],
        vec![("response_type", "")],
        vec![mark_in("code_challenge")],
        vec![("code_challenge", "")],
        vec![mark_in("code_challenge_method")],
        vec![mark_in("request")],
        vec![mark_in("request_uri")],
        vec![mark_in("response_mode")],
        vec![("prompt", "none Zq7mark")],
        vec![("prompt", "none")],
        vec![mark_in("max_age")],
        vec![mark_in("resource")],
        vec![("resource", "https://zq7mark.example/Zq7mark")],
        vec![mark_in("scope")],
        vec![("scope", "Zq7mark\"")],
        vec![("scope", "Zq7mark\u{e9}")],
        vec![("login_hint", "Zq7mark\n")],
    ];
    let mut described = Vec::new();
    for case in cases {
        let mut parameters = client.request(&app);
        parameters.insert("state", format!("{MARK} state"));
        parameters.extend(marked.iter().chain(&case).map(|(name, value)| (*name, (*value).to_owned())));
        let answer = ada.get(&app, &authorize_url(&app, &parameters)).await;
        described.push(description(answer, &format!("{case:?}")).await);
    }
    for twice in ["scope", "resource", "unknown"] {
        let url = format!("{}&{twice}={MARK}&{twice}={MARK}", client.authorize_url(&app));
        described.push(description(ada.get(&app, &url).await, twice).await);
    }
    // What a person decided, or may not decide.
    for (scope, decision) in [("docs.read", "deny"), ("docs.more", "approve")] {
        let url = with(&app, &client, &[("scope", scope), ("state", MARK), ("login_hint", MARK)]);
        let page = ada.consent_page(&app, &url).await;
        described.push(description(ada.decide(&app, &page, decision).await, scope).await);
    }
    let page = ada.consent_page(&app, &with(&app, &client, &[("state", MARK)])).await;
    app.console(&["client", "disable", &client.id]);
    described.push(description(ada.decide(&app, &page, "approve").await, "disabled").await);
    described.sort();
    described.dedup();
    assert!(described.len() >= 14, "{described:?}");
}

/// The description of an error that is redirected; the mark is in `state` alone.
async fn description(answer: Response, what: &str) -> String {
    let location = header(answer.headers(), "location").unwrap_or_else(|| panic!("{what}: no redirect"));
    let url = url::Url::parse(location).unwrap();
    let mut described = None;
    for (name, value) in url.query_pairs() {
        match &*name {
            "state" => continue,
            "error" => assert!(value.bytes().all(|b| b == b'_' || b.is_ascii_lowercase()), "{what}: {value}"),
            "error_description" => described = Some(value.clone().into_owned()),
            "iss" => {}
            other => panic!("{what}: {other} in {location}"),
        }
        assert!(!value.to_lowercase().contains("zq7mark"), "{what}: {value}");
    }
    let described = described.unwrap_or_else(|| panic!("{what}: no description"));
    assert!(is_describing(&described), "{what}: {described}");
    let (_, text) = all_of(answer).await;
    let (state, rest) = (url.query_pairs().find(|(name, _)| name == "state"), text);
    let marks = rest.matches(MARK).count();
    assert_eq!(marks, state.map_or(0, |(_, state)| state.matches(MARK).count()), "{what}: {rest}");
    described
}

/// AUTHZ-19, TOKEN-03: every other endpoint refuses in fixed words too, whatever it is sent.
#[tokio::test(flavor = "multi_thread")]
async fn other_errors_repeat_nothing() {
    let app = TestApp::start_configured("device = true\n[registration]\nmanagement = true\n").await;
    let mut ada = app.admin().await;
    let client = app.client().await;
    let tokens = app.tokens(&mut ada, &client).await;
    let code = ada.authorize(&app, &client).await;
    let added = app.console(&["client", "add", "Lab console", "--device"]);
    let device = added["client"]["id"].as_str().unwrap();
    let marked = |form: &[(&str, &str)]| {
        let mut form: Vec<(String, String)> =
            form.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        for name in [MARK, "state", "username", "nonce"] {
            form.push((name.to_owned(), MARK.to_owned()));
        }
        form
    };
    let id = client.id.as_str();
    let long = MARK.repeat(8);
    let forms: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("/token", vec![]),
        ("/token", vec![("client_id", MARK)]),
        ("/token", vec![("client_id", id)]),
        ("/token", vec![("client_id", id), ("grant_type", MARK)]),
        ("/token", vec![("client_id", id), ("grant_type", "password"), ("password", MARK)]),
        ("/token", vec![("client_id", id), ("client_secret", MARK), ("grant_type", MARK)]),
        ("/token", vec![("client_id", id), ("client_assertion", MARK), ("client_assertion_type", MARK)]),
        ("/token", vec![("client_id", id), ("grant_type", "authorization_code")]),
        ("/token", vec![("client_id", id), ("grant_type", "authorization_code"), ("code", MARK)]),
        (
            "/token",
            vec![
                ("client_id", id),
                ("grant_type", "authorization_code"),
                ("code", MARK),
                ("code_verifier", MARK),
            ],
        ),
        (
            "/token",
            vec![
                ("client_id", id),
                ("grant_type", "authorization_code"),
                ("code", MARK),
                ("code_verifier", &long),
            ],
        ),
        (
            "/token",
            vec![
                ("client_id", id),
                ("grant_type", "authorization_code"),
                ("code", &code),
                ("code_verifier", &long),
            ],
        ),
        (
            "/token",
            vec![
                ("client_id", id),
                ("grant_type", "authorization_code"),
                ("code", &code),
                ("code_verifier", &long),
                ("redirect_uri", MARK),
            ],
        ),
        (
            "/token",
            vec![
                ("client_id", id),
                ("grant_type", "authorization_code"),
                ("code", &code),
                ("code_verifier", &long),
                ("resource", MARK),
            ],
        ),
        ("/token", vec![("client_id", id), ("grant_type", "refresh_token")]),
        ("/token", vec![("client_id", id), ("grant_type", "refresh_token"), ("refresh_token", MARK)]),
        (
            "/token",
            vec![
                ("client_id", id),
                ("grant_type", "refresh_token"),
                ("refresh_token", &tokens.refresh),
                ("scope", MARK),
            ],
        ),
        (
            "/token",
            vec![
                ("client_id", id),
                ("grant_type", "refresh_token"),
                ("refresh_token", &tokens.refresh),
                ("scope", "Zq7mark\\"),
            ],
        ),
        (
            "/token",
            vec![
                ("client_id", id),
                ("grant_type", "refresh_token"),
                ("refresh_token", &tokens.refresh),
                ("resource", MARK),
            ],
        ),
        (
            "/token",
            vec![
                ("client_id", device),
                ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
                ("device_code", MARK),
            ],
        ),
        ("/token", vec![("client_id", id), ("client_id", MARK)]),
        ("/token", vec![("client_id", id), ("grant_type", "Zq7mark\n")]),
        ("/revoke", vec![("client_id", id)]),
        ("/revoke", vec![("client_id", MARK), ("token", MARK), ("token_type_hint", MARK)]),
        ("/revoke", vec![("client_id", device), ("token", &tokens.refresh), ("token_type_hint", MARK)]),
        ("/introspect", vec![("client_id", id), ("token", MARK)]),
        ("/introspect", vec![("client_id", MARK), ("client_secret", MARK), ("token", MARK)]),
        ("/device_authorization", vec![("client_id", MARK)]),
        ("/device_authorization", vec![("client_id", id)]),
        ("/device_authorization", vec![("client_id", device), ("scope", MARK)]),
        ("/device_authorization", vec![("client_id", device), ("scope", "Zq7mark\\")]),
        ("/device_authorization", vec![("client_id", device), ("resource", MARK)]),
    ];
    for (path, form) in &forms {
        let answer = app.http.post(app.url(path)).form(&marked(form)).send().await.unwrap();
        is_fixed(answer, &format!("{path} {form:?}")).await;
    }
    for path in ["/token", "/revoke", "/introspect", "/device_authorization"] {
        let post = || app.http.post(app.url(path));
        for request in [
            post().body(MARK).header("content-type", MARK),
            app.http.post(app.url(&format!("{path}?{MARK}={MARK}"))).form(&[("client_id", id)]),
            post().form(&[("token", MARK)]).header("authorization", format!("Basic {MARK}")),
            post().form(&[("token", MARK)]).header("authorization", format!("{MARK} {MARK}")),
            post().form(&[("token", MARK)]).basic_auth(MARK, Some(MARK)),
            app.http.request(Method::from_bytes(MARK.as_bytes()).unwrap(), app.url(path)),
        ] {
            let answer = request.send().await.unwrap();
            if answer.status() != 405 {
                is_fixed(answer, path).await;
            }
        }
    }
    let call = app.call_tool(MARK, MARK, json!({MARK: MARK})).await;
    assert_eq!(call.status(), 401);
    assert!(!all_of(call).await.1.contains(MARK));
    registrations(&app, &client).await;
}

/// The registration endpoint, and that for what was registered.
async fn registrations(app: &TestApp, client: &Client) {
    let good = json!({"redirect_uris": ["http://localhost/cb"]});
    for (member, value) in [
        ("redirect_uris", json!(MARK)),
        ("redirect_uris", json!([MARK])),
        ("redirect_uris", json!(["http://zq7mark.example/Zq7mark"])),
        ("redirect_uris", json!(["javascript:Zq7mark"])),
        ("redirect_uris", json!([])),
        ("token_endpoint_auth_method", json!(MARK)),
        ("token_endpoint_auth_method", json!({MARK: MARK})),
        ("grant_types", json!([MARK])),
        ("response_types", json!([MARK])),
        ("client_name", json!([MARK])),
        ("client_name", json!("Portcullis\u{202e}")),
        ("client_uri", json!(MARK)),
        ("logo_uri", json!(MARK)),
        ("contacts", json!(MARK)),
        ("scope", json!("Zq7mark\\")),
        ("jwks", json!({"keys": [{"kty": MARK, "d": MARK}]})),
        ("jwks", json!(MARK)),
        ("jwks_uri", json!("https://zq7mark.example/Zq7mark")),
        ("software_statement", json!(MARK)),
        ("application_type", json!(MARK)),
        ("software_id", json!([MARK])),
        ("dpop_bound_access_tokens", json!(MARK)),
    ] {
        let mut metadata = good.clone();
        metadata[member] = value.clone();
        metadata[MARK] = json!(MARK);
        let answer = app.register(&metadata).await;
        // What is merely not understood is dropped.
        if answer.status() != 201 {
            is_fixed(answer, &format!("{member} {value}")).await;
        }
    }
    for request in [
        app.http.post(app.url("/register")).body(MARK).header("content-type", "application/json"),
        app.http.post(app.url("/register")).body(MARK).header("content-type", MARK),
        app.http.get(app.url(&format!("/register/{}", client.id))).bearer_auth(MARK),
        app.http.put(app.url(&format!("/register/{MARK}"))).bearer_auth(MARK).json(&json!({MARK: MARK})),
    ] {
        is_fixed(request.send().await.unwrap(), "registration").await;
    }
}

/// An error in JSON: a code, a description, and nothing of the request.
async fn is_fixed(answer: Response, what: &str) {
    assert!(answer.status().is_client_error(), "{what}: {}", answer.status());
    let (_, text) = all_of(answer).await;
    assert!(!text.to_lowercase().contains("zq7mark"), "{what}: {text}");
    let body: Value = serde_json::from_str(&text[text.find("{\"error").unwrap()..]).unwrap();
    let described = body["error_description"].as_str().unwrap_or_else(|| panic!("{what}: {body}"));
    assert!(is_describing(described), "{what}: {described}");
    assert!(
        body["error"].as_str().unwrap().bytes().all(|b| b == b'_' || b.is_ascii_lowercase()),
        "{what}: {body}"
    );
}

/// PKCE-06: the challenge comes back in no answer to whatever is asked with it, and stands in no record.
#[tokio::test(flavor = "multi_thread")]
async fn the_challenge_is_never_echoed() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let client = app.client().await;
    let mut answers = vec![
        ada.get(&app, &client.authorize_url(&app)).await,
        ada.get(&app, &with(&app, &client, &[("scope", "made.up")])).await,
        ada.get(&app, &with(&app, &client, &[("code_challenge_method", "plain")])).await,
        ada.get(&app, &with(&app, &client, &[("redirect_uri", "http://localhost/other")])).await,
        ada.get(&app, &with(&app, &client, &[("client_id", "nobody")])).await,
        ada.get(&app, &format!("{}&code_challenge={}", client.authorize_url(&app), challenge())).await,
    ];
    let page = ada.consent_page(&app, &client.authorize_url(&app)).await;
    let mut seen = page.html.clone();
    let answer = ada.decide(&app, &page, "approve").await;
    let code = redirect_parameter(&answer, "code").unwrap();
    let mut wrong = client.redemption(&code);
    wrong.retain(|(name, _)| *name != "code_verifier");
    let guess = challenge();
    wrong.push(("code_verifier", &guess));
    answers.extend([answer, ada.decide(&app, &page, "approve").await]);
    answers.extend([app.token(&wrong).await, app.redeem(&client, &code).await]);
    for answer in answers {
        seen.push_str(&all_of(answer).await.1);
    }
    seen.push_str(&serde_json::to_string(&app.audit()).unwrap());
    assert!(!seen.contains(&challenge()));
}

/// PKCE-06, HTTP-12: the log does not have it either, however much is logged.
#[test]
fn the_challenge_is_never_logged() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(crate::process::PORTCULLIS);
    command.env("PORTCULLIS_LOG", "trace").args(["serve", "--json", "--listen", "localhost:0", "--data-dir"]);
    command.arg(dir.path().join("data"));
    let server = crate::process::Process::spawn(command);
    let http = reqwest::blocking::Client::builder().no_proxy().build().unwrap();
    let metadata = json!({"redirect_uris": ["http://localhost/callback"]});
    let registered: Value =
        http.post(format!("{}/register", server.origin)).json(&metadata).send().unwrap().json().unwrap();
    let request = |redirect_uri: &str, scope: &str| {
        let id = registered["client_id"].as_str().unwrap();
        let parameters = [
            ("response_type", "code"),
            ("client_id", id),
            ("redirect_uri", redirect_uri),
            ("code_challenge", &challenge()),
            ("code_challenge_method", "S256"),
            ("scope", scope),
        ];
        let url = url::Url::parse_with_params(&format!("{}/authorize", server.origin), parameters);
        http.get(url.unwrap()).send()
    };
    assert_eq!(request("http://localhost/callback", "docs.read").unwrap().status(), 200);
    assert_eq!(request("http://localhost/other", "docs.read").unwrap().status(), 400);
    // The redirect leads where nobody listens.
    let _ = request("http://localhost:1/callback", "made.up");
    assert_eq!(http.get(format!("{}/healthz", server.origin)).send().unwrap().status(), 200);
    let log = server.log();
    assert!(log.contains("/authorize"), "nothing was logged: {log}");
    assert!(!log.contains(&challenge()), "{log}");
}

/// REDIR-08: where one of our hosts leads to the other, the other is all that it leads to, however the path is written.
#[tokio::test(flavor = "multi_thread")]
async fn our_own_redirects_stay_here() {
    let app = TestApp::start().await;
    let port = crate::raw::port(&app.origin);
    let mut redirected = 0;
    for path in [
        "/",
        "/setup",
        "/consent?transaction=//evil.example",
        "/authorize?return_to=//evil.example",
        "//evil.example",
        "/\\evil.example",
        "/%09/evil.example",
        "/%5Cevil.example",
        "/%2Fevil.example",
        "/.//evil.example",
        "/@evil.example",
        "/.evil.example",
        "http://evil.example/",
    ] {
        let mut raw = crate::raw::Raw::open(&app.origin).await;
        raw.send(format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n")).await;
        let answer = raw.answer().await.unwrap();
        if let Some(location) = answer.header("location") {
            assert!(location.starts_with(&format!("{}/", app.origin)), "{path}: {location}");
            let url = url::Url::parse(location).unwrap();
            assert_eq!(url.origin().ascii_serialization(), app.origin, "{path}: {location}");
            redirected += 1;
        }
    }
    assert!(redirected >= 2);
}

//! Error descriptions: fixed ASCII text that repeats nothing of the request (AUTHZ-19).

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::authorize_errors::with;
use crate::harness::{Client, TestApp, authorize_url, header};

/// Whether a text has only characters that a description may have (RFC 6749 §4.1.2.1).
pub fn is_describing(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| matches!(b, 0x20..=0x21 | 0x23..=0x5B | 0x5D..=0x7E))
}

/// The status of a response, and its headers and body as text.
pub async fn all_of(response: Response) -> (StatusCode, String) {
    let status = response.status();
    let headers = format!("{:?}", response.headers());
    (status, headers + &response.text().await.unwrap())
}

/// A text that only the requests contain.
const MARK: &str = "Zq7mark";

/// AUTHZ-19: at the authorization endpoint each refusal has a fixed description: every parameter that this
/// refusal does not need contains a mark, and only `state` is returned.
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
    // Refusals that depend on the user's decision or entitlement.
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

/// The description of a redirected error; the mark is only in `state`.
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

/// AUTHZ-19, TOKEN-03: every other endpoint has fixed descriptions too, for any input.
#[tokio::test(flavor = "multi_thread")]
async fn other_errors_repeat_nothing() {
    let app = TestApp::start_configured("device = true\n[registration]\nmanagement = true\n").await;
    let mut ada = app.admin().await;
    let client = app.client().await;
    let tokens = app.tokens(&mut ada, &client).await;
    let code = ada.authorize(&app, &client).await;
    let added = app.console(&["client", "add", "Lab console", "--device"]);
    let device = added["client"]["id"].as_str().unwrap();
    let forms = [
        "/token?",
        "/token?client_id=MARK",
        "/token?client_id=ID",
        "/token?client_id=ID&grant_type=MARK",
        "/token?client_id=ID&grant_type=password&password=MARK",
        "/token?client_id=ID&grant_type=MARK&client_secret=MARK",
        "/token?client_id=ID&client_assertion=MARK&client_assertion_type=MARK",
        "/token?client_id=ID&grant_type=authorization_code",
        "/token?client_id=ID&grant_type=authorization_code&code=MARK",
        "/token?client_id=ID&grant_type=authorization_code&code=MARK&code_verifier=MARK",
        "/token?client_id=ID&grant_type=authorization_code&code=MARK&code_verifier=LONG",
        "/token?client_id=ID&grant_type=authorization_code&code=CODE&code_verifier=LONG",
        "/token?client_id=ID&grant_type=authorization_code&code=CODE&code_verifier=LONG&redirect_uri=MARK",
        "/token?client_id=ID&grant_type=authorization_code&code=CODE&code_verifier=LONG&resource=MARK",
        "/token?client_id=ID&grant_type=refresh_token",
        "/token?client_id=ID&grant_type=refresh_token&refresh_token=MARK",
        "/token?client_id=ID&grant_type=refresh_token&refresh_token=REFRESH&scope=MARK",
        "/token?client_id=ID&grant_type=refresh_token&refresh_token=REFRESH&scope=MARK\\",
        "/token?client_id=ID&grant_type=refresh_token&refresh_token=REFRESH&resource=MARK",
        "/token?client_id=DEVICE&grant_type=urn:ietf:params:oauth:grant-type:device_code&device_code=MARK",
        "/token?client_id=ID&client_id=MARK",
        "/token?client_id=ID&grant_type=MARK%0A",
        "/revoke?client_id=ID",
        "/revoke?client_id=MARK&token=MARK&token_type_hint=MARK",
        "/revoke?client_id=DEVICE&token=REFRESH&token_type_hint=MARK",
        "/introspect?client_id=ID&token=MARK",
        "/introspect?client_id=MARK&client_secret=MARK&token=MARK",
        "/device_authorization?client_id=MARK",
        "/device_authorization?client_id=ID",
        "/device_authorization?client_id=DEVICE&scope=MARK",
        "/device_authorization?client_id=DEVICE&scope=MARK\\",
        "/device_authorization?client_id=DEVICE&resource=MARK",
    ];
    let id = client.id.as_str();
    let words = [
        ("MARK", MARK),
        ("LONG", &MARK.repeat(8)),
        ("DEVICE", device),
        ("ID", id),
        ("CODE", &code),
        ("REFRESH", &tokens.refresh),
    ];
    for what in forms {
        let (path, form) = what.split_once('?').unwrap();
        let form = words.iter().fold(form.to_owned(), |form, (word, text)| form.replace(word, text));
        let form = format!("{form}&{MARK}={MARK}&state={MARK}&username={MARK}");
        let post = app.http.post(app.url(path)).header("content-type", "application/x-www-form-urlencoded");
        is_fixed(post.body(form).send().await.unwrap(), what).await;
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

/// Checks the registration endpoint and the client configuration endpoint.
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
        // Unsupported members are dropped.
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

/// Asserts a JSON error with a code and a description, and nothing of the request.
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

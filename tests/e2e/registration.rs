//! Dynamic client registration (RFC 7591).

mod kept_out;

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Client, TestApp, error_of, header};

async fn registered(app: &TestApp, metadata: &Value) -> Value {
    let response = app.register(metadata).await;
    assert_eq!(response.status(), 201, "{metadata}");
    response.json().await.unwrap()
}

fn client(body: &Value, redirect_uri: &str) -> Client {
    Client { id: body["client_id"].as_str().unwrap().to_owned(), redirect_uri: redirect_uri.to_owned() }
}

/// A public client on this computer.
fn public() -> Value {
    json!({
        "client_name": "Test client", "redirect_uris": ["http://localhost/callback"],
        "grant_types": ["authorization_code", "refresh_token"], "token_endpoint_auth_method": "none",
    })
}

/// DCR-02, DCR-03, DCR-06, DCR-07, DCR-13, DCR-14: 201 with all stored metadata, and without members that the
/// caller must not choose.
#[tokio::test(flavor = "multi_thread")]
async fn a_registration_echoes_what_was_stored() {
    let app = TestApp::start().await;
    let asked = json!({
        "client_name": "Inspector \u{202e}x",
        "redirect_uris": ["http://127.0.0.1:6276/oauth/callback", "cursor://anysphere.cursor-mcp/oauth/callback"],
        "grant_types": ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
        "scope": "b a", "made_up": true, "client_id": "chosen", "client_secret": "chosen", "trust": "verified",
    });
    let response = app.register(&asked).await;
    assert_eq!(response.status(), 201);
    assert_eq!(header(response.headers(), "cache-control"), Some("no-store"));
    assert_eq!(header(response.headers(), "access-control-allow-origin"), Some("*"));
    assert_eq!(header(response.headers(), "set-cookie"), None);
    let body: Value = response.json().await.unwrap();
    assert!(body["client_id"].as_str().unwrap().starts_with("dyn_"));
    assert_eq!(body["client_id_issued_at"], app.clock.now().seconds());
    assert_eq!(body["client_name"], "Inspector x");
    assert_eq!(body["redirect_uris"], asked["redirect_uris"]);
    assert_eq!(body["grant_types"], json!(["authorization_code", "refresh_token"]));
    assert_eq!(body["response_types"], json!(["code"]));
    assert_eq!(body["token_endpoint_auth_method"], "client_secret_basic");
    assert_eq!(body["application_type"], "native");
    assert_eq!(body["scope"], "a b");
    let secret = body["client_secret"].as_str().unwrap();
    assert!(secret.starts_with("cs_") && secret.len() == 3 + 43);
    assert_eq!(body["client_secret_expires_at"], 0);
    assert!(body.get("made_up").is_none() && body.get("trust").is_none());
    assert!(body.get("registration_access_token").is_none() && body.get("registration_client_uri").is_none());
    let record = app.audit().into_iter().find(|record| record["event"] == "client.registered").unwrap();
    assert_eq!(record["detail"]["source"], "self_registered");
    assert_eq!(record["detail"]["redirect_hosts"], json!(["127.0.0.1:6276", "cursor"]));
    assert!(!app.audit().iter().any(|record| record.to_string().contains(secret)));
    let preflight = app.http.request(reqwest::Method::OPTIONS, app.url("/register")).send().await.unwrap();
    assert_eq!(preflight.status(), 204);
    let allowed = header(preflight.headers(), "access-control-allow-headers").unwrap();
    assert!(allowed.contains("Content-Type") && allowed.contains("Authorization"));
}

/// DCR-03, DCR-04: a browser client with its own `http` origin as its home page registers and signs in, and so
/// does one with empty members. The response shows what was kept.
#[tokio::test(flavor = "multi_thread")]
async fn informative_metadata_refuses_no_client() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let redirect_uri = "http://localhost:5173/oauth/callback";
    for members in [
        json!({"client_name": "use-mcp", "client_uri": "http://localhost:5173"}),
        json!({"client_name": "Portal", "client_uri": "http://portal.lab.internal/", "tos_uri": "", "policy_uri": null}),
        json!({"client_name": "Logo", "logo_uri": format!("data:image/png;base64,{}", "A".repeat(8000))}),
        json!({"client_name": "Struct", "client_uri": "", "logo_uri": "", "jwks_uri": "", "contacts": null, "scope": "",
            "software_id": "", "software_version": "", "software_statement": "", "jwks": null}),
        json!({"client_name": "Contact", "contacts": ["", 7, "x".repeat(300)], "made_up": {"a": [1]}}),
    ] {
        let mut metadata = public();
        metadata["redirect_uris"] = json!([redirect_uri]);
        metadata.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        let body = registered(&app, &metadata).await;
        for gone in [
            "client_uri",
            "logo_uri",
            "tos_uri",
            "policy_uri",
            "contacts",
            "jwks_uri",
            "software_id",
            "made_up",
        ] {
            assert!(body.get(gone).is_none(), "{gone} {body}");
        }
        assert_eq!(body["client_name"], members["client_name"]);
        app.tokens(&mut ada, &client(&body, redirect_uri)).await;
    }
    let mut metadata = public();
    metadata["client_uri"] = json!("https://portal.lab.internal/");
    assert_eq!(registered(&app, &metadata).await["client_uri"], "https://portal.lab.internal/");
}

/// DCR-02, DCR-04, DCR-12, HTTP-09: a refusal writes only its record.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_registration_is_refused() {
    let app = TestApp::start().await;
    let form = app.http.post(app.url("/register")).form(&[("redirect_uris", "http://localhost/")]);
    assert_eq!(
        error_of(form.send().await.unwrap()).await,
        (400.try_into().unwrap(), "invalid_client_metadata".to_owned())
    );
    for (body, error) in [
        (json!([]), "invalid_client_metadata"),
        (json!({}), "invalid_redirect_uri"),
        (json!({"redirect_uris": ["http://evil.example/cb"]}), "invalid_redirect_uri"),
        (json!({"redirect_uris": ["https://a.example/#x"]}), "invalid_redirect_uri"),
        (json!({"redirect_uris": ["zed://callback"]}), "invalid_redirect_uri"),
        (
            json!({"redirect_uris": ["http://localhost/"], "token_endpoint_auth_method": "client_secret_jwt"}),
            "invalid_client_metadata",
        ),
        (
            json!({"redirect_uris": ["http://localhost/"], "jwks_uri": "https://a.example/jwks"}),
            "invalid_client_metadata",
        ),
        (
            json!({"redirect_uris": ["http://localhost/"], "software_statement": "e30.e30."}),
            "invalid_software_statement",
        ),
    ] {
        assert_eq!(
            error_of(app.register(&body).await).await,
            (400.try_into().unwrap(), error.to_owned()),
            "{body}"
        );
    }
    let deep =
        format!("{{\"redirect_uris\":[\"http://localhost/\"],\"x\":{}1{}}}", "[".repeat(32), "]".repeat(32));
    let many: Vec<String> = (0..1000).map(|i| format!("\"{i}\":0")).collect();
    for text in [
        r#"{"redirect_uris":["http://localhost/"],"client_name":"a","client_name":"b"}"#.to_owned(),
        r#"{"redirect_uris":["http://localhost/"],"jwks":{"keys":[],"keys":[]}}"#.to_owned(),
        deep,
        format!("{{\"redirect_uris\":[\"http://localhost/\"],{}}}", many.join(",")),
        "{\"redirect_uris\":[\"http://localhost/\"]} {}".to_owned(),
        String::new(),
    ] {
        let request = app.http.post(app.url("/register")).header("content-type", "application/json");
        let refused = error_of(request.body(text.clone()).send().await.unwrap()).await;
        assert_eq!(refused, (400.try_into().unwrap(), "invalid_client_metadata".to_owned()), "{text}");
    }
    let large = json!({"redirect_uris": ["http://localhost/"], "padding": "x".repeat(20_000)});
    assert_eq!(app.register(&large).await.status(), 413);
    assert_eq!(app.console(&["client", "list"])["clients"], json!([]));
    assert!(!app.has_event("client.registered", None));
    assert!(app.has_event("client.registered", Some("invalid_redirect_uri")));
    assert!(app.has_event("client.registered", Some("invalid_client_metadata")));
}

/// DCR-01, META-03, META-04: disabled registration has no endpoint and is not in the metadata.
#[tokio::test(flavor = "multi_thread")]
async fn registration_that_is_off_is_not_there() {
    let app = TestApp::start_configured("[registration]\nmode = \"off\"\nmanagement = true").await;
    let refused = app.register(&public()).await;
    assert_eq!(header(refused.headers(), "content-type"), Some("application/json"));
    assert_eq!(error_of(refused).await, (StatusCode::NOT_FOUND, "not_found".to_owned()));
    assert_eq!(app.get("/register").await.status(), 404);
    assert_eq!(app.get("/register/dyn_x").await.status(), 404);
    let metadata: Value = app.get("/.well-known/oauth-authorization-server").await.json().await.unwrap();
    assert_eq!(metadata.get("registration_endpoint"), None);
}

/// DCR-01: an initial access token is required; it can be deleted, and expires.
#[tokio::test(flavor = "multi_thread")]
async fn registration_can_need_a_token() {
    let app = TestApp::start_configured("[registration]\nmode = \"token\"").await;
    let metadata: Value = app.get("/.well-known/oauth-authorization-server").await.json().await.unwrap();
    assert_eq!(metadata["registration_endpoint"], app.url("/register"));
    let added = app.console(&["registration-token", "add", "platform team", "--expires", "2h"]);
    assert_eq!(added["needed"], true);
    let token = added["initial_access_token"].as_str().unwrap().to_owned();
    assert!(token.starts_with("iat_") && token.len() == 4 + 43);
    let with = |value: String| {
        app.http.post(app.url("/register")).header("authorization", value).json(&public()).send()
    };
    let without = app.register(&public()).await;
    assert_eq!(without.status(), 401);
    assert_eq!(header(without.headers(), "www-authenticate"), Some("Bearer error=\"invalid_token\""));
    assert_eq!(error_of(without).await.1, "invalid_token");
    for wrong in [
        format!("Bearer {token}x"),
        format!("Basic {token}"),
        format!("Bearer {}", token.replace("iat_", "rat_")),
    ] {
        assert_eq!(with(wrong.clone()).await.unwrap().status(), 401, "{wrong}");
    }
    // A token does not excuse invalid metadata, and metadata is not checked without one.
    assert_eq!(app.register(&json!([])).await.status(), 401);
    for scheme in ["Bearer", "bearer"] {
        assert_eq!(with(format!("{scheme} {token}")).await.unwrap().status(), 201);
    }
    let record =
        app.audit().into_iter().find(|r| r["event"] == "client.registered" && r["outcome"] == "allowed");
    assert_eq!(record.unwrap()["detail"]["initial_access_token"], "platform team");
    let listed = app.console(&["registration-token", "list"]);
    assert_eq!(listed["registration_tokens"][0]["label"], "platform team");
    assert!(!listed.to_string().contains(&token));
    let twice = crate::clients::refused(&app, &["registration-token", "add", "platform team"]);
    assert!(twice.contains("already"), "{twice}");
    app.clock.advance(Duration::from_hours(2));
    assert_eq!(with(format!("Bearer {token}")).await.unwrap().status(), 401);
    let second = app.console(&["registration-token", "add", "platform team"]);
    let token = second["initial_access_token"].as_str().unwrap().to_owned();
    assert_eq!(with(format!("Bearer {token}")).await.unwrap().status(), 201);
    app.console(&["registration-token", "delete", "platform team", "--yes"]);
    assert_eq!(with(format!("Bearer {token}")).await.unwrap().status(), 401);
    let gone = crate::clients::refused(&app, &["registration-token", "delete", "platform team", "--yes"]);
    assert!(gone.contains("no registration token"), "{gone}");
    let actions: Vec<Value> = app
        .audit()
        .into_iter()
        .filter(|record| record["event"] == "server.config_changed")
        .map(|record| record["detail"]["action"].clone())
        .collect();
    assert_eq!(actions, ["added", "added", "deleted"]);
}

/// DCR-11: a never-approved client is removed after a day.
#[tokio::test(flavor = "multi_thread")]
async fn never_used_clients_vanish() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let (unused, used) = (app.client().await, app.client().await);
    app.tokens(&mut browser, &used).await;
    app.clock.advance(Duration::from_hours(25));
    app.client().await;
    assert_eq!(app.http.get(unused.authorize_url(&app)).send().await.unwrap().status(), 400);
    assert_eq!(app.http.get(used.authorize_url(&app)).send().await.unwrap().status(), 200);
    assert!(app.has_event("client.expired", None));
}

/// DCR-11, RS-08: a client is removed 90 days after its last use, with its grants, unless an administrator
/// verified it.
#[tokio::test(flavor = "multi_thread")]
async fn idle_clients_vanish() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let (idle, busy, verified) = (app.client().await, app.client().await, app.client().await);
    for client in [&idle, &busy, &verified] {
        app.tokens(&mut browser, client).await;
    }
    app.console(&["client", "verify", &verified.id]);
    app.clock.advance(Duration::from_hours(89 * 24));
    let tokens = app.tokens(&mut browser, &busy).await;
    app.clock.advance(Duration::from_hours(25));
    let app = app.restart().await;
    let left: Vec<Value> = app.console(&["client", "list"])["clients"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["id"].clone())
        .collect();
    assert_eq!(left.len(), 2);
    assert!(left.contains(&json!(busy.id)) && left.contains(&json!(verified.id)));
    assert_eq!(app.refresh(&busy, &tokens.refresh).await.status(), 200);
    let record = app.audit().into_iter().find(|record| record["event"] == "client.expired").unwrap();
    assert_eq!((&record["client_id"], &record["detail"]["because"]), (&json!(idle.id), &json!("idle")));
}

/// DCR-12: 200 an hour from one address; refusals and repetitions do not count.
#[tokio::test(flavor = "multi_thread")]
async fn registrations_are_limited_by_address() {
    let app = TestApp::start_configured("[rate]\nregister = 6").await;
    let register = |n: usize| {
        let mut metadata = public();
        metadata["software_id"] = json!(n.to_string());
        let request = app.http.post(app.url("/register")).json(&metadata);
        async move { request.send().await.unwrap() }
    };
    for n in 0..5 {
        assert_eq!(register(n).await.status(), 201);
        assert_eq!(register(n).await.status(), 201, "the same once more");
        assert_eq!(app.register(&json!({})).await.status(), 400);
    }
    assert_eq!(register(5).await.status(), 201);
    let refused = register(6).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(header(refused.headers(), "retry-after"), Some("600"));
    assert_eq!(header(refused.headers(), "access-control-allow-origin"), Some("*"));
    assert_eq!(error_of(refused).await.1, "temporarily_unavailable");
    assert_eq!(app.console(&["client", "list"])["clients"].as_array().unwrap().len(), 6);
    app.clock.advance(Duration::from_mins(10));
    assert_eq!(register(6).await.status(), 201);
    let defaults = shared::rate::Limits::default();
    assert_eq!(defaults.register.count(), Some(200));
}

/// DCR-12, RATE-03: a thousand never-approved clients are kept; then the oldest makes room, and never one in
/// use.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_clients_may_wait() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let used = app.client().await;
    app.tokens(&mut browser, &used).await;
    let first = app.client().await;
    app.clock.advance(Duration::from_secs(1));
    for _ in 0..20 {
        join_all((0..50).map(|_| app.client())).await;
    }
    assert_eq!(app.http.get(first.authorize_url(&app)).send().await.unwrap().status(), 400);
    assert_eq!(app.http.get(used.authorize_url(&app)).send().await.unwrap().status(), 200);
    assert_eq!(app.console(&["client", "list"])["clients"].as_array().unwrap().len(), 1001);
    let expired: Vec<Value> = app.audit().into_iter().filter(|r| r["event"] == "client.expired").collect();
    assert_eq!(expired.len(), 1);
    assert_eq!(
        (&expired[0]["client_id"], &expired[0]["detail"]["because"]),
        (&json!(first.id), &json!("made_room"))
    );
}

/// DCR-12: the same registration gets the same client while no user has approved it, and only if the response
/// has nothing for one party alone.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_registration_gets_the_same_client() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let first = registered(&app, &public()).await;
    assert_eq!(registered(&app, &public()).await, first);
    let mut other = public();
    other["client_name"] = json!("Another client");
    assert_ne!(registered(&app, &other).await["client_id"], first["client_id"]);
    // Clients with a secret are never shared.
    let mut secret = public();
    secret["token_endpoint_auth_method"] = json!("client_secret_basic");
    let (one, two) = (registered(&app, &secret).await, registered(&app, &secret).await);
    assert!(one["client_id"] != two["client_id"] && one["client_secret"] != two["client_secret"]);
    // Nor is a client that is in use, disabled, or about to be removed.
    app.tokens(&mut browser, &client(&first, "http://localhost:5123/callback")).await;
    let second = registered(&app, &public()).await;
    assert_ne!(second["client_id"], first["client_id"]);
    app.console(&["client", "disable", second["client_id"].as_str().unwrap()]);
    let third = registered(&app, &public()).await;
    assert_ne!(third["client_id"], second["client_id"]);
    app.clock.advance(Duration::from_mins(11));
    assert_ne!(registered(&app, &public()).await["client_id"], third["client_id"]);
}

/// DCR-05, REDIR-05: Cursor's set of redirect URIs; unusable ones are left out and the rest works.
#[tokio::test(flavor = "multi_thread")]
async fn a_mixed_set_of_redirect_uris_is_stored_as_far_as_it_is_known() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let body = registered(
        &app,
        &json!({
            "token_endpoint_auth_method": "none",
            "redirect_uris": [
                "cursor://anysphere.cursor-mcp/oauth/callback", "https://www.cursor.com/agents/mcp/oauth/callback",
                "http://localhost:8787/callback", "zed://callback", "myapp:/cb", "com.example.app://cb",
            ],
        }),
    )
    .await;
    assert_eq!(
        body["redirect_uris"],
        json!([
            "cursor://anysphere.cursor-mcp/oauth/callback",
            "https://www.cursor.com/agents/mcp/oauth/callback",
            "http://localhost:8787/callback"
        ])
    );
    assert_eq!(
        app.console(&["client", "show", body["client_id"].as_str().unwrap()])["client"]["trust"],
        "known"
    );
    for (uri, status) in [
        ("cursor://anysphere.cursor-mcp/oauth/callback", 200),
        ("http://localhost:9/callback", 200),
        ("https://www.cursor.com/agents/mcp/oauth/callback", 400),
        ("zed://callback", 400),
        ("com.example.app:/cb", 400),
    ] {
        let page = browser.get(&app, &client(&body, uri).authorize_url(&app)).await;
        assert_eq!(page.status(), status, "{uri}");
    }
}

/// REDIR-05: a site lists the allowed private schemes, possibly none.
#[tokio::test(flavor = "multi_thread")]
async fn a_site_says_which_schemes_it_lets_in() {
    let app = TestApp::start_configured("[registration]\napp_schemes = [\"zed://callback\"]").await;
    let body = registered(&app, &json!({"redirect_uris": ["cursor://x/cb", "zed://callback"]})).await;
    assert_eq!(body["redirect_uris"], json!(["zed://callback"]));
    let page = app.http.get(client(&body, "zed://callback").authorize_url(&app)).send().await.unwrap();
    assert_eq!(page.status(), 200);
    let line = crate::clients::refused(
        &app,
        &["client", "add", "Editor", "--redirect-uri", "cursor://x/cb", "--public"],
    );
    assert!(line.contains("app_schemes"), "{line}");
    // URIs registered before the list was changed are refused from then on.
    let app = app.restart_configured("[registration]\napp_schemes = []").await;
    let page = app.http.get(client(&body, "zed://callback").authorize_url(&app)).send().await.unwrap();
    assert_eq!(page.status(), 400);
    assert_eq!(
        error_of(app.register(&json!({"redirect_uris": ["zed://callback"]})).await).await.1,
        "invalid_redirect_uri"
    );
}

/// DCR-05, DCR-08, AUTHZ-12: a site can allow unverified clients remote redirect URIs; they stay unverified,
/// and errors are not redirected by themselves.
#[tokio::test(flavor = "multi_thread")]
async fn a_site_can_lift_the_rule_about_the_network() {
    let app = TestApp::start_configured("[registration]\nremote_redirects = true").await;
    let mut browser = app.admin().await;
    let body = registered(
        &app,
        &json!({"token_endpoint_auth_method": "none", "redirect_uris": ["https://app.example/cb", "com.example.app:/cb"],
            "grant_types": ["authorization_code", "refresh_token"]}),
    )
    .await;
    let shown = app.console(&["client", "show", body["client_id"].as_str().unwrap()]);
    assert_eq!(shown["client"]["trust"], "unverified");
    for uri in ["https://app.example/cb", "com.example.app:/cb"] {
        let client = client(&body, uri);
        let tokens = app.tokens(&mut browser, &client).await;
        assert_eq!(app.call_tool(&tokens.access, "whoami", json!({})).await.status(), 200, "{uri}");
    }
    let mut wrong = client(&body, "https://app.example/cb").request(&app);
    wrong.insert("response_type", "token".to_owned());
    let page = browser.get(&app, &crate::harness::authorize_url(&app, &wrong)).await;
    assert_eq!((page.status(), header(page.headers(), "location")), (StatusCode::BAD_REQUEST, None));
    let page = page.text().await.unwrap();
    assert!(page.contains("app.example") && page.contains("error=unsupported_response_type"), "{page}");
    wrong.insert("redirect_uri", "com.example.app:/cb".to_owned());
    let answer = browser.get(&app, &crate::harness::authorize_url(&app, &wrong)).await;
    assert!(header(answer.headers(), "location").unwrap().starts_with("com.example.app:/cb?error="));
}

/// DCR-05, REDIR-03: a URI that browsers would send to another server is refused in any spelling.
#[tokio::test(flavor = "multi_thread")]
async fn odd_spellings_of_a_remote_uri_are_refused() {
    let app = TestApp::start().await;
    for uri in [
        "https:evil.example://evil.example/cb",
        "https:/evil.example://evil.example/cb",
        "https:u@evil.example://evil.example/cb",
        "http:localhost://localhost/cb",
        "cursor://u:p@evil/x",
    ] {
        let refused = app.register(&json!({"redirect_uris": [uri]})).await;
        assert_eq!(
            error_of(refused).await,
            (400.try_into().unwrap(), "invalid_redirect_uri".to_owned()),
            "{uri}"
        );
    }
}

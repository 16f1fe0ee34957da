//! Redeeming codes: all errors, and the consequences of a replay.

use std::fmt::Write as _;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{
    Client, TestApp, Tokens, VERIFIER, authorize_url, error_of, header, redirect_parameter,
};

/// TOKEN-02, AT-01, AT-02: the content of a token response and of an access token.
#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_exchanged_for_tokens() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let code = browser.authorize(&app, &client).await;
    let response = app.redeem(&client, &code).await;
    assert_eq!(response.status(), 200);
    assert_eq!(header(response.headers(), "cache-control"), Some("no-store"));
    assert_eq!(header(response.headers(), "pragma"), Some("no-cache"));
    let tokens = Tokens::of(response).await;
    assert_eq!(tokens.body["token_type"], "Bearer");
    assert_eq!(tokens.body["expires_in"], 900);
    assert_eq!(tokens.body["scope"], "docs.read");
    let claims = tokens.claims();
    assert_eq!(claims["iss"], app.origin);
    assert_eq!(claims["aud"], app.mcp_url());
    assert_eq!(claims["client_id"], client.id);
    assert_eq!(claims["amr"], json!(["hwk", "user"]));
    assert_eq!(claims["acr"], "aal2");
    assert!(claims["sub"].as_str().unwrap().starts_with("u_"));
    assert!(claims["auth_time"].as_i64() <= claims["iat"].as_i64());
    assert!(!tokens.access.contains("ada") && claims.get("name").is_none());
    assert!(tokens.access.len() <= 4096);
    let called = app.call_tool(&tokens.access, "docs_search", json!({"query": "falcon"})).await;
    assert_eq!(called.status(), 200);
    assert!(called.text().await.unwrap().contains("falcon.md"));
}

/// TOKEN-06, RFC 6749 §4.1.2: a code used twice is refused, and its tokens are revoked at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_code_revokes_what_it_bought() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let code = browser.authorize(&app, &client).await;
    let tokens = Tokens::of(app.redeem(&client, &code).await).await;
    assert_eq!(app.call_tool(&tokens.access, "whoami", json!({})).await.status(), 200);
    assert_eq!(
        error_of(app.redeem(&client, &code).await).await,
        (400.try_into().unwrap(), "invalid_grant".to_owned())
    );
    let refused = app.call_tool(&tokens.access, "whoami", json!({})).await;
    assert_eq!(refused.status(), 401);
    assert!(header(refused.headers(), "www-authenticate").unwrap().contains("error=\"invalid_token\""));
    assert_eq!(error_of(app.refresh(&client, &tokens.refresh).await).await.1, "invalid_grant");
    assert!(app.has_event("code.replay", Some("code_replayed")));
    // It stays revoked after a restart.
    let app = app.restart().await;
    assert_eq!(app.call_tool(&tokens.access, "whoami", json!({})).await.status(), 401);
}

/// TOKEN-06: a replay that is invalid in any other way revokes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_replay_revokes_nothing() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let (client, thief) = (app.client().await, app.client().await);
    let code = browser.authorize(&app, &client).await;
    let tokens = Tokens::of(app.redeem(&client, &code).await).await;
    let mut wrong = client.redemption(&code);
    let bad = VERIFIER.replace("horse", "house");
    wrong.retain(|(name, _)| *name != "code_verifier");
    wrong.push(("code_verifier", &bad));
    assert_eq!(error_of(app.token(&wrong).await).await.1, "invalid_grant");
    assert_eq!(error_of(app.redeem(&thief, &code).await).await.1, "invalid_grant");
    assert_eq!(app.call_tool(&tokens.access, "whoami", json!({})).await.status(), 200);
}

/// PKCE-03, PKCE-04, TOKEN-07, TOKEN-09, TOKEN-10, TOKEN-11: the error names what is wrong, and a correctable
/// error leaves the code usable.
#[tokio::test(flavor = "multi_thread")]
async fn a_correctable_error_leaves_the_code_usable() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let (client, other) = (app.client().await, app.client().await);
    let code = browser.authorize(&app, &client).await;
    let wrong = VERIFIER.replace("horse", "house");
    for (name, value, status, error) in [
        ("code_verifier", None, 400, "invalid_request"),
        ("code_verifier", Some("short"), 400, "invalid_request"),
        ("code_verifier", Some(wrong.as_str()), 400, "invalid_grant"),
        ("redirect_uri", Some("http://localhost:5124/callback"), 400, "invalid_grant"),
        ("client_id", None, 401, "invalid_client"),
        ("client_id", Some("dyn_unknown"), 401, "invalid_client"),
        ("client_id", Some(other.id.as_str()), 400, "invalid_grant"),
        ("client_secret", Some("guess"), 401, "invalid_client"),
        ("resource", Some("http://localhost:1/mcp"), 400, "invalid_target"),
        ("code", None, 400, "invalid_request"),
        ("code", Some("ac_unknown"), 400, "invalid_grant"),
        ("grant_type", None, 400, "invalid_request"),
        ("grant_type", Some("password"), 400, "unsupported_grant_type"),
        ("grant_type", Some("client_credentials"), 400, "unsupported_grant_type"),
    ] {
        let mut form = client.redemption(&code);
        form.retain(|(n, _)| *n != name);
        form.extend(value.map(|value| (name, value)));
        let got = error_of(app.token(&form).await).await;
        assert_eq!((got.0.as_u16(), got.1.as_str()), (status, error), "{name} {value:?}");
    }
    assert_eq!(app.redeem(&client, &code).await.status(), 200);
    assert!(app.has_event("code.pkce_failed", Some("verifier_wrong")));
    assert!(app.has_event("token.refused", Some("resource_differs")));
}

/// PKCE-04: the third wrong verifier destroys the code.
#[tokio::test(flavor = "multi_thread")]
async fn three_wrong_verifiers_destroy_a_code() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let code = browser.authorize(&app, &client).await;
    let wrong = VERIFIER.replace("horse", "house");
    for _ in 0..3 {
        let mut form = client.redemption(&code);
        form.retain(|(name, _)| *name != "code_verifier");
        form.push(("code_verifier", &wrong));
        assert_eq!(error_of(app.token(&form).await).await.1, "invalid_grant");
    }
    assert_eq!(error_of(app.redeem(&client, &code).await).await.1, "invalid_grant");
}

/// TOKEN-08: a code expires after 60 seconds.
#[tokio::test(flavor = "multi_thread")]
async fn an_authorization_code_expires() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let code = browser.authorize(&app, &client).await;
    app.clock.advance(std::time::Duration::from_mins(1));
    assert_eq!(error_of(app.redeem(&client, &code).await).await.1, "invalid_grant");
}

/// AUTHZ-03, TOKEN-11: equal resources count once, different ones are refused, and the code stays usable.
#[tokio::test(flavor = "multi_thread")]
async fn one_resource_may_be_named_twice() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let code = browser.authorize(&app, &client).await;
    let (mcp, other) = (app.mcp_url(), app.url("/other"));
    let naming = |resources: &[&'static str]| {
        let resources = resources.iter().map(|name| match *name {
            "mcp" => ("resource", mcp.as_str()),
            "other" => ("resource", other.as_str()),
            text => ("resource", text),
        });
        [client.redemption(&code), resources.collect()].concat()
    };
    for different in [&["mcp", "other"][..], &["other", "other"], &["mcp", "", "x"], &["x", "x"]] {
        let refused = app.token(&naming(different)).await;
        assert_eq!(
            error_of(refused).await,
            (StatusCode::BAD_REQUEST, "invalid_target".to_owned()),
            "{different:?}"
        );
    }
    let tokens = Tokens::of(app.token(&naming(&["mcp", "", "mcp"])).await).await;
    assert_eq!(tokens.claims()["aud"], mcp);
    let refresh = |more: &'static [&'static str]| {
        let form =
            [("grant_type", "refresh_token"), ("refresh_token", &tokens.refresh), ("client_id", &client.id)];
        let mcp = mcp.clone();
        let app = &app;
        async move {
            let more =
                more.iter().map(|name| ("resource", if *name == "mcp" { mcp.as_str() } else { *name }));
            app.token(&form.into_iter().chain(more).collect::<Vec<_>>()).await
        }
    };
    assert_eq!(error_of(refresh(&["mcp", "x"]).await).await.1, "invalid_target");
    assert_eq!(refresh(&["mcp", "mcp"]).await.status(), 200);
}

/// TOKEN-01, TOKEN-04: the form of a request.
#[tokio::test(flavor = "multi_thread")]
async fn the_token_endpoint_takes_one_plain_form() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let url = app.url("/token");
    let json_body = app.http.post(&url).json(&json!({"grant_type": "refresh_token"})).send().await.unwrap();
    assert_eq!(error_of(json_body).await.1, "invalid_request");
    let in_url = app.http.post(format!("{url}?grant_type=refresh_token")).form(&[("client_id", &client.id)]);
    assert_eq!(error_of(in_url.send().await.unwrap()).await.1, "invalid_request");
    let raw = |body: &'static str| {
        app.http.post(&url).header("content-type", "application/x-www-form-urlencoded").body(body).send()
    };
    for body in [
        "grant_type=a&grant_type=b",
        "code=%ff",
        "code=%00",
        "code=%zz",
        "code=%",
        "%4=x",
        "a=1&a=1",
        "resource=x&a=1&a=1",
    ] {
        assert_eq!(error_of(raw(body).await.unwrap()).await.1, "invalid_request", "{body}");
    }
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let response = app.http.request(method.clone(), &url).send().await.unwrap();
        assert_eq!(response.status(), 405, "{method}");
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["error"], "method_not_allowed");
    }
}

/// TOKEN-16, HTTP-06, HTTP-07: CORS at the token endpoint.
#[tokio::test(flavor = "multi_thread")]
async fn the_token_endpoint_answers_other_origins() {
    let app = TestApp::start().await;
    for path in ["/token", "/register"] {
        let preflight = app
            .http
            .request(Method::OPTIONS, app.url(path))
            .header("origin", "http://x")
            .send()
            .await
            .unwrap();
        assert_eq!(preflight.status(), 204);
        assert_eq!(header(preflight.headers(), "access-control-allow-origin"), Some("*"));
        assert!(
            header(preflight.headers(), "access-control-allow-headers").unwrap().contains("Content-Type")
        );
        assert_eq!(header(preflight.headers(), "access-control-allow-credentials"), None);
        let refused = app.http.post(app.url(path)).header("origin", "http://x").send().await.unwrap();
        assert_eq!(
            header(refused.headers(), "access-control-allow-origin"),
            Some("*"),
            "errors carry it too"
        );
    }
}

/// SESSION-08: cookies are ignored at the token and MCP endpoints, and tokens at pages.
#[tokio::test(flavor = "multi_thread")]
async fn cookies_and_tokens_do_not_mix() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let tokens = app.tokens(&mut browser, &client).await;
    assert_eq!(browser.sign_in(&app, None).await.status(), 200);
    let with_cookies = browser
        .send(app.http.post(app.mcp_url()).json(&json!({"jsonrpc": "2.0", "id": 1, "method": "ping"})))
        .await;
    assert_eq!(with_cookies.status(), 401);
    let page = app.http.get(app.url("/")).bearer_auth(&tokens.access).send().await.unwrap();
    assert!(!page.text().await.unwrap().contains("connect-client"));
}

/// TOKEN-05: of 64 concurrent redemptions one wins, two hundred times.
#[tokio::test(flavor = "multi_thread")]
async fn parallel_redemptions_have_one_winner() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    for _ in 0..200 {
        let code = browser.authorize(&app, &client).await;
        let attempts = (0..64).map(|_| app.redeem(&client, &code));
        let answers = futures_util::future::join_all(attempts).await;
        let statuses: Vec<u16> = answers.iter().map(|r| r.status().as_u16()).collect();
        assert_eq!(statuses.iter().filter(|s| **s == 200).count(), 1, "{statuses:?}");
        assert!(statuses.iter().all(|s| matches!(s, 200 | 400)), "{statuses:?}");
    }
}

/// TOKEN-06: a thief who redeemed first cannot hide the replay with wrong verifiers.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_verifiers_do_not_hide_a_replay() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let code = browser.authorize(&app, &client).await;
    let stolen = Tokens::of(app.redeem(&client, &code).await).await;
    let wrong = VERIFIER.replace("horse", "house");
    for _ in 0..4 {
        let mut form = client.redemption(&code);
        form.retain(|(name, _)| *name != "code_verifier");
        form.push(("code_verifier", &wrong));
        assert_eq!(error_of(app.token(&form).await).await.1, "invalid_grant");
    }
    assert_eq!(error_of(app.redeem(&client, &code).await).await.1, "invalid_grant");
    assert_eq!(app.call_tool(&stolen.access, "whoami", json!({})).await.status(), 401);
    assert!(app.has_event("code.replay", Some("code_replayed")));
}

/// AT-05: dates are whole seconds of the server's clock, at any moment of a second, and `iat` is never before
/// `auth_time`, even if the clock put the sign-in into the future.
#[tokio::test(flavor = "multi_thread")]
async fn dates_are_whole_seconds_in_order() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let client = app.client().await;
    app.clock.advance(std::time::Duration::from_millis(1999));
    let signed_in = app.clock.now().seconds();
    let code = ada.authorize(&app, &client).await;
    app.clock.advance(std::time::Duration::from_millis(900));
    let tokens = Tokens::of(app.redeem(&client, &code).await).await;
    let dates = |tokens: &Tokens| {
        let claims = tokens.claims();
        ["auth_time", "iat", "exp"].map(|name| claims[name].as_i64().unwrap_or_else(|| panic!("{claims}")))
    };
    let now = app.clock.now().seconds();
    assert_eq!(dates(&tokens), [signed_in, now, now + 900]);
    app.clock.advance(std::time::Duration::from_secs(5));
    let refreshed = Tokens::of(app.refresh(&client, &tokens.refresh).await).await;
    assert_eq!(dates(&refreshed), [signed_in, now + 5, now + 905]);
    let db = rusqlite::Connection::open(app.data_dir().join("portcullis.db")).unwrap();
    let ahead = app.clock.now() + std::time::Duration::from_secs(30);
    db.execute("UPDATE access_grant SET auth_time = ?1", [ahead.0]).unwrap();
    let refreshed = Tokens::of(app.refresh(&client, &refreshed.refresh).await).await;
    assert_eq!(dates(&refreshed), [now + 35, now + 35, now + 935]);
}

/// AT-07: with the longest client id, the longest signature, and two dozen scopes a token stays within the size
/// limit.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_has_at_most_four_kibibytes() {
    let scopes: Vec<String> = (0..24).map(|i| format!("department.application-{i:02}.write")).collect();
    let mut toml = format!(
        "[groups]\neveryone = {scopes:?}\n[tools.docs_read]\nscope = {scopes:?}\n[keys]\nsigning_alg = \"RS256\"\n"
    );
    for scope in &scopes {
        writeln!(toml, "[scopes.\"{scope}\"]\ntitle = \"Write\"").unwrap();
    }
    let app = TestApp::start_configured(&toml).await;
    let mut ada = app.admin().await;
    let id = format!("https://tools.example.net/{}", "x".repeat(512 - 26));
    let client = Client { id, redirect_uri: "http://localhost:4711/cb".to_owned() };
    let mut request = client.request(&app);
    request.insert("scope", scopes.join(" "));
    let page = ada.consent_page(&app, &authorize_url(&app, &request)).await;
    let code = redirect_parameter(&ada.decide(&app, &page, "approve").await, "code").unwrap();
    let tokens = Tokens::of(app.redeem(&client, &code).await).await;
    assert_eq!(tokens.body["scope"].as_str().unwrap().split(' ').count(), 24);
    assert!((2048..=4096).contains(&tokens.access.len()), "{}", tokens.access.len());
}

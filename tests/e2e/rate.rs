//! Rate limits: who is limited, the error, and that others are not affected.

use std::time::Duration;

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Browser, TestApp, authorize_url, header, redirect_parameter};

/// Sends until a request is rate limited; returns the number of other answers, and the refusal.
async fn until_refused(send: impl AsyncFn() -> Response) -> (usize, Response) {
    for through in 0..2_000 {
        let response = send().await;
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            return (through, response);
        }
    }
    panic!("nothing was refused");
}

fn retry_after(response: &Response) -> u64 {
    header(response.headers(), "retry-after").expect("a refusal says when to come back").parse().unwrap()
}

/// RATE-01: failures at `/token` from one address; standards §6.1: the client's error.
#[tokio::test]
async fn failures_are_limited_by_address() {
    let app = TestApp::start_configured("[rate]\ntoken_client = \"off\"\nclient_auth = \"off\"").await;
    let fail = async || app.token(&[("grant_type", "refresh_token"), ("client_id", "nobody")]).await;
    let (through, refused) = until_refused(fail).await;
    assert_eq!((through, retry_after(&refused)), (60, 1));
    assert_eq!(header(refused.headers(), "cache-control"), Some("no-store"));
    assert_eq!(header(refused.headers(), "access-control-allow-origin"), Some("*"));
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["error"], "temporarily_unavailable");
    // It works after the announced time.
    app.clock.advance(Duration::from_secs(1));
    assert_eq!(fail().await.status(), 401);
    assert_eq!(fail().await.status(), 429);
    // A preflight does not count (HTTP-07).
    let preflight = app.http.request(reqwest::Method::OPTIONS, app.url("/token")).send().await.unwrap();
    assert_eq!(preflight.status(), 204);
}

/// RATE-01, RATE-02: a client with failed authentications is limited at that address only: another client at
/// the same address, and the same one after a while, are not.
#[tokio::test]
async fn failed_client_authentication_is_limited_by_client_and_address() {
    let app = TestApp::start_configured("[rate]").await;
    let (mut browser, client) = (app.admin().await, app.client().await);
    let fail = async || {
        let form =
            [("grant_type", "refresh_token"), ("client_id", client.id.as_str()), ("client_secret", "guess")];
        app.token(&form).await
    };
    let (through, refused) = until_refused(fail).await;
    assert_eq!((through, retry_after(&refused)), (10, 6));
    let other = app.client().await;
    let tokens = app.tokens(&mut browser, &other).await;
    assert_eq!(app.refresh(&other, &tokens.refresh).await.status(), 200);
    app.clock.advance(Duration::from_secs(6));
    let tokens = app.tokens(&mut browser, &client).await;
    assert_eq!(app.refresh(&client, &tokens.refresh).await.status(), 200);
}

/// RATE-01: by any method of naming the client.
#[tokio::test]
async fn basic_authentication_counts_like_any_other() {
    let app = TestApp::start_configured("[rate]").await;
    let fail = async || {
        let request = app.http.post(app.url("/token")).basic_auth("somebody", Some("guess"));
        request.form(&[("grant_type", "client_credentials")]).send().await.unwrap()
    };
    assert_eq!(until_refused(fail).await.0, 10);
}

/// RATE-01: 30 requests a minute for one client at one address, successful or not.
#[tokio::test]
async fn token_requests_are_limited_by_client() {
    let app = TestApp::start_configured("[rate]").await;
    let (mut browser, client) = (app.admin().await, app.client().await);
    let mut refresh_token = app.tokens(&mut browser, &client).await.refresh;
    for _ in 0..29 {
        let answer = app.refresh(&client, &refresh_token).await;
        assert_eq!(answer.status(), 200);
        let body: Value = answer.json().await.unwrap();
        refresh_token = body["refresh_token"].as_str().unwrap().to_owned();
    }
    let refused = app.refresh(&client, &refresh_token).await;
    assert_eq!((refused.status().as_u16(), retry_after(&refused)), (429, 2));
    // The code and tokens still work.
    app.clock.advance(Duration::from_secs(2));
    assert_eq!(app.refresh(&client, &refresh_token).await.status(), 200);
}

/// RATE-01: a success costs its address nothing.
#[tokio::test]
async fn successes_are_refunded() {
    let limits = "[rate]\ntoken_address = 2\ntoken_client = \"off\"\nauthorize = 2\npasskey_address = 2\npasskey_user = \"off\"";
    let app = TestApp::start_configured(limits).await;
    let (mut browser, client) = (app.admin().await, app.client().await);
    for _ in 0..5 {
        app.tokens(&mut browser, &client).await;
    }
}

/// RATE-01: a person gets a page.
#[tokio::test]
async fn sign_ins_are_limited_by_address() {
    let app = TestApp::start_configured("[rate]").await;
    let client = app.client().await;
    let url = client.authorize_url(&app);
    let open = async || app.http.get(&url).send().await.unwrap();
    let (through, refused) = until_refused(open).await;
    assert_eq!((through, retry_after(&refused)), (60, 1));
    assert_eq!(header(refused.headers(), "content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(header(refused.headers(), "x-frame-options"), Some("DENY"));
    let page = refused.text().await.unwrap();
    assert!(page.contains("data-testid=\"error\"") && page.contains("Too many sign-in requests"), "{page}");
    app.clock.advance(Duration::from_secs(1));
    assert_eq!(open().await.status(), 200);
}

/// RATE-01: failed passkey verifications.
#[tokio::test]
async fn passkey_attempts_are_limited_by_address() {
    let app = TestApp::start_configured("[rate]").await;
    let mut browser = app.admin().await;
    let guess = async || {
        let body = json!({"ceremony": "none", "response": {}});
        let request = app.http.post(app.url("/login/finish")).header("origin", &app.origin).json(&body);
        request.send().await.unwrap()
    };
    let (through, refused) = until_refused(guess).await;
    assert_eq!((through, retry_after(&refused)), (20, 3));
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["error"], "rate_limited");
    app.clock.advance(Duration::from_secs(3));
    assert_eq!(browser.sign_in(&app, None).await.status(), 200);
}

/// RATE-01, CONSENT-08: a decision with an assertion counts as a use of a passkey; one without does not; a
/// success costs nothing.
#[tokio::test(flavor = "multi_thread")]
async fn confirmations_are_limited_by_address() {
    let rules = "[groups]\neveryone = [\"docs.read\", \"docs.full\"]\n[scopes.\"docs.full\"]\ntitle = \"Read\"\nrisk = \"high\"\n\
        [tools.docs_read]\nscope = \"docs.full\"\n[rate]\npasskey_address = 3\npasskey_user = \"off\"";
    let app = TestApp::start_configured(rules).await;
    let (mut browser, client) = (app.admin().await, app.client().await);
    let mut request = client.request(&app);
    request.insert("scope", "docs.full docs.read".to_owned());
    for _ in 0..5 {
        let page = browser.consent_page(&app, &authorize_url(&app, &request)).await;
        let scopes = ["docs.full", "docs.read"];
        let confirmed = browser.confirm(&app, &page, &scopes).await;
        let answer = browser.allow(&app, &page, &scopes, Some(&confirmed)).await;
        assert!(redirect_parameter(&answer, "code").is_some());
    }
    let page = browser.consent_page(&app, &authorize_url(&app, &request)).await;
    let decide = async |more: &[(&str, &str)]| {
        let form =
            [&[("transaction", page.transaction.as_str()), ("csrf", "guess"), ("decision", "approve")], more]
                .concat();
        app.http.post(app.url("/consent")).header("origin", &app.origin).form(&form).send().await.unwrap()
    };
    for _ in 0..10 {
        assert_eq!(decide(&[]).await.status(), 400, "no passkey, no try");
    }
    let guess = [("ceremony", "cer_guess"), ("assertion", "{}")];
    let (through, refused) = until_refused(async || decide(&guess).await).await;
    assert_eq!((through, retry_after(&refused)), (3, 20));
    assert_eq!(header(refused.headers(), "content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(decide(&[]).await.status(), 400);
    let change = app.http.post(app.url("/account/change")).header("origin", &app.origin).form(&guess);
    assert_eq!(change.send().await.unwrap().status(), 429, "a change of the account takes the same passkey");
    let page = refused.text().await.unwrap();
    assert!(page.contains("Too many sign-in requests"), "{page}");
}

/// RATE-01, DEV-01: the same for decisions about devices.
#[tokio::test]
async fn device_decisions_are_limited_by_address() {
    let app = TestApp::start_configured("device = true\n[rate]\npasskey_address = 3").await;
    let decide = async || {
        let form = [("transaction", "d_guess"), ("csrf", "guess"), ("decision", "approve")];
        app.http
            .post(app.url("/device/decision"))
            .header("origin", &app.origin)
            .form(&form)
            .send()
            .await
            .unwrap()
    };
    let (through, refused) = until_refused(decide).await;
    assert_eq!((through, retry_after(&refused)), (3, 20));
    assert!(refused.text().await.unwrap().contains("data-testid=\"error\""));
    app.clock.advance(Duration::from_secs(20));
    assert_ne!(decide().await.status(), 429);
}

/// RATE-01, RATE-02: one user's passkeys at one address are limited; they are not suspended, and other users
/// are not affected.
#[tokio::test(flavor = "multi_thread")]
async fn passkey_uses_are_limited_by_user() {
    let app = TestApp::start_configured("[rate]").await;
    let mut ada = app.admin().await;
    let mut grace = app.enrol("grace", &[]).await;
    let sign_ins = async |browser: &mut Browser| {
        for through in 0..50 {
            let response = browser.sign_in(&app, None).await;
            if response.status() == StatusCode::TOO_MANY_REQUESTS {
                return (through, retry_after(&response));
            }
            assert_eq!(response.status(), 200);
        }
        panic!("nothing was refused");
    };
    assert_eq!(sign_ins(&mut ada).await, (10, 6));
    assert_eq!(grace.sign_in(&app, None).await.status(), 200);
    app.clock.advance(Duration::from_secs(6));
    assert_eq!(ada.sign_in(&app, None).await.status(), 200);
}

/// RATE-01: by user and client, before any of the request is read; another client of the same user is not
/// affected.
#[tokio::test]
async fn calls_are_limited_by_principal() {
    let app = TestApp::start_configured("[rate]\nmcp = 25").await;
    let (mut browser, client, other) = (app.admin().await, app.client().await, app.client().await);
    let token = app.tokens(&mut browser, &client).await.access;
    let call = async || app.call_tool(&token, "whoami", json!({})).await;
    let (through, refused) = until_refused(call).await;
    assert_eq!((through, retry_after(&refused)), (25, 3));
    let body: Value = refused.json().await.unwrap();
    assert_eq!((&body["jsonrpc"], &body["error"]["code"]), (&json!("2.0"), &json!(429)));
    let second = app.tokens(&mut browser, &other).await.access;
    assert_eq!(app.call_tool(&second, "whoami", json!({})).await.status(), 200);
    app.clock.advance(Duration::from_secs(3));
    assert_eq!(call().await.status(), 200);
}

/// RATE-01, RATE-02, AUDIT-06: an address that sends garbage as tokens is rate limited, and the excess is
/// recorded as a count. A valid token from the same address is accepted, also a new one; an ended token gets
/// the challenge that its client needs.
#[tokio::test]
async fn junk_tokens_are_limited_by_address_and_hurt_no_good_one() {
    let app = TestApp::start_configured("[rate]").await;
    let (mut browser, client) = (app.admin().await, app.client().await);
    let known = app.tokens(&mut browser, &client).await;
    let call = async |token: &str| app.call_tool(token, "whoami", json!({})).await;
    assert_eq!(call(&known.access).await.status(), 200);
    let foreign = format!("{}A", known.access);
    for _ in 0..30 {
        assert_eq!(call(&foreign).await.status(), 401);
    }
    let (through, refused) = until_refused(async || call("junk").await).await;
    assert_eq!((through, retry_after(&refused)), (30, 1));
    assert!(!refused.headers().contains_key("www-authenticate"));
    let body: Value = refused.json().await.unwrap();
    assert_eq!((&body["jsonrpc"], &body["error"]["code"]), (&json!("2.0"), &json!(429)));

    assert_eq!(call(&known.access).await.status(), 200);
    let renewed: Value = app.refresh(&client, &known.refresh).await.json().await.unwrap();
    assert_eq!(call(renewed["access_token"].as_str().unwrap()).await.status(), 200);
    app.clock.advance(Duration::from_mins(20));
    until_refused(async || call("junk").await).await;
    let expired = call(&known.access).await;
    assert_eq!(expired.status(), 401);
    assert!(header(expired.headers(), "www-authenticate").unwrap().contains("expired"));

    let app = app.restart().await;
    let counts: Vec<Value> =
        app.audit().into_iter().filter(|record| record["event"] == "rate.limited").collect();
    assert!(
        counts.iter().all(|count| count["reason"] == "mcp_address" && count["src_ip"].is_string()),
        "{counts:?}"
    );
    assert_eq!(counts.iter().filter_map(|count| count["detail"]["count"].as_u64()).sum::<u64>(), 2);
}

/// RATE-01, RATE-02: an ended token may be sent as often as a valid one, by its user, client and address;
/// beyond that it is only counted. It uses up nothing of the same user's limit for valid tokens.
#[tokio::test]
async fn an_ended_token_is_limited_and_slows_down_nobody_else() {
    let app = TestApp::start_configured("[rate]\nmcp = 5\nmcp_address = 1").await;
    let (mut browser, client) = (app.admin().await, app.client().await);
    let (ended, other) = (app.tokens(&mut browser, &client).await, app.tokens(&mut browser, &client).await);
    let form = [("token", ended.refresh.as_str()), ("client_id", client.id.as_str())];
    let revoked = app.http.post(app.url("/revoke")).form(&form).send().await.unwrap();
    assert_eq!(revoked.status(), 200);
    let call = async |token: &str| app.call_tool(token, "whoami", json!({})).await;
    let (through, refused) = until_refused(async || call(&ended.access).await).await;
    assert_eq!((through, retry_after(&refused)), (5, 12));
    for _ in 0..5 {
        assert_eq!(call(&other.access).await.status(), 200);
    }
    assert_eq!(call("junk").await.status(), 401, "junk has a limit of its own");
    assert_eq!(call("junk").await.status(), 429);
}

/// AUDIT-06: any number of refusals is recorded as a count.
#[tokio::test]
async fn refusals_are_counted_on_record() {
    let app = TestApp::start_configured("[rate]\ntoken_address = 3").await;
    for _ in 0..10 {
        app.token(&[]).await;
    }
    let app = app.restart().await;
    let records = app.audit();
    let limited: Vec<_> = records.iter().filter(|r| r["event"] == "rate.limited").collect();
    assert_eq!(limited.len(), 1, "{limited:?}");
    assert_eq!(limited[0]["reason"], "token_address");
    assert_eq!(limited[0]["outcome"], "denied");
    assert_eq!(limited[0]["detail"]["count"], 7);
    assert!(limited[0]["src_ip"].is_string() && limited[0]["request_id"].is_string());
}

/// RATE-01: `[rate]` raises, lowers and disables limits.
#[tokio::test]
async fn limits_are_configured() {
    let app = TestApp::start_configured("[rate]\ntoken_address = 5\nauthorize = \"off\"").await;
    assert_eq!(until_refused(async || app.token(&[]).await).await.0, 5);
    for _ in 0..70 {
        assert_eq!(app.get("/authorize").await.status(), 400);
    }
}

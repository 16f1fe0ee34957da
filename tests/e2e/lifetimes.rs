//! The lifetime of access tokens, at both bounds that a site may configure (standards §1).

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{TestApp, Tokens};
use crate::introspection::Server;

/// The tolerated clock difference of servers that check tokens.
const LEEWAY: Duration = Duration::from_mins(1);

fn configured(access: &str) -> String {
    format!("[tokens]\naccess = \"{access}\"\n")
}

async fn works(app: &TestApp, token: &str) -> u16 {
    app.call_tool(token, "whoami", json!({})).await.status().as_u16()
}

/// TOKEN-02, AT-02, RS-05: a token has the configured lifetime, at either bound, and the consent page shows it.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_lives_as_long_as_the_site_says() {
    for (access, lifetime, words) in
        [("60s", 60, "1 minute"), ("90s", 90, "90 seconds"), ("1h", 3600, "60 minutes")]
    {
        let app = TestApp::start_configured(&configured(access)).await;
        let mut browser = app.admin().await;
        let client = app.client().await;
        let server = Server::add(&app, "elsewhere", &app.mcp_url());
        let page = browser.consent_page(&app, &client.authorize_url(&app)).await;
        assert!(page.html.contains(&format!("Access lasts {words}")), "{access}");
        let answer = app.redeem(&client, &browser.authorize(&app, &client).await).await;
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["expires_in"], lifetime);
        let token = body["access_token"].as_str().unwrap();
        let life = Duration::from_secs(lifetime);
        app.clock.advance(life.saturating_sub(Duration::from_secs(1)));
        assert_eq!(server.ask(&app, token).await["active"], true, "{access}");
        assert_eq!(works(&app, token).await, 200, "{access}");
        app.clock.advance(Duration::from_secs(1));
        assert_eq!(server.ask(&app, token).await["active"], false, "{access}");
        app.clock.advance(LEEWAY.saturating_sub(Duration::from_secs(1)));
        assert_eq!(works(&app, token).await, 200, "{access}");
        app.clock.advance(Duration::from_secs(1));
        assert_eq!(works(&app, token).await, 401, "{access}");
    }
}

/// RS-08: ended access stays ended for the longest lifetime, over restarts, also after the lifetime was
/// shortened.
#[tokio::test(flavor = "multi_thread")]
async fn ended_access_stays_ended_for_the_longest_lifetime() {
    let mut app = TestApp::start_configured(&configured("3600s")).await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let mut ended = Vec::new();
    for of_the_grant in [true, false] {
        let tokens = app.tokens(&mut browser, &client).await;
        assert_eq!(works(&app, &tokens.access).await, 200);
        let token = if of_the_grant { &tokens.refresh } else { &tokens.access };
        let form = [("token", token.as_str()), ("client_id", &client.id)];
        assert_eq!(app.http.post(app.url("/revoke")).form(&form).send().await.unwrap().status(), 200);
        ended.push(tokens.access);
    }
    let good = app.tokens(&mut browser, &client).await;
    for (minutes, access) in [(0, "3600s"), (30, "60s"), (29, "15m"), (1, "60s")] {
        app.clock.advance(Duration::from_mins(minutes));
        app = app.restart_configured(&configured(access)).await;
        for dead in &ended {
            assert_eq!(works(&app, dead).await, 401, "{minutes} {access}");
        }
        assert_eq!(works(&app, &good.access).await, 200, "{minutes} {access}");
    }
    app.clock.advance(LEEWAY);
    assert_eq!(works(&app, &good.access).await, 401);
}

/// KEYS-02, KEYS-04: a retired key verifies as long as the longest of its tokens lives, and removing it says
/// until when its tokens would have been valid.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_kept_for_the_longest_lifetime() {
    let app = TestApp::start_configured(&configured("1h")).await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let old = app.tokens(&mut browser, &client).await;
    let issued = app.clock.now();
    let rotated = app.console(&["key", "rotate", "--now", "--yes"]);
    assert_eq!(rotated["rotated"]["state"], "active", "{rotated}");
    app.clock.advance(Duration::from_mins(30));
    let app = app.restart_configured(&configured("60s")).await;
    let fresh = Tokens::of(app.refresh(&client, &old.refresh).await).await;
    let claims = fresh.claims();
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 60);
    app.clock.advance(Duration::from_mins(30));
    assert_eq!(works(&app, &old.access).await, 200);
    let keys = app.console(&["key", "list"]);
    let retired = keys["keys"]
        .as_array()
        .unwrap()
        .iter()
        .find(|key| key["state"] == "retired" && key["alg"] == "ES256");
    let kid = retired.unwrap_or_else(|| panic!("{keys}"))["kid"].as_str().unwrap().to_owned();
    let removed = app.console(&["key", "remove", "--kid", &kid, "--reason", "a test", "--yes"]);
    let told = removed["removed"]["blast"]["expires_by"].as_i64().unwrap();
    assert!(told >= (issued + Duration::from_hours(1)).0, "{removed}");
    assert_eq!(works(&app, &old.access).await, 401);
}

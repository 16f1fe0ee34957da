//! Refresh token families: rotation, lost responses, races, and stolen tokens.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::json;
use shared::db::ReadOnly;
use shared::schema::SCHEMA;

use crate::harness::{Browser, Client, TestApp, Tokens, error_of};

/// A server whose administrator has allowed a client: the browser, the client, and the first tokens.
pub async fn family() -> (TestApp, Browser, Client, Tokens) {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let tokens = app.tokens(&mut browser, &client).await;
    (app, browser, client, tokens)
}

/// REFRESH-02: every use rotates; the family's end and scope stay.
#[tokio::test(flavor = "multi_thread")]
async fn every_use_rotates() {
    let (app, _, client, first) = family().await;
    let second = Tokens::of(app.refresh(&client, &first.refresh).await).await;
    assert_ne!(second.refresh, first.refresh);
    assert_ne!(second.access, first.access);
    assert_eq!(second.claims()["grant_id"], first.claims()["grant_id"]);
    assert_eq!(second.body["scope"], "docs.read");
    assert_eq!(app.call_tool(&second.access, "whoami", json!({})).await.status(), 200);
    assert!(app.has_event("token.refresh.rotated", None));
}

/// REFRESH-03: another client's token is refused and not used up.
#[tokio::test(flavor = "multi_thread")]
async fn another_client_cannot_use_it() {
    let (app, _, client, tokens) = family().await;
    let thief = app.client().await;
    assert_eq!(error_of(app.refresh(&thief, &tokens.refresh).await).await.1, "invalid_grant");
    assert_eq!(app.refresh(&client, &tokens.refresh).await.status(), 200);
}

/// REFRESH-09, TOKEN-14: other secrets are not accepted as refresh tokens.
#[tokio::test(flavor = "multi_thread")]
async fn other_secrets_are_refused_as_refresh_tokens() {
    let (app, mut browser, client, tokens) = family().await;
    let code = browser.authorize(&app, &client).await;
    let renamed = tokens.refresh.replace("rt_", "ac_");
    for bad in
        [tokens.access.as_str(), &code, &renamed, &tokens.refresh[1..], &format!("{}x", tokens.refresh), ""]
    {
        let (status, error) = error_of(app.refresh(&client, bad).await).await;
        assert_eq!(status, 400);
        assert!(matches!(error.as_str(), "invalid_grant" | "invalid_request"), "{error}");
    }
    assert_eq!(app.refresh(&client, &tokens.refresh).await.status(), 200);
}

/// REFRESH-04: the same token gives the same successor again, also across a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_given_again() {
    let (app, _, client, first) = family().await;
    let lost = Tokens::of(app.refresh(&client, &first.refresh).await).await;
    app.clock.advance(Duration::from_hours(23));
    let app = app.restart().await;
    let again = Tokens::of(app.refresh(&client, &first.refresh).await).await;
    assert_eq!(again.refresh, lost.refresh);
    assert_ne!(again.access, lost.access);
    assert!(app.has_event("token.refresh.grace", None));
    assert_eq!(app.refresh(&client, &again.refresh).await.status(), 200);
}

/// REFRESH-06: once the successor's access token was used, the predecessor is treated as stolen.
#[tokio::test(flavor = "multi_thread")]
async fn a_predecessor_of_a_used_leaf_ends_the_family() {
    let (app, _, client, first) = family().await;
    let second = Tokens::of(app.refresh(&client, &first.refresh).await).await;
    assert_eq!(app.call_tool(&second.access, "whoami", json!({})).await.status(), 200);
    app.clock.advance(Duration::from_mins(1));
    assert_eq!(error_of(app.refresh(&client, &first.refresh).await).await.1, "invalid_grant");
    assert_eq!(app.call_tool(&second.access, "whoami", json!({})).await.status(), 401);
    assert_eq!(error_of(app.refresh(&client, &second.refresh).await).await.1, "invalid_grant");
    assert!(app.has_event("token.refresh.reuse", Some("rotated_token_presented")));
}

/// REFRESH-06: within a minute two processes of one client may race, even if the new tokens were used.
#[tokio::test(flavor = "multi_thread")]
async fn processes_that_refresh_at_once_stay_signed_in() {
    let (app, _, client, first) = family().await;
    let second = Tokens::of(app.refresh(&client, &first.refresh).await).await;
    assert_eq!(app.call_tool(&second.access, "whoami", json!({})).await.status(), 200);
    app.clock.advance(Duration::from_secs(59));
    let twin = Tokens::of(app.refresh(&client, &first.refresh).await).await;
    assert_eq!(twin.refresh, second.refresh);
}

/// REFRESH-06: a lost response is tolerated for a day, not longer.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_day_a_predecessor_ends_the_family() {
    let (app, _, client, first) = family().await;
    let second = Tokens::of(app.refresh(&client, &first.refresh).await).await;
    app.clock.advance(Duration::from_hours(24));
    assert_eq!(error_of(app.refresh(&client, &first.refresh).await).await.1, "invalid_grant");
    assert_eq!(error_of(app.refresh(&client, &second.refresh).await).await.1, "invalid_grant");
}

/// REFRESH-05: an older token than the predecessor is reuse at any time.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_token_ends_the_family() {
    let (app, _, client, first) = family().await;
    let second = Tokens::of(app.refresh(&client, &first.refresh).await).await;
    let third = Tokens::of(app.refresh(&client, &second.refresh).await).await;
    assert_eq!(error_of(app.refresh(&client, &first.refresh).await).await.1, "invalid_grant");
    assert_eq!(error_of(app.refresh(&client, &third.refresh).await).await.1, "invalid_grant");
    assert_eq!(app.call_tool(&third.access, "whoami", json!({})).await.status(), 401);
}

/// REFRESH-06: in `strict` mode each token works once.
#[tokio::test(flavor = "multi_thread")]
async fn strict_rotation_forgives_nothing() {
    let app = TestApp::start_with(authz::Config { strict_refresh: true, ..authz::Config::default() }).await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let first = app.tokens(&mut browser, &client).await;
    let second = Tokens::of(app.refresh(&client, &first.refresh).await).await;
    assert_eq!(error_of(app.refresh(&client, &first.refresh).await).await.1, "invalid_grant");
    assert_eq!(app.call_tool(&second.access, "whoami", json!({})).await.status(), 401);
}

/// REFRESH-07: fourteen idle days, or thirty in all.
#[tokio::test(flavor = "multi_thread")]
async fn refresh_token_families_expire() {
    let (app, mut browser, client, mut tokens) = family().await;
    for _ in 0..3 {
        app.clock.advance(Duration::from_hours(24 * 9));
        tokens = Tokens::of(app.refresh(&client, &tokens.refresh).await).await;
    }
    app.clock.advance(Duration::from_hours(24 * 3));
    assert_eq!(error_of(app.refresh(&client, &tokens.refresh).await).await.1, "invalid_grant");
    let idle = app.tokens(&mut browser, &client).await;
    app.clock.advance(Duration::from_hours(24 * 14));
    assert_eq!(error_of(app.refresh(&client, &idle.refresh).await).await.1, "invalid_grant");
}

/// TOKEN-11, TOKEN-12: a wider scope and another resource are refused, and use nothing up.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_never_widens() {
    let (app, _, client, tokens) = family().await;
    let with = |name: &'static str, value: &'static str| {
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", tokens.refresh.as_str()),
            ("client_id", client.id.as_str()),
            (name, value),
        ];
        let form = form.map(|(n, v)| (n.to_owned(), v.to_owned()));
        app.http.post(app.url("/token")).form(&form).send()
    };
    assert_eq!(error_of(with("scope", "docs.read admin").await.unwrap()).await.1, "invalid_scope");
    assert_eq!(error_of(with("scope", "a\"b").await.unwrap()).await.1, "invalid_scope");
    assert_eq!(error_of(with("resource", "http://localhost:1/mcp").await.unwrap()).await.1, "invalid_target");
    assert_eq!(with("scope", "docs.read offline_access").await.unwrap().status(), 200);
}

/// REFRESH-04: 64 concurrent uses, two hundred times: one successor, one live leaf, never a server error.
#[tokio::test(flavor = "multi_thread")]
async fn parallel_refreshes_share_one_successor() {
    let (app, _, client, mut tokens) = family().await;
    let db = ReadOnly::open(&app.data_dir().join("portcullis.db"), &SCHEMA).unwrap();
    for _ in 0..200 {
        let attempts = (0..64).map(|_| app.refresh(&client, &tokens.refresh));
        let mut successors = HashSet::new();
        for answer in futures_util::future::join_all(attempts).await {
            assert_eq!(answer.status(), 200);
            tokens = Tokens::of(answer).await;
            successors.insert(tokens.refresh.clone());
        }
        assert_eq!(successors.len(), 1);
        let leaves = db.read(|conn| {
            conn.query_row("SELECT count(*) FROM refresh_token WHERE rotated_at IS NULL", [], |row| {
                row.get(0)
            })
        });
        assert_eq!(leaves.unwrap(), Some(1));
    }
}

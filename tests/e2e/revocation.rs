//! Revocation: what ends, what continues, and who may revoke.

use std::time::Duration;

use reqwest::{Method, Response, StatusCode};
use rusqlite::Connection;
use serde_json::json;

use crate::harness::{Browser, Client, TestApp, Tokens, error_of, header};

async fn family() -> (TestApp, Browser, Client, Tokens) {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let tokens = app.tokens(&mut browser, &client).await;
    (app, browser, client, tokens)
}

async fn revoke(app: &TestApp, client: &Client, token: &str) -> Response {
    app.http
        .post(app.url("/revoke"))
        .form(&[("token", token), ("client_id", client.id.as_str())])
        .send()
        .await
        .unwrap()
}

async fn whoami(app: &TestApp, access_token: &str) -> StatusCode {
    app.call_tool(access_token, "whoami", json!({})).await.status()
}

/// REVOKE-01, REVOKE-04, REVOKE-06: a refresh token ends its family and every access token at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_ends_its_family() {
    let (app, _, client, first) = family().await;
    let second = Tokens::of(app.refresh(&client, &first.refresh).await).await;
    assert_eq!(whoami(&app, &first.access).await, 200);
    let answer = revoke(&app, &client, &second.refresh).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(header(answer.headers(), "cache-control"), Some("no-store"));
    assert_eq!(header(answer.headers(), "access-control-allow-origin"), Some("*"));
    assert_eq!(answer.text().await.unwrap(), "");
    assert_eq!(whoami(&app, &first.access).await, 401);
    assert_eq!(whoami(&app, &second.access).await, 401);
    assert_eq!(error_of(app.refresh(&client, &second.refresh).await).await.1, "invalid_grant");
    let record = app.audit().into_iter().find(|r| r["event"] == "token.revoked").unwrap();
    assert_eq!(record["outcome"], "allowed");
    assert_eq!(record["actor"]["id"], client.id);
    assert_eq!(record["grant_id"], second.claims()["grant_id"]);
    let app = app.restart().await;
    assert_eq!(whoami(&app, &first.access).await, 401);
    assert_eq!(error_of(app.refresh(&client, &second.refresh).await).await.1, "invalid_grant");
}

/// REVOKE-04: a rotated refresh token ends the family too: RFC 7009 does not distinguish them.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_refresh_token_ends_its_family() {
    let (app, _, client, first) = family().await;
    let second = Tokens::of(app.refresh(&client, &first.refresh).await).await;
    assert_eq!(revoke(&app, &client, &first.refresh).await.status(), 200);
    assert_eq!(whoami(&app, &second.access).await, 401);
    assert_eq!(error_of(app.refresh(&client, &second.refresh).await).await.1, "invalid_grant");
}

/// REVOKE-04: an access token ends alone; it stays ended over a restart, and its grant continues.
#[tokio::test(flavor = "multi_thread")]
async fn an_access_token_ends_alone() {
    let (app, _, client, first) = family().await;
    let second = Tokens::of(app.refresh(&client, &first.refresh).await).await;
    assert_eq!(whoami(&app, &first.access).await, 200);
    assert_eq!(revoke(&app, &client, &first.access).await.status(), 200);
    assert_eq!(whoami(&app, &first.access).await, 401);
    assert_eq!(whoami(&app, &second.access).await, 200);
    let record = app.audit().into_iter().find(|r| r["event"] == "token.revoked").unwrap();
    assert_eq!(record["jti"], first.claims()["jti"]);
    let app = app.restart().await;
    assert_eq!(whoami(&app, &first.access).await, 401);
    assert_eq!(whoami(&app, &second.access).await, 200);
    assert_eq!(app.refresh(&client, &second.refresh).await.status(), 200);
}

/// REVOKE-01: unknown, malformed, expired and ended tokens count as revoked, whatever the hint says.
#[tokio::test(flavor = "multi_thread")]
async fn revoking_an_invalid_token_succeeds() {
    let (app, mut browser, client, tokens) = family().await;
    let code = browser.authorize(&app, &client).await;
    let forged = format!("{}x", tokens.access);
    for nothing in ["x", "rt_unknown", "a.b.c", &tokens.access[1..], &forged, &tokens.refresh[..20], &code] {
        let answer = revoke(&app, &client, nothing).await;
        assert_eq!(
            (answer.status(), answer.text().await.unwrap().as_str()),
            (StatusCode::OK, ""),
            "{nothing}"
        );
    }
    assert_eq!(app.redeem(&client, &code).await.status(), 200, "a code is no token");
    assert_eq!(whoami(&app, &tokens.access).await, 200);
    for hint in ["access_token", "nonsense"] {
        let form = [("token", tokens.refresh.as_str()), ("token_type_hint", hint), ("client_id", &client.id)];
        assert_eq!(app.http.post(app.url("/revoke")).form(&form).send().await.unwrap().status(), 200);
        assert_eq!(whoami(&app, &tokens.access).await, 401);
    }
    let other = app.tokens(&mut browser, &client).await;
    app.clock.advance(Duration::from_mins(16));
    assert_eq!(revoke(&app, &client, &other.access).await.status(), 200);
    let revoked: Vec<_> = app.audit().into_iter().filter(|r| r["event"] == "token.revoked").collect();
    let allowed = revoked.iter().filter(|r| r["outcome"] == "allowed").count();
    assert_eq!((allowed, revoked.len()), (1, 10), "the record tells which of them ended something");
    assert_eq!(revoked[9]["reason"], "expired");
}

/// REVOKE-03: another client's token is refused, does not change, and the attempt is recorded.
#[tokio::test(flavor = "multi_thread")]
async fn another_clients_token_is_refused() {
    let (app, _, client, tokens) = family().await;
    let thief = app.client().await;
    for token in [&tokens.refresh, &tokens.access] {
        let (status, error) = error_of(revoke(&app, &thief, token).await).await;
        assert_eq!((status, error.as_str()), (StatusCode::BAD_REQUEST, "invalid_grant"));
    }
    assert_eq!(whoami(&app, &tokens.access).await, 200);
    assert_eq!(app.refresh(&client, &tokens.refresh).await.status(), 200);
    let refused: Vec<_> = app.audit().into_iter().filter(|r| r["reason"] == "other_client").collect();
    assert_eq!(refused.len(), 2);
    assert!(refused.iter().all(|r| r["actor"]["id"] == thief.id.as_str() && r["event"] == "token.revoked"));
}

/// REVOKE-02: a caller that is not a client revokes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn only_clients_revoke() {
    let (app, browser, client, tokens) = family().await;
    let send = async |form: &[(&str, &str)], authorization: Option<&str>| {
        let mut request = app.http.post(app.url("/revoke")).form(form);
        let cookies: Vec<String> = browser.cookies.iter().map(|(n, v)| format!("{n}={v}")).collect();
        request = request.header("cookie", cookies.join("; "));
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        request.send().await.unwrap()
    };
    let token = ("token", tokens.refresh.as_str());
    let bearer = format!("Bearer {}", tokens.access);
    for (form, authorization) in [
        (&[token][..], None),
        (&[token, ("client_id", "dyn_nobody")], None),
        (&[token, ("client_id", &client.id), ("client_secret", "cs_x")], None),
        (&[token, ("client_id", &client.id)], Some(bearer.as_str())),
        (&[token], Some("Basic !!")),
    ] {
        let answer = send(form, authorization).await;
        let challenged = header(answer.headers(), "www-authenticate").map(str::to_owned);
        let (status, error) = error_of(answer).await;
        assert_eq!((status, error.as_str()), (StatusCode::UNAUTHORIZED, "invalid_client"), "{form:?}");
        assert_eq!(challenged.is_some(), authorization.is_some());
    }
    assert_eq!(whoami(&app, &tokens.access).await, 200);
    assert_eq!(app.audit().iter().filter(|r| r["event"] == "client.auth_failed").count(), 5);
}

/// REVOKE-01, HTTP-07: the form of a request; a preflight needs none.
#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_refused() {
    let (app, _, client, tokens) = family().await;
    let post = || app.http.post(app.url("/revoke"));
    let form = [("token", tokens.refresh.as_str()), ("client_id", client.id.as_str())];
    let in_query = app.http.post(app.url("/revoke?token=x")).form(&form);
    let twice = [form[0], form[0], form[1]];
    for request in [
        post().form(&[("client_id", client.id.as_str())]),
        post().form(&[("client_id", client.id.as_str()), ("token", "")]),
        post().form(&twice),
        post().json(&json!({"token": tokens.refresh, "client_id": client.id})),
        in_query,
    ] {
        let (status, error) = error_of(request.send().await.unwrap()).await;
        assert_eq!((status, error.as_str()), (StatusCode::BAD_REQUEST, "invalid_request"));
    }
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let answer = app.http.request(method, app.url("/revoke")).send().await.unwrap();
        assert_eq!(answer.status(), 405);
        assert_eq!(header(answer.headers(), "allow"), Some("POST"));
    }
    let preflight = app.http.request(Method::OPTIONS, app.url("/revoke")).send().await.unwrap();
    assert_eq!(preflight.status(), 204);
    assert_eq!(header(preflight.headers(), "access-control-allow-methods"), Some("POST"));
    assert_eq!(whoami(&app, &tokens.access).await, 200);
}

/// REVOKE-05: if the revocation cannot be stored, it is not reported as done.
#[tokio::test(flavor = "multi_thread")]
async fn a_storage_fault_revokes_nothing_and_is_reported() {
    let (app, _, client, tokens) = family().await;
    let database = Connection::open(app.data_dir().join("portcullis.db")).unwrap();
    database.execute_batch("ALTER TABLE audit RENAME TO away").unwrap();
    for token in [&tokens.refresh, &tokens.access, "rt_unknown"] {
        let answer = revoke(&app, &client, token).await;
        assert!(answer.headers().contains_key("retry-after"));
        let (status, error) = error_of(answer).await;
        assert_eq!((status, error.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable"));
    }
    database.execute_batch("ALTER TABLE away RENAME TO audit").unwrap();
    assert_eq!(whoami(&app, &tokens.access).await, 200);
    assert_eq!(app.refresh(&client, &tokens.refresh).await.status(), 200);
}

/// META-04: the metadata has the endpoint and its authentication methods.
#[tokio::test(flavor = "multi_thread")]
async fn the_metadata_names_the_endpoint() {
    let app = TestApp::start().await;
    let metadata: serde_json::Value =
        app.get("/.well-known/oauth-authorization-server").await.json().await.unwrap();
    assert_eq!(metadata["revocation_endpoint"], app.url("/revoke"));
    assert_eq!(
        metadata["revocation_endpoint_auth_methods_supported"],
        metadata["token_endpoint_auth_methods_supported"]
    );
}

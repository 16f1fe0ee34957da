//! Profiles (POL-03): each is its own resource, and nothing of one is valid at another.

use std::sync::Arc;

use axum::body::Body;
use http::Request as HttpRequest;
use serde_json::{Value, json};
use shared::{AccessToken, Issuer, ResourceUri};

use super::{call, legacy, modern};
use crate::item::Effect;
use crate::rules::{Pattern, ProfileRule, Rules};
use crate::testing::{Answer, App, TestSource, bearer, post, token};

const METADATA: &str = "/.well-known/oauth-protected-resource";

/// A server with the tools `ci_run` and `db_read` beside its own, and the profiles `ci` and `docs`.
fn app() -> (App, Arc<TestSource>) {
    let staged = TestSource::prompt(&[("ci_run", Effect::ReadOnly), ("db_read", Effect::ReadOnly)]);
    let mut rules = Rules::default();
    rules.need("ci_run", "docs.read");
    rules.need("db_read", "docs.read");
    for (name, items) in [("ci", "ci_*"), ("docs", "docs_*")] {
        let items = vec![Pattern::parse(items).unwrap()];
        rules.profiles.insert(name.to_owned(), ProfileRule { items, ..ProfileRule::default() });
    }
    rules.profiles.get_mut("ci").unwrap().title = Some("Pipelines".to_owned());
    rules.profiles.get_mut("ci").unwrap().default_scope = Some("".parse().unwrap());
    (App::staged_under(&staged, &rules), staged)
}

/// A token for the endpoint at this path.
fn token_at(path: &str) -> AccessToken {
    AccessToken { aud: ResourceUri::at(&Issuer::localhost(8080), path), ..token("docs.read") }
}

fn asked(path: &str, token: &AccessToken, method: &str, params: &Value) -> HttpRequest<Body> {
    legacy(post().uri(path).header("authorization", bearer(token)), method, params)
}

async fn tools(app: &App, path: &str) -> Vec<String> {
    let list = app.send(asked(path, &token_at(path), "tools/list", &json!({}))).await.json();
    let tools = list["result"]["tools"].as_array().unwrap();
    tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
}

async fn get(app: &App, path: &str) -> Answer {
    app.send(HttpRequest::get(path).header("host", "localhost:8080").body(Body::empty()).unwrap()).await
}

/// POL-03, RS-05: a token for one endpoint is refused at every other, in both directions and both eras, each
/// time.
#[tokio::test]
async fn a_token_is_accepted_only_at_its_own_endpoint() {
    let (app, staged) = app();
    let paths = ["/mcp", "/mcp/ci", "/mcp/docs"];
    for _ in 0..2 {
        for (own, other) in paths.iter().flat_map(|own| paths.map(|other| (*own, other))) {
            let (token, params) = (token_at(own), call("whoami", &json!({})));
            let request = post().uri(other).header("authorization", bearer(&token));
            let answers = [
                app.send(asked(other, &token, "tools/list", &json!({}))).await,
                app.send(modern(request, "tools/call", params)).await,
            ];
            for answer in answers {
                assert_eq!(answer.status, if own == other { 200 } else { 401 }, "{own} at {other}");
            }
        }
    }
    assert_eq!(staged.calls(), 0);
    let denied = app.records("rs.denied");
    assert!(denied.iter().all(|record| record["reason"] == "audience"));
    let resources: Vec<_> = denied.iter().map(|record| record["resource"].as_str().unwrap()).collect();
    assert!(resources.contains(&"http://localhost:8080/mcp/ci"), "{resources:?}");
}

/// POL-03, MCP-08, MCP-09: a profile lists its selection, and items that need only a valid token. Other items
/// are unknown there, byte for byte, for every caller, and calls of them reach no source.
#[tokio::test]
async fn a_profile_reaches_its_selection_alone() {
    let (app, staged) = app();
    assert_eq!(tools(&app, "/mcp").await, ["ci_run", "db_read", "docs_read", "docs_search", "whoami"]);
    assert_eq!(tools(&app, "/mcp/ci").await, ["ci_run", "whoami"]);
    assert_eq!(tools(&app, "/mcp/docs").await, ["docs_read", "docs_search", "whoami"]);
    let token = token_at("/mcp/ci");
    let mut answers = Vec::new();
    for name in ["db_read", "docs_read", "nothing"] {
        let answer = app.send(asked("/mcp/ci", &token, "tools/call", &call(name, &json!({})))).await;
        answers.push(String::from_utf8(answer.body).unwrap().replace(name, "NAME"));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(staged.calls(), 0);
    let reached = app.send(asked("/mcp/ci", &token, "tools/call", &call("ci_run", &json!({})))).await;
    assert_eq!((reached.json()["result"]["isError"].clone(), staged.calls()), (json!(false), 1));
    assert_eq!(app.records("mcp.call")[0]["resource"], "http://localhost:8080/mcp/ci");
}

/// POL-03, RS-02, RS-03, RS-11, META-07: a profile's challenges name its own document and scopes.
#[tokio::test]
async fn a_profile_challenges_for_itself() {
    let (app, _) = app();
    for (path, asks) in
        [("/mcp", ", scope=\"docs.read\""), ("/mcp/ci", ""), ("/mcp/docs", ", scope=\"docs.read\"")]
    {
        let document = format!("resource_metadata=\"http://localhost:8080{METADATA}{path}\"");
        for method in ["POST", "GET", "DELETE", "HEAD"] {
            let answer = app.send(post().uri(path).method(method).body(Body::empty()).unwrap()).await;
            assert_eq!(answer.status, 401, "{method} {path}");
            assert_eq!(answer.header("www-authenticate"), format!("Bearer {document}{asks}"));
        }
        let bad = post().uri(path).header("authorization", "Bearer abc").body(Body::empty()).unwrap();
        let answer = app.send(bad).await;
        assert!(answer.header("www-authenticate").ends_with(&format!("{document}{asks}")), "{path}");
    }
    let weak = AccessToken { scope: "".parse().unwrap(), ..token_at("/mcp/ci") };
    let answer = app.send(asked("/mcp/ci", &weak, "tools/call", &call("ci_run", &json!({})))).await;
    assert_eq!(answer.status, 403);
    let expected = "Bearer error=\"insufficient_scope\", scope=\"docs.read\", resource_metadata=\"http://localhost:8080/.well-known/oauth-protected-resource/mcp/ci\"";
    assert_eq!(answer.header("www-authenticate"), expected);
}

/// POL-03, META-05, META-06: each endpoint has its own document, and with several there is none at the root.
#[tokio::test]
async fn a_profile_has_its_own_document() {
    let (app, _) = app();
    let ci = get(&app, &format!("{METADATA}/mcp/ci")).await;
    assert_eq!(
        ci.json(),
        json!({
            "resource": "http://localhost:8080/mcp/ci",
            "authorization_servers": ["http://localhost:8080"],
            "bearer_methods_supported": ["header"],
            "resource_name": "Pipelines",
        })
    );
    let docs = get(&app, &format!("{METADATA}/mcp/docs")).await.json();
    assert_eq!(docs["scopes_supported"], json!(["docs.read"]));
    assert_eq!(docs["resource_name"], "Portcullis: docs");
    assert_eq!(get(&app, &format!("{METADATA}/mcp")).await.json()["resource"], "http://localhost:8080/mcp");
    for missing in ["", "/mcp/db", "/mcp/ci/", "/mcp/CI", "/mcp/%63i", "/mcp/ci/x", "/ci"] {
        let answer = get(&app, &format!("{METADATA}{missing}")).await;
        assert_eq!((answer.status, answer.json()["error"].clone()), (404, json!("not_found")), "{missing}");
    }
}

/// POL-03: a path without a profile is not found, with or without a token, with any method.
#[tokio::test]
async fn other_profile_addresses_are_not_found() {
    let (app, _) = app();
    for path in ["/mcp/db", "/mcp/CI", "/mcp/%63i"] {
        for method in ["POST", "GET", "DELETE", "OPTIONS", "PUT"] {
            for token in [token_at("/mcp"), token_at(path)] {
                let request = post().uri(path).method(method).header("authorization", bearer(&token));
                assert_eq!(
                    app.send(request.body(Body::empty()).unwrap()).await.status,
                    404,
                    "{method} {path}"
                );
            }
        }
    }
}

/// POL-03, MCP-12: a session belongs to the endpoint at which it was started.
#[tokio::test]
async fn a_session_belongs_to_its_profile() {
    let (app, _) = app();
    let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    let theirs = token("docs.read");
    let at = |path: &str| AccessToken { aud: token_at(path).aud, ..theirs.clone() };
    let begun = app.send(asked("/mcp/ci", &at("/mcp/ci"), "initialize", &params)).await;
    let id = begun.header("mcp-session-id").to_owned();
    for (path, status) in [("/mcp/ci", 200), ("/mcp/docs", 404), ("/mcp", 404)] {
        let mut request = asked(path, &at(path), "ping", &json!({}));
        request.headers_mut().insert("mcp-session-id", id.parse().unwrap());
        assert_eq!(app.send(request).await.status, status, "{path}");
    }
}

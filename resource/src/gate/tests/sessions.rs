//! Sessions of the legacy revisions, and their streams (MCP-12 and 16, RS-10).

mod streams;

use std::time::Duration;

use shared::db::params;
use shared::{ClientId, Digest, UserId};

use super::eras::initialize;
use super::*;

const MINUTE: Duration = Duration::from_mins(1);

/// Sends `initialize`; returns the id of the new session.
async fn begin(app: &App, token: &AccessToken, version: &str) -> String {
    let answer = app.send(with(authorized(token), &initialize(version))).await;
    assert_eq!(answer.status, 200);
    answer.header("mcp-session-id").to_owned()
}

fn within(token: &AccessToken, id: &str) -> Builder {
    authorized(token).header("mcp-session-id", id)
}

/// The status of a `ping` in a session.
async fn ping(app: &App, token: &AccessToken, id: &str) -> u16 {
    app.send(legacy(within(token, id), "ping", &json!({}))).await.status
}

fn bare(method: &str, token: &AccessToken, id: &str) -> HttpRequest<Body> {
    let request = HttpRequest::builder().method(method).uri(PATH).header("host", "localhost:8080");
    let request = request.header("authorization", bearer(token)).header("mcp-session-id", id);
    request.header("accept", "text/event-stream").body(Body::empty()).unwrap()
}

/// A token of the same user and client with a later expiry.
fn renewed(app: &App, token: &AccessToken) -> AccessToken {
    let now = app.clock.now().seconds();
    AccessToken { jti: shared::Jti::random(1), iat: now, exp: now + 900, ..token.clone() }
}

fn same_client_other_user(token: &AccessToken) -> AccessToken {
    AccessToken { sub: UserId::random().to_string(), ..token.clone() }
}

fn same_user_other_client(token: &AccessToken) -> AccessToken {
    AccessToken { client_id: ClientId::random_dynamic(), ..token.clone() }
}

fn sessions(app: &App) -> i64 {
    let count = "SELECT count(*) FROM mcp_session";
    app.db.read(|conn| conn.query_row(count, [], |row| row.get(0))).unwrap().unwrap()
}

/// MCP-12: every `initialize` starts a session, in every revision that has them; its id is long, random and
/// visible ASCII, and the database has only its digest.
#[tokio::test]
async fn initialize_begins_a_session() {
    let app = App::start();
    let token = token("docs.read");
    let mut ids = Vec::new();
    for version in ["2025-03-26", "2025-06-18", "2025-11-25"] {
        let id = begin(&app, &token, version).await;
        assert!(id.bytes().all(|b| (0x21..=0x7e).contains(&b)), "{id}");
        assert!(id.len() >= "ms_".len() + 43, "{id}");
        let by_digest = "SELECT version FROM mcp_session WHERE digest = ?1";
        let digest = Digest::of(id.as_bytes());
        let stored: Option<String> =
            app.db.read(|conn| conn.query_row(by_digest, params![digest], |row| row.get(0))).unwrap();
        assert_eq!(stored.as_deref(), Some(version));
        ids.push(id);
    }
    ids.dedup();
    assert_eq!(ids.len(), 3);
    // A failed `initialize` starts none and returns no id.
    let odd = json!({ "protocolVersion": "2025-11-25", "capabilities": 7 });
    let answer = app.send(with(authorized(&token), &rpc("initialize", &odd))).await;
    assert!(answer.header("mcp-session-id").is_empty());
    assert_eq!(sessions(&app), 3);
}

/// MCP-12: requests in a session are answered in JSON like all others, and the id is sent once.
#[tokio::test]
async fn a_session_is_served() {
    let app = App::start();
    let token = token("docs.read");
    let id = begin(&app, &token, "2025-11-25").await;
    let note = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    let answer = app.send(with(within(&token, &id), note)).await;
    assert_eq!((answer.status, answer.body.len()), (202, 0));
    let answer = app.send(legacy(within(&token, &id), "tools/call", &call("whoami", &json!({})))).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    assert_eq!(answer.json()["result"]["structuredContent"]["user"], token.sub);
    assert!(answer.header("mcp-session-id").is_empty());
    // The same user and client with a new token.
    assert_eq!(ping(&app, &renewed(&app, &token), &id).await, 200);
    // It also works without the id.
    assert_eq!(app.send(legacy(authorized(&token), "ping", &json!({}))).await.status, 200);
    // A new `initialize` may name the old session, and gets another.
    let again = app.send(with(within(&token, &id), &initialize("2025-11-25"))).await;
    assert_ne!(again.header("mcp-session-id"), id);
}

/// MCP-12, RS-14: an unknown id and another principal's get the same answer.
#[tokio::test]
async fn a_session_belongs_to_its_principal() {
    let app = App::start();
    let token = token("docs.read");
    let id = begin(&app, &token, "2025-11-25").await;
    let mut answers = Vec::new();
    for (token, id) in [
        (token.clone(), "ms_never-given-out"),
        (same_client_other_user(&token), &id),
        (same_user_other_client(&token), &id),
    ] {
        for request in [
            legacy(within(&token, id), "tools/call", &call("whoami", &json!({}))),
            bare("GET", &token, id),
            bare("DELETE", &token, id),
        ] {
            let mut answer = app.send(request).await;
            assert_eq!((answer.status, answer.code()), (404, -32600));
            let mut body = answer.json();
            // The request's own id, if it had one.
            body.as_object_mut().unwrap().remove("id");
            answer.headers.remove("content-length");
            answers.push((format!("{:?}", answer.headers), body));
        }
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert!(app.records("mcp.call").is_empty());
    assert_eq!(ping(&app, &token, &id).await, 200);
}

/// MCP-12: a session belongs to its endpoint and to its principal's issuer.
#[tokio::test]
async fn a_session_belongs_to_its_endpoint() {
    let app = App::start();
    let token = token("docs.read");
    for elsewhere in ["resource = resource || '/ci'", "iss = 'https://other.example'"] {
        let id = begin(&app, &token, "2025-11-25").await;
        let moved = format!("UPDATE mcp_session SET {elsewhere}");
        app.db.write(move |tx| tx.execute(&moved, []).map(drop)).await.unwrap();
        assert_eq!(ping(&app, &token, &id).await, 404, "{elsewhere}");
    }
}

/// RS-01: the id never authenticates.
#[tokio::test]
async fn a_session_never_authenticates() {
    let app = App::start();
    let token = token("docs.read");
    let id = begin(&app, &token, "2025-11-25").await;
    for method in ["POST", "GET", "DELETE"] {
        let request = post().method(method).header("mcp-session-id", &id);
        let answer = app.send(legacy(request, "ping", &json!({}))).await;
        assert_eq!(answer.status, 401, "{method}");
        assert!(answer.header("www-authenticate").starts_with("Bearer resource_metadata="));
    }
    app.stage.kill(token.jti.as_str());
    for method in ["POST", "GET", "DELETE"] {
        let request = within(&token, &id).method(method);
        assert_eq!(app.send(legacy(request, "ping", &json!({}))).await.status, 401, "{method}");
    }
    assert_eq!(sessions(&app), 1);
}

/// MCP-12: ids that cannot be ours are not looked up, and two ids are refused.
#[tokio::test]
async fn unknown_session_ids_are_refused() {
    let app = App::start();
    let token = token("docs.read");
    let id = begin(&app, &token, "2025-11-25").await;
    for strange in ["", "with space", "tab\there", &"x".repeat(129), &format!("{id} "), &id.to_uppercase()] {
        assert_eq!(ping(&app, &token, strange).await, 404, "{strange:?}");
    }
    let opaque = http::HeaderValue::from_bytes(b"ms_\xfc").unwrap();
    let request = authorized(&token).header("mcp-session-id", opaque);
    assert_eq!(app.send(legacy(request, "ping", &json!({}))).await.status, 404);
    let twice = within(&token, &id).header("mcp-session-id", &id);
    let answer = app.send(legacy(twice, "ping", &json!({}))).await;
    assert_eq!((answer.status, answer.code()), (400, -32600));
}

/// MCP-12: a session survives a restart.
#[tokio::test]
async fn a_session_survives_a_restart() {
    let app = App::start();
    let token = token("docs.read");
    let id = begin(&app, &token, "2025-11-25").await;
    let app = app.restart();
    assert_eq!(ping(&app, &token, &id).await, 200);
    assert_eq!(ping(&app, &same_client_other_user(&token), &id).await, 404);
}

/// Standards §1: a session ends after half an hour without a request.
#[tokio::test]
async fn an_idle_session_expires() {
    let app = App::start();
    let first = token("docs.read");
    let id = begin(&app, &first, "2025-11-25").await;
    let still = async |minutes: u32| {
        app.clock.advance(MINUTE * minutes);
        ping(&app, &renewed(&app, &first), &id).await
    };
    assert_eq!(still(29).await, 200);
    assert_eq!(still(29).await, 200);
    assert_eq!(still(30).await, 404);
    assert_eq!(still(0).await, 404);
    assert_eq!(sessions(&app), 1);
    app.resource.flush().await;
    assert_eq!(sessions(&app), 0);
}

/// Standards §1: a session ends after eight hours, even if it is used.
#[tokio::test]
async fn a_session_expires_after_eight_hours() {
    let app = App::start();
    let first = token("docs.read");
    let id = begin(&app, &first, "2025-11-25").await;
    for _ in 0..19 {
        app.clock.advance(MINUTE * 25);
        assert_eq!(ping(&app, &renewed(&app, &first), &id).await, 200);
    }
    app.clock.advance(MINUTE * 5);
    assert_eq!(ping(&app, &renewed(&app, &first), &id).await, 404);
}

/// Its use is stored at most once a minute.
#[tokio::test]
async fn the_last_use_of_a_session_is_stored_once_a_minute() {
    let app = App::start();
    let token = token("docs.read");
    let id = begin(&app, &token, "2025-11-25").await;
    let seen = || -> i64 {
        let seen = "SELECT seen_at FROM mcp_session";
        app.db.read(|conn| conn.query_row(seen, [], |row| row.get(0))).unwrap().unwrap()
    };
    let began = seen();
    for (seconds, noted) in [(59, 0), (1, 60), (59, 60), (2, 121)] {
        app.clock.advance(Duration::from_secs(seconds));
        assert_eq!(ping(&app, &token, &id).await, 200);
        assert_eq!(seen() - began, noted * 1000);
    }
}

/// MCP-12: DELETE ends a session, once.
#[tokio::test]
async fn delete_ends_a_session() {
    let app = App::start();
    let token = token("docs.read");
    let (id, other) = (begin(&app, &token, "2025-11-25").await, begin(&app, &token, "2025-11-25").await);
    let answer = app.send(bare("DELETE", &token, &id)).await;
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    assert_eq!(app.send(bare("DELETE", &token, &id)).await.status, 404);
    assert_eq!(app.send(bare("GET", &token, &id)).await.status, 404);
    assert_eq!(ping(&app, &token, &id).await, 404);
    assert_eq!(ping(&app, &token, &other).await, 200);
}

/// MCP-12: what is remembered of a session in use serves nobody else, and not a moment longer than the session.
#[tokio::test]
async fn a_session_in_use_ends_like_any_other() {
    let app = App::start();
    let token = token("docs.read");
    let in_use = async || {
        let id = begin(&app, &token, "2025-11-25").await;
        for _ in 0..2 {
            assert_eq!(ping(&app, &token, &id).await, 200);
        }
        id
    };
    let id = in_use().await;
    for other in [same_client_other_user(&token), same_user_other_client(&token)] {
        assert_eq!(ping(&app, &other, &id).await, 404);
    }
    assert_eq!(app.send(bare("DELETE", &token, &id)).await.status, 204);
    assert_eq!(ping(&app, &token, &id).await, 404);
    let id = in_use().await;
    for _ in 0..32 {
        app.clock.advance(Duration::from_secs(1));
        begin(&app, &token, "2025-11-25").await;
    }
    assert_eq!(ping(&app, &token, &id).await, 404);
    let (id, later) = (in_use().await, renewed(&app, &token));
    app.clock.advance(MINUTE * 10);
    app.resource.sessions().sweep().await;
    assert_eq!(ping(&app, &later, &id).await, 200);
    app.clock.advance(MINUTE * 30);
    assert_eq!(ping(&app, &renewed(&app, &token), &id).await, 404);
}

/// MCP-02, MCP-12: the modern era ignores session ids, and has no GET or DELETE.
#[tokio::test]
async fn the_modern_era_ignores_sessions() {
    let app = App::start();
    let token = token("docs.read");
    let id = begin(&app, &token, "2025-11-25").await;
    for id in [id.as_str(), "ms_never-given-out", "", "a b"] {
        let request = within(&token, id).header("mcp-session-id", "another");
        let answer = app.send(modern(request, "tools/list", json!({}))).await;
        assert_eq!(answer.status, 200, "{id}");
        assert!(answer.header("mcp-session-id").is_empty());
    }
    for method in ["GET", "DELETE"] {
        let mut request = bare(method, &token, &id);
        request.headers_mut().insert("mcp-protocol-version", MODERN.parse().unwrap());
        assert_eq!(app.send(request).await.status, 405, "{method}");
    }
    assert_eq!(ping(&app, &token, &id).await, 200);
}

/// MCP-01: an unknown revision is refused in a session too.
#[tokio::test]
async fn a_session_has_a_known_revision() {
    let app = App::start();
    let token = token("docs.read");
    let id = begin(&app, &token, "2025-11-25").await;
    for method in ["GET", "DELETE"] {
        let mut request = bare(method, &token, &id);
        request.headers_mut().insert("mcp-protocol-version", "1900-01-01".parse().unwrap());
        let answer = app.send(request).await;
        assert_eq!((answer.status, answer.code()), (400, -32022), "{method}");
    }
    // In a session of a revision that is no longer supported, the client must initialize again.
    app.db
        .write(|tx| tx.execute("UPDATE mcp_session SET version = '2024-11-05'", []).map(drop))
        .await
        .unwrap();
    assert_eq!(ping(&app, &token, &id).await, 404);
}

/// RATE-03: a principal has at most 32 sessions; one more ends the least recently used.
#[tokio::test]
async fn the_sessions_of_a_principal_are_limited() {
    let app = App::start();
    let token = token("docs.read");
    let other = same_user_other_client(&token);
    let others = begin(&app, &other, "2025-11-25").await;
    let mut ids = Vec::new();
    for _ in 0..32 {
        app.clock.advance(Duration::from_secs(2));
        ids.push(begin(&app, &token, "2025-11-25").await);
    }
    // The first one is old, and in use.
    assert_eq!(ping(&app, &token, &ids[0]).await, 200);
    ids.push(begin(&app, &token, "2025-11-25").await);
    assert_eq!(sessions(&app), 33);
    assert_eq!(ping(&app, &token, &ids[1]).await, 404);
    for id in ids.iter().filter(|id| **id != ids[1]) {
        assert_eq!(ping(&app, &token, id).await, 200);
    }
    assert_eq!(ping(&app, &other, &others).await, 200);
}

/// RATE-03: the total is limited. Ended sessions make room; otherwise the holder gives up one of its own.
#[tokio::test]
async fn the_total_number_of_sessions_is_limited() {
    let app = App::start();
    let first = token("docs.read");
    for _ in 0..32 {
        begin(&app, &first, "2025-11-25").await;
    }
    app.clock.advance(MINUTE);
    let crowd = "WITH RECURSIVE n (i) AS (SELECT 33 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
        INSERT INTO mcp_session
        SELECT CAST(printf('%032d', i) AS BLOB), 'i', 's' || i, 'c', 'r', '2025-11-25', ?1, ?1 FROM n";
    app.db.write(move |tx| tx.execute(crowd, params![tx.now()]).map(drop)).await.unwrap();
    assert_eq!(sessions(&app), 10_000);

    let late = token("docs.read");
    let answer = app.send(with(authorized(&late), &initialize("2025-11-25"))).await;
    assert_eq!((answer.status, answer.header("retry-after"), answer.code()), (503, "60", -32603));
    assert!(answer.header("mcp-session-id").is_empty());
    begin(&app, &first, "2025-11-25").await;
    assert_eq!(sessions(&app), 10_000);
    app.clock.advance(MINUTE * 29);
    // The first 31 have been idle for half an hour.
    begin(&app, &renewed(&app, &late), "2025-11-25").await;
    assert_eq!(sessions(&app), 10_000 - 31 + 1);
}

/// If a session cannot be stored, no id is returned.
#[tokio::test]
async fn a_storage_fault_starts_no_session() {
    let app = App::start();
    let token = token("docs.read");
    app.db.write(|tx| tx.execute("ALTER TABLE mcp_session RENAME TO gone", []).map(drop)).await.unwrap();
    let answer = app.send(with(authorized(&token), &initialize("2025-11-25"))).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "2"));
    assert_eq!(ping(&app, &token, "ms_x").await, 503);
    assert_eq!(app.send(legacy(authorized(&token), "ping", &json!({}))).await.status, 200);
}

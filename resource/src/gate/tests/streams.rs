//! Streams of a session.

use axum::response::Response;
use http_body_util::BodyExt;

use super::*;

/// Opens the stream of a session.
async fn listen(app: &App, token: &AccessToken, id: &str) -> Response {
    let response = app.open_answer(bare("GET", token, id)).await;
    assert_eq!(response.status(), 200);
    response
}

/// The next text of a stream; `None` at its end.
async fn heard(stream: &mut Response) -> Option<String> {
    let frame = stream.body_mut().frame().await?.unwrap();
    Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
}

/// MCP-16: a stream opens at once, and comments keep it alive.
#[tokio::test]
async fn a_stream_is_kept_alive() {
    let app = App::start();
    let token = token("docs.read");
    let id = begin(&app, &token, "2025-11-25").await;
    let mut stream = listen(&app, &token, &id).await;
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store"),
        ("x-accel-buffering", "no"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(stream.headers()[name], value);
    }
    assert!(stream.headers().get("mcp-session-id").is_none());
    tokio::time::pause();
    let opened = tokio::time::Instant::now();
    for seconds in [0, 15, 30] {
        assert_eq!(heard(&mut stream).await.as_deref(), Some(":\n\n"));
        assert_eq!(opened.elapsed().as_secs(), seconds);
    }
}

/// MCP-04: a client that does not accept events gets none.
#[tokio::test]
async fn a_stream_needs_an_accept_header() {
    let app = App::start();
    let token = token("docs.read");
    let id = begin(&app, &token, "2025-11-25").await;
    for accept in ["application/json", "text/event-stream;q=0"] {
        let mut request = bare("GET", &token, &id);
        request.headers_mut().insert("accept", accept.parse().unwrap());
        assert_eq!(app.send(request).await.status, 406, "{accept}");
    }
}

/// RS-10: each cause ends a stream within two seconds.
#[tokio::test]
async fn each_cause_ends_a_stream_within_two_seconds() {
    type End = fn(&App, &AccessToken);
    let ends: [(&str, End); 4] = [
        ("revoked", |app, token| app.stage.kill(token.jti.as_str())),
        ("expired", |app, _| app.clock.advance(MINUTE * 16)),
        ("stopped", |app, _| app.resource.end_streams()),
        ("nothing", |_, _| ()),
    ];
    for (what, end) in ends {
        let app = App::start();
        let token = token("docs.read");
        let id = begin(&app, &token, "2025-11-25").await;
        let mut stream = listen(&app, &token, &id).await;
        tokio::time::pause();
        assert!(heard(&mut stream).await.is_some(), "{what}");
        let then = tokio::time::Instant::now();
        end(&app, &token);
        let over = heard(&mut stream).await.is_none();
        assert_eq!(over, what != "nothing", "{what}");
        assert!(!over || then.elapsed() <= Duration::from_secs(2), "{what}: {:?}", then.elapsed());
        tokio::time::resume();
    }
}

/// RS-10: the leeway applies to streams as to requests.
#[tokio::test]
async fn a_stream_lasts_as_long_as_its_token() {
    let app = App::start();
    let token = token("docs.read");
    let id = begin(&app, &token, "2025-11-25").await;
    let mut stream = listen(&app, &token, &id).await;
    tokio::time::pause();
    assert!(heard(&mut stream).await.is_some());
    app.clock.advance(Duration::from_secs(900 + 59));
    assert!(heard(&mut stream).await.is_some());
    app.clock.advance(Duration::from_secs(1));
    assert!(heard(&mut stream).await.is_none());
}

/// MCP-12: the stream of an ended session ends; its neighbour's continues until its own session ends.
#[tokio::test]
async fn a_stream_ends_with_its_session() {
    let app = App::start();
    let mut token = token("docs.read");
    token.exp += 7200;
    let (id, other) = (begin(&app, &token, "2025-11-25").await, begin(&app, &token, "2025-11-25").await);
    let (mut stream, mut neighbour) = (listen(&app, &token, &id).await, listen(&app, &token, &other).await);
    assert!(heard(&mut stream).await.is_some());
    assert!(heard(&mut neighbour).await.is_some());
    assert_eq!(app.send(bare("DELETE", &token, &id)).await.status, 204);
    tokio::time::pause();
    assert!(heard(&mut stream).await.is_none());
    assert!(heard(&mut neighbour).await.is_some());
    app.clock.advance(MINUTE * 30);
    assert!(heard(&mut neighbour).await.is_none());
}

/// A session whose client only listens stays in use.
#[tokio::test]
async fn listening_keeps_a_session() {
    let app = App::start();
    let mut token = token("docs.read");
    token.exp += 3600;
    let id = begin(&app, &token, "2025-11-25").await;
    let mut stream = listen(&app, &token, &id).await;
    tokio::time::pause();
    for _ in 0..3 {
        app.clock.advance(MINUTE * 20);
        assert!(heard(&mut stream).await.is_some());
        // Fifteen seconds of silence, with a check in between.
        assert!(heard(&mut stream).await.is_some());
    }
}

/// MCP-16: a principal may have eight open streams over all sessions; closing one makes room.
#[tokio::test]
async fn a_principal_has_eight_streams() {
    let app = App::start();
    let token = token("docs.read");
    let ids = [begin(&app, &token, "2025-11-25").await, begin(&app, &token, "2025-11-25").await];
    let mut open = Vec::new();
    for n in 0..8 {
        open.push(listen(&app, &token, &ids[n % 2]).await);
    }
    let ninth = app.send(bare("GET", &token, &ids[0])).await;
    assert_eq!((ninth.status, ninth.header("retry-after"), ninth.code()), (429, "15", 429));
    let other = same_user_other_client(&token);
    let others = begin(&app, &other, "2025-11-25").await;
    drop(listen(&app, &other, &others).await);
    drop(open.pop());
    open.push(listen(&app, &token, &ids[0]).await);
    assert_eq!(app.send(bare("GET", &token, &ids[0])).await.status, 429);
}

/// MCP-12: events have no ids and are not replayed, so none can be replayed to another caller.
#[tokio::test]
async fn nothing_is_replayed() {
    let app = App::start();
    let token = token("docs.read");
    let id = begin(&app, &token, "2025-11-25").await;
    let mut request = bare("GET", &token, &id);
    request.headers_mut().insert("last-event-id", "1".parse().unwrap());
    let mut stream = app.open_answer(request).await;
    assert_eq!(heard(&mut stream).await.as_deref(), Some(":\n\n"));
}

/// What a stream says but for comments, until it has said nothing for this long.
async fn told(stream: &mut Response, quiet: Duration) -> Vec<String> {
    let mut told = Vec::new();
    while let Ok(Some(text)) = tokio::time::timeout(quiet, heard(stream)).await {
        if text != ":\n\n" {
            told.push(text);
        }
    }
    told
}

/// SRC-13: a client is told that a list of its own has changed, by what its source offers or by what its user may have, once
/// for each list, and of nothing else.
#[tokio::test]
async fn a_client_is_told_of_changes_of_its_own_lists() {
    let staged = crate::testing::TestSource::of_every_kind(&[]);
    let mut rules = crate::catalogue::Rules::default();
    let rule = |scope: &str| crate::catalogue::ItemRule::needing(scope.parse().unwrap());
    rules.tools.set(crate::catalogue::Pattern::exact("up_greet"), rule("secret"));
    rules.prompts.set(crate::catalogue::Pattern::exact("up_prompt"), rule("docs.read"));
    rules.tools.set(crate::catalogue::Pattern::exact("up_tool"), rule("secret"));
    let app = App::staged_under(&staged, &rules);
    let token = token("docs.read secret");
    let id = begin(&app, &token, "2025-11-25").await;
    let mut stream = listen(&app, &token, &id).await;
    assert_eq!(heard(&mut stream).await.as_deref(), Some(":\n\n"));
    tokio::time::pause();
    let event = |list: &str| {
        format!(
            "event: message\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/{list}/list_changed\"}}\n\n"
        )
    };
    let quiet = Duration::from_millis(2500);
    let mut offered = app.resource.registry().snapshot().sources().offered();
    // The same again, and then something that this user may not have, are not reported.
    app.resource.registry().replace(&offered);
    offered.push(std::sync::Arc::new(crate::testing::offered(
        "up",
        &[("up_greet", crate::item::Effect::Writes)],
    )));
    app.resource.registry().replace(&offered);
    assert!(told(&mut stream, quiet).await.is_empty());
    offered.push(std::sync::Arc::new(crate::testing::of_every_kind("up")));
    app.resource.registry().replace(&offered);
    assert_eq!(told(&mut stream, quiet).await, [event("prompts")]);
    app.stage.entitle("docs.read secret");
    assert_eq!(told(&mut stream, quiet).await, [event("tools")]);
}

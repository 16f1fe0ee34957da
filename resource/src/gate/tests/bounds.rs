//! How long calls may take and how large they may be, and calls that an administrator stops (LIMIT-03, LIMIT-04).

use std::sync::Arc;
use std::time::Duration;

use super::calls::{reached, waiting};
use super::*;
use crate::catalogue::{Bounds, ItemRule, Pattern, Rules};
use crate::item::Effect;
use crate::sources::{Outcome, answered};
use crate::testing::TestSource;

fn bounded(staged: &Arc<TestSource>, bounds: Bounds) -> App {
    let mut rules = Rules::default();
    let rule = ItemRule { bounds, ..ItemRule::needing("docs.read".parse().unwrap()) };
    rules.tools.set(Pattern::parse("staged_*").unwrap(), ItemRule { at: Some("f:1".to_owned()), ..rule });
    App::staged_under(staged, &rules)
}

const TOOLS: [(&str, Effect); 2] = [("staged_read", Effect::ReadOnly), ("staged_write", Effect::Writes)];

async fn told(app: &App, tool: &str, arguments: &serde_json::Value) -> serde_json::Value {
    let request = legacy(authorized(&token("docs.read")), "tools/call", &call(tool, arguments));
    app.send(request).await.json()["result"].take()
}

/// LIMIT-03: arguments over the size never arrive, and the refusal is on record; text of a result over it is cut, with a line; what
/// holds more than text is not given out.
#[tokio::test]
async fn sizes_are_bounded() {
    let staged = TestSource::new(&TOOLS, |arguments| {
        let text = "x".repeat(3000);
        let outcome = if arguments.get("structured").is_some() {
            answered(&text, &json!({ "text": text }))
        } else {
            let content = json!([{ "type": "text", "text": text }]);
            let members = format!("\"content\":{content}").into_bytes();
            Outcome::Result { members, meta: String::new(), is_error: false, links: Vec::new() }
        };
        async { outcome }
    });
    let bounds = Bounds { max_arguments: Some(1024), max_result: Some(2048), ..Bounds::default() };
    let app = bounded(&staged, bounds);
    let large = told(&app, "staged_write", &json!({ "region": "y".repeat(2000) })).await;
    let says = "The arguments have 2013 bytes; the limit is 1024. Nothing was done. Send less.";
    assert_eq!((&large["isError"], &large["content"][0]["text"]), (&json!(true), &json!(says)));
    assert_eq!((staged.calls(), app.records("mcp.call").len()), (0, 0));
    let denied = &app.records("mcp.denied")[0];
    assert_eq!(
        (&denied["reason"], &denied["detail"]["limit"]),
        (&json!("too_large"), &json!("1024 bytes of arguments"))
    );
    let cut = told(&app, "staged_write", &json!({})).await;
    let texts = cut["content"].as_array().unwrap();
    assert!(cut["isError"] != true && texts[0]["text"].as_str().unwrap().starts_with("xxx"));
    assert!(texts[1]["text"].as_str().unwrap().contains("more bytes of text are missing"), "{cut}");
    assert!(app.records("mcp.result")[0]["detail"]["bytes_cut"].as_u64().unwrap() > 900);
    let whole = told(&app, "staged_read", &json!({ "structured": true })).await;
    assert!(
        whole["content"][0]["text"].as_str().unwrap().contains("the limit is 2048. Ask for less."),
        "{whole}"
    );
    assert_eq!(app.records("mcp.call").last().unwrap()["detail"]["result"], "too_large");
}

/// LIMIT-04: a rule says how long a call may run without progress, and how long in all.
#[tokio::test]
async fn a_rule_bounds_the_time() {
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    for (timeout, longest, ends_after) in [(seconds(2), None, 3), (seconds(300), seconds(20), 21)] {
        let (staged, _go) = waiting();
        let app = Arc::new(bounded(&staged, Bounds { timeout, longest, ..Bounds::default() }));
        let sent = {
            let app = Arc::clone(&app);
            tokio::spawn(async move { told(&app, "staged_read", &json!({})).await })
        };
        reached(&staged, 1).await;
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(ends_after - 2)).await;
        assert_eq!(app.resource.calls().all().len(), 1);
        tokio::time::advance(Duration::from_secs(2)).await;
        tokio::time::resume();
        assert!(
            sent.await.unwrap()["content"][0]["text"].as_str().unwrap().contains("did not answer within")
        );
        assert_eq!(app.records("mcp.call")[0]["detail"]["result"], "timed_out");
    }
}

/// LIMIT-04: a running call is on the list with whose it is, until it ends; one that is stopped ends for its client and on
/// record, and another goes on.
#[tokio::test]
async fn running_calls_are_listed_and_stopped() {
    let (staged, go) = waiting();
    let app = Arc::new(bounded(&staged, Bounds::default()));
    let (alice, bob) = (token("docs.read"), token("docs.read"));
    let spawn = |token: &AccessToken, tool: &str| {
        let (app, request) =
            (Arc::clone(&app), legacy(authorized(token), "tools/call", &call(tool, &json!({}))));
        tokio::spawn(async move { app.send(request).await.json()["result"].take() })
    };
    let calls = app.resource.calls();
    assert!(calls.all().is_empty());
    let stopped = spawn(&alice, "staged_write");
    reached(&staged, 1).await;
    let other = spawn(&bob, "staged_read");
    reached(&staged, 2).await;
    let all = calls.all();
    let whose = all.iter().map(|call| (call.user.as_deref(), call.name.as_str(), call.source.as_deref()));
    let expected = [
        (Some(alice.sub.as_str()), "staged_write", Some("staged")),
        (Some(bob.sub.as_str()), "staged_read", Some("staged")),
    ];
    assert_eq!(whose.collect::<Vec<_>>(), expected);
    calls.stop(all[0].id);
    calls.stop(999);
    let words = stopped.await.unwrap()["content"][0]["text"].take();
    assert!(
        words.as_str().unwrap().contains("An administrator stopped this call of the tool. It may have run")
    );
    assert_eq!(app.records("mcp.result")[0]["detail"]["result"], "stopped");
    assert_eq!(calls.all(), all[1..]);
    go.notify_one();
    assert_eq!(other.await.unwrap()["isError"], false);
    assert!(calls.all().is_empty() && calls.find(all[1].id).is_none());
}

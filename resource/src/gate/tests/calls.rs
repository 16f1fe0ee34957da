//! Calls of a staged source, from the gate to their end (AUDIT-04, SRC-08 and 09).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Notify;

use super::*;
use crate::item::Effect;
use crate::sources::{Outcome, answered};
use crate::testing::TestSource;

pub(super) const TOOLS: [(&str, Effect); 2] =
    [("staged_read", Effect::ReadOnly), ("staged_write", Effect::Writes)];
pub(super) const RULES: [(&str, &str); 2] = [("staged_read", "docs.read"), ("staged_write", "docs.read")];

/// A call of a tool whose argument `region` must be repeated in a header, with this header.
pub(super) fn mirrored(token: &AccessToken, name: &str, header: Option<&str>) -> HttpRequest<Body> {
    let mut request = authorized(token);
    if let Some(header) = header {
        request = request.header("mcp-param-region", header);
    }
    modern(request, "tools/call", call(name, &json!({ "region": "north" })))
}

fn write(token: &AccessToken) -> HttpRequest<Body> {
    mirrored(token, "staged_write", Some("north"))
}

/// The outcomes in `mcp.call` and `mcp.result`, oldest first.
fn ends(app: &App) -> Vec<(String, String)> {
    let mut records = app.records("mcp.call");
    records.extend(app.records("mcp.result"));
    records.sort_by_key(|record| record["seq"].as_u64());
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    records.iter().map(|record| (text(&record["event"]), text(&record["detail"]["result"]))).collect()
}

fn end(event: &str, result: &str) -> (String, String) {
    (event.to_owned(), result.to_owned())
}

/// MCP-05, MCP-09, RS-08, RS-11, AUDIT-04, DCR-08: of several reasons to refuse a call the first in this order
/// is the answer, so that a later one does not reveal what an earlier one hides. A refused call never reaches
/// the source.
#[tokio::test]
async fn calls_are_refused_in_order() {
    let staged = TestSource::prompt(&TOOLS);
    let app = App::staged(&staged, &[("staged_write", "docs.read")]);
    let (held, bare) = (token("docs.read"), token(""));
    let ask = async |request: HttpRequest<Body>| app.send(request).await;
    // The tool does not exist, whatever else is wrong.
    let unknown = ask(mirrored(&bare, "staged_nothing", Some("south"))).await;
    assert_eq!(unknown.json()["error"]["message"], "Unknown tool: staged_nothing");
    // The user is not entitled, and a header mismatch does not reveal that the tool exists. The other tool has
    // no rule, so it cannot be used.
    app.stage.entitle("");
    let hidden = ask(mirrored(&bare, "staged_write", Some("south"))).await;
    assert_eq!(hidden.json()["error"]["message"], "Unknown tool: staged_write");
    app.stage.entitle("docs.read");
    let unmapped = ask(mirrored(&held, "staged_read", Some("south"))).await;
    assert_eq!(unmapped.json()["error"]["message"], "Unknown tool: staged_read");
    // The user is entitled, but the token lacks the scope.
    assert_eq!(ask(mirrored(&bare, "staged_write", Some("south"))).await.status, 403);
    assert_eq!(app.records("mcp.denied").len(), 4);
    // The header and the body disagree.
    for header in [None, Some("south")] {
        let mismatch = ask(mirrored(&held, "staged_write", header)).await;
        assert_eq!((mismatch.status, mismatch.code()), (400, -32020), "{header:?}");
    }
    assert!(ends(&app).is_empty());
    // The token ends while the call is recorded: once on arrival, once after parsing.
    app.stage.kill_after(&held, 2);
    assert_eq!(ask(write(&held)).await.status, 401);
    assert_eq!(ends(&app), [end("mcp.call", "-"), end("mcp.result", "not_sent")]);
    // The user's entitlement ends meanwhile: the tool seems not to exist.
    let (losing, keeping) = (token("docs.read"), token("docs.read"));
    app.stage.disentitle_after(&losing, 2);
    let lost = ask(write(&losing)).await;
    assert_eq!(lost.json()["error"]["message"], "Unknown tool: staged_write");
    assert_eq!(ends(&app)[2..], [end("mcp.call", "-"), end("mcp.result", "not_sent")]);
    assert_eq!(staged.calls(), 0);
    // Nothing is wrong.
    app.stage.entitle("docs.read");
    assert_eq!(ask(write(&keeping)).await.json()["result"]["isError"], false);
    assert_eq!(ends(&app)[4..], [end("mcp.call", "-"), end("mcp.result", "ok")]);
    assert_eq!(staged.calls(), 1);
    // It cannot be recorded.
    app.break_audit().await;
    let unrecorded = ask(write(&keeping)).await;
    assert_eq!((unrecorded.status, unrecorded.header("retry-after")), (503, "2"));
    assert_eq!(staged.calls(), 1);
}

/// A source that waits until it is notified.
pub(super) fn waiting() -> (Arc<TestSource>, Arc<Notify>) {
    let go = Arc::new(Notify::new());
    let told = Arc::clone(&go);
    let staged = TestSource::new(&TOOLS, move |_| {
        let told = Arc::clone(&told);
        async move {
            told.notified().await;
            answered("done", &json!({}))
        }
    });
    (staged, go)
}

/// Waits until this many calls have reached a source.
pub(super) async fn reached(staged: &TestSource, calls: usize) {
    while staged.calls() < calls {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until this many calls have ended; returns the outcomes.
async fn ended(app: &App, count: usize) -> Vec<(String, String)> {
    loop {
        let ends = ends(app);
        if ends.iter().filter(|(_, result)| result != "-").count() >= count {
            return ends;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// AUDIT-04: a call that may change something is recorded before it is made and after it ended; a read-only one
/// has one record, before its answer is sent.
#[tokio::test]
async fn calls_that_may_write_are_recorded_before_they_run() {
    let (staged, go) = waiting();
    let app = Arc::new(App::staged(&staged, &RULES));
    let token = token("docs.read");
    for (name, before, after) in [
        ("staged_write", vec![end("mcp.call", "-")], vec![end("mcp.call", "-"), end("mcp.result", "ok")]),
        ("staged_read", vec![], vec![end("mcp.call", "ok")]),
    ] {
        let (done, calls) = (ends(&app).len(), staged.calls());
        let sent = {
            let (app, request) = (Arc::clone(&app), mirrored(&token, name, Some("north")));
            tokio::spawn(async move { app.send(request).await })
        };
        reached(&staged, calls + 1).await;
        assert_eq!(ends(&app)[done..], before, "{name}");
        go.notify_one();
        let answer = sent.await.unwrap();
        assert_eq!(answer.json()["result"]["isError"], false, "{name}");
        assert_eq!(ends(&app)[done..], after, "{name}");
    }
    let result = &app.records("mcp.result")[0];
    let intent = &app.records("mcp.call")[0];
    assert_eq!((&result["request_id"], &result["outcome"]), (&intent["request_id"], &json!("allowed")));
    assert_eq!(result["detail"]["args_sha256"], intent["detail"]["args_sha256"]);
    assert!(result["detail"]["bytes"].as_u64().unwrap() > 0 && intent["detail"].get("ms").is_none());
}

/// SRC-09, MCP-16: in older revisions a disconnecting client does not cancel its call; in the modern era
/// closing the response does. In both the end is recorded once.
#[tokio::test]
async fn a_call_is_recorded_even_if_its_client_disconnects() {
    for (era, expected) in [(true, "cancelled"), (false, "ok")] {
        let (staged, go) = waiting();
        let app = Arc::new(App::staged(&staged, &RULES));
        let token = token("docs.read");
        let request = if era {
            write(&token)
        } else {
            legacy(authorized(&token), "tools/call", &call("staged_write", &json!({})))
        };
        let sent = {
            let app = Arc::clone(&app);
            tokio::spawn(async move { app.send(request).await })
        };
        reached(&staged, 1).await;
        sent.abort();
        assert!(sent.await.unwrap_err().is_cancelled());
        if !era {
            go.notify_one();
        }
        assert_eq!(ended(&app, 1).await, [end("mcp.call", "-"), end("mcp.result", expected)], "{expected}");
    }
}

/// MCP-16: in a session `notifications/cancelled` ends exactly the named call: not one of another session, with
/// another id, or without a session.
#[tokio::test]
async fn a_notification_cancels_the_call_it_names() {
    let (staged, go) = waiting();
    let app = Arc::new(App::staged(&staged, &RULES));
    let token = token("docs.read");
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let begun = app.send(with(authorized(&token), &eras::initialize("2025-11-25"))).await;
        sessions.push(begun.header("mcp-session-id").to_owned());
    }
    let in_session = |session: Option<&String>| match session {
        Some(session) => authorized(&token).header("mcp-session-id", session),
        None => authorized(&token),
    };
    let cancel = async |session: Option<&String>, id: Value| {
        let note =
            json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": id } });
        assert_eq!(app.send(with(in_session(session), &note.to_string())).await.status, 202);
    };
    let request = legacy(in_session(Some(&sessions[0])), "tools/call", &call("staged_write", &json!({})));
    let sent = {
        let app = Arc::clone(&app);
        tokio::spawn(async move { app.send(request).await })
    };
    reached(&staged, 1).await;
    for (session, id) in [
        (Some(&sessions[1]), json!(7)),
        (None, json!(7)),
        (Some(&sessions[0]), json!("7")),
        (Some(&sessions[0]), json!(8)),
        (Some(&sessions[0]), json!(null)),
    ] {
        cancel(session, id).await;
    }
    assert_eq!(ends(&app), [end("mcp.call", "-")]);
    cancel(Some(&sessions[0]), json!(7)).await;
    let answer = sent.await.unwrap();
    // A client that cancels expects no response.
    assert_eq!((answer.status, answer.header("content-type")), (200, "text/event-stream"));
    assert!(answer.body.is_empty());
    assert_eq!(ends(&app)[1..], [end("mcp.result", "cancelled")]);
    // Its id can be used again.
    cancel(Some(&sessions[0]), json!(7)).await;
    let request = legacy(in_session(Some(&sessions[0])), "tools/call", &call("staged_write", &json!({})));
    go.notify_one();
    assert_eq!(app.send(request).await.json()["result"]["isError"], false);
}

/// SRC-08: a source that fails, answers too much, or does not answer. A call that may have been executed is
/// distinguished from one that was not.
#[tokio::test]
async fn every_other_end_of_a_call_is_reported_and_recorded() {
    let staged = TestSource::new(&TOOLS, |arguments| {
        let how = arguments.get("how").and_then(Value::as_str).unwrap_or_default().to_owned();
        async move {
            match how.as_str() {
                "panics" => panic!("a fault of the source"),
                "large" => answered(&"x".repeat(9 << 20), &json!({})),
                "unknown" => Outcome::unknown(),
                _ => std::future::pending().await,
            }
        }
    });
    let app = Arc::new(App::staged(&staged, &RULES));
    let token = token("docs.read");
    let ask = |name: &str, how: &str| {
        let request = legacy(authorized(&token), "tools/call", &call(name, &json!({ "how": how })));
        let app = Arc::clone(&app);
        tokio::spawn(async move { app.send(request).await })
    };
    let broken = ask("staged_read", "panics").await.unwrap();
    assert_eq!((broken.status, broken.code(), &broken.json()["id"]), (500, -32603, &json!(7)));
    for (name, how, words) in [
        ("staged_write", "panics", "may have run"),
        ("staged_write", "unknown", "may have run"),
        ("staged_read", "large", "the limit is 8388608"),
    ] {
        let answer = ask(name, how).await.unwrap();
        assert_eq!(answer.json()["result"]["isError"], true, "{how}");
        assert!(text(&answer).contains(words), "{}", text(&answer));
    }
    for (name, words) in [("staged_write", "may have run"), ("staged_read", "Try again")] {
        let calls = staged.calls();
        let sent = ask(name, "never");
        reached(&staged, calls + 1).await;
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(61)).await;
        tokio::time::resume();
        let late = sent.await.unwrap();
        assert!(text(&late).contains("60 seconds") && text(&late).contains(words), "{}", text(&late));
    }
    let results: Vec<_> = ends(&app).into_iter().filter(|(_, result)| result != "-").collect();
    assert_eq!(
        results,
        [
            end("mcp.call", "error"),
            end("mcp.result", "unknown"),
            end("mcp.result", "unknown"),
            end("mcp.call", "too_large"),
            end("mcp.result", "timed_out"),
            end("mcp.call", "timed_out"),
        ]
    );
    assert_eq!(app.records("mcp.result")[0]["outcome"], "failed");
}

/// Lets the call process the reported progress.
async fn heard() {
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
}

/// LIMIT-04, SRC-13: a call may continue while it reports progress, at most ten minutes; repeated or smaller
/// values are not progress.
#[tokio::test]
async fn progress_keeps_a_call_going() {
    for (rounds, tells, expected) in
        [(14, [1.0, 2.0], "ok"), (2, [0.0, -1.0], "timed_out"), (15, [1.0, 2.0], "timed_out")]
    {
        let (tell, told) = tokio::sync::mpsc::unbounded_channel();
        let staged = TestSource::telling(&TOOLS, told);
        let app = Arc::new(App::staged(&staged, &RULES));
        let request = legacy(authorized(&token("docs.read")), "tools/call", &call("staged_read", &json!({})));
        let sent = {
            let app = Arc::clone(&app);
            tokio::spawn(async move { app.send(request).await })
        };
        reached(&staged, 1).await;
        tell.send(0.0).unwrap();
        heard().await;
        tokio::time::pause();
        for round in 0..rounds {
            let base = if tells[0] > 0.0 { f64::from(round) * 2.0 } else { 0.0 };
            // The call may have been given up by now.
            let _ = tell.send(base + tells[0]);
            tokio::time::advance(Duration::from_secs(40)).await;
            let _ = tell.send(base + tells[1]);
            heard().await;
        }
        tokio::time::resume();
        // Who answers now is on time, and the others have nothing more to say.
        let tell = (expected != "ok").then_some(tell);
        sent.await.unwrap();
        drop(tell);
        assert_eq!(ends(&app), [end("mcp.call", expected)], "{rounds} {tells:?}");
    }
}

/// AUDIT-04: if the end of a call cannot be recorded, it is not answered as a success, and the client is not
/// told to try again.
#[tokio::test]
async fn a_call_whose_end_cannot_be_recorded_returns_no_answer() {
    let (staged, go) = waiting();
    let app = Arc::new(App::staged(&staged, &RULES));
    let request = write(&token("docs.read"));
    let sent = {
        let app = Arc::clone(&app);
        tokio::spawn(async move { app.send(request).await })
    };
    reached(&staged, 1).await;
    app.break_audit().await;
    go.notify_one();
    let answer = sent.await.unwrap();
    assert_eq!((answer.status, answer.header("retry-after"), answer.code()), (503, "", -32603));
    assert!(answer.json()["error"]["message"].as_str().unwrap().contains("before you try again"));
}

/// OPS-07: a stopping server waits for running calls.
#[tokio::test]
async fn a_stopping_server_lets_calls_end() {
    let (staged, go) = waiting();
    let app = Arc::new(App::staged(&staged, &RULES));
    let request = legacy(authorized(&token("docs.read")), "tools/call", &call("staged_write", &json!({})));
    let sent = {
        let app = Arc::clone(&app);
        tokio::spawn(async move { app.send(request).await })
    };
    reached(&staged, 1).await;
    sent.abort();
    app.resource.end_streams();
    let stopped = {
        let app = Arc::clone(&app);
        tokio::spawn(async move { app.resource.flush().await })
    };
    tokio::task::yield_now().await;
    assert!(!stopped.is_finished());
    go.notify_one();
    stopped.await.unwrap();
    assert_eq!(ends(&app), [end("mcp.call", "-"), end("mcp.result", "ok")]);
}

/// MCP-10, SRC-02: while snapshots are replaced, each list is one complete snapshot; an admitted call
/// completes, and a call of a removed tool is unknown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_replaced_under_calls() {
    let (staged, go) = waiting();
    let tools =
        [("old_a", "docs.read"), ("old_b", "docs.read"), ("new_a", "docs.read"), ("new_b", "docs.read")];
    let rules: Vec<_> = RULES.into_iter().chain(tools).collect();
    let app = Arc::new(App::staged(&staged, &rules));
    let token = token("docs.read");
    let request = legacy(authorized(&token), "tools/call", &call("staged_write", &json!({})));
    let sent = {
        let app = Arc::clone(&app);
        tokio::spawn(async move { app.send(request).await })
    };
    reached(&staged, 1).await;

    let offers = |a, b| {
        let tools = [(a, Effect::ReadOnly), (b, Effect::ReadOnly)];
        [Arc::new(crate::testing::offered("swapped", &tools))]
    };
    let stop = Arc::new(AtomicBool::new(false));
    let swapping = {
        let (app, old, new) = (Arc::clone(&app), offers("old_a", "old_b"), offers("new_a", "new_b"));
        app.resource.registry().replace(&old);
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                app.resource.registry().replace(&new);
                std::thread::yield_now();
                app.resource.registry().replace(&old);
                std::thread::yield_now();
            }
        })
    };
    let mut seen = BTreeMap::from([("old_a".to_owned(), 0), ("new_a".to_owned(), 0)]);
    while seen.values().any(|count| *count < 25) {
        let list = app.send(legacy(authorized(&token), "tools/list", &json!({}))).await.json();
        let names: Vec<_> = list["result"]["tools"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tool| tool["name"].as_str().unwrap().to_owned())
            .collect();
        assert!(names == ["old_a", "old_b"] || names == ["new_a", "new_b"], "{names:?}");
        *seen.get_mut(&names[0]).unwrap() += 1;
        let gone =
            app.send(legacy(authorized(&token), "tools/call", &call("staged_write", &json!({})))).await;
        assert_eq!(gone.json()["error"]["message"], "Unknown tool: staged_write");
        // A listed tool without a runnable source: the call fails and nothing is done.
        let offered =
            app.send(legacy(authorized(&token), "tools/call", &call("new_a", &json!({})))).await.json();
        assert!(offered["error"]["code"] == -32602 || offered["result"]["isError"] == true, "{offered}");
    }
    stop.store(true, Ordering::SeqCst);
    swapping.join().unwrap();
    go.notify_one();
    assert_eq!(sent.await.unwrap().json()["result"]["isError"], false);
    assert_eq!(staged.calls(), 1);
}

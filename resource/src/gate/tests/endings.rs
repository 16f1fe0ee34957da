//! RS-08, RS-10: a call whose caller loses access while it is on its way, and one whose tool is listed no longer.

use std::sync::Arc;

use super::calls::{RULES, TOOLS, mirrored, reached, waiting};
use super::*;
use crate::testing::TestSource;

/// RS-08: at whichever of its questions the answer changes, from the first to the last one after the outcome is on record:
/// no result is given out, and the answer is the one that a new call would get.
#[tokio::test]
async fn access_that_ends_during_a_call_returns_nothing() {
    for (name, _) in TOOLS {
        for loses_all in [false, true] {
            let mut questions = 0;
            loop {
                let app = App::staged(&TestSource::prompt(&TOOLS), &RULES);
                let token = token("docs.read");
                if loses_all {
                    app.stage.disentitle_after(&token, questions);
                } else {
                    app.stage.kill_after(&token, questions);
                }
                let answer = app.send(mirrored(&token, name, Some("north"))).await;
                if String::from_utf8_lossy(&answer.body).contains("done") {
                    break;
                }
                if loses_all {
                    assert_eq!(
                        answer.json()["error"]["message"],
                        format!("Unknown tool: {name}"),
                        "{questions}"
                    );
                } else {
                    assert_eq!(answer.status, 401, "{name}, after {questions} questions");
                }
                let ends = [app.records("mcp.call"), app.records("mcp.result")].concat();
                let ends = ends.iter().filter(|record| record["detail"].get("result").is_some()).count();
                assert!(ends <= 1, "{name}, after {questions} questions: {ends} outcomes");
                questions += 1;
            }
            // At the door, when it is known what for, before the result and after the record; and before what may write.
            assert_eq!(questions, if name == "staged_write" { 5 } else { 4 }, "{name}");
        }
    }
}

/// RS-10: what ends a call is what its caller may do. A server that stops listing a tool while it runs ends nothing; a
/// later call finds no such tool.
#[tokio::test]
async fn a_tool_that_is_listed_no_longer_runs_to_its_end() {
    let (staged, go) = waiting();
    let app = Arc::new(App::staged(&staged, &RULES));
    let token = token("docs.read");
    let sent = {
        let (app, request) = (Arc::clone(&app), mirrored(&token, "staged_read", Some("north")));
        tokio::spawn(async move { app.send(request).await })
    };
    reached(&staged, 1).await;
    app.resource.registry().replace(&[]);
    go.notify_one();
    assert_eq!(sent.await.unwrap().json()["result"]["isError"], false);
    let later = app.send(mirrored(&token, "staged_read", Some("north"))).await;
    assert_eq!(later.json()["error"]["message"], "Unknown tool: staged_read");
}

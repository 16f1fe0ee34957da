//! Calls that take a while: answered as a stream of events, with the progress of the work (SRC-13, MCP-16).

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use http_body_util::BodyExt;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::calls::{RULES, TOOLS, reached, waiting};
use super::*;
use crate::testing::TestSource;

/// A source whose progress a test reports.
fn telling() -> (UnboundedSender<f64>, Arc<TestSource>, Arc<App>) {
    let (tell, told) = unbounded_channel();
    let staged = TestSource::telling(&TOOLS, told);
    let app = Arc::new(App::staged(&staged, &RULES));
    (tell, staged, app)
}

/// A call that asks for progress by this token, in either revision.
fn asking(is_modern: bool, progress_token: &serde_json::Value) -> HttpRequest<Body> {
    let request = authorized(&token("docs.read"));
    let meta = json!({ "progressToken": progress_token });
    let mut params = call("staged_read", &json!({}));
    params["_meta"] = meta;
    if !is_modern {
        return legacy(request, "tools/call", &params);
    }
    let request = request.header("mcp-protocol-version", MODERN).header("mcp-method", "tools/call");
    params["_meta"]["io.modelcontextprotocol/protocolVersion"] = MODERN.into();
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
    with(request.header("mcp-name", "staged_read"), &rpc("tools/call", &params))
}

/// The next messages of a stream, comments left out; `None` at its end.
async fn heard(stream: &mut Response) -> Option<Vec<serde_json::Value>> {
    let frame = stream.body_mut().frame().await?.unwrap().into_data().unwrap();
    let text = String::from_utf8(frame.to_vec()).unwrap();
    assert!(text.ends_with("\n\n"), "{text:?}");
    let data = text.split("\n\n").filter_map(|event| event.split_once("data: ").map(|(_, data)| data));
    Some(data.map(|data| serde_json::from_str(&data.replace("\ndata: ", "\n")).unwrap()).collect())
}

/// SRC-13: progress is told by the client's own token, in its own type, in order, and the last value before the answer. A
/// value that is not larger is not told.
#[tokio::test]
async fn progress_is_told_by_the_clients_token() {
    for (is_modern, its) in [(false, json!(3)), (false, json!("3")), (true, json!("a\"b")), (true, json!(0))]
    {
        let (tell, _, app) = telling();
        tell.send(1.5).unwrap();
        let mut stream = app.open_answer(asking(is_modern, &its)).await;
        assert_eq!(stream.headers()["content-type"], "text/event-stream");
        assert_eq!(stream.headers()["x-accel-buffering"], "no");
        let mut all = heard(&mut stream).await.unwrap();
        for value in [1.0, 2.0, 2.0, 7.0] {
            tell.send(value).unwrap();
        }
        drop(tell);
        while let Some(more) = heard(&mut stream).await {
            all.extend(more);
        }
        let answer = all.pop().unwrap();
        assert_eq!((&answer["id"], &answer["result"]["isError"]), (&json!(7), &json!(false)), "{answer}");
        let notes: Vec<_> =
            all.iter().map(|note| (&note["method"], &note["params"]["progressToken"])).collect();
        assert!(notes.iter().all(|note| *note == (&json!("notifications/progress"), &its)), "{notes:?}");
        let values: Vec<_> = all.iter().map(|note| note["params"]["progress"].as_f64().unwrap()).collect();
        assert!(values.is_sorted_by(|a, b| a < b), "{values:?}");
        assert_eq!((values.first(), values.last()), (Some(&1.5), Some(&7.0)), "{values:?}");
    }
}

/// SRC-13: a client that did not ask is told nothing, and one that gave no token neither; a call that ends soon is answered
/// as JSON.
#[tokio::test]
async fn a_client_that_did_not_ask_is_told_nothing() {
    for its in [json!(null), json!(1.5), json!({}), json!([3])] {
        let (tell, _, app) = telling();
        tell.send(1.0).unwrap();
        drop(tell);
        let answer = app.send(asking(false, &its)).await;
        assert_eq!(answer.header("content-type"), "application/json", "{its}");
        assert_eq!(answer.json()["result"]["isError"], false, "{its}");
    }
}

/// SRC-13, MCP-16: a call of more than a second goes on as a stream that comments keep alive, and ends with the answer. A
/// client that accepts no events waits for JSON.
#[tokio::test]
async fn a_long_call_goes_on_as_a_stream() {
    for accepts in [true, false] {
        let (staged, go) = waiting();
        let app = Arc::new(App::staged(&staged, &RULES));
        let mut request =
            legacy(authorized(&token("docs.read")), "tools/call", &call("staged_read", &json!({})));
        if !accepts {
            request.headers_mut().insert("accept", "application/json".parse().unwrap());
        }
        let sent = {
            let app = Arc::clone(&app);
            tokio::spawn(async move { app.open_answer(request).await })
        };
        reached(&staged, 1).await;
        tokio::time::pause();
        if accepts {
            let begun = tokio::time::Instant::now();
            let mut stream = sent.await.unwrap();
            assert!(begun.elapsed() <= Duration::from_millis(1010), "{:?}", begun.elapsed());
            assert_eq!(stream.status(), 200);
            let opened = tokio::time::Instant::now();
            for seconds in [0, 15, 30] {
                assert_eq!(heard(&mut stream).await, Some(vec![]));
                assert_eq!(opened.elapsed().as_secs(), seconds);
            }
            tokio::time::resume();
            go.notify_one();
            assert_eq!(heard(&mut stream).await.unwrap()[0]["result"]["isError"], false);
            assert_eq!(heard(&mut stream).await, None);
        } else {
            tokio::time::advance(Duration::from_secs(20)).await;
            tokio::time::resume();
            go.notify_one();
            assert_eq!(sent.await.unwrap().headers()["content-type"], "application/json");
        }
    }
}

/// RS-10: access that ends while the stream is open ends the call; the stream ends with the error that a new call would get.
#[tokio::test]
async fn a_stream_of_a_call_ends_with_access() {
    for loses_all in [true, false] {
        let (tell, _, app) = telling();
        tell.send(1.0).unwrap();
        let token = token("docs.read");
        let mut params = call("staged_read", &json!({}));
        params["_meta"] = json!({ "progressToken": 1 });
        let mut stream = app.open_answer(legacy(authorized(&token), "tools/call", &params)).await;
        assert_eq!(heard(&mut stream).await.unwrap().len(), 1);
        if loses_all {
            app.stage.entitle("");
        } else {
            app.stage.kill(token.jti.as_str());
        }
        tell.send(2.0).unwrap();
        let begun = std::time::Instant::now();
        let mut last = Vec::new();
        while let Some(more) = heard(&mut stream).await {
            last = more;
        }
        assert!(begun.elapsed() < Duration::from_secs(3));
        let error = &last.last().unwrap()["error"];
        let expected = if loses_all { -32602 } else { 401 };
        assert_eq!(
            (last.last().unwrap()["id"].clone(), error["code"].as_i64()),
            (json!(7), Some(expected)),
            "{error}"
        );
    }
}

/// MCP-16: closing the stream of a modern call cancels it; an older one goes on to its end.
#[tokio::test]
async fn closing_a_stream_cancels_a_modern_call_alone() {
    for is_modern in [true, false] {
        let (tell, _, app) = telling();
        tell.send(1.0).unwrap();
        let mut stream = app.open_answer(asking(is_modern, &json!(1))).await;
        assert_eq!(heard(&mut stream).await.unwrap().len(), 1);
        drop(stream);
        if !is_modern {
            drop(tell);
        }
        let expected = if is_modern { "cancelled" } else { "ok" };
        let ended = async {
            while app.records("mcp.call").is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), ended).await.unwrap();
        assert_eq!(app.records("mcp.call")[0]["detail"]["result"], expected);
    }
}

//! The site's rules through the gate: hidden items, effects, titles, arguments (POL-01, POL-02).

use std::sync::Arc;

use serde_json::{Value, json};

use super::{authorized, call, legacy, modern, token};
use crate::argument_rules::{ArgumentRule, Conditions};
use crate::item::Effect;
use crate::rules::{ItemRule, Pattern, Rules};
use crate::testing::{Answer, App, TestSource};

/// A server with a source of one tool, `ci_run`, under this rule.
fn ruled(change: impl FnOnce(&mut ItemRule)) -> (App, Arc<TestSource>) {
    let staged = TestSource::prompt(&[("ci_run", Effect::Writes)]);
    let mut rules = Rules::default();
    let mut rule = ItemRule::needing("docs.read".parse().unwrap());
    rule.at = Some("portcullis.toml:7".to_owned());
    change(&mut rule);
    rules.tools.set(Pattern::parse("ci_*").unwrap(), rule);
    (App::staged_under(&staged, &rules), staged)
}

fn argument(pointer: &str, conditions: Conditions) -> ArgumentRule {
    ArgumentRule::new(pointer, conditions).unwrap()
}

async fn run(app: &App, arguments: &Value) -> Answer {
    app.send(legacy(authorized(&token("docs.read")), "tools/call", &call("ci_run", arguments))).await
}

async fn listed(app: &App) -> Vec<Value> {
    let answer = app.send(legacy(authorized(&token("docs.read")), "tools/list", &json!({}))).await;
    answer.json()["result"]["tools"].as_array().unwrap().clone()
}

/// POL-01, MCP-09: a hidden item is in no list, and a call of it gets the answer of an unknown one, byte for
/// byte; the record distinguishes them, and no call reaches its source.
#[tokio::test]
async fn a_hidden_item_looks_unknown() {
    let (app, staged) = ruled(|rule| rule.hidden = true);
    assert!(!listed(&app).await.iter().any(|tool| tool["name"] == "ci_run"));
    let unknown =
        app.send(legacy(authorized(&token("docs.read")), "tools/call", &call("ci_xxx", &json!({})))).await;
    let hidden = run(&app, &json!({})).await;
    let text = |answer: &Answer| String::from_utf8(answer.body.clone()).unwrap();
    assert_eq!(text(&hidden), text(&unknown).replace("ci_xxx", "ci_run"));
    assert_eq!((hidden.status, &hidden.headers), (unknown.status, &unknown.headers));
    let reasons: Vec<_> = app.records("mcp.denied").iter().map(|record| record["reason"].clone()).collect();
    assert_eq!(reasons, ["unknown", "hidden"]);
    assert_eq!(staged.calls(), 0);
}

/// POL-01, AUDIT-04: only the administrator's rule makes a call read-only: otherwise it is recorded before it
/// is made.
#[tokio::test]
async fn the_rule_says_whether_a_call_only_reads() {
    let (app, _) = ruled(|_| {});
    assert_eq!(run(&app, &json!({})).await.status, 200);
    assert_eq!((app.records("mcp.call").len(), app.records("mcp.result").len()), (1, 1));
    let (app, _) = ruled(|rule| rule.effect = Some(Effect::ReadOnly));
    assert_eq!(run(&app, &json!({})).await.status, 200);
    assert_eq!((app.records("mcp.call").len(), app.records("mcp.result").len()), (1, 0));
}

/// POL-01, SRC-05: a rule replaces title and description, and every other member stays.
#[tokio::test]
async fn a_rule_changes_title_and_description_alone() {
    let (app, _) = ruled(|_| {});
    let find = |tools: Vec<Value>| tools.into_iter().find(|tool| tool["name"] == "ci_run").unwrap();
    let mut expected = find(listed(&app).await);
    let (app, _) = ruled(|rule| {
        rule.title = Some("Run the pipeline".to_owned());
        rule.description = Some("Runs it on a release branch.".to_owned());
    });
    expected["title"] = json!("Run the pipeline");
    expected["description"] = json!("Runs it on a release branch.");
    assert_eq!(find(listed(&app).await), expected);
}

/// POL-02: a call with a refused argument is told which one and what is allowed, in both eras. It is recorded
/// with its own keyword and the rule, and does not reach the source.
#[tokio::test]
async fn a_denied_argument_is_named() {
    let (app, staged) = ruled(|rule| {
        let release = Conditions { matches: Some("eu-.*".to_owned()), ..Conditions::default() };
        rule.arguments = [argument("/region", release)].into_iter().collect();
    });
    let words = "The argument /region of ci_run is not allowed here. Nothing was done. On this server /region must be a string that matches eu-.* as a whole.";
    for arguments in [json!({ "region": "us-1" }), json!({ "region": 7 }), json!({})] {
        let refused = run(&app, &arguments).await;
        assert_eq!(refused.status, 200, "{arguments}");
        let result = &refused.json()["result"];
        assert_eq!((&result["isError"], &result["content"][0]["text"]), (&json!(true), &json!(words)));
    }
    let request = authorized(&token("docs.read")).header("mcp-param-region", "us-1");
    let refused = app.send(modern(request, "tools/call", call("ci_run", &json!({ "region": "us-1" })))).await;
    assert_eq!(refused.json()["result"]["content"][0]["text"], words);
    let unnamed = run(&app, &json!({ "region": "eu-1", "Region": "us-1" })).await;
    let told = unnamed.json()["result"]["content"][0]["text"].as_str().unwrap().to_owned();
    assert!(told.contains("/Region") && told.contains("names are allowed: region"), "{told}");

    assert_eq!(staged.calls(), 0);
    let denied = app.records("mcp.denied");
    assert!(denied.iter().all(|record| record["reason"] == "argument_denied"), "{denied:?}");
    assert_eq!(denied[0]["detail"]["decision"], "argument_denied");
    assert_eq!(denied[0]["detail"]["rule"], "/region match eu-.*");
    assert!(app.records("mcp.call").is_empty());

    assert_eq!(run(&app, &json!({ "region": "eu-1" })).await.json()["result"]["isError"], false);
    assert_eq!(staged.calls(), 1);
}

/// POL-02, MCP-09: argument rules are revealed only to callers who may use the item.
#[tokio::test]
async fn argument_rules_are_not_shown_to_other_callers() {
    let (app, _) = ruled(|rule| {
        let none = Conditions { absent: true, ..Conditions::default() };
        rule.arguments = [argument("/region", none)].into_iter().collect();
    });
    let asked = |scope: &str| {
        legacy(authorized(&token(scope)), "tools/call", &call("ci_run", &json!({ "region": "x" })))
    };
    assert_eq!(app.send(asked("")).await.status, 403);
    app.stage.entitle("");
    assert_eq!(app.send(asked("docs.read")).await.code(), -32602);
}

//! Useful with no upstream: tools that the configuration alone declares.

mod postgres;
mod rest;
mod service;
mod sql;
mod story;
mod webhook;

use serde_json::{Value, json};

use crate::harness::TestApp;
use crate::sources::server::member;

/// The first example of a page, as written.
fn example(page: &str) -> String {
    let (_, rest) = page.split_once("```toml\n").unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

/// A configuration in which these scopes are asked for like that of the documentation, which every token here has.
fn opened(toml: &str, scopes: &[&str]) -> String {
    scopes.iter().fold(toml.to_owned(), |toml, scope| {
        let rule = format!("= \"{scope}\"\n");
        assert!(toml.contains(&rule), "{scope}");
        toml.replace(&rule, "= \"docs.read\"\n")
    })
}

/// The result of a call through the gate.
async fn call(app: &TestApp, token: &str, name: &str, arguments: Value) -> Value {
    let result =
        crate::sources::ask(app, token, "tools/call", json!({ "name": name, "arguments": arguments })).await;
    serde_json::from_str(result.get()).unwrap()
}

/// What tools a client is shown, by name.
async fn listed(app: &TestApp, token: &str) -> Vec<Value> {
    let result = crate::sources::ask(app, token, "tools/list", json!({})).await;
    serde_json::from_str(member(result.get(), "tools").get()).unwrap()
}

/// The text of a tool error.
fn error(result: &Value) -> &str {
    assert_eq!(result["isError"], true, "{result}");
    result["content"][0]["text"].as_str().unwrap()
}

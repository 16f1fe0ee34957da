//! Third-party servers behind the gate: real ones are passed through unchanged, hostile ones are bounded, and
//! refused calls never reach them.

mod console;
mod elsewhere;
pub mod hostile;
mod import;
pub mod items;
mod raw_answers;
mod restarts;
mod review;
mod secured;
pub mod server;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::harness::TestApp;
use hostile::{CallBehaviour, HostileServer};
use server::{Direct, Server, items, member};

/// A configuration with one source and a rule for each of these tools.
pub fn configured(name: &str, url: &str, more: &str, tools: &[String]) -> String {
    let mut toml = format!("[sources.{name}]\nkind = \"mcp-http\"\nurl = \"{url}\"\n{more}\n");
    for tool in tools {
        write!(toml, "[tools.{tool}]\nscope = \"docs.read\"\n").unwrap();
    }
    toml
}

/// Waits until a source's lists were fetched this many times.
pub async fn walked(app: &TestApp, event: &str, times: usize) {
    let begun = Instant::now();
    while app.events().iter().filter(|(name, _)| name == event).count() < times {
        assert!(begun.elapsed() < Duration::from_mins(1), "{event} is not on record");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The raw result of a request through the gate, in revision 2025-11-25.
pub async fn ask(app: &TestApp, token: &str, method: &str, params: Value) -> Box<RawValue> {
    let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let sent = app.http.post(app.url("/mcp")).bearer_auth(token).json(&request);
    let sent = sent.header("accept", "application/json");
    let text = sent.header("mcp-protocol-version", "2025-11-25").send().await.unwrap().text().await.unwrap();
    assert!(text.contains("\"result\""), "{text}");
    member(&text, "result")
}

/// A token of a user with the default entitlement.
pub async fn token(app: &TestApp) -> String {
    let mut ada = app.admin().await;
    let client = app.client().await;
    app.tokens(&mut ada, &client).await.access
}

/// The tools that a server lists, by name.
async fn listed(direct: &Direct) -> Vec<(String, Box<RawValue>)> {
    let tools = direct.ask("tools/list", json!({})).await;
    let named = |tool: Box<RawValue>| (serde_json::from_str(member(tool.get(), "name").get()).unwrap(), tool);
    items(&member(tools.get(), "tools")).into_iter().map(named).collect()
}

/// SRC-05: every definition is as the server wrote it, except for the name.
pub async fn same_definitions(app: &TestApp, token: &str, source: &str, tools: &[(String, Box<RawValue>)]) {
    let shown = ask(app, token, "tools/list", json!({})).await;
    let shown = items(&member(shown.get(), "tools"));
    for (name, written) in tools {
        let renamed = format!("\"name\":\"{source}_{name}\"");
        let expected = written.get().replacen(&format!("\"name\":\"{name}\""), &renamed, 1);
        assert!(shown.iter().any(|tool| tool.get() == expected), "{expected}\n{shown:?}");
    }
}

/// SRC-02, SRC-05, SRC-06: a TypeScript server (2025-11-25, sessions, streamed responses) is passed through
/// unchanged; after a kill and a restart it works again without intervention.
#[tokio::test(flavor = "multi_thread")]
async fn server_everything_passes_unchanged() {
    let mut server = Server::everything(None);
    let direct = Direct::legacy(&server.url).await;
    let tools = listed(&direct).await;
    let names: Vec<String> = tools.iter().map(|(name, _)| format!("all_{name}")).collect();
    assert!(names.len() >= 8, "{names:?}");
    let app = TestApp::start_configured(&configured("all", &server.url, "", &names)).await;
    let token = token(&app).await;
    walked(&app, "source.changed", 1).await;
    same_definitions(&app, &token, "all", &tools).await;
    for (name, arguments) in [
        ("echo", json!({ "message": "grüß dich 👋 \u{2028}" })),
        ("get-sum", json!({ "a": 2, "b": 40.5 })),
        ("get-tiny-image", json!({})),
        ("get-annotated-message", json!({ "messageType": "error", "includeImage": true })),
        ("get-structured-content", json!({ "location": "Chicago" })),
        ("get-resource-links", json!({ "count": 3 })),
        ("get-sum", json!({ "a": "no number" })),
        ("trigger-long-running-operation", json!({ "duration": 0.2, "steps": 2 })),
    ] {
        let own = direct.ask("tools/call", json!({ "name": name, "arguments": arguments })).await;
        let passed =
            ask(&app, &token, "tools/call", json!({ "name": format!("all_{name}"), "arguments": arguments }))
                .await;
        assert_eq!(passed.get(), own.get(), "{name}");
    }
    let port = server.url.split([':', '/']).nth(4).unwrap().parse().unwrap();
    server.kill();
    let call = json!({ "name": "all_echo", "arguments": { "message": "x" } });
    let down = ask(&app, &token, "tools/call", call.clone()).await;
    assert!(down.get().contains("cannot be used") && down.get().contains("\"isError\":true"), "{down}");
    assert_eq!(
        items(&member(ask(&app, &token, "tools/list", json!({})).await.get(), "tools")).len(),
        names.len() + 3
    );
    walked(&app, "source.stale", 1).await;
    let _again = Server::everything(Some(port));
    let up = ask(&app, &token, "tools/call", call).await;
    assert!(up.get().contains("Echo: x"), "{up}");
    walked(&app, "source.recovered", 1).await;
    let results: Vec<Value> = app.audit().into_iter().filter(|one| one["event"] == "mcp.result").collect();
    let last: Vec<_> = results.iter().rev().take(2).map(|one| one["detail"]["result"].clone()).collect();
    assert_eq!(last, ["ok", "not_sent"]);
}

/// SRC-05, SRC-06: a Python server (2026-07-28) is passed through unchanged.
#[tokio::test(flavor = "multi_thread")]
async fn mcp_server_time_passes_unchanged() {
    let server = Server::time();
    let direct = Direct::modern(&server.url);
    let tools = listed(&direct).await;
    let names: Vec<String> = tools.iter().map(|(name, _)| format!("time_{name}")).collect();
    let app = TestApp::start_configured(&configured("time", &server.url, "", &names)).await;
    let token = token(&app).await;
    walked(&app, "source.changed", 1).await;
    same_definitions(&app, &token, "time", &tools).await;
    for (name, arguments) in [
        (
            "convert_time",
            json!({ "source_timezone": "UTC", "time": "12:30", "target_timezone": "Asia/Tokyo" }),
        ),
        (
            "convert_time",
            json!({ "source_timezone": "Nowhere/None", "time": "12:30", "target_timezone": "UTC" }),
        ),
    ] {
        let own = direct.ask("tools/call", json!({ "name": name, "arguments": arguments })).await;
        let passed = ask(
            &app,
            &token,
            "tools/call",
            json!({ "name": format!("time_{name}"), "arguments": arguments }),
        )
        .await;
        // Members of the newer revision, which this client does not speak.
        let protocol = ["resultType", "_meta"];
        let members = |text: &str| {
            let mut all: BTreeMap<String, Box<RawValue>> = serde_json::from_str(text).unwrap();
            all.retain(|name, _| !protocol.contains(&name.as_str()));
            all.into_iter().map(|(name, value)| (name, value.get().to_owned())).collect::<Vec<_>>()
        };
        assert_eq!(members(passed.get()), members(own.get()), "{name} {arguments}");
    }
}

/// SRC-02, SRC-08, SRC-12: whatever a server does, the call ends within its bounds with the right kind of
/// error, and the next call works. Redirects are not followed.
#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_server_is_bounded() {
    let hostile = HostileServer::start().await;
    let tools = ["bad_greet".to_owned()];
    let app = TestApp::start_configured(&configured("bad", &hostile.url, "timeout = \"5s\"", &tools)).await;
    let token = token(&app).await;
    walked(&app, "source.changed", 1).await;
    for (does, class, says) in [
        (CallBehaviour::Large, "too_large", "limit"),
        (CallBehaviour::Endless, "timed_out", "within 5 seconds"),
        (CallBehaviour::EndlessEvent, "too_large", "limit"),
        (CallBehaviour::Drip, "timed_out", "within 5 seconds"),
        (CallBehaviour::Hang, "timed_out", "within 5 seconds"),
        (CallBehaviour::Redirect, "error", "not followed"),
        (CallBehaviour::Garbage, "unknown", "It may have run"),
        (CallBehaviour::BreakOff, "unknown", "It may have run"),
        (CallBehaviour::Answer, "ok", "hello"),
    ] {
        hostile.will(does);
        let begun = Instant::now();
        let result = ask(&app, &token, "tools/call", json!({ "name": "bad_greet", "arguments": {} })).await;
        assert!(result.get().contains(says), "{does:?}: {}", &result.get()[..result.get().len().min(400)]);
        assert!(begun.elapsed() < Duration::from_secs(30), "{does:?}");
        let ended = app.audit().into_iter().rfind(|one| one["event"] == "mcp.result").unwrap();
        assert_eq!(ended["detail"]["result"], class, "{does:?}");
    }
    assert_eq!(hostile.calls().len(), 9, "each call was sent once");
}

/// RS-15, MCP-09: a refused call never reaches a server, and an allowed one has no token, cookie or forwarded
/// header.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_caller_reaches_a_server() {
    let hostile = HostileServer::start().await;
    let tools = ["bad_greet".to_owned()];
    let secret = tempfile::tempdir().unwrap();
    let path = secret.path().join("secret");
    std::fs::write(&path, "Bearer of-the-gateway\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let more = format!("authorization = \"file:{}\"\nidentity = \"jwt\"", path.display());
    let app = TestApp::start_configured(&configured("bad", &hostile.url, &more, &tools)).await;
    let token = token(&app).await;
    walked(&app, "source.changed", 1).await;
    let call = async |bearer: Option<&str>, name: &str| {
        let message = json!({ "jsonrpc": "2.0", "id": "the-caller's", "method": "tools/call",
            "params": { "name": name, "arguments": { "x": 1 }, "_meta": { "progressToken": "the-caller's" } } });
        let mut request = app.http.post(app.url("/mcp")).json(&message).header("accept", "application/json");
        for (name, value) in [
            ("cookie", "__Host-session=the-caller's"),
            ("x-forwarded-for", "192.0.2.1"),
            ("forwarded", "for=192.0.2.1"),
            ("dpop", "the-caller's"),
            ("proxy-authorization", "Basic the-caller's"),
            ("portcullis-identity", "the-caller's"),
            ("x-vendor", "the-caller's"),
        ] {
            request = request.header(name, value);
        }
        let request = bearer.into_iter().fold(request, reqwest::RequestBuilder::bearer_auth);
        request.send().await.unwrap().text().await.unwrap()
    };
    for (bearer, name) in [
        (None, "bad_greet"),
        (Some("wrong"), "bad_greet"),
        (Some(&*token), "bad_unruled"),
        (Some(&*token), "greet"),
    ] {
        call(bearer, name).await;
    }
    assert!(hostile.calls().is_empty());
    assert!(call(Some(&token), "bad_greet").await.contains("hello"));
    let calls = hostile.calls();
    assert_eq!(calls.len(), 1);
    for (headers, message) in hostile.arrived() {
        let mut names: Vec<_> = headers.keys().map(http::HeaderName::as_str).collect();
        names.retain(|name| *name != "mcp-name");
        names.sort_unstable();
        let expected = ["accept", "authorization", "content-length", "content-type", "host", "mcp-method"];
        assert_eq!(names, [&expected[..], &["mcp-protocol-version", "portcullis-identity"]].concat());
        assert_eq!(headers["authorization"], "Bearer of-the-gateway");
        let identity = headers["portcullis-identity"].to_str().unwrap();
        let everything = format!("{headers:?} {message}");
        assert!(!everything.contains("the-caller's") && !everything.contains(&token), "{everything}");
        // An identity token is not accepted here.
        assert!(!call(Some(identity), "bad_greet").await.contains("hello"));
    }
    assert_eq!(hostile.calls().len(), 1);
}

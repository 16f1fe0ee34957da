//! Prompts, resources, templates and completions of servers behind the gate: real ones pass unchanged to clients of both
//! eras, and what is wrong with one list or request harms nothing else.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::hostile::{CallBehaviour, HostileServer, METHODS};
use super::server::{Direct, Server, items, member};
use super::{token, walked};
use crate::harness::TestApp;
use crate::process::{complaint, portcullis};

const ERAS: [&str; 2] = ["2025-11-25", "2026-07-28"];

/// A configuration in which everything of one source is for everybody.
pub fn everything_of(name: &str, url: &str, more: &str) -> String {
    let rule = "scope = \"docs.read\"\neffect = \"read\"\n";
    format!(
        "[sources.{name}]\nkind = \"mcp-http\"\nurl = \"{url}\"\n{more}\n\
         [tools.\"{name}_*\"]\n{rule}[prompts.\"{name}_*\"]\n{rule}[resources.\"{name}_*\"]\n{rule}"
    )
}

/// The answer to a request through the gate, from a client of this revision.
async fn answer(app: &TestApp, token: &str, era: &str, method: &str, mut params: Value) -> String {
    let mut request = app.http.post(app.url("/mcp")).bearer_auth(token).header("mcp-protocol-version", era);
    request = request.header("accept", "application/json");
    if era == "2026-07-28" {
        params["_meta"] = json!({ "io.modelcontextprotocol/protocolVersion": era,
            "io.modelcontextprotocol/clientCapabilities": {} });
        request = request.header("mcp-method", method);
        if let Some(name) = params["name"].as_str().or(params["uri"].as_str()) {
            request = request.header("mcp-name", name);
        }
    }
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    request.json(&message).send().await.unwrap().text().await.unwrap()
}

/// The members of the result, as they were written, without those of the protocol between the gate and its client.
async fn members(
    app: &TestApp,
    token: &str,
    era: &str,
    method: &str,
    params: Value,
) -> BTreeMap<String, String> {
    let text = answer(app, token, era, method, params).await;
    assert!(text.contains("\"result\""), "{method}: {text}");
    own_members(&member(&text, "result"))
}

fn own_members(result: &RawValue) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, Box<RawValue>> = serde_json::from_str(result.get()).unwrap();
    // SRC-05: what this gate says of itself, and what older revisions do not know.
    all.retain(|name, _| !["resultType", "_meta", "ttlMs", "cacheScope"].contains(&name.as_str()));
    all.into_iter().map(|(name, value)| (name, value.get().to_owned())).collect()
}

/// SRC-03, SRC-04, SRC-05: each definition in the lists of a server of the TypeScript world is shown as it was written, URIs
/// verbatim, and the name of a prompt alone is another one.
#[tokio::test(flavor = "multi_thread")]
async fn lists_of_server_everything_pass_unchanged() {
    let server = Server::everything(None);
    let direct = Direct::legacy(&server.url).await;
    let app = TestApp::start_configured(&everything_of("all", &server.url, "")).await;
    let token = token(&app).await;
    walked(&app, "source.changed", 1).await;
    for (method, list, least) in [
        ("prompts/list", "prompts", 4),
        ("resources/list", "resources", 5),
        ("resources/templates/list", "resourceTemplates", 2),
    ] {
        let own = items(&member(direct.ask(method, json!({})).await.get(), list));
        assert!(own.len() >= least, "{method}: {own:?}");
        for era in ERAS {
            let shown = members(&app, &token, era, method, json!({})).await[list].clone();
            let shown: Vec<Box<RawValue>> = serde_json::from_str(&shown).unwrap();
            for written in &own {
                let expected = match list {
                    "prompts" => written.get().replacen("\"name\":\"", "\"name\":\"all_", 1),
                    _ => written.get().to_owned(),
                };
                assert!(shown.iter().any(|one| one.get() == expected), "{expected}\n{shown:?}");
            }
            let docs = shown.iter().filter(|one| one.get().contains("\"docs:///")).count();
            assert_eq!(shown.len(), own.len() + docs, "{method}");
        }
    }
}

/// SRC-04, SRC-05, SRC-06: what such a server answers reaches clients of both eras member by member as without the gate.
#[tokio::test(flavor = "multi_thread")]
async fn answers_of_server_everything_pass_unchanged() {
    let server = Server::everything(None);
    let direct = Direct::legacy(&server.url).await;
    let app = TestApp::start_configured(&everything_of("all", &server.url, "")).await;
    let token = token(&app).await;
    walked(&app, "source.changed", 1).await;
    let listed = items(&member(direct.ask("resources/list", json!({})).await.get(), "resources"));
    let uri: String = serde_json::from_str(member(listed[0].get(), "uri").get()).unwrap();
    let complete = |reference: Value, name: &str, value: &str, context: Value| json!({ "ref": reference, "argument": { "name": name, "value": value }, "context": context });
    let prompt = json!({ "type": "ref/prompt", "name": "PREFIXcompletable-prompt" });
    let template = json!({ "type": "ref/resource", "uri": "demo://resource/dynamic/text/{resourceId}" });
    let sales = json!({ "arguments": { "department": "Sales" } });
    for (method, params) in [
        ("prompts/get", json!({ "name": "PREFIXsimple-prompt" })),
        ("prompts/get", json!({ "name": "PREFIXargs-prompt", "arguments": { "city": "Zürich 👋" } })),
        (
            "prompts/get",
            json!({ "name": "PREFIXcompletable-prompt", "arguments": { "department": "Sales", "name": "Eve" } }),
        ),
        (
            "prompts/get",
            json!({ "name": "PREFIXresource-prompt", "arguments": { "resourceType": "Text", "resourceId": "3" } }),
        ),
        ("resources/read", json!({ "uri": uri })),
        ("resources/read", json!({ "uri": "demo://resource/dynamic/text/7" })),
        ("resources/read", json!({ "uri": "demo://resource/dynamic/blob/7" })),
        ("completion/complete", complete(prompt.clone(), "department", "S", json!({}))),
        ("completion/complete", complete(prompt.clone(), "name", "", sales)),
        ("completion/complete", complete(prompt, "name", "", json!({}))),
        ("completion/complete", complete(template, "resourceId", "7", json!({}))),
    ] {
        let named = |prefix: &str| {
            serde_json::from_str::<Value>(&params.to_string().replace("PREFIX", prefix)).unwrap()
        };
        for era in ERAS {
            let mut tries = 0;
            loop {
                let own = own_members(&direct.ask(method, named("")).await);
                let passed = members(&app, &token, era, method, named("all_")).await;
                // Some answers tell the time, to the second.
                if passed == own {
                    break;
                }
                tries += 1;
                assert!(tries < 5, "{method} {params}: {passed:?} {own:?}");
            }
        }
    }
    // What the server refuses is its own error, in the code of the client's revision.
    for (era, code) in [("2025-11-25", "-32002"), ("2026-07-28", "-32602")] {
        let read = json!({ "uri": "demo://resource/dynamic/text/none" });
        let refused = answer(&app, &token, era, "resources/read", read).await;
        assert!(refused.contains("\"error\"") && refused.contains("text/none"), "{refused}");
        let unknown = json!({ "uri": "demo://resource/nowhere" });
        let unknown = answer(&app, &token, era, "resources/read", unknown).await;
        assert!(unknown.contains(&format!("\"code\":{code}")), "{unknown}");
    }
}

/// SRC-04, SRC-13: a resource that a real server makes while it runs can be read by the link in its result; its list is read
/// again when the server says that it changed, and the client of a session is told so.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_changes_is_read_again_and_told_of() {
    let server = Server::everything(None);
    let app = TestApp::start_configured(&everything_of("all", &server.url, "")).await;
    let token = token(&app).await;
    walked(&app, "source.changed", 1).await;
    let initialize = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } } });
    let post = app.http.post(app.url("/mcp")).bearer_auth(&token).json(&initialize);
    let begun = post.header("accept", "application/json").send().await.unwrap();
    let session = begun.headers()["mcp-session-id"].clone();
    let said: Value = begun.json().await.unwrap();
    assert_eq!(said["result"]["capabilities"]["resources"]["listChanged"], true);
    let stream = app.http.get(app.url("/mcp")).bearer_auth(&token).header("mcp-session-id", session);
    let stream = stream.header("accept", "text/event-stream").header("mcp-protocol-version", "2025-11-25");
    let mut stream = stream.send().await.unwrap();
    let gzip = json!({ "name": "all_gzip-file-as-resource", "arguments": {
        "name": "note.gz", "data": "data:text/plain,hello", "outputType": "resourceLink" } });
    let made = members(&app, &token, ERAS[0], "tools/call", gzip).await;
    assert!(made["content"].contains("demo://resource/session/note.gz"), "{made:?}");
    // At once, before any list has it.
    let read = json!({ "uri": "demo://resource/session/note.gz" });
    let contents = members(&app, &token, ERAS[1], "resources/read", read).await;
    assert!(contents["contents"].contains("application/gzip"), "{contents:?}");
    let mut heard = String::new();
    let told = async {
        while !heard.contains("notifications/resources/list_changed") {
            heard.push_str(&String::from_utf8_lossy(&stream.chunk().await.unwrap().unwrap()));
        }
    };
    tokio::time::timeout(Duration::from_secs(30), told).await.expect("the client is told");
    assert!(!heard.contains("tools/list_changed") && !heard.contains("prompts/list_changed"), "{heard}");
    let listed = members(&app, &token, ERAS[0], "resources/list", json!({})).await;
    assert!(listed["resources"].contains("demo://resource/session/note.gz"), "{listed:?}");
}

/// The request of each method that is about an item of the hostile server.
fn request(method: &str) -> Value {
    match method {
        "tools/call" | "prompts/get" => json!({ "name": "bad_greet" }),
        "resources/read" => json!({ "uri": "bad://host/greet" }),
        _ => {
            json!({ "ref": { "type": "ref/prompt", "name": "bad_greet" }, "argument": { "name": "a", "value": "" } })
        }
    }
}

/// SRC-08, SRC-12: whatever a server does with a request of any kind, it ends, within bounds, in its class, and the next one
/// is served. Where it redirects to, nobody goes.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_answers_are_bounded_for_every_kind() {
    let hostile = HostileServer::start().await;
    let app = TestApp::start_configured(&everything_of("bad", &hostile.url, "timeout = \"2s\"")).await;
    let token = token(&app).await;
    walked(&app, "source.changed", 1).await;
    for method in &METHODS[4..] {
        for (does, class, says) in [
            (CallBehaviour::Large, "too_large", "limit"),
            (CallBehaviour::LargeUnannounced, "too_large", "limit"),
            (CallBehaviour::Endless, "timed_out", "within 2 seconds"),
            (CallBehaviour::EndlessEvent, "too_large", "limit"),
            (CallBehaviour::Drip, "timed_out", "within 2 seconds"),
            (CallBehaviour::Hang, "timed_out", "within 2 seconds"),
            (CallBehaviour::Redirect, "error", "not followed"),
            (CallBehaviour::Garbage, "unknown", "no usable answer"),
            (CallBehaviour::BreakOff, "unknown", "no usable answer"),
            (CallBehaviour::Deep, "ok", "deep"),
            (CallBehaviour::Answer, "ok", "hello"),
        ] {
            hostile.will_for(method, does);
            let begun = Instant::now();
            let text = answer(&app, &token, ERAS[0], method, request(method)).await;
            assert!(text.contains(says), "{method} {does:?}: {}", &text[..text.len().min(400)]);
            assert!(begun.elapsed() < Duration::from_secs(30), "{method} {does:?}");
            let ended = app.audit().into_iter().rfind(|one| one["event"] == "mcp.call").unwrap();
            assert_eq!(ended["detail"]["result"], class, "{method} {does:?}");
            assert_eq!(ended["detail"]["method"], *method, "{method} {does:?}");
        }
        let sent = hostile.arrived().iter().filter(|(_, message)| message["method"] == *method).count();
        assert_eq!(sent, 11, "{method}: each was sent once");
    }
}

/// SRC-02: a list that is broken in any way is not accepted, within bounds, and the other lists of the same server are.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_list_takes_no_other_with_it() {
    let hostile = HostileServer::start().await;
    let app = TestApp::start_configured(&everything_of("bad", &hostile.url, "timeout = \"3s\"")).await;
    let token = token(&app).await;
    walked(&app, "source.changed", 1).await;
    let lists = ["tools", "prompts", "resources", "resourceTemplates"];
    let everything = async || {
        let mut all = String::new();
        for (method, list) in METHODS.iter().zip(lists) {
            all.push_str(&members(&app, &token, ERAS[1], method, json!({})).await[list]);
        }
        all
    };
    let before = everything().await;
    for method in &METHODS[..4] {
        for (does, why) in [
            (CallBehaviour::Large, "has more than"),
            (CallBehaviour::LargeUnannounced, "has more than"),
            (CallBehaviour::EndlessEvent, "has more than"),
            (CallBehaviour::Endless, "within 3 seconds"),
            (CallBehaviour::Drip, "within 3 seconds"),
            (CallBehaviour::Hang, "within 3 seconds"),
            (CallBehaviour::Circle, "circle"),
            (CallBehaviour::Many, "has more than"),
            (CallBehaviour::Redirect, "not followed"),
            (CallBehaviour::Garbage, "not MCP"),
            (CallBehaviour::BreakOff, ""),
            (CallBehaviour::Deep, "is not a list"),
        ] {
            hostile.will_for(method, does);
            let (_, complaint) = command(&app, &["source", "test", "bad"]);
            assert!(
                complaint.contains("cannot be used") && complaint.contains(why),
                "{method} {does:?}: {complaint}"
            );
            assert_eq!(everything().await, before, "{method} {does:?}");
        }
        hostile.will_for(method, CallBehaviour::Answer);
    }
    app.console(&["source", "test", "bad"]);
    assert!(app.has_event("source.recovered", None) && app.has_event("source.stale", Some("unavailable")));
}

/// What a command of the program prints and complains of, whether it succeeds or not.
fn command(app: &TestApp, arguments: &[&str]) -> (Value, String) {
    let data = app.data_dir();
    let all = [arguments, &["--json", "--data-dir", data.to_str().unwrap()]].concat();
    let output = portcullis(&all);
    (serde_json::from_slice(&output.stdout).unwrap_or_default(), complaint(&output))
}

/// MCP-03, MCP-05, MCP-09, MCP-12: what the gate refuses never reaches a server, whatever is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn refused_requests_of_every_kind_never_arrive() {
    let hostile = HostileServer::start().await;
    let hidden = "[tools.bad_unruled]\nhidden = true\n[prompts.bad_unruled]\nhidden = true\n\
         [resources.\"bad_bad://host/unruled\"]\nhidden = true\n";
    let toml = everything_of("bad", &hostile.url, "") + hidden;
    let app = TestApp::start_configured(&toml).await;
    let token = token(&app).await;
    walked(&app, "source.changed", 1).await;
    let before = hostile.arrived().len();
    for method in &METHODS[4..] {
        let good = request(method);
        let text = good.to_string();
        let rpc =
            |params: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        let twice = format!("{},{}", &text[..text.len() - 1], &text[1..]);
        let deep = format!("{}\"x\":{}{}}}", "{", "[".repeat(40), "]".repeat(40));
        let huge = format!("{{\"x\":\"{}\"}}", "y".repeat(2 << 20));
        let elsewhere = [("mcp-session-id", "ms_of-somebody-else")];
        let modern = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", method)];
        let mut stated = good.clone();
        stated["_meta"] = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {} });
        let says = |name: &'static str| [modern[0], modern[1], ("mcp-name", name)];
        let mut refused: Vec<(String, Vec<(&str, &str)>)> = vec![
            (format!("[{}]", rpc(&text)), vec![]),
            (rpc(&twice), vec![]),
            (rpc(&text).replacen("\"id\":1", "\"id\":1,\"method\":\"ping\"", 1), vec![]),
            (rpc(&text).replacen("\"id\"", "\"Method\":\"ping\",\"id\"", 1), vec![]),
            (rpc(&deep), vec![]),
            (rpc(&huge), vec![]),
            (rpc(&text), elsewhere.to_vec()),
            (rpc(&text), modern.to_vec()),
            (rpc(&stated.to_string()), vec![modern[0], ("mcp-method", "ping")]),
            (rpc(&text.replace("greet", "unruled")), vec![]),
            (rpc(&text.replace("greet", "nothing")), vec![]),
            (rpc("{}"), vec![]),
        ];
        // A completion has no header of its own.
        if *method != "completion/complete" {
            refused.push((rpc(&stated.to_string()), says("bad_unruled").to_vec()));
            refused.push((rpc(&stated.to_string()), modern.to_vec()));
        }
        for (body, headers) in refused {
            let mut request = app.http.post(app.url("/mcp")).bearer_auth(&token).body(body.clone());
            request = request.header("content-type", "application/json");
            request = request.header("accept", "application/json");
            for (name, value) in &headers {
                request = request.header(*name, *value);
            }
            // Of what is too large, not everything is read.
            let Ok(answer) = request.send().await else { continue };
            let text = answer.text().await.unwrap_or_default();
            let start = &body[..body.len().min(200)];
            assert!(
                text.contains("\"error\"") || text.contains("isError\":true"),
                "{start} {headers:?}: {text}"
            );
        }
        assert_eq!(hostile.arrived().len(), before, "{method}");
    }
    let served = answer(&app, &token, ERAS[0], "prompts/get", request("prompts/get")).await;
    assert!(served.contains("hello"), "{served}");
    assert_eq!(hostile.arrived().len(), before + 1);
}

/// POL-01, POL-06: `policy check` asks about prompts and resources too, and names the rule.
#[tokio::test(flavor = "multi_thread")]
async fn policy_check_explains_prompts_and_resources() {
    let hostile = HostileServer::start().await;
    let app = TestApp::start_configured(&everything_of("bad", &hostile.url, "")).await;
    token(&app).await;
    walked(&app, "source.changed", 1).await;
    let check =
        |option: &str, name: &str| command(&app, &["policy", "check", "--user", "ada", option, name]).0;
    for (option, name, decision) in [
        ("--prompt", "bad_greet", "allow"),
        ("--prompt", "bad_nothing", "unknown"),
        ("--resource", "bad://host/greet", "allow"),
        ("--resource", "BAD://host/greet", "allow"),
        ("--resource", "bad://host/greet/7", "allow"),
        ("--resource", "bad://host/greet/{id}", "allow"),
        ("--resource", "bad://host/../greet", "unknown"),
        ("--resource", "other://host/greet", "unknown"),
        ("--resource", "docs:///none.md", "allow"),
    ] {
        let checked = check(option, name);
        assert_eq!(checked["decision"], decision, "{name}: {checked}");
        assert_eq!(checked["item"]["name"], name);
    }
    let data = app.data_dir();
    let config = data.with_file_name("portcullis.toml");
    std::fs::write(&config, everything_of("bad", &hostile.url, "").replace("bad_*", "bad_greet*")).unwrap();
    app.console(&["reload"]);
    // What a server lists and no rule names is denied, and the check says what to write.
    for (option, name, says) in [
        ("--tool", "bad_unruled", "no rule in [tools] names it; write [tools.bad_unruled] scope = \"…\""),
        (
            "--prompt",
            "bad_unruled",
            "no rule in [prompts] names it; write [prompts.bad_unruled] scope = \"…\"",
        ),
        (
            "--resource",
            "BAD://host/unruled",
            "no rule in [resources] names it; write [resources.\"bad_bad://host/unruled\"] scope = \"…\"",
        ),
    ] {
        let all = ["policy", "check", "--user", "ada", option, name, "--data-dir", data.to_str().unwrap()];
        let said = String::from_utf8(portcullis(&all).stdout).unwrap();
        assert!(said.contains(says) && !said.contains("needs no scope"), "{said}");
    }
    std::fs::write(&config, everything_of("bad", &hostile.url, "")).unwrap();
    app.console(&["reload"]);
    let by = check("--resource", "bad://host/greet")["by"][0].clone();
    assert!(by.as_str().unwrap().starts_with("[resources.\"bad_*\"] at "), "{by}");
    let by = check("--resource", "docs:///none.md")["by"][0].clone();
    assert_eq!(by, "[tools.docs_read], which is built in");
}

/// SRC-13: the progress of a real server's work reaches clients of both eras by their own token, in order, before the answer.
#[tokio::test(flavor = "multi_thread")]
async fn progress_of_server_everything_is_told() {
    let server = Server::everything(None);
    let app = TestApp::start_configured(&everything_of("all", &server.url, "")).await;
    let token = token(&app).await;
    walked(&app, "source.changed", 1).await;
    for era in ERAS {
        let name = "all_trigger-long-running-operation";
        let mut params = json!({ "name": name, "arguments": { "duration": 1, "steps": 4 },
            "_meta": { "progressToken": "mine" } });
        let mut request =
            app.http.post(app.url("/mcp")).bearer_auth(&token).header("mcp-protocol-version", era);
        request = request.header("accept", "application/json, text/event-stream");
        if era == "2026-07-28" {
            params["_meta"]["io.modelcontextprotocol/protocolVersion"] = era.into();
            params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
            request = request.header("mcp-method", "tools/call").header("mcp-name", name);
        }
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
        let response = request.json(&call).send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream", "{era}");
        let text = response.text().await.unwrap();
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        let mut messages: Vec<Value> = data.map(|data| serde_json::from_str(data).unwrap()).collect();
        let answer = messages.pop().unwrap();
        assert!(answer["result"]["content"][0]["text"].as_str().unwrap().contains("completed"), "{answer}");
        let told: Vec<_> = messages.iter().map(|note| &note["params"]).collect();
        assert!(told.iter().all(|told| told["progressToken"] == "mine" && told["total"] == 4), "{told:?}");
        let values: Vec<_> = told.iter().map(|told| told["progress"].as_u64().unwrap()).collect();
        assert!(values.is_sorted_by(|a, b| a < b) && values.last() == Some(&4), "{values:?}");
    }
}

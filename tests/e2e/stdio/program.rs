//! Configurations with programs, and calls of their tools.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::TestApp;
use crate::process::clients;
use crate::sources::walked;

/// A test waits at most this long for anything.
pub const PATIENCE: Duration = Duration::from_mins(1);
const MODERN: &str = "2026-07-28";

/// The Python of the clients, and what it reads.
pub fn python() -> (PathBuf, Vec<PathBuf>) {
    let venv = clients().join("python/.venv").canonicalize().expect("run tests/install");
    let python = venv.join("bin/python");
    let real = python.canonicalize().unwrap();
    let prefix = real.parent().and_then(Path::parent).unwrap().to_owned();
    (python, vec![venv, prefix])
}

/// A source that is a program, with a rule for all its tools. `more` are other keys, last those of `paths`.
pub fn local(name: &str, command: &[&str], read: &[PathBuf], more: &str) -> String {
    let read: Vec<_> = read.iter().map(|path| path.to_str().unwrap()).collect();
    let (more, write) = more.split_once(&format!("[sources.{name}.paths]\n")).unwrap_or((more, ""));
    format!(
        "[sources.{name}]\nkind = \"mcp-stdio\"\ncommand = {}\n{more}\n[sources.{name}.paths]\n{write}\nread = {}\n[tools.\"{name}_*\"]\nscope = \"docs.read\"\n",
        json!(command),
        json!(read)
    )
}

/// The server of these tests, which does what its tools are called.
pub fn scripted(name: &str, speaks: &str, more: &str) -> String {
    let (python, mut read) = python();
    let script = clients().join("python/stdio_server.py");
    let command = [python.to_str().unwrap(), script.to_str().unwrap(), speaks];
    read.push(script.clone());
    local(name, &command, &read, more)
}

/// A server with this configuration whose sources have listed their tools, and a token for it.
pub async fn started(toml: &str) -> (TestApp, String) {
    let app = TestApp::start_configured(toml).await;
    let token = crate::sources::token(&app).await;
    walked(&app, "source.changed", toml.matches("kind = \"mcp-stdio\"").count()).await;
    (app, token)
}

/// What a call is answered with: the result, or the error.
pub async fn call(app: &TestApp, token: &str, tool: &str, arguments: Value) -> Value {
    let answer: Value = app.call_tool(token, tool, arguments).await.json().await.unwrap();
    answer.get("result").unwrap_or_else(|| &answer["error"]).clone()
}

/// The text of its answer.
pub async fn text(app: &TestApp, token: &str, tool: &str, arguments: Value) -> String {
    let answer = call(app, token, tool, arguments).await;
    let text = answer["content"][0]["text"].as_str();
    text.unwrap_or_else(|| panic!("no text: {answer}")).to_owned()
}

/// The same from a client of 2026-07-28, whole.
pub async fn modern(app: &TestApp, token: &str, tool: &str, arguments: Value) -> Value {
    let meta = json!({ "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {} });
    let params = json!({ "name": tool, "arguments": arguments, "_meta": meta });
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    let request = app.http.post(app.url("/mcp")).bearer_auth(token).json(&message);
    let request = request.header("accept", "application/json, text/event-stream");
    let request = request.header("mcp-protocol-version", MODERN).header("mcp-method", "tools/call");
    let answer: Value = request.header("mcp-name", tool).send().await.unwrap().json().await.unwrap();
    answer.get("result").unwrap_or_else(|| &answer["error"]).clone()
}

/// How the last call ended, as it is on record.
pub fn ended(app: &TestApp) -> String {
    let record = app.audit().into_iter().rfind(|one| one["event"] == "mcp.result").unwrap();
    record["detail"]["result"].as_str().unwrap().to_owned()
}

/// The records of this event.
pub fn records(app: &TestApp, event: &str) -> Vec<Value> {
    app.audit().into_iter().filter(|one| one["event"] == event).collect()
}

/// Waits until this is so, and says how long that took.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "not so in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    begun.elapsed()
}

/// The processes whose environment or arguments have this text in them, except this one.
pub fn marked(mark: &str) -> Vec<u32> {
    let has = |pid: u32| {
        ["environ", "cmdline"].iter().any(|file| {
            std::fs::read(format!("/proc/{pid}/{file}"))
                .is_ok_and(|text| text.windows(mark.len()).any(|part| part == mark.as_bytes()))
        })
    };
    let all = std::fs::read_dir("/proc").unwrap();
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| *pid != std::process::id() && has(*pid)).collect()
}

/// A mark for the environment of a program: `marked` finds the program, and what it forks.
pub fn mark() -> (String, String) {
    let mark = format!("mark-{}", shared::id::random_128());
    (format!("env = {{ MARK = \"{mark}\" }}"), mark)
}

/// A random number below this.
pub fn chance(most: u64) -> u64 {
    use std::hash::BuildHasher;
    std::hash::RandomState::new().hash_one(()) % most
}

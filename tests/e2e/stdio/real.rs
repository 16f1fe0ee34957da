//! Programs that others wrote: every tool answers through the gate as it does directly (SRC-05, SRC-06, SRC-11).

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::program::{local, modern, python, started};
use crate::process::{clients, node};
use crate::sources::server::{items, member};
use crate::sources::{ask, same_definitions};

/// A program, and what it is started with.
struct Real {
    command: Vec<String>,
    env: BTreeMap<&'static str, String>,
    read: Vec<PathBuf>,
    more: String,
    /// Whether it speaks 2026-07-28.
    is_modern: bool,
}

impl Real {
    fn node(package: &str, arguments: &[&str]) -> Self {
        let node = PathBuf::from(node().get_program()).canonicalize().unwrap();
        let modules = clients().join("node_modules").canonicalize().unwrap();
        let script = modules.join("@modelcontextprotocol").join(package).join("dist/index.js");
        assert!(script.exists(), "{} is not there: run tests/install", script.display());
        let mut command = vec![node.display().to_string(), script.display().to_string()];
        command.extend(arguments.iter().map(|&argument| argument.to_owned()));
        let beside = node.parent().and_then(Path::parent).unwrap().to_owned();
        Self {
            command,
            env: BTreeMap::new(),
            read: vec![modules, beside],
            more: String::new(),
            is_modern: false,
        }
    }

    fn python(module: &str, arguments: &[&str]) -> Self {
        let (python, read) = python();
        let mut command = vec![python.display().to_string(), "-m".to_owned(), module.to_owned()];
        command.extend(arguments.iter().map(|&argument| argument.to_owned()));
        Self { command, env: BTreeMap::new(), read, more: String::new(), is_modern: true }
    }

    fn configured(&self, name: &str) -> String {
        let command: Vec<&str> = self.command.iter().map(String::as_str).collect();
        let env: Vec<_> = self.env.iter().map(|(name, value)| format!("{name} = {}", json!(value))).collect();
        local(name, &command, &self.read, &format!("env = {{ {} }}\n{}", env.join(", "), self.more))
    }

    /// Starts it without the gate, in this directory.
    fn direct(&self, directory: &Path) -> Direct {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).env_clear().envs(&self.env).current_dir(directory);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let is_modern = self.is_modern;
        let mut direct = Direct { child, stdin, stdout: BufReader::new(stdout), last: 0, is_modern };
        if is_modern {
            return direct;
        }
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": { "name": "direct", "version": "1" } });
        direct.ask("initialize", params);
        direct.write(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        direct
    }
}

/// A program without the gate. Killed when dropped.
struct Direct {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    last: u64,
    is_modern: bool,
}

impl Direct {
    fn write(&mut self, message: &Value) {
        writeln!(self.stdin, "{message}").unwrap();
    }

    fn ask(&mut self, method: &str, mut params: Value) -> Box<RawValue> {
        self.last += 1;
        if self.is_modern {
            params["_meta"] = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": { "name": "direct", "version": "1" },
                "io.modelcontextprotocol/clientCapabilities": {} });
        }
        self.write(&json!({ "jsonrpc": "2.0", "id": self.last, "method": method, "params": params }));
        loop {
            let mut line = String::new();
            assert_ne!(self.stdout.read_line(&mut line).unwrap(), 0, "it ended");
            let message: Value = serde_json::from_str(&line).unwrap();
            if message["id"] == self.last && message.get("method").is_none() {
                return member(&line, "result");
            }
        }
    }

    /// The tools that it lists, by name.
    fn tools(&mut self) -> Vec<(String, Box<RawValue>)> {
        let listed = self.ask("tools/list", json!({}));
        let named =
            |tool: Box<RawValue>| (serde_json::from_str(member(tool.get(), "name").get()).unwrap(), tool);
        items(&member(listed.get(), "tools")).into_iter().map(named).collect()
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The members of a result as they were written, but for those of one revision.
fn members(result: &str) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, Box<RawValue>> = serde_json::from_str(result).unwrap();
    all.retain(|name, _| !["resultType", "_meta"].contains(&name.as_str()));
    all.into_iter().map(|(name, value)| (name, value.get().to_owned())).collect()
}

/// Makes these calls directly and through the gate, each time after `prepare`, and compares every answer; every tool that is
/// listed must be among them. What `steady` makes of an answer must be the same.
async fn compare(
    name: &str,
    real: &Real,
    prepare: impl Fn(),
    calls: &[(&str, Value)],
    steady: impl Fn(&str, String) -> String,
) {
    let directory = tempfile::tempdir().unwrap();
    prepare();
    let mut direct = real.direct(directory.path());
    let tools = direct.tools();
    for (tool, _) in &tools {
        assert!(calls.iter().any(|(called, _)| called == tool), "{name}: {tool} is not called");
    }
    let expected: Vec<_> = calls
        .iter()
        .map(|(tool, arguments)| direct.ask("tools/call", json!({ "name": tool, "arguments": arguments })))
        .collect();
    drop(direct);
    prepare();
    let (app, token) = started(&real.configured(name)).await;
    same_definitions(&app, &token, name, &tools).await;
    for ((tool, arguments), expected) in calls.iter().zip(expected) {
        let params = json!({ "name": format!("{name}_{tool}"), "arguments": arguments });
        let passed = ask(&app, &token, "tools/call", params).await;
        let of = |result: &RawValue| -> BTreeMap<String, String> {
            members(result.get()).into_iter().map(|(name, value)| (name, steady(tool, value))).collect()
        };
        assert_eq!(of(&passed), of(&expected), "{name} {tool} {arguments}");
    }
    let (tool, arguments) = &calls[0];
    let era = app.console(&["source", "show", name])["era"].clone();
    assert_eq!(era, if real.is_modern { "2026-07-28" } else { "legacy" });
    let newest = modern(&app, &token, &format!("{name}_{tool}"), arguments.clone()).await;
    assert_eq!(newest["resultType"], "complete", "{newest}");
}

fn same(_: &str, value: String) -> String {
    value
}

/// SRC-05, SRC-06, SRC-11: npm's `@modelcontextprotocol/server-everything`.
#[tokio::test(flavor = "multi_thread")]
async fn server_everything_answers_as_directly() {
    let mut real = Real::node("server-everything", &["stdio"]);
    real.env =
        BTreeMap::from([("PATH", "/usr/bin".to_owned()), ("CI_URL", "http://ci.lab.internal".to_owned())]);
    let data = "data:text/plain;base64,R3LDvMOfIGRpY2g=";
    let calls = [
        ("echo", json!({ "message": "grüß dich 👋 \u{2028}" })),
        ("get-annotated-message", json!({ "messageType": "error", "includeImage": true })),
        ("get-env", json!({})),
        ("get-resource-links", json!({ "count": 3 })),
        ("get-resource-reference", json!({ "resourceType": "Text", "resourceId": 2 })),
        ("get-structured-content", json!({ "location": "Chicago" })),
        ("get-sum", json!({ "a": 2, "b": 40.5 })),
        ("get-sum", json!({ "a": "no number" })),
        ("get-tiny-image", json!({})),
        ("gzip-file-as-resource", json!({ "name": "a.gz", "data": data, "outputType": "resource" })),
        ("trigger-long-running-operation", json!({ "duration": 0.2, "steps": 2 })),
        ("simulate-research-query", json!({ "topic": "gates" })),
        ("toggle-simulated-logging", json!({})),
        ("toggle-subscriber-updates", json!({})),
    ];
    compare(
        "all",
        &real,
        || {},
        &calls,
        |tool, value| match tool {
            // It says the time.
            "get-resource-reference" => {
                value.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect()
            }
            _ => value,
        },
    )
    .await;
}

/// SRC-05, SRC-11: npm's `@modelcontextprotocol/server-filesystem`, in a directory that it may write to.
#[tokio::test(flavor = "multi_thread")]
async fn server_filesystem_answers_as_directly() {
    let root = tempfile::tempdir().unwrap();
    let (work, still) = (root.path().join("work"), root.path().join("still"));
    std::fs::create_dir(&still).unwrap();
    std::fs::write(still.join("info.txt"), "it stays as it is").unwrap();
    let paths = [work.to_str().unwrap(), still.to_str().unwrap()];
    let mut real = Real::node("server-filesystem", &paths);
    real.read.push(still.clone());
    real.more = format!("[sources.files.paths]\nwrite = {}", json!(paths[0]));
    let prepare = || {
        let _ = std::fs::remove_dir_all(&work);
        std::fs::create_dir_all(work.join("inside/deep")).unwrap();
        std::fs::write(work.join("a.txt"), "one\ntwo\nthree\n").unwrap();
        std::fs::write(work.join("inside/b.png"), [137, 80, 78, 71]).unwrap();
        std::fs::write(work.join("inside/deep/c.md"), "# c").unwrap();
    };
    let at = |name: &str| json!(work.join(name));
    let outside = json!("/etc/passwd");
    let calls = [
        ("read_text_file", json!({ "path": at("a.txt"), "head": 2 })),
        ("read_file", json!({ "path": at("a.txt") })),
        ("read_media_file", json!({ "path": at("inside/b.png") })),
        ("read_multiple_files", json!({ "paths": [at("a.txt"), at("none")] })),
        ("write_file", json!({ "path": at("new.txt"), "content": "neu 👋" })),
        ("edit_file", json!({ "path": at("a.txt"), "edits": [{ "oldText": "two", "newText": "2" }] })),
        ("create_directory", json!({ "path": at("made/here") })),
        ("list_directory", json!({ "path": at("") })),
        ("list_directory_with_sizes", json!({ "path": at("inside") })),
        ("directory_tree", json!({ "path": at("") })),
        ("move_file", json!({ "source": at("new.txt"), "destination": at("made/moved.txt") })),
        ("search_files", json!({ "path": at(""), "pattern": "**/*.txt" })),
        ("get_file_info", json!({ "path": still.join("info.txt") })),
        ("list_allowed_directories", json!({})),
        ("read_text_file", json!({ "path": outside })),
    ];
    compare("files", &real, prepare, &calls, same).await;
    assert_eq!(std::fs::read_to_string(work.join("made/moved.txt")).unwrap(), "neu 👋");
}

/// SRC-05, SRC-11: PyPI's `mcp-server-time`.
#[tokio::test(flavor = "multi_thread")]
async fn mcp_server_time_answers_as_directly() {
    let real = Real::python("mcp_server_time", &["--local-timezone", "UTC"]);
    let convert =
        |from: &str| json!({ "source_timezone": from, "time": "12:30", "target_timezone": "Asia/Tokyo" });
    let calls = [
        ("convert_time", convert("UTC")),
        ("convert_time", convert("Nowhere/None")),
        ("get_current_time", json!({ "timezone": "UTC" })),
    ];
    compare(
        "time",
        &real,
        || {},
        &calls,
        |tool, value| match tool {
            "get_current_time" => value.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect(),
            _ => value,
        },
    )
    .await;
}

/// SRC-05, SRC-11: PyPI's `mcp-server-git`, in a repository that it may write to.
#[tokio::test(flavor = "multi_thread")]
async fn mcp_server_git_answers_as_directly() {
    let root = tempfile::tempdir().unwrap();
    let repository = root.path().join("repository");
    let path = repository.to_str().unwrap().to_owned();
    let mut real = Real::python("mcp_server_git", &["--repository", &path]);
    for who in ["AUTHOR", "COMMITTER"] {
        let name: &'static str = if who == "AUTHOR" { "GIT_AUTHOR_DATE" } else { "GIT_COMMITTER_DATE" };
        real.env.insert(name, "2026-11-30T12:00:00Z".to_owned());
    }
    real.env.insert("PATH", "/usr/local/bin:/usr/bin:/bin".to_owned());
    real.env.insert("GIT_CONFIG_GLOBAL", "/dev/null".to_owned());
    real.more = format!("[sources.git.paths]\nwrite = {}", json!(path));
    let prepare = || {
        let _ = std::fs::remove_dir_all(&repository);
        std::fs::create_dir(&repository).unwrap();
        let git = |arguments: &[&str]| {
            let mut command = Command::new("git");
            command.args(arguments).current_dir(&repository).env("GIT_CONFIG_GLOBAL", "/dev/null");
            for name in ["GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"] {
                command.env(name, "2026-11-29T12:00:00Z");
            }
            assert!(command.output().unwrap().status.success(), "{arguments:?}");
        };
        git(&["init", "-b", "main"]);
        git(&["config", "user.name", "Ada"]);
        git(&["config", "user.email", "ada@lab.internal"]);
        std::fs::write(repository.join("a.txt"), "one\n").unwrap();
        git(&["add", "."]);
        git(&["commit", "-m", "the first"]);
        std::fs::write(repository.join("a.txt"), "one\ntwo\n").unwrap();
    };
    let with = |more: Value| {
        let mut arguments = json!({ "repo_path": path });
        arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        arguments
    };
    let calls = [
        ("git_status", with(json!({}))),
        ("git_diff_unstaged", with(json!({}))),
        ("git_add", with(json!({ "files": ["a.txt"] }))),
        ("git_diff_staged", with(json!({}))),
        ("git_reset", with(json!({}))),
        ("git_add", with(json!({ "files": ["a.txt"] }))),
        ("git_commit", with(json!({ "message": "the second" }))),
        ("git_log", with(json!({ "max_count": 5 }))),
        ("git_create_branch", with(json!({ "branch_name": "other" }))),
        ("git_checkout", with(json!({ "branch_name": "other" }))),
        ("git_diff", with(json!({ "target": "main" }))),
        ("git_show", with(json!({ "revision": "HEAD" }))),
        ("git_branch", with(json!({ "branch_type": "local" }))),
        ("git_status", json!({ "repo_path": "/etc" })),
    ];
    compare("git", &real, prepare, &calls, same).await;
}

//! Credentials for sources: secrets in the sealed store, the administrator's and each user's own (SRC-10).

mod own;
mod story;

use std::io::Write;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::TestApp;
use crate::process::{complaint, program_on};
use crate::sources::hostile::HostileServer;
use crate::sources::token;

/// Runs `portcullis secret …` with this standard input.
pub fn secret(app: &TestApp, arguments: &[&str], input: &str) -> Output {
    let mut command = program_on(&app.data_dir());
    let config = app.data_dir().with_file_name("portcullis.toml");
    command.arg("--config").arg(config).arg("secret").args(arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", complaint(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn source(name: &str, server: &HostileServer, shown: &str) -> String {
    format!("[sources.{name}]\nkind = \"mcp-http\"\nurl = \"{}\"\n{shown}\n", server.url)
}

/// Waits until the tools of a source are there.
async fn offered(app: &TestApp, source: &str) {
    let begun = Instant::now();
    while app.console(&["source", "show", source])["tools"] == 0 {
        assert!(begun.elapsed() < Duration::from_mins(1), "{source} was not walked");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The result of a tool call: whether it is an error, and the text.
async fn said(app: &TestApp, token: &str, tool: &str) -> (bool, String) {
    let response = app.call_tool(token, tool, json!({})).await;
    assert_eq!(response.status(), 200, "what a server wants is no reason for a 401 of ours");
    let answer: Value = response.json().await.unwrap();
    let text = answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"));
    (answer["result"]["isError"] == true, text.to_owned())
}

/// This header of the last call that arrived.
fn shown(server: &HostileServer, header: &str) -> Option<String> {
    server.calls().last()?.0.get(header).map(|value| value.to_str().unwrap().to_owned())
}

const RULES: &str = "[tools.\"*_greet\"]\nscope = \"docs.read\"\n";

/// SRC-10, SRC-07: a secret of the sealed store is sent as configured; a new value is used from the next
/// request on, and a deleted one is not sent. If it is missing, the caller is told which command the
/// administrator needs.
#[tokio::test(flavor = "multi_thread")]
async fn a_named_secret_counts_from_the_next_request() {
    let (ci, wiki) = (HostileServer::start().await, HostileServer::start().await);
    let toml = format!(
        "{}{}{RULES}",
        source("ci", &ci, "bearer = \"secret:ci\"\nheaders = { X-Team = \"secret:team.name\" }"),
        source("wiki", &wiki, "authorization = \"secret:wiki\""),
    );
    let app = TestApp::start_configured(&toml).await;
    let token = token(&app).await;
    for (name, value) in [("ci", "ci-one\n"), ("team.name", "platform"), ("wiki", "Basic d2lraTp3aWtp")] {
        let output = done(&secret(&app, &["set", name], value));
        assert!(
            output.contains("set. It is used from the next request on.") && !output.contains(value.trim())
        );
    }
    app.console(&["source", "restart", "ci"]);
    app.console(&["source", "restart", "wiki"]);
    assert_eq!(said(&app, &token, "ci_greet").await, (false, "hello".to_owned()));
    assert_eq!(shown(&ci, "authorization").as_deref(), Some("Bearer ci-one"));
    assert_eq!(shown(&ci, "x-team").as_deref(), Some("platform"));
    said(&app, &token, "wiki_greet").await;
    assert_eq!(shown(&wiki, "authorization").as_deref(), Some("Basic d2lraTp3aWtp"));

    assert!(done(&secret(&app, &["set", "ci"], "ci-two")).contains("The secret `ci` replaced."));
    said(&app, &token, "ci_greet").await;
    assert_eq!(shown(&ci, "authorization").as_deref(), Some("Bearer ci-two"));
    let listed: Value = serde_json::from_str(&done(&secret(&app, &["list", "--json"], ""))).unwrap();
    let names: Vec<_> = listed["secrets"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(
        (names, &listed["missing"]),
        (vec![&json!("ci"), &json!("team.name"), &json!("wiki")], &json!([]))
    );
    assert_eq!(listed["secrets"][0]["used_by"], json!(["ci"]));

    // Deleting asks for confirmation; without a terminal nothing is done.
    let asked = secret(&app, &["remove", "ci"], "");
    assert!(complaint(&asked).contains("no call will reach: ci") && complaint(&asked).contains("use --yes"));
    assert_eq!(said(&app, &token, "ci_greet").await, (false, "hello".to_owned()));
    let removed: Value =
        serde_json::from_str(&done(&secret(&app, &["remove", "ci", "--yes", "--json"], ""))).unwrap();
    assert_eq!(removed, json!({ "name": "ci", "user": null }));
    let calls = ci.calls().len();
    let (is_error, text) = said(&app, &token, "ci_greet").await;
    assert!(is_error && text.contains("must set its secret with `portcullis secret set ci`"), "{text}");
    assert!(text.ends_with("Nothing was done.") && ci.calls().len() == calls);
    assert!(
        done(&secret(&app, &["list"], ""))
            .contains("The configuration names the secret `ci`, which does not exist.")
    );
    assert!(complaint(&secret(&app, &["remove", "ci", "--yes"], "")).contains("there is no secret `ci`"));

    let records: Vec<Value> = app.audit().into_iter().filter(|one| one["event"] == "secret.set").collect();
    let replaced: Vec<_> = records.iter().map(|one| &one["detail"]["replaced"]).collect();
    assert_eq!(replaced, [false, false, false, true]);
    assert_eq!(
        (&records[0]["actor"]["type"], &records[0]["detail"]["name"]),
        (&json!("console"), &json!("ci"))
    );
    assert!(app.has_event("secret.removed", None));
}

/// SRC-10: a value that a header cannot carry is refused before it is stored, and is not repeated.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_cannot_be_sent_is_refused() {
    let app = TestApp::start().await;
    app.admin().await;
    for (arguments, input, says) in [
        (&["set", "a"][..], "", "there is no value"),
        (&["set", "a"], "canary\nX-Evil: 1", "line break"),
        (&["set", "a"], "canäry", "visible ASCII"),
        (&["set", "a"], &"canary".repeat(1000), "longer than 4096"),
        (&["set", "A b"], "canary", "a secret cannot be called `A b`"),
        (&["set", "jira", "--user", "ada"], "canary", "the servers that take one: none"),
        (&["set", "jira", "--user", "nobody"], "canary", "the servers that take one: none"),
        (&["remove", "jira", "--user", "ada", "--yes"], "", "ada has no secret for `jira`"),
        (&["list", "--user", "nobody"], "", "no user `nobody`"),
        (&["set", "a", "canary"], "", "unexpected argument"),
    ] {
        let output = secret(&app, arguments, input);
        let said = complaint(&output);
        assert!(!output.status.success() && said.contains(says), "{arguments:?}: {said}");
        assert!(!said.contains("canary") || says == "unexpected argument", "{said}");
    }
    assert!(done(&secret(&app, &["list"], "")).contains("No secret is kept yet."));
}

/// SRC-10: without a server the command does it itself; a gateway alone has no store, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_kept_while_no_server_runs() {
    let ci = HostileServer::start().await;
    let app =
        TestApp::start_configured(&format!("{}{RULES}", source("ci", &ci, "bearer = \"secret:ci\""))).await;
    let token = token(&app).await;
    let data = app.data_dir();
    let stopped = app.stop().await;
    let mut command = program_on(&data);
    command.args(["secret", "set", "ci", "--json"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"while-down").unwrap();
    assert!(child.wait().unwrap().success());
    let app = stopped.start().await;
    offered(&app, "ci").await;
    said(&app, &token, "ci_greet").await;
    assert_eq!(shown(&ci, "authorization").as_deref(), Some("Bearer while-down"));

    let alone = tempfile::tempdir().unwrap();
    let config = alone.path().join("portcullis.toml");
    let remote = "[remote]\nclient_id = \"rs_1\"\nsecret_file = \"secret\"\n";
    let toml = source("ci", &ci, "bearer = \"secret:ci\"");
    std::fs::write(&config, format!("{toml}{remote}")).unwrap();
    std::fs::write(alone.path().join("secret"), "s").unwrap();
    std::fs::set_permissions(
        alone.path().join("secret"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    let mut command = program_on(&alone.path().join("data"));
    command.arg("--config").arg(&config).args(["serve", "--only", "resource", "--listen", "localhost:0"]);
    command.args(["--issuer", "http://localhost:9"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > Duration::from_secs(30) {
            child.kill().unwrap();
            panic!("the gateway serves");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let output = child.wait_with_output().unwrap();
    let said = complaint(&output);
    assert!(
        said.contains("[sources.ci] has a secret in the sealed store, and a gateway alone has none"),
        "{said}"
    );
}

/// STORE-06, SRC-10: a restored copy brings back no secret that was removed since, and of one that was replaced the newer
/// value. Where it is not known what was lost since, it brings back none.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_copy_revives_no_secret() {
    let ci = HostileServer::start().await;
    let app =
        TestApp::start_configured(&format!("{}{RULES}", source("ci", &ci, "bearer = \"secret:ci\""))).await;
    app.admin().await;
    done(&secret(&app, &["set", "ci"], "before"));
    done(&secret(&app, &["set", "gone"], "before"));
    let copy = app.data_dir().with_file_name("copy.db").display().to_string();
    app.console(&["backup", &copy]);
    done(&secret(&app, &["set", "ci"], "after"));
    done(&secret(&app, &["remove", "gone", "--yes"], ""));
    let names = |app: &TestApp| -> Vec<Value> {
        let listed = app.console(&["secret", "list"]);
        listed["secrets"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect()
    };
    let restore = |data: &std::path::Path, more: &[&str]| {
        let mut command = program_on(data);
        let output = command.args(["restore", &copy, "--yes"]).args(more).output().unwrap();
        assert!(output.status.success(), "{}", complaint(&output));
    };
    let stopped = app.stop().await;
    restore(&stopped.data_dir(), &[]);
    let app = stopped.start().await;
    assert_eq!(names(&app), ["ci"]);
    app.console(&["source", "restart", "ci"]);
    let (headers, _) = ci.arrived().pop().unwrap();
    assert_eq!(headers["authorization"], "Bearer after");

    let stopped = app.stop().await;
    for name in ["portcullis.db", "portcullis.db-wal", "portcullis.db-shm"] {
        let _ = std::fs::remove_file(stopped.data_dir().join(name));
    }
    restore(&stopped.data_dir(), &["--admin", "ada"]);
    let app = stopped.start().await;
    assert!(names(&app).is_empty());
}

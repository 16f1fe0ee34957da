//! The whole life of a secret, with a server that logs everything: it appears only at the source that it is for
//! (SRC-10, HTTP-12, AUDIT-05).

use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;

use super::{RULES, offered, said, secret, shown, source};
use crate::harness::{Browser, TestApp};
use crate::process::{Process, complaint, program, program_on};
use crate::sources::hostile::{CallBehaviour, HostileServer};

/// Every secret here begins with this.
const CANARY: &str = "canary-7f3a91";

fn files(dir: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.metadata().unwrap() {
            metadata if metadata.is_dir() => all.extend(files(&path)),
            metadata if metadata.is_file() => all.extend(std::fs::read(&path).unwrap()),
            _ => {}
        }
    }
    all
}

/// A server that logs everything, and all outputs.
struct Story {
    process: Process,
    app: TestApp,
    dir: Arc<tempfile::TempDir>,
    jira: HostileServer,
    ci: HostileServer,
    ada: Browser,
    token: String,
    /// The answers to callers and browsers.
    answers: String,
    /// The output of commands.
    printed: String,
}

impl Story {
    async fn begin() -> Self {
        let (jira, ci) = (HostileServer::start().await, HostileServer::start().await);
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let config = dir.path().join("portcullis.toml");
        let toml = format!(
            "[rate]\nmcp = \"off\"\n{}{}{RULES}",
            source("jira", &jira, "headers = { X-Key = \"user\" }\nlists_with = \"secret:reader\""),
            source("ci", &ci, "bearer = \"secret:ci\"\nidentity = \"jwt\"\ntimeout = \"1s\""),
        );
        std::fs::write(&config, &toml).unwrap();
        let mut command = program();
        command.args(["serve", "--json", "--listen", "localhost:0", "--config"]).arg(&config);
        command.arg("--data-dir").arg(dir.path().join("data")).env("PORTCULLIS_LOG", "trace");
        let process = Process::spawn(command);
        let app = TestApp::beside(&process, Arc::clone(&dir));
        let (mut ada, client) = (app.admin().await, app.client().await);
        let token = app.tokens(&mut ada, &client).await.access;
        // On loopback the decision ended the session.
        assert_eq!(ada.sign_in(&app, None).await.status(), StatusCode::OK);
        let (answers, printed) = (String::new(), String::new());
        Self { process, app, dir, jira, ci, ada, token, answers, printed }
    }

    fn heard(&mut self, output: &Output) {
        self.printed += &String::from_utf8_lossy(&output.stdout);
        self.printed += &String::from_utf8_lossy(&output.stderr);
    }

    /// `portcullis secret …`
    fn secret(&mut self, arguments: &[&str], input: &str) {
        let output = secret(&self.app, arguments, input);
        assert!(output.status.success(), "{arguments:?}: {}", complaint(&output));
        self.heard(&output);
    }

    /// Any other command.
    fn run(&mut self, arguments: &[&str]) {
        let mut command = program_on(&self.app.data_dir());
        command.arg("--config").arg(self.dir.path().join("portcullis.toml")).args(arguments);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", complaint(&output));
        self.heard(&output);
    }

    async fn call(&mut self) {
        for tool in ["jira_greet", "ci_greet"] {
            self.answers += &said(&self.app, &self.token, tool).await.1;
        }
    }

    /// Calls of sources that refuse the credential, or misbehave in other ways.
    async fn mishaps(&mut self) {
        for does in [
            CallBehaviour::Answer,
            CallBehaviour::Unauthorized,
            CallBehaviour::Redirect,
            CallBehaviour::Garbage,
            CallBehaviour::BreakOff,
            CallBehaviour::Down,
            CallBehaviour::Answer,
        ] {
            self.jira.will(does);
            self.ci.will(does);
            self.call().await;
        }
        self.ci.will(CallBehaviour::Hang);
        self.call().await;
        self.ci.will(CallBehaviour::Answer);
        // What is wrong with one is said without it.
        let value = format!("{CANARY}\u{e9}");
        let unfit = [("csrf", "x"), ("action", "set_secret"), ("source", "jira"), ("secret", &value)];
        let page = self.ada.post_form(&self.app, "/account/change", &unfit).await;
        self.answers += &page.text().await.unwrap();
        let refused = secret(&self.app, &["set", "ci"], &format!("{CANARY}\nx"));
        assert!(!refused.status.success());
        self.heard(&refused);
    }

    /// The whole log.
    async fn log(&self) -> String {
        self.app.get("/the-end").await;
        loop {
            let log = self.process.log();
            if log.contains("/the-end") && log.ends_with('\n') {
                return log;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The requests that arrived at a server, as text.
fn arrived(server: &HostileServer) -> String {
    format!("{:?}", server.arrived())
}

/// SRC-10: a secret is set, used, refused, replaced, deleted and backed up, by a user and by an administrator.
/// It does not appear in the log at its most detailed level, in the audit log, in an answer, in a command's
/// output, or in a file.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_leaves_no_trace() {
    let mut story = Story::begin().await;
    story.secret(&["set", "ci"], &format!("{CANARY}-ci"));
    story.secret(&["set", "reader"], &format!("{CANARY}-reader"));
    for name in ["jira", "ci"] {
        story.run(&["source", "restart", name]);
        offered(&story.app, name).await;
    }
    let own = format!("{CANARY}-own");
    let give = [("action", "set_secret"), ("source", "jira"), ("secret", own.as_str())];
    assert_eq!(story.ada.change(&story.app, &give).await.status(), StatusCode::SEE_OTHER);
    story.mishaps().await;
    story.secret(&["set", "ci"], &format!("{CANARY}-ci-two"));
    story.secret(&["set", "jira", "--user", "ada"], &format!("{CANARY}-own-two"));
    story.call().await;
    story.answers += &story.ada.account(&story.app).await;
    let backup = story.dir.path().join("copy.db").display().to_string();
    for arguments in [
        &["secret", "list"][..],
        &["source", "list"],
        &["source", "show", "jira"],
        &["source", "test", "ci"],
        &["source", "log", "ci"],
        &["audit", "tail", "-n", "1000"],
        &["backup", &backup],
        &["key", "reseal", "--yes"],
        &["reload"],
    ] {
        story.run(arguments);
    }
    // They still exist after a reseal.
    story.call().await;
    // Each one arrived at its own source only.
    let sent = |server: &HostileServer, header: &str| shown(server, header).unwrap();
    assert_eq!(sent(&story.jira, "x-key"), format!("{CANARY}-own-two"));
    assert_eq!(sent(&story.ci, "authorization"), format!("Bearer {CANARY}-ci-two"));
    assert!(!arrived(&story.jira).contains(&format!("{CANARY}-ci")));
    assert!(!arrived(&story.ci).contains(&format!("{CANARY}-own")));
    assert!(shown(&story.ci, "portcullis-identity").is_some());
    story.secret(&["remove", "ci", "--yes"], "");
    story.secret(&["remove", "jira", "--user", "ada", "--yes"], "");

    let (log, audit) = (story.log().await, json!(story.app.audit()).to_string());
    assert!(log.contains("\"level\":\"TRACE\"") || log.contains("\"level\":\"DEBUG\""));
    let Story { answers, printed, .. } = &story;
    for (what, text) in [("log", &log), ("audit", &audit), ("answer", answers), ("output", printed)] {
        let at = text.find(CANARY);
        assert!(at.is_none(), "in the {what}: {:?}", at.map(|at| &text[at.saturating_sub(200)..at + 60]));
    }
    let all = files(story.dir.path());
    assert!(!all.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()), "in a file");
}

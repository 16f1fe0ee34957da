//! Sources are added, removed and changed while the server runs (POL-04).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::write;
use crate::clients::refused;
use crate::harness::TestApp;
use crate::process::program_on;
use crate::sources::hostile::{CallBehaviour, HostileServer};
use crate::sources::token;

const RULES: &str = "[tools.\"one_*\"]\nscope = \"docs.read\"\n[tools.\"two_*\"]\nscope = \"docs.read\"\n";

fn source(name: &str, server: &HostileServer, more: &str) -> String {
    format!("[sources.{name}]\nkind = \"mcp-http\"\nurl = \"{}\"\n{more}\n", server.url)
}

/// The text of a tool call's result or error.
async fn said(app: &TestApp, token: &str, tool: &str) -> String {
    let answer: Value = app.call_tool(token, tool, json!({})).await.json().await.unwrap();
    let result = &answer["result"]["content"][0]["text"];
    result.as_str().unwrap_or_else(|| answer["error"]["message"].as_str().unwrap()).to_owned()
}

/// Waits until the tools of a source are there.
async fn offered(app: &TestApp, source: &str) {
    let begun = Instant::now();
    while app.console(&["source", "show", source])["tools"] == 0 {
        assert!(begun.elapsed() < Duration::from_mins(1), "{source} was not walked");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn reload(app: &TestApp, toml: &str) -> Value {
    write(app, toml);
    app.console(&["reload"])["changed"].clone()
}

/// POL-04, SRC-02: a source is added, moved and removed without a restart, and each change applies to the next
/// request. Its items go with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_comes_and_goes_without_a_restart() {
    let (one, two, other) =
        (HostileServer::start().await, HostileServer::start().await, HostileServer::start().await);
    let app = TestApp::start_configured(&format!("{}{RULES}", source("one", &one, ""))).await;
    let token = token(&app).await;
    offered(&app, "one").await;
    assert_eq!(said(&app, &token, "one_greet").await, "hello");
    let begun = format!("{}{RULES}", source("one", &one, ""));
    reload(&app, &begun);
    // A second one; the first keeps running in the same process.
    let both = format!("{begun}{}", source("two", &two, ""));
    assert_eq!(reload(&app, &both), json!(["sources"]));
    offered(&app, "two").await;
    assert_eq!(said(&app, &token, "two_greet").await, "hello");
    let walks = |server: &HostileServer| {
        let arrived = server.arrived();
        arrived.iter().filter(|(_, message)| message["method"] == "server/discover").count()
    };
    assert_eq!(walks(&one), 1, "it was not begun anew");
    // Its address changes: the items of the new server apply.
    let calls = two.calls().len();
    reload(&app, &format!("{begun}{}", source("two", &other, "")));
    offered(&app, "two").await;
    assert_eq!(said(&app, &token, "two_greet").await, "hello");
    assert_eq!((two.calls().len(), other.calls().len()), (calls, 1));
    // It is removed: the next request says so, and does not reach it.
    assert_eq!(reload(&app, &begun), json!(["sources"]));
    assert_eq!(said(&app, &token, "two_greet").await, "Unknown tool: two_greet");
    assert_eq!(other.calls().len(), 1);
    assert_eq!(app.console(&["source", "list"])["sources"].as_array().unwrap().len(), 1);
    let events: Vec<_> = app.events().into_iter().map(|(name, _)| name).collect();
    let count = |name: &str| events.iter().filter(|event| *event == name).count();
    assert_eq!([count("source.added"), count("source.removed"), count("source.stale")], [3, 2, 0]);
}

/// POL-04, SRC-09: a call that was sent before its source was removed ends normally, with one record of its
/// end.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_call_outlives_its_server() {
    let one = HostileServer::start().await;
    let app = Arc::new(TestApp::start_configured(&format!("{}{RULES}", source("one", &one, ""))).await);
    let token = token(&app).await;
    offered(&app, "one").await;
    write(&app, &format!("{}{RULES}", source("one", &one, "")));
    app.console(&["reload"]);
    one.will(CallBehaviour::Late);
    let running = {
        let (app, token) = (Arc::clone(&app), token.clone());
        tokio::spawn(async move { said(&app, &token, "one_greet").await })
    };
    while one.calls().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    reload(&app, RULES);
    assert!(!running.is_finished());
    assert_eq!(said(&app, &token, "one_greet").await, "Unknown tool: one_greet");
    assert_eq!(running.await.unwrap(), "hello");
    let ended: Vec<Value> = app.audit().into_iter().filter(|one| one["event"] == "mcp.result").collect();
    assert_eq!((ended.len(), &ended[0]["detail"]["result"]), (1, &json!("ok")));
    assert_eq!(one.calls().len(), 1);
}

/// POL-04: while two hundred callers use one source, others are added and removed and its own settings change.
/// No call fails; a removed source is refused on the next request.
#[tokio::test(flavor = "multi_thread")]
async fn servers_change_under_load_and_no_call_fails() {
    let (one, two) = (HostileServer::start().await, HostileServer::start().await);
    let app =
        TestApp::start_configured(&format!("[rate]\nmcp = \"off\"\n{}{RULES}", source("one", &one, "")))
            .await;
    let token = token(&app).await;
    offered(&app, "one").await;
    let app = Arc::new(app);
    let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let calling: Vec<_> = (0..200)
        .map(|_| {
            let (app, token, stop, made) =
                (Arc::clone(&app), token.clone(), Arc::clone(&stop), Arc::clone(&made));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(said(&app, &token, "one_greet").await, "hello");
                    made.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let begun = Instant::now();
    for round in 1..6 {
        let timeout = format!("timeout = \"{}s\"", 30 + round);
        let alone = format!("{}{RULES}", source("one", &one, &timeout));
        reload(&app, &format!("{}{alone}", source("two", &two, "")));
        offered(&app, "two").await;
        assert_eq!(said(&app, &token, "two_greet").await, "hello", "{round}");
        reload(&app, &alone);
        assert_eq!(said(&app, &token, "two_greet").await, "Unknown tool: two_greet", "{round}");
        let before = made.load(Ordering::Relaxed);
        while made.load(Ordering::Relaxed) < before + 200 {
            assert!(calling.iter().all(|calling| !calling.is_finished()), "a call failed");
            tokio::task::yield_now().await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for calling in calling {
        calling.await.unwrap();
    }
    // For the reader of the output.
    eprintln!("{} calls in {} ms", made.load(Ordering::Relaxed), begun.elapsed().as_millis());
}

/// POL-04: a file with unusable sources changes nothing; the message says where, what, and what to write.
#[tokio::test(flavor = "multi_thread")]
async fn servers_that_cannot_be_used_change_nothing() {
    let one = HostileServer::start().await;
    let good = format!("{}{RULES}", source("one", &one, ""));
    let app = TestApp::start_configured(&good).await;
    let token = token(&app).await;
    offered(&app, "one").await;
    write(&app, &good);
    app.console(&["reload"]);
    let file = app.data_dir().with_file_name("portcullis.toml");
    let before = app.console(&["source", "show", "one"])["id"].clone();
    for (bad, says) in [
        (
            "[sources.two]\nurl = \"http://127.0.0.1:9/mcp\"",
            "portcullis.toml:14 has no `kind`; write kind = ",
        ),
        (
            "[sources.two]\nkind = \"mcp-http\"\nurl = \"ftp://x\"",
            "portcullis.toml:16 is `ftp://x`, which is neither http nor https",
        ),
        (
            "[sources.two]\nkind = \"mcp-http\"\nurl = \"https://x/mcp\"\nca = \"gone.pem\"",
            "gone.pem: No such file",
        ),
        (
            "[sources.two]\nkind = \"mcp-http\"\nurl = \"https://x/mcp\"\nauthorization = \"file:gone\"",
            "portcullis.toml:14: a secret cannot be used: cannot read the secret in",
        ),
        (
            "[tools.\"?ne_greet\"]\nscope = \"docs.read\"\n[tools.\"o?e_greet\"]\nscope = \"docs.read\"",
            "neither is more specific",
        ),
    ] {
        // Valid parts of the file are not applied either: the working source would be removed.
        let rest = if bad.starts_with("[tools") { good.clone() } else { RULES.to_owned() };
        let rest = if bad.starts_with("[tools") {
            rest.replace("[tools.\"one_*\"]\nscope = \"docs.read\"\n", "")
        } else {
            format!("{rest}\n\n\n")
        };
        write(&app, &format!("{rest}{bad}\n"));
        let complaint = refused(&app, &["reload"]);
        assert!(complaint.contains(says), "{bad}: {complaint}");
        assert_eq!(said(&app, &token, "one_greet").await, "hello", "{bad}");
        assert_eq!(app.console(&["source", "show", "one"])["id"], before, "{bad}");
    }
    assert!(file.exists() && !app.events().iter().any(|(name, _)| name == "source.removed"));
}

/// POL-04: a reload reads a secret's file again, and the next request uses it.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_reads_a_secret_again() {
    use std::os::unix::fs::PermissionsExt;
    let one = HostileServer::start().await;
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    let keep = |value: &str| {
        std::fs::write(&secret, value).unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    keep("Bearer first");
    let toml =
        format!("{}{RULES}", source("one", &one, &format!("authorization = \"file:{}\"", secret.display())));
    let app = TestApp::start_configured(&toml).await;
    let token = token(&app).await;
    offered(&app, "one").await;
    write(&app, &toml);
    app.console(&["reload"]);
    let sent = async || {
        said(&app, &token, "one_greet").await;
        one.calls().last().unwrap().0["authorization"].to_str().unwrap().to_owned()
    };
    assert_eq!(sent().await, "Bearer first");
    keep("Bearer second");
    assert_eq!(sent().await, "Bearer first", "read at start, and at a reload");
    assert_eq!(app.console(&["reload"])["changed"], json!(["sources"]));
    assert_eq!(sent().await, "Bearer second");
    let mut command = program_on(&app.data_dir());
    let listed = command.args(["source", "list"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&listed.stdout).contains("second"));
}

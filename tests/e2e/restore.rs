//! Backups of the database, and restoring one (STORE-06).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Browser, Client, TestApp, Tokens};
use crate::process::{complaint, portcullis, program_on};

async fn works(app: &TestApp, tokens: &Tokens) -> bool {
    app.call_tool(&tokens.access, "whoami", json!({})).await.status() == 200
}

async fn lives(app: &TestApp, client: &Client, tokens: &Tokens) -> bool {
    works(app, tokens).await || app.refresh(client, &tokens.refresh).await.status() == 200
}

fn run(data: &Path, arguments: &[&str]) -> Output {
    portcullis(&[arguments, &["--data-dir", data.to_str().unwrap()]].concat())
}

fn refused(data: &Path, arguments: &[&str]) -> String {
    let output = run(data, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    complaint(&output)
}

fn done(data: &Path, arguments: &[&str]) -> Value {
    let output = run(data, &[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", complaint(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn users(app: &TestApp) -> Vec<(String, bool)> {
    let users = app.console(&["user", "list"])["users"].clone();
    let mut users: Vec<_> = users
        .as_array()
        .unwrap()
        .iter()
        .map(|user| (user["name"].as_str().unwrap().to_owned(), user["disabled"] == true))
        .collect();
    users.sort();
    users
}

struct Site {
    app: TestApp,
    ada: Browser,
    client: Client,
    copy: String,
    /// Ada's, Bob's, and one revoked after the backup.
    tokens: [Tokens; 3],
    link: String,
}

/// A server with a backup made while it ran; afterwards access was revoked, and some was added.
async fn site() -> Site {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let mut bob = app.enrol("bob", &[]).await;
    let (client, other) = (app.client().await, app.client().await);
    let tokens = [
        app.tokens(&mut ada, &client).await,
        app.tokens(&mut bob, &client).await,
        app.tokens(&mut ada, &other).await,
    ];
    app.console(&["user", "add", "dora"]);
    let link = app.console(&["user", "link", "dora"])["link"].as_str().unwrap().to_owned();
    let copy = app.data_dir().parent().unwrap().join("copy.db").to_str().unwrap().to_owned();
    app.console(&["backup", &copy]);
    let grant = tokens[2].claims()["grant_id"].as_str().unwrap().to_owned();
    app.console(&["grant", "revoke", &grant]);
    app.console(&["user", "disable", "bob"]);
    app.console(&["client", "delete", &other.id, "--yes"]);
    app.console(&["user", "add", "cleo"]);
    Site { app, ada, client, copy, tokens, link }
}

/// STORE-06: a restored backup has the users with their passkeys, but no issued tokens, and disabled users stay
/// disabled.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_copy_revives_nothing() {
    let Site { app, mut ada, client, copy, tokens, link } = site().await;
    assert!(refused(&app.data_dir(), &["restore", &copy, "--yes"]).contains("in use by another portcullis"));
    let stopped = app.stop().await;
    let data = stopped.data_dir();
    assert!(refused(&data, &["restore", &copy]).contains("nothing was done"));
    let seal = data.join("seal.key");
    let said = refused(&data, &["restore", seal.to_str().unwrap(), "--yes"]);
    assert!(
        said.contains("seal.key is not a copy that the backup command made. Nothing was changed"),
        "{said}"
    );
    let restored = done(&data, &["restore", &copy, "--yes"]);
    assert_eq!((&restored["epoch"], &restored["complete"]), (&json!(1), &json!(true)));
    let app = stopped.start().await;
    app.clock.advance(Duration::from_secs(2));
    for tokens in &tokens {
        assert!(!lives(&app, &client, tokens).await);
    }
    assert_eq!(users(&app), [("ada".into(), false), ("bob".into(), true), ("dora".into(), false)]);
    assert_ne!(Browser::new().follow_link(&app, &link).await.status(), 200);
    let fresh = app.tokens(&mut ada, &client).await;
    assert!(works(&app, &fresh).await);
    let restored = app.audit().into_iter().find(|record| record["event"] == "backup.restored").unwrap();
    assert_eq!(restored["detail"]["epoch"], 1);
    assert!(app.has_event("backup.created", None) && app.has_event("user.disabled", None));
    done(&app.data_dir(), &["audit", "verify"]);
    // It stays so after a restart.
    let app = app.restart().await;
    assert!(works(&app, &fresh).await);
    assert!(!lives(&app, &client, &tokens[0]).await);
}

/// STORE-06: if the latest database is lost, it is unknown who was disabled: one administrator signs in and
/// enables the others.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_last_database_one_administrator_signs_in() {
    let Site { app, mut ada, client, copy, tokens, .. } = site().await;
    let stopped = app.stop().await;
    let data = stopped.data_dir();
    fs::remove_file(data.join("portcullis.db")).unwrap();
    let line = refused(&data, &["restore", &copy, "--yes"]);
    assert!(line.contains("--admin") && line.contains("ada"), "{line}");
    assert!(refused(&data, &["restore", &copy, "--yes", "--admin", "bob"]).contains("not an administrator"));
    assert!(!data.join("portcullis.db").exists());
    done(&data, &["restore", &copy, "--yes", "--admin", "ada"]);
    let app = stopped.start().await;
    app.clock.advance(Duration::from_secs(2));
    assert_eq!(users(&app), [("ada".into(), false), ("bob".into(), true), ("dora".into(), true)]);
    for tokens in &tokens {
        assert!(!lives(&app, &client, tokens).await);
    }
    assert_eq!(ada.sign_in(&app, None).await.status(), 200);
    app.console(&["client", "enable", &client.id]);
    let fresh = app.tokens(&mut ada, &client).await;
    assert!(works(&app, &fresh).await);
    done(&app.data_dir(), &["audit", "verify"]);
}

/// STORE-06: a backup is made with and without a server, is private, overwrites nothing, and is recorded.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_private_and_on_record() {
    let app = TestApp::start().await;
    app.admin().await;
    let folder = app.data_dir().parent().unwrap().to_owned();
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let made = app.console(&["backup", &file("one.db")]);
    let recorded = app.audit().into_iter().find(|record| record["event"] == "backup.created").unwrap();
    assert_eq!(
        (&recorded["detail"]["file"], &recorded["detail"]["seq"]),
        (&json!("one.db"), &made["records"])
    );
    assert_eq!(fs::metadata(file("one.db")).unwrap().permissions().mode() & 0o777, 0o600);
    let before = app.audit().len();
    for to in [file("one.db"), file("no/such.db")] {
        refused(&app.data_dir(), &["backup", &to]);
    }
    assert_eq!(app.audit().len(), before);
    let stopped = app.stop().await;
    done(&stopped.data_dir(), &["backup", &file("two.db")]);
    // An older database in place of the latest one is not backed up.
    fs::write(stopped.data_dir().join("portcullis.db"), fs::read(file("one.db")).unwrap()).unwrap();
    assert!(refused(&stopped.data_dir(), &["backup", &file("three.db")]).contains("is older than"));
    let mut left: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains(".db"))
        .collect();
    left.sort();
    assert_eq!(left, ["one.db", "two.db"]);
}

/// STORE-06, OPS-07: after `kill -9` at twenty moments of a restore, the server starts as before or as
/// restored, and after another attempt as restored.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_restore_leaves_one_or_the_other() {
    let Site { app, copy, .. } = site().await;
    let mut stopped = app.stop().await;
    let data = stopped.data_dir();
    let restore = || {
        let mut command = program_on(&data);
        command.args(["restore", &copy, "--yes", "--data-dir"]).arg(&data);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        command.spawn().unwrap()
    };
    let begun = Instant::now();
    assert!(restore().wait().unwrap().success());
    let whole = begun.elapsed();
    for moment in 0..20 {
        let mut restoring = restore();
        std::thread::sleep(whole * moment / 20);
        restoring.kill().unwrap();
        restoring.wait().unwrap();
        let app = stopped.start().await;
        let there = users(&app);
        assert!(there.iter().any(|(name, _)| name == "ada"), "{moment}: {there:?}");
        done(&app.data_dir(), &["audit", "verify"]);
        stopped = app.stop().await;
        assert!(!data.join(".restore").exists(), "the start clears away what was begun");
    }
    done(&data, &["restore", &copy, "--yes"]);
    assert!(!data.join(".restore").exists());
}

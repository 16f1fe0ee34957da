//! An older database in place of the latest one: nothing starts with it (STORE-06, AUDIT-03).

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde_json::json;

use crate::harness::{TestApp, Tokens};
use crate::process::{Process, complaint, portcullis, program};
use crate::refresh::family;

/// Asserts that the server and every writing command refuse this data directory; returns their common message.
fn refused(data: &Path) -> String {
    let data = data.to_str().unwrap();
    let commands: [&[&str]; 4] = [
        &["serve", "--listen", "localhost:0", "--data-dir", data],
        &["user", "list", "--data-dir", data],
        &["setup-link", "--data-dir", data],
        &["lockdown", "--yes", "--data-dir", data],
    ];
    let said = commands.map(|command| {
        let output = portcullis(command);
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        complaint(&output)
    });
    assert!(said.iter().all(|line| line.lines().last() == said[0].lines().last()), "{said:?}");
    said[0].clone()
}

/// Copies the database while the server runs, like a backup program: a snapshot.
fn copy_online(app: &TestApp, to: &Path) {
    let db = rusqlite::Connection::open(app.data_dir().join("portcullis.db")).unwrap();
    db.execute("VACUUM INTO ?1", [to.to_str().unwrap()]).unwrap();
}

/// Writes a file that only this user can read.
fn put(path: &Path, content: &[u8]) {
    let _ = fs::remove_file(path);
    let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path).unwrap();
    file.write_all(content).unwrap();
}

async fn works(app: &TestApp, tokens: &Tokens) -> bool {
    app.call_tool(&tokens.access, "whoami", json!({})).await.status() == 200
}

/// STORE-06: an older copy made online is put back after a revocation: the server does not start, and with the
/// latest database the token is still revoked.
#[tokio::test(flavor = "multi_thread")]
async fn restoring_old_files_revives_no_token() {
    let (app, _, client, tokens) = family().await;
    let copy = app.data_dir().join("backups/copy.db");
    copy_online(&app, &copy);
    let grant = tokens.claims()["grant_id"].as_str().unwrap().to_owned();
    app.console(&["grant", "revoke", &grant]);
    assert!(!works(&app, &tokens).await);
    let stopped = app.stop().await;
    let database = stopped.data_dir().join("portcullis.db");
    let last = fs::read(&database).unwrap();

    put(&database, &fs::read(&copy).unwrap());
    let line = refused(&stopped.data_dir());
    assert!(line.contains("is older than") && line.contains("audit.head"), "{line}");
    // Nor does it start without the file beside it.
    let head = stopped.data_dir().join("audit.head");
    let noted = fs::read(&head).unwrap();
    fs::remove_file(&head).unwrap();
    put(&database, &last);
    assert!(refused(&stopped.data_dir()).contains("audit.head is missing"));
    put(&head, &noted[..100]);
    assert!(refused(&stopped.data_dir()).contains("audit.head is damaged"));

    put(&head, &noted);
    let app = stopped.start().await;
    assert!(!works(&app, &tokens).await);
    assert_eq!(app.refresh(&client, &tokens.refresh).await.status(), 400);
}

/// STORE-06: a lost database is not a first start if the file beside it or only the sealing key exists.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_database_is_not_replaced_by_a_new_one() {
    let stopped = TestApp::start().await.stop().await;
    let data = stopped.data_dir();
    let (database, head, seal_key) =
        (data.join("portcullis.db"), data.join("audit.head"), data.join("seal.key"));
    let serve = || {
        let output = portcullis(&["serve", "--listen", "localhost:0", "--data-dir", data.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1));
        complaint(&output)
    };
    let (whole, noted, key) =
        (fs::read(&database).unwrap(), fs::read(&head).unwrap(), fs::read(&seal_key).unwrap());
    for with_head in [true, false] {
        put(&seal_key, &key);
        if with_head {
            put(&head, &noted);
        } else {
            fs::remove_file(&head).unwrap();
        }
        fs::remove_file(&database).unwrap();
        assert!(serve().contains("not a first start"));
        assert!(!database.exists());
        put(&database, b"");
        // Nor is it one for a command: a new database would be mistaken for the lost one.
        let listed = portcullis(&["user", "list", "--data-dir", data.to_str().unwrap()]);
        assert!(complaint(&listed).contains("not a first start"), "{}", complaint(&listed));
        assert!(serve().contains("not a first start"));
        // A database with tables and no rows.
        fs::remove_file(&database).unwrap();
        let clock = shared::Clock::system();
        drop(shared::Db::open(&database, &shared::schema::SCHEMA, None, &clock).unwrap());
        let says = if with_head { "is older than" } else { "not a first start" };
        assert!(serve().contains(says), "{}", serve());
        if with_head {
            fs::remove_file(&seal_key).unwrap();
            assert!(serve().contains("is older than"));
            assert!(!seal_key.exists());
        }
    }
    put(&seal_key, &key);
    put(&database, &whole);
    assert!(serve().contains("audit.head is missing"));
    put(&head, &noted);
    stopped.start().await;
}

/// STORE-06, AUDIT-03: with `[audit] mirror`, a data directory that is put back as a whole is refused by the server and by
/// commands; `audit verify` names the record; `restore` is the way back. A directory for that file inside the data directory, and
/// a share that is not mounted, are refused.
#[test]
fn a_directory_put_back_as_a_whole_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("share")).unwrap();
    let config = at("portcullis.toml").to_str().unwrap().to_owned();
    let configure = |mirror: &str| {
        let text = format!("data_dir = \"data\"\nlisten = \"localhost:0\"\n[audit]\nmirror = \"{mirror}\"\n");
        fs::write(&config, text).unwrap();
    };
    let command = |arguments: &[&str]| portcullis(&[arguments, &["--config", &config]].concat());
    let serve = || {
        let mut command = program();
        command.args(["serve", "--json", "--config", &config]).env_remove("RUST_LOG");
        Process::spawn(command)
    };
    let put_back = || {
        fs::remove_dir_all(at("data")).unwrap();
        let copied = std::process::Command::new("cp").arg("-a").args([at("kept"), at("data")]).status();
        assert!(copied.unwrap().success());
    };
    configure("share/portcullis.head");
    assert_eq!(serve().stop(), Some(0));
    let kept = std::process::Command::new("cp").arg("-a").args([at("data"), at("kept")]).status();
    assert!(kept.unwrap().success());
    assert_eq!(serve().stop(), Some(0));
    let verified = command(&["audit", "verify", "--json"]);
    let verified: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!(verified["mirror"], verified["records"]);
    assert_eq!(verified["truncation_checked"], true);

    put_back();
    for arguments in [&["serve"][..], &["user", "list"], &["lockdown", "--yes"]] {
        let output = command(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said = complaint(&output);
        assert!(said.contains("is older than") && said.contains("share/portcullis.head"), "{said}");
    }
    let said = complaint(&command(&["audit", "verify"]));
    assert!(said.contains("share/portcullis.head says that record"), "{said}");
    let copy = at("kept/portcullis.db").to_str().unwrap().to_owned();
    // Nobody has signed in yet, so there is no administrator to name.
    let restored = command(&["restore", &copy, "--yes", "--json"]);
    assert!(restored.status.success(), "{}", complaint(&restored));
    let restored: serde_json::Value = serde_json::from_slice(&restored.stdout).unwrap();
    assert_eq!(restored["complete"], false);
    assert_eq!(serve().stop(), Some(0));
    assert!(command(&["audit", "verify"]).status.success());

    fs::rename(at("share/portcullis.head"), at("share/away")).unwrap();
    assert!(complaint(&command(&["serve"])).contains("Mount its disk or share"));
    fs::rename(at("share/away"), at("share/portcullis.head")).unwrap();
    configure("data/backups/portcullis.head");
    assert!(complaint(&command(&["serve"])).contains("is inside the data directory"));
    configure("share/");
    assert!(complaint(&command(&["serve"])).contains("must name a file"));
}

/// OPS-07, STORE-06: after `kill -9` during writes, twenty times, the server starts; the file exists, is
/// private, and is never ahead of the database.
#[test]
fn a_killed_server_starts_again() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    for round in 0..20 {
        let mut server = Process::start(&data, "localhost:0", None);
        let http = reqwest::blocking::Client::builder().no_proxy().build().unwrap();
        let register = format!("{}/register", server.origin);
        let callers: Vec<_> = (0..2)
            .map(|caller| {
                let (http, register) = (http.clone(), register.clone());
                std::thread::spawn(move || {
                    let metadata = |n: usize| json!({"client_name": format!("{round} {caller} {n}"), "redirect_uris": ["http://localhost/"]});
                    (0..1_000_000).take_while(|n| http.post(&register).json(&metadata(*n)).send().is_ok()).count()
                })
            })
            .collect();
        for n in 0..=round {
            let metadata =
                json!({"client_name": format!("{round} {n}"), "redirect_uris": ["http://localhost/"]});
            http.post(&register).json(&metadata).send().unwrap();
        }
        server.kill();
        for caller in callers {
            caller.join().unwrap();
        }
        let noted = shared::db::noted(&data.join("audit.head")).unwrap().unwrap().head;
        let records = rusqlite::Connection::open(data.join("portcullis.db"))
            .unwrap()
            .query_row("SELECT max(seq) FROM audit", [], |row| row.get::<_, i64>(0))
            .unwrap();
        assert!(0 < noted.seq() && noted.seq() <= records, "{} of {records}", noted.seq());
    }
}

//! Users' names: lookalikes are not confused, and the audit log shows former names.

use crate::clients::refused;
use crate::harness::TestApp;
use crate::process::portcullis;

/// ADMIN-03: a name that looks like another user's is refused, and a command with an inexact name lists the
/// users it may mean and changes none.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_reads_like_another_names_nobody() {
    let app = TestApp::start().await;
    app.admin().await;
    app.console(&["user", "add", "bob"]);
    for alike in ["Ada", "ADA", "\u{430}da", "\u{ff41}da", "BOB", "b0b"] {
        let line = refused(&app, &["user", "add", alike]);
        assert!(line.contains("looks like the user") && line.contains("u_"), "{alike}: {line}");
    }
    for command in [
        &["user", "disable", "Bob"][..],
        &["user", "delete", "BOB", "--yes"],
        &["session", "end", "--user", "B\u{43e}b"],
    ] {
        let line = refused(&app, command);
        assert!(line.contains("did you mean `bob` (u_"), "{line}");
    }
    assert_eq!(app.console(&["user", "show", "bob"])["user"]["disabled"], false);

    app.console(&["rs", "add", "Wiki", "--audience", "https://wiki.example/mcp"]);
    let alike = ["rs", "add", "w\u{456}ki", "--audience", "https://other.example/mcp"];
    assert!(refused(&app, &alike).contains("looks like"));
    app.console(&["registration-token", "add", "Platform"]);
    assert!(refused(&app, &["registration-token", "add", "plat f0rm"]).contains("looks like"));
}

/// ADMIN-03: users of an earlier version whose names look alike both stay; a command needs an id for them.
#[tokio::test(flavor = "multi_thread")]
async fn names_from_before_that_read_alike_are_told_apart_by_id() {
    let app = TestApp::start().await;
    app.admin().await;
    app.console(&["user", "add", "bob"]);
    let other = app.console(&["user", "add", "rob"])["user"]["id"].as_str().unwrap().to_owned();
    let stopped = app.stop().await;
    let raw = rusqlite::Connection::open(stopped.data_dir().join("portcullis.db")).unwrap();
    raw.execute("UPDATE user SET name = 'Bob', reads_like = '' WHERE name = 'rob'", []).unwrap();
    drop(raw);
    let app = stopped.start().await;
    for name in ["bob", "Bob"] {
        let line = refused(&app, &["user", "disable", name]);
        assert!(line.contains("Use the id") && line.contains("`bob` (u_") && line.contains(&other), "{line}");
    }
    assert!(refused(&app, &["user", "disable", "BOB"]).contains("did you mean"));
    assert_eq!(app.console(&["user", "disable", &other])["user"]["name"], "Bob");
    assert_eq!(app.console(&["user", "list"])["users"].as_array().unwrap().len(), 3);
}

/// AUDIT-05: a reader of the log sees users' names, also of deleted users; the records hold no names.
#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_names_people_also_after_deletion() {
    let app = TestApp::start().await;
    app.admin().await;
    let id = app.console(&["user", "add", "cleo"])["user"]["id"].as_str().unwrap().to_owned();
    app.console(&["user", "delete", "cleo", "--yes"]);
    let again = app.console(&["user", "add", "cleo"])["user"]["id"].as_str().unwrap().to_owned();
    let data = app.data_dir();
    let tail = portcullis(&["audit", "tail", "-n", "100", "--data-dir", data.to_str().unwrap()]);
    let said = String::from_utf8(tail.stdout).unwrap();
    assert!(said.contains(&format!("subject=cleo, deleted ({id})")), "{said}");
    assert!(said.contains(&format!("subject=cleo ({again})")) && said.contains("by ada (u_"), "{said}");
    assert!(app.audit().iter().all(|record| !record.to_string().contains("cleo")));
}

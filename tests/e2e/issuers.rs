//! Another issuer on the same data directory, and how an administrator regains access.

use std::path::Path;

use serde_json::Value;

use crate::clients::refused;
use crate::harness::{Browser, TestApp};
use crate::process::{Process, complaint, portcullis};

fn serve(data: &Path, more: &[&str]) -> String {
    let output = portcullis(&[&["serve", "--data-dir", data.to_str().unwrap()], more].concat());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    complaint(&output)
}

/// META-01, WEBAUTHN-01: a server under another issuer does not start, and commands and `check` refuse it too;
/// the message says what would end and how to continue; nothing has changed.
#[test]
fn another_issuer_is_refused_until_it_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let at = ["--data-dir", data.to_str().unwrap()];
    let server = Process::start(&data, "localhost:0", None);
    let origin = server.origin.clone();
    assert_eq!(server.stop(), Some(0));

    let port = crate::certificates::unused_port();
    let (listen, other) = (format!("localhost:{port}"), format!("http://localhost:{port}"));
    let said = serve(&data, &["--listen", &listen]);
    for part in [&origin, &other, "portcullis issuer change --data-dir", "passkeys keep working", "stay"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let config = dir.path().join("portcullis.toml");
    std::fs::write(&config, "issuer = \"https://auth.example\"\ntrusted_proxies = [\"127.0.0.1\"]\n")
        .unwrap();
    let config = ["--config", config.to_str().unwrap()];
    let commands = [
        &["check"][..],
        &["serve"],
        &["user", "list"],
        &["setup-link"],
        &["client", "list"],
        &["key", "list"],
    ];
    for command in commands {
        let output = portcullis(&[command, &config, &at].concat());
        let said = complaint(&output);
        assert!(!output.status.success() && said.contains("no passkey works"), "{command:?}: {said}");
        assert!(said.contains("portcullis issuer change --config"), "{command:?}: {said}");
    }

    let change = ["issuer", "change", &other, at[0], at[1]];
    let unasked = portcullis(&change);
    assert!(complaint(&unasked).contains("nothing was done"), "{unasked:?}");
    let shown = portcullis(&["issuer", "show", at[0], at[1]]);
    assert_eq!(String::from_utf8(shown.stdout).unwrap().trim(), origin);
    let changed = portcullis(&[&change[..], &["--yes"]].concat());
    assert!(changed.status.success(), "{}", complaint(&changed));
    let server = Process::start(&data, &listen, None);
    assert_eq!(server.origin, other);
    let running = portcullis(&["issuer", "change", &origin, "--yes", at[0], at[1]]);
    assert!(complaint(&running).contains("in use"), "{running:?}");
    let tail = portcullis(&["audit", "tail", "--json", at[0], at[1]]);
    let tail = String::from_utf8(tail.stdout).unwrap();
    let record = tail.lines().find(|line| line.contains("issuer_after")).expect("the change is on record");
    let record: Value = serde_json::from_str(record).unwrap();
    assert_eq!(record["event"], "server.config_changed");
    assert_eq!(
        (&record["detail"]["issuer_before"], &record["detail"]["issuer_after"]),
        (&origin.into(), &other.into())
    );
}

/// WEBAUTHN-01: passkeys are bound to the host name. Under another host they are set aside, an administrator
/// signs in with a link, and they are restored with the old host.
#[tokio::test(flavor = "multi_thread")]
async fn passkeys_of_another_host_are_set_aside_and_come_back() {
    let app = TestApp::start().await;
    app.admin().await;
    let before = app.origin.clone();
    let stopped = app.stop().await;
    let data = stopped.data_dir();
    let run = |words: &[&str]| -> Value {
        let output = portcullis(&[words, &["--json", "--data-dir", data.to_str().unwrap()]].concat());
        assert!(output.status.success(), "{words:?}: {}", complaint(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let moved = run(&["issuer", "change", "https://auth.example", "--yes"]);
    assert_eq!((&moved["passkeys"]["set_aside"], &moved["passkeys"]["back"]), (&1.into(), &0.into()));
    assert_eq!(run(&["user", "show", "ada"])["user"]["passkeys"], 0);
    let link = run(&["setup-link"]);
    assert!(link["setup_link"].as_str().unwrap().starts_with("https://auth.example/enrol#"), "{link}");
    let back = run(&["issuer", "change", &before, "--yes"]);
    assert_eq!((&back["passkeys"]["set_aside"], &back["passkeys"]["back"]), (&0.into(), &1.into()));
    assert_eq!(run(&["user", "show", "ada"])["user"]["passkeys"], 1);
}

/// ENROL-01: at the console an administrator can always regain access; if there is no link, the message has a
/// command that works.
#[tokio::test(flavor = "multi_thread")]
async fn there_is_always_a_way_in() {
    let app = TestApp::start().await;
    app.admin().await;
    let line = refused(&app, &["setup-link"]);
    assert!(
        line.contains("`ada`") && line.contains("can sign in") && line.contains("portcullis user link"),
        "{line}"
    );

    let change = |what: &str| {
        let raw = rusqlite::Connection::open(app.data_dir().join("portcullis.db")).unwrap();
        raw.execute(what, []).unwrap();
    };
    change("UPDATE passkey SET suspended_at = 1");
    let answer = app.console(&["setup-link"]);
    assert_eq!(answer["user"], "ada");
    let mut browser = Browser::new();
    assert_eq!(browser.follow_link(&app, answer["setup_link"].as_str().unwrap()).await.status(), 200);
    assert!(refused(&app, &["setup-link"]).contains("can sign in"));

    change("DELETE FROM passkey");
    app.console(&["user", "add", "bob"]);
    app.console(&["user", "role", "bob", "admin"]);
    let line = refused(&app, &["setup-link"]);
    assert!(line.contains("portcullis user link") && line.contains("ada") && line.contains("bob"), "{line}");

    change("UPDATE user SET disabled_at = 1");
    let line = refused(&app, &["setup-link"]);
    assert!(
        line.contains("every administrator is disabled") && line.contains("portcullis user enable"),
        "{line}"
    );
}

//! The sealing key: where it may be, and how it is replaced (KEYS-05).

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::harness::{Browser, Client, TestApp, Tokens, redirect_parameter};
use crate::process::{Process, complaint, portcullis, program};

async fn family(app: &TestApp) -> (Browser, Client, Tokens) {
    let mut browser = app.admin().await;
    let client = app.client().await;
    let tokens = app.tokens(&mut browser, &client).await;
    (browser, client, tokens)
}

fn serve_refuses(data: &Path) -> String {
    let output = portcullis(&["serve", "--listen", "localhost:0", "--data-dir", data.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    complaint(&output)
}

fn keys_in(path: &Path) -> usize {
    fs::read_to_string(path).unwrap().lines().count() / 2
}

/// KEYS-05, REFRESH-06, SESSION-07: replacing it while the server runs refuses nothing, not even a repeated
/// refresh or an open form.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_server_takes_another_seal_key() {
    let app = TestApp::start().await;
    let (mut browser, client, tokens) = family(&app).await;
    let lost = Tokens::of(app.refresh(&client, &tokens.refresh).await).await;
    let page = browser.consent_page(&app, &client.authorize_url(&app)).await;
    let (seal_key, kept) = (app.data_dir().join("seal.key"), app.data_dir().join("old.key"));
    let old = fs::read_to_string(&seal_key).unwrap();

    let data = app.data_dir();
    let unasked = portcullis(&["key", "reseal", "--data-dir", data.to_str().unwrap()]);
    assert!(complaint(&unasked).contains("--keep") && complaint(&unasked).contains("nothing was done"));
    assert_eq!(fs::read_to_string(&seal_key).unwrap(), old);

    let resealed = app.console(&["key", "reseal", "--keep", kept.to_str().unwrap()])["resealed"].clone();
    assert_eq!(resealed["values"], 3);
    assert_ne!(resealed["before"], resealed["after"]);
    assert_eq!((keys_in(&seal_key), fs::read_to_string(&kept).unwrap()), (1, old.clone()));
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);

    let again = Tokens::of(app.refresh(&client, &tokens.refresh).await).await;
    assert_eq!(again.refresh, lost.refresh);
    let decided = browser.decide(&app, &page, "approve").await;
    assert!(redirect_parameter(&decided, "code").is_some());
    assert_eq!(app.call_tool(&tokens.access, "whoami", json!({})).await.status(), 200);
    let changed = app.audit().into_iter().find(|r| r["event"] == "server.config_changed").unwrap();
    assert_eq!(
        (&changed["detail"]["changed"], &changed["detail"]["after"]),
        (&json!("seal_key"), &resealed["after"])
    );
    assert!(!changed.to_string().contains(old.lines().nth(1).unwrap()));

    let app = app.restart().await;
    let again = Tokens::of(app.refresh(&client, &tokens.refresh).await).await;
    assert_eq!(again.refresh, lost.refresh);
    assert_eq!(app.call_tool(&again.access, "whoami", json!({})).await.status(), 200);
    // An existing file is never overwritten, and then nothing else is done.
    let data = app.data_dir();
    let refused = portcullis(&[
        "key",
        "reseal",
        "--keep",
        kept.to_str().unwrap(),
        "--data-dir",
        data.to_str().unwrap(),
    ]);
    assert!(complaint(&refused).contains("exists already"), "{}", complaint(&refused));
    assert_eq!((keys_in(&seal_key), fs::read_to_string(&kept).unwrap()), (1, old.clone()));

    // With only the old key, the directory does not open.
    let stopped = app.stop().await;
    let new = fs::read_to_string(&seal_key).unwrap();
    fs::write(&seal_key, &old).unwrap();
    assert!(serve_refuses(&stopped.data_dir()).contains("sealed with seal key"));
    fs::write(&seal_key, &new).unwrap();
    let app = stopped.start().await;
    assert_eq!(app.call_tool(&again.access, "whoami", json!({})).await.status(), 200);
}

/// KEYS-05: after a kill at any moment the directory opens, and earlier tokens are valid.
#[test]
fn a_killed_command_leaves_a_directory_that_opens() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    assert_eq!(Process::start(&data, "localhost:0", None).stop(), Some(0));
    let list = || -> Value {
        let output = portcullis(&["key", "list", "--json", "--data-dir", data.to_str().unwrap()]);
        assert!(output.status.success(), "{}", complaint(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let kids = |listed: &Value| -> Vec<String> {
        listed["keys"].as_array().unwrap().iter().map(|key| key["kid"].to_string()).collect()
    };
    let before = kids(&list());
    let reseal = || {
        let mut command = program();
        command.args(["key", "reseal", "--yes", "--data-dir"]).arg(&data);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let started = std::time::Instant::now();
    assert!(reseal().wait().unwrap().success());
    let whole = started.elapsed();
    for cut in 1..=20 {
        let mut command = reseal();
        std::thread::sleep(whole * cut / 20);
        let _ = command.kill();
        command.wait().unwrap();
        assert_eq!(kids(&list()), before, "cut at {cut}/20");
        assert_eq!(keys_in(&data.join("seal.key")), 1);
    }
    let left: Vec<_> = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_str().unwrap().starts_with(".seal-key-")), "{left:?}");
    assert_eq!(Process::start(&data, "localhost:0", None).stop(), Some(0));
}

/// KEYS-05: another file, or a service manager's credential; `check` has no warning then.
#[test]
fn the_seal_key_may_be_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let (data, config) = (dir.path().join("data"), dir.path().join("portcullis.toml"));
    let credentials = dir.path().join("credentials");
    let run = |arguments: &[&str], credentials: Option<&Path>| {
        let mut command = program();
        command.args(arguments).arg("--config").arg(&config).arg("--data-dir").arg(&data);
        command.stdin(Stdio::null()).env_remove("CREDENTIALS_DIRECTORY");
        if let Some(directory) = credentials {
            command.env("CREDENTIALS_DIRECTORY", directory);
        }
        command
    };
    let serve = ["serve", "--json", "--listen", "localhost:0"];
    let warnings = |credentials: Option<&Path>| {
        let output = run(&["check", "--json", "--listen", "localhost:0"], credentials).output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["ok"], output.status.success(), "{report}");
        report
    };

    fs::write(&config, "[keys]\nseal_key = \"secret.key\"\n").unwrap();
    assert_eq!(Process::spawn(run(&serve, None)).stop(), Some(0));
    let file = dir.path().join("secret.key");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!data.join("seal.key").exists());
    let report = warnings(None);
    assert_eq!((&report["ok"], &report["warnings"]), (&json!(true), &json!([])));
    fs::write(&config, "[keys]\nseal_key = \"data/../data/secret.key\"\n").unwrap();
    fs::rename(&file, data.join("secret.key")).unwrap();
    assert!(
        warnings(None)["warnings"][0]
            .as_str()
            .unwrap()
            .starts_with("secret.key is in the same directory as the database")
    );

    fs::write(&config, "[keys]\nseal_key = \"credential:portcullis.seal\"\n").unwrap();
    fs::create_dir(&credentials).unwrap();
    fs::rename(data.join("secret.key"), credentials.join("portcullis.seal")).unwrap();
    fs::set_permissions(credentials.join("portcullis.seal"), Permissions::from_mode(0o440)).unwrap();
    assert!(warnings(None)["problems"][0].as_str().unwrap().contains("CREDENTIALS_DIRECTORY"));
    assert_eq!(warnings(Some(&credentials))["warnings"], json!([]));
    let server = Process::spawn(run(&serve, Some(&credentials)));

    // The credential is the service manager's: the new key is written elsewhere, and the next start needs it.
    let refused = run(&["key", "reseal", "--yes"], None).output().unwrap();
    assert!(complaint(&refused).contains("service manager credential"), "{}", complaint(&refused));
    let new = dir.path().join("new.key");
    let resealed = run(&["key", "reseal", "--yes", "--new", new.to_str().unwrap()], None).output().unwrap();
    assert!(resealed.status.success(), "{}", complaint(&resealed));
    assert!(String::from_utf8(resealed.stdout).unwrap().contains("give it to the service manager"));
    assert_eq!(server.stop(), Some(0));
    let stale = run(&serve, Some(&credentials)).output().unwrap();
    assert!(complaint(&stale).contains("sealed with seal key"), "{}", complaint(&stale));
    fs::remove_file(credentials.join("portcullis.seal")).unwrap();
    fs::rename(&new, credentials.join("portcullis.seal")).unwrap();
    assert_eq!(Process::spawn(run(&serve, Some(&credentials))).stop(), Some(0));

    for (value, words) in
        [("credential:", "has no credential name"), ("credential:../x", "has no credential name")]
    {
        fs::write(&config, format!("[keys]\nseal_key = \"{value}\"\n")).unwrap();
        let refused = run(&serve, Some(&credentials)).output().unwrap();
        assert!(complaint(&refused).contains(words), "{}", complaint(&refused));
    }
    fs::write(&config, "[keys]\nseal_key = \"gone.key\"\n").unwrap();
    let refused = run(&serve, None).output().unwrap();
    assert!(complaint(&refused).contains("put it back"), "{}", complaint(&refused));
}

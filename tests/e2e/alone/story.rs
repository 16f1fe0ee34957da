//! The story of `examples/alone`: four tools from configuration alone, and a real client that calls each.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use super::postgres::Postgres;
use super::service::{Reply, Service};
use super::webhook::{Receiver, SECRET};
use crate::process::{Driver, Process, portcullis, program};

const TOKEN: &str = "canary-jira-41";
const PASSWORD: &str = "canary-db-41";

/// The example in this folder, with these in the places of its three addresses.
fn installed(dir: &Path, jira: &Service, postgres: &Postgres, ci: &Service) {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/alone");
    let mut toml = fs::read_to_string(example.join("portcullis.toml")).unwrap();
    for (documented, real) in [
        ("http://127.0.0.1:9201", jira.url.clone()),
        ("127.0.0.1:9202", format!("127.0.0.1:{}", postgres.port)),
        ("http://127.0.0.1:9203", ci.url.clone()),
    ] {
        assert!(toml.contains(documented));
        toml = toml.replace(documented, &real);
    }
    fs::write(dir.join("portcullis.toml"), toml).unwrap();
    fs::create_dir(dir.join("docs")).unwrap();
    fs::copy(example.join("docs/backup.md"), dir.join("docs/backup.md")).unwrap();
    for (name, secret) in [("jira.token", TOKEN), ("inventory.password", PASSWORD), ("ci.secret", SECRET)] {
        fs::write(dir.join(name), secret).unwrap();
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// REST-01, SQL-01, HOOK-01, DCR-08: an engineer's client reads an issue, asks a database, searches documents and starts a
/// pipeline; for the last it asks for a scope of its own, which a passkey allows. No secret is on record.
#[test]
fn four_tools_work_from_configuration_alone() {
    let jira = Service::start(|arrived, _| {
        assert_eq!(arrived.header("authorization"), Some(&*format!("Bearer {TOKEN}")));
        let fields = json!({ "summary": "Backup failed", "status": { "name": "Open" }, "assignee": { "displayName": "Ada" }, "reporter": { "emailAddress": "x" } });
        Reply::Json(200, json!({ "id": "1", "key": "OPS-7", "fields": fields }))
    });
    let receiver = Receiver::default();
    let executes = receiver.clone();
    let ci = Service::start(move |arrived, _| {
        if arrived.method == "HEAD" {
            return Reply::With(204, "x-nothing: 1");
        }
        executes.execute(arrived);
        Reply::Json(200, json!({ "run": 1 }))
    });
    let postgres = Postgres::start();
    postgres.does(&format!(
        "CREATE TABLE machine (name text, owner text, room text, cores integer); INSERT INTO machine VALUES ('node-7', 'ada', 'B-12', 64); \
         CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'; GRANT SELECT ON machine TO reader"
    ));
    let dir = tempfile::tempdir().unwrap();
    installed(dir.path(), &jira, &postgres, &ci);
    let (data, config) = (dir.path().join("data"), dir.path().join("portcullis.toml"));
    let mut command = program();
    command.args(["serve", "--json", "--listen", "localhost:0", "--config"]).arg(&config);
    command.arg("--data-dir").arg(&data);
    let server = Process::spawn(command);
    let console = |arguments: &[&str]| -> Value {
        let place = ["--json", "--config", config.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
        let output = portcullis(&[arguments, &place].concat());
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    for (source, tool) in
        [("jira", "jira_get_issue"), ("inventory", "inventory_machines_of"), ("ci", "ci_trigger_pipeline")]
    {
        let tested = console(&["source", "test", source]);
        assert!(tested["tools"].to_string().contains(tool), "{tested}");
    }
    let added = console(&["user", "add", "alice", "--group", "engineers"]);
    let browsing = tempfile::tempdir().unwrap();
    let mut browser = Driver::browser(browsing.path());
    browser.ok(&json!({"op": "setup", "url": added["link"], "name": "alice"}));
    let mut client = Driver::typescript(&server.mcp_url, "legacy", browsing.path());
    assert_eq!(client.connect(&mut browser, "approve")["ok"], true);
    let call = |name: &str, arguments: Value| json!({"op": "call", "name": name, "arguments": arguments});

    let issue = client.attempt(&call("jira_get_issue", json!({ "key": "OPS-7" }))).to_string();
    assert!(
        issue.contains("Backup failed") && issue.contains("Ada") && !issue.contains("emailAddress"),
        "{issue}"
    );
    let machines = client.attempt(&call("inventory_machines_of", json!({ "owner": "ada" }))).to_string();
    assert!(machines.contains("node-7") && machines.contains("64"), "{machines}");
    let found = client.attempt(&call("docs_search", json!({ "query": "restore" }))).to_string();
    assert!(found.contains("backup.md"), "{found}");

    let trigger = call("ci_trigger_pipeline", json!({ "pipeline": "nightly" }));
    client.send(&trigger);
    let asked = client.receive();
    assert_eq!((&asked["event"], receiver.executed()), (&json!("authorize"), 0), "{asked}");
    // A high-risk scope is not ticked beforehand, and allowing it takes the passkey once more.
    browser.ok(&json!({"op": "open", "url": asked["url"]}));
    browser.ok(&json!({"op": "click", "testid": "passkey-login"}));
    browser.ok(&json!({"op": "text", "selector": "[data-testid=consent-approve]:enabled"}));
    browser.ok(&json!({"op": "tick", "scope": "ci.trigger", "ticked": true}));
    browser.ok(&json!({"op": "leave", "testid": "consent-approve"}));
    let started = client.receive().to_string();
    assert!(started.contains("accepted") && receiver.executed() == 1, "{started}");

    let tail = portcullis(&["audit", "tail", "-n", "10000", "--json", "--data-dir", data.to_str().unwrap()]);
    let records = String::from_utf8(tail.stdout).unwrap();
    assert!(records.contains("session.step_up"), "a tap for just this decision");
    for secret in [TOKEN, PASSWORD, SECRET] {
        assert!(!records.contains(secret) && !format!("{issue}{machines}{found}{started}").contains(secret));
    }
    client.close();
}

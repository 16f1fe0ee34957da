//! `kind = "sql"` on SQLite, with the example of its page as written.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::{Value, json};

use super::{call, error, example, listed};
use crate::harness::TestApp;
use crate::process::portcullis;
use crate::sources::token;

/// A database with the example's table.
fn inventory(path: &Path) {
    let db = Connection::open(path).unwrap();
    db.execute_batch(
        "CREATE TABLE machine (name TEXT PRIMARY KEY, owner TEXT, room TEXT, cores INTEGER, serial INTEGER, photo BLOB);
         INSERT INTO machine VALUES ('node-1', 'ada', 'B-12', 64, 9007199254740993, x'00ff'), ('node-2', NULL, 'B-12', 8, 7, NULL),
                                    ('node-3', 'bob', 'C-1', 128, 8, NULL);
         CREATE VIEW large AS SELECT name FROM machine WHERE cores > 32;",
    )
    .unwrap();
}

async fn started(dir: &Path) -> (TestApp, String) {
    let database = dir.join("inventory.db");
    inventory(&database);
    let toml = super::opened(&example(include_str!("../../../docs/sql.md")), &["inventory.read"]);
    assert!(toml.contains("sqlite:inventory.db"));
    let toml = toml.replace("sqlite:inventory.db", &format!("sqlite:{}", database.display()));
    let app = TestApp::start_configured(&toml.replace("timeout = \"10s\"", "timeout = \"2s\"")).await;
    let token = token(&app).await;
    (app, token)
}

/// SQL-01, SQL-02: the page's example works as written.
#[tokio::test(flavor = "multi_thread")]
async fn the_example_works_as_written() {
    let dir = tempfile::tempdir().unwrap();
    let (app, token) = started(dir.path()).await;
    let found = call(&app, &token, "inventory_machines_in", json!({ "room": "B-12" })).await;
    let data = json!({ "columns": ["name", "owner", "cores"], "rows": [["node-1", "ada", 64], ["node-2", null, 8]], "truncated": false });
    assert_eq!(found["structuredContent"], data);
    let found = call(&app, &token, "inventory_machines_in", json!({ "room": "B-12", "cores": 9 })).await;
    assert_eq!(found["structuredContent"]["rows"], json!([["node-1", "ada", 64]]));
    // A value that would change a statement is a value.
    let odd = call(&app, &token, "inventory_machines_in", json!({ "room": "B-1' OR 1=1 --" })).await;
    assert!(error(&odd).contains("`room` must be a string that matches"), "{odd}");
    let described = call(&app, &token, "inventory_describe", json!({})).await;
    let rows = described["structuredContent"]["rows"].as_array().unwrap();
    assert!(
        rows.contains(&json!(["machine", "cores", "INTEGER", 1, 0]))
            && rows.contains(&json!(["large", "name", "TEXT", 1, 0])),
        "{rows:?}"
    );
    let sql = "SELECT serial, photo, 1e999, cores * 1.5 FROM machine ORDER BY name LIMIT 1";
    let free = call(&app, &token, "inventory_select", json!({ "sql": sql })).await;
    assert_eq!(free["structuredContent"]["rows"], json!([["9007199254740993", "AP8=", "inf", 96.0]]));
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1000) SELECT i FROM n";
    let many = call(&app, &token, "inventory_select", json!({ "sql": sql })).await;
    assert_eq!(many["structuredContent"]["rows"].as_array().unwrap().len(), 200);
    assert_eq!(many["structuredContent"]["truncated"], true);
    let wrong = call(&app, &token, "inventory_select", json!({ "sql": "SELECT cpus FROM machine" })).await;
    assert!(error(&wrong).contains("no such column: cpus"), "{wrong}");
    for tool in listed(&app, &token).await {
        if tool["name"].as_str().unwrap().starts_with("inventory_") {
            assert_eq!(tool["outputSchema"]["required"], json!(["columns", "rows", "truncated"]));
            assert_eq!(tool["annotations"]["readOnlyHint"], true);
        }
    }
}

/// SQL-01: after every attempt the file is the same byte for byte, the answer is an error in time, and the next call works.
#[tokio::test(flavor = "multi_thread")]
async fn no_statement_gets_around_the_engine() {
    let dir = tempfile::tempdir().unwrap();
    let (app, token) = started(dir.path()).await;
    let (database, other) = (dir.path().join("inventory.db"), dir.path().join("other.db"));
    let before = std::fs::read(&database).unwrap();
    let other = other.display();
    for sql in [
        "DELETE FROM machine",
        "SELECT 1; DELETE FROM machine",
        "SELECT 1 /* ; */; -- x\nDELETE FROM machine",
        "WITH gone AS (DELETE FROM machine RETURNING *) SELECT * FROM gone",
        "WITH x AS (SELECT 1) UPDATE machine SET cores = 0",
        "REPLACE INTO machine VALUES ('x', 'x', 'x', 1, 1, NULL)",
        &format!("ATTACH '{other}' AS other"),
        &format!("VACUUM INTO '{other}'"),
        "VACUUM",
        "PRAGMA writable_schema = ON",
        "PRAGMA journal_mode = DELETE",
        "SELECT * FROM pragma_table_info('machine')",
        "SELECT * FROM pragma_journal_mode('delete')",
        "UPDATE sqlite_schema SET sql = 'x'",
        "SELECT load_extension('/tmp/x')",
        "SELECT writefile('/tmp/x', 'x')",
        "SELECT readfile('/etc/passwd')",
        "SELECT * FROM fsdir('/')",
        "SELECT edit('x')",
        "SELECT fts3_tokenizer('simple')",
        "SELECT sqlite_compileoption_get(1)",
        "SELECT randomblob(1000000000)",
        "SELECT zeroblob(1000000000)",
        "SELECT replace(hex(zeroblob(1000000)), '0', 'xxxxxxxxxxxxxxxxxxxx')",
        "SELECT printf('%1000000000d', 1)",
        "SELECT '%' LIKE replace(printf('%01000d', 0), '0', '%')",
        "CREATE TABLE x (a)",
        "CREATE TEMP TABLE x (a)",
        "DROP TABLE machine",
        "ANALYZE",
        "REINDEX",
        "BEGIN EXCLUSIVE",
        "EXPLAIN SELECT 1",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
        "SELECT count(*) FROM machine a, machine b, machine c, machine d, machine e, machine f, machine g, machine h, machine i, machine j, machine k, machine l, machine m, machine n, machine o, machine p, machine q, machine r, machine s",
        "SELECT abs(-9223372036854775808)",
        "",
    ] {
        let begun = Instant::now();
        let refused = call(&app, &token, "inventory_select", json!({ "sql": sql })).await;
        assert!(!error(&refused).is_empty(), "{sql}: {refused}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{sql}");
        let next =
            call(&app, &token, "inventory_select", json!({ "sql": "SELECT count(*) FROM machine" })).await;
        assert_eq!(next["structuredContent"]["rows"], json!([[3]]), "after {sql}");
    }
    assert_eq!(std::fs::read(&database).unwrap(), before);
    let left: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["inventory.db"], "nothing was written beside it");
    let slow = app.audit().into_iter().filter(|record| record["detail"]["name"] == "inventory_select");
    assert!(
        slow.map(|record| record["detail"]["result"].clone())
            .all(|result| result == "ok" || result == "tool_error")
    );
}

/// SQL-01: a file in the data directory is refused as a database, under every name; a missing file is reported.
#[test]
fn nothing_in_the_data_directory_is_a_database() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();
    inventory(&data.join("portcullis-copy.db"));
    inventory(&dir.path().join("own.db"));
    std::os::unix::fs::symlink(data.join("portcullis-copy.db"), dir.path().join("link.db")).unwrap();
    std::fs::hard_link(data.join("portcullis-copy.db"), dir.path().join("hard.db")).unwrap();
    for (name, says) in [
        ("data/portcullis-copy.db", "is in the data directory"),
        ("data/../data/portcullis-copy.db", "is in the data directory"),
        ("link.db", "is in the data directory"),
        ("hard.db", "is in the data directory"),
        ("missing.db", "No such file"),
        (".", "is not a file"),
        ("own.db", ""),
    ] {
        let toml = format!(
            "data_dir = \"data\"\n[sources.own]\nkind = \"sql\"\ndatabase = \"sqlite:{name}\"\ndescribe = true\n"
        );
        let config = dir.path().join("portcullis.toml");
        std::fs::write(&config, toml).unwrap();
        let checked = portcullis(&["check", "--json", "--config", config.to_str().unwrap()]);
        let report: Value = serde_json::from_slice(&checked.stdout).unwrap();
        let problems = report["problems"].to_string();
        assert!(problems.contains(says) && (says.is_empty() == (problems == "[]")), "{name}: {problems}");
    }
}

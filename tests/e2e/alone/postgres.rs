//! `kind = "sql"` on a real PostgreSQL that the test starts.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{call, error};
use crate::certificates::unused_port;
use crate::harness::TestApp;
use crate::sources::token;

const PASSWORD: &str = "canary-db-55";

/// A cluster of its own, on a free port of loopback. PostgreSQL does not run as root, so root's tests run it as `nobody`.
pub struct Postgres {
    child: Child,
    dir: tempfile::TempDir,
    pub port: u16,
}

/// One of PostgreSQL's programs.
fn program(name: &str) -> PathBuf {
    let mut found: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .map(|version| version.unwrap().path().join("bin").join(name))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| PathBuf::from(name))
}

fn command(name: &str) -> Command {
    let mut command = Command::new(program(name));
    command.current_dir("/").env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin");
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    command
}

impl Postgres {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let data = dir.path().join("data");
        let made = command("initdb")
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync", "--pgdata"])
            .arg(&data)
            .output()
            .expect("PostgreSQL is not here: run tests/install");
        assert!(made.status.success(), "{made:?}");
        let hba = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
        std::fs::write(data.join("pg_hba.conf"), hba).unwrap();
        let port = unused_port();
        let child = command("postgres")
            .arg("-D")
            .arg(&data)
            .args([
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "unix_socket_directories=",
                "-c",
                "fsync=off",
                "-p",
            ])
            .arg(port.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let postgres = Self { child, dir, port };
        let begun = Instant::now();
        while !postgres.sql("SELECT 1").status.success() {
            assert!(begun.elapsed() < Duration::from_mins(1), "PostgreSQL did not start");
            std::thread::sleep(Duration::from_millis(100));
        }
        postgres
    }

    /// Runs statements as its superuser.
    fn sql(&self, sql: &str) -> Output {
        let mut psql = command("psql");
        psql.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            "127.0.0.1",
            "-U",
            "postgres",
            "-p",
        ]);
        psql.arg(self.port.to_string()).args(["-c", sql, "postgres"]).output().unwrap()
    }

    pub fn does(&self, sql: &str) -> String {
        let output = self.sql(sql);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The tables of the tests, and a role that can read them.
    pub fn with_orders() -> Self {
        let postgres = Self::start();
        postgres.does(&format!(
            "CREATE TABLE shop_order (id bigint PRIMARY KEY, customer integer, placed_on date, total numeric(20,2), note text, tags text[], seen timestamptz, raw bytea, extra jsonb);
             INSERT INTO shop_order VALUES (1, 7, '2026-02-28', 12345678901234567.10, 'first', '{{a,b}}', '2026-01-02 03:04:05.5+00', '\\x00ff', '{{\"n\": 9007199254740993}}'),
                                           (9007199254740993, 7, '1999-12-31', -0.05, NULL, NULL, NULL, NULL, NULL), (3, 8, NULL, 0, 'x', '{{}}', NULL, NULL, NULL);
             CREATE TABLE secret (a text); INSERT INTO secret VALUES ('hidden');
             CREATE SEQUENCE counter;
             CREATE FUNCTION quiet() RETURNS int LANGUAGE sql STABLE SECURITY DEFINER AS 'SELECT 1';
             CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}';
             GRANT USAGE ON SCHEMA public TO reader; REVOKE CREATE ON SCHEMA public FROM PUBLIC;
             GRANT SELECT ON shop_order TO reader;"
        ));
        postgres
    }

    /// What all tables hold, and how many sessions, locks and large objects there are beside our own.
    fn state(&self) -> String {
        self.does(
            "SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM shop_order t; SELECT md5(string_agg(s::text, ',')) FROM secret s; \
             SELECT last_value, is_called FROM counter; SELECT count(*) FROM pg_largeobject_metadata; SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace; \
             SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'; SELECT count(*) FROM pg_roles; SELECT count(*) FROM pg_extension",
        )
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGQUIT ends it and all its processes at once.
        if let Some(pid) = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        }
        let _ = self.child.wait();
        // Files of another user.
        let _ = command("rm").arg("-rf").arg(self.dir.path().join("data")).status();
    }
}

fn configured(postgres: &Postgres, dir: &Path, user: &str, password: &str) -> String {
    let secret = dir.join("password");
    std::fs::write(&secret, password).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    format!(
        "[sources.orders]\nkind = \"sql\"\ndatabase = \"postgres://{user}@127.0.0.1:{}/postgres\"\npassword = \"file:{}\"\n\
         timeout = \"2s\"\ndescribe = true\nselect = true\nmax_rows = 100\n\
         [sources.orders.queries.of_customer]\ndescription = \"d\"\n\
         sql = \"SELECT id, placed_on, total FROM shop_order WHERE customer = :customer AND placed_on > :since ORDER BY id\"\n\
         params.customer = {{ type = \"integer\" }}\nparams.since = {{ default = \"1990-01-01\" }}\n\
         [tools]\n\"orders_*\" = \"docs.read\"\n",
        postgres.port,
        secret.display()
    )
}

async fn select(app: &TestApp, token: &str, sql: &str) -> Value {
    call(app, token, "orders_select", json!({ "sql": sql })).await
}

/// SQL-01, SQL-02: queries, free SELECTs and the tables; each value as it is, and nothing rounded.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_read() {
    let (postgres, dir) = (Postgres::with_orders(), tempfile::tempdir().unwrap());
    let app = TestApp::start_configured(&configured(&postgres, dir.path(), "reader", PASSWORD)).await;
    let token = token(&app).await;
    let found = call(&app, &token, "orders_of_customer", json!({ "customer": 7 })).await;
    let data = json!({ "columns": ["id", "placed_on", "total"],
        "rows": [[1, "2026-02-28", "12345678901234567.10"], ["9007199254740993", "1999-12-31", "-0.05"]], "truncated": false });
    assert_eq!(found["structuredContent"], data, "{found}");
    let odd =
        call(&app, &token, "orders_of_customer", json!({ "customer": 7, "since": "yesterday or so'; --" }))
            .await;
    assert!(error(&odd).contains("invalid input syntax for type date"), "{odd}");
    let all = select(&app, &token, "SELECT note, tags, seen, raw, extra, 1.5::float8, 'NaN'::numeric, gen FROM shop_order, generate_series(1, 1) gen WHERE id = 1").await;
    let row = json!(["first", ["a", "b"], "2026-01-02T03:04:05.500000Z", "AP8=", { "n": "9007199254740993" }, 1.5, "NaN", 1]);
    assert_eq!(all["structuredContent"]["rows"], json!([row]), "{all}");
    let many = select(&app, &token, "SELECT * FROM generate_series(1, 1000)").await;
    assert_eq!(
        (
            many["structuredContent"]["rows"].as_array().unwrap().len(),
            &many["structuredContent"]["truncated"]
        ),
        (100, &json!(true))
    );
    let described = call(&app, &token, "orders_describe", json!({})).await;
    let text = described["structuredContent"].to_string();
    assert!(text.contains("shop_order") && text.contains("placed_on") && !text.contains("secret"), "{text}");
    let wrong = select(&app, &token, "SELECT costumer FROM shop_order").await;
    assert!(error(&wrong).contains("does not exist") && error(&wrong).contains("Hint"), "{wrong}");
    let unknown = select(&app, &token, "SELECT now() - now() AS age").await;
    assert!(error(&unknown).contains("select age::text"), "{unknown}");
    let seen = format!("{found}{odd}{wrong}{}", json!(app.audit()));
    assert!(!seen.contains(PASSWORD));
}

/// SQL-01: after every attempt the database is what it was, the answer is an error in time, and the next call finds a clean
/// connection.
#[tokio::test(flavor = "multi_thread")]
async fn no_statement_gets_around_the_server() {
    let (postgres, dir) = (Postgres::with_orders(), tempfile::tempdir().unwrap());
    let app = TestApp::start_configured(&configured(&postgres, dir.path(), "reader", PASSWORD)).await;
    let token = token(&app).await;
    let before = postgres.state();
    for sql in [
        "DELETE FROM shop_order",
        "SELECT 1; DELETE FROM shop_order",
        "SELECT 1 /* ; */ ; -- x\n DELETE FROM shop_order",
        "WITH gone AS (DELETE FROM shop_order RETURNING *) SELECT * FROM gone",
        "WITH new AS (INSERT INTO shop_order (id) VALUES (99) RETURNING *) SELECT * FROM new",
        "SELECT * INTO copy FROM shop_order",
        "SELECT * FROM shop_order FOR UPDATE",
        "COPY shop_order TO PROGRAM 'id > /tmp/x'",
        "COPY shop_order TO '/tmp/x'",
        "SELECT lo_export(1, '/tmp/x')",
        "SELECT lo_import('/etc/passwd')",
        "SELECT lo_creat(-1)",
        "SELECT dblink('dbname=postgres', 'DELETE FROM shop_order')",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT * FROM pg_ls_dir('/')",
        "SELECT pg_terminate_backend(pid) FROM generate_series(1, 10000) pid",
        "SELECT pg_cancel_backend(1)",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_try_advisory_lock_shared(1)",
        "SELECT set_config('transaction_read_only', 'off', false)",
        "SELECT set_config('statement_timeout', '0', false)",
        "SELECT pg_catalog.set_config('role', 'postgres', false)",
        "SELECT \"set_config\"('statement_timeout', '0', false)",
        "SELECT SET_CONFIG('statement_timeout', '0', false)",
        "SELECT nextval('counter')",
        "SELECT setval('counter', 99)",
        "SELECT * FROM nextval('counter')",
        "SELECT 1 ORDER BY nextval('counter')",
        "SELECT query_to_xml('SELECT nextval(''counter'')', true, true, '')",
        "SELECT quiet()",
        "SELECT pg_sleep(100)",
        "SELECT pg_notify('a', 'b')",
        "SELECT pg_reload_conf()",
        "SELECT pg_switch_wal()",
        "SET ROLE postgres",
        "RESET ALL",
        "BEGIN READ WRITE",
        "COMMIT",
        "DO 'BEGIN DELETE FROM shop_order; END'",
        "PREPARE x AS DELETE FROM shop_order",
        "LISTEN x",
        "LOCK TABLE shop_order",
        "EXPLAIN ANALYZE DELETE FROM shop_order",
        "CREATE TABLE x (a int)",
        "CREATE TEMP TABLE x (a int)",
        "VACUUM",
        "SELECT * FROM secret",
        "SELECT rolpassword FROM pg_authid",
        "SELECT query FROM pg_stat_activity",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
        "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b",
        "SELECT repeat('x', 1000000000)",
        "SELECT repeat('x', 100000000) FROM generate_series(1, 100)",
        "",
    ] {
        let begun = Instant::now();
        let refused = select(&app, &token, sql).await;
        assert!(!error(&refused).is_empty() && begun.elapsed() < Duration::from_secs(10), "{sql}: {refused}");
        let next = select(&app, &token, "SELECT current_setting('statement_timeout'), current_setting('transaction_read_only'), count(*) FROM shop_order").await;
        assert_eq!(next["structuredContent"]["rows"], json!([["2s", "on", 3]]), "after {sql}: {next}");
    }
    // A regular expression that costs much is answered or ended, both in time.
    let begun = Instant::now();
    select(&app, &token, "SELECT repeat('a', 1000000) ~ '(a*)*(a*)*(a*)*\\1\\2\\3b'").await;
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(postgres.state(), before);
}

/// SQL-01: a role that could do more than read is refused before anything is run, with the reason; a wrong password is told,
/// and not shown.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_write_is_refused() {
    let (postgres, dir) = (Postgres::with_orders(), tempfile::tempdir().unwrap());
    for (make, says) in [
        ("CREATE ROLE odd LOGIN SUPERUSER", "is a superuser"),
        ("CREATE ROLE odd LOGIN CREATEROLE", "may create roles"),
        ("CREATE ROLE odd LOGIN IN ROLE pg_read_server_files", "reads or writes the server's files"),
        ("CREATE ROLE odd LOGIN IN ROLE pg_execute_server_program", "runs programs"),
        ("CREATE ROLE odd LOGIN IN ROLE pg_signal_backend", "ends sessions"),
        ("CREATE ROLE odd LOGIN IN ROLE postgres", "is a member of a role"),
        (
            "CREATE ROLE odd LOGIN; GRANT INSERT ON shop_order TO odd; GRANT USAGE ON SCHEMA public TO odd",
            "may write to a table",
        ),
        ("CREATE ROLE odd LOGIN; GRANT UPDATE (note) ON shop_order TO odd", "may write to a table"),
        ("CREATE ROLE odd LOGIN; GRANT USAGE ON SEQUENCE counter TO odd", "may advance a sequence"),
        ("CREATE ROLE odd LOGIN; GRANT CREATE ON SCHEMA public TO odd", "may create things"),
        ("CREATE ROLE odd LOGIN; GRANT CREATE ON DATABASE postgres TO odd", "may create schemas"),
    ] {
        postgres.does(&format!("{make}; ALTER ROLE odd PASSWORD '{PASSWORD}'"));
        let app = TestApp::start_configured(&configured(&postgres, dir.path(), "odd", PASSWORD)).await;
        let token = token(&app).await;
        let refused = select(&app, &token, "SELECT 1").await;
        assert!(
            error(&refused).contains(says) && error(&refused).contains("Nothing was done"),
            "{make}: {refused}"
        );
        postgres.does("DROP OWNED BY odd; DROP ROLE odd");
    }
    let app = TestApp::start_configured(&configured(&postgres, dir.path(), "reader", "canary-wrong")).await;
    let token = token(&app).await;
    let refused = select(&app, &token, "SELECT 1").await;
    assert!(
        error(&refused).contains("password authentication failed") && !error(&refused).contains("canary"),
        "{refused}"
    );
}

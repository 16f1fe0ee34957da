mod dialect;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use crate::audit::{self, Event, Name};
use crate::clock::Timestamp;
use crate::schema::SCHEMA;

fn open() -> (tempfile::TempDir, Db) {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(&dir.path().join("x.db"), &SCHEMA, None, &Clock::held(Timestamp(1000))).unwrap();
    (dir, db)
}

fn insert(tx: &Tx<'_>, name: &str) -> Result<(), Fault> {
    tx.execute(
        "INSERT INTO user (id, name, role, handle, created_at) VALUES (?1, ?1, 'none', ?2, 0)",
        params![name, name.as_bytes()],
    )?;
    audit::append(tx, Event::allowed(Name::UserCreated).subject(name))
}

fn names(db: &Db) -> Vec<String> {
    db.read(|c| c.query("SELECT name FROM user ORDER BY name", [], |r| r.get(0))).unwrap()
}

/// STORE-02: a refusal keeps its writes; a fault or a panic rolls back only its own job, including its audit
/// records.
#[test]
fn each_job_of_a_batch_stands_or_falls_alone() {
    let (_dir, db) = open();
    let blocker = Arc::new(std::sync::Barrier::new(2));
    let mut waiting = Vec::new();
    {
        // Hold the writer, so that the next four jobs share one batch.
        let blocker = Arc::clone(&blocker);
        let hold = move |_: &Tx<'_>| {
            blocker.wait();
            Ok(())
        };
        waiting.push(db.0.writer.submit(Durability::Full, hold).unwrap());
    }
    waiting.push(db.0.writer.submit(Durability::Full, |tx| insert(tx, "kept")).unwrap());
    waiting.push(
        db.0.writer
            .submit(Durability::Full, |tx| {
                insert(tx, "fault")?;
                Err(Fault::Busy)
            })
            .unwrap(),
    );
    waiting.push(
        db.0.writer
            .submit(Durability::Full, |tx| -> Result<(), Fault> {
                insert(tx, "panic")?;
                panic!("a bug in a job")
            })
            .unwrap(),
    );
    waiting.push(db.0.writer.submit(Durability::Full, |tx| insert(tx, "last")).unwrap());
    blocker.wait();
    let answers: Vec<bool> = waiting.into_iter().map(|w| w.blocking_recv().unwrap().is_ok()).collect();
    assert_eq!(answers, [true, true, false, false, true]);
    assert_eq!(names(&db), ["kept", "last"]);
    let verified = db.read(audit::verify).unwrap().unwrap();
    assert_eq!(verified.records, 2);
}

/// STORE-02: a job of one statement that fails has changed nothing, and no other job is touched. If it has changed something, its
/// batch fails with it.
#[test]
fn a_job_of_one_statement_undoes_itself() {
    let (_dir, db) = open();
    db.write_blocking(|tx| insert(tx, "before")).unwrap();
    let batch = |broken: fn(&Tx<'_>) -> Result<(), Fault>| {
        let blocker = Arc::new(std::sync::Barrier::new(2));
        let held = Arc::clone(&blocker);
        let hold = move |_: &Tx<'_>| {
            held.wait();
            held.wait();
            Ok(())
        };
        let writer = &db.0.writer;
        let held_up = writer.submit(Durability::Full, hold).unwrap();
        // It runs now, so the next three are in one batch after it.
        blocker.wait();
        let record = |tx: &Tx<'_>| audit::append(tx, Event::allowed(Name::McpCall));
        let waiting = [
            writer.queue(Durability::Full, Undone::ByItself, record).unwrap(),
            writer.queue(Durability::Full, Undone::ByItself, broken).unwrap(),
            writer.queue(Durability::Full, Undone::ByItself, record).unwrap(),
        ];
        blocker.wait();
        held_up.blocking_recv().unwrap().unwrap();
        waiting.map(|answer| answer.blocking_recv().unwrap().is_ok())
    };
    assert_eq!(batch(|tx| insert(tx, "before")), [true, false, true]);
    assert_eq!(db.read(audit::verify).unwrap().unwrap().records, 3);
    let broken = |tx: &Tx<'_>| insert(tx, "lost").and(Err(Fault::Busy));
    assert_eq!(batch(broken), [false, false, false]);
    assert_eq!(batch(|tx| insert(tx, "lost").map(|()| panic!("a bug in a job"))), [false, false, false]);
    assert_eq!(names(&db), ["before"]);
    db.write_blocking(|tx| insert(tx, "after")).unwrap();
    assert_eq!(db.read(audit::verify).unwrap().unwrap().records, 4);
}

/// STORE-02: if SQLite drops the transaction (here: the database may not grow), every job of the batch fails,
/// the audit head goes back, memory is reloaded, and the next write works.
#[test]
fn a_vanished_transaction_refuses_the_whole_batch() {
    let (_dir, db) = open();
    db.write_blocking(|tx| insert(tx, "before")).unwrap();
    let reloads = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&reloads);
    db.on_reload(move || {
        counter.fetch_add(1, Ordering::SeqCst);
    });

    let full = db.write_blocking(|tx| {
        insert(tx, "lost")?;
        tx.execute("PRAGMA max_page_count = 1", [])?;
        tx.query_row("SELECT 1", [], |_| Ok(()))?;
        // Far more than the available pages.
        let big = "x".repeat(200_000);
        for i in 0..20_u8 {
            tx.execute(
                "INSERT INTO user (id, name, role, handle, created_at) VALUES (?1, ?2, 'none', ?3, 0)",
                params![format!("{i}"), format!("{i}{big}"), vec![i]],
            )?;
        }
        Ok(())
    });
    assert!(matches!(full, Err(Fault::Storage(_))), "{full:?}");
    assert_eq!(names(&db), ["before"]);
    db.write_blocking(|tx| {
        tx.query_row("PRAGMA max_page_count = 1000000", [], |_| Ok(()))?;
        insert(tx, "after")
    })
    .unwrap();
    assert_eq!(names(&db), ["after", "before"]);
    assert_eq!(db.read(audit::verify).unwrap().unwrap().records, 2);
}

/// RS-08: revocations are published before the commit, permissions after it, and neither for a failed job.
#[test]
fn effects_run_around_the_commit_and_only_if_the_job_stands() {
    let (_dir, db) = open();
    let log: Arc<Mutex<Vec<&str>>> = Arc::default();
    let note = |what: &'static str| {
        let log = Arc::clone(&log);
        move || log.lock().unwrap().push(what)
    };
    let (before, after, never) = (note("before"), note("after"), note("never"));
    db.write_blocking(move |tx| {
        tx.after_commit(after);
        tx.before_commit(before);
        Ok(())
    })
    .unwrap();
    let failed: Result<(), Fault> = db.write_blocking(move |tx| {
        tx.before_commit(never);
        Err(Fault::Busy)
    });
    assert!(failed.is_err());
    assert_eq!(*log.lock().unwrap(), ["before", "after"]);
}

/// STORE-05: a newer schema, and another program's file, are refused and not changed.
#[test]
fn newer_and_foreign_databases_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.db");
    let clock = Clock::held(Timestamp(1));
    drop(Db::open(&path, &SCHEMA, None, &clock).unwrap());
    let raw = Connection::open(&path).unwrap();
    raw.pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(Db::open(&path, &SCHEMA, None, &clock), Err(OpenError::Newer { found: 99, .. })));
    raw.pragma_update(None, "user_version", u32::try_from(SCHEMA.migrations.len()).unwrap()).unwrap();
    raw.pragma_update(None, "application_id", 7).unwrap();
    assert!(matches!(Db::open(&path, &SCHEMA, None, &clock), Err(OpenError::Foreign(_))));
    let text = dir.path().join("text.db");
    std::fs::write(&text, "this is no database, and long enough to have a header of one hundred bytes ......................................").unwrap();
    assert!(Db::open(&text, &SCHEMA, None, &clock).is_err());
}

/// STORE-05: a migration copies the old file first, and is atomic.
#[test]
fn a_migration_keeps_a_copy_and_is_atomic() {
    const ONE: Schema = Schema {
        application_id: 7,
        migrations: &["CREATE TABLE a (x INTEGER) STRICT; INSERT INTO a VALUES (1);"],
        audited: false,
    };
    const BAD: Schema = Schema {
        application_id: 7,
        migrations: &["", "ALTER TABLE a ADD COLUMN y INTEGER; nonsense;"],
        audited: false,
    };
    const TWO: Schema = Schema {
        application_id: 7,
        migrations: &["", "ALTER TABLE a ADD COLUMN y INTEGER;"],
        audited: false,
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.db");
    let clock = Clock::held(Timestamp(1));
    drop(Db::open(&path, &ONE, Some(dir.path()), &clock).unwrap());
    assert!(Db::open(&path, &BAD, None, &clock).is_err());
    let db = Db::open(&path, &TWO, Some(dir.path()), &clock).unwrap();
    let row = db
        .read(|c| c.query_row("SELECT x, y FROM a", [], |r| Ok((r.get::<i64>(0)?, r.get::<Option<i64>>(1)?))))
        .unwrap();
    assert_eq!(row, Some((1, None)));
    assert!(dir.path().join("before-schema-2-1.db").exists());
}

/// The commented schema matches the result of the migrations.
#[test]
fn schema_sql_is_where_the_migrations_arrive() {
    let shape = |script: &str| -> Vec<(String, String)> {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(script).unwrap();
        let mut statement =
            db.prepare("SELECT name, coalesce(sql, '') FROM sqlite_schema ORDER BY name").unwrap();
        let rows = statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?))).unwrap();
        // SQLite quotes the name of a renamed table, and puts an added column on the last one's line.
        let plain = |sql: String| sql.chars().filter(|c| *c != '"' && !c.is_whitespace()).collect();
        rows.map(Result::unwrap).map(|(name, sql): (String, String)| (name, plain(sql))).collect()
    };
    assert_eq!(shape(&SCHEMA.migrations.concat()), shape(include_str!("../../schema.sql")));
}

/// PKCE-05: the schema refuses a code without a challenge.
#[test]
fn the_schema_refuses_a_code_without_a_challenge() {
    let (_dir, db) = open();
    for challenge in [None, Some("short")] {
        let refused = db.write_blocking(move |tx| {
            tx.execute("INSERT INTO authorization_code (digest, grant_id, redirect_uri, code_challenge, expires_at) VALUES (x'00', 'g', 'u', ?1, 0)", params![challenge])
        });
        assert!(refused.is_err());
    }
}

/// STORE-05: a migration that recreates a table keeps rows that refer to it.
#[test]
fn a_migrated_client_keeps_its_grants() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.db");
    let older = Schema { migrations: &SCHEMA.migrations[..2], ..SCHEMA };
    let clock = Clock::held(Timestamp(1));
    let db = Db::open(&path, &older, None, &clock).unwrap();
    db.write_blocking(|tx| {
        for sql in [
            "INSERT INTO user (id, name, role, handle, created_at) VALUES ('u_1', 'ada', 'admin', x'01', 1)",
            "INSERT INTO client (id, name, source, trust, auth_method, application_type, grant_types, metadata, created_at)
             VALUES ('dyn_1', 'one', 'self_registered', 'known', 'none', 'native', 'authorization_code', '{}', 1)",
            "INSERT INTO client_redirect_uri (client_id, uri) VALUES ('dyn_1', 'http://localhost/')",
            "INSERT INTO access_grant (id, user_id, client_id, resource, scope, amr, auth_time, created_at, expires_at)
             VALUES ('g_1', 'u_1', 'dyn_1', 'r', 's', 'hwk', 1, 1, 9)",
        ] {
            tx.execute(sql, [])?;
        }
        Ok(())
    })
    .unwrap();
    drop(db);
    let db = Db::open(&path, &SCHEMA, None, &clock).unwrap();
    let kept = db.read(|conn| {
        conn.query_row(
            "SELECT g.id FROM access_grant g JOIN client c ON c.id = g.client_id JOIN client_redirect_uri r ON r.client_id = c.id",
            [],
            |row| row.get::<String>(0),
        )
    });
    assert_eq!(kept.unwrap().as_deref(), Some("g_1"));
    let orphan = db.write_blocking(|tx| tx.execute("DELETE FROM client", []).map(|_| ()));
    assert!(orphan.is_ok(), "{orphan:?}");
    let left =
        db.read(|conn| conn.query_row("SELECT count(*) FROM access_grant", [], |row| row.get::<u32>(0)));
    assert_eq!(left.unwrap(), Some(0), "foreign keys are on again");
}

/// OPS-04: time does not go back across a restart, not even after a kill; an administrator can confirm the
/// clock.
#[test]
fn time_goes_on_from_where_the_last_process_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.db");
    let open = |clock: &Clock| Db::open(&path, &SCHEMA, None, clock).unwrap();
    let now = |db: &Db| db.write_blocking(|tx| Ok(tx.now())).unwrap();
    let clock = Clock::held(Timestamp(1_000_000));
    let db = open(&clock);
    assert_eq!(now(&db), Timestamp(1_000_000));
    clock.advance(Duration::from_secs(1));
    assert_eq!(now(&db), Timestamp(1_001_000));

    // The first database was not closed, as after a kill.
    let set_back = Clock::held(Timestamp(500_000));
    let again = open(&set_back);
    assert!(set_back.is_behind());
    assert_eq!(now(&again), Timestamp(1_001_000));
    let told = set_back.clone();
    again.write_blocking(move |tx| crate::timekeeping::restart(tx, &told)).unwrap();
    assert_eq!(now(&again), Timestamp(500_000));
    assert!(!set_back.is_behind());
    drop(again);

    let last = Clock::held(Timestamp(400_000));
    assert_eq!(now(&open(&last)), Timestamp(500_000));
}

/// OPS-04: a confirmation of the clock is rolled back with its transaction.
#[test]
fn a_clock_is_not_restarted_by_a_job_that_failed() {
    let (_dir, db) = open();
    let clock = Clock::held(Timestamp(10));
    clock.at_least(Timestamp(1000));
    let told = clock.clone();
    let failed = db.write_blocking(move |tx| -> Result<(), Fault> {
        crate::timekeeping::restart(tx, &told)?;
        Err(Fault::Busy)
    });
    assert!(failed.is_err());
    assert_eq!(clock.now(), Timestamp(1000));
}

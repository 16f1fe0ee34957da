//! The value of group commit: durable writes one after another, compared with committing all waiting ones
//! together (STORE-02). The two take turns in each round, because other work on the machine varies; only the
//! ratio can be compared between machines.
//!
//! Each row is like a refresh token's: a 32-byte digest as the key, five columns, one index.

mod machine;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use shared::audit::{self, Event, Name};
use shared::data_dir::Heads;
use shared::db::{OpenError, Schema, params};
use shared::{Clock, Db, Digest, Fault, Tx};
use tokio::runtime::Runtime;

/// The number of rounds, and the length of a turn.
const ROUNDS: usize = 3;
const TURN: Duration = Duration::from_secs(1);
/// The number of concurrent callers, and of rows in a commit of the raw yardstick.
const CALLERS: usize = 64;
/// The number of rows in each table before the measurement, so that the faster side's table is not the only
/// large one.
const PRESENT: usize = 10_000;
/// The target for group commit applies from this sync time on: on a faster disk there is little to share.
const SLOW_DISK: Duration = Duration::from_millis(1);

const TABLE: &str = "CREATE TABLE token (
    digest     BLOB PRIMARY KEY,
    grant_id   TEXT NOT NULL,
    generation INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    rotated_at INTEGER,
    UNIQUE (grant_id, generation)
) STRICT, WITHOUT ROWID;";
const INSERT: &str = "INSERT INTO token (digest, grant_id, generation, created_at, expires_at, rotated_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const SCHEMA: Schema = Schema { application_id: 0x5043_424E, migrations: &[TABLE], audited: false };
/// The same with an audit record for each row.
const AUDITED: Schema = Schema {
    application_id: 0x5043_424E,
    migrations: &[
        TABLE,
        "CREATE TABLE audit (seq INTEGER PRIMARY KEY, record TEXT NOT NULL, hash BLOB NOT NULL) STRICT;
         CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;",
    ],
    audited: true,
};

fn main() {
    if !machine::ready("store") {
        return;
    }
    let parent = machine::directory();
    let dir = tempfile::tempdir_in(&parent).expect("PORTCULLIS_BENCH_DIR is a directory to write to");
    let (kind, device) = machine::file_system(dir.path());
    println!("file system: {kind} on {device}, at {}", parent.display());
    assert!(kind != "tmpfs" && kind != "ramfs", "memory is no disk; name another PORTCULLIS_BENCH_DIR");

    let fsync = fsync(dir.path());
    println!("fsync_ms {:.3}", fsync.as_secs_f64() * 1e3);

    let runtime = Runtime::new().expect("threads can be started");
    let clock = Clock::system();
    let plain = |name: &str, schema| Db::open(&dir.path().join(name), schema, None, &clock);
    let mirrored = |name: &str| {
        let (database, head) = (dir.path().join(name), dir.path().join(name).with_extension("head"));
        Db::open_mirrored(&database, &Heads { beside: head, elsewhere: None }, &AUDITED, None, &clock)
    };
    let written =
        |db: Result<Db, OpenError>, audited| Written::new(db.expect("a database can be made"), audited);
    let single = written(plain("single.db", &SCHEMA), false);
    let grouped = written(plain("grouped.db", &SCHEMA), false);
    let audited_single = written(plain("audited-single.db", &AUDITED), true);
    let mirrored_single = written(mirrored("mirrored-single.db"), true);
    let audited_grouped = written(plain("audited-grouped.db", &AUDITED), true);
    let mirrored_grouped = written(mirrored("mirrored-grouped.db"), true);
    let raw_single = Raw::new(&dir.path().join("raw-single.db"));
    let raw_grouped = Raw::new(&dir.path().join("raw-grouped.db"));

    let mut sides = [
        Side::new("raw SQLite, one row a commit", || raw_single.run(1)),
        Side::new("Db::write, one caller", || single.run(&runtime, 1)),
        Side::new("raw SQLite, 64 rows a commit", || raw_grouped.run(CALLERS)),
        Side::new("Db::write, 64 callers", || grouped.run(&runtime, CALLERS)),
        Side::new("audited, one caller", || audited_single.run(&runtime, 1)),
        Side::new("audited and noted, one caller", || mirrored_single.run(&runtime, 1)),
        Side::new("audited, 64 callers", || audited_grouped.run(&runtime, CALLERS)),
        Side::new("audited and noted, 64 callers", || mirrored_grouped.run(&runtime, CALLERS)),
    ];
    for _ in 0..ROUNDS {
        for side in &mut sides {
            side.measure();
        }
    }
    let [
        raw_single,
        single,
        raw_grouped,
        grouped,
        audited_single,
        mirrored_single,
        audited_grouped,
        mirrored_grouped,
    ] = sides.map(Side::report);

    machine::load_after();
    machine::ratio(
        "compared: rows/s of raw SQLite and of one caller of Db::write, both one commit a row",
        "db_write_over_raw",
        single / raw_single,
    );
    machine::ratio(
        "compared: rows/s of 64 callers of Db::write and of raw SQLite with 64 rows a commit, no savepoints, nobody to answer",
        "group_commit_over_raw_batches",
        grouped / raw_grouped,
    );
    let aim = if fsync < SLOW_DISK {
        "no aim here, as an fsync takes less than 1 ms"
    } else {
        "the aim is 20 or more"
    };
    machine::ratio(
        &format!(
            "compared: rows/s of 64 callers of Db::write and of raw SQLite with one row a commit (synchronous=FULL, WAL); {aim}"
        ),
        "group_commit_over_single",
        grouped / raw_single,
    );
    machine::ratio(
        "compared: rows/s of one caller whose records are noted outside the database, and not",
        "noted_over_audited_single",
        mirrored_single / audited_single,
    );
    machine::ratio(
        "compared: rows/s of 64 callers whose records are noted outside the database, and not",
        "noted_over_audited_grouped",
        mirrored_grouped / audited_grouped,
    );
}

/// The time that the disk takes to make a small appended write durable.
fn fsync(dir: &Path) -> Duration {
    let mut file = std::fs::File::create(dir.join("appended")).expect("the directory can be written to");
    machine::median((0..200).map(|_| {
        file.write_all(&[7; 128]).expect("the disk has room");
        let begun = Instant::now();
        file.sync_all().expect("the disk works");
        begun.elapsed()
    }))
}

/// One way of writing rows, and its results so far.
struct Side<'a> {
    name: &'static str,
    run: Box<dyn FnMut() -> Turn + 'a>,
    turns: Vec<Turn>,
}

/// The result of a turn.
struct Turn {
    took: Duration,
    commits: usize,
    /// The waiting time of each write.
    waits: Vec<Duration>,
}

impl<'a> Side<'a> {
    fn new(name: &'static str, run: impl FnMut() -> Turn + 'a) -> Self {
        Self { name, run: Box::new(run), turns: Vec::new() }
    }

    fn measure(&mut self) {
        self.turns.push((self.run)());
    }

    /// Prints the median of the turns; returns rows per second.
    fn report(mut self) -> f64 {
        let rows = machine::median(self.turns.iter().map(|t| machine::per_second(t.waits.len(), t.took)));
        let batch = machine::median(
            self.turns.iter().map(|t| machine::number(t.waits.len()) / machine::number(t.commits)),
        );
        let mut wait = |percent| {
            let of_turn = self.turns.iter_mut().map(|t| machine::percentile(&mut t.waits, percent));
            machine::median(of_turn).as_secs_f64() * 1e3
        };
        let (p50, p99) = (wait(50), wait(99));
        let name = self.name;
        println!("{name:<30} {rows:>8.0} rows/s  p50 {p50:.3} ms  p99 {p99:.3} ms  {batch:.1} rows a commit");
        rows
    }
}

/// A row to write. Each has a different random key, like a digest.
struct Row {
    digest: Digest,
    grant: String,
    at: i64,
}

impl Row {
    fn numbered(n: u64) -> Self {
        let grant = Digest::of(&[&b"grant"[..], &n.to_be_bytes()].concat());
        let grant = format!("g_{}", data_encoding::HEXLOWER.encode(&grant.0[..13]));
        Self { digest: Digest::of(&n.to_be_bytes()), grant, at: 1_800_000_000_000 }
    }

    fn insert(&self, tx: &Tx<'_>) -> Result<(), Fault> {
        let (created, expires) = (self.at, self.at + 2_592_000_000);
        tx.execute(INSERT, params![self.digest, self.grant, 1, created, expires, None::<i64>])?;
        Ok(())
    }

    fn insert_raw(&self, connection: &Connection) {
        let (created, expires) = (self.at, self.at + 2_592_000_000);
        connection
            .prepare_cached(INSERT)
            .and_then(|mut s| {
                let digest = self.digest.0.as_slice();
                s.execute(rusqlite::params![digest, self.grant, 1, created, expires, None::<i64>])
            })
            .expect("the disk has room");
    }
}

/// The yardstick: one connection that its caller uses directly.
struct Raw {
    connection: Connection,
    next: AtomicU64,
}

impl Raw {
    fn new(path: &Path) -> Self {
        let connection = Connection::open(path).expect("a database can be made");
        let set = |pragma, value: &str| connection.pragma_update(None, pragma, value).expect("a pragma");
        set("journal_mode", "WAL");
        set("synchronous", "FULL");
        connection.execute_batch(TABLE).expect("the schema is SQL");
        let raw = Self { connection, next: AtomicU64::new(0) };
        raw.commit(PRESENT);
        raw
    }

    fn run(&self, rows: usize) -> Turn {
        let (begun, mut commits, mut waits) = (Instant::now(), 0, Vec::new());
        while begun.elapsed() < TURN {
            let wait = Instant::now();
            self.commit(rows);
            commits += 1;
            waits.extend(std::iter::repeat_n(wait.elapsed(), rows));
        }
        Turn { took: begun.elapsed(), commits, waits }
    }

    fn commit(&self, rows: usize) {
        let statement = |sql| {
            self.connection.prepare_cached(sql).and_then(|mut s| s.execute([])).expect("the disk works");
        };
        statement("BEGIN IMMEDIATE");
        for _ in 0..rows {
            Row::numbered(self.next.fetch_add(1, Ordering::Relaxed)).insert_raw(&self.connection);
        }
        statement("COMMIT");
    }
}

/// The measured side: a [`Db`], written to by tasks like the server's handlers.
struct Written {
    db: Db,
    /// Whether each row comes with an audit record.
    audited: bool,
    count: Arc<Count>,
}

/// State shared by all callers of a database.
#[derive(Default)]
struct Count {
    next: AtomicU64,
    commits: AtomicUsize,
    committed: AtomicBool,
}

impl Count {
    /// The whole job for a row. The first job after a commit counts as a new commit.
    fn job(self: &Arc<Self>, tx: &Tx<'_>, row: &Row) -> Result<(), Fault> {
        if self.committed.swap(false, Ordering::Relaxed) {
            self.commits.fetch_add(1, Ordering::Relaxed);
        }
        let count = Arc::clone(self);
        tx.after_commit(move || count.committed.store(true, Ordering::Relaxed));
        row.insert(tx)
    }
}

impl Written {
    fn new(db: Db, audited: bool) -> Self {
        let count = Arc::new(Count::default());
        let filling = Arc::clone(&count);
        db.write_blocking(move |tx| {
            for _ in 0..PRESENT {
                filling.job(tx, &Row::numbered(filling.next.fetch_add(1, Ordering::Relaxed)))?;
            }
            Ok(())
        })
        .expect("the disk has room");
        Self { db, audited, count }
    }

    fn run(&self, runtime: &Runtime, callers: usize) -> Turn {
        let commits_before = self.count.commits.load(Ordering::Relaxed);
        let begun = Instant::now();
        let tasks: Vec<_> = (0..callers)
            .map(|_| {
                runtime.spawn(call(self.db.clone(), self.audited, Arc::clone(&self.count), begun + TURN))
            })
            .collect();
        let waits = tasks
            .into_iter()
            .flat_map(|task| runtime.block_on(task).expect("a caller does not panic"))
            .collect();
        let took = begun.elapsed();
        Turn { took, commits: self.count.commits.load(Ordering::Relaxed) - commits_before, waits }
    }
}

/// One caller: repeatedly writes a row and waits until it is durable.
async fn call(db: Db, audited: bool, count: Arc<Count>, end: Instant) -> Vec<Duration> {
    let mut waits = Vec::new();
    while Instant::now() < end {
        let begun = Instant::now();
        let row = Row::numbered(count.next.fetch_add(1, Ordering::Relaxed));
        let count = Arc::clone(&count);
        let job = move |tx: &Tx<'_>| {
            count.job(tx, &row)?;
            if audited {
                audit::append(tx, Event::allowed(Name::TokenIssued).subject(&row.grant))
            } else {
                Ok(())
            }
        };
        db.write(job).await.expect("the disk has room");
        waits.push(begun.elapsed());
    }
    waits
}

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::audit::{self, Event, Name};
use crate::clock::{Clock, Timestamp};
use crate::data_dir::Heads;
use crate::db::{Db, Durability, params};
use crate::schema::SCHEMA;

/// A database and the file beside it.
struct TestDatabase(tempfile::TempDir);

impl TestDatabase {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn database(&self) -> PathBuf {
        self.0.path().join("x.db")
    }

    fn head(&self) -> PathBuf {
        self.0.path().join("audit.head")
    }

    fn open(&self) -> Result<Db, OpenError> {
        Db::open_mirrored(
            &self.database(),
            &beside(self.head()),
            &SCHEMA,
            None,
            &Clock::held(Timestamp(1000)),
        )
    }

    /// Opens, records and closes.
    fn record(&self, names: &[&'static str]) {
        let db = self.open().unwrap();
        for name in names {
            record(&db, name);
        }
    }

    fn noted(&self) -> i64 {
        read(&self.head()).unwrap().unwrap().head.seq()
    }

    fn refused(&self) -> MirrorError {
        match self.open() {
            Err(OpenError::Mirror(refused)) => refused,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it was opened"),
        }
    }
}

fn beside(head: PathBuf) -> Heads {
    Heads { beside: head, elsewhere: None }
}

fn event(name: &str) -> Event {
    Event::allowed(Name::UserCreated).subject(name)
}

fn record(db: &Db, name: &'static str) {
    db.write_blocking(move |tx| audit::append(tx, event(name))).unwrap();
}

/// STORE-06, AUDIT-03: a copy from before a revocation is not opened in place of the database.
#[test]
fn an_older_copy_is_refused() {
    let place = TestDatabase::new();
    place.record(&["granted"]);
    let copy = place.0.path().join("copy.db");
    fs::copy(place.database(), &copy).unwrap();
    place.record(&["revoked"]);
    let last = fs::read(place.database()).unwrap();
    fs::copy(&copy, place.database()).unwrap();
    let refused = place.refused();
    assert!(matches!(refused, MirrorError::Behind { found: 1, noted: 2, .. }), "{refused}");
    assert_eq!(place.noted(), 2, "what was refused changes nothing");
    fs::write(place.database(), last).unwrap();
    place.record(&["later"]);
    assert_eq!(place.noted(), 3);
}

/// STORE-06: a database with another history of the same length, or a longer one, is refused.
#[test]
fn a_database_from_elsewhere_is_refused() {
    let (place, other) = (TestDatabase::new(), TestDatabase::new());
    place.record(&["one", "two"]);
    other.record(&["one", "three", "four"]);
    fs::copy(other.database(), place.database()).unwrap();
    let refused = place.refused();
    assert!(matches!(refused, MirrorError::Forked { noted: 2, .. }), "{refused}");
}

/// AUDIT-03: an emptied log, or one without its last records, is refused.
#[test]
fn a_shortened_log_is_refused() {
    for sql in ["DELETE FROM audit", "DELETE FROM audit WHERE seq = 3"] {
        let place = TestDatabase::new();
        place.record(&["one", "two", "three"]);
        Connection::open(place.database()).unwrap().execute(sql, []).unwrap();
        let refused = place.refused();
        assert!(matches!(refused, MirrorError::Behind { noted: 3, .. }), "{sql}: {refused}");
    }
}

/// STORE-06: without the file, or with a damaged one, the database is not opened.
#[test]
fn without_the_file_nothing_starts() {
    let place = TestDatabase::new();
    place.record(&["one"]);
    let whole = fs::read(place.head()).unwrap();
    fs::remove_file(place.head()).unwrap();
    assert!(matches!(place.refused(), MirrorError::Missing(_)));
    let turned = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let mut neither = turned(FORMAT.len() + 6);
    neither[SLOT + FORMAT.len() + 6] ^= 1;
    for damaged in [Vec::new(), b"x".to_vec(), whole[..SLOT - 1].to_vec(), neither, vec![b' '; 2 * SLOT]] {
        fs::write(place.head(), damaged).unwrap();
        assert!(matches!(place.refused(), MirrorError::Damaged(_)));
    }
    fs::write(place.head(), whole).unwrap();
    drop(place.open().unwrap());
}

/// STORE-06: a write of the file that was interrupted by power loss leaves the previous content, and the server
/// starts.
#[test]
fn a_torn_write_does_not_prevent_a_start() {
    let place = TestDatabase::new();
    place.record(&["one", "two", "three"]);
    let whole = fs::read(place.head()).unwrap();
    for slot in 0..2 {
        let mut torn = whole.clone();
        torn[slot * SLOT + 10..(slot + 1) * SLOT].fill(0);
        fs::write(place.head(), torn).unwrap();
        assert!([2, 3].contains(&place.noted()));
        drop(place.open().unwrap());
    }
}

/// STORE-06: a missing or empty database is not replaced by a new one.
#[test]
fn a_missing_or_empty_database_is_not_replaced() {
    let place = TestDatabase::new();
    place.record(&["one"]);
    fs::remove_file(place.database()).unwrap();
    assert!(matches!(place.refused(), MirrorError::Gone(_, 1)));
    assert!(!place.database().exists());
    fs::write(place.database(), "").unwrap();
    assert!(matches!(place.refused(), MirrorError::Gone(_, 1)));
    Connection::open(place.database()).unwrap().execute_batch("PRAGMA journal_mode = WAL").unwrap();
    assert!(fs::metadata(place.database()).unwrap().len() > 0);
    assert!(matches!(place.refused(), MirrorError::Gone(_, 1)));
}

/// OPS-07: after a kill at any moment of a first start, an upgrade or a write, the server starts.
#[test]
fn a_kill_at_any_moment_does_not_prevent_a_start() {
    // The file was created, the database was not.
    let place = TestDatabase::new();
    drop(Mirror::create(&place.head(), MirrorContent::at(0, Head::genesis())).unwrap());
    place.record(&["one"]);

    // The database was created, and does not require the file yet.
    let db = Connection::open(place.database()).unwrap();
    db.execute("DELETE FROM setting WHERE name = 'epoch'", []).unwrap();
    drop(db);
    place.record(&["two"]);
    assert_eq!(place.noted(), 2);

    // The commit was done, and the file was not written.
    let before = fs::read(place.head()).unwrap();
    place.record(&["three"]);
    fs::write(place.head(), before).unwrap();
    assert_eq!(place.noted(), 2);
    place.record(&["four"]);
    assert_eq!(place.noted(), 4);
}

/// STORE-06: a database of an earlier version gets its file at the first start, and requires it from then on.
#[test]
fn an_earlier_version_s_database_gets_the_file() {
    let place = TestDatabase::new();
    let earlier = crate::db::Schema { migrations: &SCHEMA.migrations[..3], ..SCHEMA };
    let db = Db::open(&place.database(), &earlier, None, &Clock::held(Timestamp(1))).unwrap();
    record(&db, "one");
    drop(db);
    drop(place.open().unwrap());
    assert_eq!(place.noted(), 1);
    assert_eq!(fs::metadata(place.head()).unwrap().permissions().mode() & 0o777, 0o600);
    fs::remove_file(place.head()).unwrap();
    assert!(matches!(place.refused(), MirrorError::Missing(_)));
}

/// AUDIT-03: the end of the log is noted before callers are answered, and never names a record that power loss
/// can undo.
#[test]
fn the_end_of_the_log_is_noted_before_the_answer() {
    let place = TestDatabase::new();
    let db = place.open().unwrap();
    record(&db, "one");
    assert_eq!(place.noted(), 1);
    let lesser = |name| {
        let answer = db.0.writer.submit(Durability::Record, move |tx| audit::append(tx, event(name)));
        answer.unwrap().blocking_recv().unwrap().unwrap();
    };
    lesser("two");
    lesser("three");
    assert_eq!(place.noted(), 1);
    db.write_blocking(|_| Ok(())).unwrap();
    assert_eq!(place.noted(), 3);
    lesser("four");
    drop(db);
    assert_eq!(place.noted(), 4, "whoever stops in good order leaves nothing to power loss");
}

/// AUDIT-03: a commit that cannot be noted is not acknowledged; a deleted file is created again.
#[test]
fn a_commit_that_cannot_be_mirrored_is_not_acknowledged() {
    let place = TestDatabase::new();
    let folder = place.0.path().join("elsewhere");
    fs::create_dir(&folder).unwrap();
    let head = folder.join("audit.head");
    let clock = Clock::held(Timestamp(1000));
    let db = Db::open_mirrored(&place.database(), &beside(head.clone()), &SCHEMA, None, &clock).unwrap();
    record(&db, "one");
    fs::remove_file(&head).unwrap();
    record(&db, "two");
    assert_eq!(read(&head).unwrap().unwrap().head.seq(), 2);
    fs::remove_dir_all(&folder).unwrap();
    let refused = db.write_blocking(|tx| audit::append(tx, event("three")));
    assert!(matches!(refused, Err(Fault::Storage(_))), "{refused:?}");
    fs::create_dir(&folder).unwrap();
    record(&db, "four");
    assert_eq!(read(&head).unwrap().unwrap().head.seq(), 4);
    assert_eq!(db.read(audit::verify).unwrap().unwrap().records, 4);
}

/// STORE-06: an older database file under the -wal of a killed process is refused, although its log would end
/// in the right place.
#[test]
fn an_older_file_under_a_newer_wal_is_refused() {
    let place = TestDatabase::new();
    place.record(&["granted"]);
    let older = fs::read(place.database()).unwrap();
    place.record(&["revoked"]);
    let db = place.open().unwrap();
    record(&db, "later");
    // Left by a kill, without the writer's cleanup.
    let killed = TestDatabase::new();
    for file in ["x.db", "x.db-wal", "audit.head"] {
        fs::copy(place.0.path().join(file), killed.0.path().join(file)).unwrap();
    }
    drop(db);
    let whole = fs::read(killed.database()).unwrap();
    fs::write(killed.database(), older).unwrap();
    assert!(matches!(killed.refused(), MirrorError::StaleDatabase(_)));
    fs::write(killed.database(), &whole).unwrap();
    killed.record(&["last"]);
    assert_eq!(killed.noted(), 4);
}

/// OPS-07: after a kill while any page is moved into the database file, the server starts; an older file under
/// a newer -wal is refused.
#[test]
fn a_kill_during_a_checkpoint_does_not_prevent_a_start() {
    let place = TestDatabase::new();
    place.record(&["first"]);
    let before = fs::read(place.database()).unwrap();
    let db = place.open().unwrap();
    let fill = |from: u8| {
        db.write_blocking(move |tx| {
            for i in from..from + 20 {
                tx.execute(
                    "INSERT INTO user (id, name, role, handle, created_at) VALUES (?1, ?2, 'none', ?3, 0)",
                    params![i.to_string(), format!("{i}{}", "x".repeat(5000)), vec![i]],
                )?;
                audit::append(tx, event("many"))?;
            }
            Ok(())
        })
        .unwrap();
    };
    fill(10);
    let file = |name: &str| fs::read(place.0.path().join(name)).unwrap();
    let (old, wal, noted) = (file("x.db"), file("x.db-wal"), file("audit.head"));
    drop(db);
    let new = file("x.db");
    assert!(new.len() > old.len());
    let killed = TestDatabase::new();
    let lay = |database: &[u8], wal: &[u8]| {
        let _ = fs::remove_file(killed.0.path().join("x.db-shm"));
        fs::write(killed.database(), database).unwrap();
        fs::write(killed.0.path().join("x.db-wal"), wal).unwrap();
        fs::write(killed.head(), &noted).unwrap();
    };
    for moved in [4096, 8192, 40960, old.len(), new.len() - 4096, new.len()] {
        let mut torn = new[..moved].to_vec();
        torn.extend_from_slice(old.get(moved..).unwrap_or_default());
        lay(&torn, &wal);
        drop(killed.open().unwrap_or_else(|e| panic!("{moved} bytes were moved: {e}")));
        assert_eq!(killed.noted(), 21);
    }
    lay(&before, &wal);
    assert!(matches!(killed.refused(), MirrorError::StaleDatabase(_)));
}

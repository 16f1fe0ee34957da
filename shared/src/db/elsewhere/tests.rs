use std::fs;

use super::*;
use crate::audit::{self, Event, Name};
use crate::clock::{Clock, Timestamp};
use crate::data_dir::Heads;
use crate::db::Db;
use crate::schema::SCHEMA;

/// A machine with a database, and a share of another machine.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.machine()).unwrap();
        fs::create_dir(place.share()).unwrap();
        place
    }

    fn machine(&self) -> PathBuf {
        self.0.path().join("machine")
    }

    fn share(&self) -> PathBuf {
        self.0.path().join("share")
    }

    fn file(&self) -> PathBuf {
        self.share().join("portcullis.head")
    }

    fn open_with(&self, elsewhere: Option<PathBuf>) -> Result<Db, OpenError> {
        let heads = Heads { beside: self.machine().join("audit.head"), elsewhere };
        let clock = Clock::held(Timestamp(1000));
        Db::open_mirrored(&self.machine().join("x.db"), &heads, &SCHEMA, None, &clock)
    }

    fn open(&self) -> Result<Db, OpenError> {
        self.open_with(Some(self.file()))
    }

    /// Opens, records and closes.
    fn record(&self, count: usize) {
        let db = self.open().unwrap();
        (0..count).for_each(|_| record(&db));
    }

    /// The last record that the file names.
    fn noted(&self) -> i64 {
        read(&self.file()).unwrap().unwrap().head.seq()
    }

    fn refused(&self) -> MirrorError {
        match self.open() {
            Err(OpenError::Mirror(refused)) => refused,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it was opened"),
        }
    }

    /// The content of every file of the machine, as a snapshot has it.
    fn snapshot(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let files = fs::read_dir(self.machine()).unwrap().map(|entry| entry.unwrap().path());
        files.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }

    fn put_back(&self, snapshot: &[(PathBuf, Vec<u8>)]) {
        fs::remove_dir_all(self.machine()).unwrap();
        fs::create_dir(self.machine()).unwrap();
        for (path, content) in snapshot {
            fs::write(path, content).unwrap();
        }
    }
}

fn record(db: &Db) {
    db.write_blocking(|tx| audit::append(tx, Event::allowed(Name::UserCreated).subject("u_x"))).unwrap();
}

/// STORE-06, AUDIT-03: a machine that is put back as a whole, with `audit.head`, is detected by the file at another place; the
/// latest state is accepted again. So is a machine from before the file was configured, and one that lost its database.
#[test]
fn a_machine_put_back_as_a_whole_is_refused() {
    let place = Place::new();
    drop(place.open_with(None).unwrap());
    let before_all = place.snapshot();
    place.record(1);
    let granted = place.snapshot();
    place.record(1);
    let revoked = place.snapshot();
    assert_eq!(place.noted(), 2);

    place.put_back(&granted);
    drop(place.open_with(None).expect("without the file an older machine is not detected"));
    place.put_back(&granted);
    let refused = place.refused();
    assert!(
        matches!(&refused, MirrorError::Behind { path, found: 1, noted: 2 } if *path == place.file()),
        "{refused}"
    );
    place.put_back(&before_all);
    assert!(matches!(place.refused(), MirrorError::Behind { found: 0, noted: 2, .. }));
    place.put_back(&[]);
    assert!(matches!(place.refused(), MirrorError::Gone(path, 2) if path == place.file()));
    assert!(!place.machine().join("x.db").exists(), "what was refused creates no database");
    assert_eq!(place.noted(), 2, "and changes nothing");

    place.put_back(&revoked);
    place.record(1);
    assert_eq!(place.noted(), 3);
}

/// STORE-06: another server's file is refused.
#[test]
fn another_database_is_refused() {
    let (place, other) = (Place::new(), Place::new());
    place.record(2);
    other.record(1);
    // Their first records are equal.
    let db = other.open().unwrap();
    db.write_blocking(|tx| audit::append(tx, Event::allowed(Name::UserDeleted).subject("u_y"))).unwrap();
    drop(db);
    fs::copy(other.file(), place.file()).unwrap();
    assert!(matches!(place.refused(), MirrorError::Forked { noted: 2, .. }));
}

/// OPS-03: a file that is missing is created once; then its share is missing, and nothing starts or is created in its place. A
/// damaged file and a missing folder are refused too. Another file may be named.
#[test]
fn a_share_that_is_not_there_is_no_first_start() {
    let place = Place::new();
    drop(place.open_with(None).unwrap());
    place.record(2);
    let written = fs::read(place.file()).unwrap();
    fs::remove_file(place.file()).unwrap();
    let refused = place.refused();
    assert!(matches!(&refused, MirrorError::AwayMissing(path) if *path == place.file()), "{refused}");
    assert!(!place.file().exists());
    fs::write(place.file(), &written[..100]).unwrap();
    let refused = place.refused().to_string();
    assert!(refused.contains("damaged") && refused.contains("remove `mirror`"), "{refused}");
    fs::write(place.file(), &written).unwrap();
    place.record(1);
    let nowhere = place.open_with(Some(place.share().join("none/portcullis.head"))).map(drop).unwrap_err();
    assert!(matches!(nowhere, OpenError::Mirror(MirrorError::AwayUnusable(..))), "{nowhere}");
    let other = place.share().join("other.head");
    drop(place.open_with(Some(other.clone())).unwrap());
    assert_eq!(read(&other).unwrap().unwrap().head.seq(), 3);
}

/// AUDIT-03, STORE-02: a share that fails while the server runs holds up no writer, and is caught up with when it is back. It is not
/// created again meanwhile, because it may be the folder under a share that is not mounted.
#[test]
fn a_share_that_fails_is_caught_up_with() {
    let place = Place::new();
    place.record(1);
    let (away, db) = (place.share().with_extension("away"), place.open().unwrap());
    fs::copy(place.file(), place.share().join("kept")).unwrap();
    fs::remove_file(place.file()).unwrap();
    fs::rename(place.share(), &away).unwrap();
    fs::create_dir(place.share()).unwrap();
    record(&db);
    record(&db);
    drop(db);
    assert!(!place.file().exists(), "the folder under the share stays empty");

    fs::remove_dir(place.share()).unwrap();
    fs::rename(&away, place.share()).unwrap();
    fs::rename(place.share().join("kept"), place.file()).unwrap();
    assert_eq!(place.noted(), 1);
    let db = place.open().unwrap();
    fs::copy(place.file(), place.share().join("kept")).unwrap();
    fs::remove_file(place.file()).unwrap();
    record(&db);
    fs::rename(place.share().join("kept"), place.file()).unwrap();
    record(&db);
    drop(db);
    assert_eq!(place.noted(), 5);
}

/// STORE-06: a running server does not overwrite the file of another one, or its own of after a restore.
#[test]
fn a_file_that_another_server_wrote_is_left_alone() {
    let (place, other) = (Place::new(), Place::new());
    place.record(1);
    other.record(9);
    let db = place.open().unwrap();
    fs::remove_file(place.file()).unwrap();
    fs::copy(other.file(), place.file()).unwrap();
    record(&db);
    drop(db);
    assert_eq!(place.noted(), 9);
    assert!(matches!(place.refused(), MirrorError::Behind { found: 2, noted: 9, .. }));
}

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::db::Db;
use crate::db::backup::back_up;
use crate::schema::SCHEMA;

thread_local! {
    /// The step at which this thread is killed.
    pub(super) static KILLED_AT: std::cell::Cell<Option<usize>> = const { std::cell::Cell::new(None) };
}

struct TestDatabase(tempfile::TempDir, bool);

impl TestDatabase {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap(), false)
    }

    /// A directory whose log's end is kept at another place too.
    fn mirrored() -> Self {
        Self(tempfile::tempdir().unwrap(), true)
    }

    fn elsewhere(&self) -> Option<PathBuf> {
        self.1.then(|| self.file("elsewhere.head"))
    }

    fn dir(&self) -> DataDir {
        let dir = DataDir::open_or_create(&self.0.path().join("data")).unwrap();
        dir.mirrored_to(self.elsewhere().as_deref()).unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn open(&self) -> Result<Db, OpenError> {
        let dir = self.dir();
        Db::open_mirrored(&dir.database(), &dir.heads(), &SCHEMA, Some(&dir.backups()), &clock())
    }

    fn run(&self, sql: &'static [&'static str]) {
        let db = self.open().unwrap();
        db.write_blocking(move |tx| {
            for sql in sql {
                tx.execute(sql, [])?;
                audit::append(tx, Event::allowed(Name::UserCreated).by_server())?;
            }
            Ok(())
        })
        .unwrap();
    }

    fn copy(&self, name: &str) -> PathBuf {
        let to = self.file(name);
        back_up(&self.dir().database(), &to, &SCHEMA).unwrap();
        to
    }

    fn restore(&self, from: &Path, admin: Option<&str>) -> Result<Restored, RestoreError> {
        let dir = self.dir();
        Restoring::prepare(&dir, from, &SCHEMA, &clock())?.finish(admin, 0, &clock())
    }

    fn rows(&self, sql: &'static str) -> Vec<String> {
        let db = self.open().unwrap();
        db.read(|conn| conn.query(sql, [], |row| row.get::<String>(0))).unwrap()
    }
}

fn clock() -> Clock {
    Clock::held(Timestamp(5_000_000))
}

const PEOPLE: &[&str] = &[
    "INSERT INTO user (id, name, role, handle, created_at) VALUES ('u_a', 'ada', 'admin', x'01', 1), ('u_b', 'bob', 'admin', x'02', 1), ('u_c', 'cleo', 'none', x'03', 1)",
    "INSERT INTO user_group (user_id, name) VALUES ('u_b', 'one'), ('u_b', 'two')",
    "INSERT INTO passkey (credential, user_id, data, created_at) VALUES (x'0a', 'u_a', '{}', 1), (x'0b', 'u_b', '{}', 1), (x'0c', 'u_b', '{}', 1)",
    "INSERT INTO client (id, name, source, trust, auth_method, application_type, grant_types, metadata, created_at)
     VALUES ('one', 'one', 'administrator', 'verified', 'client_secret_basic', 'web', 'authorization_code', '{}', 1),
            ('two', 'two', 'administrator', 'known', 'none', 'native', 'authorization_code', '{}', 1)",
    "INSERT INTO client_secret (digest, client_id, created_at) VALUES (x'51', 'one', 1)",
    "INSERT INTO client_redirect_uri (client_id, uri) VALUES ('one', 'https://old/'), ('two', 'http://localhost/')",
    "INSERT INTO access_grant (id, user_id, client_id, resource, scope, amr, auth_time, created_at, expires_at) VALUES ('g', 'u_b', 'one', 'r', 's', 'hwk', 1, 1, 9)",
    "INSERT INTO refresh_token (digest, grant_id, generation, created_at, expires_at) VALUES (x'41', 'g', 0, 1, 9)",
    "INSERT INTO session (digest, user_id, credential, amr, auth_time, seen_at) VALUES (x'31', 'u_b', x'0b', 'hwk', 1, 1)",
    "INSERT INTO link (digest, purpose, user_id, created_at, expires_at) VALUES (x'21', 'enrol', 'u_c', 1, 9999999999999)",
    "INSERT INTO initial_access_token (digest, label, created_at, expires_at) VALUES (x'61', 'x', 1, 9999999999999)",
    "INSERT INTO client_document (url, body, sha256, source, imported_at) VALUES ('https://doc/', x'', x'', 'imported', 1)",
    "INSERT INTO signing_key (kid, alg, state, public_jwk, sealed, created_at) VALUES ('k1', 'ES256', 'active', '', x'', 1)",
];

/// STORE-06: every table and column has a fate, so that a new one requires a decision.
#[test]
fn every_column_has_a_restore_rule() {
    let db = Connection::open_in_memory().unwrap();
    for script in SCHEMA.migrations {
        db.execute_batch(script).unwrap();
    }
    let list = |sql: &str| -> Vec<String> {
        let mut statement = db.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    };
    let mut there = BTreeMap::new();
    for table in list("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'") {
        let mut columns = list(&format!("SELECT name FROM pragma_table_xinfo('{table}')"));
        columns.sort();
        there.insert(table, columns);
    }
    let mut fated = BTreeMap::new();
    for fate in FATES {
        let mut columns: Vec<_> = fate.columns.split(' ').map(str::to_owned).collect();
        columns.sort();
        assert!(fated.insert(fate.table.to_owned(), columns).is_none(), "{} has two fates", fate.table);
    }
    assert_eq!(there, fated);
}

/// STORE-06: access revoked since the backup stays revoked; nothing that gives access by itself comes back.
#[test]
fn revoked_access_stays_revoked_after_a_restore() {
    let place = TestDatabase::new();
    place.run(PEOPLE);
    let copy = place.copy("copy.db");
    place.run(&[
        "UPDATE user SET role = 'none' WHERE id = 'u_b'",
        "DELETE FROM user WHERE id = 'u_c'",
        "DELETE FROM user_group WHERE name = 'two'",
        "DELETE FROM passkey WHERE credential = x'0c'",
        "UPDATE passkey SET suspended_at = 2, data = '{\"counter\":9}' WHERE credential = x'0b'",
        "UPDATE client SET trust = 'known', jwks = 'new' WHERE id = 'one'",
        "UPDATE client_redirect_uri SET uri = 'https://new/' WHERE client_id = 'one'",
        "DELETE FROM client_secret",
        "INSERT INTO client_secret (digest, client_id, created_at) VALUES (x'52', 'one', 1)",
        "DELETE FROM client WHERE id = 'two'",
        "UPDATE client SET disabled_at = 3, disabled_because = 'administrator' WHERE id = 'one'",
        "DELETE FROM client_document",
        "INSERT INTO dead_token (jti, expires_at) VALUES ('j', 9)",
        "INSERT INTO catalogue_disabled (url, disabled_at) VALUES ('https://c/', 1)",
        "DELETE FROM signing_key",
        "INSERT INTO signing_key (kid, alg, state, public_jwk, sealed, created_at) VALUES ('k2', 'ES256', 'active', '', x'', 1)",
        "UPDATE passkey SET last_used_at = 7 WHERE credential = x'0a'",
    ]);
    let before = place.rows("SELECT max(seq) || '' FROM audit")[0].parse::<i64>().unwrap();
    let restored = place.restore(&copy, None).unwrap();
    assert_eq!((restored.epoch, restored.records), (1, before + 1));
    let all = [
        ("SELECT name || role FROM user ORDER BY name", vec!["adaadmin", "bobnone"]),
        ("SELECT name FROM user_group", vec!["one"]),
        (
            "SELECT hex(credential) || coalesce(suspended_at, '') || data FROM passkey ORDER BY 1",
            vec!["0A{}", "0B2{\"counter\":9}"],
        ),
        ("SELECT id || trust || jwks || (disabled_at IS NOT NULL) FROM client", vec!["oneknownnew1"]),
        ("SELECT uri FROM client_redirect_uri", vec!["https://new/"]),
        ("SELECT hex(digest) FROM client_secret", vec!["52"]),
        ("SELECT url FROM client_document", vec![]),
        ("SELECT jti FROM dead_token", vec!["j"]),
        ("SELECT url FROM catalogue_disabled", vec!["https://c/"]),
        ("SELECT kid FROM signing_key", vec!["k2"]),
        ("SELECT id FROM access_grant WHERE revoked_at IS NULL", vec![]),
        (
            "SELECT hex(digest) FROM refresh_token UNION ALL SELECT hex(digest) FROM session UNION ALL SELECT hex(digest) FROM initial_access_token UNION ALL SELECT hex(digest) FROM link WHERE voided_at IS NULL",
            vec![],
        ),
        (
            "SELECT value FROM setting WHERE name IN ('epoch', 'everything_ended_until', 'tokens_void_until') ORDER BY name",
            vec!["1", "5000000", "5000"],
        ),
    ];
    for (sql, expected) in all {
        assert_eq!(place.rows(sql), expected, "{sql}");
    }
    let db = place.open().unwrap();
    assert_eq!(db.read(audit::verify).unwrap().unwrap().records, before + 1);
    let last = db.read(|conn| audit::tail(conn, 1, 0)).unwrap().remove(0);
    assert_eq!((&last["event"], &last["detail"]["epoch"]), (&"backup.restored".into(), &1.into()));
    let kept = restored.kept.unwrap();
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!place.dir().path().join(FOLDER).exists());
}

/// STORE-06: if it is unknown what was revoked, only one administrator can sign in.
#[test]
fn without_the_last_database_only_one_administrator_comes_back() {
    let place = TestDatabase::new();
    place.run(PEOPLE);
    let copy = place.copy("copy.db");
    place.run(&["DELETE FROM user WHERE id = 'u_c'"]);
    let database = place.dir().database();
    fs::remove_file(&database).unwrap();
    for name in [None, Some("cleo"), Some("nobody")] {
        let refused = place.restore(&copy, name).unwrap_err().to_string();
        assert!(refused.contains("ada, bob"), "{refused}");
        assert!(!database.exists());
    }
    place.restore(&copy, Some("ada")).unwrap();
    let all = [
        ("SELECT name FROM user WHERE disabled_at IS NULL", vec!["ada"]),
        ("SELECT hex(credential) FROM passkey WHERE suspended_at IS NULL", vec!["0A"]),
        ("SELECT id FROM client WHERE disabled_at IS NULL", vec![]),
        (
            "SELECT hex(digest) FROM client_secret UNION ALL SELECT url FROM client_document UNION ALL SELECT kid FROM signing_key",
            vec![],
        ),
        ("SELECT id FROM access_grant WHERE revoked_at IS NULL", vec![]),
        (
            "SELECT json_extract(record, '$.detail.lost_to') || '' FROM audit ORDER BY seq DESC LIMIT 1",
            vec!["14"],
        ),
    ];
    for (sql, expected) in all {
        assert_eq!(place.rows(sql), expected, "{sql}");
    }
    // From now on the lost database is an older one.
    assert_eq!(mirror::read(&place.dir().audit_head()).unwrap().unwrap().epoch, 1);
}

/// STORE-06: an older database, or a lost or damaged file, is not accepted as the latest state.
#[test]
fn a_database_that_may_be_old_is_not_used_as_the_last_one() {
    let place = TestDatabase::new();
    place.run(PEOPLE);
    let copy = place.copy("copy.db");
    place.run(&["UPDATE user SET disabled_at = 1 WHERE id = 'u_b'"]);
    let database = place.dir().database();
    let head = place.dir().audit_head();
    let (last, noted) = (fs::read(&database).unwrap(), fs::read(&head).unwrap());
    let strict = |why: &str| {
        let refused = place.restore(&copy, None);
        assert!(matches!(refused, Err(RestoreError::NoAdministrator(..))), "{why}: {refused:?}");
    };
    fs::write(&database, fs::read(&copy).unwrap()).unwrap();
    strict("an older one");
    fs::write(&database, &last).unwrap();
    fs::write(&head, "nothing").unwrap();
    strict("damaged");
    fs::remove_file(&head).unwrap();
    strict("missing");
    fs::write(&head, noted).unwrap();
    fs::set_permissions(&head, fs::Permissions::from_mode(0o600)).unwrap();
    place.restore(&copy, None).unwrap();
    assert_eq!(place.rows("SELECT name FROM user WHERE disabled_at IS NULL"), ["ada", "cleo"]);
}

/// STORE-06, AUDIT-03: on a machine that was put back as a whole, the end that is kept at another place says that the present database
/// is not the last one. After the restore that place names the restored database; a damaged or missing file there stops it.
#[test]
fn a_machine_put_back_as_a_whole_is_not_taken_for_the_last_one() {
    let place = TestDatabase::mirrored();
    place.run(PEOPLE);
    let copy = place.copy("copy.db");
    let database = place.dir().database();
    let head = place.dir().audit_head();
    let older = (fs::read(&database).unwrap(), fs::read(&head).unwrap());
    place.run(&["UPDATE user SET disabled_at = 1 WHERE id = 'u_b'"]);
    fs::write(&database, &older.0).unwrap();
    fs::write(&head, &older.1).unwrap();
    assert!(matches!(place.restore(&copy, None), Err(RestoreError::NoAdministrator(..))));
    let elsewhere = place.elsewhere().unwrap();
    let noted = fs::read(&elsewhere).unwrap();
    fs::remove_file(&elsewhere).unwrap();
    assert!(matches!(
        place.restore(&copy, Some("ada")),
        Err(RestoreError::Mirror(MirrorError::AwayMissing(_)))
    ));
    fs::write(&elsewhere, "nothing").unwrap();
    assert!(matches!(
        place.restore(&copy, Some("ada")),
        Err(RestoreError::Mirror(MirrorError::AwayUnusable(..)))
    ));
    fs::write(&elsewhere, noted).unwrap();

    let dir = place.dir();
    let found = Restoring::prepare(&dir, &copy, &SCHEMA, &clock()).unwrap().found().unwrap();
    drop(dir);
    let last = i64::try_from(PEOPLE.len()).unwrap() + 1;
    assert_eq!((found.complete, found.noted), (false, Some(last)));
    let restored = place.restore(&copy, Some("ada")).unwrap();
    assert_eq!(place.rows("SELECT name FROM user WHERE disabled_at IS NULL"), ["ada"]);
    let noted = mirror::read(&elsewhere).unwrap().unwrap();
    assert_eq!((noted.epoch, noted.head.seq()), (1, restored.records));
    // The older machine stays refused.
    fs::write(&database, older.0).unwrap();
    fs::write(&head, older.1).unwrap();
    assert!(matches!(place.open().map(drop), Err(OpenError::Mirror(MirrorError::EarlierEpoch { .. }))));
}

/// STORE-06: a backup of another server, one with a changed log, and a file that is not a backup are refused.
#[test]
fn a_copy_of_another_log_is_refused() {
    let (place, other) = (TestDatabase::new(), TestDatabase::new());
    place.run(PEOPLE);
    other.run(&PEOPLE[..1]);
    other.run(&[
        "UPDATE user SET role = 'none' WHERE id = 'u_c'",
        "UPDATE user SET role = 'admin' WHERE id = 'u_c'",
    ]);
    let elsewhere = {
        let db = other.open().unwrap();
        db.write_blocking(|tx| audit::append(tx, Event::allowed(Name::UserDeleted).by_server())).unwrap();
        drop(db);
        other.copy("other.db")
    };
    assert!(matches!(place.restore(&elsewhere, None), Err(RestoreError::Forked(4))));
    let copy = place.copy("copy.db");
    let changed = Connection::open(&copy).unwrap();
    changed
        .execute("UPDATE audit SET record = replace(record, 'allowed', 'denied') WHERE seq = 2", [])
        .unwrap();
    drop(changed);
    assert!(matches!(place.restore(&copy, None), Err(RestoreError::NotACopy(..))));
    fs::write(place.file("text"), "no database").unwrap();
    fs::write(place.file("empty"), "").unwrap();
    assert!(matches!(place.restore(&place.file("text"), None), Err(RestoreError::NotOurs(_))));
    let empty = place.restore(&place.file("empty"), None);
    assert!(matches!(empty, Err(RestoreError::NotOurs(_) | RestoreError::NotACopy(..))));
    assert!(matches!(place.restore(&place.file("none"), None), Err(RestoreError::Unreadable(..))));
    assert_eq!(place.rows("SELECT name FROM user"), ["ada", "bob", "cleo"]);
}

/// STORE-06: a backup that is newer than the current database, as after a lost disk, loses nothing; a second
/// restore continues the count.
#[test]
fn a_copy_that_reaches_the_end_loses_nothing() {
    let place = TestDatabase::new();
    place.run(PEOPLE);
    let copy = place.copy("copy.db");
    fs::remove_file(place.dir().database()).unwrap();
    assert_eq!(place.restore(&copy, None).unwrap().epoch, 1);
    assert_eq!(place.rows("SELECT name FROM user WHERE disabled_at IS NULL"), ["ada", "bob", "cleo"]);
    assert_eq!(place.restore(&copy, None).unwrap().epoch, 2);
    // The present database, of an earlier epoch, cannot be put back by hand.
    let database = place.dir().database();
    fs::write(&database, fs::read(&copy).unwrap()).unwrap();
    assert!(place.open().is_err());
}

/// STORE-06, OPS-07: after a kill at any of the last steps, the directory opens as the latest database or as
/// the restored one.
#[test]
fn a_kill_at_any_step_leaves_one_or_the_other() {
    let mut seen = std::collections::BTreeSet::new();
    // Everything is known; the end of the log is not known; only the end of the log is known.
    for known in ["all", "mirrored", "no end", "no database"] {
        for step in 0.. {
            let place = if known == "mirrored" { TestDatabase::mirrored() } else { TestDatabase::new() };
            place.run(PEOPLE);
            let copy = place.copy("copy.db");
            place.run(&["UPDATE user SET name = 'bobby' WHERE id = 'u_b'", "DELETE FROM session"]);
            match known {
                "no end" => fs::remove_file(place.dir().audit_head()).unwrap(),
                "no database" => fs::remove_file(place.dir().database()).unwrap(),
                _ => {}
            }
            KILLED_AT.set(Some(step));
            let killed = place.restore(&copy, Some("ada")).is_err();
            KILLED_AT.set(None);
            if !killed {
                assert!(step >= 5, "{step}");
                break;
            }
            let name = "SELECT name FROM user WHERE id = 'u_b'";
            let in_place = place.dir().database().exists()
                && Connection::open(place.dir().database())
                    .unwrap()
                    .query_row(name, [], |row| row.get::<_, String>(0))
                    .is_ok_and(|name| name == "bob");
            let opened = match place.open() {
                Ok(db) => db.read(|c| c.query(name, [], |row| row.get::<String>(0))).unwrap().concat(),
                // It did not open before either, and the restored one is not in place yet; the message says how
                // to continue.
                Err(refused) => {
                    assert!(
                        !(["all", "mirrored"].contains(&known) || known == "no database" && in_place),
                        "{known} {step}: {refused}"
                    );
                    assert!(refused.to_string().contains("portcullis restore"), "{known} {step}: {refused}");
                    "refused".to_owned()
                }
            };
            seen.insert((known, opened));
            // Run it again to completion.
            place.restore(&copy, Some("ada")).unwrap();
            assert_eq!(place.rows(name), ["bob"]);
        }
    }
    let seen: Vec<_> = seen.iter().map(|(known, name)| (*known, name.as_str())).collect();
    let expected = [
        ("all", "bob"),
        ("all", "bobby"),
        ("mirrored", "bob"),
        ("mirrored", "bobby"),
        ("no database", "bob"),
        ("no database", "refused"),
        ("no end", "bob"),
        ("no end", "refused"),
    ];
    assert_eq!(seen, expected);
}

/// STORE-06: a backup is private, complete and a single file; it overwrites nothing.
#[test]
fn a_copy_is_private_and_new() {
    let place = TestDatabase::new();
    let db = place.open().unwrap();
    db.write_blocking(|tx| {
        tx.execute(PEOPLE[0], [])?;
        audit::append(tx, Event::allowed(Name::UserCreated).by_server())
    })
    .unwrap();
    let to = place.file("copy.db");
    fs::write(place.file("copy.db.part"), "left behind").unwrap();
    assert_eq!(back_up(db.path(), &to, &SCHEMA).unwrap().seq(), 1);
    assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(back_up(db.path(), &to, &SCHEMA), Err(BackupError::Exists(_))));
    let left: Vec<_> = fs::read_dir(place.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    fs::set_permissions(&to, fs::Permissions::from_mode(0o400)).unwrap();
    let names = Connection::open_with_flags(&to, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    assert_eq!(names.query_row("SELECT count(*) FROM user", [], |row| row.get::<_, i64>(0)).unwrap(), 3);
}

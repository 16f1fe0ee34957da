//! Restores a backup in place of the latest database: the only way to do so (STORE-06).
//!
//! All work is done on copies in a folder of the data directory; the last step is a rename. A process that is
//! killed before it leaves the latest database; one killed after it, the restored one.

mod error;
mod fates;

use std::cell::RefCell;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension};

use super::backup::{BackupError, whole};
use super::conn::Head;
use super::error::{MirrorError, OpenError};
use super::mirror::{self, Mirror, MirrorContent};
use super::{Conn, Fault, Schema, Tx, elsewhere, migrate, pragmas};
use crate::audit::{self, Event, Name};
use crate::clock::{Clock, Timestamp};
use crate::data_dir::DataDir;
pub use error::RestoreError;
use fates::FATES;

/// The folder for the copies.
const FOLDER: &str = ".restore";

/// An open database in the folder.
struct Side {
    connection: Connection,
    head: Head,
}

/// A backup and the current database, opened; nothing has changed yet.
pub struct Restoring<'d> {
    dir: &'d DataDir,
    copy: Side,
    /// The latest database, or why it cannot be used.
    present: Result<Side, String>,
    /// The content of the file beside the latest database, if it is readable.
    noted: Option<MirrorContent>,
    /// The content of the file at another place, if one is configured and there.
    elsewhere: Option<MirrorContent>,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The backup's last audit record.
    pub copy: i64,
    /// When that record was written.
    pub time: String,
    /// The last record of the current database, or why it cannot be used.
    pub present: Result<i64, String>,
    /// The last record known to have been written, if it is known.
    pub noted: Option<i64>,
    /// Whether everything that was revoked since the backup is known.
    pub complete: bool,
    /// The administrators in the backup who can sign in.
    pub administrators: Vec<String>,
    /// Whether it has any users.
    pub people: bool,
}

/// The result of a restore.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The number of restores in this directory.
    pub epoch: i64,
    /// Where the replaced database was moved, if there was one.
    pub kept: Option<PathBuf>,
    /// The last record of the restored log.
    pub records: i64,
}

impl<'d> Restoring<'d> {
    /// Opens a backup and the current database.
    ///
    /// # Errors
    /// See [`RestoreError`].
    pub fn prepare(
        dir: &'d DataDir,
        from: &Path,
        schema: &Schema,
        clock: &Clock,
    ) -> Result<Self, RestoreError> {
        let folder = folder(dir)?;
        let heads = dir.heads();
        let noted = match mirror::read(&heads.beside) {
            Ok(noted) => noted,
            Err(MirrorError::Damaged(_)) => None,
            Err(other) => return Err(other.into()),
        };
        let elsewhere = match &heads.elsewhere {
            Some(path) => elsewhere::read(path)?,
            None => None,
        };
        let copied = duplicate(from, &folder.join("copy.db"))
            .map_err(|e| RestoreError::Unreadable(from.to_owned(), e))?;
        let copy = Side::open(&copied, schema, clock).map_err(|error| match error {
            BackupError::Open(OpenError::Foreign(_)) => RestoreError::NotOurs(from.to_owned()),
            other => RestoreError::NotACopy(from.to_owned(), other),
        })?;
        let present = present(dir, &folder, noted.as_ref(), schema, clock);
        let restoring = Self { dir, copy, present, noted, elsewhere };
        restoring.refuse_forks()?;
        restoring.refuse_absent_share(heads.elsewhere.as_deref())?;
        Ok(restoring)
    }

    fn refuse_forks(&self) -> Result<(), RestoreError> {
        let Ok(present) = &self.present else { return Ok(()) };
        let shorter = self.copy.head.seq().min(present.head.seq());
        if shorter > 0
            && Head::at(&Conn::new(&self.copy.connection), shorter)?
                != Head::at(&Conn::new(&present.connection), shorter)?
        {
            return Err(RestoreError::Forked(shorter));
        }
        let issuer = |side: &Side| setting(&side.connection, "issuer");
        match (issuer(&self.copy)?, issuer(present)?) {
            (Some(copy), Some(here)) if copy != here => Err(RestoreError::OtherIssuer { copy, here }),
            _ => Ok(()),
        }
    }

    /// Refuses to continue without the file at another place if the databases were used together with it: its share may not
    /// be mounted, and what was revoked since the backup would be taken for known.
    fn refuse_absent_share(&self, path: Option<&Path>) -> Result<(), RestoreError> {
        let (Some(path), None) = (path, &self.elsewhere) else { return Ok(()) };
        let sides = std::iter::once(&self.copy).chain(self.present.as_ref().ok());
        for side in sides {
            if elsewhere::is_known(&side.connection, path)? {
                return Err(MirrorError::AwayMissing(path.to_owned()).into());
            }
        }
        Ok(())
    }

    /// The last record known to have been written.
    fn last_noted(&self) -> Option<i64> {
        [&self.noted, &self.elsewhere].into_iter().flatten().map(|noted| noted.head.seq()).max()
    }

    /// The database with the longer log.
    fn longer(&self) -> &Side {
        match &self.present {
            Ok(present) if present.head.seq() > self.copy.head.seq() => present,
            _ => &self.copy,
        }
    }

    /// Whether the longer log contains every record that was ever written here.
    fn is_complete(&self) -> Result<bool, Fault> {
        let longer = &self.longer().connection;
        let reaches = |noted: &MirrorContent| -> Result<bool, Fault> {
            let seq = noted.head.seq();
            Ok(mirror::epoch(longer)?.unwrap_or(0) >= noted.epoch
                && (seq == 0 || Head::at(&Conn::new(longer), seq)?.as_ref() == Some(&noted.head)))
        };
        if let Some(elsewhere) = &self.elsewhere
            && !reaches(elsewhere)?
        {
            return Ok(false);
        }
        match (&self.noted, &self.present) {
            (Some(noted), _) => reaches(noted),
            // A database of a version without that file: it is the latest there was.
            (None, Ok(present)) => Ok(mirror::epoch(&present.connection)?.is_none()),
            (None, Err(_)) => Ok(false),
        }
    }

    /// A report before anything is changed.
    ///
    /// # Errors
    /// A database fault.
    pub fn found(&self) -> Result<Found, RestoreError> {
        let time: Option<String> = self
            .copy
            .connection
            .query_row(
                "SELECT json_extract(record, '$.ts') FROM audit ORDER BY seq DESC LIMIT 1",
                [],
                |row| row.get(0),
            )
            .optional()?;
        Ok(Found {
            copy: self.copy.head.seq(),
            time: time.unwrap_or_default(),
            present: self.present.as_ref().map(|side| side.head.seq()).map_err(Clone::clone),
            noted: self.last_noted(),
            complete: self.is_complete()?,
            administrators: administrators(&self.copy.connection)?,
            people: self.has_people()?,
        })
    }

    /// Replaces the latest database with the backup. If it is not known what was revoked since the backup, only
    /// `admin` can sign in until others are enabled again.
    ///
    /// # Errors
    /// See [`RestoreError`]. The latest database is still in place then.
    pub fn finish(self, admin: Option<&str>, uid: u32, clock: &Clock) -> Result<Restored, RestoreError> {
        let complete = self.is_complete()?;
        let admin = match (complete, admin) {
            (true, _) => None,
            (false, name) => Some(self.administrator(name.unwrap_or_default())?),
        };
        let epochs = [
            mirror::epoch(&self.copy.connection)?,
            self.present.as_ref().ok().map(|side| mirror::epoch(&side.connection)).transpose()?.flatten(),
            self.noted.as_ref().map(|noted| noted.epoch),
            self.elsewhere.as_ref().map(|noted| noted.epoch),
        ];
        let epoch = epochs.into_iter().flatten().max().unwrap_or(0) + 1;
        let head = self.change(admin.as_deref(), epoch, uid, clock)?;
        let Self { dir, copy, present, noted, elsewhere } = self;
        // Closing moves the -wal into the file.
        copy.connection.close().map_err(|(_, e)| RestoreError::from(e))?;
        drop(present);
        let kept = put_in_place(dir, noted, elsewhere, &MirrorContent::at(epoch, head.clone()), clock.now())?;
        Ok(Restored { epoch, kept, records: head.seq() })
    }

    fn has_people(&self) -> Result<bool, Fault> {
        Ok(Conn::new(&self.copy.connection)
            .query_row("SELECT 1 FROM user LIMIT 1", [], |_| Ok(()))?
            .is_some())
    }

    fn administrator(&self, name: &str) -> Result<String, RestoreError> {
        if !self.has_people()? {
            // The database of a gateway without users.
            return Ok(String::new());
        }
        let id = self
            .copy
            .connection
            .query_row(
                "SELECT id FROM user WHERE name = ?1 AND role = 'admin' AND disabled_at IS NULL",
                [name],
                |row| row.get(0),
            )
            .optional()?;
        let all = || administrators(&self.copy.connection).unwrap_or_default().join(", ");
        id.ok_or_else(|| RestoreError::NoAdministrator(name.to_owned(), all()))
    }

    /// Applies the fates of all tables and records the restore, in one transaction.
    fn change(&self, admin: Option<&str>, epoch: i64, uid: u32, clock: &Clock) -> Result<Head, RestoreError> {
        let copied = self.copy.head.seq();
        let goes_on = matches!(&self.present, Ok(present) if present.head.seq() > copied);
        let mut time = kept_time(&self.copy.connection)?;
        if let Ok(present) = &self.present {
            time = time.max(kept_time(&present.connection)?);
        }
        clock.at_least(Timestamp(time));
        let now = clock.now();
        let connection = &self.copy.connection;
        if goes_on {
            let path = self.dir.path().join(FOLDER).join("present.db");
            connection.execute("ATTACH DATABASE ?1 AS present", [path.to_string_lossy()])?;
        }
        connection.execute_batch("BEGIN IMMEDIATE")?;
        for fate in FATES {
            let unknown: &[&str] = if admin.is_some() { fate.unknown } else { &[] };
            let carried: &[&str] = if goes_on { fate.carried } else { &[] };
            for sql in carried.iter().chain(unknown).chain(fate.always) {
                execute(connection, sql, now, admin)
                    .map_err(|e| Fault::Storage(format!("the table {}: {e}", fate.table)))?;
            }
        }
        for (name, value) in [("time", now.0), ("epoch", epoch)] {
            connection.execute(
                "INSERT INTO setting (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2",
                (name, value.to_string()),
            )?;
        }
        let head = RefCell::new(Some(Head::load(&Conn::new(connection))?));
        let event = Event::allowed(Name::BackupRestored)
            .by_console(uid)
            .detail("epoch", epoch)
            .detail("copied_at", copied)
            .detail("complete", admin.is_none());
        // The record numbers that no longer exist in any database.
        let event = match self.last_noted() {
            Some(noted) if admin.is_some() => event.detail("lost_to", noted),
            _ => event,
        };
        let event = admin.iter().fold(event, |event, admin| event.subject(admin));
        audit::append(&Tx::new(connection, &head, now), event)?;
        let orphan: Option<String> = connection
            .query_row("SELECT \"table\" FROM pragma_foreign_key_check LIMIT 1", [], |row| row.get(0))
            .optional()?;
        if let Some(table) = orphan {
            return Err(Fault::Corrupt(format!("a row of {table} would refer to nothing")).into());
        }
        connection.execute_batch("COMMIT")?;
        if goes_on {
            connection.execute_batch("DETACH DATABASE present")?;
        }
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        whole(connection).map_err(|e| RestoreError::NotACopy(self.dir.path().join(FOLDER), e))
    }
}

fn execute(
    connection: &Connection,
    sql: &str,
    now: Timestamp,
    admin: Option<&str>,
) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare(sql)?;
    if let Some(index) = statement.parameter_index(":now")? {
        statement.raw_bind_parameter(index, now.0)?;
    }
    if let Some(index) = statement.parameter_index(":admin")? {
        statement.raw_bind_parameter(index, admin)?;
    }
    statement.raw_execute()?;
    Ok(())
}

impl Side {
    fn open(path: &Path, schema: &Schema, clock: &Clock) -> Result<Self, BackupError> {
        let mut connection = Connection::open(path).map_err(OpenError::from)?;
        // Check before anything is written, so that another program's file is not marked as ours.
        if migrate::version(&connection, schema)? == 0 {
            return Err(OpenError::Foreign(path.display().to_string()).into());
        }
        pragmas(&connection)?;
        whole(&connection)?;
        migrate::run(&mut connection, schema, None, clock)?;
        let head = audit::head(&Conn::new(&connection))?;
        Ok(Self { connection, head })
    }
}

/// Creates an empty folder for copies.
fn folder(dir: &DataDir) -> Result<PathBuf, RestoreError> {
    let folder = dir.path().join(FOLDER);
    let unwritable = |e| RestoreError::Unwritable(dir.path().to_owned(), e);
    sweep(dir).map_err(unwritable)?;
    DirBuilder::new().mode(0o700).create(&folder).map_err(unwritable)?;
    Ok(folder)
}

/// Removes what an interrupted restore left.
///
/// # Errors
/// A file system error.
pub fn sweep(dir: &DataDir) -> io::Result<()> {
    match fs::remove_dir_all(dir.path().join(FOLDER)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Copies a database that is not in use, and its -wal.
fn duplicate(from: &Path, to: &Path) -> io::Result<PathBuf> {
    for suffix in ["", "-wal"] {
        let source = match File::open(beside(from, suffix)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && suffix == "-wal" => continue,
            source => source?,
        };
        if !source.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
        }
        let mut target =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside(to, suffix))?;
        io::copy(&mut &source, &mut target)?;
    }
    Ok(to.to_owned())
}

/// The latest database, or why it cannot be used.
fn present(
    dir: &DataDir,
    folder: &Path,
    noted: Option<&MirrorContent>,
    schema: &Schema,
    clock: &Clock,
) -> Result<Side, String> {
    let database = dir.database();
    if !fs::metadata(&database).is_ok_and(|file| file.len() > 0) {
        return Err("it is missing or empty".to_owned());
    }
    if noted.is_some_and(|noted| noted.is_ahead_of(&database)) {
        return Err("its file is older than the -wal beside it".to_owned());
    }
    let copied = duplicate(&database, &folder.join("present.db")).map_err(|e| e.to_string())?;
    Side::open(&copied, schema, clock).map_err(|e| e.to_string())
}

/// The administrators who can sign in.
fn administrators(connection: &Connection) -> Result<Vec<String>, Fault> {
    Conn::new(connection).query(
        "SELECT name FROM user WHERE role = 'admin' AND disabled_at IS NULL ORDER BY name",
        [],
        |row| row.get(0),
    )
}

fn setting(connection: &Connection, name: &str) -> Result<Option<String>, Fault> {
    Ok(connection
        .query_row("SELECT value FROM setting WHERE name = ?1", [name], |row| row.get(0))
        .optional()?)
}

fn kept_time(connection: &Connection) -> Result<i64, Fault> {
    Ok(setting(connection, "time")?.and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// The last steps. Their order ensures that at every moment the directory has either the latest database with
/// its file, or the restored one with a file that describes it.
fn put_in_place(
    dir: &DataDir,
    noted: Option<MirrorContent>,
    elsewhere: Option<MirrorContent>,
    restored: &MirrorContent,
    now: Timestamp,
) -> Result<Option<PathBuf>, RestoreError> {
    let unwritable = |e| RestoreError::Unwritable(dir.path().to_owned(), e);
    let (database, new) = (dir.database(), dir.path().join(FOLDER).join("copy.db"));
    let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all()).map_err(unwritable);
    sync(&new)?;
    let kept = database.exists().then(|| unused(&dir.backups().join(format!("before-restore-{}", now.0))));
    if let Some(kept) = &kept {
        // Move a killed process's -wal into the latest database first: without it the database would be older.
        if !noted.as_ref().is_some_and(|noted| noted.is_ahead_of(&database))
            && let Ok(last) = Connection::open(&database)
        {
            let _ = last.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        }
        for suffix in ["", "-wal"] {
            match fs::hard_link(beside(&database, suffix), beside(kept, suffix)) {
                Err(e) if e.kind() == io::ErrorKind::NotFound && suffix == "-wal" => {}
                linked => linked.map_err(unwritable)?,
            }
        }
        sync(&dir.backups())?;
    }
    step()?;
    let heads = dir.heads();
    if let (Some(path), Some(elsewhere)) = (&heads.elsewhere, elsewhere) {
        Mirror::expect(path, Some(elsewhere), restored)?;
        step()?;
    }
    Mirror::expect(&heads.beside, noted, restored)?;
    step()?;
    for suffix in ["-wal", "-shm"] {
        match fs::remove_file(beside(&database, suffix)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(unwritable(e)),
            _ => {}
        }
    }
    sync(dir.path())?;
    step()?;
    fs::rename(&new, &database).map_err(unwritable)?;
    step()?;
    sync(dir.path())?;
    drop(Mirror::create(&heads.beside, restored.clone())?);
    step()?;
    if let Some(path) = &heads.elsewhere {
        drop(Mirror::create(path, restored.clone()).map_err(elsewhere::away)?);
        step()?;
    }
    sweep(dir).map_err(unwritable)?;
    Ok(kept)
}

/// An unused name for a database.
fn unused(begin: &Path) -> PathBuf {
    let names = (1..).map(|n| beside(begin, &format!("-{n}.db")));
    let first = beside(begin, ".db");
    std::iter::once(first)
        .chain(names)
        .find(|name| name.symlink_metadata().is_err())
        .expect("names do not run out")
}

/// The points at which a test kills the process.
#[cfg_attr(
    not(test),
    allow(clippy::unnecessary_wraps, clippy::missing_const_for_fn, reason = "tests break off here")
)]
fn step() -> Result<(), RestoreError> {
    #[cfg(test)]
    {
        let left = tests::KILLED_AT.get();
        tests::KILLED_AT.set(left.and_then(|left| left.checked_sub(1)));
        if left == Some(0) {
            return Err(Fault::Storage("killed".to_owned()).into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

//! SQLite: one writer thread that commits in groups, and readers that never wait for it.
//!
//! Code outside this module uses [`Tx`], [`Conn`], [`Row`], [`Value`] and [`Fault`], and never a type of
//! rusqlite, so that a second engine can be added here. SQL that only SQLite understands is listed in
//! `tests/dialect.rs` with reasons.

mod backup;
mod conn;
mod elsewhere;
mod error;
mod migrate;
mod mirror;
pub mod restore;
mod stoppable;
mod value;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

pub use backup::{BackupError, back_up};
pub use conn::{Conn, Head, Row, Tx};
pub use elsewhere::read as noted_elsewhere;
use elsewhere::{Checked, Elsewhere};
pub use error::{MirrorError, OpenError};
pub use migrate::Schema;
use mirror::Mirror;
pub use mirror::{MirrorContent, needed as needs_noted, read as noted};
pub use value::{FromColumn, Params, ToColumn, Value, WrongValue, params};
pub(crate) use value::{parsed_column, text_column};
pub use writer::{Durability, Hooks};
use writer::{Undone, Writer};

use crate::clock::Clock;
use crate::data_dir::Heads;

/// How long a connection waits for a lock.
const PATIENCE: Duration = Duration::from_secs(5);

/// A failure of the database. A refusal is never one of these.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Fault {
    /// Too many jobs are queued, or the database is locked. A retry may succeed.
    #[error("the database is busy")]
    Busy,
    /// The write failed: disk full, input/output error, or a bug in the job.
    #[error("the database could not be written or read: {0}")]
    Storage(String),
    /// Stored data are invalid.
    #[error("the database holds something unexpected: {0}")]
    Corrupt(String),
}

/// The open files with the end of the audit chain.
struct Mirrors {
    beside: Mirror,
    elsewhere: Option<Elsewhere>,
}

/// A database. Cheap to clone, and thread-safe.
#[derive(Clone)]
pub struct Db(Arc<Inner>);

struct Inner {
    writer: Writer,
    readers: Vec<Mutex<Connection>>,
    next_reader: AtomicUsize,
    path: PathBuf,
}

impl Db {
    /// Opens or creates a database and migrates its schema.
    ///
    /// Before a migration changes an existing file, a copy is written to `backups`.
    ///
    /// # Errors
    /// See [`OpenError`]; among them a schema newer than this program (STORE-05).
    pub fn open(
        path: &Path,
        schema: &Schema,
        backups: Option<&Path>,
        clock: &Clock,
    ) -> Result<Self, OpenError> {
        let (connection, _) = open(path, None, schema, backups, clock)?;
        Self::start(path, connection, None, schema, clock)
    }

    /// Like [`Db::open`], for a database whose audit chain is noted in a file beside it, and perhaps in one at another
    /// place, so that an older copy is refused (AUDIT-03, STORE-06). The files are created with the database, or when a
    /// database without one is first opened.
    ///
    /// # Errors
    /// See [`OpenError`]; among them that this is not the latest database.
    pub fn open_mirrored(
        path: &Path,
        heads: &Heads,
        schema: &Schema,
        backups: Option<&Path>,
        clock: &Clock,
    ) -> Result<Self, OpenError> {
        let (connection, mirrors) = open(path, Some(heads), schema, backups, clock)?;
        Self::start(path, connection, mirrors, schema, clock)
    }

    fn start(
        path: &Path,
        connection: Connection,
        mirrors: Option<Mirrors>,
        schema: &Schema,
        clock: &Clock,
    ) -> Result<Self, OpenError> {
        let readers = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
        let readers = (0..readers).map(|_| reader(path).map(Mutex::new)).collect::<Result<_, _>>()?;
        let writer = Writer::start(connection, mirrors, schema.audited, clock.clone())?;
        Ok(Self(Arc::new(Inner { writer, readers, next_reader: AtomicUsize::new(0), path: path.to_owned() })))
    }

    /// Adds a hook that runs when memory that mirrors this database may be wrong (STORE-02).
    pub fn on_reload(&self, hook: impl Fn() + Send + Sync + 'static) {
        self.0.writer.hooks().add_reload(Box::new(hook));
    }

    /// A number that increases with every commit, before its callers are answered. Data computed from the
    /// database or its mirrors are current while the number stays the same.
    pub fn changes(&self) -> u64 {
        self.0.writer.changes()
    }

    /// Runs a job on the writer thread and returns once its result is on disk.
    ///
    /// Jobs that wait together are committed together; each has its own savepoint. `Ok` commits, also if the
    /// value is a refusal. `Err` or a panic rolls back this job only.
    ///
    /// # Errors
    /// The job's own fault, [`Fault::Busy`] if too many jobs wait, [`Fault::Storage`] if the commit fails.
    pub async fn write<T, F>(&self, job: F) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T, Fault> + Send + 'static,
    {
        self.0.writer.submit(Durability::Full, job)?.await.unwrap_or_else(|_| Err(writer::stopped()))
    }

    /// Like [`Db::write`], for jobs that only record what happened. The result survives a killed process, and
    /// survives power loss once a later [`Db::write`] has committed (STORE-04).
    ///
    /// # Errors
    /// As [`Db::write`].
    pub async fn record<T, F>(&self, job: F) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T, Fault> + Send + 'static,
    {
        self.0.writer.submit(Durability::Record, job)?.await.unwrap_or_else(|_| Err(writer::stopped()))
    }

    /// Runs a job that is one statement, such as one audit record, which costs less than other jobs: nothing has to be undone
    /// if it fails. If it fails and has changed something all the same, its whole batch fails.
    ///
    /// # Errors
    /// As [`Db::write`].
    pub async fn one<T, F>(&self, durability: Durability, job: F) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T, Fault> + Send + 'static,
    {
        self.0
            .writer
            .queue(durability, Undone::ByItself, job)?
            .await
            .unwrap_or_else(|_| Err(writer::stopped()))
    }

    /// Like [`Db::write`], for callers outside the async runtime. Never call it from a task.
    ///
    /// # Errors
    /// As [`Db::write`].
    pub fn write_blocking<T, F>(&self, job: F) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T, Fault> + Send + 'static,
    {
        let answer = self.0.writer.submit(Durability::Full, job)?;
        answer.blocking_recv().unwrap_or_else(|_| Err(writer::stopped()))
    }

    /// Reads committed data. A point read takes microseconds, so it runs on the calling thread.
    ///
    /// # Errors
    /// The job's own fault.
    pub fn read<T>(&self, job: impl FnOnce(&Conn<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
        self.with_reader(|connection| job(&Conn::new(connection)))
    }

    /// Like [`Db::read`], for statements that may run long. `stop` is asked while they run; once it says yes, they end
    /// and the result is `None`. Callers must leave readers to others: see [`Db::readers`].
    ///
    /// # Errors
    /// The job's own fault.
    pub fn read_until<T>(
        &self,
        stop: impl Fn() -> bool + Send + 'static,
        job: impl FnOnce(&Conn<'_>) -> Result<T, Fault>,
    ) -> Result<Option<T>, Fault> {
        self.with_reader(|connection| {
            stoppable::run(connection, stop, |connection| job(&Conn::new(connection)))
        })
    }

    /// How many reads can run at once; more wait.
    pub fn readers(&self) -> usize {
        self.0.readers.len()
    }

    fn with_reader<T>(&self, job: impl FnOnce(&mut Connection) -> T) -> T {
        let start = self.0.next_reader.fetch_add(1, Ordering::Relaxed);
        let count = self.0.readers.len();
        for i in 0..count {
            match self.0.readers[(start + i) % count].try_lock() {
                Ok(mut connection) => return job(&mut connection),
                Err(TryLockError::Poisoned(poisoned)) => return job(&mut poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        job(&mut self.0.readers[start % count].lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// The number of jobs that wait for the writer, without the batch in progress.
    pub fn queued(&self) -> usize {
        self.0.writer.queued()
    }

    /// The database's file.
    pub fn path(&self) -> &Path {
        &self.0.path
    }
}

/// A database opened read-only, while another process may be writing.
pub struct ReadOnly(Connection);

impl ReadOnly {
    /// Opens an existing database.
    ///
    /// # Errors
    /// See [`OpenError`]; also if its schema is not this program's.
    pub fn open(path: &Path, schema: &Schema) -> Result<Self, OpenError> {
        let connection = reader(path)?;
        migrate::check(&connection, schema)?;
        Ok(Self(connection))
    }

    /// As [`Db::read`].
    ///
    /// # Errors
    /// The job's own fault.
    pub fn read<T>(&self, job: impl FnOnce(&Conn<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
        job(&Conn::new(&self.0))
    }
}

/// Opens or creates a database, and the files with the end of its audit chain if they are named, and migrates the
/// schema.
fn open(
    path: &Path,
    heads: Option<&Heads>,
    schema: &Schema,
    backups: Option<&Path>,
    clock: &Clock,
) -> Result<(Connection, Option<Mirrors>), OpenError> {
    let head = heads.map(|heads| heads.beside.as_path());
    let mut mirror = match head {
        Some(head) => Mirror::before_open(head, path)?,
        None => None,
    };
    let mut elsewhere = match heads.and_then(|heads| heads.elsewhere.as_deref()) {
        Some(head) => Some(Checked::before_open(head, path)?),
        None => None,
    };
    let killed = head.is_some() && mirror::has_wal(path);
    create_private(path)?;
    let mut connection = Connection::open(path).map_err(OpenError::from)?;
    pragmas(&connection)?;
    let found = migrate::version(&connection, schema)?;
    // Create the file before the database requires it, so that after a kill in between the next start succeeds.
    match (head, &mut mirror) {
        (Some(_), Some(mirror)) if found > 0 => mirror.check(&connection)?,
        (Some(_), Some(mirror)) => mirror.first_start()?,
        (Some(head), None) => {
            if found > 0 && mirror::epoch(&connection)?.is_some() {
                return Err(MirrorError::Missing(head.to_owned()).into());
            }
            let last = if found > 0 { Head::load(&Conn::new(&connection))? } else { Head::genesis() };
            mirror = Some(Mirror::create(head, MirrorContent::at(0, last))?);
        }
        _ => {}
    }
    if let Some(elsewhere) = &mut elsewhere {
        elsewhere.check(&connection, found == 0)?;
    }
    if killed {
        quick_check(&connection)?;
    }
    if let Some(mirror) = &mut mirror
        && found < schema.version()
    {
        mirror.forget_base()?;
    }
    migrate::run(&mut connection, schema, backups, clock)?;
    let Some(mut beside) = mirror else { return Ok((connection, None)) };
    mirror::require(&connection)?;
    let elsewhere = elsewhere.map(|elsewhere| elsewhere.keep(&connection)).transpose()?;
    beside.checkpoint(&connection, "TRUNCATE")?;
    Ok((connection, Some(Mirrors { beside, elsewhere })))
}

/// SQLite recovered the data of a killed process, so check the integrity.
fn quick_check(connection: &Connection) -> Result<(), OpenError> {
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" {
        return Ok(());
    }
    Err(Fault::Corrupt(format!("its file and the -wal beside it do not fit together: {verdict}")).into())
}

/// Whether the database does not exist or has no audit records.
///
/// # Errors
/// If it cannot be read.
pub fn is_unused(path: &Path) -> Result<bool, OpenError> {
    if !std::fs::metadata(path).is_ok_and(|file| file.len() > 0) {
        return Ok(true);
    }
    let connection = reader(path)?;
    let audited =
        connection.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'audit'", [], |row| row.get(0));
    Ok(audited.map(|tables: i64| tables == 0)? || Head::load(&Conn::new(&connection))? == Head::genesis())
}

/// Created here, so that it is never readable by other users, not even for a moment.
fn create_private(path: &Path) -> Result<(), OpenError> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map(drop)
        .map_err(|e| OpenError::Unwritable(path.to_owned(), e))
}

/// STORE-04: WAL, a full sync for each commit unless a batch says otherwise, and foreign keys.
fn pragmas(connection: &Connection) -> Result<(), OpenError> {
    connection.busy_timeout(PATIENCE)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // Overwrites deleted data where that needs no extra writes: the private half of a signing key.
    connection.pragma_update(None, "secure_delete", "FAST")?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    connection.pragma_update(None, "wal_autocheckpoint", writer::CHECKPOINT)?;
    // 16 MiB. Rows with digests as keys are spread over all pages; with SQLite's default of 2 MiB most are read again each time.
    connection.pragma_update(None, "cache_size", -16 * 1024)?;
    connection.set_prepared_statement_cache_capacity(256);
    Ok(())
}

fn reader(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    // No mmap_size: after each commit SQLite maps the file again for the next read, which takes longer than the read itself.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(128);
    Ok(connection)
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        match &error {
            rusqlite::Error::SqliteFailure(failure, _) => match failure.code {
                Code::DatabaseBusy | Code::DatabaseLocked => Self::Busy,
                Code::DatabaseCorrupt | Code::NotADatabase => Self::Corrupt(error.to_string()),
                _ => Self::Storage(error.to_string()),
            },
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..) => Self::Corrupt(error.to_string()),
            _ => Self::Storage(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;

//! The end of the audit chain at a second place (AUDIT-03, STORE-06): another disk or another machine. If this machine is put
//! back as a whole, as a snapshot of a virtual machine is, `audit.head` is as old as the database, and this file is not.
//!
//! The file has the format of [`super::mirror`] and is checked like it before a database is opened. The place may be a slow
//! network share, so a thread of its own writes there after callers were answered, always the latest end. The file is a
//! moment behind the database, and never ahead of it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension};

use super::conn::Head;
use super::error::{MirrorError, OpenError};
use super::mirror::{self, Mirror, MirrorContent};
use super::{Conn, Fault};

/// The least time between two writes.
const PACE: Duration = Duration::from_millis(200);
/// The time after which a failed write is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// The longest that a stopping server waits for the last write.
const PATIENCE: Duration = Duration::from_secs(5);

/// The file while a database is opened.
pub(super) struct Checked {
    path: PathBuf,
    mirror: Option<Mirror>,
}

impl Checked {
    /// As [`Mirror::before_open`].
    pub(super) fn before_open(path: &Path, database: &Path) -> Result<Self, MirrorError> {
        let mirror = Mirror::before_open(path, database).map_err(away)?;
        Ok(Self { path: path.to_owned(), mirror })
    }

    /// Refuses a database whose chain does not contain the noted end; `is_new` if it has no tables yet. If the file is missing, it
    /// is created, unless the database says that it was there: then its share may not be mounted.
    pub(super) fn check(&mut self, connection: &Connection, is_new: bool) -> Result<(), OpenError> {
        match &mut self.mirror {
            Some(mirror) if is_new => Ok(mirror.first_start()?),
            Some(mirror) => mirror.check(connection).map_err(|error| match error {
                OpenError::Mirror(error) => OpenError::Mirror(away(error)),
                other => other,
            }),
            None => {
                if !is_new && is_known(connection, &self.path)? {
                    return Err(MirrorError::AwayMissing(self.path.clone()).into());
                }
                let noted = if is_new {
                    MirrorContent::at(0, Head::genesis())
                } else {
                    MirrorContent::at(
                        mirror::epoch(connection)?.unwrap_or(0),
                        Head::load(&Conn::new(connection))?,
                    )
                };
                self.mirror = Some(Mirror::create(&self.path, noted).map_err(away)?);
                Ok(())
            }
        }
    }

    /// Stores in the migrated database that the file is there, and starts the thread that writes it.
    pub(super) fn keep(self, connection: &Connection) -> Result<Elsewhere, OpenError> {
        let Self { path, mirror } = self;
        let Some(mirror) = mirror else { return Err(MirrorError::AwayMissing(path).into()) };
        connection.execute(
            "INSERT INTO setting (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2",
            (SETTING, path.to_string_lossy()),
        )?;
        Elsewhere::start(path, mirror)
    }
}

/// The setting with the file's path.
const SETTING: &str = "audit_mirror";

/// Whether a database says that it was written together with this file.
pub(super) fn is_known(connection: &Connection, path: &Path) -> Result<bool, Fault> {
    let known: Option<String> = connection
        .query_row("SELECT value FROM setting WHERE name = ?1", [SETTING], |row| row.get(0))
        .optional()?;
    Ok(known.is_some_and(|known| known == path.to_string_lossy()))
}

/// The content of the file; `None` if there is none.
/// # Errors
/// If it cannot be read or is malformed.
pub fn read(path: &Path) -> Result<Option<MirrorContent>, MirrorError> {
    mirror::read(path).map_err(away)
}

/// An error of a file that may be on a share.
pub(super) fn away(error: MirrorError) -> MirrorError {
    match error {
        MirrorError::Unusable(path, error) => MirrorError::AwayUnusable(path, error),
        // Nobody knows what was revoked since, so neither a start nor a restore goes on without it.
        MirrorError::Damaged(path) => {
            MirrorError::AwayUnusable(path, io::Error::new(io::ErrorKind::InvalidData, "it is damaged"))
        }
        other => other,
    }
}

/// The thread that writes the file.
pub(super) struct Elsewhere {
    shared: Arc<Shared>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The end that must be written.
    head: Option<Head>,
    stopping: bool,
}

impl Elsewhere {
    fn start(path: PathBuf, mirror: Mirror) -> Result<Self, OpenError> {
        let shared = Arc::new(Shared::default());
        let (alive, ended) = sync_channel(0);
        let seen = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("audit-mirror".to_owned())
            .spawn(move || {
                let _alive = alive;
                write_all(&seen, &path, mirror);
            })
            .map_err(|e| OpenError::Fault(Fault::Storage(e.to_string())))?;
        Ok(Self { shared, ended })
    }

    /// Has the end of the chain written soon. It does not wait.
    pub(super) fn note(&self, head: &Head) {
        self.shared.lock().head = Some(head.clone());
        self.shared.changed.notify_one();
    }
}

impl Drop for Elsewhere {
    /// Waits until the last end is written, but not for a place that does not answer.
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_one();
        let _ = self.ended.recv_timeout(PATIENCE);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for an end to write, and whether it is the last one.
    fn next(&self) -> (Option<Head>, bool) {
        let idle = |state: &mut State| state.head.is_none() && !state.stopping;
        let waited = self.changed.wait_while(self.lock(), idle);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        (state.head.take(), state.stopping)
    }

    /// Waits for this long, or until the server stops.
    fn pause(&self, time: Duration) {
        let waited = self.changed.wait_timeout_while(self.lock(), time, |state| !state.stopping);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

fn write_all(shared: &Shared, path: &Path, mut mirror: Mirror) {
    let mut failed = false;
    loop {
        let (head, last) = shared.next();
        let written = head.as_ref().map_or(Ok(()), |head| write(&mut mirror, path, head));
        match (&written, head) {
            (Ok(()), Some(_)) if failed => {
                failed = false;
                tracing::info!(audit.mirror = %path.display(), "the end of the audit log is kept there again");
            }
            (Ok(()), _) => {}
            (Err(fault), head) => {
                if !failed {
                    tracing::error!(
                        audit.mirror = %path.display(), db.fault = %fault,
                        "the end of the audit log could not be kept there; it is tried again each second. Until then an older copy of this machine is not detected"
                    );
                }
                failed = true;
                // A later one may have come meanwhile.
                let mut state = shared.lock();
                state.head = state.head.take().or(head);
            }
        }
        if last {
            return;
        }
        shared.pause(if failed { RETRY } else { PACE });
    }
}

/// Writes an end. The open file may be one that a share no longer knows, so after an error it is opened again; it is not created,
/// because the share may not be mounted.
fn write(mirror: &mut Mirror, path: &Path, head: &Head) -> Result<(), Fault> {
    let Err(fault) = mirror.note_in_place(head) else { return Ok(()) };
    match Mirror::open(path) {
        Ok(Some(again)) if again.precedes(mirror, head) => {
            *mirror = again;
            mirror.note_in_place(head)
        }
        Ok(Some(_)) => Err(Fault::Corrupt(format!("{} was written by another server", path.display()))),
        Ok(None) | Err(_) => Err(fault),
    }
}

#[cfg(test)]
mod tests;

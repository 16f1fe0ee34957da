//! A complete copy of a database that may be in use (STORE-06).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::{Conn, Fault, OpenError, Schema, migrate, reader};
use crate::audit::{self, Head};

/// Why no copy was made.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("{0} exists already; choose a new file name")]
    Exists(PathBuf),
    #[error("cannot write {0}: {1}")]
    Unwritable(PathBuf, io::Error),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the audit log is not intact: {0}; `portcullis audit verify` says more. Nothing was copied")]
    Broken(audit::FirstBadRecord),
}

impl From<Fault> for BackupError {
    fn from(fault: Fault) -> Self {
        Self::Open(fault.into())
    }
}

/// Copies a snapshot of a database into a new file that only this user can read, and verifies the copy. Answers
/// with the end of the copy's audit log. Writers are not blocked.
///
/// # Errors
/// See [`BackupError`]. No file is left then.
pub fn back_up(from: &Path, to: &Path, schema: &Schema) -> Result<Head, BackupError> {
    let unwritable = |e: io::Error| BackupError::Unwritable(to.to_owned(), e);
    if to.symlink_metadata().is_ok() {
        return Err(BackupError::Exists(to.to_owned()));
    }
    let mut name =
        to.file_name().ok_or_else(|| unwritable(io::ErrorKind::InvalidFilename.into()))?.to_owned();
    name.push(".part");
    let part = to.with_file_name(name);
    // An earlier backup may have been killed.
    match fs::remove_file(&part) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(unwritable(e)),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part).map_err(unwritable)?;
    let copied = copy(from, &part, schema).and_then(|head| {
        File::open(&part).and_then(|file| file.sync_all()).map_err(unwritable)?;
        // Unlike a rename, a link never replaces a file.
        fs::hard_link(&part, to).map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => BackupError::Exists(to.to_owned()),
            _ => unwritable(e),
        })?;
        Ok(head)
    });
    let removed = fs::remove_file(&part).map_err(unwritable);
    let head = copied?;
    removed?;
    let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(unwritable)?;
    Ok(head)
}

fn copy(from: &Path, to: &Path, schema: &Schema) -> Result<Head, BackupError> {
    let source = reader(from)?;
    migrate::check(&source, schema)?;
    let mut target = Connection::open(to).map_err(OpenError::from)?;
    {
        let backup = Backup::new(&source, &mut target).map_err(OpenError::from)?;
        // In one step: a backup in several steps starts again whenever another connection writes.
        match backup.step(-1).map_err(OpenError::from)? {
            StepResult::Done => {}
            _ => return Err(Fault::Busy.into()),
        }
    }
    // One file, which can be read on a read-only file system.
    target.pragma_update(None, "journal_mode", "DELETE").map_err(OpenError::from)?;
    whole(&target)
}

/// Verifies a database that is not in use: pages, indexes, foreign keys, audit log. Answers with the end of the
/// log.
pub(super) fn whole(connection: &Connection) -> Result<Head, BackupError> {
    let verdict: String =
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(OpenError::from)?;
    if verdict != "ok" {
        return Err(Fault::Corrupt(verdict).into());
    }
    let conn = Conn::new(connection);
    audit::verify(&conn)?.map_err(BackupError::Broken)?;
    Ok(audit::head(&conn)?)
}

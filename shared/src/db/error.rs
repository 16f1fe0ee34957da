//! Errors of opening a database.

use std::io;
use std::path::PathBuf;

use super::Fault;

/// Why a database could not be opened. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot write {0}: {1}; give this user write permission, or choose another --data-dir")]
    Unwritable(PathBuf, io::Error),
    #[error("{0} is not a database of this program; choose another --data-dir")]
    Foreign(String),
    #[error(
        "the database has schema {found}, and this program knows schemas up to {known}: a newer version used it; run that version, or restore a backup"
    )]
    Newer { found: u32, known: u32 },
    #[error(
        "the database has schema {found}, this program needs {known}; start `portcullis serve` once to bring it up to date"
    )]
    Older { found: u32, known: u32 },
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    #[error("the database could not be opened: {0}")]
    Fault(#[from] Fault),
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Fault(error.into())
    }
}

/// Why a database is not the latest one. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    #[error(
        "{0} is missing. It records where the audit log ended; without it an older copy of the database cannot be detected. Put it back from where this database came from, or accept the database you have with `portcullis restore FILE`"
    )]
    Missing(PathBuf),
    #[error(
        "{0} is damaged. It records where the audit log ended; without it an older copy of the database cannot be detected. Put it back from where this database came from, or accept the database you have with `portcullis restore FILE`"
    )]
    Damaged(PathBuf),
    #[error(
        "{0} says that the database had {1} audit records, but it is missing or empty. This is not a first start: put the database back, or restore a copy with `portcullis restore FILE`"
    )]
    Gone(PathBuf, i64),
    #[error(
        "the database is older than {path} says: its audit log ends at record {found}, but record {noted} was written. Everything revoked since then would work again. Put back the latest database, or accept the older one with `portcullis restore FILE`"
    )]
    Behind { path: PathBuf, found: i64, noted: i64 },
    #[error(
        "the database has epoch {found}, but {path} says {noted}: a backup was restored after this copy was made. Put back the latest database, or accept this one with `portcullis restore FILE`"
    )]
    EarlierEpoch { path: PathBuf, found: i64, noted: i64 },
    #[error(
        "audit record {noted} of the database is not the one that {path} names: the log was changed, or the database comes from another directory. Put back the latest database, or move it away and restore a copy with `portcullis restore FILE`"
    )]
    Forked { path: PathBuf, noted: i64 },
    #[error(
        "{0} is older than the -wal file beside it, which contains changes to a later database. Put back the latest database, or restore a copy with `portcullis restore FILE`"
    )]
    StaleDatabase(PathBuf),
    #[error("cannot read or write {0}: {1}; give this user permission to it and to its directory")]
    Unusable(PathBuf, io::Error),
    #[error(
        "cannot read or write {0}, where `mirror` in [audit] keeps the end of the audit log: {1}. Mount its disk or share, or give this user permission to it and to its directory; to do without it, remove `mirror`"
    )]
    AwayUnusable(PathBuf, io::Error),
    #[error(
        "{0} is missing, but this database was used together with it: it is where `mirror` in [audit] keeps the end of the audit log. Mount its disk or share. If the file is lost for good, name another file there"
    )]
    AwayMissing(PathBuf),
}

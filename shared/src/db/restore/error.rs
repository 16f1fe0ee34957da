//! Errors of a restore.

use std::io;
use std::path::PathBuf;

use super::super::Fault;
use super::super::backup::BackupError;
use super::super::error::{MirrorError, OpenError};

/// Why a backup cannot replace the latest database. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("cannot read {0}: {1}")]
    Unreadable(PathBuf, io::Error),
    #[error("cannot write in {0}: {1}")]
    Unwritable(PathBuf, io::Error),
    #[error("{0} is not a copy that the backup command made. Nothing was changed")]
    NotOurs(PathBuf),
    #[error("{0} is not a usable copy of a database: {1}")]
    NotACopy(PathBuf, BackupError),
    #[error(
        "the copy and the current database differ from audit record {0} on: one of them was changed, or belongs to another directory. If the current database is the wrong one, move portcullis.db away first"
    )]
    Forked(i64),
    #[error(
        "the copy belongs to {copy}, and the current database to {here}: passkeys and tokens are bound to that address"
    )]
    OtherIssuer { copy: String, here: String },
    #[error("`{0}` is not an administrator in the copy who can sign in; the copy has: {1}")]
    NoAdministrator(String, String),
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl From<Fault> for RestoreError {
    fn from(fault: Fault) -> Self {
        Self::Open(fault.into())
    }
}

impl From<rusqlite::Error> for RestoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Open(error.into())
    }
}

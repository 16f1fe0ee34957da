//! Forward-only migrations by `user_version`, in one exclusive transaction (STORE-05).

use std::path::{Path, PathBuf};

use rusqlite::{Connection, TransactionBehavior};

use super::Fault;
use crate::clock::Clock;

/// What a database must look like.
pub struct Schema {
    /// Marks the file as ours (`PRAGMA application_id`).
    pub application_id: i32,
    /// One script per version; appended to, never edited.
    pub migrations: &'static [&'static str],
    /// Whether it holds the audit log.
    pub audited: bool,
}

/// Why a database could not be opened. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot write {0}: {1}; give this user write permission, or choose another --data-dir")]
    Unwritable(PathBuf, std::io::Error),
    #[error("{0} is not a database of this program; choose another --data-dir")]
    Foreign(String),
    #[error(
        "the database has schema {found}, this program knows up to {known}: it was used by a newer version; run that one, or restore a backup"
    )]
    Newer { found: u32, known: u32 },
    #[error("the database could not be opened: {0}")]
    Fault(#[from] Fault),
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Fault(error.into())
    }
}

pub(super) fn run(
    connection: &mut Connection,
    schema: &Schema,
    backups: Option<&Path>,
    clock: &Clock,
) -> Result<(), OpenError> {
    let file = connection.path().unwrap_or_default().to_owned();
    let id: i32 = connection
        .pragma_query_value(None, "application_id", |row| row.get(0))
        .map_err(|_| OpenError::Foreign(file.clone()))?;
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = u32::try_from(schema.migrations.len()).unwrap_or(u32::MAX);
    if (version > 0 || id != 0) && id != schema.application_id {
        return Err(OpenError::Foreign(file));
    }
    if version > known {
        return Err(OpenError::Newer { found: version, known });
    }
    if version == known {
        return Ok(());
    }
    if version > 0
        && let Some(backups) = backups
    {
        let copy = backups.join(format!("before-schema-{known}-{}.db", clock.now().0));
        connection.execute("VACUUM INTO ?1", [copy.to_string_lossy()])?;
    }
    let tx = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    for script in &schema.migrations[version as usize..] {
        tx.execute_batch(script)?;
    }
    tx.pragma_update(None, "application_id", schema.application_id)?;
    tx.pragma_update(None, "user_version", known)?;
    tx.commit()?;
    Ok(())
}

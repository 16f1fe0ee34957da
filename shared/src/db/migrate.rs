//! Forward-only migrations by `user_version`, in one exclusive transaction (STORE-05).

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::{Fault, OpenError};
use crate::clock::Clock;

/// The schema of a database.
pub struct Schema {
    /// Identifies the file as ours (`PRAGMA application_id`).
    pub application_id: i32,
    /// One script per version. New ones are appended; existing ones are never edited.
    pub migrations: &'static [&'static str],
    /// Whether it has the audit log.
    pub audited: bool,
}

impl Schema {
    pub(super) fn version(&self) -> u32 {
        u32::try_from(self.migrations.len()).unwrap_or(u32::MAX)
    }
}

/// The file's schema version, if the file is ours and not newer than this program.
pub(super) fn version(connection: &Connection, schema: &Schema) -> Result<u32, OpenError> {
    let file = connection.path().unwrap_or_default().to_owned();
    let id: i32 = connection
        .pragma_query_value(None, "application_id", |row| row.get(0))
        .map_err(|_| OpenError::Foreign(file.clone()))?;
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if (found > 0 || id != 0) && id != schema.application_id {
        return Err(OpenError::Foreign(file));
    }
    if found > schema.version() {
        return Err(OpenError::Newer { found, known: schema.version() });
    }
    Ok(found)
}

/// Refuses a database with another schema version, for read-only access.
pub(super) fn check(connection: &Connection, schema: &Schema) -> Result<(), OpenError> {
    let found = version(connection, schema)?;
    if found < schema.version() {
        return Err(OpenError::Older { found, known: schema.version() });
    }
    Ok(())
}

pub(super) fn run(
    connection: &mut Connection,
    schema: &Schema,
    backups: Option<&Path>,
    clock: &Clock,
) -> Result<(), OpenError> {
    let (found, known) = (version(connection, schema)?, schema.version());
    if found == known {
        return Ok(());
    }
    if found > 0
        && let Some(backups) = backups
    {
        let copy = backups.join(format!("before-schema-{known}-{}.db", clock.now().0));
        connection.execute("VACUUM INTO ?1", [copy.to_string_lossy()])?;
    }
    // Recreating a table must not delete rows that refer to it. This pragma works only outside a transaction;
    // foreign keys are checked inside it afterwards.
    connection.pragma_update(None, "foreign_keys", false)?;
    let applied = apply(connection, schema, found);
    connection.pragma_update(None, "foreign_keys", true)?;
    applied
}

fn apply(connection: &mut Connection, schema: &Schema, found: u32) -> Result<(), OpenError> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    for script in &schema.migrations[found as usize..] {
        tx.execute_batch(script)?;
    }
    let orphan: Option<String> = tx
        .query_row("SELECT \"table\" FROM pragma_foreign_key_check LIMIT 1", [], |row| row.get(0))
        .optional()?;
    if let Some(table) = orphan {
        return Err(Fault::Corrupt(format!("a row of {table} refers to nothing")).into());
    }
    tx.pragma_update(None, "application_id", schema.application_id)?;
    tx.pragma_update(None, "user_version", schema.version())?;
    tx.commit()?;
    Ok(())
}

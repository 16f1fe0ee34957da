//! Single values that are kept across restarts.

use shared::db::{Conn, params};
use shared::{Fault, Tx};

/// The value with this name.
pub(crate) fn get(conn: &Conn<'_>, name: &str) -> Result<Option<String>, Fault> {
    conn.query_row("SELECT value FROM setting WHERE name = ?1", params![name], |row| row.get(0))
}

/// Stores a value, replacing the previous one.
pub(crate) fn put(tx: &Tx<'_>, name: &str, value: &str) -> Result<(), Fault> {
    tx.execute(
        "INSERT INTO setting (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2",
        params![name, value],
    )?;
    Ok(())
}

//! The issuer of a data directory, and passkeys of its former hosts.

use shared::db::{Conn, params};
use shared::{Fault, Tx};

/// The issuer; `None` before the first start.
pub(crate) fn find(conn: &Conn<'_>) -> Result<Option<String>, Fault> {
    conn.query_row("SELECT value FROM setting WHERE name = 'issuer'", [], |row| row.get(0))
}

/// Sets the issuer.
pub(crate) fn set(tx: &Tx<'_>, issuer: &str) -> Result<(), Fault> {
    tx.execute(
        "INSERT INTO setting (name, value) VALUES ('issuer', ?1) ON CONFLICT (name) DO UPDATE SET value = ?1",
        params![issuer],
    )?;
    Ok(())
}

/// The number of passkeys in use.
pub(crate) fn count_passkeys(conn: &Conn<'_>) -> Result<u32, Fault> {
    Ok(conn.query_row("SELECT count(*) FROM passkey", [], |row| row.get(0))?.unwrap_or(0))
}

/// The number of passkeys of this host that are set aside.
pub(crate) fn count_passkeys_of(conn: &Conn<'_>, host: &str) -> Result<u32, Fault> {
    let count =
        conn.query_row("SELECT count(*) FROM passkey_elsewhere WHERE host = ?1", params![host], |row| {
            row.get(0)
        })?;
    Ok(count.unwrap_or(0))
}

/// Sets all passkeys aside, and restores those that were made under the new host.
pub(crate) fn exchange_passkeys(tx: &Tx<'_>, before: &str, after: &str) -> Result<(), Fault> {
    tx.execute(
        "INSERT INTO passkey_elsewhere (credential, user_id, host, data, created_at, last_used_at, suspended_at, label)
         SELECT credential, user_id, ?1, data, created_at, last_used_at, suspended_at, label FROM passkey WHERE true
         ON CONFLICT (credential) DO NOTHING",
        params![before],
    )?;
    tx.execute("DELETE FROM passkey", [])?;
    tx.execute(
        "INSERT INTO passkey (credential, user_id, data, created_at, last_used_at, suspended_at, label)
         SELECT credential, user_id, data, created_at, last_used_at, suspended_at, label
         FROM passkey_elsewhere WHERE host = ?1",
        params![after],
    )?;
    tx.execute("DELETE FROM passkey_elsewhere WHERE host = ?1", params![after])?;
    Ok(())
}

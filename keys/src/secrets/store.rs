//! The tables `secret` and `user_secret`.

use shared::db::{Conn, Row, params};
use shared::{Fault, Tx, UserId};

use super::{SecretInfo, Server};

/// The tables' names, to which sealed values are bound.
pub(super) const NAMED: &str = "secret";
pub(super) const OF_USERS: &str = "user_secret";

/// A sealed value in the database.
pub(super) struct Stored {
    pub(super) version: String,
    pub(super) sealed: Vec<u8>,
}

/// The context that a named secret's sealed value is bound to.
pub(super) fn row_of(name: &str, version: &str) -> Vec<u8> {
    joined(&[name, version])
}

/// The context that a user's own secret's sealed value is bound to.
pub(super) fn row_of_user(user: &str, server: Server<'_>, version: &str) -> Vec<u8> {
    joined(&[user, server.source, server.target, version])
}

/// Joins the parts with their lengths, so that different parts never give the same bytes.
fn joined(parts: &[&str]) -> Vec<u8> {
    let mut row = Vec::new();
    for part in parts {
        row.extend_from_slice(&(part.len() as u64).to_be_bytes());
        row.extend_from_slice(part.as_bytes());
    }
    row
}

fn stored(row: &Row<'_>) -> Result<Stored, Fault> {
    Ok(Stored { version: row.get(0)?, sealed: row.get(1)? })
}

pub(super) fn named(conn: &Conn<'_>, name: &str) -> Result<Option<Stored>, Fault> {
    conn.query_row("SELECT version, sealed FROM secret WHERE name = ?1", params![name], stored)
}

pub(super) fn of_user(conn: &Conn<'_>, user: &str, server: Server<'_>) -> Result<Option<Stored>, Fault> {
    conn.query_row(
        "SELECT version, sealed FROM user_secret WHERE user_id = ?1 AND source = ?2 AND target = ?3",
        params![user, server.source, server.target],
        stored,
    )
}

pub(super) fn set_named(tx: &Tx<'_>, name: &str, version: &str, sealed: &[u8]) -> Result<bool, Fault> {
    let changed = tx.execute(
        "UPDATE secret SET version = ?2, sealed = ?3, changed_at = ?4 WHERE name = ?1",
        params![name, version, sealed, tx.now()],
    )?;
    if changed == 0 {
        tx.execute(
            "INSERT INTO secret (name, version, sealed, created_at, changed_at) VALUES (?1, ?2, ?3, ?4, ?4)",
            params![name, version, sealed, tx.now()],
        )?;
    }
    Ok(changed == 0)
}

pub(super) fn set_of_user(
    tx: &Tx<'_>,
    user: &UserId,
    server: Server<'_>,
    version: &str,
    sealed: &[u8],
) -> Result<bool, Fault> {
    let changed = tx.execute(
        "UPDATE user_secret SET target = ?3, version = ?4, sealed = ?5, changed_at = ?6
         WHERE user_id = ?1 AND source = ?2",
        params![user, server.source, server.target, version, sealed, tx.now()],
    )?;
    if changed == 0 {
        tx.execute(
            "INSERT INTO user_secret (user_id, source, target, version, sealed, created_at, changed_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
            params![user, server.source, server.target, version, sealed, tx.now()],
        )?;
    }
    Ok(changed == 0)
}

pub(super) fn remove_named(tx: &Tx<'_>, name: &str) -> Result<bool, Fault> {
    Ok(tx.execute("DELETE FROM secret WHERE name = ?1", params![name])? == 1)
}

pub(super) fn remove_of_user(tx: &Tx<'_>, user: &UserId, source: &str) -> Result<bool, Fault> {
    Ok(tx.execute("DELETE FROM user_secret WHERE user_id = ?1 AND source = ?2", params![user, source])? == 1)
}

pub(super) fn list_named(conn: &Conn<'_>) -> Result<Vec<SecretInfo>, Fault> {
    conn.query("SELECT name, created_at, changed_at FROM secret ORDER BY name", params![], |row| {
        let (name, created_at, changed_at) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(SecretInfo { name, user: None, target: None, created_at, changed_at })
    })
}

/// The own secrets of all users, or of one.
pub(super) fn list_of_users(conn: &Conn<'_>, user: Option<&UserId>) -> Result<Vec<SecretInfo>, Fault> {
    conn.query(
        "SELECT source, user_id, target, created_at, changed_at FROM user_secret
         WHERE ?1 IS NULL OR user_id = ?1 ORDER BY source, user_id",
        params![user],
        |row| {
            Ok(SecretInfo {
                name: row.get(0)?,
                user: Some(row.get(1)?),
                target: Some(row.get(2)?),
                created_at: row.get(3)?,
                changed_at: row.get(4)?,
            })
        },
    )
}

/// Reseals every value that is not sealed with the new key yet; returns their number. `anew` receives the
/// table, the context that the value is bound to, and the value.
pub(crate) fn reseal(
    tx: &Tx<'_>,
    is_new: impl Fn(&[u8]) -> bool,
    anew: impl Fn(&str, &[u8], &[u8]) -> Result<Vec<u8>, Fault>,
) -> Result<usize, Fault> {
    let mut values = 0;
    let named = tx.query("SELECT name, version, sealed FROM secret", params![], |row| {
        Ok((row.get::<String>(0)?, row.get::<String>(1)?, row.get::<Vec<u8>>(2)?))
    })?;
    for (name, version, sealed) in named.into_iter().filter(|(_, _, sealed)| !is_new(sealed)) {
        let sealed = anew(NAMED, &row_of(&name, &version), &sealed)?;
        tx.execute("UPDATE secret SET sealed = ?2 WHERE name = ?1", params![name, sealed])?;
        values += 1;
    }
    let of_users =
        tx.query("SELECT user_id, source, target, version, sealed FROM user_secret", params![], |row| {
            let text = |column| row.get::<String>(column);
            Ok(([text(0)?, text(1)?, text(2)?, text(3)?], row.get::<Vec<u8>>(4)?))
        })?;
    for ([user, source, target, version], sealed) in
        of_users.into_iter().filter(|(_, sealed)| !is_new(sealed))
    {
        let row = row_of_user(&user, Server { source: &source, target: &target }, &version);
        let sealed = anew(OF_USERS, &row, &sealed)?;
        tx.execute(
            "UPDATE user_secret SET sealed = ?3 WHERE user_id = ?1 AND source = ?2",
            params![user, source, sealed],
        )?;
        values += 1;
    }
    Ok(values)
}

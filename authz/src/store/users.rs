//! People and their passkeys.

use serde::{Deserialize, Serialize};
use shared::db::{Conn, Row, params};
use shared::{Fault, Timestamp, Tx, UserId};
use uuid::Uuid;
use webauthn_rs::prelude::{CredentialID, Passkey};

/// What a user may administer. No scope follows from it (design: roles are not groups).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Admin,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
        }
    }
}

/// A person.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub id: UserId,
    pub name: String,
    /// What their passkeys know them by (WebAuthn `user.id`).
    pub handle: Uuid,
    pub disabled: bool,
}

/// A passkey with the user it belongs to.
#[derive(Clone, Debug)]
pub(crate) struct StoredPasskey {
    pub user_id: UserId,
    pub passkey: Passkey,
    /// Its counter went backwards once; an administrator has to look at it (WEBAUTHN-08).
    pub suspended: bool,
}

const USER: &str = "SELECT id, name, handle, disabled_at IS NOT NULL FROM user";

fn user(row: &Row<'_>) -> Result<User, Fault> {
    let handle: Vec<u8> = row.get(2)?;
    let handle = Uuid::from_slice(&handle).map_err(|e| Fault::Corrupt(e.to_string()))?;
    Ok(User { id: row.get(0)?, name: row.get(1)?, handle, disabled: row.get(3)? })
}

/// The user with this id.
pub(crate) fn find(conn: &Conn<'_>, id: &UserId) -> Result<Option<User>, Fault> {
    conn.query_row(&format!("{USER} WHERE id = ?1"), params![id], user)
}

/// The user whose passkeys carry this handle.
pub(crate) fn find_by_handle(conn: &Conn<'_>, handle: Uuid) -> Result<Option<User>, Fault> {
    conn.query_row(&format!("{USER} WHERE handle = ?1"), params![handle.as_bytes().as_slice()], user)
}

/// Everyone: id, and whether disabled.
pub(crate) fn all(conn: &Conn<'_>) -> Result<Vec<(UserId, bool)>, Fault> {
    conn.query("SELECT id, disabled_at IS NOT NULL FROM user", [], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// Whether the setup link has done its work.
pub(crate) fn admin_exists(conn: &Conn<'_>) -> Result<bool, Fault> {
    let found = conn.query_row("SELECT 1 FROM user WHERE role = 'admin' LIMIT 1", [], |_| Ok(()))?;
    Ok(found.is_some())
}

/// Adds a user; false if the name is taken.
pub(crate) fn insert(tx: &Tx<'_>, user: &User, role: Role) -> Result<bool, Fault> {
    let added = tx.execute(
        "INSERT INTO user (id, name, role, handle, created_at) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (name) DO NOTHING",
        params![user.id, user.name, role.as_str(), user.handle.as_bytes().as_slice(), tx.now()],
    )?;
    Ok(added == 1)
}

/// Adds a passkey; false if the credential id is registered already, to anyone (WEBAUTHN-07).
pub(crate) fn insert_passkey(tx: &Tx<'_>, user: &UserId, passkey: &Passkey) -> Result<bool, Fault> {
    let added = tx.execute(
        "INSERT INTO passkey (credential, user_id, data, created_at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (credential) DO NOTHING",
        params![passkey.cred_id().as_slice(), user, to_json(passkey)?, tx.now()],
    )?;
    Ok(added == 1)
}

/// Writes back what an assertion changed: counter and backup state.
pub(crate) fn update_passkey(tx: &Tx<'_>, passkey: &Passkey) -> Result<(), Fault> {
    tx.execute(
        "UPDATE passkey SET data = ?2, last_used_at = ?3 WHERE credential = ?1",
        params![passkey.cred_id().as_slice(), to_json(passkey)?, tx.now()],
    )?;
    Ok(())
}

/// Stops a passkey from signing in (WEBAUTHN-08).
pub(crate) fn suspend_passkey(tx: &Tx<'_>, credential: &CredentialID) -> Result<(), Fault> {
    tx.execute(
        "UPDATE passkey SET suspended_at = coalesce(suspended_at, ?2) WHERE credential = ?1",
        params![credential.as_slice(), tx.now()],
    )?;
    Ok(())
}

/// The passkey with this credential id.
pub(crate) fn find_passkey(conn: &Conn<'_>, credential: &[u8]) -> Result<Option<StoredPasskey>, Fault> {
    conn.query_row(
        "SELECT user_id, data, suspended_at FROM passkey WHERE credential = ?1",
        params![credential],
        |row| {
            let suspended: Option<Timestamp> = row.get(2)?;
            Ok(StoredPasskey {
                user_id: row.get(0)?,
                passkey: from_json(&row.get::<String>(1)?)?,
                suspended: suspended.is_some(),
            })
        },
    )
}

/// All passkeys of a user.
pub(crate) fn passkeys(conn: &Conn<'_>, user: &UserId) -> Result<Vec<Passkey>, Fault> {
    conn.query("SELECT data FROM passkey WHERE user_id = ?1", params![user], |row| {
        from_json(&row.get::<String>(0)?)
    })
}

fn to_json(passkey: &Passkey) -> Result<String, Fault> {
    serde_json::to_string(passkey).map_err(|e| Fault::Storage(e.to_string()))
}

fn from_json(text: &str) -> Result<Passkey, Fault> {
    serde_json::from_str(text).map_err(|e| Fault::Corrupt(e.to_string()))
}

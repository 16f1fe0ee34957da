//! Users and their passkeys.

use serde_json::Value;
use shared::db::{Conn, Row, params};
use shared::{Fault, Timestamp, Tx, UserId};
use uuid::Uuid;
use webauthn_rs::prelude::{CredentialID, Passkey};

use super::sessions::Authentication;
use crate::current::Current;
use crate::visible::skeleton;

/// The most passkeys of a user (WEBAUTHN-07).
pub(crate) const MOST_PASSKEYS: usize = 20;

/// An administrative role. It grants no scope (design: roles are not groups).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    None,
    Admin,
}

impl Role {
    /// The name in the database and the audit log.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Admin => "admin",
        }
    }
}

/// A user.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub id: UserId,
    pub name: String,
    /// The user handle in their passkeys (WebAuthn `user.id`).
    pub handle: Uuid,
    pub disabled: bool,
}

/// A passkey with its user.
#[derive(Clone, Debug)]
pub(crate) struct StoredPasskey {
    pub user_id: UserId,
    pub passkey: Passkey,
    /// Its counter went backwards once, so an administrator must look at it (WEBAUTHN-08).
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

/// The user with this id, if they exist and are enabled in this job.
pub(crate) fn enabled<'t>(tx: &'t Tx<'_>, id: &UserId) -> Result<Option<Current<'t, User>>, Fault> {
    Ok(Current::read(tx, |tx| Ok(find(tx, id)?.filter(|user| !user.disabled)))?.found())
}

/// The user that a command names.
pub(crate) enum NamedUser {
    /// Found by id, or by a name that does not look like another user's.
    One(User),
    Nobody,
    /// No user has exactly this name; these have a name that looks like it.
    Like(Vec<User>),
    /// One user has this name, and others have one that looks like it: the command needs an id.
    Several(Vec<User>),
}

/// The user with this id, or else with this name.
pub(crate) fn meant(conn: &Conn<'_>, who: &str) -> Result<NamedUser, Fault> {
    if let Some(found) = conn.query_row(&format!("{USER} WHERE id = ?1"), params![who], user)? {
        return Ok(NamedUser::One(found));
    }
    let mut alike = reading_like(conn, who)?;
    Ok(match alike.iter().position(|user| user.name == who) {
        Some(_) if alike.len() > 1 => NamedUser::Several(alike),
        Some(only) => NamedUser::One(alike.swap_remove(only)),
        None if alike.is_empty() => NamedUser::Nobody,
        None => NamedUser::Like(alike),
    })
}

/// The users whose names look like this one.
pub(crate) fn reading_like(conn: &Conn<'_>, name: &str) -> Result<Vec<User>, Fault> {
    conn.query(
        &format!("{USER} WHERE reads_like = ?1 ORDER BY created_at, id"),
        params![skeleton(name)],
        user,
    )
}

/// Updates the stored skeleton of every name to this version's, and reports users whose names look alike.
///
/// An earlier version may have accepted such names, and a newer Unicode version may find more.
pub(crate) fn settle_names(tx: &Tx<'_>) -> Result<Vec<Vec<User>>, Fault> {
    let stored: Vec<(UserId, String, String)> =
        tx.query("SELECT id, name, reads_like FROM user", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
    for (id, name, reads_like) in stored {
        let alike = skeleton(&name);
        if alike != reads_like {
            tx.execute("UPDATE user SET reads_like = ?2 WHERE id = ?1", params![id, alike])?;
        }
    }
    let shared: Vec<String> = tx.query(
        "SELECT reads_like FROM user GROUP BY reads_like HAVING count(*) > 1 ORDER BY min(created_at)",
        [],
        |row| row.get(0),
    )?;
    let together = |alike: &String| {
        tx.query(&format!("{USER} WHERE reads_like = ?1 ORDER BY created_at, id"), params![alike], user)
    };
    shared.iter().map(together).collect()
}

/// The name of the user with this id, and whether they were deleted.
pub(crate) fn name_of(conn: &Conn<'_>, id: &str) -> Result<Option<(String, bool)>, Fault> {
    conn.query_row(
        "SELECT name, 0 FROM user WHERE id = ?1 UNION ALL SELECT name, 1 FROM past_user WHERE id = ?1 LIMIT 1",
        params![id],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
}

/// All users, by name.
pub(crate) fn all(conn: &Conn<'_>) -> Result<Vec<User>, Fault> {
    conn.query(&format!("{USER} ORDER BY name"), [], user)
}

/// All enabled users with their groups.
pub(crate) fn enabled_with_groups(conn: &Conn<'_>) -> Result<Vec<(UserId, Vec<String>)>, Fault> {
    conn.query(
        "SELECT id, coalesce(group_concat(g.name, ' '), '') FROM user LEFT JOIN user_group g ON g.user_id = id
         WHERE disabled_at IS NULL GROUP BY id",
        [],
        |row| Ok((row.get(0)?, row.get::<String>(1)?.split_whitespace().map(str::to_owned).collect())),
    )
}

/// A user's groups, sorted.
pub(crate) fn groups(conn: &Conn<'_>, user: &UserId) -> Result<Vec<String>, Fault> {
    conn.query("SELECT name FROM user_group WHERE user_id = ?1 ORDER BY name", params![user], |row| {
        row.get(0)
    })
}

/// Replaces a user's groups.
pub(crate) fn set_groups(tx: &Tx<'_>, user: &UserId, groups: &[String]) -> Result<(), Fault> {
    tx.execute("DELETE FROM user_group WHERE user_id = ?1", params![user])?;
    for group in groups {
        tx.execute(
            "INSERT INTO user_group (user_id, name) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            params![user, group],
        )?;
    }
    Ok(())
}

/// The number of users in a group.
pub(crate) fn count_members(conn: &Conn<'_>, group: &str) -> Result<u32, Fault> {
    let count =
        conn.query_row("SELECT count(*) FROM user_group WHERE name = ?1", params![group], |row| row.get(0))?;
    Ok(count.unwrap_or(0))
}

/// How many users there are.
pub(crate) fn count(conn: &Conn<'_>) -> Result<u32, Fault> {
    let count = conn.query_row("SELECT count(*) FROM user", [], |row| row.get(0))?;
    Ok(count.unwrap_or(0))
}

/// A user's role and when they were added.
pub(crate) fn role_and_age(conn: &Conn<'_>, user: &UserId) -> Result<(String, Timestamp), Fault> {
    let row = conn.query_row("SELECT role, created_at FROM user WHERE id = ?1", params![user], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    row.ok_or_else(|| Fault::Corrupt("a user vanished in a transaction".to_owned()))
}

/// Sets a user's role.
pub(crate) fn set_role(tx: &Tx<'_>, user: &UserId, role: Role) -> Result<(), Fault> {
    tx.execute("UPDATE user SET role = ?2 WHERE id = ?1", params![user, role.as_str()])?;
    Ok(())
}

/// Whether disabling or removing this user would leave no enabled administrator (ADMIN-03).
pub(crate) fn is_last_administrator(conn: &Conn<'_>, user: &UserId) -> Result<bool, Fault> {
    let found = conn.query_row(
        "SELECT 1 FROM user WHERE id = ?1 AND role = 'admin' AND disabled_at IS NULL
         AND NOT EXISTS (SELECT 1 FROM user WHERE id <> ?1 AND role = 'admin' AND disabled_at IS NULL)",
        params![user],
        |_| Ok(()),
    )?;
    Ok(found.is_some())
}

/// Disables or enables a user.
pub(crate) fn set_disabled(tx: &Tx<'_>, user: &UserId, disabled: bool) -> Result<(), Fault> {
    let at = disabled.then_some(tx.now());
    tx.execute("UPDATE user SET disabled_at = ?2 WHERE id = ?1", params![user, at])?;
    Ok(())
}

/// Deletes a user with their passkeys, sessions, links and grants.
pub(crate) fn delete(tx: &Tx<'_>, user: &UserId) -> Result<(), Fault> {
    tx.execute(
        "INSERT INTO past_user (id, name, deleted_at) SELECT id, name, ?2 FROM user WHERE id = ?1",
        params![user, tx.now()],
    )?;
    tx.execute("DELETE FROM user WHERE id = ?1", params![user])?;
    Ok(())
}

/// The names of the enabled administrators.
pub(crate) fn administrators(conn: &Conn<'_>) -> Result<Vec<String>, Fault> {
    conn.query(
        "SELECT name FROM user WHERE role = 'admin' AND disabled_at IS NULL ORDER BY created_at, name",
        [],
        |row| row.get(0),
    )
}

/// All administrators, and whether each can sign in: enabled, with a passkey that is not suspended.
pub(crate) fn administrators_standing(conn: &Conn<'_>) -> Result<Vec<(User, bool)>, Fault> {
    conn.query(
        "SELECT id, name, handle, disabled_at IS NOT NULL, disabled_at IS NULL AND EXISTS
             (SELECT 1 FROM passkey WHERE user_id = user.id AND suspended_at IS NULL)
         FROM user WHERE role = 'admin' ORDER BY created_at, id",
        [],
        |row| Ok((user(row)?, row.get(4)?)),
    )
}

/// Whether there is an administrator.
pub(crate) fn admin_exists(conn: &Conn<'_>) -> Result<bool, Fault> {
    let found = conn.query_row("SELECT 1 FROM user WHERE role = 'admin' LIMIT 1", [], |_| Ok(()))?;
    Ok(found.is_some())
}

/// Whether any user has a passkey: users can be added before the first administrator.
pub(crate) fn anybody_has_a_passkey(conn: &Conn<'_>) -> Result<bool, Fault> {
    let found = conn.query_row("SELECT 1 FROM passkey LIMIT 1", [], |_| Ok(()))?;
    Ok(found.is_some())
}

/// Adds a user; false if the name is taken or looks like another.
pub(crate) fn insert(tx: &Tx<'_>, user: &User, role: Role) -> Result<bool, Fault> {
    if !reading_like(tx, &user.name)?.is_empty() {
        return Ok(false);
    }
    let added = tx.execute(
        "INSERT INTO user (id, name, role, handle, created_at, reads_like) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (name) DO NOTHING",
        params![
            user.id,
            user.name,
            role.as_str(),
            user.handle.as_bytes().as_slice(),
            tx.now(),
            skeleton(&user.name)
        ],
    )?;
    Ok(added == 1)
}

/// Adds a passkey, named after the browser that registered it; false if its credential id is registered already, to
/// any user (WEBAUTHN-07).
pub(crate) fn insert_passkey(
    tx: &Tx<'_>,
    user: &Current<'_, User>,
    passkey: &Passkey,
    browser: Option<&str>,
) -> Result<bool, Fault> {
    let label = browser.map(|browser| format!("Made in {browser}"));
    let added = tx.execute(
        "INSERT INTO passkey (credential, user_id, data, created_at, label) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (credential) DO NOTHING",
        params![passkey.cred_id().as_slice(), user.id, to_json(passkey)?, tx.now(), label],
    )?;
    Ok(added == 1)
}

/// Stores the counter and backup state after an assertion. False if the passkey was changed, suspended or
/// removed since it was read: of two uses of the same counter value, one loses (WEBAUTHN-08).
pub(crate) fn update_passkey(tx: &Tx<'_>, before: &Passkey, after: &Passkey) -> Result<bool, Fault> {
    let changed = tx.execute(
        "UPDATE passkey SET data = ?3, last_used_at = ?4 WHERE credential = ?1 AND data = ?2 AND suspended_at IS NULL",
        params![after.cred_id().as_slice(), to_json(before)?, to_json(after)?, tx.now()],
    )?;
    Ok(changed == 1)
}

/// The authentication method of a passkey (WEBAUTHN-13, RFC 8176): a key bound to its device, or one that can
/// be copied.
pub(crate) fn amr(backup_eligible: bool) -> &'static str {
    if backup_eligible { "swk user" } else { "hwk user" }
}

/// How a user authenticated who has just created this passkey.
pub(crate) fn registered_with(passkey: &Passkey) -> Result<Authentication, Fault> {
    Ok(Authentication {
        credential: passkey.cred_id().as_slice().to_owned(),
        amr: amr(is_copyable(passkey)?).to_owned(),
        user_verified: flag(passkey, "user_verified")?,
        backed_up: flag(passkey, "backup_state")?,
    })
}

/// Whether a passkey can be copied to other devices, as last reported (WebAuthn's BE flag).
pub(crate) fn is_copyable(passkey: &Passkey) -> Result<bool, Fault> {
    flag(passkey, "backup_eligible")
}

fn flag(passkey: &Passkey, name: &str) -> Result<bool, Fault> {
    // webauthn-rs exposes the flags only in the stored form.
    let stored = serde_json::to_value(passkey).map_err(|e| Fault::Storage(e.to_string()))?;
    let flag = stored["cred"][name].as_bool();
    flag.ok_or_else(|| Fault::Corrupt(format!("a passkey without its flag {name}")))
}

/// A copy of a passkey with another value in its record, for verification.
pub(crate) fn with(passkey: &Passkey, name: &str, value: Value) -> Result<Passkey, Fault> {
    let mut record = serde_json::to_value(passkey).map_err(|e| Fault::Storage(e.to_string()))?;
    match record["cred"].get_mut(name) {
        Some(member) => *member = value,
        None => return Err(Fault::Corrupt(format!("a passkey without its {name}"))),
    }
    serde_json::from_value(record).map_err(|e| Fault::Corrupt(e.to_string()))
}

/// Suspends a passkey (WEBAUTHN-08); false if it was removed.
pub(crate) fn suspend_passkey(tx: &Tx<'_>, credential: &CredentialID) -> Result<bool, Fault> {
    let changed = tx.execute(
        "UPDATE passkey SET suspended_at = coalesce(suspended_at, ?2) WHERE credential = ?1",
        params![credential.as_slice(), tx.now()],
    )?;
    Ok(changed == 1)
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

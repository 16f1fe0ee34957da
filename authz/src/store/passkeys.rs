//! Passkeys as administrators see and change them. Queries for signing in are in `users`.

use serde_json::Value;
use shared::db::{Conn, params};
use shared::{Digest, Fault, Timestamp, Tx, UserId};
use webauthn_rs::prelude::Passkey;

/// A passkey in a list.
pub(crate) struct Listed {
    pub credential: Vec<u8>,
    /// webauthn-rs's record, as JSON.
    data: String,
    pub created_at: Timestamp,
    pub last_used_at: Option<Timestamp>,
    pub suspended: bool,
    /// Its name, chosen by its user or made when it was registered; `None` for one of an earlier version.
    pub label: Option<String>,
}

impl Listed {
    /// Its name in commands, pages and the audit log, which show the first digits.
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.credential)
    }

    /// Whether it can be copied to other devices.
    pub(crate) fn copyable(&self) -> Result<bool, Fault> {
        // webauthn-rs exposes the flag only in the stored form.
        let flag = self.record()?["cred"]["backup_eligible"].as_bool();
        flag.ok_or_else(|| Fault::Corrupt("a passkey without its backup flag".to_owned()))
    }

    fn record(&self) -> Result<Value, Fault> {
        serde_json::from_str(&self.data).map_err(|e| Fault::Corrupt(e.to_string()))
    }
}

/// A user's passkeys, oldest first.
pub(crate) fn of(conn: &Conn<'_>, user: &UserId) -> Result<Vec<Listed>, Fault> {
    conn.query(
        "SELECT credential, data, created_at, last_used_at, suspended_at, label FROM passkey
         WHERE user_id = ?1 ORDER BY created_at, rowid",
        params![user],
        |row| {
            let suspended_at: Option<Timestamp> = row.get(4)?;
            Ok(Listed {
                credential: row.get(0)?,
                data: row.get(1)?,
                created_at: row.get(2)?,
                last_used_at: row.get(3)?,
                suspended: suspended_at.is_some(),
                label: row.get(5)?,
            })
        },
    )
}

/// The passkeys, other than this one, with which their user can sign in (WEBAUTHN-12).
pub(crate) fn others<'l>(listed: &'l [Listed], one: &Listed) -> impl Iterator<Item = &'l Listed> {
    let credential = one.credential.clone();
    listed.iter().filter(move |other| other.credential != credential && !other.suspended)
}

/// Names a passkey of this user; false if the user has none with this digest.
pub(crate) fn rename(tx: &Tx<'_>, user: &UserId, digest: &Digest, label: &str) -> Result<bool, Fault> {
    let Some(passkey) = of(tx, user)?.into_iter().find(|passkey| passkey.digest() == *digest) else {
        return Ok(false);
    };
    let sql = "UPDATE passkey SET label = ?2 WHERE credential = ?1";
    Ok(tx.execute(sql, params![passkey.credential, label])? == 1)
}

/// Deletes a passkey and the sessions begun with it.
pub(crate) fn delete(tx: &Tx<'_>, credential: &[u8]) -> Result<(), Fault> {
    tx.execute("DELETE FROM passkey WHERE credential = ?1", params![credential])?;
    Ok(())
}

/// Lifts a passkey's suspension; its next counter value is accepted (WEBAUTHN-08).
pub(crate) fn clear(tx: &Tx<'_>, passkey: &Listed) -> Result<(), Fault> {
    let mut record = passkey.record()?;
    match record.pointer_mut("/cred/counter") {
        Some(counter) => *counter = 0.into(),
        None => return Err(Fault::Corrupt("a passkey without its counter".to_owned())),
    }
    // Normalise, because the next use compares the stored text.
    let record: Passkey = serde_json::from_value(record).map_err(|e| Fault::Corrupt(e.to_string()))?;
    let data = serde_json::to_string(&record).map_err(|e| Fault::Storage(e.to_string()))?;
    tx.execute(
        "UPDATE passkey SET suspended_at = NULL, data = ?2 WHERE credential = ?1",
        params![passkey.credential, data],
    )?;
    Ok(())
}

//! The sealed store of secrets for sources (SRC-10): by a name in the configuration, or each user's own. Values
//! are sealed like private keys (KEYS-05). Each is bound to its name, its holder and its version, so that write
//! access to the database is not enough to use a secret elsewhere.

mod store;

use std::sync::Arc;

use shared::db::Conn;
use shared::id::random_128;
use shared::{Db, Fault, Secret, Timestamp, Tx, UserId};

use crate::seal::{Purpose, Seal};

pub(crate) use store::reseal;

/// The longest value in bytes, so that it fits into a header.
pub const LONGEST: usize = 4096;

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct Secrets {
    db: Db,
    seal: Arc<Seal>,
}

/// A secret with its value. A new value has a new version.
#[derive(Clone, Debug)]
pub struct StoredSecret {
    pub version: String,
    pub value: Secret,
}

/// A secret without its value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SecretInfo {
    /// Its name; for one of a user's own, the source that it is for.
    pub name: String,
    /// Its user, for a user's own secret.
    pub user: Option<UserId>,
    /// The address of the source when the secret was given. The secret is sent to no other address.
    pub target: Option<String>,
    pub created_at: Timestamp,
    pub changed_at: Timestamp,
}

/// A source with users' own secrets: its name, and its address.
#[derive(Clone, Copy, Debug)]
pub struct Server<'s> {
    pub source: &'s str,
    pub target: &'s str,
}

/// Why a text cannot be stored as a secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidSecret {
    #[error("there is no value")]
    Empty,
    #[error("the value is longer than {LONGEST} characters")]
    TooLong,
    #[error(
        "the value contains a line break or a character that is not visible ASCII, which no header can carry"
    )]
    NotVisible,
}

/// Parses a typed, pasted or piped value: one line of visible characters, without surrounding white space.
///
/// # Errors
/// See [`InvalidSecret`].
pub fn value(text: &str) -> Result<Secret, InvalidSecret> {
    let text = text.trim();
    if text.is_empty() {
        return Err(InvalidSecret::Empty);
    }
    if text.len() > LONGEST {
        return Err(InvalidSecret::TooLong);
    }
    if !text.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        return Err(InvalidSecret::NotVisible);
    }
    Ok(Secret::presented(text))
}

impl Secrets {
    pub fn new(db: Db, seal: Arc<Seal>) -> Self {
        Self { db, seal }
    }

    /// The secret with this name.
    ///
    /// # Errors
    /// The database's fault; one that does not open is corrupt.
    pub fn named(&self, name: &str) -> Result<Option<StoredSecret>, Fault> {
        let stored = self.db.read(|conn| store::named(conn, name))?;
        stored
            .map(|stored| self.open(&stored, store::NAMED, &store::row_of(name, &stored.version)))
            .transpose()
    }

    /// The user's own secret for a source.
    ///
    /// # Errors
    /// As [`Secrets::named`].
    pub fn of_user(&self, user: &str, server: Server<'_>) -> Result<Option<StoredSecret>, Fault> {
        let stored = self.db.read(|conn| store::of_user(conn, user, server))?;
        let row = |version: &str| store::row_of_user(user, server, version);
        stored.map(|stored| self.open(&stored, store::OF_USERS, &row(&stored.version))).transpose()
    }

    fn open(&self, stored: &store::Stored, table: &str, row: &[u8]) -> Result<StoredSecret, Fault> {
        let closed = |why: &dyn std::fmt::Display| Fault::Corrupt(format!("a secret does not open: {why}"));
        let plain =
            self.seal.unseal(Purpose::Secret, table, row, &stored.sealed).map_err(|why| closed(&why))?;
        let text = std::str::from_utf8(&plain).map_err(|why| closed(&why))?;
        Ok(StoredSecret { version: stored.version.clone(), value: Secret::presented(text) })
    }

    /// Stores a value under this name; returns whether the name is new.
    ///
    /// # Errors
    /// The database's fault.
    pub fn set_named(&self, tx: &Tx<'_>, name: &str, value: &Secret) -> Result<bool, Fault> {
        let version = random_128();
        let row = store::row_of(name, &version);
        let sealed = self.seal.seal(Purpose::Secret, store::NAMED, &row, value.expose().as_bytes());
        store::set_named(tx, name, &version, &sealed)
    }

    /// Stores a user's own secret for a source; returns whether it is new.
    ///
    /// # Errors
    /// The database's fault.
    pub fn set_of_user(
        &self,
        tx: &Tx<'_>,
        user: &UserId,
        server: Server<'_>,
        value: &Secret,
    ) -> Result<bool, Fault> {
        let version = random_128();
        let row = store::row_of_user(user.as_str(), server, &version);
        let sealed = self.seal.seal(Purpose::Secret, store::OF_USERS, &row, value.expose().as_bytes());
        store::set_of_user(tx, user, server, &version, &sealed)
    }
}

/// Deletes the secret with this name; false if it does not exist.
///
/// # Errors
/// The database's fault.
pub fn remove_named(tx: &Tx<'_>, name: &str) -> Result<bool, Fault> {
    store::remove_named(tx, name)
}

/// Deletes a user's own secret for the source with this name; false if it does not exist.
///
/// # Errors
/// The database's fault.
pub fn remove_of_user(tx: &Tx<'_>, user: &UserId, source: &str) -> Result<bool, Fault> {
    store::remove_of_user(tx, user, source)
}

/// All secrets, by name; users' own secrets last.
///
/// # Errors
/// The database's fault.
pub fn list(conn: &Conn<'_>) -> Result<Vec<SecretInfo>, Fault> {
    let mut all = store::list_named(conn)?;
    all.extend(store::list_of_users(conn, None)?);
    Ok(all)
}

/// The user's own secrets.
///
/// # Errors
/// The database's fault.
pub fn list_of_user(conn: &Conn<'_>, user: &UserId) -> Result<Vec<SecretInfo>, Fault> {
    store::list_of_users(conn, Some(user))
}

#[cfg(test)]
mod tests;

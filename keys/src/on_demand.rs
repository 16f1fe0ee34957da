//! Commands about keys, ahead of the schedule: list, rotate, remove (KEYS-03, 04).

use serde::{Deserialize, Serialize};
use shared::db::Conn;
use shared::{Fault, Timestamp, Tx};

use crate::Keys;
use crate::algorithm::Algorithm;
use crate::rotation::schedule::{activate_at, remove_at};
use crate::rotation::{Cause, IllegalStep, NewKey};
use crate::state::State;
use crate::store::{self, StoredKey};

/// A key in a list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyInfo {
    pub kid: String,
    pub alg: Algorithm,
    pub state: State,
    /// Whether new tokens are signed with it.
    pub signs: bool,
    pub created_at: Timestamp,
    /// When it becomes active, if it is next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activate_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activated_at: Option<Timestamp>,
    /// When its successor becomes active, if it is active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retire_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retired_at: Option<Timestamp>,
    /// When it can be removed, if it is retired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remove_at: Option<Timestamp>,
}

/// The result of a rotation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rotated {
    pub kid: String,
    pub alg: Algorithm,
    pub state: State,
    /// When the new key becomes or became active.
    pub activate_at: Timestamp,
    /// The key that it replaced, if it is already active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retired: Option<String>,
}

impl Keys {
    /// All keys, oldest first.
    ///
    /// # Errors
    /// A database fault.
    pub fn list(&self, conn: &Conn<'_>) -> Result<Vec<KeyInfo>, Fault> {
        let rows = store::all(conn)?;
        let signs = self.signing_kid();
        let listed = |row: &StoredKey| {
            let config = self.config();
            let next = rows.iter().find(|key| key.algorithm == row.algorithm && key.state == State::Next);
            let ends = || row.activated_at.unwrap_or(row.created_at) + config.active;
            KeyInfo {
                kid: row.kid.clone(),
                alg: row.algorithm,
                state: row.state,
                signs: row.kid == signs,
                created_at: row.created_at,
                activate_at: (row.state == State::Next).then(|| activate_at(row, config)),
                activated_at: row.activated_at,
                retire_at: (row.state == State::Active)
                    .then(|| next.map_or_else(ends, |next| activate_at(next, config))),
                retired_at: row.retired_at,
                remove_at: (row.state == State::Retired).then(|| remove_at(row, config)),
            }
        };
        Ok(rows.iter().map(listed).collect())
    }

    /// Rotates an algorithm's key ahead of the schedule. The next key is published at once, unless it already
    /// is, and becomes active as soon as every cache has it. With `at_once` it becomes active in this
    /// transaction, so that resource servers refuse new tokens until they fetch the key set again. `made` is
    /// used if a key is needed.
    ///
    /// # Errors
    /// A database fault.
    pub fn rotate(
        &self,
        tx: &Tx<'_>,
        made: &NewKey,
        at_once: bool,
        cause: Cause<'_>,
    ) -> Result<Rotated, Fault> {
        let alg = made.algorithm();
        let (kid, created_at) = if let Some(next) = store::next(tx, alg)? {
            (next.kid, next.created_at)
        } else {
            self.publish(tx, made, tx.now() + self.config().cached(), cause)?;
            (made.kid().to_owned(), tx.now())
        };
        if at_once {
            let retired = self.activate(tx, &kid, cause)?.map_err(|e| Fault::Corrupt(e.to_string()))?;
            return Ok(Rotated { kid, alg, state: State::Active, activate_at: tx.now(), retired });
        }
        let activate_at = tx.now().max(created_at + self.config().cached());
        store::reschedule(tx, &kid, activate_at)?;
        Ok(Rotated { kid, alg, state: State::Next, activate_at, retired: None })
    }

    /// The key with this `kid`.
    ///
    /// # Errors
    /// A database fault.
    pub fn find(&self, conn: &Conn<'_>, kid: &str) -> Result<Option<KeyInfo>, Fault> {
        Ok(self.list(conn)?.into_iter().find(|key| key.kid == kid))
    }

    /// Removes a key in an emergency (KEYS-04). If it was active, `made` signs from the commit on. The waiting
    /// next key is not used, because an attacker who has a copy of this key may have that one too. Answers with
    /// the former state and the successor's `kid`.
    ///
    /// # Errors
    /// A database fault; [`Fault::Busy`] if the key is active and no key of its algorithm was made.
    pub fn remove_now(
        &self,
        tx: &Tx<'_>,
        kid: &str,
        made: Option<&NewKey>,
        cause: Cause<'_>,
    ) -> Result<Result<(State, Option<String>), IllegalStep>, Fault> {
        let Some(key) = store::find(tx, kid)? else { return Ok(Err(IllegalStep::Unknown)) };
        if let Err(illegal) = self.remove(tx, kid, cause)? {
            return Ok(Err(illegal));
        }
        if key.state != State::Active {
            return Ok(Ok((key.state, None)));
        }
        // It became active a moment ago; a retry makes the key.
        let made = made.filter(|made| made.algorithm() == key.algorithm).ok_or(Fault::Busy)?;
        self.publish(tx, made, tx.now(), cause)?;
        self.activate(tx, made.kid(), cause)?.map_err(|e| Fault::Corrupt(e.to_string()))?;
        Ok(Ok((key.state, Some(made.kid().to_owned()))))
    }

    /// The algorithms that have an active key.
    ///
    /// # Errors
    /// A database fault.
    pub fn active_algorithms(&self, conn: &Conn<'_>) -> Result<Vec<Algorithm>, Fault> {
        let active = store::all(conn)?.into_iter().filter(|key| key.state == State::Active);
        Ok(active.map(|key| key.algorithm).collect())
    }

    /// Removes all keys and lets `made` sign from the commit on, dated now, because the time before was wrong
    /// (OPS-04). Answers with the number of removed keys.
    ///
    /// # Errors
    /// A database fault; [`Fault::Busy`] if an algorithm would be left without a key.
    pub fn replace_all(
        &self,
        tx: &Tx<'_>,
        made: &[NewKey],
        as_of: Timestamp,
        cause: Cause<'_>,
    ) -> Result<usize, Fault> {
        let keys = store::all(tx)?;
        let active = |key: &&StoredKey| key.state == State::Active;
        let is_made = |key: &StoredKey| made.iter().any(|made| made.algorithm() == key.algorithm);
        if !keys.iter().filter(active).all(is_made) {
            return Err(Fault::Busy);
        }
        for key in &keys {
            self.remove(tx, &key.kid, cause)?.map_err(|e| Fault::Corrupt(e.to_string()))?;
        }
        for key in made {
            self.publish(tx, key, as_of, cause)?;
            self.activate(tx, key.kid(), cause)?.map_err(|e| Fault::Corrupt(e.to_string()))?;
        }
        store::date(tx, as_of)?;
        Ok(keys.len())
    }
}

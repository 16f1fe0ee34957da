//! Replaces the sealing key (KEYS-05). Every sealed value is sealed again in one transaction, and after a kill
//! at any moment the data directory opens and the reseal is finished.
//!
//! The order ensures that: the file holds both keys before the first value is sealed with the new one, and only
//! the new key after the last value is.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use shared::audit::{self, Event, Name};
use shared::db::{Conn, params};
use shared::{Db, Fault, Timestamp, Tx};
use zeroize::Zeroizing;

use super::file::{self, SealKey};
use super::{Derived, Opened, Purpose, Seal, SealError, Source, Subkey, derive};
use crate::checkpoint;
use crate::jwt::CryptoFailed;
use crate::secrets;
use crate::state::State;
use crate::store;

/// How long values derived from an earlier key are recognised: a lost refresh response may be repeated for a
/// day (REFRESH-06), plus a margin.
const KEPT_FOR: Duration = Duration::from_hours(25);
/// The purposes that derive values by HMAC.
const KEPT: [Purpose; 3] = [Purpose::RefreshToken, Purpose::Csrf, Purpose::UserCode];
const TABLE: &str = "setting";
const PREFIX: &str = "seal_earlier:";

/// HMAC subkeys kept of a replaced sealing key. They unseal nothing, but recently derived values are still
/// recognised.
pub struct KeptSubkeys {
    id: String,
    until: Timestamp,
    subkeys: [Subkey; KEPT.len()],
}

impl KeptSubkeys {
    pub(super) fn hmac(&self, purpose: Purpose, message: &[u8]) -> Option<[u8; 32]> {
        let index = KEPT.iter().position(|kept| *kept == purpose)?;
        Some(self.subkeys[index].hmac(message))
    }

    fn of(key: &Derived, until: Timestamp) -> Result<Self, CryptoFailed> {
        let subkey = |purpose| Subkey::of(key.at(purpose).bytes.clone());
        let [refresh_token, csrf, user_code] = KEPT.map(subkey);
        Ok(Self { id: HEXLOWER.encode(&key.id), until, subkeys: [refresh_token?, csrf?, user_code?] })
    }

    fn name(&self) -> String {
        format!("{PREFIX}{}", self.id)
    }

    fn sealed(&self, with: &Derived) -> String {
        let mut text = Zeroizing::new(self.until.0.to_be_bytes().to_vec());
        self.subkeys.iter().for_each(|subkey| text.extend_from_slice(&subkey.bytes[..]));
        BASE64URL_NOPAD.encode(&with.seal(Purpose::Earlier, TABLE, self.name().as_bytes(), &text))
    }

    fn unsealed(seal: &Seal, name: &str, value: &str) -> Result<Self, Fault> {
        let bad = || Fault::Corrupt("a value kept from an earlier seal key cannot be decrypted".to_owned());
        let id = name.strip_prefix(PREFIX).ok_or_else(bad)?.to_owned();
        let blob = BASE64URL_NOPAD.decode(value.as_bytes()).map_err(|_| bad())?;
        let text = seal.unseal(Purpose::Earlier, TABLE, name.as_bytes(), &blob).map_err(|_| bad())?;
        let (until, subkeys) = text.split_first_chunk::<8>().ok_or_else(bad)?;
        let (subkeys, []) = subkeys.as_chunks::<32>() else { return Err(bad()) };
        let open = |bytes: &[u8; 32]| Subkey::of(Zeroizing::new(*bytes)).map_err(|_| bad());
        let subkeys = subkeys.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let subkeys = subkeys.try_into().map_err(|_| bad())?;
        Ok(Self { id, until: Timestamp(i64::from_be_bytes(*until)), subkeys })
    }
}

/// A new key that is in its file beside the current one, before any value is sealed with it.
#[derive(Clone)]
pub struct Pending {
    new: Arc<Derived>,
    key: Arc<SealKey>,
    file: PathBuf,
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pending({})", HEXLOWER.encode(&self.new.id))
    }
}

/// The result of a reseal.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Resealed {
    /// The id of the old key.
    pub before: String,
    /// The id of the new key.
    pub after: String,
    /// The number of values that were sealed again.
    pub values: usize,
    /// The file with the new key.
    pub file: PathBuf,
}

impl Seal {
    /// Makes a new key and writes it beside the current one: into the same file or, with `elsewhere`, into a
    /// new one, which a service manager's credential needs. `keep` is a new file for a copy of the current key,
    /// which backups made with it need. Blocks.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn prepare(
        self: &Arc<Self>,
        db: &Db,
        elsewhere: Option<&Path>,
        keep: Option<&Path>,
    ) -> Result<Pending, SealError> {
        let source = self.source.path();
        let keys = match &self.source {
            Source::File(path) => file::open_or_create(path, false)?,
            Source::Credential(path) => file::open_credential(path)?,
        };
        let id = self.opened.load().current.id;
        let Some(at) = keys.iter().position(|key| key.id == id) else {
            return Err(SealError::Replaced(source.to_owned()));
        };
        if at > 0 {
            // If the last step of an earlier attempt failed, first make sure that nothing needs the key that
            // will be removed.
            let (seal, current) = (Arc::clone(self), Arc::clone(&self.opened.load().current));
            db.write_blocking(move |tx| seal.seal_anew(tx, &current, &current).map(drop))?;
        }
        if let Some(keep) = keep {
            file::write_new(keep, &[&keys[at]])?;
        }
        // A new key left by an earlier attempt can be used.
        let mut keys = keys.into_iter().skip(at);
        let old = keys.next().ok_or_else(|| SealError::Replaced(source.to_owned()))?;
        let key = keys.next().unwrap_or_else(SealKey::random);
        let file = match (elsewhere, &self.source) {
            (Some(elsewhere), _) => {
                file::write_new(elsewhere, &[&old, &key])?;
                elsewhere.to_owned()
            }
            (None, Source::File(path)) => {
                // Resolve a symbolic link, because the file itself is replaced.
                let path = fs::canonicalize(path).map_err(|e| SealError::Unreadable(path.clone(), e))?;
                file::replace(&path, &[&old, &key])?;
                path
            }
            (None, Source::Credential(path)) => return Err(SealError::ReadOnly(path.clone())),
        };
        let new = derive(&key)?;
        self.change(|opened| {
            opened.others.retain(|other| other.id != new.id);
            opened.others.push(Arc::clone(&new));
        });
        Ok(Pending { new, key: Arc::new(key), file })
    }

    /// Seals every value with the new key, which is the current one from the commit on.
    ///
    /// # Errors
    /// A database fault.
    pub fn reseal(self: &Arc<Self>, tx: &Tx<'_>, pending: &Pending, event: Event) -> Result<Resealed, Fault> {
        let old = Arc::clone(&self.opened.load().current);
        let values = self.seal_anew(tx, &old, &pending.new)?;
        let resealed = Resealed {
            before: HEXLOWER.encode(&old.id),
            after: HEXLOWER.encode(&pending.new.id),
            values,
            file: pending.file.clone(),
        };
        record(tx, event, &resealed)?;
        let (seal, new) = (Arc::clone(self), Arc::clone(&pending.new));
        let kept = recall(self, tx)?;
        tx.after_commit(move || {
            seal.change(|opened| {
                opened.others.retain(|other| other.id != new.id);
                opened.others.push(std::mem::replace(&mut opened.current, Arc::clone(&new)));
                opened.earlier.clone_from(&kept);
            });
        });
        Ok(resealed)
    }

    /// Removes the old key from the file, after sealing again what was sealed with it in the meantime. Blocks.
    ///
    /// # Errors
    /// See [`SealError`]. The file then holds both keys, and the next start finishes this.
    pub fn finish(self: &Arc<Self>, db: &Db, pending: &Pending) -> Result<(), SealError> {
        let (seal, new) = (Arc::clone(self), Arc::clone(&pending.new));
        db.write_blocking(move |tx| seal.seal_anew(tx, &new, &new).map(drop))?;
        file::replace(&pending.file, &[&pending.key])?;
        self.change(|opened| opened.others.clear());
        Ok(())
    }

    /// Finishes a reseal that an earlier process began, and loads the kept subkeys. Call it after the signing
    /// keys were opened, which proves that the sealing key is the right one. Blocks.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn settle(self: &Arc<Self>, db: &Db) -> Result<(), SealError> {
        let opened = self.opened.load_full();
        if let Some(old) = opened.others.first() {
            let (seal, old, new) = (Arc::clone(self), Arc::clone(old), Arc::clone(&opened.current));
            let file = self.source.path().to_owned();
            db.write_blocking(move |tx| {
                let values = seal.seal_anew(tx, &old, &new)?;
                let (before, after) = (HEXLOWER.encode(&old.id), HEXLOWER.encode(&new.id));
                let event = Event::allowed(Name::ServerConfigChanged).by_server();
                record(tx, event, &Resealed { before, after, values, file })
            })?;
            if let Source::File(path) = &self.source {
                let path = fs::canonicalize(path).map_err(|e| SealError::Unreadable(path.clone(), e))?;
                let keys = file::open_or_create(&path, false)?;
                let current = keys.iter().filter(|key| key.id == opened.current.id).collect::<Vec<_>>();
                file::replace(&path, &current)?;
            }
            self.change(|opened| opened.others.clear());
        }
        if let Source::File(path) = &self.source {
            file::sweep(path);
        }
        let kept = db.read(|conn| recall(self, conn))?;
        self.change(|opened| opened.earlier.clone_from(&kept));
        Ok(())
    }

    fn change(&self, change: impl Fn(&mut Opened)) {
        self.opened.rcu(|opened| {
            let mut changed = Opened::clone(opened);
            change(&mut changed);
            changed
        });
    }

    /// Seals every value with `new` unless it already is, and stores the kept subkeys of `old`.
    fn seal_anew(&self, tx: &Tx<'_>, old: &Derived, new: &Derived) -> Result<usize, Fault> {
        let mut values = 0;
        for row in store::all(tx)?.into_iter().filter(|row| !new.sealed(&row.sealed)) {
            let closed = |cause| Fault::Corrupt(format!("signing key {}: {cause}", row.kid));
            let purpose = match row.state {
                State::Retired => Purpose::PublicKey,
                State::Next | State::Active => Purpose::SigningKey,
            };
            let kid = row.kid.as_bytes();
            let plain = self.unseal(purpose, store::TABLE, kid, &row.sealed).map_err(closed)?;
            store::reseal(tx, &row.kid, &new.seal(purpose, store::TABLE, kid, &plain))?;
            values += 1;
        }
        values += checkpoint::reseal(
            tx,
            |blob| new.sealed(blob),
            |table, row, blob| {
                let plain = self.unseal(Purpose::CheckpointKey, table, row, blob).map_err(|cause| {
                    Fault::Corrupt(format!("the key of the audit log's checkpoints: {cause}"))
                })?;
                Ok(new.seal(Purpose::CheckpointKey, table, row, &plain))
            },
        )?;
        values += secrets::reseal(
            tx,
            |blob| new.sealed(blob),
            |table, row, blob| {
                let plain = self.unseal(Purpose::Secret, table, row, blob);
                let plain =
                    plain.map_err(|cause| Fault::Corrupt(format!("a secret does not open: {cause}")))?;
                Ok(new.seal(Purpose::Secret, table, row, &plain))
            },
        )?;
        for kept in recall(self, tx)? {
            if kept.until <= tx.now() {
                tx.execute("DELETE FROM setting WHERE name = ?1", params![kept.name()])?;
            } else {
                keep(tx, &kept, new)?;
            }
        }
        if old.id != new.id {
            let kept =
                KeptSubkeys::of(old, tx.now() + KEPT_FOR).map_err(|e| Fault::Storage(e.to_string()))?;
            keep(tx, &kept, new)?;
        }
        Ok(values)
    }
}

fn keep(tx: &Tx<'_>, kept: &KeptSubkeys, new: &Derived) -> Result<(), Fault> {
    tx.execute(
        "INSERT INTO setting (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2",
        params![kept.name(), kept.sealed(new)],
    )
    .map(drop)
}

/// The kept subkeys of earlier keys, newest first.
fn recall(seal: &Seal, conn: &Conn<'_>) -> Result<Vec<Arc<KeptSubkeys>>, Fault> {
    let rows = conn.query(
        "SELECT name, value FROM setting WHERE name >= 'seal_earlier:' AND name < 'seal_earlier;'",
        [],
        |row| Ok((row.get::<String>(0)?, row.get::<String>(1)?)),
    )?;
    let mut kept = rows
        .iter()
        .map(|(name, value)| KeptSubkeys::unsealed(seal, name, value))
        .collect::<Result<Vec<_>, _>>()?;
    kept.sort_by_key(|kept| std::cmp::Reverse(kept.until));
    Ok(kept.into_iter().map(Arc::new).collect())
}

fn record(tx: &Tx<'_>, event: Event, resealed: &Resealed) -> Result<(), Fault> {
    let event = event.detail("changed", "seal_key").detail("values", resealed.values);
    audit::append(tx, event.detail("before", resealed.before.clone()).detail("after", resealed.after.clone()))
}

#[cfg(test)]
mod tests;

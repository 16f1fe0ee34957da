//! The life of a signing key: next, active, retired, removed (KEYS-02). Each step is one transaction with its
//! audit record, and is published to memory with the commit. `schedule` decides when.

pub(crate) mod schedule;

use std::fmt;
use std::sync::Arc;

use shared::audit::{self, Event, Name};
use shared::{Fault, Timestamp, Tx};

use crate::Keys;
use crate::algorithm::Algorithm;
use crate::jwks::PublicJwk;
use crate::jwt::{self, CryptoFailed, SigningKey, VerifyingKey};
use crate::ring::HeldKey;
use crate::seal::{Purpose, Seal};
use crate::state::State;
use crate::store::{self, StoredKey};
pub(crate) use schedule::{Step, due};

/// Who takes a step and why, for the audit log (AUDIT-08).
#[derive(Clone, Copy, Debug)]
pub struct Cause<'c> {
    by: RotationCause,
    reason: &'c str,
}

#[derive(Clone, Copy, Debug)]
enum RotationCause {
    Server,
    Console(u32),
}

impl<'c> Cause<'c> {
    /// The server itself; `reason` is a short stable keyword.
    pub fn server(reason: &'c str) -> Self {
        Self { by: RotationCause::Server, reason }
    }

    /// An administrator at the console, with their reason.
    pub fn console(uid: u32, reason: &'c str) -> Self {
        Self { by: RotationCause::Console(uid), reason }
    }

    fn event(self, name: Name, kid: &str, algorithm: Algorithm) -> Event {
        let event = Event::allowed(name).subject(kid);
        let event = match self.by {
            RotationCause::Server => event.by_server(),
            RotationCause::Console(uid) => event.by_console(uid),
        };
        event.detail("kid", kid).detail("alg", algorithm.as_str()).detail("reason", self.reason)
    }
}

/// A step that is not allowed in the key's current state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IllegalStep {
    #[error("no such signing key")]
    Unknown,
    #[error("only a key in state next can be activated; this one is {0}")]
    NotNext(State),
}

/// A new key. Generating one is slow, so it is done before the transaction.
pub struct NewKey {
    kid: String,
    algorithm: Algorithm,
    private: zeroize::Zeroizing<Vec<u8>>,
    jwk: Arc<PublicJwk>,
    verifying: Arc<VerifyingKey>,
    signing: Arc<SigningKey>,
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl NewKey {
    /// Makes a key with the operating system's randomness (KEYS-05).
    ///
    /// # Errors
    /// If the cryptographic library fails.
    pub fn generate(algorithm: Algorithm) -> Result<Self, CryptoFailed> {
        let private = jwt::generate(algorithm)?;
        let (verifying, jwk) = jwt::public_half(algorithm, &private)?;
        let kid = jwk.kid().to_owned();
        let signing = SigningKey::from_der(algorithm, &kid, &private)?;
        Ok(Self {
            kid,
            algorithm,
            private,
            jwk: Arc::new(jwk),
            verifying: Arc::new(verifying),
            signing: Arc::new(signing),
        })
    }

    /// Its RFC 7638 thumbprint.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Its algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Keys {
    /// Adds a key as next: published from the commit on, to become active at `activate_at`.
    ///
    /// # Errors
    /// A database fault.
    pub fn publish(
        &self,
        tx: &Tx<'_>,
        key: &NewKey,
        activate_at: Timestamp,
        cause: Cause<'_>,
    ) -> Result<(), Fault> {
        publish(tx, self.seal(), key, activate_at, cause)?;
        let held = HeldKey {
            state: State::Next,
            algorithm: key.algorithm,
            verifying: Arc::clone(&key.verifying),
            jwk: Arc::clone(&key.jwk),
            signing: Some(Arc::clone(&key.signing)),
            seen: self.uptime(),
        };
        let keys = self.clone();
        tx.after_commit(move || keys.change(|ring| ring.insert(held)));
        Ok(())
    }

    /// Activates a next key from the commit on and retires the previous one, so that there is always exactly
    /// one active key (KEYS-03). Answers with the `kid` of the retired key.
    ///
    /// # Errors
    /// A database fault. A step that is out of order is the inner error.
    pub fn activate(
        &self,
        tx: &Tx<'_>,
        kid: &str,
        cause: Cause<'_>,
    ) -> Result<Result<Option<String>, IllegalStep>, Fault> {
        let follows = match activate(tx, self.seal(), kid, cause)? {
            Ok(follows) => follows,
            Err(illegal) => return Ok(Err(illegal)),
        };
        let (keys, kid, retired) = (self.clone(), kid.to_owned(), follows.clone());
        tx.after_commit(move || {
            keys.change(|ring| {
                let uptime = keys.uptime();
                if let Some(retired) = &retired {
                    ring.set(retired, State::Retired, uptime);
                }
                ring.set(&kid, State::Active, uptime);
            });
        });
        Ok(Ok(follows))
    }

    /// Removes a key: tokens that it signed are refused from now on, before the commit (KEYS-04). Answers with
    /// its row. If it was active, nothing signs with its algorithm until another key is activated in the same
    /// transaction.
    ///
    /// # Errors
    /// A database fault.
    pub fn remove(
        &self,
        tx: &Tx<'_>,
        kid: &str,
        cause: Cause<'_>,
    ) -> Result<Result<State, IllegalStep>, Fault> {
        let Some(key) = store::find(tx, kid)? else {
            return Ok(Err(IllegalStep::Unknown));
        };
        moved(store::remove(tx, kid)?)?;
        let event = cause.event(Name::KeyRemoved, kid, key.algorithm);
        audit::append(tx, event.detail("state", key.state.to_string()))?;
        let forget = || {
            let (keys, kid) = (self.clone(), kid.to_owned());
            move || keys.change(|ring| ring.remove(&kid))
        };
        tx.before_commit(forget());
        // Once more, because an earlier job of this batch may publish it again.
        tx.after_commit(forget());
        Ok(Ok(key.state))
    }

    /// Retires a key without a successor: its algorithm is no longer used.
    fn retire(&self, tx: &Tx<'_>, kid: &str, cause: Cause<'_>) -> Result<(), Fault> {
        let Some(key) = store::find(tx, kid)? else { return Ok(()) };
        retire(tx, self.seal(), &key, cause)?;
        let (keys, kid) = (self.clone(), kid.to_owned());
        tx.after_commit(move || keys.change(|ring| ring.set(&kid, State::Retired, keys.uptime())));
        Ok(())
    }

    /// Takes a step of the schedule if it is still due. A key to publish must be among `made`.
    pub(crate) fn take(&self, tx: &Tx<'_>, step: &Step, made: &[NewKey]) -> Result<(), Fault> {
        match step {
            Step::Publish { algorithm, activate_at } => {
                match made.iter().find(|key| key.algorithm == *algorithm) {
                    Some(key) => self.publish(tx, key, *activate_at, Cause::server("schedule")),
                    // The step became due after the keys were made; the next check makes one.
                    None => Ok(()),
                }
            }
            Step::Activate(kid) => match self.activate(tx, kid, Cause::server("schedule"))? {
                Ok(_) => Ok(()),
                Err(illegal) => Err(Fault::Corrupt(illegal.to_string())),
            },
            Step::Retire(kid) => self.retire(tx, kid, Cause::server("algorithm_unused")),
            Step::Remove { kid, reason } => self.remove(tx, kid, Cause::server(reason)).map(drop),
        }
    }
}

/// The database part of [`Keys::publish`].
pub(crate) fn publish(
    tx: &Tx<'_>,
    seal: &Seal,
    key: &NewKey,
    activate_at: Timestamp,
    cause: Cause<'_>,
) -> Result<(), Fault> {
    let sealed = seal.seal(Purpose::SigningKey, store::TABLE, key.kid.as_bytes(), &key.private);
    store::insert(tx, &key.kid, key.algorithm, &key.jwk.json().to_string(), &sealed, activate_at)?;
    let event = cause.event(Name::KeyPublished, &key.kid, key.algorithm);
    audit::append(tx, event.detail("activate_at", activate_at.to_string()))
}

/// The database part of [`Keys::activate`].
pub(crate) fn activate(
    tx: &Tx<'_>,
    seal: &Seal,
    kid: &str,
    cause: Cause<'_>,
) -> Result<Result<Option<String>, IllegalStep>, Fault> {
    let Some(key) = store::find(tx, kid)? else {
        return Ok(Err(IllegalStep::Unknown));
    };
    if key.state != State::Next {
        return Ok(Err(IllegalStep::NotNext(key.state)));
    }
    let follows = store::active(tx, key.algorithm)?;
    if let Some(follows) = &follows {
        retire(tx, seal, follows, cause)?;
    }
    moved(store::activate(tx, kid)?)?;
    audit::append(tx, cause.event(Name::KeyActivated, kid, key.algorithm))?;
    Ok(Ok(follows.map(|key| key.kid)))
}

/// Overwrites the private half with the public one, still sealed: a retired key does not sign, and verification
/// keys must come from sealed data.
fn retire(tx: &Tx<'_>, seal: &Seal, key: &StoredKey, cause: Cause<'_>) -> Result<(), Fault> {
    let closed = |cause: &dyn fmt::Display| Fault::Corrupt(format!("signing key {}: {cause}", key.kid));
    let row = key.kid.as_bytes();
    let private = seal.unseal(Purpose::SigningKey, store::TABLE, row, &key.sealed).map_err(|e| closed(&e))?;
    let (_, jwk) = jwt::public_half(key.algorithm, &private).map_err(|e| closed(&e))?;
    let sealed = seal.seal(Purpose::PublicKey, store::TABLE, row, jwk.json().to_string().as_bytes());
    moved(store::retire(tx, &key.kid, &sealed)?)?;
    audit::append(tx, cause.event(Name::KeyRetired, &key.kid, key.algorithm))
}

/// The state was read in this transaction, so a step that changes no row means that the table is corrupt.
fn moved(changed: bool) -> Result<(), Fault> {
    if changed { Ok(()) } else { Err(Fault::Corrupt("a signing key that does not change".to_owned())) }
}

#[cfg(test)]
mod tests;

//! The life of a signing key: next, active, retired (KEYS-02). Each step is one transaction with
//! its audit record; when to take it is decided elsewhere.

use std::fmt;

use shared::audit::{self, Event, Name};
use shared::{Fault, Tx};

use crate::jwt::{self, Algorithm, CryptoFailed};
use crate::seal::{Purpose, Seal};
use crate::store;

/// Where a key stands. All three are published; only an active one signs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Published ahead of its use, so that resource servers know it in time.
    Next,
    /// Signs. One for each algorithm.
    Active,
    /// Signs no more; still verifies what it signed.
    Retired,
}

impl State {
    const ALL: [Self; 3] = [Self::Next, Self::Active, Self::Retired];

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Active => "active",
            Self::Retired => "retired",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A step that the life of a key does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Illegal {
    #[error("there is no such signing key")]
    Unknown,
    #[error("only a key that is next can be activated, and this one is {0}")]
    NotNext(State),
}

/// A key just made, already sealed. Making one takes a moment, so it is done before the transaction.
pub struct NewKey {
    kid: String,
    algorithm: Algorithm,
    public_jwk: String,
    sealed: Vec<u8>,
}

impl NewKey {
    /// Makes a key with the operating system's randomness (KEYS-05).
    ///
    /// # Errors
    /// If the cryptographic library fails.
    pub fn generate(seal: &Seal, algorithm: Algorithm) -> Result<Self, CryptoFailed> {
        let private = jwt::generate(algorithm)?;
        let (_, jwk) = jwt::public_half(algorithm, &private)?;
        let sealed = seal.seal(Purpose::SigningKey, store::TABLE, jwk.kid().as_bytes(), &private);
        Ok(Self { kid: jwk.kid().to_owned(), algorithm, public_jwk: jwk.json().to_string(), sealed })
    }

    /// Its RFC 7638 thumbprint.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// What it signs with.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(crate) fn public_jwk(&self) -> &str {
        &self.public_jwk
    }

    pub(crate) fn sealed(&self) -> &[u8] {
        &self.sealed
    }
}

/// Adds a key as next. Memory follows at [`crate::Keys::reload`].
///
/// # Errors
/// The database's fault.
pub fn publish(tx: &Tx<'_>, key: &NewKey) -> Result<(), Fault> {
    store::insert(tx, key)?;
    let event = Event::allowed(Name::KeyPublished).by_server().subject(&key.kid);
    audit::append(tx, event.detail("alg", key.algorithm.as_str()))
}

/// Makes a next key active, and retires the one it follows, so that there is one at every moment
/// (KEYS-03). Answers with the name of the retired key.
///
/// # Errors
/// The database's fault. A step out of order is an answer.
pub fn activate(tx: &Tx<'_>, kid: &str) -> Result<Result<Option<String>, Illegal>, Fault> {
    let Some(key) = store::find(tx, kid)? else {
        return Ok(Err(Illegal::Unknown));
    };
    if key.state != State::Next {
        return Ok(Err(Illegal::NotNext(key.state)));
    }
    let follows = store::active(tx, key.algorithm)?;
    if let Some(follows) = &follows {
        retire(tx, follows)?;
    }
    moved(store::activate(tx, kid)?)?;
    let event = Event::allowed(Name::KeyActivated).by_server().subject(kid);
    let event = event.detail("alg", key.algorithm.as_str());
    audit::append(
        tx,
        match &follows {
            Some(follows) => event.detail("retired", follows.as_str()),
            None => event,
        },
    )?;
    Ok(Ok(follows))
}

/// Only ever a step of [`activate`]: to retire a key without a successor would leave nothing to sign
/// with. It stands in that step's record.
fn retire(tx: &Tx<'_>, kid: &str) -> Result<(), Fault> {
    moved(store::retire(tx, kid)?)
}

/// The state was read in the same transaction, so a step that moves no row means a broken table.
fn moved(changed: bool) -> Result<(), Fault> {
    if changed { Ok(()) } else { Err(Fault::Corrupt("a signing key that does not change".to_owned())) }
}

#[cfg(test)]
mod tests;

//! The signing keys in memory, unsealed from the table.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use shared::Db;

use crate::KeysError;
use crate::algorithm::Algorithm;
use crate::jwks::{Jwks, PublicJwk};
use crate::jwt::{self, SigningKey, VerifyingKey};
use crate::seal::{Purpose, Seal};
use crate::state::State;
use crate::store::{self, StoredKey};

/// The public keys at one moment.
pub(crate) struct KeySet {
    pub(crate) verifiers: HashMap<String, Arc<VerifyingKey>>,
    pub(crate) jwks: Arc<Jwks>,
}

/// One key.
#[derive(Clone)]
pub(crate) struct HeldKey {
    pub(crate) state: State,
    pub(crate) algorithm: Algorithm,
    pub(crate) verifying: Arc<VerifyingKey>,
    pub(crate) jwk: Arc<PublicJwk>,
    /// `None` once the key is retired.
    pub(crate) signing: Option<Arc<SigningKey>>,
    /// The uptime at which this process first saw the key in its state. Unlike the clock it cannot be set.
    pub(crate) seen: Duration,
}

/// All of them, oldest first.
#[derive(Clone)]
pub(crate) struct Ring(Vec<HeldKey>);

impl Ring {
    /// Reads the table. Keys that were known before keep their `seen`.
    pub(crate) fn load(
        db: &Db,
        seal: &Seal,
        uptime: Duration,
        before: Option<&Self>,
    ) -> Result<Self, KeysError> {
        let mut keys = Vec::new();
        for row in db.read(store::all)? {
            let mut held = open(seal, &row, uptime)?;
            if let Some(known) = before.and_then(|ring| ring.find(&row.kid))
                && known.state == held.state
            {
                held.seen = known.seen;
            }
            keys.push(held);
        }
        Ok(Self(keys))
    }

    fn find(&self, kid: &str) -> Option<&HeldKey> {
        self.0.iter().find(|key| key.jwk.kid() == kid)
    }

    /// How long this process has known a key in its current state.
    pub(crate) fn known_for(&self, kid: &str, uptime: Duration) -> Duration {
        self.find(kid).map_or(Duration::ZERO, |key| uptime.saturating_sub(key.seen))
    }

    /// The key set as published.
    pub(crate) fn key_set(&self) -> KeySet {
        let verifier = |key: &HeldKey| (key.jwk.kid().to_owned(), Arc::clone(&key.verifying));
        KeySet {
            verifiers: self.0.iter().map(verifier).collect(),
            jwks: Arc::new(Jwks::of(self.0.iter().map(|key| key.jwk.json()))),
        }
    }

    /// The active key of this algorithm. If there is none yet, because the algorithm was configured recently
    /// and its key is not known to all caches, another active key (KEYS-03).
    pub(crate) fn signer(&self, wanted: Algorithm) -> Option<Arc<SigningKey>> {
        let active = |algorithm: Algorithm| {
            let mut keys = self.0.iter();
            let key = keys.find(|key| key.algorithm == algorithm && key.state == State::Active)?;
            key.signing.clone()
        };
        std::iter::once(wanted).chain(Algorithm::ALL).find_map(active)
    }

    pub(crate) fn insert(&mut self, key: HeldKey) {
        self.remove(key.jwk.kid().to_owned().as_str());
        self.0.push(key);
    }

    pub(crate) fn remove(&mut self, kid: &str) {
        self.0.retain(|key| key.jwk.kid() != kid);
    }

    /// Sets a key's state. A retired key loses its private half.
    pub(crate) fn set(&mut self, kid: &str, state: State, uptime: Duration) {
        if let Some(key) = self.0.iter_mut().find(|key| key.jwk.kid() == kid) {
            key.state = state;
            key.seen = uptime;
            if state == State::Retired {
                key.signing = None;
            }
        }
    }
}

/// Unseals one row. The public key is derived from the sealed data, so that an attacker who can write to the
/// database cannot replace it.
fn open(seal: &Seal, row: &StoredKey, seen: Duration) -> Result<HeldKey, KeysError> {
    let (verifying, jwk, signing) = if row.state == State::Retired {
        let sealed = unseal(seal, Purpose::PublicKey, row)?;
        let (verifying, jwk) = jwt::public_from_jwk(row.algorithm, &sealed)?;
        (verifying, jwk, None)
    } else {
        let private = unseal(seal, Purpose::SigningKey, row)?;
        let (verifying, jwk) = jwt::public_half(row.algorithm, &private)?;
        let signing = SigningKey::from_der(row.algorithm, &row.kid, &private)?;
        (verifying, jwk, Some(Arc::new(signing)))
    };
    if jwk.kid() != row.kid {
        return Err(KeysError::Misnamed(row.kid.clone()));
    }
    Ok(HeldKey {
        state: row.state,
        algorithm: row.algorithm,
        verifying: Arc::new(verifying),
        jwk: Arc::new(jwk),
        signing,
        seen,
    })
}

fn unseal(seal: &Seal, purpose: Purpose, key: &StoredKey) -> Result<zeroize::Zeroizing<Vec<u8>>, KeysError> {
    seal.unseal(purpose, store::TABLE, key.kid.as_bytes(), &key.sealed)
        .map_err(|cause| KeysError::Sealed { kid: key.kid.clone(), cause })
}

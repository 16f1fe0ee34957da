//! Signing keys as code: made here, sealed at rest, rotated in the database; no key file is ever
//! committed.
//!
//! [`Keys`] is the authorization server's half: it signs. [`Verifier`] is the resource server's: it
//! holds public keys only, and sees every reload of the other half.

mod check;
mod client_assertion;
mod jwks;
mod jwt;
mod remembered;
pub mod rotation;
pub mod seal;
mod store;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use shared::{AccessToken, Db, Fault};

pub use check::{Unacceptable, check};
pub use client_assertion::{
    AssertionClaims, BadAssertion, BadClientKeys, CLIENT_ALGORITHMS, ClientAssertion, ClientKeys,
};
pub use jwks::Jwks;
pub use jwt::{Algorithm, CryptoFailed, SignedToken, UnknownAlgorithm, Unverified, Verified};
pub use remembered::{Memory, Remembered};
pub use seal::{Purpose, Seal, SealError};

use jwks::PublicJwk;
use jwt::{SigningKey, VerifyingKey};
use rotation::{NewKey, State};
use seal::Unsealable;
use store::StoredKey;

/// Why the signing keys could not be made ready. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error(transparent)]
    Fault(#[from] Fault),
    #[error(
        "signing key {kid} does not open: {cause}; put the seal.key back that belongs to this database (backups leave it out)"
    )]
    Sealed { kid: String, cause: Unsealable },
    #[error("signing key {0} is not the key that its name says; restore the database from a backup")]
    Misnamed(String),
    #[error("no {0} key is active; choose another signing algorithm, or restore the database from a backup")]
    NoneActive(Algorithm),
    #[error(transparent)]
    Crypto(#[from] CryptoFailed),
}

/// The private half: signs access tokens, publishes the key set. Cheap to clone.
#[derive(Clone)]
pub struct Keys(Arc<Inner>);

struct Inner {
    seal: Arc<Seal>,
    algorithm: Algorithm,
    signer: ArcSwap<SigningKey>,
    published: Arc<ArcSwap<KeySet>>,
    reloading: Mutex<()>,
}

/// The public keys of one moment.
struct KeySet {
    verifiers: HashMap<String, VerifyingKey>,
    jwks: Arc<Jwks>,
}

impl Keys {
    /// Reads the signing keys, and makes the first ones if there are none: one for each algorithm,
    /// active at once. Tokens are signed with `algorithm`.
    ///
    /// Making an RSA key takes a moment and writing waits for the disk: call it outside the async
    /// runtime's tasks.
    ///
    /// # Errors
    /// See [`KeysError`]; among them a seal key that is not the one of this database (KEYS-05).
    pub fn open(db: &Db, seal: Arc<Seal>, algorithm: Algorithm) -> Result<Self, KeysError> {
        if !Self::exist(db)? {
            make_first(db, &seal)?;
        }
        let (signer, published) = load(db, &seal, algorithm)?;
        Ok(Self(Arc::new(Inner {
            seal,
            algorithm,
            signer: ArcSwap::from_pointee(signer),
            published: Arc::new(ArcSwap::from_pointee(published)),
            reloading: Mutex::new(()),
        })))
    }

    /// Whether the database holds signing keys, so that a missing seal key is a loss (KEYS-05).
    ///
    /// # Errors
    /// The database's fault.
    pub fn exist(db: &Db) -> Result<bool, Fault> {
        db.read(store::any)
    }

    /// Reads the keys anew, after a rotation or when memory may be wrong. On an error nothing changes.
    ///
    /// # Errors
    /// As [`Keys::open`].
    pub fn reload(&self, db: &Db) -> Result<(), KeysError> {
        // One at a time, so that an older reading never replaces a newer one.
        let _turn = self.0.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let (signer, published) = load(db, &self.0.seal, self.0.algorithm)?;
        // The public key first: no token may exist that the verifier does not know yet (KEYS-03).
        self.0.published.store(Arc::new(published));
        self.0.signer.store(Arc::new(signer));
        Ok(())
    }

    /// Signs an access token (RFC 9068 §2.1) with the active key.
    ///
    /// # Errors
    /// If the cryptographic library fails.
    pub fn sign(&self, token: &AccessToken) -> Result<SignedToken, CryptoFailed> {
        self.0.signer.load().sign(token)
    }

    /// The key set as published (RFC 7517 §5).
    pub fn jwks(&self) -> Arc<Jwks> {
        Arc::clone(&self.0.published.load().jwks)
    }

    /// The public half.
    pub fn verifier(&self) -> Verifier {
        Verifier(Arc::clone(&self.0.published))
    }
}

/// The public half: tells whether a token was signed with one of our keys. Cheap to clone.
#[derive(Clone)]
pub struct Verifier(Arc<ArcSwap<KeySet>>);

impl Verifier {
    /// Checks form and signature of an access token, in the order of RS-05. Issuer, audience and
    /// times are left to [`check`].
    ///
    /// # Errors
    /// See [`Unverified`].
    pub fn verify(&self, compact: &str) -> Result<Verified, Unverified> {
        let set = self.0.load();
        jwt::verify(compact, |kid| set.verifiers.get(kid))
    }

    /// Whether a key is still published: what a cache of verified tokens asks at every hit (RS-05).
    pub fn knows(&self, kid: &str) -> bool {
        self.0.load().verifiers.contains_key(kid)
    }
}

/// First start: a key for each algorithm, published and activated in one write (KEYS-05).
fn make_first(db: &Db, seal: &Seal) -> Result<(), KeysError> {
    let keys = Algorithm::ALL.map(|algorithm| NewKey::generate(seal, algorithm));
    let keys = keys.into_iter().collect::<Result<Vec<_>, _>>()?;
    db.write_blocking(move |tx| {
        // Another may have come first; then its keys stand, and these are forgotten.
        if store::any(tx)? {
            return Ok(());
        }
        for key in &keys {
            rotation::publish(tx, key)?;
            rotation::activate(tx, key.kid())?.map_err(|e| Fault::Corrupt(e.to_string()))?;
        }
        Ok(())
    })?;
    Ok(())
}

fn load(db: &Db, seal: &Seal, algorithm: Algorithm) -> Result<(SigningKey, KeySet), KeysError> {
    let mut signer = None;
    let mut verifiers = HashMap::new();
    let mut public = Vec::new();
    for key in db.read(store::all)? {
        let private = unseal(seal, &key)?;
        // The public key comes out of the sealed one, so that whoever can write to the database
        // cannot plant a key of theirs beside our name for it.
        let (verifier, jwk) = jwt::public_half(key.algorithm, &private)?;
        if jwk.kid() != key.kid {
            return Err(KeysError::Misnamed(key.kid));
        }
        if key.algorithm == algorithm && key.state == State::Active {
            signer = Some(SigningKey::from_der(algorithm, &key.kid, &private)?);
        }
        verifiers.insert(key.kid, verifier);
        public.push(jwk);
    }
    let signer = signer.ok_or(KeysError::NoneActive(algorithm))?;
    Ok((signer, KeySet { verifiers, jwks: Arc::new(Jwks::of(public.iter().map(PublicJwk::json))) }))
}

fn unseal(seal: &Seal, key: &StoredKey) -> Result<zeroize::Zeroizing<Vec<u8>>, KeysError> {
    seal.unseal(Purpose::SigningKey, store::TABLE, key.kid.as_bytes(), &key.sealed)
        .map_err(|cause| KeysError::Sealed { kid: key.kid.clone(), cause })
}

#[cfg(test)]
mod tests;

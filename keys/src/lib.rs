//! Signing keys as code: made here, sealed at rest, rotated in the database; no key file is ever
//! committed.
//!
//! [`Keys`] is the authorization server's half: it signs. [`Verifier`] is the resource server's: it
//! holds public keys only, and sees every change of the other half.

mod algorithm;
mod check;
pub mod checkpoint;
mod client_assertion;
mod config;
pub mod identity;
mod jwks;
mod jwt;
mod on_demand;
mod published;
mod remembered;
mod ring;
pub mod rotation;
pub mod seal;
mod state;
mod store;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::Serialize;
use shared::{AccessToken, Clock, Db, Fault, Timestamp};

pub use algorithm::{Algorithm, UnknownAlgorithm};
pub use check::{Unacceptable, check};
pub use checkpoint::Checkpoints;
pub use client_assertion::{
    AssertionClaims, BadAssertion, BadClientKeys, CLIENT_ALGORITHMS, ClientAssertion, ClientKeys,
};
pub use config::{Config, Unsafe};
pub use jwks::Jwks;
pub use jwt::{CryptoFailed, SignedToken, Unverified, Verified};
pub use on_demand::{Listed, Rotated};
pub use published::{BadKeySet, PublishedKeys};
pub use remembered::{Memory, Remembered};
pub use rotation::{Cause, Illegal, NewKey};
pub use seal::{Purpose, Seal, SealError};
pub use state::State;

use jwt::SigningKey;
use ring::{KeySet, Ring};
use rotation::Step;
use seal::Unsealable;
use store::StoredKey;

/// Why the signing keys could not be made ready. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error(transparent)]
    Fault(#[from] Fault),
    #[error(
        "signing key {kid} cannot be decrypted: {cause}; put back the seal.key that belongs to this database (backups do not include it)"
    )]
    Sealed { kid: String, cause: Unsealable },
    #[error("signing key {0} does not match its key ID; restore the database from a backup")]
    Misnamed(String),
    #[error("no signing key is active; restore the database from a backup")]
    NoneActive,
    #[error(transparent)]
    Crypto(#[from] CryptoFailed),
}

/// The private half: signs access tokens, publishes the key set. Cheap to clone.
#[derive(Clone)]
pub struct Keys(Arc<Inner>);

struct Inner {
    seal: Arc<Seal>,
    config: Config,
    clock: Clock,
    db: Db,
    ring: Mutex<Ring>,
    signer: ArcSwap<SigningKey>,
    published: Arc<ArcSwap<KeySet>>,
}

impl Keys {
    /// Reads the signing keys, and makes the first ones if there are none: one for each algorithm,
    /// active at once.
    ///
    /// Making an RSA key takes a moment and writing waits for the disk: call it outside the async
    /// runtime's tasks.
    ///
    /// # Errors
    /// See [`KeysError`]; among them a seal key that is not the one of this database (KEYS-05).
    pub fn open(db: &Db, seal: Arc<Seal>, config: Config, clock: &Clock) -> Result<Self, KeysError> {
        if !Self::exist(db)? {
            make_first(db, &seal, &config)?;
        }
        let ring = Ring::load(db, &seal, clock.uptime(), None)?;
        let signer = ring.signer(config.algorithm).ok_or(KeysError::NoneActive)?;
        let keys = Self(Arc::new(Inner {
            seal,
            clock: clock.clone(),
            db: db.clone(),
            signer: ArcSwap::new(signer),
            published: Arc::new(ArcSwap::from_pointee(ring.key_set())),
            ring: Mutex::new(ring),
            config,
        }));
        let weak = Arc::downgrade(&keys.0);
        db.on_reload(move || {
            if let Some(inner) = weak.upgrade() {
                // Without the truth no decision is safe; the writer aborts the process on a panic here.
                Self(inner).reload().expect("the signing keys can be read anew");
            }
        });
        Ok(keys)
    }

    /// Whether the database holds signing keys, so that a missing seal key is a loss (KEYS-05).
    ///
    /// # Errors
    /// The database's fault.
    pub fn exist(db: &Db) -> Result<bool, Fault> {
        db.read(store::any)
    }

    /// Reads the keys anew, when memory may be wrong. On an error nothing changes.
    ///
    /// # Errors
    /// As [`Keys::open`].
    pub fn reload(&self) -> Result<(), KeysError> {
        let mut ring = self.ring();
        let loaded = Ring::load(&self.0.db, &self.0.seal, self.uptime(), Some(&ring))?;
        if loaded.signer(self.0.config.algorithm).is_none() {
            return Err(KeysError::NoneActive);
        }
        *ring = loaded;
        self.show(&ring);
        Ok(())
    }

    /// Takes every step of the schedule that is due (KEYS-02). Blocks, as [`Keys::open`].
    ///
    /// # Errors
    /// As [`Keys::open`]. Nothing of a step is done then, and the next look tries again.
    pub fn rotate_due(&self) -> Result<(), KeysError> {
        let rows = self.0.db.read(store::all)?;
        let steps = self.due(&rows, self.0.clock.now());
        if steps.is_empty() {
            return Ok(());
        }
        let mut made = Vec::new();
        for step in &steps {
            if let Step::Publish { algorithm, .. } = step {
                made.push(NewKey::generate(*algorithm)?);
            }
        }
        let keys = self.clone();
        self.0.db.write_blocking(move |tx| {
            // Asked again: a command may have come first.
            for step in keys.due(&store::all(tx)?, tx.now()) {
                keys.take(tx, &step, &made)?;
            }
            Ok(())
        })?;
        Ok(())
    }

    fn due(&self, rows: &[StoredKey], now: Timestamp) -> Vec<Step> {
        let (ring, uptime) = (self.ring(), self.uptime());
        rotation::due(rows, &self.0.config, now, |kid| ring.known_for(kid, uptime))
    }

    /// Signs an access token (RFC 9068 §2.1) with the active key.
    ///
    /// # Errors
    /// If the cryptographic library fails.
    pub fn sign(&self, token: &AccessToken) -> Result<SignedToken, CryptoFailed> {
        self.0.signer.load().sign(token)
    }

    /// Signs what is not an access token, under a `typ` of its own, with the active key.
    pub(crate) fn sign_as(&self, typ: &str, claims: &impl Serialize) -> Result<String, CryptoFailed> {
        self.0.signer.load().sign_as(typ, claims)
    }

    /// The key set as published (RFC 7517 §5).
    pub fn jwks(&self) -> Arc<Jwks> {
        Arc::clone(&self.0.published.load().jwks)
    }

    /// The public half.
    pub fn verifier(&self) -> Verifier {
        Verifier(Arc::clone(&self.0.published))
    }

    /// The algorithm and the schedule.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    pub(crate) fn signing_kid(&self) -> String {
        self.0.signer.load().kid().to_owned()
    }

    pub(crate) fn seal(&self) -> &Seal {
        &self.0.seal
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.0.clock.uptime()
    }

    /// Changes what is in memory.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Ring)) {
        let mut ring = self.ring();
        change(&mut ring);
        self.show(&ring);
    }

    fn show(&self, ring: &Ring) {
        // The public key first: no token may exist that the verifier does not know yet (KEYS-03).
        self.0.published.store(Arc::new(ring.key_set()));
        // None only for the moment between a removal and the commit that brings its successor: what is
        // signed until then is refused at once.
        if let Some(signer) = ring.signer(self.0.config.algorithm) {
            self.0.signer.store(signer);
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
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
        jwt::verify(compact, |kid| set.verifiers.get(kid).map(|key| &**key))
    }

    /// Whether a key is still published: what a cache of verified tokens asks at every hit (RS-05).
    pub fn knows(&self, kid: &str) -> bool {
        self.0.load().verifiers.contains_key(kid)
    }
}

/// First start: a key for each algorithm, published and activated in one write (KEYS-05). Nobody has a
/// key set yet that they could miss in.
fn make_first(db: &Db, seal: &Arc<Seal>, config: &Config) -> Result<(), KeysError> {
    let kept = Algorithm::ALL.into_iter().filter(|algorithm| config.keeps(*algorithm));
    let keys = kept.map(NewKey::generate).collect::<Result<Vec<_>, _>>()?;
    let seal = Arc::clone(seal);
    db.write_blocking(move |tx| {
        // Another may have come first; then its keys stand, and these are forgotten.
        if store::any(tx)? {
            return Ok(());
        }
        let cause = Cause::server("first_start");
        for key in &keys {
            rotation::publish(tx, &seal, key, tx.now(), cause)?;
            rotation::activate(tx, &seal, key.kid(), cause)?.map_err(|e| Fault::Corrupt(e.to_string()))?;
        }
        Ok(())
    })?;
    Ok(())
}

#[cfg(test)]
mod tests;

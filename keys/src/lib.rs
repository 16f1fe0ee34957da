//! Signing keys: generated here, sealed at rest, rotated in the database; no key file is ever committed.
//!
//! [`Keys`] is the authorization server's half, which signs. [`Verifier`] is the resource server's half, which
//! holds only public keys and sees every change.

mod algorithm;
mod check;
pub mod checkpoint;
mod client_assertion;
mod config;
mod ed25519;
pub mod identity;
mod jwks;
mod jwt;
mod on_demand;
mod published;
mod remembered;
mod ring;
pub mod rotation;
pub mod seal;
pub mod secrets;
mod state;
mod store;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::Serialize;
use shared::{AccessToken, Clock, Db, Fault, Timestamp};

pub use algorithm::{Algorithm, UnknownAlgorithm};
pub use check::{TokenRefusal, check};
pub use checkpoint::Checkpoints;
pub use client_assertion::{
    AssertionClaims, BadAssertion, BadClientKeys, CLIENT_ALGORITHMS, ClientAssertion, ClientKeys,
};
pub use config::{Config, UnsafeSchedule};
pub use jwks::Jwks;
pub use jwt::{CryptoFailed, SignedToken, Unverified, Verified};
pub use on_demand::{KeyInfo, Rotated};
pub use published::{BadKeySet, PublishedKeys};
pub use remembered::{Memory, Remembered};
pub use rotation::{Cause, IllegalStep, NewKey};
pub use seal::{Purpose, Seal, SealError};
pub use state::State;

use jwt::SigningKey;
use ring::{KeySet, Ring};
use rotation::Step;
use seal::Unsealable;
use store::StoredKey;

/// Why the signing keys could not be opened. Each message says what to do.
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

/// The private half: signs access tokens and publishes the key set. Cheap to clone.
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
    /// Opens the signing keys. If there are none, generates one for each algorithm, active at once.
    ///
    /// Generating RSA keys is slow and writing waits for the disk, so call this outside async tasks.
    ///
    /// # Errors
    /// See [`KeysError`]; among them a sealing key of another database (KEYS-05).
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
                // Without the current keys no decision is safe. The writer aborts the process on a panic here.
                Self(inner).reload().expect("the signing keys can be read anew");
            }
        });
        Ok(keys)
    }

    /// Whether the database has signing keys, in which case a missing sealing key is an error (KEYS-05).
    ///
    /// # Errors
    /// A database fault.
    pub fn exist(db: &Db) -> Result<bool, Fault> {
        db.read(store::any)
    }

    /// Reads the keys again, when memory may be wrong. On an error nothing changes.
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

    /// Takes every due step of the schedule (KEYS-02). Blocks, like [`Keys::open`].
    ///
    /// # Errors
    /// As [`Keys::open`]. The failed step is rolled back, and the next check tries again.
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
            // Compute the steps again: a command may have run meanwhile.
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

    /// Signs another kind of token, with its own `typ`, with the active key.
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

    /// Changes the keys in memory.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Ring)) {
        let mut ring = self.ring();
        change(&mut ring);
        self.show(&ring);
    }

    fn show(&self, ring: &Ring) {
        // Publish first: the verifier must know each key before a token is signed with it (KEYS-03).
        self.0.published.store(Arc::new(ring.key_set()));
        // There is no signer only between a removal and the commit that adds its successor; tokens signed until
        // then are refused at once.
        if let Some(signer) = ring.signer(self.0.config.algorithm) {
            self.0.signer.store(signer);
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The public half: verifies that one of our keys signed a token. Cheap to clone.
#[derive(Clone)]
pub struct Verifier(Arc<ArcSwap<KeySet>>);

impl Verifier {
    /// Verifies format and signature of an access token, in the order of RS-05. [`check`] checks issuer,
    /// audience and times.
    ///
    /// # Errors
    /// See [`Unverified`].
    pub fn verify(&self, compact: &str) -> Result<Verified, Unverified> {
        let set = self.0.load();
        jwt::verify(compact, |kid| set.verifiers.get(kid).map(|key| &**key))
    }

    /// Whether a key is still published. A cache of verified tokens asks this at every hit (RS-05).
    pub fn knows(&self, kid: &str) -> bool {
        self.0.load().verifiers.contains_key(kid)
    }
}

/// First start: publishes and activates a key for each algorithm in one write (KEYS-05). No server has cached
/// an older key set yet.
fn make_first(db: &Db, seal: &Arc<Seal>, config: &Config) -> Result<(), KeysError> {
    let kept = Algorithm::ALL.into_iter().filter(|algorithm| config.keeps(*algorithm));
    let keys = kept.map(NewKey::generate).collect::<Result<Vec<_>, _>>()?;
    let seal = Arc::clone(seal);
    db.write_blocking(move |tx| {
        // If another process was first, its keys are used and these are discarded.
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

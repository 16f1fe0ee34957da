//! Tokens whose signature was checked once (RS-05): after that their SHA-256 finds the claims again. Everything
//! else about them, whether the key is still published too, is checked every time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quick_cache::sync::Cache;
use shared::Digest;

use crate::{Unverified, Verified, Verifier};

/// How many tokens are remembered.
const MOST: usize = 100_000;

/// A token whose signature was checked, and whether its use is on record (REFRESH-06): that is written once, and
/// asked of the database once. Beside it stands a note of whoever remembers it.
#[derive(Debug)]
pub struct Remembered<N = ()> {
    verified: Verified,
    seen: AtomicBool,
    note: N,
}

impl<N> Remembered<N> {
    /// What was verified.
    pub fn verified(&self) -> &Verified {
        &self.verified
    }

    /// Whether its use is known to be on record.
    pub fn is_seen(&self) -> bool {
        self.seen.load(Ordering::Relaxed)
    }

    /// Its use is on record from now on.
    pub fn mark_seen(&self) {
        self.seen.store(true, Ordering::Relaxed);
    }

    /// What was noted about it.
    pub fn note(&self) -> &N {
        &self.note
    }
}

/// The tokens that were verified of late. Bounded: the least used make room.
pub struct Memory<N = ()> {
    verifier: Verifier,
    tokens: Cache<Digest, Arc<Remembered<N>>>,
}

impl<N: Default> Memory<N> {
    /// An empty memory in front of this verifier.
    pub fn new(verifier: Verifier) -> Self {
        Self { verifier, tokens: Cache::new(MOST) }
    }

    /// What is remembered under the SHA-256 of a token.
    pub fn get(&self, digest: &Digest) -> Option<Arc<Remembered<N>>> {
        self.tokens.get(digest)
    }

    /// Verifies a token that is not remembered. It is still to be decided whether it is worth remembering.
    ///
    /// # Errors
    /// As [`Verifier::verify`].
    pub fn verify(&self, compact: &str) -> Result<Arc<Remembered<N>>, Unverified> {
        let verified = self.verifier.verify(compact)?;
        Ok(Arc::new(Remembered { verified, seen: AtomicBool::new(false), note: N::default() }))
    }

    /// Remembers a token that was good: bad ones would push good ones out (RS-05).
    pub fn keep(&self, digest: Digest, token: &Arc<Remembered<N>>) {
        self.tokens.insert(digest, Arc::clone(token));
    }

    /// Forgets a token that is good no more.
    pub fn forget(&self, digest: &Digest) {
        self.tokens.remove(digest);
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Whether the key that signed it is still published.
    pub fn knows_key_of(&self, token: &Remembered<N>) -> bool {
        self.verifier.knows(&token.verified.kid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Algorithm;
    use crate::tests::{Fixture, token};

    /// RS-05: what is remembered is bounded, and nothing is remembered that nobody asked to.
    #[test]
    fn memory_has_a_bound() {
        let keys = Fixture::new().keys(Algorithm::Es256);
        let memory: Memory = Memory::new(keys.verifier());
        assert!(memory.tokens.capacity() <= MOST as u64);
        let signed = keys.sign(&token()).unwrap();
        let digest = Digest::of(signed.text.as_bytes());
        let verified = memory.verify(&signed.text).unwrap();
        assert!(memory.get(&digest).is_none() && memory.is_empty());
        memory.keep(digest, &verified);
        verified.mark_seen();
        assert!(memory.get(&digest).is_some_and(|token| token.is_seen()));
        memory.forget(&digest);
        assert!(memory.get(&digest).is_none());
        assert!(memory.verify(&signed.text[1..]).is_err());
    }
}

//! A cache of tokens whose signature was verified (RS-05), by SHA-256. Everything else about a token, including
//! whether its key is still published, is checked each time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quick_cache::sync::Cache;
use shared::Digest;

use crate::{Unverified, Verified, Verifier};

/// The most cached tokens.
const MOST: usize = 100_000;

/// A verified token, and whether its use is recorded (REFRESH-06), which is written once and read once. `N` is
/// data of the cache's owner.
#[derive(Debug)]
pub struct Remembered<N = ()> {
    verified: Verified,
    seen: AtomicBool,
    note: N,
}

impl<N> Remembered<N> {
    /// The verified token.
    pub fn verified(&self) -> &Verified {
        &self.verified
    }

    /// Whether its use is known to be recorded.
    pub fn is_seen(&self) -> bool {
        self.seen.load(Ordering::Relaxed)
    }

    /// Notes that its use is recorded.
    pub fn mark_seen(&self) {
        self.seen.store(true, Ordering::Relaxed);
    }

    /// The owner's data.
    pub fn note(&self) -> &N {
        &self.note
    }
}

/// The recently verified tokens. Bounded: the least recently used are dropped.
pub struct Memory<N = ()> {
    verifier: Verifier,
    tokens: Cache<Digest, Arc<Remembered<N>>>,
}

impl<N: Default> Memory<N> {
    /// An empty memory in front of this verifier.
    pub fn new(verifier: Verifier) -> Self {
        Self { verifier, tokens: Cache::new(MOST) }
    }

    /// The cached token with this SHA-256.
    pub fn get(&self, digest: &Digest) -> Option<Arc<Remembered<N>>> {
        self.tokens.get(digest)
    }

    /// Verifies a token that is not cached. The caller decides whether to keep it.
    ///
    /// # Errors
    /// As [`Verifier::verify`].
    pub fn verify(&self, compact: &str) -> Result<Arc<Remembered<N>>, Unverified> {
        let verified = self.verifier.verify(compact)?;
        Ok(Arc::new(Remembered { verified, seen: AtomicBool::new(false), note: N::default() }))
    }

    /// Caches a valid token. Invalid ones are not cached, because they would push out valid ones (RS-05).
    pub fn keep(&self, digest: Digest, token: &Arc<Remembered<N>>) {
        self.tokens.insert(digest, Arc::clone(token));
    }

    /// Drops a token that is no longer valid.
    pub fn forget(&self, digest: &Digest) {
        self.tokens.remove(digest);
    }

    /// The number of cached tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether the cache is empty.
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

    /// RS-05: the cache is bounded, and only tokens passed to `keep` are in it.
    #[test]
    fn the_number_of_remembered_tokens_is_bounded() {
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

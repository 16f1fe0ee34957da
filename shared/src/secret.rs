//! Secrets as their holders present them, and the digests that the database keeps (STORE-01).

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use rand::TryRng;
use rand::rngs::SysRng;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Random bytes from the operating system's generator (STORE-07).
///
/// # Panics
/// If the operating system has no randomness to give: nothing safe can be done then.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SysRng.try_fill_bytes(&mut bytes).expect("the operating system provides randomness");
    bytes
}

/// A secret as its holder presents it. It lives for one request; the database keeps its [`Digest`].
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret(String);

impl Secret {
    /// A new secret of 256 random bits behind a type prefix, such as `rt_` (TOKEN-14).
    pub fn random(prefix: &str) -> Self {
        Self::from_bytes(prefix, &random::<32>())
    }

    /// A secret made of bytes that are themselves secret, such as a keyed hash.
    pub fn from_bytes(prefix: &str, bytes: &[u8; 32]) -> Self {
        Self(format!("{prefix}{}", BASE64URL_NOPAD.encode(bytes)))
    }

    /// What somebody presented as a secret.
    pub fn presented(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, to hand to its holder. Never log it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// SHA-256 of the whole text, prefix included.
    pub fn digest(&self) -> Digest {
        Digest::of(self.0.as_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// SHA-256 of something. Comparing two takes the same time whatever they hold (HTTP-11).
#[derive(Clone, Copy)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The first eight hexadecimal digits: enough to recognise, useless to present (AUDIT-05).
    pub fn short(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.0[..4])
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Digest {}

// By hand, because equality is: equal digests have equal bytes, so equal hashes.
impl std::hash::Hash for Digest {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({}…)", self.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// TOKEN-14: the prefix is part of what is hashed.
    #[test]
    fn the_prefix_is_part_of_the_digest() {
        let secret = Secret::random("rt_");
        let bare = Secret::presented(secret.expose().trim_start_matches("rt_"));
        let other = Secret::presented(secret.expose().replacen("rt_", "ac_", 1));
        assert_ne!(secret.digest(), bare.digest());
        assert_ne!(secret.digest(), other.digest());
        assert_eq!(secret.expose().len(), 3 + 43);
    }

    /// HTTP-12: printing a secret for debugging shows nothing of it.
    #[test]
    fn debug_hides_a_secret() {
        assert_eq!(format!("{:?}", Secret::presented("rt_abc")), "Secret(..)");
    }
}

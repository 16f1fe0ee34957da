//! Secrets as their holders present them, and the digests that the database keeps (STORE-01).

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use rand::TryRng;
use rand::rngs::SysRng;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::db::{FromColumn, ToColumn, Value, WrongValue};

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

    /// Whether it has the shape of a secret that [`Secret::random`] makes with this prefix.
    pub fn is_ours(&self, prefix: &str) -> bool {
        let bytes = self.0.strip_prefix(prefix).map(|text| BASE64URL_NOPAD.decode(text.as_bytes()));
        matches!(bytes, Some(Ok(bytes)) if bytes.len() == 32)
    }

    /// Whether a text has the shape of any secret of ours, or of a signed token: somebody has put it in a wrong place, and
    /// there it must not be repeated (HTTP-12).
    pub fn is_likely(text: &str) -> bool {
        let is_kind =
            |kind: &str| (2..=4).contains(&kind.len()) && kind.bytes().all(|b| b.is_ascii_lowercase());
        let ours = text.split_once('_').filter(|(kind, _)| is_kind(kind));
        let signed = text.starts_with("eyJ") && text.bytes().filter(|b| *b == b'.').count() == 2;
        signed || ours.is_some_and(|(kind, _)| Self::presented(text).is_ours(&format!("{kind}_")))
    }

    /// Whether there is no text at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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

impl ToColumn for Digest {
    fn to_column(&self) -> Value<'_> {
        Value::Blob(self.0.as_slice().into())
    }
}

impl FromColumn for Digest {
    fn from_column(value: Value<'_>) -> Result<Self, WrongValue> {
        let bytes = Vec::<u8>::from_column(value)?;
        bytes.try_into().map(Self).map_err(|_| WrongValue::meaning("a blob of another length", "32 bytes"))
    }
}

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

impl Digest {
    /// All 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.0)
    }

    /// The digest that these 64 hexadecimal digits are; `None` if they are not.
    pub fn from_hex(text: &str) -> Option<Self> {
        data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?.try_into().ok().map(Self)
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

    #[test]
    fn only_what_we_made_has_our_shape() {
        let secret = Secret::random("cs_");
        assert!(secret.is_ours("cs_") && !secret.is_ours("rt_"));
        for bad in ["", "cs_", "cs_hunter2", &secret.expose()[..45], &format!("{}A", secret.expose())] {
            assert!(!Secret::presented(bad).is_ours("cs_"), "{bad}");
        }
    }

    /// HTTP-12: a secret in a wrong place is known by its shape; no name of a client has it.
    #[test]
    fn a_secret_is_known_by_its_shape() {
        let signed = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ1In0.c2ln";
        for secret in [Secret::random("rt_").expose(), Secret::random("dc_").expose(), signed] {
            assert!(Secret::is_likely(secret), "{secret}");
        }
        let long = format!("c_{}", "a".repeat(32));
        for name in
            ["dyn_7pbc4ne2ivq0dmtzk3r8xw6s9a", "c_a_b", &long, "https://a.example/rt_x", "eyJ", "", "_"]
        {
            assert!(!Secret::is_likely(name), "{name}");
        }
    }

    /// HTTP-11: a secret cannot be compared at all, only its digest can. Once it can be, this does not compile: two
    /// implementations would hold for it then.
    #[test]
    fn a_secret_has_no_equality() {
        struct Comparable;
        trait Opaque<Why> {
            fn is_opaque() -> bool {
                true
            }
        }
        impl<T: ?Sized> Opaque<()> for T {}
        impl<T: ?Sized + PartialEq> Opaque<Comparable> for T {}
        assert!(<Secret as Opaque<_>>::is_opaque());
    }

    #[test]
    fn a_digest_is_what_its_digits_say() {
        let digest = Digest::of(b"x");
        assert_eq!(Digest::from_hex(&digest.hex()), Some(digest));
        assert_eq!(Digest::from_hex(&digest.hex().to_uppercase()), Some(digest));
        for bad in ["", "00", &digest.hex()[..63], &format!("{}00", digest.hex()), &"g".repeat(64)] {
            assert_eq!(Digest::from_hex(bad), None, "{bad}");
        }
    }

    /// HTTP-12: printing a secret for debugging shows nothing of it.
    #[test]
    fn debug_hides_a_secret() {
        assert_eq!(format!("{:?}", Secret::presented("rt_abc")), "Secret(..)");
    }
}

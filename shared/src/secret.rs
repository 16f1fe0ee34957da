//! Secrets as presented, and the digests in the database (STORE-01).

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use rand::TryRng;
use rand::rngs::SysRng;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::db::{FromColumn, ToColumn, Value, WrongValue};

/// Random bytes from the operating system (STORE-07).
///
/// # Panics
/// If the operating system cannot provide randomness: nothing safe can be done then.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SysRng.try_fill_bytes(&mut bytes).expect("the operating system provides randomness");
    bytes
}

/// A secret as presented. It lives for one request; the database has only its [`Digest`].
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret(String);

impl Secret {
    /// A new secret of 256 random bits behind a type prefix, such as `rt_` (TOKEN-14).
    pub fn random(prefix: &str) -> Self {
        Self::from_bytes(prefix, &random::<32>())
    }

    /// A secret made from bytes that are themselves secret, such as a keyed hash.
    pub fn from_bytes(prefix: &str, bytes: &[u8; 32]) -> Self {
        Self(format!("{prefix}{}", BASE64URL_NOPAD.encode(bytes)))
    }

    /// A presented secret.
    pub fn presented(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether it has the shape of a secret that [`Secret::random`] makes with this prefix.
    pub fn is_ours(&self, prefix: &str) -> bool {
        let bytes = self.0.strip_prefix(prefix).map(|text| BASE64URL_NOPAD.decode(text.as_bytes()));
        matches!(bytes, Some(Ok(bytes)) if bytes.len() == 32)
    }

    /// Whether a text looks like any secret of ours or like a signed token. Such a text must not be repeated
    /// where it does not belong (HTTP-12).
    pub fn is_likely(text: &str) -> bool {
        let is_kind =
            |kind: &str| (2..=4).contains(&kind.len()) && kind.bytes().all(|b| b.is_ascii_lowercase());
        let ours = text.split_once('_').filter(|(kind, _)| is_kind(kind));
        let signed = text.starts_with("eyJ") && text.bytes().filter(|b| *b == b'.').count() == 2;
        signed || ours.is_some_and(|(kind, _)| Self::presented(text).is_ours(&format!("{kind}_")))
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text, to hand to its owner. Never log it.
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

/// A SHA-256 digest. Comparison takes constant time (HTTP-11).
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

    /// The first eight hexadecimal digits: enough to recognise a secret, and useless as one (AUDIT-05).
    pub fn short(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.0[..4])
    }
}

impl Digest {
    /// All 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.0)
    }

    /// The digest with these 64 hexadecimal digits; `None` if malformed.
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

// Implemented by hand because equality is: equal digests have equal bytes, so equal hashes.
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

    /// TOKEN-14: the digest includes the prefix.
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
    fn only_issued_secrets_match_their_format() {
        let secret = Secret::random("cs_");
        assert!(secret.is_ours("cs_") && !secret.is_ours("rt_"));
        for bad in ["", "cs_", "cs_hunter2", &secret.expose()[..45], &format!("{}A", secret.expose())] {
            assert!(!Secret::presented(bad).is_ours("cs_"), "{bad}");
        }
    }

    /// HTTP-12: a misplaced secret is recognised by its shape, and client names are not.
    #[test]
    fn a_secret_is_recognised_by_its_format() {
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

    /// HTTP-11: a secret cannot be compared, only its digest can. If `Secret` implements `PartialEq`, this does
    /// not compile, because two implementations apply.
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

    /// HTTP-12: Debug output of a secret shows nothing of it.
    #[test]
    fn debug_hides_a_secret() {
        assert_eq!(format!("{:?}", Secret::presented("rt_abc")), "Secret(..)");
    }
}

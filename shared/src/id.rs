//! Identifiers: a type prefix and 128 random bits in base32. They are not secret.

use std::cell::RefCell;
use std::fmt;

use data_encoding::{Encoding, Specification};
use serde::{Deserialize, Serialize};

use crate::secret::{Secret, random};

/// 128 random bits from the operating system, 26 characters of lower-case base32 (STORE-07).
pub fn random_128() -> String {
    encoded(&random::<16>())
}

/// The same for ids that are not secret and made for every request: random bytes for many are fetched from the
/// operating system at once.
pub fn public_random_128() -> String {
    STOCK.with_borrow_mut(|stock| {
        if stock.is_empty() {
            stock.extend_from_slice(random::<1024>().as_chunks().0);
        }
        encoded(&stock.pop().unwrap_or_else(random::<16>))
    })
}

fn encoded(bits: &[u8; 16]) -> String {
    BASE32.with(|base32| base32.encode(bits))
}

thread_local! {
    static STOCK: RefCell<Vec<[u8; 16]>> = const { RefCell::new(Vec::new()) };
    static BASE32: Encoding = {
        let mut spec = Specification::new();
        spec.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
        spec.encoding().expect("32 distinct symbols make a base32 alphabet")
    };
}

/// A newtype over text, stored as text.
#[macro_export]
macro_rules! text_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        // Lets maps be looked up by text: equality and hash are those of the text.
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        $crate::db::text_column!($name);
    };
}

text_newtype! {
    /// A user: `u_…`, random, never reused (AT-03). The `sub` of their tokens.
    UserId
}
text_newtype! {
    /// One grant of a user to a client for one resource: `g_…`. One refresh token family.
    GrantId
}

impl UserId {
    /// A new user's id.
    pub fn random() -> Self {
        Self(format!("u_{}", random_128()))
    }

    /// The id from a token's `sub`. Not checked: a lookup decides.
    pub fn from_subject(sub: &str) -> Self {
        Self(sub.to_owned())
    }
}

impl GrantId {
    /// Parses a grant id from a command; `None` if it is malformed.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = text.len() == 2 + 26 && text.starts_with("g_");
        (fits && text.bytes().all(|b| b.is_ascii_graphic())).then(|| Self(text.to_owned()))
    }

    /// A new grant's id.
    pub fn random() -> Self {
        Self(format!("g_{}", random_128()))
    }
}

/// An OAuth client's identifier (RFC 6749 §2.2): issued by this server (`dyn_…`, `c_…`) or the `https` URL of a
/// client metadata document.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientId(String);

crate::db::text_column!(ClientId);

impl ClientId {
    /// A new self-registered client's id (RFC 7591).
    pub fn random_dynamic() -> Self {
        Self(format!("dyn_{}", random_128()))
    }

    /// The id of a client that an administrator adds.
    pub fn random() -> Self {
        Self(format!("c_{}", random_128()))
    }

    /// The id of a client that is configured under this name; `None` unless the name is a lower-case letter,
    /// then lower-case letters, digits, `_` or `-`, at most 32.
    pub fn configured(name: &str) -> Option<Self> {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b);
        let first = name.starts_with(|c: char| c.is_ascii_lowercase());
        (first && name.len() <= 32 && name.bytes().all(fits)).then(|| Self(format!("c_{name}")))
    }

    /// Parses a client id from a request; `None` unless it is 1 to 512 visible ASCII characters. Text that
    /// looks like a secret is refused too, because ids are logged and recorded (HTTP-12).
    pub fn parse(text: &str) -> Option<Self> {
        let fits = !text.is_empty() && text.len() <= 512 && !Secret::is_likely(text);
        (fits && text.bytes().all(|b| b.is_ascii_graphic())).then(|| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AT-03: user and client ids cannot coincide.
    #[test]
    fn ids_carry_their_type_and_128_bits() {
        let id = UserId::random();
        assert!(id.as_str().starts_with("u_"));
        assert_eq!(id.as_str().len(), 2 + 26);
        assert_ne!(id, UserId::random());
        assert!(ClientId::random_dynamic().as_str().starts_with("dyn_"));
        let id = ClientId::random();
        assert!(id.as_str().starts_with("c_") && id.as_str().len() == 2 + 26);
    }

    /// AT-03: an id derived from a name is a client id too.
    #[test]
    fn a_configured_id_follows_from_its_name() {
        assert_eq!(ClientId::configured("ci-2_x").unwrap().as_str(), "c_ci-2_x");
        for bad in ["", "2", "-a", "A", "a b", "a.b", "\u{e4}", &"a".repeat(33)] {
            assert!(ClientId::configured(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_client_id_is_visible_ascii() {
        assert!(ClientId::parse("dyn_abc").is_some());
        let secret = Secret::random("cs_");
        for bad in ["", "with space", "tab\t", "ümlaut", "nul\0", secret.expose()] {
            assert!(ClientId::parse(bad).is_none(), "{bad:?}");
        }
        assert!(ClientId::parse(&"x".repeat(513)).is_none());
    }
}

//! Scope: an unordered set of scope tokens, always written in the same order (RFC 6749 §3.3).

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A set of scope tokens. Printed sorted, separated by single spaces (AT-04).
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub struct Scope(BTreeSet<String>);

/// The text is not a scope: it has a character outside `%x21 / %x23-5B / %x5D-7E`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a scope token contains a character that RFC 6749 §3.3 does not allow")]
pub struct MalformedScope;

impl Scope {
    /// The empty scope.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it contains this token, case-sensitively.
    pub fn contains(&self, token: &str) -> bool {
        self.0.contains(token)
    }

    /// Whether every token of this scope is in `wider` too.
    pub fn is_subset(&self, wider: &Self) -> bool {
        self.0.is_subset(&wider.0)
    }

    /// Whether the two share a token.
    pub fn intersects(&self, other: &Self) -> bool {
        !self.0.is_disjoint(&other.0)
    }

    /// The tokens in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).cloned().collect())
    }

    /// The tokens in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).cloned().collect())
    }

    /// The tokens in this one and not in the other.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        Self(self.0.difference(&other.0).cloned().collect())
    }

    /// Its tokens, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl FromStr for Scope {
    type Err = MalformedScope;

    fn from_str(text: &str) -> Result<Self, MalformedScope> {
        let allowed = |b: u8| matches!(b, 0x21 | 0x23..=0x5B | 0x5D..=0x7E);
        let tokens = text.split(' ').filter(|token| !token.is_empty());
        tokens
            .map(|token| token.bytes().all(allowed).then(|| token.to_owned()).ok_or(MalformedScope))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl<'a> FromIterator<&'a str> for Scope {
    fn from_iter<I: IntoIterator<Item = &'a str>>(tokens: I) -> Self {
        Self(tokens.into_iter().map(str::to_owned).collect())
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, token) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            f.write_str(token)?;
        }
        Ok(())
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

crate::db::parsed_column!(Scope);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// AT-04: the order on the wire is stable.
    #[test]
    fn a_scope_prints_sorted() {
        let scope: Scope = "b a  c a".parse().unwrap();
        assert_eq!(scope.to_string(), "a b c");
    }

    /// AUTHZ-13: characters outside the RFC's grammar are refused.
    #[test]
    fn characters_outside_the_rfc_are_refused() {
        for bad in ["a\"b", "a\\b", "a\tb", "é", "a\0"] {
            assert_eq!(bad.parse::<Scope>(), Err(MalformedScope), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn narrowing_never_widens(a in "[a-d ]{0,12}", b in "[a-d ]{0,12}") {
            let (a, b): (Scope, Scope) = (a.parse().unwrap(), b.parse().unwrap());
            let both = a.intersection(&b);
            prop_assert!(both.is_subset(&a) && both.is_subset(&b));
            prop_assert_eq!(a.without(&b).union(&both), a.clone());
            prop_assert!(a.without(&b).intersection(&b).is_empty());
            prop_assert_eq!(a.is_subset(&b), a.union(&b) == b);
        }
    }
}

//! The user code (RFC 8628 §6.1).

use std::fmt;

use keys::{Purpose, Seal};
use shared::Digest;
use shared::secret::random;

/// Consonants only, so that they form no words; none is mistaken for a digit or another letter.
const ALPHABET: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
const LENGTH: usize = 8;

/// Eight consonants, 34 bits: enough for ten minutes and a few guesses, and for nothing else.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct UserCode([u8; LENGTH]);

impl UserCode {
    /// Makes a random code. Bytes beyond the largest multiple of the alphabet's size are discarded, so that
    /// each letter is equally likely.
    pub(super) fn random() -> Self {
        let mut letters = std::iter::repeat_with(random::<16>)
            .flatten()
            .filter(|byte| *byte < 240)
            .map(|byte| ALPHABET[usize::from(byte) % ALPHABET.len()]);
        Self(std::array::from_fn(|_| letters.next().expect("random bytes do not end")))
    }

    /// Parses a typed code: any case, with or without hyphen and spaces. `None` if it cannot be a code.
    pub(super) fn parse(typed: &str) -> Option<Self> {
        let separators = |c: &char| !c.is_whitespace() && !matches!(c, '-' | '‐' | '–' | '.' | '_');
        let mut letters = typed.chars().filter(separators).map(|c| c.to_ascii_uppercase());
        let mut code = [0; LENGTH];
        for letter in &mut code {
            let typed = u8::try_from(letters.next()?).ok()?;
            *letter = *ALPHABET.iter().find(|known| **known == typed)?;
        }
        letters.next().is_none().then_some(Self(code))
    }

    /// The keyed digest stored in the database. A plain digest of 34 bits could be searched.
    pub(super) fn digest(&self, seal: &Seal) -> Digest {
        Digest(seal.hmac(Purpose::UserCode, &self.0))
    }

    /// The digests that the database may have: the sealing key may have been replaced since.
    pub(super) fn digests(&self, seal: &Seal) -> impl Iterator<Item = Digest> {
        seal.hmacs(Purpose::UserCode, &self.0).into_iter().map(Digest)
    }
}

/// Shown as two groups of four letters.
impl fmt::Display for UserCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = std::str::from_utf8(&self.0).map_err(|_| fmt::Error)?;
        let (first, second) = text.split_at(LENGTH / 2);
        write!(f, "{first}-{second}")
    }
}

/// Debug output does not reveal the code.
impl fmt::Debug for UserCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserCode(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// DEV-01: a code has eight consonants, and each is possible at each place.
    #[test]
    fn a_code_is_eight_consonants() {
        let codes: Vec<UserCode> = (0..2000).map(|_| UserCode::random()).collect();
        for place in 0..LENGTH {
            let seen: HashSet<u8> = codes.iter().map(|code| code.0[place]).collect();
            assert_eq!(seen, ALPHABET.iter().copied().collect(), "place {place}");
        }
        let shown = codes[0].to_string();
        assert_eq!((shown.len(), &shown[4..5]), (9, "-"));
        assert_eq!(format!("{:?}", codes[0]), "UserCode(..)");
    }

    #[test]
    fn a_code_is_accepted_in_any_case_and_spacing() {
        let code = UserCode::parse("WDJBMJHT").unwrap();
        assert_eq!(code.to_string(), "WDJB-MJHT");
        for typed in ["WDJB-MJHT", "wdjb mjht", " wdjb–mjht\t", "w d j b m j h t", "WDJB‐MJHT"] {
            assert_eq!(UserCode::parse(typed).unwrap(), code, "{typed}");
        }
        for other in ["", "WDJB-MJH", "WDJB-MJHTT", "WDJA-MJHT", "WDJ8-MJHT", "ＷDJBMJHT", "WDJBMJHſ"] {
            assert!(UserCode::parse(other).is_none(), "{other}");
        }
    }

    proptest! {
        #[test]
        fn a_displayed_code_can_be_typed(bytes in proptest::array::uniform8(0..20_usize)) {
            let code = UserCode(bytes.map(|index| ALPHABET[index]));
            prop_assert_eq!(UserCode::parse(&code.to_string()), Some(code));
        }

        #[test]
        fn any_typed_text_is_parsed_without_a_panic(text in "\\PC{0,40}") {
            let _ = UserCode::parse(&text);
        }
    }
}

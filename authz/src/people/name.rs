//! Users' names.

use unicode_normalization::UnicodeNormalization;

use crate::visible;

/// The most characters of a name.
const LONGEST: usize = 64;

/// Why a text cannot be a user's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum InvalidName {
    Length,
    /// It begins as a user's id does.
    LikeAnId,
    /// It has line breaks, or characters that cannot be seen or are written in another way than they are stored.
    NotVisible,
}

impl InvalidName {
    /// What to do, as a sentence.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::Length => "Choose a name of 1 to 64 characters, without line breaks.",
            Self::LikeAnId => {
                "A name cannot begin with u_, because the ids of users do. Choose a name without it."
            }
            Self::NotVisible => {
                "A name cannot contain line breaks or characters that cannot be seen. Type it again."
            }
        }
    }
}

/// A name as stored.
///
/// # Errors
/// What is wrong with it. Names must not look alike, and must not look like an id, because commands accept either in one
/// argument.
pub(crate) fn valid_name(text: &str) -> Result<String, InvalidName> {
    // The same name may be typed composed or decomposed.
    let name: String = text.trim().nfc().collect();
    if name.is_empty() || name.chars().count() > LONGEST {
        return Err(InvalidName::Length);
    }
    if name.starts_with("u_") {
        return Err(InvalidName::LikeAnId);
    }
    if visible::clean(&name) == name { Ok(name) } else { Err(InvalidName::NotVisible) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ENROL-01: a name that is refused is refused with its own reason.
    #[test]
    fn each_kind_of_name_is_refused_for_its_reason() {
        for (text, why) in [
            ("", InvalidName::Length),
            ("  ", InvalidName::Length),
            (&*"x".repeat(65), InvalidName::Length),
            ("u_ada", InvalidName::LikeAnId),
            (" u_ada", InvalidName::LikeAnId),
            ("a\nb", InvalidName::NotVisible),
            ("a\u{200b}b", InvalidName::NotVisible),
        ] {
            assert_eq!(valid_name(text), Err(why), "{text:?}");
        }
        assert!(InvalidName::LikeAnId.advice().contains("u_"));
        assert_eq!(valid_name(" Ada Lovelace ").as_deref(), Ok("Ada Lovelace"));
        assert_eq!(valid_name("Zoe\u{308}").as_deref(), Ok("Zo\u{eb}"));
        assert_eq!(valid_name(&format!("e{}", "\u{323}\u{301}".repeat(5))), Err(InvalidName::NotVisible));
    }
}

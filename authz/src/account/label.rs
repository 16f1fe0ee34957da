//! The name that a user gives a passkey, to tell it from their others (WEBAUTHN-12). Only they and administrators see it;
//! commands and the audit log identify passkeys by digest.

use unicode_normalization::UnicodeNormalization;

use crate::visible;

/// The most characters of a name.
const LONGEST: usize = 64;

/// The name of a passkey as typed, if it can be stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Label(Result<String, &'static str>);

impl Label {
    pub(super) fn of(text: &str) -> Self {
        // Measured before it is normalised, so that the work is bounded.
        if text.len() > 16 * LONGEST {
            return Self(Err(TOO_LONG));
        }
        let label: String = text.trim().nfc().collect();
        Self(match label.chars().count() {
            0 => Err("The field is empty. Type a name, then try again."),
            1..=LONGEST if visible::clean(&label) == label => Ok(label),
            1..=LONGEST => {
                Err("A name cannot contain line breaks or characters that cannot be seen. Type it again.")
            }
            _ => Err(TOO_LONG),
        })
    }

    /// The name.
    ///
    /// # Errors
    /// Why it cannot be stored, for the user.
    pub(super) fn text(&self) -> Result<&str, &'static str> {
        self.0.as_deref().map_err(|why| *why)
    }
}

const TOO_LONG: &str = "The name is longer than 64 characters. Choose a shorter one.";

#[cfg(test)]
mod tests {
    use super::*;

    /// WEBAUTHN-12: names are one line of visible text.
    #[test]
    fn a_label_is_one_visible_line() {
        assert_eq!(Label::of("  Ada\u{2019}s blue key ").text(), Ok("Ada\u{2019}s blue key"));
        assert_eq!(Label::of("Cafe\u{301}").text(), Ok("Caf\u{e9}"));
        assert!(Label::of(&"\u{e9}".repeat(LONGEST)).text().is_ok());
        for (text, why) in [
            ("", "empty"),
            (" \n ", "empty"),
            ("a\nb", "line breaks"),
            ("a\u{202e}b", "cannot be seen"),
            ("a\u{1b}[2J", "cannot be seen"),
            (&"a".repeat(LONGEST + 1), "longer than 64"),
            (&"a".repeat(100_000), "longer than 64"),
        ] {
            assert!(Label::of(text).text().unwrap_err().contains(why), "{text:.20?}");
        }
    }
}

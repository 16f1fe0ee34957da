//! A secret for a source, as pasted on the account page (SRC-10).

use keys::secrets::{self, InvalidSecret};
use shared::{Digest, Secret};

/// The pasted text, if it can be stored. Compared by digest; `Debug` does not show it.
#[derive(Clone, Debug)]
pub(super) struct Pasted {
    value: Result<Secret, InvalidSecret>,
    digest: Digest,
}

impl Pasted {
    pub(super) fn of(text: &str) -> Self {
        Self { value: secrets::value(text), digest: Digest::of(text.trim().as_bytes()) }
    }

    /// The secret.
    ///
    /// # Errors
    /// Why it cannot be stored, for the user.
    pub(super) fn secret(&self) -> Result<&Secret, &'static str> {
        self.value.as_ref().map_err(|why| match why {
            InvalidSecret::Empty => "The field is empty. Paste the secret, then try again.",
            InvalidSecret::TooLong => "The secret is longer than 4096 characters, which no server takes.",
            InvalidSecret::NotVisible => {
                "The secret contains a line break, or a character that is not visible ASCII. Copy it again, without anything around it."
            }
        })
    }

    pub(super) fn digest(&self) -> Digest {
        self.digest
    }
}

impl PartialEq for Pasted {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Pasted {}

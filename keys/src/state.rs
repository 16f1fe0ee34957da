//! The states of a signing key (KEYS-02).

use std::fmt;

use serde::{Deserialize, Serialize};

/// The state of a key. Keys in all states are published; only active ones sign.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Published ahead of its use, so that resource servers know it in time.
    Next,
    /// Signs. There is one for each algorithm.
    Active,
    /// No longer signs; still verifies its tokens.
    Retired,
}

impl State {
    const ALL: [Self; 3] = [Self::Next, Self::Active, Self::Retired];

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Active => "active",
            Self::Retired => "retired",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

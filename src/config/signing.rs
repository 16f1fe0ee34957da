//! `[keys]`: what tokens are signed with, and for how long one key signs (standards §1).

use std::path::Path;

use anyhow::{Context, bail};
use keys::Algorithm;

use super::keys::Key;

/// What the table says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Signing {
    /// Algorithm and schedule.
    pub keys: ::keys::Config,
}

impl Signing {
    /// Reads the table; relative paths start at `folder`.
    pub(super) fn read(table: &Key<'_>, folder: &Path) -> anyhow::Result<Self> {
        let mut signing = Self::default();
        let _ = folder;
        let keys = &mut signing.keys;
        for key in table.keys()? {
            match key.name {
                "signing_alg" => keys.algorithm = algorithm(&key)?,
                "active" => keys.active = key.duration()?,
                "publish_ahead" => keys.publish_ahead = key.duration()?,
                "jwks_max_age" => keys.jwks_max_age = key.duration()?,
                _ => {
                    return Err(key.unknown(&["signing_alg", "active", "publish_ahead", "jwks_max_age"]));
                }
            }
        }
        keys.check().with_context(|| format!("[keys] at {}", table.at()))?;
        Ok(signing)
    }
}

fn algorithm(key: &Key<'_>) -> anyhow::Result<Algorithm> {
    let name = key.text()?;
    match name.parse() {
        Ok(algorithm) => Ok(algorithm),
        Err(_) => {
            bail!("`{}` at {} is `{name}`; write \"ES256\", \"RS256\" or \"EdDSA\"", key.name, key.at())
        }
    }
}

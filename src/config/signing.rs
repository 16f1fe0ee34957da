//! `[keys]`: the signing algorithm and schedule, and the place of the sealing key (standards §1, KEYS-05).

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use keys::Algorithm;
use keys::seal::Source;

use super::keys::Key;
use crate::environment::variable;

const KNOWN: [&str; 5] = ["signing_alg", "active", "publish_ahead", "jwks_max_age", "seal_key"];

/// The content of the table.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Signing {
    /// Algorithm and schedule.
    pub keys: ::keys::Config,
    pub seal_key: SealKey,
}

/// The place of the sealing key.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum SealKey {
    /// `seal.key` in the data directory.
    #[default]
    Beside,
    File(PathBuf),
    /// A service manager's credential with this name.
    Credential(String),
}

/// The prefix of a credential.
const CREDENTIAL: &str = "credential:";

impl SealKey {
    /// The file, for a server on this data directory.
    ///
    /// # Errors
    /// If it is a credential, and the service manager provides none.
    pub fn source(&self, data_dir: &Path) -> anyhow::Result<Source> {
        Ok(match self {
            Self::Beside => Source::File(data_dir.join("seal.key")),
            Self::File(path) => Source::File(path.clone()),
            Self::Credential(name) => {
                let directory = variable("CREDENTIALS_DIRECTORY").with_context(|| {
                    format!(
                        "the seal key is the credential `{name}`, and CREDENTIALS_DIRECTORY is not set; have the service manager run this, with LoadCredential={name}:FILE"
                    )
                })?;
                Source::Credential(Path::new(&directory).join(name))
            }
        })
    }

    fn read(key: &Key<'_>, folder: &Path) -> anyhow::Result<Self> {
        let text = key.text()?;
        match text.strip_prefix(CREDENTIAL) {
            None => Ok(Self::File(folder.join(text))),
            Some(name) if !name.is_empty() && !name.contains('/') && name != "." && name != ".." => {
                Ok(Self::Credential(name.to_owned()))
            }
            Some(_) => bail!(
                "`{}` at {} has no credential name; write it like \"{CREDENTIAL}seal.key\"",
                key.name,
                key.at()
            ),
        }
    }
}

impl Signing {
    /// Reads the table; relative paths are relative to `folder`.
    pub(super) fn read(table: &Key<'_>, folder: &Path) -> anyhow::Result<Self> {
        let mut signing = Self::default();
        let keys = &mut signing.keys;
        for key in table.keys()? {
            match key.name {
                "signing_alg" => keys.algorithm = algorithm(&key)?,
                "active" => keys.active = key.duration()?,
                "publish_ahead" => keys.publish_ahead = key.duration()?,
                "jwks_max_age" => keys.jwks_max_age = key.duration()?,
                "seal_key" => signing.seal_key = SealKey::read(&key, folder)?,
                _ => return Err(key.unknown(&KNOWN)),
            }
        }
        // A schedule of seconds must be checked more often than one of days.
        keys.look = keys.look.min(keys.publish_ahead / 8);
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

//! The credentials for a source, and where each secret is stored: never in the configuration itself (SRC-10).

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use http::{HeaderName, header};
use keys::secrets;
use resource::sources::{self, Carrier, Credential};

use crate::config::keys::Key;
use crate::config::remote::private;
use crate::environment::variable;

/// Headers that are reserved for the protocol or the gateway.
const TAKEN: [HeaderName; 14] = [
    header::ACCEPT,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::EXPECT,
    header::FORWARDED,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static("portcullis-identity"),
];

/// The credentials for a source.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ShownCredentials {
    credentials: Vec<Written>,
    /// What stands in the place of a user's secret where the gateway looks at the server by itself.
    lists_with: Option<SecretStorage>,
}

/// One credential, as it is written.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Written {
    carrier: Carrier,
    kept: SecretStorage,
}

/// Where a secret is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SecretStorage {
    File(PathBuf),
    Environment(String),
    /// In the sealed store, under this name.
    Store(String),
    /// In the sealed store, each user's own secret.
    User,
}

impl ShownCredentials {
    /// Reads one of the keys that are about it.
    pub(super) fn read(&mut self, key: &Key<'_>, folder: &Path) -> anyhow::Result<()> {
        match key.name {
            // It opens a connection and is never sent over HTTP, so this name is never a header of a request.
            "password" => self.add(HeaderName::from_static("password"), false, key, folder).and_then(|()| {
                if self.is_of_users() {
                    bail!("`password` at {} cannot be \"user\": a database has one role here", key.at());
                }
                Ok(())
            }),
            // It signs messages and is never sent, so this name is never a header of a request.
            "secret" => self.add(HeaderName::from_static("secret"), false, key, folder).and_then(|()| {
                if self.is_of_users() {
                    bail!("`secret` at {} cannot be \"user\": the receiver knows one", key.at());
                }
                Ok(())
            }),
            "authorization" => self.add(header::AUTHORIZATION, false, key, folder),
            "bearer" => self.add(header::AUTHORIZATION, true, key, folder),
            "lists_with" => {
                let kept = kept(key, folder)?;
                if kept == SecretStorage::User {
                    bail!(
                        "`lists_with` at {} cannot be \"user\": nobody asks when the gateway reads the lists",
                        key.at()
                    );
                }
                self.lists_with = Some(kept);
                Ok(())
            }
            "secrets" => key.keys()?.iter().try_for_each(|key| {
                let carrier = Carrier::Variable(variable_name(key)?);
                self.credentials.push(Written { carrier, kept: kept(key, folder)? });
                Ok(())
            }),
            _ => key.keys()?.iter().try_for_each(|key| self.add(name(key)?, false, key, folder)),
        }
    }

    fn add(&mut self, name: HeaderName, bearer: bool, key: &Key<'_>, folder: &Path) -> anyhow::Result<()> {
        let is_it =
            |carrier: &Carrier| matches!(carrier, Carrier::Header { name: known, .. } if *known == name);
        if self.credentials.iter().any(|written| is_it(&written.carrier)) {
            bail!(
                "`{}` at {} sets the header {name} a second time; remove one of the two",
                key.name,
                key.at()
            );
        }
        self.credentials
            .push(Written { carrier: Carrier::Header { name, bearer }, kept: kept(key, folder)? });
        Ok(())
    }

    /// Checks that the keys fit together.
    pub(super) fn fits(&self, table: &Key<'_>) -> anyhow::Result<()> {
        let (source, at) = (table.name, table.at());
        if self.credentials.iter().filter(|written| written.kept == SecretStorage::User).count() > 1 {
            bail!(
                "[sources.{source}] at {at} has \"user\" twice, and each user gives one secret for a server; remove one of the two"
            );
        }
        if self.lists_with.is_some() && !self.is_of_users() {
            bail!(
                "[sources.{source}] at {at} has `lists_with`, and no secret that is each user's own; remove it, or write \"user\" where the secret of each user belongs"
            );
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.credentials.is_empty()
    }

    /// Whether each user gives their own secret.
    pub(crate) fn is_of_users(&self) -> bool {
        self.credentials.iter().any(|written| written.kept == SecretStorage::User)
    }

    /// The names that it uses in the sealed store.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.kept().filter_map(|kept| match kept {
            SecretStorage::Store(name) => Some(name.as_str()),
            SecretStorage::File(_) | SecretStorage::Environment(_) | SecretStorage::User => None,
        })
    }

    /// The files that hold one of them.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.kept().filter_map(|kept| match kept {
            SecretStorage::File(path) => Some(path.as_path()),
            SecretStorage::Store(_) | SecretStorage::Environment(_) | SecretStorage::User => None,
        })
    }

    fn kept(&self) -> impl Iterator<Item = &SecretStorage> {
        self.credentials.iter().map(|written| &written.kept).chain(&self.lists_with)
    }

    /// The environment variables that it sets.
    pub(super) fn variables(&self) -> impl Iterator<Item = &str> {
        self.credentials.iter().filter_map(|written| match &written.carrier {
            Carrier::Variable(name) => Some(name.as_str()),
            Carrier::Header { .. } => None,
        })
    }

    /// The same with what is in files and in the environment taken out of there.
    pub(super) fn settings(&self) -> anyhow::Result<(Vec<Credential>, Option<sources::SecretLocation>)> {
        let credential = |written: &Written| {
            let kept = written.kept.taken_out()?;
            if let (sources::SecretLocation::Here(secret), Carrier::Header { name, bearer: false }) =
                (&kept, &written.carrier)
                && *name == header::AUTHORIZATION
                && !secret.expose().contains(' ')
            {
                bail!(
                    "the credential must be the whole value of the Authorization header, like `Bearer TOKEN`; for the token alone write `bearer` in place of `authorization`"
                );
            }
            Ok(Credential { carrier: written.carrier.clone(), kept })
        };
        let credentials = self.credentials.iter().map(credential).collect::<anyhow::Result<_>>()?;
        Ok((credentials, self.lists_with.as_ref().map(SecretStorage::taken_out).transpose()?))
    }
}

impl SecretStorage {
    fn taken_out(&self) -> anyhow::Result<sources::SecretLocation> {
        let text = match self {
            Self::Store(name) => return Ok(sources::SecretLocation::Stored(name.clone())),
            Self::User => return Ok(sources::SecretLocation::OfUser),
            Self::File(path) => private(path).context("a secret cannot be used")?,
            Self::Environment(name) => variable(name)
                .and_then(|text| text.into_string().ok())
                .ok_or_else(|| anyhow!("a secret is in the environment variable {name}, which is not set"))?,
        };
        let secret = secrets::value(&text).map_err(|why| {
            let place = match self {
                Self::File(path) => path.display().to_string(),
                Self::Environment(name) => format!("the environment variable {name}"),
                Self::Store(_) | Self::User => String::new(),
            };
            anyhow!("the secret in {place} cannot be used: {why}")
        })?;
        Ok(sources::SecretLocation::Here(secret))
    }
}

fn name(key: &Key<'_>) -> anyhow::Result<HeaderName> {
    let text = key.name;
    let name = HeaderName::try_from(text)
        .map_err(|_| anyhow!("`{text}` at {} is not the name of a header", key.at()))?;
    if name == header::AUTHORIZATION {
        bail!(
            "the header Authorization at {} has keys of its own; write `bearer` or `authorization` in [sources.NAME]",
            key.at()
        );
    }
    if TAKEN.contains(&name) || name.as_str().starts_with("mcp-") || name.as_str().starts_with("x-forwarded-")
    {
        bail!("the header {name} at {} belongs to the protocol and cannot be set; remove it", key.at());
    }
    Ok(name)
}

/// The name of an environment variable.
pub(super) fn variable_name(key: &Key<'_>) -> anyhow::Result<String> {
    let name = key.name;
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if name.is_empty() || !name.bytes().all(fits) || name.starts_with(|c: char| c.is_ascii_digit()) {
        bail!(
            "`{name}` at {} is not the name of an environment variable; use letters, digits and `_`",
            key.at()
        );
    }
    Ok(name.to_owned())
}

fn kept(key: &Key<'_>, folder: &Path) -> anyhow::Result<SecretStorage> {
    let text = key.text()?;
    match text.split_once(':') {
        Some(("file", path)) if !path.is_empty() => Ok(SecretStorage::File(folder.join(path))),
        Some(("env", name)) if !name.is_empty() => Ok(SecretStorage::Environment(name.to_owned())),
        Some(("secret", name)) if is_name(name) => Ok(SecretStorage::Store(name.to_owned())),
        Some(("secret", _)) => bail!(
            "`{}` at {} names no secret: a name has lower-case letters, digits, `_`, `-` and `.`, 64 at most",
            key.name,
            key.at()
        ),
        _ if text == "user" => Ok(SecretStorage::User),
        // What was written is not repeated: it may be the secret itself.
        _ => bail!(
            "`{}` at {} must say where the credential is kept: \"file:/path\", \"env:NAME\", \"secret:NAME\" or \"user\"",
            key.name,
            key.at()
        ),
    }
}

/// Whether the text can be a secret's name.
pub(crate) fn is_name(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.".contains(&b);
    (1..=64).contains(&text.len()) && text.bytes().all(fits)
}

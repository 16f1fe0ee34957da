//! `[sources.NAME]`: servers behind the gate, over HTTP (SRC-12, `address`) or as programs (SRC-11, `program`), and their
//! credentials (SRC-10, `shown`).

mod address;
mod declared;
mod program;
mod shown;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use resource::sources::endpoint::Endpoint;
use resource::sources::{Configured, Means, Names, SourceSettings, Upstreams};
use shared::outbound::Security;
use shared::tls;

use super::keys::Key;
pub use declared::Declared;
pub(crate) use shown::is_name as is_secret_name;
pub use shown::{SecretStorage, ShownCredentials};

/// The keys that every source may have.
const COMMON: [&str; 4] = ["kind", "timeout", "names", "lists_with"];
/// The names of the built-in sources.
const RESERVED: [&str; 2] = ["account", "docs"];
/// The longest name, which leaves room for the rest of a tool's name.
const LONGEST_NAME: usize = 24;
/// How long a call may run without progress, by default (LIMIT-04).
const TIMEOUT: Duration = Duration::from_mins(1);
/// The allowed values: a call ends after ten minutes in any case.
const TIMEOUTS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_mins(10);

/// A configured source. Its secrets are not read yet.
#[derive(Clone, Debug)]
pub struct Source {
    pub settings: SourceSettings,
    pub shown: ShownCredentials,
    /// File and line.
    at: String,
}

impl PartialEq for Source {
    /// The position in the file does not matter.
    fn eq(&self, other: &Self) -> bool {
        self.settings == other.settings && self.shown == other.shown
    }
}

impl Eq for Source {}

/// The sources of a file, by name.
#[derive(Default)]
pub(super) struct Sources {
    /// Servers.
    pub(super) servers: BTreeMap<String, Source>,
    /// Those whose tools the file declares.
    pub(super) declared: BTreeMap<String, Declared>,
}

/// The same, to ask which items may be offered.
#[derive(Clone, Copy)]
pub(super) struct Offering<'s> {
    pub(super) servers: &'s BTreeMap<String, Source>,
    pub(super) declared: &'s BTreeMap<String, Declared>,
}

impl<'s> Offering<'s> {
    /// The names of all sources.
    pub(super) fn names(&self) -> impl Iterator<Item = &'s str> {
        self.servers.keys().chain(self.declared.keys()).map(String::as_str)
    }
}

/// Reads the tables; relative paths are relative to `folder`.
pub(super) fn read(tables: &Key<'_>, folder: &Path) -> anyhow::Result<Sources> {
    let mut sources = Sources::default();
    for table in tables.keys()? {
        check_name(&table)?;
        match declared::read(&table, folder)? {
            Some(declared) => drop(sources.declared.insert(table.name.to_owned(), declared)),
            None => drop(sources.servers.insert(table.name.to_owned(), source(&table, folder)?)),
        }
    }
    Ok(sources)
}

fn check_name(table: &Key<'_>) -> anyhow::Result<()> {
    let name = table.name;
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b);
    if RESERVED.contains(&name) {
        bail!("[sources.{name}] at {} has the name of a built-in source; choose another name", table.at());
    }
    if !name.starts_with(|c: char| c.is_ascii_lowercase())
        || name.len() > LONGEST_NAME
        || !name.bytes().all(fits)
    {
        bail!(
            "[sources.{name}] at {} needs another name: a letter, then letters, digits, `_` or `-`, all lower case, at most {LONGEST_NAME}",
            table.at()
        );
    }
    Ok(())
}

/// The content of a table, before it is checked as a whole.
#[derive(Default)]
struct SourceTable<'t> {
    address: address::Said<'t>,
    program: program::Said,
    timeout: Option<Duration>,
    names: Names,
    shown: ShownCredentials,
}

fn source(table: &Key<'_>, folder: &Path) -> anyhow::Result<Source> {
    let keys = table.keys()?;
    let kind = keys.iter().find(|key| key.name == "kind").map(kind).transpose()?;
    let Some(kind) = kind else {
        bail!(
            "[sources.{}] at {} has no `kind`; write kind = \"mcp-http\", or kind = \"mcp-stdio\" for a program",
            table.name,
            table.at()
        );
    };
    let mut said = SourceTable::default();
    for key in keys {
        match key.name {
            "kind" => {}
            "timeout" => said.timeout = Some(timeout(&key)?),
            "names" => said.names = names(&key)?,
            "lists_with" => said.shown.read(&key, folder)?,
            name if !kind.keys().contains(&name) && kind.other().keys().contains(&name) => bail!(
                "`{name}` at {} is a key of kind = \"{}\", and this is kind = \"{}\"; remove one of the two",
                key.at(),
                kind.other().name(),
                kind.name()
            ),
            "authorization" | "bearer" | "headers" | "secrets" => said.shown.read(&key, folder)?,
            _ if kind == Kind::Http => {
                said.address.read(&key, folder).or_else(|why| kind.unknown(&key, why))?;
            }
            _ => said.program.read(&key, folder).or_else(|why| kind.unknown(&key, why))?,
        }
    }
    said.fits(table, kind)
}

/// What a source is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Http,
    Stdio,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Http => "mcp-http",
            Self::Stdio => "mcp-stdio",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Http => Self::Stdio,
            Self::Stdio => Self::Http,
        }
    }

    /// The keys that only it has.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Http => &address::KEYS,
            Self::Stdio => &program::KEYS,
        }
    }

    /// The error for a key that no source of this kind has, in place of `why`.
    fn unknown(self, key: &Key<'_>, why: anyhow::Error) -> anyhow::Result<()> {
        if self.keys().contains(&key.name) {
            return Err(why);
        }
        Err(key.unknown(&[&COMMON[..], self.keys()].concat()))
    }
}

impl SourceTable<'_> {
    fn fits(self, table: &Key<'_>, kind: Kind) -> anyhow::Result<Source> {
        self.shown.fits(table)?;
        let of_users = self.shown.is_of_users();
        let endpoint = match kind {
            Kind::Http => Endpoint::Http(self.address.fits(table, !self.shown.is_empty())?),
            Kind::Stdio => self.program.fits(table, &self.shown)?,
        };
        let settings = SourceSettings {
            name: table.name.to_owned(),
            endpoint,
            names: self.names,
            timeout: self.timeout.unwrap_or(TIMEOUT),
            own_secret: of_users,
        };
        Ok(Source { settings, shown: self.shown, at: table.at() })
    }
}

fn kind(key: &Key<'_>) -> anyhow::Result<Kind> {
    match key.text()? {
        "mcp-http" => Ok(Kind::Http),
        "mcp-stdio" => Ok(Kind::Stdio),
        other => bail!(
            "`kind` at {} is `{other}`; write \"mcp-http\", \"mcp-stdio\", \"rest\", \"sql\" or \"webhook\"",
            key.at()
        ),
    }
}

fn timeout(key: &Key<'_>) -> anyhow::Result<Duration> {
    let timeout = key.duration()?;
    if !TIMEOUTS.contains(&timeout) {
        bail!("`timeout` at {} must be from 1 second to 10 minutes", key.at());
    }
    Ok(timeout)
}

fn names(key: &Key<'_>) -> anyhow::Result<Names> {
    match key.text()? {
        "bare" => Ok(Names::Bare),
        "prefixed" => Ok(Names::Prefixed),
        other => bail!("`names` at {} is `{other}`; write \"prefixed\" or \"bare\"", key.at()),
    }
}

impl Source {
    /// The sources, with their stored lists. They are not contacted.
    ///
    /// # Errors
    /// As [`Source::configured`], or if a credential cannot be used.
    pub fn open<'s>(
        sources: impl Iterator<Item = &'s Self>,
        declared: impl Iterator<Item = &'s Declared>,
        data_dir: &Path,
        means: &Means,
    ) -> anyhow::Result<Upstreams> {
        let configured = sources.map(Self::configured).collect::<anyhow::Result<Vec<_>>>()?;
        let declared = declared.map(|one| one.configured(data_dir)).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Upstreams::open(&configured, &declared, means)?)
    }

    /// The settings for the resource server, with secrets and certificates read (OPS-03).
    ///
    /// # Errors
    /// If something is missing, or other users can read it.
    pub fn configured(&self) -> anyhow::Result<Configured> {
        let place = || format!("[sources.{}] at {}", self.settings.name, self.at);
        if let Endpoint::Http(address) = &self.settings.endpoint
            && let Security::Tls(trust) = &address.destination.security
        {
            let wrong = |why: String| anyhow!("{}: {why}", place());
            trust.ca.as_deref().map_or(Ok(()), |ca| tls::certificates(ca).map(drop)).map_err(wrong)?;
            trust.identity.as_ref().map_or(Ok(()), tls::check_identity).map_err(wrong)?;
        }
        let (credentials, lists_with) = self.shown.settings().with_context(place)?;
        Ok(Configured { source: self.settings.clone(), credentials, lists_with })
    }

    /// The files that hold secrets for it.
    pub(crate) fn secret_files(&self) -> impl Iterator<Item = &Path> {
        let trust = match &self.settings.endpoint {
            Endpoint::Http(address) => match &address.destination.security {
                Security::Tls(trust) => trust.identity.as_ref(),
                Security::Plain => None,
            },
            Endpoint::Local(_) => None,
        };
        self.shown.files().chain(trust.map(|identity| identity.key.as_path()))
    }

    /// Whether a tool with this name can be one of its tools.
    pub(crate) fn may_offer(&self, tool: &str) -> bool {
        let rest = tool.strip_prefix(self.settings.name.as_str());
        self.settings.names == Names::Bare || rest.is_some_and(|rest| rest.len() > 1 && rest.starts_with('_'))
    }
}

#[cfg(test)]
mod tests;

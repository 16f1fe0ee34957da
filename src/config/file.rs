//! `portcullis.toml`: its content, and one line for each error (OPS-03).

mod entries;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use authz::clients::configuration::Configured;
use resource::catalogue::Rules;
use shared::Scope;
use shared::catalogue::Risk;
use shared::rate::Limits;

use super::given::{CommandLineOptions, DataDirOption};
use super::keys::Text;
use super::remote::Remote;
use super::signing::Signing;
use super::sources::{Declared, ShownCredentials, Source};
use crate::front;
use entries::{AppliedWhen, ReadOrder};

/// Where the file is looked for if none is named.
const HERE: &str = "portcullis.toml";
const SYSTEM: &str = "/etc/portcullis/portcullis.toml";
/// The group of all users.
pub const EVERYONE: &str = "everyone";

/// The content of the file. Each part is the configuration of one module, which receives it unchanged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct File {
    /// The file's path; `None` without a file.
    pub path: Option<PathBuf>,
    pub issuer: Option<String>,
    /// The gateway's address, if it runs alone.
    pub origin: Option<String>,
    pub data_dir: Option<PathBuf>,
    /// A file on another disk or machine that says where the audit log ended (AUDIT-03).
    pub audit_mirror: Option<PathBuf>,
    /// The settings of connections.
    pub front: front::config::Config,
    /// The authorization server.
    pub authz: authz::Config,
    /// The gateway.
    pub resource: resource::Settings,
    /// The scope of each group. `everyone` is always included.
    pub groups: BTreeMap<String, Scope>,
    pub rules: Rules,
    /// Servers behind the gate, by name.
    pub sources: BTreeMap<String, Source>,
    /// Sources whose tools the file declares, by name.
    pub declared: BTreeMap<String, Declared>,
    /// Clients that are there from the start, in the order of the file.
    pub clients: Vec<Configured>,
    pub limits: Limits,
    pub signing: Signing,
    /// How the gateway is known to the authorization server, if it runs alone.
    pub remote: Remote,
}

impl Default for File {
    /// Without a file.
    fn default() -> Self {
        let rules = Rules::default();
        let everyone = rules.scopes.iter().map(|rule| rule.description.name.as_str()).collect();
        Self {
            path: None,
            issuer: None,
            origin: None,
            data_dir: None,
            audit_mirror: None,
            front: front::config::Config::default(),
            authz: authz::Config::default(),
            resource: resource::Settings::default(),
            groups: [(EVERYONE.to_owned(), everyone)].into(),
            rules,
            sources: BTreeMap::new(),
            declared: BTreeMap::new(),
            clients: Vec::new(),
            limits: Limits::default(),
            signing: Signing::default(),
            remote: Remote::default(),
        }
    }
}

impl File {
    /// Reads the named file, or the one in this directory or in `/etc/portcullis`, if there is one.
    ///
    /// # Errors
    /// The first mistake in the file, with its name and the line.
    pub fn load(explicit: Option<&Path>) -> anyhow::Result<Self> {
        match read(explicit)? {
            Some((path, text)) => Self::parse(&path, &text),
            None => Ok(Self::default()),
        }
    }

    /// Reads the text of a file that is called like this.
    ///
    /// # Errors
    /// The first mistake in the file, with its name and the line.
    pub(crate) fn parse(path: &Path, text: &str) -> anyhow::Result<Self> {
        let mut file = Self { path: Some(path.to_owned()), ..Self::default() };
        let folder = path.parent().unwrap_or(Path::new(""));
        let text = Text::new(path, text);
        let table = text.parse()?;
        let mut keys = text.keys(&table)?;
        keys.sort_by_key(|key| entries::find(key.name).map_or(ReadOrder::First, |entry| entry.turn));
        for key in keys {
            let Some(entry) = entries::find(key.name) else { return Err(key.unknown(&entries::names())) };
            (entry.read)(&key, folder, &mut file)?;
        }
        Ok(file)
    }

    /// The file with the options and environment variables applied, which take precedence.
    #[must_use]
    pub fn under(mut self, given: &CommandLineOptions) -> Self {
        self.issuer = given.issuer.clone().or(self.issuer);
        self.origin = given.origin.clone().or(self.origin);
        self.data_dir = given.data.data_dir.clone().or(self.data_dir);
        self.front.listen = given.listen.clone().or(self.front.listen);
        self.front.tls.cert = given.tls_cert.clone().or(self.front.tls.cert);
        self.front.tls.key = given.tls_key.clone().or(self.front.tls.key);
        self.resource.docs = given.docs.clone().or(self.resource.docs);
        self
    }

    /// The credentials of each source, by its name.
    pub(crate) fn shown(&self) -> impl Iterator<Item = (&String, &ShownCredentials)> {
        let servers = self.sources.iter().map(|(name, source)| (name, &source.shown));
        servers.chain(self.declared.iter().map(|(name, source)| (name, &source.shown)))
    }

    /// The changed keys that are read only at the start (POL-04).
    pub(super) fn fixed(&self, other: &Self) -> Vec<&'static str> {
        entries::differing(AppliedWhen::AtStart, self, other)
    }

    /// The changed keys that a reload applies (POL-04).
    pub(super) fn changed(&self, other: &Self) -> Vec<&'static str> {
        entries::differing(AppliedWhen::AtReload, self, other)
    }

    /// The risk of each scope.
    pub fn risks(&self) -> Vec<(&str, Risk)> {
        let scopes = self.rules.scopes.iter().map(|rule| &rule.description);
        scopes.map(|scope| (scope.name.as_str(), scope.risk)).collect()
    }

    /// The data directory.
    pub fn data_dir_or_default(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(super::default_data_dir)
    }
}

/// The path and text of the file, if there is one.
pub(super) fn read(explicit: Option<&Path>) -> anyhow::Result<Option<(PathBuf, String)>> {
    let found = match explicit {
        Some(path) => Some((path, shared::file::open(path).with_context(|| unreadable(path))?)),
        None => found()?,
    };
    let Some((path, file)) = found else { return Ok(None) };
    let metadata = file.metadata().with_context(|| unreadable(path))?;
    let mode = metadata.mode() & 0o7777;
    if metadata.is_file() && mode & 0o002 != 0 {
        bail!("{0} can be changed by everybody (mode {mode:o}); run: chmod o-w {0}", path.display());
    }
    // Another user's file in the current directory must not configure this server.
    if explicit.is_none() && ![0, rustix::process::geteuid().as_raw()].contains(&metadata.uid()) {
        bail!(
            "{0} belongs to another user ({1}); if it is the right file, give it with --config {0}",
            path.display(),
            metadata.uid()
        );
    }
    let text =
        shared::file::read_open(&file).and_then(shared::file::text).with_context(|| unreadable(path))?;
    Ok(Some((path.to_owned(), text)))
}

fn found() -> anyhow::Result<Option<(&'static Path, fs::File)>> {
    for path in [HERE, SYSTEM].map(Path::new) {
        match shared::file::open(path) {
            Ok(file) => return Ok(Some((path, file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| unreadable(path)),
        }
    }
    Ok(None)
}

fn unreadable(path: &Path) -> String {
    format!("cannot read the configuration {}", path.display())
}

impl DataDirOption {
    /// The directory: the option, else the file's, else the default.
    pub fn path(&self, file: &File) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| file.data_dir_or_default())
    }
}

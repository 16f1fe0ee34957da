//! `portcullis.toml`: what is in it, and what is wrong with it, in one line each (OPS-03).

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use authz::clients::configuration::Configured;
use authz::{Cimd, Redirects, Registration};
use resource::catalogue::Rules;
use shared::catalogue::Risk;
use shared::rate::Limits;
use shared::{Issuer, Scope};

use super::given::{DataDirOption, Given};
use super::keys::{Key, Text};
use super::remote::Remote;
use super::signing::Signing;
use super::sources::{self, Source};
use super::{Listen, cimd, front, registration, rules, tokens};
use crate::base;
use crate::front::listen::Budget;
use crate::front::proxies::Proxies;
use crate::front::tls;

/// Where the file is looked for if nobody names one.
const HERE: &str = "portcullis.toml";
const SYSTEM: &str = "/etc/portcullis/portcullis.toml";
const LISTEN: &str = "localhost:8080";
/// The group that every user is in.
pub const EVERYONE: &str = "everyone";
const KEYS: &[&str] = &[
    "issuer",
    "listen",
    "tls",
    "trusted_proxies",
    "forwarded_header",
    "allowed_origins",
    "memory",
    "data_dir",
    "docs",
    "device",
    "consent",
    "groups",
    "scopes",
    "tools",
    "profiles",
    "audit",
    "sources",
    "clients",
    "registration",
    "cimd",
    "rate",
    "keys",
    "tokens",
    "origin",
    "remote",
];

/// What the file says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct File {
    /// Where it was found; `None` if there is none.
    pub path: Option<PathBuf>,
    pub issuer: Option<String>,
    pub listen: Option<String>,
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    pub proxies: Proxies,
    /// Pages that may call the MCP endpoint from a browser.
    pub allowed_origins: Vec<String>,
    /// How much memory connections may hold.
    pub memory: Budget,
    pub data_dir: Option<PathBuf>,
    pub docs: Option<PathBuf>,
    /// The device authorization grant.
    pub device: bool,
    /// A decision is answered with a page that leads to the client, in place of a redirect.
    pub consent_interstitial: bool,
    /// What the members of each group may be granted. `everyone` is always among them.
    pub groups: BTreeMap<String, Scope>,
    pub rules: Rules,
    /// Servers behind the gate, by name.
    pub sources: BTreeMap<String, Source>,
    /// Clients that are there from the start, in the order of the file.
    pub clients: Vec<Configured>,
    pub limits: Limits,
    pub signing: Signing,
    /// How long an access token lives.
    pub access_token_lifetime: Duration,
    /// Where the gateway is known, if it runs alone.
    pub origin: Option<String>,
    /// How it is known to the authorization server then.
    pub remote: Remote,
    /// Clients whose ids are URLs.
    pub cimd: Cimd,
    /// Who may register a client.
    pub registration: Registration,
    /// Where clients' answers may go.
    pub redirects: Redirects,
}

impl Default for File {
    /// Without a file.
    fn default() -> Self {
        let rules = Rules::default();
        let everyone = rules.scopes.iter().map(|rule| rule.description.name.as_str()).collect();
        Self {
            path: None,
            issuer: None,
            listen: None,
            tls_cert: None,
            tls_key: None,
            proxies: Proxies::default(),
            allowed_origins: Vec::new(),
            memory: Budget::default(),
            data_dir: None,
            docs: None,
            device: false,
            consent_interstitial: false,
            groups: [(EVERYONE.to_owned(), everyone)].into(),
            rules,
            sources: BTreeMap::new(),
            clients: Vec::new(),
            limits: Limits::default(),
            signing: Signing::default(),
            access_token_lifetime: authz::Config::default().access_token_lifetime,
            origin: None,
            remote: Remote::default(),
            cimd: Cimd::default(),
            registration: Registration::default(),
            redirects: Redirects::default(),
        }
    }
}

impl File {
    /// Reads the file that was named; else the one in this directory or in `/etc/portcullis`, if
    /// there is one.
    ///
    /// # Errors
    /// Whatever is wrong with it, with its name and the line.
    pub fn load(explicit: Option<&Path>) -> anyhow::Result<Self> {
        match read(explicit)? {
            Some((path, text)) => Self::parse(&path, &text),
            None => Ok(Self::default()),
        }
    }

    pub(super) fn parse(path: &Path, text: &str) -> anyhow::Result<Self> {
        let mut file = Self { path: Some(path.to_owned()), ..Self::default() };
        let folder = path.parent().unwrap_or(Path::new(""));
        let text = Text::new(path, text);
        let table = text.parse()?;
        let (mut groups, mut scopes, mut tools) = (Vec::new(), Vec::new(), Vec::new());
        let (mut profiles, mut clients, mut remote) = (Vec::new(), None, None);
        for key in text.keys(&table)? {
            match key.name {
                "issuer" => file.issuer = Some(issuer(&key)?),
                "listen" => file.listen = Some(listen(&key)?),
                "tls" => front::tls(&key, folder, &mut file)?,
                "trusted_proxies" => file.proxies.networks = front::networks(&key)?,
                "forwarded_header" => file.proxies.naming = front::naming(&key)?,
                "memory" => file.memory = front::memory(&key)?,
                "allowed_origins" => file.allowed_origins = front::origins(&key)?,
                "data_dir" => file.data_dir = Some(folder.join(key.text()?)),
                "docs" => file.docs = Some(folder.join(key.text()?)),
                "device" => file.device = key.boolean()?,
                "consent" => consent(&key, &mut file)?,
                "groups" => groups = key.keys()?,
                "scopes" => scopes = key.keys()?,
                "tools" => tools = key.keys()?,
                "profiles" => profiles = key.keys()?,
                "audit" => file.rules.record_values = rules::record_values(&key)?,
                "sources" => file.sources = sources::read(&key, folder)?,
                "clients" => clients = Some(key),
                "rate" => front::limits(&key, &mut file.limits)?,
                "keys" => file.signing = Signing::read(&key, folder)?,
                "tokens" => tokens::read(&key, &mut file.access_token_lifetime)?,
                "origin" => file.origin = Some(issuer(&key)?),
                "remote" => remote = Some(key),
                "cimd" => file.cimd = cimd::read(&key, folder)?,
                "registration" => registration::read(&key, &mut file.registration, &mut file.redirects)?,
                _ => return Err(key.unknown(KEYS)),
            }
        }
        // Scopes first: the others name them.
        for key in &scopes {
            rules::scope(key, &mut file.rules.scopes)?;
        }
        for key in &groups {
            let members = rules::group(key, &file.rules)?;
            if let Some(other) = file.groups.keys().find(|other| authz::look_alike(other, key.name)) {
                bail!("the groups `{other}` and `{}` at {} look alike; rename one", key.name, key.at());
            }
            file.groups.insert(key.name.to_owned(), members);
        }
        for key in &tools {
            let (pattern, rule) = rules::tool(key, &file.rules, &file.sources)?;
            file.rules.tools.set(pattern, rule);
        }
        for key in &profiles {
            let profile = rules::profile(key, &file.rules)?;
            file.rules.profiles.insert(key.name.to_owned(), profile);
        }
        if let Some(key) = remote {
            file.remote = Remote::read(&key, folder, &file.rules)?;
        }
        if let Some(key) = clients {
            file.clients = super::clients::clients(&key, folder, &file.rules)?;
        }
        Ok(file)
    }

    /// The same, where the command line and the environment say nothing else.
    #[must_use]
    pub fn under(mut self, given: &Given) -> Self {
        self.issuer = given.issuer.clone().or(self.issuer);
        self.listen = given.listen.clone().or(self.listen);
        self.tls_cert = given.tls_cert.clone().or(self.tls_cert);
        self.tls_key = given.tls_key.clone().or(self.tls_key);
        self.data_dir = given.data.data_dir.clone().or(self.data_dir);
        self.docs = given.docs.clone().or(self.docs);
        self.origin = given.origin.clone().or(self.origin);
        self
    }

    /// Where to listen, as it was written.
    pub fn listen_or_default(&self) -> &str {
        self.listen.as_deref().unwrap_or(LISTEN)
    }

    /// What connections are secured with, if anything.
    ///
    /// # Errors
    /// If a certificate is named without its key, or a key without its certificate.
    pub fn tls(&self) -> anyhow::Result<Option<tls::Files>> {
        front::files(self)
    }

    /// What the base is built from, on this data directory.
    pub fn base(&self, data_dir: PathBuf) -> base::Settings {
        base::Settings {
            data_dir,
            groups: self.groups.clone(),
            rules: self.rules.clone(),
            sources: self.sources.values().cloned().collect(),
            clients: self.clients.clone(),
            limits: self.limits,
            authz: authz::Config {
                access_token_lifetime: self.access_token_lifetime,
                device: self.device,
                registration: self.registration,
                redirects: self.redirects.clone(),
                consent_interstitial: self.consent_interstitial,
                cimd: self.cimd.clone(),
                ..authz::Config::default()
            },
            keys: self.signing.keys.clone(),
            seal_key: self.signing.seal_key.clone(),
            gateway: true,
        }
    }

    /// The keys of which another file says something else, and that a server reads once, when it starts (POL-04).
    pub(super) fn fixed(&self, other: &Self) -> Vec<&'static str> {
        let keys = [
            ("issuer", self.issuer == other.issuer),
            ("listen", self.listen == other.listen),
            ("tls", self.tls_cert == other.tls_cert && self.tls_key == other.tls_key),
            ("trusted_proxies", self.proxies.networks == other.proxies.networks),
            ("forwarded_header", self.proxies.naming == other.proxies.naming),
            ("allowed_origins", self.allowed_origins == other.allowed_origins),
            ("memory", self.memory == other.memory),
            ("data_dir", self.data_dir == other.data_dir),
            ("docs", self.docs == other.docs),
            ("device", self.device == other.device),
            ("consent", self.consent_interstitial == other.consent_interstitial),
            ("keys", self.signing == other.signing),
            ("tokens", self.access_token_lifetime == other.access_token_lifetime),
            ("origin", self.origin == other.origin),
            ("remote", self.remote == other.remote),
            ("sources", self.sources == other.sources),
            ("cimd", self.cimd == other.cimd),
            ("registration", self.registration == other.registration && self.redirects == other.redirects),
        ];
        differing(keys)
    }

    /// The keys of which another file says something else, and that a server reads anew while it runs (POL-04).
    pub(super) fn changed(&self, other: &Self) -> Vec<&'static str> {
        differing([
            ("groups", self.groups == other.groups),
            ("scopes", self.rules.scopes == other.rules.scopes),
            ("tools", self.rules.tools == other.rules.tools),
            ("profiles", self.rules.profiles == other.rules.profiles),
            ("audit", self.rules.record_values == other.rules.record_values),
            ("clients", self.clients == other.clients),
            ("rate", self.limits == other.limits),
        ])
    }

    /// The risk of each scope.
    pub fn risks(&self) -> Vec<(&str, Risk)> {
        let scopes = self.rules.scopes.iter().map(|rule| &rule.description);
        scopes.map(|scope| (scope.name.as_str(), scope.risk)).collect()
    }

    /// Where everything is kept.
    pub fn data_dir_or_default(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(super::default_data_dir)
    }
}

fn differing<const N: usize>(keys: [(&'static str, bool); N]) -> Vec<&'static str> {
    keys.into_iter().filter(|(_, same)| !same).map(|(key, _)| key).collect()
}

/// The path and text of the file, if there is one.
pub(super) fn read(explicit: Option<&Path>) -> anyhow::Result<Option<(PathBuf, String)>> {
    let found = match explicit {
        Some(path) => Some((path, fs::File::open(path).with_context(|| unreadable(path))?)),
        None => found()?,
    };
    let Some((path, mut file)) = found else { return Ok(None) };
    let metadata = file.metadata().with_context(|| unreadable(path))?;
    let mode = metadata.mode() & 0o7777;
    if metadata.is_file() && mode & 0o002 != 0 {
        bail!("{0} can be changed by everybody (mode {mode:o}); run: chmod o-w {0}", path.display());
    }
    // Whoever left it where we happen to be started must not configure us.
    if explicit.is_none() && ![0, rustix::process::geteuid().as_raw()].contains(&metadata.uid()) {
        bail!(
            "{0} belongs to another user ({1}); if it is the right file, give it with --config {0}",
            path.display(),
            metadata.uid()
        );
    }
    let mut text = String::new();
    file.read_to_string(&mut text).with_context(|| unreadable(path))?;
    Ok(Some((path.to_owned(), text)))
}

fn found() -> anyhow::Result<Option<(&'static Path, fs::File)>> {
    for path in [HERE, SYSTEM].map(Path::new) {
        match fs::File::open(path) {
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

fn issuer(key: &Key<'_>) -> anyhow::Result<String> {
    let text = key.text()?;
    Issuer::parse(text).with_context(|| key.at())?;
    Ok(text.to_owned())
}

fn listen(key: &Key<'_>) -> anyhow::Result<String> {
    let text = key.text()?;
    let usage =
        || anyhow!("`listen` at {} is `{text}`, not HOST:PORT; write it like localhost:8080", key.at());
    Listen::parse(text).map_err(|_| usage())?;
    Ok(text.to_owned())
}

/// `[consent]`: how people are asked.
fn consent(key: &Key<'_>, file: &mut File) -> anyhow::Result<()> {
    for key in key.keys()? {
        match key.name {
            "interstitial" => file.consent_interstitial = key.boolean()?,
            _ => return Err(key.unknown(&["interstitial"])),
        }
    }
    Ok(())
}

impl DataDirOption {
    /// The directory: as given, else as configured, else the default.
    pub fn path(&self, file: &File) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| file.data_dir_or_default())
    }
}

#[cfg(test)]
mod tests;

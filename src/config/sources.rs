//! `[sources.NAME]`: servers behind the gate (SRC-12), and their credentials (SRC-10, `shown`).

mod shown;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use resource::sources::{Configured, HttpSource, Means, Names, Upstreams};
use shared::outbound::{Destination, Identity, Security, Trust};
use shared::{Network, tls};
use url::{Host, Url};

use super::keys::Key;
pub(crate) use shown::is_name as is_secret_name;
pub use shown::{Kept, Shown};

const KEYS: [&str; 14] = [
    "kind",
    "url",
    "ca",
    "client_cert",
    "client_key",
    "timeout",
    "names",
    "identity",
    "authorization",
    "bearer",
    "headers",
    "lists_with",
    "plaintext",
    "networks",
];
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
    pub http: HttpSource,
    pub shown: Shown,
    /// File and line.
    at: String,
}

impl PartialEq for Source {
    /// The position in the file does not matter.
    fn eq(&self, other: &Self) -> bool {
        self.http == other.http && self.shown == other.shown
    }
}

impl Eq for Source {}

/// Reads the tables; relative paths are relative to `folder`.
pub(super) fn read(tables: &Key<'_>, folder: &Path) -> anyhow::Result<BTreeMap<String, Source>> {
    let mut sources = BTreeMap::new();
    for table in tables.keys()? {
        check_name(&table)?;
        sources.insert(table.name.to_owned(), source(&table, folder)?);
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
struct Said<'t> {
    kind: bool,
    url: Option<(Url, &'t str)>,
    ca: Option<PathBuf>,
    client_cert: Option<PathBuf>,
    client_key: Option<PathBuf>,
    timeout: Option<Duration>,
    names: Names,
    identity: bool,
    shown: Shown,
    plaintext: bool,
    networks: Vec<Network>,
}

fn source(table: &Key<'_>, folder: &Path) -> anyhow::Result<Source> {
    let mut said = Said::default();
    for key in table.keys()? {
        match key.name {
            "kind" => said.kind = kind(&key)?,
            "url" => said.url = Some((url(&key)?, key.text()?)),
            "ca" => said.ca = Some(folder.join(key.text()?)),
            "client_cert" => said.client_cert = Some(folder.join(key.text()?)),
            "client_key" => said.client_key = Some(folder.join(key.text()?)),
            "timeout" => said.timeout = Some(timeout(&key)?),
            "names" => said.names = names(&key)?,
            "identity" => said.identity = identity(&key)?,
            "authorization" | "bearer" | "headers" | "lists_with" => said.shown.read(&key, folder)?,
            "plaintext" => said.plaintext = key.boolean()?,
            "networks" => said.networks = networks(&key)?,
            _ => return Err(key.unknown(&KEYS)),
        }
    }
    said.fits(table)
}

impl Said<'_> {
    fn fits(self, table: &Key<'_>) -> anyhow::Result<Source> {
        let (name, at) = (table.name, table.at());
        self.shown.fits(table)?;
        if !self.kind {
            bail!("[sources.{name}] at {at} has no `kind`; write kind = \"mcp-http\"");
        }
        let Some((url, written)) = self.url else {
            bail!(
                "[sources.{name}] at {at} has no `url`; write the address of its MCP endpoint, like url = \"https://jira.lab.internal/mcp\""
            );
        };
        let secure = url.scheme() == "https";
        let has_files = self.ca.is_some() || self.client_cert.is_some() || self.client_key.is_some();
        if !secure && has_files {
            bail!(
                "[sources.{name}] at {at} has certificates, and its `url` is http; write https, or remove them"
            );
        }
        if !secure && !is_loopback(&url) && !self.plaintext && (self.identity || !self.shown.is_empty()) {
            bail!(
                "[sources.{name}] at {at} would send a credential over plain http; use https, or write plaintext = true if the network between is trusted"
            );
        }
        let identity = match (self.client_cert, self.client_key) {
            (Some(certificate), Some(key)) => Some(Identity { certificate, key }),
            (None, None) => None,
            (Some(_), None) => {
                bail!("[sources.{name}] at {at} has `client_cert` and no `client_key`; add it")
            }
            (None, Some(_)) => {
                bail!("[sources.{name}] at {at} has `client_key` and no `client_cert`; add it")
            }
        };
        let security = if secure { Security::Tls(Trust { ca: self.ca, identity }) } else { Security::Plain };
        let http = HttpSource {
            name: name.to_owned(),
            path: url[url::Position::BeforePath..url::Position::AfterQuery].to_owned(),
            url: written.to_owned(),
            destination: destination(&url, security, self.networks),
            names: self.names,
            timeout: self.timeout.unwrap_or(TIMEOUT),
            identity: self.identity,
            own_secret: self.shown.is_of_users(),
        };
        Ok(Source { http, shown: self.shown, at })
    }
}

fn destination(url: &Url, security: Security, networks: Vec<Network>) -> Destination {
    let host = match url.host() {
        Some(Host::Ipv6(address)) => address.to_string(),
        Some(host) => host.to_string(),
        None => String::new(),
    };
    let authority = url[url::Position::BeforeHost..url::Position::AfterPort].to_owned();
    Destination { host, port: url.port_or_known_default().unwrap_or(443), authority, security, networks }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn kind(key: &Key<'_>) -> anyhow::Result<bool> {
    match key.text()? {
        "mcp-http" => Ok(true),
        other => bail!("`kind` at {} is `{other}`; write \"mcp-http\"", key.at()),
    }
}

fn url(key: &Key<'_>) -> anyhow::Result<Url> {
    let text = key.text()?;
    let like = "write it like https://jira.lab.internal/mcp";
    let url = Url::parse(text).map_err(|why| anyhow!("`url` at {} is `{text}`: {why}; {like}", key.at()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        bail!("`url` at {} is `{text}`, which is neither http nor https; {like}", key.at());
    }
    if !url.username().is_empty() || url.password().is_some() {
        bail!(
            "`url` at {} holds a password; remove it, and keep credentials with `authorization` or `bearer`",
            key.at()
        );
    }
    if url.fragment().is_some() {
        bail!("`url` at {} has a `#` part, which no server receives; remove it", key.at());
    }
    Ok(url)
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

fn identity(key: &Key<'_>) -> anyhow::Result<bool> {
    match key.text()? {
        "jwt" => Ok(true),
        other => bail!("`identity` at {} is `{other}`; write \"jwt\", or remove it", key.at()),
    }
}

fn networks(key: &Key<'_>) -> anyhow::Result<Vec<Network>> {
    let one = |value: &Key<'_>| {
        let text = value.text()?;
        let network = Network::or_address(text);
        network
            .map_err(|why| anyhow!("`{text}` in `networks` at {} is not a valid network; {why}", value.at()))
    };
    let networks: Vec<_> = key.one_or_list()?.iter().map(one).collect::<anyhow::Result<_>>()?;
    if networks.is_empty() {
        bail!(
            "`networks` at {} is empty; name the networks that its name may resolve to, or remove it",
            key.at()
        );
    }
    Ok(networks)
}

impl Source {
    /// The sources, with their stored lists. They are not contacted.
    ///
    /// # Errors
    /// As [`Source::settings`], or if a credential cannot be used.
    pub fn open<'s>(sources: impl Iterator<Item = &'s Self>, means: &Means) -> anyhow::Result<Upstreams> {
        let configured = sources.map(Self::settings).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Upstreams::open(&configured, means)?)
    }

    /// The settings for the resource server, with secrets and certificates read (OPS-03).
    ///
    /// # Errors
    /// If something is missing, or other users can read it.
    pub fn settings(&self) -> anyhow::Result<Configured> {
        let place = || format!("[sources.{}] at {}", self.http.name, self.at);
        if let Security::Tls(trust) = &self.http.destination.security {
            let wrong = |why: String| anyhow!("{}: {why}", place());
            trust.ca.as_deref().map_or(Ok(()), |ca| tls::certificates(ca).map(drop)).map_err(wrong)?;
            trust.identity.as_ref().map_or(Ok(()), tls::check_identity).map_err(wrong)?;
        }
        let (credentials, lists_with) = self.shown.settings().with_context(place)?;
        Ok(Configured { source: self.http.clone(), credentials, lists_with })
    }

    /// Whether a tool with this name can be one of its tools.
    pub(crate) fn may_offer(&self, tool: &str) -> bool {
        let rest = tool.strip_prefix(self.http.name.as_str());
        self.http.names == Names::Bare || rest.is_some_and(|rest| rest.len() > 1 && rest.starts_with('_'))
    }
}

#[cfg(test)]
mod tests;

//! `kind = "mcp-http"`: a server at an address (SRC-12).

use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use resource::sources::endpoint::Address;
use shared::Network;
use shared::outbound::{Destination, Identity, Security, Trust};
use url::{Host, Url};

use super::super::keys::Key;

/// The keys that only it has.
pub(super) const KEYS: [&str; 10] = [
    "url",
    "ca",
    "client_cert",
    "client_key",
    "identity",
    "authorization",
    "bearer",
    "headers",
    "plaintext",
    "networks",
];

/// What a table says of the address, before it is checked as a whole.
#[derive(Default)]
pub(super) struct Said<'t> {
    url: Option<(Url, &'t str)>,
    ca: Option<PathBuf>,
    client_cert: Option<PathBuf>,
    client_key: Option<PathBuf>,
    identity: bool,
    plaintext: bool,
    networks: Vec<Network>,
}

impl<'t> Said<'t> {
    /// Reads one of its keys.
    pub(super) fn read(&mut self, key: &Key<'t>, folder: &Path) -> anyhow::Result<()> {
        match key.name {
            "url" => self.url = Some((url(key)?, key.text()?)),
            "ca" => self.ca = Some(folder.join(key.text()?)),
            "client_cert" => self.client_cert = Some(folder.join(key.text()?)),
            "client_key" => self.client_key = Some(folder.join(key.text()?)),
            "identity" => self.identity = identity(key)?,
            "plaintext" => self.plaintext = key.boolean()?,
            "networks" => self.networks = networks(key)?,
            _ => return Err(key.unknown(&KEYS)),
        }
        Ok(())
    }

    /// Takes a database's address as one of the same host. Its connections are secured like those over https, except on
    /// loopback without a certificate authority, or with `plaintext`.
    pub(super) fn reached_by_postgres(&mut self, url: &Url, text: &'t str) {
        let port = url.port().unwrap_or(5432);
        let secure = self.ca.is_some() || !(self.plaintext || is_loopback(url));
        let scheme = if secure { "https" } else { "http" };
        let host = url.host_str().unwrap_or_default();
        self.url = Url::parse(&format!("{scheme}://{host}:{port}/")).ok().map(|url| (url, text));
    }

    /// A secret is used there, and not sent over HTTP.
    pub(super) fn sends_nothing(&mut self) {
        self.plaintext = true;
    }

    /// The address, if all fits; `shows` says whether a credential is sent there.
    pub(super) fn fits(self, table: &Key<'_>, shows: bool) -> anyhow::Result<Address> {
        let (name, at) = (table.name, table.at());
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
        if !secure && !is_loopback(&url) && !self.plaintext && (self.identity || shows) {
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
        Ok(Address {
            path: url[url::Position::BeforePath..url::Position::AfterQuery].to_owned(),
            url: written.to_owned(),
            destination: destination(&url, security, self.networks),
            identity: self.identity,
        })
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
        Some(Host::Domain(name)) => ["localhost", "127.0.0.1", "[::1]"].contains(&name),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
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

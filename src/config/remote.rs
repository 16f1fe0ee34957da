//! `[remote]`: how a gateway alone connects to the authorization server (split mode).

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use resource::catalogue::Rules;
use resource::remote::{self, Check};
use shared::catalogue::Risk;
use shared::{Issuer, Secret, tls};

use super::keys::Key;

const KNOWN: [&str; 5] = ["client_id", "secret_file", "ca", "cache", "checks"];
/// The longest that an answer may be cached (standards §1).
const LONGEST: Duration = Duration::from_mins(1);

/// The content of the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remote {
    pub client_id: Option<String>,
    pub secret_file: Option<PathBuf>,
    pub ca: Option<PathBuf>,
    pub cache: Duration,
    pub checks: BTreeMap<String, Check>,
}

impl Default for Remote {
    fn default() -> Self {
        Self {
            client_id: None,
            secret_file: None,
            ca: None,
            cache: Duration::from_secs(5),
            checks: BTreeMap::new(),
        }
    }
}

impl Remote {
    /// Reads the table; relative paths are relative to `folder`.
    pub(super) fn read(table: &Key<'_>, folder: &Path, rules: &Rules) -> anyhow::Result<Self> {
        let mut remote = Self::default();
        for key in table.keys()? {
            match key.name {
                "client_id" => remote.client_id = Some(key.text()?.to_owned()),
                "secret_file" => remote.secret_file = Some(folder.join(key.text()?)),
                "ca" => remote.ca = Some(folder.join(key.text()?)),
                "cache" => remote.cache = key.duration()?,
                "checks" => {
                    for key in key.keys()? {
                        remote.checks.insert(known_scope(&key, rules)?, check(&key)?);
                    }
                }
                _ => return Err(key.unknown(&KNOWN)),
            }
        }
        if remote.cache > LONGEST {
            bail!("`cache` in [remote] at {} must be at most 60 seconds", table.at());
        }
        Ok(remote)
    }

    /// The settings for the resource side, with the secret read from its file.
    ///
    /// # Errors
    /// If something is missing, or other users can read the file.
    pub fn settings(&self, issuer: Issuer) -> anyhow::Result<remote::Config> {
        let missing =
            "`portcullis rs add NAME --audience URL`, where the authorization server runs, prints both";
        let client_id = self.client_id.clone().with_context(|| {
            format!("--only resource needs [remote] client_id and secret_file; {missing}")
        })?;
        let path = self
            .secret_file
            .as_deref()
            .with_context(|| format!("--only resource needs [remote] secret_file; {missing}"))?;
        // RFC 6749 §2.3.1: the allowed characters on either side of the colon.
        if client_id.is_empty() || !client_id.bytes().all(|b| b.is_ascii_graphic() && b != b':') {
            bail!("`{client_id}` in [remote] is not a valid client_id; {missing}");
        }
        self.authorities(&issuer)?;
        Ok(remote::Config {
            issuer,
            client_id,
            client_secret: secret(path)?,
            ca: self.ca.clone(),
            cache: self.cache,
            checks: self.checks.clone(),
        })
    }
}

impl Remote {
    /// Checks that there are certificate authorities for the issuer's host.
    fn authorities(&self, issuer: &Issuer) -> anyhow::Result<()> {
        if issuer.is_loopback() {
            return Ok(());
        }
        let Some(ca) = self.ca.as_deref().or_else(|| tls::system_authorities()) else {
            bail!("this system has no CA certificates; set [remote] ca to the CA certificate of {issuer}")
        };
        match tls::certificates(ca) {
            Ok(_) => Ok(()),
            Err(why) => bail!("the certificates of [remote] `ca` cannot be read: {why}"),
        }
    }

    /// How strictly tokens are checked for a scope of this risk.
    pub(crate) fn check(&self, scope: &str, risk: Risk) -> Check {
        self.checks.get(scope).copied().unwrap_or(Check::of(risk))
    }
}

/// The authorization server whose tokens a gateway alone accepts, as configured.
///
/// # Errors
/// If none is named.
pub(crate) fn authority(issuer: Option<&str>) -> anyhow::Result<Issuer> {
    let issuer = issuer.context(
        "--only resource needs --issuer: the address of the authorization server whose tokens are accepted",
    )?;
    Issuer::parse(issuer).with_context(|| format!("--issuer {issuer}"))
}

/// Refuses a gateway at the authorization server's own address, where clients look for the other.
///
/// # Errors
/// If the two are the same.
pub(crate) fn distinct(origin: &Issuer, issuer: &Issuer) -> anyhow::Result<()> {
    anyhow::ensure!(
        origin != issuer,
        "the origin {origin} is the authorization server's own address; give the gateway's own with --origin"
    );
    Ok(())
}

fn known_scope(key: &Key<'_>, rules: &Rules) -> anyhow::Result<String> {
    if !rules.scopes.iter().any(|rule| rule.description.name == key.name) {
        bail!("[remote.checks] at {} names an unknown scope `{}`", key.at(), key.name);
    }
    Ok(key.name.to_owned())
}

fn check(key: &Key<'_>) -> anyhow::Result<Check> {
    match key.text()? {
        "always" => Ok(Check::Always),
        "cached" => Ok(Check::Cached),
        "expiry-only" => Ok(Check::ExpiryOnly),
        other => {
            bail!(
                "`{}` at {} is `{other}`; write \"always\", \"cached\" or \"expiry-only\"",
                key.name,
                key.at()
            )
        }
    }
}

fn secret(path: &Path) -> anyhow::Result<Secret> {
    let text = private(path)?;
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
        bail!("{} does not contain exactly one secret", path.display());
    }
    Ok(Secret::presented(text))
}

/// The text of a file that only its owner can read.
pub(super) fn private(path: &Path) -> anyhow::Result<String> {
    let unreadable = || format!("cannot read the secret in {}", path.display());
    let file = shared::file::open(path).with_context(unreadable)?;
    let mode = file.metadata().with_context(unreadable)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        bail!("{0} can be read by others (mode {mode:o}); run: chmod 600 {0}", path.display());
    }
    shared::file::read_open(&file).and_then(shared::file::text).with_context(unreadable)
}

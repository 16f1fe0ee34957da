//! The configuration of connections.

use std::path::PathBuf;

use anyhow::bail;

use super::address::{Listen, Protection};
use super::listen::Budget;
use super::proxies::Proxies;
use super::tls::Files;

/// The default address to listen on.
const LISTEN: &str = "localhost:8080";

/// The settings in the file, the command line and the environment, as written.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Config {
    pub listen: Option<String>,
    pub tls: TlsFiles,
    pub proxies: Proxies,
    /// The memory budget of connections.
    pub memory: Budget,
}

/// The configured certificate and key files.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TlsFiles {
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

impl Config {
    /// The address to listen on, as written.
    pub fn listen_or_default(&self) -> &str {
        self.listen.as_deref().unwrap_or(LISTEN)
    }

    /// Where to listen.
    ///
    /// # Errors
    /// See [`Listen::parse`].
    pub fn listen(&self) -> anyhow::Result<Listen> {
        Listen::parse(self.listen_or_default())
    }

    /// Certificate and key, if both are named.
    ///
    /// # Errors
    /// If only one is named.
    pub fn tls(&self) -> anyhow::Result<Option<Files>> {
        match (self.tls.cert.clone(), self.tls.key.clone()) {
            (Some(certificate), Some(key)) => Ok(Some(Files { certificate, key })),
            (None, None) => Ok(None),
            (Some(_), None) => bail!("--tls-cert is set without a key; add --tls-key"),
            (None, Some(_)) => bail!("--tls-key is set without a certificate; add --tls-cert"),
        }
    }

    /// How connections are protected from eavesdroppers.
    pub(crate) fn protection(&self) -> Protection {
        Protection::of(self.tls.cert.is_some(), &self.proxies)
    }
}

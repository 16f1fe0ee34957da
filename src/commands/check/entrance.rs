//! The report of `check` on connections: TLS, proxies, other origins, limits.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Value, json};
use shared::{Issuer, Timestamp};

use crate::config::File;
use crate::front::tls::{Expiry, Identity};

/// How clients connect.
#[derive(Serialize)]
pub(super) struct Entrance {
    tls: Option<Tls>,
    trusted_proxies: Vec<String>,
    forwarded_header: &'static str,
    allowed_origins: Vec<String>,
    /// The memory limits in bytes: for all connections, and for those of one address.
    memory: Memory,
    /// Per minute, or "off".
    limits: BTreeMap<&'static str, Value>,
}

#[derive(Serialize)]
struct Memory {
    all: usize,
    one_address: usize,
}

#[derive(Serialize)]
struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    names: Vec<String>,
    not_after: String,
}

impl Entrance {
    pub(super) fn of(file: &File) -> Self {
        let limit = |quota: shared::rate::Quota| quota.count().map_or(json!("off"), Value::from);
        Self {
            tls: None,
            trusted_proxies: file.front.proxies.networks.iter().map(ToString::to_string).collect(),
            forwarded_header: file.front.proxies.naming.as_str(),
            allowed_origins: file.resource.allowed_origins.clone(),
            memory: Memory { all: file.front.memory.bytes(), one_address: file.front.memory.share() },
            limits: file.limits.all().into_iter().map(|(name, quota)| (name, limit(quota))).collect(),
        }
    }

    /// Reads the certificate like `serve`; returns warnings.
    ///
    /// # Errors
    /// Anything that would stop `serve`.
    pub(super) fn read_certificate(
        &mut self,
        file: &File,
        issuer: Option<&Issuer>,
        now: Timestamp,
    ) -> anyhow::Result<Vec<String>> {
        let Some(files) = file.front.tls()? else { return Ok(Vec::new()) };
        let identity = Identity::load(&files, now)?;
        let mut warnings: Vec<_> =
            issuer.and_then(|issuer| identity.misnamed(issuer.host())).into_iter().collect();
        let expiry = identity.expiry(now);
        if expiry > Expiry::FarOff {
            warnings.push(format!("{} ({})", expiry.words(), identity.not_after()));
        }
        self.tls = Some(Tls {
            certificate: files.certificate,
            key: files.key,
            names: identity.names().to_vec(),
            not_after: identity.not_after().to_string(),
        });
        Ok(warnings)
    }
}

impl fmt::Display for Entrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tls) = &self.tls {
            let (file, names) = (tls.certificate.display(), tls.names.join(", "));
            writeln!(f, "TLS            {file}, for {names}, until {}", tls.not_after)?;
        }
        if !self.trusted_proxies.is_empty() {
            let proxies = self.trusted_proxies.join(" ");
            writeln!(f, "Proxies        {proxies}, by {}", self.forwarded_header)?;
        }
        if !self.allowed_origins.is_empty() {
            writeln!(f, "Origins        {}", self.allowed_origins.join(" "))?;
        }
        let Memory { all, one_address } = &self.memory;
        let mib = |bytes: &usize| bytes >> 20;
        writeln!(
            f,
            "Memory         {} MiB for connections, {} MiB for those of one address",
            mib(all),
            mib(one_address)
        )?;
        let limits = self.limits.iter().map(|(name, limit)| match limit {
            Value::String(off) => format!("{name} {off}"),
            count => format!("{name} {count}"),
        });
        writeln!(f, "A minute       {}", limits.collect::<Vec<_>>().join(", "))
    }
}

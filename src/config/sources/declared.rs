//! Sources whose tools the file declares: `kind = "rest"`, `"sql"` and `"webhook"`.

mod params;
mod rest;
mod sql;
mod webhook;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use resource::sources::declared::{DeclaredConfigured, DeclaredKind, DeclaredSource, ToolText};
use resource::sources::endpoint::Address;
use shared::outbound::{Destination, Security};
use shared::tls;

use super::{ShownCredentials, TIMEOUT, address, timeout};
use crate::config::keys::Key;

/// A source with declared tools. Its secrets are not read yet.
#[derive(Clone, Debug)]
pub struct Declared {
    pub source: DeclaredSource,
    pub shown: ShownCredentials,
    /// File and line.
    at: String,
}

impl PartialEq for Declared {
    /// The position in the file does not matter.
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source && self.shown == other.shown
    }
}

impl Eq for Declared {}

/// Reads a table, if it is of such a kind.
pub(super) fn read(table: &Key<'_>, folder: &Path) -> anyhow::Result<Option<Declared>> {
    let keys = table.keys()?;
    let Some(kind) = keys.iter().find(|key| key.name == "kind") else { return Ok(None) };
    let declared = match kind.text()? {
        "rest" => rest::read(table, folder)?,
        "sql" => sql::read(table, folder)?,
        "webhook" => webhook::read(table, folder)?,
        _ => return Ok(None),
    };
    let unusable = || format!("[sources.{}] at {}", table.name, table.at());
    declared.source.tool_names().map_err(anyhow::Error::msg).with_context(unusable)?;
    Ok(Some(declared))
}

impl Declared {
    /// The settings for the resource server with this data directory, with secrets and certificates read (OPS-03).
    ///
    /// # Errors
    /// If something is missing, or other users can read it.
    pub fn configured(&self, data_dir: &Path) -> anyhow::Result<DeclaredConfigured> {
        let place = || format!("[sources.{}] at {}", self.source.name, self.at);
        if let Some(Destination { security: Security::Tls(trust), .. }) = self.source.destination() {
            let checked = trust.ca.as_deref().map_or(Ok(()), |ca| tls::certificates(ca).map(drop));
            let checked = checked.and_then(|()| trust.identity.as_ref().map_or(Ok(()), tls::check_identity));
            checked.map_err(anyhow::Error::msg).with_context(place)?;
        }
        let (credentials, _) = self.shown.settings().with_context(place)?;
        let mut source = self.source.clone();
        if let DeclaredKind::Sql(sql) = &mut source.kind {
            sql::placed(sql, data_dir).with_context(place)?;
        }
        Ok(DeclaredConfigured { source, credentials })
    }

    /// The names of its tools, as rules call them.
    pub(crate) fn tool_names(&self) -> Vec<String> {
        // Declarations that cannot be used were refused when the table was read.
        self.source.tool_names().unwrap_or_default()
    }
}

/// What a model gets at most by default.
const MOST: usize = 64 << 10;
/// What it can get at most.
const MOST_OF_ALL: u64 = 4 << 20;

/// `max_size`.
fn size(key: &Key<'_>) -> anyhow::Result<usize> {
    match key.size()? {
        size @ 1024..=MOST_OF_ALL => Ok(usize::try_from(size).unwrap_or(MOST)),
        _ => bail!("`max_size` at {} must be from 1 KiB to 4 MiB", key.at()),
    }
}

/// What a table says of the server behind it.
#[derive(Default)]
struct Server<'t> {
    address: address::Said<'t>,
    timeout: Option<Duration>,
    shown: ShownCredentials,
}

/// Where a declared source is reached, with what it is shown.
struct Reached {
    address: Address,
    timeout: Duration,
    shown: ShownCredentials,
}

impl<'t> Server<'t> {
    /// Reads one of the keys that are about it.
    fn read(&mut self, key: &Key<'t>, folder: &Path) -> anyhow::Result<()> {
        match key.name {
            // It was read before the others.
            "kind" => {}
            "timeout" => self.timeout = Some(timeout(key)?),
            "authorization" | "bearer" | "headers" | "secret" | "password" => self.shown.read(key, folder)?,
            _ => self.address.read(key, folder)?,
        }
        Ok(())
    }

    fn fits(self, table: &Key<'_>) -> anyhow::Result<Reached> {
        self.shown.fits(table)?;
        let address = self.address.fits(table, !self.shown.is_empty())?;
        Ok(Reached { address, timeout: self.timeout.unwrap_or(TIMEOUT), shown: self.shown })
    }
}

/// The texts of a tool, read key by key.
#[derive(Default)]
struct Texts {
    title: Option<String>,
    description: Option<String>,
}

impl Texts {
    fn fits(self, tool: &Key<'_>) -> anyhow::Result<ToolText> {
        let Some(description) = self.description else {
            bail!(
                "the tool `{}` at {} has no `description`; write what it does and when to use it",
                tool.name,
                tool.at()
            )
        };
        Ok(ToolText { name: tool.name.to_owned(), title: self.title, description })
    }
}

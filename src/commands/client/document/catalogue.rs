//! `portcullis client catalogue …`: the built-in catalogue of clients (CIMD-13).

use std::path::PathBuf;

use authz::client_documents::catalogue::{self, Changes, Listed as Shown, Switched};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::{Confirmed, read};
use crate::commands::frame::print::{safe, table};
use crate::commands::frame::{CommonOptions, Effect, Refused, Request, ServerParts};
use crate::config::File;
use crate::output::say;

#[derive(Subcommand, Debug)]
pub enum Catalogue {
    /// Show every entry: the client, its redirect URIs, their source, and whether it is enabled.
    List(CommonOptions),
    /// Disable an entry: its client is refused, and what people granted it ends.
    Disable(Entry),
    /// Enable an entry again.
    Enable(Entry),
    /// Import every document of a catalogue file, such as a newer version's. Shows the changes first.
    Import(CatalogueFile),
}

#[derive(Args, Debug)]
pub struct Entry {
    /// The entry's name, or its client id.
    #[arg(value_name = "NAME")]
    pub entry: String,
    #[command(flatten)]
    pub common: CommonOptions,
}

#[derive(Args, Debug)]
pub struct CatalogueFile {
    /// The catalogue, as JSON: what `catalogue list --json` prints under `catalogue`, without `state`.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    #[command(flatten)]
    pub confirmed: Confirmed,
}

/// `portcullis client catalogue list`.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::commands::client) struct ListEntries {}

#[derive(Serialize, Deserialize)]
pub(in crate::commands::client) struct Listed {
    catalogue: Vec<Shown>,
}

impl Request for ListEntries {
    const COMMAND: &'static str = "client-catalogue-list";
    const DOES: Effect = Effect::Reads;
    type Answer = Listed;

    async fn perform(self, place: &ServerParts, _uid: u32) -> Result<Listed, Refused> {
        Ok(Listed { catalogue: place.look(|_, tx| catalogue::list(tx)).await? })
    }
}

/// `portcullis client catalogue disable`.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::commands::client) struct DisableEntry {
    entry: String,
}

#[derive(Serialize, Deserialize)]
pub(in crate::commands::client) struct Disabled {
    #[serde(flatten)]
    entry: Switched,
    grants_ended: usize,
}

impl Request for DisableEntry {
    const COMMAND: &'static str = "client-catalogue-disable";
    type Answer = Disabled;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<Disabled, Refused> {
        let disabled = place.write(move |authz, tx| catalogue::disable(authz, tx, uid, &self.entry));
        let (entry, grants_ended) = disabled.await?;
        Ok(Disabled { entry, grants_ended })
    }
}

/// `portcullis client catalogue enable`.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::commands::client) struct EnableEntry {
    entry: String,
}

impl Request for EnableEntry {
    const COMMAND: &'static str = "client-catalogue-enable";
    type Answer = Switched;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<Switched, Refused> {
        place.write(move |_, tx| catalogue::enable(tx, uid, &self.entry)).await
    }
}

/// `portcullis client catalogue import`.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::commands::client) struct ImportCatalogue {
    body: String,
    confirm: Option<String>,
}

impl Request for ImportCatalogue {
    const COMMAND: &'static str = "client-catalogue-import";
    type Answer = Changes;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<Changes, Refused> {
        let Self { body, confirm } = self;
        place.write(move |authz, tx| catalogue::import(authz, tx, uid, &body, confirm.as_deref())).await
    }
}

/// Runs the command.
pub(super) fn run(command: Catalogue, file: &File) -> anyhow::Result<()> {
    match command {
        Catalogue::List(common) => common.run(file, ListEntries {}, |listed| {
            table(&["NAME", "CLIENT", "STATE", "AS OF", "CLIENT ID"], &listed.catalogue, row)?;
            say!("\nWhere its answers go, and where that can be read: --json")
        }),
        Catalogue::Disable(Entry { entry, common }) => {
            common.run(file, DisableEntry { entry }, |Disabled { entry, grants_ended }| {
                say!("{} is {}. Grants ended: {grants_ended}.", safe(&entry.entry), safe(&entry.state))
            })
        }
        Catalogue::Enable(Entry { entry, common }) => common.run(file, EnableEntry { entry }, |entry| {
            say!("{} is {}.", safe(&entry.entry), safe(&entry.state))
        }),
        Catalogue::Import(CatalogueFile { file: from, confirmed }) => {
            let body = read(&from)?;
            confirmed.run(file, |confirm| ImportCatalogue { body: body.clone(), confirm })
        }
    }
}

fn row(entry: &Shown) -> Vec<String> {
    let member = |name: &str| safe(entry.document[name].as_str().unwrap_or_default());
    vec![safe(&entry.name), member("client_name"), safe(&entry.state), safe(&entry.date), member("client_id")]
}

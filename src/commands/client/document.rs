//! `portcullis client import-metadata` and other commands about client id metadata documents: changes are shown
//! before they are made.

pub mod approvals;
pub mod catalogue;

use std::path::Path;

use anyhow::{Context, anyhow};
use authz::client_documents::catalogue::Changes;
use authz::client_documents::{Change, import};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::terminal;

use crate::commands::frame::confirm::confirm;
use crate::commands::frame::print::{list, safe};
use crate::commands::frame::{CommonOptions, Refused, Request, ServerParts};
use crate::config::File;
use crate::output::say;
use approvals::Approvals;
use catalogue::Catalogue;

#[derive(Subcommand, Debug)]
pub enum ClientDocument {
    /// Import a client id metadata document from a file, or from a host in [[cimd.allow]]. Shows the changes
    /// first.
    ImportMetadata(Import),
    /// Remove an imported document. What people granted its client ends.
    RemoveMetadata(Remove),
    /// Show and change the built-in catalogue of common clients.
    #[command(subcommand)]
    Catalogue(Catalogue),
    /// Show the clients that users requested, and decide about them.
    #[command(subcommand)]
    Approvals(Approvals),
}

/// A change that is shown before it is made.
#[derive(Args, Debug)]
pub struct Confirmed {
    /// Do it without asking. Without this, --json only prints what would change.
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub common: CommonOptions,
}

#[derive(Args, Debug)]
pub struct Import {
    /// The document: a file, or its URL.
    #[arg(value_name = "FILE|URL")]
    pub from: String,
    /// The client id that the document must have. Default: the one in the document.
    #[arg(long, value_name = "CLIENT_ID_URL")]
    pub url: Option<String>,
    #[command(flatten)]
    pub confirmed: Confirmed,
}

#[derive(Args, Debug)]
pub struct Remove {
    /// The client id.
    #[arg(value_name = "CLIENT_ID_URL")]
    pub url: String,
    #[command(flatten)]
    pub confirmed: Confirmed,
}

/// `portcullis client import-metadata`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ImportDocument {
    body: String,
    /// The required `client_id`, if it was named.
    url: Option<String>,
    confirm: Option<String>,
}

/// A change of one client, made or proposed.
#[derive(Serialize, Deserialize)]
pub(super) struct OneChange {
    change: Change,
}

impl Request for ImportDocument {
    const COMMAND: &'static str = "client-import-metadata";
    type Answer = OneChange;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<OneChange, Refused> {
        let Self { body, url, confirm } = self;
        let change = place
            .write(move |authz, tx| import::one(authz, tx, uid, &body, url.as_deref(), confirm.as_deref()));
        Ok(OneChange { change: change.await? })
    }
}

/// `portcullis client remove-metadata`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct RemoveDocument {
    url: String,
    confirm: Option<String>,
}

impl Request for RemoveDocument {
    const COMMAND: &'static str = "client-remove-metadata";
    type Answer = OneChange;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<OneChange, Refused> {
        let Self { url, confirm } = self;
        let change = place.write(move |authz, tx| import::remove(authz, tx, uid, &url, confirm.as_deref()));
        Ok(OneChange { change: change.await? })
    }
}

/// A proposed change that must be confirmed.
trait Proposal {
    fn changes(&self) -> &[Change];
    /// The confirmation value.
    fn state(&self) -> &str;
}

impl Proposal for OneChange {
    fn changes(&self) -> &[Change] {
        std::slice::from_ref(&self.change)
    }

    fn state(&self) -> &str {
        &self.change.state
    }
}

impl Proposal for Changes {
    fn changes(&self) -> &[Change] {
        &self.changes
    }

    fn state(&self) -> &str {
        &self.state
    }
}

/// Runs the command.
pub(super) fn run(command: ClientDocument, file: &File) -> anyhow::Result<()> {
    match command {
        ClientDocument::ImportMetadata(Import { from, url, confirmed }) => {
            let body = document(&from, file)?;
            confirmed.run(file, |confirm| ImportDocument { body: body.clone(), url: url.clone(), confirm })
        }
        ClientDocument::RemoveMetadata(Remove { url, confirmed }) => {
            confirmed.run(file, |confirm| RemoveDocument { url: url.clone(), confirm })
        }
        ClientDocument::Catalogue(command) => catalogue::run(command, file),
        ClientDocument::Approvals(command) => approvals::run(command, file),
    }
}

impl Confirmed {
    /// Shows what a request would change, asks, and then makes exactly that change.
    fn run<R: Request<Answer: Proposal>>(
        &self,
        file: &File,
        request: impl Fn(Option<String>) -> R,
    ) -> anyhow::Result<()> {
        let Self { yes, common } = self;
        let would = common.ask(file, request(None))?;
        if common.json && !yes {
            return common.show(&would, |_| Ok(()));
        }
        if !common.json {
            would.changes().iter().try_for_each(describe)?;
        }
        if would.changes().is_empty() {
            return common.show(&would, |_| say!("Nothing to change."));
        }
        confirm(*yes, "")?;
        common.run(file, request(Some(would.state().to_owned())), |_| say!("Done."))
    }
}

/// Reads a document from a file or a URL.
fn document(from: &str, file: &File) -> anyhow::Result<String> {
    if !from.starts_with("https://") {
        return read(Path::new(from));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let fetched = runtime.block_on(authz::fetch_for_administrator(&file.authz.cimd, from));
    fetched.map_err(|why| anyhow!(why)).with_context(|| format!("cannot fetch {from}"))
}

fn read(path: &Path) -> anyhow::Result<String> {
    let unreadable = || format!("cannot read {}", path.display());
    shared::file::read_input(path).with_context(unreadable)
}

/// Prints a change, with removed lines marked `-` and added ones `+`.
fn describe(change: &Change) -> anyhow::Result<()> {
    say!("{}", safe(&change.url))?;
    let fields =
        ["source", "client_name", "redirect_uris", "grant_types", "token_endpoint_auth_method", "jwks"];
    for field in fields {
        let (before, after) = (value(change.before.as_ref(), field), value(change.after.as_ref(), field));
        if before == after {
            if let Some(same) = before {
                say!("    {field:<26}  {same}")?;
            }
            continue;
        }
        if let Some(before) = before {
            say!("  - {field:<26}  {before}")?;
        }
        if let Some(after) = after {
            say!("  + {field:<26}  {after}")?;
        }
    }
    match change.grants_ended {
        0 => Ok(()),
        1 => say!("  1 grant ends; the person who gave it signs in again."),
        ended => say!("  {ended} grants end; the people who gave them sign in again."),
    }
}

fn value(side: Option<&Value>, field: &str) -> Option<String> {
    match side?.get(field)? {
        Value::Null => None,
        Value::String(text) => Some(safe(text)),
        Value::Array(items) => Some(list(&items.iter().filter_map(Value::as_str).collect::<Vec<_>>())),
        other => Some(terminal::safe_json(&other.to_string()).into_owned()),
    }
}

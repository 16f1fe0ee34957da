//! `portcullis client import-metadata`, `catalogue` and `approvals`: what changes is shown before it is done.

use std::fs;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use authz::client_documents::Command;
use serde_json::Value;
use shared::terminal;

use super::confirm::confirm;
use super::execute;
use super::print::{list, moment, or_dash, table, text};
use crate::commands::client::document::{Approvals, Catalogue, ClientDocument, Confirmed, Import};
use crate::commands::user::Common;
use crate::config::File;
use crate::control;
use crate::output::{self, say};

/// No document and no catalogue of them is larger.
const LARGEST: u64 = 1 << 20;

/// Runs the command.
pub(crate) fn run(command: ClientDocument, file: &File) -> anyhow::Result<()> {
    match command {
        ClientDocument::ImportMetadata(c) => {
            let body = document(&c, file)?;
            confirmed(&c.confirmed, file, |confirm| Command::Import {
                body: body.clone(),
                url: c.url.clone(),
                confirm,
            })
        }
        ClientDocument::RemoveMetadata(c) => {
            confirmed(&c.confirmed, file, |confirm| Command::Remove { url: c.url.clone(), confirm })
        }
        ClientDocument::Catalogue(command) => catalogue(command, file),
        ClientDocument::Approvals(command) => approvals(command, file),
    }
}

fn catalogue(command: Catalogue, file: &File) -> anyhow::Result<()> {
    match command {
        Catalogue::List(common) => {
            let answer = ask(&common, Command::CatalogueList, file)?;
            shown(&common, &answer, || {
                let entries = answer["catalogue"].as_array().map_or(&[][..], Vec::as_slice);
                table(&["NAME", "CLIENT", "STATE", "AS OF", "CLIENT ID"], entries, |entry| {
                    vec![
                        text(entry, "name"),
                        text(&entry["document"], "client_name"),
                        text(entry, "state"),
                        text(entry, "date"),
                        text(&entry["document"], "client_id"),
                    ]
                })?;
                say!("\nWhere its answers go, and where that can be read: --json")
            })
        }
        Catalogue::Disable(c) => {
            let answer = ask(&c.common, Command::CatalogueDisable { entry: c.entry }, file)?;
            shown(&c.common, &answer, || {
                say!(
                    "{} is {}. Grants ended: {}.",
                    text(&answer, "entry"),
                    text(&answer, "state"),
                    answer["grants_ended"]
                )
            })
        }
        Catalogue::Enable(c) => {
            let answer = ask(&c.common, Command::CatalogueEnable { entry: c.entry }, file)?;
            shown(&c.common, &answer, || say!("{} is {}.", text(&answer, "entry"), text(&answer, "state")))
        }
        Catalogue::Import(c) => {
            let body = read(&c.file)?;
            confirmed(&c.confirmed, file, |confirm| Command::CatalogueImport { body: body.clone(), confirm })
        }
    }
}

fn approvals(command: Approvals, file: &File) -> anyhow::Result<()> {
    match command {
        Approvals::List(common) => {
            let answer = ask(&common, Command::ApprovalsList, file)?;
            shown(&common, &answer, || {
                let waiting = answer["approvals"].as_array().map_or(&[][..], Vec::as_slice);
                table(&["ASKED BY", "SINCE", "ANSWERS GO TO", "CLIENT ID"], waiting, |request| {
                    vec![
                        or_dash(text(request, "user")),
                        moment(&request["created_at"]),
                        text(request, "redirect_uri"),
                        text(request, "url"),
                    ]
                })
            })
        }
        Approvals::Approve(c) => {
            let body = c.document.as_deref().map(read).transpose()?;
            confirmed(&c.confirmed, file, |confirm| Command::Approve {
                url: c.url.clone(),
                body: body.clone(),
                confirm,
            })
        }
        Approvals::Refuse(c) => {
            let answer = ask(&c.common, Command::RefuseApproval { url: c.url }, file)?;
            shown(&c.common, &answer, || say!("{} was removed from the list.", text(&answer, "url")))
        }
    }
}

/// A document from where the command says.
fn document(command: &Import, file: &File) -> anyhow::Result<String> {
    if !command.from.starts_with("https://") {
        return read(Path::new(&command.from));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let fetched = runtime.block_on(authz::fetch_for_administrator(&file.cimd, &command.from));
    fetched.map_err(|why| anyhow!(why)).with_context(|| format!("cannot fetch {}", command.from))
}

fn read(path: &Path) -> anyhow::Result<String> {
    let unreadable = || format!("cannot read {}", path.display());
    let size = fs::metadata(path).with_context(unreadable)?.len();
    if size > LARGEST {
        bail!("{} is larger than 1 MiB; that is not a client document", path.display());
    }
    fs::read_to_string(path).with_context(unreadable)
}

fn ask(common: &Common, command: Command, file: &File) -> anyhow::Result<Value> {
    execute(&common.data.path(file), control::Request::ClientDocument(command), file)
}

/// Prints an answer, for scripts or in words.
fn shown(common: &Common, answer: &Value, words: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    if common.json { output::json(answer) } else { words() }
}

/// Shows what a command would do, asks, and does just that.
fn confirmed(
    how: &Confirmed,
    file: &File,
    command: impl Fn(Option<String>) -> Command,
) -> anyhow::Result<()> {
    let would = ask(&how.common, command(None), file)?;
    let changes: Vec<&Value> = match would["changes"].as_array() {
        Some(changes) => changes.iter().collect(),
        None => vec![&would["change"]],
    };
    if how.common.json && !how.yes {
        output::json(&would)?;
        return Ok(());
    }
    if !how.common.json {
        for change in &changes {
            describe(change)?;
        }
    }
    if changes.is_empty() {
        return shown(&how.common, &would, || say!("Nothing to change."));
    }
    confirm(how.yes, "")?;
    let state = would["state"]
        .as_str()
        .or(would["change"]["state"].as_str())
        .context("the answer could not be read")?;
    let done = ask(&how.common, command(Some(state.to_owned())), file)?;
    shown(&how.common, &done, || say!("Done."))
}

/// A change, with what goes marked `-` and what comes marked `+`.
fn describe(change: &Value) -> anyhow::Result<()> {
    say!("{}", text(change, "url"))?;
    let fields =
        ["source", "client_name", "redirect_uris", "grant_types", "token_endpoint_auth_method", "jwks"];
    for field in fields {
        let (before, after) = (value(&change["before"], field), value(&change["after"], field));
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
    match change["grants_ended"].as_u64() {
        Some(1) => say!("  1 grant ends; the person who gave it signs in again."),
        Some(ended) if ended > 1 => say!("  {ended} grants end; the people who gave them sign in again."),
        _ => Ok(()),
    }
}

fn value(side: &Value, field: &str) -> Option<String> {
    match &side[field] {
        Value::Null => None,
        Value::String(text) => Some(terminal::safe(text).into_owned()),
        Value::Array(_) => Some(list(&side[field])),
        other => Some(terminal::safe_json(&other.to_string()).into_owned()),
    }
}

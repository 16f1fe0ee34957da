//! Commands that are not `serve`.

pub(crate) mod access;
pub(crate) mod audit;
pub(crate) mod backup;
mod client_documents;
pub(crate) mod clients;
pub(crate) mod clock;
mod confirm;
pub(crate) mod issuer;
pub(crate) mod keys;
pub(crate) mod people;
pub(crate) mod policy;
mod print;
pub(crate) mod registration_tokens;
pub(crate) mod resource_servers;

use std::path::Path;

use anyhow::Context;
use authz::issuer_change::{self, Another};
use serde_json::Value;
use shared::data_dir::{self, DataDir};
use shared::db::ReadOnly;
use shared::schema::SCHEMA;
use shared::{Db, Issuer};

use crate::base::{Base, require_database};
use crate::commands::user::Common;
use crate::config::File;
use crate::control::{self, Performer, Request};
use crate::output::{self, note, say};
use crate::{environment, timekeeping};

/// `portcullis setup-link`.
pub(crate) fn setup_link(options: &Common, file: &File) -> anyhow::Result<()> {
    let answer = execute(&options.data.path(file), Request::SetupLink, file)?;
    if options.json {
        return output::json(&answer);
    }
    let link = answer["setup_link"].as_str().context("the server's answer has no link")?;
    say!("{link}")?;
    match answer["user"].as_str() {
        Some(user) => note!(
            "No administrator can sign in. With this link `{user}` creates a passkey; it works once, for 24 hours, in a browser on a computer that reaches the server."
        ),
        None => note!(
            "Open it within 60 minutes, in a browser on a computer that reaches the server. Earlier links are void."
        ),
    }
    Ok(())
}

/// Has a command done: by the server that runs on the data directory, or here, under the directory's lock, if
/// none does. A lock without a server that answers is an error, never a second writer (ADMIN-05).
fn execute(dir: &Path, request: Request, file: &File) -> anyhow::Result<Value> {
    data_dir::check(dir)?;
    same_issuer(dir, file)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if let Some(answer) = runtime.block_on(control::ask(dir, &request))? {
        return answer.into_result();
    }
    let clock = timekeeping::clock()?;
    let uid = rustix::process::getuid().as_raw();
    if matches!(request, Request::Clock(_)) && is_a_gateways(dir)? {
        let holds = DataDir::open(dir)?;
        let db = Db::open_mirrored(
            &holds.database(),
            &holds.audit_head(),
            &SCHEMA,
            Some(&holds.backups()),
            &clock,
        )?;
        let gateway = Performer::Gateway(control::Gateway { clock, db });
        return runtime.block_on(gateway.perform(uid, request))?.into_result();
    }
    let base = Base::open(&file.base(dir.to_owned()), &clock)?;
    runtime.block_on(Performer::Server(base.place()).perform(uid, request))?.into_result()
}

/// Whether only a gateway has used this directory: an authorization server leaves its issuer there.
fn is_a_gateways(dir: &Path) -> anyhow::Result<bool> {
    Ok(ReadOnly::open(&require_database(dir)?, &SCHEMA)?.read(issuer_change::stored)?.is_none())
}

/// Refuses a command whose configuration names another issuer than the directory's: its links and answers would be about
/// a server that nobody meant.
fn same_issuer(dir: &Path, file: &File) -> anyhow::Result<()> {
    let configured = environment::variable("PORTCULLIS_ISSUER").and_then(|issuer| issuer.into_string().ok());
    let Some(wanted) = configured.or_else(|| file.issuer.clone()) else { return Ok(()) };
    let wanted = Issuer::parse(&wanted).with_context(|| format!("issuer {wanted}"))?;
    // Whatever is wrong with the database is said by whoever opens it to work with it.
    let Ok(db) = ReadOnly::open(&dir.join("portcullis.db"), &SCHEMA) else { return Ok(()) };
    let stored = db.read(issuer_change::stored)?;
    match stored.and_then(|stored| Another::than(&stored, &wanted)) {
        Some(another) => Err(another.into()),
        None => Ok(()),
    }
}

//! `portcullis restore`: this process changes the directory, because a running server uses the current database
//! everywhere.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use serde_json::json;
use shared::data_dir::DataDir;
use shared::db::restore::{Found, Restoring};
use shared::schema::SCHEMA;

use super::frame::confirm::confirm;
use super::frame::{CommonOptions, Noun};
use crate::config::File;
use crate::output::{self, note, say};
use crate::timekeeping;

#[derive(Args, Debug)]
pub struct Restore {
    /// A backup made by `portcullis backup`.
    #[arg(value_name = "FILE")]
    pub from: PathBuf,
    /// The only administrator who can sign in until others are enabled again, if it is not known what was
    /// revoked since the backup.
    #[arg(long, value_name = "USER")]
    pub admin: Option<String>,
    /// Do not ask for confirmation.
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub common: CommonOptions,
}

impl Noun for Restore {
    fn run(self, file: &File) -> anyhow::Result<ExitCode> {
        restore(&self, file)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn restore(options: &Restore, file: &File) -> anyhow::Result<()> {
    let path = options.common.data.path(file);
    let dir = DataDir::open_or_create(&path)?.mirrored_to(file.audit_mirror.as_deref())?;
    let clock = timekeeping::clock()?;
    let restoring = Restoring::prepare(&dir, &options.from, &SCHEMA, &clock)?;
    let found = restoring.found()?;
    explain(&found);
    if !found.complete && found.people && options.admin.is_none() {
        bail!(
            "nothing was done: use --admin to name the one administrator who can sign in until you enable the others; the copy has {}",
            found.administrators.join(", ")
        );
    }
    confirm(
        options.yes,
        "Every token, session, link, code and remembered decision ends; clients and people sign in again.",
    )?;
    let restored = restoring.finish(options.admin.as_deref(), rustix::process::getuid().as_raw(), &clock)?;
    if options.common.json {
        return output::json(&json!({
            "epoch": restored.epoch, "records": restored.records, "kept": restored.kept, "complete": found.complete,
        }));
    }
    say!("Restored. Start the server.")?;
    if let Some(kept) = &restored.kept {
        note!("The previous database is {}; delete it when you no longer need it.", kept.display());
    }
    if !found.complete {
        note!(
            "Enable the people and clients that you trust: `portcullis user enable USER`, `portcullis user link USER` for a new passkey, `portcullis client enable CLIENT`, `portcullis client rotate-secret CLIENT`."
        );
    }
    Ok(())
}

fn explain(found: &Found) {
    note!("The copy ends with audit record {}, of {}.", found.copy, found.time);
    match &found.present {
        Ok(last) if *last > found.copy => note!("The current database continues to record {last}."),
        Ok(last) => note!("The current database ends with record {last}."),
        Err(why) => note!("The current database cannot be used: {why}."),
    }
    if found.complete {
        note!(
            "Removals since the copy stay in force: users, clients, passkeys and secrets that were removed or disabled, groups and roles. Additions since the copy are lost."
        );
        return;
    }
    let known = found.noted.map_or_else(
        || "The end of the audit log is unknown".to_owned(),
        |noted| format!("The audit log went on to record {noted}, which is missing here"),
    );
    note!(
        "{known}, so it is unknown who was disabled since the copy. Therefore every user but one administrator is disabled, their passkeys are suspended, clients are disabled and lose their secrets, imported documents are removed, and new signing keys are made."
    );
}

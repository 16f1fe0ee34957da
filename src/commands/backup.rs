//! `portcullis backup`: this process makes the copy, beside a running server, and the writing process records
//! it.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::audit::{self, Event, Name};
use shared::data_dir;
use shared::db::back_up;
use shared::schema::SCHEMA;

use super::frame::{CommonOptions, Handler, Noun, Refused, Request, ServerParts, same_issuer};
use crate::base::require_database;
use crate::config::File;
use crate::output::{self, note, say};

#[derive(Args, Debug)]
pub struct Backup {
    /// The new file.
    #[arg(value_name = "FILE")]
    pub to: PathBuf,
    #[command(flatten)]
    pub common: CommonOptions,
}

/// Records a backup that ends with this record.
#[derive(Debug, Serialize, Deserialize)]
struct RecordBackup {
    file: String,
    seq: i64,
    hash: String,
}

#[derive(Serialize, Deserialize)]
struct Recorded {}

impl Request for RecordBackup {
    const COMMAND: &'static str = "backup";
    type Answer = Recorded;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<Recorded, Refused> {
        let Self { file, seq, hash } = self;
        let event = Event::allowed(Name::BackupCreated).by_console(uid);
        let event = event.detail("file", file).detail("seq", seq).detail("hash", hash);
        place.look(move |_, tx| audit::append(tx, event)).await?;
        Ok(Recorded {})
    }
}

impl Noun for Backup {
    const REQUESTS: &'static [Handler] = &[Handler::of::<RecordBackup>()];

    fn run(self, file: &File) -> anyhow::Result<ExitCode> {
        let Self { to, common } = self;
        let dir = common.data.path(file);
        data_dir::check(&dir)?;
        same_issuer(&dir, file)?;
        let head = back_up(&require_database(&dir)?, &to, &SCHEMA)?;
        let name = to.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let record = RecordBackup { file: name, seq: head.seq(), hash: head.hash().to_owned() };
        common.ask(file, record).inspect_err(|_| {
            // A backup that cannot be recorded is deleted.
            let _ = fs::remove_file(&to);
        })?;
        if common.json {
            output::json(&json!({ "file": to, "records": head.seq(), "head": head.hash() }))?;
        } else {
            say!("{} contains everything up to audit record {}.", to.display(), head.seq())?;
            note!(
                "It does not contain the seal key: keep a copy of that in another place. `portcullis restore FILE` restores this copy."
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}

//! `portcullis audit …`.

pub mod verify;

use std::fs::{self, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use keys::checkpoint::NewCheckpoint;
use keys::{Checkpoints, KeysError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::audit::{self, Event, Name};
use shared::data_dir;
use shared::db::{Conn, ReadOnly};
use shared::schema::SCHEMA;
use shared::{Fault, Tx};

use super::frame::print::safe;
use super::frame::{CommonOptions, Effect, Handler, Noun, Refused, Request, ServerParts, same_issuer};
use crate::base::require_database;
use crate::config::{DataDirOption, File};
use crate::output::{self, note, say};
use verify::Verify;

#[derive(Subcommand, Debug)]
pub enum Audit {
    /// Print the last records, oldest first.
    Tail(Tail),
    /// Check every record against the chain, the checkpoints against their key, and the end of the log against
    /// the file beside the database; name the first record that was changed, moved or removed.
    Verify(Verify),
    /// Sign the log as it is now, and print the signature: one line to keep elsewhere, for `verify --anchor`.
    Checkpoint(CommonOptions),
    /// Write the whole log up to a checkpoint to a new file, one line of JSON for each record.
    Export(Export),
}

#[derive(Args, Debug)]
pub struct Tail {
    /// The number of records.
    #[arg(short = 'n', long, default_value_t = 20, value_name = "COUNT")]
    pub lines: u32,
    /// Keep printing new records until interrupted.
    #[arg(short, long)]
    pub follow: bool,
    /// One line of JSON for each record.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub data: DataDirOption,
}

#[derive(Args, Debug)]
pub struct Export {
    /// The new file.
    #[arg(value_name = "FILE")]
    pub to: PathBuf,
    #[command(flatten)]
    pub common: CommonOptions,
}

/// `portcullis audit checkpoint`: signs the log.
#[derive(Debug, Serialize, Deserialize)]
struct MakeCheckpoint {}

#[derive(Serialize, Deserialize)]
struct CheckpointMade {
    made: NewCheckpoint,
}

impl Request for MakeCheckpoint {
    const COMMAND: &'static str = "audit-checkpoint";
    type Answer = CheckpointMade;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<CheckpointMade, Refused> {
        Ok(CheckpointMade { made: sign(place.authority()?.checkpoints.clone(), uid).await? })
    }
}

/// `portcullis audit export`: signs the log, and records that it is exported.
#[derive(Debug, Serialize, Deserialize)]
struct RecordExport {}

#[derive(Serialize, Deserialize)]
struct Exported {
    made: NewCheckpoint,
    /// The last record that the file holds.
    exported_to: i64,
}

impl Request for RecordExport {
    const COMMAND: &'static str = "audit-export";
    const DOES: Effect = Effect::Reads;
    type Answer = Exported;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<Exported, Refused> {
        let made = sign(place.authority()?.checkpoints.clone(), uid).await?;
        let record = move |tx: &Tx<'_>| {
            let to = audit::head(tx)?.seq();
            audit::append(tx, Event::allowed(Name::AuditExported).by_console(uid).detail("to", to))?;
            Ok(to)
        };
        Ok(Exported { made, exported_to: place.db.write(record).await? })
    }
}

async fn sign(checkpoints: Checkpoints, uid: u32) -> Result<NewCheckpoint, Refused> {
    let made = tokio::task::spawn_blocking(move || checkpoints.make(|event| event.by_console(uid))).await;
    match made.map_err(|error| Fault::Storage(error.to_string()))? {
        Ok(made) => Ok(made),
        Err(KeysError::Fault(fault)) => Err(fault.into()),
        Err(other) => Err(Refused::unavailable(&other)),
    }
}

impl Noun for Audit {
    const REQUESTS: &'static [Handler] = &[Handler::of::<MakeCheckpoint>(), Handler::of::<RecordExport>()];

    fn run(self, file: &File) -> anyhow::Result<ExitCode> {
        match self {
            Self::Tail(options) => tail(&options, &open(&options.data.path(file), file)?),
            Self::Verify(options) => verify::verify(&options, &options.data.path(file), file),
            Self::Checkpoint(common) => make(&common, file),
            Self::Export(options) => export(&options, file),
        }?;
        Ok(ExitCode::SUCCESS)
    }
}

fn open(dir: &Path, file: &File) -> anyhow::Result<ReadOnly> {
    data_dir::check(dir)?;
    same_issuer(dir, file)?;
    Ok(ReadOnly::open(&require_database(dir)?, &SCHEMA)?)
}

fn tail(options: &Tail, db: &ReadOnly) -> anyhow::Result<()> {
    let mut last = 0;
    let mut count = options.lines;
    loop {
        for record in db.read(|conn| audit::tail(conn, count, last))? {
            last = record["seq"].as_i64().unwrap_or(last);
            if options.json {
                output::json(&record)?;
            } else {
                say!("{}", db.read(|conn| in_words(conn, &record))?)?;
            }
        }
        if !options.follow {
            return Ok(());
        }
        count = u32::MAX;
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// A record on one line: time, event, actor, subject.
///
/// People and clients go by the name they have; people also by the one they had until they were deleted. The record
/// itself holds ids alone.
fn in_words(conn: &Conn<'_>, record: &Value) -> Result<String, Fault> {
    let called = |id: String| -> Result<String, Fault> {
        let name = if id.starts_with("u_") {
            authz::people::name_on_record(conn, &id)?
        } else {
            authz::clients::administration::name_on_record(conn, &id)?
        };
        Ok(name.map_or_else(|| id.clone(), |name| format!("{} ({id})", safe(&name))))
    };
    let text = |key: &str| safe(record[key].as_str().unwrap_or_default());
    let seq = record["seq"].as_i64().unwrap_or_default();
    let mut parts = vec![format!("{seq:>6}  {}  {:<7}  {:<22}", text("ts"), text("outcome"), text("event"))];
    if let Some(actor) = record["actor"]["id"].as_str() {
        parts.push(format!("by {}", called(safe(actor))?));
    }
    for key in ["subject", "client_id"] {
        if !text(key).is_empty() {
            parts.push(format!("{key}={}", called(text(key))?));
        }
    }
    for key in ["grant_id", "scope", "src_ip", "reason"] {
        if !text(key).is_empty() {
            parts.push(format!("{key}={}", text(key)));
        }
    }
    // How a call ended, and the rule about which argument refused it.
    for key in ["name", "result", "argument", "rule"] {
        if let Some(detail) = record["detail"][key].as_str() {
            parts.push(format!("{key}={}", safe(detail)));
        }
    }
    Ok(parts.join("  "))
}

fn make(common: &CommonOptions, file: &File) -> anyhow::Result<()> {
    let made = common.ask(file, MakeCheckpoint {})?.made;
    common.show(&made, |made| {
        say!("{}", made.checkpoint)?;
        note!(
            "The audit log is signed up to record {}. Keep this line in a place that cannot be changed together with the data directory; `portcullis audit verify --anchor FILE` compares the log with it.",
            made.seq
        );
        Ok(())
    })
}

fn export(options: &Export, file: &File) -> anyhow::Result<()> {
    let dir = options.common.data.path(file);
    let to = options.to.display();
    // First, so that an export that cannot be written is not recorded.
    let target = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&options.to)
        .with_context(|| format!("cannot create {to}"))?;
    let written = options.common.ask(file, RecordExport {}).and_then(|exported| {
        let records = open(&dir, file)?;
        write_records(&records, exported.exported_to, &target)
            .with_context(|| format!("cannot write {to}"))?;
        Ok(exported)
    });
    let exported = written.inspect_err(|_| {
        let _ = fs::remove_file(&options.to);
    })?;
    let last = exported.exported_to;
    if options.common.json {
        return output::json(&json!({ "file": options.to, "records": last, "made": exported.made }));
    }
    say!("{to} contains {last} records. The last one is a checkpoint of those before it.")
}

fn write_records(db: &ReadOnly, last: i64, target: &fs::File) -> anyhow::Result<()> {
    let mut lines = BufWriter::new(target);
    let mut from = 0;
    while from < last {
        let records = db.read(|conn| audit::range(conn, from, last.min(from + 1000)))?;
        ensure!(!records.is_empty(), "audit record {} is missing", from + 1);
        for record in records {
            from = record["seq"].as_i64().unwrap_or(last);
            writeln!(lines, "{record}")?;
        }
    }
    lines.flush()?;
    Ok(target.sync_all()?)
}

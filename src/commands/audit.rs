//! Commands about the audit log.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::DataDirOption;
use super::user::Common;

#[derive(Subcommand, Debug)]
pub enum Audit {
    /// Print the last records, oldest first.
    Tail(Tail),
    /// Check every record against the chain, the checkpoints in it against their key, and the end of the log against what
    /// is noted outside the database; name the first record that was changed, moved or removed.
    Verify(Verify),
    /// Sign the log as it is now, and print what was signed: one line to keep elsewhere, for `verify --anchor`.
    Checkpoint(Common),
    /// Write the whole log to a new file, one line of JSON for each record, up to a checkpoint.
    Export(Export),
}

#[derive(Args, Debug)]
pub struct Tail {
    /// How many records.
    #[arg(short = 'n', long, default_value_t = 20, value_name = "COUNT")]
    pub lines: u32,
    /// Go on printing as records are written, until interrupted.
    #[arg(short, long)]
    pub follow: bool,
    /// One line of JSON for each record.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub data: DataDirOption,
}

#[derive(Args, Debug)]
pub struct Verify {
    /// A checkpoint that was kept elsewhere. Without one an older copy of the whole data directory passes.
    #[arg(long, value_name = "FILE")]
    pub anchor: Option<PathBuf>,
    /// The result as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub data: DataDirOption,
}

#[derive(Args, Debug)]
pub struct Export {
    /// Where to; it must not exist.
    #[arg(value_name = "FILE")]
    pub to: PathBuf,
    #[command(flatten)]
    pub common: Common,
}

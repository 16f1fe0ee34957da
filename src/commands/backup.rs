//! Copies of the database, and the way back to one.

use std::path::PathBuf;

use clap::Args;

use super::user::Common;

#[derive(Args, Debug)]
pub struct Backup {
    /// Where to; it must not exist.
    #[arg(value_name = "FILE")]
    pub to: PathBuf,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Args, Debug)]
pub struct Restore {
    /// A copy that `portcullis backup` made.
    #[arg(value_name = "FILE")]
    pub from: PathBuf,
    /// The administrator who signs in alone until others are let in again, where it is not known what was taken away
    /// since the copy was made.
    #[arg(long, value_name = "USER")]
    pub admin: Option<String>,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub common: Common,
}

//! Commands about initial access tokens.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::user::Common;
use crate::config::duration;

#[derive(Subcommand, Debug)]
pub enum RegistrationToken {
    /// Make a token, and print it. Whoever has it may register clients until it runs out.
    Add(Add),
    /// Show the tokens that work, without the tokens themselves: those are shown once, when they are made.
    List(Common),
    /// Remove a token. The clients that were registered with it stay.
    Delete(Delete),
}

#[derive(Args, Debug)]
#[command(
    after_help = "Clients need such a token if portcullis.toml says [registration] mode = \"token\". They send it to /register as\n\n  Authorization: Bearer iat_…"
)]
pub struct Add {
    /// What it is for, such as the team that gets it: the audit log says of each client which one it came with.
    #[arg(value_name = "LABEL")]
    pub label: String,
    /// How long it works: a number with d, h, m or s.
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = duration::parse_some)]
    pub expires: Duration,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Args, Debug)]
pub struct Delete {
    /// The token's label.
    #[arg(value_name = "LABEL")]
    pub label: String,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub common: Common,
}

//! Commands about the machine's clock.

use clap::{Args, Subcommand};

use super::user::Common;

#[derive(Subcommand, Debug)]
pub enum Clock {
    /// Show the time that decides beside the machine's clock, and whether issuance waits for it.
    Show(Common),
    /// Say that the machine's clock is right although it was set back, so that tokens are issued again at once.
    /// What was made in the time that is yet to come ends: grants, sessions, and every access token.
    Confirm(Confirm),
}

#[derive(Args, Debug)]
pub struct Confirm {
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub common: Common,
}

//! Commands about the address that the server is known by.

use clap::{Args, Subcommand};

use super::user::Common;

#[derive(Subcommand, Debug)]
pub enum Issuer {
    /// Show the issuer that the data directory belongs to.
    Show(Common),
    /// Move the data directory to another issuer. Every token, grant, session and unused link ends; under another
    /// host name no passkey works any more. Shows first how much that is, and asks. No server may run meanwhile.
    Change(Change),
}

#[derive(Args, Debug)]
pub struct Change {
    /// The new issuer, as `serve --issuer` will name it.
    #[arg(value_name = "URL")]
    pub issuer: String,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub common: Common,
}

//! `portcullis issuer …`: the server's address. This process opens the directory, because a running server uses
//! the old issuer everywhere.

use std::process::ExitCode;

use anyhow::Context;
use authz::{access, issuer_change};
use clap::{Args, Subcommand};
use serde_json::json;
use shared::db::ReadOnly;
use shared::schema::SCHEMA;
use shared::{Issuer as Address, data_dir};

use super::frame::confirm::confirm;
use super::frame::{CommonOptions, Noun};
use super::lockdown::in_words;
use crate::base::{Base, require_database};
use crate::config::File;
use crate::output::{self, note, say};
use crate::timekeeping;

#[derive(Subcommand, Debug)]
pub enum Issuer {
    /// Show the issuer that the data directory belongs to.
    Show(CommonOptions),
    /// Move the data directory to another issuer. Every token, grant, session and unused link ends; under
    /// another host name no passkey works. Shows first how much that is, and asks. No server may be running.
    Change(Change),
}

#[derive(Args, Debug)]
pub struct Change {
    /// The new issuer, as in `serve --issuer`.
    #[arg(value_name = "URL")]
    pub issuer: String,
    /// Do not ask for confirmation.
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub common: CommonOptions,
}

impl Noun for Issuer {
    fn run(self, file: &File) -> anyhow::Result<ExitCode> {
        match self {
            Self::Show(common) => show(&common, file),
            Self::Change(command) => change(&command, file),
        }?;
        Ok(ExitCode::SUCCESS)
    }
}

fn show(common: &CommonOptions, file: &File) -> anyhow::Result<()> {
    let dir = common.data.path(file);
    data_dir::check(&dir)?;
    let db = ReadOnly::open(&require_database(&dir)?, &SCHEMA)?;
    let stored = db.read(issuer_change::stored)?;
    let stored =
        stored.context("no server has used this data directory yet; start `portcullis serve` once")?;
    if common.json { output::json(&json!({ "issuer": stored })) } else { say!("{stored}") }
}

fn change(command: &Change, file: &File) -> anyhow::Result<()> {
    let after = Address::parse(&command.issuer).with_context(|| format!("`{}`", command.issuer))?;
    let base = Base::open(file, &command.common.data.path(file), &timekeeping::clock()?)?;
    let before = base.authz.issuer().clone();
    if before == after {
        anyhow::bail!("the data directory already belongs to {after}; nothing was done");
    }
    let radius = base.store.db.read(|conn| access::measure(&base.authz, conn))?;
    let passkeys = base.store.db.read(|conn| issuer_change::measure(conn, &before, &after))?;
    note!(
        "{before} becomes {after}. That ends {}.\nPasskeys that stop working: {}; that work again: {}.",
        in_words(&radius),
        passkeys.set_aside,
        passkeys.back
    );
    confirm(command.yes, "Give clients the new address; people sign in again.")?;
    let uid = rustix::process::getuid().as_raw();
    let (authz, new) = (base.authz.clone(), after.clone());
    let (_, passkeys) =
        base.store.db.write_blocking(move |tx| issuer_change::change(&authz, tx, uid, &new))?;
    if command.common.json {
        return output::json(&json!({ "before": before, "after": after, "passkeys": passkeys }));
    }
    say!("The data directory now belongs to {after}. Start the server with --issuer {after}.")?;
    if passkeys.set_aside > 0 {
        say!(
            "Passkeys for {} do not work there: print new links with `portcullis setup-link` and `portcullis user link`.",
            before.host()
        )?;
    }
    Ok(())
}

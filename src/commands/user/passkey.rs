//! `portcullis user passkeys` and `portcullis user passkey …`.

use authz::people::passkeys::{self, Passkey as Shown};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::{OneUser, ShowUser, UserAnswer, changed};
use crate::commands::frame::confirm::confirm;
use crate::commands::frame::print::{moment, moment_if, optional, safe, table};
use crate::commands::frame::{CommonOptions, Effect, Refused, Request, ServerParts};
use crate::config::File;

#[derive(Subcommand, Debug)]
pub enum Passkey {
    /// Remove a passkey. The user's sessions end; with --stolen they must sign in to all their clients again.
    Remove(Remove),
    /// Lift the suspension of a passkey whose counter went back, once you know why it did.
    Unsuspend(OnePasskey),
}

#[derive(Args, Debug)]
pub struct OnePasskey {
    /// The user's name or id.
    #[arg(value_name = "USER")]
    pub user: String,
    /// The passkey: its digits in `user passkeys`.
    #[arg(value_name = "PASSKEY")]
    pub passkey: String,
    #[command(flatten)]
    pub common: CommonOptions,
}

#[derive(Args, Debug)]
pub struct Remove {
    #[command(flatten)]
    pub which: OnePasskey,
    /// It was stolen: what was granted with it ends too.
    #[arg(long)]
    pub stolen: bool,
    /// Do not ask for confirmation.
    #[arg(short, long)]
    pub yes: bool,
}

/// `portcullis user passkeys`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ListPasskeys {
    user: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Listed {
    passkeys: Vec<Shown>,
}

impl Request for ListPasskeys {
    const COMMAND: &'static str = "user-passkeys";
    const DOES: Effect = Effect::Reads;
    type Answer = Listed;

    async fn perform(self, place: &ServerParts, _uid: u32) -> Result<Listed, Refused> {
        let passkeys = place.write(move |_, tx| passkeys::list(tx, &self.user)).await?;
        Ok(Listed { passkeys })
    }
}

/// `portcullis user passkey remove`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RemovePasskey {
    user: String,
    passkey: String,
    stolen: bool,
}

impl Request for RemovePasskey {
    const COMMAND: &'static str = "user-passkey-remove";
    type Answer = UserAnswer;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<UserAnswer, Refused> {
        let Self { user, passkey, stolen } = self;
        let removed = place.write(move |authz, tx| passkeys::remove(authz, tx, uid, &user, &passkey, stolen));
        Ok(UserAnswer { user: removed.await? })
    }
}

/// `portcullis user passkey unsuspend`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct UnsuspendPasskey {
    user: String,
    passkey: String,
}

impl Request for UnsuspendPasskey {
    const COMMAND: &'static str = "user-passkey-unsuspend";
    type Answer = UserAnswer;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<UserAnswer, Refused> {
        let Self { user, passkey } = self;
        let user = place.write(move |authz, tx| passkeys::unsuspend(authz, tx, uid, &user, &passkey)).await?;
        Ok(UserAnswer { user })
    }
}

pub(super) fn show(command: OneUser, file: &File) -> anyhow::Result<()> {
    command.common.run(file, ListPasskeys { user: command.user }, |listed| {
        table(&["PASSKEY", "NAME", "ADDED", "LAST USED", "KIND", "STATE"], &listed.passkeys, row)
    })
}

pub(super) fn run(command: Passkey, file: &File) -> anyhow::Result<()> {
    match command {
        Passkey::Remove(c) => remove(c, file),
        Passkey::Unsuspend(c) => {
            c.common.run(file, UnsuspendPasskey { user: c.user, passkey: c.passkey }, changed)
        }
    }
}

fn remove(command: Remove, file: &File) -> anyhow::Result<()> {
    let Remove { which: OnePasskey { mut user, passkey, common }, stolen, yes } = command;
    if !yes {
        let owner = common.ask(file, ShowUser { user })?.user;
        let (name, id) = (safe(&owner.name), owner.id);
        let and = if stolen { ", and everything granted with it ends" } else { "" };
        confirm(false, &format!("The passkey {passkey} of `{name}` ({id}) will be removed{and}."))?;
        user = id.to_string();
    }
    common.run(file, RemovePasskey { user, passkey, stolen }, changed)
}

fn row(passkey: &Shown) -> Vec<String> {
    let kind = if passkey.copyable { "can be copied" } else { "bound to its device" };
    let state = if passkey.suspended { "suspended: its counter went back" } else { "usable" };
    vec![
        safe(&passkey.sha256).chars().take(8).collect(),
        optional(passkey.name.as_deref()),
        moment(passkey.created_at),
        moment_if(passkey.last_used_at),
        kind.to_owned(),
        state.to_owned(),
    ]
}

//! `portcullis key …`: the keys that sign tokens, and the key that seals them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use authz::signing_keys::{self, Inspected, Removed};
use clap::{Args, Subcommand};
use keys::seal::Resealed;
use keys::{Algorithm, KeyInfo as Shown, Rotated, State};
use serde::{Deserialize, Serialize};

use super::frame::confirm::confirm;
use super::frame::print::{moment, moment_if, safe, table};
use super::frame::{CommonOptions, Effect, Handler, Noun, Refused, Request, ServerParts};
use crate::config::File;
use crate::output::say;

#[derive(Subcommand, Debug)]
pub enum Key {
    /// Show the signing keys: which one signs, which is next and when, which are kept for existing tokens.
    List(CommonOptions),
    /// Replace a signing key ahead of the schedule. The new one is published at once and signs as soon as all
    /// caches have it: in ten minutes, unless `jwks_max_age` says otherwise. No token is refused.
    Rotate(Rotate),
    /// Remove a signing key that may have been copied. Every token that it signed is refused from then on, by
    /// this server at once. Shows first who is affected, and asks.
    Remove(Remove),
    /// Replace the key that seals the others in the database (`seal.key`), and seal them again with it. Nothing
    /// is refused, and it can be interrupted at any moment. An earlier backup opens only with the old key.
    Reseal(Reseal),
}

#[derive(Args, Debug)]
pub struct Rotate {
    /// The algorithm: ES256, RS256 or EdDSA. Default: the one that tokens are signed with.
    #[arg(long, value_name = "ALG")]
    pub alg: Option<Algorithm>,
    /// Sign with the new key from this moment on. Resource servers elsewhere refuse new tokens until they have
    /// fetched the key set again: up to `jwks_max_age`, 5 minutes.
    #[arg(long)]
    pub now: bool,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub common: CommonOptions,
}

#[derive(Args, Debug)]
pub struct Remove {
    /// The key's id, as shown by `key list`.
    // An id is base64url, so it may begin with a hyphen.
    #[arg(long, value_name = "KID", allow_hyphen_values = true)]
    pub kid: String,
    /// The reason, for the audit log.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub reason: String,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub common: CommonOptions,
}

#[derive(Args, Debug)]
pub struct Reseal {
    /// A new file for a copy of the old key, which earlier backups need.
    #[arg(long, value_name = "FILE")]
    pub keep: Option<PathBuf>,
    /// A new file for the new key, instead of the old key's file. Required for a service manager's credential:
    /// give the file to the service manager before the next start.
    #[arg(long, value_name = "FILE")]
    pub new: Option<PathBuf>,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub common: CommonOptions,
}

/// `portcullis key list`.
#[derive(Debug, Serialize, Deserialize)]
struct ListKeys {}

#[derive(Serialize, Deserialize)]
struct Listed {
    keys: Vec<Shown>,
}

impl Request for ListKeys {
    const COMMAND: &'static str = "key-list";
    const DOES: Effect = Effect::Reads;
    type Answer = Listed;

    async fn perform(self, place: &ServerParts, _uid: u32) -> Result<Listed, Refused> {
        Ok(Listed { keys: place.look(|authz, tx| signing_keys::list(authz, tx)).await? })
    }
}

/// What removing a key would end.
#[derive(Debug, Serialize, Deserialize)]
struct ShowKey {
    kid: String,
}

impl Request for ShowKey {
    const COMMAND: &'static str = "key-show";
    const DOES: Effect = Effect::Reads;
    type Answer = Inspected;

    async fn perform(self, place: &ServerParts, _uid: u32) -> Result<Inspected, Refused> {
        place.write(move |authz, tx| signing_keys::inspect(authz, tx, &self.kid)).await
    }
}

/// `portcullis key rotate`.
#[derive(Debug, Serialize, Deserialize)]
struct RotateKey {
    alg: Option<Algorithm>,
    now: bool,
}

#[derive(Serialize, Deserialize)]
struct KeyRotated {
    rotated: Rotated,
}

impl Request for RotateKey {
    const COMMAND: &'static str = "key-rotate";
    type Answer = KeyRotated;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<KeyRotated, Refused> {
        let Self { alg, now } = self;
        let made = place.blocking(move |authz| signing_keys::make(authz, alg)).await?;
        let made = made.map_err(|failed| Refused::unavailable(&failed))?;
        let rotated = place.write(move |authz, tx| signing_keys::rotate(authz, tx, uid, &made, now)).await?;
        Ok(KeyRotated { rotated })
    }
}

/// `portcullis key remove`.
#[derive(Debug, Serialize, Deserialize)]
struct RemoveKey {
    kid: String,
    reason: String,
}

#[derive(Serialize, Deserialize)]
struct KeyRemoved {
    removed: Removed,
}

impl Request for RemoveKey {
    const COMMAND: &'static str = "key-remove";
    type Answer = KeyRemoved;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<KeyRemoved, Refused> {
        let Self { kid, reason } = self;
        let of = kid.clone();
        let made = place.blocking(move |authz| signing_keys::make_successor(authz, &of)).await??;
        let removed =
            place.write(move |authz, tx| signing_keys::remove(authz, tx, uid, &kid, &reason, made.as_ref()));
        Ok(KeyRemoved { removed: removed.await? })
    }
}

/// `portcullis key reseal`.
#[derive(Debug, Serialize, Deserialize)]
struct ResealKeys {
    /// A new file for the new key, if the current one is a credential.
    elsewhere: Option<PathBuf>,
    /// A new file for the old key.
    keep: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
struct KeysResealed {
    resealed: Resealed,
}

impl Request for ResealKeys {
    const COMMAND: &'static str = "key-reseal";
    type Answer = KeysResealed;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<KeysResealed, Refused> {
        let Self { elsewhere, keep } = self;
        let prepare =
            move |authz: &_| signing_keys::prepare_reseal(authz, elsewhere.as_deref(), keep.as_deref());
        let pending = place.blocking(prepare).await?.map_err(|refused| Refused::by_rule(&refused))?;
        let finishing = pending.clone();
        let resealed = place.look(move |authz, tx| signing_keys::reseal(authz, tx, uid, &pending)).await?;
        let finished = place.blocking(move |authz| signing_keys::finish_reseal(authz, &finishing)).await?;
        if let Err(error) = finished {
            // It is done: the file has both keys, and the next start removes the old one.
            tracing::error!(keys.error = %error, "the old seal key could not be removed from its file");
        }
        Ok(KeysResealed { resealed })
    }
}

impl Noun for Key {
    const REQUESTS: &'static [Handler] = &[
        Handler::of::<ListKeys>(),
        Handler::of::<ShowKey>(),
        Handler::of::<RotateKey>(),
        Handler::of::<RemoveKey>(),
        Handler::of::<ResealKeys>(),
    ];

    fn run(self, file: &File) -> anyhow::Result<ExitCode> {
        match self {
            Self::List(common) => common.run(file, ListKeys {}, |listed| {
                table(&["KID", "ALG", "STATE", "PUBLISHED", "WHAT IS NEXT"], &listed.keys, row)
            }),
            Self::Rotate(command) => rotate(command, file),
            Self::Remove(command) => remove(command, file),
            Self::Reseal(command) => reseal(command, file),
        }?;
        Ok(ExitCode::SUCCESS)
    }
}

fn row(key: &Shown) -> Vec<String> {
    vec![safe(&key.kid), key.alg.to_string(), state(key).to_owned(), moment(key.created_at.0), next(key)]
}

fn state(key: &Shown) -> &'static str {
    match key.state {
        _ if key.signs => "signs",
        State::Next => "next",
        State::Active => "active",
        State::Retired => "retired",
    }
}

/// What happens next to a key, and when.
fn next(key: &Shown) -> String {
    match key.state {
        State::Next => format!("active from {}", moment_if(key.activate_at.map(|at| at.0))),
        State::Active => format!("active until {}", moment_if(key.retire_at.map(|at| at.0))),
        State::Retired => format!("removed {}", moment_if(key.remove_at.map(|at| at.0))),
    }
}

fn rotate(command: Rotate, file: &File) -> anyhow::Result<()> {
    let Rotate { alg, now, yes, common } = command;
    if now {
        confirm(
            yes,
            "Resource servers on other machines do not know the new key yet: they refuse every new token until they\nfetch the key set again, 5 minutes at most unless jwks_max_age says otherwise. Without --now no token is refused.",
        )?;
    }
    common.run(file, RotateKey { alg, now }, |KeyRotated { rotated }| match rotated.state {
        State::Active => say!("{} signs from now on.", safe(&rotated.kid)),
        State::Next | State::Retired => say!(
            "{} is published, and signs from {} on, while a server runs.",
            safe(&rotated.kid),
            moment(rotated.activate_at.0)
        ),
    })
}

fn remove(command: Remove, file: &File) -> anyhow::Result<()> {
    let Remove { kid, reason, yes, common } = command;
    let inspected = common.ask(file, ShowKey { kid: kid.clone() })?;
    if !common.json {
        say_consequences(&inspected)?;
    }
    confirm(yes, "")?;
    common.run(file, RemoveKey { kid, reason }, |KeyRemoved { removed }| {
        say!("Key removed. Tokens it signed are refused from now on.")?;
        if let Some(successor) = &removed.successor {
            say!("{successor} signs from now on.")?;
        }
        say!(
            "If the database was copied together with seal.key, its other keys may be known too: `portcullis key list`."
        )
    })
}

fn reseal(command: Reseal, file: &File) -> anyhow::Result<()> {
    let Reseal { keep, new, yes, common } = command;
    if keep.is_none() {
        confirm(
            yes,
            "Backups of the database made before now open only with the old seal key, which goes away. Keep a copy of\nit as long as you keep them: --keep FILE.",
        )?;
    }
    // A running server has another current directory.
    let absolute = |path: Option<PathBuf>| path.map(std::path::absolute).transpose();
    let (elsewhere, keep) = (absolute(new)?, absolute(keep)?);
    let moved = elsewhere.is_some();
    common.run(file, ResealKeys { elsewhere, keep }, |KeysResealed { resealed }| {
        let path = |path: &Path| safe(&path.to_string_lossy());
        say!(
            "Resealed: {} values, with seal key {} in {}.",
            resealed.values,
            safe(&resealed.after),
            path(&resealed.file)
        )?;
        if moved {
            say!("The next start needs that file: give it to the service manager, or set [keys] seal_key.")?;
        }
        Ok(())
    })
}

/// Says whom a removal hits.
fn say_consequences(inspected: &Inspected) -> anyhow::Result<()> {
    let Inspected { key, blast, jwks_max_age } = inspected;
    say!("{} ({}, {})\n", safe(&key.kid), key.alg, state(key))?;
    if blast.grants == 0 {
        say!("No valid token was signed by it.")?;
    } else {
        say!(
            "Tokens it may have signed are in use on {} grants, of {} users and {} clients. They would expire by\n\
             {}, and are refused once the key is removed. Clients get new ones with their refresh tokens,\n\
             or ask people to sign in.",
            blast.grants,
            blast.users,
            blast.clients,
            moment_if(blast.expires_by.map(|at| at.0))
        )?;
    }
    if key.state == State::Active {
        say!(
            "A new key signs at once. Resource servers on other machines may accept old tokens and refuse new ones\n\
             until they fetch the key set again, within {jwks_max_age} seconds."
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::commands::{Args, Command, Nouns};

    /// KEYS-04: one key in 64 has an id that begins with a hyphen.
    #[test]
    fn a_name_may_begin_with_a_hyphen() {
        let words = ["portcullis", "key", "remove", "--kid", "-FfKn9", "--reason", "-", "--yes"];
        let Command::Noun(Nouns::Key(Key::Remove(remove))) = Args::try_parse_from(words).unwrap().command
        else {
            panic!("it is another command")
        };
        assert_eq!((remove.kid.as_str(), remove.reason.as_str(), remove.yes), ("-FfKn9", "-", true));
    }
}

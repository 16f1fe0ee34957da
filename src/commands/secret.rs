//! `portcullis secret …`: secrets for sources, in the sealed store (SRC-10). Values are never printed.

use std::process::ExitCode;

use anyhow::bail;
use authz::secrets::{self, Holder, Removed, SecretInfo, Set};
use clap::{Args, Subcommand};
use keys::secrets::Server;
use serde::{Deserialize, Serialize};
use shared::Secret as Value;

use super::frame::confirm::confirm;
use super::frame::print::{list, moment, safe, table};
use super::frame::{CommonOptions, Effect, Handler, Noun, Refused, Request, ServerParts, typed};
use crate::config::{File, is_secret_name};
use crate::output::say;

#[derive(Subcommand, Debug)]
pub enum Secret {
    /// Store a secret, typed at a prompt that does not show it or read from standard input.
    Set(Entry),
    /// List the secrets, their users, and the servers that use them. Values are never shown.
    List(Listing),
    /// Delete a secret. It is not used from then on.
    Remove(Removal),
}

#[derive(Args, Debug)]
pub struct Entry {
    /// The name in the configuration, as in bearer = "secret:NAME"; with --user the name of the server.
    #[arg(value_name = "NAME")]
    name: String,
    /// Store it as this user's own secret, for a server that takes users' own secrets.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    #[command(flatten)]
    common: CommonOptions,
}

#[derive(Args, Debug)]
pub struct Listing {
    /// Only this user's own secrets.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    #[command(flatten)]
    common: CommonOptions,
}

#[derive(Args, Debug)]
pub struct Removal {
    /// Its name; with --user the name of the server.
    #[arg(value_name = "NAME")]
    name: String,
    /// Delete this user's own secret.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Do not ask for confirmation.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    common: CommonOptions,
}

/// `portcullis secret set`. Without `Debug`, because it contains the value.
#[derive(Serialize, Deserialize)]
pub(super) struct SetSecret {
    name: String,
    user: Option<String>,
    value: String,
    /// Whether to refuse a name that is in use.
    #[serde(default)]
    only_new: bool,
}

impl SetSecret {
    /// A secret under a new name, before the configuration uses it.
    pub(super) fn new(name: &str, value: &Value) -> Self {
        Self { name: name.to_owned(), user: None, value: value.expose().to_owned(), only_new: true }
    }
}

impl Request for SetSecret {
    const COMMAND: &'static str = "secret-set";
    type Answer = Set;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<Set, Refused> {
        let Self { name, user, value, only_new } = self;
        let value = keys::secrets::value(&value).map_err(|why| Refused::by_rule(&why))?;
        let Some(user) = user else {
            if !is_secret_name(&name) {
                return Err(Refused::by_rule(&unfit(&name)));
            }
            return place.write(move |authz, tx| secrets::set(authz, tx, uid, &name, &value, only_new)).await;
        };
        let target = place.authority()?.catalogue.own_secret_of(&name);
        let target = target.map_err(|others| Refused::by_rule(&takes_none(&name, &others)))?;
        place
            .write(move |authz, tx| {
                let server = Server { source: &name, target: &target };
                secrets::set_for(authz, tx, uid, &user, server, &value)
            })
            .await
    }
}

fn unfit(name: &str) -> String {
    format!(
        "a secret cannot be called `{name}`: use lower-case letters, digits, `_`, `-` and `.`, 64 at most"
    )
}

fn takes_none(name: &str, others: &[String]) -> String {
    let others = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
    format!("users give no secret of their own to a server `{name}`; the servers that take one: {others}")
}

/// `portcullis secret list`.
#[derive(Debug, Serialize, Deserialize)]
struct ListSecrets {
    user: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Listed {
    secrets: Vec<SecretInfo>,
}

impl Request for ListSecrets {
    const COMMAND: &'static str = "secret-list";
    const DOES: Effect = Effect::Reads;
    type Answer = Listed;

    async fn perform(self, place: &ServerParts, _uid: u32) -> Result<Listed, Refused> {
        let secrets = place.write(move |_, tx| secrets::list(tx, self.user.as_deref())).await?;
        Ok(Listed { secrets })
    }
}

/// `portcullis secret remove`.
#[derive(Debug, Serialize, Deserialize)]
struct RemoveSecret {
    name: String,
    user: Option<String>,
}

impl Request for RemoveSecret {
    const COMMAND: &'static str = "secret-remove";
    type Answer = Removed;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<Removed, Refused> {
        place.write(move |_, tx| secrets::remove(tx, uid, &self.name, self.user.as_deref())).await
    }
}

/// A secret, with the servers that use it.
#[derive(Serialize)]
struct Used {
    #[serde(flatten)]
    known: SecretInfo,
    used_by: Vec<String>,
}

/// What `secret list` prints.
#[derive(Serialize)]
struct Report {
    secrets: Vec<Used>,
    /// Names that are used in the configuration but not set.
    missing: Vec<String>,
}

impl Report {
    fn new(known: Vec<SecretInfo>, file: &File, of_all: bool) -> Self {
        let missing = if of_all { missing(file, &known) } else { Vec::new() };
        let used = |known: SecretInfo| {
            let used_by = if known.user.is_some() { Vec::new() } else { users_of(file, &known.name) };
            Used { known, used_by }
        };
        Self { secrets: known.into_iter().map(used).collect(), missing }
    }

    fn print(&self) -> anyhow::Result<()> {
        if self.secrets.is_empty() {
            say!("No secret is kept yet. To keep one: portcullis secret set NAME")?;
        } else {
            table(&["NAME", "OF", "CHANGED", "USED BY"], &self.secrets, |used| {
                let Used { known, used_by } = used;
                let (of, used_by) = match &known.user {
                    Some(user) => (safe(&user.name), safe(&known.name)),
                    None => ("-".to_owned(), list(used_by)),
                };
                vec![safe(&known.name), of, moment(known.changed_at.0), used_by]
            })?;
        }
        self.missing.iter().try_for_each(|name| {
            say!(
                "\nThe configuration names the secret `{0}`, which does not exist. To set it: portcullis secret set {0}",
                safe(name)
            )
        })
    }
}

/// The configured servers that use the secret with this name.
fn users_of(file: &File, name: &str) -> Vec<String> {
    let uses = file.shown().filter(|(_, shown)| shown.names().any(|used| used == name));
    uses.map(|(source, _)| source.clone()).collect()
}

/// Names that the configuration uses and that are not among these.
fn missing(file: &File, known: &[SecretInfo]) -> Vec<String> {
    let is_known = |name: &str| known.iter().any(|known| known.user.is_none() && known.name == name);
    let mut names: Vec<_> = file.shown().flat_map(|(_, shown)| shown.names()).collect();
    names.retain(|name| !is_known(name));
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(str::to_owned).collect()
}

impl Noun for Secret {
    const REQUESTS: &'static [Handler] =
        &[Handler::of::<SetSecret>(), Handler::of::<ListSecrets>(), Handler::of::<RemoveSecret>()];

    fn run(self, file: &File) -> anyhow::Result<ExitCode> {
        match self {
            Self::Set(entry) => set(entry, file)?,
            Self::List(Listing { user, common }) => {
                let of_all = user.is_none();
                let known = common.ask(file, ListSecrets { user })?.secrets;
                common.show(&Report::new(known, file, of_all), Report::print)?;
            }
            Self::Remove(Removal { name, user, yes, common }) => {
                confirm(yes, &warning(&name, user.as_deref(), file))?;
                common.run(file, RemoveSecret { name, user }, |removed| {
                    say!(
                        "{} removed. It is not used from now on.",
                        about(&removed.name, removed.user.as_ref())
                    )
                })?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn set(entry: Entry, file: &File) -> anyhow::Result<()> {
    let Entry { name, user, common } = entry;
    if user.is_none() && !is_secret_name(&name) {
        // Checked before the user types the value.
        bail!("{}", unfit(&name));
    }
    let value = typed::secret(&format!("The secret for `{name}` (it is not shown): "))?;
    let request = SetSecret { name, user, value: value.expose().to_owned(), only_new: false };
    common.run(file, request, |set| {
        let about = about(&set.name, set.user.as_ref());
        say!(
            "{about} {}. It is used from the next request on.",
            if set.replaced { "replaced" } else { "set" }
        )?;
        if set.user.is_none() && users_of(file, &set.name).is_empty() {
            say!(
                "\nNo server uses it yet: write bearer = \"secret:{}\" in its [sources.NAME].",
                safe(&set.name)
            )?;
        }
        Ok(())
    })
}

fn about(name: &str, user: Option<&Holder>) -> String {
    match user {
        Some(user) => format!("The secret of {} for `{}`", safe(&user.name), safe(name)),
        None => format!("The secret `{}`", safe(name)),
    }
}

fn warning(name: &str, user: Option<&str>, file: &File) -> String {
    match user {
        Some(user) => {
            format!("The server `{name}` will answer no call of {user} until they give another secret.")
        }
        None => match users_of(file, name).as_slice() {
            [] => format!("The secret `{name}` will be forgotten. No server of the configuration uses it."),
            users => format!(
                "The secret `{name}` will be forgotten, and no call will reach: {}.",
                users.join(", ")
            ),
        },
    }
}

//! `portcullis user …`: users, their groups and roles.

pub mod passkey;

use std::process::ExitCode;

use authz::people::{self, EndedAccess, Person, passkeys};
use clap::{Args, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use super::frame::confirm::confirm;
use super::frame::print::{list, or_dash, safe, table};
use super::frame::{CommonOptions, Effect, Handler, Noun, Refused, Request, ServerParts};
use crate::config::File;
use crate::output::say;
use passkey::Passkey;

#[derive(Subcommand, Debug)]
pub enum User {
    /// Add a user, and print the single-use link with which they create their passkey.
    Add(Add),
    /// List all users: role, groups, passkeys, and whether they are enabled.
    List(CommonOptions),
    /// Show one user, by name or id.
    Show(OneUser),
    /// Print a new enrolment link: for a first passkey, or after the last one was lost. Earlier links are void.
    Link(OneUser),
    /// Disable a user: their tokens are refused from the next request on; grants and sessions end.
    Disable(OneUser),
    /// Enable a user again. They must sign in to their clients again.
    Enable(OneUser),
    /// Delete a user and everything of theirs. The audit log keeps their records.
    Delete(Delete),
    /// Add a user to groups, or remove them.
    Groups(Groups),
    /// Make a user an administrator, or remove the role. Their sessions end.
    Role(Role),
    /// Show a user's passkeys.
    Passkeys(OneUser),
    /// Remove a passkey, or lift its suspension.
    #[command(subcommand)]
    Passkey(Passkey),
}

#[derive(Args, Debug)]
pub struct OneUser {
    /// The user's name or id.
    #[arg(value_name = "USER")]
    pub user: String,
    #[command(flatten)]
    pub common: CommonOptions,
}

#[derive(Args, Debug)]
pub struct Delete {
    /// The user's name or id.
    #[arg(value_name = "USER")]
    pub user: String,
    /// Do not ask for confirmation.
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub common: CommonOptions,
}

#[derive(Args, Debug)]
pub struct Add {
    /// The user's name.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// A group to put them into. May be given more than once.
    #[arg(long = "group", value_name = "GROUP")]
    pub groups: Vec<String>,
    #[command(flatten)]
    pub common: CommonOptions,
}

#[derive(Args, Debug)]
pub struct Groups {
    /// The user's name or id.
    #[arg(value_name = "USER")]
    pub user: String,
    /// A group to put them into. May be given more than once.
    #[arg(long, value_name = "GROUP")]
    pub add: Vec<String>,
    /// A group to remove them from. May be given more than once.
    #[arg(long, value_name = "GROUP")]
    pub remove: Vec<String>,
    #[command(flatten)]
    pub common: CommonOptions,
}

/// A user's role.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Roles {
    Admin,
    None,
}

#[derive(Args, Debug)]
pub struct Role {
    /// The user's name or id.
    #[arg(value_name = "USER")]
    pub user: String,
    /// A role grants no scope.
    #[arg(value_name = "ROLE")]
    pub role: Roles,
    #[command(flatten)]
    pub common: CommonOptions,
}

/// `portcullis user add`.
#[derive(Debug, Serialize, Deserialize)]
struct AddUser {
    name: String,
    groups: Vec<String>,
}

/// A user who was added.
#[derive(Serialize, Deserialize)]
struct Added {
    user: Person,
    link: String,
}

impl Request for AddUser {
    const COMMAND: &'static str = "user-add";
    const DOES: Effect = Effect::HandsOut;
    type Answer = Added;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<Added, Refused> {
        let Self { name, groups } = self;
        let added = place.write(move |authz, tx| people::add(authz, tx, uid, &name, &groups));
        let (user, link) = added.await?;
        Ok(Added { user, link })
    }
}

/// `portcullis user list`.
#[derive(Debug, Serialize, Deserialize)]
struct ListUsers {}

#[derive(Serialize, Deserialize)]
struct Listed {
    users: Vec<Person>,
}

impl Request for ListUsers {
    const COMMAND: &'static str = "user-list";
    const DOES: Effect = Effect::Reads;
    type Answer = Listed;

    async fn perform(self, place: &ServerParts, _uid: u32) -> Result<Listed, Refused> {
        Ok(Listed { users: place.look(people::list).await? })
    }
}

/// One user, after the command.
#[derive(Serialize, Deserialize)]
struct UserAnswer {
    user: Person,
}

/// `portcullis user show`.
#[derive(Debug, Serialize, Deserialize)]
struct ShowUser {
    user: String,
}

impl Request for ShowUser {
    const COMMAND: &'static str = "user-show";
    const DOES: Effect = Effect::Reads;
    type Answer = UserAnswer;

    async fn perform(self, place: &ServerParts, _uid: u32) -> Result<UserAnswer, Refused> {
        let user = place.write(move |authz, tx| people::show(authz, tx, &self.user)).await?;
        Ok(UserAnswer { user })
    }
}

/// `portcullis user link`.
#[derive(Debug, Serialize, Deserialize)]
struct LinkUser {
    user: String,
}

#[derive(Serialize, Deserialize)]
struct Linked {
    link: String,
}

impl Request for LinkUser {
    const COMMAND: &'static str = "user-link";
    const DOES: Effect = Effect::HandsOut;
    type Answer = Linked;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<Linked, Refused> {
        let link = place.write(move |authz, tx| people::link(authz, tx, uid, &self.user)).await?;
        Ok(Linked { link })
    }
}

/// `portcullis user disable`.
#[derive(Debug, Serialize, Deserialize)]
struct DisableUser {
    user: String,
}

/// A user who was disabled, and what ended with that.
#[derive(Serialize, Deserialize)]
struct Disabled {
    user: Person,
    ended: EndedAccess,
}

impl Request for DisableUser {
    const COMMAND: &'static str = "user-disable";
    type Answer = Disabled;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<Disabled, Refused> {
        let disabled = place.write(move |authz, tx| people::disable(authz, tx, uid, &self.user));
        let (user, ended) = disabled.await?;
        Ok(Disabled { user, ended })
    }
}

/// `portcullis user enable`.
#[derive(Debug, Serialize, Deserialize)]
struct EnableUser {
    user: String,
}

impl Request for EnableUser {
    const COMMAND: &'static str = "user-enable";
    type Answer = UserAnswer;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<UserAnswer, Refused> {
        let user = place.write(move |authz, tx| people::enable(authz, tx, uid, &self.user)).await?;
        Ok(UserAnswer { user })
    }
}

/// `portcullis user delete`.
#[derive(Debug, Serialize, Deserialize)]
struct DeleteUser {
    user: String,
}

impl Request for DeleteUser {
    const COMMAND: &'static str = "user-delete";
    type Answer = UserAnswer;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<UserAnswer, Refused> {
        let user = place.write(move |authz, tx| people::delete(authz, tx, uid, &self.user)).await?;
        Ok(UserAnswer { user })
    }
}

/// `portcullis user groups`.
#[derive(Debug, Serialize, Deserialize)]
struct RegroupUser {
    user: String,
    add: Vec<String>,
    remove: Vec<String>,
}

impl Request for RegroupUser {
    const COMMAND: &'static str = "user-groups";
    type Answer = UserAnswer;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<UserAnswer, Refused> {
        let Self { user, add, remove } = self;
        let regrouped = place.write(move |authz, tx| people::regroup(authz, tx, uid, &user, &add, &remove));
        Ok(UserAnswer { user: regrouped.await? })
    }
}

/// `portcullis user role`.
#[derive(Debug, Serialize, Deserialize)]
struct SetRole {
    user: String,
    admin: bool,
}

impl Request for SetRole {
    const COMMAND: &'static str = "user-role";
    type Answer = UserAnswer;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<UserAnswer, Refused> {
        let Self { user, admin } = self;
        let user = place.write(move |authz, tx| passkeys::role(authz, tx, uid, &user, admin)).await?;
        Ok(UserAnswer { user })
    }
}

impl Noun for User {
    const REQUESTS: &'static [Handler] = &[
        Handler::of::<AddUser>(),
        Handler::of::<ListUsers>(),
        Handler::of::<ShowUser>(),
        Handler::of::<LinkUser>(),
        Handler::of::<DisableUser>(),
        Handler::of::<EnableUser>(),
        Handler::of::<DeleteUser>(),
        Handler::of::<RegroupUser>(),
        Handler::of::<SetRole>(),
        Handler::of::<passkey::ListPasskeys>(),
        Handler::of::<passkey::RemovePasskey>(),
        Handler::of::<passkey::UnsuspendPasskey>(),
    ];

    fn run(self, file: &File) -> anyhow::Result<ExitCode> {
        match self {
            Self::Add(c) => c.common.run(file, AddUser { name: c.name, groups: c.groups }, |added| {
                describe(&added.user)?;
                hand_out(&added.link)
            }),
            Self::List(common) => common.run(file, ListUsers {}, |listed| {
                table(&["NAME", "ROLE", "GROUPS", "PASSKEYS", "STATE", "ID"], &listed.users, row)
            }),
            Self::Show(c) => c.common.run(file, ShowUser { user: c.user }, changed),
            Self::Link(c) => c.common.run(file, LinkUser { user: c.user }, |linked| hand_out(&linked.link)),
            Self::Disable(c) => c.common.run(file, DisableUser { user: c.user }, stopped),
            Self::Enable(c) => c.common.run(file, EnableUser { user: c.user }, changed),
            Self::Delete(c) => delete(c, file),
            Self::Groups(c) => {
                c.common.run(file, RegroupUser { user: c.user, add: c.add, remove: c.remove }, changed)
            }
            Self::Role(c) => {
                c.common.run(file, SetRole { user: c.user, admin: c.role == Roles::Admin }, changed)
            }
            Self::Passkeys(c) => passkey::show(c, file),
            Self::Passkey(command) => passkey::run(command, file),
        }?;
        Ok(ExitCode::SUCCESS)
    }
}

fn delete(command: Delete, file: &File) -> anyhow::Result<()> {
    let Delete { mut user, yes, common } = command;
    if !yes {
        let found = common.ask(file, ShowUser { user })?.user;
        let (name, id) = (safe(&found.name), found.id);
        let warning = format!(
            "The user `{name}` ({id}) will be deleted with their passkeys ({}), sessions and everything they granted.\n\
             `portcullis user disable {id}` stops them and can be undone.",
            found.passkeys
        );
        confirm(false, &warning)?;
        user = id.to_string();
    }
    common.run(file, DeleteUser { user }, |deleted| {
        describe(&deleted.user)?;
        say!("\nUser deleted. Their tokens are refused from now on.")
    })
}

fn stopped(disabled: &Disabled) -> anyhow::Result<()> {
    describe(&disabled.user)?;
    let EndedAccess { grants, sessions } = disabled.ended;
    say!("\nUser disabled. Grants that ended: {grants}. Sessions that ended: {sessions}.")
}

fn changed(found: &UserAnswer) -> anyhow::Result<()> {
    describe(&found.user)
}

fn hand_out(link: &str) -> anyhow::Result<()> {
    say!("\nGive them this link; it works once, for 24 hours:\n\n  {link}")
}

/// How many passkeys a user has, and how many of them are suspended.
fn passkeys_of(user: &Person) -> String {
    match user.suspended_passkeys {
        0 => user.passkeys.to_string(),
        suspended => format!("{} ({suspended} suspended)", user.passkeys),
    }
}

fn state(user: &Person) -> &'static str {
    if user.disabled { "disabled" } else { "enabled" }
}

fn describe(user: &Person) -> anyhow::Result<()> {
    say!("{} ({})", safe(&user.name), state(user))?;
    say!("  id        {}", user.id)?;
    say!("  role      {}", safe(&user.role))?;
    say!("  groups    {}", list(&user.groups))?;
    say!("  entitled  {}", or_dash(safe(&user.entitled)))?;
    say!("  passkeys  {}", passkeys_of(user))
}

fn row(user: &Person) -> Vec<String> {
    vec![
        safe(&user.name),
        safe(&user.role),
        list(&user.groups),
        passkeys_of(user),
        state(user).to_owned(),
        user.id.to_string(),
    ]
}

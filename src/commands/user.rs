//! Commands about people and groups.

use clap::{Args, Subcommand, ValueEnum};

use super::DataDirOption;

#[derive(Subcommand, Debug)]
pub enum User {
    /// Add a user, and print the one-use link with which they create their passkey.
    Add(Add),
    /// Show every user: role, groups, passkeys, and whether they are enabled.
    List(Common),
    /// Show one user, by name or id.
    Show(One),
    /// Print a new enrolment link: for a first passkey, or after the last one was lost. Earlier links are void.
    Link(One),
    /// Stop a user: from the next request on no token of theirs works; grants and sessions end.
    Disable(One),
    /// Let a user in again. Their clients sign in anew.
    Enable(One),
    /// Remove a user with everything that is theirs. The audit log keeps what they did.
    Delete(Delete),
    /// Put a user into groups, or take them out.
    Groups(Groups),
    /// Make a user an administrator, or none. Their sessions end.
    Role(Role),
    /// Show a user's passkeys.
    Passkeys(One),
    /// Remove a passkey, or let one sign in again that was suspended.
    #[command(subcommand)]
    Passkey(Passkey),
}

#[derive(Subcommand, Debug)]
pub enum Passkey {
    /// Remove a passkey. The user's sessions end; with --stolen every client of theirs signs in anew, too.
    Remove(RemovePasskey),
    /// Let a passkey sign in again whose counter went back, once you know why it did.
    Unsuspend(OnePasskey),
}

#[derive(Subcommand, Debug)]
pub enum Group {
    /// Show the groups of the configuration, what they may be granted, and how many are in them.
    List(Common),
}

#[derive(Args, Debug)]
pub struct Common {
    /// The result as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub data: DataDirOption,
}

#[derive(Args, Debug)]
pub struct One {
    /// The user's name or id.
    #[arg(value_name = "USER")]
    pub user: String,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Args, Debug)]
pub struct Delete {
    /// The user's name or id.
    #[arg(value_name = "USER")]
    pub user: String,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Args, Debug)]
pub struct Add {
    /// What the user is called.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// A group to put them into. May be given more than once.
    #[arg(long = "group", value_name = "GROUP")]
    pub groups: Vec<String>,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Args, Debug)]
pub struct Groups {
    /// The user's name or id.
    #[arg(value_name = "USER")]
    pub user: String,
    /// A group to put them into. May be given more than once.
    #[arg(long, value_name = "GROUP")]
    pub add: Vec<String>,
    /// A group to take them out of. May be given more than once.
    #[arg(long, value_name = "GROUP")]
    pub remove: Vec<String>,
    #[command(flatten)]
    pub common: Common,
}

/// What a user administers.
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
    pub common: Common,
}

#[derive(Args, Debug)]
pub struct OnePasskey {
    /// The user's name or id.
    #[arg(value_name = "USER")]
    pub user: String,
    /// The passkey: the digits that `user passkeys` shows.
    #[arg(value_name = "PASSKEY")]
    pub passkey: String,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Args, Debug)]
pub struct RemovePasskey {
    #[command(flatten)]
    pub which: OnePasskey,
    /// Somebody else has it: what was granted with it ends too.
    #[arg(long)]
    pub stolen: bool,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
}

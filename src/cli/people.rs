//! Commands about people and groups.

use clap::{Args, Subcommand};

use super::DataDirOption;

#[derive(Subcommand, Debug)]
pub enum User {
    /// Add a user, and print the one-use link with which they create their passkey.
    Add(Add),
    /// Show everyone.
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
    Delete(One),
    /// Put a user into groups, or take them out.
    Groups(Groups),
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

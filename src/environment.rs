//! Environment variables. An empty one counts as unset: unit files and container definitions set variables that
//! they have no value for.

use std::ffi::OsString;

use clap::Command;
use clap::builder::Resettable;

/// The variable's value, if it is not empty.
#[allow(clippy::disallowed_methods, reason = "the one place where variables are read")]
pub(crate) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The command line without empty variables.
pub(crate) fn without_empty(command: Command) -> Command {
    let command = command.mut_args(|argument| {
        let set = argument.get_env().and_then(|name| variable(&name.to_string_lossy()));
        if set.is_some() { argument } else { argument.env(Resettable::Reset) }
    });
    command.mut_subcommands(without_empty)
}

//! Composition: configuration, command line, and one process made of its parts. Nothing here decides about
//! tokens or users.

#![deny(clippy::print_stdout, clippy::print_stderr)] // `output` prints

mod base;
mod checkpoints;
pub mod commands;
pub mod config;
mod doubts;
mod environment;
pub mod front;
mod handbook;
mod hangups;
mod hints;
mod logging;
mod output;
mod readiness;
mod reload;
mod rotation;
mod routes;
pub mod serve;
mod timekeeping;

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use commands::Args;
use serve::{Options, Server};
use shared::Clock;

/// Runs the command of these arguments, and reports on standard error what stopped it.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // A server started this program to watch over a child.
    if let Some(role) = children::role(arguments.get(1).map(OsString::as_os_str)) {
        return role.run();
    }
    let done = match Args::read(arguments) {
        Ok(args) => args.run(),
        Err(other) => usage(&other),
    };
    done.unwrap_or_else(|error| {
        // One line that says what to do, with the chain of causes.
        output::note!("portcullis: {error:#}");
        ExitCode::FAILURE
    })
}

/// Starts a server as `portcullis serve` does, for tests and benchmarks.
///
/// # Errors
/// What prevents the start, worded for the administrator.
pub async fn start(options: Options, clock: Clock) -> anyhow::Result<Server> {
    Server::start(options, commands::request, clock).await
}

/// Prints the requested help, or the error in the arguments.
fn usage(said: &clap::Error) -> anyhow::Result<ExitCode> {
    let text = said.render();
    if said.use_stderr() {
        output::remark(&text.to_string(), "");
    } else if io::stdout().is_terminal() {
        output::help(&text.ansi().to_string())?;
    } else {
        output::help(&text.to_string())?;
    }
    Ok(u8::try_from(said.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from))
}

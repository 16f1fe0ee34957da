//! Composition: configuration, command line, and one process made of its parts. Nothing here decides
//! anything about a token or a person.

#![deny(clippy::print_stdout, clippy::print_stderr)] // `output` prints

pub mod base;
mod checkpoints;
pub mod commands;
pub mod config;
mod console;
mod control;
mod entrance;
mod environment;
pub mod gateway;
mod handbook;
mod hints;
mod http;
pub mod listen;
mod logging;
mod output;
pub mod proxies;
mod readiness;
mod rotation;
mod routes;
pub mod serve;
mod timekeeping;
pub mod tls;

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use commands::{Args, Command, check};
use config::File;

/// Runs the command that these arguments name, and says on standard error what stopped it.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let done = match Args::read(arguments) {
        Ok(args) => run(args),
        Err(other) => usage(&other),
    };
    done.unwrap_or_else(|error| {
        // One line that says what to do; the chain of causes is part of it.
        output::note!("portcullis: {error:#}");
        ExitCode::FAILURE
    })
}

/// Help that was asked for, or what is wrong with the arguments.
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

/// Runs a command to its end.
///
/// # Errors
/// Anything that stops it, worded for whoever typed it.
fn run(args: Args) -> anyhow::Result<ExitCode> {
    let file = || File::load(args.config.as_deref());
    match args.command {
        Command::Serve(options) => {
            logging::start();
            serve::run(&options, file)
        }
        Command::Check(options) => check::run(&options, file()),
        Command::SetupLink(options) => console::setup_link(&options, &file()?),
        Command::User(command) => console::people::user(command, &file()?),
        Command::Group(command) => console::people::group(command, &file()?),
        Command::Policy(command) => return console::policy::policy(command, &file()?),
        Command::Client(command) => console::clients::client(command, &file()?),
        Command::Key(command) => console::keys::key(command, &file()?),
        Command::Clock(command) => console::clock::clock(command, &file()?),
        Command::Issuer(command) => console::issuer::issuer(command, &file()?),
        Command::ResourceServer(command) => console::resource_servers::resource_server(command, &file()?),
        Command::Grant(command) => console::access::grant(command, &file()?),
        Command::Token(command) => console::access::token(command, &file()?),
        Command::Session(command) => console::access::session(command, &file()?),
        Command::Lockdown(command) => console::access::lockdown(&command, &file()?),
        Command::RegistrationToken(command) => {
            console::registration_tokens::registration_token(command, &file()?)
        }
        Command::Backup(options) => console::backup::backup(&options, &file()?),
        Command::Restore(options) => console::backup::restore(&options, &file()?),
        Command::Audit(command) => console::audit::audit(&command, &file()?),
    }?;
    Ok(ExitCode::SUCCESS)
}

//! Composition: configuration, command line, and one process made of its parts. Nothing here decides
//! anything about a token or a person.

pub mod cli;
pub mod config;
mod console;
pub mod control;
mod handbook;
mod http;
mod listen;
mod logging;
pub mod serve;

use cli::{Args, Command};

/// Runs a command to its end.
///
/// # Errors
/// Anything that stops it, worded for whoever typed it.
pub fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Serve(options) => {
            logging::start();
            serve::run(&options)
        }
        Command::SetupLink(options) => console::setup_link(&options),
        Command::Audit(command) => console::audit(&command),
    }
}

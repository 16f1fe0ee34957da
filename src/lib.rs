//! Composition: configuration, command line, and one process made of its parts. Nothing here decides
//! anything about a token or a person.

pub mod base;
mod check;
pub mod cli;
pub mod config;
mod console;
mod control;
mod entrance;
pub mod gateway;
mod handbook;
mod http;
mod listen;
mod logging;
pub mod proxies;
mod rotation;
pub mod serve;
mod timekeeping;
pub mod tls;

use cli::{Args, Command};
use config::File;

/// Runs a command to its end.
///
/// # Errors
/// Anything that stops it, worded for whoever typed it.
pub fn run(args: Args) -> anyhow::Result<()> {
    let file = File::load(args.config.as_deref());
    match args.command {
        Command::Serve(options) => {
            logging::start();
            serve::run(&options, file?)
        }
        Command::Check(options) => check::run(&options, file),
        Command::SetupLink(options) => console::setup_link(&options, &file?),
        Command::User(command) => console::people::user(command, &file?),
        Command::Group(command) => console::people::group(command, &file?),
        Command::Policy(command) => console::policy::policy(command, &file?),
        Command::Client(command) => console::clients::client(command, &file?),
        Command::Key(command) => console::keys::key(command, &file?),
        Command::Clock(command) => console::clock::clock(command, &file?),
        Command::ResourceServer(command) => console::resource_servers::resource_server(command, &file?),
        Command::Grant(command) => console::access::grant(command, &file?),
        Command::Token(command) => console::access::token(command, &file?),
        Command::Session(command) => console::access::session(command, &file?),
        Command::Lockdown(command) => console::access::lockdown(&command, &file?),
        Command::RegistrationToken(command) => {
            console::registration_tokens::registration_token(command, &file?)
        }
        Command::Audit(command) => console::audit(&command, &file?),
    }
}

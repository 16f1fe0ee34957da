//! The command line. Each noun is a file here with everything about it: options, requests to a running server,
//! execution, output. To add a noun, add a file and an entry in the list of [`Nouns`].

pub mod audit;
pub mod backup;
pub mod call;
pub mod check;
pub mod client;
pub mod clock;
pub(crate) mod frame;
pub mod grant;
pub mod group;
pub mod issuer;
pub mod key;
pub mod lockdown;
pub mod policy;
pub mod registration_token;
pub mod reload;
pub mod resource_server;
pub mod restore;
pub mod secret;
pub mod serve;
pub mod session;
pub mod setup_link;
pub mod source;
pub mod token;
pub mod user;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::File;
use crate::{environment, hints, logging};
use frame::{Handler, Noun};

/// Share MCP servers safely on a network without internet: an OAuth 2.1 authorization server with
/// passkeys, and the MCP gateway that trusts it, in one program.
#[derive(Parser, Debug)]
#[command(
    version,
    about,
    after_help = "Start with `portcullis serve`: it needs no configuration and prints what to do next."
)]
pub struct Args {
    /// The configuration. Default: portcullis.toml here, else in /etc/portcullis; none is needed.
    #[arg(long, global = true, env = "PORTCULLIS_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the server. Without options: http://localhost:8080, for this computer only.
    Serve(serve::Serve),
    /// Explain what `serve` would do with the same options: the configuration, and who may do what.
    Check(check::Check),
    /// Make the running server read its configuration again: scopes, groups, tools, profiles, clients, limits.
    /// All of it is applied in one step; if anything is wrong, nothing changes.
    Reload(reload::Reload),
    #[command(flatten)]
    Noun(Nouns),
}

/// Makes the list of nouns: the command line's subcommands and the running server's requests.
macro_rules! nouns {
    ($($(#[$about:meta])+ $name:ident($noun:ty),)+) => {
        /// All nouns.
        #[derive(Subcommand, Debug)]
        pub enum Nouns {
            $($(#[$about])+ $name($noun),)+
        }

        impl Nouns {
            const REQUESTS: &'static [&'static [Handler]] = &[$(<$noun as Noun>::REQUESTS,)+];

            fn run(self, file: &File) -> anyhow::Result<ExitCode> {
                match self {
                    $(Self::$name(noun) => noun.run(file),)+
                }
            }
        }
    };
}

nouns! {
    /// Print a link for the first administrator, or for the only one if no administrator's passkey works.
    /// Otherwise it says who can sign in, or which command helps.
    SetupLink(setup_link::SetupLink),
    /// Add users, list them, disable them, and set their groups.
    #[command(subcommand)]
    User(user::User),
    /// Show the groups.
    #[command(subcommand)]
    Group(group::Group),
    /// Show the applications that people use, verify them, disable them.
    #[command(subcommand)]
    Client(client::Client),
    /// Ask what the gate would decide, and why.
    #[command(subcommand)]
    Policy(policy::Policy),
    /// List the servers behind the gate, read the lists of one, show its recent events, restart it.
    #[command(subcommand)]
    Source(source::Source),
    /// Show the calls that run, and stop one.
    #[command(subcommand)]
    Call(call::Call),
    /// Store, list and delete secrets for the servers behind the gate.
    #[command(subcommand)]
    Secret(secret::Secret),
    /// Show the keys that sign tokens, rotate them, remove one that leaked; replace the key that seals them.
    #[command(subcommand)]
    Key(key::Key),
    /// Show the time in use, and confirm the machine's clock after it was set back.
    #[command(subcommand)]
    Clock(clock::Clock),
    /// Show the address that the data directory belongs to, or move it to another one.
    #[command(subcommand)]
    Issuer(issuer::Issuer),
    /// Let programs elsewhere check this server's tokens: resource servers and their secrets.
    #[command(subcommand, name = "rs")]
    ResourceServer(resource_server::ResourceServer),
    /// Show what people allow applications to do, and end it.
    #[command(subcommand)]
    Grant(grant::Grant),
    /// End single tokens.
    #[command(subcommand)]
    Token(token::Token),
    /// Show who is signed in with a browser, and sign them out.
    #[command(subcommand)]
    Session(session::Session),
    /// End everything at once: every token, every grant, every session, every unused link. Shows first how much
    /// that is, and asks.
    Lockdown(lockdown::Lockdown),
    /// Make tokens for registering clients, if registration requires one.
    #[command(subcommand)]
    RegistrationToken(registration_token::RegistrationToken),
    /// Copy the database into a new file, beside a running server or without one.
    Backup(backup::Backup),
    /// Replace the database by a backup. What was revoked since the backup stays revoked, and every token,
    /// session, link and code ends. Shows first what it found, and asks. No server may be running.
    Restore(restore::Restore),
    /// Read the audit log, sign and export it, or check that nobody has changed it.
    #[command(subcommand)]
    Audit(audit::Audit),
}

/// The command line, and which of its options this environment sets.
pub fn command() -> clap::Command {
    environment::without_empty(Args::command())
}

/// The handler of the request with this name on the control socket.
pub(crate) fn request(name: &str) -> Option<&'static Handler> {
    let all = Nouns::REQUESTS.iter().copied().flatten().chain(reload::REQUESTS);
    all.into_iter().find(|handler| handler.command == name)
}

impl Args {
    /// Parses the command line. Its paths are added to every command that is printed later.
    pub(crate) fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let matches = command().try_get_matches_from(arguments)?;
        hints::remember(command(), &matches);
        Self::from_arg_matches(&matches)
    }

    /// Runs the command to its end.
    ///
    /// # Errors
    /// Anything that stops it, worded for its user.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let file = || File::load(self.config.as_deref());
        match self.command {
            Command::Serve(options) => {
                logging::start();
                serve::run(&options, self.config.clone(), request)?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Check(options) => {
                check::run(&options, file())?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Reload(options) => {
                reload::run(&options, file())?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Noun(noun) => noun.run(&file()?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Nouns;

    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }

    /// ADMIN-05: the control socket finds requests by name, so names must be unique.
    #[test]
    fn every_request_has_a_name_of_its_own() {
        let mut names: Vec<&str> =
            Nouns::REQUESTS.iter().copied().flatten().map(|handler| handler.command).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}

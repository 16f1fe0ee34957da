//! The command line.

pub mod access;
pub mod audit;
pub mod backup;
pub(crate) mod check;
pub mod client;
pub mod clock;
pub mod issuer;
pub mod key;
pub mod policy;
pub mod registration_token;
pub mod resource_server;
pub mod user;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args as ClapArgs, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::File;
use crate::{environment, hints};

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

/// The command line, and which of its options this environment sets.
pub fn command() -> clap::Command {
    environment::without_empty(Args::command())
}

impl Args {
    /// Reads the command line; what it says about where things are goes into every command that is printed later.
    pub(crate) fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let matches = command().try_get_matches_from(arguments)?;
        hints::remember(command(), &matches);
        Self::from_arg_matches(&matches)
    }
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the server. With no options: http://localhost:8080, for this computer alone.
    Serve(Serve),
    /// Explain what `serve` would do with the same options: the configuration, and who may do what.
    Check(Check),
    /// Print a link for the first administrator, or for the only one where no passkey of an administrator works. Else
    /// it says who can sign in, and which command helps.
    SetupLink(user::Common),
    /// Add users, show them, stop them, and say which groups they are in.
    #[command(subcommand)]
    User(user::User),
    /// Show the groups.
    #[command(subcommand)]
    Group(user::Group),
    /// Show the applications that people use, vouch for them, stop them.
    #[command(subcommand)]
    Client(client::Client),
    /// Ask what the gate would decide, and why.
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Show the keys that sign tokens, rotate them, remove one that leaked; replace the key that seals them.
    #[command(subcommand)]
    Key(key::Key),
    /// Show the time that decides, and set it right after the machine's clock was set back.
    #[command(subcommand)]
    Clock(clock::Clock),
    /// Show the address that the data directory belongs to, or move it to another one.
    #[command(subcommand)]
    Issuer(issuer::Issuer),
    /// Let programs elsewhere check this server's tokens: resource servers, and their secrets.
    #[command(subcommand, name = "rs")]
    ResourceServer(resource_server::ResourceServer),
    /// Show what people let applications do, and end it.
    #[command(subcommand)]
    Grant(access::Grant),
    /// End single tokens.
    #[command(subcommand)]
    Token(access::Token),
    /// Show who is signed in with a browser, and sign them out.
    #[command(subcommand)]
    Session(access::Session),
    /// End everything at once: every token, every grant, every session, every unused link. Shows first how much that
    /// is, and asks.
    Lockdown(access::Lockdown),
    /// Say who may register clients, where that needs a token.
    #[command(subcommand)]
    RegistrationToken(registration_token::RegistrationToken),
    /// Copy the database into a new file, beside a running server or without one.
    Backup(backup::Backup),
    /// Put a copy in the place of the database. What was taken away since the copy stays taken away, and every token,
    /// session, link and code ends. Shows first what it found, and asks. No server may run.
    Restore(backup::Restore),
    /// Read the audit log, sign and export it, or check that nobody has changed it.
    #[command(subcommand)]
    Audit(audit::Audit),
}

#[derive(ClapArgs, Debug)]
pub struct Serve {
    #[command(flatten)]
    pub settings: Given,
    /// Print one line of JSON when ready, instead of words.
    #[arg(long)]
    pub json: bool,
}

/// One half of the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Only {
    Authz,
    Resource,
}

#[derive(ClapArgs, Debug)]
pub struct Check {
    #[command(flatten)]
    pub settings: Given,
    /// The result as JSON.
    #[arg(long)]
    pub json: bool,
}

/// What the configuration may say too; here it counts more.
#[derive(ClapArgs, Debug, Default)]
pub struct Given {
    /// Where to listen: HOST:PORT or PORT. `localhost` means both loopback addresses; port 0 picks a
    /// free one. Default: localhost:8080.
    #[arg(long, env = "PORTCULLIS_LISTEN", value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// The address people and clients know this server by. It never changes: passkeys and tokens are
    /// bound to it. Default: http://localhost with the port that is listened on.
    #[arg(long, env = "PORTCULLIS_ISSUER", value_name = "URL")]
    pub issuer: Option<String>,
    /// The certificate to speak TLS with: PEM, with those between it and the root after it. Changes are
    /// taken up without a restart.
    #[arg(long, env = "PORTCULLIS_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key: PEM, not encrypted, not readable by everybody.
    #[arg(long, env = "PORTCULLIS_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    #[command(flatten)]
    pub data: DataDirOption,
    /// A folder of Markdown, text or HTML files to search and read. Default: Portcullis' own handbook.
    #[arg(long, env = "PORTCULLIS_DOCS", value_name = "DIR")]
    pub docs: Option<PathBuf>,
    /// Run one half: `authz` signs people in and issues tokens, `resource` is the gateway for tokens of the
    /// authorization server that --issuer names. Default: both.
    #[arg(long, value_name = "HALF")]
    pub only: Option<Only>,
    /// With --only resource: the address that clients know the gateway by. Default: http://localhost with the
    /// port that is listened on.
    #[arg(long, env = "PORTCULLIS_ORIGIN", value_name = "URL")]
    pub origin: Option<String>,
}

#[derive(ClapArgs, Debug, Clone, Default)]
pub struct DataDirOption {
    /// Where everything is kept: database, keys, search index. Created if it is missing. Default:
    /// /var/lib/portcullis for root, ~/.local/share/portcullis for others.
    #[arg(long, env = "PORTCULLIS_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

impl DataDirOption {
    /// The directory: as given, else as configured, else the default.
    pub fn path(&self, file: &File) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| file.data_dir_or_default())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}

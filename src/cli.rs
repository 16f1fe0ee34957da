//! The command line.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

use crate::config;

/// Share MCP servers safely on a network without internet: an OAuth 2.1 authorization server with
/// passkeys, and the MCP gateway that trusts it, in one program.
#[derive(Parser, Debug)]
#[command(
    version,
    about,
    after_help = "Start with `portcullis serve`: it needs no configuration and prints what to do next."
)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the server. With no options: http://localhost:8080, for this computer alone.
    Serve(Serve),
    /// Print a new link for the first administrator. Works while there is none and the server runs.
    SetupLink(DataDirOption),
    /// Read the audit log, or check that nobody has changed it.
    #[command(subcommand)]
    Audit(Audit),
}

#[derive(ClapArgs, Debug)]
pub struct Serve {
    /// Where to listen: HOST:PORT or PORT. `localhost` means both loopback addresses; port 0 picks a
    /// free one.
    #[arg(long, env = "PORTCULLIS_LISTEN", default_value = "localhost:8080", value_name = "HOST:PORT")]
    pub listen: String,
    /// The address people and clients know this server by. It never changes: passkeys and tokens are
    /// bound to it. Default: http://localhost with the port that is listened on.
    #[arg(long, env = "PORTCULLIS_ISSUER", value_name = "URL")]
    pub issuer: Option<String>,
    #[command(flatten)]
    pub data: DataDirOption,
    /// A folder of Markdown, text or HTML files to search and read. Default: Portcullis' own handbook.
    #[arg(long, env = "PORTCULLIS_DOCS", value_name = "DIR")]
    pub docs: Option<PathBuf>,
    /// Print one line of JSON when ready, instead of words.
    #[arg(long)]
    pub json: bool,
}

#[derive(ClapArgs, Debug, Clone)]
pub struct DataDirOption {
    /// Where everything is kept: database, keys, search index. Created if it is missing.
    #[arg(long, env = "PORTCULLIS_DATA_DIR", default_value_os_t = config::default_data_dir(), value_name = "DIR")]
    pub data_dir: PathBuf,
}

#[derive(Subcommand, Debug)]
pub enum Audit {
    /// Print the last records, oldest first.
    Tail(Tail),
    /// Check every record against the chain; name the first that was changed, moved or removed.
    Verify(Verify),
}

#[derive(ClapArgs, Debug)]
pub struct Tail {
    /// How many records.
    #[arg(short = 'n', long, default_value_t = 20, value_name = "COUNT")]
    pub lines: u32,
    /// Go on printing as records are written, until interrupted.
    #[arg(short, long)]
    pub follow: bool,
    /// One line of JSON for each record.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub data: DataDirOption,
}

#[derive(ClapArgs, Debug)]
pub struct Verify {
    /// The result as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub data: DataDirOption,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Args::command().debug_assert();
    }
}

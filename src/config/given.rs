//! The command line options that are also in the configuration, and take precedence.

use std::path::PathBuf;

use clap::Args;

/// One half of the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum OneHalf {
    Authz,
    Resource,
}

/// Options that are also in the configuration, and take precedence.
#[derive(Args, Debug, Clone, Default)]
pub struct CommandLineOptions {
    /// Where to listen: HOST:PORT or PORT. `localhost` means both loopback addresses; port 0 picks a
    /// free one. Default: localhost:8080.
    #[arg(long, env = "PORTCULLIS_LISTEN", value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// The address that people and clients know this server by. It never changes: passkeys and tokens are bound
    /// to it. Default: http://localhost with the port it listens on.
    #[arg(long, env = "PORTCULLIS_ISSUER", value_name = "URL")]
    pub issuer: Option<String>,
    /// The TLS certificate: PEM, followed by its chain. Changes are applied without a restart.
    #[arg(long, env = "PORTCULLIS_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key: PEM, not encrypted, not readable by other users.
    #[arg(long, env = "PORTCULLIS_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    #[command(flatten)]
    pub data: DataDirOption,
    /// A folder of Markdown, text or HTML files to search and read. Default: Portcullis' own handbook.
    #[arg(long, env = "PORTCULLIS_DOCS", value_name = "DIR")]
    pub docs: Option<PathBuf>,
    /// Run one half: `authz` signs people in and issues tokens, `resource` is the gateway for tokens of the
    /// authorization server named by --issuer. Default: both.
    #[arg(long, value_name = "HALF")]
    pub only: Option<OneHalf>,
    /// With --only resource: the address that clients know the gateway by. Default: http://localhost with the
    /// port it listens on.
    #[arg(long, env = "PORTCULLIS_ORIGIN", value_name = "URL")]
    pub origin: Option<String>,
}

#[derive(Args, Debug, Clone, Default)]
pub struct DataDirOption {
    /// The data directory: database, keys, search index. Created if it is missing. Default: /var/lib/portcullis
    /// for root, ~/.local/share/portcullis for others.
    #[arg(long, env = "PORTCULLIS_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

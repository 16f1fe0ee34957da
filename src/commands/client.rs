//! Commands about clients.

pub mod document;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::user::Common;
use crate::config::duration;
use document::ClientDocument;

#[derive(Subcommand, Debug)]
pub enum Client {
    /// Add a client, and print its id, and its secret if it has one.
    Add(Add),
    /// Give a client a new secret, and print it. The one before goes on for a while.
    RotateSecret(RotateSecret),
    /// Print a new secret, and the SHA-256 of it to write into portcullis.toml. Nothing is stored.
    NewSecret(NewSecret),
    /// Show every client: how it became known, how far it is trusted, how many people use it.
    List(Common),
    /// Show all about one client: where its answers go, what it may ask for, its secrets' ages, and who uses it.
    Show(One),
    /// Vouch for a client: its answers may go to every redirect URI that it registered, and people may grant it
    /// high-risk scopes.
    Verify(One),
    /// Vouch for it no more. What people granted it ends.
    Unverify(One),
    /// Stop a client: from the next request on no token of its works, and what people granted it ends.
    Disable(One),
    /// Let a client in again. Its users sign in anew.
    Enable(One),
    /// Remove a client with everything that people granted it. The audit log keeps what it did.
    Delete(Delete),
    #[command(flatten)]
    Document(ClientDocument),
}

#[derive(Args, Debug)]
pub struct One {
    /// The client's id, or its name if no other has the same.
    #[arg(value_name = "CLIENT")]
    pub client: String,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Args, Debug)]
pub struct Delete {
    /// The client's id, or its name if no other has the same.
    #[arg(value_name = "CLIENT")]
    pub client: String,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Without --grant, a client with redirect URIs gets authorization_code and refresh_token.\n\nExamples:\n  portcullis client add \"Ticket portal\" --redirect-uri https://tickets.lab.internal/oauth/callback --secret\n  portcullis client add \"Nightly report\" --jwks report.jwks --client-credentials --scope docs.read"
)]
pub struct Add {
    /// What people read when it asks them for something.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Where its answers go, byte for byte; of http://localhost, http://127.0.0.1 and http://[::1] the port may
    /// differ. May be given more than once.
    #[arg(long = "redirect-uri", value_name = "URI")]
    pub redirect_uris: Vec<String>,
    #[command(flatten)]
    pub proof: Proof,
    /// What it may come with to the token endpoint: authorization_code, refresh_token, client_credentials,
    /// device_code. May be given more than once. Default: what follows from the other options.
    #[arg(long = "grant", value_name = "GRANT")]
    pub grants: Vec<String>,
    /// It may get tokens in its own name, for what --scope says.
    #[arg(long, requires = "scopes")]
    pub client_credentials: bool,
    /// A scope that it may have in its own name. May be given more than once.
    #[arg(long = "scope", requires = "client_credentials", value_name = "SCOPE")]
    pub scopes: Vec<String>,
    /// It may be used on terminals without a browser.
    #[arg(long)]
    pub device: bool,
    #[command(flatten)]
    pub common: Common,
}

/// How it proves who it is.
#[derive(Args, Debug)]
pub struct Proof {
    /// It runs where nothing can be kept secret, and proves nothing. This is what it is if nothing is said.
    #[arg(long)]
    pub public: bool,
    /// It authenticates by a secret, which is made here and printed once.
    #[arg(long, conflicts_with = "public")]
    pub secret: bool,
    /// It authenticates by a key of its own (private_key_jwt): a file with its public keys as a JWK set.
    #[arg(long, conflicts_with_all = ["public", "secret"], value_name = "FILE")]
    pub jwks: Option<PathBuf>,
    /// When its secret ends, such as 90d. Default: never.
    #[arg(long, requires = "secret", value_name = "TIME", value_parser = duration::parse_some)]
    pub expires: Option<Duration>,
}

#[derive(Args, Debug)]
pub struct RotateSecret {
    /// The client's id, or its name if no other has the same.
    #[arg(value_name = "CLIENT")]
    pub client: String,
    /// How long the secret before goes on, such as 24h; 0 ends it at once.
    #[arg(long, default_value = "24h", value_name = "TIME", value_parser = duration::parse)]
    pub overlap: Duration,
    /// When the new secret ends, such as 90d. Default: never.
    #[arg(long, value_name = "TIME", value_parser = duration::parse_some)]
    pub expires: Option<Duration>,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Args, Debug)]
pub struct NewSecret {
    /// The result as JSON.
    #[arg(long)]
    pub json: bool,
}

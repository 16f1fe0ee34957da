//! Commands about resource servers elsewhere.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::user::Common;
use crate::config::duration;

#[derive(Subcommand, Debug)]
#[command(
    after_help = "A resource server is a program on another machine that accepts this server's tokens and checks them at /introspect."
)]
pub enum ResourceServer {
    /// Add a resource server, and print its id and secret. Clients can then ask for tokens for what it serves.
    Add(Add),
    /// Show every resource server.
    List(Common),
    /// Show one resource server: what it may ask about, and its secrets' ages.
    Show(One),
    /// Give a resource server a new secret, and print it. The one before goes on for a while.
    RotateSecret(RotateSecret),
    /// Remove a resource server: from the next request on it learns nothing.
    Delete(Delete),
}

#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  portcullis rs add wiki --audience https://wiki.lab.internal/mcp\n\nThe audience is the `resource` that clients ask tokens for, and the `aud` of those tokens."
)]
pub struct Add {
    /// What it is called here and on the consent page.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// What it serves: it learns of tokens for this URL. May be given more than once.
    #[arg(long = "audience", value_name = "URL", required = true)]
    pub audiences: Vec<String>,
    /// A file with its public keys (a JWK set), with which it signs assertions. It gets no secret then.
    #[arg(long, value_name = "FILE")]
    pub jwks: Option<PathBuf>,
    /// It does not introspect: it looks at a token's signature and expiry alone, and so accepts a revoked token
    /// until it expires. It gets no secret, and refresh tokens for what it serves work once.
    #[arg(long, conflicts_with = "jwks")]
    pub expiry_only: bool,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Args, Debug)]
pub struct One {
    /// The resource server's name or id.
    #[arg(value_name = "NAME")]
    pub name: String,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Args, Debug)]
pub struct Delete {
    /// The resource server's name or id.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Args, Debug)]
pub struct RotateSecret {
    /// The resource server's name or id.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// How long the secret before goes on, such as 24h; 0 ends it at once.
    #[arg(long, default_value = "24h", value_name = "TIME", value_parser = duration::parse)]
    pub overlap: Duration,
    #[command(flatten)]
    pub common: Common,
}

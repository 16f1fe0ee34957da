//! Commands about who may do what at this moment.

use clap::{Args, Subcommand};

use super::user::Common;

#[derive(Subcommand, Debug)]
pub enum Grant {
    /// Show what people let applications do, the newest first; a thousand at most.
    List(GrantList),
    /// End one: from the next request on none of its tokens works, and its application has to ask again.
    Revoke(GrantRevoke),
}

#[derive(Args, Debug)]
pub struct GrantList {
    /// Only what this user did: a name or an id.
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// Only of this application: an id, or a name that only one has.
    #[arg(long, value_name = "CLIENT")]
    pub client: Option<String>,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Args, Debug)]
pub struct GrantRevoke {
    /// The grant's id, as `grant list`, the audit log and the token itself (`grant_id`) have it.
    #[arg(value_name = "GRANT")]
    pub grant: String,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Subcommand, Debug)]
pub enum Token {
    /// End one access token; its grant goes on. With a refresh token, end its grant.
    #[command(
        after_help = "Examples:\n  portcullis token revoke 3yuupoygj2bnrezpak254f2sjy.1\n  portcullis token revoke < file-with-the-token"
    )]
    Revoke(TokenRevoke),
}

#[derive(Args, Debug)]
pub struct TokenRevoke {
    /// The token's `jti`, as the audit log has it. Without it the token itself is read from standard input: on
    /// the command line others could read it.
    #[arg(value_name = "JTI")]
    pub jti: Option<String>,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Subcommand, Debug)]
pub enum Session {
    /// Show the browsers that are signed in, the newest first.
    List(SessionList),
    /// Sign a browser out, or all of a user's. What they let applications do goes on.
    End(SessionEnd),
}

#[derive(Args, Debug)]
pub struct SessionList {
    /// Only this user's: a name or an id.
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Args, Debug)]
pub struct SessionEnd {
    /// The session's id, as `session list` shows it.
    #[arg(value_name = "SESSION", required_unless_present = "user", conflicts_with = "user")]
    pub session: Option<String>,
    /// All sessions of this user: a name or an id.
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Args, Debug)]
#[command(
    after_help = "It ends every token and code issued so far, browser sessions, pending requests, remembered decisions, unused links\nand registration tokens. Passkeys, clients and their secrets stay: people sign in again, and applications ask\nthem again. To stop a person, a client or a key that you no longer trust, use `user disable`, `client disable` or\n`key remove`."
)]
pub struct Lockdown {
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub common: Common,
}

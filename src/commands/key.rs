//! Commands about the keys that sign tokens.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use keys::Algorithm;

use super::user::Common;

#[derive(Subcommand, Debug)]
pub enum Key {
    /// Show the signing keys: which one signs, which follows and when, which are kept for tokens that are out.
    List(Common),
    /// Replace a signing key ahead of its time. The new one is published at once and signs as soon as no
    /// cache can be without it: in ten minutes, unless `jwks_max_age` says otherwise. No token is refused.
    Rotate(Rotate),
    /// Remove a signing key that somebody may have copied. Every token that it signed is refused from then on,
    /// by this server at once. Shows first whom that hits, and asks.
    Remove(Remove),
    /// Replace the key that seals the others in the database (`seal.key`), and seal them anew with it. Nothing
    /// is refused, and it can be interrupted at any moment. A copy of the database from before opens only with
    /// the old key.
    Reseal(Reseal),
}

#[derive(Args, Debug)]
pub struct Rotate {
    /// Whose key: ES256, RS256 or EdDSA. Default: what tokens are signed with.
    #[arg(long, value_name = "ALG")]
    pub alg: Option<Algorithm>,
    /// Sign with the new key from this moment on. Resource servers elsewhere refuse new tokens until they have
    /// fetched the key set again: up to `jwks_max_age`, 5 minutes.
    #[arg(long)]
    pub now: bool,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Args, Debug)]
pub struct Remove {
    /// The key's name, as `key list` shows it.
    // A name is base64url, so that it may begin with a hyphen.
    #[arg(long, value_name = "KID", allow_hyphen_values = true)]
    pub kid: String,
    /// Why, for the audit log.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub reason: String,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Args, Debug)]
pub struct Reseal {
    /// A new file for a copy of the old key: backups made before need it.
    #[arg(long, value_name = "FILE")]
    pub keep: Option<PathBuf>,
    /// A new file for the new key, instead of the file of the old one. A service manager's credential needs it:
    /// give the file to the service manager before the next start.
    #[arg(long, value_name = "FILE")]
    pub new: Option<PathBuf>,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub common: Common,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::commands::{Args, Command};

    /// KEYS-04: one key in 64 has a name that begins with a hyphen.
    #[test]
    fn a_name_may_begin_with_a_hyphen() {
        let words = ["portcullis", "key", "remove", "--kid", "-FfKn9", "--reason", "-", "--yes"];
        let Command::Key(Key::Remove(remove)) = Args::try_parse_from(words).unwrap().command else {
            panic!("it is another command")
        };
        assert_eq!((remove.kid.as_str(), remove.reason.as_str(), remove.yes), ("-FfKn9", "-", true));
    }
}

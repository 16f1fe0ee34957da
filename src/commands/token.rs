//! `portcullis token …`: single tokens.

use std::io::Read;
use std::process::ExitCode;

use anyhow::{Context, bail};
use authz::access::{self, EndedToken, NamedToken};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::frame::print::safe;
use super::frame::{CommonOptions, Handler, Noun, Refused, Request, ServerParts};
use crate::config::File;
use crate::output::say;

/// The longest token in bytes.
const LONGEST: u64 = 64 << 10;

#[derive(Subcommand, Debug)]
pub enum Token {
    /// End one access token; its grant continues. With a refresh token, end its grant.
    #[command(
        after_help = "Examples:\n  portcullis token revoke 3yuupoygj2bnrezpak254f2sjy.1\n  portcullis token revoke < file-with-the-token"
    )]
    Revoke(Revoke),
}

#[derive(Args, Debug)]
pub struct Revoke {
    /// The token's `jti`, as in the audit log. Without it the token itself is read from standard input, because
    /// others could read it on the command line.
    #[arg(value_name = "JTI")]
    pub jti: Option<String>,
    #[command(flatten)]
    pub common: CommonOptions,
}

/// `portcullis token revoke`.
#[derive(Debug, Serialize, Deserialize)]
struct RevokeToken {
    token: String,
}

#[derive(Serialize, Deserialize)]
struct Revoked {
    revoked: EndedToken,
}

impl Request for RevokeToken {
    const COMMAND: &'static str = "token-revoke";
    type Answer = Revoked;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<Revoked, Refused> {
        let named = NamedToken::read(&place.authority()?.authz, &self.token);
        let revoked = place.write(move |authz, tx| access::revoke_token(authz, tx, uid, &named)).await?;
        Ok(Revoked { revoked })
    }
}

impl Noun for Token {
    const REQUESTS: &'static [Handler] = &[Handler::of::<RevokeToken>()];

    fn run(self, file: &File) -> anyhow::Result<ExitCode> {
        let Self::Revoke(command) = self;
        let token = match command.jti {
            // A whole token would be in the shell's history and in the list of processes.
            Some(jti) if jti.starts_with("ey") || jti.starts_with("rt_") => {
                bail!(
                    "give a token on standard input, not on the command line: portcullis token revoke < FILE"
                )
            }
            Some(jti) => jti,
            None => from_stdin()?,
        };
        command.common.run(file, RevokeToken { token }, |answer| match &answer.revoked {
            EndedToken::Grant(grant) => say!("That was a refresh token. Its grant {grant} is revoked."),
            EndedToken::AccessToken(jti) => {
                say!("Revoked: {}. Its grant stays active; `portcullis grant revoke` ends it.", safe(jti))
            }
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

fn from_stdin() -> anyhow::Result<String> {
    let mut token = String::new();
    std::io::stdin().take(LONGEST).read_to_string(&mut token).context("standard input cannot be read")?;
    if token.trim().is_empty() {
        bail!("standard input is empty; give a jti, or a token on standard input");
    }
    Ok(token.trim().to_owned())
}

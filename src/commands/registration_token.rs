//! `portcullis registration-token …`: initial access tokens.

use std::process::ExitCode;
use std::time::Duration;

use authz::clients::initial_access::{self, InitialAccessToken};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::frame::confirm::confirm;
use super::frame::print::{moment, safe, table};
use super::frame::{CommonOptions, Effect, Handler, Noun, Refused, Request, ServerParts};
use crate::config::{File, duration};
use crate::output::{note, say};

#[derive(Subcommand, Debug)]
pub enum RegistrationToken {
    /// Make a token, and print it. Clients that have it may register until it expires.
    Add(Add),
    /// List the valid tokens, without the tokens themselves: those are shown only once.
    List(CommonOptions),
    /// Delete a token. The clients that were registered with it stay.
    Delete(Delete),
}

#[derive(Args, Debug)]
#[command(
    after_help = "Clients need such a token if portcullis.toml says [registration] mode = \"token\". They send it to /register as\n\n  Authorization: Bearer iat_…"
)]
pub struct Add {
    /// Its purpose, such as the team that gets it: the audit log names it for each client registered with the
    /// token.
    #[arg(value_name = "LABEL")]
    pub label: String,
    /// Its lifetime: a number with d, h, m or s.
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = duration::parse_some)]
    pub expires: Duration,
    #[command(flatten)]
    pub common: CommonOptions,
}

#[derive(Args, Debug)]
pub struct Delete {
    /// The token's label.
    #[arg(value_name = "LABEL")]
    pub label: String,
    /// Do not ask for confirmation.
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub common: CommonOptions,
}

/// `portcullis registration-token add`.
#[derive(Debug, Serialize, Deserialize)]
struct AddToken {
    label: String,
    /// Its lifetime in milliseconds.
    lifetime_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct Added {
    registration_token: InitialAccessToken,
    initial_access_token: String,
    needed: bool,
}

impl Request for AddToken {
    const COMMAND: &'static str = "registration-token-add";
    const DOES: Effect = Effect::HandsOut;
    type Answer = Added;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<Added, Refused> {
        let needed = initial_access::are_needed(&place.authority()?.authz);
        let lifetime = Duration::from_millis(self.lifetime_ms);
        let added = place.write(move |_, tx| initial_access::add(tx, uid, &self.label, lifetime));
        let (registration_token, secret) = added.await?;
        Ok(Added { registration_token, initial_access_token: secret.expose().to_owned(), needed })
    }
}

/// `portcullis registration-token list`.
#[derive(Debug, Serialize, Deserialize)]
struct ListTokens {}

#[derive(Serialize, Deserialize)]
struct Listed {
    registration_tokens: Vec<InitialAccessToken>,
    needed: bool,
}

impl Request for ListTokens {
    const COMMAND: &'static str = "registration-token-list";
    const DOES: Effect = Effect::Reads;
    type Answer = Listed;

    async fn perform(self, place: &ServerParts, _uid: u32) -> Result<Listed, Refused> {
        let needed = initial_access::are_needed(&place.authority()?.authz);
        let registration_tokens = place.look(|_, tx| initial_access::list(tx)).await?;
        Ok(Listed { registration_tokens, needed })
    }
}

/// `portcullis registration-token delete`.
#[derive(Debug, Serialize, Deserialize)]
struct DeleteToken {
    label: String,
}

#[derive(Serialize, Deserialize)]
struct Deleted {
    deleted: String,
}

impl Request for DeleteToken {
    const COMMAND: &'static str = "registration-token-delete";
    type Answer = Deleted;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<Deleted, Refused> {
        let label = self.label.clone();
        place.write(move |_, tx| initial_access::delete(tx, uid, &label)).await?;
        Ok(Deleted { deleted: self.label })
    }
}

impl Noun for RegistrationToken {
    const REQUESTS: &'static [Handler] =
        &[Handler::of::<AddToken>(), Handler::of::<ListTokens>(), Handler::of::<DeleteToken>()];

    fn run(self, file: &File) -> anyhow::Result<ExitCode> {
        match self {
            Self::Add(c) => {
                let lifetime_ms = u64::try_from(c.expires.as_millis()).unwrap_or(u64::MAX);
                c.common.run(file, AddToken { label: c.label, lifetime_ms }, |added| {
                    let until = moment(added.registration_token.expires_at);
                    let secret = &added.initial_access_token;
                    say!("It works until {until}, and is shown this once:\n\n  {secret}")?;
                    say_if_needed(added.needed);
                    Ok(())
                })
            }
            Self::List(common) => common.run(file, ListTokens {}, |listed| {
                table(&["LABEL", "MADE", "WORKS UNTIL", "SHA-256"], &listed.registration_tokens, row)?;
                say_if_needed(listed.needed);
                Ok(())
            }),
            Self::Delete(c) => {
                confirm(c.yes, &format!("The token `{}` will no longer register clients.", c.label))?;
                c.common.run(file, DeleteToken { label: c.label }, |_| {
                    say!("Registration token deleted. It no longer registers clients.")
                })
            }
        }?;
        Ok(ExitCode::SUCCESS)
    }
}

fn say_if_needed(needed: bool) {
    if !needed {
        note!(
            "\nRegistration does not require a token at the moment: [registration] in portcullis.toml does not say mode = \"token\"."
        );
    }
}

fn row(token: &InitialAccessToken) -> Vec<String> {
    let digest = format!("{}…", safe(&token.sha256_8));
    vec![safe(&token.label), moment(token.created_at), moment(token.expires_at), digest]
}

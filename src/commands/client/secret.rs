//! `portcullis client rotate-secret` and `portcullis client new-secret`.

use std::time::Duration;

use authz::clients::administration::{self, Details};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::{Secret, Timestamp};

use super::describe;
use crate::commands::frame::print::moment;
use crate::commands::frame::{CommonOptions, Effect, Refused, Request, ServerParts};
use crate::config::{File, duration};
use crate::output::{self, say};

#[derive(Args, Debug)]
pub struct RotateSecret {
    /// The client's id, or its name if no other has the same.
    #[arg(value_name = "CLIENT")]
    pub client: String,
    /// How long the previous secret keeps working, such as 24h; 0 ends it at once.
    #[arg(long, default_value = "24h", value_name = "TIME", value_parser = duration::parse)]
    pub overlap: Duration,
    /// When the new secret ends, such as 90d. Default: never.
    #[arg(long, value_name = "TIME", value_parser = duration::parse_some)]
    pub expires: Option<Duration>,
    #[command(flatten)]
    pub common: CommonOptions,
}

#[derive(Args, Debug)]
pub struct NewSecret {
    /// The result as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `portcullis client rotate-secret`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RotateClientSecret {
    client: String,
    overlap_ms: u64,
    lifetime_ms: Option<u64>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Rotated {
    client: Details,
    client_secret: String,
    previous_ends_at: Option<Timestamp>,
}

impl Request for RotateClientSecret {
    const COMMAND: &'static str = "client-rotate-secret";
    const DOES: Effect = Effect::HandsOut;
    type Answer = Rotated;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<Rotated, Refused> {
        let Self { client, overlap_ms, lifetime_ms } = self;
        let (overlap, lifetime) = (Duration::from_millis(overlap_ms), lifetime_ms.map(Duration::from_millis));
        let issued = place.write(move |authz, tx| {
            administration::rotate_secret(authz, tx, uid, &client, overlap, lifetime)
        });
        let issued = issued.await?;
        Ok(Rotated {
            client: issued.client,
            client_secret: issued.secret.expose().to_owned(),
            previous_ends_at: issued.previous_ends_at,
        })
    }
}

/// Makes a secret for the configuration: the file gets its digest, the client gets the secret.
pub(super) fn new_secret(as_json: bool) -> anyhow::Result<()> {
    let secret = Secret::random("cs_");
    let digest = secret.digest().hex();
    if as_json {
        output::json(&json!({ "client_secret": secret.expose(), "secret_sha256": digest }))
    } else {
        say!("For the client:        {}", secret.expose())?;
        say!("For portcullis.toml:   secret_sha256 = \"{digest}\"")
    }
}

pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn rotate_secret(command: RotateSecret, file: &File) -> anyhow::Result<()> {
    let (overlap_ms, lifetime_ms) = (milliseconds(command.overlap), command.expires.map(milliseconds));
    let request = RotateClientSecret { client: command.client, overlap_ms, lifetime_ms };
    command.common.run(file, request, |rotated| {
        describe(&rotated.client)?;
        hand_out(&rotated.client_secret)?;
        match rotated.previous_ends_at {
            Some(at) => say!("\nThe previous secret ends {}.", moment(at.0)),
            None => say!("\nEarlier secrets no longer work."),
        }
    })
}

pub(super) fn hand_out(secret: &str) -> anyhow::Result<()> {
    say!("\nIts secret is shown this once:\n\n  {secret}")
}

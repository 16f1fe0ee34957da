//! `portcullis clock …`: the machine's clock, and the time in use (OPS-04).

use std::process::ExitCode;

use authz::timekeeping;
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use shared::timekeeping::Time;

use super::frame::confirm::confirm;
use super::frame::print::moment;
use super::frame::{CommonOptions, Effect, Handler, Noun, Refused, Request, ServerParts};
use crate::config::File;
use crate::output::say;

#[derive(Subcommand, Debug)]
pub enum Clock {
    /// Show the time in use and the machine's clock, and whether tokens are issued.
    Show(CommonOptions),
    /// Confirm that the machine's clock is right although it was set back, so that tokens are issued again at
    /// once. What was made while it was ahead ends: grants, sessions, and every access token.
    Confirm(Confirm),
}

#[derive(Args, Debug)]
pub struct Confirm {
    /// Do not ask for confirmation.
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub common: CommonOptions,
}

/// `portcullis clock show`.
#[derive(Debug, Serialize, Deserialize)]
struct ShowClock {}

#[derive(Serialize, Deserialize)]
struct ClockStatus {
    time: Time,
    /// Whether this is a gateway alone, which issues nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    gateway: bool,
}

impl Request for ShowClock {
    const COMMAND: &'static str = "clock-show";
    const DOES: Effect = Effect::Reads;
    const AT_GATEWAY: bool = true;
    type Answer = ClockStatus;

    async fn perform(self, place: &ServerParts, _uid: u32) -> Result<ClockStatus, Refused> {
        Ok(ClockStatus { time: Time::of(&place.clock), gateway: place.authority.is_none() })
    }
}

/// `portcullis clock confirm`.
#[derive(Debug, Serialize, Deserialize)]
struct ConfirmClock {}

#[derive(Serialize, Deserialize)]
struct ClockConfirmed {
    confirmed: Confirmed,
}

/// What it ended: at an authorization server, or at a gateway alone.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Confirmed {
    Server(timekeeping::Confirmed),
    Gateway(resource::timekeeping::Confirmed),
}

impl Request for ConfirmClock {
    const COMMAND: &'static str = "clock-confirm";
    const AT_GATEWAY: bool = true;
    type Answer = ClockConfirmed;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<ClockConfirmed, Refused> {
        let confirmed = if place.authority.is_some() {
            let made = place.blocking(timekeeping::prepare).await??;
            let confirmed = place.write(move |authz, tx| timekeeping::confirm(authz, tx, uid, &made));
            Confirmed::Server(confirmed.await?)
        } else {
            let clock = place.clock.clone();
            let confirmed = place.db.write(move |tx| resource::timekeeping::confirm(tx, &clock, uid)).await?;
            Confirmed::Gateway(confirmed.map_err(|refusal| Refused::by_rule(&refusal))?)
        };
        Ok(ClockConfirmed { confirmed })
    }
}

impl Noun for Clock {
    const REQUESTS: &'static [Handler] = &[Handler::of::<ShowClock>(), Handler::of::<ConfirmClock>()];

    fn run(self, file: &File) -> anyhow::Result<ExitCode> {
        match self {
            Self::Show(common) => common.run(file, ShowClock {}, describe),
            Self::Confirm(command) => set_right(command, file),
        }?;
        Ok(ExitCode::SUCCESS)
    }
}

fn describe(shown: &ClockStatus) -> anyhow::Result<()> {
    let ClockStatus { time, gateway } = shown;
    say!("Time in use  {}", moment(time.now.0))?;
    say!("The machine's clock    {}", moment(time.clock.0))?;
    if time.paused && *gateway {
        say!(
            "\nThe clock was set back. Tokens are checked by the time that decides, until the clock is set right, or confirmed."
        )?;
    } else if time.paused {
        say!("\nThe clock was set back. Nothing is issued until it is set right, or confirmed.")?;
    }
    Ok(())
}

fn set_right(command: Confirm, file: &File) -> anyhow::Result<()> {
    let Confirm { yes, common } = command;
    let shown = common.ask(file, ShowClock {})?;
    if !common.json {
        describe(&shown)?;
        say!()?;
    }
    let warning = if shown.gateway {
        "This says that the machine's clock is right and the earlier time was wrong. Tokens are then checked by the\n\
         machine's clock, and MCP sessions made in that later time end."
    } else {
        "This says that the machine's clock is right and the earlier time was wrong. Grants, sessions and links made in\n\
         that later time end, and no earlier access token is accepted. Clients fetch new ones; people who signed in\n\
         during that time sign in again."
    };
    confirm(yes, warning)?;
    common.run(file, ConfirmClock {}, |answer| match &answer.confirmed {
        Confirmed::Gateway(confirmed) => say!(
            "Tokens are checked by the machine's clock. Ended: {} MCP sessions.",
            confirmed.sessions_ended
        ),
        Confirmed::Server(confirmed) => say!(
            "Tokens are issued again. Ended: {} grants, {} sessions; {} signing keys replaced.",
            confirmed.grants_ended,
            confirmed.sessions_ended,
            confirmed.keys_replaced
        ),
    })
}

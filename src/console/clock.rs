//! `portcullis clock …`.

use serde_json::Value;

use super::confirm::confirm;
use super::execute;
use super::print::moment;
use crate::cli::clock::{Clock, Confirm};
use crate::cli::people::Common;
use crate::config::File;
use crate::control::{self, clock::Request};
use crate::output::{self, say};

/// `portcullis clock …`.
pub(crate) fn clock(command: Clock, file: &File) -> anyhow::Result<()> {
    match command {
        Clock::Show(common) => show(&common, file),
        Clock::Confirm(command) => set_right(command, file),
    }
}

fn ask(common: &Common, request: Request, file: &File) -> anyhow::Result<Value> {
    execute(&common.data.path(file), control::Request::Clock(request), file)
}

fn show(common: &Common, file: &File) -> anyhow::Result<()> {
    let answer = ask(common, Request::Show, file)?;
    if common.json {
        output::json(&answer)?;
        return Ok(());
    }
    describe(&answer["time"])
}

fn describe(time: &Value) -> anyhow::Result<()> {
    say!("The time that decides  {}", moment(&time["now"]))?;
    say!("The machine's clock    {}", moment(&time["clock"]))?;
    if time["paused"] == true {
        say!("\nThe clock was set back. Nothing is issued until it has caught up, or is confirmed.")?;
    }
    Ok(())
}

fn set_right(command: Confirm, file: &File) -> anyhow::Result<()> {
    let Confirm { yes, common } = command;
    if !common.json {
        describe(&ask(&common, Request::Show, file)?["time"])?;
        say!()?;
    }
    confirm(
        yes,
        "If the machine's clock is right, the time before was not. Grants, sessions and links that were made in the\n\
         time that is yet to come end, and no access token is accepted any more. Clients fetch new ones; who was let\n\
         in meanwhile signs in again.",
    )?;
    let answer = ask(&common, Request::Confirm, file)?;
    if common.json {
        output::json(&answer)?;
        return Ok(());
    }
    let confirmed = &answer["confirmed"];
    say!(
        "Tokens are issued again. Ended: {} grants, {} sessions; {} signing keys replaced.",
        confirmed["grants_ended"],
        confirmed["sessions_ended"],
        confirmed["keys_replaced"]
    )?;
    Ok(())
}

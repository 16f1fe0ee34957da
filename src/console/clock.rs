//! `portcullis clock …`.

use serde_json::Value;

use super::confirm::confirm;
use super::execute;
use super::print::moment;
use crate::commands::clock::{Clock, Confirm};
use crate::commands::user::Common;
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
    describe(&answer)
}

fn describe(answer: &Value) -> anyhow::Result<()> {
    let time = &answer["time"];
    say!("Time in use  {}", moment(&time["now"]))?;
    say!("The machine's clock    {}", moment(&time["clock"]))?;
    if time["paused"] == true && is_gateway(answer) {
        say!(
            "\nThe clock was set back. Tokens are checked by the time that decides, until the clock is set right, or confirmed."
        )?;
    } else if time["paused"] == true {
        say!("\nThe clock was set back. Nothing is issued until it is set right, or confirmed.")?;
    }
    Ok(())
}

fn is_gateway(answer: &Value) -> bool {
    answer["gateway"] == true
}

fn set_right(command: Confirm, file: &File) -> anyhow::Result<()> {
    let Confirm { yes, common } = command;
    let shown = ask(&common, Request::Show, file)?;
    if !common.json {
        describe(&shown)?;
        say!()?;
    }
    let warning = if is_gateway(&shown) {
        "This says that the machine's clock is right and the earlier time was wrong. Tokens are then checked by the\n\
         machine's clock, and MCP sessions made in that later time end."
    } else {
        "This says that the machine's clock is right and the earlier time was wrong. Grants, sessions and links made in\n\
         that later time end, and no earlier access token is accepted. Clients fetch new ones; people who signed in\n\
         during that time sign in again."
    };
    confirm(yes, warning)?;
    let answer = ask(&common, Request::Confirm, file)?;
    if common.json {
        output::json(&answer)?;
        return Ok(());
    }
    let confirmed = &answer["confirmed"];
    if is_gateway(&shown) {
        return say!(
            "Tokens are checked by the machine's clock. Ended: {} MCP sessions.",
            confirmed["sessions_ended"]
        );
    }
    say!(
        "Tokens are issued again. Ended: {} grants, {} sessions; {} signing keys replaced.",
        confirmed["grants_ended"],
        confirmed["sessions_ended"],
        confirmed["keys_replaced"]
    )?;
    Ok(())
}

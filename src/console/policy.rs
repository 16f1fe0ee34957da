//! `portcullis policy …`.

use std::process::ExitCode;

use serde_json::Value;

use super::execute;
use super::print::{list, or_dash, text};
use crate::commands::policy::{Check, Policy};
use crate::config::File;
use crate::control::{self, policy::Request};
use crate::output::{self, say};

/// `portcullis policy …`.
pub(crate) fn policy(command: Policy, file: &File) -> anyhow::Result<ExitCode> {
    match command {
        Policy::Check(command) => check(command, file),
    }
}

/// Leaves with 1 if the answer is no, so that a script can ask.
fn check(command: Check, file: &File) -> anyhow::Result<ExitCode> {
    let Check { user, tool, client, common } = command;
    let request = control::Request::PolicyCheck(Request { user, tool, client });
    let answer = execute(&common.data.path(file), request, file)?;
    if common.json {
        output::json(&answer)?;
    } else {
        explain(&answer)?;
    }
    Ok(if answer["allowed"] == true { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn explain(answer: &Value) -> anyhow::Result<()> {
    let (user, tool, client) = (&answer["user"], &answer["tool"], &answer["client"]);
    let may = if answer["allowed"] == true { "may call" } else { "may not call" };
    say!("{} {may} {} ({})", text(user, "name"), text(tool, "name"), text(answer, "decision"))?;
    say!("  rule      {}", text(answer, "rule"))?;
    let needs = if tool["needs"].is_null() { "no scope".to_owned() } else { or_dash(text(tool, "needs")) };
    say!("  needs     {needs}")?;
    say!("  groups    {}", list(&user["groups"]))?;
    say!("  entitled  {}", or_dash(text(user, "entitled")))?;
    if !client.is_null() {
        let granted = if client["granted"].is_null() {
            "nothing granted yet; decided as if everything were granted".to_owned()
        } else {
            format!("granted {}", or_dash(text(client, "granted")))
        };
        say!("  client    {} ({}): {granted}", text(client, "name"), text(client, "trust"))?;
    }
    Ok(())
}

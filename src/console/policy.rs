//! `portcullis policy …`.

use serde_json::Value;

use super::execute;
use super::print::{list, or_dash, text};
use crate::cli::policy::{Check, Policy};
use crate::config::File;
use crate::control::{self, policy::Request};

/// `portcullis policy …`.
pub(crate) fn policy(command: Policy, file: &File) -> anyhow::Result<()> {
    match command {
        Policy::Check(command) => check(command, file),
    }
}

fn check(command: Check, file: &File) -> anyhow::Result<()> {
    let Check { user, tool, client, common } = command;
    let request = control::Request::PolicyCheck(Request { user, tool, client });
    let answer = execute(&common.data.path(file), request, file)?;
    if common.json {
        println!("{answer}");
    } else {
        explain(&answer);
    }
    Ok(())
}

fn explain(answer: &Value) {
    let (user, tool, client) = (&answer["user"], &answer["tool"], &answer["client"]);
    let may = if answer["allowed"] == true { "may call" } else { "may not call" };
    println!("{} {may} {} ({})", text(user, "name"), text(tool, "name"), text(answer, "decision"));
    println!("  rule      {}", text(answer, "rule"));
    let needs = if tool["needs"].is_null() { "no scope".to_owned() } else { or_dash(text(tool, "needs")) };
    println!("  needs     {needs}");
    println!("  groups    {}", list(&user["groups"]));
    println!("  entitled  {}", or_dash(text(user, "entitled")));
    if !client.is_null() {
        let granted = if client["granted"].is_null() {
            "nothing granted yet; decided as if all were".to_owned()
        } else {
            format!("granted {}", or_dash(text(client, "granted")))
        };
        println!("  client    {} ({}): {granted}", text(client, "name"), text(client, "trust"));
    }
}

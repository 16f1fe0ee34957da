//! `portcullis user …` and `portcullis group …`.

use serde_json::Value;

use super::confirm::confirm;
use super::execute;
use super::print::{list, moment, or_dash, table, text};
use crate::commands::user::{Common, Group, Passkey, Roles, User};
use crate::config::File;
use crate::control::Request;
use crate::output::{self, say};

/// `portcullis user …`.
pub(crate) fn user(command: User, file: &File) -> anyhow::Result<()> {
    let (common, request) = match command {
        User::Add(c) => (c.common, Request::UserAdd { name: c.name, groups: c.groups }),
        User::List(common) => (common, Request::UserList),
        User::Show(c) => (c.common, Request::UserShow { user: c.user }),
        User::Link(c) => (c.common, Request::UserLink { user: c.user }),
        User::Disable(c) => (c.common, Request::UserDisable { user: c.user }),
        User::Enable(c) => (c.common, Request::UserEnable { user: c.user }),
        User::Delete(c) if c.yes => (c.common, Request::UserDelete { user: c.user }),
        User::Delete(c) => {
            let user = found(&c.common, c.user, file)?;
            let (name, id) = (text(&user, "name"), text(&user, "id"));
            let warning = format!(
                "The user `{name}` ({id}) will be deleted with their passkeys ({}), sessions and everything they granted.\n\
                 `portcullis user disable {id}` stops them and can be undone.",
                user["passkeys"]
            );
            confirm(false, &warning)?;
            (c.common, Request::UserDelete { user: id })
        }
        User::Role(c) => (c.common, Request::UserRole { user: c.user, admin: c.role == Roles::Admin }),
        User::Passkeys(c) => (c.common, Request::UserPasskeys { user: c.user }),
        User::Passkey(Passkey::Remove(c)) => {
            let (mut user, passkey) = (c.which.user, c.which.passkey);
            if !c.yes {
                let owner = found(&c.which.common, user, file)?;
                user = text(&owner, "id");
                let and = if c.stolen { ", and everything granted with it ends" } else { "" };
                confirm(
                    false,
                    &format!(
                        "The passkey {passkey} of `{}` ({user}) will be removed{and}.",
                        text(&owner, "name")
                    ),
                )?;
            }
            (c.which.common, Request::UserPasskeyRemove { user, passkey, stolen: c.stolen })
        }
        User::Passkey(Passkey::Unsuspend(c)) => {
            (c.common, Request::UserPasskeyUnsuspend { user: c.user, passkey: c.passkey })
        }
        User::Groups(c) => (c.common, Request::UserGroups { user: c.user, add: c.add, remove: c.remove }),
    };
    run(&common, request, file)
}

/// `portcullis group …`.
pub(crate) fn group(command: Group, file: &File) -> anyhow::Result<()> {
    match command {
        Group::List(common) => run(&common, Request::GroupList, file),
    }
}

/// The user whom a command means.
fn found(common: &Common, user: String, file: &File) -> anyhow::Result<Value> {
    Ok(execute(&common.data.path(file), Request::UserShow { user }, file)?["user"].take())
}

fn run(common: &Common, request: Request, file: &File) -> anyhow::Result<()> {
    let deleted = matches!(request, Request::UserDelete { .. });
    let answer = execute(&common.data.path(file), request, file)?;
    if common.json {
        output::json(&answer)?;
        return Ok(());
    }
    if let Some(users) = answer["users"].as_array() {
        table(&["NAME", "ROLE", "GROUPS", "PASSKEYS", "STATE", "ID"], users, row)?;
    } else if let Some(groups) = answer["groups"].as_array() {
        table(&["GROUP", "MEMBERS", "MAY BE GRANTED"], groups, |group| {
            vec![text(group, "name"), group["members"].to_string(), text(group, "scopes")]
        })?;
    } else if let Some(passkeys) = answer["passkeys"].as_array() {
        table(&["PASSKEY", "ADDED", "LAST USED", "KIND", "STATE"], passkeys, passkey)?;
    } else if answer["user"].is_object() {
        describe(&answer["user"])?;
    }
    if deleted {
        say!("\nUser deleted. Their tokens are refused from now on.")?;
    }
    if let Some(link) = answer["link"].as_str() {
        say!("\nGive them this link; it works once, for 24 hours:\n\n  {link}")?;
    }
    Ok(())
}

/// How many passkeys a user has, and how many of them cannot sign in.
fn passkeys(user: &Value) -> String {
    match user["suspended_passkeys"].as_u64() {
        None | Some(0) => user["passkeys"].to_string(),
        Some(suspended) => format!("{} ({suspended} suspended)", user["passkeys"]),
    }
}

fn passkey(passkey: &Value) -> Vec<String> {
    let kind = if passkey["copyable"] == true { "can be copied" } else { "bound to its device" };
    let state = if passkey["suspended"] == true { "suspended: its counter went back" } else { "usable" };
    let digest = text(passkey, "sha256").chars().take(8).collect();
    let (added, used) = (moment(&passkey["created_at"]), moment(&passkey["last_used_at"]));
    vec![digest, added, used, kind.to_owned(), state.to_owned()]
}

fn describe(user: &Value) -> anyhow::Result<()> {
    let state = if user["disabled"] == true { "disabled" } else { "enabled" };
    say!("{} ({state})", text(user, "name"))?;
    say!("  id        {}", text(user, "id"))?;
    say!("  role      {}", text(user, "role"))?;
    say!("  groups    {}", list(&user["groups"]))?;
    say!("  entitled  {}", or_dash(text(user, "entitled")))?;
    say!("  passkeys  {}", passkeys(user))
}

fn row(user: &Value) -> Vec<String> {
    let state = if user["disabled"] == true { "disabled" } else { "enabled" };
    vec![
        text(user, "name"),
        text(user, "role"),
        list(&user["groups"]),
        passkeys(user),
        state.to_owned(),
        text(user, "id"),
    ]
}

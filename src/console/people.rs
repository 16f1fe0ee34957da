//! `portcullis user …` and `portcullis group …`.

use serde_json::Value;

use super::execute;
use super::print::{list, or_dash, table, text};
use crate::cli::people::{Common, Group, User};
use crate::config::File;
use crate::control::Request;

/// `portcullis user …`.
pub(crate) fn user(command: User, file: &File) -> anyhow::Result<()> {
    let (common, request) = match command {
        User::Add(c) => (c.common, Request::UserAdd { name: c.name, groups: c.groups }),
        User::List(common) => (common, Request::UserList),
        User::Show(c) => (c.common, Request::UserShow { user: c.user }),
        User::Link(c) => (c.common, Request::UserLink { user: c.user }),
        User::Disable(c) => (c.common, Request::UserDisable { user: c.user }),
        User::Enable(c) => (c.common, Request::UserEnable { user: c.user }),
        User::Delete(c) => (c.common, Request::UserDelete { user: c.user }),
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

fn run(common: &Common, request: Request, file: &File) -> anyhow::Result<()> {
    let deleted = matches!(request, Request::UserDelete { .. });
    let answer = execute(&common.data.path(file), request, file)?;
    if common.json {
        println!("{answer}");
        return Ok(());
    }
    if let Some(users) = answer["users"].as_array() {
        table(&["NAME", "ROLE", "GROUPS", "PASSKEYS", "STATE", "ID"], users, row);
    } else if let Some(groups) = answer["groups"].as_array() {
        table(&["GROUP", "MEMBERS", "MAY BE GRANTED"], groups, |group| {
            vec![text(group, "name"), group["members"].to_string(), text(group, "scopes")]
        });
    } else if answer["user"].is_object() {
        describe(&answer["user"]);
    }
    if deleted {
        println!("\nRemoved. No token of theirs works any more.");
    }
    if let Some(link) = answer["link"].as_str() {
        println!("\nGive them this link; it works once, for 24 hours:\n\n  {link}");
    }
    Ok(())
}

fn describe(user: &Value) {
    let state = if user["disabled"] == true { "disabled" } else { "enabled" };
    println!("{} ({state})", text(user, "name"));
    println!("  id        {}", text(user, "id"));
    println!("  role      {}", text(user, "role"));
    println!("  groups    {}", list(&user["groups"]));
    println!("  entitled  {}", or_dash(text(user, "entitled")));
    println!("  passkeys  {}", user["passkeys"]);
}

fn row(user: &Value) -> Vec<String> {
    let state = if user["disabled"] == true { "disabled" } else { "enabled" };
    vec![
        text(user, "name"),
        text(user, "role"),
        list(&user["groups"]),
        user["passkeys"].to_string(),
        state.to_owned(),
        text(user, "id"),
    ]
}

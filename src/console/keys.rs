//! `portcullis key …`.

use std::path::PathBuf;

use serde_json::Value;

use super::confirm::confirm;
use super::execute;
use super::print::{moment, table, text};
use crate::commands::key::{Key, Remove, Reseal, Rotate};
use crate::commands::user::Common;
use crate::config::File;
use crate::control::{self, keys::Request};
use crate::output::{self, say};

/// `portcullis key …`.
pub(crate) fn key(command: Key, file: &File) -> anyhow::Result<()> {
    match command {
        Key::List(common) => list(&common, file),
        Key::Rotate(command) => rotate(command, file),
        Key::Remove(command) => remove(command, file),
        Key::Reseal(command) => reseal(command, file),
    }
}

fn ask(common: &Common, request: Request, file: &File) -> anyhow::Result<Value> {
    execute(&common.data.path(file), control::Request::Key(request), file)
}

fn list(common: &Common, file: &File) -> anyhow::Result<()> {
    let answer = ask(common, Request::List, file)?;
    if common.json {
        output::json(&answer)?;
        return Ok(());
    }
    let keys = answer["keys"].as_array().map_or(&[][..], Vec::as_slice);
    table(&["KID", "ALG", "STATE", "PUBLISHED", "WHAT IS NEXT"], keys, |key| {
        vec![text(key, "kid"), text(key, "alg"), state(key), moment(&key["created_at"]), next(key)]
    })
}

fn state(key: &Value) -> String {
    if key["signs"] == true { "signs".to_owned() } else { text(key, "state") }
}

/// What becomes of a key, and when.
fn next(key: &Value) -> String {
    match key["state"].as_str() {
        Some("next") => format!("active from {}", moment(&key["activate_at"])),
        Some("active") => format!("active until {}", moment(&key["retire_at"])),
        _ => format!("removed {}", moment(&key["remove_at"])),
    }
}

fn rotate(command: Rotate, file: &File) -> anyhow::Result<()> {
    let Rotate { alg, now, yes, common } = command;
    if now {
        confirm(
            yes,
            "Resource servers on other machines do not know the new key yet: they refuse every new token until they\nfetch the key set again, 5 minutes at most unless jwks_max_age says otherwise. Without --now nobody notices.",
        )?;
    }
    let answer = ask(&common, Request::Rotate { alg, now, made: None }, file)?;
    if common.json {
        output::json(&answer)?;
        return Ok(());
    }
    let rotated = &answer["rotated"];
    match rotated["state"].as_str() {
        Some("active") => say!("{} signs from now on.", text(rotated, "kid"))?,
        _ => say!(
            "{} is published, and signs from {} on, while a server runs.",
            text(rotated, "kid"),
            moment(&rotated["activate_at"])
        )?,
    }
    Ok(())
}

fn remove(command: Remove, file: &File) -> anyhow::Result<()> {
    let Remove { kid, reason, yes, common } = command;
    let inspected = ask(&common, Request::Show { kid: kid.clone() }, file)?;
    if !common.json {
        say_consequences(&inspected)?;
    }
    confirm(yes, "")?;
    let answer = ask(&common, Request::Remove { kid, reason, made: None }, file)?;
    if common.json {
        output::json(&answer)?;
        return Ok(());
    }
    let removed = &answer["removed"];
    say!("Key removed. Tokens it signed are refused from now on.")?;
    if let Some(successor) = removed["successor"].as_str() {
        say!("{successor} signs from now on.")?;
    }
    say!(
        "If the database was copied together with seal.key, its other keys may be known too: `portcullis key list`."
    )?;
    Ok(())
}

fn reseal(command: Reseal, file: &File) -> anyhow::Result<()> {
    let Reseal { keep, new, yes, common } = command;
    if keep.is_none() {
        confirm(
            yes,
            "Backups of the database made before now open only with the old seal key, which goes away. Keep a copy of\nit as long as you keep them: --keep FILE.",
        )?;
    }
    // The server that runs has another current directory.
    let absolute = |path: Option<PathBuf>| path.map(std::path::absolute).transpose();
    let request = Request::Reseal { elsewhere: absolute(new)?, keep: absolute(keep)?, pending: None };
    let elsewhere = matches!(&request, Request::Reseal { elsewhere: Some(_), .. });
    let answer = ask(&common, request, file)?;
    if common.json {
        output::json(&answer)?;
        return Ok(());
    }
    let resealed = &answer["resealed"];
    say!(
        "Resealed: {} values, with seal key {} in {}.",
        resealed["values"],
        text(resealed, "after"),
        text(resealed, "file")
    )?;
    if elsewhere {
        say!("The next start needs that file: give it to the service manager, or set [keys] seal_key.")?;
    }
    Ok(())
}

/// Says whom a removal hits.
fn say_consequences(inspected: &Value) -> anyhow::Result<()> {
    let (key, blast) = (&inspected["key"], &inspected["blast"]);
    say!("{} ({}, {})\n", text(key, "kid"), text(key, "alg"), state(key))?;
    if blast["grants"] == 0 {
        say!("No valid token was signed by it.")?;
    } else {
        say!(
            "Tokens it may have signed are in use on {} grants, of {} users and {} clients. They would expire by\n\
             {}, and are refused once the key is removed. Clients get new ones with their refresh tokens,\n\
             or ask people to sign in.",
            blast["grants"],
            blast["users"],
            blast["clients"],
            moment(&blast["expires_by"])
        )?;
    }
    if key["state"] == "active" {
        say!(
            "A new key signs at once. Resource servers on other machines may accept old tokens and refuse new ones\n\
             until they fetch the key set again, within {} seconds.",
            inspected["jwks_max_age"]
        )?;
    }
    Ok(())
}

//! `portcullis grant …`, `token …`, `session …` and `lockdown`.

use std::io::Read;

use anyhow::{Context, bail};
use serde_json::Value;

use super::confirm::confirm;
use super::execute;
use super::print::{moment, or_dash, table, text};
use crate::commands::access::{Grant, Lockdown, Session, Token};
use crate::commands::user::Common;
use crate::config::File;
use crate::control::{self, access::Request};
use crate::output::{self, note, say};

/// Longer input is no token.
const LONGEST: u64 = 64 << 10;

fn ask(common: &Common, request: Request, file: &File) -> anyhow::Result<Value> {
    execute(&common.data.path(file), control::Request::Access(request), file)
}

/// Has it done; prints the answer as it is if that was asked for, and else in words.
fn run(
    common: &Common,
    request: Request,
    file: &File,
    in_words: impl FnOnce(&Value) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let answer = ask(common, request, file)?;
    if common.json { output::json(&answer) } else { in_words(&answer) }
}

/// `portcullis grant …`.
pub(crate) fn grant(command: Grant, file: &File) -> anyhow::Result<()> {
    match command {
        Grant::List(c) => {
            run(&c.common, Request::Grants { user: c.user, client: c.client }, file, |answer| {
                let heading = ["USER", "CLIENT", "SCOPE", "RESOURCE", "CREATED", "LAST USED", "FROM", "ID"];
                table(&heading, items(answer, "grants"), |grant| {
                    vec![
                        text(grant, "user"),
                        text(grant, "client"),
                        text(grant, "scope"),
                        text(grant, "resource"),
                        moment(&grant["created_at"]),
                        moment(&grant["last_used_at"]),
                        or_dash(text(grant, "address")),
                        text(grant, "id"),
                    ]
                })
            })
        }
        Grant::Revoke(c) => run(&c.common, Request::RevokeGrant { grant: c.grant }, file, |_| {
            say!("Grant revoked. Its tokens are refused from now on.")
        }),
    }
}

/// `portcullis token revoke`.
pub(crate) fn token(command: Token, file: &File) -> anyhow::Result<()> {
    let Token::Revoke(command) = command;
    let token = match command.jti {
        // A whole token would stand in the shell's history and in everybody's list of processes.
        Some(jti) if jti.starts_with("ey") || jti.starts_with("rt_") => {
            bail!("give a token on standard input, not on the command line: portcullis token revoke < FILE")
        }
        Some(jti) => jti,
        None => from_stdin()?,
    };
    run(&command.common, Request::RevokeToken { token }, file, |answer| {
        match answer["revoked"]["grant"].as_str() {
            Some(grant) => say!("That was a refresh token. Its grant {grant} is revoked."),
            None => say!(
                "Revoked: {}. Its grant stays active; `portcullis grant revoke` ends it.",
                text(&answer["revoked"], "access_token")
            ),
        }
    })
}

fn from_stdin() -> anyhow::Result<String> {
    let mut token = String::new();
    std::io::stdin().take(LONGEST).read_to_string(&mut token).context("standard input cannot be read")?;
    if token.trim().is_empty() {
        bail!("standard input is empty; give a jti, or a token on standard input");
    }
    Ok(token.trim().to_owned())
}

/// `portcullis session …`.
pub(crate) fn session(command: Session, file: &File) -> anyhow::Result<()> {
    match command {
        Session::List(c) => run(&c.common, Request::Sessions { user: c.user }, file, |answer| {
            let heading = ["USER", "SIGNED IN", "LAST SEEN", "FROM", "ID"];
            table(&heading, items(answer, "sessions"), |session| {
                vec![
                    text(session, "user"),
                    moment(&session["signed_in_at"]),
                    moment(&session["seen_at"]),
                    or_dash(text(session, "address")),
                    text(session, "id"),
                ]
            })
        }),
        Session::End(c) => {
            let request = match (c.session, c.user) {
                (Some(session), _) => Request::EndSession { session },
                (None, Some(user)) => Request::EndSessions { user },
                (None, None) => bail!("give a session, or a user with --user"),
            };
            run(&c.common, request, file, |answer| match items(answer, "ended").len() {
                0 => say!("There was none."),
                1 => say!("Ended."),
                several => say!("Ended: {several}."),
            })
        }
    }
}

/// `portcullis lockdown`.
pub(crate) fn lockdown(command: &Lockdown, file: &File) -> anyhow::Result<()> {
    let Lockdown { yes, common } = command;
    if !*yes {
        let measured = ask(common, Request::Measure, file)?;
        note!("A lockdown ends {}.", in_words(&measured["blast_radius"]));
        confirm(false, "People sign in again, and their applications ask them again.")?;
    }
    run(common, Request::Lockdown, file, |answer| {
        say!("Ended: {}. Tokens issued before now are refused.", in_words(&answer["ended"]))
    })
}

pub(super) fn in_words(radius: &Value) -> String {
    let count = |key: &str| radius[key].as_u64().unwrap_or(0);
    let some = |count: u64, one: &str, more: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{count} {more}"),
    };
    let held = || {
        format!(
            "{} ({}, {})",
            some(count("grants"), "grant", "grants"),
            some(count("users"), "user", "users"),
            some(count("clients"), "client", "clients")
        )
    };
    [
        radius.get("grants").map_or_else(|| "every grant (too many to count now)".to_owned(), |_| held()),
        some(count("client_grants"), "grant of a client to itself", "grants of clients to themselves"),
        some(count("sessions"), "browser session", "browser sessions"),
        some(count("links"), "unused link", "unused links"),
        some(count("registration_tokens"), "registration token", "registration tokens"),
        some(count("waiting"), "pending request", "pending requests"),
    ]
    .join(", ")
}

fn items<'a>(answer: &'a Value, key: &str) -> &'a [Value] {
    answer[key].as_array().map_or(&[], Vec::as_slice)
}

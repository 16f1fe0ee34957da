//! `portcullis client …`.

use std::fs;
use std::time::Duration;

use anyhow::Context;
use authz::clients::preregistered::{Authentication, Description};
use serde_json::{Value, json};
use shared::Secret;

use super::confirm::confirm;
use super::print::{list, moment, or_dash, table, text};
use super::{client_documents, execute};
use crate::commands::client::{Add, Client, Proof};
use crate::commands::user::Common;
use crate::config::File;
use crate::control::{self, clients::Request};
use crate::output::{self, say};

/// `portcullis client …`.
pub(crate) fn client(command: Client, file: &File) -> anyhow::Result<()> {
    let (common, request) = match command {
        Client::Add(c) => add(c)?,
        Client::NewSecret(c) => {
            return new_secret(c.json);
        }
        Client::RotateSecret(c) => {
            let (overlap_ms, lifetime_ms) = (milliseconds(c.overlap), c.expires.map(milliseconds));
            (c.common, Request::RotateSecret { client: c.client, overlap_ms, lifetime_ms })
        }
        Client::List(common) => (common, Request::List),
        Client::Show(c) => (c.common, Request::Show { client: c.client }),
        Client::Verify(c) => (c.common, Request::Verify { client: c.client }),
        Client::Unverify(c) => (c.common, Request::Unverify { client: c.client }),
        Client::Disable(c) => (c.common, Request::Disable { client: c.client }),
        Client::Enable(c) => (c.common, Request::Enable { client: c.client }),
        Client::Delete(c) if c.yes => (c.common, Request::Delete { client: c.client }),
        Client::Delete(c) => {
            let found = &ask(&c.common, Request::Show { client: c.client }, file)?["client"];
            let id = text(found, "id");
            let warning = format!(
                "The client `{}` ({id}) will be deleted with everything that people granted it. Users now: {}.",
                text(found, "name"),
                items(found, "access").len()
            );
            confirm(false, &warning)?;
            (c.common, Request::Delete { client: id })
        }
        Client::Document(command) => return client_documents::run(command, file),
    };
    run(&common, request, file)
}

fn add(command: Add) -> anyhow::Result<(Common, Request)> {
    let mut grants = command.grants;
    if command.client_credentials && !grants.is_empty() {
        grants.push("client_credentials".to_owned());
    }
    let scope = command.scopes.join(" ");
    let description = Description {
        name: command.name,
        redirect_uris: command.redirect_uris,
        authentication: authentication(&command.proof)?,
        grants,
        device: command.device,
        scope: scope.parse().with_context(|| format!("--scope `{scope}`"))?,
    };
    Ok((command.common, Request::Add { description, lifetime_ms: command.proof.expires.map(milliseconds) }))
}

fn authentication(proof: &Proof) -> anyhow::Result<Authentication> {
    Ok(match &proof.jwks {
        Some(path) => Authentication::Keys(
            fs::read_to_string(path).with_context(|| format!("cannot read the keys {}", path.display()))?,
        ),
        None if proof.secret => Authentication::Secret,
        None => Authentication::Public,
    })
}

/// Makes a secret for the configuration: the file has its digest, whoever runs the client has the rest.
fn new_secret(as_json: bool) -> anyhow::Result<()> {
    let secret = Secret::random("cs_");
    let digest = secret.digest().hex();
    if as_json {
        output::json(&json!({ "client_secret": secret.expose(), "secret_sha256": digest }))
    } else {
        say!("For the client:        {}", secret.expose())?;
        say!("For portcullis.toml:   secret_sha256 = \"{digest}\"")
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn ask(common: &Common, request: Request, file: &File) -> anyhow::Result<Value> {
    execute(&common.data.path(file), control::Request::Client(request), file)
}

fn run(common: &Common, request: Request, file: &File) -> anyhow::Result<()> {
    let deleted = matches!(request, Request::Delete { .. });
    let rotated = matches!(request, Request::RotateSecret { .. });
    let answer = ask(common, request, file)?;
    if common.json {
        output::json(&answer)?;
        return Ok(());
    }
    if let Some(clients) = answer["clients"].as_array() {
        table(&["NAME", "TRUST", "KNOWN BY", "AUTHENTICATES", "USERS", "STATE", "ID"], clients, row)?;
    } else {
        describe(&answer["client"])?;
    }
    if let Some(secret) = answer["client_secret"].as_str() {
        say!("\nIts secret is shown this once:\n\n  {secret}")?;
        match answer["previous_ends_at"].as_i64() {
            Some(_) => say!("\nThe previous secret ends {}.", moment(&answer["previous_ends_at"]))?,
            None if rotated => say!("\nEarlier secrets no longer work.")?,
            None => {}
        }
    }
    if deleted {
        say!("\nClient deleted. Its tokens are refused from now on.")?;
    }
    Ok(())
}

fn row(client: &Value) -> Vec<String> {
    vec![
        text(client, "name"),
        text(client, "trust"),
        source(client).to_owned(),
        text(client, "auth_method"),
        client["users"].to_string(),
        state(client).to_owned(),
        text(client, "id"),
    ]
}

fn state(client: &Value) -> &'static str {
    match (client["disabled"] == true, client["disabled_because"].as_str()) {
        (false, _) => "enabled",
        (true, Some("left_configuration")) => "disabled: no longer in portcullis.toml",
        (true, _) => "disabled",
    }
}

/// How it became known, in words.
fn source(client: &Value) -> &str {
    match client["source"].as_str().unwrap_or_default() {
        "self_registered" => "registration",
        "administrator" => "administrator",
        "configuration" => "portcullis.toml",
        "catalogue" => "catalogue",
        "imported" => "imported document",
        "fetched" => "fetched document",
        "unknown_url" => "its URL alone",
        other => other,
    }
}

fn describe(client: &Value) -> anyhow::Result<()> {
    say!("{} ({})", text(client, "name"), state(client))?;
    let lines = [
        ("id", text(client, "id")),
        ("trust", text(client, "trust")),
        ("known by", source(client).to_owned()),
        ("authenticates", text(client, "auth_method")),
        ("grants", list(&client["grant_types"])),
        ("own scope", or_dash(text(client, "scope"))),
        ("added", moment(&client["created_at"])),
        ("last used", moment(&client["last_used_at"])),
    ];
    for (label, value) in lines {
        say!("  {label:<13}  {value}")?;
    }
    for redirect in items(client, "redirect_uris") {
        let note =
            if redirect["usable"] == true { "" } else { "  (not usable until the client is verified)" };
        say!("  {:<13}  {}{note}", "redirect URI", text(redirect, "uri"))?;
    }
    if !items(client, "keys").is_empty() {
        say!("  {:<13}  {}", "keys", list(&client["keys"]))?;
    }
    for secret in items(client, "secrets") {
        let ends = match secret["expires_at"].as_i64() {
            Some(_) => format!("ends {}", moment(&secret["expires_at"])),
            None => "does not end".to_owned(),
        };
        let (digest, made) = (text(secret, "sha256_8"), moment(&secret["created_at"]));
        say!("  {:<13}  SHA-256 {digest}…, made {made}, {ends}", "secret")?;
    }
    if let Some(access) = client["access"].as_array().filter(|access| !access.is_empty()) {
        say!()?;
        table(&["USED BY", "SCOPES", "AT", "SINCE", "LAST USED", "UNTIL", "FROM"], access, |grant| {
            vec![
                text(grant, "user"),
                text(grant, "scope"),
                text(grant, "resource"),
                moment(&grant["created_at"]),
                moment(&grant["last_used_at"]),
                moment(&grant["expires_at"]),
                or_dash(text(grant, "address")),
            ]
        })?;
    }
    Ok(())
}

fn items<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

//! `portcullis rs …`.

use std::path::Path;

use anyhow::Context;
use authz::resource_servers::Proof;
use serde_json::Value;

use super::confirm::confirm;
use super::execute;
use super::print::{list, moment, table, text};
use crate::commands::resource_server::ResourceServer;
use crate::commands::user::Common;
use crate::config::File;
use crate::control::{self, resource_servers::Request};
use crate::output::{self, say};

/// `portcullis rs …`.
pub(crate) fn resource_server(command: ResourceServer, file: &File) -> anyhow::Result<()> {
    let (common, request) = match command {
        ResourceServer::Add(c) => {
            let proof = match c.jwks.as_deref() {
                _ if c.expiry_only => Proof::None,
                Some(file) => Proof::Keys(key_set(file)?),
                None => Proof::Secret,
            };
            (c.common, Request::Add { name: c.name, audiences: c.audiences, proof })
        }
        ResourceServer::List(common) => (common, Request::List),
        ResourceServer::Show(c) => (c.common, Request::Show { name: c.name }),
        ResourceServer::RotateSecret(c) => {
            let overlap_ms = u64::try_from(c.overlap.as_millis()).unwrap_or(u64::MAX);
            (c.common, Request::RotateSecret { name: c.name, overlap_ms })
        }
        ResourceServer::Delete(c) if c.yes => (c.common, Request::Delete { name: c.name }),
        ResourceServer::Delete(c) => {
            let found = ask(&c.common, Request::Show { name: c.name }, file)?;
            let (name, id) = (text(&found["resource_server"], "name"), text(&found["resource_server"], "id"));
            confirm(
                false,
                &format!("The resource server `{name}` ({id}) will be deleted with its secrets."),
            )?;
            (c.common, Request::Delete { name: id })
        }
    };
    run(&common, request, file)
}

fn key_set(file: &Path) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not valid JSON", file.display()))
}

fn ask(common: &Common, request: Request, file: &File) -> anyhow::Result<Value> {
    execute(&common.data.path(file), control::Request::ResourceServer(request), file)
}

fn run(common: &Common, request: Request, file: &File) -> anyhow::Result<()> {
    let deleted = matches!(request, Request::Delete { .. });
    let answer = ask(common, request, file)?;
    if common.json {
        output::json(&answer)?;
        return Ok(());
    }
    if let Some(servers) = answer["resource_servers"].as_array() {
        table(&["NAME", "AUDIENCES", "AUTHENTICATES", "STATE", "ID"], servers, row)?;
        return Ok(());
    }
    describe(&answer["resource_server"])?;
    if let Some(secret) = answer["client_secret"].as_str() {
        say!("\nIts secret is shown this once:\n\n  {secret}")?;
    }
    if deleted {
        say!("\nResource server deleted. It can no longer check tokens.")?;
    }
    Ok(())
}

fn row(server: &Value) -> Vec<String> {
    vec![
        text(server, "name"),
        list(&server["audiences"]),
        text(server, "auth_method"),
        state(server).to_owned(),
        text(server, "id"),
    ]
}

fn state(server: &Value) -> &'static str {
    if server["disabled"] == true { "disabled" } else { "enabled" }
}

fn describe(server: &Value) -> anyhow::Result<()> {
    say!("{} ({})", text(server, "name"), state(server))?;
    say!("  id             {}", text(server, "id"))?;
    say!("  audiences      {}", list(&server["audiences"]))?;
    say!("  authenticates  {}", text(server, "auth_method"))?;
    for secret in server["secrets"].as_array().into_iter().flatten() {
        let ends = match secret["expires_at"].as_i64() {
            Some(_) => format!("ends {}", moment(&secret["expires_at"])),
            None => "does not end".to_owned(),
        };
        say!(
            "  secret         SHA-256 {}…, made {}, {ends}",
            text(secret, "sha256_8"),
            moment(&secret["created_at"])
        )?;
    }
    Ok(())
}

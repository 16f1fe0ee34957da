//! `portcullis rs …`: resource servers elsewhere.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use authz::resource_servers::{self, Proof, ResourceServer as Shown};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::frame::confirm::confirm;
use super::frame::print::{ends, list, moment, safe, table};
use super::frame::{CommonOptions, Effect, Handler, Noun, Refused, Request, ServerParts};
use crate::config::{File, duration};
use crate::output::say;

#[derive(Subcommand, Debug)]
#[command(
    after_help = "A resource server is a program on another machine that accepts this server's tokens and checks them at /introspect."
)]
pub enum ResourceServer {
    /// Add a resource server, and print its id and secret. Clients can then request tokens for its URLs.
    Add(Add),
    /// Show every resource server.
    List(CommonOptions),
    /// Show one resource server: its URLs, and its secrets' ages.
    Show(OneServer),
    /// Give a resource server a new secret, and print it. The previous one works for a while longer.
    RotateSecret(RotateSecret),
    /// Delete a resource server: it cannot introspect from the next request on.
    Delete(Delete),
}

#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  portcullis rs add wiki --audience https://wiki.lab.internal/mcp\n\nThe audience is the `resource` that clients ask tokens for, and the `aud` of those tokens."
)]
pub struct Add {
    /// Its name, here and on the consent page.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// A URL that it serves: it may introspect tokens for this URL. May be given more than once.
    #[arg(long = "audience", value_name = "URL", required = true)]
    pub audiences: Vec<String>,
    /// A file with its public keys (a JWK set), with which it signs assertions. It gets no secret then.
    #[arg(long, value_name = "FILE")]
    pub jwks: Option<PathBuf>,
    /// It does not introspect: it checks only a token's signature and expiry, so it accepts a revoked token
    /// until that expires. It gets no secret, and refresh tokens for its URLs work once.
    #[arg(long, conflicts_with = "jwks")]
    pub expiry_only: bool,
    #[command(flatten)]
    pub common: CommonOptions,
}

#[derive(Args, Debug)]
pub struct OneServer {
    /// The resource server's name or id.
    #[arg(value_name = "NAME")]
    pub name: String,
    #[command(flatten)]
    pub common: CommonOptions,
}

#[derive(Args, Debug)]
pub struct Delete {
    /// The resource server's name or id.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Do not ask for confirmation.
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub common: CommonOptions,
}

#[derive(Args, Debug)]
pub struct RotateSecret {
    /// The resource server's name or id.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// How long the previous secret keeps working, such as 24h; 0 ends it at once.
    #[arg(long, default_value = "24h", value_name = "TIME", value_parser = duration::parse)]
    pub overlap: Duration,
    #[command(flatten)]
    pub common: CommonOptions,
}

/// A resource server, with its secret if it was just made.
#[derive(Serialize, Deserialize)]
struct ServerAnswer {
    resource_server: Shown,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_secret: Option<String>,
}

impl ServerAnswer {
    fn without_secret(resource_server: Shown) -> Self {
        Self { resource_server, client_secret: None }
    }
}

/// `portcullis rs add`.
#[derive(Debug, Serialize, Deserialize)]
struct AddServer {
    name: String,
    audiences: Vec<String>,
    proof: Proof,
}

impl Request for AddServer {
    const COMMAND: &'static str = "rs-add";
    const DOES: Effect = Effect::HandsOut;
    type Answer = ServerAnswer;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<ServerAnswer, Refused> {
        let Self { name, audiences, proof } = self;
        let added =
            place.write(move |authz, tx| resource_servers::add(authz, tx, uid, (&name, &audiences), &proof));
        let (resource_server, secret) = added.await?;
        Ok(ServerAnswer { resource_server, client_secret: secret.map(|secret| secret.expose().to_owned()) })
    }
}

/// `portcullis rs list`.
#[derive(Debug, Serialize, Deserialize)]
struct ListServers {}

#[derive(Serialize, Deserialize)]
struct Listed {
    resource_servers: Vec<Shown>,
}

impl Request for ListServers {
    const COMMAND: &'static str = "rs-list";
    const DOES: Effect = Effect::Reads;
    type Answer = Listed;

    async fn perform(self, place: &ServerParts, _uid: u32) -> Result<Listed, Refused> {
        Ok(Listed { resource_servers: place.look(|_, tx| resource_servers::list(tx)).await? })
    }
}

/// `portcullis rs show`.
#[derive(Debug, Serialize, Deserialize)]
struct ShowServer {
    name: String,
}

impl Request for ShowServer {
    const COMMAND: &'static str = "rs-show";
    const DOES: Effect = Effect::Reads;
    type Answer = ServerAnswer;

    async fn perform(self, place: &ServerParts, _uid: u32) -> Result<ServerAnswer, Refused> {
        let shown = place.write(move |_, tx| resource_servers::show(tx, &self.name)).await?;
        Ok(ServerAnswer::without_secret(shown))
    }
}

/// `portcullis rs rotate-secret`.
#[derive(Debug, Serialize, Deserialize)]
struct RotateServerSecret {
    name: String,
    overlap_ms: u64,
}

impl Request for RotateServerSecret {
    const COMMAND: &'static str = "rs-rotate-secret";
    const DOES: Effect = Effect::HandsOut;
    type Answer = ServerAnswer;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<ServerAnswer, Refused> {
        let overlap = Duration::from_millis(self.overlap_ms);
        let rotated = place
            .write(move |authz, tx| resource_servers::rotate_secret(authz, tx, uid, &self.name, overlap));
        let (resource_server, secret) = rotated.await?;
        Ok(ServerAnswer { resource_server, client_secret: Some(secret.expose().to_owned()) })
    }
}

/// `portcullis rs delete`.
#[derive(Debug, Serialize, Deserialize)]
struct DeleteServer {
    name: String,
}

impl Request for DeleteServer {
    const COMMAND: &'static str = "rs-delete";
    type Answer = ServerAnswer;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<ServerAnswer, Refused> {
        let deleted = place.write(move |authz, tx| resource_servers::delete(authz, tx, uid, &self.name));
        Ok(ServerAnswer::without_secret(deleted.await?))
    }
}

impl Noun for ResourceServer {
    const REQUESTS: &'static [Handler] = &[
        Handler::of::<AddServer>(),
        Handler::of::<ListServers>(),
        Handler::of::<ShowServer>(),
        Handler::of::<RotateServerSecret>(),
        Handler::of::<DeleteServer>(),
    ];

    fn run(self, file: &File) -> anyhow::Result<ExitCode> {
        match self {
            Self::Add(c) => {
                let proof = match c.jwks.as_deref() {
                    _ if c.expiry_only => Proof::None,
                    Some(path) => Proof::Keys(key_set(path)?),
                    None => Proof::Secret,
                };
                c.common.run(file, AddServer { name: c.name, audiences: c.audiences, proof }, describe)
            }
            Self::List(common) => common.run(file, ListServers {}, |listed| {
                table(&["NAME", "AUDIENCES", "AUTHENTICATES", "STATE", "ID"], &listed.resource_servers, row)
            }),
            Self::Show(c) => c.common.run(file, ShowServer { name: c.name }, describe),
            Self::RotateSecret(c) => {
                let overlap_ms = u64::try_from(c.overlap.as_millis()).unwrap_or(u64::MAX);
                c.common.run(file, RotateServerSecret { name: c.name, overlap_ms }, describe)
            }
            Self::Delete(c) => delete(c, file),
        }?;
        Ok(ExitCode::SUCCESS)
    }
}

fn key_set(file: &Path) -> anyhow::Result<Value> {
    let text = shared::file::read_input(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not valid JSON", file.display()))
}

fn delete(command: Delete, file: &File) -> anyhow::Result<()> {
    let Delete { mut name, yes, common } = command;
    if !yes {
        let found = common.ask(file, ShowServer { name })?.resource_server;
        let (called, id) = (safe(&found.name), found.id);
        confirm(false, &format!("The resource server `{called}` ({id}) will be deleted with its secrets."))?;
        name = id.to_string();
    }
    common.run(file, DeleteServer { name }, |deleted| {
        describe(deleted)?;
        say!("\nResource server deleted. It can no longer check tokens.")
    })
}

fn row(server: &Shown) -> Vec<String> {
    vec![
        safe(&server.name),
        list(&server.audiences),
        safe(&server.auth_method),
        state(server).to_owned(),
        server.id.to_string(),
    ]
}

fn state(server: &Shown) -> &'static str {
    if server.disabled { "disabled" } else { "enabled" }
}

fn describe(found: &ServerAnswer) -> anyhow::Result<()> {
    let server = &found.resource_server;
    say!("{} ({})", safe(&server.name), state(server))?;
    say!("  id             {}", server.id)?;
    say!("  audiences      {}", list(&server.audiences))?;
    say!("  authenticates  {}", safe(&server.auth_method))?;
    for secret in &server.secrets {
        say!(
            "  secret         SHA-256 {}…, made {}, {}",
            safe(&secret.sha256_8),
            moment(secret.created_at),
            ends(secret.expires_at)
        )?;
    }
    if let Some(secret) = &found.client_secret {
        say!("\nIts secret is shown this once:\n\n  {secret}")?;
    }
    Ok(())
}

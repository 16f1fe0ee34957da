//! `portcullis client …`: the applications that people use.

pub mod document;
pub mod secret;
pub mod set;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use authz::clients::administration::{self, Access, Details, Summary};
use authz::clients::preregistered::{Authentication, Description};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::frame::confirm::confirm;
use super::frame::print::{ends, list, moment, moment_if, optional, or_dash, safe, short, table};
use super::frame::{CommonOptions, Effect, Handler, Noun, Refused, Request, ServerParts};
use crate::config::{File, duration};
use crate::output::say;
use document::ClientDocument;
use secret::{NewSecret, RotateSecret, hand_out, milliseconds};
use set::Set;

#[derive(Subcommand, Debug)]
pub enum Client {
    /// Add a client, and print its id, and its secret if it has one.
    Add(Add),
    /// Change the redirect URIs or the name of a client that an administrator added.
    Set(Set),
    /// Give a client a new secret, and print it. The previous one works for a while longer.
    RotateSecret(RotateSecret),
    /// Print a new secret, and its SHA-256 for portcullis.toml. Nothing is stored.
    NewSecret(NewSecret),
    /// List all clients: how each became known, how far it is trusted, how many people use it.
    List(CommonOptions),
    /// Show everything about a client: its redirect URIs, what it may request, its secrets' ages, and who uses
    /// it.
    Show(OneClient),
    /// Mark a client as verified: all redirect URIs that it registered may be used, and people may grant it
    /// high-risk scopes.
    Verify(OneClient),
    /// Withdraw a client's verification. What people granted it ends.
    Unverify(OneClient),
    /// Disable a client: its tokens are refused from the next request on, and what people granted it ends.
    Disable(OneClient),
    /// Enable a client again. Its users must sign in again.
    Enable(OneClient),
    /// Delete a client and everything that people granted it. The audit log keeps its records.
    Delete(Delete),
    #[command(flatten)]
    Document(ClientDocument),
}

#[derive(Args, Debug)]
pub struct OneClient {
    /// The client's id, or its name if no other has the same.
    #[arg(value_name = "CLIENT")]
    pub client: String,
    #[command(flatten)]
    pub common: CommonOptions,
}

#[derive(Args, Debug)]
pub struct Delete {
    /// The client's id, or its name if no other has the same.
    #[arg(value_name = "CLIENT")]
    pub client: String,
    /// Do not ask for confirmation.
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub common: CommonOptions,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Without --grant, a client with redirect URIs gets authorization_code and refresh_token.\n\nExamples:\n  portcullis client add \"Ticket portal\" --redirect-uri https://tickets.lab.internal/oauth/callback --secret\n  portcullis client add \"Nightly report\" --jwks report.jwks --client-credentials --scope docs.read"
)]
pub struct Add {
    /// The name that people read when it asks them for access.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// A redirect URI, exact; with http://localhost, http://127.0.0.1 and http://[::1] the port may differ. May
    /// be given more than once.
    #[arg(long = "redirect-uri", value_name = "URI")]
    pub redirect_uris: Vec<String>,
    #[command(flatten)]
    pub proof: Proof,
    /// A grant type that it may use: authorization_code, refresh_token, client_credentials, device_code. May be
    /// given more than once. Default: what follows from the other options.
    #[arg(long = "grant", value_name = "GRANT")]
    pub grants: Vec<String>,
    /// It may get tokens in its own name, for the scopes in --scope.
    #[arg(long, requires = "scopes")]
    pub client_credentials: bool,
    /// A scope that it may have in its own name. May be given more than once.
    #[arg(long = "scope", requires = "client_credentials", value_name = "SCOPE")]
    pub scopes: Vec<String>,
    /// It may be used on terminals without a browser.
    #[arg(long)]
    pub device: bool,
    #[command(flatten)]
    pub common: CommonOptions,
}

/// How it authenticates.
#[derive(Args, Debug)]
pub struct Proof {
    /// A public client, which cannot keep a secret and does not authenticate. This is the default.
    #[arg(long)]
    pub public: bool,
    /// It authenticates with a secret, which is made here and printed once.
    #[arg(long, conflicts_with = "public")]
    pub secret: bool,
    /// It authenticates with its own key (private_key_jwt): a file with its public keys as a JWK set.
    #[arg(long, conflicts_with_all = ["public", "secret"], value_name = "FILE")]
    pub jwks: Option<PathBuf>,
    /// When its secret ends, such as 90d. Default: never.
    #[arg(long, requires = "secret", value_name = "TIME", value_parser = duration::parse_some)]
    pub expires: Option<Duration>,
}

/// `portcullis client add`.
#[derive(Debug, Serialize, Deserialize)]
struct AddClient {
    description: Description,
    /// The lifetime of its secret in milliseconds.
    lifetime_ms: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Added {
    client: Details,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_secret: Option<String>,
}

impl Request for AddClient {
    const COMMAND: &'static str = "client-add";
    const DOES: Effect = Effect::HandsOut;
    type Answer = Added;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<Added, Refused> {
        let Self { description, lifetime_ms } = self;
        let lifetime = lifetime_ms.map(Duration::from_millis);
        let added = place.write(move |authz, tx| administration::add(authz, tx, uid, &description, lifetime));
        let (client, secret) = added.await?;
        Ok(Added { client, client_secret: secret.map(|secret| secret.expose().to_owned()) })
    }
}

/// `portcullis client list`.
#[derive(Debug, Serialize, Deserialize)]
struct ListClients {}

#[derive(Serialize, Deserialize)]
struct Listed {
    clients: Vec<Summary>,
}

impl Request for ListClients {
    const COMMAND: &'static str = "client-list";
    const DOES: Effect = Effect::Reads;
    type Answer = Listed;

    async fn perform(self, place: &ServerParts, _uid: u32) -> Result<Listed, Refused> {
        Ok(Listed { clients: place.look(|_, tx| administration::list(tx)).await? })
    }
}

/// One client, after the command.
#[derive(Serialize, Deserialize)]
struct ClientAnswer {
    client: Details,
}

/// `portcullis client show`.
#[derive(Debug, Serialize, Deserialize)]
struct ShowClient {
    client: String,
}

impl Request for ShowClient {
    const COMMAND: &'static str = "client-show";
    const DOES: Effect = Effect::Reads;
    type Answer = ClientAnswer;

    async fn perform(self, place: &ServerParts, _uid: u32) -> Result<ClientAnswer, Refused> {
        let client = place.write(move |authz, tx| administration::show(authz, tx, &self.client)).await?;
        Ok(ClientAnswer { client })
    }
}

/// `portcullis client verify`.
#[derive(Debug, Serialize, Deserialize)]
struct VerifyClient {
    client: String,
}

impl Request for VerifyClient {
    const COMMAND: &'static str = "client-verify";
    type Answer = ClientAnswer;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<ClientAnswer, Refused> {
        let client = place.write(move |authz, tx| administration::verify(authz, tx, uid, &self.client));
        Ok(ClientAnswer { client: client.await? })
    }
}

/// `portcullis client unverify`.
#[derive(Debug, Serialize, Deserialize)]
struct UnverifyClient {
    client: String,
}

impl Request for UnverifyClient {
    const COMMAND: &'static str = "client-unverify";
    type Answer = ClientAnswer;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<ClientAnswer, Refused> {
        let client = place.write(move |authz, tx| administration::unverify(authz, tx, uid, &self.client));
        Ok(ClientAnswer { client: client.await? })
    }
}

/// `portcullis client disable`.
#[derive(Debug, Serialize, Deserialize)]
struct DisableClient {
    client: String,
}

impl Request for DisableClient {
    const COMMAND: &'static str = "client-disable";
    type Answer = ClientAnswer;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<ClientAnswer, Refused> {
        let client = place.write(move |authz, tx| administration::disable(authz, tx, uid, &self.client));
        Ok(ClientAnswer { client: client.await? })
    }
}

/// `portcullis client enable`.
#[derive(Debug, Serialize, Deserialize)]
struct EnableClient {
    client: String,
}

impl Request for EnableClient {
    const COMMAND: &'static str = "client-enable";
    type Answer = ClientAnswer;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<ClientAnswer, Refused> {
        let client = place.write(move |authz, tx| administration::enable(authz, tx, uid, &self.client));
        Ok(ClientAnswer { client: client.await? })
    }
}

/// `portcullis client delete`.
#[derive(Debug, Serialize, Deserialize)]
struct DeleteClient {
    client: String,
}

impl Request for DeleteClient {
    const COMMAND: &'static str = "client-delete";
    type Answer = ClientAnswer;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<ClientAnswer, Refused> {
        let client = place.write(move |authz, tx| administration::delete(authz, tx, uid, &self.client));
        Ok(ClientAnswer { client: client.await? })
    }
}

impl Noun for Client {
    const REQUESTS: &'static [Handler] = &[
        Handler::of::<AddClient>(),
        Handler::of::<set::SetClient>(),
        Handler::of::<secret::RotateClientSecret>(),
        Handler::of::<ListClients>(),
        Handler::of::<ShowClient>(),
        Handler::of::<VerifyClient>(),
        Handler::of::<UnverifyClient>(),
        Handler::of::<DisableClient>(),
        Handler::of::<EnableClient>(),
        Handler::of::<DeleteClient>(),
        Handler::of::<document::ImportDocument>(),
        Handler::of::<document::RemoveDocument>(),
        Handler::of::<document::catalogue::ListEntries>(),
        Handler::of::<document::catalogue::DisableEntry>(),
        Handler::of::<document::catalogue::EnableEntry>(),
        Handler::of::<document::catalogue::ImportCatalogue>(),
        Handler::of::<document::approvals::ListApprovals>(),
        Handler::of::<document::approvals::ApproveClient>(),
        Handler::of::<document::approvals::RefuseApproval>(),
    ];

    fn run(self, file: &File) -> anyhow::Result<ExitCode> {
        match self {
            Self::Add(command) => add(command, file),
            Self::Set(command) => set::run(command, file),
            Self::NewSecret(command) => secret::new_secret(command.json),
            Self::RotateSecret(command) => secret::rotate_secret(command, file),
            Self::List(common) => common.run(file, ListClients {}, |listed| {
                let heading = ["NAME", "TRUST", "KNOWN BY", "ADDED", "AUTHENTICATES", "USERS", "STATE", "ID"];
                table(&heading, &listed.clients, row)
            }),
            Self::Show(c) => c.common.run(file, ShowClient { client: c.client }, changed),
            Self::Verify(c) => c.common.run(file, VerifyClient { client: c.client }, changed),
            Self::Unverify(c) => c.common.run(file, UnverifyClient { client: c.client }, changed),
            Self::Disable(c) => c.common.run(file, DisableClient { client: c.client }, changed),
            Self::Enable(c) => c.common.run(file, EnableClient { client: c.client }, changed),
            Self::Delete(command) => delete(command, file),
            Self::Document(command) => document::run(command, file),
        }?;
        Ok(ExitCode::SUCCESS)
    }
}

fn changed(found: &ClientAnswer) -> anyhow::Result<()> {
    describe(&found.client)
}

fn add(command: Add, file: &File) -> anyhow::Result<()> {
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
    let lifetime_ms = command.proof.expires.map(milliseconds);
    command.common.run(file, AddClient { description, lifetime_ms }, |added| {
        describe(&added.client)?;
        added.client_secret.as_deref().map_or(Ok(()), hand_out)
    })
}

fn authentication(proof: &Proof) -> anyhow::Result<Authentication> {
    Ok(match &proof.jwks {
        Some(path) => Authentication::Keys(
            shared::file::read_input(path)
                .with_context(|| format!("cannot read the keys {}", path.display()))?,
        ),
        None if proof.secret => Authentication::Secret,
        None => Authentication::Public,
    })
}

fn delete(command: Delete, file: &File) -> anyhow::Result<()> {
    let Delete { mut client, yes, common } = command;
    if !yes {
        let found = common.ask(file, ShowClient { client })?.client;
        let (name, id) = (safe(&found.summary.name), found.summary.id);
        let warning = format!(
            "The client `{name}` ({id}) will be deleted with everything that people granted it. Users now: {}.",
            found.access.len()
        );
        confirm(false, &warning)?;
        client = id.to_string();
    }
    common.run(file, DeleteClient { client }, |deleted| {
        describe(&deleted.client)?;
        say!("\nClient deleted. Its tokens are refused from now on.")
    })
}

fn row(client: &Summary) -> Vec<String> {
    vec![
        short(&client.name),
        trust(client).to_owned(),
        source(client).to_owned(),
        moment(client.created_at),
        safe(&client.auth_method),
        client.users.to_string(),
        if client.disabled { "disabled" } else { "enabled" }.to_owned(),
        safe(&client.id.to_string()),
    ]
}

/// How far it is trusted, in the words of the consent page.
fn trust(client: &Summary) -> &str {
    match client.trust.as_str() {
        "known" | "unverified" => "not verified",
        other => other,
    }
}

fn trust_explained(client: &Summary) -> &str {
    match client.trust.as_str() {
        "known" => "not verified; its answers reach only the user's own computer",
        "unverified" => "not verified; high-risk scopes are withheld from it",
        other => other,
    }
}

/// How it became known, in words.
fn source(client: &Summary) -> &str {
    match client.source.as_str() {
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

fn state(client: &Details) -> &'static str {
    match (client.summary.disabled, client.disabled_because.as_deref()) {
        (false, _) => "enabled",
        (true, Some("left_configuration")) => "disabled: no longer in portcullis.toml",
        (true, _) => "disabled",
    }
}

fn describe(client: &Details) -> anyhow::Result<()> {
    let summary = &client.summary;
    say!("{} ({})", safe(&summary.name), state(client))?;
    let lines = [
        ("id", safe(&summary.id.to_string())),
        ("trust", trust_explained(summary).to_owned()),
        ("known by", source(summary).to_owned()),
        ("authenticates", safe(&summary.auth_method)),
        ("grants", list(&summary.grant_types)),
        ("own scope", or_dash(client.scope.to_string())),
        ("added", moment(summary.created_at)),
        ("last used", moment_if(summary.last_used_at)),
    ];
    for (label, value) in lines {
        say!("  {label:<13}  {value}")?;
    }
    for redirect in &client.redirect_uris {
        let note = if redirect.usable { "" } else { "  (not usable until the client is verified)" };
        say!("  {:<13}  {}{note}", "redirect URI", safe(&redirect.uri))?;
    }
    if !client.keys.is_empty() {
        say!("  {:<13}  {}", "keys", list(&client.keys))?;
    }
    for secret in &client.secrets {
        let (digest, made) = (safe(&secret.sha256_8), moment(secret.created_at));
        say!("  {:<13}  SHA-256 {digest}…, made {made}, {}", "secret", ends(secret.expires_at))?;
    }
    if !client.access.is_empty() {
        say!()?;
        let heading = ["USED BY", "SCOPES", "AT", "SINCE", "LAST USED", "UNTIL", "FROM"];
        table(&heading, &client.access, used_by)?;
    }
    Ok(())
}

fn used_by(grant: &Access) -> Vec<String> {
    vec![
        safe(&grant.user),
        grant.scope.to_string(),
        safe(&grant.resource),
        moment(grant.created_at),
        moment_if(grant.last_used_at),
        moment(grant.expires_at),
        optional(grant.address.as_deref()),
    ]
}

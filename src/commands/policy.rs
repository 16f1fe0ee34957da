//! `portcullis policy …`: what the gate would decide, and why. Uses the gate's own decision function.

mod test;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use authz::Authz;
use authz::reach::{self, Person, Reach};
use clap::{Args, Subcommand};
use resource::catalogue::{BuiltIn, ExplainedDecision, Kind, Question, Rules};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shared::token_status::Ceiling;
use shared::{ClientId, Fault, Scope, Tx, UserId};

use super::frame::print::{list, or_dash, safe};
use super::frame::{CommonOptions, Effect, Handler, Noun, Refused, Request, ServerParts};
use crate::config::File;
use crate::output::say;

#[derive(Subcommand, Debug)]
pub enum Policy {
    /// May this user use this tool, prompt or resource? Prints the decision and the rule that made it. Changes nothing.
    Check(Check),
    /// Which calls of the last days would be decided differently by another configuration? Prints each, and
    /// exits with 1 if there is one. Changes nothing.
    Test(test::Test),
}

#[derive(Args, Debug)]
pub struct Check {
    /// The user's name or id.
    #[arg(long, value_name = "USER")]
    pub user: String,
    #[command(flatten)]
    pub item: Named,
    /// Through this client, with what the user has granted it; its id, or its name if no other client has it.
    /// Without this: through a client that holds everything that the user may grant.
    #[arg(long, value_name = "CLIENT")]
    pub client: Option<String>,
    /// At this profile, /mcp/NAME. Without it: at /mcp, where all tools are.
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// With these arguments: a file with one JSON object. Without it the rules about arguments are left out, and the
    /// answer says which ones there are.
    #[arg(long, value_name = "FILE", conflicts_with = "resource")]
    pub args: Option<PathBuf>,
    #[command(flatten)]
    pub common: CommonOptions,
}

/// The item that somebody asks about.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct Named {
    /// The tool, by its name on the wire.
    #[arg(long, value_name = "TOOL")]
    pub tool: Option<String>,
    /// The prompt, by its name on the wire.
    #[arg(long, value_name = "PROMPT")]
    pub prompt: Option<String>,
    /// The resource, by its URI, or a resource template as it is listed.
    #[arg(long, value_name = "URI")]
    pub resource: Option<String>,
}

impl Named {
    fn kind_and_name(self) -> (Kind, String) {
        let prompt = self.prompt.map(|name| (Kind::Prompt, name));
        let resource = self.resource.map(|uri| (Kind::Resource, uri));
        prompt.or(resource).unwrap_or((Kind::Tool, self.tool.unwrap_or_default()))
    }
}

/// May this user use this item, through this client if one is named?
#[derive(Debug, Serialize, Deserialize)]
struct CheckPolicy {
    user: String,
    kind: Kind,
    name: String,
    client: Option<String>,
    #[serde(default)]
    profile: Option<String>,
    /// The arguments; without them, rules about arguments are ignored.
    #[serde(default)]
    arguments: Option<Map<String, Value>>,
}

#[derive(Serialize, Deserialize)]
struct Decided {
    allowed: bool,
    decision: String,
    rule: String,
    /// The rule about the item with its line, or the two that tie.
    by: Vec<String>,
    /// The arguments that decide as well and were not given, as pointers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unchecked_arguments: Vec<String>,
    item: Item,
    #[serde(default)]
    profile: Option<String>,
    user: User,
    client: Option<Client>,
}

#[derive(Serialize, Deserialize)]
struct Item {
    kind: Kind,
    name: String,
    needs: Option<Scope>,
}

#[derive(Serialize, Deserialize)]
struct User {
    id: UserId,
    name: String,
    groups: Vec<String>,
    entitled: Scope,
}

#[derive(Serialize, Deserialize)]
struct Client {
    id: ClientId,
    name: String,
    trust: String,
    granted: Option<Scope>,
}

impl Request for CheckPolicy {
    const COMMAND: &'static str = "policy-check";
    const DOES: Effect = Effect::Reads;
    type Answer = Decided;

    async fn perform(self, place: &ServerParts, _uid: u32) -> Result<Decided, Refused> {
        let catalogue = place.authority()?.catalogue.clone();
        place.write(move |authz, tx| self.decide(authz, &catalogue, tx)).await
    }
}

impl CheckPolicy {
    fn decide(
        self,
        authz: &Authz,
        catalogue: &BuiltIn,
        tx: &Tx<'_>,
    ) -> Result<Result<Decided, String>, Fault> {
        let person = match reach::person(authz, tx, &self.user)? {
            Ok(person) => person,
            Err(refusal) => return Ok(Err(refusal.to_string())),
        };
        let endpoint = match self.profile.as_deref().map(|name| (name, catalogue.endpoint_of(name))) {
            None => authz.endpoint(),
            Some((_, Some(endpoint))) => Some(endpoint),
            Some((name, None)) => return Ok(Err(no_profile(name, &catalogue.profiles()))),
        };
        let client = match (&self.client, endpoint) {
            (Some(_), None) => {
                let words = "this server has no MCP endpoint of its own, and more than one or none elsewhere; leave out --client";
                return Ok(Err(words.to_owned()));
            }
            (Some(client), Some(endpoint)) => match reach::of_client(tx, client, &person.id, &endpoint)? {
                Ok(reach) => Some(reach),
                Err(refusal) => return Ok(Err(refusal.to_string())),
            },
            (None, _) => None,
        };
        // Without a client, or before it was allowed: as if the client held everything that it may have.
        let ceiling = client.as_ref().map_or(Ceiling::Any, |client| client.ceiling);
        let token = client.as_ref().and_then(|client| client.granted.as_ref()).unwrap_or(&person.entitled);
        let explained = catalogue.explain(&Question {
            token,
            entitled: &person.entitled,
            ceiling,
            kind: self.kind,
            name: &self.name,
            profile: self.profile.as_deref(),
            arguments: self.arguments.as_ref(),
        });
        let (decision, rule) = match (&person, &client) {
            (person, _) if person.disabled => ("user_disabled", "the user is disabled".to_owned()),
            (_, Some(client)) if client.disabled => ("client_disabled", "the client is disabled".to_owned()),
            _ => (explained.decision, rule(&explained, &person, catalogue, &self)),
        };
        Ok(Ok(Decided {
            allowed: decision == "allow",
            decision: decision.to_owned(),
            rule,
            by: explained.ruling,
            unchecked_arguments: explained.unchecked,
            item: Item { kind: self.kind, name: self.name, needs: explained.needs },
            profile: self.profile,
            user: User { id: person.id, name: person.name, groups: person.groups, entitled: person.entitled },
            client: client.map(Client::from),
        }))
    }
}

impl From<Reach> for Client {
    fn from(reach: Reach) -> Self {
        Self { id: reach.id, name: reach.name, trust: reach.trust.to_owned(), granted: reach.granted }
    }
}

fn no_profile(name: &str, profiles: &[String]) -> String {
    let profiles = if profiles.is_empty() { "there is none".to_owned() } else { profiles.join(", ") };
    format!("there is no profile `{name}`; the profiles: {profiles}")
}

/// Why, in one line.
fn rule(explained: &ExplainedDecision, person: &Person, catalogue: &BuiltIn, asked: &CheckPolicy) -> String {
    let (lacking, noun) = (&explained.lacking, asked.kind.as_str());
    match explained.decision {
        "allow" if explained.needs.is_none() => format!("the {noun} needs only a valid token"),
        "allow" => {
            let unchecked =
                if explained.unchecked.is_empty() { "" } else { "; its arguments were not looked at" };
            format!("every scope that the {noun} needs is granted, and the user's groups have it{unchecked}")
        }
        "unknown" => unknown(catalogue, asked),
        "hidden" => format!("the {noun} is hidden"),
        "argument_denied" => explained.allowed.clone().unwrap_or_default(),
        "not_entitled" if explained.ruling.len() > 1 => {
            format!("two rules match the {noun} and neither is more specific, so neither applies")
        }
        "not_entitled" if explained.ruling.is_empty() => {
            let table = Rules::table(asked.kind, &explained.name);
            format!("no rule in [{}] names it; write [{table}] scope = \"…\"", Rules::section(asked.kind))
        }
        "not_entitled" if lacking.is_empty() => format!("no scope gives access to this {noun}"),
        "not_entitled" => {
            let givers = person.who_else_has(lacking);
            let givers = if givers.is_empty() { "no group has it".to_owned() } else { givers.join(", ") };
            format!("none of the user's groups has {lacking}; it is in: {givers}")
        }
        "above_ceiling" => {
            format!("{lacking} is high risk, and the client is not verified: portcullis client verify")
        }
        "scope_missing" => format!("the user has not granted the client {lacking}; a call asks them for it"),
        other => other.to_owned(),
    }
}

/// What there is instead. Of resources there may be too many to say.
fn unknown(catalogue: &BuiltIn, asked: &CheckPolicy) -> String {
    let CheckPolicy { kind, name, profile, .. } = asked;
    let noun = kind.as_str();
    let at = profile.as_ref().map_or_else(String::new, |profile| format!(" at the profile `{profile}`"));
    if *kind == Kind::Resource {
        return format!("no resource `{name}`{at}; no source lists it or has a template for it");
    }
    let there = if profile.is_some() { " there" } else { "" };
    match catalogue.names_at(*kind, profile.as_deref()).join(", ") {
        none if none.is_empty() => format!("no {noun} `{name}`{at}; no {noun} is known{there}"),
        known => format!("no {noun} `{name}`{at}; the {noun}s{there} are {known}"),
    }
}

impl Noun for Policy {
    const REQUESTS: &'static [Handler] = &[Handler::of::<CheckPolicy>()];

    /// Exits with 1 if the answer is no, for scripts.
    fn run(self, file: &File) -> anyhow::Result<ExitCode> {
        let Check { user, item, client, profile, args, common } = match self {
            Self::Check(check) => check,
            Self::Test(test) => return Ok(code(test.run(file)?)),
        };
        let arguments = args.as_deref().map(read_arguments).transpose()?;
        let (kind, name) = item.kind_and_name();
        let decided = common.ask(file, CheckPolicy { user, kind, name, client, profile, arguments })?;
        common.show(&decided, explain)?;
        Ok(code(decided.allowed))
    }
}

fn code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The arguments of a call, from a file with one JSON object.
fn read_arguments(path: &Path) -> anyhow::Result<Map<String, Value>> {
    let text = shared::file::read_input(path).with_context(|| format!("cannot read {}", path.display()))?;
    shared::json::read(text.as_bytes()).map_err(|error| {
        anyhow!("{} does not hold the arguments of a call as one JSON object: {error}", path.display())
    })
}

fn explain(decided: &Decided) -> anyhow::Result<()> {
    let Decided { allowed, decision, rule, by, unchecked_arguments, item, profile, user, client } = decided;
    let may = if *allowed { "may" } else { "may not" };
    let verb = match item.kind {
        Kind::Tool => "call",
        Kind::Prompt => "use",
        Kind::Resource | Kind::Template => "read",
    };
    let condition = if *allowed && !unchecked_arguments.is_empty() {
        format!(", if its arguments hold ({}): give them with --args", list(unchecked_arguments))
    } else {
        String::new()
    };
    say!("{} {may} {verb} {} ({}){condition}", safe(&user.name), safe(&item.name), safe(decision))?;
    say!("  rule      {}", safe(rule))?;
    for by in by {
        say!("  by        {}", safe(by))?;
    }
    if let Some(profile) = profile {
        say!("  profile   {}", safe(profile))?;
    }
    match &item.needs {
        Some(needs) if !needs.is_empty() => say!("  needs     {needs}")?,
        None if *allowed => say!("  needs     no scope")?,
        // Nothing opens it: it is hidden, has no rule, or does not exist.
        _ => {}
    }
    say!("  groups    {}", list(&user.groups))?;
    say!("  entitled  {}", or_dash(user.entitled.to_string()))?;
    if let Some(client) = client {
        let granted = client.granted.as_ref().map_or_else(
            || "nothing granted yet; decided as if everything were granted".to_owned(),
            |granted| format!("granted {}", or_dash(granted.to_string())),
        );
        say!("  client    {} ({}): {granted}", safe(&client.name), safe(&client.trust))?;
    }
    Ok(())
}

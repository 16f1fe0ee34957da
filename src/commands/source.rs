//! `portcullis source …` (SRC-14).

mod import;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use resource::sources::{Health, Kind, LeftOut, ListedItem, Log as Logged, ProcessHealth, Tested, Upstreams};
use serde::{Deserialize, Serialize};
use shared::audit::{self, Event, Name};

use super::frame::print::{moment_if, optional, safe, short, table};
use super::frame::{CommonOptions, Effect, Handler, Noun, Refused, Request, ServerParts};
use crate::config::File;
use crate::output::say;

#[derive(Subcommand, Debug)]
pub enum Source {
    /// Show the servers behind the gate: what each speaks, how many items it offers, and since when it does not answer.
    List(CommonOptions),
    /// Show one of them, with what is left out of its items, and why.
    Show(OneSource),
    /// Ask one of them now, and show what it lists: each item with a scope and a risk that may fit it, and the tokens that
    /// its definition takes in a model's context.
    Test(OneSource),
    /// Show recent events between the gate and one of them: connections, failures, reads of its lists; and the end of what a
    /// program wrote to standard error.
    Log(Log),
    /// Restart one of them: its sessions, idle connections and processes end, its revision is determined again, and its lists
    /// are read. A program that crashed too often is started again.
    Restart(OneSource),
    /// Import the servers of a client's file: prints them as [sources], and stores their secrets in the sealed
    /// store.
    Import(import::Import),
}

#[derive(Args, Debug)]
pub struct Log {
    /// Its name in the configuration.
    name: String,
    /// The most entries; the latest are shown.
    #[arg(long, default_value_t = 50, value_name = "COUNT")]
    limit: usize,
    #[command(flatten)]
    common: CommonOptions,
}

#[derive(Args, Debug)]
pub struct OneSource {
    /// Its name in the configuration.
    name: String,
    #[command(flatten)]
    common: CommonOptions,
}

/// `portcullis source list` and `show`.
#[derive(Debug, Serialize, Deserialize)]
struct ListSources {}

#[derive(Serialize, Deserialize)]
struct Listed {
    sources: Vec<Health>,
}

/// `portcullis source test`.
#[derive(Debug, Serialize, Deserialize)]
struct TestSource {
    name: String,
}

impl Request for ListSources {
    const COMMAND: &'static str = "source-list";
    const DOES: Effect = Effect::Reads;
    const AT_GATEWAY: bool = true;
    type Answer = Listed;

    async fn perform(self, place: &ServerParts, _uid: u32) -> Result<Listed, Refused> {
        let sources = match &place.upstreams {
            Some(upstreams) => upstreams.health().await,
            None => Upstreams::remembered(&place.db)?,
        };
        Ok(Listed { sources })
    }
}

impl Request for TestSource {
    const COMMAND: &'static str = "source-test";
    const DOES: Effect = Effect::Reads;
    const AT_GATEWAY: bool = true;
    const PATIENCE: Duration = Duration::from_secs(75);
    type Answer = Tested;

    async fn perform(self, place: &ServerParts, _uid: u32) -> Result<Tested, Refused> {
        let tested = running(place)?.test(&self.name).await;
        let tested = tested.ok_or_else(|| Refused::by_rule(&unknown(&self.name)))?;
        tested
            .map_err(|why| Refused::unavailable(&format!("the server `{}` cannot be used: {why}", self.name)))
    }
}

/// `portcullis source log`.
#[derive(Debug, Serialize, Deserialize)]
struct SourceLog {
    name: String,
    limit: usize,
}

impl Request for SourceLog {
    const COMMAND: &'static str = "source-log";
    const DOES: Effect = Effect::Reads;
    const AT_GATEWAY: bool = true;
    type Answer = Logged;

    async fn perform(self, place: &ServerParts, _uid: u32) -> Result<Logged, Refused> {
        let logged = running(place)?.log(&self.name, self.limit);
        logged.ok_or_else(|| Refused::by_rule(&unknown(&self.name)))
    }
}

/// `portcullis source restart`.
#[derive(Debug, Serialize, Deserialize)]
struct RestartSource {
    name: String,
}

impl Request for RestartSource {
    const COMMAND: &'static str = "source-restart";
    const AT_GATEWAY: bool = true;
    const PATIENCE: Duration = Duration::from_secs(75);
    type Answer = Health;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<Health, Refused> {
        let upstreams = running(place)?;
        let Some(id) = upstreams.id(&self.name) else { return Err(Refused::by_rule(&unknown(&self.name))) };
        let event = Event::allowed(Name::SourceRestarted).by_console(uid).subject(&id);
        let event = event.detail("name", self.name.as_str());
        place.db.write(move |tx| audit::append(tx, event)).await?;
        let restarted = upstreams.restart(&self.name).await;
        let restarted = restarted.ok_or_else(|| Refused::by_rule(&unknown(&self.name)))?;
        restarted.map_err(|why| {
            Refused::unavailable(&format!(
                "the server `{}` was restarted and cannot be used: {why}",
                self.name
            ))
        })
    }
}

/// The servers, where a server runs that connects to them.
fn running(place: &ServerParts) -> Result<&Upstreams, Refused> {
    let none = "no server runs; start `portcullis serve`, which connects to it";
    place.upstreams.as_ref().ok_or_else(|| Refused::unavailable(&none))
}

fn unknown(name: &str) -> String {
    format!("there is no source `{name}`; `portcullis source list` shows them")
}

impl Noun for Source {
    const REQUESTS: &'static [Handler] = &[
        Handler::of::<ListSources>(),
        Handler::of::<TestSource>(),
        Handler::of::<SourceLog>(),
        Handler::of::<RestartSource>(),
    ];

    fn run(self, file: &File) -> anyhow::Result<ExitCode> {
        match self {
            Self::List(common) => common.run(file, ListSources {}, |listed| {
                if listed.sources.is_empty() {
                    return say!("{NONE}");
                }
                table(
                    &[
                        "SOURCE",
                        "REVISION",
                        "TOOLS",
                        "PROMPTS",
                        "RESOURCES",
                        "LISTS READ",
                        "STALE SINCE",
                        "ADDRESS",
                    ],
                    &listed.sources,
                    |one| {
                        vec![
                            safe(&one.name),
                            revision(one.era.as_deref()),
                            one.items.tools.to_string(),
                            one.items.prompts.to_string(),
                            (one.items.resources + one.items.templates).to_string(),
                            moment_if(one.walked_at.map(|at| at.0)),
                            moment_if(one.stale.as_ref().map(|stale| stale.since.0)),
                            safe(&one.url),
                        ]
                    },
                )
            })?,
            Self::Show(OneSource { name, common }) => {
                let all = common.ask(file, ListSources {})?.sources;
                let one =
                    all.into_iter().find(|one| one.name == name).ok_or_else(|| anyhow!(unknown(&name)))?;
                common.show(&one, shown)?;
            }
            Self::Test(OneSource { name, common }) => common.run(file, TestSource { name }, tested)?,
            Self::Import(import) => import::run(&import, file)?,
            Self::Log(Log { name, limit, common }) => common.run(file, SourceLog { name, limit }, logged)?,
            Self::Restart(OneSource { name, common }) => {
                common.run(file, RestartSource { name }, |health| {
                    say!("Restarted.\n")?;
                    shown(health)
                })?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

const NONE: &str =
    "There is no server behind the gate. To add one, write this into portcullis.toml and run `portcullis reload`:

  [sources.NAME]
  kind = \"mcp-http\"
  url = \"https://HOST/mcp\"

or, for a program that speaks MCP on its standard input and output:

  [sources.NAME]
  kind = \"mcp-stdio\"
  command = \"/opt/mcp/server\"";

/// The protocol revision of a server, for people.
fn revision(era: Option<&str>) -> String {
    match era {
        Some("legacy") => "2025-11-25 or older".to_owned(),
        other => optional(other),
    }
}

fn shown(one: &Health) -> anyhow::Result<()> {
    say!("Source     {} ({})", safe(&one.name), safe(&one.id))?;
    say!("Address    {}", safe(&one.url))?;
    say!("Revision   {}", revision(one.era.as_deref()))?;
    say!("Tools      {}", one.items.tools)?;
    say!("Prompts    {}", one.items.prompts)?;
    say!("Resources  {} and {} templates", one.items.resources, one.items.templates)?;
    say!("Lists read {}", moment_if(one.walked_at.map(|at| at.0)))?;
    if let Some(processes) = &one.processes {
        processes_shown(processes)?;
    }
    if let Some(stale) = &one.stale {
        say!("Stale      since {}: {}", moment_if(Some(stale.since.0)), safe(&stale.why))?;
    }
    one.left_out.iter().try_for_each(left_out)
}

fn processes_shown(processes: &ProcessHealth) -> anyhow::Result<()> {
    let ProcessHealth { running, in_use, limit, quarantined, why, skipped } = processes;
    say!("Processes  {running} of at most {limit}, {in_use} in use")?;
    let (not_messages, strays, too_long) = (skipped.not_messages, skipped.strays, skipped.too_long);
    if not_messages + strays + too_long > 0 {
        say!(
            "Skipped    {not_messages} lines that are not JSON-RPC, {strays} answers that nobody waited for, {too_long} lines over 8 MiB"
        )?;
    }
    if *quarantined > 0 {
        say!(
            "Quarantine {quarantined}: no longer started after five crashes within five minutes ({}); `portcullis source restart` starts it again",
            safe(why.as_deref().unwrap_or_default())
        )?;
    }
    Ok(())
}

fn left_out(item: &LeftOut) -> anyhow::Result<()> {
    say!("Left out   {} {}: {}", item.kind.as_str(), safe(&item.name), safe(&item.why))
}

fn logged(logged: &Logged) -> anyhow::Result<()> {
    if logged.entries.is_empty() {
        say!("Nothing has happened since the server started.")?;
        return errors(logged.errors.as_deref());
    }
    table(&["LAST", "WHAT", "TIMES", "DETAIL"], &logged.entries, |entry| {
        vec![
            moment_if(Some(entry.at.0)),
            entry.kind.as_str().to_owned(),
            entry.times.to_string(),
            safe(&entry.text),
        ]
    })?;
    errors(logged.errors.as_deref())
}

/// The end of what a program wrote to standard error.
fn errors(errors: Option<&str>) -> anyhow::Result<()> {
    let Some(errors) = errors.filter(|errors| !errors.trim().is_empty()) else { return Ok(()) };
    say!("\nThe end of its standard error:\n")?;
    errors.lines().try_for_each(|line| say!("  {}", safe(line)))
}

fn tested(tested: &Tested) -> anyhow::Result<()> {
    let kinds = [
        (Kind::Tool, &tested.tools),
        (Kind::Prompt, &tested.prompts),
        (Kind::Resource, &tested.resources),
        (Kind::Template, &tested.templates),
    ];
    let counts: Vec<_> =
        kinds.iter().map(|(kind, items)| format!("{} {}s", items.len(), kind.as_str())).collect();
    match &tested.era {
        Some(era) => {
            say!(
                "It speaks {} and listed {} in {} ms.\n",
                revision(Some(era)),
                counts.join(", "),
                tested.ms
            )?;
        }
        None => {
            say!(
                "It can be reached ({} ms). The configuration declares {}.\n",
                tested.ms,
                counts.join(", ")
            )?;
        }
    }
    let listed: Vec<(Kind, &ListedItem)> =
        kinds.iter().flat_map(|(kind, items)| items.iter().map(|item| (*kind, item))).collect();
    table(&["KIND", "NAME", "SCOPE THAT MAY FIT", "RISK", "TOKENS", "TITLE"], &listed, |(kind, item)| {
        vec![
            kind.as_str().to_owned(),
            safe(&item.name),
            safe(&item.scope),
            item.risk.clone(),
            item.tokens.to_string(),
            short(&item.title),
        ]
    })?;
    // What a model always has in its context is the tools.
    say!(
        "\nThe definitions of the tools take about {} tokens.",
        tested.tools.iter().map(|tool| tool.tokens).sum::<usize>()
    )?;
    tested.left_out.iter().try_for_each(left_out)?;
    errors(tested.errors.as_deref())
}

//! `portcullis source …` (SRC-14).

use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use resource::sources::{Health, Tested, Upstreams};
use serde::{Deserialize, Serialize};

use super::frame::print::{moment_if, optional, safe, table};
use super::frame::{Common, Handler, Noun, Place, Refused, Request};
use crate::config::File;
use crate::output::say;

#[derive(Subcommand, Debug)]
pub enum Source {
    /// Show the servers behind the gate: what each speaks, how many tools it offers, and since when it does not answer.
    List(Common),
    /// Show one of them, with what is left out of its tools, and why.
    Show(One),
    /// Ask one of them now, and show what it lists: each tool with a scope and a risk that may fit it, and the tokens that
    /// its definition takes in a model's context.
    Test(One),
}

#[derive(Args, Debug)]
pub struct One {
    /// Its name in the configuration.
    name: String,
    #[command(flatten)]
    common: Common,
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
    const AT_GATEWAY: bool = true;
    type Answer = Listed;

    async fn perform(self, place: &Place, _uid: u32) -> Result<Listed, Refused> {
        let sources = match &place.upstreams {
            Some(upstreams) => upstreams.health().await,
            None => Upstreams::remembered(&place.db)?,
        };
        Ok(Listed { sources })
    }
}

impl Request for TestSource {
    const COMMAND: &'static str = "source-test";
    const AT_GATEWAY: bool = true;
    const PATIENCE: Duration = Duration::from_secs(75);
    type Answer = Tested;

    async fn perform(self, place: &Place, _uid: u32) -> Result<Tested, Refused> {
        let Some(upstreams) = &place.upstreams else {
            return Err(Refused::unavailable(
                &"no server runs; start `portcullis serve`, which connects to it",
            ));
        };
        let tested = upstreams.test(&self.name).await;
        let tested = tested.ok_or_else(|| Refused::by_rule(&unknown(&self.name)))?;
        tested
            .map_err(|why| Refused::unavailable(&format!("the server `{}` cannot be used: {why}", self.name)))
    }
}

fn unknown(name: &str) -> String {
    format!("there is no source `{name}`; `portcullis source list` shows them")
}

impl Noun for Source {
    const REQUESTS: &'static [Handler] = &[Handler::of::<ListSources>(), Handler::of::<TestSource>()];

    fn run(self, file: &File) -> anyhow::Result<ExitCode> {
        match self {
            Self::List(common) => common.run(file, ListSources {}, |listed| {
                table(
                    &["SOURCE", "SPEAKS", "TOOLS", "LAST WALK", "STALE SINCE", "ADDRESS"],
                    &listed.sources,
                    |one| {
                        vec![
                            safe(&one.name),
                            optional(one.era.as_deref()),
                            one.tools.to_string(),
                            moment_if(one.walked_at.map(|at| at.0)),
                            moment_if(one.stale.as_ref().map(|stale| stale.since.0)),
                            safe(&one.url),
                        ]
                    },
                )
            })?,
            Self::Show(One { name, common }) => {
                let all = common.ask(file, ListSources {})?.sources;
                let one =
                    all.into_iter().find(|one| one.name == name).ok_or_else(|| anyhow!(unknown(&name)))?;
                common.show(&one, shown)?;
            }
            Self::Test(One { name, common }) => common.run(file, TestSource { name }, tested)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn shown(one: &Health) -> anyhow::Result<()> {
    say!("Source     {} ({})", safe(&one.name), safe(&one.id))?;
    say!("Address    {}", safe(&one.url))?;
    say!("Speaks     {}", optional(one.era.as_deref()))?;
    say!("Tools      {}", one.tools)?;
    say!("Last walk  {}", moment_if(one.walked_at.map(|at| at.0)))?;
    if let Some(stale) = &one.stale {
        say!("Stale      since {}: {}", moment_if(Some(stale.since.0)), safe(&stale.why))?;
    }
    one.left_out.iter().try_for_each(|tool| say!("Left out   {}: {}", safe(&tool.name), safe(&tool.why)))
}

fn tested(tested: &Tested) -> anyhow::Result<()> {
    say!(
        "It speaks {} and listed {} tools in {} ms.\n",
        optional(tested.era.as_deref()),
        tested.tools.len(),
        tested.ms
    )?;
    table(&["TOOL", "SCOPE THAT MAY FIT", "RISK", "TOKENS", "TITLE"], &tested.tools, |tool| {
        vec![
            safe(&tool.name),
            safe(&tool.scope),
            tool.risk.clone(),
            tool.tokens.to_string(),
            safe(&tool.title),
        ]
    })?;
    say!(
        "\nThe definitions take about {} tokens.",
        tested.tools.iter().map(|tool| tool.tokens).sum::<usize>()
    )?;
    tested.left_out.iter().try_for_each(|tool| say!("Left out   {}: {}", safe(&tool.name), safe(&tool.why)))
}

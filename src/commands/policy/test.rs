//! `portcullis policy test`: which recorded calls would be decided differently by another configuration
//! (POL-06).

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use authz::Groups;
use authz::reach::AccessSnapshot;
use clap::Args;
use resource::catalogue::{BuiltIn, Kind};
use resource::replay::{Recorded, Replayed};
use serde::Serialize;
use serde_json::Value;
use shared::audit;
use shared::db::ReadOnly;
use shared::schema::SCHEMA;
use shared::token_status::Ceiling;
use shared::{ClientId, Issuer, ResourceUri, Scope, Timestamp};

use crate::base::require_database;
use crate::commands::frame::CommonOptions;
use crate::commands::frame::print::safe;
use crate::config::{File, duration};
use crate::output::say;
use crate::timekeeping;

/// The records in one read.
const PAGE: i64 = 1000;

#[derive(Args, Debug)]
pub struct Test {
    /// The configuration to compare with the current one.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// How far back to look, such as 7d or 24h.
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = duration::parse_some)]
    pub since: Duration,
    #[command(flatten)]
    pub common: CommonOptions,
}

/// The result.
#[derive(Default, Serialize)]
struct Tested {
    /// The number of calls.
    calls: usize,
    changed: Vec<Change>,
    /// Calls that depend on argument values that were not recorded.
    undecided: usize,
}

/// A call that would be decided differently.
#[derive(Serialize)]
struct Change {
    seq: i64,
    at: String,
    user: Option<String>,
    client: String,
    kind: Kind,
    name: String,
    before: String,
    after: String,
}

/// The two configurations, each with its tools and groups.
struct Sides {
    catalogues: [BuiltIn; 2],
    groups: [Groups; 2],
    everybody: AccessSnapshot,
}

impl Test {
    /// Prints what would change; true if nothing would.
    pub(super) fn run(self, file: &File) -> anyhow::Result<bool> {
        let other = File::load(Some(&self.file))?;
        let path = require_database(&self.common.data.path(file))?;
        let db = ReadOnly::open(&path, &SCHEMA)?;
        let since = timekeeping::clock()?.now() - self.since;
        let sides = Sides::new(&db, [file, &other])?;
        let tested = sides.walk(&db, since)?;
        self.common.show(&tested, Tested::explain)?;
        Ok(tested.changed.is_empty())
    }
}

impl Sides {
    fn new(db: &ReadOnly, files: [&File; 2]) -> anyhow::Result<Self> {
        let issuer = db.read(authz::issuer_change::stored)?;
        let issuer = issuer.context("this data directory was never served; start `portcullis serve` once")?;
        let issuer = Issuer::parse(&issuer)?;
        let [now, other] = files.map(|file| BuiltIn::new(&issuer, &file.rules));
        let catalogues =
            [now.context("the present configuration")?, other.context("the other configuration")?];
        for (catalogue, file) in catalogues.iter().zip(files) {
            let sources: Vec<_> = file.sources.values().map(|source| source.settings.clone()).collect();
            let declared: Vec<_> = file.declared.values().map(|source| source.source.clone()).collect();
            db.read(|conn| catalogue.remember(conn, &sources, &declared))?;
            catalogue.check()?;
        }
        let groups = files.map(|file| Groups::new(file.groups.clone()));
        Ok(Self { catalogues, groups, everybody: db.read(AccessSnapshot::read)? })
    }

    /// Reads the records from the newest back to this time.
    fn walk(&self, db: &ReadOnly, since: Timestamp) -> anyhow::Result<Tested> {
        let since = since.to_string();
        let mut tested = Tested::default();
        let newest = db.read(|conn| audit::tail(conn, 1, 0))?;
        let mut to = newest.first().and_then(|record| record["seq"].as_i64()).unwrap_or(0);
        while to > 0 {
            let after = (to - PAGE).max(0);
            let page = db.read(|conn| audit::range(conn, after, to))?;
            let recent = |record: &&Value| record["ts"].as_str().is_some_and(|ts| *ts >= *since);
            let calls = page.iter().rev().take_while(recent).filter_map(call);
            calls.for_each(|(record, call)| self.count(&mut tested, record, &call));
            if page.first().is_none_or(|oldest| !recent(&oldest)) {
                break;
            }
            to = after;
        }
        tested.changed.reverse();
        Ok(tested)
    }

    fn count(&self, tested: &mut Tested, record: &Value, call: &Recorded) {
        let client = record["client_id"].as_str().and_then(ClientId::parse);
        let ceiling = client.as_ref().map_or(Ceiling::LowRisk, |client| self.everybody.ceiling(client));
        // A client in its own name may have the scope that an administrator gave it, which is its token's.
        let ceiling = if call.has_user { ceiling } else { Ceiling::Any };
        let call = Recorded { ceiling, ..call.clone() };
        let user = record["actor"]["id"].as_str().filter(|_| call.has_user);
        let [now, other] = &self.groups;
        let entitled =
            |groups| user.map_or_else(|| call.token.clone(), |user| self.everybody.entitled(user, groups));
        let [here, there] = &self.catalogues;
        tested.calls += 1;
        match here.replay(&call, there, [&entitled(now), &entitled(other)]) {
            Replayed::Same => {}
            Replayed::Undecided => tested.undecided += 1,
            Replayed::Changed { before, after } => tested.changed.push(Change {
                seq: record["seq"].as_i64().unwrap_or_default(),
                at: text(&record["ts"]),
                user: user.map(str::to_owned),
                client: text(&record["client_id"]),
                kind: call.kind,
                name: call.name,
                before,
                after,
            }),
        }
    }
}

/// The call of a record, if the record has a decision.
fn call(record: &Value) -> Option<(&Value, Recorded)> {
    let detail = &record["detail"];
    if !["mcp.call", "mcp.denied"].contains(&record["event"].as_str()?) {
        return None;
    }
    let kind = match detail["method"].as_str()? {
        "tools/call" => Kind::Tool,
        "prompts/get" => Kind::Prompt,
        "resources/read" => Kind::Resource,
        _ => return None,
    };
    let call = Recorded {
        resource: ResourceUri::parse(record["resource"].as_str()?).ok()?,
        kind,
        name: detail["name"].as_str()?.to_owned(),
        source: detail["upstream"].as_str().map(str::to_owned),
        token: record["scope"].as_str().unwrap_or_default().parse::<Scope>().ok()?,
        ceiling: Ceiling::LowRisk,
        has_user: record["actor"]["type"] == "user",
        decision: text(&detail["decision"]),
        rule: detail["rule"].as_str().map(str::to_owned),
        values: detail["rule_values"].as_object().cloned(),
    };
    Some((record, call))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Tested {
    fn explain(&self) -> anyhow::Result<()> {
        for change in &self.changed {
            let Change { at, user, client, name, before, after, .. } = change;
            let who = user.as_ref().unwrap_or(client);
            say!("{at}  {}  {}  {} -> {}", safe(who), safe(name), safe(before), safe(after))?;
        }
        let undecided = match self.undecided {
            0 => String::new(),
            count => format!(
                ", {count} undecided: the values of their arguments were not kept ([audit] rule_values = true keeps them)"
            ),
        };
        say!("{} calls, {} would change{undecided}.", self.calls, self.changed.len())
    }
}

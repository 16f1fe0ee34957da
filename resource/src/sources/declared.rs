//! Sources whose tools the configuration declares (`kind = "rest"`, `"sql"`, `"webhook"`). What they offer is known without asking anybody,
//! so nothing of it is stored, and it is there at start (SRC-02).

pub(crate) mod cut;
mod param;
mod projection;
pub mod rest;
pub mod sql;
mod tool;
pub mod webhook;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use shared::outbound::Destination;
use shared::{Clock, Timestamp};

use super::Outcome;
use super::health::{Health, Stale};
use super::identity::{Credential, Credentials};
use super::journal::{Entry, Journal, Kind as Noted};
use super::own::problem;
use crate::admission::{Ask, AskKind, Relay};
use crate::item::{Offered, SourceName};
pub use param::{Param, ParamKind};
pub use projection::Projection;
use rest::{Rest, RestSource};
use sql::{Database, Sql, SqlSource};
use tool::Tool;
pub use tool::ToolText;
use webhook::{Webhook, WebhookSource};

/// How much longer than its statement a call may take.
const MARGIN: Duration = Duration::from_secs(5);

/// A source with declared tools, as the configuration says it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeclaredSource {
    pub name: String,
    /// How long a call may run (LIMIT-04).
    pub timeout: Duration,
    pub kind: DeclaredKind,
    /// Whether each user gives a secret of their own for it (SRC-10).
    pub own_secret: bool,
}

/// What the tools of a source do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DeclaredKind {
    /// Requests to an HTTP service.
    Rest(RestSource),
    /// Queries on a database.
    Sql(SqlSource),
    /// Signed messages to a receiver.
    Webhook(WebhookSource),
}

/// A source with its credentials.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeclaredConfigured {
    pub source: DeclaredSource,
    pub credentials: Vec<Credential>,
}

/// A source whose tools are declared. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Declared(Arc<Inner>);

struct Inner {
    configured: DeclaredConfigured,
    offered: Arc<Offered>,
    tools: Vec<Tool>,
    runs: Runs,
    shared: Shared,
}

/// What runs the calls.
enum Runs {
    Rest(Rest),
    Sql(Box<Sql>),
    Webhook(Webhook),
}

/// What every kind uses: the name, the clock, and what happened.
pub(crate) struct Shared {
    pub(crate) name: SourceName,
    pub(crate) clock: Clock,
    journal: Journal,
    stale: Mutex<Option<(Timestamp, String)>>,
}

impl DeclaredSource {
    /// Identifies it: with another target it is another source, and users' secrets are for the old one.
    pub(crate) fn target(&self) -> String {
        format!("{} {}", self.kind_name(), self.address())
    }

    /// Where it is, for people.
    pub fn address(&self) -> &str {
        match &self.kind {
            DeclaredKind::Rest(rest) => &rest.url,
            DeclaredKind::Sql(sql) => sql.database.shown(),
            DeclaredKind::Webhook(hook) => &hook.url,
        }
    }

    /// Where it connects to, if that is one address.
    pub fn destination(&self) -> Option<&Destination> {
        match &self.kind {
            DeclaredKind::Rest(rest) => Some(&rest.destination),
            DeclaredKind::Sql(SqlSource { database: Database::Postgres(server), .. }) => {
                Some(&server.destination)
            }
            DeclaredKind::Sql(_) => None,
            DeclaredKind::Webhook(hook) => Some(&hook.destination),
        }
    }

    /// The value of `kind`.
    pub fn kind_name(&self) -> &'static str {
        match &self.kind {
            DeclaredKind::Rest(_) => "rest",
            DeclaredKind::Sql(_) => "sql",
            DeclaredKind::Webhook(_) => "webhook",
        }
    }

    fn tools(&self) -> Result<Vec<Tool>, String> {
        match &self.kind {
            DeclaredKind::Rest(rest) => rest::tools(&self.name, rest),
            DeclaredKind::Sql(sql) => sql::tools(&self.name, sql),
            DeclaredKind::Webhook(hook) => webhook::tools(&self.name, hook),
        }
    }

    /// The names of its tools, as rules and clients call them.
    ///
    /// # Errors
    /// What is wrong with a declaration, in words.
    pub fn tool_names(&self) -> Result<Vec<String>, String> {
        Ok(self.tools()?.iter().map(|tool| tool.offer.name.to_string()).collect())
    }

    /// What it offers.
    pub(crate) fn offered(&self) -> Offered {
        // A declaration that cannot be used is refused when the configuration is read.
        let tools = self.tools().unwrap_or_default();
        self.offers(&tools)
    }

    fn offers(&self, tools: &[Tool]) -> Offered {
        Offered {
            source: SourceName::from(self.name.as_str()),
            offers: tools.iter().map(|tool| Arc::clone(&tool.offer)).collect(),
            own_secret: self.own_secret.then(|| self.target().into()),
        }
    }
}

impl Declared {
    /// # Errors
    /// If a declaration cannot be used.
    pub(crate) fn new(
        configured: DeclaredConfigured,
        credentials: Arc<Credentials>,
        clock: &Clock,
    ) -> Result<Self, String> {
        let source = &configured.source;
        let tools = source.tools()?;
        let runs = match &source.kind {
            DeclaredKind::Rest(rest) => Runs::Rest(Rest::new(rest.clone(), credentials)),
            DeclaredKind::Sql(sql) => Runs::Sql(Box::new(Sql::new(sql.clone(), credentials))),
            DeclaredKind::Webhook(hook) => Runs::Webhook(Webhook::new(hook.clone(), credentials)),
        };
        let shared = Shared {
            name: SourceName::from(source.name.as_str()),
            clock: clock.clone(),
            journal: Journal::default(),
            stale: Mutex::default(),
        };
        let offered = Arc::new(source.offers(&tools));
        Ok(Self(Arc::new(Inner { configured, offered, tools, runs, shared })))
    }

    pub(crate) fn offered(&self) -> Arc<Offered> {
        Arc::clone(&self.0.offered)
    }

    /// Whether it is configured like this, so that it can go on as it is.
    pub(crate) fn is_as(&self, configured: &DeclaredConfigured) -> bool {
        self.0.configured == *configured
    }

    /// Whether this is the same one, and not another one that took its place.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn is_called(&self, name: &str) -> bool {
        self.0.configured.source.name == name
    }

    /// How long a call may run.
    pub(crate) fn patience(&self) -> Duration {
        self.0.configured.source.timeout
    }

    /// How long the gate waits: longer, where the source ends a call by itself and says why.
    pub(crate) fn longest(&self) -> Duration {
        match &self.0.runs {
            Runs::Rest(_) => self.patience(),
            Runs::Sql(_) | Runs::Webhook(_) => self.patience() + MARGIN,
        }
    }

    /// Runs a call.
    pub(crate) async fn run(&self, ask: &Ask, relay: &Relay) -> Outcome {
        let AskKind::Tool(item, arguments) = ask.what() else { return Outcome::Error };
        let tools = self.0.tools.iter();
        let Some((at, tool)) = tools.enumerate().find(|(_, tool)| tool.offer.name == item.offer.name) else {
            return Outcome::NotSent(
                "This tool was removed from the configuration. Nothing was done.".into(),
            );
        };
        if let Err(wrong) = tool.takes.check(arguments) {
            return problem(&wrong);
        }
        let outcome = match &self.0.runs {
            Runs::Rest(rest) => rest.run(&self.0.shared, at, ask, arguments).await,
            Runs::Sql(sql) => {
                sql.run(&self.0.shared.name, at, (ask, self.0.shared.clock.now()), arguments, self.patience())
                    .await
            }
            Runs::Webhook(hook) => {
                hook.run(&self.0.shared, at, (ask, relay), arguments, self.patience()).await
            }
        };
        self.0.shared.note_outcome(&outcome);
        outcome
    }

    /// Reaches what is behind it; how long that took, in milliseconds (SRC-14).
    pub(crate) async fn test(&self) -> Result<u64, String> {
        let begun = Instant::now();
        let reached = match &self.0.runs {
            Runs::Rest(rest) => rest.probe(&self.0.shared, self.patience()).await,
            Runs::Sql(sql) => sql.probe(self.patience(), self.0.shared.clock.now()).await,
            Runs::Webhook(hook) => hook.probe(self.patience()).await,
        };
        self.0.shared.note_reached(reached.as_ref().err());
        reached.map(|()| u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Drops its idle connections, and reaches what is behind it again.
    pub(crate) async fn restart(&self) -> Result<(), String> {
        match &self.0.runs {
            Runs::Rest(rest) => rest.forget(),
            Runs::Sql(sql) => sql.forget(),
            Runs::Webhook(hook) => hook.forget(),
        }
        self.0.shared.note(Noted::Restarted, "an administrator restarted it");
        self.test().await.map(drop)
    }

    pub(crate) fn journal(&self, most: usize) -> Vec<Entry> {
        self.0.shared.journal.latest(most)
    }

    pub(crate) fn health(&self) -> Health {
        let source = &self.0.configured.source;
        let stale = self.0.shared.stale.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Health {
            name: source.name.clone(),
            id: source.name.clone(),
            url: source.target(),
            era: None,
            items: self.0.offered.counts(),
            walked_at: None,
            stale: stale.map(|(since, why)| Stale { since, why }),
            left_out: Vec::new(),
            processes: None,
        }
    }
}

impl Shared {
    pub(crate) fn note(&self, kind: Noted, text: impl Into<String>) {
        self.journal.note(self.clock.now(), kind, text);
    }

    fn note_outcome(&self, outcome: &Outcome) {
        match outcome {
            Outcome::NotSent(why) => {
                self.note(Noted::CallFailed, format!("a call was not sent: {why}"));
                self.note_reached(Some(&why.to_string()));
            }
            Outcome::Unknown(why) => {
                self.note(Noted::CallFailed, format!("a call has no result: {why}"));
                self.note_reached(Some(&why.to_string()));
            }
            Outcome::Result { .. } => self.note_reached(None),
            _ => {}
        }
    }

    /// Keeps since when it fails, and why.
    fn note_reached(&self, failed: Option<&String>) {
        let mut stale = self.stale.lock().unwrap_or_else(PoisonError::into_inner);
        *stale = failed.map(|why| {
            let since = stale.as_ref().map_or_else(|| self.clock.now(), |(since, _)| *since);
            (since, why.clone())
        });
    }
}

//! MCP servers that are reached over HTTP (`kind = "mcp-http"`): what one of them offers, from its last complete walk, and
//! calls of its tools.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::value::RawValue;
use shared::audit::{Event, Name};
use shared::outbound::{Destination, Outbound};
use shared::{Clock, Db, Digest, Fault, Timestamp};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::health::{Health, Stale};
use super::identity::Credentials;
use super::mcp::client::{Client, HEADER_MISMATCH, Identity, NoResult, Request, Speaks, deaf};
use super::mcp::definition::{LONG_NAME, LeftOut, Names, offers};
use super::mcp::failed::Failed;
use super::mcp::message::RpcError;
use super::mcp::walk::{self, Incomplete};
use super::mcp::{Heard, mirror};
use super::{Outcome, refused};
use crate::admission::{Ask, Relay, What};
use crate::item::{Arguments, Offer, Offered, SourceName};
use crate::store::snapshots::{self, Stored};

/// How often a source is walked though it tells of no change.
const PERIOD: Duration = Duration::from_mins(5);
/// After a failure it is tried again so soon, and then ever later.
const SOON: Duration = Duration::from_secs(1);
const LATE: Duration = Duration::from_mins(1);
/// How many changes that are told of within this time make one walk (SRC-13).
const COALESCE: Duration = Duration::from_secs(1);
/// After a stream of changes has ended, this long passes before the next walk, which opens it again.
const REOPEN: Duration = Duration::from_secs(30);
/// How long a server that stops takes to end its sessions elsewhere.
const CLOSING: Duration = Duration::from_secs(2);
/// How many calls of one source run at once; more wait.
const MOST_CALLS: usize = 256;

/// A server and how it is reached: `[sources.NAME]` with `kind = "mcp-http"`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpSource {
    pub name: String,
    /// The address as it was written, for people.
    pub url: String,
    /// Its path and query.
    pub path: String,
    pub destination: Destination,
    pub names: Names,
    /// How long a call may go on without getting further (LIMIT-04).
    pub timeout: Duration,
    /// Whether it is told who asks (SRC-10).
    pub identity: bool,
}

impl HttpSource {
    /// What it is known by: another target is another source.
    pub(crate) fn target(&self) -> String {
        format!("mcp-http {}", self.url)
    }
}

/// One server behind the gate. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Http(Arc<Inner>);

struct Inner {
    settings: HttpSource,
    credentials: Credentials,
    client: Client,
    db: Db,
    clock: Clock,
    name: SourceName,
    offered: ArcSwap<Offered>,
    state: Mutex<State>,
    /// Counts up whenever a source offers something else than before.
    changed: watch::Sender<u64>,
    /// Told when a look at the source is due.
    due: Notify,
    calls: Semaphore,
}

/// What is known of it.
struct State {
    stored: Stored,
    answered_at: Option<Timestamp>,
    stale: Option<(Timestamp, String)>,
    left_out: Vec<LeftOut>,
}

impl Http {
    /// A source with what is remembered of it.
    pub(crate) fn new(
        settings: HttpSource,
        credentials: Credentials,
        (stored, definitions): (Stored, &[String]),
        changed: &watch::Sender<u64>,
        db: &Db,
        clock: &Clock,
    ) -> Self {
        let speaks = match stored.era.as_deref() {
            Some("legacy") => Some(Speaks::Legacy),
            // Whether it tells of changes is not remembered, so it is asked again.
            _ => None,
        };
        let outbound = Outbound::new(settings.destination.clone());
        let client = Client::new(outbound, settings.path.clone(), speaks);
        let written: Vec<_> =
            definitions.iter().filter_map(|text| RawValue::from_string(text.clone()).ok()).collect();
        let (offers, left_out) = offers(&settings.name, settings.names, &written);
        let name = SourceName::from(settings.name.as_str());
        let answered_at = stored.walked_at;
        Self(Arc::new(Inner {
            offered: ArcSwap::from_pointee(Offered { source: name.clone(), offers }),
            state: Mutex::new(State { stored, answered_at, stale: None, left_out }),
            settings,
            credentials,
            client,
            db: db.clone(),
            clock: clock.clone(),
            name,
            changed: changed.clone(),
            due: Notify::new(),
            calls: Semaphore::new(MOST_CALLS),
        }))
    }

    /// What it listed in its last complete walk (SRC-02). Never waits.
    pub(crate) fn offered(&self) -> Arc<Offered> {
        self.0.offered.load_full()
    }

    pub(crate) fn is_called(&self, name: &str) -> bool {
        self.0.settings.name == name
    }

    /// How long a call may go on without getting further.
    pub(crate) fn patience(&self) -> Duration {
        self.0.settings.timeout
    }

    /// How it is.
    pub(crate) async fn health(&self) -> Health {
        let era = match self.0.client.speaks().await {
            Some(Speaks::Modern { .. }) => Some(crate::revision::MODERN.to_owned()),
            Some(Speaks::Legacy) => Some("legacy".to_owned()),
            None => None,
        };
        let (tools, state) = (self.offered().offers.len(), self.state());
        Health {
            name: self.0.settings.name.clone(),
            url: self.0.settings.url.clone(),
            tools,
            id: state.stored.id.clone(),
            era: era.or_else(|| state.stored.era.clone()),
            walked_at: state.stored.walked_at,
            stale: state.stale.clone().map(|(since, why)| Stale { since, why }),
            left_out: state.left_out.clone(),
        }
    }

    /// Calls a tool.
    pub(crate) async fn run(&self, ask: &Ask, relay: &Relay) -> Outcome {
        let What::Tool(item, arguments) = ask.what();
        let Ok(_place) = self.0.calls.acquire().await else { return Outcome::Error };
        let who = match self.0.credentials.of(Some(ask.asker()), self.0.clock.now()) {
            Ok(who) => who,
            Err(why) => return self.not_sent(&why),
        };
        let mut hear = |heard| match heard {
            Heard::Progress(progress) => relay.progress(progress),
            Heard::ToolsChanged => self.0.due.notify_one(),
        };
        let first = self.call(&who, &item.offer, arguments, ask, &mut hear).await;
        // The headers that repeat arguments follow the definition, so it has changed since (2026-07-28).
        let renewed = if mismatched(&first) { self.renewed(&item.offer.at_source).await } else { None };
        let answered = match renewed {
            Some(offer) => self.call(&who, &offer, arguments, ask, &mut hear).await,
            None => first,
        };
        self.outcome(answered, ask)
    }

    async fn call(
        &self,
        who: &Identity,
        offer: &Offer,
        arguments: &Arguments,
        ask: &Ask,
        hear: &mut (dyn FnMut(Heard) + Send),
    ) -> Result<Result<Box<RawValue>, RpcError>, NoResult> {
        let name = serde_json::Value::from(&*offer.at_source);
        let asked = Request {
            method: "tools/call",
            params: format!(r#""name":{name},"arguments":{}"#, arguments.value()),
            tool: Some((&offer.at_source, mirror::written(arguments, &offer.mirrored))),
            most: ask.most(),
            deadline: ask.deadline(),
        };
        self.0.client.ask(who, &asked, hear).await
    }

    /// The offer of this name after another walk.
    async fn renewed(&self, at_source: &str) -> Option<Arc<Offer>> {
        self.walk().await.ok()?;
        self.offered().offers.iter().find(|offer| &*offer.at_source == at_source).cloned()
    }

    /// What a call came to, in words for the model where there is no result (SRC-08).
    fn outcome(&self, answered: Result<Result<Box<RawValue>, RpcError>, NoResult>, ask: &Ask) -> Outcome {
        match answered {
            Ok(answered) => {
                self.state().answered_at = Some(self.0.clock.now());
                match answered {
                    Ok(result) => super::mcp::result::outcome(&result, ask.era()).unwrap_or_else(|unfit| {
                        Outcome::Failed(format!("The server `{}` {}", self.0.name, unfit.words()).into())
                    }),
                    Err(error) => refused::error(&self.0.name, error, ask.era()),
                }
            }
            Err(NoResult { sent: false, why }) => {
                self.0.due.notify_one();
                self.not_sent(&self.says(&why.into()))
            }
            Err(NoResult { sent: true, why }) => {
                if let Failed::Status(refusal) = &why
                    && !refusal.status.is_server_error()
                {
                    self.state().answered_at = Some(self.0.clock.now());
                } else {
                    self.0.due.notify_one();
                }
                refused::unanswered(&self.0.name, &self.0.credentials, why)
            }
        }
    }

    fn not_sent(&self, why: &str) -> Outcome {
        let state = self.state();
        let since = match (state.answered_at, &state.stale) {
            (None, _) => Cow::from("It has never answered."),
            (Some(_), Some((since, _))) => format!("It has not answered since {since}.").into(),
            (Some(at), None) => format!("It last answered at {at}.").into(),
        };
        drop(state);
        let name = &self.0.name;
        Outcome::NotSent(
            format!("The server `{name}` cannot be used: {why}. {since} Nothing was done.").into(),
        )
    }

    /// Keeps what is known of it true until `stop`: walks it when that is due.
    pub(crate) async fn keep(self, stop: CancellationToken) {
        let mut failures = 0_u32;
        loop {
            let walked = tokio::select! {
                () = stop.cancelled() => break,
                walked = self.walk() => walked,
            };
            failures = if walked.is_ok() { 0 } else { failures.saturating_add(1) };
            let pause = match failures {
                0 => PERIOD,
                _ => (SOON * 2_u32.saturating_pow(failures.min(16) - 1)).min(LATE),
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(pause) => {}
                () = self.when_due() => {}
                () = self.listen(), if failures == 0 => {}
            }
        }
        if let Ok(who) = self.0.credentials.of(None, self.0.clock.now()) {
            let _ = timeout(CLOSING, self.0.client.close(&who)).await;
        }
    }

    /// Waits until a walk is due, and a moment more for whatever else makes one due.
    async fn when_due(&self) {
        self.0.due.notified().await;
        sleep(COALESCE).await;
    }

    /// Listens for changes until the stream ends and is worth opening again; for ever, if the source has none.
    async fn listen(&self) {
        let Ok(who) = self.0.credentials.of(None, self.0.clock.now()) else { return sleep(LATE).await };
        let mut hear = |heard| {
            if heard == Heard::ToolsChanged {
                self.0.due.notify_one();
            }
        };
        match self.0.client.listen(&who, &mut hear).await {
            None => std::future::pending().await,
            Some(ended) => {
                if let Err(why) = ended {
                    tracing::debug!(source = %self.0.name, source.error = %why, "a source tells of its changes no longer");
                }
                sleep(REOPEN).await;
            }
        }
    }

    /// Walks the source once, and keeps what it lists.
    pub(crate) async fn walk(&self) -> Result<(), String> {
        let listed = match self.0.credentials.of(None, self.0.clock.now()) {
            Ok(who) => walk::tools(&self.0.client, &who, &mut deaf).await.map_err(|why| self.says(&why)),
            Err(why) => Err(why),
        };
        let kept = match listed {
            Ok(written) => self.keep_walk(&written).await.map_err(|fault| fault.to_string()),
            Err(why) => Err(why),
        };
        if let Err(why) = &kept {
            self.became_stale(why).await;
        }
        kept
    }

    /// Why a walk was not completed, in words for administrators.
    fn says(&self, why: &Incomplete) -> String {
        match why {
            Incomplete::Failed(Failed::Status(refusal)) if matches!(refusal.status.as_u16(), 401 | 403) => {
                format!("{why}; {}", self.0.credentials.remedy(&self.0.name))
            }
            other => other.to_string(),
        }
    }

    async fn keep_walk(&self, written: &[Box<RawValue>]) -> Result<(), Fault> {
        let era = self.0.client.speaks().await.map(|speaks| match speaks {
            Speaks::Modern { .. } => crate::revision::MODERN,
            Speaks::Legacy => "legacy",
        });
        let definitions: Vec<String> = written.iter().map(|one| one.get().to_owned()).collect();
        let digest = Digest::of(definitions.join("\n").as_bytes());
        let (mut stored, recovered) = {
            let state = self.state();
            (state.stored.clone(), state.stale.is_some())
        };
        let changed = stored.digest != Some(digest);
        let (now, count) = (self.0.clock.now(), definitions.len());
        let row = stored.clone();
        self.0
            .db
            .record(move |tx| {
                if changed {
                    snapshots::replace(tx, &row.id, era, &digest, &definitions)?;
                    let event = snapshots::event(Event::allowed(Name::SourceChanged), &row);
                    shared::audit::append(tx, event.detail("tools", count))?;
                } else {
                    snapshots::walked(tx, &row.id, era)?;
                }
                if recovered {
                    shared::audit::append(tx, snapshots::event(Event::allowed(Name::SourceRecovered), &row))?;
                }
                Ok(())
            })
            .await?;
        (stored.digest, stored.walked_at, stored.era) = (Some(digest), Some(now), era.map(str::to_owned));
        if changed {
            let (offers, left_out) = offers(&self.0.settings.name, self.0.settings.names, written);
            for offer in offers.iter().filter(|offer| offer.name.len() > LONG_NAME) {
                tracing::warn!(source = %self.0.name, item.name = %offer.name, "a tool has a long name, which some clients cut");
            }
            for left_out in &left_out {
                tracing::warn!(source = %self.0.name, item.name = left_out.name, item.why = left_out.why, "a tool is left out");
            }
            self.0.offered.store(Arc::new(Offered { source: self.0.name.clone(), offers }));
            self.state().left_out = left_out;
            self.0.changed.send_modify(|generation| *generation += 1);
        }
        let mut state = self.state();
        (state.stored, state.answered_at, state.stale) = (stored, Some(now), None);
        Ok(())
    }

    /// Its items stay; that they may be old is noted, once.
    async fn became_stale(&self, why: &str) {
        let (since, stored, is_new) = {
            let mut state = self.state();
            let is_new = state.stale.is_none();
            let since = state.stale.as_ref().map_or_else(|| self.0.clock.now(), |(since, _)| *since);
            state.stale = Some((since, why.to_owned()));
            (since, state.stored.clone(), is_new)
        };
        if !is_new {
            return;
        }
        tracing::warn!(source = %self.0.name, source.error = why, "a source does not answer as it should; its tools stay listed");
        let event = snapshots::event(Event::failed(Name::SourceStale, "unavailable"), &stored);
        let event = event.detail("why", why).detail("since", since.to_string());
        if let Err(fault) = self.0.db.record(move |tx| shared::audit::append(tx, event)).await {
            tracing::error!(db.fault = %fault, "a source that became stale was not recorded");
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the upstream refused the headers of a call, before it ran anything.
fn mismatched(answered: &Result<Result<Box<RawValue>, RpcError>, NoResult>) -> bool {
    let error = match answered {
        Ok(Err(error)) => Some(error),
        Err(NoResult { why: Failed::Status(refusal), .. }) => refusal.error.as_ref(),
        _ => None,
    };
    error.is_some_and(|error| error.code == HEADER_MISMATCH)
}

#[cfg(test)]
mod tests;

//! MCP servers behind the gate (`kind = "mcp-http"` and `kind = "mcp-stdio"`): what one of them offers, from the last
//! complete walk of each of its lists, and requests for its items.

mod keeping;
mod request;

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::value::RawValue;
use shared::outbound::Outbound;
use shared::{Clock, Db, Timestamp};
use tokio::sync::{Notify, Semaphore, watch};

use super::crashes::Crashes;
use super::endpoint::{Endpoint, Local};
use super::health::{Health, Stale};
use super::identity::{Credential, Credentials, MissingIdentity, SecretLocation};
use super::journal::{Entry, Journal, Kind as Noted};
use super::mcp::client::Client;
use super::mcp::definition::{LeftOut, Names, offers};
use super::mcp::failed::Failed;
use super::mcp::link::Link;
use super::mcp::message::RpcError;
use super::mcp::processes::{Processes, With};
use super::mcp::request::{Identity, NoResult};
use super::mcp::result::{self, Shape};
use super::mcp::speaks::SpokenEra;
use super::mcp::{HEADER_MISMATCH, Heard, METHOD_NOT_FOUND};
use super::means::Means;
use super::{Outcome, refused};
use crate::admission::{Ask, AskKind, Relay};
use crate::item::{Kind, Offer, Offered, SourceName};
use crate::store::snapshots::Stored;
use keeping::Lists;

/// The most concurrent calls of one source; more wait.
const MOST_CALLS: usize = 256;

/// The settings of a server: `[sources.NAME]` with `kind = "mcp-http"` or `kind = "mcp-stdio"`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceSettings {
    pub name: String,
    pub endpoint: Endpoint,
    pub names: Names,
    /// How long a call may run without progress (LIMIT-04).
    pub timeout: Duration,
    /// Whether each user gives a secret of their own for it (SRC-10).
    pub own_secret: bool,
}

impl SourceSettings {
    /// Identifies it: with another target it is another source.
    pub(crate) fn target(&self) -> String {
        self.endpoint.target()
    }
}

/// A server with what it is shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Configured {
    pub source: SourceSettings,
    pub credentials: Vec<Credential>,
    /// What stands in the place of a user's secret where the gateway looks at the server by itself.
    pub lists_with: Option<SecretLocation>,
}

/// A server behind the gate. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Upstream(Arc<Inner>);

struct Inner {
    configured: Configured,
    credentials: Arc<Credentials>,
    link: Link,
    db: Db,
    clock: Clock,
    name: SourceName,
    offered: ArcSwap<Offered>,
    state: Mutex<State>,
    /// A number that increases whenever a source's offers change.
    changed: watch::Sender<u64>,
    /// Notified when a listing is due.
    due: Arc<Notify>,
    calls: Semaphore,
    journal: Journal,
    /// What the lists were at the last walk; held while it is walked, so that walks come one after the other.
    lists: tokio::sync::Mutex<Lists>,
}

/// What is known of the source.
struct State {
    stored: Stored,
    answered_at: Option<Timestamp>,
    stale: Option<(Timestamp, String)>,
    left_out: Vec<LeftOut>,
    /// What it was found to speak, since this process has asked it.
    spoke: Option<String>,
}

impl Upstream {
    /// A source with its stored state.
    pub(crate) fn new(
        configured: Configured,
        credentials: Arc<Credentials>,
        (stored, definitions): (Stored, &[(Kind, Box<RawValue>)]),
        changed: &watch::Sender<u64>,
        means: &Means,
    ) -> Self {
        let settings = &configured.source;
        let (db, clock) = (&means.db, &means.clock);
        let (journal, due) = (Journal::default(), Arc::<Notify>::default());
        // What a newer one offers is not remembered, so it is asked again.
        let is_legacy = stored.era.as_deref() == Some("legacy");
        let link = match &settings.endpoint {
            Endpoint::Http(address) => {
                let outbound = Outbound::new(address.destination.clone());
                let speaks = is_legacy.then_some(SpokenEra::Legacy);
                Link::Http(Client::new(outbound, address.path.clone(), speaks))
            }
            Endpoint::Local(local) => {
                let crashes = Crashes {
                    db: db.clone(),
                    clock: clock.clone(),
                    journal: journal.clone(),
                    due: Arc::clone(&due),
                    stored: stored.clone(),
                };
                let with = With { launching: &means.launching, memory: &means.memory, clock };
                Link::Pipes(Processes::new(
                    &settings.name,
                    Local::clone(local),
                    &with,
                    Arc::clone(&due),
                    is_legacy,
                    crashes.note(),
                ))
            }
        };
        let (offers, left_out) = offers(&settings.name, settings.names, definitions);
        let name = SourceName::from(settings.name.as_str());
        let own_secret = settings.own_secret.then(|| settings.target().into());
        let answered_at = stored.walked_at;
        let lists = Lists::of(definitions);
        Self(Arc::new(Inner {
            offered: ArcSwap::from_pointee(Offered { source: name.clone(), offers, own_secret }),
            state: Mutex::new(State { stored, answered_at, stale: None, left_out, spoke: None }),
            lists: tokio::sync::Mutex::new(lists),
            configured,
            credentials,
            link,
            db: db.clone(),
            clock: clock.clone(),
            name,
            changed: changed.clone(),
            due,
            calls: Semaphore::new(MOST_CALLS),
            journal,
        }))
    }

    /// What it listed in the last complete walk of each list (SRC-02). Never waits.
    pub(crate) fn offered(&self) -> Arc<Offered> {
        self.0.offered.load_full()
    }

    pub(crate) fn settings(&self) -> &SourceSettings {
        &self.0.configured.source
    }

    /// Whether it is configured like this, so that it can go on as it is.
    pub(crate) fn is_as(&self, configured: &Configured) -> bool {
        self.0.configured == *configured
    }

    /// Whether this is the same one, and not another one that took its place.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn is_called(&self, name: &str) -> bool {
        self.settings().name == name
    }

    /// By what the records call it.
    pub(crate) fn id(&self) -> String {
        self.state().stored.id.clone()
    }

    /// How long a call may run without progress.
    pub(crate) fn patience(&self) -> Duration {
        self.settings().timeout
    }

    /// Its health.
    pub(crate) async fn health(&self) -> Health {
        let era = match self.0.link.speaks().await {
            Some(SpokenEra::Modern(_)) => Some(crate::revision::MODERN.to_owned()),
            Some(SpokenEra::Legacy) => Some("legacy".to_owned()),
            None => None,
        };
        let (items, state) = (self.offered().counts(), self.state());
        Health {
            name: self.settings().name.clone(),
            url: self.settings().endpoint.shown(),
            items,
            id: state.stored.id.clone(),
            era: era.or_else(|| state.stored.era.clone()),
            walked_at: state.stored.walked_at,
            stale: state.stale.clone().map(|(since, why)| Stale { since, why }),
            left_out: state.left_out.clone(),
            processes: self.0.link.processes().map(Processes::health),
        }
    }

    /// What happened lately.
    pub(crate) fn journal(&self, most: usize) -> Vec<Entry> {
        self.0.journal.latest(most)
    }

    /// The end of what its programs wrote to standard error; `None` if it has none.
    pub(crate) fn errors(&self) -> Option<String> {
        self.0.link.processes().map(Processes::errors)
    }

    /// A session of a client has ended.
    pub(crate) fn session_ended(&self, session: &str) {
        if let Some(processes) = self.0.link.processes() {
            processes.session_ended(session);
        }
    }

    fn note(&self, kind: Noted, text: impl Into<String>) {
        self.0.journal.note(self.0.clock.now(), kind, text);
    }

    /// Does with an item what is asked.
    pub(crate) async fn run(&self, ask: &Ask, relay: &Relay) -> Outcome {
        let Ok(_place) = self.0.calls.acquire().await else { return Outcome::Error };
        let who = match self.0.credentials.of(Some(ask.asker()), self.0.clock.now()) {
            Ok(who) => who,
            Err(lacking) => return self.lacks(&lacking),
        };
        let mut hear = |heard| match heard {
            Heard::Progress(progress) => relay.progress(progress),
            Heard::ListChanged => self.0.due.notify_one(),
            Heard::Listening => {}
        };
        let first = self.send(&who, &ask.what().item().offer, ask, &mut hear).await;
        // The headers that repeat arguments follow the definition, so the definition has changed (2026-07-28).
        let renewed = if mismatched(&first) { self.renewed(&ask.what().item().offer).await } else { None };
        let answered = match renewed {
            Some(offer) => self.send(&who, &offer, ask, &mut hear).await,
            None => first,
        };
        self.outcome(answered, ask)
    }

    async fn send(
        &self,
        who: &Identity,
        offer: &Offer,
        ask: &Ask,
        hear: &mut (dyn FnMut(Heard) + Send),
    ) -> Result<Result<Box<RawValue>, RpcError>, NoResult> {
        self.0.link.ask(who, &request::of(ask, offer), hear).await
    }

    /// The same offer after another walk.
    async fn renewed(&self, old: &Offer) -> Option<Arc<Offer>> {
        // If another list is broken, this one may have been read.
        let _ = self.walk().await;
        let same = |offer: &&Arc<Offer>| offer.kind == old.kind && offer.at_source == old.at_source;
        self.offered().offers.iter().find(same).cloned()
    }

    /// The outcome of a call, with words for the model if there is no result (SRC-08).
    fn outcome(&self, answered: Result<Result<Box<RawValue>, RpcError>, NoResult>, ask: &Ask) -> Outcome {
        match as_answer(answered, ask) {
            Ok(answered) => {
                self.state().answered_at = Some(self.0.clock.now());
                match answered {
                    Ok(result) => self.result(&result, ask),
                    // A server may have nothing to say to an argument and know no completion at all.
                    Err(error)
                        if error.code == METHOD_NOT_FOUND
                            && matches!(ask.what(), AskKind::Completion(..)) =>
                    {
                        no_completion()
                    }
                    Err(error) => refused::error(&self.0.name, error, ask),
                }
            }
            Err(NoResult { sent: false, why }) => {
                self.note(Noted::CallFailed, format!("a call was not sent: {why}"));
                if why.is_of_credential() {
                    // About the caller's credential, and not about the server.
                    return refused::unanswered(&self.0.name, &self.0.credentials, why);
                }
                self.0.due.notify_one();
                self.not_sent(&self.says(&why.into()))
            }
            Err(NoResult { sent: true, why }) => {
                self.note(Noted::CallFailed, format!("a call has no result: {why}"));
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

    /// A call that cannot be made, because a secret is not there.
    fn lacks(&self, lacking: &MissingIdentity) -> Outcome {
        Outcome::NotSent(format!("{} Nothing was done.", self.0.credentials.says(lacking)).into())
    }

    fn result(&self, result: &RawValue, ask: &Ask) -> Outcome {
        let shape = match ask.what() {
            AskKind::Tool(..) => Shape::Tool,
            AskKind::Prompt(..) => Shape::Prompt,
            AskKind::Resource(..) => Shape::Resource,
            AskKind::Completion(..) => Shape::Completion,
        };
        result::outcome(result, shape, ask.era()).unwrap_or_else(|unfit| {
            Outcome::Failed(format!("The server `{}` {}", self.0.name, unfit.words()).into())
        })
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

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A server of the newest revision may send the error that answers a request with a status that says the same (2026-07-28,
/// streamable HTTP). A tool has room for words in its result, so there such a refusal is told in them.
fn as_answer(
    answered: Result<Result<Box<RawValue>, RpcError>, NoResult>,
    ask: &Ask,
) -> Result<Result<Box<RawValue>, RpcError>, NoResult> {
    match answered {
        Err(NoResult { why: Failed::Status(refusal), .. })
            if refusal.ours
                && matches!(refusal.status.as_u16(), 400 | 404)
                && !matches!(ask.what(), AskKind::Tool(..)) =>
        {
            match refusal.error.clone() {
                Some(error) => Ok(Err(error)),
                None => Err(NoResult { sent: true, why: Failed::Status(refusal) }),
            }
        }
        other => other,
    }
}

/// No values: what a server that knows no completion would answer.
fn no_completion() -> Outcome {
    let members = br#""completion":{"values":[],"total":0,"hasMore":false}"#.to_vec();
    Outcome::Result { members, meta: String::new(), is_error: false, links: Vec::new() }
}

/// Whether the upstream refused the headers of a call before it ran anything.
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

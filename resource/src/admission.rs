//! The path of an understood call to its end. Every call goes through [`Admission::call`] step by step; no
//! other file can make an [`Ask`].

mod ask;
mod call;
mod commit;
mod limits;
mod links;
mod ongoing;
pub(crate) mod record;
mod relay;
mod running;
mod sizes;
mod watch;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shared::outbound::memory::Memory;
use shared::{Clock, Db, Request};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::bearer::{self, Bearer, CallerIdentity, CheckedToken};
use crate::gate::refusal::Refusal;
use crate::item::{Arguments, Effect, Item, Kind};
use crate::policy::{self, Decision};
use crate::profile::Profile;
use crate::registry::{Registry, RequestedItem, Snapshot};
use crate::revision::Era;
use crate::sources::{Outcome, Source};
use crate::store::call_counts;
use record::Subject;

pub(crate) use ask::{Ask, AskKind, Completing};
use call::Call;
use commit::Commit;
pub(crate) use limits::Limited;
use limits::{Hold, Limits};
use links::Links;
pub(crate) use ongoing::{Happening, Ongoing};
pub(crate) use relay::Relay;
pub(crate) use running::CallId;
use running::Running;
pub use running::{Calls, RunningCall};
use watch::Watch;

/// How long a call may run without progress, if nothing else is said (LIMIT-04).
const PATIENCE: Duration = Duration::from_mins(1);
/// How long a call may take in all, if nothing else is said.
const LONGEST: Duration = Duration::from_mins(10);
/// The largest answer in bytes.
pub(crate) const MOST: usize = 8 << 20;
/// How long a stopping server waits for running calls.
const SETTLING: Duration = Duration::from_secs(10);

/// The only way to a source.
pub(crate) struct Admission {
    commit: Commit,
    limits: Limits,
    running: Running,
    links: Arc<Links>,
    memory: Memory,
}

/// A call as the gate read it, and whose it is.
pub(crate) struct ParsedCall {
    pub(crate) method: &'static str,
    pub(crate) sought: RequestedItem,
    pub(crate) asked: ItemRequest,
    /// The client's era.
    pub(crate) era: Era,
    pub(crate) caller: CheckedToken,
    pub(crate) request: Request,
    pub(crate) began: Instant,
    /// The id by which its client can cancel it.
    pub(crate) id: Option<CallId>,
    /// Its session, by its digest.
    pub(crate) session: Option<Arc<str>>,
    /// Whether closing the response cancels it (MCP-16).
    pub(crate) closing_cancels: bool,
}

/// What a call wants of its item.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum ItemRequest {
    /// What a tool or a prompt makes of these arguments.
    Call(Arc<Arguments>),
    /// The contents of a resource.
    Read,
    /// What an argument may go on with.
    Complete(Arc<Completing>),
}

/// The end of a call, as far as its answer depends on it.
pub(crate) struct CallEnd<'o> {
    pub(crate) what: &'o AskKind,
    pub(crate) effect: Effect,
    pub(crate) outcome: &'o Outcome,
    /// How long the source was allowed to run without progress.
    pub(crate) patience: Duration,
    /// The largest result in bytes.
    pub(crate) most: usize,
}

/// Why a call is refused. The gate tells the client.
#[derive(Debug)]
pub(crate) enum Denied {
    /// By policy. It was recorded.
    Policy(Decision),
    /// The token was valid before and has ended meanwhile.
    Token(bearer::Refused),
    /// It is over a limit: of times, or of its size. It was recorded.
    Limited(Box<Limited>),
    /// For another reason, with the answer.
    Refused(Refusal),
}

impl Denied {
    /// The word on record for what ended a call.
    fn as_str(&self) -> &'static str {
        match self {
            Self::Policy(decision) => decision.as_str(),
            Self::Token(bearer::Refused::Invalid(invalid)) => invalid.reason,
            Self::Token(_) => "token_unchecked",
            Self::Limited(over) => over.decision,
            Self::Refused(_) => "unavailable",
        }
    }
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Admission {
    pub(crate) fn new(
        db: Db,
        clock: Clock,
        bearer: Arc<Bearer>,
        registry: Arc<Registry>,
        memory: Memory,
    ) -> Self {
        let limits = Limits::new(clock.clone());
        let commit = Commit { db, clock, bearer, registry };
        Self { commit, limits, running: Running::default(), links: Arc::default(), memory }
    }

    /// What a request of this caller names. A URI may be one that only they were shown (SRC-04).
    pub(crate) fn sought(&self, caller: &CheckedToken, kind: Kind, name: String) -> RequestedItem {
        let shown_by = match kind {
            Kind::Resource => self.links.source(&caller.principal(), &name),
            _ => None,
        };
        RequestedItem { kind, name, shown_by }
    }

    /// Makes a call, or refuses it. The order of the steps is a guarantee: each refusal reveals only what the
    /// caller may know.
    ///
    /// `agree` compares the arguments with the headers that repeat them. It runs after the decision, because a
    /// mismatch would reveal that a hidden item exists (MCP-05). `answer` writes the client's response.
    pub(crate) async fn call<A: AsRef<[u8]> + Send + 'static>(
        &self,
        profile: &Profile,
        snapshot: &Arc<Snapshot>,
        wanted: ParsedCall,
        agree: impl FnOnce(&Item, &ItemRequest) -> Result<(), Refusal>,
        answer: impl FnOnce(&CallEnd<'_>) -> A + Send + 'static,
    ) -> Result<Ongoing<A>, Denied> {
        let item = snapshot.seek_at(profile, &wanted.sought);
        let keeps = snapshot.rules().record_values;
        let subject = wanted.subject(profile, item.as_ref(), keeps);
        let item = self.decide(item, &subject, &wanted.asked).await?;
        agree(&item, &wanted.asked)?;
        let Some(what) = wanted.what(item) else { return Err(Refusal::internal().into()) };
        self.check_size(&what, &subject).await?;
        let hold = self.hold(&what, snapshot, &subject).await?;
        let cancel = CancellationToken::new();
        let named = wanted.id.clone().map(|id| self.running.name(id, &cancel));
        let closing = wanted.closing_cancels.then(|| cancel.clone().drop_guard());
        let (commit, links, memory) = (self.commit.clone(), Arc::clone(&self.links), self.memory.clone());
        let (running, snapshot) = (self.running.clone(), Arc::clone(snapshot));
        let (relay, heard) = relay::relay();
        let further = heard.clone();
        // From here on the call has a task of its own, so that it is on record to its end.
        let call = async move {
            let (mut subject, mut hold) = (subject, hold);
            subject.caller = commit.admit(&wanted, &subject, what.effect(), &mut hold).await?;
            let asker = asker(&subject.caller, &snapshot).within(wanted.session.clone());
            let patience = patience(&what, &snapshot);
            let longest = what.item().bounds.longest.unwrap_or(LONGEST.max(patience));
            let limits = (longest, MOST, memory.hold(asker.user()));
            let ask = Ask::new(what, asker, wanted.era, limits, cancel);
            let watch = watch(&commit, &subject, &ask, wanted.asked);
            let sources = Arc::clone(snapshot.sources());
            let listed = running.list(&subject, commit.clock.now());
            let call = Call {
                db: commit.db,
                sources,
                links,
                subject,
                ask,
                named,
                watch,
                hold,
                patience,
                listed,
                relay,
                heard,
            };
            call.finish(wanted.began, answer).await
        };
        Ok(Ongoing::new(self.running.spawn(call.in_current_span()), further, closing))
    }

    /// Cancels the call with this id, if it is running.
    pub(crate) fn cancel(&self, id: &CallId) {
        self.running.cancel(id);
    }

    /// Forgets calls that no longer count against a limit. Call it regularly.
    pub(crate) async fn sweep(&self) {
        let Commit { db, clock, .. } = &self.commit;
        let swept = match db.read(|conn| call_counts::any_to_sweep(conn, clock.now())) {
            Ok(false) => Ok(()),
            Ok(true) => db.record(call_counts::sweep).await,
            Err(fault) => Err(fault),
        };
        if let Err(fault) = swept {
            tracing::error!(db.fault = %fault, "old counts of calls could not be deleted");
        }
    }

    /// The running calls, to be listed and stopped.
    pub(crate) fn calls(&self) -> Calls {
        self.running.calls()
    }

    /// Waits for running calls. Call it when no new ones can start.
    pub(crate) async fn settle(&self) {
        self.running.settle(SETTLING).await;
    }

    /// The policy's decision. Refusals for unknown items and for items that the caller may not use are recorded
    /// as what they are.
    async fn decide(
        &self,
        item: Option<Arc<Item>>,
        subject: &Subject,
        asked: &ItemRequest,
    ) -> Result<Arc<Item>, Denied> {
        let decision = asked.decide(item.as_deref(), &subject.caller);
        match (item, decision) {
            (Some(item), Decision::Allow) => Ok(item),
            (_, refused) => {
                record::write(&self.commit.db, subject.refused(&refused)).await?;
                Err(Denied::Policy(refused))
            }
        }
    }

    /// Refuses arguments that are larger than the rule allows (LIMIT-03).
    async fn check_size(&self, what: &AskKind, subject: &Subject) -> Result<(), Denied> {
        let Some(most) = what.item().bounds.max_arguments else { return Ok(()) };
        let (AskKind::Tool(_, arguments) | AskKind::Prompt(_, arguments)) = what else { return Ok(()) };
        let Some(over) = sizes::over(arguments.value(), most) else { return Ok(()) };
        record::write(&self.commit.db, over.on_record(subject.limited(over.decision))).await?;
        Err(Denied::Limited(Box::new(over)))
    }

    /// Reserves the call against the limits in memory. Completing an argument counts against none.
    async fn hold(&self, what: &AskKind, snapshot: &Snapshot, subject: &Subject) -> Result<Hold, Denied> {
        if matches!(what, AskKind::Completion(..)) {
            return Ok(self.limits.free());
        }
        match self.limits.take(what.item(), &snapshot.rules().limits, &subject.caller) {
            Ok(hold) => Ok(hold),
            Err(over) => {
                record::write(&self.commit.db, over.on_record(subject.limited(over.decision))).await?;
                Err(Denied::Limited(Box::new(over)))
            }
        }
    }
}

impl ParsedCall {
    fn subject(&self, profile: &Profile, item: Option<&Arc<Item>>, keeps: bool) -> Subject {
        let arguments = self.asked.arguments();
        let ruled = item.filter(|item| keeps && !item.arguments.is_empty());
        Subject {
            request: self.request.clone(),
            caller: self.caller.clone(),
            resource: profile.uri().clone(),
            method: self.method,
            name: self.sought.name.clone(),
            upstream: item.map(|item| item.source.clone()),
            needs: item.and_then(|item| item.needs.scopes()).cloned().unwrap_or_default(),
            arguments: record::digest(&arguments),
            values: ruled.map(|item| item.arguments.looked_at(&arguments)),
        }
    }

    /// What is asked for, if this can be asked of such an item.
    fn what(&self, item: Arc<Item>) -> Option<AskKind> {
        match (item.offer.kind, &self.asked) {
            (Kind::Tool, ItemRequest::Call(arguments)) => Some(AskKind::Tool(item, Arc::clone(arguments))),
            (Kind::Prompt, ItemRequest::Call(arguments)) => {
                Some(AskKind::Prompt(item, Arc::clone(arguments)))
            }
            (Kind::Resource, ItemRequest::Read) => {
                Some(AskKind::Resource(item, self.sought.name.as_str().into()))
            }
            (_, ItemRequest::Complete(completing)) => Some(AskKind::Completion(item, Arc::clone(completing))),
            _ => None,
        }
    }
}

impl ItemRequest {
    /// The one decision that there is about an item, in the way that fits what is wanted of it.
    fn decide(&self, item: Option<&Item>, caller: &CheckedToken) -> Decision {
        let caller = caller.caller();
        let Some(item) = item else { return Decision::Unknown };
        match self {
            Self::Call(arguments) => policy::decide_call(item, &caller, arguments),
            // Half an argument fits no rule.
            Self::Read | Self::Complete(_) => policy::decide(&item.needs, &caller),
        }
    }

    /// What was sent beside the item's name.
    fn arguments(&self) -> Cow<'_, Value> {
        match self {
            Self::Call(arguments) => Cow::Borrowed(arguments.value()),
            Self::Read => Cow::Owned(json!({})),
            Self::Complete(completing) => {
                Cow::Owned(json!({ "argument": completing.argument, "context": completing.context }))
            }
        }
    }
}

/// How long this may run without progress: as its rule says, or else its source (LIMIT-04).
fn patience(what: &AskKind, snapshot: &Snapshot) -> Duration {
    let item = what.item();
    let of_source = || snapshot.sources().find(&item.source).and_then(Source::patience);
    item.bounds.timeout.or_else(of_source).unwrap_or(PATIENCE)
}

fn watch(commit: &Commit, subject: &Subject, ask: &Ask, asked: ItemRequest) -> Watch {
    Watch {
        clock: commit.clock.clone(),
        bearer: Arc::clone(&commit.bearer),
        registry: Arc::clone(&commit.registry),
        caller: subject.caller.clone(),
        resource: subject.resource.clone(),
        item: Arc::clone(ask.what().item()),
        asked,
    }
}

/// The caller, as sources see them.
fn asker(caller: &CheckedToken, snapshot: &Snapshot) -> CallerIdentity {
    let high_risk = caller.entitled().intersection(snapshot.high_risk());
    caller.asker(policy::beyond(&high_risk, caller.ceiling()))
}

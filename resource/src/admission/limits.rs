//! Whether a call is within its limits (LIMIT-01, LIMIT-02).
//!
//! Windows of an hour or more are counted in the database, in the commit that admits the call. Shorter ones, and the calls
//! that run, are counted in memory, by the uptime, which nobody can set. A call counts from its admission on. It is taken
//! back if it is refused after all, or if it was never sent.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use shared::audit::{self, Event};
use shared::id::random_128;
use shared::{Clock, Db, Digest, Fault, Timestamp, Tx};

use super::record;
use crate::bearer::CheckedToken;
use crate::call_limits::{AtOnce, CallLimits, Each, LASTING, LimitRules, Rate, length_in_words};
use crate::gate::refusal::Refusal;
use crate::item::{Item, Kind};
use crate::store::call_counts::{self, Counter};

/// The decision on record if a limit on times is reached.
pub(super) const LIMITED: &str = "limited";
/// The most calls that are counted in memory.
const MOST: usize = 1_000_000;
/// Up to this many counters, unused ones are not searched for.
const FEW: usize = 1024;
/// How often memory that is full is searched for what has run out.
const SWEEP: Duration = Duration::from_secs(1);

/// Why a call is over a limit, in words for the model, and for the record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Limited {
    /// The word on record for the decision.
    pub(super) decision: &'static str,
    /// The limit, as it is written.
    pub(crate) limit: String,
    /// Whose limit it is: `item`, `source` or `all`.
    pub(crate) of: &'static str,
    /// When a further call would be admitted, if only time decides.
    pub(crate) again: Option<Timestamp>,
    pub(crate) words: String,
}

impl Limited {
    /// Adds to the record of the call which limit it was, and when a further call would be admitted.
    pub(super) fn on_record(&self, event: Event) -> Event {
        let event = event.detail("limit", self.limit.as_str()).detail("limit_of", self.of);
        match self.again {
            Some(again) => event.detail("again_at", again.to_string()),
            None => event,
        }
    }
}

/// What a limit is about.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Over {
    Item { kind: Kind, name: Arc<str> },
    Source(String),
    All,
}

impl Over {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Item { .. } => "item",
            Self::Source(_) => "source",
            Self::All => "all",
        }
    }

    /// After a number of calls.
    fn words(&self) -> String {
        match self {
            Self::Item { kind, name } => format!("of the {} {name}", kind.as_str()),
            Self::Source(name) => format!("to the source {name}"),
            Self::All => "to this server".to_owned(),
        }
    }

    /// What is counted together for this caller.
    fn counter(&self, each: Each, caller: &CheckedToken) -> Digest {
        let token = caller.token();
        let over = match self {
            Self::Item { kind, name } => json!(["item", kind.as_str(), **name]),
            Self::Source(name) => json!(["source", name]),
            Self::All => json!(["all"]),
        };
        let whose = match each {
            Each::All => json!([]),
            // Of a client in its own name it is the client (CC-02).
            Each::User => json!(["user", token.iss, token.sub]),
            Each::Client => json!(["client", token.iss, token.client_id.as_str()]),
        };
        Digest::of(json!([over, whose]).to_string().as_bytes())
    }
}

/// A limit on times, and what counts against it.
struct Counted<L> {
    over: Over,
    limit: L,
    counter: Digest,
}

impl Counted<Rate> {
    fn reached(&self, wait: Duration, now: Timestamp) -> Limited {
        let again = now + wait;
        let (what, rounded) = (self.limit.words(&self.over.words()), to_the_second(again));
        let words = format!(
            "Limit reached: {what}. Nothing was done. Try again at {rounded}, in {}.",
            length_in_words(rough(wait))
        );
        Limited {
            decision: LIMITED,
            limit: self.limit.to_string(),
            of: self.over.as_str(),
            again: Some(again),
            words,
        }
    }
}

impl Counted<AtOnce> {
    fn reached(&self) -> Limited {
        let what = self.limit.words(&self.over.words());
        let words = format!("Limit reached: {what}. Nothing was done. Try again when one of them has ended.");
        let limit = format!("{} at once", self.limit);
        Limited { decision: LIMITED, limit, of: self.over.as_str(), again: None, words }
    }
}

/// The limits that are about a call.
struct Relevant {
    lasting: Vec<Counted<Rate>>,
    passing: Vec<Counted<Rate>>,
    at_once: Vec<Counted<AtOnce>>,
}

impl Relevant {
    fn of(item: &Item, rules: &LimitRules, caller: &CheckedToken) -> Self {
        let mut all = Self { lasting: Vec::new(), passing: Vec::new(), at_once: Vec::new() };
        if !item.limits.is_empty() {
            let (kind, name) = match item.counts_as {
                Some(tool) => (Kind::Tool, tool.into()),
                None => (item.offer.kind, Arc::clone(&item.offer.name)),
            };
            all.add(&Over::Item { kind, name }, &item.limits, caller);
        }
        if rules.is_empty() {
            return all;
        }
        let source = item.source.to_string();
        if let Some(limits) = rules.sources.get(&source) {
            all.add(&Over::Source(source), limits, caller);
        }
        all.add(&Over::All, &rules.all, caller);
        all
    }

    fn add(&mut self, over: &Over, limits: &CallLimits, caller: &CheckedToken) {
        for &limit in &limits.rates {
            let counter = over.counter(limit.each, caller);
            let rates = if limit.window >= LASTING { &mut self.lasting } else { &mut self.passing };
            rates.push(Counted { over: over.clone(), limit, counter });
        }
        for &limit in &limits.at_once {
            let counter = over.counter(limit.each, caller);
            self.at_once.push(Counted { over: over.clone(), limit, counter });
        }
    }
}

/// The longest window of each counter.
fn counters(rates: &[Counted<Rate>]) -> Vec<Counter> {
    let mut counters: Vec<Counter> = Vec::new();
    for Counted { limit, counter, .. } in rates {
        match counters.iter_mut().find(|known| known.digest == *counter) {
            Some(known) => known.keep = known.keep.max(limit.window),
            None => counters.push(Counter { digest: *counter, keep: limit.window }),
        }
    }
    counters
}

/// The calls that were made a short while ago, and those that run.
pub(super) struct Limits {
    clock: Clock,
    memory: Arc<Mutex<Memory>>,
}

#[derive(Default)]
struct Memory {
    recent: HashMap<Digest, Recent>,
    /// How many calls are in it.
    entries: usize,
    running: HashMap<Digest, u32>,
    /// The number of the next call.
    next: u64,
    swept: Duration,
    /// How many counters there may be before those that count nothing are forgotten.
    tidy_at: usize,
}

/// The calls of a counter, oldest first, by the uptime at which they were admitted.
#[derive(Default)]
struct Recent {
    keep: Duration,
    calls: VecDeque<(Duration, u64)>,
}

impl Limits {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, memory: Arc::default() }
    }

    /// For a call that counts against no limit.
    pub(super) fn free(&self) -> Hold {
        let lasting = Lasting { counters: Vec::new(), rates: Vec::new(), call: String::new() };
        let (memory, lasting) = (Arc::clone(&self.memory), Arc::new(lasting));
        Hold { memory, number: 0, counts: false, recent: Vec::new(), running: Vec::new(), lasting }
    }

    /// Reserves a call in memory, against all limits that are about it, or against none.
    pub(super) fn take(
        &self,
        item: &Item,
        rules: &LimitRules,
        caller: &CheckedToken,
    ) -> Result<Hold, Limited> {
        let relevant = Relevant::of(item, rules, caller);
        let (now, uptime) = (self.clock.now(), self.clock.uptime());
        let recent = counters(&relevant.passing);
        let mut memory = lock(&self.memory);
        memory.check(&relevant, &recent, uptime, now)?;
        let number = memory.next;
        memory.next += 1;
        for counter in &recent {
            memory.recent.entry(counter.digest).or_default().calls.push_back((uptime, number));
            memory.entries += 1;
        }
        let mut running: Vec<_> = relevant.at_once.iter().map(|counted| counted.counter).collect();
        running.sort_unstable_by_key(|digest| digest.0);
        running.dedup();
        for digest in &running {
            *memory.running.entry(*digest).or_default() += 1;
        }
        drop(memory);
        let call = if relevant.lasting.is_empty() { String::new() } else { random_128() };
        let recent = recent.into_iter().map(|counter| counter.digest).collect();
        Ok(Hold {
            memory: Arc::clone(&self.memory),
            number,
            counts: false,
            recent,
            running,
            lasting: Arc::new(Lasting {
                counters: counters(&relevant.lasting),
                rates: relevant.lasting,
                call,
            }),
        })
    }
}

fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    fn check(
        &mut self,
        relevant: &Relevant,
        recent: &[Counter],
        uptime: Duration,
        now: Timestamp,
    ) -> Result<(), Limited> {
        for counter in recent {
            if let Some(known) = self.recent.get_mut(&counter.digest) {
                known.keep = counter.keep;
                self.entries -= known.forget(uptime);
            } else {
                self.recent.insert(counter.digest, Recent { keep: counter.keep, ..Recent::default() });
            }
        }
        let is_full = |memory: &Self| memory.entries + recent.len() > MOST;
        if self.recent.len() > self.tidy_at.max(FEW) || (is_full(self) && uptime >= self.swept + SWEEP) {
            self.sweep(uptime);
        }
        let full = is_full(self);
        let waits = relevant.passing.iter().filter_map(|counted| {
            let wait = self.recent.get(&counted.counter)?.wait(counted.limit, uptime);
            // What cannot be counted is not made.
            let wait = wait.or(full.then_some(SWEEP))?;
            Some((counted, wait))
        });
        let worst = waits.max_by_key(|(_, wait)| *wait);
        let over = relevant.at_once.iter().find(|counted| {
            self.running.get(&counted.counter).is_some_and(|running| *running >= counted.limit.most.get())
        });
        match (worst, over) {
            (Some((counted, wait)), _) => Err(counted.reached(wait, now)),
            (None, Some(counted)) => Err(counted.reached()),
            (None, None) => Ok(()),
        }
    }

    fn sweep(&mut self, uptime: Duration) {
        self.swept = uptime;
        self.recent.retain(|_, recent| {
            recent.forget(uptime);
            !recent.calls.is_empty()
        });
        self.entries = self.recent.values().map(|recent| recent.calls.len()).sum();
        self.tidy_at = 2 * self.recent.len();
    }
}

impl Recent {
    /// Forgets the calls that no longer count; returns how many.
    fn forget(&mut self, uptime: Duration) -> usize {
        let gone = self.calls.partition_point(|(at, _)| *at + self.keep <= uptime);
        self.calls.drain(..gone);
        gone
    }

    /// How long it takes until a further call is within the rate; `None` if it is now.
    fn wait(&self, rate: Rate, uptime: Duration) -> Option<Duration> {
        let most = rate.most.get() as usize;
        let (at, _) = self.calls.get(self.calls.len().checked_sub(most)?)?;
        (*at + rate.window).checked_sub(uptime).filter(|wait| !wait.is_zero())
    }
}

/// A call that is counted. Dropping it ends its place among the running ones.
pub(super) struct Hold {
    memory: Arc<Mutex<Memory>>,
    number: u64,
    /// Whether it still counts when it is dropped.
    counts: bool,
    recent: Vec<Digest>,
    running: Vec<Digest>,
    lasting: Arc<Lasting>,
}

/// The part of a call's count that is in the database.
pub(super) struct Lasting {
    counters: Vec<Counter>,
    rates: Vec<Counted<Rate>>,
    call: String,
}

impl Hold {
    pub(super) fn lasting(&self) -> &Arc<Lasting> {
        &self.lasting
    }

    /// The call was admitted: it counts, even if nothing is heard of it again.
    pub(super) fn admitted(&mut self) {
        self.counts = true;
    }

    /// It was not made after all. [`Hold::write`] takes back what is in the database.
    pub(super) fn taken_back(&mut self) {
        self.counts = false;
    }

    /// Writes the record of the end, and takes the call back with it if it was not made.
    pub(super) async fn write(&self, db: &Db, ended: Event) -> Result<(), Refusal> {
        if self.counts || self.lasting.is_empty() {
            return record::write(db, ended).await;
        }
        self.lasting.write_and_take_back(db, Some(ended)).await
    }
}

impl Lasting {
    pub(super) fn is_empty(&self) -> bool {
        self.counters.is_empty()
    }

    /// Counts the call, if it is within all limits: in the commit that admits it.
    pub(super) fn count(&self, tx: &Tx<'_>) -> Result<Result<(), Limited>, Fault> {
        for counter in &self.counters {
            call_counts::tidy(tx, counter)?;
        }
        let mut worst: Option<(Duration, &Counted<Rate>)> = None;
        for counted in &self.rates {
            let Rate { most, window, .. } = counted.limit;
            let Some(again) = call_counts::full_until(tx, &counted.counter, most.get(), window)? else {
                continue;
            };
            let wait = again.since(tx.now());
            if worst.as_ref().is_none_or(|(longest, _)| *longest < wait) {
                worst = Some((wait, counted));
            }
        }
        if let Some((wait, counted)) = worst {
            return Ok(Err(counted.reached(wait, tx.now())));
        }
        for counter in &self.counters {
            call_counts::add(tx, &counter.digest, &self.call)?;
        }
        Ok(Ok(()))
    }

    fn take_back(&self, tx: &Tx<'_>) -> Result<(), Fault> {
        self.counters.iter().try_for_each(|counter| call_counts::remove(tx, &counter.digest, &self.call))
    }

    /// Takes back the count of a call that was not made, and writes a record of it, if there is one.
    pub(super) async fn write_and_take_back(
        self: &Arc<Self>,
        db: &Db,
        event: Option<Event>,
    ) -> Result<(), Refusal> {
        if event.is_none() && self.is_empty() {
            return Ok(());
        }
        let lasting = Arc::clone(self);
        let job = move |tx: &Tx<'_>| {
            lasting.take_back(tx)?;
            event.map_or(Ok(()), |event| audit::append(tx, event))
        };
        record::in_time(db.record(job)).await
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.running.is_empty() && self.recent.is_empty() {
            return;
        }
        let mut memory = lock(&self.memory);
        for digest in &self.running {
            match memory.running.get_mut(digest) {
                Some(running) if *running > 1 => *running -= 1,
                _ => drop(memory.running.remove(digest)),
            }
        }
        let recent: &[Digest] = if self.counts { &[] } else { &self.recent };
        for digest in recent {
            let Some(known) = memory.recent.get_mut(digest) else { continue };
            if let Some(at) = known.calls.iter().rposition(|(_, number)| *number == self.number) {
                known.calls.remove(at);
                memory.entries -= 1;
            }
        }
    }
}

/// Not earlier, in whole seconds.
fn to_the_second(at: Timestamp) -> String {
    let at = Timestamp::from_seconds((at + Duration::from_millis(999)).seconds()).to_string();
    at.replace(".000Z", "Z")
}

/// Not shorter, in a unit that people count in.
fn rough(wait: Duration) -> Duration {
    let seconds = wait.as_millis().div_ceil(1000);
    let unit: u128 = match seconds {
        0..120 => 1,
        120..7_200 => 60,
        7_200..172_800 => 3_600,
        _ => 86_400,
    };
    Duration::from_secs(u64::try_from(seconds.div_ceil(unit) * unit).unwrap_or(u64::MAX).max(1))
}

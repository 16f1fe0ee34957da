//! Limits the records that refusals without credentials can cause, so that they neither fill the disk nor hide
//! each other (AUDIT-06). Each kind of record has an allowance for each address, and for each subject. Beyond
//! the allowance events are counted, and the count is recorded.
//!
//! Records about something this server knows (a user, a grant, a token that it signed, a client that a user
//! approved) have an allowance per subject and minute, which a stranger cannot use up for another subject.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Event, Name};
use crate::clock::Clock;
use crate::rate::Origin;

const WINDOW: Duration = Duration::from_mins(1);
/// The most records a minute of one kind, from one address, about one subject.
pub const QUOTA: u32 = 120;
/// The most networks, for one kind about one subject, that are distinguished; and the most addresses of each.
const NETWORKS_OF_A_SUBJECT: usize = 64;
const ADDRESSES_OF_A_SUBJECT: u32 = 4;
/// The number of records caused by strangers in a minute after which each allowance shrinks to [`FIRST`].
const PLENTY: u32 = 1200;
const FIRST: u32 = 2;
/// The most allowances of one network, and of all together. Beyond the first, events are counted for the
/// network; beyond the second, without an address.
const MOST_OF_A_NETWORK: u32 = 64;
const MOST: usize = 4096;

/// How well the server knows a record's client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientStanding {
    /// The client is not stored: anyone can invent such names.
    Unknown,
    /// The client registered itself and was never approved: anyone can make a number of these.
    SelfMade,
    /// An administrator added it, or a user approved it.
    Known,
}

/// The state for all kinds of refusals.
pub struct Flood {
    clock: Clock,
    window: Mutex<Window>,
}

/// What an allowance is for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Key {
    name: Name,
    reason: String,
    from: From,
    subject: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum From {
    Address(Origin),
    Network(String),
    Anywhere,
}

struct Window {
    since: Duration,
    allowances: HashMap<Key, Allowance>,
    /// The number of allowances of each network.
    networks: HashMap<String, u32>,
    /// For each kind about one subject: its networks, and the number of addresses of each.
    subjects: HashMap<(Name, String, String), HashMap<String, u32>>,
    /// The number of records caused by strangers.
    written: u32,
}

/// A count of events that got no record of their own.
pub struct UnrecordedCount {
    key: Key,
    count: u64,
    like: Event,
}

impl UnrecordedCount {
    /// The record of the count.
    pub fn event(&self) -> Event {
        self.like.counted(self.count, self.key.source(), self.key.subject.is_some())
    }
}

struct Allowance {
    written: u32,
    held_back: u64,
    /// The first event that was counted, whose details are used.
    like: Option<Event>,
}

impl Flood {
    /// Without counts.
    pub fn new(clock: Clock) -> Self {
        let window = Mutex::new(Window::since(clock.uptime()));
        Self { clock, window }
    }

    /// Whether this event gets its own record, and the counts of the previous minute that must be recorded now.
    pub fn admit(&self, event: &Event, client: ClientStanding) -> (bool, Vec<UnrecordedCount>) {
        let now = self.clock.uptime();
        let mut window = self.lock();
        let mut held_back = Vec::new();
        if now.saturating_sub(window.since) >= WINDOW {
            held_back = window.take();
            *window = Window::since(now);
        }
        (window.admits(event, client), held_back)
    }

    /// All counts that have not been recorded; the caller records them now.
    pub fn take(&self) -> Vec<UnrecordedCount> {
        self.lock().take()
    }

    /// Puts counts back that could not be recorded.
    pub fn put_back(&self, held_back: Vec<UnrecordedCount>) {
        let mut window = self.lock();
        for UnrecordedCount { key, count, like } in held_back {
            window.hold_back(key, &like, count);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Window {
    fn since(since: Duration) -> Self {
        let (allowances, networks, subjects) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { since, allowances, networks, subjects, written: 0 }
    }

    /// Whether one more event gets its own record; otherwise it is counted.
    fn admits(&mut self, event: &Event, client: ClientStanding) -> bool {
        let origin = event.origin();
        let (key, stranger) = match (event.concerns(), event.client_id(), client) {
            (Some(subject), _, _) => (self.about(event, origin, subject), false),
            // The client exists, but it is not proven that the request came from it.
            (None, Some(subject), ClientStanding::Known) => (self.about(event, origin, subject), true),
            (None, Some(subject), ClientStanding::SelfMade)
                if self.has_room(event, origin, Some(subject)) =>
            {
                (Key::of(event, From::Address(origin), Some(subject)), true)
            }
            _ => (self.by_address(event, origin), true),
        };
        let most = if stranger && self.written >= PLENTY { FIRST } else { QUOTA };
        if self.allowances.get(&key).is_none_or(|allowance| allowance.written < most) {
            if !self.allowances.contains_key(&key)
                && stranger
                && let From::Address(origin) = &key.from
            {
                *self.networks.entry(origin.network()).or_default() += 1;
            }
            self.written += u32::from(stranger);
            self.allowances.entry(key).or_insert_with(Allowance::new).written += 1;
            return true;
        }
        self.hold_back(key, event, 1);
        false
    }

    fn hold_back(&mut self, key: Key, event: &Event, count: u64) {
        let allowance = self.allowances.entry(key).or_insert_with(Allowance::new);
        allowance.held_back += count;
        allowance.like.get_or_insert_with(|| event.clone());
    }

    /// The allowance for events about this subject: by address or by network, while there are few.
    fn about(&mut self, event: &Event, origin: Origin, subject: &str) -> Key {
        let key = Key::of(event, From::Address(origin), Some(subject));
        if self.allowances.contains_key(&key) {
            return key;
        }
        let kind = (event.name, event.reason().to_owned(), subject.to_owned());
        let networks = self.subjects.entry(kind).or_default();
        let network = origin.network();
        if networks.len() >= NETWORKS_OF_A_SUBJECT && !networks.contains_key(&network) {
            return Key { from: From::Anywhere, ..key };
        }
        let addresses = networks.entry(network.clone()).or_default();
        if *addresses < ADDRESSES_OF_A_SUBJECT {
            *addresses += 1;
            return key;
        }
        Key { from: From::Network(network), ..key }
    }

    /// Whether this allowance exists, or its network may have another one.
    fn has_room(&self, event: &Event, origin: Origin, subject: Option<&str>) -> bool {
        self.allowances.contains_key(&Key::of(event, From::Address(origin), subject))
            || (self.allowances.len() < MOST
                && self.networks.get(&origin.network()).is_none_or(|count| *count < MOST_OF_A_NETWORK))
    }

    /// The allowance for events that anyone can cause.
    fn by_address(&self, event: &Event, origin: Origin) -> Key {
        if self.has_room(event, origin, None) {
            return Key::of(event, From::Address(origin), None);
        }
        let network = Key::of(event, From::Network(origin.network()), None);
        if self.allowances.len() < 2 * MOST || self.allowances.contains_key(&network) {
            return network;
        }
        Key { from: From::Anywhere, ..network }
    }

    /// Takes the counts.
    fn take(&mut self) -> Vec<UnrecordedCount> {
        let mut taken = Vec::new();
        for (key, allowance) in &mut self.allowances {
            if let Some(like) = allowance.like.take() {
                let count = std::mem::take(&mut allowance.held_back);
                taken.push(UnrecordedCount { key: key.clone(), count, like });
            }
        }
        taken
    }
}

impl Allowance {
    fn new() -> Self {
        Self { written: 0, held_back: 0, like: None }
    }
}

impl Key {
    fn of(event: &Event, from: From, subject: Option<&str>) -> Self {
        Self {
            name: event.name,
            reason: event.reason().to_owned(),
            from,
            subject: subject.map(str::to_owned),
        }
    }

    fn source(&self) -> Option<String> {
        match &self.from {
            From::Address(origin) => Some(origin.to_string()),
            From::Network(network) => Some(network.clone()),
            From::Anywhere => None,
        }
    }
}

#[cfg(test)]
mod tests;

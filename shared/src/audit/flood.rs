//! Refusals that need no credentials at all must not fill the disk, and must not hide each other (AUDIT-06). Each kind of
//! record has an allowance of its own for each address that causes it, and for each subject that it is about; what exceeds
//! an allowance is counted, and the count goes on record.
//!
//! What is about somebody or something that this server knows, a user, a grant, a token with our signature, a client that
//! somebody approved, always has a record of its own, so many a minute for each of them. No stranger can use that
//! allowance up for another one.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Event, Name};
use crate::clock::Clock;
use crate::rate::Origin;

const WINDOW: Duration = Duration::from_mins(1);
/// How many of one kind, from one address, about one subject, get a record of their own in a minute.
pub const QUOTA: u32 = 120;
/// From how many networks one kind about one subject is told apart, and from how many addresses of each.
const NETWORKS_OF_A_SUBJECT: usize = 64;
const ADDRESSES_OF_A_SUBJECT: u32 = 4;
/// How many strangers' records are written in a minute before each allowance shrinks to [`FIRST`].
const PLENTY: u32 = 1200;
const FIRST: u32 = 2;
/// How many allowances one network has, and all of them together. What exceeds them is counted for the network alone, or
/// for nobody.
const MOST_OF_A_NETWORK: u32 = 64;
const MOST: usize = 4096;

/// How well a client is known that a record is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acquaintance {
    /// No such client is stored: anybody can make up as many names as they like.
    Unknown,
    /// It registered itself, and nobody has approved it yet: anybody can make a number of them.
    SelfMade,
    /// An administrator made it, or somebody approved it.
    Known,
}

/// The refusals of every kind.
pub struct Flood {
    clock: Clock,
    window: Mutex<Window>,
}

/// What has one allowance.
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
    /// How many allowances each network has.
    networks: HashMap<String, u32>,
    /// How many addresses of each network each kind about one subject came from.
    subjects: HashMap<(Name, String, String), HashMap<String, u32>>,
    /// How many records strangers caused.
    written: u32,
}

/// So many that got no record of their own.
pub struct HeldBack {
    key: Key,
    count: u64,
    like: Event,
}

impl HeldBack {
    /// The record of how many they were.
    pub fn event(&self) -> Event {
        self.like.counted(self.count, self.key.source(), self.key.subject.is_some())
    }
}

struct Allowance {
    written: u32,
    held_back: u64,
    /// The first one that was held back, for whom and what it was about.
    like: Option<Event>,
}

impl Flood {
    /// None yet.
    pub fn new(clock: Clock) -> Self {
        let window = Mutex::new(Window::since(clock.uptime()));
        Self { clock, window }
    }

    /// Whether this gets a record of its own, and what got none in the minute before and is to be recorded now.
    pub fn admit(&self, event: &Event, client: Acquaintance) -> (bool, Vec<HeldBack>) {
        let now = self.clock.uptime();
        let mut window = self.lock();
        let mut held_back = Vec::new();
        if now.saturating_sub(window.since) >= WINDOW {
            held_back = window.take();
            *window = Window::since(now);
        }
        (window.admits(event, client), held_back)
    }

    /// What got no record so far; it is to be recorded now.
    pub fn take(&self) -> Vec<HeldBack> {
        self.lock().take()
    }

    /// It could not be recorded after all.
    pub fn put_back(&self, held_back: Vec<HeldBack>) {
        let mut window = self.lock();
        for HeldBack { key, count, like } in held_back {
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

    /// Whether one more gets a record of its own; else it is counted.
    fn admits(&mut self, event: &Event, client: Acquaintance) -> bool {
        let origin = event.origin();
        let (key, stranger) = match (event.concerns(), event.client_id(), client) {
            (Some(subject), _, _) => (self.about(event, origin, subject), false),
            // That it exists is known, and not that it sent this.
            (None, Some(subject), Acquaintance::Known) => (self.about(event, origin, subject), true),
            (None, Some(subject), Acquaintance::SelfMade) if self.has_room(event, origin, Some(subject)) => {
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

    /// The allowance for what is about this subject: by address or by network, as long as they are few.
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

    /// Whether this allowance is there, or its network may have one more.
    fn has_room(&self, event: &Event, origin: Origin, subject: Option<&str>) -> bool {
        self.allowances.contains_key(&Key::of(event, From::Address(origin), subject))
            || (self.allowances.len() < MOST
                && self.networks.get(&origin.network()).is_none_or(|count| *count < MOST_OF_A_NETWORK))
    }

    /// The allowance for what anybody can cause.
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

    /// What was held back, and is no longer.
    fn take(&mut self) -> Vec<HeldBack> {
        let mut taken = Vec::new();
        for (key, allowance) in &mut self.allowances {
            if let Some(like) = allowance.like.take() {
                let count = std::mem::take(&mut allowance.held_back);
                taken.push(HeldBack { key: key.clone(), count, like });
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

//! A list of ended grants and tokens, kept in memory only as long as needed.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Ended items, each kept as long as a token of it might otherwise be accepted. Uses uptime, which cannot be
/// set.
pub(super) struct EndedItems<K> {
    until: HashMap<K, Instant>,
    /// The size at which expired items are dropped.
    sweep_at: usize,
}

impl<K> Default for EndedItems<K> {
    fn default() -> Self {
        Self { until: HashMap::new(), sweep_at: 0 }
    }
}

impl<K: Eq + Hash> EndedItems<K> {
    /// Lists an item for this long.
    pub(super) fn list(&mut self, key: K, time: Duration) {
        let now = Instant::now();
        if self.until.len() >= self.sweep_at {
            self.until.retain(|_, until| *until > now);
            self.sweep_at = (2 * self.until.len()).max(1024);
        }
        self.until.insert(key, now + time);
    }

    pub(super) fn lists(&self, key: &K) -> bool {
        self.until.contains_key(key)
    }
}

impl<K: Eq + Hash> Extend<(K, Duration)> for EndedItems<K> {
    fn extend<I: IntoIterator<Item = (K, Duration)>>(&mut self, dead: I) {
        let now = Instant::now();
        self.until.extend(dead.into_iter().map(|(key, time)| (key, now + time)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RS-08: an ended item stays listed until its time is over; memory does not grow without bound.
    #[test]
    fn ended_items_are_listed_until_their_tokens_expire() {
        let mut dead = EndedItems::default();
        dead.list(0, Duration::ZERO);
        dead.extend((1..=5000).map(|n| (n, Duration::ZERO)));
        dead.list(9999, Duration::from_hours(1));
        assert!(dead.lists(&9999));
        assert_eq!(dead.until.len(), 1, "those whose time is over made room");
    }
}

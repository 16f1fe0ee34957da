//! Crashes, and what follows from them: a pause that grows, and quarantine for what crashes again and again (SRC-11).

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::Key;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// This many crashes within this time lead to quarantine. What runs longer starts afresh.
const CRASHES: usize = 5;
const WINDOW: Duration = Duration::from_mins(5);
/// How many owners' crashes are remembered.
const MOST: usize = 4096;

/// Whose crashes are counted together: one user who makes a child crash does not stop it for the others.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct CrashScope {
    principal: Option<String>,
    credential: u64,
}

impl CrashScope {
    fn of(key: &Key) -> Self {
        Self { principal: key.owner.principal.clone(), credential: key.credential }
    }
}

/// Why nothing is started at present.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum StartBlock {
    For(Duration, String),
    Quarantined(String),
}

#[derive(Debug)]
struct Record {
    crashes: VecDeque<Duration>,
    in_a_row: u32,
    until: Duration,
    why: String,
}

impl Record {
    fn is_quarantined(&self) -> bool {
        self.crashes.len() >= CRASHES
    }
}

#[derive(Debug, Default)]
pub(super) struct History(HashMap<CrashScope, Record>);

impl History {
    /// Why nothing may be started now for this key.
    pub(super) fn held(&self, key: &Key, now: Duration) -> Option<StartBlock> {
        let record = self.0.get(&CrashScope::of(key))?;
        if record.is_quarantined() {
            return Some(StartBlock::Quarantined(record.why.clone()));
        }
        let left = record.until.saturating_sub(now);
        (!left.is_zero()).then(|| StartBlock::For(left, record.why.clone()))
    }

    /// A child ended that nobody had asked to, after it had run for this long. `chance` is between 0 and 1. Says whether
    /// this put it into quarantine.
    pub(super) fn crashed(
        &mut self,
        key: &Key,
        now: Duration,
        ran: Duration,
        why: String,
        chance: f64,
    ) -> bool {
        let blame = CrashScope::of(key);
        // Crashes with an earlier credential say nothing about this one.
        self.0.retain(|other, _| other.principal != blame.principal || other.credential == blame.credential);
        self.make_room(now);
        let record = self.0.entry(blame).or_insert_with(|| Record {
            crashes: VecDeque::new(),
            in_a_row: 0,
            until: Duration::ZERO,
            why: String::new(),
        });
        if record.is_quarantined() {
            return false;
        }
        if ran >= WINDOW {
            record.in_a_row = 0;
        }
        record.crashes.retain(|at| now.saturating_sub(*at) < WINDOW);
        record.crashes.push_back(now);
        let pause = (FIRST_PAUSE * 2_u32.saturating_pow(record.in_a_row.min(16))).min(LONGEST_PAUSE);
        record.in_a_row += 1;
        record.until = now + pause.mul_f64(1.0 + chance.clamp(0.0, 1.0) / 4.0).min(LONGEST_PAUSE);
        record.why = why;
        record.is_quarantined()
    }

    /// Everything may be started again.
    pub(super) fn forgive(&mut self) {
        self.0.clear();
    }

    /// How many are in quarantine, and why one of them is.
    pub(super) fn quarantined(&self) -> (usize, Option<&str>) {
        let mut quarantined = self.0.values().filter(|record| record.is_quarantined());
        let why = quarantined.next();
        (why.map_or(0, |_| 1 + quarantined.count()), why.map(|record| record.why.as_str()))
    }

    /// Forgets crashes that are long past, and if that is not enough the oldest.
    fn make_room(&mut self, now: Duration) {
        if self.0.len() < MOST {
            return;
        }
        let last = |record: &Record| record.crashes.back().copied().unwrap_or_default();
        self.0.retain(|_, record| record.is_quarantined() || now.saturating_sub(last(record)) < WINDOW);
        if self.0.len() >= MOST {
            let oldest = self.0.iter().min_by_key(|(_, record)| (record.is_quarantined(), last(record)));
            if let Some(blame) = oldest.map(|(blame, _)| blame.clone()) {
                self.0.remove(&blame);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CallerKey, Sharing};
    use super::*;

    fn key(principal: &str, credential: u64) -> Key {
        Sharing::PerUser.key(&CallerKey { principal, session: None, credential, capabilities: "" })
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn pause(history: &History, key: &Key, now: Duration) -> Duration {
        match history.held(key, now) {
            Some(StartBlock::For(pause, _)) => pause,
            other => panic!("{other:?}"),
        }
    }

    /// SRC-11: 0.5 s, twice as much each time, never more than 60 s.
    #[test]
    fn the_pause_grows_from_half_a_second_to_a_minute() {
        let (mut history, alice) = (History::default(), key("alice", 1));
        let mut now = Duration::ZERO;
        let mut pauses = Vec::new();
        for _ in 0..9 {
            assert!(!history.crashed(&alice, now, seconds(1), "it exited".to_owned(), 0.0));
            pauses.push(pause(&history, &alice, now).as_millis());
            // Slowly enough to stay out of quarantine.
            now += seconds(80);
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(history.held(&alice, now), None);
        history.crashed(&alice, now, seconds(300), String::new(), 1.0);
        assert_eq!(pause(&history, &alice, now).as_millis(), 625, "it ran for five minutes before");
    }

    /// SRC-11: the fifth crash in five minutes ends it until somebody says otherwise.
    #[test]
    fn five_crashes_in_five_minutes_lead_to_quarantine() {
        let (mut history, alice) = (History::default(), key("alice", 1));
        for crash in 0..4 {
            assert!(!history.crashed(&alice, seconds(crash * 74), seconds(1), String::new(), 0.5));
        }
        assert!(history.crashed(&alice, seconds(299), seconds(1), "it exited".to_owned(), 0.5));
        assert_eq!(
            history.held(&alice, seconds(1_000_000)),
            Some(StartBlock::Quarantined("it exited".to_owned()))
        );
        assert_eq!(history.quarantined(), (1, Some("it exited")));
        history.forgive();
        assert_eq!(history.held(&alice, seconds(300)), None);
    }

    #[test]
    fn a_crash_that_is_five_minutes_past_does_not_count() {
        let (mut history, alice) = (History::default(), key("alice", 1));
        for crash in 0..20 {
            assert!(!history.crashed(&alice, seconds(crash * 75), seconds(1), String::new(), 0.5), "{crash}");
        }
    }

    /// SRC-15: what one user's child does stops no other user's, and a new credential is a new beginning.
    #[test]
    fn crashes_of_one_user_delay_no_other_user() {
        let mut history = History::default();
        for _ in 0..5 {
            history.crashed(&key("alice", 1), seconds(1), seconds(1), String::new(), 0.5);
        }
        assert_eq!(history.held(&key("bob", 1), seconds(1)), None);
        assert_eq!(history.held(&key("alice", 2), seconds(1)), None);
        history.crashed(&key("alice", 2), seconds(1), seconds(1), String::new(), 0.5);
        assert_eq!(history.0.len(), 1, "the earlier credential is forgotten");
    }

    #[test]
    fn the_memory_of_crashes_is_bounded() {
        let mut history = History::default();
        for user in 0..MOST + 50 {
            history.crashed(&key(&user.to_string(), 1), seconds(1), seconds(1), String::new(), 0.5);
        }
        assert_eq!(history.0.len(), MOST);
        history.crashed(&key("late", 1), seconds(500), seconds(1), String::new(), 0.5);
        assert_eq!(history.0.len(), 1);
    }
}

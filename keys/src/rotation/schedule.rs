//! The due steps as a function of the table, the time and the configuration, so that a restart, a kill or a
//! clock jump does not change them (KEYS-02, KEYS-03).

use std::time::Duration;

use shared::Timestamp;

use crate::algorithm::Algorithm;
use crate::config::Config;
use crate::state::State;
use crate::store::StoredKey;

/// A step in the life of one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    Publish { algorithm: Algorithm, activate_at: Timestamp },
    Activate(String),
    Retire(String),
    Remove { kid: String, reason: &'static str },
}

/// The steps that are due now. `known_for` tells how long this process has known a key in its current state.
/// Waits for caches and tokens are measured by that uptime as well as by the clock, because a clock that is set
/// forward makes no cache expire.
pub(crate) fn due(
    keys: &[StoredKey],
    config: &Config,
    now: Timestamp,
    known_for: impl Fn(&str) -> Duration,
) -> Vec<Step> {
    let mut steps = Vec::new();
    for algorithm in Algorithm::ALL {
        let of = |state| keys.iter().filter(move |key| key.algorithm == algorithm && key.state == state);
        let active = of(State::Active).next();
        let ends = active.map(|key| key.activated_at.unwrap_or(key.created_at) + config.active);
        if !config.keeps(algorithm) {
            steps.extend(of(State::Next).map(|key| remove(key, "algorithm_unused")));
            let over = active.filter(|_| ends.is_some_and(|ends| now >= ends));
            steps.extend(over.map(|key| Step::Retire(key.kid.clone())));
            continue;
        }
        match of(State::Next).next() {
            None if ends.is_none_or(|ends| now + config.publish_ahead >= ends) => {
                let earliest = now + config.publish_ahead;
                let activate_at = ends.map_or(earliest, |ends| ends.max(earliest));
                steps.push(Step::Publish { algorithm, activate_at });
            }
            Some(next) if now >= activate_at(next, config) && known_for(&next.kid) >= config.cached() => {
                steps.push(Step::Activate(next.kid.clone()));
            }
            _ => {}
        }
    }
    let over = |key: &&StoredKey| now >= remove_at(key, config) && known_for(&key.kid) >= config.retired();
    let retired = keys.iter().filter(|key| key.state == State::Retired);
    steps.extend(retired.filter(over).map(|key| remove(key, "last_token_expired")));
    steps
}

/// When a next key becomes active: never before all caches can have it.
pub(crate) fn activate_at(key: &StoredKey, config: &Config) -> Timestamp {
    let known = key.created_at + config.cached();
    key.activate_at.map_or(known, |at| at.max(known))
}

/// When a retired key is no longer needed.
pub(crate) fn remove_at(key: &StoredKey, config: &Config) -> Timestamp {
    key.retired_at.unwrap_or(key.created_at) + config.retired()
}

fn remove(key: &StoredKey, reason: &'static str) -> Step {
    Step::Remove { kid: key.kid.clone(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);
    const START: Timestamp = Timestamp(1_000_000_000_000);
    /// Longer than any wait.
    const LONG: Duration = Duration::from_hours(10_000);

    fn key(kid: &str, algorithm: Algorithm, state: State, at: Timestamp) -> StoredKey {
        let (next, active) = (state == State::Next, state == State::Active);
        StoredKey {
            kid: kid.to_owned(),
            algorithm,
            state,
            sealed: Vec::new(),
            created_at: at,
            activate_at: next.then_some(at + DAY),
            activated_at: active.then_some(at),
            retired_at: (state == State::Retired).then_some(at),
        }
    }

    /// A table with active keys for both permanent algorithms, plus the given ones.
    fn table(more: &[StoredKey]) -> Vec<StoredKey> {
        let mut keys = vec![
            key("es", Algorithm::Es256, State::Active, START),
            key("rs", Algorithm::Rs256, State::Active, START + 30 * DAY),
        ];
        keys.extend_from_slice(more);
        keys
    }

    fn at(keys: &[StoredKey], now: Timestamp) -> Vec<Step> {
        due(keys, &Config::default(), now, |_| LONG)
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// KEYS-02: the next key is published 24 hours before the active one has signed for 90 days, to the
    /// millisecond.
    #[test]
    fn the_next_key_is_published_ahead() {
        let publish_at = START + 89 * DAY;
        assert_eq!(at(&table(&[]), START), []);
        assert_eq!(at(&table(&[]), publish_at - ms(1)), []);
        let activate_at = START + 90 * DAY;
        assert_eq!(at(&table(&[]), publish_at), [Step::Publish { algorithm: Algorithm::Es256, activate_at }]);
    }

    /// KEYS-02: a server that was off for long publishes first and activates a day later.
    #[test]
    fn a_late_start_skips_no_step() {
        let now = START + 119 * DAY;
        let late = Step::Publish { algorithm: Algorithm::Es256, activate_at: now + DAY };
        assert_eq!(at(&table(&[]), now)[0], late);
    }

    /// KEYS-02: the next key becomes active at its time, not a millisecond earlier.
    #[test]
    fn the_next_key_takes_over_at_its_time() {
        let keys = table(&[key("new", Algorithm::Es256, State::Next, START + 89 * DAY)]);
        assert_eq!(at(&keys, START + 90 * DAY - ms(1)), []);
        assert_eq!(at(&keys, START + 90 * DAY), [Step::Activate("new".to_owned())]);
    }

    /// KEYS-03, OPS-04: after the clock jumps forward, no key is activated before caches have it, and none is
    /// removed that tokens need.
    #[test]
    fn a_clock_that_jumps_forward_is_not_believed_at_once() {
        let config = Config::default();
        let next = table(&[key("new", Algorithm::Es256, State::Next, START)]);
        let retired = table(&[key("old", Algorithm::Es256, State::Retired, START)]);
        let now = START + 30 * DAY;
        for (keys, wait, step) in [
            (&next, config.cached(), Step::Activate("new".to_owned())),
            (
                &retired,
                config.retired(),
                Step::Remove { kid: "old".to_owned(), reason: "last_token_expired" },
            ),
        ] {
            assert_eq!(due(keys, &config, now, |_| wait.saturating_sub(ms(1))), []);
            assert_eq!(due(keys, &config, now, |_| wait), [step]);
        }
    }

    /// KEYS-02: even if the row says otherwise, a key is not activated before it was published for twice the
    /// cache lifetime of the key set.
    #[test]
    fn an_early_time_in_the_row_is_not_obeyed() {
        let mut new = key("new", Algorithm::Es256, State::Next, START);
        new.activate_at = Some(START);
        let keys = table(&[new]);
        assert_eq!(at(&keys, START + Duration::from_mins(10) - ms(1)), []);
        assert_eq!(at(&keys, START + Duration::from_mins(10)), [Step::Activate("new".to_owned())]);
    }

    /// KEYS-02: a retired key is removed after its last token has expired everywhere.
    #[test]
    fn a_retired_key_outlives_its_last_token() {
        let keys = table(&[key("old", Algorithm::Es256, State::Retired, START)]);
        let over = START + Duration::from_mins(70);
        assert_eq!(at(&keys, over - ms(1)), []);
        assert_eq!(at(&keys, over), [Step::Remove { kid: "old".to_owned(), reason: "last_token_expired" }]);
    }

    /// KEYS-03: a newly configured algorithm's key is published before it signs; the key of an algorithm that
    /// is no longer configured is retired.
    #[test]
    fn algorithms_come_and_go() {
        let eddsa = Config { algorithm: Algorithm::EdDsa, ..Config::default() };
        let publish = Step::Publish { algorithm: Algorithm::EdDsa, activate_at: START + DAY };
        assert_eq!(due(&table(&[]), &eddsa, START, |_| LONG), [publish]);

        let active = table(&[key("ed", Algorithm::EdDsa, State::Active, START)]);
        assert_eq!(at(&active, START + DAY), []);
        assert!(at(&active, START + 90 * DAY).contains(&Step::Retire("ed".to_owned())));
        let next = table(&[key("ed", Algorithm::EdDsa, State::Next, START)]);
        let gone = Step::Remove { kid: "ed".to_owned(), reason: "algorithm_unused" };
        assert_eq!(at(&next, START), [gone]);
    }

    /// KEYS-03: an algorithm without an active key gets one.
    #[test]
    fn a_gap_is_filled() {
        let keys = [key("rs", Algorithm::Rs256, State::Active, START)];
        let publish = Step::Publish { algorithm: Algorithm::Es256, activate_at: START + DAY };
        assert_eq!(at(&keys, START), [publish]);
    }
}

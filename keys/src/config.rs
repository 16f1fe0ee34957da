//! How tokens are signed, and the schedule of the keys that sign them (standards §1).

use std::time::Duration;

use crate::algorithm::Algorithm;

const MINUTE: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);

/// The algorithm and the schedule. A site narrows it in its configuration, tests shorten it further.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// What tokens are signed with.
    pub algorithm: Algorithm,
    /// How long a key signs before the next one takes over.
    pub active: Duration,
    /// How long a key is published before it signs.
    pub publish_ahead: Duration,
    /// How long others may keep the key set.
    pub jwks_max_age: Duration,
    /// The longest that an access token lives: what a key must be kept for after its last signature. It is
    /// the bound of the matrix, so that no change of another setting can outlive a key.
    pub longest_token: Duration,
    /// By how much the clock of a resource server may be behind.
    pub leeway: Duration,
    /// How often the schedule is looked at.
    pub look: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::default(),
            active: 90 * DAY,
            publish_ahead: DAY,
            jwks_max_age: 5 * MINUTE,
            longest_token: 60 * MINUTE,
            leeway: 5 * MINUTE,
            look: MINUTE / 2,
        }
    }
}

/// A schedule by which tokens would be refused that are good.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unsafe {
    #[error("`jwks_max_age` must be at most 15 minutes")]
    JwksMaxAge,
    #[error(
        "`publish_ahead` must be at least twice `jwks_max_age`, so that every verifier knows a key before it signs"
    )]
    PublishAhead,
    #[error("`active` must be at least `publish_ahead`, so that the next key is ready in time")]
    Active,
    #[error("`active` must be at most 366 days")]
    ActiveTooLong,
}

impl Config {
    /// Refuses what exceeds the bounds of the matrix (§1).
    ///
    /// # Errors
    /// See [`Unsafe`].
    pub fn check(&self) -> Result<(), Unsafe> {
        if self.jwks_max_age > 15 * MINUTE {
            return Err(Unsafe::JwksMaxAge);
        }
        if self.publish_ahead < self.cached() {
            return Err(Unsafe::PublishAhead);
        }
        if self.active < self.publish_ahead {
            return Err(Unsafe::Active);
        }
        if self.active > 366 * DAY {
            return Err(Unsafe::ActiveTooLong);
        }
        Ok(())
    }

    /// After this time nobody uses a key set from before: one life in a cache, and as long again for
    /// requests under way and clocks that differ.
    pub fn cached(&self) -> Duration {
        2 * self.jwks_max_age
    }

    /// How long after its last signature a key may be needed: the last token's `exp`, leeway, and the
    /// life of the key set in caches.
    pub fn retired(&self) -> Duration {
        self.longest_token + self.leeway + self.jwks_max_age
    }

    /// The algorithms that have keys. RS256 is always one of them (RFC 9068 §2.1), and ES256, so that a
    /// change between the two takes effect at once; the third only if it is asked for.
    pub(crate) fn keeps(&self, algorithm: Algorithm) -> bool {
        algorithm == self.algorithm || matches!(algorithm, Algorithm::Es256 | Algorithm::Rs256)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// KEYS-02: the bounds of §1, each from both sides.
    #[test]
    fn an_unsafe_schedule_is_refused() {
        let with = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.check()
        };
        assert_eq!(with(|_| {}), Ok(()));
        assert_eq!(with(|c| c.jwks_max_age = 15 * MINUTE), Ok(()));
        assert_eq!(with(|c| c.jwks_max_age = 16 * MINUTE), Err(Unsafe::JwksMaxAge));
        assert_eq!(with(|c| c.publish_ahead = 10 * MINUTE), Ok(()));
        assert_eq!(with(|c| c.publish_ahead = 9 * MINUTE), Err(Unsafe::PublishAhead));
        assert_eq!(with(|c| c.active = DAY), Ok(()));
        assert_eq!(with(|c| c.active = 1439 * MINUTE), Err(Unsafe::Active));
        assert_eq!(with(|c| c.active = 367 * DAY), Err(Unsafe::ActiveTooLong));
    }

    /// KEYS-02: retired until the last token can have expired everywhere.
    #[test]
    fn a_key_is_kept_for_its_last_token() {
        assert_eq!(Config::default().retired(), 70 * MINUTE);
    }
}

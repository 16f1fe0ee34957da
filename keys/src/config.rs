//! The signing algorithm and the key schedule (standards §1).

use std::time::Duration;

use crate::algorithm::Algorithm;

const MINUTE: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);

/// The algorithm and the schedule. The configuration may narrow it, and tests shorten it further.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The algorithm of new tokens.
    pub algorithm: Algorithm,
    /// How long a key signs before the next one replaces it.
    pub active: Duration,
    /// How long a key is published before it signs.
    pub publish_ahead: Duration,
    /// How long others may cache the key set.
    pub jwks_max_age: Duration,
    /// The longest lifetime of an access token, for which a key must be kept after its last signature. It is
    /// the bound of the matrix, so that no other setting can exceed it.
    pub longest_token: Duration,
    /// How far a resource server's clock may be behind.
    pub leeway: Duration,
    /// The interval at which the schedule is checked.
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

/// Why a schedule is unsafe: valid tokens would be refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UnsafeSchedule {
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
    /// Checks the bounds of the matrix (§1).
    ///
    /// # Errors
    /// See [`UnsafeSchedule`].
    pub fn check(&self) -> Result<(), UnsafeSchedule> {
        if self.jwks_max_age > 15 * MINUTE {
            return Err(UnsafeSchedule::JwksMaxAge);
        }
        if self.publish_ahead < self.cached() {
            return Err(UnsafeSchedule::PublishAhead);
        }
        if self.active < self.publish_ahead {
            return Err(UnsafeSchedule::Active);
        }
        if self.active > 366 * DAY {
            return Err(UnsafeSchedule::ActiveTooLong);
        }
        Ok(())
    }

    /// The time after which no server uses an older key set: its cache lifetime, twice, to allow for requests
    /// in progress and clock differences.
    pub fn cached(&self) -> Duration {
        2 * self.jwks_max_age
    }

    /// How long a key may be needed after its last signature: the last token's lifetime, the leeway, and the
    /// cache lifetime of the key set.
    pub fn retired(&self) -> Duration {
        self.longest_token + self.leeway + self.jwks_max_age
    }

    /// Whether this algorithm has keys. RS256 always does (RFC 9068 §2.1), and so does ES256, so that a change
    /// between the two takes effect at once; EdDSA only if it is configured.
    pub(crate) fn keeps(&self, algorithm: Algorithm) -> bool {
        algorithm == self.algorithm || matches!(algorithm, Algorithm::Es256 | Algorithm::Rs256)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// KEYS-02: the bounds of §1, each tested on both sides.
    #[test]
    fn an_unsafe_schedule_is_refused() {
        let with = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.check()
        };
        assert_eq!(with(|_| {}), Ok(()));
        assert_eq!(with(|c| c.jwks_max_age = 15 * MINUTE), Ok(()));
        assert_eq!(with(|c| c.jwks_max_age = 16 * MINUTE), Err(UnsafeSchedule::JwksMaxAge));
        assert_eq!(with(|c| c.publish_ahead = 10 * MINUTE), Ok(()));
        assert_eq!(with(|c| c.publish_ahead = 9 * MINUTE), Err(UnsafeSchedule::PublishAhead));
        assert_eq!(with(|c| c.active = DAY), Ok(()));
        assert_eq!(with(|c| c.active = 1439 * MINUTE), Err(UnsafeSchedule::Active));
        assert_eq!(with(|c| c.active = 367 * DAY), Err(UnsafeSchedule::ActiveTooLong));
    }

    /// KEYS-02: a key stays retired until its last token has expired everywhere.
    #[test]
    fn a_key_is_kept_for_its_last_token() {
        assert_eq!(Config::default().retired(), 70 * MINUTE);
    }
}

//! How fast children are started: a token bucket.

use std::time::Duration;

/// At most `burst` at once, and one more per `per`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpawnRate {
    pub burst: u32,
    pub per: Duration,
}

/// The bucket as the time at which it would be full again (GCRA).
#[derive(Debug, Default)]
pub(super) struct Bucket(Duration);

impl Bucket {
    /// Takes a token, or says how long until there is one.
    pub(super) fn take(&mut self, rate: SpawnRate, now: Duration) -> Result<(), Duration> {
        let full_at = self.0.max(now) + rate.per;
        let early = full_at.saturating_sub(now + rate.per * rate.burst);
        if !early.is_zero() {
            return Err(early);
        }
        self.0 = full_at;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SRC-11: a burst, then one for each period.
    #[test]
    fn a_burst_is_followed_by_one_for_each_period() {
        let rate = SpawnRate { burst: 3, per: Duration::from_secs(2) };
        let mut bucket = Bucket::default();
        let now = Duration::from_secs(100);
        for _ in 0..3 {
            assert_eq!(bucket.take(rate, now), Ok(()));
        }
        assert_eq!(bucket.take(rate, now), Err(Duration::from_secs(2)));
        assert_eq!(bucket.take(rate, now + Duration::from_millis(1500)), Err(Duration::from_millis(500)));
        assert_eq!(bucket.take(rate, now + Duration::from_secs(2)), Ok(()));
        assert!(bucket.take(rate, now + Duration::from_secs(2)).is_err());
    }
}

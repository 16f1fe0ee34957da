use proptest::prelude::*;

use super::*;
use crate::clock::Timestamp;

fn buckets(quota: Quota) -> (Clock, Buckets<u32>) {
    let clock = Clock::held(Timestamp(1_000_000_007));
    let buckets = Buckets::new("test", quota, &clock, &Arc::default());
    (clock, buckets)
}

fn anybody() -> Request {
    Request::from(None)
}

impl Buckets<u32> {
    /// The number of requests accepted now.
    fn burst(&self, key: u32) -> usize {
        (0..10_000).take_while(|_| self.take(&key, &anybody()).is_ok()).count()
    }
}

/// RATE-01: a bucket holds one minute's quota, and refills one at a time.
#[test]
fn a_bucket_is_one_minute_deep_and_fills_evenly() {
    for count in [1, 7, 20, 60, 600] {
        let (clock, buckets) = buckets(Quota::per_minute(count));
        assert_eq!(buckets.burst(1), count as usize);
        let refused = buckets.take(&1, &anybody()).unwrap_err();
        assert_eq!(refused.retry_after, u64::from(60u32.div_ceil(count)));
        assert_eq!(buckets.burst(2), count as usize, "another key has a bucket of its own");
        clock.advance(Duration::from_secs(refused.retry_after));
        assert!(buckets.burst(1) >= 1, "what was said of when to come back is true");
        clock.advance(Duration::from_mins(10));
        assert_eq!(buckets.burst(1), count as usize);
    }
}

/// RATE-01: each limit can be disabled; it then keeps no state.
#[test]
fn a_limit_that_is_off_limits_nothing() {
    let (_, buckets) = buckets(Quota::OFF);
    assert_eq!(buckets.burst(1), 10_000);
    assert!(buckets.lock().current.is_empty());
    assert!(Limits::off().all().iter().all(|(_, quota)| quota.count().is_none()));
}

/// RATE-01: a successful request costs nothing, and refunds never exceed a full bucket.
#[test]
fn refunds_make_room() {
    let (clock, buckets) = buckets(Quota::per_minute(3));
    for _ in 0..100 {
        buckets.take(&1, &anybody()).unwrap();
        buckets.refund(&1);
    }
    for _ in 0..100 {
        buckets.refund(&1);
    }
    clock.advance(Duration::from_secs(1));
    assert_eq!(buckets.burst(1), 3);
}

#[test]
fn checking_a_limit_takes_nothing() {
    let (_, buckets) = buckets(Quota::per_minute(2));
    assert!((0..10).all(|_| buckets.check(&1, &anybody()).is_ok()));
    assert_eq!(buckets.burst(1), 2);
    assert!(buckets.check(&1, &anybody()).is_err());
}

/// OPS-04: setting the clock back or forward neither fills nor empties a bucket.
#[test]
fn a_changed_wall_clock_changes_no_bucket() {
    let hours = Duration::from_hours(6);
    let (clock, buckets) = buckets(Quota::per_minute(2));
    let right = clock.now();
    for wrong in [right - hours, right + hours, Timestamp(2_208_988_800_000), right] {
        assert_eq!(buckets.burst(1), 2);
        clock.set(wrong);
        let refused = buckets.take(&1, &anybody()).unwrap_err();
        assert_eq!(refused.retry_after, 30, "{wrong}");
        clock.advance(Duration::from_secs(30));
        assert_eq!(buckets.burst(1), 1, "{wrong}");
        clock.advance(Duration::from_mins(1));
    }
}

/// RATE-03: the number of keys is bounded.
#[test]
fn a_flood_of_keys_is_bounded() {
    let (_, buckets) = buckets(Quota::per_minute(1));
    for key in 0..200_000 {
        buckets.take(&key, &anybody()).unwrap();
    }
    let generations = buckets.lock();
    assert!(generations.current.len() + generations.previous.len() <= 2 * MOST_KEYS);
}

/// RATE-01: IPv6 addresses count by /64, and an IPv4-mapped address counts as IPv4.
#[test]
fn an_origin_is_an_address_or_a_64() {
    let origin = |text: &str| Origin::of(text.parse().unwrap());
    assert_eq!(origin("2001:db8:1:2:3:4:5:6"), origin("2001:db8:1:2::1"));
    assert_ne!(origin("2001:db8:1:2::1"), origin("2001:db8:1:3::1"));
    assert_eq!(origin("::ffff:192.0.2.7"), origin("192.0.2.7"));
    assert_ne!(origin("192.0.2.7"), origin("192.0.2.8"));
}

#[test]
fn every_limit_has_its_name() {
    let mut limits = Limits::default();
    for name in Limits::NAMES {
        assert!(limits.named(name).is_some(), "{name}");
    }
    assert!(limits.named("other").is_none());
    assert_eq!(limits.all().len(), Limits::NAMES.len());
}

proptest! {
    /// RATE-01: for any rhythm of requests, no minute accepts more than a full bucket plus its refill.
    #[test]
    fn no_timing_of_requests_exceeds_a_limit(count in 1u32..50, pauses in proptest::collection::vec(0u64..5_000, 1..400)) {
        let (clock, buckets) = buckets(Quota::per_minute(count));
        let began = clock.now();
        let mut through = 0u64;
        for pause in pauses {
            clock.advance(Duration::from_millis(pause));
            through += u64::from(buckets.take(&1, &anybody()).is_ok());
            let elapsed = u64::try_from(clock.now().since(began).as_millis()).unwrap();
            // A token is added in a whole number of microseconds, so the last may come slightly early.
            let grown = (elapsed + 1) * u64::from(count) / 60_000;
            prop_assert!(through <= u64::from(count) + grown + 1);
        }
    }
}

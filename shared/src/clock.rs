//! Time as a parameter: the system's clock, or one that a test holds still. It never goes back (OPS-04).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// How far clocks may differ (standards §1): between two machines, and between two looks at one.
pub const LEEWAY: Duration = Duration::from_mins(1);

/// A point in time: Unix milliseconds, UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Whole Unix seconds, rounded down: the unit of JWT dates (RFC 7519 §2, `NumericDate`).
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// The timestamp of a JWT date.
    pub fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// The time that has gone by since `earlier`; zero if `earlier` lies in the future.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0).max(0).unsigned_abs())
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(milliseconds(rhs)))
    }
}

impl std::ops::Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(milliseconds(rhs)))
    }
}

/// RFC 3339 in UTC with milliseconds, as the audit log writes it (AUDIT-01).
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(t) => write!(f, "{t:.3}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Where the time comes from. Cheap to clone; clones are one clock.
///
/// What it tells never decreases: a clock of the machine that was set back is waited for, so that what
/// has expired stays expired. [`Clock::is_behind`] says that this is going on, [`Clock::restart`] ends it.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: Source,
    /// The latest time that was told, by this process or the one before it on the same database.
    latest: AtomicI64,
}

#[derive(Debug)]
enum Source {
    System { started: Instant },
    Shifted { started: Instant, begin: Timestamp },
    Held { wall: AtomicI64, uptime: AtomicI64 },
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self::of(Source::System { started: Instant::now() })
    }

    /// A clock that stands still at `at` until [`Clock::advance`] moves it.
    pub fn held(at: Timestamp) -> Self {
        Self::of(Source::Held { wall: AtomicI64::new(at.0), uptime: AtomicI64::new(0) })
    }

    /// A clock that says `begin` now and goes on from there at the machine's pace.
    pub fn started_at(begin: Timestamp) -> Self {
        Self::of(Source::Shifted { started: Instant::now(), begin })
    }

    fn of(source: Source) -> Self {
        Self(Arc::new(Inner { source, latest: AtomicI64::new(i64::MIN) }))
    }

    /// The present: never earlier than what was told before.
    pub fn now(&self) -> Timestamp {
        let wall = self.wall();
        Timestamp(self.0.latest.fetch_max(wall.0, Ordering::SeqCst).max(wall.0))
    }

    /// What the machine's clock says, even if it was set back. Decide nothing by it.
    pub fn wall(&self) -> Timestamp {
        match &self.0.source {
            Source::System { .. } => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
                Timestamp(milliseconds(since))
            }
            Source::Shifted { started, begin } => *begin + started.elapsed(),
            Source::Held { wall, .. } => Timestamp(wall.load(Ordering::SeqCst)),
        }
    }

    /// How long this process has had this clock, measured by what nobody can set.
    pub fn uptime(&self) -> Duration {
        match &self.0.source {
            Source::System { started } | Source::Shifted { started, .. } => started.elapsed(),
            Source::Held { uptime, .. } => {
                Duration::from_millis(uptime.load(Ordering::SeqCst).max(0).unsigned_abs())
            }
        }
    }

    /// How far the machine's clock is behind what was told before; zero in good order.
    pub fn behind(&self) -> Duration {
        self.now().since(self.wall())
    }

    /// Whether the machine's clock was set back by more than clocks may differ: nothing is issued then
    /// (OPS-04).
    pub fn is_behind(&self) -> bool {
        self.behind() > LEEWAY
    }

    /// From now on no earlier time than this is told.
    pub fn at_least(&self, at: Timestamp) {
        self.0.latest.fetch_max(at.0, Ordering::SeqCst);
    }

    /// Takes the machine's clock for right, although it was set back: somebody said so. It is the one
    /// way in which the time that is told decreases.
    pub fn restart(&self) {
        self.0.latest.store(self.wall().0, Ordering::SeqCst);
    }

    /// Lets time go by on a held clock; the system's clock is left alone.
    pub fn advance(&self, by: Duration) {
        if let Source::Held { wall, uptime } = &self.0.source {
            wall.fetch_add(milliseconds(by), Ordering::SeqCst);
            uptime.fetch_add(milliseconds(by), Ordering::SeqCst);
        }
    }

    /// Sets a held clock, forward or back, without any time going by: somebody turned the hands.
    pub fn set(&self, to: Timestamp) {
        if let Source::Held { wall, .. } = &self.0.source {
            wall.store(to.0, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_print_as_rfc_3339_with_milliseconds() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Timestamp(1_795_392_000_007).to_string(), "2026-11-23T00:00:00.007Z");
    }

    #[test]
    fn a_held_clock_moves_only_when_told() {
        let clock = Clock::held(Timestamp(5));
        let twin = clock.clone();
        assert_eq!(clock.now(), Timestamp(5));
        twin.advance(Duration::from_secs(1));
        assert_eq!(clock.now(), Timestamp(1005));
        assert_eq!(clock.uptime(), Duration::from_secs(1));
    }

    /// OPS-04: a clock that is set back is waited for, and more than the leeway is noticed.
    #[test]
    fn time_never_goes_back() {
        let clock = Clock::held(Timestamp(1_000_000));
        assert_eq!(clock.now(), Timestamp(1_000_000));
        clock.set(Timestamp(940_000));
        assert_eq!(clock.now(), Timestamp(1_000_000));
        assert_eq!(clock.behind(), LEEWAY);
        assert!(!clock.is_behind());
        clock.set(Timestamp(939_999));
        assert!(clock.is_behind());
        assert_eq!((clock.now(), clock.wall()), (Timestamp(1_000_000), Timestamp(939_999)));
        clock.advance(Duration::from_millis(60_001));
        assert!(!clock.is_behind());
        clock.advance(Duration::from_secs(1));
        assert_eq!(clock.now(), Timestamp(1_001_000));
        assert_eq!(clock.behind(), Duration::ZERO);
    }

    /// OPS-04: what was told before this process began counts too, until somebody says otherwise.
    #[test]
    fn an_earlier_process_is_remembered_until_the_clock_is_restarted() {
        let clock = Clock::held(Timestamp(1000));
        clock.at_least(Timestamp(500_000));
        assert_eq!(clock.now(), Timestamp(500_000));
        clock.at_least(Timestamp(2000));
        assert_eq!(clock.now(), Timestamp(500_000));
        assert!(clock.is_behind());
        clock.restart();
        assert_eq!(clock.now(), Timestamp(1000));
        assert!(!clock.is_behind());
    }

    /// OPS-04: hands that are turned measure no time.
    #[test]
    fn uptime_does_not_follow_the_hands() {
        let clock = Clock::held(Timestamp(1000));
        clock.set(Timestamp(i64::MAX));
        assert_eq!(clock.uptime(), Duration::ZERO);
        assert!(Clock::system().uptime() < Duration::from_mins(1));
    }
}

//! Time as a parameter: the system's clock, or one that stands still for tests. It never goes back (OPS-04).

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::db::{FromColumn, ToColumn, Value, WrongValue};
use crate::id::random_128;

/// The tolerated difference between the clocks of two machines, and between two readings of one (standards §1).
pub const LEEWAY: Duration = Duration::from_mins(1);

/// A point in time: Unix milliseconds, UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl ToColumn for Timestamp {
    fn to_column(&self) -> Value<'_> {
        Value::Integer(self.0)
    }
}

impl FromColumn for Timestamp {
    fn from_column(value: Value<'_>) -> Result<Self, WrongValue> {
        i64::from_column(value).map(Self)
    }
}

impl Timestamp {
    /// Whole Unix seconds, rounded down: the unit of JWT dates (RFC 7519 §2, `NumericDate`).
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// The timestamp of a JWT date.
    pub fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// The time elapsed since `earlier`; zero if `earlier` is in the future.
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

/// RFC 3339 in UTC with milliseconds, as in the audit log (AUDIT-01).
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

/// A small step back is made up by one second in this many. That is slower than the drift of any oscillator,
/// and faster than the daily corrections of a clock add up.
const SLEW: u32 = 2000;

/// The source of time. Cheap to clone; clones are one clock.
///
/// Its time never decreases. If the machine's clock is set back, it continues from the latest time at the pace
/// of [`Clock::uptime`], so that tokens do not live longer and waits still end. [`Clock::is_behind`] reports
/// this state, [`Clock::restart`] ends it.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: Arc<Source>,
    told: Mutex<LatestTime>,
}

#[derive(Debug)]
enum Source {
    System { started: Duration },
    Shifted { started: Duration, begin: Timestamp },
    Held { wall: AtomicI64, uptime: AtomicI64, boot: String },
}

/// The latest time that was returned, by this process or an earlier one on the same database.
#[derive(Debug)]
struct LatestTime {
    latest: Timestamp,
    /// Time continues from here: `due` was the time at uptime `at`.
    due: Timestamp,
    at: Duration,
    /// The uptime until which a small step back has been made up.
    slewed: Duration,
}

impl LatestTime {
    /// The time to return, given the machine's clock.
    fn follow(&mut self, wall: Timestamp, uptime: Duration) -> Timestamp {
        let due = self.due + uptime.saturating_sub(self.at);
        let behind = due.since(wall);
        if behind.is_zero() {
            *self = Self { latest: self.latest.max(wall), due: wall, at: uptime, slewed: uptime };
        } else if behind > LEEWAY {
            self.slewed = uptime;
        } else {
            // Without this, a clock that is corrected by a small step back every day would eventually be behind
            // by more than the leeway.
            let gained = milliseconds((uptime.saturating_sub(self.slewed) / SLEW).min(behind));
            if gained > 0 {
                self.due.0 -= gained;
                self.slewed = uptime;
            }
        }
        self.latest = self.latest.max(self.due + uptime.saturating_sub(self.at));
        self.latest
    }
}

/// A moment on the machine's uptime clock, which other processes on the machine can understand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Moment {
    /// The boot that the uptime counts from.
    pub boot: String,
    pub since_boot: Duration,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self::of(Source::System { started: since_boot() })
    }

    /// A clock that stands still at `at` until [`Clock::advance`] moves it.
    pub fn held(at: Timestamp) -> Self {
        let boot = random_128();
        Self::of(Source::Held { wall: AtomicI64::new(at.0), uptime: AtomicI64::new(0), boot })
    }

    /// A clock that starts at `begin` and runs at the machine's pace.
    pub fn started_at(begin: Timestamp) -> Self {
        Self::of(Source::Shifted { started: since_boot(), begin })
    }

    /// A clock for another process on the same machine, which has returned no time yet.
    #[must_use]
    pub fn of_another_process(&self) -> Self {
        Self::over(Arc::clone(&self.0.source))
    }

    fn of(source: Source) -> Self {
        Self::over(Arc::new(source))
    }

    fn over(source: Arc<Source>) -> Self {
        let never = Timestamp(i64::MIN);
        let told = LatestTime { latest: never, due: never, at: Duration::ZERO, slewed: Duration::ZERO };
        Self(Arc::new(Inner { source, told: Mutex::new(told) }))
    }

    fn told(&self) -> MutexGuard<'_, LatestTime> {
        self.0.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current time: never earlier than a time returned before.
    pub fn now(&self) -> Timestamp {
        let mut told = self.told();
        told.follow(self.wall(), self.uptime())
    }

    /// The machine's clock, even if it was set back. Do not base decisions on it.
    pub fn wall(&self) -> Timestamp {
        match &*self.0.source {
            Source::System { .. } => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
                Timestamp(milliseconds(since))
            }
            Source::Shifted { started, begin } => *begin + since_boot().saturating_sub(*started),
            Source::Held { wall, .. } => Timestamp(wall.load(Ordering::SeqCst)),
        }
    }

    /// How long this process has had this clock, including the time that the machine slept. Cannot be set.
    pub fn uptime(&self) -> Duration {
        match &*self.0.source {
            Source::System { started } | Source::Shifted { started, .. } => {
                since_boot().saturating_sub(*started)
            }
            Source::Held { uptime, .. } => {
                Duration::from_millis(uptime.load(Ordering::SeqCst).max(0).unsigned_abs())
            }
        }
    }

    /// The current moment for other processes on this machine; `None` if the machine does not identify its
    /// boots.
    pub fn moment(&self) -> Option<Moment> {
        if let Source::Held { boot, .. } = &*self.0.source {
            return Some(Moment { boot: boot.clone(), since_boot: self.uptime() });
        }
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(Moment { boot: boot.trim().to_owned(), since_boot: since_boot() })
    }

    /// How far the machine's clock is behind [`Clock::now`]; normally zero.
    pub fn behind(&self) -> Duration {
        self.now().since(self.wall())
    }

    /// Whether the machine's clock was set back by more than the leeway. Nothing is issued then (OPS-04).
    pub fn is_behind(&self) -> bool {
        self.behind() > LEEWAY
    }

    /// Never returns an earlier time than this from now on.
    pub fn at_least(&self, at: Timestamp) {
        let mut told = self.told();
        let uptime = self.uptime();
        if told.due + uptime.saturating_sub(told.at) < at {
            *told = LatestTime { latest: told.latest.max(at), due: at, at: uptime, slewed: uptime };
        }
    }

    /// Accepts the machine's clock although it was set back, because an administrator confirmed it. Only this
    /// makes the returned time decrease.
    pub fn restart(&self) {
        let mut told = self.told();
        let (wall, uptime) = (self.wall(), self.uptime());
        *told = LatestTime { latest: wall, due: wall, at: uptime, slewed: uptime };
    }

    /// Advances a held clock; has no effect on the system's clock.
    pub fn advance(&self, by: Duration) {
        if let Source::Held { wall, uptime, .. } = &*self.0.source {
            wall.fetch_add(milliseconds(by), Ordering::SeqCst);
            uptime.fetch_add(milliseconds(by), Ordering::SeqCst);
        }
    }

    /// Sets a held clock forward or back without advancing its uptime, as when an administrator sets it.
    pub fn set(&self, to: Timestamp) {
        if let Source::Held { wall, .. } = &*self.0.source {
            wall.store(to.0, Ordering::SeqCst);
        }
    }
}

/// The time since the machine booted, including sleep.
fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(now).unwrap_or(Duration::ZERO)
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

    /// OPS-04: after the clock is set back, time goes on, and more than the leeway is noticed.
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
        clock.advance(Duration::from_secs(1));
        assert_eq!((clock.now(), clock.wall()), (Timestamp(1_001_000), Timestamp(940_999)));
        assert!(clock.is_behind(), "time goes on, and the step remains");
        clock.set(Timestamp(1_001_000));
        assert_eq!((clock.now(), clock.behind()), (Timestamp(1_001_000), Duration::ZERO));
    }

    /// OPS-04: however the clock is set, the time between two readings is never less than the elapsed time, and
    /// after a step back exactly that.
    #[test]
    fn time_advances_at_the_pace_of_the_uptime() {
        let clock = Clock::held(Timestamp(1_000_000_000));
        let begun = clock.now();
        let hours = |hours| Duration::from_hours(hours);
        clock.set(begun - hours(6));
        clock.advance(hours(1));
        assert_eq!(clock.now(), begun + hours(1));
        clock.set(begun + hours(7));
        assert_eq!(clock.now(), begun + hours(7));
        clock.set(begun + hours(1));
        for minute in 1..=60 {
            clock.advance(Duration::from_mins(1));
            assert_eq!(clock.now(), begun + hours(7) + Duration::from_mins(minute));
        }
        assert_eq!(clock.behind(), hours(6));
    }

    /// OPS-04: a clock that is set back by a few seconds every day does not eventually stop issuance.
    #[test]
    fn small_steps_back_do_not_add_up() {
        let clock = Clock::held(Timestamp(1_000_000_000));
        let mut before = clock.now();
        for _ in 0..60 {
            clock.set(clock.wall() - Duration::from_secs(20));
            for _ in 0..24 * 60 {
                clock.advance(Duration::from_mins(1));
                let now = clock.now();
                let told = now.since(before);
                assert!(told <= Duration::from_mins(1) && told >= Duration::from_millis(59_970), "{told:?}");
                before = now;
            }
            assert!(!clock.is_behind());
        }
        assert!(clock.behind() <= Duration::from_secs(20));
        // Readings in quick succession do not see time go back.
        clock.set(clock.wall() - Duration::from_secs(20));
        for _ in 0..5000 {
            let now = clock.now();
            clock.advance(Duration::from_millis(1));
            assert!(clock.now() >= now);
        }
    }

    /// OPS-04: the latest time of an earlier process counts too, until an administrator confirms the clock.
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

    /// OPS-04: setting the clock does not change the uptime.
    #[test]
    fn uptime_does_not_follow_the_wall_clock() {
        let clock = Clock::held(Timestamp(1000));
        clock.set(Timestamp(i64::MAX));
        assert_eq!(clock.uptime(), Duration::ZERO);
        let system = Clock::system();
        assert!(system.uptime() < Duration::from_mins(1));
        let (first, second) = (system.moment(), system.moment());
        let (first, second) = (first.expect("Linux tells"), second.expect("Linux tells"));
        assert_eq!(first.boot, second.boot);
        assert!(first.since_boot <= second.since_boot);
    }
}

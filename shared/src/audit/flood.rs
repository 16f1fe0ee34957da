//! Refusals that need no credentials at all must not fill the disk: what exceeds a minute's quota is counted, and
//! the count is recorded (AUDIT-06).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Clock;

const WINDOW: Duration = Duration::from_mins(1);
/// How many a minute get a record of their own.
pub const QUOTA: u32 = 120;

/// The refusals of one kind.
pub struct Flood {
    clock: Clock,
    window: Mutex<Window>,
}

struct Window {
    since: Duration,
    written: u32,
    held_back: u64,
}

impl Flood {
    /// None yet.
    pub fn new(clock: Clock) -> Self {
        let window = Mutex::new(Window { since: clock.uptime(), written: 0, held_back: 0 });
        Self { clock, window }
    }

    /// Whether one more gets a record of its own, and how many before it got none and are to be recorded now.
    pub fn admit(&self) -> (bool, u64) {
        let now = self.clock.uptime();
        let mut window = self.lock();
        let mut held_back = 0;
        if now.saturating_sub(window.since) >= WINDOW {
            held_back = window.held_back;
            *window = Window { since: now, written: 0, held_back: 0 };
        }
        if window.written < QUOTA {
            window.written += 1;
            return (true, held_back);
        }
        window.held_back += 1;
        (false, held_back)
    }

    /// How many got no record so far; they are to be recorded now.
    pub fn take(&self) -> u64 {
        std::mem::take(&mut self.lock().held_back)
    }

    /// They could not be recorded after all.
    pub fn put_back(&self, held_back: u64) {
        self.lock().held_back += held_back;
    }

    fn lock(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    /// AUDIT-06: nothing is dropped: what has no record of its own is in a count.
    #[test]
    fn every_refusal_is_recorded_or_counted() {
        let clock = Clock::held(Timestamp(0));
        let flood = Flood::new(clock.clone());
        assert!((0..QUOTA).all(|_| flood.admit() == (true, 0)));
        assert!((0..5).all(|_| flood.admit() == (false, 0)));
        clock.advance(WINDOW);
        assert_eq!(flood.admit(), (true, 5));
        assert_eq!(flood.take(), 0);
        flood.put_back(2);
        assert_eq!(flood.take(), 2);
    }

    /// AUDIT-06, OPS-04: hands that are turned neither open a new window nor keep one shut.
    #[test]
    fn turned_hands_open_no_window() {
        let clock = Clock::held(Timestamp(1_000_000_000));
        let flood = Flood::new(clock.clone());
        assert!((0..QUOTA).all(|_| flood.admit().0));
        clock.set(Timestamp(2_208_988_800_000));
        assert_eq!(flood.admit(), (false, 0));
        clock.set(Timestamp(0));
        clock.restart();
        clock.advance(WINDOW);
        assert_eq!(flood.admit(), (true, 1));
    }
}

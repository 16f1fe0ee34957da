//! What a search may cost: a limited time, on a limited number of readers of the index, and only while its caller waits for it
//! (LIMIT-04).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::bearer::CallerIdentity;

/// How long a search may work. What it does between two looks at the clock comes on top of that.
const WORK: Duration = Duration::from_secs(1);
/// How many searches of one caller run at once; more wait.
const PER_CALLER: usize = 2;

/// When a search ends before its time.
#[derive(Clone, Debug)]
pub(super) struct Stop {
    by: Instant,
    left: CancellationToken,
}

impl Stop {
    /// When it has worked as long as it may.
    pub(super) fn at_the_limit() -> Self {
        Self::when_left(CancellationToken::new())
    }

    /// That, or earlier if its caller no longer waits.
    pub(super) fn when_left(left: CancellationToken) -> Self {
        Self { by: Instant::now() + WORK, left }
    }

    pub(super) fn is_due(&self) -> bool {
        self.left.is_cancelled() || Instant::now() >= self.by
    }
}

/// The searches that run, and those that wait. One reader of the index is left to everybody else.
#[derive(Debug)]
pub(super) struct SearchSlots {
    all: Arc<Semaphore>,
    by_caller: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// A place, held while a search runs.
pub(super) struct SearchSlot {
    _own: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl SearchSlots {
    /// Places for searches among this many readers.
    pub(super) fn among(readers: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(readers.saturating_sub(1).max(1))), by_caller: Mutex::default() }
    }

    /// Waits for a place: first among the caller's own searches, so that those of one caller never fill the line for all.
    /// `None` if the server stops.
    pub(super) async fn take(&self, asker: &CallerIdentity) -> Option<SearchSlot> {
        let own = self.of(asker.user()).acquire_owned().await.ok()?;
        let of_all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(SearchSlot { _own: own, _of_all: of_all })
    }

    fn of(&self, user: &str) -> Arc<Semaphore> {
        let mut by_caller = self.by_caller.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = by_caller.get(user) {
            return Arc::clone(own);
        }
        // A task that waits or searches holds another copy.
        by_caller.retain(|_, own| Arc::strong_count(own) > 1);
        let own = Arc::new(Semaphore::new(PER_CALLER));
        by_caller.insert(user.to_owned(), Arc::clone(&own));
        own
    }
}

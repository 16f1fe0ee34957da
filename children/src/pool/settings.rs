//! What a pool is made with.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::spawn_rate::SpawnRate;

/// The time that decides: how long it is since some moment, by what nobody can set.
#[derive(Clone)]
pub struct Uptime(Arc<dyn Fn() -> Duration + Send + Sync>);

impl Uptime {
    pub fn of(clock: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(clock))
    }

    pub(super) fn now(&self) -> Duration {
        (self.0)()
    }
}

/// Limits of a pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The most children of this source.
    pub most: usize,
    /// A child that nobody has used for this long is stopped; `None`: never.
    pub idle: Option<Duration>,
    pub rate: SpawnRate,
}

/// Places for the children of all sources.
#[derive(Clone, Debug)]
pub struct ChildSlots(pub(super) Arc<Semaphore>);

impl ChildSlots {
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Semaphore::new(most)))
    }
}

//! Children of one source: as many as are needed, each shared by those who may share it, started once however many wait,
//! stopped when nobody has used them for a while.

mod failing;
mod history;
mod key;
mod settings;
mod spawn_rate;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::child::NotStarted;
use crate::report::Ended;
pub use failing::{Crash, OnCrash, Unavailable};
use history::{History, StartBlock};
pub use key::{CallerKey, Key, Sharing};
pub use settings::{ChildSlots, Settings, Uptime};
use spawn_rate::Bucket;
pub use spawn_rate::SpawnRate;

/// A call waits this long, once, for a pause to end.
const SHORT_PAUSE: Duration = Duration::from_secs(2);
/// How long a start waits for the place of a child that is being stopped.
const FOR_A_PLACE: Duration = Duration::from_secs(6);
/// How often one that has become idle is looked for meanwhile.
const MOMENT: Duration = Duration::from_millis(50);
/// How often children that nobody uses are looked for.
const SWEEP: Duration = Duration::from_secs(15);

/// What a pool holds: a child, and what was agreed with it.
pub trait Member: Send + Sync + 'static {
    /// Waits until it has ended, whatever the cause.
    fn ended(&self) -> impl Future<Output = Ended> + Send;
    /// Waits until nothing of it is left.
    fn gone(&self) -> impl Future<Output = ()> + Send;
    /// Whether it can be used no longer. [`Member::ended`] follows soon.
    fn is_over(&self) -> bool;
    /// Asks it to end.
    fn stop(&self);
}

/// The children of one source. Clones share them.
pub struct Pool<M: Member>(Arc<Inner<M>>);

impl<M: Member> Clone for Pool<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Inner<M: Member> {
    settings: Settings,
    uptime: Uptime,
    own_places: Arc<Semaphore>,
    all_places: ChildSlots,
    on_crash: OnCrash,
    state: Mutex<State<M>>,
}

struct State<M> {
    slots: HashMap<Key, Slot<M>>,
    history: History,
    bucket: Bucket,
    serial: u64,
}

/// A child, or the wait for one. The serial number tells it from an earlier one of the same key.
struct Slot<M> {
    serial: u64,
    stage: Stage<M>,
}

enum Stage<M> {
    Starting(watch::Receiver<Option<Result<(), Unavailable>>>),
    Running(Arc<Running<M>>),
}

struct Running<M> {
    member: M,
    since: Duration,
    uses: Mutex<Uses>,
    /// Cancelled when its end was noted and its slot is free.
    left: CancellationToken,
}

struct Uses {
    leases: usize,
    last: Duration,
    /// Whether somebody has used it. Until then it waits for whom it was started for.
    used: bool,
    /// Nobody else may use it; it is stopped when the last lease ends.
    retired: bool,
}

/// A child in use. It is not stopped for idleness while this is held.
pub struct Lease<M: Member> {
    running: Arc<Running<M>>,
    pool: Pool<M>,
}

/// One running child, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunningChild {
    pub key: Key,
    pub leases: usize,
    pub running_for: Duration,
}

enum Look<M: Member> {
    Running(Lease<M>),
    /// It has ended, and that is being noted.
    Ending(CancellationToken),
    Starting(u64, watch::Receiver<Option<Result<(), Unavailable>>>),
    MayStart(u64, watch::Sender<Option<Result<(), Unavailable>>>),
    Wait(Duration, Unavailable),
    No(Unavailable),
}

impl<M: Member> Pool<M> {
    pub fn new(settings: Settings, all_places: &ChildSlots, uptime: Uptime, on_crash: OnCrash) -> Self {
        let state = State {
            slots: HashMap::new(),
            history: History::default(),
            bucket: Bucket::default(),
            serial: 0,
        };
        Self(Arc::new(Inner {
            own_places: Arc::new(Semaphore::new(settings.most)),
            all_places: all_places.clone(),
            settings,
            uptime,
            on_crash,
            state: Mutex::new(state),
        }))
    }

    /// The child for this key. `start` is used if none runs; other callers wait for the same one.
    ///
    /// # Errors
    /// If there is none, and none can be started now.
    pub async fn lease(
        &self,
        key: &Key,
        start: impl Future<Output = Result<M, NotStarted>> + Send + 'static,
    ) -> Result<Lease<M>, Unavailable> {
        let (mut start, mut has_waited) = (Some(start), false);
        loop {
            let (serial, mut result) = match self.look(key, start.is_some()) {
                Look::Running(lease) => return Ok(lease),
                Look::Ending(left) => {
                    left.cancelled().await;
                    continue;
                }
                Look::No(why) => return Err(why),
                Look::Wait(wait, why) => {
                    if has_waited || wait > SHORT_PAUSE {
                        return Err(why);
                    }
                    has_waited = true;
                    sleep(wait).await;
                    continue;
                }
                Look::Starting(serial, result) => (serial, result),
                Look::MayStart(serial, tell) => {
                    let result = tell.subscribe();
                    if let Some(start) = start.take() {
                        // In its own task, so that other callers still get the child if this call is dropped.
                        tokio::spawn(self.clone().run(key.clone(), serial, start, tell));
                    }
                    (serial, result)
                }
            };
            let told = result.wait_for(Option::is_some).await.map(|told| told.clone());
            match told {
                Ok(Some(Err(why))) => return Err(why),
                Ok(_) => {}
                Err(_) => {
                    self.forget(key, serial);
                    return Err(Unavailable::NotStarted("the attempt to start it failed".to_owned()));
                }
            }
        }
    }

    fn look(&self, key: &Key, can_start: bool) -> Look<M> {
        let now = self.0.uptime.now();
        let mut state = self.state();
        match state.slots.get(key).map(|slot| (slot.serial, &slot.stage)) {
            Some((_, Stage::Running(running))) if running.member.is_over() => {
                return Look::Ending(running.left.clone());
            }
            Some((_, Stage::Running(running))) => return Look::Running(self.lend(running, now)),
            Some((serial, Stage::Starting(result))) => return Look::Starting(serial, result.clone()),
            None => {}
        }
        if !can_start {
            return Look::No(Unavailable::NotStarted("it ended as soon as it was started".to_owned()));
        }
        match state.history.held(key, now) {
            Some(StartBlock::Quarantined(why)) => return Look::No(Unavailable::Quarantined(why)),
            Some(StartBlock::For(wait, why)) => return Look::Wait(wait, Unavailable::Pausing { wait, why }),
            None => {}
        }
        if let Err(wait) = state.bucket.take(self.0.settings.rate, now) {
            return Look::Wait(wait, Unavailable::TooFast);
        }
        state.retire(|other| other.is_other_version_of(key));
        state.serial += 1;
        let serial = state.serial;
        let (tell, result) = watch::channel(None);
        state.slots.insert(key.clone(), Slot { serial, stage: Stage::Starting(result) });
        Look::MayStart(serial, tell)
    }

    fn lend(&self, running: &Arc<Running<M>>, now: Duration) -> Lease<M> {
        let mut uses = running.uses();
        uses.leases += 1;
        (uses.last, uses.used) = (now, true);
        Lease { running: Arc::clone(running), pool: self.clone() }
    }

    /// The whole life of a child: place, start, end, and the place is free again when nothing of it is left.
    async fn run(
        self,
        key: Key,
        serial: u64,
        start: impl Future<Output = Result<M, NotStarted>> + Send,
        tell: watch::Sender<Option<Result<(), Unavailable>>>,
    ) {
        let started = match self.place().await {
            Ok(places) => start.await.map(|member| (member, places)).map_err(|NotStarted(why)| {
                self.crashed(&key, self.0.uptime.now(), why.clone());
                Unavailable::NotStarted(why)
            }),
            Err(why) => Err(why),
        };
        let (member, places) = match started {
            Ok(started) => started,
            Err(why) => {
                self.forget(&key, serial);
                tell.send_replace(Some(Err(why)));
                return;
            }
        };
        let now = self.0.uptime.now();
        let uses = Mutex::new(Uses { leases: 0, last: now, used: false, retired: false });
        let running = Arc::new(Running { member, since: now, uses, left: CancellationToken::new() });
        if self.enter(&key, serial, &running) {
            tell.send_replace(Some(Ok(())));
        } else {
            running.member.stop();
            tell.send_replace(Some(Err(Unavailable::Stopped)));
        }
        let ended = running.member.ended().await;
        if self.forget(&key, serial) {
            self.crashed(&key, running.since, ended.to_string());
        }
        running.left.cancel();
        // It may have closed its output and still run.
        running.member.stop();
        running.member.gone().await;
        drop(places);
    }

    /// Puts a child that was started into its slot, unless the slot is another's by now.
    fn enter(&self, key: &Key, serial: u64, running: &Arc<Running<M>>) -> bool {
        match self.state().slots.get_mut(key) {
            Some(slot) if slot.serial == serial => {
                slot.stage = Stage::Running(Arc::clone(running));
                true
            }
            _ => false,
        }
    }

    /// Empties a slot. Says whether it still was this child's: if not, somebody asked it to end.
    fn forget(&self, key: &Key, serial: u64) -> bool {
        let mut state = self.state();
        let is_ours = state.slots.get(key).is_some_and(|slot| slot.serial == serial);
        if is_ours {
            state.slots.remove(key);
        }
        is_ours
    }

    fn crashed(&self, key: &Key, since: Duration, why: String) {
        let now = self.0.uptime.now();
        let ran = now.saturating_sub(since);
        let quarantined = self.state().history.crashed(key, now, ran, why.clone(), rand::random());
        (self.0.on_crash)(Crash { key: key.clone(), why, quarantined });
    }

    /// A place for one more child. If there is none, the one that nobody has used for longest makes room.
    async fn place(&self) -> Result<[OwnedSemaphorePermit; 2], Unavailable> {
        let places = [&self.0.own_places, &self.0.all_places.0];
        if places.iter().any(|places| places.available_permits() == 0) {
            self.evict();
        }
        let [own, all] = places.map(|places| Arc::clone(places).acquire_owned());
        let both = async { Ok::<_, tokio::sync::AcquireError>([own.await?, all.await?]) };
        let freed = async {
            // One that is in use now may not be a moment later.
            loop {
                sleep(MOMENT).await;
                self.evict();
            }
        };
        let placed = async {
            tokio::select! {
                places = both => places.map_err(|_| Unavailable::Full),
                () = freed => Err(Unavailable::Full),
            }
        };
        timeout(FOR_A_PLACE, placed).await.unwrap_or(Err(Unavailable::Full))
    }

    fn evict(&self) {
        let now = self.0.uptime.now();
        let mut state = self.state();
        let idle = state.running().filter(|(_, running)| {
            let uses = running.uses();
            uses.leases == 0 && (uses.used || now.saturating_sub(running.since) >= FOR_A_PLACE)
        });
        let oldest = idle.min_by_key(|(_, running)| running.uses().last).map(|(key, _)| key.clone());
        if let Some(oldest) = oldest {
            state.retire(|key| *key == oldest);
        }
    }

    /// Stops what nobody has used for long enough.
    pub fn sweep(&self) {
        let Some(idle) = self.0.settings.idle else { return };
        let now = self.0.uptime.now();
        let mut state = self.state();
        let unused: Vec<Key> = state
            .running()
            .filter(|(_, running)| {
                let uses = running.uses();
                uses.leases == 0 && now.saturating_sub(uses.last) >= idle
            })
            .map(|(key, _)| key.clone())
            .collect();
        state.retire(|key| unused.contains(key));
    }

    /// Sweeps from time to time until `stop`; then every child is stopped, and waited for.
    pub async fn keep(&self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(SWEEP) => self.sweep(),
            }
        }
        let stopped = self.stop_all();
        for running in stopped {
            running.member.gone().await;
        }
    }

    /// Ends the children of a session, or of a principal, when the calls that use them have ended.
    pub fn retire(&self, which: impl Fn(&Key) -> bool) {
        self.state().retire(which);
    }

    /// Stops every child now, even if it is in use, and forgets all crashes.
    pub fn restart(&self) {
        self.stop_all();
        self.state().history.forgive();
    }

    fn stop_all(&self) -> Vec<Arc<Running<M>>> {
        let slots = std::mem::take(&mut self.state().slots);
        let running = slots.into_values().filter_map(|slot| match slot.stage {
            Stage::Running(running) => Some(running),
            // It is stopped when it is there: its slot is gone.
            Stage::Starting(_) => None,
        });
        let running: Vec<_> = running.collect();
        for running in &running {
            running.member.stop();
        }
        running
    }

    /// What runs, for people.
    pub fn in_use(&self) -> Vec<RunningChild> {
        let now = self.0.uptime.now();
        let state = self.state();
        let in_use = state.running().map(|(key, running)| RunningChild {
            key: key.clone(),
            leases: running.uses().leases,
            running_for: now.saturating_sub(running.since),
        });
        in_use.collect()
    }

    /// How many owners' children are in quarantine, and why one of them is.
    pub fn quarantined(&self) -> (usize, Option<String>) {
        let state = self.state();
        let (count, why) = state.history.quarantined();
        (count, why.map(str::to_owned))
    }

    fn state(&self) -> MutexGuard<'_, State<M>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: Member> State<M> {
    fn running(&self) -> impl Iterator<Item = (&Key, &Arc<Running<M>>)> {
        self.slots.iter().filter_map(|(key, slot)| match &slot.stage {
            Stage::Running(running) => Some((key, running)),
            Stage::Starting(_) => None,
        })
    }

    /// Takes children out of use. Each is stopped once nobody uses it.
    fn retire(&mut self, which: impl Fn(&Key) -> bool) {
        let slots = self.slots.extract_if(|key, slot| matches!(slot.stage, Stage::Running(_)) && which(key));
        for (_, slot) in slots {
            if let Stage::Running(running) = slot.stage {
                let mut uses = running.uses();
                uses.retired = true;
                if uses.leases == 0 {
                    running.member.stop();
                }
            }
        }
    }
}

impl<M> Running<M> {
    fn uses(&self) -> MutexGuard<'_, Uses> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: Member> Deref for Lease<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.running.member
    }
}

impl<M: Member> fmt::Debug for Lease<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lease")
    }
}

impl<M: Member> Drop for Lease<M> {
    fn drop(&mut self) {
        let mut uses = self.running.uses();
        uses.leases -= 1;
        uses.last = self.pool.0.uptime.now();
        if uses.retired && uses.leases == 0 {
            self.running.member.stop();
        }
    }
}

#[cfg(test)]
mod tests;

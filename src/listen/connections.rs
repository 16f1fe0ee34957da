//! The connections that are open: how many there may be, how many of one origin, and who goes when there is no place.
//!
//! A connection costs a file and some memory whether or not anything is asked on it. So nobody is kept out while another
//! one does nothing: when places run out, a connection without a request goes, of the origin that has most of them the
//! one that has been idle for longest.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::rate::Origin;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often it is looked again whether a place can be had, when all connections are busy.
const RETRY: Duration = Duration::from_millis(200);

/// The connections that are open. Cheap to clone.
#[derive(Clone)]
pub(super) struct Connections(Arc<Inner>);

struct Inner {
    places: usize,
    /// How many one origin may have.
    share: usize,
    open: Mutex<Open>,
    freed: Notify,
}

#[derive(Default)]
struct Open {
    next: u64,
    places: HashMap<u64, Place>,
    origins: HashMap<Origin, usize>,
}

struct Place {
    origin: Origin,
    activity: Activity,
    leave: CancellationToken,
}

impl Connections {
    pub(super) fn new(places: usize, share: usize) -> Self {
        let inner = Inner { places, share, open: Mutex::default(), freed: Notify::new() };
        Self(Arc::new(inner))
    }

    /// Waits until there is a place, and has an idle connection leave if there is none.
    pub(super) async fn room(&self) {
        loop {
            let freed = self.0.freed.notified();
            {
                let open = self.lock();
                if open.places.len() < self.0.places {
                    return;
                }
                open.ask_to_leave(None);
            }
            let _ = tokio::time::timeout(RETRY, freed).await;
        }
    }

    /// A place for a connection from here; `None` if this origin has its share, all of it busy. A proxy that speaks for
    /// many has no share.
    pub(super) fn enter(&self, origin: Origin, is_proxy: bool) -> Option<Guest> {
        let mut open = self.lock();
        let count = open.origins.get(&origin).copied().unwrap_or(0);
        if !is_proxy && count >= self.0.share && !open.ask_to_leave(Some(origin)) {
            return None;
        }
        let (activity, leave) = (Activity::default(), CancellationToken::new());
        let id = open.next;
        open.next += 1;
        open.places.insert(id, Place { origin, activity: activity.clone(), leave: leave.clone() });
        *open.origins.entry(origin).or_default() += 1;
        Some(Guest { connections: self.clone(), id, activity, leave })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Asks an idle connection to leave, one of this origin or of any; whether there was one.
    fn ask_to_leave(&self, origin: Option<Origin>) -> bool {
        let idle = self.places.values().filter_map(|place| {
            let wanted = origin.is_none_or(|origin| origin == place.origin) && !place.leave.is_cancelled();
            let since = place.activity.idle_since().filter(|_| wanted)?;
            let others = self.origins.get(&place.origin).copied().unwrap_or(0);
            Some((std::cmp::Reverse(others), since, place))
        });
        let Some((.., place)) = idle.min_by_key(|(others, since, _)| (*others, *since)) else { return false };
        place.leave.cancel();
        true
    }
}

/// A connection's place, for as long as it exists.
pub(super) struct Guest {
    connections: Connections,
    id: u64,
    pub(super) activity: Activity,
    /// Cancelled when the place is needed.
    pub(super) leave: CancellationToken,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut open = self.connections.lock();
        if let Some(place) = open.places.remove(&self.id)
            && let Some(count) = open.origins.get_mut(&place.origin)
        {
            *count -= 1;
            if *count == 0 {
                open.origins.remove(&place.origin);
            }
        }
        drop(open);
        self.connections.0.freed.notify_waiters();
    }
}

/// Whether something is asked on a connection.
#[derive(Clone)]
pub(super) struct Activity(Arc<Mutex<State>>);

struct State {
    requests: usize,
    since: Instant,
    /// Of the requests those whose answers have something that the client has not taken yet.
    offered: usize,
    /// When any answer last got on.
    moved: Instant,
}

impl Default for Activity {
    fn default() -> Self {
        let now = Instant::now();
        Self(Arc::new(Mutex::new(State { requests: 0, since: now, offered: 0, moved: now })))
    }
}

impl Activity {
    /// A request has come. It lasts until what is returned goes.
    pub(super) fn request(&self) -> Asked {
        self.lock().requests += 1;
        Asked { activity: self.clone(), offers: false }
    }

    /// Since when there has been no request; `None` while there is one.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let state = self.lock();
        (state.requests == 0).then_some(state.since)
    }

    /// Waits until there has been no request for so long.
    pub(super) async fn idle_for(&self, time: Duration) {
        loop {
            let until = self.idle_since().unwrap_or_else(Instant::now) + time;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }

    /// Since when the client has taken nothing although every answer has something for it; `None` otherwise.
    fn stalled_since(&self) -> Option<Instant> {
        let state = self.lock();
        (state.requests > 0 && state.offered == state.requests).then_some(state.moved)
    }

    /// Waits until the client has taken nothing for so long of all that there is for it.
    pub(super) async fn stalled_for(&self, time: Duration) {
        loop {
            let until = self.stalled_since().unwrap_or_else(Instant::now) + time;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is not answered yet, or whose answer is still being sent.
pub(super) struct Asked {
    activity: Activity,
    offers: bool,
}

impl Asked {
    /// The answer has got on: it has something for the client now, or waits for more of itself.
    pub(super) fn offers(&mut self, something: bool) {
        let mut state = self.activity.lock();
        match (self.offers, something) {
            (false, true) => state.offered += 1,
            (true, false) => state.offered -= 1,
            _ => {}
        }
        self.offers = something;
        state.moved = Instant::now();
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.offers(false);
        let mut state = self.activity.lock();
        state.requests -= 1;
        state.since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(last: u8) -> Origin {
        Origin::of(std::net::IpAddr::from([192, 0, 2, last]))
    }

    /// HTTP-10: who does nothing makes room: of the origin with most connections, the one idle for longest.
    #[tokio::test(start_paused = true)]
    async fn the_idle_make_room() {
        let connections = Connections::new(4, 4);
        let mut guests = Vec::new();
        for last in [1, 2, 2, 2] {
            guests.push(connections.enter(origin(last), false).unwrap());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let asked = guests[1].activity.request();
        let leave = guests[2].leave.clone();
        let waiting = tokio::spawn({
            let connections = connections.clone();
            async move { connections.room().await }
        });
        leave.cancelled().await;
        assert!(!guests.iter().enumerate().any(|(n, guest)| n != 2 && guest.leave.is_cancelled()));
        drop(guests.remove(2));
        waiting.await.unwrap();
        drop(asked);
    }

    /// HTTP-10: while all are busy, whoever comes waits; nobody is cut off in a request.
    #[tokio::test(start_paused = true)]
    async fn the_busy_stay() {
        let connections = Connections::new(1, 1);
        let guest = connections.enter(origin(1), false).unwrap();
        let asked = guest.activity.request();
        assert!(tokio::time::timeout(Duration::from_mins(1), connections.room()).await.is_err());
        assert!(!guest.leave.is_cancelled());
        drop(asked);
        let room = tokio::time::timeout(Duration::from_secs(1), connections.room());
        let (room, ()) = tokio::join!(room, async {
            guest.leave.cancelled().await;
            drop(guest);
        });
        room.unwrap();
    }

    /// HTTP-10: no origin takes more than its share; its own idle connections go first, others' never.
    #[tokio::test(start_paused = true)]
    async fn no_origin_takes_everything() {
        let connections = Connections::new(100, 2);
        let first = connections.enter(origin(1), false).unwrap();
        let second = connections.enter(origin(1), false).unwrap();
        let other = connections.enter(origin(2), false).unwrap();
        let (asked, also_asked) = (first.activity.request(), second.activity.request());
        assert!(connections.enter(origin(1), false).is_none());
        assert!(connections.enter(origin(1), true).is_some(), "a proxy speaks for many");
        drop(asked);
        let third = connections.enter(origin(1), false);
        assert!(third.is_some() && first.leave.is_cancelled());
        assert!(!second.leave.is_cancelled() && !other.leave.is_cancelled());
        drop((first, second, third, other, also_asked));
        assert!(connections.lock().origins.is_empty() && connections.lock().places.is_empty());
    }

    /// HTTP-10: a client stalls that takes nothing of any answer; one that waits for the server, or takes some, does not.
    #[tokio::test(start_paused = true)]
    async fn whoever_takes_nothing_stalls() {
        const SOON: Duration = Duration::from_secs(30);
        const LONG: Duration = Duration::from_mins(5);
        let activity = Activity::default();
        let stalls =
            async |patience| tokio::time::timeout(patience, activity.stalled_for(SOON)).await.is_ok();
        let (mut first, mut second) = (activity.request(), activity.request());
        assert!(!stalls(LONG).await, "nothing is answered yet");
        first.offers(true);
        assert!(!stalls(LONG).await, "one answer is still being made");
        second.offers(true);
        assert!(stalls(SOON).await);
        // Something was taken, and there is more.
        second.offers(true);
        assert!(!stalls(Duration::from_secs(29)).await);
        first.offers(false);
        assert!(!stalls(LONG).await, "one waits for the server");
        drop(first);
        assert!(stalls(LONG).await);
        drop(second);
        assert!(!stalls(LONG).await, "nothing is asked");
    }

    #[tokio::test(start_paused = true)]
    async fn idleness_begins_with_the_end_of_the_last_request() {
        let activity = Activity::default();
        let asked = activity.request();
        let waiting = tokio::spawn({
            let activity = activity.clone();
            async move {
                activity.idle_for(Duration::from_secs(75)).await;
                Instant::now()
            }
        });
        tokio::time::sleep(Duration::from_secs(100)).await;
        drop(asked);
        let ended = Instant::now();
        let waited = waiting.await.unwrap() - ended;
        assert!(waited >= Duration::from_secs(75) && waited <= Duration::from_secs(76), "{waited:?}");
    }
}

//! The open connections: the limits, in all and per origin, and which one is closed when a limit is reached.
//!
//! A connection costs a file and some memory even if it is idle. So no client is refused because of an idle
//! connection: at the limit, the longest idle connection of the origin with most connections is closed. When
//! memory runs out (RATE-07), the connection that uses most of it is closed, of the origin that uses most.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::rate::Origin;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::memory::{ACCEPTED, Account, Budget, Charge, Relief};

/// How often to look again for a free place if all connections are busy.
const RETRY: Duration = Duration::from_millis(200);
/// How often to log that memory has run out.
const REMINDER: Duration = Duration::from_mins(1);
/// Connections whose memory differs by less than this count as equal.
const COARSE: usize = 256 * 1024;

/// The open connections. Cheap to clone.
#[derive(Clone)]
pub(super) struct Connections(Arc<Inner>);

struct Inner {
    places: usize,
    /// The most connections of one origin.
    share: usize,
    budget: Budget,
    /// The bytes of all connections.
    held: Arc<AtomicUsize>,
    open: Mutex<Open>,
    freed: Notify,
}

#[derive(Default)]
struct Open {
    next: u64,
    places: HashMap<u64, ConnectionSlot>,
    origins: HashMap<Origin, OriginUsage>,
    /// When it was last said that memory has run out.
    reminded: Option<Instant>,
}

/// An origin's connections, and their bytes.
#[derive(Default)]
struct OriginUsage {
    connections: usize,
    held: Arc<AtomicUsize>,
}

struct ConnectionSlot {
    origin: Origin,
    /// A proxy serves many clients, so its origin has no limit, and each of its connections counts separately.
    is_proxy: bool,
    activity: Activity,
    account: Account,
    leave: CancellationToken,
}

impl Connections {
    pub(super) fn new(places: usize, share: usize, budget: Budget) -> Self {
        let (held, open, freed) = (Arc::default(), Mutex::default(), Notify::new());
        Self(Arc::new(Inner { places, share, budget, held, open, freed }))
    }

    /// Waits for a free place, and closes an idle connection if there is none.
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
    pub(super) fn enter(&self, origin: Origin, is_proxy: bool) -> Option<ConnectionGuard> {
        let mut open = self.lock();
        let count = open.connections_of(origin);
        if !is_proxy && count >= self.0.share && !open.ask_to_leave(Some(origin)) {
            return None;
        }
        let (activity, leave) = (Activity::default(), CancellationToken::new());
        let id = open.next;
        open.next += 1;
        let of_origin = open.origins.entry(origin).or_default();
        of_origin.connections += 1;
        let account = Account::new(
            id,
            Arc::clone(&of_origin.held),
            Arc::clone(&self.0.held),
            Arc::clone(&self.0) as Arc<dyn Relief>,
        );
        let place = ConnectionSlot {
            origin,
            is_proxy,
            activity: activity.clone(),
            account: account.clone(),
            leave: leave.clone(),
        };
        open.places.insert(id, place);
        drop(open);
        let place = Some(account.charge(ACCEPTED));
        Some(ConnectionGuard { connections: self.clone(), id, activity, account, place, leave })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock()
    }
}

impl Relief for Inner {
    /// Has the greediest connections leave if this one's origin, or all origins together, hold more than they may.
    fn relieve(&self, id: u64, of_origin: usize, of_all: usize) {
        let budget = self.budget;
        if of_origin > budget.of_origin() {
            let open = self.lock();
            let origin = open.places.get(&id).filter(|place| !place.is_proxy).map(|place| place.origin);
            let asked = origin.and_then(|origin| open.relieve(Some(origin), of_origin - budget.of_origin()));
            self.remind(open, asked);
        }
        if of_all > budget.of_all() {
            let open = self.lock();
            let asked = open.relieve(None, of_all - budget.of_all());
            self.remind(open, asked);
        }
    }
}

impl Inner {
    /// Says, now and then, that a connection from here had to go.
    fn remind(&self, mut open: MutexGuard<'_, Open>, asked: Option<Origin>) {
        let Some(origin) = asked else { return };
        if open.reminded.is_some_and(|at| at.elapsed() < REMINDER) {
            return;
        }
        open.reminded = Some(Instant::now());
        drop(open);
        tracing::warn!(
            http.origin = %origin,
            memory.budget = self.budget.bytes(),
            "connections were closed because they held more memory than one address, or all together, may hold; \
             if this was normal use, raise `memory` in portcullis.toml"
        );
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Asks an idle connection to leave, one of this origin or of any; whether there was one.
    fn ask_to_leave(&self, origin: Option<Origin>) -> bool {
        let idle = self.places.values().filter_map(|place| {
            let wanted = origin.is_none_or(|origin| origin == place.origin) && !place.leave.is_cancelled();
            let since = place.activity.idle_since().filter(|_| wanted)?;
            Some((Reverse(self.connections_of(place.origin)), since, place))
        });
        let Some((.., place)) = idle.min_by_key(|(others, since, _)| (*others, *since)) else { return false };
        place.leave.cancel();
        true
    }

    fn connections_of(&self, origin: Origin) -> usize {
        self.origins.get(&origin).map_or(0, |of_origin| of_origin.connections)
    }

    /// Closes connections, of this origin or of any, until this many bytes will be free: the largest connection
    /// of the largest origin; of about equal ones the idle one first. Returns the origin of the last one.
    fn relieve(&self, origin: Option<Origin>, mut bytes: usize) -> Option<Origin> {
        let mut asked = None;
        let of_these = |place: &&ConnectionSlot| origin.is_none_or(|origin| origin == place.origin);
        let leaving = self.places.values().filter(of_these).filter(|place| place.leave.is_cancelled());
        bytes = bytes.saturating_sub(leaving.map(|place| place.account.bytes()).sum());
        while bytes > 0 {
            let staying = self.places.values().filter(of_these).filter(|place| !place.leave.is_cancelled());
            let Some(greediest) = staying.max_by_key(|place| place.greed()) else { break };
            bytes = bytes.saturating_sub(greediest.account.bytes());
            greediest.leave.cancel();
            asked = Some(greediest.origin);
        }
        asked
    }
}

impl ConnectionSlot {
    /// Who is greediest, in this order: whose origin holds most, who holds most, who has been idle for longest.
    fn greed(&self) -> impl Ord + use<> {
        let own = self.account.bytes();
        let of_origin = if self.is_proxy { own } else { self.account.bytes_of_origin() };
        let idle = self.activity.idle_since().map(Reverse);
        (of_origin, own / COARSE, idle.is_some(), idle, own)
    }
}

/// A connection's place, for as long as it exists.
pub(super) struct ConnectionGuard {
    connections: Connections,
    id: u64,
    pub(super) activity: Activity,
    pub(super) account: Account,
    /// What the connection costs while it is silent.
    place: Option<Charge>,
    /// Cancelled when the place, or the memory, is needed.
    pub(super) leave: CancellationToken,
}

impl ConnectionGuard {
    /// The connection has got on, and costs so much more while it is silent.
    pub(super) fn grow(&mut self, bytes: usize) {
        if let Some(place) = &mut self.place {
            place.add(bytes);
        }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        // Before taking the lock: dropping a charge does not need it, adding one may.
        self.place = None;
        let mut open = self.connections.lock();
        if let Some(place) = open.places.remove(&self.id)
            && let Some(of_origin) = open.origins.get_mut(&place.origin)
        {
            of_origin.connections -= 1;
            if of_origin.connections == 0 {
                open.origins.remove(&place.origin);
            }
        }
        drop(open);
        self.connections.0.freed.notify_waiters();
    }
}

/// The activity of a connection.
#[derive(Clone)]
pub(super) struct Activity(Arc<Mutex<State>>);

struct State {
    requests: usize,
    since: Instant,
    /// The requests whose responses have data that the client has not read yet.
    offered: usize,
    /// When any response last made progress.
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
    pub(super) fn request(&self) -> OpenRequest {
        self.lock().requests += 1;
        OpenRequest { activity: self.clone(), offers: false }
    }

    /// Since when there has been no request; `None` while there is one.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let state = self.lock();
        (state.requests == 0).then_some(state.since)
    }

    /// Waits until there has been no request for this long.
    pub(super) async fn idle_for(&self, time: Duration) {
        loop {
            let until = self.idle_since().unwrap_or_else(Instant::now) + time;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }

    /// Since when the client has read nothing although every response has data; `None` otherwise.
    fn stalled_since(&self) -> Option<Instant> {
        let state = self.lock();
        (state.requests > 0 && state.offered == state.requests).then_some(state.moved)
    }

    /// Waits until the client has read nothing of the available data for this long.
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
pub(super) struct OpenRequest {
    activity: Activity,
    offers: bool,
}

impl OpenRequest {
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

impl Drop for OpenRequest {
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

    /// HTTP-10: idle connections make room: the longest idle one of the origin with most connections.
    #[tokio::test(start_paused = true)]
    async fn idle_connections_are_closed_to_make_room() {
        let connections = Connections::new(4, 4, Budget::default());
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

    /// HTTP-10: while all connections are busy, new ones wait; no request is interrupted.
    #[tokio::test(start_paused = true)]
    async fn busy_connections_are_never_closed_to_make_room() {
        let connections = Connections::new(1, 1, Budget::default());
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

    /// HTTP-10: no origin exceeds its limit; its own idle connections are closed, never others'.
    #[tokio::test(start_paused = true)]
    async fn one_origin_cannot_take_all_connections() {
        let connections = Connections::new(100, 2, Budget::default());
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

    /// HTTP-10: a client stalls if it reads nothing of any response; one that waits for the server, or reads
    /// some, does not.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_counts_as_stalled() {
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
        // Some of it was read, and there is more.
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

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::*;

/// A member that ends when the test says so.
struct Puppet {
    ended: CancellationToken,
    stopped: CancellationToken,
}

impl Member for Puppet {
    async fn ended(&self) -> Ended {
        tokio::select! {
            () = self.ended.cancelled() => Ended::Exited(1),
            () = self.stopped.cancelled() => Ended::Exited(0),
        }
    }

    async fn gone(&self) {
        self.ended().await;
    }

    fn is_over(&self) -> bool {
        self.ended.is_cancelled() || self.stopped.is_cancelled()
    }

    fn stop(&self) {
        self.stopped.cancel();
    }
}

struct Stage {
    pool: Pool<Puppet>,
    millis: Arc<AtomicU64>,
    started: Arc<AtomicUsize>,
    /// Whether each crash so far led to quarantine.
    crashes: Arc<Mutex<Vec<bool>>>,
}

impl Stage {
    fn of(settings: Settings, places: &ChildSlots) -> Self {
        let millis = Arc::new(AtomicU64::new(0));
        let read = Arc::clone(&millis);
        let uptime = Uptime::of(move || Duration::from_millis(read.load(Ordering::SeqCst)));
        let crashes = Arc::<Mutex<Vec<bool>>>::default();
        let told = Arc::clone(&crashes);
        let on_crash = move |crash: Crash| told.lock().expect("not poisoned").push(crash.quarantined);
        let pool = Pool::new(settings, places, uptime, Box::new(on_crash));
        Self { pool, millis, started: Arc::default(), crashes }
    }

    fn new() -> Self {
        Self::of(settings(), &ChildSlots::new(64))
    }

    fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).expect("a short time");
        self.millis.fetch_add(by, Ordering::SeqCst);
    }

    async fn lease(&self, key: &Key) -> Result<Lease<Puppet>, Unavailable> {
        let started = Arc::clone(&self.started);
        let start = async move {
            tokio::task::yield_now().await;
            started.fetch_add(1, Ordering::SeqCst);
            Ok(Puppet { ended: CancellationToken::new(), stopped: CancellationToken::new() })
        };
        self.pool.lease(key, start).await
    }

    fn started(&self) -> usize {
        self.started.load(Ordering::SeqCst)
    }

    /// The child of this key crashes, and the pool has noticed.
    async fn crash(&self, key: &Key) {
        let lease = self.lease(key).await.expect("a child");
        lease.ended.cancel();
        drop(lease);
        while self.pool.in_use().iter().any(|one| one.key == *key) {
            tokio::task::yield_now().await;
        }
    }
}

fn settings() -> Settings {
    let rate = SpawnRate { burst: 100, per: Duration::from_millis(1) };
    Settings { most: 8, idle: Some(Duration::from_mins(10)), rate }
}

fn key(principal: &str, session: Option<&str>, credential: u64) -> Key {
    Sharing::PerSession.key(&CallerKey { principal, session, credential, capabilities: "" })
}

/// SRC-07: however many ask at once, one child is started.
#[tokio::test(start_paused = true)]
async fn a_hundred_callers_start_one_child() {
    let stage = Stage::new();
    let alice = key("alice", None, 1);
    let leases = futures_join((0..100).map(|_| stage.lease(&alice))).await;
    assert!(leases.iter().all(Result::is_ok));
    assert_eq!((stage.started(), stage.pool.in_use().len(), stage.pool.in_use()[0].leases), (1, 1, 100));
}

async fn futures_join<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|cx| {
        for (future, done) in &mut futures {
            if done.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(cx)
            {
                *done = Some(value);
            }
        }
        if futures.iter().all(|(_, done)| done.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    futures.into_iter().filter_map(|(_, done)| done).collect()
}

/// SRC-15: calls of different principals, sessions or credentials never meet in one child.
#[tokio::test(start_paused = true)]
async fn each_key_has_a_child_of_its_own() {
    let stage = Stage::new();
    let keys = [key("alice", None, 1), key("bob", None, 1), key("alice", Some("s"), 1)];
    let mut leases = Vec::new();
    for key in &keys {
        leases.push(stage.lease(key).await.expect("a child"));
    }
    assert_eq!((stage.started(), stage.pool.in_use().len()), (3, 3));
}

/// SRC-07: if the caller that started it goes away, the others still get it.
#[tokio::test(start_paused = true)]
async fn a_caller_that_gives_up_does_not_end_the_start_for_others() {
    let stage = Stage::new();
    let alice = key("alice", None, 1);
    {
        let mut first = Box::pin(stage.lease(&alice));
        assert!(
            std::future::poll_fn(|cx| std::task::Poll::Ready(first.as_mut().poll(cx).is_pending())).await
        );
    }
    assert!(stage.lease(&alice).await.is_ok());
    assert_eq!(stage.started(), 1);
}

/// SRC-11: what nobody has used for the time is stopped, and what is in use is not.
#[tokio::test(start_paused = true)]
async fn an_idle_child_is_stopped_and_one_in_use_is_not() {
    let stage = Stage::new();
    let used = stage.lease(&key("alice", None, 1)).await.expect("a child");
    let idle = stage.lease(&key("bob", None, 1)).await.expect("a child").stopped.clone();
    stage.advance(Duration::from_mins(10) - Duration::from_millis(1));
    stage.pool.sweep();
    assert!(!idle.is_cancelled());
    stage.advance(Duration::from_millis(1));
    stage.pool.sweep();
    assert!(idle.is_cancelled() && !used.stopped.is_cancelled());
    stage.lease(&key("bob", None, 1)).await.expect("it is no crash, so there is no pause");
}

/// SRC-11: after a crash there is a pause. A short one is waited for, a longer one is told.
#[tokio::test(start_paused = true)]
async fn after_a_crash_a_call_waits_or_is_told_how_long() {
    let stage = Stage::new();
    let alice = key("alice", None, 1);
    stage.crash(&alice).await;
    // The clock of the pool stands still, so the pause is not over after it was waited for.
    assert!(matches!(stage.lease(&alice).await, Err(Unavailable::Pausing { .. })));
    stage.advance(Duration::from_secs(1));
    for _ in 0..3 {
        stage.crash(&alice).await;
        stage.advance(Duration::from_secs(10));
    }
    assert_eq!(stage.started(), 4);
    stage.crash(&alice).await;
    let refused = stage.lease(&alice).await.expect_err("the fifth");
    assert_eq!(refused, Unavailable::Quarantined("it exited with status 1".to_owned()));
    assert_eq!(stage.pool.quarantined().0, 1);
    assert_eq!(*stage.crashes.lock().expect("not poisoned"), [false, false, false, false, true]);
    assert!(stage.lease(&key("bob", None, 1)).await.is_ok(), "nobody else is concerned");
    stage.pool.restart();
    assert!(stage.lease(&alice).await.is_ok());
}

/// SRC-11: a child that has ended is lent to nobody, even before its end was noted.
#[tokio::test(start_paused = true)]
async fn a_child_that_has_ended_is_not_lent() {
    let stage = Stage::new();
    let alice = key("alice", None, 1);
    let first = stage.lease(&alice).await.expect("a child");
    first.ended.cancel();
    let stage_millis = Arc::clone(&stage.millis);
    tokio::spawn(async move {
        // The pause after a crash.
        sleep(Duration::from_millis(100)).await;
        stage_millis.fetch_add(1000, Ordering::SeqCst);
    });
    let second = stage.lease(&alice).await.expect("another child");
    assert!(!second.ended.is_cancelled());
    assert_eq!(stage.started(), 2);
}

/// SRC-11: what cannot be started counts as a crash, and everybody who waited is told why.
#[tokio::test(start_paused = true)]
async fn a_start_that_fails_tells_all_who_wait_and_counts() {
    let stage = Stage::new();
    let alice = key("alice", None, 1);
    let fails = || async { Err(NotStarted("no such file".to_owned())) };
    let refused = futures_join((0..3).map(|_| stage.pool.lease(&alice, fails()))).await;
    for refused in refused {
        assert_eq!(refused.expect_err("failed"), Unavailable::NotStarted("no such file".to_owned()));
    }
    assert!(matches!(stage.lease(&alice).await, Err(Unavailable::Pausing { .. })));
}

/// A start that panics leaves no slot that nobody can ever fill.
#[tokio::test(start_paused = true)]
async fn a_start_that_panics_can_be_tried_again() {
    let stage = Stage::new();
    let alice = key("alice", None, 1);
    let panics = async { panic!("a defect") };
    assert!(matches!(stage.pool.lease(&alice, panics).await, Err(Unavailable::NotStarted(_))));
    assert!(stage.lease(&alice).await.is_ok());
}

/// SRC-11: the cap holds; an idle child makes room, one in use does not.
#[tokio::test(start_paused = true)]
async fn an_idle_child_makes_room_and_a_busy_one_does_not() {
    let stage = Stage::of(Settings { most: 2, ..settings() }, &ChildSlots::new(64));
    let first = stage.lease(&key("alice", None, 1)).await.expect("a child");
    let second = stage.lease(&key("bob", None, 1)).await.expect("a child");
    assert_eq!(stage.lease(&key("carol", None, 1)).await.expect_err("full"), Unavailable::Full);
    let stopped = first.stopped.clone();
    drop(first);
    let third = stage.lease(&key("carol", None, 1)).await.expect("the idle one makes room");
    assert!(stopped.is_cancelled());
    assert_eq!(stage.pool.in_use().len(), 2);
    drop((second, third));
}

/// SRC-11: a child that was just started is there for whom it was started, also if another waits for its place.
#[tokio::test(start_paused = true)]
async fn a_child_that_was_just_started_makes_no_room() {
    let stage = Stage::of(Settings { most: 1, ..settings() }, &ChildSlots::new(64));
    let alice = key("alice", None, 1);
    // The caller that wanted it has gone meanwhile.
    let waiting = stage.lease(&alice);
    assert!(timeout(Duration::ZERO, waiting).await.is_err());
    while stage.pool.in_use().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(stage.lease(&key("bob", None, 1)).await.expect_err("it is hers"), Unavailable::Full);
    stage.advance(FOR_A_PLACE);
    assert!(stage.lease(&key("bob", None, 1)).await.is_ok());
}

/// SRC-11: all sources together have a cap too.
#[tokio::test(start_paused = true)]
async fn places_are_shared_by_all_sources() {
    let places = ChildSlots::new(1);
    let (one, other) = (Stage::of(settings(), &places), Stage::of(settings(), &places));
    let lease = one.lease(&key("alice", None, 1)).await.expect("a child");
    assert_eq!(other.lease(&key("alice", None, 1)).await.expect_err("full"), Unavailable::Full);
    lease.ended.cancel();
    drop(lease);
    assert!(other.lease(&key("alice", None, 1)).await.is_ok());
}

/// SRC-11: starts are limited in time, whatever else is allowed.
#[tokio::test(start_paused = true)]
async fn starts_are_limited_in_time() {
    let rate = SpawnRate { burst: 2, per: Duration::from_mins(1) };
    let stage = Stage::of(Settings { rate, ..settings() }, &ChildSlots::new(64));
    for principal in ["alice", "bob"] {
        stage.lease(&key(principal, None, 1)).await.expect("a child");
    }
    assert_eq!(stage.lease(&key("carol", None, 1)).await.expect_err("too fast"), Unavailable::TooFast);
    assert!(stage.lease(&key("alice", None, 1)).await.is_ok(), "what runs is used");
    stage.advance(Duration::from_mins(1));
    assert!(stage.lease(&key("carol", None, 1)).await.is_ok());
}

/// SRC-10: a new version of a credential replaces the child; calls that use the old one end first.
#[tokio::test(start_paused = true)]
async fn a_new_credential_replaces_the_child_when_its_calls_have_ended() {
    let stage = Stage::new();
    let old = stage.lease(&key("alice", None, 1)).await.expect("a child");
    let other = stage.lease(&key("bob", None, 1)).await.expect("a child");
    let new = stage.lease(&key("alice", None, 2)).await.expect("a child");
    assert!(!old.stopped.is_cancelled() && !other.stopped.is_cancelled() && !new.stopped.is_cancelled());
    let stopped = old.stopped.clone();
    drop(old);
    assert!(stopped.is_cancelled() && !other.stopped.is_cancelled() && !new.stopped.is_cancelled());
    assert_eq!(stage.pool.in_use().len(), 2);
}

/// SRC-07: a session that ends takes its child along.
#[tokio::test(start_paused = true)]
async fn the_child_of_a_session_ends_with_it() {
    let stage = Stage::new();
    let one = stage.lease(&key("alice", Some("1"), 1)).await.expect("a child").stopped.clone();
    let two = stage.lease(&key("alice", Some("2"), 1)).await.expect("a child").stopped.clone();
    stage.pool.retire(|key| key.session() == Some("1"));
    assert!(one.is_cancelled() && !two.is_cancelled());
}

/// SRC-11: a child that says nothing more, although it runs, is ended.
#[tokio::test(start_paused = true)]
async fn a_silent_child_is_stopped() {
    let stage = Stage::new();
    let lease = stage.lease(&key("alice", None, 1)).await.expect("a child");
    let stopped = lease.stopped.clone();
    lease.ended.cancel();
    drop(lease);
    stopped.cancelled().await;
}

/// A pool that is no longer kept stops all of its children.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_pool_stops_every_child() {
    let stage = Stage::new();
    let lease = stage.lease(&key("alice", None, 1)).await.expect("a child");
    let stop = CancellationToken::new();
    let keeping = tokio::spawn({
        let (pool, stop) = (stage.pool.clone(), stop.clone());
        async move { pool.keep(stop).await }
    });
    stop.cancel();
    keeping.await.expect("it ends");
    assert!(lease.stopped.is_cancelled() && stage.pool.in_use().is_empty());
}

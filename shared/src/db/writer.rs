//! The writer thread: whatever is queued becomes one transaction, a savepoint per job (STORE-02).

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{Fault, OpenError, Tx};
use crate::audit::Head;
use crate::clock::{Clock, Timestamp};
use crate::timekeeping::Mark;
use crate::work;

/// How many jobs share a commit at most.
const BATCH: usize = 256;
/// How long the writer waits at most for callers of the last batch to come back.
const GATHER: Duration = Duration::from_micros(500);
/// How many jobs may wait; one more is told [`Fault::Busy`].
const QUEUE: usize = 8192;

/// What a job's commit must survive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// Loss of power (`synchronous=FULL`).
    Full,
    /// A killed process; loss of power only once a later `Full` commit is done (STORE-04).
    Record,
}

pub(super) struct Writer {
    // Taken out when the writer stops, so that the thread sees the end of its queue.
    queue: Option<SyncSender<Box<dyn Job>>>,
    thread: Option<std::thread::JoinHandle<()>>,
    hooks: Arc<Hooks>,
}

/// What to do when memory that mirrors the database may have run ahead of it.
#[derive(Default)]
pub struct Hooks(Mutex<Vec<Box<dyn Fn() + Send + Sync>>>);

impl Hooks {
    pub(super) fn add_reload(&self, hook: Box<dyn Fn() + Send + Sync>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(hook);
    }

    fn reload(&self) {
        for hook in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            abort_on_panic(hook);
        }
    }
}

pub(super) fn stopped() -> Fault {
    Fault::Storage("the writer has stopped".to_owned())
}

impl Writer {
    pub(super) fn start(connection: Connection, audited: bool, clock: Clock) -> Result<Self, OpenError> {
        let hooks = Arc::new(Hooks::default());
        let head = RefCell::new(if audited { Some(Head::load(&connection)?) } else { None });
        let mark = if audited { Some(Mark::load(&connection, &clock)?) } else { None };
        let (queue, jobs) = sync_channel(QUEUE);
        let thread = {
            let hooks = Arc::clone(&hooks);
            std::thread::Builder::new()
                .name("db-writer".to_owned())
                .spawn(move || serve(&connection, &jobs, &head, mark, &clock, &hooks))
                .map_err(|e| OpenError::Fault(Fault::Storage(e.to_string())))?
        };
        Ok(Self { queue: Some(queue), thread: Some(thread), hooks })
    }

    pub(super) fn hooks(&self) -> &Hooks {
        &self.hooks
    }

    pub(super) fn submit<T, F>(
        &self,
        durability: Durability,
        run: F,
    ) -> Result<oneshot::Receiver<Result<T, Fault>>, Fault>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T, Fault> + Send + 'static,
    {
        let (answer, receiver) = oneshot::channel();
        let job = Box::new(Work { run: Some(run), result: None, answer, durability });
        match self.queue.as_ref().ok_or_else(stopped)?.try_send(job) {
            Ok(()) => Ok(receiver),
            Err(TrySendError::Full(_)) => Err(Fault::Busy),
            Err(TrySendError::Disconnected(_)) => Err(stopped()),
        }
    }
}

impl Drop for Writer {
    /// Waits until everything queued is on disk.
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

/// A job of any type: run it, then tell whoever waits.
trait Job: Send {
    fn durability(&self) -> Durability;
    /// Runs it; `true` if its effects are to stay.
    fn run(&mut self, tx: &Tx<'_>) -> bool;
    /// The job did not or must not happen.
    fn fail(&mut self, fault: Fault);
    fn answer(self: Box<Self>);
}

struct Work<T, F> {
    run: Option<F>,
    result: Option<Result<T, Fault>>,
    answer: oneshot::Sender<Result<T, Fault>>,
    durability: Durability,
}

impl<T, F> Job for Work<T, F>
where
    T: Send + 'static,
    F: FnOnce(&Tx<'_>) -> Result<T, Fault> + Send + 'static,
{
    fn durability(&self) -> Durability {
        self.durability
    }

    fn run(&mut self, tx: &Tx<'_>) -> bool {
        let Some(run) = self.run.take() else { return false };
        let result = catch_unwind(AssertUnwindSafe(|| run(tx)))
            .unwrap_or_else(|_| Err(Fault::Storage("a job panicked; its effects are undone".to_owned())));
        let keep = result.is_ok();
        self.result = Some(result);
        keep
    }

    fn fail(&mut self, fault: Fault) {
        self.result = Some(Err(fault));
    }

    fn answer(self: Box<Self>) {
        // Nobody waits any more if the caller's connection is gone; the work stands all the same.
        let _ = self.answer.send(self.result.unwrap_or_else(|| Err(stopped())));
    }
}

fn serve(
    connection: &Connection,
    jobs: &Receiver<Box<dyn Job>>,
    head: &RefCell<Option<Head>>,
    mut mark: Option<Mark>,
    clock: &Clock,
    hooks: &Hooks,
) {
    work::this_thread_writes();
    let (mut previous, mut last_commit) = (1, Duration::ZERO);
    while let Ok(first) = jobs.recv() {
        let mut batch = vec![first];
        gather(&mut batch, jobs, previous, last_commit);
        previous = batch.len();
        let started = Instant::now();
        if let Err(fault) = commit(connection, &mut batch, head, mark.as_mut(), clock.now()) {
            tracing::error!(db.fault = %fault, db.jobs = batch.len(), "a batch was not committed");
            if !connection.is_autocommit() {
                let _ = connection.execute_batch("ROLLBACK");
            }
            for job in &mut batch {
                job.fail(fault.clone());
            }
            // Memory may have been told of kills that did not happen; it is loaded from what did.
            if head.borrow().is_some() {
                match Head::load(connection) {
                    Ok(loaded) => *head.borrow_mut() = Some(loaded),
                    // A record on a stale head would break the chain: better no process.
                    Err(fault) => abort(&format!("the audit head could not be reloaded: {fault}")),
                }
            }
            hooks.reload();
        }
        last_commit = started.elapsed();
        for job in batch {
            job.answer();
        }
    }
    let _ = connection.pragma_update(None, "wal_checkpoint", "TRUNCATE");
}

/// Takes what is queued. Callers that were answered together come back together, a moment apart: without waiting
/// for them they would split into two halves that take turns, two commits for the work of one. So a batch waits
/// for as many as the last one had, but never longer than a quarter of a commit. A lone caller never waits.
fn gather(
    batch: &mut Vec<Box<dyn Job>>,
    jobs: &Receiver<Box<dyn Job>>,
    previous: usize,
    last_commit: Duration,
) {
    let patience = GATHER.min(last_commit / 4);
    let started = Instant::now();
    loop {
        batch.extend(jobs.try_iter().take(BATCH - batch.len()));
        if batch.len() >= previous.min(BATCH) || started.elapsed() >= patience {
            return;
        }
        std::thread::yield_now();
    }
}

/// Runs a batch in one transaction. An error means that nothing of it happened.
fn commit(
    connection: &Connection,
    batch: &mut [Box<dyn Job>],
    head: &RefCell<Option<Head>>,
    mark: Option<&mut Mark>,
    now: Timestamp,
) -> Result<(), Fault> {
    let full = batch.iter().any(|job| job.durability() == Durability::Full);
    // Before BEGIN: inside a transaction the pragma is ignored.
    connection.pragma_update(None, "synchronous", if full { "FULL" } else { "NORMAL" })?;
    cached(connection, "BEGIN IMMEDIATE")?;
    if let Some(mark) = mark {
        mark.keep(connection, now)?;
    }
    let mut before_commit = Vec::new();
    let mut after_commit = Vec::new();
    for job in batch.iter_mut() {
        cached(connection, "SAVEPOINT job")?;
        let head_before = head.borrow().clone();
        let tx = Tx::new(connection, head, now);
        let keep = job.run(&tx);
        // SQLite may have rolled the whole transaction back, on a full disk for one.
        if connection.is_autocommit() {
            return Err(Fault::Storage("the transaction was rolled back by the database".to_owned()));
        }
        if keep {
            let (before, after) = tx.into_effects();
            before_commit.extend(before);
            after_commit.extend(after);
        } else {
            cached(connection, "ROLLBACK TO job")?;
            *head.borrow_mut() = head_before;
        }
        cached(connection, "RELEASE job")?;
    }
    for effect in before_commit {
        abort_on_panic(effect);
    }
    cached(connection, "COMMIT")?;
    for effect in after_commit {
        abort_on_panic(effect);
    }
    Ok(())
}

fn cached(connection: &Connection, sql: &str) -> Result<(), Fault> {
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}

/// A kill that does not reach memory would leave a dead token alive: better no process (RS-08).
fn abort_on_panic(effect: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(effect)).is_err() {
        abort("publishing a change to memory failed");
    }
}

fn abort(why: &str) -> ! {
    tracing::error!("{why}; stopping at once");
    std::process::abort()
}

//! The writer thread: runs all queued jobs in one transaction, with a savepoint for each (STORE-02).

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::hooks::Wal;
use tokio::sync::oneshot;

use super::conn::Head;
use super::{Conn, Fault, Mirrors, OpenError, Tx};
use crate::clock::{Clock, Timestamp};
use crate::timekeeping::Mark;
use crate::work;

/// The most jobs that share a commit.
const BATCH: usize = 256;
/// The longest that the writer waits for callers of the last batch to come back.
const GATHER: Duration = Duration::from_micros(500);
/// The number of pages in the -wal at which they are moved into the database file: 16 MB. That is work on the
/// writer's thread, while others wait.
pub(super) const CHECKPOINT: i32 = 4000;
/// The number of further pages before the next attempt, if a reader prevented one.
const AGAIN: i32 = 1000;
/// The most jobs that may wait; the next one fails with [`Fault::Busy`].
const QUEUE: usize = 8192;

/// What a commit must survive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// Power loss (`synchronous=FULL`).
    Full,
    /// A killed process; power loss only once a later `Full` commit is done (STORE-04).
    Record,
}

/// How a job that fails is undone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Undone {
    /// Back to its savepoint.
    BySavepoint,
    /// It is one statement, and a statement that fails has changed nothing.
    ByItself,
}

pub(super) struct Writer {
    // Taken when the writer stops, so that its thread sees the end of the queue.
    queue: Option<SyncSender<Box<dyn Job>>>,
    thread: Option<std::thread::JoinHandle<()>>,
    hooks: Arc<Hooks>,
    queued: Arc<Queued>,
    changes: Arc<AtomicU64>,
}

/// How many jobs wait, and at how many the writer wants to be woken.
#[derive(Default)]
struct Queued {
    jobs: AtomicUsize,
    /// Zero while it does not wait for more.
    wanted: AtomicUsize,
}

/// Hooks that run when memory that mirrors the database may be ahead of it.
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
    pub(super) fn start(
        mut connection: Connection,
        mirrors: Option<Mirrors>,
        audited: bool,
        clock: Clock,
    ) -> Result<Self, OpenError> {
        let (hooks, changes) = (Arc::new(Hooks::default()), Arc::new(AtomicU64::new(0)));
        let head = RefCell::new(if audited { Some(Head::load(&Conn::new(&connection))?) } else { None });
        let mark = if audited { Some(Mark::load(&Conn::new(&connection), &clock)?) } else { None };
        // Replaces SQLite's automatic checkpoint: the mirror must know when the -wal begins again.
        let mirrored = match mirrors {
            Some(mirrors) => Some(Mirrored::new(mirrors, &mut connection)?),
            None => None,
        };
        let kept = WriterState { mark, mirrored, durability: None };
        let (queue, jobs) = sync_channel(QUEUE);
        let queued = Arc::new(Queued::default());
        let jobs = Jobs { queue: jobs, queued: Arc::clone(&queued) };
        let thread = {
            let told = (Arc::clone(&hooks), Arc::clone(&changes));
            std::thread::Builder::new()
                .name("db-writer".to_owned())
                .spawn(move || serve(&connection, &jobs, &head, kept, &clock, (&told.0, &told.1)))
                .map_err(|e| OpenError::Fault(Fault::Storage(e.to_string())))?
        };
        Ok(Self { queue: Some(queue), thread: Some(thread), hooks, queued, changes })
    }

    pub(super) fn queued(&self) -> usize {
        self.queued.jobs.load(Ordering::SeqCst)
    }

    pub(super) fn hooks(&self) -> &Hooks {
        &self.hooks
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Queues a job with a savepoint of its own.
    pub(super) fn submit<T, F>(
        &self,
        durability: Durability,
        run: F,
    ) -> Result<oneshot::Receiver<Result<T, Fault>>, Fault>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T, Fault> + Send + 'static,
    {
        self.queue(durability, Undone::BySavepoint, run)
    }

    /// Queues a job.
    pub(super) fn queue<T, F>(
        &self,
        durability: Durability,
        undone: Undone,
        run: F,
    ) -> Result<oneshot::Receiver<Result<T, Fault>>, Fault>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T, Fault> + Send + 'static,
    {
        let (answer, receiver) = oneshot::channel();
        let job = Box::new(Work { run: Some(run), result: None, answer, durability, undone });
        let queue = self.queue.as_ref().ok_or_else(stopped)?;
        // Count first: the writer may take the job before this thread continues.
        self.queued.jobs.fetch_add(1, Ordering::SeqCst);
        if let Err(refused) = queue.try_send(job) {
            self.queued.jobs.fetch_sub(1, Ordering::SeqCst);
            return Err(match refused {
                TrySendError::Full(_) => Fault::Busy,
                TrySendError::Disconnected(_) => stopped(),
            });
        }
        let wanted = self.queued.wanted.load(Ordering::SeqCst);
        if wanted > 0
            && self.queued() >= wanted
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
        Ok(receiver)
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

/// The writer's end of the queue.
struct Jobs {
    queue: Receiver<Box<dyn Job>>,
    queued: Arc<Queued>,
}

/// A job of any type, with the channel to its caller.
trait Job: Send {
    fn durability(&self) -> Durability;
    fn undone(&self) -> Undone;
    /// Runs the job; `true` if its changes are kept.
    fn run(&mut self, tx: &Tx<'_>) -> bool;
    /// Fails the job without running it, or after it was rolled back.
    fn fail(&mut self, fault: Fault);
    fn answer(self: Box<Self>);
}

struct Work<T, F> {
    run: Option<F>,
    result: Option<Result<T, Fault>>,
    answer: oneshot::Sender<Result<T, Fault>>,
    durability: Durability,
    undone: Undone,
}

impl<T, F> Job for Work<T, F>
where
    T: Send + 'static,
    F: FnOnce(&Tx<'_>) -> Result<T, Fault> + Send + 'static,
{
    fn durability(&self) -> Durability {
        self.durability
    }

    fn undone(&self) -> Undone {
        self.undone
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
        // The caller may be gone, because its connection was closed; the job is done anyway.
        let _ = self.answer.send(self.result.unwrap_or_else(|| Err(stopped())));
    }
}

/// The writer's state between two batches.
struct WriterState {
    mark: Option<Mark>,
    mirrored: Option<Mirrored>,
    /// The durability that the connection is set to.
    durability: Option<Durability>,
}

impl WriterState {
    /// Sets the durability of the next commits. Call it before BEGIN: inside a transaction the pragma is ignored.
    fn outlive(&mut self, connection: &Connection, durability: Durability) -> Result<(), Fault> {
        if self.durability == Some(durability) {
            return Ok(());
        }
        // STORE-04
        let synchronous = match durability {
            Durability::Full => "FULL",
            Durability::Record => "NORMAL",
        };
        self.durability = None;
        connection.pragma_update(None, "synchronous", synchronous)?;
        self.durability = Some(durability);
        Ok(())
    }
}

fn serve(
    connection: &Connection,
    jobs: &Jobs,
    head: &RefCell<Option<Head>>,
    mut kept: WriterState,
    clock: &Clock,
    (hooks, changes): (&Hooks, &AtomicU64),
) {
    work::this_thread_writes();
    let (mut previous, mut last_commit) = (1, Duration::ZERO);
    while let Ok(first) = jobs.queue.recv() {
        let mut batch = vec![first];
        gather(&mut batch, jobs, previous, last_commit);
        jobs.queued.jobs.fetch_sub(batch.len(), Ordering::SeqCst);
        previous = batch.len();
        let started = Instant::now();
        if let Err(fault) = commit(connection, &mut batch, head, &mut kept, clock.now()) {
            tracing::error!(db.fault = %fault, db.jobs = batch.len(), "a batch was not committed");
            if !connection.is_autocommit() {
                let _ = connection.execute_batch("ROLLBACK");
            }
            for job in &mut batch {
                job.fail(fault.clone());
            }
            // Memory may contain revocations that were rolled back; it is loaded from the database.
            if head.borrow().is_some() {
                match Head::load(&Conn::new(connection)) {
                    Ok(loaded) => *head.borrow_mut() = Some(loaded),
                    // Appending to a wrong head would break the chain, so the process must end.
                    Err(fault) => abort(&format!("the audit head could not be reloaded: {fault}")),
                }
            }
            hooks.reload();
        }
        last_commit = started.elapsed();
        // After memory is updated, so that a caller who sees the new number sees all changes.
        changes.fetch_add(1, Ordering::Release);
        for job in batch {
            job.answer();
        }
        if let Some(mirrored) = &mut kept.mirrored {
            mirrored.checkpoint_if_due(connection);
        }
    }
    match &mut kept.mirrored {
        Some(mirrored) => mirrored.close(connection, head.borrow().as_ref()),
        None => {
            let _ = connection.pragma_update(None, "wal_checkpoint", "TRUNCATE");
        }
    }
}

/// The files with the end of the audit chain, and the size of the -wal.
struct Mirrored {
    mirrors: Mirrors,
    pages: Arc<AtomicI32>,
    /// The size at which the -wal is moved into the database file.
    due: i32,
}

impl Mirrored {
    fn new(mirrors: Mirrors, connection: &mut Connection) -> Result<Self, OpenError> {
        let pages = Arc::new(AtomicI32::new(0));
        let counted = Arc::clone(&pages);
        connection.wal_hook(Some(move |_: &mut Wal, pages| {
            counted.store(pages, Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Self { mirrors, pages, due: CHECKPOINT })
    }

    /// Notes the end of the chain, which is durable.
    fn note(&mut self, head: &Head) -> Result<(), Fault> {
        self.mirrors.beside.note(head)?;
        if let Some(elsewhere) = &self.mirrors.elsewhere {
            elsewhere.note(head);
        }
        Ok(())
    }

    fn checkpoint_if_due(&mut self, connection: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < self.due {
            return;
        }
        self.due = match self.mirrors.beside.checkpoint(connection, "RESTART") {
            Ok(true) => CHECKPOINT,
            Ok(false) => pages.saturating_add(AGAIN),
            Err(fault) => {
                tracing::error!(db.fault = %fault, "the -wal could not be moved into the database's file");
                pages.saturating_add(AGAIN)
            }
        };
    }

    /// Makes everything durable against power loss.
    fn close(&mut self, connection: &Connection, head: Option<&Head>) {
        let noted = self.mirrors.beside.checkpoint(connection, "TRUNCATE").and_then(|done| match head {
            Some(head) if done => self.note(head),
            _ => Ok(()),
        });
        if let Err(fault) = noted {
            tracing::error!(db.fault = %fault, "the end of the audit log was not written down");
        }
    }
}

/// Takes the queued jobs. Callers that were answered together come back together, a moment apart. Without
/// waiting, they would split into two halves that take turns, with two commits for the work of one. So a batch
/// waits for as many jobs as the last one had, but at most a quarter of a commit. A single caller never waits.
///
/// It sleeps meanwhile, and the last of these callers wakes it: on a machine with one core they need it for themselves.
fn gather(batch: &mut Vec<Box<dyn Job>>, jobs: &Jobs, previous: usize, last_commit: Duration) {
    let (patience, wanted) = (GATHER.min(last_commit / 4), previous.min(BATCH));
    let started = Instant::now();
    loop {
        batch.extend(jobs.queue.try_iter().take(BATCH - batch.len()));
        let left = patience.saturating_sub(started.elapsed());
        if batch.len() >= wanted || left.is_zero() {
            return;
        }
        jobs.queued.wanted.store(wanted, Ordering::SeqCst);
        // The taken ones are still counted. A caller that is counted now and has not sent yet comes at once.
        if jobs.queued.jobs.load(Ordering::SeqCst) >= wanted {
            std::thread::yield_now();
        } else {
            std::thread::park_timeout(left);
        }
        jobs.queued.wanted.store(0, Ordering::SeqCst);
    }
}

/// Runs a batch in one transaction. After an error its result is unknown: it was rolled back, or it was
/// committed and the end of the audit log could not be noted.
fn commit(
    connection: &Connection,
    batch: &mut [Box<dyn Job>],
    head: &RefCell<Option<Head>>,
    kept: &mut WriterState,
    now: Timestamp,
) -> Result<(), Fault> {
    let full = batch.iter().any(|job| job.durability() == Durability::Full);
    kept.outlive(connection, if full { Durability::Full } else { Durability::Record })?;
    cached(connection, "BEGIN IMMEDIATE")?;
    if let Some(mark) = &mut kept.mark {
        mark.keep(&Conn::new(connection), now)?;
    }
    let mut before_commit = Vec::new();
    let mut after_commit = Vec::new();
    for job in batch.iter_mut() {
        let (undone, changes) = (job.undone(), connection.total_changes());
        if undone == Undone::BySavepoint {
            cached(connection, "SAVEPOINT job")?;
        }
        let head_before = head.borrow().clone();
        let tx = Tx::new(connection, head, now);
        let keep = job.run(&tx);
        // SQLite may have rolled back the whole transaction, for example on a full disk.
        if connection.is_autocommit() {
            return Err(Fault::Storage("the transaction was rolled back by the database".to_owned()));
        }
        if keep {
            let (before, after) = tx.into_effects();
            before_commit.extend(before);
            after_commit.extend(after);
        } else {
            if undone == Undone::BySavepoint {
                cached(connection, "ROLLBACK TO job")?;
            } else if connection.total_changes() != changes {
                return Err(Fault::Storage("a job of one statement changed something and failed".to_owned()));
            }
            *head.borrow_mut() = head_before;
        }
        if undone == Undone::BySavepoint {
            cached(connection, "RELEASE job")?;
        }
    }
    for effect in before_commit {
        abort_on_panic(effect);
    }
    cached(connection, "COMMIT")?;
    // Before callers are answered. A commit that power loss may undo is noted only after a later commit has
    // made it durable.
    let noted = match (&mut kept.mirrored, &*head.borrow()) {
        (Some(mirrored), Some(head)) if full => mirrored.note(head),
        _ => Ok(()),
    };
    for effect in after_commit {
        abort_on_panic(effect);
    }
    noted
}

fn cached(connection: &Connection, sql: &str) -> Result<(), Fault> {
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}

/// If a revocation cannot be applied to memory, the process must end, because a revoked token would stay active
/// (RS-08).
fn abort_on_panic(effect: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(effect)).is_err() {
        abort("publishing a change to memory failed");
    }
}

fn abort(why: &str) -> ! {
    tracing::error!("{why}; stopping at once");
    std::process::abort()
}

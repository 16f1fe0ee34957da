//! Watches the folder: kernel notifications where available, and a scan every minute anyway, because network
//! mounts send none.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use notify::{Config, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::{Docs, Folder};

/// The interval of scans without a notification.
const RESCAN: Duration = Duration::from_mins(1);
/// Changes come in bursts: wait until nothing happened for this long,
const QUIET: Duration = Duration::from_millis(150);
/// but no longer than this.
const PATIENCE: Duration = Duration::from_millis(600);
/// The pause after a scan, as a multiple of its duration, so that a file that changes constantly does not
/// occupy a core.
const REST: u32 = 4;

/// Keeps the index current until it is dropped.
#[must_use = "watching ends when this is dropped"]
pub struct Watch {
    stop: Arc<AtomicBool>,
    wake: SyncSender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Docs {
    /// Watches the folder from its own thread. The handbook never changes and needs none.
    pub fn watch(self: Arc<Self>) -> Watch {
        // Capacity one: any number of changes cause one scan.
        let (wake, woken) = sync_channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let Folder::Directory(path) = self.folder.clone() else { return Watch { stop, wake, thread: None } };
        let watching = Watching {
            docs: self,
            stop: Arc::clone(&stop),
            wake: wake.clone(),
            woken,
            watcher: None,
            unwatched: false,
        };
        let thread =
            std::thread::Builder::new().name("docs-watch".to_owned()).spawn(move || watching.run(&path));
        let thread = thread.inspect_err(|error| {
            tracing::error!(docs.why = %error, "the documents are not watched; changes are seen after a restart");
        });
        Watch { stop, wake, thread: thread.ok() }
    }
}

impl Drop for Watch {
    /// Waits only for the current transaction.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.wake.try_send(()); // full means that it wakes up anyway
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Watching {
    docs: Arc<Docs>,
    stop: Arc<AtomicBool>,
    wake: SyncSender<()>,
    woken: Receiver<()>,
    watcher: Option<(RecommendedWatcher, Option<(u64, u64)>)>,
    /// The last attempt to watch failed, and was logged.
    unwatched: bool,
}

impl Watching {
    fn run(mut self, path: &Path) {
        let mut failing = false;
        loop {
            self.watch(path);
            let began = Instant::now();
            match self.docs.scan_until(&|| self.stop.load(Ordering::SeqCst)) {
                Ok(changes) if changes.any() => tracing::info!(docs.changes = ?changes, "documents changed"),
                Ok(_) => {}
                Err(error) if failing => tracing::debug!(docs.why = %error, "the documents were not scanned"),
                Err(error) => tracing::error!(docs.why = %error, "the documents were not scanned"),
            }
            failing = self.docs.folder.root().is_err();
            if !self.rest(began.elapsed() * REST) || !self.wait() {
                return;
            }
        }
    }

    /// Watches the folder that the path leads to now; it may have been replaced.
    fn watch(&mut self, path: &Path) {
        let identity = self.docs.folder.root().ok().and_then(|root| root.identity());
        if identity.is_none() || self.watcher.as_ref().is_some_and(|(_, watched)| *watched == identity) {
            return;
        }
        self.watcher = None;
        match watcher(path, self.wake.clone()) {
            Ok(watcher) => {
                self.watcher = Some((watcher, identity));
                self.unwatched = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut self.unwatched, true) {
                    tracing::warn!(docs.why = %error, "changes of documents are only looked for every minute");
                }
            }
        }
    }

    /// Waits for a reason to scan; false at the end.
    fn wait(&self) -> bool {
        match self.woken.recv_timeout(RESCAN) {
            Ok(()) => {
                let first = Instant::now();
                while !self.stopped() && first.elapsed() < PATIENCE && self.woken.recv_timeout(QUIET).is_ok()
                {
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        !self.stopped()
    }

    /// Sleeps, unless the end comes first; false at the end. Changes meanwhile are kept for later.
    fn rest(&self, time: Duration) -> bool {
        let until = Instant::now() + time.min(RESCAN);
        let mut changed = false;
        while !self.stopped() && Instant::now() < until {
            changed |= self.woken.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok();
        }
        if changed {
            let _ = self.wake.try_send(());
        }
        !self.stopped()
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

fn watcher(path: &Path, wake: SyncSender<()>) -> notify::Result<RecommendedWatcher> {
    let told = move |event: notify::Result<Event>| {
        // Opening or reading a file, as our own scan does, is not a change.
        if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
            let _ = wake.try_send(());
        }
    };
    // Links are not followed: they may lead outside or in circles.
    let mut watcher = RecommendedWatcher::new(told, Config::default().with_follow_symlinks(false))?;
    watcher.watch(&path.canonicalize()?, RecursiveMode::Recursive)?;
    Ok(watcher)
}

//! The running calls. Each runs in its own task, which does not end when its client disconnects (SRC-09).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use shared::Digest;

/// The running calls. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Running {
    tasks: TaskTracker,
    named: Arc<Mutex<HashMap<CallId, (u64, CancellationToken)>>>,
}

/// The id of a call in a client's cancellation: its session, and the request id as JSON.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct CallId {
    pub(crate) session: Digest,
    pub(crate) request: String,
}

impl Running {
    /// Runs a call to its end.
    pub(crate) fn spawn<F>(&self, call: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.tasks.spawn(call)
    }

    /// Lets a client name a call, for as long as the answer is kept. Of two calls of one name the later has it.
    pub(crate) fn name(&self, id: CallId, cancel: &CancellationToken) -> Named {
        let mut named = self.lock();
        let number = named.get(&id).map_or(0, |(number, _)| number + 1);
        named.insert(id.clone(), (number, cancel.clone()));
        Named { running: self.clone(), id, number }
    }

    /// Cancels the call with this id, if it is still running (MCP-16).
    pub(crate) fn cancel(&self, id: &CallId) {
        if let Some((_, cancel)) = self.lock().get(id) {
            cancel.cancel();
        }
    }

    /// Waits for all calls to end, at most this long.
    pub(crate) async fn settle(&self, patience: Duration) {
        self.tasks.close();
        if tokio::time::timeout(patience, self.tasks.wait()).await.is_err() {
            tracing::warn!(mcp.calls = self.tasks.len(), "calls still run and are given up");
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CallId, (u64, CancellationToken)>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name that is given back when it is dropped.
pub(crate) struct Named {
    running: Running,
    id: CallId,
    number: u64,
}

impl Drop for Named {
    fn drop(&mut self) {
        let mut named = self.running.lock();
        if named.get(&self.id).is_some_and(|(number, _)| *number == self.number) {
            named.remove(&self.id);
        }
    }
}

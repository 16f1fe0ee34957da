//! The running calls. Each runs in its own task, which does not end when its client disconnects (SRC-09).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use serde::{Deserialize, Serialize};
use shared::{Digest, Timestamp};

use super::record::Subject;

/// The running calls. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Running {
    tasks: TaskTracker,
    named: Arc<Mutex<HashMap<CallId, (u64, CancellationToken)>>>,
    calls: Calls,
}

/// The calls that run at this moment. Cheap to clone.
#[derive(Clone, Default)]
pub struct Calls(Arc<Mutex<List>>);

#[derive(Default)]
struct List {
    next: u64,
    calls: BTreeMap<u64, (RunningCall, CancellationToken)>,
}

/// A call that runs (LIMIT-04).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RunningCall {
    /// Its number, for `call stop`. Numbers begin again with the server.
    pub id: u64,
    /// The user's id; `None` for a client in its own name.
    pub user: Option<String>,
    pub client: String,
    pub method: String,
    /// The tool, prompt, URI or template.
    pub name: String,
    pub source: Option<String>,
    pub resource: String,
    pub request_id: String,
    pub began_at: Timestamp,
}

impl Calls {
    /// All of them, the oldest first.
    pub fn all(&self) -> Vec<RunningCall> {
        self.lock().calls.values().map(|(call, _)| call.clone()).collect()
    }

    /// One of them.
    pub fn find(&self, id: u64) -> Option<RunningCall> {
        self.lock().calls.get(&id).map(|(call, _)| call.clone())
    }

    /// Stops a call. Its client is told, and its end is recorded as `stopped`.
    pub fn stop(&self, id: u64) {
        if let Some((_, stop)) = self.lock().calls.get(&id) {
            stop.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call in the list. Dropping it takes it out.
pub(super) struct Listed {
    calls: Calls,
    id: u64,
    stop: CancellationToken,
}

impl Listed {
    /// Waits until somebody stops the call.
    pub(super) async fn stopped(&self) {
        self.stop.cancelled().await;
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.calls.lock().calls.remove(&self.id);
    }
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

    /// The running calls, to be shown and stopped.
    pub(crate) fn calls(&self) -> Calls {
        self.calls.clone()
    }

    /// Puts a call on the list.
    pub(super) fn list(&self, subject: &Subject, began_at: Timestamp) -> Listed {
        let token = subject.caller.token();
        let (stop, calls) = (CancellationToken::new(), self.calls.clone());
        let mut list = calls.lock();
        list.next += 1;
        let id = list.next;
        let call = RunningCall {
            id,
            user: (!token.of_client()).then(|| token.sub.clone()),
            client: token.client_id.to_string(),
            method: subject.method.to_owned(),
            name: subject.name.clone(),
            source: subject.upstream.as_ref().map(ToString::to_string),
            resource: subject.resource.to_string(),
            request_id: subject.request.id.clone(),
            began_at,
        };
        list.calls.insert(id, (call, stop.clone()));
        drop(list);
        Listed { calls, id, stop }
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

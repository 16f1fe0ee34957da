//! The progress of a call, from source to gate. Only the newest value is kept, so a slow reader costs nothing
//! and the source never waits (SRC-13).

use std::sync::Arc;

use tokio::sync::watch;

use crate::progress::Progress;

/// The source's end.
pub(crate) struct Relay(watch::Sender<Option<Arc<Progress>>>);

/// The gate's end. A copy hears what was not heard yet.
#[derive(Clone)]
pub(super) struct RelayReceiver(watch::Receiver<Option<Arc<Progress>>>);

/// The two ends for one call.
pub(super) fn relay() -> (Relay, RelayReceiver) {
    let (tell, heard) = watch::channel(None);
    (Relay(tell), RelayReceiver(heard))
}

impl Relay {
    /// Reports progress. A value that is not larger than the last is ignored.
    pub(crate) fn progress(&self, progress: Progress) {
        self.0.send_if_modified(|furthest| {
            let further = progress.is_beyond(furthest.as_deref());
            if further {
                *furthest = Some(Arc::new(progress));
            }
            further
        });
    }
}

impl RelayReceiver {
    /// Waits until the work has come further, and says how far; for ever, if the source has let go of its end.
    pub(super) async fn further(&mut self) -> Arc<Progress> {
        while self.0.changed().await.is_ok() {
            if let Some(newest) = self.0.borrow_and_update().clone() {
                return newest;
            }
        }
        std::future::pending().await
    }

    /// How far the work has come, if that was not heard yet.
    pub(super) fn take(&mut self) -> Option<Arc<Progress>> {
        let newest = self.0.borrow_and_update();
        newest.has_changed().then(|| newest.clone()).flatten()
    }
}

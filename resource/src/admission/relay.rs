//! The progress of a call, from source to gate. Only the newest value is kept, so a slow reader costs nothing
//! and the source never waits (SRC-13).

use tokio::sync::watch;

/// The source's end.
pub(crate) struct Relay(watch::Sender<f64>);

/// The gate's end.
pub(super) struct Heard(watch::Receiver<f64>);

/// The two ends for one call.
pub(super) fn relay() -> (Relay, Heard) {
    let (tell, heard) = watch::channel(f64::NEG_INFINITY);
    (Relay(tell), Heard(heard))
}

impl Relay {
    /// Reports progress. A value that is not larger than the last is ignored.
    pub(crate) fn progress(&self, progress: f64) {
        self.0.send_if_modified(|furthest| {
            let further = progress > *furthest;
            if further {
                *furthest = progress;
            }
            further
        });
    }
}

impl Heard {
    /// Waits until the work has come further; for ever, if the source has let go of its end.
    pub(super) async fn further(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

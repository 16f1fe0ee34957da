//! What is only counted at first, because strangers can cause as much of it as they like, and when it goes on record.

use std::sync::Arc;
use std::time::Duration;

use authz::Authz;
use resource::Resource;
use shared::Db;
use shared::rate::Tally;
use tokio_util::sync::CancellationToken;

/// Interval between records.
const FLUSH: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub(super) struct Counts {
    pub(super) authz: Option<Authz>,
    pub(super) resource: Option<Resource>,
    pub(super) tally: Arc<Tally>,
    pub(super) db: Db,
}

impl Counts {
    /// Records the counts now and then, until `stop`.
    pub(super) async fn keep(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    // Or each open stream would hold the stop up until its time is over.
                    if let Some(resource) = &self.resource {
                        resource.end_streams();
                    }
                    return;
                }
                () = tokio::time::sleep(FLUSH) => self.flush(false).await,
            }
        }
    }

    /// Records the counts; all of them before the server stops.
    pub(super) async fn flush(&self, last: bool) {
        if let Some(resource) = &self.resource {
            resource.flush().await;
        }
        if let Some(authz) = &self.authz {
            authz.flush(last).await;
        }
        if let Err(fault) = self.tally.flush(&self.db).await {
            tracing::error!(db.fault = %fault, "requests that were too many were not recorded");
        }
    }
}

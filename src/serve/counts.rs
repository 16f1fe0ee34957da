//! Events that strangers can cause without limit are counted, and recorded at intervals.

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
    /// Records the counts regularly, until `stop`.
    pub(super) async fn keep(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    // Otherwise each open stream would delay the stop until its time limit.
                    if let Some(resource) = &self.resource {
                        resource.end_streams();
                    }
                    return;
                }
                () = tokio::time::sleep(FLUSH) => self.flush(false).await,
            }
        }
    }

    /// Records the counts; with `last`, including those of the current interval.
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

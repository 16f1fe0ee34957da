//! Makes checkpoints of the audit log regularly (AUDIT-03).

use std::time::Duration;

use keys::Checkpoints;
use tokio_util::sync::CancellationToken;

/// The interval of the checks whether a checkpoint is due.
const LOOK: Duration = Duration::from_secs(1);

/// Makes due checkpoints until `stop`.
pub(crate) async fn keep(checkpoints: Checkpoints, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let due = checkpoints.clone();
        // It signs and waits for the disk.
        match tokio::task::spawn_blocking(move || due.make_if_due()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(audit.error = %error, "no checkpoint of the audit log was made");
            }
            Err(error) => {
                tracing::error!(audit.error = %error, "making a checkpoint of the audit log broke off");
            }
        }
    }
}

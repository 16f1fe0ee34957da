//! Signs the audit log from time to time (AUDIT-03).

use std::time::Duration;

use keys::Checkpoints;
use tokio_util::sync::CancellationToken;

/// How often it is asked whether a checkpoint is due.
const LOOK: Duration = Duration::from_secs(1);

/// Makes checkpoints as they are due, until `stop`.
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

//! Keeps the signing keys on their schedule (KEYS-02, KEYS-03).

use keys::Keys;
use tokio_util::sync::CancellationToken;

/// Takes due steps, at once and then regularly, until `stop`.
pub(crate) async fn keep(keys: Keys, stop: CancellationToken) {
    loop {
        let due = keys.clone();
        // It generates keys and waits for the disk.
        match tokio::task::spawn_blocking(move || due.rotate_due()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(keys.error = %error, "the signing keys were not rotated"),
            Err(error) => tracing::error!(keys.error = %error, "the rotation of the signing keys broke off"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(keys.config().look) => {}
        }
    }
}

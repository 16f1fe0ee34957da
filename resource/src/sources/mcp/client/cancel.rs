//! Cancellation in the way of the older revisions (SRC-09).

use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;

use super::super::message::notification;
use super::super::wire::{Sending, Wire};

/// How long a cancellation may take to arrive.
const TELL: Duration = Duration::from_secs(5);

/// Tells an upstream of an older revision that a request has been abandoned, unless it was answered. It goes out
/// at once, whatever becomes of the task that was dropped (SRC-09).
pub(super) struct CancelOnDrop(Option<(Wire, HeaderMap, u64)>);

impl CancelOnDrop {
    pub(super) fn new(wire: &Wire, sending: &Sending) -> Self {
        Self(Some((wire.clone(), sending.headers.clone(), sending.id)))
    }

    pub(super) fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        let Some((wire, headers, id)) = self.0.take() else { return };
        let params = format!(r#"{{"requestId":{id},"reason":"The client cancelled the request"}}"#);
        let body = notification("notifications/cancelled", &params);
        tokio::spawn(async move {
            if let Err(why) = wire.tell(headers, body, Instant::now() + TELL).await {
                tracing::debug!(outbound.error = %why, "a cancellation did not arrive");
            }
        });
    }
}

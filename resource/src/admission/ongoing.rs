//! A call that was admitted, as the gate waits for it.

use std::sync::Arc;

use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::DropGuard;

use super::Denied;
use super::relay::RelayReceiver;
use crate::gate::refusal::Refusal;
use crate::progress::Progress;

/// An admitted call. Dropping it before its end cancels it, where closing the response does (MCP-16). Else it goes on, and
/// nobody gets its answer.
pub(crate) struct Ongoing<A> {
    ended: JoinHandle<Result<A, Denied>>,
    heard: RelayReceiver,
    closing: Option<DropGuard>,
}

/// What happens to a call.
pub(crate) enum Happening<A> {
    /// The work has come further.
    Progress(Arc<Progress>),
    Ended(Result<A, Denied>),
}

impl<A> Ongoing<A> {
    pub(super) fn new(
        ended: JoinHandle<Result<A, Denied>>,
        heard: RelayReceiver,
        closing: Option<DropGuard>,
    ) -> Self {
        Self { ended, heard, closing }
    }

    /// Waits for the end. Nothing is lost if the future is dropped before.
    pub(crate) async fn ended(&mut self) -> Result<A, Denied> {
        let joined = (&mut self.ended).await;
        self.end(joined)
    }

    /// Waits for progress or the end. Nothing is lost if the future is dropped before.
    pub(crate) async fn next(&mut self) -> Happening<A> {
        let joined = tokio::select! {
            biased;
            further = self.heard.further() => return Happening::Progress(further),
            joined = &mut self.ended => joined,
        };
        Happening::Ended(self.end(joined))
    }

    /// The newest progress, unless it was taken before.
    pub(crate) fn newest(&mut self) -> Option<Arc<Progress>> {
        self.heard.take()
    }

    fn end(&mut self, joined: Result<Result<A, Denied>, JoinError>) -> Result<A, Denied> {
        self.closing.take().map(DropGuard::disarm);
        joined.unwrap_or_else(|panic| {
            tracing::error!(mcp.cause = %panic, "a call broke off");
            Err(Refusal::internal().into())
        })
    }
}

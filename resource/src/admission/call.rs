//! An admitted call, to its end.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use shared::Db;

use super::ask::Ask;
use super::limits::Hold;
use super::links::Links;
use super::record::{self, Subject};
use super::relay::{Relay, RelayReceiver};
use super::running::{Listed, Named};
use super::watch::Watch;
use super::{CallEnd, Denied, sizes};
use crate::gate::refusal::Refusal;
use crate::item::Effect;
use crate::sources::{Outcome, Source, Sources};

/// An admitted call. It runs in its own task, so that its end is recorded whatever happens to the connection
/// (SRC-09).
pub(super) struct Call {
    pub(super) db: Db,
    pub(super) sources: Arc<Sources>,
    pub(super) links: Arc<Links>,
    pub(super) subject: Subject,
    pub(super) ask: Ask,
    pub(super) named: Option<Named>,
    pub(super) watch: Watch,
    pub(super) hold: Hold,
    /// How long it may run without progress.
    pub(super) patience: Duration,
    pub(super) listed: Listed,
    pub(super) relay: Relay,
    pub(super) heard: RelayReceiver,
}

impl Call {
    /// Runs it to its end, and returns the answer once the end is on record.
    pub(super) async fn finish<A: AsRef<[u8]>>(
        self,
        began: Instant,
        answer: impl FnOnce(&CallEnd<'_>) -> A,
    ) -> Result<A, Denied> {
        let Self { db, sources, links, subject, ask, named, watch, mut hold, patience, listed, relay, heard } =
            self;
        let effect = ask.what().effect();
        let most = ask.what().item().bounds.max_result.map_or(ask.most(), |most| most.min(ask.most()));
        let ran = match sources.find(&ask.what().item().source) {
            Some(source) => Box::pin(run(source, &ask, patience, &watch, &listed, (relay, heard))).await,
            None => Ok(Outcome::not_sent()),
        };
        drop((named, listed));
        let (outcome, denied) = match ran {
            Ok(outcome) => (outcome, watch.may_still().await.err()),
            Err(ended) => (Outcome::Cancelled, Some(ended)),
        };
        let (outcome, missing) = sizes::within(outcome, ask.what(), most);
        if matches!(outcome, Outcome::NotSent(_)) {
            hold.taken_back();
        }
        if let Some(denied) = denied {
            hold.write(&db, subject.ended_early(effect, &outcome, began.elapsed(), &denied)).await?;
            return Err(denied);
        }
        if let Outcome::Result { links: shown, .. } = &outcome {
            links.show(&subject.caller.principal(), &ask.what().item().source, shown);
        }
        let answer = answer(&CallEnd { what: ask.what(), effect, outcome: &outcome, patience, most });
        let ended = subject.ended(effect, &outcome, began.elapsed()).detail("bytes", answer.as_ref().len());
        let ended = if missing > 0 { ended.detail("bytes_cut", missing) } else { ended };
        // What the answer was made from goes; the answer's own memory is counted until it is handed on.
        drop(outcome);
        match hold.write(&db, ended).await {
            Ok(()) => {}
            Err(_) if effect == Effect::Writes => return Err(Refusal::unrecorded().into()),
            Err(unavailable) => return Err(unavailable.into()),
        }
        // A command that ends the access while the record is written is answered after this, and no result is sent after that.
        match watch.was_ended_here() {
            None => Ok(answer),
            Some(denied) => {
                if let Denied::Policy(decision) = &denied {
                    record::write(&db, subject.refused(decision)).await?;
                }
                Err(denied)
            }
        }
    }
}

/// Has the source do it, within time and size, and only while the caller may have it done (RS-10).
async fn run(
    source: &Source,
    ask: &Ask,
    patience: Duration,
    watch: &Watch,
    listed: &Listed,
    (relay, mut heard): (Relay, RelayReceiver),
) -> Result<Outcome, Denied> {
    let mut running = pin!(caught(source.run(ask, &relay)));
    let mut silence = pin!(tokio::time::sleep(patience));
    let mut ended = pin!(watch.ended());
    Ok(loop {
        tokio::select! {
            biased;
            outcome = &mut running => break outcome.unwrap_or(match ask.what().effect() {
                Effect::ReadOnly => Outcome::Error,
                Effect::Writes => Outcome::unknown(),
            }),
            denied = &mut ended => return Err(denied),
            () = ask.cancel().cancelled() => break Outcome::Cancelled,
            () = listed.stopped() => break Outcome::Stopped,
            _ = heard.further() => silence.as_mut().reset(tokio::time::Instant::now() + patience),
            () = &mut silence => break Outcome::TimedOut,
            () = tokio::time::sleep_until(ask.deadline()) => break Outcome::TimedOut,
        }
    })
}

/// The result of a future; `None` if it panics.
async fn caught<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}

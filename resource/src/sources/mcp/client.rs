//! The thin MCP client over HTTP: one request at a time, by the revision that the upstream speaks, in a session if it has them. It keeps
//! results as they were written (SRC-05); who may ask was decided before (SRC-01).

mod cancel;
mod opening;
mod request;
mod session;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shared::outbound::Outbound;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::UNSUPPORTED_VERSION;
use super::failed::Failed;
use super::handshake::{MOST_LIFECYCLE, speaks_modern};
use super::message::Answered;
use super::request::{Identity, NoResult, Request};
use super::speaks::{Capabilities, SpokenEra};
use super::wire::{Hear, Opening, Wire};
use cancel::CancelOnDrop;
use opening::{INITIALIZE, PROBE};
use request::Line;
use session::Session;

/// After a failed start, calls fail with the same error for this long instead of waiting for it again.
const PAUSE: Duration = Duration::from_secs(1);
/// The most sessions, of different callers.
const MOST_SESSIONS: usize = 1000;

/// A client of one upstream. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Client(Arc<Inner>);

struct Inner {
    wire: Wire,
    ids: AtomicU64,
    state: Mutex<State>,
}

/// What is known of the upstream.
#[derive(Default)]
struct State {
    speaks: Option<SpokenEra>,
    sessions: HashMap<Option<String>, (Arc<Session>, Instant)>,
    /// The last failure to begin, when it was, and on whose behalf.
    failed: Option<(Instant, Option<String>, Failed)>,
}

impl Client {
    /// A client that begins by what is remembered of the upstream.
    pub(crate) fn new(outbound: Outbound, path: String, remembered: Option<SpokenEra>) -> Self {
        let state = Mutex::new(State { speaks: remembered, ..State::default() });
        Self(Arc::new(Inner { wire: Wire::new(outbound, path), ids: AtomicU64::new(1), state }))
    }

    /// What is known of the upstream's revision.
    pub(crate) async fn speaks(&self) -> Option<SpokenEra> {
        self.0.state.lock().await.speaks
    }

    /// Sends a request. If the upstream refused it without running it, because it forgot the session or changed
    /// its revision, it is sent once more (SRC-07, SRC-08).
    pub(crate) async fn ask(
        &self,
        who: &Identity,
        asked: &Request<'_>,
        hear: Hear<'_>,
    ) -> Result<Answered, NoResult> {
        let mut again = true;
        loop {
            let line = self.line(who).await.map_err(|why| NoResult { sent: false, why })?;
            let sent = self.once(who, &line, asked, hear).await;
            if !(std::mem::take(&mut again) && self.is_forgotten(who, &line, &sent).await) {
                return sent.map_err(|why| NoResult { sent: !matches!(why, Failed::NotSent(_)), why });
            }
        }
    }

    async fn once(
        &self,
        who: &Identity,
        line: &Line,
        asked: &Request<'_>,
        hear: Hear<'_>,
    ) -> Result<Answered, Failed> {
        let id = self.next_id();
        let sending = line.sending(who, id, asked);
        let mut cancel = match (line, &asked.item) {
            (Line::Legacy(_), Some(_)) => Some(CancelOnDrop::new(&self.0.wire, &sending)),
            _ => None,
        };
        let asking = self.0.wire.ask(&sending, hear);
        let answered = match &asked.memory {
            // An answer that is given up is cancelled, like one that nobody waits for.
            Some(memory) => memory.while_kept(asking).await.map_err(|_| Failed::NoMemory)?,
            None => asking.await,
        };
        if matches!(answered, Err(Failed::NoMemory)) {
            return Err(Failed::NoMemory);
        }
        // Answered or failed: nothing is left to cancel.
        if let Some(cancel) = &mut cancel {
            cancel.disarm();
        }
        answered.map(|(_, answered)| answered)
    }

    /// Whether the upstream refused the request without running it, so that another beginning may help.
    async fn is_forgotten(&self, who: &Identity, line: &Line, sent: &Result<Answered, Failed>) -> bool {
        let forgotten = match (line, sent) {
            (Line::Legacy(session), Err(Failed::Status(refusal))) => {
                session.id.is_some() && !refusal.ours && matches!(refusal.status.as_u16(), 400 | 404)
                    || refusal.error.as_ref().is_some_and(speaks_modern)
            }
            (Line::Modern(_), Err(Failed::Status(refusal))) => match &refusal.error {
                Some(error) => error.code == UNSUPPORTED_VERSION,
                None => matches!(refusal.status.as_u16(), 400 | 404 | 405),
            },
            (_, Ok(Err(error))) => error.code == UNSUPPORTED_VERSION,
            _ => false,
        };
        if forgotten {
            let mut state = self.0.state.lock().await;
            match line {
                Line::Legacy(session) => {
                    // Somebody else may have begun another one meanwhile.
                    state.sessions.retain(|_, (known, _)| !Arc::ptr_eq(known, session));
                    if !matches!(sent, Err(Failed::Status(refusal)) if refusal.status.as_u16() == 404) {
                        state.speaks = None;
                    }
                }
                Line::Modern(_) => state.speaks = None,
            }
            tracing::info!(
                mcp.session = who.key.is_some(),
                "an upstream forgot its session or its revision; it is begun again"
            );
        }
        forgotten
    }

    /// How requests of this identity are sent: by the revision that the upstream speaks, in a session if it has them.
    /// Opened by one caller at a time, for all that wait.
    async fn line(&self, who: &Identity) -> Result<Line, Failed> {
        let mut state = self.0.state.lock().await;
        match state.speaks {
            Some(SpokenEra::Modern(capabilities)) => return Ok(Line::Modern(capabilities)),
            Some(SpokenEra::Legacy) => {
                if let Some((session, used)) = state.sessions.get_mut(&who.key) {
                    *used = Instant::now();
                    return Ok(Line::Legacy(Arc::clone(session)));
                }
            }
            None => {}
        }
        // A credential that was refused is its holder's alone (SRC-15).
        let concerns = |(at, whose, why): &&(Instant, Option<String>, Failed)| {
            Instant::now() < *at + PAUSE && (*whose == who.key || !why.is_of_credential())
        };
        if let Some((_, _, why)) = state.failed.as_ref().filter(concerns) {
            return Err(why.clone());
        }
        let opened = self.open(&mut state, who).await;
        state.failed = opened.as_ref().err().map(|why| (Instant::now(), who.key.clone(), why.clone()));
        opened
    }

    async fn open(&self, state: &mut State, who: &Identity) -> Result<Line, Failed> {
        let speaks = match state.speaks {
            Some(known) => known,
            None => self.probe(who).await?,
        };
        state.speaks = Some(speaks);
        if let SpokenEra::Modern(capabilities) = speaks {
            return Ok(Line::Modern(capabilities));
        }
        let session = match self.initialize(who).await {
            Ok(session) => Arc::new(session),
            Err(why) => {
                // Its revision may have changed.
                state.speaks = None;
                return Err(why);
            }
        };
        if state.sessions.len() >= MOST_SESSIONS {
            let oldest = state.sessions.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| key.clone());
            oldest.and_then(|key| state.sessions.remove(&key));
        }
        state.sessions.insert(who.key.clone(), (Arc::clone(&session), Instant::now()));
        Ok(Line::Legacy(session))
    }

    /// What the upstream says that it offers; asked, if it is not known yet.
    pub(crate) async fn capabilities(&self, who: &Identity) -> Result<Capabilities, Failed> {
        Ok(self.line(who).await?.capabilities())
    }

    /// Listens until the upstream ends the stream; `None` if it says that it tells of no changes, or cannot be asked.
    pub(crate) async fn listen(&self, who: &Identity, hear: Hear<'_>) -> Option<Result<(), Failed>> {
        let line = self.line(who).await.ok()?;
        let capabilities = line.capabilities();
        if !capabilities.tells_changes() {
            return None;
        }
        let opening = match &line {
            Line::Modern(_) => Opening::Request(line.sending(
                who,
                self.next_id(),
                &Request {
                    method: "subscriptions/listen",
                    params: capabilities.wanted(),
                    item: None,
                    most: MOST_LIFECYCLE,
                    memory: None,
                    deadline: Instant::now() + INITIALIZE,
                },
            )),
            Line::Legacy(session) => Opening::Get(session.headers(who), Instant::now() + INITIALIZE),
        };
        Some(self.0.wire.listen(opening, hear).await)
    }

    /// Forgets all that was found out and agreed on. Requests on their way go on.
    pub(crate) async fn begin_anew(&self) {
        *self.0.state.lock().await = State::default();
        self.0.wire.forget();
    }

    pub(super) fn next_id(&self) -> u64 {
        self.0.ids.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn wire(&self) -> &Wire {
        &self.0.wire
    }

    /// Ends the open sessions, if the upstream supports that.
    pub(crate) async fn close(&self, who: &Identity) {
        let sessions = std::mem::take(&mut self.0.state.lock().await.sessions);
        for (_, (session, _)) in sessions.into_iter().filter(|(_, (session, _))| session.id.is_some()) {
            let ending = self.0.wire.end(session.headers(who), Instant::now() + PROBE);
            if let Err(why) = ending.await {
                tracing::debug!(outbound.error = %why, "a session was not ended");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;

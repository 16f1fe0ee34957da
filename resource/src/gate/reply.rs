//! The response to a call: JSON if it ends soon and nothing happens before, else a stream of events (SRC-13, MCP-16).

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde_json::Value;
use shared::Request;
use tokio::time::{Instant, sleep_until};

use super::answer::Answer;
use super::call::ItemCall;
use super::era::Era;
use super::refusal::Refusal;
use super::stream::{COMMENT, SILENCE};
use super::{GateContext, denied, unauthenticated};
use crate::Resource;
use crate::admission::{Denied, Happening, Ongoing};
use crate::bearer::CheckedToken;
use crate::progress::{Progress, Token};

/// A call that takes longer is answered with a stream.
const SOON: Duration = Duration::from_secs(1);
/// The shortest time between two notifications of progress.
const PACE: Duration = Duration::from_millis(50);

/// A call, as far as its answer depends on it.
pub(super) struct Asked {
    pub(super) resource: Resource,
    pub(super) at: GateContext,
    pub(super) id: Value,
    pub(super) era: Era,
    pub(super) caller: CheckedToken,
    pub(super) request: Request,
    pub(super) call: ItemCall,
    /// The token by which the client asked for progress.
    pub(super) token: Option<Token>,
}

impl Asked {
    /// Waits for the call. A client that accepts no events gets JSON, however long it takes.
    pub(super) async fn answer(
        self,
        mut ongoing: Ongoing<Answer>,
        accepts_events: bool,
    ) -> Result<Response, Refusal> {
        if !accepts_events {
            let ended = ongoing.ended().await;
            return Ok(self.ended(ended).await?.into_response());
        }
        let soon = Instant::now() + SOON;
        let further = tokio::select! {
            biased;
            happening = next(&mut ongoing, self.token.is_some()) => match happening {
                Happening::Ended(ended) => return Ok(self.ended(ended).await?.into_response()),
                Happening::Progress(further) => Some(further),
            },
            () = sleep_until(soon) => None,
        };
        let first = further.and_then(|further| self.told(&further)).unwrap_or(COMMENT);
        let now = Instant::now();
        let events = Events { asked: self, ongoing, first: Some(first), spoke: now, is_over: false };
        let body = stream::unfold(events, |mut events| async move {
            let event = events.next().await?;
            Some((Ok::<_, Infallible>(event), events))
        });
        let headers = [(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"))];
        Ok((headers, Body::from_stream(body)).into_response())
    }

    /// What the client is answered at the end of the call.
    pub(super) async fn ended(&self, ended: Result<Answer, Denied>) -> Result<Answer, Refusal> {
        match ended {
            Ok(answer) => Ok(answer),
            Err(Denied::Policy(decision)) => {
                denied::answer(decision, &self.call, &self.id, self.era, &self.caller, &self.at.profile)
            }
            Err(Denied::Token(refused)) => {
                Err(unauthenticated(&self.resource, &self.at.profile, &refused, &self.request).await)
            }
            Err(Denied::Limited(over)) => denied::limited(&over, &self.call, &self.id, self.era),
            Err(Denied::Refused(refusal)) => Err(refusal),
        }
    }

    /// The event that tells of progress, if the client wants to know.
    fn told(&self, further: &Progress) -> Option<Bytes> {
        self.token.as_ref().map(|token| event(further.notification(token).as_bytes()))
    }
}

async fn next<A>(ongoing: &mut Ongoing<A>, hears: bool) -> Happening<A> {
    if hears { ongoing.next().await } else { Happening::Ended(ongoing.ended().await) }
}

/// The stream of a call. It is read only while the connection takes more, so a client that does not read costs nothing,
/// and gets the newest progress when it does. The call itself ends with the access of its caller (RS-10).
struct Events {
    asked: Asked,
    ongoing: Ongoing<Answer>,
    first: Option<Bytes>,
    /// When the last event was sent.
    spoke: Instant,
    is_over: bool,
}

impl Events {
    /// The next bytes; `None` after the answer.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        if self.is_over {
            return None;
        }
        let said = self.happened().await?;
        self.spoke = Instant::now();
        Some(said)
    }

    async fn happened(&mut self) -> Option<Bytes> {
        let ended = tokio::select! {
            biased;
            ended = self.ongoing.ended() => ended,
            () = sleep_until(self.spoke + PACE) => tokio::select! {
                biased;
                happening = next(&mut self.ongoing, self.asked.token.is_some()) => match happening {
                    Happening::Progress(further) => return self.asked.told(&further).or(Some(COMMENT)),
                    Happening::Ended(ended) => ended,
                },
                () = sleep_until(self.spoke + SILENCE) => return Some(COMMENT),
            },
        };
        self.is_over = true;
        // The last value arrives, and before the answer.
        let last = self.ongoing.newest().and_then(|further| self.asked.told(&further)).unwrap_or_default();
        let answer = match self.asked.ended(ended).await {
            Ok(answer) => event(answer.as_ref()),
            Err(refusal) => event(refusal.about(Some(&self.asked.id)).body().as_bytes()),
        };
        // A large answer is not copied once more.
        let said = if last.is_empty() { answer } else { [last, answer].concat().into() };
        (!said.is_empty()).then_some(said)
    }
}

/// An event with this message; nothing for an empty one, as a cancelled call has it. Line breaks, which are only white space
/// in JSON, would end the field.
fn event(message: &[u8]) -> Bytes {
    if message.is_empty() {
        return Bytes::new();
    }
    let mut event = Vec::with_capacity(message.len() + 32);
    event.extend_from_slice(b"event: message\n");
    for line in message.split(|byte| *byte == b'\n') {
        event.extend_from_slice(b"data: ");
        event.extend(line.iter().map(|byte| if *byte == b'\r' { b' ' } else { *byte }));
        event.push(b'\n');
    }
    event.push(b'\n');
    event.into()
}

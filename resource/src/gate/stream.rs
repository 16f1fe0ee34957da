//! Streamed responses (server-sent events): limited per principal, kept alive by comments (MCP-16), and ended
//! as soon as their authorization ends (RS-10).
//!
//! The content of a stream is its [`Feed`]; everything else is common to all.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use shared::Scope;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::refusal::{Refusal, TOO_MANY};
use crate::Resource;
use crate::bearer::{CheckedToken, Principal};
use crate::remote::Check;

/// The most open streams of a principal (MCP-16).
const PER_PRINCIPAL: usize = 8;
/// How often a stream's authorization is checked, and the time limit of a check. RS-10 allows two seconds.
const LOOK: Duration = Duration::from_secs(1);
/// After this long without an event a comment is sent, so that proxies do not close the connection.
pub(super) const SILENCE: Duration = Duration::from_secs(15);
/// A comment, which event readers skip.
pub(super) const COMMENT: Bytes = Bytes::from_static(b":\n\n");

/// The content of a kind of stream, and what it depends on besides the caller's token.
pub(crate) trait Feed: Send + 'static {
    /// The next event as sent on the wire; `None` at the end. The future is dropped and called again at every
    /// check, so that must not lose an event.
    fn next(&mut self) -> impl Future<Output = Option<Bytes>> + Send;

    /// Whether it may continue for this caller, whose token and entitlement are current. Called at every check
    /// and before every event.
    fn may_go_on(&mut self, caller: &CheckedToken) -> impl Future<Output = bool> + Send;
}

/// The open streams of an endpoint.
#[derive(Default)]
pub(crate) struct Streams {
    open: Mutex<HashMap<Principal, usize>>,
    ending: CancellationToken,
}

impl Streams {
    /// Ends all streams, and later ones at once, because the server stops.
    pub(crate) fn end(&self) {
        self.ending.cancel();
    }

    /// Whether the server is stopping.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.is_cancelled()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Principal, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a stream for this caller.
pub(crate) fn open(resource: &Resource, caller: CheckedToken, feed: impl Feed) -> Result<Response, Refusal> {
    let place = StreamSlot::take(resource, caller.principal()).ok_or_else(too_many)?;
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let allowed = caller.token().scope.intersection(caller.entitled());
    // It depends on everything that its caller could do, and at least on a valid token.
    let bearer = resource.bearer();
    let check = bearer.check_for(Some(&allowed)).max(bearer.check_for(None));
    let stream = Stream { place, caller, allowed, check, feed, look, spoke: None };
    let events = stream::unfold(stream, |mut stream| async move {
        let event = stream.next().await?;
        Some((Ok::<_, Infallible>(event), stream))
    });
    let headers = [(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"))];
    Ok((headers, Body::from_stream(events)).into_response())
}

/// One of the streams that a principal may have. Dropped with the response, it is free again:
/// closing the connection is all that a client has to do.
struct StreamSlot {
    resource: Resource,
    principal: Principal,
}

impl StreamSlot {
    fn take(resource: &Resource, principal: Principal) -> Option<Self> {
        let mut open = resource.streams().lock();
        let taken = open.entry(principal.clone()).or_default();
        if *taken >= PER_PRINCIPAL {
            return None;
        }
        *taken += 1;
        Some(Self { resource: resource.clone(), principal })
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        let mut open = self.resource.streams().lock();
        if let Some(taken) = open.get_mut(&self.principal) {
            *taken -= 1;
            if *taken == 0 {
                open.remove(&self.principal);
            }
        }
    }
}

struct Stream<F> {
    place: StreamSlot,
    caller: CheckedToken,
    /// The caller's scope at the start. If any of it is lost, the stream ends and the client opens another.
    allowed: Scope,
    /// How strictly its token is checked.
    check: Check,
    feed: F,
    look: Interval,
    /// When it last sent something; `None` makes it send a comment at once, so that the client sees it open.
    spoke: Option<Instant>,
}

impl<F: Feed> Stream<F> {
    /// The next bytes; `None` ends the stream. Runs only while the connection accepts more, so a client that
    /// does not read is sent nothing.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let event = tokio::select! {
                biased;
                () = self.place.resource.streams().ending.cancelled() => return None,
                _ = self.look.tick() => None,
                event = self.feed.next() => Some(event?),
            };
            if !self.may_go_on().await {
                return None;
            }
            let silent = self.spoke.is_none_or(|spoke| spoke.elapsed() >= SILENCE);
            if let Some(said) = event.or_else(|| silent.then_some(COMMENT)) {
                self.spoke = Some(Instant::now());
                return Some(said);
            }
        }
    }

    /// RS-10: the token has not expired, its grant, user and client are live, no scope was lost, and the feed
    /// agrees.
    async fn may_go_on(&mut self) -> bool {
        let Resource(inner) = &self.place.resource;
        // The streams of an endpoint that a reload removed end.
        if inner.registry.snapshot().profile_of(&self.caller.token().aud).is_none() {
            return false;
        }
        let confirmed = inner.bearer.confirm(&self.caller, inner.clock.now(), self.check);
        match tokio::time::timeout(LOOK, confirmed).await {
            Ok(Ok(caller)) if self.allowed.is_subset(caller.entitled()) => self.feed.may_go_on(&caller).await,
            // Ended, or the authorization server could not be asked in time (RS-09).
            Ok(_) | Err(_) => false,
        }
    }
}

fn too_many() -> Refusal {
    let words = "This client has reached its limit of open streams. Close one first.";
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, TOO_MANY, words)
        .header(RETRY_AFTER, HeaderValue::from_static("15"))
}

#[cfg(test)]
mod tests;

//! Answers that stay open as server-sent events: so many to a principal, kept alive by comments
//! (MCP-16), and over as soon as what they stand on is gone (RS-10).
//!
//! What a stream is about is its [`Feed`]; everything else is the same for all of them.

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
use crate::bearer::{Checked, Principal};
use crate::remote::Check;

/// How many a principal may have open (MCP-16).
const PER_PRINCIPAL: usize = 8;
/// How often it is looked whether a stream may go on, and the longest that one look may take: RS-10 leaves two seconds.
const LOOK: Duration = Duration::from_secs(1);
/// Silence is broken after this long, before some proxy takes it for the end.
const SILENCE: Duration = Duration::from_secs(15);
/// A comment: every reader of events skips it.
const COMMENT: Bytes = Bytes::from_static(b":\n\n");

/// What one kind of stream tells, and what it stands on beside its caller's token.
pub(crate) trait Feed: Send + 'static {
    /// The next event as it goes over the wire; `None` if there will be no other. It is dropped and
    /// asked again at every look, so nothing may be lost by that.
    fn next(&mut self) -> impl Future<Output = Option<Bytes>> + Send;

    /// Whether it may go on for this caller, whose token and entitlement are of this moment. Asked
    /// at every look and before every event.
    fn may_go_on(&mut self, caller: &Checked) -> impl Future<Output = bool> + Send;
}

/// The open streams of an endpoint.
#[derive(Default)]
pub(crate) struct Streams {
    open: Mutex<HashMap<Principal, usize>>,
    ending: CancellationToken,
}

impl Streams {
    /// Ends all of them, and every later one at once: the server stops.
    pub(crate) fn end(&self) {
        self.ending.cancel();
    }

    /// Whether the server stops.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.is_cancelled()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Principal, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a stream to this caller.
pub(crate) fn open(resource: &Resource, caller: Checked, feed: impl Feed) -> Result<Response, Refusal> {
    let place = Place::take(resource, caller.principal()).ok_or_else(too_many)?;
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let allowed = caller.token().scope.intersection(caller.entitled());
    // It stands on all that its caller could do, and at least on what needs no scope.
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
struct Place {
    resource: Resource,
    principal: Principal,
}

impl Place {
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

impl Drop for Place {
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
    place: Place,
    caller: Checked,
    /// What the caller could do when it began. Whoever loses any of it begins anew, with what is left.
    allowed: Scope,
    /// How its token is checked at every look.
    check: Check,
    feed: F,
    look: Interval,
    /// When it last said something; never yet means at once, so that the client sees it open.
    spoke: Option<Instant>,
}

impl<F: Feed> Stream<F> {
    /// What to send next; `None` ends it. Runs only while the connection takes more, so a client
    /// that does not read is sent nothing either.
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

    /// RS-10: the token within its time, grant, user and client alive, nothing of the entitlement lost, and what
    /// the feed asks for.
    async fn may_go_on(&mut self) -> bool {
        let Resource(inner) = &self.place.resource;
        // An endpoint that a reload took away has no streams.
        if inner.registry.snapshot().profile_of(&self.caller.token().aud).is_none() {
            return false;
        }
        let confirmed = inner.bearer.confirm(&self.caller, inner.clock.now(), self.check);
        match tokio::time::timeout(LOOK, confirmed).await {
            Ok(Ok(caller)) if self.allowed.is_subset(caller.entitled()) => self.feed.may_go_on(&caller).await,
            // Dead; or nobody could say so in time, and what cannot be asked about is not served (RS-09).
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

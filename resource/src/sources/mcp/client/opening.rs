//! How a conversation with an upstream over HTTP begins: which kind of revision it speaks (SRC-07), what it offers, and in
//! the older revisions the session.

use std::time::Duration;

use http::HeaderMap;
use tokio::time::{Instant, timeout};

use super::super::failed::Failed;
use super::super::handshake::{DISCOVER, MOST_LIFECYCLE, agreed, discovered, initialize, told_by};
use super::super::message::{notification, request};
use super::super::request::{Identity, Request};
use super::super::speaks::{Capabilities, SpokenEra};
use super::super::wire::Sending;
use super::Client;
use super::request::{Line, SESSION_HEADER, base_headers};
use super::session::Session;
use crate::revision::legacy;

/// How long the first question, which tells the eras apart, may take (SRC-07).
pub(super) const PROBE: Duration = Duration::from_secs(2);
/// How long `initialize` may take.
pub(super) const INITIALIZE: Duration = Duration::from_secs(10);

impl Client {
    /// Which kind of revision the upstream speaks (SRC-07; 2026-07-28 streamable HTTP, backward compatibility).
    pub(super) async fn probe(&self, who: &Identity) -> Result<SpokenEra, Failed> {
        let line = Line::Modern(Capabilities::default());
        let asked = lifecycle(DISCOVER, String::new(), PROBE);
        let sending = line.sending(who, self.next_id(), &asked);
        let answered = timeout(PROBE, self.wire().ask(&sending, &mut |_| {})).await;
        match answered.map_err(|_| Failed::Silent(PROBE.as_secs()))? {
            Ok((_, Ok(result))) => discovered(&result),
            Ok((_, Err(error))) => Ok(told_by(&error)),
            Err(Failed::Status(refusal)) if matches!(refusal.status.as_u16(), 400 | 404 | 405) => {
                Ok(refusal.error.as_ref().map_or(SpokenEra::Legacy, told_by))
            }
            // Nothing is known: it may be either, when it answers again.
            Err(why) => Err(why),
        }
    }

    /// Agrees on a revision, and on a session if the upstream wants one (2025-11-25, lifecycle).
    pub(super) async fn initialize(&self, who: &Identity) -> Result<Session, Failed> {
        let asked = lifecycle("initialize", initialize(), INITIALIZE);
        let mut sending = Sending {
            headers: base_headers(who),
            ..Line::Modern(Capabilities::default()).sending(who, self.next_id(), &asked)
        };
        sending.body = request(sending.id, asked.method, &asked.written(false, None));
        let asking = timeout(INITIALIZE, self.wire().ask(&sending, &mut |_| {})).await;
        let (headers, answered) = match asking.map_err(|_| Failed::Silent(INITIALIZE.as_secs()))? {
            Err(Failed::Status(refusal))
                if matches!(refusal.status.as_u16(), 400 | 404 | 405)
                    && self.is_http_sse(&sending.headers).await =>
            {
                return Err(Failed::OldTransport);
            }
            answered => answered?,
        };
        let (version, capabilities) = agreed(&answered, legacy)?;
        let session = Session { id: session_id(&headers)?, version, capabilities };
        let told = notification("notifications/initialized", "{}");
        self.wire().tell(session.headers(who), told, Instant::now() + INITIALIZE).await?;
        Ok(session)
    }

    /// Whether the upstream has only the transport that no revision from 2025-03-26 on has.
    async fn is_http_sse(&self, headers: &HeaderMap) -> bool {
        let looking = self.wire().is_http_sse(headers, Instant::now() + PROBE);
        timeout(PROBE, looking).await.unwrap_or(false)
    }
}

fn lifecycle(method: &'static str, params: String, patience: Duration) -> Request<'static> {
    let deadline = Instant::now() + patience;
    Request { method, params, item: None, most: MOST_LIFECYCLE, memory: None, deadline }
}

fn session_id(headers: &HeaderMap) -> Result<Option<http::HeaderValue>, Failed> {
    let mut ids = headers.get_all(SESSION_HEADER).iter();
    match (ids.next(), ids.next()) {
        (None, _) => Ok(None),
        (Some(id), None) if id.len() <= 1024 && id.as_bytes().iter().all(u8::is_ascii_graphic) => {
            let mut id = id.clone();
            id.set_sensitive(true);
            Ok(Some(id))
        }
        _ => Err(Failed::Unreadable("its session id is not visible ASCII".to_owned())),
    }
}

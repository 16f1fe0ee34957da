//! One message to an upstream over streamable HTTP, and its answer: a JSON object or a stream of events (MCP
//! 2025-11-25 and 2026-07-28, transports).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::value::RawValue;
use shared::outbound::memory::HeldMemory;
use shared::outbound::{Answer, Body, Outbound, Outgoing};
use tokio::time::{Instant, sleep, timeout};

use super::events::{Events, TooLong};
use super::failed::{Failed, Refusal, shown};
use super::message::{Answered, LIST_CHANGED, Message, PROGRESS, reply};
use crate::progress::Progress;

/// The size of an answer beyond its result, in bytes.
const ENVELOPE: usize = 64 * 1024;
/// The most bytes read of a refusal's body.
const MOST_REFUSAL: usize = 64 * 1024;
/// Where the event that begins a stream of the HTTP+SSE transport is looked for, in bytes.
const MOST_ENDPOINT: usize = 1024;
/// The largest stream, as a multiple of its largest answer.
const STREAM: usize = 4;
/// How often a stream is resumed without receiving anything.
const MOST_ATTEMPTS: u32 = 3;
/// The pause before resuming, if the server requests none.
const RETRY: Duration = Duration::from_secs(1);
/// The most requests of a server that are answered on one stream.
const MOST_REPLIES: u32 = 16;
/// How long a stream may continue after its answer, so that its connection can be reused.
const DRAIN: Duration = Duration::from_secs(1);

/// The connection to an upstream. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    outbound: Outbound,
    path: String,
}

/// A request being sent.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) id: u64,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Whether it may be sent twice.
    pub(super) repeatable: bool,
    /// Whether a broken stream is resumed, which older revisions support.
    pub(super) resumable: bool,
    /// The largest result in bytes.
    pub(super) most: usize,
    /// Where the memory of its answer is counted.
    pub(super) memory: Option<Arc<HeldMemory>>,
    /// When the answer must have begun.
    pub(super) deadline: Instant,
}

/// Notifications of an upstream during a request.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Heard {
    Progress(Progress),
    /// The stream of what nobody asked for is open.
    Listening,
    /// One of its lists has changed.
    ListChanged,
}

/// Hears what an upstream tells.
pub(crate) type Hear<'h> = &'h mut (dyn FnMut(Heard) + Send);

impl Wire {
    pub(super) fn new(outbound: Outbound, path: String) -> Self {
        Self { outbound, path }
    }

    /// Closes the connections that wait for their next request.
    pub(super) fn forget(&self) {
        self.outbound.forget();
    }

    /// Sends a request; returns its answer and the headers.
    pub(super) async fn ask(
        &self,
        sending: &Sending,
        hear: Hear<'_>,
    ) -> Result<(HeaderMap, Answered), Failed> {
        let answer = self.post(sending).await?;
        if answer.status != StatusCode::OK {
            return Err(refusal(answer, sending.id).await);
        }
        let headers = answer.headers;
        let answered = match kind(&headers) {
            Some(Media::Json) => {
                let most = sending.most + ENVELOPE;
                let text = answer.body.read_counted(most, sending.memory.as_deref()).await?;
                match Message::read(&text) {
                    Some(Message::Answer { id, answered })
                        if id.is(sending.id) || id.is_none() && answered.is_err() =>
                    {
                        answered
                    }
                    _ => return Err(Failed::Unreadable("no answer to this request".to_owned())),
                }
            }
            Some(Media::Events) => self.stream(answer.body, sending, hear).await?,
            None => {
                return Err(Failed::Unreadable(
                    "its Content-Type is neither JSON nor an event stream".into(),
                ));
            }
        };
        Ok((headers, answered))
    }

    /// Sends a message without an answer: a notification, or the answer to a request of the server.
    pub(super) async fn tell(
        &self,
        headers: HeaderMap,
        body: Bytes,
        deadline: Instant,
    ) -> Result<(), Failed> {
        let outgoing =
            Outgoing { method: Method::POST, path: self.path.clone(), headers, body, repeatable: false };
        let answer = self.outbound.send(&outgoing, deadline).await?;
        if !answer.status.is_success() {
            return Err(refusal(answer, 0).await);
        }
        answer.body.read(MOST_REFUSAL).await?;
        Ok(())
    }

    /// Listens to what a server tells without being asked, until the stream ends: with a request of this revision, or
    /// with none (2025-11-25, listening for messages from the server).
    pub(super) async fn listen(&self, opening: Opening, hear: Hear<'_>) -> Result<(), Failed> {
        let answer = match &opening {
            Opening::Request(sending) => self.post(sending).await?,
            Opening::Get(headers, deadline) => {
                self.outbound.send(&self.get(headers, None), *deadline).await?
            }
        };
        if answer.status != StatusCode::OK || kind(&answer.headers) != Some(Media::Events) {
            return Err(refusal(answer, 0).await);
        }
        hear(Heard::Listening);
        let (mut body, mut events, mut read) = (answer.body, Events::new(ENVELOPE), 0);
        while let Some(chunk) = body.chunk().await? {
            read += chunk.len();
            if read > ENVELOPE * 1024 {
                return Err(Failed::TooLarge(read));
            }
            for data in events.feed(&chunk).map_err(too_long)? {
                if let Some(Message::Notification { method, .. }) = Message::read(&data)
                    && LIST_CHANGED.contains(&&*method)
                {
                    hear(Heard::ListChanged);
                }
            }
        }
        Ok(())
    }

    /// Whether this is an endpoint of the HTTP+SSE transport, which streamable HTTP replaced: its stream begins with an
    /// event named `endpoint` (2025-11-25 transports, backwards compatibility).
    pub(super) async fn is_http_sse(&self, headers: &HeaderMap, deadline: Instant) -> bool {
        let Ok(answer) = self.outbound.send(&self.get(headers, None), deadline).await else { return false };
        if answer.status != StatusCode::OK || kind(&answer.headers) != Some(Media::Events) {
            return false;
        }
        let (mut body, mut begun) = (answer.body, Vec::new());
        while begun.len() < MOST_ENDPOINT {
            let Ok(Some(chunk)) = body.chunk().await else { break };
            begun.extend_from_slice(&chunk[..chunk.len().min(MOST_ENDPOINT)]);
            let said = String::from_utf8_lossy(&begun);
            if said
                .lines()
                .any(|line| line.strip_prefix("event:").is_some_and(|name| name.trim() == "endpoint"))
            {
                return true;
            }
        }
        false
    }

    /// Ends a session (2025-11-25, session management). The server's answer is ignored.
    pub(super) async fn end(&self, headers: HeaderMap, deadline: Instant) -> Result<(), Failed> {
        let outgoing = Outgoing { method: Method::DELETE, headers, ..self.get(&HeaderMap::new(), None) };
        self.outbound.send(&outgoing, deadline).await?;
        Ok(())
    }

    async fn post(&self, sending: &Sending) -> Result<Answer, Failed> {
        let outgoing = Outgoing {
            method: Method::POST,
            path: self.path.clone(),
            headers: sending.headers.clone(),
            body: sending.body.clone(),
            repeatable: sending.repeatable,
        };
        Ok(self.outbound.send(&outgoing, sending.deadline).await?)
    }

    fn get(&self, headers: &HeaderMap, last_event: Option<HeaderValue>) -> Outgoing {
        let mut headers = headers.clone();
        headers.remove(header::CONTENT_TYPE);
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        headers.extend(last_event.map(|id| (HeaderName::from_static("last-event-id"), id)));
        Outgoing { headers, ..Outgoing::get(&self.path) }
    }

    /// Reads a stream up to the answer.
    async fn stream(&self, mut body: Body, sending: &Sending, hear: Hear<'_>) -> Result<Answered, Failed> {
        let mut events = Events::new(sending.most + ENVELOPE);
        let (mut read, mut attempts, mut replies) = (0, 0, 0);
        loop {
            let why = match body.chunk().await {
                Ok(Some(chunk)) => {
                    read += chunk.len();
                    if read > sending.most * STREAM + ENVELOPE {
                        return Err(Failed::TooLarge(read));
                    }
                    let fed = events.feed(&chunk).map_err(too_long)?;
                    if let Some(memory) = &sending.memory {
                        let held = events.held() + fed.iter().map(Vec::len).sum::<usize>();
                        memory.set(held).await.map_err(|_| Failed::NoMemory)?;
                    }
                    for data in fed {
                        attempts = 0;
                        match Message::read(&data) {
                            Some(Message::Answer { id, answered }) if id.is(sending.id) => {
                                drain(body);
                                return Ok(answered);
                            }
                            Some(Message::Notification { method, params }) => {
                                let is_progress = hear_of(&method, params, sending.id, hear);
                                // Long work may tell of much progress; all else counts.
                                read -= if is_progress { data.len().min(read) } else { 0 };
                            }
                            Some(Message::Request { id, method }) if replies < MOST_REPLIES => {
                                replies += 1;
                                self.reply(sending, reply(id, &method));
                            }
                            _ => {}
                        }
                    }
                    continue;
                }
                Ok(None) => "its stream ended before the answer".to_owned(),
                Err(why) => why.to_string(),
            };
            body = self.resumed(sending, &mut events, &mut attempts).await.ok_or(Failed::Lost(why))?;
        }
    }

    /// Reopens a stream after the last received event (2025-11-25, resumability).
    async fn resumed(&self, sending: &Sending, events: &mut Events, attempts: &mut u32) -> Option<Body> {
        let id = events.last_id.as_deref().filter(|_| sending.resumable)?;
        let id = HeaderValue::from_str(id).ok()?;
        while *attempts < MOST_ATTEMPTS {
            *attempts += 1;
            sleep(events.retry.unwrap_or(RETRY)).await;
            let outgoing = self.get(&sending.headers, Some(id.clone()));
            let answer = match self.outbound.send(&outgoing, Instant::now() + sending.patience()).await {
                Ok(answer) => answer,
                Err(error) => {
                    tracing::debug!(outbound.error = %error, "a stream could not be resumed");
                    continue;
                }
            };
            if answer.status != StatusCode::OK || kind(&answer.headers) != Some(Media::Events) {
                return None;
            }
            events.reconnected();
            return Some(answer.body);
        }
        None
    }

    /// Answers a request of the server while its stream is being read.
    fn reply(&self, sending: &Sending, body: Bytes) {
        let (wire, headers) = (self.clone(), sending.headers.clone());
        tokio::spawn(async move {
            let _ = wire.tell(headers, body, Instant::now() + RETRY * 10).await;
        });
    }
}

/// How a stream of the server's own messages is opened.
pub(super) enum Opening {
    Request(Sending),
    Get(HeaderMap, Instant),
}

impl Sending {
    fn patience(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now()).max(RETRY)
    }
}

/// Hears a notification. Whether it was progress of this request.
fn hear_of(method: &str, params: Option<&RawValue>, id: u64, hear: Hear<'_>) -> bool {
    match method {
        changed if LIST_CHANGED.contains(&changed) => hear(Heard::ListChanged),
        PROGRESS => {
            // Only progress of this request, by its token.
            if let Some(progress) = params.and_then(|params| Progress::of_token(params, id)) {
                hear(Heard::Progress(progress));
                return true;
            }
        }
        _ => {}
    }
    false
}

fn too_long(TooLong(size): TooLong) -> Failed {
    Failed::TooLarge(size)
}

/// Reads the rest after the answer in the background, for a limited time, so that the connection can be reused.
fn drain(mut body: Body) {
    tokio::spawn(timeout(DRAIN, async move {
        let mut left = ENVELOPE;
        while let Ok(Some(chunk)) = body.chunk().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                return;
            }
        }
    }));
}

#[derive(PartialEq)]
enum Media {
    Json,
    Events,
}

fn kind(headers: &HeaderMap) -> Option<Media> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    match value.split(';').next()?.trim().to_ascii_lowercase().as_str() {
        "application/json" => Some(Media::Json),
        "text/event-stream" => Some(Media::Events),
        _ => None,
    }
}

/// A server's refusal instead of an answer.
async fn refusal(answer: Answer, id: u64) -> Failed {
    let status = answer.status;
    let location = answer.headers.get(header::LOCATION).filter(|_| status.is_redirection());
    let location = location.and_then(|to| to.to_str().ok()).map(shown);
    let text = answer.body.read(MOST_REFUSAL).await.unwrap_or_default();
    let (error, ours) = match Message::read(&text) {
        Some(Message::Answer { id: to, answered: Err(error) }) => (Some(error), to.is(id)),
        _ => (None, false),
    };
    Failed::Status(Box::new(Refusal { status, location, error, ours }))
}

//! The thin MCP client: which revision an upstream speaks, its sessions if it has them, one request at a time. It keeps
//! results as they were written (SRC-05); who may ask was decided before (SRC-01).

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_json::value::RawValue;
use shared::outbound::Outbound;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::failed::Failed;
use super::message::{Answered, RpcError, notification, request};
use super::mirror;
use super::wire::{Hear, Heard, Opening, Sending, Wire};
use crate::members::Members;
use crate::revision::{CAPABILITIES_META, LEGACY, MODERN, VERSION_HEADER, VERSION_META, legacy};

/// How long the first question, which tells the eras apart, may take (SRC-07).
const PROBE: Duration = Duration::from_secs(2);
/// How long `initialize` may take.
const INITIALIZE: Duration = Duration::from_secs(10);
/// What is sent without waiting for an answer may take this long: a cancellation, the end of a session.
const TELL: Duration = Duration::from_secs(5);
/// How long everybody is told of a failure to begin, instead of waiting for the same one.
const PAUSE: Duration = Duration::from_secs(1);
/// How many sessions are kept, of different people.
const MOST_SESSIONS: usize = 1000;
/// What the answers to a probe and to `initialize` may have.
const MOST_LIFECYCLE: usize = 256 * 1024;

pub(super) const SESSION_HEADER: HeaderName = HeaderName::from_static("mcp-session-id");

/// Errors that the upstream answers with before it runs anything (SRC-08).
pub(crate) const HEADER_MISMATCH: i64 = -32020;
pub(crate) const MISSING_CAPABILITY: i64 = -32021;
pub(crate) const UNSUPPORTED_VERSION: i64 = -32022;
const METHOD_NOT_FOUND: i64 = -32601;

/// On whose behalf something is asked, as the upstream is told it.
#[derive(Clone, Default)]
pub(crate) struct Identity {
    /// Sessions are not shared between different ones.
    pub(crate) key: Option<String>,
    /// What goes with every request: credentials.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

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
    speaks: Option<Speaks>,
    sessions: HashMap<Option<String>, (Arc<Session>, Instant)>,
    /// The last failure to begin, when it was, and on whose behalf.
    failed: Option<(Instant, Option<String>, Failed)>,
}

/// Which kind of revision it speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Speaks {
    Modern { tells_changes: bool },
    Legacy,
}

/// A session, or a revision that was agreed on without one.
#[derive(Debug)]
struct Session {
    id: Option<HeaderValue>,
    version: &'static str,
    tells_changes: bool,
}

/// How requests are sent now.
#[derive(Clone)]
enum Line {
    Modern { tells_changes: bool },
    Legacy(Arc<Session>),
}

/// A request, as far as it is the same in all revisions.
pub(crate) struct Request<'r> {
    pub(crate) method: &'static str,
    /// Its parameters without `_meta`, as members without the braces.
    pub(crate) params: String,
    /// What a tool is called there, and the headers that repeat its arguments.
    pub(crate) tool: Option<(&'r str, Vec<(HeaderName, HeaderValue)>)>,
    pub(crate) most: usize,
    pub(crate) deadline: Instant,
}

/// Why there is no result, and whether the request itself had been sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NoResult {
    pub(crate) sent: bool,
    pub(crate) why: Failed,
}

impl Client {
    /// A client that begins by what is remembered of the upstream.
    pub(crate) fn new(outbound: Outbound, path: String, remembered: Option<Speaks>) -> Self {
        let state = Mutex::new(State { speaks: remembered, ..State::default() });
        Self(Arc::new(Inner { wire: Wire::new(outbound, path), ids: AtomicU64::new(1), state }))
    }

    /// What is known of the upstream's revision.
    pub(crate) async fn speaks(&self) -> Option<Speaks> {
        self.0.state.lock().await.speaks
    }

    /// Sends a request. What the upstream refused without running it, because it forgot the session or speaks another
    /// revision than it did, is sent again once (SRC-07, SRC-08).
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
        let id = self.0.ids.fetch_add(1, Ordering::Relaxed);
        let sending = line.sending(who, id, asked);
        let mut cancel = match (line, &asked.tool) {
            (Line::Legacy(_), Some(_)) => Some(CancelOnDrop::new(&self.0.wire, &sending)),
            _ => None,
        };
        let answered = self.0.wire.ask(&sending, hear).await;
        // Answered, or lost: either way there is nothing to cancel any more.
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
            (Line::Modern { .. }, Err(Failed::Status(refusal))) => match &refusal.error {
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
                Line::Modern { .. } => state.speaks = None,
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
            Some(Speaks::Modern { tells_changes }) => return Ok(Line::Modern { tells_changes }),
            Some(Speaks::Legacy) => {
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
        if let Speaks::Modern { tells_changes } = speaks {
            return Ok(Line::Modern { tells_changes });
        }
        let session = match self.initialize(who).await {
            Ok(session) => Arc::new(session),
            Err(why) => {
                // It may speak something else by now.
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

    /// Which kind of revision the upstream speaks (SRC-07; 2026-07-28 streamable HTTP, backward compatibility).
    async fn probe(&self, who: &Identity) -> Result<Speaks, Failed> {
        let line = Line::Modern { tells_changes: false };
        let asked = Request {
            method: "server/discover",
            params: String::new(),
            tool: None,
            most: MOST_LIFECYCLE,
            deadline: Instant::now() + PROBE,
        };
        let sending = line.sending(who, self.0.ids.fetch_add(1, Ordering::Relaxed), &asked);
        let answered = timeout(PROBE, self.0.wire.ask(&sending, &mut |_| {})).await;
        let legacy_or = |error: &RpcError| {
            if modern_by(error) { Speaks::Modern { tells_changes: false } } else { Speaks::Legacy }
        };
        match answered.map_err(|_| Failed::Silent(PROBE.as_secs()))? {
            Ok((_, Ok(result))) => discovered(&result),
            Ok((_, Err(error))) => Ok(legacy_or(&error)),
            Err(Failed::Status(refusal)) if matches!(refusal.status.as_u16(), 400 | 404 | 405) => {
                Ok(refusal.error.as_ref().map_or(Speaks::Legacy, legacy_or))
            }
            // Nothing is known: it may be either, when it answers again.
            Err(why) => Err(why),
        }
    }

    /// Agrees on a revision, and on a session if the upstream wants one (2025-11-25, lifecycle).
    async fn initialize(&self, who: &Identity) -> Result<Session, Failed> {
        let asked = Request {
            method: "initialize",
            params: format!(
                r#""protocolVersion":"{}","capabilities":{{}},"clientInfo":{}"#,
                LEGACY[0],
                client_info()
            ),
            tool: None,
            most: MOST_LIFECYCLE,
            deadline: Instant::now() + INITIALIZE,
        };
        let mut sending = Sending {
            headers: base_headers(who),
            ..Line::Modern { tells_changes: false }.sending(
                who,
                self.0.ids.fetch_add(1, Ordering::Relaxed),
                &asked,
            )
        };
        sending.body = request(sending.id, asked.method, &format!("{{{}}}", asked.params));
        let (headers, answered) = timeout(INITIALIZE, self.0.wire.ask(&sending, &mut |_| {}))
            .await
            .map_err(|_| Failed::Silent(INITIALIZE.as_secs()))??;
        let session = agreed(&headers, &answered)?;
        let told = notification("notifications/initialized", "{}");
        self.0.wire.tell(session.headers(who), told, Instant::now() + INITIALIZE).await?;
        Ok(session)
    }

    /// Listens until the upstream ends the stream; `None` if it says that it tells of no changes.
    pub(crate) async fn listen(&self, who: &Identity, hear: Hear<'_>) -> Option<Result<(), Failed>> {
        let line = self.line(who).await.ok()?;
        let opening = match &line {
            Line::Modern { tells_changes: true } => Opening::Request(line.sending(
                who,
                self.0.ids.fetch_add(1, Ordering::Relaxed),
                &Request {
                    method: "subscriptions/listen",
                    params: r#""notifications":{"toolsListChanged":true}"#.to_owned(),
                    tool: None,
                    most: MOST_LIFECYCLE,
                    deadline: Instant::now() + INITIALIZE,
                },
            )),
            Line::Legacy(session) if session.tells_changes => {
                Opening::Get(session.headers(who), Instant::now() + INITIALIZE)
            }
            _ => return None,
        };
        Some(self.0.wire.listen(opening, hear).await)
    }

    /// Forgets all that was found out and agreed on. Requests on their way go on.
    pub(crate) async fn begin_anew(&self) {
        *self.0.state.lock().await = State::default();
        self.0.wire.forget();
    }

    /// Ends the sessions that are open, as far as the upstream listens to that.
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

/// Tells an upstream of an older revision that nobody waits any more for a request, unless it was answered. It goes out
/// at once, whatever becomes of the task that was dropped (SRC-09).
struct CancelOnDrop(Option<(Wire, HeaderMap, u64)>);

impl CancelOnDrop {
    fn new(wire: &Wire, sending: &Sending) -> Self {
        Self(Some((wire.clone(), sending.headers.clone(), sending.id)))
    }

    fn disarm(&mut self) {
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

impl Session {
    fn headers(&self, who: &Identity) -> HeaderMap {
        let mut headers = base_headers(who);
        headers.insert(VERSION_HEADER, HeaderValue::from_static(self.version));
        headers.extend(self.id.clone().map(|id| (SESSION_HEADER, id)));
        headers
    }
}

impl Line {
    fn sending(&self, who: &Identity, id: u64, asked: &Request<'_>) -> Sending {
        let progress = asked.tool.is_some().then(|| format!(r#""progressToken":{id}"#));
        let (headers, meta) = match self {
            Self::Modern { .. } => (modern_headers(who, asked), Some(modern_meta(progress.as_deref()))),
            Self::Legacy(session) => (session.headers(who), progress),
        };
        let mut params = format!("{{{}", asked.params);
        if let Some(meta) = meta {
            let comma = if asked.params.is_empty() { "" } else { "," };
            let _ = write!(params, r#"{comma}"_meta":{{{meta}}}"#);
        }
        params.push('}');
        Sending {
            id,
            headers,
            body: request(id, asked.method, &params),
            repeatable: asked.tool.is_none(),
            resumable: matches!(self, Self::Legacy(_)),
            most: asked.most,
            deadline: asked.deadline,
        }
    }
}

fn base_headers(who: &Identity) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    headers.extend(who.headers.iter().cloned());
    headers
}

/// The headers that repeat what the body says (2026-07-28 streamable HTTP, request metadata), written anew (MCP-07).
fn modern_headers(who: &Identity, asked: &Request<'_>) -> HeaderMap {
    let mut headers = base_headers(who);
    headers.insert(VERSION_HEADER, HeaderValue::from_static(MODERN));
    headers.insert("mcp-method", HeaderValue::from_static(asked.method));
    if let Some((name, mirrored)) = &asked.tool {
        headers.insert("mcp-name", mirror::encoded(name));
        headers.extend(mirrored.iter().cloned());
    }
    headers
}

/// What every request of that revision says of itself. No capability is declared: nothing can be asked back.
fn modern_meta(progress: Option<&str>) -> String {
    let more = progress.map(|progress| format!(",{progress}")).unwrap_or_default();
    format!(
        r#""{VERSION_META}":"{MODERN}","io.modelcontextprotocol/clientInfo":{},"{CAPABILITIES_META}":{{}}{more}"#,
        client_info()
    )
}

fn client_info() -> &'static str {
    concat!(r#"{"name":"portcullis","version":""#, env!("CARGO_PKG_VERSION"), r#""}"#)
}

/// Errors that only a server of the newer revisions makes.
fn speaks_modern(error: &RpcError) -> bool {
    matches!(error.code, HEADER_MISMATCH | MISSING_CAPABILITY | UNSUPPORTED_VERSION)
}

/// Whether such a server speaks the revision that is spoken here.
fn modern_by(error: &RpcError) -> bool {
    let supports = |data: &RawValue| {
        let supported = Members::of(data.get())?.get("supported")?;
        serde_json::from_str::<Vec<String>>(supported.get()).ok()
    };
    match error.code {
        UNSUPPORTED_VERSION => {
            let supported = error.data.as_deref().and_then(supports).unwrap_or_default();
            supported.is_empty() || supported.iter().any(|version| version == MODERN)
        }
        _ => speaks_modern(error),
    }
}

fn tells_changes(result: &Members<'_>) -> bool {
    let tools = |capabilities: &RawValue| {
        Some(
            Members::of(Members::of(capabilities.get())?.get("tools")?.get())?.get("listChanged")?.get()
                == "true",
        )
    };
    result.get("capabilities").and_then(tools).unwrap_or(false)
}

fn discovered(result: &RawValue) -> Result<Speaks, Failed> {
    let unreadable = || Failed::Unreadable("it answers `server/discover` with something else".to_owned());
    let result = Members::of(result.get()).ok_or_else(unreadable)?;
    let versions: Vec<String> = result
        .get("supportedVersions")
        .and_then(|versions| serde_json::from_str(versions.get()).ok())
        .ok_or_else(unreadable)?;
    if versions.iter().any(|version| version == MODERN) {
        return Ok(Speaks::Modern { tells_changes: tells_changes(&result) });
    }
    if versions.iter().any(|version| legacy(version).is_some()) {
        return Ok(Speaks::Legacy);
    }
    Err(Failed::Unreadable("it speaks no revision of MCP that is known here".to_owned()))
}

/// What `initialize` was answered with.
fn agreed(headers: &HeaderMap, answered: &Answered) -> Result<Session, Failed> {
    let result = match answered {
        Ok(result) => Members::of(result.get()),
        Err(error) if error.code == METHOD_NOT_FOUND => {
            return Err(Failed::Unreadable("it knows neither `server/discover` nor `initialize`".to_owned()));
        }
        Err(error) => {
            let words = super::failed::shown(&error.message);
            return Err(Failed::Unreadable(format!("it refuses `initialize`: {words}")));
        }
    };
    let unreadable = || Failed::Unreadable("it answers `initialize` with something else".to_owned());
    let result = result.ok_or_else(unreadable)?;
    let said = result.text("protocolVersion").ok_or_else(unreadable)?;
    let version = legacy(&said).ok_or_else(|| {
        Failed::Unreadable(format!(
            "it wants MCP {}; known here are {MODERN} and {}",
            super::failed::shown(&said),
            LEGACY.join(", ")
        ))
    })?;
    let mut ids = headers.get_all(SESSION_HEADER).iter();
    let id = match (ids.next(), ids.next()) {
        (None, _) => None,
        (Some(id), None) if id.len() <= 1024 && id.as_bytes().iter().all(u8::is_ascii_graphic) => {
            let mut id = id.clone();
            id.set_sensitive(true);
            Some(id)
        }
        _ => return Err(Failed::Unreadable("its session id is not visible ASCII".to_owned())),
    };
    Ok(Session { id, version, tells_changes: tells_changes(&result) })
}

/// Hears nothing.
pub(crate) fn deaf(_: Heard) {}

#[cfg(test)]
mod tests;

//! A request to an upstream, as each revision wants it written.

use std::fmt::Write;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use shared::outbound::memory::Held;
use tokio::time::Instant;

use super::super::message::request;
use super::super::mirror;
use super::super::wire::Sending;
use super::Identity;
use super::session::{Capabilities, Session};
use crate::revision::{CAPABILITIES_META, MODERN, VERSION_HEADER, VERSION_META};

pub(super) const SESSION_HEADER: HeaderName = HeaderName::from_static("mcp-session-id");
const MCP_NAME: HeaderName = HeaderName::from_static("mcp-name");

/// A request, as far as it is the same in all revisions.
pub(crate) struct Request<'r> {
    pub(crate) method: &'static str,
    /// Its parameters without `_meta`, as members without the braces.
    pub(crate) params: String,
    /// What it is about, if somebody asked for it. It is sent once, and can be cancelled.
    pub(crate) item: Option<Headers<'r>>,
    pub(crate) most: usize,
    /// Where the memory of its answer is counted, if somebody asked for it.
    pub(crate) memory: Option<Arc<Held>>,
    pub(crate) deadline: Instant,
}

/// The headers of a request that repeat what it says of its item.
#[derive(Default)]
pub(crate) struct Headers<'r> {
    /// The name or URI of the item, for the methods whose requests repeat it.
    pub(crate) name: Option<&'r str>,
    /// Arguments that its definition wants repeated.
    pub(crate) mirrored: Vec<(HeaderName, HeaderValue)>,
}

/// How requests are sent now.
#[derive(Clone)]
pub(super) enum Line {
    Modern(Capabilities),
    Legacy(Arc<Session>),
}

impl Line {
    /// What the upstream offers.
    pub(super) fn capabilities(&self) -> Capabilities {
        match self {
            Self::Modern(capabilities) => *capabilities,
            Self::Legacy(session) => session.capabilities,
        }
    }

    pub(super) fn sending(&self, who: &Identity, id: u64, asked: &Request<'_>) -> Sending {
        let progress = asked.item.is_some().then(|| format!(r#""progressToken":{id}"#));
        let (headers, meta) = match self {
            Self::Modern(_) => (modern_headers(who, asked), Some(modern_meta(progress.as_deref()))),
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
            repeatable: asked.item.is_none(),
            resumable: matches!(self, Self::Legacy(_)),
            most: asked.most,
            memory: asked.memory.clone(),
            deadline: asked.deadline,
        }
    }
}

impl Session {
    pub(super) fn headers(&self, who: &Identity) -> HeaderMap {
        let mut headers = base_headers(who);
        headers.insert(VERSION_HEADER, HeaderValue::from_static(self.version));
        headers.extend(self.id.clone().map(|id| (SESSION_HEADER, id)));
        headers
    }
}

pub(super) fn base_headers(who: &Identity) -> HeaderMap {
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
    if let Some(item) = &asked.item {
        headers.extend(item.name.map(|name| (MCP_NAME, mirror::encoded(name))));
        headers.extend(item.mirrored.iter().cloned());
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

pub(super) fn client_info() -> &'static str {
    concat!(r#"{"name":"portcullis","version":""#, env!("CARGO_PKG_VERSION"), r#""}"#)
}

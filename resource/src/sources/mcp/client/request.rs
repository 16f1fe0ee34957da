//! A request to an upstream over HTTP, as each revision wants it written.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::super::message::request;
use super::super::mirror;
use super::super::request::{Identity, Request};
use super::super::speaks::Capabilities;
use super::super::wire::Sending;
use super::session::Session;
use crate::revision::{MODERN, VERSION_HEADER};

pub(super) const SESSION_HEADER: HeaderName = HeaderName::from_static("mcp-session-id");
const MCP_NAME: HeaderName = HeaderName::from_static("mcp-name");

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
        let headers = match self {
            Self::Modern(_) => modern_headers(who, asked),
            Self::Legacy(session) => session.headers(who),
        };
        let progress = asked.item.is_some().then_some(id);
        let params = asked.written(matches!(self, Self::Modern(_)), progress);
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

/// The headers that repeat what the body says (2026-07-28 streamable HTTP, request metadata), written from the body (MCP-07).
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

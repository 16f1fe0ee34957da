//! How a conversation with an upstream begins: which kind of revision it speaks (SRC-07), what it offers, and in the older
//! revisions the session.

use std::time::Duration;

use http::HeaderMap;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout};

use super::super::failed::{Failed, shown};
use super::super::message::{Answered, RpcError, notification, request};
use super::super::wire::Sending;
use super::super::{HEADER_MISMATCH, METHOD_NOT_FOUND, MISSING_CAPABILITY, UNSUPPORTED_VERSION};
use super::request::{Line, Request, SESSION_HEADER, base_headers, client_info};
use super::session::{Capabilities, Session, Speaks};
use super::{Client, Identity};
use crate::members::Members;
use crate::revision::{LEGACY, MODERN, legacy};

/// How long the first question, which tells the eras apart, may take (SRC-07).
pub(super) const PROBE: Duration = Duration::from_secs(2);
/// How long `initialize` may take.
pub(super) const INITIALIZE: Duration = Duration::from_secs(10);
/// What the answers to a probe and to `initialize` may have.
pub(super) const MOST_LIFECYCLE: usize = 256 * 1024;

impl Client {
    /// Which kind of revision the upstream speaks (SRC-07; 2026-07-28 streamable HTTP, backward compatibility).
    pub(super) async fn probe(&self, who: &Identity) -> Result<Speaks, Failed> {
        let line = Line::Modern(Capabilities::default());
        let asked = Request {
            method: "server/discover",
            params: String::new(),
            item: None,
            most: MOST_LIFECYCLE,
            memory: None,
            deadline: Instant::now() + PROBE,
        };
        let sending = line.sending(who, self.next_id(), &asked);
        let answered = timeout(PROBE, self.wire().ask(&sending, &mut |_| {})).await;
        let legacy_or = |error: &RpcError| {
            if modern_by(error) { Speaks::Modern(Capabilities::default()) } else { Speaks::Legacy }
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
    pub(super) async fn initialize(&self, who: &Identity) -> Result<Session, Failed> {
        let asked = Request {
            method: "initialize",
            params: format!(
                r#""protocolVersion":"{}","capabilities":{{}},"clientInfo":{}"#,
                LEGACY[0],
                client_info()
            ),
            item: None,
            most: MOST_LIFECYCLE,
            memory: None,
            deadline: Instant::now() + INITIALIZE,
        };
        let mut sending = Sending {
            headers: base_headers(who),
            ..Line::Modern(Capabilities::default()).sending(who, self.next_id(), &asked)
        };
        sending.body = request(sending.id, asked.method, &format!("{{{}}}", asked.params));
        let (headers, answered) = timeout(INITIALIZE, self.wire().ask(&sending, &mut |_| {}))
            .await
            .map_err(|_| Failed::Silent(INITIALIZE.as_secs()))??;
        let session = agreed(&headers, &answered)?;
        let told = notification("notifications/initialized", "{}");
        self.wire().tell(session.headers(who), told, Instant::now() + INITIALIZE).await?;
        Ok(session)
    }
}

/// Errors that only a server of the newer revisions makes.
pub(super) fn speaks_modern(error: &RpcError) -> bool {
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

fn discovered(result: &RawValue) -> Result<Speaks, Failed> {
    let unreadable = || Failed::Unreadable("it answers `server/discover` with something else".to_owned());
    let result = Members::of(result.get()).ok_or_else(unreadable)?;
    let versions: Vec<String> = result
        .get("supportedVersions")
        .and_then(|versions| serde_json::from_str(versions.get()).ok())
        .ok_or_else(unreadable)?;
    if versions.iter().any(|version| version == MODERN) {
        return Ok(Speaks::Modern(Capabilities::of(&result)));
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
            let words = shown(&error.message);
            return Err(Failed::Unreadable(format!("it refuses `initialize`: {words}")));
        }
    };
    let unreadable = || Failed::Unreadable("it answers `initialize` with something else".to_owned());
    let result = result.ok_or_else(unreadable)?;
    let said = result.text("protocolVersion").ok_or_else(unreadable)?;
    let version = legacy(&said).ok_or_else(|| {
        Failed::Unreadable(format!(
            "it wants MCP {}; known here are {MODERN} and {}",
            shown(&said),
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
    Ok(Session { id, version, capabilities: Capabilities::of(&result) })
}

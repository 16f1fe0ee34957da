//! What the client of a session is told without having asked: that a list of its own has changed, and nothing of anybody
//! else's (SRC-13).

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use shared::Digest;
use tokio::sync::watch;

use super::stream::Feed;
use super::{GateContext, lists};
use crate::Resource;
use crate::bearer::CheckedToken;
use crate::item::Kind;

/// The notifications, each with the kinds whose lists it is about (MCP 2025-11-25 schema).
const CHANGES: [(&str, &[Kind]); 3] = [
    ("notifications/tools/list_changed", &[Kind::Tool]),
    ("notifications/prompts/list_changed", &[Kind::Prompt]),
    ("notifications/resources/list_changed", &[Kind::Resource, Kind::Template]),
];

/// The feed of a session's stream.
pub(super) struct Listening {
    resource: Resource,
    session: Digest,
    caller: CheckedToken,
    changed: watch::Receiver<u64>,
    /// What the lists were when the client was last told of them.
    known: [u64; CHANGES.len()],
    /// Whether what the caller is entitled to has changed since.
    entitled_anew: bool,
    untold: VecDeque<Bytes>,
}

impl Listening {
    pub(super) fn new(resource: Resource, session: Digest, caller: CheckedToken) -> Self {
        // Before the first look, so that nothing changes unseen in between.
        let changed = resource.registry().changed();
        let known = state(&resource, &caller).unwrap_or_default();
        Self { resource, session, caller, changed, known, entitled_anew: false, untold: VecDeque::new() }
    }

    /// Notes for which lists there is something to tell.
    fn look(&mut self) {
        self.entitled_anew = false;
        let Some(now) = state(&self.resource, &self.caller) else { return };
        for (nth, (method, _)) in CHANGES.iter().enumerate() {
            if self.known[nth] != now[nth] {
                let event =
                    format!("event: message\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"{method}\"}}\n\n");
                self.untold.push_back(event.into());
            }
        }
        self.known = now;
    }
}

impl Feed for Listening {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.entitled_anew {
                self.look();
            }
            if let Some(event) = self.untold.pop_front() {
                return Some(event);
            }
            // The registry lives as long as the stream does.
            self.changed.changed().await.ok()?;
            self.look();
        }
    }

    async fn may_go_on(&mut self, caller: &CheckedToken) -> bool {
        if caller.entitled() != self.caller.entitled() || caller.ceiling() != self.caller.ceiling() {
            self.entitled_anew = true;
        }
        self.caller = caller.clone();
        let session = self.resource.sessions().going_on(&self.session, caller).await;
        session.is_ok_and(|session| session.is_some())
    }
}

/// What this caller's lists are now, in short; `None` if the endpoint is gone.
fn state(resource: &Resource, caller: &CheckedToken) -> Option<[u64; CHANGES.len()]> {
    let snapshot = resource.registry().snapshot();
    let profile = snapshot.profile_of(&caller.token().aud)?.clone();
    let at = GateContext { snapshot, profile };
    Some(CHANGES.map(|(_, kinds)| {
        let mut hasher = DefaultHasher::new();
        for kind in kinds {
            for item in lists::visible(&at, caller, *kind) {
                item.listed.get().hash(&mut hasher);
            }
            kind.hash(&mut hasher);
        }
        hasher.finish()
    }))
}

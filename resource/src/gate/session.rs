//! Sessions (MCP 2025-11-25 transports, Session Management), for the revisions that have them.
//!
//! Every `initialize` begins one, and clients that take no notice of its id are served all the same:
//! the id stands for a place in time and for the negotiated revision, never for a person (RS-01). It
//! counts only together with a token of the principal that it was given to (MCP-12).
//!
//! rmcp's own sessions are not used. Its `SessionStore` keeps an id and the parameters of
//! `initialize`; it is told neither who asks nor when a session is over, and what it restores is a
//! task of some 48 KiB that answers every POST with a stream. Here a session is one row.

use std::sync::Arc;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, StatusCode};
use shared::share::MCP_SESSIONS;
use shared::{Clock, Db, Digest, Fault, Secret, Timestamp, TokenStatus};

use super::era;
use super::refusal::{INTERNAL_ERROR, INVALID_REQUEST, Refusal};
use crate::bearer::{Checked, Refused};
use crate::store::sessions;

pub(crate) const SESSION_HEADER: &str = "mcp-session-id";

/// Unused for this long, it is over (standards §1).
const IDLE: Duration = Duration::from_mins(30);
/// And after this long in any case.
const ABSOLUTE: Duration = Duration::from_hours(8);
/// Use is noted no more often than this.
const NOTED: Duration = Duration::from_mins(1);
/// How many a principal may have; one more ends the one that was unused for longest.
const PER_PRINCIPAL: u32 = 32;
/// What is longer was never one of our ids, and is not looked up.
const LONGEST: usize = 128;

/// The sessions of an endpoint. They live in the database alone, so a restart does not end them.
pub(crate) struct Sessions {
    db: Db,
    clock: Clock,
    status: Arc<dyn TokenStatus>,
}

/// A session that goes on, named by somebody whom it belongs to.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) digest: Digest,
    /// The revision that was negotiated.
    pub(crate) version: &'static str,
}

impl Session {
    /// The refusal of a request that states another revision than the session's (MCP-01).
    pub(crate) fn speaks_another(&self) -> Refusal {
        let words = format!(
            "This session was begun with MCP {0}. Send MCP-Protocol-Version: {0}, or begin another session.",
            self.version
        );
        Refusal::bad_request(INVALID_REQUEST, words)
    }
}

/// Why no session was begun.
#[derive(Debug)]
pub(crate) enum NotBegun {
    /// The token was good a moment ago, and is no longer.
    Token(Refused),
    /// For any other reason, with the answer.
    Refused(Refusal),
}

impl Sessions {
    pub(crate) fn new(db: Db, clock: Clock, status: Arc<dyn TokenStatus>) -> Self {
        Self { db, clock, status }
    }

    /// Begins a session, and says by which id the client may name it. The job asks about the token again, because it
    /// may have ended while the job waited (SESSION-05).
    pub(crate) async fn begin(
        &self,
        caller: &Checked,
        version: &'static str,
    ) -> Result<HeaderValue, NotBegun> {
        let id = Secret::random("ms_");
        let (digest, status, caller) = (id.digest(), Arc::clone(&self.status), caller.clone());
        let begun = self.db.write(move |tx| {
            if status.has_ended_in(tx, caller.token())? {
                return Ok(Err(NotBegun::Token(caller.ended())));
            }
            sessions::keep_newest(tx, caller.token(), PER_PRINCIPAL - 1)?;
            let (created, seen) = over(tx.now());
            if sessions::count(tx)? >= MCP_SESSIONS.most {
                sessions::sweep(tx, created, seen)?;
            }
            if sessions::make_room(tx, caller.token())?.is_err() {
                return Ok(Err(NotBegun::Refused(full())));
            }
            sessions::insert(tx, &digest, caller.token(), version).map(Ok)
        });
        begun.await.map_err(|fault| NotBegun::Refused(unavailable(&fault)))??;
        // "MUST only contain visible ASCII characters"
        Ok(HeaderValue::from_str(id.expose()).expect("base64url is visible ASCII"))
    }

    /// The session that a request names, if it names one. Unknown, over, and somebody else's are
    /// answered alike (MCP-12): "the server MUST respond \[...\] with HTTP 404 Not Found".
    pub(crate) async fn named(
        &self,
        headers: &HeaderMap,
        caller: &Checked,
    ) -> Result<Option<Session>, Refusal> {
        let mut ids = headers.get_all(SESSION_HEADER).iter();
        let Some(id) = ids.next() else {
            return Ok(None);
        };
        if ids.next().is_some() {
            return Err(Refusal::bad_request(INVALID_REQUEST, "Mcp-Session-Id occurs more than once"));
        }
        let id = id.as_bytes();
        if id.len() > LONGEST || !id.iter().all(u8::is_ascii_graphic) {
            return Err(gone());
        }
        match self.going_on(&Digest::of(id), caller).await {
            Ok(session) => session.ok_or_else(gone).map(Some),
            Err(fault) => Err(unavailable(&fault)),
        }
    }

    /// The session with this digest, if it goes on and is the caller's. Asking keeps it going.
    pub(crate) async fn going_on(&self, digest: &Digest, caller: &Checked) -> Result<Option<Session>, Fault> {
        let Some(stored) = self.db.read(|conn| sessions::find(conn, digest, caller.token()))? else {
            return Ok(None);
        };
        let now = self.clock.now();
        let (created, seen) = over(now);
        if stored.created_at <= created || stored.seen_at <= seen {
            return Ok(None);
        }
        if now.since(stored.seen_at) >= NOTED {
            let digest = *digest;
            if let Err(fault) = self.db.record(move |tx| sessions::touch(tx, &digest)).await {
                // It ends sooner than it should, if this goes on. That is no reason to refuse now.
                tracing::warn!(db.fault = %fault, "the use of a session was not noted");
            }
        }
        // A revision that this server no longer speaks is negotiated anew.
        Ok(era::legacy(&stored.version).map(|version| Session { digest: *digest, version }))
    }

    /// Ends a session.
    pub(crate) async fn end(&self, session: &Session) -> Result<(), Refusal> {
        let digest = session.digest;
        self.db.write(move |tx| sessions::delete(tx, &digest)).await.map_err(|fault| unavailable(&fault))
    }

    /// Clears away those that are over (RATE-03).
    pub(crate) async fn sweep(&self) {
        let (created, seen) = over(self.clock.now());
        let swept = match self.db.read(|conn| sessions::any_before(conn, created, seen)) {
            Ok(false) => return,
            Ok(true) => self.db.record(move |tx| sessions::sweep(tx, created, seen)).await,
            Err(fault) => Err(fault),
        };
        if let Err(fault) = swept {
            tracing::warn!(db.fault = %fault, "sessions that are over were not cleared away");
        }
    }
}

/// What began at the first of these times, or was last used at the second, is over.
fn over(now: Timestamp) -> (Timestamp, Timestamp) {
    (now - ABSOLUTE, now - IDLE)
}

fn gone() -> Refusal {
    let words = "Unknown session; send initialize again.";
    Refusal::new(StatusCode::NOT_FOUND, INVALID_REQUEST, words)
}

fn full() -> Refusal {
    tracing::warn!(mcp.sessions = MCP_SESSIONS.most, "no more sessions fit; initialize is refused");
    let words = "The session limit has been reached. Try again in a minute.";
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, INTERNAL_ERROR, words)
        .header(RETRY_AFTER, HeaderValue::from_static("60"))
}

fn unavailable(fault: &Fault) -> Refusal {
    tracing::error!(db.fault = %fault, "a session could not be stored or looked up");
    Refusal::unavailable()
}

//! Sessions (MCP 2025-11-25 transports, Session Management), for the revisions that have them.
//!
//! Every `initialize` starts one, and clients that ignore its id are served too: the id stands for the
//! negotiated revision and never authenticates (RS-01). It is valid only with a token of the principal that it
//! was given to (MCP-12).
//!
//! rmcp's own sessions are not used. Its `SessionStore` keeps an id and the parameters of `initialize`; it
//! knows neither the caller nor the end of a session, and what it restores is a task of some 48 KiB that
//! answers every POST with a stream. Here a session is one row.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, StatusCode};
use quick_cache::sync::Cache;
use shared::share::MCP_SESSIONS;
use shared::{Clock, Db, Digest, Fault, Secret, Timestamp, TokenStatus};

use super::era;
use super::refusal::{INTERNAL_ERROR, INVALID_REQUEST, Refusal};
use crate::bearer::{CheckedToken, Refused};
use crate::store::sessions::{self, Stored};

pub(crate) const SESSION_HEADER: &str = "mcp-session-id";

/// The idle lifetime (standards §1).
const IDLE: Duration = Duration::from_mins(30);
/// The absolute lifetime.
const ABSOLUTE: Duration = Duration::from_hours(8);
/// The use of a session is stored at most this often.
const NOTED: Duration = Duration::from_mins(1);
/// The most sessions of a principal; one more ends the least recently used.
const PER_PRINCIPAL: u32 = 32;
/// A longer id was never ours and is not looked up, in bytes.
const LONGEST: usize = 128;

/// How many looked-up sessions are remembered.
const REMEMBERED: usize = 10_000;

/// The sessions of an endpoint. They are in the database, so a restart does not end them. What was read of one is remembered:
/// under load the pages with sessions are written by every commit, and reading them again costs more than a call.
pub(crate) struct Sessions {
    db: Db,
    clock: Clock,
    status: Arc<dyn TokenStatus>,
    /// By session and by the token that it was found with: another token's principal may be another.
    remembered: Cache<(Digest, Digest), Known>,
}

/// A session as it was read.
#[derive(Clone)]
struct Known {
    /// The number of deletions before it was read.
    deletions: u64,
    /// The uptime until which it counts.
    until: Duration,
    stored: Stored,
}

/// A live session of the caller.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) digest: Digest,
    /// The negotiated revision.
    pub(crate) version: &'static str,
}

impl Session {
    /// What sources call it. It says nothing of its id.
    pub(crate) fn name(&self) -> String {
        HEXLOWER.encode(&self.digest.0)
    }

    /// The refusal of a request that states another revision than the session's (MCP-01).
    pub(crate) fn speaks_another(&self) -> Refusal {
        let words = format!(
            "This session was begun with MCP {0}. Send MCP-Protocol-Version: {0}, or begin another session.",
            self.version
        );
        Refusal::bad_request(INVALID_REQUEST, words)
    }
}

/// Why no session was started.
#[derive(Debug)]
pub(crate) enum SessionNotStarted {
    /// The token was valid before and has ended meanwhile.
    Token(Refused),
    /// For another reason, with the answer.
    Refused(Refusal),
}

impl Sessions {
    pub(crate) fn new(db: Db, clock: Clock, status: Arc<dyn TokenStatus>) -> Self {
        Self { db, clock, status, remembered: Cache::new(REMEMBERED) }
    }

    /// Starts a session; returns the id for the client. The job checks the token again, because it may have
    /// ended while the job waited (SESSION-05).
    pub(crate) async fn begin(
        &self,
        caller: &CheckedToken,
        version: &'static str,
    ) -> Result<HeaderValue, SessionNotStarted> {
        let id = Secret::random("ms_");
        let (digest, status, caller) = (id.digest(), Arc::clone(&self.status), caller.clone());
        let begun = self.db.write(move |tx| {
            if status.has_ended_in(tx, caller.token())? {
                return Ok(Err(SessionNotStarted::Token(caller.ended())));
            }
            sessions::keep_newest(tx, caller.token(), PER_PRINCIPAL - 1)?;
            let (created, seen) = over(tx.now());
            if sessions::count(tx)? >= MCP_SESSIONS.most {
                sessions::sweep(tx, created, seen)?;
            }
            if sessions::make_room(tx, caller.token())?.is_err() {
                return Ok(Err(SessionNotStarted::Refused(full())));
            }
            sessions::insert(tx, &digest, caller.token(), version).map(Ok)
        });
        begun.await.map_err(|fault| SessionNotStarted::Refused(unavailable(&fault)))??;
        // "MUST only contain visible ASCII characters"
        Ok(HeaderValue::from_str(id.expose()).expect("base64url is visible ASCII"))
    }

    /// The session that a request names, if it names one. An unknown, an ended and another principal's session
    /// get the same answer (MCP-12): "the server MUST respond \[...\] with HTTP 404 Not Found".
    pub(crate) async fn named(
        &self,
        headers: &HeaderMap,
        caller: &CheckedToken,
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

    /// The session with this digest, if it is live and the caller's. This counts as a use.
    pub(crate) async fn going_on(
        &self,
        digest: &Digest,
        caller: &CheckedToken,
    ) -> Result<Option<Session>, Fault> {
        let now = self.clock.now();
        let Some(stored) = self.live(digest, caller, now)? else { return Ok(None) };
        if now.since(stored.seen_at) >= NOTED {
            let touched = *digest;
            if let Err(fault) = self.db.record(move |tx| sessions::touch(tx, &touched)).await {
                // If this continues, the session ends too early. That is not a reason to refuse the request.
                tracing::warn!(db.fault = %fault, "the use of a session was not noted");
            }
            self.remembered.remove(&(*digest, *caller.digest()));
        }
        // For a revision that is no longer supported, the client must initialize again.
        Ok(era::legacy(&stored.version).map(|version| Session { digest: *digest, version }))
    }

    /// The session as it is stored, if it is live at this time and the caller's.
    fn live(&self, digest: &Digest, caller: &CheckedToken, now: Timestamp) -> Result<Option<Stored>, Fault> {
        let key = (*digest, *caller.digest());
        let (deletions, uptime) = (sessions::deletions(), self.clock.uptime());
        if let Some(known) = self.remembered.get(&key)
            && (known.deletions, uptime < known.until) == (deletions, true)
            && is_live(&known.stored, now)
            && known.stored.seen_at <= now
        {
            return Ok(Some(known.stored));
        }
        // It may have been used with another token meanwhile, so what is remembered never refuses.
        let Some(stored) = self.db.read(|conn| sessions::find(conn, digest, caller.token()))? else {
            return Ok(None);
        };
        if !is_live(&stored, now) {
            return Ok(None);
        }
        self.remembered.insert(key, Known { deletions, until: uptime + NOTED, stored: stored.clone() });
        Ok(Some(stored))
    }

    /// Ends a session.
    pub(crate) async fn end(&self, session: &Session) -> Result<(), Refusal> {
        let digest = session.digest;
        self.db.write(move |tx| sessions::delete(tx, &digest)).await.map_err(|fault| unavailable(&fault))
    }

    /// Deletes ended sessions (RATE-03).
    pub(crate) async fn sweep(&self) {
        let (created, seen) = over(self.clock.now());
        let swept = match self.db.read(|conn| sessions::any_before(conn, created, seen)) {
            Ok(false) => return,
            Ok(true) => self.db.record(move |tx| sessions::sweep(tx, created, seen)).await,
            Err(fault) => Err(fault),
        };
        if let Err(fault) = swept {
            tracing::warn!(db.fault = %fault, "ended sessions could not be deleted");
        }
    }
}

/// The bounds for live sessions: started after the first time and used after the second.
fn over(now: Timestamp) -> (Timestamp, Timestamp) {
    (now - ABSOLUTE, now - IDLE)
}

/// Whether it is neither too old nor idle for too long.
fn is_live(stored: &Stored, now: Timestamp) -> bool {
    let (created, seen) = over(now);
    stored.created_at > created && stored.seen_at > seen
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

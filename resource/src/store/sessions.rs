//! Sessions of the MCP revisions that have them, by the digest of their id (MCP-12).
//!
//! A session belongs to the principal of a token (RS-14) and to the token's audience, which is the endpoint.

use std::sync::atomic::{AtomicU64, Ordering};

use shared::db::{Conn, Params, params};
use shared::share::{self, Full, Holder, MCP_SESSIONS, Room};
use shared::{AccessToken, Digest, Fault, Timestamp, Tx};

/// A stored session, expired or not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Stored {
    /// The negotiated revision.
    pub version: String,
    pub created_at: Timestamp,
    pub seen_at: Timestamp,
}

/// Increases before and after every commit that deletes sessions.
static DELETIONS: AtomicU64 = AtomicU64::new(0);

/// A number to read before a session is looked up: while it stays the same, no session has been deleted since.
pub(crate) fn deletions() -> u64 {
    DELETIONS.load(Ordering::SeqCst)
}

/// Deletes sessions. Both effects are needed: between them the row can still be read, and after the second one no more.
fn deleting<'p>(tx: &Tx<'_>, sql: &str, params: impl Params<'p>) -> Result<usize, Fault> {
    let count = tx.execute(sql, params)?;
    if count > 0 {
        let note = || {
            DELETIONS.fetch_add(1, Ordering::SeqCst);
        };
        tx.before_commit(note);
        tx.after_commit(note);
    }
    Ok(count)
}

/// Stores a session for the principal of this token.
pub(crate) fn insert(tx: &Tx<'_>, digest: &Digest, holder: &AccessToken, version: &str) -> Result<(), Fault> {
    tx.execute(
        "INSERT INTO mcp_session (digest, iss, sub, client_id, resource, version, created_at, seen_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)",
        params![digest, holder.iss, holder.sub, holder.client_id, holder.aud, version, tx.now()],
    )?;
    Ok(())
}

/// The session with this digest, if it is the holder's.
pub(crate) fn find(conn: &Conn<'_>, digest: &Digest, holder: &AccessToken) -> Result<Option<Stored>, Fault> {
    conn.query_row(
        "SELECT version, created_at, seen_at FROM mcp_session
         WHERE digest = ?1 AND iss = ?2 AND sub = ?3 AND client_id = ?4 AND resource = ?5",
        params![digest, holder.iss, holder.sub, holder.client_id, holder.aud],
        |row| Ok(Stored { version: row.get(0)?, created_at: row.get(1)?, seen_at: row.get(2)? }),
    )
}

/// Stores that a session was used.
pub(crate) fn touch(tx: &Tx<'_>, digest: &Digest) -> Result<(), Fault> {
    tx.execute(
        "UPDATE mcp_session SET seen_at = ?2 WHERE digest = ?1 AND seen_at < ?2",
        params![digest, tx.now()],
    )?;
    Ok(())
}

/// Deletes sessions dated in the future, made while the clock was wrong. Answers with their number.
pub(crate) fn forget(tx: &Tx<'_>, after: Timestamp) -> Result<usize, Fault> {
    deleting(tx, "DELETE FROM mcp_session WHERE created_at > ?1 OR seen_at > ?1", params![after])
}

/// Ends a session.
pub(crate) fn delete(tx: &Tx<'_>, digest: &Digest) -> Result<(), Fault> {
    deleting(tx, "DELETE FROM mcp_session WHERE digest = ?1", params![digest])?;
    Ok(())
}

/// Keeps at most this many sessions of the holder's principal; the least recently used are deleted.
pub(crate) fn keep_newest(tx: &Tx<'_>, holder: &AccessToken, keep: u32) -> Result<(), Fault> {
    deleting(
        tx,
        "DELETE FROM mcp_session WHERE digest IN (
             SELECT digest FROM mcp_session WHERE sub = ?1 AND client_id = ?2 AND iss = ?3
             ORDER BY seen_at DESC, created_at DESC LIMIT -1 OFFSET ?4)",
        params![holder.sub, holder.client_id, holder.iss, keep],
    )?;
    Ok(())
}

/// The number of all sessions.
pub(crate) fn count(conn: &Conn<'_>) -> Result<u32, Fault> {
    share::held(conn, MCP_SESSIONS.table, "", "")
}

/// Makes room for one more session of this user: deletes the least recently used one of the user with most
/// (RATE-06).
pub(crate) fn make_room(tx: &Tx<'_>, holder: &AccessToken) -> Result<Result<(), Full>, Fault> {
    Ok(match share::room(tx, &MCP_SESSIONS, &Holder::subject(&holder.sub))? {
        Ok(Room::Free) => Ok(()),
        Ok(Room::Of { holder, .. }) => {
            deleting(
                tx,
                "DELETE FROM mcp_session WHERE digest =
                 (SELECT digest FROM mcp_session WHERE sub = ?1 ORDER BY seen_at LIMIT 1)",
                params![holder],
            )?;
            Ok(())
        }
        Err(full) => Err(full),
    })
}

/// Whether [`sweep`] has anything to do.
pub(crate) fn any_before(conn: &Conn<'_>, created: Timestamp, seen: Timestamp) -> Result<bool, Fault> {
    let sql = "SELECT 1 FROM mcp_session WHERE created_at <= ?1 OR seen_at <= ?2 LIMIT 1";
    Ok(conn.query_row(sql, params![created, seen], |_| Ok(()))?.is_some())
}

/// Deletes sessions that were started or last used at these times or before.
pub(crate) fn sweep(tx: &Tx<'_>, created: Timestamp, seen: Timestamp) -> Result<(), Fault> {
    deleting(tx, "DELETE FROM mcp_session WHERE created_at <= ?1 OR seen_at <= ?2", params![created, seen])?;
    Ok(())
}

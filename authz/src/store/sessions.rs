//! Browser sessions (SESSION-03): server-side state, looked up by digest.

use shared::db::{Conn, params};
use shared::{Digest, Fault, Timestamp, Tx, UserId};

use crate::current::Current;

/// How a user authenticated (SESSION-10).
#[derive(Clone, Debug)]
pub(crate) struct Authentication {
    /// The credential id of the passkey.
    pub credential: Vec<u8>,
    /// Authentication methods (RFC 8176), separated by spaces.
    pub amr: String,
    /// The authenticator verified its user, by fingerprint or PIN.
    pub user_verified: bool,
    /// The passkey is backed up (BS flag).
    pub backed_up: bool,
}

/// A session: who signed in, how and when (SESSION-10).
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub digest: Digest,
    pub user_id: UserId,
    pub authentication: Authentication,
    pub auth_time: Timestamp,
    pub seen_at: Timestamp,
}

/// A session in a list, with its user.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub digest: Digest,
    pub user_id: UserId,
    pub user: String,
    pub auth_time: Timestamp,
    pub seen_at: Timestamp,
    pub address: Option<String>,
    /// What the browser calls itself, such as "Firefox on Linux".
    pub browser: Option<String>,
}

impl Listed {
    /// Its name for people: the first digits of its digest, which cannot be used to sign in.
    pub(crate) fn name(&self) -> String {
        self.digest.hex()[..16].to_owned()
    }
}

/// Sessions begun and used after these times, of one user or of all; newest first.
pub(crate) fn list(
    conn: &Conn<'_>,
    user: Option<&UserId>,
    signed_in_after: Timestamp,
    seen_after: Timestamp,
) -> Result<Vec<Listed>, Fault> {
    conn.query(
        "SELECT s.digest, s.user_id, u.name, s.auth_time, s.seen_at, s.address, s.browser FROM session s JOIN user u ON u.id = s.user_id
         WHERE (?1 IS NULL OR s.user_id = ?1) AND s.auth_time > ?2 AND s.seen_at > ?3
         ORDER BY s.auth_time DESC, s.digest",
        params![user, signed_in_after, seen_after],
        |row| {
            Ok(Listed {
                digest: row.get(0)?,
                user_id: row.get(1)?,
                user: row.get(2)?,
                auth_time: row.get(3)?,
                seen_at: row.get(4)?,
                address: row.get(5)?,
                browser: row.get(6)?,
            })
        },
    )
}

/// Starts a session, of a browser at this address with this name.
pub(crate) fn insert(
    tx: &Tx<'_>,
    session: &Session,
    address: Option<&str>,
    browser: Option<&str>,
) -> Result<(), Fault> {
    let how = &session.authentication;
    tx.execute(
        "INSERT INTO session (digest, user_id, credential, amr, user_verified, backed_up, auth_time, seen_at, address, browser)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            session.digest,
            session.user_id,
            how.credential,
            how.amr,
            how.user_verified,
            how.backed_up,
            session.auth_time,
            session.seen_at,
            address,
            browser
        ],
    )?;
    Ok(())
}

/// The session with this digest, expired or not.
pub(crate) fn find(conn: &Conn<'_>, digest: &Digest) -> Result<Option<Session>, Fault> {
    conn.query_row(
        "SELECT digest, user_id, credential, amr, user_verified, backed_up, auth_time, seen_at FROM session WHERE digest = ?1",
        params![digest],
        |row| {
            Ok(Session {
                digest: row.get(0)?,
                user_id: row.get(1)?,
                authentication: Authentication {
                    credential: row.get(2)?,
                    amr: row.get(3)?,
                    user_verified: row.get(4)?,
                    backed_up: row.get(5)?,
                },
                auth_time: row.get(6)?,
                seen_at: row.get(7)?,
            })
        },
    )
}

/// Stores that a session was used.
pub(crate) fn touch(tx: &Tx<'_>, session: &Current<'_, Session>) -> Result<(), Fault> {
    tx.execute("UPDATE session SET seen_at = ?2 WHERE digest = ?1", params![session.digest, tx.now()])?;
    Ok(())
}

/// Detaches a session from its cookie: it gets a digest that no cookie has, and stays as the record of a
/// sign-in.
pub(crate) fn detach(tx: &Tx<'_>, digest: &Digest, record: &Digest) -> Result<(), Fault> {
    tx.execute("UPDATE session SET digest = ?2 WHERE digest = ?1", params![digest, record])?;
    Ok(())
}

/// Ends a session; answers with its user, if there was one.
pub(crate) fn delete(tx: &Tx<'_>, digest: &Digest) -> Result<Option<UserId>, Fault> {
    tx.query_row("DELETE FROM session WHERE digest = ?1 RETURNING user_id", params![digest], |row| row.get(0))
}

/// Ends all sessions of a user (SESSION-05).
pub(crate) fn delete_all_of(tx: &Tx<'_>, user: &UserId) -> Result<usize, Fault> {
    tx.execute("DELETE FROM session WHERE user_id = ?1", params![user])
}

/// Deletes expired sessions.
pub(crate) fn sweep(tx: &Tx<'_>, signed_in_before: Timestamp, seen_before: Timestamp) -> Result<(), Fault> {
    tx.execute(
        "DELETE FROM session WHERE auth_time < ?1 OR seen_at < ?2",
        params![signed_in_before, seen_before],
    )?;
    Ok(())
}

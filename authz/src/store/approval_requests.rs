//! What users wish an administrator to look into: clients whose documents are not to be had here, one wish for
//! each URL (CIMD-09).

use shared::db::{Conn, Row, params};
use shared::{Fault, RedirectUri, Timestamp, Tx, UserId};

/// A wish.
#[derive(Clone, Debug)]
pub(crate) struct ApprovalRequest {
    pub url: String,
    /// Where the client asked for its answer.
    pub redirect_uri: RedirectUri,
    pub user_id: UserId,
    pub created_at: Timestamp,
}

const COLUMNS: &str = "SELECT url, redirect_uri, user_id, created_at FROM approval_request";

fn request(row: &Row<'_>) -> Result<ApprovalRequest, Fault> {
    Ok(ApprovalRequest {
        url: row.get(0)?,
        redirect_uri: row.get(1)?,
        user_id: row.get(2)?,
        created_at: row.get(3)?,
    })
}

/// The wish for this URL.
pub(crate) fn find(conn: &Conn<'_>, url: &str) -> Result<Option<ApprovalRequest>, Fault> {
    conn.query_row(&format!("{COLUMNS} WHERE url = ?1"), params![url], request)
}

/// All of them, oldest first.
pub(crate) fn list(conn: &Conn<'_>) -> Result<Vec<ApprovalRequest>, Fault> {
    conn.query(&format!("{COLUMNS} ORDER BY created_at, url"), [], request)
}

/// How many there are: of everybody, and of this user since then.
pub(crate) fn count(conn: &Conn<'_>, user: &UserId, since: Timestamp) -> Result<(u32, u32), Fault> {
    let counts = conn.query_row(
        "SELECT count(*), count(*) FILTER (WHERE user_id = ?1 AND created_at > ?2) FROM approval_request",
        params![user, since],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    Ok(counts.unwrap_or((0, 0)))
}

/// Files a wish. There is none for its URL.
pub(crate) fn insert(tx: &Tx<'_>, url: &str, redirect_uri: &RedirectUri, user: &UserId) -> Result<(), Fault> {
    tx.execute(
        "INSERT INTO approval_request (url, redirect_uri, user_id, created_at) VALUES (?1, ?2, ?3, ?4)",
        params![url, redirect_uri, user, tx.now()],
    )?;
    Ok(())
}

/// Removes the wish for a URL; false if there is none.
pub(crate) fn delete(tx: &Tx<'_>, url: &str) -> Result<bool, Fault> {
    Ok(tx.execute("DELETE FROM approval_request WHERE url = ?1", params![url])? == 1)
}

/// Removes wishes that nobody looked into in time (RATE-03).
pub(crate) fn sweep(tx: &Tx<'_>, created_before: Timestamp) -> Result<(), Fault> {
    tx.execute("DELETE FROM approval_request WHERE created_at < ?1", params![created_before])?;
    Ok(())
}

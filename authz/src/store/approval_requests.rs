//! Approval requests: users ask an administrator to approve a client whose document is not available. One
//! request per URL (CIMD-09).

use shared::db::{Conn, Row, params};
use shared::share::{self, Full, Holder};
use shared::{Fault, RedirectUri, Timestamp, Tx, UserId};

/// An approval request.
#[derive(Clone, Debug)]
pub(crate) struct ApprovalRequest {
    pub url: String,
    /// The redirect URI that the client requested.
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

/// The request for this URL.
pub(crate) fn find(conn: &Conn<'_>, url: &str) -> Result<Option<ApprovalRequest>, Fault> {
    conn.query_row(&format!("{COLUMNS} WHERE url = ?1"), params![url], request)
}

/// All requests, oldest first.
pub(crate) fn list(conn: &Conn<'_>) -> Result<Vec<ApprovalRequest>, Fault> {
    conn.query(&format!("{COLUMNS} ORDER BY created_at, url"), [], request)
}

/// The number of requests of this user since then.
pub(crate) fn count(conn: &Conn<'_>, user: &UserId, since: Timestamp) -> Result<u32, Fault> {
    let sql = "SELECT count(*) FROM approval_request WHERE user_id = ?1 AND created_at > ?2";
    Ok(conn.query_row(sql, params![user, since], |row| row.get(0))?.unwrap_or(0))
}

/// Stores a request; there must be none for its URL. If the table is full, the user with most pending requests
/// makes room (RATE-06).
pub(crate) fn insert(
    tx: &Tx<'_>,
    url: &str,
    redirect_uri: &RedirectUri,
    user: &UserId,
) -> Result<Result<(), Full>, Fault> {
    let holder = Holder::user(user);
    if let Err(full) = share::make_room(tx, &share::APPROVALS, &holder)? {
        return Ok(Err(full));
    }
    tx.execute(
        "INSERT INTO approval_request (url, redirect_uri, user_id, created_at, holder, network)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![url, redirect_uri, user, tx.now(), holder.name(), holder.network()],
    )?;
    Ok(Ok(()))
}

/// Deletes the request for a URL; false if there is none.
pub(crate) fn delete(tx: &Tx<'_>, url: &str) -> Result<bool, Fault> {
    Ok(tx.execute("DELETE FROM approval_request WHERE url = ?1", params![url])? == 1)
}

/// Deletes requests that were not decided in time (RATE-03).
pub(crate) fn sweep(tx: &Tx<'_>, created_before: Timestamp) -> Result<(), Fault> {
    tx.execute("DELETE FROM approval_request WHERE created_at < ?1", params![created_before])?;
    Ok(())
}

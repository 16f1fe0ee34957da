//! Authorization requests that wait for a person (AUTHZ-07, AUTHZ-15).

use shared::db::{Conn, Row, params};
use shared::{ClientId, Digest, Fault, RedirectUri, ResourceUri, Scope, Timestamp, Tx, UserId};

/// An authorization request, as it was validated. Nothing of it is read from the browser again.
#[derive(Clone, Debug)]
pub(crate) struct Transaction {
    pub id: String,
    /// The browser it was opened in.
    pub browser: Digest,
    pub client_id: ClientId,
    pub redirect_uri: RedirectUri,
    pub state: Option<String>,
    pub code_challenge: String,
    pub scope: Scope,
    pub resource: ResourceUri,
    /// A session from before does not count (`prompt=login`).
    pub prompt_login: bool,
    /// How old an authentication may be, in seconds.
    pub max_age: Option<i64>,
    /// The session and the user of the passkey assertion made in this transaction.
    pub signed_in: Option<(Digest, UserId)>,
    pub expires_at: Timestamp,
    pub decided: bool,
}

const COLUMNS: &str =
    "SELECT id, browser, client_id, redirect_uri, state, code_challenge, scope, resource, prompt_login,
     max_age, session, user_id, expires_at, decided_at FROM authorization_transaction";

fn transaction(row: &Row<'_>) -> Result<Transaction, Fault> {
    let session: Option<Digest> = row.get(10)?;
    let user: Option<UserId> = row.get(11)?;
    let decided_at: Option<Timestamp> = row.get(13)?;
    Ok(Transaction {
        id: row.get(0)?,
        browser: row.get(1)?,
        client_id: row.get(2)?,
        redirect_uri: row.get(3)?,
        state: row.get(4)?,
        code_challenge: row.get(5)?,
        scope: row.get(6)?,
        resource: row.get(7)?,
        prompt_login: row.get(8)?,
        max_age: row.get(9)?,
        signed_in: session.zip(user),
        expires_at: row.get(12)?,
        decided: decided_at.is_some(),
    })
}

/// Stores a request. Expired ones make room; false if `cap` others still wait (RATE-03).
pub(crate) fn insert(tx: &Tx<'_>, t: &Transaction, cap: u32) -> Result<bool, Fault> {
    tx.execute("DELETE FROM authorization_transaction WHERE expires_at < ?1", params![tx.now()])?;
    let waiting: Option<u32> =
        tx.query_row("SELECT count(*) FROM authorization_transaction", [], |row| row.get(0))?;
    if waiting.unwrap_or(0) >= cap {
        return Ok(false);
    }
    tx.execute(
        "INSERT INTO authorization_transaction (id, browser, client_id, redirect_uri, state, code_challenge, scope, resource,
         prompt_login, max_age, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        params![
            t.id, t.browser, t.client_id, t.redirect_uri, t.state, t.code_challenge, t.scope, t.resource,
            t.prompt_login, t.max_age, tx.now(), t.expires_at
        ],
    )?;
    Ok(true)
}

/// The request with this handle, expired or not.
pub(crate) fn find(conn: &Conn<'_>, id: &str) -> Result<Option<Transaction>, Fault> {
    conn.query_row(&format!("{COLUMNS} WHERE id = ?1"), params![id], transaction)
}

/// Binds a passkey assertion to the request it was made in.
pub(crate) fn sign_in(tx: &Tx<'_>, id: &str, session: &Digest, user: &UserId) -> Result<bool, Fault> {
    let changed = tx.execute(
        "UPDATE authorization_transaction SET session = ?2, user_id = ?3 WHERE id = ?1 AND decided_at IS NULL",
        params![id, session, user],
    )?;
    Ok(changed == 1)
}

/// Marks a request decided; false if it was before (CONSENT-06).
pub(crate) fn decide(tx: &Tx<'_>, id: &str) -> Result<bool, Fault> {
    let changed = tx.execute(
        "UPDATE authorization_transaction SET decided_at = ?2 WHERE id = ?1 AND decided_at IS NULL AND expires_at > ?2",
        params![id, tx.now()],
    )?;
    Ok(changed == 1)
}

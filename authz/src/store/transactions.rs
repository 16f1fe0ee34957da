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
    /// A remembered consent does not count (`prompt=consent`).
    pub prompt_consent: bool,
    /// How old an authentication may be, in seconds.
    pub max_age: Option<i64>,
    /// The passkey assertion made in this transaction.
    pub signed_in: Option<Assertion>,
    pub expires_at: Timestamp,
    pub decided: bool,
}

/// A passkey assertion made in a transaction.
#[derive(Clone, Debug)]
pub(crate) struct Assertion {
    pub session: Digest,
    pub user_id: UserId,
    /// The digest of what only the page that made it was told: other programs on the computer may see its
    /// cookies, and must not be able to go on in its place.
    pub proof: Digest,
}

impl Assertion {
    /// As it is stored: all of it, or none.
    pub(crate) fn of(
        session: Option<Digest>,
        user_id: Option<UserId>,
        proof: Option<Digest>,
    ) -> Option<Self> {
        Some(Self { session: session?, user_id: user_id?, proof: proof? })
    }
}

const COLUMNS: &str =
    "SELECT id, browser, client_id, redirect_uri, state, code_challenge, scope, resource, prompt_login,
     max_age, session, user_id, expires_at, decided_at, proof, prompt_consent FROM authorization_transaction";

fn transaction(row: &Row<'_>) -> Result<Transaction, Fault> {
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
        prompt_consent: row.get(15)?,
        max_age: row.get(9)?,
        signed_in: Assertion::of(row.get(10)?, row.get(11)?, row.get(14)?),
        expires_at: row.get(12)?,
        decided: decided_at.is_some(),
    })
}

/// How many requests may wait for people at once (RATE-03).
const MOST: u32 = 10_000;

/// Stores a request. Expired ones make room; beyond [`MOST`] the oldest one of whichever client has most
/// waiting does, so that a flood drowns itself and not the others.
pub(crate) fn insert(tx: &Tx<'_>, t: &Transaction) -> Result<(), Fault> {
    tx.execute("DELETE FROM authorization_transaction WHERE expires_at < ?1", params![tx.now()])?;
    let waiting =
        tx.query_row("SELECT count(*) FROM authorization_transaction", [], |row| row.get::<u32>(0))?;
    if waiting.unwrap_or(0) >= MOST {
        tx.execute(
            "DELETE FROM authorization_transaction WHERE id =
             (SELECT id FROM authorization_transaction WHERE client_id =
              (SELECT client_id FROM authorization_transaction GROUP BY client_id ORDER BY count(*) DESC LIMIT 1)
              ORDER BY expires_at LIMIT 1)",
            [],
        )?;
    }
    tx.execute(
        "INSERT INTO authorization_transaction (id, browser, client_id, redirect_uri, state, code_challenge, scope, resource,
         prompt_login, prompt_consent, max_age, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        params![
            t.id, t.browser, t.client_id, t.redirect_uri, t.state, t.code_challenge, t.scope, t.resource,
            t.prompt_login, t.prompt_consent, t.max_age, tx.now(), t.expires_at
        ],
    )?;
    Ok(())
}

/// The request with this handle, expired or not.
pub(crate) fn find(conn: &Conn<'_>, id: &str) -> Result<Option<Transaction>, Fault> {
    conn.query_row(&format!("{COLUMNS} WHERE id = ?1"), params![id], transaction)
}

/// Where requests of this kind wait. To a sign-in they are alike: a browser, an end, and the assertion made in it.
fn table(id: &str) -> &'static str {
    if is_device(id) { "device_transaction" } else { "authorization_transaction" }
}

/// Whether a handle is that of a device whose code was typed, and not of an authorization request.
pub(crate) fn is_device(id: &str) -> bool {
    id.starts_with("d_")
}

/// The browser in which a request still waits for its decision, of either kind.
pub(crate) fn waits_in(conn: &Conn<'_>, id: &str, now: Timestamp) -> Result<Option<Digest>, Fault> {
    conn.query_row(
        &format!(
            "SELECT browser FROM {} WHERE id = ?1 AND decided_at IS NULL AND expires_at > ?2",
            table(id)
        ),
        params![id, now],
        |row| row.get(0),
    )
}

/// Binds a passkey assertion to the request it was made in, of either kind.
pub(crate) fn sign_in(tx: &Tx<'_>, id: &str, assertion: &Assertion) -> Result<(), Fault> {
    tx.execute(
        &format!("UPDATE {} SET session = ?2, user_id = ?3, proof = ?4 WHERE id = ?1", table(id)),
        params![id, assertion.session, assertion.user_id, assertion.proof],
    )?;
    Ok(())
}

/// Marks a request decided; false if it was before (CONSENT-06).
pub(crate) fn decide(tx: &Tx<'_>, id: &str) -> Result<bool, Fault> {
    let changed = tx.execute(
        "UPDATE authorization_transaction SET decided_at = ?2 WHERE id = ?1 AND decided_at IS NULL AND expires_at > ?2",
        params![id, tx.now()],
    )?;
    Ok(changed == 1)
}

/// Ends the requests of a client that wait for a person.
pub(crate) fn cancel_of(tx: &Tx<'_>, client: &ClientId) -> Result<(), Fault> {
    tx.execute(
        "DELETE FROM authorization_transaction WHERE client_id = ?1 AND decided_at IS NULL",
        params![client],
    )?;
    Ok(())
}

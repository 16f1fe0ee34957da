//! Pending authorization requests (AUTHZ-07, AUTHZ-15).

use shared::db::{Conn, Row, params};
use shared::share::{self, Full, Holder};
use shared::{ClientId, Digest, Fault, RedirectUri, ResourceUri, Scope, Timestamp, Tx, UserId};

use super::clients::Client;
use super::users::User;
use crate::current::Current;

/// A validated authorization request. Nothing of it is read from the browser again.
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
    /// An earlier session does not count (`prompt=login`).
    pub prompt_login: bool,
    /// A remembered consent does not count (`prompt=consent`).
    pub prompt_consent: bool,
    /// The maximum age of the authentication, in seconds.
    pub max_age: Option<i64>,
    /// The passkey assertion made in this transaction.
    pub signed_in: Option<Assertion>,
    /// The user who was first asked to decide it. From then on no other user may (SESSION-09).
    pub user_id: Option<UserId>,
    pub expires_at: Timestamp,
    pub decided: bool,
}

/// A passkey assertion made in a transaction.
#[derive(Clone, Debug)]
pub(crate) struct Assertion {
    pub session: Digest,
    pub user_id: UserId,
    /// The digest of a proof that only the page of the assertion was told: other programs on the computer may
    /// see its cookies, and must not be able to continue in its place.
    pub proof: Digest,
}

impl Assertion {
    /// Reads the stored columns: all present, or none.
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
        user_id: row.get(11)?,
        expires_at: row.get(12)?,
        decided: decided_at.is_some(),
    })
}

/// Stores a request of this holder. Expired requests make room, then the holder with most pending requests
/// (RATE-06).
pub(crate) fn insert(
    tx: &Tx<'_>,
    t: &Transaction,
    client: &Current<'_, Client>,
    holder: &Holder,
) -> Result<Result<(), Full>, Fault> {
    sweep(tx)?;
    if let Err(full) = share::make_room(tx, &share::TRANSACTIONS, holder)? {
        return Ok(Err(full));
    }
    tx.execute(
        "INSERT INTO authorization_transaction (id, browser, client_id, redirect_uri, state, code_challenge, scope, resource,
         prompt_login, prompt_consent, max_age, user_id, created_at, expires_at, holder, network)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
        params![
            t.id, t.browser, client.id, t.redirect_uri, t.state, t.code_challenge, t.scope, t.resource,
            t.prompt_login, t.prompt_consent, t.max_age, t.user_id, tx.now(), t.expires_at, holder.name(),
            holder.network()
        ],
    )?;
    Ok(Ok(()))
}

/// Deletes expired requests.
pub(crate) fn sweep(tx: &Tx<'_>) -> Result<(), Fault> {
    tx.execute("DELETE FROM authorization_transaction WHERE expires_at < ?1", params![tx.now()])?;
    Ok(())
}

/// The request with this handle, expired or not.
pub(crate) fn find(conn: &Conn<'_>, id: &str) -> Result<Option<Transaction>, Fault> {
    conn.query_row(&format!("{COLUMNS} WHERE id = ?1"), params![id], transaction)
}

/// The table for this kind of handle. For a sign-in both kinds have the same columns: a browser, an expiry, and
/// the assertion.
fn table(id: &str) -> &'static str {
    if is_device(id) { "device_transaction" } else { "authorization_transaction" }
}

const TABLES: [&str; 2] = ["authorization_transaction", "device_transaction"];

/// Whether a handle is for a device's typed code and not for an authorization request.
pub(crate) fn is_device(id: &str) -> bool {
    id.starts_with("d_")
}

/// The browser of a pending request, of either kind.
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

/// The state of a request, of either kind, when a user signs in for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SignInFor {
    /// Pending, and this user may decide it.
    Open,
    /// Decided or expired.
    Over,
    /// Another user was asked to decide it (SESSION-09).
    SomebodyElses,
}

/// The state of a request for this user.
pub(crate) fn stands(tx: &Tx<'_>, id: &str, user: &UserId) -> Result<SignInFor, Fault> {
    let found = tx.query_row(
        &format!(
            "SELECT user_id FROM {} WHERE id = ?1 AND decided_at IS NULL AND expires_at > ?2",
            table(id)
        ),
        params![id, tx.now()],
        |row| row.get::<Option<UserId>>(0),
    )?;
    Ok(match found {
        None => SignInFor::Over,
        Some(Some(other)) if other != *user => SignInFor::SomebodyElses,
        Some(_) => SignInFor::Open,
    })
}

/// Binds a passkey assertion to its request, of either kind. From now on the request counts for the user, so
/// that a stranger's flood does not remove it (RATE-06).
pub(crate) fn sign_in(tx: &Tx<'_>, id: &str, assertion: &Assertion) -> Result<(), Fault> {
    tx.execute(
        &format!(
            "UPDATE {} SET session = ?2, user_id = ?3, proof = ?4, holder = ?3, network = ?3 WHERE id = ?1",
            table(id)
        ),
        params![id, assertion.session, assertion.user_id, assertion.proof],
    )?;
    Ok(())
}

/// Binds a request to the user who is asked to decide it, unless it is bound already.
pub(crate) fn bind(tx: &Tx<'_>, id: &str, user: &Current<'_, User>) -> Result<(), Fault> {
    tx.execute(
        "UPDATE authorization_transaction SET user_id = ?2, holder = ?2, network = ?2 WHERE id = ?1 AND user_id IS NULL",
        params![id, user.id],
    )?;
    Ok(())
}

/// Marks a request decided; false if it already was (CONSENT-06).
pub(crate) fn decide(tx: &Tx<'_>, id: &str) -> Result<bool, Fault> {
    let changed = tx.execute(
        "UPDATE authorization_transaction SET decided_at = ?2 WHERE id = ?1 AND decided_at IS NULL AND expires_at > ?2",
        params![id, tx.now()],
    )?;
    Ok(changed == 1)
}

/// Deletes a client's pending requests.
pub(crate) fn cancel_of(tx: &Tx<'_>, client: &ClientId) -> Result<(), Fault> {
    tx.execute(
        "DELETE FROM authorization_transaction WHERE client_id = ?1 AND decided_at IS NULL",
        params![client],
    )?;
    Ok(())
}

/// Whether an open authorization request, except one, was signed in to with this session. Requests of devices
/// are not included: a device's user makes a new assertion.
pub(crate) fn refer_to(tx: &Tx<'_>, session: &Digest, except: Option<&str>) -> Result<bool, Fault> {
    let found = tx.query_row(
        "SELECT 1 FROM authorization_transaction
         WHERE session = ?1 AND id IS NOT ?2 AND decided_at IS NULL AND expires_at > ?3",
        params![session, except, tx.now()],
        |_| Ok(()),
    )?;
    Ok(found.is_some())
}

/// Makes the authorization requests of a session refer to its new digest.
pub(crate) fn follow(tx: &Tx<'_>, session: &Digest, record: &Digest) -> Result<(), Fault> {
    tx.execute(
        "UPDATE authorization_transaction SET session = ?2 WHERE session = ?1",
        params![session, record],
    )?;
    Ok(())
}

/// Which open requests of a browser are cancelled.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CancelledRequests<'a> {
    Everybodys,
    /// Those bound to any other user.
    NotOf(&'a UserId),
    Of(&'a UserId),
}

/// Deletes a browser's open requests of either kind, except one (SESSION-09). Answers with the session of each
/// one's sign-in.
pub(crate) fn cancel(
    tx: &Tx<'_>,
    browser: &Digest,
    whose: CancelledRequests<'_>,
    except: Option<&str>,
) -> Result<Vec<Option<Digest>>, Fault> {
    let (which, user) = match whose {
        CancelledRequests::Everybodys => ("?3 IS NULL", None),
        CancelledRequests::NotOf(user) => ("user_id <> ?3", Some(user)), // a request without a user is not bound yet
        CancelledRequests::Of(user) => ("user_id = ?3", Some(user)),
    };
    let mut cancelled = Vec::new();
    for table in TABLES {
        cancelled.extend(tx.query(
            &format!(
                "DELETE FROM {table} WHERE browser = ?1 AND id IS NOT ?2 AND decided_at IS NULL AND {which} RETURNING session"
            ),
            params![browser, except, user],
            |row| row.get::<Option<Digest>>(0),
        )?);
    }
    Ok(cancelled)
}

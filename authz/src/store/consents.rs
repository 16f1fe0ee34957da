//! Consents, kept so that they can be remembered and withdrawn (CONSENT-04, CONSENT-07).

use shared::db::{Conn, params};
use shared::{ClientId, Digest, Fault, ResourceUri, Scope, Timestamp, Tx, UserId};

use super::everything::ended_until_sql;

/// What a user allowed a client at one resource.
#[derive(Clone, Debug)]
pub(crate) struct Consent {
    pub scope: Scope,
    /// A digest of the client's properties at that time.
    pub client_state: Digest,
    /// When the oldest part of it was allowed.
    pub granted_at: Timestamp,
}

/// The consent of this user for this client here.
pub(crate) fn find(
    conn: &Conn<'_>,
    user: &UserId,
    client: &ClientId,
    resource: &ResourceUri,
) -> Result<Option<Consent>, Fault> {
    conn.query_row(
        concat!(
            "SELECT scope, client_state, granted_at FROM consent
             WHERE user_id = ?1 AND client_id = ?2 AND resource = ?3 AND granted_at > ",
            ended_until_sql!()
        ),
        params![user, client, resource],
        |row| Ok(Consent { scope: row.get(0)?, client_state: row.get(1)?, granted_at: row.get(2)? }),
    )
}

/// Stores a consent, replacing the previous one.
pub(crate) fn put(
    tx: &Tx<'_>,
    user: &UserId,
    client: &ClientId,
    resource: &ResourceUri,
    consent: &Consent,
) -> Result<(), Fault> {
    tx.execute(
        "INSERT INTO consent (user_id, client_id, resource, scope, client_state, granted_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (user_id, client_id, resource) DO UPDATE SET scope = ?4, client_state = ?5, granted_at = ?6",
        params![user, client, resource, consent.scope, consent.client_state, consent.granted_at],
    )?;
    Ok(())
}

/// All consents of a user, by client.
pub(crate) fn of(conn: &Conn<'_>, user: &UserId) -> Result<Vec<(ClientId, ResourceUri, Consent)>, Fault> {
    conn.query(
        concat!(
            "SELECT scope, client_state, granted_at, client_id, resource FROM consent
             WHERE user_id = ?1 AND granted_at > ",
            ended_until_sql!(),
            " ORDER BY client_id, resource"
        ),
        params![user],
        |row| {
            let consent = Consent { scope: row.get(0)?, client_state: row.get(1)?, granted_at: row.get(2)? };
            Ok((row.get(3)?, row.get(4)?, consent))
        },
    )
}

/// Forgets the consents for a client, at one resource or at all; answers with their number.
pub(crate) fn forget(
    tx: &Tx<'_>,
    user: &UserId,
    client: &ClientId,
    resource: Option<&ResourceUri>,
) -> Result<usize, Fault> {
    tx.execute(
        concat!(
            "DELETE FROM consent WHERE user_id = ?1 AND client_id = ?2 AND (?3 IS NULL OR resource = ?3) AND granted_at > ",
            ended_until_sql!()
        ),
        params![user, client, resource],
    )
}

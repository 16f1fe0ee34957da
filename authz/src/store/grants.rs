//! Grants of users to clients. A grant is one refresh token family for one resource (TOKEN-11).

use shared::db::{Conn, Row, params};
use shared::{ClientId, Fault, GrantId, ResourceUri, Scope, Timestamp, Tx, UserId};

use super::everything::alive;

/// A grant.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub id: GrantId,
    pub user_id: UserId,
    pub client_id: ClientId,
    pub resource: ResourceUri,
    pub scope: Scope,
    /// Authentication methods (RFC 8176), separated by spaces.
    pub amr: String,
    pub auth_time: Timestamp,
    /// The family's absolute end (REFRESH-07).
    pub expires_at: Timestamp,
    /// The newest generation whose access token was used (REFRESH-06).
    pub seen_generation: Option<u32>,
    pub revoked: bool,
}

/// Why a grant ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reason {
    CodeReplayed,
    RefreshReused,
    UserDisabled,
    PasskeyStolen,
    RevokedByClient,
    RevokedByUser,
    RevokedByAdministrator,
    ClientDisabled,
    /// Its redirect URIs, keys or trust are no longer what users consented to.
    ClientChanged,
    /// It was made while the clock was ahead.
    ClockSetBack,
}

impl Reason {
    /// The name in the database and the audit log.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::CodeReplayed => "code_replayed",
            Self::RefreshReused => "refresh_reused",
            Self::UserDisabled => "user_disabled",
            Self::PasskeyStolen => "passkey_stolen",
            Self::RevokedByClient => "revoked_by_client",
            Self::RevokedByUser => "revoked_by_user",
            Self::RevokedByAdministrator => "revoked_by_administrator",
            Self::ClientDisabled => "client_disabled",
            Self::ClientChanged => "client_changed",
            Self::ClockSetBack => "clock_set_back",
        }
    }
}

/// The columns that [`grant`] reads; the row is `g`.
macro_rules! columns {
    () => {
        concat!(
            "SELECT id, user_id, client_id, resource, scope, amr, auth_time, expires_at, seen_generation, ",
            alive!(),
            " FROM access_grant g"
        )
    };
}

fn grant(row: &Row<'_>) -> Result<Grant, Fault> {
    Ok(Grant {
        id: row.get(0)?,
        user_id: row.get(1)?,
        client_id: row.get(2)?,
        resource: row.get(3)?,
        scope: row.get(4)?,
        amr: row.get(5)?,
        auth_time: row.get(6)?,
        expires_at: row.get(7)?,
        seen_generation: row.get(8)?,
        revoked: !row.get::<bool>(9)?,
    })
}

/// Adds a grant.
pub(crate) fn insert(tx: &Tx<'_>, g: &Grant) -> Result<(), Fault> {
    tx.execute(
        "INSERT INTO access_grant (id, user_id, client_id, resource, scope, amr, auth_time, created_at, expires_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![g.id, g.user_id, g.client_id, g.resource, g.scope, g.amr, g.auth_time, tx.now(), g.expires_at],
    )?;
    Ok(())
}

/// The grant with this id.
pub(crate) fn find(conn: &Conn<'_>, id: &GrantId) -> Result<Option<Grant>, Fault> {
    conn.query_row(concat!(columns!(), " WHERE id = ?1"), params![id], grant)
}

/// Whether a grant, of a user or of a client's own, has ended or was deleted.
pub(crate) fn has_ended(conn: &Conn<'_>, id: &GrantId) -> Result<bool, Fault> {
    let alive = conn.query_row(
        concat!(
            "SELECT 1 FROM access_grant g WHERE id = ?1 AND ",
            alive!(),
            " UNION ALL SELECT 1 FROM client_grant WHERE id = ?1 AND revoked_at IS NULL"
        ),
        params![id],
        |_| Ok(()),
    )?;
    Ok(alive.is_none())
}

/// The grants of a user to a client that have not ended, expired or not.
pub(crate) fn between(conn: &Conn<'_>, user: &UserId, client: &ClientId) -> Result<Vec<Grant>, Fault> {
    conn.query(
        concat!(
            columns!(),
            " WHERE user_id = ?1 AND client_id = ?2 AND ",
            alive!(),
            " ORDER BY created_at, id"
        ),
        params![user, client],
        grant,
    )
}

/// Ends a grant and forgets its consent: access that was withdrawn is not given again without a question
/// (CONSENT-07). False if it had already ended. The caller publishes it to the token status.
pub(crate) fn revoke(tx: &Tx<'_>, id: &GrantId, reason: Reason) -> Result<bool, Fault> {
    tx.execute(
        "DELETE FROM consent WHERE (user_id, client_id, resource) IN
         (SELECT user_id, client_id, resource FROM access_grant WHERE id = ?1)",
        params![id],
    )?;
    let changed = tx.execute(
        concat!(
            "UPDATE access_grant AS g SET revoked_at = ?2, revoked_because = ?3 WHERE id = ?1 AND ",
            alive!()
        ),
        params![id, tx.now(), reason.as_str()],
    )?;
    Ok(changed == 1)
}

/// Ends all grants of a user and forgets all their consents. Answers with the grants that had not ended before.
/// The caller publishes them to the token status.
pub(crate) fn revoke_all_of(tx: &Tx<'_>, user: &UserId, reason: Reason) -> Result<Vec<GrantId>, Fault> {
    tx.execute("DELETE FROM consent WHERE user_id = ?1", params![user])?;
    tx.query(
        concat!(
            "UPDATE access_grant AS g SET revoked_at = ?2, revoked_because = ?3 WHERE user_id = ?1 AND ",
            alive!(),
            " RETURNING id"
        ),
        params![user, tx.now(), reason.as_str()],
        |row| row.get(0),
    )
}

/// The number of a client's grants that have not ended.
pub(crate) fn count_live_through(tx: &Tx<'_>, client: &ClientId) -> Result<usize, Fault> {
    let count = tx.query_row(
        concat!(
            "SELECT count(*) FROM access_grant g WHERE client_id = ?1 AND expires_at > ?2 AND ",
            alive!()
        ),
        params![client, tx.now()],
        |row| row.get::<u32>(0),
    )?;
    Ok(count.unwrap_or(0) as usize)
}

/// Ends all grants of a client, also those in its own name. Answers with the ones that had not ended before.
/// The caller publishes them to the token status.
pub(crate) fn revoke_all_through(
    tx: &Tx<'_>,
    client: &ClientId,
    reason: Reason,
) -> Result<Vec<GrantId>, Fault> {
    let mut ended = tx.query(
        concat!(
            "UPDATE access_grant AS g SET revoked_at = ?2, revoked_because = ?3 WHERE client_id = ?1 AND ",
            alive!(),
            " RETURNING id"
        ),
        params![client, tx.now(), reason.as_str()],
        |row| row.get(0),
    )?;
    ended.extend(revoke_own(tx, client)?);
    Ok(ended)
}

/// Forgets the remembered consent of this grant's user, client and resource.
pub(crate) fn forget_consent(tx: &Tx<'_>, grant: &Grant) -> Result<(), Fault> {
    tx.execute(
        "DELETE FROM consent WHERE user_id = ?1 AND client_id = ?2 AND resource = ?3",
        params![grant.user_id, grant.client_id, grant.resource],
    )?;
    Ok(())
}

/// Notes that a client got a token on a grant, from this address.
pub(crate) fn touch(tx: &Tx<'_>, id: &GrantId, address: Option<&str>) -> Result<(), Fault> {
    tx.execute(
        "UPDATE access_grant SET last_used_at = ?2, address = coalesce(?3, address) WHERE id = ?1",
        params![id, tx.now(), address],
    )?;
    Ok(())
}

/// Ends the grants that a client holds in its own name (CC-01). The caller publishes them to the token status.
pub(crate) fn revoke_own(tx: &Tx<'_>, client: &ClientId) -> Result<Vec<GrantId>, Fault> {
    tx.query(
        "UPDATE client_grant SET revoked_at = ?2 WHERE client_id = ?1 AND revoked_at IS NULL RETURNING id",
        params![client, tx.now()],
        |row| row.get(0),
    )
}

/// Remembers the grants of a client that is about to be deleted, as long as access tokens on them may be
/// presented. Forgets those listed before `listed_before`. Answers with all that are remembered now; the caller
/// publishes them to the token status.
pub(crate) fn bury(tx: &Tx<'_>, client: &ClientId, listed_before: Timestamp) -> Result<Vec<GrantId>, Fault> {
    tx.execute("DELETE FROM buried_grant WHERE buried_at < ?1", params![listed_before])?;
    tx.query(
        "INSERT INTO buried_grant (id, buried_at)
         SELECT id, ?2 FROM access_grant WHERE client_id = ?1 UNION ALL SELECT id, ?2 FROM client_grant WHERE client_id = ?1
         RETURNING id",
        params![client, tx.now()],
        |row| row.get(0),
    )
}

/// Deletes up to a hundred grants, with their tokens, that ended so long ago that none of the tokens can be
/// valid. Answers with their number.
pub(crate) fn sweep(tx: &Tx<'_>, ended_before: Timestamp) -> Result<usize, Fault> {
    tx.execute(
        "DELETE FROM access_grant WHERE id IN (SELECT id FROM access_grant WHERE expires_at < ?1 LIMIT 100)",
        params![ended_before],
    )
}

/// Grants that ended since then, whose access tokens may not have expired.
pub(crate) fn ended_since(conn: &Conn<'_>, since: Timestamp) -> Result<Vec<GrantId>, Fault> {
    conn.query(
        "SELECT id FROM access_grant WHERE revoked_at > ?1
         UNION ALL SELECT id FROM client_grant WHERE revoked_at > ?1
         UNION ALL SELECT id FROM buried_grant WHERE buried_at > ?1",
        params![since],
        |row| row.get(0),
    )
}

/// The newest generation whose access token was used.
pub(crate) fn seen_generation(conn: &Conn<'_>, id: &GrantId) -> Result<Option<u32>, Fault> {
    let row =
        conn.query_row("SELECT seen_generation FROM access_grant WHERE id = ?1", params![id], |row| {
            row.get(0)
        })?;
    Ok(row.flatten())
}

/// Stores that an access token of this generation was used (REFRESH-06).
pub(crate) fn mark_seen(tx: &Tx<'_>, id: &GrantId, generation: u32) -> Result<(), Fault> {
    tx.execute(
        concat!(
            "UPDATE access_grant AS g SET seen_generation = ?2, last_used_at = ?3
             WHERE id = ?1 AND coalesce(seen_generation, -1) < ?2 AND ",
            alive!()
        ),
        params![id, generation, tx.now()],
    )?;
    Ok(())
}

/// Grants on which access tokens were issued in a period.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Issued {
    pub grants: u32,
    pub users: u32,
    pub clients: u32,
    /// When the last one was issued.
    pub last: Option<Timestamp>,
}

/// The live grants on which an access token was issued between two moments, inclusive: each issue spends a code
/// or makes a refresh token. For a client's own grants only the start is known.
pub(crate) fn issued_between(
    conn: &Conn<'_>,
    since: Timestamp,
    until: Timestamp,
    now: Timestamp,
) -> Result<Issued, Fault> {
    let found = conn.query_row(
        concat!(
            "WITH issue (grant_id, at) AS (
             SELECT grant_id, created_at FROM refresh_token WHERE created_at BETWEEN ?1 AND ?2
             UNION ALL SELECT grant_id, spent_at FROM authorization_code WHERE spent_at BETWEEN ?1 AND ?2),
         holder (grant_id, user_id, client_id, at) AS (
             SELECT g.id, g.user_id, g.client_id, i.at FROM issue i JOIN access_grant g ON g.id = i.grant_id
             WHERE g.expires_at > ?3 AND ",
            alive!(),
            " UNION ALL SELECT id, NULL, client_id, min(?2, ?3) FROM client_grant
             WHERE revoked_at IS NULL AND created_at <= ?2)
         SELECT count(DISTINCT grant_id), count(DISTINCT user_id), count(DISTINCT client_id), max(at) FROM holder"
        ),
        params![since, until, now],
        |row| Ok(Issued { grants: row.get(0)?, users: row.get(1)?, clients: row.get(2)?, last: row.get(3)? }),
    )?;
    Ok(found.unwrap_or(Issued { grants: 0, users: 0, clients: 0, last: None }))
}

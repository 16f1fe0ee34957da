//! Rows dated in the future, made while the clock was wrong (OPS-04).

use shared::db::params;
use shared::{Fault, GrantId, Timestamp, Tx};

use super::grants::Reason;

/// Short-lived rows that would last until that time: they are deleted.
const FORGOTTEN: &[(&str, &str)] = &[
    ("session", "auth_time > ?1 OR seen_at > ?1"),
    ("mcp_session", "created_at > ?1 OR seen_at > ?1"),
    ("authorization_transaction", "created_at > ?1 OR decided_at > ?1"),
    ("device_transaction", "created_at > ?1 OR decided_at > ?1"),
    ("device_authorization", "created_at > ?1 OR polled_at > ?1 OR decided_at > ?1 OR spent_at > ?1"),
    ("initial_access_token", "created_at > ?1"),
    ("consent", "granted_at > ?1"),
    // Only their end is known, which is minutes away; users can start new ones.
    ("ceremony", "?1 IS NOT NULL"),
    // All access tokens end with the keys that signed them.
    ("dead_token", "?1 IS NOT NULL"),
    // An assertion from that time cannot be used: one may expire at most six minutes from now.
    ("client_assertion", "expires_at > ?1 + 360000"),
];

/// Times at which something began or happened: set to now at the latest, so that waiting for an age does not
/// last until that time.
const BEGUN: &[(&str, &[&str])] = &[
    ("user", &["created_at", "disabled_at"]),
    ("past_user", &["deleted_at"]),
    ("passkey", &["created_at", "last_used_at", "suspended_at"]),
    ("passkey_elsewhere", &["created_at", "last_used_at", "suspended_at"]),
    ("link", &["created_at", "used_at", "voided_at"]),
    ("client", &["created_at", "last_used_at", "disabled_at"]),
    ("access_grant", &["auth_time", "created_at", "revoked_at", "last_used_at"]),
    ("authorization_code", &["spent_at"]),
    ("client_secret", &["created_at"]),
    ("client_grant", &["created_at", "revoked_at"]),
    ("client_document", &["imported_at"]),
    ("catalogue_disabled", &["disabled_at"]),
    ("approval_request", &["created_at"]),
    ("buried_grant", &["buried_at"]),
    ("refresh_token", &["created_at"]),
    ("source", &["added_at", "walked_at"]),
    ("secret", &["created_at", "changed_at"]),
    ("user_secret", &["created_at", "changed_at"]),
    ("call_count", &["counted_at"]),
];

/// Ends that were computed from that time.
const ENDS: &[&str] = &[
    "UPDATE link SET voided_at = ?1 WHERE created_at > ?1 AND used_at IS NULL AND voided_at IS NULL",
    // The old secret of a rotation in that time.
    "UPDATE client_secret SET expires_at = expires_at -
         ((SELECT max(created_at) FROM client_secret AS newest WHERE newest.client_id = client_secret.client_id) - ?1)
     WHERE expires_at IS NOT NULL AND ?1 <
         (SELECT max(created_at) FROM client_secret AS newest WHERE newest.client_id = client_secret.client_id)",
    // Fetch the document again.
    "UPDATE client_document SET expires_at = ?1 WHERE expires_at IS NOT NULL AND imported_at > ?1",
];

/// Ends every grant that was made, or got a refresh token, later than this. A family ends as a whole. The
/// caller publishes them to the token status.
pub(crate) fn revoke_grants(tx: &Tx<'_>, after: Timestamp, reason: Reason) -> Result<Vec<GrantId>, Fault> {
    tx.query(
        "UPDATE access_grant SET revoked_at = ?1, revoked_because = ?2
         WHERE revoked_at IS NULL AND (created_at > ?1
             OR EXISTS (SELECT 1 FROM refresh_token WHERE grant_id = access_grant.id AND refresh_token.created_at > ?1))
         RETURNING id",
        params![after, reason.as_str()],
        |row| row.get(0),
    )
}

/// Deletes sessions, links and other short-lived rows that began later than this, and moves the remaining
/// future times to now. Answers with the number of users whose sessions ended.
pub(crate) fn forget(tx: &Tx<'_>, after: Timestamp) -> Result<usize, Fault> {
    let mut sessions = 0;
    for (table, of_that_time) in FORGOTTEN {
        let gone = tx.execute(&format!("DELETE FROM {table} WHERE {of_that_time}"), params![after])?;
        if *table == "session" {
            sessions = gone;
        }
    }
    for statement in ENDS {
        tx.execute(statement, params![after])?;
    }
    for (table, columns) in BEGUN {
        for column in *columns {
            tx.execute(&format!("UPDATE {table} SET {column} = ?1 WHERE {column} > ?1"), params![after])?;
        }
    }
    Ok(sessions)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = include_str!("../../../shared/schema.sql");

    /// Columns that may be in the future, and why.
    const LEFT: &[(&str, &str)] = &[
        ("signing_key", "keys are replaced, and dated anew, by the same command"),
        ("access_grant.expires_at", "follows from created_at: what was made in that time has ended"),
        ("authorization_code.expires_at", "belongs to a grant, and was made with it"),
        ("link.expires_at", "what was made in that time is void"),
        ("refresh_token.rotated_at", "an unknown age: whoever presents it again is refused (REFRESH-06)"),
        (
            "refresh_token.expires_at",
            "follows from created_at: what was made in that time has ended with its grant",
        ),
        ("client_secret.expires_at", "shifted"),
        ("client_document.expires_at", "set to now"),
        ("device_transaction.expires_at", "minutes from created_at"),
        ("device_authorization.expires_at", "minutes from created_at"),
        ("authorization_transaction.expires_at", "minutes from created_at"),
        ("initial_access_token.expires_at", "follows from created_at"),
        ("client_assertion.expires_at", "minutes away, or gone"),
        ("ceremony.expires_at", "all are gone"),
        ("dead_token.expires_at", "all are gone"),
    ];

    /// OPS-04: every time column in the schema is in one of these lists, so a new column must be added to one.
    #[test]
    fn every_time_in_the_schema_is_bounded() {
        let mut table = "";
        let mut unknown = Vec::new();
        for line in SCHEMA.lines() {
            if let Some(rest) = line.strip_prefix("CREATE TABLE ") {
                table = rest.split(' ').next().unwrap();
            }
            let mut words = line.split_whitespace();
            let (Some(column), Some(kind)) = (words.next(), words.next()) else { continue };
            let of_time = column.ends_with("_at") || column.ends_with("_time") || column.ends_with("_until");
            if !of_time || !kind.starts_with("INTEGER") {
                continue;
            }
            let begun = BEGUN.iter().any(|(t, columns)| *t == table && columns.contains(&column));
            let forgotten =
                FORGOTTEN.iter().any(|(t, of)| *t == table && of.contains(&format!("{column} > ?1")));
            let name = format!("{table}.{column}");
            let left = LEFT.iter().any(|(left, _)| *left == table || *left == name);
            if !begun && !forgotten && !left {
                unknown.push(name);
            }
        }
        assert_eq!(unknown, [""; 0]);
    }
}

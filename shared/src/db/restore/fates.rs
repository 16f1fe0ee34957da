//! What a restore does to each table (STORE-06).
//!
//! The rows of the backup come back, but access that was revoked since does not. If the latest database is
//! available, as `present`, it says what was revoked. If not, that is unknown, and all users except one
//! administrator are disabled until an administrator has checked them. Anything that gives access by itself,
//! without a passkey or a secret, is deleted in any case.
//!
//! `:now` is the time in milliseconds, `:admin` the id of the administrator.

/// The fate of one table.
pub(super) struct Fate {
    pub(super) table: &'static str,
    /// All its columns: adding one requires a decision about its fate.
    #[cfg_attr(not(test), allow(dead_code, reason = "for the test that compares it with the schema"))]
    pub(super) columns: &'static str,
    /// Run if the latest database is available and continues the backup's log.
    pub(super) carried: &'static [&'static str],
    /// Run if it is unknown what was revoked since the backup.
    pub(super) unknown: &'static [&'static str],
    /// Run in any case.
    pub(super) always: &'static [&'static str],
}

const fn fate(table: &'static str, columns: &'static str) -> Fate {
    Fate { table, columns, carried: &[], unknown: &[], always: &[] }
}

/// In order: deleting a user deletes their dependent rows.
pub(super) const FATES: &[Fate] = &[
    Fate {
        carried: &[
            "DELETE FROM user WHERE id NOT IN (SELECT id FROM present.user)",
            "UPDATE user SET
                disabled_at = coalesce(disabled_at, (SELECT p.disabled_at FROM present.user p WHERE p.id = user.id)),
                role = (SELECT CASE
                    WHEN 'none' IN (user.role, p.role) THEN 'none'
                    WHEN 'viewer' IN (user.role, p.role) THEN 'viewer'
                    WHEN 'operator' IN (user.role, p.role) THEN 'operator'
                    ELSE 'admin' END FROM present.user p WHERE p.id = user.id)",
        ],
        unknown: &["UPDATE user SET disabled_at = coalesce(disabled_at, :now) WHERE id <> :admin"],
        ..fate("user", "id name role handle created_at disabled_at reads_like")
    },
    Fate {
        carried: &["INSERT OR IGNORE INTO past_user (id, name, deleted_at) SELECT id, name, deleted_at FROM present.past_user"],
        ..fate("past_user", "id name deleted_at")
    },
    Fate {
        carried: &["DELETE FROM user_group WHERE NOT EXISTS (SELECT 1 FROM present.user_group p
            WHERE p.user_id = user_group.user_id AND p.name = user_group.name)"],
        ..fate("user_group", "user_id name")
    },
    Fate {
        // Also take over the last use: otherwise a counter that has advanced would seem to have gone back.
        carried: &[
            "DELETE FROM passkey WHERE credential NOT IN (SELECT credential FROM present.passkey)",
            "UPDATE passkey SET (data, last_used_at, label, suspended_at) = (SELECT p.data, p.last_used_at, p.label,
                coalesce(passkey.suspended_at, p.suspended_at) FROM present.passkey p WHERE p.credential = passkey.credential)",
        ],
        unknown: &["UPDATE passkey SET suspended_at = coalesce(suspended_at, :now) WHERE user_id <> :admin"],
        ..fate("passkey", "credential user_id data created_at last_used_at suspended_at label")
    },
    Fate {
        carried: &["DELETE FROM passkey_elsewhere WHERE credential NOT IN (SELECT credential FROM present.passkey_elsewhere)"],
        unknown: &["UPDATE passkey_elsewhere SET suspended_at = coalesce(suspended_at, :now) WHERE user_id <> :admin"],
        ..fate("passkey_elsewhere", "credential user_id host data created_at last_used_at suspended_at label")
    },
    Fate {
        always: &["UPDATE link SET voided_at = :now WHERE used_at IS NULL AND voided_at IS NULL"],
        ..fate("link", "digest purpose user_id created_at expires_at used_at voided_at")
    },
    Fate {
        always: &["DELETE FROM session"],
        ..fate("session", "digest user_id credential amr auth_time seen_at address user_verified backed_up browser")
    },
    Fate {
        always: &["DELETE FROM ceremony"],
        ..fate("ceremony", "digest purpose browser user_id transaction_id link user_name user_handle binding state expires_at holder network")
    },
    Fate {
        // A client's columns are taken over together: keys, redirect URIs, metadata. The latest database has
        // the narrowest state.
        carried: &[
            "DELETE FROM client WHERE id NOT IN (SELECT id FROM present.client)",
            "UPDATE client SET fingerprint = NULL, management = NULL",
            "UPDATE client SET (name, source, trust, auth_method, auth_defaulted, jwks, application_type, grant_types, scope,
                    metadata, fingerprint, management, last_used_at, holder, network, disabled_at, disabled_because) =
                (SELECT p.name, p.source, CASE
                    WHEN 'unverified' IN (client.trust, p.trust) THEN 'unverified'
                    WHEN 'known' IN (client.trust, p.trust) THEN 'known'
                    ELSE 'verified' END,
                    p.auth_method, p.auth_defaulted, p.jwks, p.application_type, p.grant_types, p.scope,
                    p.metadata, p.fingerprint, p.management, p.last_used_at, p.holder, p.network, coalesce(client.disabled_at, p.disabled_at),
                    CASE WHEN 'administrator' IN (coalesce(client.disabled_because, ''), coalesce(p.disabled_because, ''))
                        THEN 'administrator' ELSE coalesce(client.disabled_because, p.disabled_because) END
                FROM present.client p WHERE p.id = client.id)",
        ],
        unknown: &["UPDATE client SET management = NULL, disabled_at = coalesce(disabled_at, :now), disabled_because = 'administrator'"],
        ..fate("client", "id name source trust auth_method auth_defaulted jwks application_type grant_types scope metadata fingerprint management created_at last_used_at disabled_at disabled_because holder network")
    },
    Fate {
        carried: &[
            "DELETE FROM client_redirect_uri",
            "INSERT INTO client_redirect_uri (client_id, uri) SELECT client_id, uri FROM present.client_redirect_uri
                WHERE client_id IN (SELECT id FROM client)",
        ],
        ..fate("client_redirect_uri", "client_id uri")
    },
    Fate {
        carried: &[
            "DELETE FROM client_secret",
            "INSERT INTO client_secret (digest, client_id, created_at, expires_at)
                SELECT digest, client_id, created_at, expires_at FROM present.client_secret
                WHERE client_id IN (SELECT id FROM client)",
        ],
        unknown: &["DELETE FROM client_secret"],
        ..fate("client_secret", "digest client_id created_at expires_at")
    },
    Fate {
        carried: &["DELETE FROM resource_server_audience WHERE NOT EXISTS (SELECT 1 FROM present.resource_server_audience p
            WHERE p.client_id = resource_server_audience.client_id AND p.resource = resource_server_audience.resource)"],
        ..fate("resource_server_audience", "client_id resource")
    },
    Fate {
        carried: &[
            "DELETE FROM client_document WHERE url NOT IN (SELECT url FROM present.client_document)",
            "UPDATE client_document SET (body, sha256, source, imported_by, imported_at, expires_at, holder, network) =
                (SELECT p.body, p.sha256, p.source, p.imported_by, p.imported_at, p.expires_at, p.holder, p.network
                FROM present.client_document p WHERE p.url = client_document.url)",
        ],
        unknown: &["DELETE FROM client_document"],
        ..fate("client_document", "url body sha256 source imported_by imported_at expires_at holder network")
    },
    Fate {
        carried: &["INSERT OR IGNORE INTO catalogue_disabled (url, disabled_at) SELECT url, disabled_at FROM present.catalogue_disabled"],
        ..fate("catalogue_disabled", "url disabled_at")
    },
    Fate { always: &["DELETE FROM approval_request"], ..fate("approval_request", "url redirect_uri user_id created_at holder network") },
    Fate {
        always: &["DELETE FROM initial_access_token"],
        ..fate("initial_access_token", "digest label created_at expires_at")
    },
    Fate {
        always: &["DELETE FROM authorization_transaction"],
        ..fate("authorization_transaction", "id browser client_id redirect_uri state code_challenge scope resource prompt_login prompt_consent max_age session user_id created_at expires_at decided_at proof holder network")
    },
    Fate {
        always: &["DELETE FROM device_transaction"],
        ..fate("device_transaction", "id device_code browser session user_id created_at expires_at decided_at proof holder network")
    },
    Fate {
        always: &["DELETE FROM device_authorization"],
        ..fate("device_authorization", "device_code user_code client_id scope resource address created_at expires_at interval_ms polled_at decided_at grant_id spent_at holder network")
    },
    Fate {
        always: &["DELETE FROM authorization_code"],
        ..fate("authorization_code", "digest grant_id redirect_uri code_challenge expires_at failures spent_at")
    },
    Fate {
        always: &["DELETE FROM refresh_token"],
        ..fate("refresh_token", "digest grant_id generation created_at expires_at rotated_at")
    },
    Fate {
        always: &["UPDATE access_grant SET revoked_at = :now, revoked_because = 'backup_restored' WHERE revoked_at IS NULL"],
        ..fate("access_grant", "id user_id client_id resource scope amr auth_time created_at expires_at seen_generation revoked_at revoked_because address last_used_at")
    },
    Fate { always: &["DELETE FROM client_grant"], ..fate("client_grant", "id client_id resource created_at revoked_at") },
    Fate {
        always: &["DELETE FROM consent"],
        ..fate("consent", "user_id client_id resource scope client_state granted_at")
    },
    Fate {
        always: &["DELETE FROM mcp_session"],
        ..fate("mcp_session", "digest iss sub client_id resource version created_at seen_at")
    },
    Fate {
        // Not OR IGNORE: it would also apply to the triggers' statements.
        carried: &["INSERT INTO client_assertion (digest, holder, stranger, expires_at, network)
            SELECT digest, holder, stranger, expires_at, network FROM present.client_assertion
            WHERE digest NOT IN (SELECT digest FROM client_assertion)"],
        ..fate("client_assertion", "digest holder stranger expires_at network")
    },
    // Updated from the configuration at every start, and fetched from the servers again.
    fate("source", "id name target added_at era walked_at"),
    fate("source_item", "source_id kind position definition"),
    Fate {
        // One that was replaced or removed since may be known to somebody; and what is sealed goes with the key that seals now.
        carried: &[
            "DELETE FROM secret",
            "INSERT INTO secret (name, version, sealed, created_at, changed_at)
                SELECT name, version, sealed, created_at, changed_at FROM present.secret",
        ],
        unknown: &["DELETE FROM secret"],
        ..fate("secret", "name version sealed created_at changed_at")
    },
    Fate {
        carried: &[
            "DELETE FROM user_secret",
            "INSERT INTO user_secret (user_id, source, target, version, sealed, created_at, changed_at)
                SELECT user_id, source, target, version, sealed, created_at, changed_at FROM present.user_secret
                WHERE user_id IN (SELECT id FROM user)",
        ],
        unknown: &["DELETE FROM user_secret"],
        ..fate("user_secret", "user_id source target version sealed created_at changed_at")
    },
    Fate {
        // What was used up since stays used up.
        carried: &[
            "DELETE FROM call_count",
            "INSERT INTO call_count (counter, counted_at, call) SELECT counter, counted_at, call FROM present.call_count",
        ],
        ..fate("call_count", "counter counted_at call")
    },
    // Maintained by triggers.
    fate("share", "kept network holder held"),
    Fate {
        carried: &[
            "DELETE FROM room_made",
            "INSERT INTO room_made (kept, network, outcome, times) SELECT kept, network, outcome, times FROM present.room_made",
        ],
        ..fate("room_made", "kept network outcome times")
    },
    Fate {
        carried: &["INSERT OR IGNORE INTO dead_token (jti, expires_at) SELECT jti, expires_at FROM present.dead_token"],
        ..fate("dead_token", "jti expires_at")
    },
    Fate {
        carried: &["INSERT OR IGNORE INTO buried_grant (id, buried_at) SELECT id, buried_at FROM present.buried_grant"],
        ..fate("buried_grant", "id buried_at")
    },
    Fate {
        // A removed key may be compromised. If no key is left, the next start makes new ones.
        carried: &[
            "DELETE FROM signing_key",
            "INSERT INTO signing_key (kid, alg, state, public_jwk, sealed, created_at, activated_at, retired_at, activate_at)
                SELECT kid, alg, state, public_jwk, sealed, created_at, activated_at, retired_at, activate_at FROM present.signing_key",
        ],
        unknown: &["DELETE FROM signing_key"],
        ..fate("signing_key", "kid alg state public_jwk sealed created_at activated_at retired_at activate_at")
    },
    Fate {
        carried: &[
            // Sealed values must match the current sealing key.
            "DELETE FROM setting WHERE name = 'checkpoint_key' OR name LIKE 'seal\\_earlier:%' ESCAPE '\\'",
            "INSERT INTO setting (name, value) SELECT name, value FROM present.setting
                WHERE name = 'checkpoint_key' OR name LIKE 'seal\\_earlier:%' ESCAPE '\\'",
        ],
        always: &["INSERT INTO setting (name, value) VALUES ('everything_ended_until', :now), ('tokens_void_until', :now / 1000)
            ON CONFLICT (name) DO UPDATE SET value = excluded.value"],
        ..fate("setting", "name value")
    },
    Fate {
        carried: &["INSERT INTO audit (seq, record, hash) SELECT seq, record, hash FROM present.audit
            WHERE seq > (SELECT coalesce(max(seq), 0) FROM audit)"],
        ..fate("audit", "seq record hash event actor client")
    },
];

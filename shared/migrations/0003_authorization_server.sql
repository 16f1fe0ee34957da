-- Clients of every origin, their ways to authenticate, remembered consents, devices, and what was revoked
-- one by one.

-- `client` is made anew because `source` had one value only. Foreign keys are off while migrations run and
-- are checked before they commit.
CREATE TABLE client_new (
    id               TEXT PRIMARY KEY,
    name             TEXT NOT NULL,
    source           TEXT NOT NULL CHECK (source IN ('self_registered', 'administrator', 'configuration', 'catalogue', 'imported', 'fetched', 'unknown_url')),
    trust            TEXT NOT NULL CHECK (trust IN ('unverified', 'known', 'verified')),
    auth_method      TEXT NOT NULL CHECK (auth_method IN ('none', 'client_secret_basic', 'client_secret_post', 'private_key_jwt')),
    auth_defaulted   INTEGER NOT NULL DEFAULT 0,
    jwks             TEXT,
    application_type TEXT NOT NULL CHECK (application_type IN ('native', 'web')),
    grant_types      TEXT NOT NULL,
    scope            TEXT NOT NULL DEFAULT '',
    metadata         TEXT NOT NULL,
    fingerprint      BLOB,
    management       BLOB,
    created_at       INTEGER NOT NULL,
    last_used_at     INTEGER,
    disabled_at      INTEGER,
    disabled_because TEXT CHECK (disabled_because IN ('administrator', 'left_configuration'))
) STRICT;
INSERT INTO client_new (id, name, source, trust, auth_method, application_type, grant_types, metadata, created_at, last_used_at, disabled_at)
    SELECT id, name, source, trust, auth_method, application_type, grant_types, metadata, created_at, last_used_at, disabled_at FROM client;
DROP TABLE client;
ALTER TABLE client_new RENAME TO client;
CREATE INDEX client_unused ON client (created_at) WHERE last_used_at IS NULL;
CREATE INDEX client_idle ON client (last_used_at) WHERE last_used_at IS NOT NULL;
CREATE INDEX client_verified ON client (name) WHERE trust = 'verified';
CREATE UNIQUE INDEX client_fingerprint ON client (fingerprint) WHERE fingerprint IS NOT NULL;
CREATE UNIQUE INDEX client_management ON client (management) WHERE management IS NOT NULL;

-- Secrets of confidential clients, by digest; two may be live at once (CAUTH-04).
CREATE TABLE client_secret (
    digest     BLOB PRIMARY KEY,
    client_id  TEXT NOT NULL REFERENCES client (id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    expires_at INTEGER
) STRICT;
CREATE INDEX client_secret_client ON client_secret (client_id);

-- Client assertions that were used: digest of client and `jti`, until they expire (CAUTH-05).
CREATE TABLE client_assertion (
    digest     BLOB PRIMARY KEY,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX client_assertion_expiry ON client_assertion (expires_at);

-- Initial access tokens for registration in mode `token` (DCR-01).
CREATE TABLE initial_access_token (
    digest     BLOB PRIMARY KEY,
    label      TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

-- Resource servers are clients that may introspect; what each may ask about (INTRO-01, INTRO-04).
CREATE TABLE resource_server_audience (
    client_id TEXT NOT NULL REFERENCES client (id) ON DELETE CASCADE,
    resource  TEXT NOT NULL,
    PRIMARY KEY (client_id, resource)
) STRICT, WITHOUT ROWID;

-- What a client holds in its own name: the row behind its client_credentials tokens (CC-01).
CREATE TABLE client_grant (
    id         TEXT PRIMARY KEY,
    client_id  TEXT NOT NULL REFERENCES client (id) ON DELETE CASCADE,
    resource   TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;
CREATE UNIQUE INDEX client_grant_live ON client_grant (client_id, resource) WHERE revoked_at IS NULL;
CREATE INDEX client_grant_revoked ON client_grant (revoked_at) WHERE revoked_at IS NOT NULL;

-- Consents that may be remembered, and withdrawn (CONSENT-04, CONSENT-07). `client_state` is a digest of what
-- the client was when the user said yes.
CREATE TABLE consent (
    user_id      TEXT NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    client_id    TEXT NOT NULL REFERENCES client (id) ON DELETE CASCADE,
    resource     TEXT NOT NULL,
    scope        TEXT NOT NULL,
    client_state BLOB NOT NULL,
    granted_at   INTEGER NOT NULL,
    PRIMARY KEY (user_id, client_id, resource)
) STRICT, WITHOUT ROWID;
CREATE INDEX consent_client ON consent (client_id);

-- Device authorizations under way (RFC 8628). The device code by digest, the short user code by keyed digest.
-- Decided with a grant is approved; decided without one is refused.
CREATE TABLE device_authorization (
    device_code BLOB PRIMARY KEY,
    user_code   BLOB NOT NULL UNIQUE,
    client_id   TEXT NOT NULL REFERENCES client (id) ON DELETE CASCADE,
    scope       TEXT NOT NULL,
    resource    TEXT NOT NULL,
    address     TEXT,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    interval_ms INTEGER NOT NULL,
    polled_at   INTEGER,
    decided_at  INTEGER,
    grant_id    TEXT REFERENCES access_grant (id) ON DELETE CASCADE,
    spent_at    INTEGER
) STRICT;
CREATE INDEX device_authorization_expiry ON device_authorization (expires_at);
CREATE INDEX device_authorization_client ON device_authorization (client_id);
CREATE INDEX device_authorization_grant ON device_authorization (grant_id);

-- Somebody who typed a device's user code in a browser, until they decide; `session`, `user_id` and `proof` as in
-- `authorization_transaction`.
CREATE TABLE device_transaction (
    id          TEXT PRIMARY KEY,
    device_code BLOB NOT NULL REFERENCES device_authorization (device_code) ON DELETE CASCADE,
    browser     BLOB NOT NULL,
    session     BLOB,
    user_id     TEXT REFERENCES user (id) ON DELETE CASCADE,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    decided_at  INTEGER,
    proof       BLOB
) STRICT;
CREATE INDEX device_transaction_device ON device_transaction (device_code);
CREATE INDEX device_transaction_user ON device_transaction (user_id);

-- Client id metadata documents that an administrator imported or the server fetched, byte for byte (CIMD-05).
CREATE TABLE client_document (
    url         TEXT PRIMARY KEY,
    body        BLOB NOT NULL,
    sha256      BLOB NOT NULL,
    source      TEXT NOT NULL CHECK (source IN ('imported', 'fetched')),
    imported_by TEXT,
    imported_at INTEGER NOT NULL,
    expires_at  INTEGER
) STRICT;

-- Entries of the built-in catalogue that the site has switched off (CIMD-13).
CREATE TABLE catalogue_disabled (
    url         TEXT PRIMARY KEY,
    disabled_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Users' wishes that an administrator may look into: one for each URL (CIMD-09).
CREATE TABLE approval_request (
    url          TEXT PRIMARY KEY,
    redirect_uri TEXT NOT NULL,
    user_id      TEXT NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    created_at   INTEGER NOT NULL
) STRICT;
CREATE INDEX approval_request_user ON approval_request (user_id);

-- Access tokens that were revoked one by one, until they expire (REVOKE-04).
CREATE TABLE dead_token (
    jti        TEXT PRIMARY KEY,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX dead_token_expiry ON dead_token (expires_at);

-- Grants whose rows went with their client while access tokens on them could still be presented (RS-08).
CREATE TABLE buried_grant (
    id        TEXT PRIMARY KEY,
    buried_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX buried_grant_age ON buried_grant (buried_at);

-- What users are shown of a grant (REVOKE-07).
ALTER TABLE access_grant ADD COLUMN address TEXT;
ALTER TABLE access_grant ADD COLUMN last_used_at INTEGER;
ALTER TABLE session ADD COLUMN address TEXT;

-- How somebody signed in, for later checks (SESSION-10). Sessions from before count as not verified.
ALTER TABLE session ADD COLUMN user_verified INTEGER NOT NULL DEFAULT 0;
ALTER TABLE session ADD COLUMN backed_up INTEGER NOT NULL DEFAULT 0;

-- Ceremonies and requests that wait for a person live for minutes: those under way start again.
-- `binding` is a digest of what the assertion confirms (CONSENT-08).
DROP TABLE ceremony;
CREATE TABLE ceremony (
    digest      BLOB PRIMARY KEY,
    purpose     TEXT NOT NULL CHECK (purpose IN ('setup', 'enrol', 'sign_in', 'step_up', 'add_passkey', 'consent')),
    browser     BLOB NOT NULL,
    user_id     TEXT REFERENCES user (id) ON DELETE CASCADE,
    transaction_id TEXT,
    link        BLOB,
    user_name   TEXT,
    user_handle BLOB,
    binding     BLOB,
    state       TEXT NOT NULL,
    expires_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX ceremony_expiry ON ceremony (expires_at);
CREATE INDEX ceremony_user ON ceremony (user_id);

-- Authorization requests that wait for a person (AUTHZ-07, 15). `session` and `user_id` are set by
-- a passkey assertion made in the transaction; `proof` is the digest of what only the page that made it knows.
-- `client_id` is no foreign key: a client named by a URL may have no row before somebody consents (CIMD-09).
DROP TABLE authorization_transaction;
CREATE TABLE authorization_transaction (
    id             TEXT PRIMARY KEY,
    browser        BLOB NOT NULL,
    client_id      TEXT NOT NULL,
    redirect_uri   TEXT NOT NULL,
    state          TEXT,
    code_challenge TEXT NOT NULL CHECK (length(code_challenge) = 43),
    scope          TEXT NOT NULL,
    resource       TEXT NOT NULL,
    prompt_login   INTEGER NOT NULL,
    prompt_consent INTEGER NOT NULL,
    max_age        INTEGER,
    session        BLOB,
    user_id        TEXT REFERENCES user (id) ON DELETE CASCADE,
    created_at     INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL,
    decided_at     INTEGER,
    proof          BLOB
) STRICT;
CREATE INDEX authorization_transaction_expiry ON authorization_transaction (expires_at);
CREATE INDEX authorization_transaction_user ON authorization_transaction (user_id);
CREATE INDEX authorization_transaction_client ON authorization_transaction (client_id);
CREATE INDEX authorization_transaction_browser ON authorization_transaction (browser);
CREATE INDEX authorization_transaction_session ON authorization_transaction (session) WHERE session IS NOT NULL;

-- When a key that is next takes over (KEYS-02).
ALTER TABLE signing_key ADD COLUMN activate_at INTEGER;

CREATE TABLE audit (
    seq      INTEGER PRIMARY KEY,
    record   TEXT NOT NULL,
    hash     BLOB NOT NULL,
    event    TEXT GENERATED ALWAYS AS (json_extract(record, '$.event')) VIRTUAL,
    actor    TEXT GENERATED ALWAYS AS (json_extract(record, '$.actor.id')) VIRTUAL,
    client   TEXT GENERATED ALWAYS AS (json_extract(record, '$.client_id')) VIRTUAL
) STRICT;

CREATE TABLE signing_key (
    kid          TEXT PRIMARY KEY,
    alg          TEXT NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('next', 'active', 'retired')),
    public_jwk   TEXT NOT NULL,
    sealed       BLOB NOT NULL,
    created_at   INTEGER NOT NULL,
    activated_at INTEGER,
    retired_at   INTEGER
) STRICT;
CREATE UNIQUE INDEX signing_key_active ON signing_key (alg) WHERE state = 'active';

CREATE TABLE user (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    role        TEXT NOT NULL CHECK (role IN ('none', 'viewer', 'operator', 'admin')),
    handle      BLOB NOT NULL UNIQUE,
    created_at  INTEGER NOT NULL,
    disabled_at INTEGER
) STRICT;

CREATE TABLE passkey (
    credential      BLOB PRIMARY KEY,
    user_id         TEXT NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    data            TEXT NOT NULL,
    created_at      INTEGER NOT NULL,
    last_used_at    INTEGER,
    suspended_at    INTEGER
) STRICT;
CREATE INDEX passkey_user ON passkey (user_id);

CREATE TABLE link (
    digest     BLOB PRIMARY KEY,
    purpose    TEXT NOT NULL CHECK (purpose IN ('setup', 'enrol')),
    user_id    TEXT REFERENCES user (id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at    INTEGER,
    voided_at  INTEGER,
    CHECK ((purpose = 'setup') = (user_id IS NULL))
) STRICT;
CREATE INDEX link_user ON link (user_id);

CREATE TABLE session (
    digest     BLOB PRIMARY KEY,
    user_id    TEXT NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    credential BLOB NOT NULL REFERENCES passkey (credential) ON DELETE CASCADE,
    amr        TEXT NOT NULL,
    auth_time  INTEGER NOT NULL,
    seen_at    INTEGER NOT NULL
) STRICT;
CREATE INDEX session_user ON session (user_id);

CREATE TABLE ceremony (
    digest      BLOB PRIMARY KEY,
    purpose     TEXT NOT NULL CHECK (purpose IN ('setup', 'enrol', 'sign_in', 'step_up', 'add_passkey')),
    browser     BLOB NOT NULL,
    user_id     TEXT REFERENCES user (id) ON DELETE CASCADE,
    transaction_id TEXT,
    link        BLOB,
    user_name   TEXT,
    user_handle BLOB,
    state       TEXT NOT NULL,
    expires_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX ceremony_expiry ON ceremony (expires_at);

CREATE TABLE client (
    id               TEXT PRIMARY KEY,
    name             TEXT NOT NULL,
    source           TEXT NOT NULL CHECK (source IN ('self_registered')),
    trust            TEXT NOT NULL CHECK (trust IN ('unverified', 'known', 'verified')),
    auth_method      TEXT NOT NULL,
    application_type TEXT NOT NULL CHECK (application_type IN ('native', 'web')),
    grant_types      TEXT NOT NULL,
    metadata         TEXT NOT NULL,
    created_at       INTEGER NOT NULL,
    last_used_at     INTEGER,
    disabled_at      INTEGER
) STRICT;
CREATE INDEX client_unused ON client (created_at) WHERE last_used_at IS NULL;

CREATE TABLE client_redirect_uri (
    client_id TEXT NOT NULL REFERENCES client (id) ON DELETE CASCADE,
    uri       TEXT NOT NULL,
    PRIMARY KEY (client_id, uri)
) STRICT, WITHOUT ROWID;

CREATE TABLE authorization_transaction (
    id             TEXT PRIMARY KEY,
    browser        BLOB NOT NULL,
    client_id      TEXT NOT NULL REFERENCES client (id) ON DELETE CASCADE,
    redirect_uri   TEXT NOT NULL,
    state          TEXT,
    code_challenge TEXT NOT NULL CHECK (length(code_challenge) = 43),
    scope          TEXT NOT NULL,
    resource       TEXT NOT NULL,
    prompt_login   INTEGER NOT NULL,
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

CREATE TABLE access_grant (
    id              TEXT PRIMARY KEY,
    user_id         TEXT NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    client_id       TEXT NOT NULL REFERENCES client (id) ON DELETE CASCADE,
    resource        TEXT NOT NULL,
    scope           TEXT NOT NULL,
    amr             TEXT NOT NULL,
    auth_time       INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    expires_at      INTEGER NOT NULL,
    seen_generation INTEGER,
    revoked_at      INTEGER,
    revoked_because TEXT
) STRICT;
CREATE INDEX access_grant_user ON access_grant (user_id);
CREATE INDEX access_grant_client ON access_grant (client_id);
CREATE INDEX access_grant_expiry ON access_grant (expires_at);
CREATE INDEX access_grant_revoked ON access_grant (revoked_at) WHERE revoked_at IS NOT NULL;

CREATE TABLE authorization_code (
    digest         BLOB PRIMARY KEY,
    grant_id       TEXT NOT NULL REFERENCES access_grant (id) ON DELETE CASCADE,
    redirect_uri   TEXT NOT NULL,
    code_challenge TEXT NOT NULL CHECK (length(code_challenge) = 43),
    expires_at     INTEGER NOT NULL,
    failures       INTEGER NOT NULL DEFAULT 0,
    spent_at       INTEGER
) STRICT;
CREATE INDEX authorization_code_grant ON authorization_code (grant_id);
CREATE INDEX authorization_code_expiry ON authorization_code (expires_at);

CREATE TABLE refresh_token (
    digest     BLOB PRIMARY KEY,
    grant_id   TEXT NOT NULL REFERENCES access_grant (id) ON DELETE CASCADE,
    generation INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    rotated_at INTEGER,
    UNIQUE (grant_id, generation)
) STRICT, WITHOUT ROWID;

CREATE TABLE user_group (
    user_id TEXT NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    name    TEXT NOT NULL,
    PRIMARY KEY (user_id, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE setting (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

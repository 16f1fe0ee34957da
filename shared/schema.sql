-- The schema that the migrations arrive at; a test compares the two.
-- Times are Unix milliseconds; secrets are SHA-256 digests.

-- One record per decision, chained by hash (AUDIT-02). `record` is canonical JSON; the columns
-- after `hash` are read from it, for searching.
CREATE TABLE audit (
    seq      INTEGER PRIMARY KEY,
    record   TEXT NOT NULL,
    hash     BLOB NOT NULL,
    event    TEXT GENERATED ALWAYS AS (json_extract(record, '$.event')) VIRTUAL,
    actor    TEXT GENERATED ALWAYS AS (json_extract(record, '$.actor.id')) VIRTUAL,
    client   TEXT GENERATED ALWAYS AS (json_extract(record, '$.client_id')) VIRTUAL
) STRICT;

-- Signing keys. The private half is sealed with a key that is not in this file (KEYS-05); of a retired key only
-- the public half is kept. `activate_at` is when a key that is next takes over.
CREATE TABLE signing_key (
    kid          TEXT PRIMARY KEY,
    alg          TEXT NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('next', 'active', 'retired')),
    public_jwk   TEXT NOT NULL,
    sealed       BLOB NOT NULL,
    created_at   INTEGER NOT NULL,
    activated_at INTEGER,
    retired_at   INTEGER,
    activate_at  INTEGER
) STRICT;
CREATE UNIQUE INDEX signing_key_active ON signing_key (alg) WHERE state = 'active';

-- People. `handle` is what their passkeys know them by; it is no name (WEBAUTHN-02). Names with equal `reads_like`
-- look alike to a person; it is made anew at every start.
CREATE TABLE user (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    role        TEXT NOT NULL CHECK (role IN ('none', 'viewer', 'operator', 'admin')),
    handle      BLOB NOT NULL UNIQUE,
    created_at  INTEGER NOT NULL,
    disabled_at INTEGER,
    reads_like  TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX user_reads_like ON user (reads_like);

-- What deleted users were called: the audit log names people by their ids, and is read with this beside it.
CREATE TABLE past_user (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    deleted_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- WebAuthn credentials. `data` is webauthn-rs's own record of one, as JSON. `suspended_at` is set
-- when a counter went backwards (WEBAUTHN-08).
CREATE TABLE passkey (
    credential      BLOB PRIMARY KEY,
    user_id         TEXT NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    data            TEXT NOT NULL,
    created_at      INTEGER NOT NULL,
    last_used_at    INTEGER,
    suspended_at    INTEGER,
    label           TEXT
) STRICT;
CREATE INDEX passkey_user ON passkey (user_id);

-- Passkeys of a host that the issuer had before: no browser offers them under another one (WEBAUTHN-01). They are
-- back when the issuer is.
CREATE TABLE passkey_elsewhere (
    credential   BLOB PRIMARY KEY,
    user_id      TEXT NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    host         TEXT NOT NULL,
    data         TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    last_used_at INTEGER,
    suspended_at INTEGER,
    label        TEXT
) STRICT;
CREATE INDEX passkey_elsewhere_user ON passkey_elsewhere (user_id);

-- One-use links: the first administrator's setup link, and enrolment links (ENROL-01, 02).
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

-- Browser sessions; `digest` is SHA-256 of the cookie (SESSION-03). How somebody signed in stands beside who it
-- was: which passkey, its methods, whether it checked the user, whether it is backed up (SESSION-10).
CREATE TABLE session (
    digest        BLOB PRIMARY KEY,
    user_id       TEXT NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    credential    BLOB NOT NULL REFERENCES passkey (credential) ON DELETE CASCADE,
    amr           TEXT NOT NULL,
    auth_time     INTEGER NOT NULL,
    seen_at       INTEGER NOT NULL,
    address       TEXT,
    user_verified INTEGER NOT NULL DEFAULT 0,
    backed_up     INTEGER NOT NULL DEFAULT 0,
    browser       TEXT
) STRICT;
CREATE INDEX session_user ON session (user_id);

-- WebAuthn ceremonies under way; a row is deleted the first time it is presented (WEBAUTHN-03). `binding` is a
-- digest of what the assertion confirms (CONSENT-08).
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
    expires_at  INTEGER NOT NULL,
    holder      TEXT,
    network     TEXT
) STRICT;
CREATE INDEX ceremony_expiry ON ceremony (expires_at);
CREATE INDEX ceremony_user ON ceremony (user_id);
CREATE INDEX ceremony_holder ON ceremony (holder, expires_at) WHERE holder IS NOT NULL;
CREATE TRIGGER ceremony_held AFTER INSERT ON ceremony WHEN NEW.holder IS NOT NULL BEGIN
    INSERT INTO share_change VALUES ('ceremony', NEW.network, NEW.holder, 1);
END;
CREATE TRIGGER ceremony_let_go AFTER DELETE ON ceremony WHEN OLD.holder IS NOT NULL BEGIN
    INSERT INTO share_change VALUES ('ceremony', OLD.network, OLD.holder, -1);
END;
CREATE TRIGGER ceremony_handed_on AFTER UPDATE OF holder, network ON ceremony BEGIN
    INSERT INTO share_change SELECT 'ceremony', OLD.network, OLD.holder, -1 WHERE OLD.holder IS NOT NULL;
    INSERT INTO share_change SELECT 'ceremony', NEW.network, NEW.holder, 1 WHERE NEW.holder IS NOT NULL;
END;

-- OAuth clients, whatever made them known. `metadata` is what the registration answered with (RFC 7591
-- section 3.2.1), or the document; `scope` is what the client may have in its own name (CC-01);
-- `auth_defaulted` says that it named no way to authenticate (CAUTH-01). `fingerprint` is a digest of a
-- self-registration, so that the same one is not stored twice; `management` is the digest of its
-- registration access token (RFC 7592). `disabled_because` tells a client that an administrator stopped from
-- one that is no longer configured and comes back when it is.
CREATE TABLE client (
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
    disabled_because TEXT CHECK (disabled_because IN ('administrator', 'left_configuration')),
    holder           TEXT,
    network          TEXT
) STRICT;
CREATE INDEX client_unused ON client (created_at) WHERE last_used_at IS NULL;
CREATE INDEX client_idle ON client (last_used_at) WHERE last_used_at IS NOT NULL;
CREATE INDEX client_verified ON client (name) WHERE trust = 'verified';
CREATE UNIQUE INDEX client_fingerprint ON client (fingerprint) WHERE fingerprint IS NOT NULL;
CREATE UNIQUE INDEX client_management ON client (management) WHERE management IS NOT NULL;
CREATE INDEX client_holder ON client (holder, created_at) WHERE holder IS NOT NULL;
CREATE TRIGGER client_held AFTER INSERT ON client WHEN NEW.holder IS NOT NULL BEGIN
    INSERT INTO share_change VALUES ('client', NEW.network, NEW.holder, 1);
END;
CREATE TRIGGER client_let_go AFTER DELETE ON client WHEN OLD.holder IS NOT NULL BEGIN
    INSERT INTO share_change VALUES ('client', OLD.network, OLD.holder, -1);
END;
CREATE TRIGGER client_handed_on AFTER UPDATE OF holder, network ON client BEGIN
    INSERT INTO share_change SELECT 'client', OLD.network, OLD.holder, -1 WHERE OLD.holder IS NOT NULL;
    INSERT INTO share_change SELECT 'client', NEW.network, NEW.holder, 1 WHERE NEW.holder IS NOT NULL;
END;

-- Their redirect URIs, byte for byte (REDIR-01).
CREATE TABLE client_redirect_uri (
    client_id TEXT NOT NULL REFERENCES client (id) ON DELETE CASCADE,
    uri       TEXT NOT NULL,
    PRIMARY KEY (client_id, uri)
) STRICT, WITHOUT ROWID;

-- Authorization requests that wait for a person (AUTHZ-07, 15). `session` and `user_id` are set by
-- a passkey assertion made in the transaction; `proof` is the digest of what only the page that made it knows.
-- `client_id` is no foreign key: a client named by a URL may have no row before somebody consents (CIMD-09).
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
    proof          BLOB,
    holder         TEXT,
    network        TEXT
) STRICT;
CREATE INDEX authorization_transaction_expiry ON authorization_transaction (expires_at);
CREATE INDEX authorization_transaction_user ON authorization_transaction (user_id);
CREATE INDEX authorization_transaction_client ON authorization_transaction (client_id);
CREATE INDEX authorization_transaction_browser ON authorization_transaction (browser);
CREATE INDEX authorization_transaction_session ON authorization_transaction (session) WHERE session IS NOT NULL;
CREATE INDEX authorization_transaction_holder ON authorization_transaction (holder, expires_at) WHERE holder IS NOT NULL;
CREATE TRIGGER authorization_transaction_held AFTER INSERT ON authorization_transaction WHEN NEW.holder IS NOT NULL BEGIN
    INSERT INTO share_change VALUES ('authorization_transaction', NEW.network, NEW.holder, 1);
END;
CREATE TRIGGER authorization_transaction_let_go AFTER DELETE ON authorization_transaction WHEN OLD.holder IS NOT NULL BEGIN
    INSERT INTO share_change VALUES ('authorization_transaction', OLD.network, OLD.holder, -1);
END;
CREATE TRIGGER authorization_transaction_handed_on AFTER UPDATE OF holder, network ON authorization_transaction BEGIN
    INSERT INTO share_change SELECT 'authorization_transaction', OLD.network, OLD.holder, -1 WHERE OLD.holder IS NOT NULL;
    INSERT INTO share_change SELECT 'authorization_transaction', NEW.network, NEW.holder, 1 WHERE NEW.holder IS NOT NULL;
END;

-- What a user has granted to a client at one resource: one refresh family (TOKEN-11).
-- `seen_generation` is the newest one whose access token was presented (REFRESH-06).
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
    revoked_because TEXT,
    address         TEXT,
    last_used_at    INTEGER
) STRICT;
CREATE INDEX access_grant_user ON access_grant (user_id);
CREATE INDEX access_grant_client ON access_grant (client_id);
CREATE INDEX access_grant_expiry ON access_grant (expires_at);
CREATE INDEX access_grant_revoked ON access_grant (revoked_at) WHERE revoked_at IS NOT NULL;

-- Authorization codes, by digest. None exists without a challenge (PKCE-05).
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

-- Refresh tokens, by digest. The leaf of a family is the one with `rotated_at` NULL (REFRESH-04).
CREATE TABLE refresh_token (
    digest     BLOB PRIMARY KEY,
    grant_id   TEXT NOT NULL REFERENCES access_grant (id) ON DELETE CASCADE,
    generation INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    rotated_at INTEGER,
    UNIQUE (grant_id, generation)
) STRICT, WITHOUT ROWID;

-- Who is in which group besides `everyone`. What a group may be granted stands in the configuration.
CREATE TABLE user_group (
    user_id TEXT NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    name    TEXT NOT NULL,
    PRIMARY KEY (user_id, name)
) STRICT, WITHOUT ROWID;

-- What a command needs to know while no server runs: the issuer of the last one.
CREATE TABLE setting (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Sessions of MCP revisions that have them; `digest` is SHA-256 of the id. Bound to whoever the
-- token said it was and to the endpoint (MCP-12). No foreign keys: users and clients may be another
-- issuer's. `version` is the negotiated revision.
CREATE TABLE mcp_session (
    digest     BLOB PRIMARY KEY,
    iss        TEXT NOT NULL,
    sub        TEXT NOT NULL,
    client_id  TEXT NOT NULL,
    resource   TEXT NOT NULL,
    version    TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    seen_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX mcp_session_principal ON mcp_session (sub, client_id, iss);
CREATE INDEX mcp_session_seen ON mcp_session (sub, seen_at);
CREATE TRIGGER mcp_session_held AFTER INSERT ON mcp_session BEGIN
    INSERT INTO share_change VALUES ('mcp_session', NEW.sub, NEW.sub, 1);
END;
CREATE TRIGGER mcp_session_let_go AFTER DELETE ON mcp_session BEGIN
    INSERT INTO share_change VALUES ('mcp_session', OLD.sub, OLD.sub, -1);
END;

-- Secrets of confidential clients, by digest; two may be live at once (CAUTH-04).
CREATE TABLE client_secret (
    digest     BLOB PRIMARY KEY,
    client_id  TEXT NOT NULL REFERENCES client (id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    expires_at INTEGER
) STRICT;
CREATE INDEX client_secret_client ON client_secret (client_id);

-- Client assertions that were used: digest of client and `jti`, until they expire (CAUTH-05). `holder` answers for it: a
-- client that the site knows, or the address of one that registered itself, a stranger.
CREATE TABLE client_assertion (
    digest     BLOB PRIMARY KEY,
    holder     TEXT NOT NULL,
    stranger   INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    network    TEXT NOT NULL DEFAULT ''
) STRICT, WITHOUT ROWID;
CREATE INDEX client_assertion_expiry ON client_assertion (expires_at);
CREATE TRIGGER client_assertion_spent AFTER INSERT ON client_assertion BEGIN
    INSERT INTO share_change
        VALUES (iif(NEW.stranger, 'client_assertion', 'client_assertion of clients'), NEW.network, NEW.holder, 1);
END;
CREATE TRIGGER client_assertion_forgotten AFTER DELETE ON client_assertion BEGIN
    INSERT INTO share_change
        VALUES (iif(OLD.stranger, 'client_assertion', 'client_assertion of clients'), OLD.network, OLD.holder, -1);
END;


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
    spent_at    INTEGER,
    holder      TEXT,
    network     TEXT
) STRICT;
CREATE INDEX device_authorization_expiry ON device_authorization (expires_at);
CREATE INDEX device_authorization_client ON device_authorization (client_id);
CREATE INDEX device_authorization_grant ON device_authorization (grant_id);
CREATE INDEX device_authorization_holder ON device_authorization (holder, created_at) WHERE holder IS NOT NULL;
CREATE TRIGGER device_authorization_held AFTER INSERT ON device_authorization WHEN NEW.holder IS NOT NULL BEGIN
    INSERT INTO share_change VALUES ('device_authorization', NEW.network, NEW.holder, 1);
END;
CREATE TRIGGER device_authorization_let_go AFTER DELETE ON device_authorization WHEN OLD.holder IS NOT NULL BEGIN
    INSERT INTO share_change VALUES ('device_authorization', OLD.network, OLD.holder, -1);
END;
CREATE TRIGGER device_authorization_handed_on AFTER UPDATE OF holder, network ON device_authorization BEGIN
    INSERT INTO share_change SELECT 'device_authorization', OLD.network, OLD.holder, -1 WHERE OLD.holder IS NOT NULL;
    INSERT INTO share_change SELECT 'device_authorization', NEW.network, NEW.holder, 1 WHERE NEW.holder IS NOT NULL;
END;

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
    proof       BLOB,
    holder      TEXT,
    network     TEXT
) STRICT;
CREATE INDEX device_transaction_device ON device_transaction (device_code);
CREATE INDEX device_transaction_user ON device_transaction (user_id);
CREATE INDEX device_transaction_holder ON device_transaction (holder, created_at) WHERE holder IS NOT NULL;
CREATE TRIGGER device_transaction_held AFTER INSERT ON device_transaction WHEN NEW.holder IS NOT NULL BEGIN
    INSERT INTO share_change VALUES ('device_transaction', NEW.network, NEW.holder, 1);
END;
CREATE TRIGGER device_transaction_let_go AFTER DELETE ON device_transaction WHEN OLD.holder IS NOT NULL BEGIN
    INSERT INTO share_change VALUES ('device_transaction', OLD.network, OLD.holder, -1);
END;
CREATE TRIGGER device_transaction_handed_on AFTER UPDATE OF holder, network ON device_transaction BEGIN
    INSERT INTO share_change SELECT 'device_transaction', OLD.network, OLD.holder, -1 WHERE OLD.holder IS NOT NULL;
    INSERT INTO share_change SELECT 'device_transaction', NEW.network, NEW.holder, 1 WHERE NEW.holder IS NOT NULL;
END;

-- Client id metadata documents that an administrator imported or the server fetched, byte for byte (CIMD-05).
CREATE TABLE client_document (
    url         TEXT PRIMARY KEY,
    body        BLOB NOT NULL,
    sha256      BLOB NOT NULL,
    source      TEXT NOT NULL CHECK (source IN ('imported', 'fetched')),
    imported_by TEXT,
    imported_at INTEGER NOT NULL,
    expires_at  INTEGER,
    holder      TEXT,
    network     TEXT
) STRICT;
CREATE INDEX client_document_holder ON client_document (holder, expires_at) WHERE holder IS NOT NULL;
CREATE TRIGGER client_document_held AFTER INSERT ON client_document WHEN NEW.holder IS NOT NULL BEGIN
    INSERT INTO share_change VALUES ('client_document', NEW.network, NEW.holder, 1);
END;
CREATE TRIGGER client_document_let_go AFTER DELETE ON client_document WHEN OLD.holder IS NOT NULL BEGIN
    INSERT INTO share_change VALUES ('client_document', OLD.network, OLD.holder, -1);
END;
CREATE TRIGGER client_document_handed_on AFTER UPDATE OF holder, network ON client_document BEGIN
    INSERT INTO share_change SELECT 'client_document', OLD.network, OLD.holder, -1 WHERE OLD.holder IS NOT NULL;
    INSERT INTO share_change SELECT 'client_document', NEW.network, NEW.holder, 1 WHERE NEW.holder IS NOT NULL;
END;

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
    created_at   INTEGER NOT NULL,
    holder       TEXT,
    network      TEXT
) STRICT;
CREATE INDEX approval_request_user ON approval_request (user_id);
CREATE INDEX approval_request_holder ON approval_request (holder, created_at) WHERE holder IS NOT NULL;
CREATE TRIGGER approval_request_held AFTER INSERT ON approval_request WHEN NEW.holder IS NOT NULL BEGIN
    INSERT INTO share_change VALUES ('approval_request', NEW.network, NEW.holder, 1);
END;
CREATE TRIGGER approval_request_let_go AFTER DELETE ON approval_request WHEN OLD.holder IS NOT NULL BEGIN
    INSERT INTO share_change VALUES ('approval_request', OLD.network, OLD.holder, -1);
END;
CREATE TRIGGER approval_request_handed_on AFTER UPDATE OF holder, network ON approval_request BEGIN
    INSERT INTO share_change SELECT 'approval_request', OLD.network, OLD.holder, -1 WHERE OLD.holder IS NOT NULL;
    INSERT INTO share_change SELECT 'approval_request', NEW.network, NEW.holder, 1 WHERE NEW.holder IS NOT NULL;
END;

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

-- How many rows of the tables that strangers can fill belong to whom (RATE-06): to an address, which is an IPv6 /64, or to
-- a person once it is known who it is. `network` is what holders have in common, an IPv6 /48. An empty `holder` is the
-- network's sum, an empty `network` everybody's. Triggers count as rows come and go, so that nobody's request counts
-- through them; a row without a holder counts for nobody.
CREATE TABLE share (
    kept    TEXT NOT NULL,
    network TEXT NOT NULL,
    holder  TEXT NOT NULL,
    held    INTEGER NOT NULL,
    PRIMARY KEY (kept, network, holder)
) STRICT, WITHOUT ROWID;
CREATE INDEX share_holder ON share (kept, held) WHERE holder <> '';
CREATE INDEX share_network ON share (kept, held) WHERE holder = '' AND network <> '';
CREATE INDEX share_within ON share (kept, network, held) WHERE holder <> '';

-- What the triggers say: a holder has so many more.
CREATE VIEW share_change AS SELECT kept, network, holder, held AS change FROM share;
CREATE TRIGGER share_changes INSTEAD OF INSERT ON share_change BEGIN
    INSERT INTO share (kept, network, holder, held)
        VALUES (NEW.kept, '', '', NEW.change), (NEW.kept, NEW.network, '', NEW.change), (NEW.kept, NEW.network, NEW.holder, NEW.change)
        ON CONFLICT (kept, network, holder) DO UPDATE SET held = held + excluded.held;
    DELETE FROM share
        WHERE NEW.change < 0 AND held <= 0 AND kept = NEW.kept AND network IN ('', NEW.network) AND holder IN ('', NEW.holder);
END;

-- How often room was made at a network's expense, or newcomers were turned away, since that last went on record (AUDIT-06).
CREATE TABLE room_made (
    kept    TEXT NOT NULL,
    network TEXT NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('made_room', 'full')),
    times   INTEGER NOT NULL,
    PRIMARY KEY (kept, network, outcome)
) STRICT, WITHOUT ROWID;

-- Servers behind the gate, as the configuration names them. One that is reached elsewhere than before is another one, with
-- an id of its own (PIN-02). The order of `added_at` says who keeps a name that two of them claim (MCP-11). `target` is
-- where it is reached: kind and address; `era` what it last spoke, '2026-07-28' or 'legacy'; `walked_at` when all walks of
-- its lists were last complete.
CREATE TABLE source (
    id        TEXT PRIMARY KEY,
    name      TEXT NOT NULL UNIQUE,
    target    TEXT NOT NULL,
    added_at  INTEGER NOT NULL,
    era       TEXT,
    walked_at INTEGER
) STRICT, WITHOUT ROWID;

-- What each of them listed of each kind in the last complete walk of that list, as it was written (SRC-02).
CREATE TABLE source_item (
    source_id  TEXT NOT NULL REFERENCES source (id) ON DELETE CASCADE,
    kind       TEXT NOT NULL CHECK (kind IN ('tool', 'prompt', 'resource', 'template')),
    position   INTEGER NOT NULL,
    definition TEXT NOT NULL,
    PRIMARY KEY (source_id, kind, position)
) STRICT, WITHOUT ROWID;

-- What servers behind the gate are shown, by the name that the configuration uses. `sealed` is bound to name and version;
-- another value has another version (SRC-10).
CREATE TABLE secret (
    name       TEXT PRIMARY KEY,
    version    TEXT NOT NULL,
    sealed     BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What one user gave for one server. It is shown only where that server was reached then: `target`.
CREATE TABLE user_secret (
    user_id    TEXT NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    source     TEXT NOT NULL,
    target     TEXT NOT NULL,
    version    TEXT NOT NULL,
    sealed     BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, source)
) STRICT, WITHOUT ROWID;

-- Calls that count against limits whose window is an hour or longer: `counter` is the SHA-256 of what is counted and for
-- whom, `call` tells calls of the same moment apart. As many rows for a counter as its largest limit allows; older ones go.
CREATE TABLE call_count (
    counter    BLOB NOT NULL,
    counted_at INTEGER NOT NULL,
    call       TEXT NOT NULL,
    PRIMARY KEY (counter, counted_at, call)
) STRICT, WITHOUT ROWID;

CREATE INDEX call_count_age ON call_count (counted_at);

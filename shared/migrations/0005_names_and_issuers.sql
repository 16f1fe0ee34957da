-- Names that nobody can take for one another, and passkeys of another issuer's host.

ALTER TABLE user ADD COLUMN reads_like TEXT NOT NULL DEFAULT '';
CREATE INDEX user_reads_like ON user (reads_like);

CREATE TABLE past_user (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    deleted_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE passkey_elsewhere (
    credential   BLOB PRIMARY KEY,
    user_id      TEXT NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    host         TEXT NOT NULL,
    data         TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    last_used_at INTEGER,
    suspended_at INTEGER
) STRICT;
CREATE INDEX passkey_elsewhere_user ON passkey_elsewhere (user_id);

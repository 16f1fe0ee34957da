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

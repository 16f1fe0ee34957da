CREATE TABLE source (
    id        TEXT PRIMARY KEY,
    name      TEXT NOT NULL UNIQUE,
    target    TEXT NOT NULL,
    added_at  INTEGER NOT NULL,
    era       TEXT,
    digest    BLOB,
    walked_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE source_item (
    source_id  TEXT NOT NULL REFERENCES source (id) ON DELETE CASCADE,
    position   INTEGER NOT NULL,
    definition TEXT NOT NULL,
    PRIMARY KEY (source_id, position)
) STRICT, WITHOUT ROWID;

ALTER TABLE source_item RENAME TO source_tool;

CREATE TABLE source_item (
    source_id  TEXT NOT NULL REFERENCES source (id) ON DELETE CASCADE,
    kind       TEXT NOT NULL CHECK (kind IN ('tool', 'prompt', 'resource', 'template')),
    position   INTEGER NOT NULL,
    definition TEXT NOT NULL,
    PRIMARY KEY (source_id, kind, position)
) STRICT, WITHOUT ROWID;

INSERT INTO source_item (source_id, kind, position, definition)
    SELECT source_id, 'tool', position, definition FROM source_tool;

DROP TABLE source_tool;

ALTER TABLE source DROP COLUMN digest;

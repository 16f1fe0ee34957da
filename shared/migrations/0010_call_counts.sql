CREATE TABLE call_count (
    counter    BLOB NOT NULL,
    counted_at INTEGER NOT NULL,
    call       TEXT NOT NULL,
    PRIMARY KEY (counter, counted_at, call)
) STRICT, WITHOUT ROWID;

CREATE INDEX call_count_age ON call_count (counted_at);

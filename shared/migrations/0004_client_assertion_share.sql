-- Whom a spent client assertion belongs to, and how many each has: who fills the table must hurt nobody else (RATE-06).
-- The triggers count as rows come and go, so that nobody's request counts through them.
ALTER TABLE client_assertion RENAME TO client_assertion_before;
DROP INDEX client_assertion_expiry;
CREATE TABLE client_assertion (
    digest     BLOB PRIMARY KEY,
    holder     TEXT NOT NULL,
    stranger   INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX client_assertion_expiry ON client_assertion (expires_at);
CREATE TABLE client_assertion_share (
    holder TEXT PRIMARY KEY,
    held   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TRIGGER client_assertion_spent AFTER INSERT ON client_assertion BEGIN
    INSERT INTO client_assertion_share (holder, held) VALUES (NEW.holder, 1)
        ON CONFLICT (holder) DO UPDATE SET held = held + 1;
    INSERT INTO client_assertion_share (holder, held) SELECT 'strangers', 1 WHERE NEW.stranger
        ON CONFLICT (holder) DO UPDATE SET held = held + 1;
END;
CREATE TRIGGER client_assertion_forgotten AFTER DELETE ON client_assertion BEGIN
    UPDATE client_assertion_share SET held = held - 1
        WHERE holder = OLD.holder OR (OLD.stranger AND holder = 'strangers');
    DELETE FROM client_assertion_share
        WHERE held <= 0 AND (holder = OLD.holder OR holder = 'strangers');
END;
-- What was spent before the update stays spent.
INSERT INTO client_assertion (digest, holder, stranger, expires_at)
    SELECT digest, '', 0, expires_at FROM client_assertion_before;
DROP TABLE client_assertion_before;

-- Whom each row belongs to of the tables that strangers can fill, and how many rows each has (RATE-06).

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

CREATE VIEW share_change AS SELECT kept, network, holder, held AS change FROM share;
CREATE TRIGGER share_changes INSTEAD OF INSERT ON share_change BEGIN
    INSERT INTO share (kept, network, holder, held)
        VALUES (NEW.kept, '', '', NEW.change), (NEW.kept, NEW.network, '', NEW.change), (NEW.kept, NEW.network, NEW.holder, NEW.change)
        ON CONFLICT (kept, network, holder) DO UPDATE SET held = held + excluded.held;
    DELETE FROM share
        WHERE NEW.change < 0 AND held <= 0 AND kept = NEW.kept AND network IN ('', NEW.network) AND holder IN ('', NEW.holder);
END;

CREATE TABLE room_made (
    kept    TEXT NOT NULL,
    network TEXT NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('made_room', 'full')),
    times   INTEGER NOT NULL,
    PRIMARY KEY (kept, network, outcome)
) STRICT, WITHOUT ROWID;

ALTER TABLE ceremony ADD COLUMN holder TEXT;
ALTER TABLE ceremony ADD COLUMN network TEXT;
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
ALTER TABLE authorization_transaction ADD COLUMN holder TEXT;
ALTER TABLE authorization_transaction ADD COLUMN network TEXT;
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
ALTER TABLE device_authorization ADD COLUMN holder TEXT;
ALTER TABLE device_authorization ADD COLUMN network TEXT;
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
ALTER TABLE device_transaction ADD COLUMN holder TEXT;
ALTER TABLE device_transaction ADD COLUMN network TEXT;
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
ALTER TABLE client ADD COLUMN holder TEXT;
ALTER TABLE client ADD COLUMN network TEXT;
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
ALTER TABLE client_document ADD COLUMN holder TEXT;
ALTER TABLE client_document ADD COLUMN network TEXT;
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
ALTER TABLE approval_request ADD COLUMN holder TEXT;
ALTER TABLE approval_request ADD COLUMN network TEXT;
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
CREATE INDEX mcp_session_seen ON mcp_session (sub, seen_at);
CREATE TRIGGER mcp_session_held AFTER INSERT ON mcp_session BEGIN
    INSERT INTO share_change VALUES ('mcp_session', NEW.sub, NEW.sub, 1);
END;
CREATE TRIGGER mcp_session_let_go AFTER DELETE ON mcp_session BEGIN
    INSERT INTO share_change VALUES ('mcp_session', OLD.sub, OLD.sub, -1);
END;

DROP TRIGGER client_assertion_spent;
DROP TRIGGER client_assertion_forgotten;
DROP TABLE client_assertion_share;
ALTER TABLE client_assertion ADD COLUMN network TEXT NOT NULL DEFAULT '';
CREATE TRIGGER client_assertion_spent AFTER INSERT ON client_assertion BEGIN
    INSERT INTO share_change
        VALUES (iif(NEW.stranger, 'client_assertion', 'client_assertion of clients'), NEW.network, NEW.holder, 1);
END;
CREATE TRIGGER client_assertion_forgotten AFTER DELETE ON client_assertion BEGIN
    INSERT INTO share_change
        VALUES (iif(OLD.stranger, 'client_assertion', 'client_assertion of clients'), OLD.network, OLD.holder, -1);
END;

-- What is there already is counted too.
UPDATE client_assertion SET network = holder WHERE holder <> '';
UPDATE client_assertion SET network = 'before', holder = 'before' WHERE holder = '';
INSERT INTO share_change
    SELECT iif(stranger, 'client_assertion', 'client_assertion of clients'), network, holder, 1 FROM client_assertion;
INSERT INTO share_change SELECT 'mcp_session', sub, sub, 1 FROM mcp_session;
UPDATE client SET holder = 'before', network = 'before'
    WHERE last_used_at IS NULL AND source = 'self_registered' AND trust <> 'verified';
UPDATE approval_request SET holder = user_id, network = user_id;
UPDATE client_document SET holder = 'before', network = 'before' WHERE source = 'fetched';

-- A journal as schema version 1 kept it: its own statements, and some rows.
CREATE TABLE command (
    revision        INTEGER PRIMARY KEY,
    command_id      TEXT NOT NULL UNIQUE,
    request_id      TEXT UNIQUE,
    principal       TEXT NOT NULL,
    key_id          TEXT NOT NULL,
    method          TEXT NOT NULL,
    kind            TEXT NOT NULL,
    payload         BLOB NOT NULL,
    payload_sha256  BLOB NOT NULL CHECK (length(payload_sha256) = 32),
    accepted_unix_s REAL NOT NULL,
    reason          TEXT NOT NULL,
    seed_id         INTEGER NOT NULL
) STRICT;
CREATE TABLE outcome (
    revision        INTEGER PRIMARY KEY,
    command_id      TEXT NOT NULL UNIQUE REFERENCES command (command_id),
    state           INTEGER NOT NULL CHECK (state BETWEEN 2 AND 6),
    global_step     INTEGER NOT NULL,
    state_revision  INTEGER NOT NULL,
    seed_id         INTEGER NOT NULL,
    refusal_reason  TEXT NOT NULL,
    refusal_message TEXT NOT NULL,
    settled_unix_s  REAL NOT NULL
) STRICT;
CREATE VIEW command_now AS
SELECT c.revision AS accept_revision, c.command_id, coalesce(c.request_id, '') AS request_id, c.principal, c.key_id,
    c.method, c.kind, c.payload, c.payload_sha256, c.accepted_unix_s, c.reason,
    CASE WHEN o.seed_id > 0 THEN o.seed_id ELSE c.seed_id END AS seed_id,
    coalesce(o.state, 1) AS state, coalesce(o.global_step, 0) AS global_step,
    coalesce(o.state_revision, 0) AS state_revision, coalesce(o.refusal_reason, '') AS refusal_reason,
    coalesce(o.refusal_message, '') AS refusal_message,
    coalesce(o.settled_unix_s, c.accepted_unix_s) AS updated_unix_s,
    coalesce(o.revision, c.revision) AS journal_revision
FROM command AS c LEFT JOIN outcome AS o ON o.command_id = c.command_id;
CREATE TABLE history (
    revision INTEGER PRIMARY KEY,
    kind     TEXT NOT NULL,
    name     TEXT,
    seed_id  INTEGER NOT NULL,
    body     TEXT NOT NULL,
    UNIQUE (kind, name)
) STRICT;
CREATE INDEX history_of_seed ON history (seed_id, revision) WHERE seed_id > 0;
CREATE TABLE audit (
    revision       INTEGER PRIMARY KEY,
    number         INTEGER NOT NULL UNIQUE,
    principal      TEXT NOT NULL,
    key_id         TEXT NOT NULL,
    peer           TEXT NOT NULL,
    method         TEXT NOT NULL,
    payload_sha256 BLOB NOT NULL,
    decision       TEXT NOT NULL,
    detail         TEXT NOT NULL,
    unix_s         REAL NOT NULL,
    previous_hash  BLOB NOT NULL,
    row_hash       BLOB NOT NULL
) STRICT;
CREATE TRIGGER command_is_not_changed BEFORE UPDATE ON command
BEGIN SELECT raise(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER command_is_not_removed BEFORE DELETE ON command
BEGIN SELECT raise(ABORT, 'the journal is append-only'); END;

CREATE TRIGGER outcome_is_not_changed BEFORE UPDATE ON outcome
BEGIN SELECT raise(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER outcome_is_not_removed BEFORE DELETE ON outcome
BEGIN SELECT raise(ABORT, 'the journal is append-only'); END;

CREATE TRIGGER history_is_not_changed BEFORE UPDATE ON history
BEGIN SELECT raise(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER history_is_not_removed BEFORE DELETE ON history
BEGIN SELECT raise(ABORT, 'the journal is append-only'); END;

CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN SELECT raise(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER audit_is_not_removed BEFORE DELETE ON audit
BEGIN SELECT raise(ABORT, 'the journal is append-only'); END;
PRAGMA application_id = 1163087941;
PRAGMA user_version = 1;
INSERT INTO history VALUES (1, 'run_started', 'run-1', 0, '{"run_id":"run-1","task":"digits","unix_s":1800000000.0,"config":"{}"}');
INSERT INTO command VALUES (2, 'command-a', 'request-a', 'tamiyo', 'policy-1', '/esper.leyline.v1.CommandService/SubmitCommand', 'seed', X'0001', zeroblob(32), 1800000000.25, 'loss has stalled', 3);
INSERT INTO command VALUES (3, 'command-b', NULL, 'daemon', '', 'daemon', 'PolicyPresence', X'', zeroblob(32), 1800000001.0, 'it came', 0);
INSERT INTO outcome VALUES (4, 'command-a', 3, 121, 8, 3, 'SEED_STAGE', 'Seed 3 is DORMANT.', 1800000002.0);
INSERT INTO history VALUES (5, 'run_finished', 'run-1', 0, '{"run_id":"run-1","phase":"STOPPING","global_step":500,"unix_s":1800000003.0,"detail":""}');

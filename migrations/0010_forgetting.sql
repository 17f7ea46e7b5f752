-- What `forget` leaves of a user, so that nothing records them again: a keyed hash of their Okta id.

CREATE TABLE tombstone_key (
    id  INTEGER PRIMARY KEY CHECK (id = 1),
    key BLOB NOT NULL CHECK (length(key) = 32) -- random, made by the first `forget`
) STRICT;

CREATE TABLE tombstones (
    digest       BLOB PRIMARY KEY CHECK (length(digest) = 32), -- HMAC-SHA-256 of the Okta id
    evidence_at  TEXT,             -- the newest event about the user that was known; only a later one is news
    forgotten_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The decision log commits to the personal values of a row by two salted hashes, so that `forget` can remove them and the
-- rest of the row stays provable. A salt goes with its values; the hash is stored from then on. Rows of older versions have
-- neither.
ALTER TABLE decision_log ADD COLUMN subject_salt BLOB;
ALTER TABLE decision_log ADD COLUMN actor_salt BLOB;
ALTER TABLE decision_log ADD COLUMN subject_hash BLOB;
ALTER TABLE decision_log ADD COLUMN actor_hash BLOB;

-- Which values `forget` removed. The decision that records the `forget` contains a hash over its list.
CREATE TABLE decision_redactions (
    row_id      INTEGER NOT NULL,
    part        TEXT NOT NULL CHECK (part IN ('subject', 'actor')),
    decision_id INTEGER NOT NULL CHECK (decision_id >= 0), -- 0: by an older version
    remaining   BLOB,             -- of a row of an older version: a hash over the values that remain
    PRIMARY KEY (row_id, part)
) STRICT, WITHOUT ROWID;
CREATE INDEX decision_redactions_of ON decision_redactions (decision_id, row_id, part);

-- How the log stood when this version began to write it. Each later row commits to it.
CREATE TABLE decision_log_seal (
    id            INTEGER PRIMARY KEY CHECK (id = 1),
    last          INTEGER NOT NULL CHECK (last >= 0),                     -- the last row of an older version
    expired       INTEGER NOT NULL CHECK (expired >= 0),                  -- the last row that retention had removed
    expired_chain BLOB NOT NULL CHECK (length(expired_chain) = 32),
    forgotten     BLOB NOT NULL CHECK (length(forgotten) = 32)            -- a hash over the rows anonymized by then
) STRICT;

-- An approval counts for the status that the operator saw, too.
ALTER TABLE users ADD COLUMN approved_status TEXT;
UPDATE users SET approved_status = status WHERE approved = 1;

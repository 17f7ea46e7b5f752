-- Taking in a page of the log changes as few places of the file as it can: what is new is appended, what is looked up by a
-- random key is looked up in a narrow index. A page of 1,000 entries was some 12,000 writes of 4 KiB before, and is some
-- hundreds now.
--
-- * Users have numbers, in the order in which they came: their rows, addresses and events are appended, and what refers to
--   them is small. Whoever an event is about is a user, also where nothing follows from the event.
-- * Ids of events are sought by the time in them first, so that they are appended too.
-- * An event of a user is open only behind the last look that settled (`due_seq > settled_seq`): it needs no index of its own.
-- * Who is due has one index, which also tells who is pending.
-- * A login that is an address is found among the addresses.
--
-- New tables are filled from the old ones; SQLite cannot change keys in place. Of what a CHECK allows, the value that a page
-- brings is compared first.

DROP VIEW status;
DROP VIEW pending;
DROP VIEW failed;
DROP VIEW held;
DROP VIEW skipped;
DROP VIEW denied;
DROP VIEW recent_events;

ALTER TABLE events RENAME TO events_1;
ALTER TABLE event_users RENAME TO event_users_1;
ALTER TABLE users RENAME TO users_1;
ALTER TABLE addresses RENAME TO addresses_1;
ALTER TABLE accounts RENAME TO accounts_1;

CREATE TABLE events (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id    TEXT NOT NULL,
    -- Okta's ids are UUIDs of version 1: the upper parts of their time. Of an id of another form it is just a part.
    event_order TEXT NOT NULL GENERATED ALWAYS AS (substr(event_id, 15, 4) || substr(event_id, 10, 4)) VIRTUAL,
    event_type  TEXT NOT NULL,
    published   TEXT,
    actor       TEXT,
    received_at TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state = 'recorded' OR state IN ('ignored', 'quarantined', 'dismissed')),
    why         TEXT,
    raw         TEXT, -- only while quarantined
    CHECK ((state = 'quarantined') = (raw IS NOT NULL)),
    CHECK (state IN ('quarantined', 'dismissed') OR published IS NOT NULL),
    CHECK (state NOT IN ('quarantined', 'dismissed') OR why IS NOT NULL)
) STRICT;

-- Everybody whom an event, a comparison or a person named, numbered as they came.
CREATE TABLE users (
    user_seq     INTEGER PRIMARY KEY,
    okta_user_id TEXT NOT NULL UNIQUE CHECK (length(okta_user_id) > 0),
    login        TEXT,
    login_key    TEXT,               -- in lower case, of a login that is no address: those are found among the addresses
    email        TEXT,
    status       TEXT,               -- as last read
    status_at    TEXT,
    left_seen    INTEGER NOT NULL DEFAULT 0 CHECK (left_seen IN (0, 1)), -- the log or Okta said: deactivated or deleted
    due_seq      INTEGER NOT NULL DEFAULT 0 CHECK (due_seq >= 0),        -- rises with every reason to look
    settled_seq  INTEGER NOT NULL DEFAULT 0 CHECK (settled_seq >= 0),
    looked_seq   INTEGER NOT NULL DEFAULT 0,                             -- claimed by the last look that ended, however
    due_at       TEXT,               -- the next look; NULL: none
    lane         INTEGER NOT NULL DEFAULT 2 CHECK (lane BETWEEN 0 AND 2),
    cause        TEXT NOT NULL
                 CHECK (cause = 'event' OR cause IN ('recheck', 'sweep', 'command', 'neighbour', 'policy')),
    due_since    TEXT,               -- the first unsettled reason; NULL: there is none
    recheck_step INTEGER NOT NULL DEFAULT 0 CHECK (recheck_step >= 0),
    attempts     INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    approved     INTEGER NOT NULL DEFAULT 0 CHECK (approved IN (0, 1)),
    guarded      INTEGER NOT NULL DEFAULT 0 CHECK (guarded IN (0, 1)),   -- by the guard: outlives failures, ends by a person
    outcome      TEXT CHECK (outcome IN ('applied', 'unchanged', 'no_account', 'skipped', 'held', 'retry', 'snooze', 'failed')),
    why          TEXT,
    depends_on   TEXT,               -- the user because of whom this one is skipped or held
    last_error   TEXT,
    since        TEXT NOT NULL,      -- of the present outcome
    CHECK (settled_seq <= due_seq),
    CHECK (looked_seq <= due_seq),
    CHECK (login IS NOT NULL OR login_key IS NULL),
    CHECK (login IS NULL OR login_key IS NOT NULL OR login LIKE '%_@_%'),
    CHECK ((due_seq > settled_seq) = (due_since IS NOT NULL)),
    CHECK (due_since IS NULL OR due_at IS NOT NULL OR outcome IS 'held'), -- no reason without a look or a person
    CHECK (outcome IS NOT 'held' OR why IS NOT NULL),
    CHECK (outcome IS NOT 'failed' OR (due_at IS NOT NULL AND why IS NOT NULL)),
    CHECK (outcome IS NOT 'retry' OR (attempts > 0 AND due_at IS NOT NULL))
) STRICT;

-- The users that an event is about: nearly always one.
CREATE TABLE event_users (
    event_seq  INTEGER NOT NULL REFERENCES events (seq) ON DELETE CASCADE,
    user_seq   INTEGER NOT NULL REFERENCES users (user_seq),
    login      TEXT,
    due_seq    INTEGER NOT NULL CHECK (due_seq >= 0), -- settled by a look that claimed at least this; rises with event_seq
    settled_at TEXT,
    outcome    TEXT,
    PRIMARY KEY (event_seq, user_seq),
    CHECK ((settled_at IS NULL) = (outcome IS NULL))
) STRICT, WITHOUT ROWID;

-- Every address ever read for a user.
CREATE TABLE addresses (
    user_seq    INTEGER NOT NULL REFERENCES users (user_seq) ON DELETE CASCADE,
    address     TEXT NOT NULL CHECK (address LIKE '%_@_%'),
    address_key TEXT NOT NULL,      -- in lower case
    seen_at     TEXT NOT NULL,
    PRIMARY KEY (user_seq, address)
) STRICT, WITHOUT ROWID;

-- The accounts that carry, or carried, a mark of ours. One account is denied for one user.
CREATE TABLE accounts (
    auth0_user_id TEXT PRIMARY KEY,
    okta_user_id  TEXT NOT NULL REFERENCES users (okta_user_id),
    email         TEXT,
    connection    TEXT,
    denied        INTEGER NOT NULL CHECK (denied IN (0, 1)),
    blocked       INTEGER NOT NULL DEFAULT 0 CHECK (blocked IN (0, 1)), -- by us
    denied_at     TEXT,
    event_id      TEXT,
    published     TEXT,
    lag_ms        INTEGER,
    sessions_owed INTEGER NOT NULL DEFAULT 0 CHECK (sessions_owed IN (0, 1)),
    -- A mark was sent and its answer is not known: it may be there (1), with a block of ours (2).
    unconfirmed   INTEGER NOT NULL DEFAULT 0 CHECK (unconfirmed IN (0, 1, 2)),
    changed_at    TEXT NOT NULL,
    CHECK (denied = 0 OR denied_at IS NOT NULL),
    CHECK (blocked = 0 OR denied = 1)
) STRICT, WITHOUT ROWID;

INSERT INTO events (seq, event_id, event_type, published, actor, received_at, state, why, raw)
SELECT seq, event_id, event_type, published, actor, received_at, state, why, raw FROM events_1 ORDER BY seq;

-- Numbers of events that are gone are not given a second time.
DELETE FROM sqlite_sequence WHERE name = 'events';
UPDATE sqlite_sequence SET name = 'events' WHERE name = 'events_1';

INSERT INTO users (okta_user_id, login, login_key, email, status, status_at, left_seen, due_seq, settled_seq, looked_seq,
    due_at, lane, cause, due_since, recheck_step, attempts, approved, guarded, outcome, why, depends_on, last_error, since)
SELECT okta_user_id, login,
    iif(EXISTS (SELECT 1 FROM addresses_1 a WHERE a.okta_user_id = u.okta_user_id AND a.address_key = trim(u.login_key)),
        NULL, login_key),
    email, status, status_at, left_seen, due_seq, settled_seq, looked_seq, due_at, lane, cause,
    iif(due_seq > settled_seq, due_since, NULL), recheck_step, attempts, approved, guarded, outcome, why, depends_on,
    last_error, since
FROM users_1 u ORDER BY okta_user_id;

-- Whom only events named from which nothing follows.
INSERT INTO users (okta_user_id, due_seq, settled_seq, cause, since)
SELECT eu.okta_user_id, i.seq_floor, i.seq_floor, 'event', min(e.received_at)
FROM event_users_1 eu JOIN events e ON e.seq = eu.event_seq JOIN installation i
WHERE eu.okta_user_id NOT IN (SELECT okta_user_id FROM users_1)
GROUP BY eu.okta_user_id;

INSERT INTO event_users (event_seq, user_seq, login, due_seq, settled_at, outcome)
SELECT eu.event_seq, u.user_seq, eu.login, eu.due_seq, eu.settled_at, eu.outcome
FROM event_users_1 eu CROSS JOIN users u ON u.okta_user_id = eu.okta_user_id ORDER BY eu.event_seq;

INSERT INTO addresses (user_seq, address, address_key, seen_at)
SELECT u.user_seq, a.address, a.address_key, a.seen_at
FROM users u CROSS JOIN addresses_1 a ON a.okta_user_id = u.okta_user_id ORDER BY u.user_seq;

INSERT INTO accounts SELECT * FROM accounts_1;

DROP TABLE event_users_1;
DROP TABLE addresses_1;
DROP TABLE accounts_1;
DROP TABLE events_1;
DROP TABLE users_1;

-- Unique is the id alone: what stands before it is a part of it, and only says where in the index it is.
CREATE UNIQUE INDEX events_id ON events (event_order, event_id);
CREATE INDEX events_quarantined ON events (seq) WHERE state = 'quarantined';
CREATE INDEX events_received ON events (received_at);
CREATE INDEX event_users_of_user ON event_users (user_seq, due_seq);
-- The last two columns let the views count those who are pending without reading the users.
CREATE INDEX users_due ON users (lane, due_at, outcome, due_since) WHERE due_at IS NOT NULL;
-- Spelled with OR: SQLite does not see that `outcome = 'held'` implies an IN list.
CREATE INDEX users_outcome ON users (outcome, since)
    WHERE outcome = 'skipped' OR outcome = 'no_account' OR outcome = 'held' OR outcome = 'failed';
CREATE INDEX users_login ON users (login_key) WHERE login_key IS NOT NULL;
CREATE INDEX users_depending ON users (depends_on) WHERE depends_on IS NOT NULL;
CREATE INDEX addresses_by_key ON addresses (address_key, user_seq);
CREATE INDEX accounts_of_user ON accounts (okta_user_id);
CREATE INDEX accounts_denied ON accounts (denied_at) WHERE denied = 1;
CREATE INDEX accounts_owing ON accounts (auth0_user_id) WHERE sessions_owed = 1;

---------------------------------------------------------------------------------------------------------------------
-- The contract: the views that were dropped above, column by column as they were.

CREATE VIEW pending AS
SELECT okta_user_id, email, cause AS reason, due_at, attempts, outcome, last_error, due_since AS since
FROM users
WHERE due_at IS NOT NULL AND due_since IS NOT NULL AND (outcome IS NULL OR outcome NOT IN ('held', 'failed'));

CREATE VIEW failed AS
SELECT okta_user_id, email, why, since, attempts, last_error FROM users WHERE outcome = 'failed';

CREATE VIEW held AS
SELECT okta_user_id, email, why, since, attempts, last_error FROM users WHERE outcome = 'held';

CREATE VIEW skipped AS
SELECT okta_user_id, email, why, since, attempts, last_error FROM users WHERE outcome = 'skipped';

CREATE VIEW denied AS
SELECT okta_user_id, email, auth0_user_id, connection, denied_at, event_id, published,
       lag_ms / 1000.0 AS lag_s
FROM accounts WHERE denied = 1;

CREATE VIEW recent_events AS
SELECT e.event_id, e.event_type, u.okta_user_id, eu.login, e.actor, e.published, e.received_at, eu.settled_at,
       CASE WHEN e.state IN ('quarantined', 'dismissed') THEN e.state
            WHEN u.okta_user_id IS NULL THEN 'ignored' -- about nobody
            WHEN eu.outcome IS NOT NULL THEN eu.outcome
            -- Not settled: how the last look ended tells why, unless it had dealt with what came before this event.
            WHEN u.outcome IN ('held', 'failed', 'retry', 'snooze') THEN u.outcome
            ELSE 'pending' END AS outcome
FROM events e LEFT JOIN event_users eu ON eu.event_seq = e.seq LEFT JOIN users u ON u.user_seq = eu.user_seq
ORDER BY e.seq DESC;

CREATE VIEW status AS
WITH lag AS (
    SELECT lag_ms / 1000.0 AS lag_s, row_number() OVER (ORDER BY lag_ms) AS n, count(*) OVER () AS total
    FROM (SELECT lag_ms FROM decision_log WHERE lag_ms IS NOT NULL ORDER BY id DESC LIMIT 1000)
), counted AS (
    SELECT (SELECT count(*) FROM failed) AS failed,
           (SELECT count(*) FROM held) AS held,
           (SELECT count(*) FROM events WHERE state = 'quarantined') AS quarantined,
           (SELECT count(*) FROM accounts WHERE denied = 1) AS denied,
           (SELECT count(*) FROM alarms WHERE cleared_at IS NULL) AS alarms,
           (SELECT count(*) FROM remotes
             WHERE error_kind IN ('unauthorized', 'forbidden') AND (ok_at IS NULL OR ok_at < error_at)) AS refused
)
SELECT i.version, i.okta_url, i.auth0_url, i.enforce, i.first_run_at, i.last_poll_at, i.last_poll_ok_at,
       i.last_apply_ok_at, i.last_reconcile_ok_at,
       (SELECT moved_at FROM checkpoint) AS cursor_moved_at,
       p.pending, c.failed, c.held, c.quarantined, c.denied,
       (SELECT lag_s FROM lag WHERE n = (total + 1) / 2) AS lag_p50_s,
       (SELECT lag_s FROM lag WHERE n = (total * 99 + 99) / 100) AS lag_p99_s,
       (SELECT lag_s FROM lag WHERE n = total) AS lag_max_s,
       p.oldest_pending_at,
       (SELECT error FROM remotes WHERE remote = 'okta') AS last_okta_error,
       (SELECT error FROM remotes WHERE remote = 'auth0') AS last_auth0_error,
       c.failed + c.held + c.quarantined + c.alarms + c.refused > 0 AS needs_attention,
       i.enforcement, i.enforcement_checked_at
FROM installation i, counted c, (SELECT count(*) AS pending, min(since) AS oldest_pending_at FROM pending) p;

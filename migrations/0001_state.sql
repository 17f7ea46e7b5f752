-- The state of one installation: one Okta org, one Auth0 tenant.
--
-- Times are text in one form only, UTC with milliseconds ('2026-11-23T10:00:00.000Z'), so that they sort as they are.
-- Tables may change from version to version; the views at the end are the contract and only grow.

PRAGMA application_id = 0x6f613073; -- 'oa0s'

CREATE TABLE installation (
    id                   INTEGER PRIMARY KEY CHECK (id = 1),
    okta_url             TEXT NOT NULL,
    okta_org_id          TEXT,              -- known from the first answer on
    auth0_url            TEXT NOT NULL,
    auth0_audience       TEXT NOT NULL,
    enforce              INTEGER NOT NULL CHECK (enforce IN (0, 1)),
    policy               TEXT NOT NULL,     -- what was denied by when this was last written
    swept_policy         TEXT NOT NULL,     -- the policy that everybody was, or need not be, compared by
    seq_floor            INTEGER NOT NULL DEFAULT 0 CHECK (seq_floor >= 0), -- above every number of a forgotten user
    version              TEXT NOT NULL,     -- of the program
    first_run_at         TEXT NOT NULL,
    first_poll_at        TEXT,              -- the first good page
    last_poll_at         TEXT,
    last_poll_ok_at      TEXT,
    last_apply_ok_at     TEXT,
    last_reconcile_ok_at TEXT,
    enforcement  TEXT CHECK (enforcement IN ('verified', 'unverified', 'missing')), -- the Action, when last looked at
    enforcement_checked_at TEXT,
    CHECK ((enforcement IS NULL) = (enforcement_checked_at IS NULL))
) STRICT;

-- Where the log is read on. Moved only in the transaction that stores the page, only by compare-and-swap of `seq`.
CREATE TABLE checkpoint (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    seq         INTEGER NOT NULL CHECK (seq > 0),
    next        TEXT CHECK (next LIKE '/api/v1/logs?%'), -- NULL: start anew at anchor_at
    fingerprint TEXT NOT NULL,                           -- org and filter that `next` carries inside
    anchor_at   TEXT NOT NULL,                           -- Okta's time at the last good answer
    moved_at    TEXT NOT NULL
) STRICT;

CREATE TABLE events (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id    TEXT NOT NULL UNIQUE,
    event_type  TEXT NOT NULL,
    published   TEXT,
    actor       TEXT,
    received_at TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('recorded', 'ignored', 'quarantined', 'dismissed')),
    why         TEXT,
    raw         TEXT, -- only while quarantined
    CHECK ((state = 'quarantined') = (raw IS NOT NULL)),
    CHECK (state IN ('quarantined', 'dismissed') OR published IS NOT NULL),
    CHECK (state NOT IN ('quarantined', 'dismissed') OR why IS NOT NULL)
) STRICT;
CREATE INDEX events_quarantined ON events (seq) WHERE state = 'quarantined';
CREATE INDEX events_received ON events (received_at);

-- The users that an event is about: nearly always one.
CREATE TABLE event_users (
    event_seq    INTEGER NOT NULL REFERENCES events (seq) ON DELETE CASCADE,
    okta_user_id TEXT NOT NULL,
    login        TEXT,
    due_seq      INTEGER NOT NULL CHECK (due_seq >= 0), -- settled by a look that claimed at least this
    settled_at   TEXT,
    outcome      TEXT,
    PRIMARY KEY (event_seq, okta_user_id),
    CHECK ((settled_at IS NULL) = (outcome IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX event_users_of_user ON event_users (okta_user_id, event_seq);
CREATE INDEX event_users_open ON event_users (okta_user_id, due_seq) WHERE settled_at IS NULL;

CREATE TABLE users (
    okta_user_id TEXT PRIMARY KEY CHECK (length(okta_user_id) > 0),
    login        TEXT,
    login_key    TEXT,               -- in lower case
    email        TEXT,
    status       TEXT,               -- as last read
    status_at    TEXT,
    left_seen    INTEGER NOT NULL DEFAULT 0 CHECK (left_seen IN (0, 1)), -- the log or Okta said: deactivated or deleted
    due_seq      INTEGER NOT NULL DEFAULT 0 CHECK (due_seq >= 0),        -- rises with every reason to look
    settled_seq  INTEGER NOT NULL DEFAULT 0 CHECK (settled_seq >= 0),
    looked_seq   INTEGER NOT NULL DEFAULT 0,                             -- claimed by the last look that ended, however
    due_at       TEXT,               -- the next look; NULL: none
    lane         INTEGER NOT NULL DEFAULT 2 CHECK (lane IN (0, 1, 2)),
    cause        TEXT NOT NULL CHECK (cause IN ('event', 'recheck', 'sweep', 'command', 'neighbour', 'policy')),
    due_since    TEXT,               -- the first unsettled reason
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
    CHECK ((login IS NULL) = (login_key IS NULL)),
    CHECK (due_seq = settled_seq OR due_since IS NOT NULL),
    CHECK (due_seq = settled_seq OR due_at IS NOT NULL OR outcome IS 'held'), -- no reason without a look or a person
    CHECK (outcome IS NOT 'held' OR why IS NOT NULL),
    CHECK (outcome IS NOT 'failed' OR (due_at IS NOT NULL AND why IS NOT NULL)),
    CHECK (outcome IS NOT 'retry' OR (attempts > 0 AND due_at IS NOT NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX users_due ON users (lane, due_at) WHERE due_at IS NOT NULL;
-- What lies further ahead than any wait but that of failed users: looked for after a clock was set back.
CREATE INDEX users_far ON users (due_at) WHERE due_at IS NOT NULL AND outcome IS NOT 'failed';
-- The last two columns only let the views count without reading the users.
CREATE INDEX users_open ON users (outcome, due_since, due_seq, settled_seq) WHERE due_seq > settled_seq;
-- Spelled with OR: SQLite does not see that `outcome = 'held'` implies an IN list.
CREATE INDEX users_outcome ON users (outcome, since)
    WHERE outcome = 'skipped' OR outcome = 'no_account' OR outcome = 'held' OR outcome = 'failed';
CREATE INDEX users_login ON users (login_key) WHERE login_key IS NOT NULL;
CREATE INDEX users_depending ON users (depends_on) WHERE depends_on IS NOT NULL;

-- Every address ever read for a user.
CREATE TABLE addresses (
    okta_user_id TEXT NOT NULL REFERENCES users (okta_user_id) ON DELETE CASCADE,
    address      TEXT NOT NULL CHECK (address LIKE '%_@_%'),
    address_key  TEXT NOT NULL,      -- in lower case
    seen_at      TEXT NOT NULL,
    PRIMARY KEY (okta_user_id, address)
) STRICT, WITHOUT ROWID;
CREATE INDEX addresses_by_key ON addresses (address_key, okta_user_id);

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
CREATE INDEX accounts_of_user ON accounts (okta_user_id);
CREATE INDEX accounts_denied ON accounts (denied_at) WHERE denied = 1;
CREATE INDEX accounts_owing ON accounts (auth0_user_id) WHERE sessions_owed = 1;

-- Each decision, and nothing but appended: `chain` is a hash over `digest` and the chain before it.
CREATE TABLE decision_log (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    at            TEXT NOT NULL,
    okta_user_id  TEXT,
    email         TEXT,
    auth0_user_id TEXT,
    cause         TEXT NOT NULL,
    event_id      TEXT,
    actor         TEXT,
    status        TEXT,
    verdict       TEXT CHECK (verdict IN ('deny', 'allow', 'leave')),
    before        TEXT,
    after         TEXT,
    outcome       TEXT NOT NULL,
    why           TEXT,
    request_id    TEXT,
    version       TEXT NOT NULL,
    policy        TEXT NOT NULL,
    lag_ms        INTEGER,
    forgotten_at  TEXT,                  -- the personal part was taken out; digest and chain stay
    digest        BLOB NOT NULL CHECK (length(digest) = 32),
    chain         BLOB NOT NULL CHECK (length(chain) = 32)
) STRICT;
CREATE INDEX decision_log_of_user ON decision_log (okta_user_id, id);
CREATE INDEX decision_log_of_account ON decision_log (auth0_user_id, id) WHERE auth0_user_id IS NOT NULL;
CREATE INDEX decision_log_lag ON decision_log (id) WHERE lag_ms IS NOT NULL;
CREATE INDEX decision_log_at ON decision_log (at);

-- Open only inside the transaction of `forget` or of retention.
CREATE TABLE decision_log_gate (id INTEGER PRIMARY KEY CHECK (id = 1), open INTEGER NOT NULL CHECK (open IN (0, 1))) STRICT;
INSERT INTO decision_log_gate VALUES (1, 0);
-- The last row that retention removed, and its chain value: the one before the oldest row that is kept.
CREATE TABLE decision_log_root (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    last  INTEGER NOT NULL CHECK (last >= 0),
    chain BLOB NOT NULL CHECK (length(chain) = 32)
) STRICT;
INSERT INTO decision_log_root VALUES (1, 0, zeroblob(32));
CREATE TRIGGER decision_log_keeps_rows BEFORE DELETE ON decision_log
WHEN (SELECT open FROM decision_log_gate) = 0
BEGIN SELECT RAISE(ABORT, 'decisions are only appended'); END;
CREATE TRIGGER decision_log_keeps_values BEFORE UPDATE ON decision_log
WHEN (SELECT open FROM decision_log_gate) = 0
BEGIN SELECT RAISE(ABORT, 'decisions are only appended'); END;

-- First denials that were let through, for the guard's window.
CREATE TABLE first_denials (
    okta_user_id TEXT PRIMARY KEY,
    at           TEXT NOT NULL,
    sweep        INTEGER NOT NULL CHECK (sweep IN (0, 1))
) STRICT, WITHOUT ROWID;
CREATE INDEX first_denials_at ON first_denials (sweep, at);

CREATE TABLE run_log (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    kind        TEXT NOT NULL CHECK (kind IN ('run', 'poll', 'sync', 'reconcile', 'purge')),
    started_at  TEXT NOT NULL,
    finished_at TEXT,
    ok          INTEGER CHECK (ok IN (0, 1)),
    pages       INTEGER NOT NULL DEFAULT 0,
    events      INTEGER NOT NULL DEFAULT 0,
    looks       INTEGER NOT NULL DEFAULT 0,
    writes      INTEGER NOT NULL DEFAULT 0,
    error       TEXT,
    CHECK ((finished_at IS NULL) = (ok IS NULL))
) STRICT;
CREATE INDEX run_log_started ON run_log (started_at);
CREATE INDEX run_log_open ON run_log (id) WHERE finished_at IS NULL;

CREATE TABLE remotes (
    remote     TEXT PRIMARY KEY CHECK (remote IN ('okta', 'auth0')),
    ok_at      TEXT,
    error_at   TEXT,
    error_kind TEXT,
    error      TEXT,
    CHECK ((error_at IS NULL) = (error IS NULL))
) STRICT, WITHOUT ROWID;
INSERT INTO remotes (remote) VALUES ('okta'), ('auth0');

-- What a person should know of: open until it is over.
CREATE TABLE alarms (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    kind       TEXT NOT NULL,
    subject    TEXT NOT NULL,           -- a user, an account, a remote; '' for the installation
    detail     TEXT NOT NULL,
    remedy     TEXT NOT NULL,
    raised_at  TEXT NOT NULL,
    cleared_at TEXT,
    told_at    TEXT,                    -- the webhook took the raise
    told_over_at TEXT                   -- the webhook took the end
) STRICT;
CREATE UNIQUE INDEX alarms_open ON alarms (kind, subject) WHERE cleared_at IS NULL;
CREATE INDEX alarms_untold ON alarms (id) WHERE told_at IS NULL OR (cleared_at IS NOT NULL AND told_over_at IS NULL);

-- A reconcile under way: where to go on after a restart.
CREATE TABLE sweep (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    scope       TEXT NOT NULL,          -- 'all', or the RFC 3339 time since which a status changed
    reason      TEXT NOT NULL,
    stage       TEXT NOT NULL,
    next        TEXT,
    listed      INTEGER NOT NULL DEFAULT 0,
    made_due    INTEGER NOT NULL DEFAULT 0,
    started_at  TEXT NOT NULL,
    finished_at TEXT
) STRICT;

---------------------------------------------------------------------------------------------------------------------
-- The contract: views. They may only grow.

CREATE VIEW pending AS
SELECT okta_user_id, email, cause AS reason, due_at, attempts, outcome, last_error, due_since AS since
FROM users
WHERE due_seq > settled_seq AND (outcome IS NULL OR outcome NOT IN ('held', 'failed'));

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
SELECT e.event_id, e.event_type, eu.okta_user_id, eu.login, e.actor, e.published, e.received_at, eu.settled_at,
       CASE WHEN e.state IN ('quarantined', 'dismissed') THEN e.state
            WHEN eu.okta_user_id IS NULL THEN 'ignored' -- about nobody
            WHEN eu.outcome IS NOT NULL THEN eu.outcome
            -- Not settled: how the last look ended tells why, unless it had dealt with what came before this event.
            ELSE coalesce((SELECT outcome FROM users u WHERE u.okta_user_id = eu.okta_user_id
                             AND outcome IN ('held', 'failed', 'retry', 'snooze')), 'pending') END AS outcome
FROM events e LEFT JOIN event_users eu ON eu.event_seq = e.seq
ORDER BY e.seq DESC;

CREATE VIEW decisions AS
SELECT at, okta_user_id, email, auth0_user_id, cause, event_id, actor, status, verdict, before, after, outcome,
       request_id, version
FROM decision_log;

CREATE VIEW runs AS
SELECT kind, started_at, finished_at, ok, pages, events, looks, writes, error FROM run_log;

CREATE VIEW status AS
WITH lag AS (
    SELECT lag_ms / 1000.0 AS lag_s, row_number() OVER (ORDER BY lag_ms) AS n, count(*) OVER () AS total
    FROM (SELECT lag_ms FROM decision_log WHERE lag_ms IS NOT NULL ORDER BY id DESC LIMIT 1000)
), counted AS (
    SELECT (SELECT count(*) FROM pending) AS pending,
           (SELECT count(*) FROM failed) AS failed,
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
       c.pending, c.failed, c.held, c.quarantined, c.denied,
       (SELECT lag_s FROM lag WHERE n = (total + 1) / 2) AS lag_p50_s,
       (SELECT lag_s FROM lag WHERE n = (total * 99 + 99) / 100) AS lag_p99_s,
       (SELECT lag_s FROM lag WHERE n = total) AS lag_max_s,
       (SELECT min(since) FROM pending) AS oldest_pending_at,
       (SELECT error FROM remotes WHERE remote = 'okta') AS last_okta_error,
       (SELECT error FROM remotes WHERE remote = 'auth0') AS last_auth0_error,
       c.failed + c.held + c.quarantined + c.alarms + c.refused > 0 AS needs_attention,
       i.enforcement, i.enforcement_checked_at
FROM installation i, counted c;

-- The watcher on Auth0's event stream: where it resumes, how it is, and the changes of accounts that made a user due.

CREATE TABLE account_stream (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    seq         INTEGER NOT NULL DEFAULT 0 CHECK (seq >= 0), -- rises with every write: compared by compare-and-swap
    next        TEXT,             -- the offset after which the stream resumes; NULL: by time
    complete_at TEXT,             -- every change before it was received; NULL: the stream was never open
    mode        TEXT NOT NULL DEFAULT 'never' CHECK (mode IN ('auto', 'always', 'never')),
    state       TEXT CHECK (state IN ('watching', 'unavailable', 'occupied', 'failing')), -- NULL: not tried yet
    detail      TEXT,             -- why it is not watching
    started_at  TEXT,             -- of the daemon's watcher
    live_at     TEXT              -- the last sign of life of the stream
) STRICT;
INSERT INTO account_stream (id) VALUES (1);

-- The changes of accounts that made a user due, each once per user, until the retention ends.
CREATE TABLE account_events (
    event_id      TEXT NOT NULL,
    user_seq      INTEGER NOT NULL REFERENCES users (user_seq) ON DELETE CASCADE,
    event_type    TEXT NOT NULL CHECK (event_type IN ('user.created', 'user.updated', 'user.deleted')),
    auth0_user_id TEXT NOT NULL,
    occurred_at   TEXT NOT NULL,
    received_at   TEXT NOT NULL,
    seen          TEXT NOT NULL,                        -- a hash of what the account showed of itself
    due_seq       INTEGER NOT NULL CHECK (due_seq > 0), -- settled by a look that claimed at least this
    settled_at    TEXT,
    outcome       TEXT,
    PRIMARY KEY (event_id, user_seq),
    CHECK ((settled_at IS NULL) = (outcome IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX account_events_of_user ON account_events (user_seq, due_seq);
CREATE INDEX account_events_received ON account_events (received_at);

INSERT INTO obligation_deadlines (name, deadline_s) VALUES ('account_events', 300);

DROP VIEW obligations;

CREATE VIEW obligations AS
WITH facts (rank, name, since, judged, late, detail, remedy) AS (
-- facts begin
    SELECT 1, 'daemon', iif(h.running, h.evaluated_at, h.stopped_at),
        CASE WHEN h.running = 0 OR h.stuck IS NOT NULL THEN 'failed' WHEN h.evaluated_at IS NULL THEN 'unknown'
             ELSE 'timed' END,
        'failed',
        CASE WHEN h.running = 0 AND h.stopped_at IS NULL THEN 'the daemon is not running'
             WHEN h.running = 0 THEN 'the daemon is not running; it stopped at ' || h.stopped_at
             ELSE coalesce(h.stuck, 'last sign of the daemon at ' || h.evaluated_at) END,
        'start it (`systemctl start okta-auth0-sync`) or read its log (`journalctl -u okta-auth0-sync`)'
    FROM health h
    UNION ALL
    SELECT 2, 'enforcement', NULL, iif(i.enforce, 'met', 'failed'), 'failed',
        iif(i.enforce, 'enforcement is on', 'enforcement is OFF: nothing is written to Auth0, no user is denied'),
        'set [engine] enforce = true and restart the daemon'
    FROM installation i
    UNION ALL
    SELECT 3, 'poll', coalesce(i.last_poll_ok_at, i.first_run_at), iif(i.last_poll_ok_at IS NULL, 'unknown', 'timed'),
        'failed',
        iif(i.last_poll_ok_at IS NULL, 'the System Log has not been polled yet', 'last good poll at ' || i.last_poll_ok_at)
            || coalesce('; ' || o.error || coalesce('; next call at ' || o.next_call_at, ''), ''),
        'deactivations are delayed until polling works again; `okta-auth0-sync check` shows what is wrong'
    FROM installation i LEFT JOIN remotes o ON o.remote = 'okta' AND o.failing_since IS NOT NULL
    UNION ALL
    SELECT 4, 'pending', p.since, iif(p.users = 0, 'met', 'timed'), 'failed',
        CASE p.users WHEN 0 THEN 'no user is waiting'
             ELSE p.users || iif(p.users = 1, ' user is waiting, ', ' users are waiting, ') || p.denials
                 || iif(p.denials = 1, ' denial', ' denials') || ' among them, the oldest since ' || p.since || '; '
                 || coalesce((SELECT group_concat(error || ' since ' || failing_since
                                || coalesce(', next call at ' || next_call_at, ''), '; ')
                            FROM remotes WHERE failing_since IS NOT NULL), p.why, 'their looks have not run yet') END,
        'users who left can log in until they are looked at; `okta-auth0-sync check` tests both tenants'
    FROM (SELECT count(*) AS users, count(iif(lane = 0, 1, NULL)) AS denials, min(due_since) AS since,
              (SELECT last_error FROM users WHERE due_at IS NOT NULL AND due_since IS NOT NULL AND lane < 2
                   AND outcome IN ('retry', 'snooze') ORDER BY due_since LIMIT 1) AS why
          FROM users WHERE due_at IS NOT NULL AND due_since IS NOT NULL AND lane < 2
              AND (outcome IS NULL OR outcome NOT IN ('held', 'failed'))) p
    UNION ALL
    SELECT 5, 'reconcile', min(coalesce(i.last_reconcile_ok_at, i.first_run_at), coalesce(q.since, '9'),
            coalesce(i.unchecked_since, '9')),
        iif(i.unchecked IS NULL, 'timed', 'unknown'), 'failed',
        coalesce(i.unchecked, 'last reconcile finished at ' || i.last_reconcile_ok_at, 'no reconcile has finished yet')
            || coalesce((SELECT '; one is under way since ' || started_at FROM sweep WHERE finished_at IS NULL), '')
            || iif(q.users > 0, '; users it queued that are waiting: ' || q.users, ''),
        iif(i.unchecked IS NULL, 'users that the log missed stay undenied; run ', 'the daemon runs it by itself; or run ')
            || '`okta-auth0-sync reconcile --all` with the daemon stopped, or read why it does not finish in the log'
    FROM installation i,
         (SELECT count(*) AS users, min(due_since) AS since FROM users
          WHERE due_at IS NOT NULL AND due_since IS NOT NULL AND lane = 2
              AND (outcome IS NULL OR outcome NOT IN ('held', 'failed'))) q
    UNION ALL
    SELECT 6, 'action', coalesce(h.action_at, i.first_run_at),
        CASE WHEN h.action IS NULL THEN 'unknown' WHEN h.action IN ('missing', 'other_code') THEN 'failed'
             WHEN h.action IN ('no_scope', 'not_needed') THEN 'met' ELSE 'timed' END,
        'unknown',
        CASE WHEN h.action IS NULL THEN 'the Action has not been checked yet'
             WHEN h.action = 'no_scope' THEN 'not checked: the Auth0 credential lacks read:actions'
             WHEN h.action = 'not_needed' THEN 'not needed: [auth0] block denies logins without the Action'
             ELSE 'checked at ' || h.action_at || ': '
                 || coalesce(h.action_detail, replace(h.action, '_', ' ')) END,
        '`okta-auth0-sync action check` shows what is missing; `okta-auth0-sync action deploy` repairs it'
    FROM installation i, health h
    UNION ALL
    SELECT 7, 'notifications', iif(h.webhook, coalesce(iif(h.refused > 0, h.refused_at, NULL), n.since), NULL),
        CASE WHEN h.webhook = 0 THEN 'met' WHEN h.refused > 0 THEN 'failed' WHEN n.since IS NULL THEN 'met' ELSE 'timed' END,
        'failed',
        CASE WHEN h.webhook = 0 THEN 'no webhook is configured'
             WHEN h.refused > 0 THEN 'the webhook refused ' || h.refused || iif(h.refused = 1, ' message', ' messages')
                 || ', the last at ' || h.refused_at || ': ' || h.refusal
             WHEN n.since IS NULL THEN 'every notification is delivered'
             ELSE n.messages || iif(n.messages = 1, ' notification is', ' notifications are')
                 || ' not delivered, the oldest since ' || n.since END,
        'check [alert] webhook_url and its receiver, then restart the daemon'
    FROM health h, (SELECT count(*) AS messages, min(iif(told_at IS NULL, raised_at, cleared_at)) AS since FROM alarms
                    WHERE told_at IS NULL OR (cleared_at IS NOT NULL AND told_over_at IS NULL)) n
    UNION ALL
    SELECT 8, 'clock', h.clock_checked_at,
        CASE WHEN h.clock_checked_at IS NULL THEN 'unknown' WHEN abs(h.clock_ahead_s) > 60 THEN 'failed' ELSE 'timed' END,
        'unknown',
        CASE WHEN h.clock_checked_at IS NULL THEN 'the clock has not been compared with the tenants'' yet'
             WHEN abs(h.clock_ahead_s) <= 60 THEN 'within 60 s of the tenants'' clock'
             ELSE 'this machine''s clock is ' || CAST(round(abs(h.clock_ahead_s)) AS INTEGER)
                 || iif(h.clock_ahead_s > 0, ' s ahead of', ' s behind') || ' the tenants'' clock' END,
        'start time synchronization on this machine (`timedatectl`); tokens and deadlines depend on its clock'
    FROM health h
    UNION ALL
    SELECT 9, 'state', h.evaluated_at,
        CASE WHEN h.wal_bytes IS NOT NULL THEN 'failed' WHEN h.evaluated_at IS NULL OR h.running = 0 THEN 'unknown'
             ELSE 'timed' END,
        'failed',
        CASE WHEN h.wal_bytes IS NOT NULL
                 THEN 'the write-ahead log of the state has grown to ' || (h.wal_bytes / 1048576)
                     || ' MiB: another process keeps a read transaction open'
             WHEN h.evaluated_at IS NULL THEN 'no write to the state is known'
             ELSE 'last written at ' || h.evaluated_at END,
        iif(h.wal_bytes IS NOT NULL, 'end the process that reads the state (`fuser state.db`): an open `sqlite3` transaction',
            'check free space and permissions in the folder of the state')
    FROM health h
    UNION ALL
    SELECT 10, 'account_events', max(coalesce(s.live_at, ''), coalesce(s.started_at, i.first_run_at)),
        CASE WHEN s.mode = 'never' OR (s.mode = 'auto' AND s.state IN ('unavailable', 'occupied')) THEN 'met'
             WHEN s.state IN ('unavailable', 'occupied') THEN 'failed'
             WHEN s.state IS NULL THEN 'unknown' ELSE 'timed' END,
        'failed',
        CASE WHEN s.mode = 'never' OR s.state IN ('unavailable', 'occupied')
                 THEN 'not watched: ' || iif(s.mode = 'never', '[auth0] events = "never"', s.detail)
                     || '; accounts created later and removed marks are handled by the next reconcile'
             WHEN s.state IS NULL THEN 'the event stream of Auth0 has not been opened yet'
             ELSE coalesce('the event stream of Auth0 was last alive at ' || s.live_at,
                     'the event stream of Auth0 was never alive')
                 || coalesce('; ' || s.detail, '') END,
        iif(s.state = 'occupied', 'end another consumer of the event stream, or set [auth0] events = "never"',
            'accounts created later and removed marks wait for the next reconcile; grant the application read:events, and run '
                || '`okta-auth0-sync check`')
    FROM account_stream s, installation i
-- facts end
), aged AS (
    SELECT f.*, d.deadline_s, d.late_since, (julianday('now') - julianday(f.since)) * 86400.0 AS age_s
    FROM facts f JOIN obligation_deadlines d USING (name)
)
SELECT name,
       CASE judged WHEN 'met' THEN 1 WHEN 'failed' THEN 0 WHEN 'unknown' THEN NULL
            ELSE CASE WHEN age_s BETWEEN -5.0 AND deadline_s AND since IS NOT late_since THEN 1
                      WHEN late = 'failed' THEN 0 END END AS met,
       deadline_s, round(age_s, 3) AS age_s, since, detail, remedy
FROM aged ORDER BY rank;

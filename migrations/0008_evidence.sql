-- What the System Log says about leaving and returning is kept with its time, so that the newest evidence decides what a 404
-- means. Events tell whether what they report succeeded; those stored before count as successful, as they did then.

ALTER TABLE events ADD COLUMN succeeded INTEGER NOT NULL DEFAULT 1 CHECK (succeeded IN (0, 1));

ALTER TABLE users ADD COLUMN left_at TEXT;     -- the newest successful deactivation or deletion in the log
ALTER TABLE users ADD COLUMN returned_at TEXT; -- the newest successful activation in the log

UPDATE users SET
    left_at = (SELECT max(e.published) FROM event_users eu JOIN events e ON e.seq = eu.event_seq
                WHERE eu.user_seq = users.user_seq AND e.event_type IN
                    ('user.lifecycle.deactivate', 'user.lifecycle.delete.initiated', 'user.lifecycle.delete.completed')),
    returned_at = (SELECT max(e.published) FROM event_users eu JOIN events e ON e.seq = eu.event_seq
                    WHERE eu.user_seq = users.user_seq AND e.event_type IN
                        ('user.lifecycle.activate', 'user.lifecycle.reactivate', 'user.lifecycle.unsuspend'));

-- Two things that have to outlive a process and a failed attempt.

-- Held by the guard: stays so through failures and pauses, until a person approves or the user is allowed again.
ALTER TABLE users ADD COLUMN guarded INTEGER NOT NULL DEFAULT 0 CHECK (guarded IN (0, 1));
UPDATE users SET guarded = 1 WHERE outcome = 'held' AND why = 'guard';

-- A mark was sent to this account and its answer is not known: it may be there (1), with a block of ours (2).
ALTER TABLE accounts ADD COLUMN unconfirmed INTEGER NOT NULL DEFAULT 0 CHECK (unconfirmed IN (0, 1, 2));

-- The directory: every user of the org with every address ever read for them, so that a user who is renamed before they
-- leave is found by the old address too.

-- The progress of the listing, so that it resumes after a restart.
CREATE TABLE directory (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    started_at  TEXT,                                                -- the listing in progress; NULL: none
    next        TEXT,                                                -- the cursor of its next page; NULL: the first page
    listed      INTEGER NOT NULL DEFAULT 0 CHECK (listed >= 0),      -- users of the listing in progress, or of the last one
    complete_at TEXT,                                                -- when the last complete listing ended
    CHECK (next IS NULL OR started_at IS NOT NULL)
) STRICT;
INSERT INTO directory (id) VALUES (1);

-- When Okta no longer showed the address for the user; NULL: it is one of the user's addresses, as far as is known. The
-- row stays for the retention, and for as long as it takes if the user left.
ALTER TABLE addresses ADD COLUMN replaced_at TEXT;
CREATE INDEX addresses_replaced ON addresses (replaced_at) WHERE replaced_at IS NOT NULL;

-- Whether Okta hid login and e-mail from us when the user was last read: our admin role is too narrow.
ALTER TABLE users ADD COLUMN address_hidden INTEGER NOT NULL DEFAULT 0 CHECK (address_hidden IN (0, 1));
CREATE INDEX users_address_hidden ON users (user_seq) WHERE address_hidden = 1;

-- Users who left and for whom no account was found, and why. An account that the configuration leaves out of scope is
-- named in the decision of the last look.
CREATE VIEW unmatched AS
SELECT okta_user_id, email, login, status,
       CASE outcome WHEN 'skipped' THEN why
            ELSE coalesce((SELECT d.why FROM decision_log d
                           WHERE d.okta_user_id = users.okta_user_id AND d.auth0_user_id IS NOT NULL
                             AND d.outcome = 'skipped' AND d.at >= users.since
                           ORDER BY d.id DESC LIMIT 1), 'no_account') END AS why,
       since, status_at AS last_look_at
FROM users
WHERE outcome = 'no_account' OR (outcome = 'skipped' AND why IN ('no_address', 'address_hidden'));

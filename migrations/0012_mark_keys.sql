-- A changed metadata key: which key each mark is under, and for which key the Action was seen in force. Marks move to the
-- configured key only when its Action is.

-- The configured key at the last start; NULL: a version that did not write it to the policy.
ALTER TABLE installation ADD COLUMN metadata_key TEXT GENERATED ALWAYS AS
    (iif(instr(policy, ' key=') > 0, substr(policy, instr(policy, ' key=') + 5), NULL)) VIRTUAL;

-- The key under which the account's mark was last seen or written: a former one as long as there is a mark under it.
ALTER TABLE accounts ADD COLUMN mark_key TEXT;
UPDATE accounts SET mark_key = (SELECT metadata_key FROM installation) WHERE denied = 1;
CREATE INDEX accounts_mark_key ON accounts (mark_key) WHERE denied = 1;

-- The key whose Action was deployed and bound at the last check. NULL: none was, or it could not be checked.
ALTER TABLE health ADD COLUMN action_key TEXT;

-- An approval counts for the reason that it was given for: `approved` alone does not say which.
ALTER TABLE users ADD COLUMN approved_for TEXT;
UPDATE users SET approved_for = why WHERE approved = 1 AND outcome = 'held';
UPDATE users SET approved = 0 WHERE approved = 1 AND approved_for IS NULL;

//! Erases a user's personal data from the state.

use super::alarms::end_quarantine_alarm;
use super::looks::Decision;
use super::write::{COMPACT, COMPONENT, Tx, Write};
use super::{Store, StoreError};
use crate::domain::{Cause, DecisionOutcome, OktaUserId, Timestamp};
use crate::failpoint::{self, Phase};

/// Every string by which free text may identify the user ?1.
const NEEDLES: &str = "
    SELECT json_group_array(needle) FROM (
        SELECT ?1 AS needle
        UNION SELECT login FROM users WHERE okta_user_id = ?1 AND login <> ''
        UNION SELECT login_key FROM users WHERE okta_user_id = ?1 AND login_key <> ''
        UNION SELECT email FROM users WHERE okta_user_id = ?1 AND email <> ''
        UNION SELECT address FROM users JOIN addresses USING (user_seq) WHERE okta_user_id = ?1
        UNION SELECT address_key FROM users JOIN addresses USING (user_seq) WHERE okta_user_id = ?1
        UNION SELECT auth0_user_id FROM accounts WHERE okta_user_id = ?1)";

/// Whether the user left and is not denied yet.
const IS_UNFINISHED: &str = "
    SELECT left_seen = 1 AND (due_since IS NOT NULL OR outcome IN ('held', 'failed')) FROM users WHERE okta_user_id = ?";

/// Removes the values of the user ?1, and ?2, the list of [`NEEDLES`], from free text, and the user as the actor of events.
const FORGET_VALUES: [&str; 10] = [
    // An alarm about the whole installation stays open: it is still true for the others.
    "UPDATE alarms SET detail = 'forgotten'
     WHERE subject = '' AND EXISTS (SELECT 1 FROM json_each(?2) WHERE instr(lower(detail), lower(value)))",
    "DELETE FROM alarms WHERE subject <> '' AND EXISTS (
         SELECT 1 FROM json_each(?2) WHERE subject = value OR instr(lower(detail), lower(value)))",
    "UPDATE events SET state = 'dismissed', raw = NULL, why = 'forgotten'
     WHERE state = 'quarantined' AND EXISTS (SELECT 1 FROM json_each(?2) WHERE instr(lower(raw), lower(value)))",
    "UPDATE remotes SET error = 'forgotten'
     WHERE EXISTS (SELECT 1 FROM json_each(?2) WHERE instr(lower(error), lower(value)))",
    "UPDATE run_log SET error = 'forgotten'
     WHERE error IS NOT NULL AND EXISTS (SELECT 1 FROM json_each(?2) WHERE instr(lower(error), lower(value)))",
    "UPDATE events SET actor = NULL WHERE lower(actor) IN (SELECT lower(value) FROM json_each(?2))",
    "DELETE FROM addresses WHERE user_seq = (SELECT user_seq FROM users WHERE okta_user_id = ?1)",
    "DELETE FROM account_events WHERE user_seq = (SELECT user_seq FROM users WHERE okta_user_id = ?1)",
    "DELETE FROM first_denials WHERE okta_user_id = ?1",
    "UPDATE accounts SET email = NULL, connection = NULL, event_id = NULL WHERE okta_user_id = ?1",
];

/// Removes the user, unless an account still carries a mark for them. A user who stays gets a `due_seq` above every number
/// that a running look may have claimed, and keeps an unsettled reason (a mark to lift), but no recheck.
const FORGET_USER: [&str; 3] = [
    "DELETE FROM accounts WHERE okta_user_id = ?1 AND denied = 0 AND sessions_owed = 0",
    "UPDATE users SET login = NULL, login_key = NULL, email = NULL, last_error = NULL,
         why = iif(outcome IN ('retry', 'snooze', 'failed'), 'forgotten', why),
         due_seq = due_seq + 1 + (due_seq > settled_seq), settled_seq = due_seq + 1,
         due_at = iif(due_seq > settled_seq, due_at, NULL)
     WHERE okta_user_id = ?1",
    "DELETE FROM users WHERE okta_user_id = ?1 AND NOT EXISTS (SELECT 1 FROM accounts WHERE okta_user_id = ?1)",
];

impl Store {
    /// Erases a user's names, addresses, events and the personal part of their decisions. Logs the erasure and its actor as
    /// a decision.
    ///
    /// Marked accounts keep a row with only Auth0's id, so that the mark is still found. Decisions about other users lose
    /// their actor if it is this user, and keep the user's Okta id where it is their reason. A running look at the user ends
    /// with [`StoreError::Gone`] and stores nothing. A tombstone keeps the state from recording the user again.
    ///
    /// Deleted values are overwritten in place; [`Store::compact`] removes copies that SQLite left in unused parts of the
    /// file.
    ///
    /// # Errors
    /// [`StoreError::Gone`] when the user is not known, and [`StoreError::Unfinished`] when they left and are not denied yet.
    pub async fn forget(&self, id: &OktaUserId, actor: &str, policy: &str, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.begin(Write::Forget).await?;
        let due_seq: Option<i64> = sqlx::query_scalar("SELECT due_seq FROM users WHERE okta_user_id = ?")
            .bind(id.as_str())
            .fetch_optional(&mut *tx)
            .await?;
        let due_seq = due_seq.ok_or_else(|| StoreError::gone_user(id))?;
        if sqlx::query_scalar(IS_UNFINISHED).bind(id).fetch_one(&mut *tx).await? {
            return Err(StoreError::Unfinished(id.clone()));
        }
        self.leave_tombstone(&mut tx, id, now).await?;
        // If the same id returns, it starts above every number that a running look may have claimed.
        sqlx::query("UPDATE installation SET seq_floor = max(seq_floor, ? + 1)")
            .bind(due_seq)
            .execute(&mut *tx)
            .await?;

        let needles: String = sqlx::query_scalar(NEEDLES).bind(id).fetch_one(&mut *tx).await?;
        for sql in FORGET_VALUES {
            sqlx::query(sql).bind(id).bind(&needles).execute(&mut *tx).await?;
        }
        self.forget_events(&mut tx, id).await?;
        end_quarantine_alarm(&mut tx, now).await?;
        let anonymized = self.redact_decisions(&mut tx, id, &needles, now).await?;
        for sql in FORGET_USER {
            sqlx::query(sql).bind(id).execute(&mut *tx).await?;
        }
        let done = Decision {
            cause: Cause::Command.as_str().to_owned(),
            actor: Some(actor.to_owned()),
            outcome: DecisionOutcome::Forgotten,
            why: Some(anonymized),
            ..Decision::default()
        };
        self.append_decisions(&mut tx, &[done], policy, now).await?;
        self.commit(tx).await
    }

    /// Keeps events that also name other users.
    async fn forget_events(&self, tx: &mut Tx, id: &OktaUserId) -> Result<(), StoreError> {
        let events: Vec<i64> = sqlx::query_scalar(
            "DELETE FROM event_users WHERE user_seq = (SELECT user_seq FROM users WHERE okta_user_id = ?)
             RETURNING event_seq",
        )
        .bind(id.as_str())
        .fetch_all(&mut **tx)
        .await?;
        sqlx::query(
            "DELETE FROM events WHERE seq IN (SELECT value FROM json_each(?))
                 AND NOT EXISTS (SELECT 1 FROM event_users eu WHERE eu.event_seq = events.seq)",
        )
        .bind(serde_json::Value::from(events).to_string())
        .execute(&mut **tx)
        .await?;
        Ok(())
    }

    /// Rewrites the file without its unused parts and truncates the WAL, so that neither holds deleted data.
    ///
    /// Reads and writes the whole file, blocks other writers for that time, and needs free space for a second copy.
    ///
    /// # Errors
    /// When the state cannot be written, or another process reads it for longer than the busy timeout.
    pub async fn compact(&self) -> Result<(), StoreError> {
        failpoint::pass(COMPONENT, COMPACT, Phase::Before);
        sqlx::query("VACUUM").execute(self.writer()).await?;
        failpoint::pass(COMPONENT, COMPACT, Phase::After);
        let busy: i64 = sqlx::query_scalar("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(self.writer()).await?;
        if busy == 0 { Ok(()) } else { Err(StoreError::StillRead { path: self.path().to_owned() }) }
    }
}

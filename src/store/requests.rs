//! Requests by operators, the configuration and the reconcile: looks, approvals, dismissals.

use sqlx::FromRow;

use super::alarms::end_quarantine_alarm;
use super::looks::Selection;
use super::write::{Tx, Write};
use super::{Store, StoreError, count, json_list};
use crate::domain::{Cause, Lane, OktaUserId, OutcomeKind, Timestamp, timestamp_text};

/// The users that a request selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who<'a> {
    /// One user.
    User(&'a OktaUserId),
    /// All failed users.
    Failed,
    /// All held users.
    Held,
}

/// A user made due by a request, with the sequence number that a look must reach to complete it.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Requested {
    /// Okta's id.
    #[sqlx(rename = "okta_user_id")]
    pub id: OktaUserId,
    /// [`super::Progress::looked_seq`] must reach this.
    pub due_seq: i64,
}

impl Store {
    /// Makes users due at an operator's request. Adds an unknown user.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn request_look(&self, who: Who<'_>, now: Timestamp) -> Result<Vec<Requested>, StoreError> {
        let now_text = timestamp_text(now);
        let mut tx = self.begin(Write::RequestLook).await?;
        let selection = match who {
            Who::User(id) => {
                self.add_if_unknown(&mut tx, id, &now_text).await?;
                Selection::One(id)
            }
            Who::Failed => Selection::Outcome(OutcomeKind::Failed),
            Who::Held => Selection::Outcome(OutcomeKind::Held),
        };
        let rows = self.make_due_in(&mut tx, selection, Lane::Reactivation, Cause::Command, &now_text).await?;
        self.commit(tx).await?;
        Ok(rows)
    }

    /// Approves held users: their next look skips the check that held them. Returns the approved users.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn approve(&self, who: Who<'_>, now: Timestamp) -> Result<Vec<Requested>, StoreError> {
        let now_text = timestamp_text(now);
        let mut tx = self.begin(Write::Approve).await?;
        let id = match who {
            Who::User(id) => Some(id.as_str()),
            Who::Held => None,
            // A failed user is never held.
            Who::Failed => return Ok(Vec::new()),
        };
        let rows = sqlx::query_as(
            "UPDATE users SET approved = 1, due_seq = due_seq + 1, due_at = ?1, cause = 'command',
                 due_since = coalesce(due_since, ?1), lane = min(lane, 1)
             WHERE outcome = 'held' AND (?2 IS NULL OR okta_user_id = ?2)
             RETURNING okta_user_id, due_seq",
        )
        .bind(&now_text)
        .bind(id)
        .fetch_all(&mut *tx)
        .await?;
        self.commit(tx).await?;
        Ok(rows)
    }

    /// Dismisses a quarantined event and deletes its text. Returns whether there was one.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn dismiss_event(&self, event_id: &str, now: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.begin(Write::DismissEvent).await?;
        let done = sqlx::query(
            "UPDATE events SET state = 'dismissed', raw = NULL
             WHERE event_order = substr(?1, 15, 4) || substr(?1, 10, 4) AND event_id = ?1 AND state = 'quarantined'",
        )
        .bind(event_id)
        .execute(&mut *tx)
        .await?;
        end_quarantine_alarm(&mut tx, now).await?;
        self.commit(tx).await?;
        Ok(done.rows_affected() > 0)
    }

    /// Makes these users due for a reconcile, unless they are already due. Adds unknown users.
    ///
    /// Returns how many became due.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn queue_for_reconcile(&self, ids: &[OktaUserId], now: Timestamp) -> Result<u64, StoreError> {
        let now_text = timestamp_text(now);
        let ids = json_list(ids.iter().map(OktaUserId::as_str));
        let mut tx = self.begin(Write::QueueForReconcile).await?;
        sqlx::query(
            "INSERT INTO users (okta_user_id, due_seq, settled_seq, cause, since)
             SELECT value, seq_floor, seq_floor, 'sweep', ?2 FROM json_each(?1), installation WHERE true
             ON CONFLICT DO NOTHING",
        )
        .bind(&ids)
        .bind(&now_text)
        .execute(&mut *tx)
        .await?;
        let made =
            self.make_due_in(&mut tx, Selection::Reconcile(&ids), Lane::Reconcile, Cause::Reconcile, &now_text).await?;
        self.commit(tx).await?;
        Ok(count(made.len()))
    }

    /// Makes users due that were skipped only because enforcement was off. [`Store::open`] does the same when it finds
    /// enforcement newly enabled.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn enforcement_switched_on(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut tx = self.begin(Write::EnforcementSwitchedOn).await?;
        let made = self.queue_unenforced(&mut tx, now).await?;
        self.commit(tx).await?;
        Ok(made)
    }

    pub(super) async fn queue_unenforced(&self, tx: &mut Tx, now: Timestamp) -> Result<u64, StoreError> {
        let why = crate::domain::Skipped::NotEnforced.to_string();
        let made =
            self.make_due_in(tx, Selection::Why(&why), Lane::Deactivation, Cause::Policy, &timestamp_text(now)).await?;
        Ok(count(made.len()))
    }

    async fn add_if_unknown(&self, tx: &mut Tx, id: &OktaUserId, now_text: &str) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO users (okta_user_id, due_seq, settled_seq, cause, since)
             SELECT ?1, seq_floor, seq_floor, 'command', ?2 FROM installation WHERE true ON CONFLICT DO NOTHING",
        )
        .bind(id.as_str())
        .bind(now_text)
        .execute(&mut **tx)
        .await?;
        Ok(())
    }
}

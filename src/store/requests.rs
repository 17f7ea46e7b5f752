//! Requests by operators, the configuration and the reconcile: looks, approvals, dismissals.

use sqlx::FromRow;

use super::alarms::end_quarantine_alarm;
use super::looks::{Decision, Selection};
use super::write::{Tx, Write};
use super::{Store, StoreError, count, json_list};
use crate::domain::{Cause, DecisionOutcome, Held, Lane, OktaUserId, OutcomeKind, Timestamp, event, timestamp_text};

/// The users that a request selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who<'a> {
    /// One user.
    User(&'a OktaUserId),
    /// All failed users.
    Failed,
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

/// A user whom only an operator can release.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct HeldUser {
    /// Okta's id.
    #[sqlx(rename = "okta_user_id")]
    pub id: OktaUserId,
    /// The last email read, or else the login.
    pub name: Option<String>,
    /// The last status read.
    pub status: Option<String>,
    /// Why the user is held.
    pub why: Held,
}

/// An operator's approval of held users.
#[derive(Clone, Copy, Debug)]
pub struct Approval<'a> {
    /// The users as the operator saw them.
    pub held: &'a [HeldUser],
    /// The operator.
    pub by: &'a str,
    /// The operator's reason.
    pub reason: Option<&'a str>,
    /// [`crate::domain::Policy::fingerprint`].
    pub policy: &'a str,
}

/// Approves the users in ?2, a JSON array of id, reason and status as the operator saw them. ?1 is the time. The state may
/// know more by now: a look read another status, or an event arrived that no look has judged.
const APPROVE: &str = "
    UPDATE users SET approved = 1, approved_for = why, approved_status = status, due_seq = due_seq + 1, due_at = ?1, cause = 'command',
        due_since = coalesce(due_since, ?1), lane = min(lane, 1)
    FROM json_each(?2) shown
    WHERE outcome = 'held' AND okta_user_id = shown.value ->> 0 AND why = shown.value ->> 1
      AND status IS shown.value ->> 2
      AND NOT EXISTS (SELECT 1 FROM event_users eu
                       WHERE eu.user_seq = users.user_seq AND eu.due_seq > users.looked_seq AND eu.settled_at IS NULL)
    RETURNING okta_user_id, due_seq, email, status, why";

/// The text of a quarantined event.
const QUARANTINED: &str = "
    SELECT raw FROM events
    WHERE event_order = substr(?1, 15, 4) || substr(?1, 10, 4) AND event_id = ?1 AND state = 'quarantined'";

/// A reconcile is missing, because of ?1, since ?2.
const MISS_RECONCILE: &str = "
    UPDATE installation SET unchecked = iif(unchecked_all, unchecked, ?1), unchecked_since = ?2";

#[derive(FromRow)]
struct ApprovedRow {
    #[sqlx(flatten)]
    made: Requested,
    email: Option<String>,
    status: Option<String>,
    why: String,
}

impl ApprovedRow {
    fn decision(&self, approval: &Approval<'_>) -> Decision {
        let reason = approval.reason.map_or_else(String::new, |reason| format!("; reason: {reason}"));
        Decision {
            okta_user_id: Some(self.made.id.to_string()),
            email: self.email.clone(),
            cause: Cause::Command.as_str().to_owned(),
            actor: Some(approval.by.to_owned()),
            status: self.status.clone(),
            outcome: DecisionOutcome::Approved,
            why: Some(format!("{}{reason}", self.why)),
            ..Decision::default()
        }
    }
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
        };
        let rows = self.make_due_in(&mut tx, selection, Lane::Reactivation, Cause::Command, &now_text).await?;
        self.commit(tx).await?;
        Ok(rows)
    }

    /// The held users, the longest held first.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn held(&self) -> Result<Vec<HeldUser>, StoreError> {
        Ok(sqlx::query_as(
            "SELECT okta_user_id, coalesce(email, login) AS name, status, why FROM users
             WHERE outcome = 'held' ORDER BY since, okta_user_id",
        )
        .fetch_all(self.reader())
        .await?)
    }

    /// Approves held users for the reason that the operator saw: their next look skips the check that held them. Logs
    /// each approval and its author as a decision. Returns the approved users, without those who are held for another
    /// reason by now, or about whom there is news.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn approve(&self, approval: Approval<'_>, now: Timestamp) -> Result<Vec<Requested>, StoreError> {
        let now_text = timestamp_text(now);
        let shown: Vec<_> =
            approval.held.iter().map(|user| (user.id.as_str(), user.why.to_string(), &user.status)).collect();
        let mut tx = self.begin(Write::Approve).await?;
        let rows: Vec<ApprovedRow> = sqlx::query_as(APPROVE)
            .bind(&now_text)
            .bind(serde_json::json!(shown).to_string())
            .fetch_all(&mut *tx)
            .await?;
        let decisions: Vec<Decision> = rows.iter().map(|row| row.decision(&approval)).collect();
        self.append_decisions(&mut tx, &decisions, approval.policy, now).await?;
        self.commit(tx).await?;
        Ok(rows.into_iter().map(|row| row.made).collect())
    }

    /// Dismisses a quarantined event and deletes its text. Returns the users that it names; `None` if there is no such event.
    ///
    /// It may have said that a user left. So the users that it names are due for a look, and a reconcile is missing until one
    /// has covered the others.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn dismiss_event(&self, event_id: &str, now: Timestamp) -> Result<Option<Vec<OktaUserId>>, StoreError> {
        let now_text = timestamp_text(now);
        let mut tx = self.begin(Write::DismissEvent).await?;
        let raw: Option<Option<String>> =
            sqlx::query_scalar(QUARANTINED).bind(event_id).fetch_optional(&mut *tx).await?;
        let Some(raw) = raw else { return Ok(None) };
        let users = raw.as_deref().map(event::users_named_in).unwrap_or_default();
        for id in &users {
            self.add_if_unknown(&mut tx, id, &now_text).await?;
            self.make_due_in(&mut tx, Selection::One(id), Lane::Deactivation, Cause::Command, &now_text).await?;
        }
        sqlx::query(MISS_RECONCILE)
            .bind(format!("event {event_id} was dismissed unread, so a user who left may still be open"))
            .bind(&now_text)
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "UPDATE events SET state = 'dismissed', raw = NULL
             WHERE event_order = substr(?1, 15, 4) || substr(?1, 10, 4) AND event_id = ?1 AND state = 'quarantined'",
        )
        .bind(event_id)
        .execute(&mut *tx)
        .await?;
        end_quarantine_alarm(&mut tx, now).await?;
        self.commit(tx).await?;
        Ok(Some(users))
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

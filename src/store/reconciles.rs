//! The progress of a reconcile, so that it resumes after a restart.

use super::types::StoredTime;
use super::write::Write;
use super::{Store, StoreError};
use crate::domain::{OktaUserId, Timestamp, timestamp_text};

/// A running or finished reconcile.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct ReconcileRun {
    /// `all`, or the RFC 3339 time since which a status must have changed.
    pub scope: String,
    /// Why it was started.
    pub reason: String,
    /// The current stage.
    pub stage: String,
    /// Where the stage continues.
    pub next: Option<String>,
    /// Users listed so far.
    pub listed: i64,
    /// Users queued so far.
    pub made_due: i64,
    /// When it started.
    pub started_at: String,
    /// When it finished.
    pub finished_at: Option<String>,
}

/// Users may have left unnoticed, until a reconcile has covered them.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Unchecked {
    /// Why.
    #[sqlx(rename = "unchecked")]
    pub why: String,
    /// Since when. Only a reconcile that begins later covers them.
    #[sqlx(rename = "unchecked_since")]
    pub since: String,
    /// Only a reconcile of all users covers them.
    #[sqlx(rename = "unchecked_all")]
    pub all: bool,
}

/// Ends what the complete reconcile in `sweep` covered. One of the last 80 days covers an event that the log still had.
const END_UNCHECKED: &str = "
    UPDATE installation SET unchecked = NULL, unchecked_since = NULL, unchecked_all = 0
    FROM sweep
    WHERE unchecked IS NOT NULL AND sweep.started_at >= unchecked_since
      AND (sweep.scope = 'all'
           OR (unchecked_all = 0 AND sweep.scope <= strftime('%Y-%m-%dT%H:%M:%fZ', unchecked_since, '-80 days')))";

impl ReconcileRun {
    /// The scope of a reconcile without a time limit.
    pub const ALL: &str = "all";

    /// Whether it covers all users.
    pub fn is_full(&self) -> bool {
        self.scope == Self::ALL
    }
}

impl Store {
    /// The running reconcile.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn current_reconcile(&self) -> Result<Option<ReconcileRun>, StoreError> {
        Ok(sqlx::query_as(
            "SELECT scope, reason, stage, next, listed, made_due, started_at, finished_at FROM sweep
             WHERE finished_at IS NULL",
        )
        .fetch_optional(self.reader())
        .await?)
    }

    /// Begins a reconcile and replaces a running one. One with `scope` `all` covers the current policy:
    /// [`super::Opened::policy_changed`] is set at every start until then.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn begin_reconcile(
        &self,
        scope: &str,
        reason: &str,
        stage: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin(Write::BeginReconcile).await?;
        sqlx::query("INSERT OR REPLACE INTO sweep (id, scope, reason, stage, started_at) VALUES (1, ?, ?, ?, ?)")
            .bind(scope)
            .bind(reason)
            .bind(stage)
            .bind(timestamp_text(now))
            .execute(&mut *tx)
            .await?;
        sqlx::query("UPDATE installation SET swept_policy = policy WHERE ? = 'all'")
            .bind(scope)
            .execute(&mut *tx)
            .await?;
        self.commit(tx).await
    }

    /// Why a reconcile is missing, if one is.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn unchecked(&self) -> Result<Option<Unchecked>, StoreError> {
        Ok(sqlx::query_as(
            "SELECT unchecked, unchecked_since, unchecked_all FROM installation WHERE unchecked IS NOT NULL",
        )
        .fetch_optional(self.reader())
        .await?)
    }

    /// Stores the progress of the reconcile.
    ///
    /// # Errors
    /// When the state cannot be written, and [`StoreError::Gone`] when no reconcile is running.
    pub async fn advance_reconcile(
        &self,
        stage: &str,
        next: Option<&str>,
        listed: u64,
        made_due: u64,
    ) -> Result<(), StoreError> {
        let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let moved = self.write(Write::AdvanceReconcile, sqlx::query(
            "UPDATE sweep SET stage = ?, next = ?, listed = listed + ?, made_due = made_due + ? WHERE finished_at IS NULL",
        )
        .bind(stage)
        .bind(next)
        .bind(count(listed))
        .bind(count(made_due))
        ).await?;
        if moved.rows_affected() == 1 {
            Ok(())
        } else {
            Err(StoreError::Gone { what: "reconcile", id: "under way".to_owned() })
        }
    }

    /// Ends the reconcile. One that is not complete skipped something: it does not count as good, and does not cover the
    /// policy.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn finish_reconcile(&self, complete: bool, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.begin(Write::FinishReconcile).await?;
        sqlx::query(
            "UPDATE installation SET last_reconcile_ok_at = iif(?1, ?2, last_reconcile_ok_at),
                 swept_policy = iif(?1 OR (SELECT scope FROM sweep) <> 'all', swept_policy, '')",
        )
        .bind(complete)
        .bind(timestamp_text(now))
        .execute(&mut *tx)
        .await?;
        if complete {
            sqlx::query(END_UNCHECKED).execute(&mut *tx).await?;
        }
        sqlx::query("UPDATE sweep SET finished_at = ? WHERE finished_at IS NULL")
            .bind(timestamp_text(now))
            .execute(&mut *tx)
            .await?;
        self.commit(tx).await
    }

    /// A page of the users that a reconcile must queue whatever Okta lists: denied, held, skipped or failed users, and
    /// users who left and had no account. Ordered by id, after `after`.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn users_to_compare(&self, after: Option<&str>, limit: u32) -> Result<Vec<OktaUserId>, StoreError> {
        Ok(sqlx::query_scalar(
            "SELECT okta_user_id FROM users u
             WHERE okta_user_id > ?1
               AND (outcome IN ('held', 'skipped', 'failed', 'no_account')
                    OR EXISTS (SELECT 1 FROM accounts a WHERE a.okta_user_id = u.okta_user_id
                                 AND (a.denied = 1 OR a.sessions_owed = 1
                                      OR a.unconfirmed > 0)))
             ORDER BY okta_user_id LIMIT ?2",
        )
        .bind(after.unwrap_or(""))
        .bind(limit)
        .fetch_all(self.reader())
        .await?)
    }

    /// When the last good reconcile finished, or else when the log was first polled.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn last_reconcile_or_start(&self) -> Result<Option<Timestamp>, StoreError> {
        let at: Option<StoredTime> =
            sqlx::query_scalar("SELECT coalesce(last_reconcile_ok_at, first_poll_at) FROM installation")
                .fetch_one(self.reader())
                .await?;
        Ok(at.map(Timestamp::from))
    }

    /// When the last reconcile finished.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn last_reconcile_ok_at(&self) -> Result<Option<Timestamp>, StoreError> {
        let at: Option<StoredTime> =
            sqlx::query_scalar("SELECT last_reconcile_ok_at FROM installation").fetch_one(self.reader()).await?;
        Ok(at.map(Timestamp::from))
    }
}

//! What people and the configuration ask for: looks, approvals, a person's data out.

use sqlx::Row;

use super::looks::{Decision, Selection, user_id};
use super::{Store, StoreError};
use crate::domain::{Cause, Lane, OktaUserId, Timestamp, timestamp_text};

/// Whom a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who<'a> {
    /// One user.
    User(&'a OktaUserId),
    /// Everybody whose looks have failed.
    Failed,
    /// Everybody who is held.
    Held,
}

/// Users that a request made due, with the number that a look has to reach for the request to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Who.
    pub id: OktaUserId,
    /// [`super::Progress::looked_seq`] must reach this.
    pub due_seq: i64,
}

impl Store {
    /// Makes users due because a person asked. A user the store does not know yet is added.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn request_look(&self, who: Who<'_>, now: Timestamp) -> Result<Vec<Made>, StoreError> {
        let sql = |error| self.error(error);
        let now_text = timestamp_text(now);
        let mut tx = self.begin().await?;
        let selection = match who {
            Who::User(id) => {
                self.know(&mut tx, id, &now_text).await?;
                Selection::One(id)
            }
            Who::Failed => Selection::Outcome("failed"),
            Who::Held => Selection::Outcome("held"),
        };
        self.make_due_in(&mut tx, selection, Lane::Reactivation, Cause::Command, &now_text).await?;
        let rows = sqlx::query(
            "SELECT okta_user_id, due_seq FROM users WHERE cause = 'command' AND due_at = ?1 AND (?2 IS NULL OR okta_user_id = ?2)
             ORDER BY okta_user_id",
        )
        .bind(&now_text)
        .bind(if let Who::User(id) = who { Some(id.as_str()) } else { None })
        .fetch_all(&mut *tx)
        .await
        .map_err(sql)?;
        let mut made = Vec::with_capacity(rows.len());
        for row in rows {
            made.push(Made {
                id: user_id(&row.try_get::<String, _>("okta_user_id").map_err(sql)?)?,
                due_seq: row.try_get("due_seq").map_err(sql)?,
            });
        }
        self.commit(tx).await?;
        Ok(made)
    }

    /// Lets held users through: their next look does not ask what held them. Returns those it was asked for.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn approve(&self, who: Who<'_>, now: Timestamp) -> Result<Vec<Made>, StoreError> {
        let sql = |error| self.error(error);
        let now_text = timestamp_text(now);
        let mut tx = self.begin().await?;
        let id = if let Who::User(id) = who { Some(id.as_str()) } else { None };
        let rows = sqlx::query(
            "UPDATE users SET approved = 1, due_seq = due_seq + 1, due_at = ?1, cause = 'command',
                 due_since = coalesce(due_since, ?1), lane = min(lane, 1)
             WHERE outcome = 'held' AND (?2 IS NULL OR okta_user_id = ?2)
             RETURNING okta_user_id, due_seq",
        )
        .bind(&now_text)
        .bind(id)
        .fetch_all(&mut *tx)
        .await
        .map_err(sql)?;
        let mut made = Vec::with_capacity(rows.len());
        for row in rows {
            made.push(Made {
                id: user_id(&row.try_get::<String, _>("okta_user_id").map_err(sql)?)?,
                due_seq: row.try_get("due_seq").map_err(sql)?,
            });
        }
        self.commit(tx).await?;
        Ok(made)
    }

    /// Puts a quarantined event aside: a person has seen it. Its text is dropped. Returns whether there was one.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn dismiss_event(&self, event_id: &str, now: Timestamp) -> Result<bool, StoreError> {
        let sql = |error| self.error(error);
        let mut tx = self.begin().await?;
        let done = sqlx::query(
            "UPDATE events SET state = 'dismissed', raw = NULL WHERE event_id = ? AND state = 'quarantined'",
        )
        .bind(event_id)
        .execute(&mut *tx)
        .await
        .map_err(sql)?;
        sqlx::query(
            "UPDATE alarms SET cleared_at = ? WHERE kind = 'quarantined' AND cleared_at IS NULL
               AND NOT EXISTS (SELECT 1 FROM events WHERE state = 'quarantined')",
        )
        .bind(timestamp_text(now))
        .execute(&mut *tx)
        .await
        .map_err(sql)?;
        self.commit(tx).await?;
        Ok(done.rows_affected() > 0)
    }

    /// Makes these users due for a comparison, unless they are due anyway. Unknown ones are added.
    ///
    /// Returns how many became due.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn sweep_users(&self, ids: &[OktaUserId], now: Timestamp) -> Result<u64, StoreError> {
        let now_text = timestamp_text(now);
        let ids = serde_json::Value::from(ids.iter().map(OktaUserId::as_str).collect::<Vec<_>>()).to_string();
        let mut tx = self.begin().await?;
        sqlx::query(
            "INSERT INTO users (okta_user_id, cause, since) SELECT value, 'sweep', ?2 FROM json_each(?1) WHERE true
             ON CONFLICT DO NOTHING",
        )
        .bind(&ids)
        .bind(&now_text)
        .execute(&mut *tx)
        .await
        .map_err(|error| self.error(error))?;
        let made = self.make_due_in(&mut tx, Selection::Swept(&ids), Lane::Sweep, Cause::Sweep, &now_text).await?;
        self.commit(tx).await?;
        Ok(made)
    }

    /// Enforcement was switched on: everybody who was only left out because it was off is due.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn enforcement_switched_on(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let why = crate::domain::Skipped::NotEnforced.to_string();
        let made = self
            .make_due_in(&mut tx, Selection::Why(&why), Lane::Deactivation, Cause::Policy, &timestamp_text(now))
            .await?;
        self.commit(tx).await?;
        Ok(made)
    }

    /// Takes a person's data out of the state: names, addresses, events, and the personal part of their decisions. That it
    /// was done, and by whom, is itself a decision.
    ///
    /// Accounts that are marked for them keep their row, so that the mark is still found: with Auth0's id alone.
    ///
    /// # Errors
    /// [`StoreError::Gone`] when the user is not known.
    pub async fn forget(&self, id: &OktaUserId, actor: &str, policy: &str, now: Timestamp) -> Result<(), StoreError> {
        let sql = |error| self.error(error);
        let now_text = timestamp_text(now);
        let mut tx = self.begin().await?;
        let known = sqlx::query(
            "UPDATE users SET login = NULL, email = NULL, last_error = NULL WHERE okta_user_id = ? RETURNING 1",
        )
        .bind(id.as_str())
        .fetch_optional(&mut *tx)
        .await
        .map_err(sql)?;
        if known.is_none() {
            return Err(StoreError::Gone { what: "user", id: id.to_string() });
        }
        for statement in [
            "DELETE FROM addresses WHERE okta_user_id = ?",
            "UPDATE accounts SET email = NULL, connection = NULL WHERE okta_user_id = ?",
            "DELETE FROM events WHERE seq IN (SELECT event_seq FROM event_users WHERE okta_user_id = ?)",
            "DELETE FROM first_denials WHERE okta_user_id = ?",
            "DELETE FROM alarms WHERE subject = ?",
        ] {
            sqlx::query(statement).bind(id.as_str()).execute(&mut *tx).await.map_err(sql)?;
        }
        sqlx::query("UPDATE decision_log_gate SET open = 1").execute(&mut *tx).await.map_err(sql)?;
        sqlx::query(
            "UPDATE decision_log SET forgotten_at = ?1, okta_user_id = NULL, email = NULL, auth0_user_id = NULL, actor = NULL,
                 event_id = NULL, why = NULL, request_id = NULL
             WHERE okta_user_id = ?2 AND forgotten_at IS NULL",
        )
        .bind(&now_text)
        .bind(id.as_str())
        .execute(&mut *tx)
        .await
        .map_err(sql)?;
        sqlx::query("UPDATE decision_log_gate SET open = 0").execute(&mut *tx).await.map_err(sql)?;
        // Who has no mark left has no reason to stay at all.
        sqlx::query("DELETE FROM accounts WHERE okta_user_id = ?1 AND denied = 0 AND sessions_owed = 0")
            .bind(id.as_str())
            .execute(&mut *tx)
            .await
            .map_err(sql)?;
        sqlx::query(
            "DELETE FROM users WHERE okta_user_id = ?1 AND NOT EXISTS (SELECT 1 FROM accounts WHERE okta_user_id = ?1)",
        )
        .bind(id.as_str())
        .execute(&mut *tx)
        .await
        .map_err(sql)?;
        let done = Decision {
            cause: Cause::Command.as_str().to_owned(),
            actor: Some(actor.to_owned()),
            outcome: "forgotten".to_owned(),
            ..Decision::default()
        };
        self.append_decisions(&mut tx, &[done], policy, now).await?;
        self.commit(tx).await
    }

    async fn know(
        &self,
        tx: &mut sqlx::Transaction<'static, sqlx::Sqlite>,
        id: &OktaUserId,
        now_text: &str,
    ) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO users (okta_user_id, cause, since) VALUES (?, 'command', ?) ON CONFLICT DO NOTHING")
            .bind(id.as_str())
            .bind(now_text)
            .execute(&mut **tx)
            .await
            .map_err(|error| self.error(error))?;
        Ok(())
    }
}

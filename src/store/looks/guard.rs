//! Before a write: the guard's leave, and debts that must not be forgotten.

use super::super::write::{Tx, Write};
use super::super::{Store, StoreError};
use super::{Admission, Denial, GuardWindow, Intent};
use crate::domain::{Address, OktaUserId, Timestamp, clock, timestamp_text};

impl Store {
    /// Before the first write for a user who is not denied yet: keeps what was read, asks the guard, and notes the intent if
    /// there is one and the guard admits it, as [`Store::intend_mark`] does.
    ///
    /// A user counts once in a window, however often the denial is tried; live and swept ones are counted apart.
    /// Approved ones pass, and who is held by the guard passes only so, however much time goes by.
    ///
    /// # Errors
    /// When the state cannot be written, and [`StoreError::Gone`] when the user was removed; nothing may be written to
    /// Auth0 then.
    pub async fn prepare_denial(
        &self,
        denial: Denial<'_>,
        guard: GuardWindow,
        now: Timestamp,
    ) -> Result<Admission, StoreError> {
        let Denial { user, read, reconcile, approved, intent } = denial;
        let now_text = timestamp_text(now);
        let window_start = timestamp_text(clock::sub(now, guard.span));
        let mut tx = self.begin(Write::PrepareDenial).await?;
        self.keep_read(&mut tx, user, read, &now_text).await?;
        // Counting those in the window takes as long as they are many; those in the table, SQLite counts by pages.
        let (held, known, all): (bool, bool, i64) = sqlx::query_as(
            "SELECT guarded, EXISTS (SELECT 1 FROM first_denials WHERE okta_user_id = ?1 AND at > ?2),
                    (SELECT count(*) FROM first_denials)
             FROM users WHERE okta_user_id = ?1",
        )
        .bind(user.as_str())
        .bind(&window_start)
        .fetch_one(&mut *tx)
        .await?;
        let mut counted = u64::try_from(all).unwrap_or(0);
        if counted >= guard.denials_max || held {
            let others: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM first_denials WHERE sweep = ? AND at > ? AND okta_user_id <> ?",
            )
            .bind(reconcile)
            .bind(&window_start)
            .bind(user.as_str())
            .fetch_one(&mut *tx)
            .await?;
            counted = u64::try_from(others).unwrap_or(0);
        }
        let admitted = approved || (!held && (known || counted < guard.denials_max));
        if held == admitted {
            // Kept apart from the outcome: a failed attempt in between must not let time open what the guard closed.
            sqlx::query("UPDATE users SET guarded = NOT guarded WHERE okta_user_id = ?")
                .bind(user.as_str())
                .execute(&mut *tx)
                .await?;
        }
        if admitted {
            // The window is all that is ever asked for.
            sqlx::query(
                "INSERT INTO first_denials (okta_user_id, at, sweep) VALUES (?1, ?2, ?3)
                 ON CONFLICT (okta_user_id) DO UPDATE SET at = iif(at > ?4, at, excluded.at), sweep = excluded.sweep;
                 DELETE FROM first_denials WHERE sweep IN (0, 1) AND at <= ?4",
            )
            .bind(user.as_str())
            .bind(&now_text)
            .bind(reconcile)
            .bind(&window_start)
            .execute(&mut *tx)
            .await?;
            if let Some(intent) = intent {
                self.intend_in(&mut tx, user, intent, &now_text).await?;
            }
        }
        self.commit(tx).await?;
        Ok(if admitted { Admission::Admitted } else { Admission::Refused(counted) })
    }

    /// Notes, before a mark is sent, that the account may carry one from now on, with or without a block of ours, and
    /// whether its sessions are to be ended after it: if the answer is lost and the user comes back meanwhile, the next
    /// look knows where to look.
    ///
    /// # Errors
    /// When the state cannot be written, and [`StoreError::Gone`] when the user was removed.
    pub async fn intend_mark(&self, user: &OktaUserId, intent: Intent<'_>, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.begin(Write::IntendMark).await?;
        self.intend_in(&mut tx, user, intent, &timestamp_text(now)).await?;
        self.commit(tx).await
    }

    async fn intend_in(
        &self,
        tx: &mut Tx,
        user: &OktaUserId,
        intent: Intent<'_>,
        now_text: &str,
    ) -> Result<(), StoreError> {
        // An account that was another user's and is open passes to this one, whose next look has to find it.
        let done = sqlx::query(
            "INSERT INTO accounts (auth0_user_id, okta_user_id, email, denied, sessions_owed, unconfirmed, changed_at)
             SELECT ?1, okta_user_id, ?3, 0, ?5, ?6, ?4 FROM users WHERE okta_user_id = ?2
             ON CONFLICT (auth0_user_id) DO UPDATE SET
                 okta_user_id = iif(denied = 1, okta_user_id, excluded.okta_user_id),
                 unconfirmed = max(unconfirmed, excluded.unconfirmed),
                 sessions_owed = max(sessions_owed, excluded.sessions_owed)",
        )
        .bind(intent.account.as_str())
        .bind(user.as_str())
        .bind(intent.email.map(Address::as_str))
        .bind(now_text)
        .bind(intent.owe_sessions)
        .bind(if intent.with_block { 2 } else { 1 })
        .execute(&mut **tx)
        .await?;
        if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Gone { what: "user", id: user.to_string() }) }
    }
}

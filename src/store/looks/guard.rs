//! Before a write: the guard's admission, and the write-ahead record of the mark.

use super::super::write::{Tx, Write};
use super::super::{Store, StoreError};
use super::{Admission, Denial, GuardWindow, Intent};
use crate::domain::{Address, DenialsMax, OktaUserId, Timestamp, clock, timestamp_text};

/// Returns whether the guard holds the user ?1, whether the window since ?2 contains the user, and the number of rows.
const GUARD_STATE: &str = "
    SELECT guarded, EXISTS (SELECT 1 FROM first_denials WHERE okta_user_id = ?1 AND at > ?2),
           (SELECT count(*) FROM first_denials)
    FROM users WHERE okta_user_id = ?1";

/// Counts the other users in the window.
const COUNT_OTHERS: &str = "SELECT count(*) FROM first_denials WHERE sweep = ? AND at > ? AND okta_user_id <> ?";

/// Adds the user to the window and deletes rows before it, which are never read again.
const COUNT_DENIAL: &str = "
    INSERT INTO first_denials (okta_user_id, at, sweep) VALUES (?1, ?2, ?3)
    ON CONFLICT (okta_user_id) DO UPDATE SET at = iif(at > ?4, at, excluded.at), sweep = excluded.sweep;
    DELETE FROM first_denials WHERE sweep IN (0, 1) AND at <= ?4";

/// Records that the account may carry a mark. Reassigns an account that another user owned and that is not denied, so that
/// this user's next look finds it.
const RECORD_INTENT: &str = "
    INSERT INTO accounts (auth0_user_id, okta_user_id, email, denied, sessions_owed, unconfirmed, changed_at)
    SELECT ?1, okta_user_id, ?3, 0, ?5, ?6, ?4 FROM users WHERE okta_user_id = ?2
    ON CONFLICT (auth0_user_id) DO UPDATE SET
        okta_user_id = iif(denied = 1, okta_user_id, excluded.okta_user_id),
        unconfirmed = max(unconfirmed, excluded.unconfirmed),
        sessions_owed = max(sessions_owed, excluded.sessions_owed)";

impl Store {
    /// Before the first denial of a user: stores the read user, asks the guard and, if the guard admits it, records the
    /// intent like [`Store::intend_mark`].
    ///
    /// A user counts once per window, however often the denial is retried. Denials by events and by a reconcile are counted
    /// separately. The guard always admits approved users; a user it holds needs an approval, however much time passes.
    ///
    /// # Errors
    /// When the state cannot be written, and [`StoreError::Gone`] when the user was removed; the caller must then write
    /// nothing to Auth0.
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
        self.store_read(&mut tx, user, read, &now_text).await?;
        // The count of the whole table is cheap and an upper bound; count the window only if that reaches the limit.
        let (held, known, all): (bool, bool, i64) =
            sqlx::query_as(GUARD_STATE).bind(user.as_str()).bind(&window_start).fetch_one(&mut *tx).await?;
        let mut counted = u64::try_from(all).unwrap_or(0);
        let limit = limit_in(&mut tx, guard).await?;
        if counted >= limit || held {
            let others: i64 = sqlx::query_scalar(COUNT_OTHERS)
                .bind(reconcile)
                .bind(&window_start)
                .bind(user.as_str())
                .fetch_one(&mut *tx)
                .await?;
            counted = u64::try_from(others).unwrap_or(0);
        }
        let admitted = approved || (!held && (known || counted < limit));
        if held == admitted {
            // Not derived from the outcome: a failed attempt in between must not release the hold.
            sqlx::query("UPDATE users SET guarded = NOT guarded WHERE okta_user_id = ?")
                .bind(user.as_str())
                .execute(&mut *tx)
                .await?;
        }
        if admitted {
            sqlx::query(COUNT_DENIAL)
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

    /// Records, before a mark is sent, that the account may carry one (with or without our block) and whether its sessions
    /// must be ended. If the response is lost and the user is reactivated, the next look still finds the account.
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
        let is_forgotten = self.is_forgotten(tx, user).await?;
        let done = sqlx::query(RECORD_INTENT)
            .bind(intent.account.as_str())
            .bind(user.as_str())
            .bind(intent.email.filter(|_| !is_forgotten).map(Address::as_str))
            .bind(now_text)
            .bind(intent.owe_sessions)
            .bind(if intent.with_block { 2 } else { 1 })
            .execute(&mut **tx)
            .await?;
        if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Gone { what: "user", id: user.to_string() }) }
    }
}

/// The limit in users. Only a share needs the number of known users.
async fn limit_in(tx: &mut Tx, guard: GuardWindow) -> Result<u64, StoreError> {
    let known: i64 = match guard.denials_max {
        DenialsMax::Users(_) => 0,
        DenialsMax::Share(_) => sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(&mut **tx).await?,
    };
    Ok(guard.denials_max.of(u64::try_from(known).unwrap_or(0)))
}

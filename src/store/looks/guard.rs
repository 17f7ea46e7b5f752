//! Before a write: the guard's leave, and debts that must not be forgotten.

use super::super::write::Write;
use super::super::{Store, StoreError};
use super::{Admission, GuardWindow, UserRead};
use crate::domain::{AccountId, Address, OktaUserId, Timestamp, clock, timestamp_text};

impl Store {
    /// Before the first write for a user who is not denied yet: keeps what was read, and asks the guard.
    ///
    /// A user counts once in a window, however often the denial is tried; live and swept ones are counted apart.
    /// `approved` ones pass, and who is held by the guard passes only so, however much time goes by.
    ///
    /// # Errors
    /// When the state cannot be written, and [`StoreError::Gone`] when the user was removed; nothing may be written to
    /// Auth0 then.
    pub async fn prepare_denial(
        &self,
        id: &OktaUserId,
        read: &UserRead,
        sweep: bool,
        approved: bool,
        guard: GuardWindow,
        now: Timestamp,
    ) -> Result<Admission, StoreError> {
        let sql = |error| self.error(error);
        let now_text = timestamp_text(now);
        let window_start = timestamp_text(clock::sub(now, guard.span));
        let mut tx = self.begin(Write::PrepareDenial).await?;
        self.keep_read(&mut tx, id, read, &now_text).await?;
        let (counted, known): (i64, bool) = sqlx::query_as(
            "SELECT count(*) FILTER (WHERE sweep = ?1 AND at > ?2 AND okta_user_id <> ?3),
                    coalesce(max(okta_user_id = ?3 AND at > ?2), 0)
             FROM first_denials WHERE at > ?2",
        )
        .bind(sweep)
        .bind(&window_start)
        .bind(id.as_str())
        .fetch_one(&mut *tx)
        .await
        .map_err(sql)?;
        let counted = u64::try_from(counted).unwrap_or(0);
        let held: bool = sqlx::query_scalar("SELECT guarded FROM users WHERE okta_user_id = ?")
            .bind(id.as_str())
            .fetch_one(&mut *tx)
            .await
            .map_err(sql)?;
        let admitted = approved || (!held && (known || counted < guard.denials_max));
        if held == admitted {
            // Kept apart from the outcome: a failed attempt in between must not let time open what the guard closed.
            sqlx::query("UPDATE users SET guarded = NOT guarded WHERE okta_user_id = ?")
                .bind(id.as_str())
                .execute(&mut *tx)
                .await
                .map_err(sql)?;
        }
        if admitted {
            sqlx::query(
                "INSERT INTO first_denials (okta_user_id, at, sweep) VALUES (?1, ?2, ?3)
                 ON CONFLICT (okta_user_id) DO UPDATE SET at = iif(at > ?4, at, excluded.at), sweep = excluded.sweep",
            )
            .bind(id.as_str())
            .bind(&now_text)
            .bind(sweep)
            .bind(&window_start)
            .execute(&mut *tx)
            .await
            .map_err(sql)?;
            // The window is all that is ever asked for.
            sqlx::query("DELETE FROM first_denials WHERE at <= ?")
                .bind(&window_start)
                .execute(&mut *tx)
                .await
                .map_err(sql)?;
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
    pub async fn intend_mark(
        &self,
        id: &OktaUserId,
        account: &AccountId,
        email: Option<&Address>,
        with_block: bool,
        owe_sessions: bool,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        // An account that was another user's and is open passes to this one, whose next look has to find it.
        let done = self.write(Write::IntendMark, sqlx::query(
            "INSERT INTO accounts (auth0_user_id, okta_user_id, email, denied, sessions_owed, unconfirmed, changed_at)
             SELECT ?1, okta_user_id, ?3, 0, ?5, ?6, ?4 FROM users WHERE okta_user_id = ?2
             ON CONFLICT (auth0_user_id) DO UPDATE SET
                 okta_user_id = iif(denied = 1, okta_user_id, excluded.okta_user_id),
                 unconfirmed = max(unconfirmed, excluded.unconfirmed),
                 sessions_owed = max(sessions_owed, excluded.sessions_owed)",
        )
        .bind(account.as_str())
        .bind(id.as_str())
        .bind(email.map(Address::as_str))
        .bind(timestamp_text(now))
        .bind(owe_sessions)
        .bind(if with_block { 2 } else { 1 })
        ).await?;
        if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Gone { what: "user", id: id.to_string() }) }
    }
}

//! What a look leaves behind: one transaction.

use super::super::write::{Tx, Write};
use super::super::{Store, StoreError, count};
use super::due::Selection;
use super::{AccountChange, Finished, LookFinish, UserRead};
use crate::domain::{Address, Cause, Held, Lane, OktaUserId, Outcome, Timestamp, clock, timestamp_text};

impl Store {
    /// Ends a look: outcome, decisions, accounts, and the user's events up to the one that the look had claimed.
    ///
    /// # Errors
    /// [`StoreError::Gone`] when the user was removed (or forgotten) meanwhile; nothing is stored then.
    pub async fn finish_look(&self, look: LookFinish<'_>, now: Timestamp) -> Result<Finished, StoreError> {
        let now_text = timestamp_text(now);
        let settles = look.outcome.settles();
        let attempts: Option<u32> = matches!(look.outcome, Outcome::Retry { .. }).then_some(1);
        let last_error = match look.outcome {
            Outcome::Retry { why, .. } | Outcome::Snooze { why, .. } | Outcome::Failed(why) => Some(why.as_str()),
            _ => None,
        };
        let next_look = look.next_look.or(match look.outcome {
            Outcome::Retry { after, .. } => Some(clock::add(now, *after)),
            Outcome::Snooze { until, .. } => Some(*until),
            _ => None,
        });
        let mut tx = self.begin(Write::FinishLook).await?;
        if let Some(read) = look.read {
            self.keep_read(&mut tx, look.user, read, &now_text).await?;
        }
        // The newest look knows whether what an older one complained of still is so.
        let kinds = look.alarms.iter().map(|alarm| alarm.kind.as_str()).collect::<Vec<_>>();
        let held_by_guard = matches!(look.outcome, Outcome::Held(Held::Guard));
        // `due_seq > ?claimed`: a reason arrived during the look. It has set due_at itself, and starts afresh: it is not
        // kept waiting, and not given up, because of what this look met. How a look ended otherwise is shown until then.
        // `settled_seq <= ?claimed`: no look that a `forget` overtook brings the person back.
        // Open are only events behind the last look that settled, so the user is asked for that before it is told of this
        // one. All of it is one text, as each is a way to the thread that has the connection, and back; the values are numbered
        // so that a statement leaves out few below its highest one, since sqlx counts what is left out across the text.
        let done: Option<(bool, bool, Vec<u8>)> = sqlx::query_as(
            "UPDATE installation SET last_apply_ok_at = ?1 WHERE ?2;
             UPDATE alarms SET cleared_at = ?1 WHERE ?2 AND subject = ?3 AND cleared_at IS NULL
               AND kind NOT IN (SELECT value FROM json_each(?4));
             UPDATE alarms SET cleared_at = ?1 WHERE ?2 AND kind = 'guard' AND cleared_at IS NULL AND NOT ?5
               AND NOT EXISTS (SELECT 1 FROM users WHERE outcome = 'held' AND why = 'guard' AND okta_user_id <> ?3);
             UPDATE event_users SET settled_at = ?1, outcome = ?6
             FROM (SELECT user_seq, settled_seq FROM users WHERE okta_user_id = ?3) u
             WHERE ?2 AND event_users.user_seq = u.user_seq AND event_users.due_seq > u.settled_seq
               AND event_users.due_seq <= ?7 AND settled_at IS NULL;
             UPDATE users SET
                 settled_seq = iif(?2, max(settled_seq, ?7), settled_seq),
                 looked_seq = ?7,
                 due_seq = iif(NOT ?2 AND due_seq = settled_seq, due_seq + 1, due_seq),
                 due_since = CASE WHEN due_seq > ?7 THEN due_since WHEN ?2 THEN NULL ELSE coalesce(due_since, ?1) END,
                 due_at = iif(due_seq > ?7, due_at, ?8),
                 recheck_step = iif(due_seq > ?7, 0, ?9),
                 cause = iif(due_seq = ?7 AND ?2 AND ?8 IS NOT NULL, 'recheck', cause),
                 attempts = CASE WHEN ?2 OR due_seq > ?7 THEN 0 ELSE attempts + coalesce(?10, 0) END,
                 approved = iif(?2, 0, approved),
                 since = iif(outcome IS ?6 AND why IS ?11, since, ?1),
                 why = iif(due_seq > ?7 AND ?6 IN ('retry', 'snooze', 'failed'), NULL, ?11),
                 depends_on = ?12,
                 last_error = ?13,
                 outcome = iif(due_seq > ?7 AND ?6 IN ('retry', 'snooze', 'failed'), NULL, ?6)
             WHERE okta_user_id = ?3 AND ?7 BETWEEN settled_seq AND due_seq
             RETURNING due_seq > ?7 AND due_at IS NOT NULL AND due_at <= ?1,
                 EXISTS (SELECT 1 FROM users WHERE depends_on = ?3),
                 coalesce((SELECT chain FROM decision_log ORDER BY id DESC LIMIT 1), (SELECT chain FROM decision_log_root))",
        )
        .bind(&now_text)
        .bind(settles)
        .bind(look.user.as_str())
        .bind(serde_json::Value::from(kinds).to_string())
        .bind(held_by_guard)
        .bind(look.outcome.as_str())
        .bind(look.claimed_seq)
        .bind(next_look.map(timestamp_text))
        .bind(look.recheck_step)
        .bind(attempts)
        .bind(look.outcome.why())
        .bind(look.depends_on.map(OktaUserId::as_str))
        .bind(last_error)
        .fetch_optional(&mut *tx)
        .await?;
        let (due_again, has_dependants, chain) =
            done.ok_or_else(|| StoreError::Gone { what: "user", id: look.user.to_string() })?;
        if let Some(event_id) = look.belated_event {
            sqlx::query(
                "UPDATE event_users SET settled_at = ?1, outcome = ?2
                 WHERE user_seq = (SELECT user_seq FROM users WHERE okta_user_id = ?3) AND settled_at IS NOT NULL
                   AND event_seq = (SELECT seq FROM events WHERE event_order = substr(?4, 15, 4) || substr(?4, 10, 4)
                                      AND event_id = ?4)",
            )
            .bind(&now_text)
            .bind(look.outcome.as_str())
            .bind(look.user.as_str())
            .bind(event_id)
            .execute(&mut *tx)
            .await?;
        }
        for account in look.accounts {
            self.keep_account(&mut tx, look.user, account, &now_text).await?;
        }
        self.append_decisions_behind(&mut tx, chain, look.decisions, look.policy, now).await?;
        if look.forget_guard {
            sqlx::query(
                "UPDATE users SET guarded = 0 WHERE okta_user_id = ?1 AND guarded = 1;
                 DELETE FROM first_denials WHERE okta_user_id = ?1",
            )
            .bind(look.user.as_str())
            .execute(&mut *tx)
            .await?;
        }
        let mut woken = 0;
        if look.wake_dependants && has_dependants {
            woken += self
                .make_due_in(
                    &mut tx,
                    Selection::DependingOn(look.user),
                    Lane::Reactivation,
                    Cause::Neighbour,
                    &now_text,
                )
                .await?
                .len();
        }
        if look.wake_sharers {
            woken += self
                .make_due_in(
                    &mut tx,
                    Selection::SharingWith(look.user),
                    Lane::Reactivation,
                    Cause::Neighbour,
                    &now_text,
                )
                .await?
                .len();
        }
        let mut raised = Vec::new();
        for alarm in look.alarms {
            if self.raise_in(&mut tx, alarm, now).await? {
                raised.push(alarm.kind);
            }
        }
        self.commit(tx).await?;
        Ok(Finished { due_again, woken: count(woken), raised })
    }

    /// What Okta said of a user, and every address in it.
    pub(super) async fn keep_read(
        &self,
        tx: &mut Tx,
        id: &OktaUserId,
        read: &UserRead,
        now_text: &str,
    ) -> Result<(), StoreError> {
        let left = read.status.has_left();
        let addresses: Vec<_> = read.addresses.iter().map(|address| (address.as_str(), address.key())).collect();
        // A deleted user's answer is a 404: it says nothing of login and e-mail.
        let kept = sqlx::query(
            "UPDATE users SET login = coalesce(?1, login), login_key = iif(?1 IS NULL, login_key, ?2),
                 email = coalesce(?3, email), status = ?4, status_at = ?5, left_seen = ?6
             WHERE okta_user_id = ?7;
             INSERT OR IGNORE INTO addresses (user_seq, address, address_key, seen_at)
             SELECT user_seq, value ->> 0, value ->> 1, ?5 FROM users, json_each(?8) WHERE okta_user_id = ?7",
        )
        .bind(&read.login)
        .bind(read.login.as_deref().map(str::to_lowercase))
        .bind(read.email.as_ref().map(Address::as_str))
        .bind(read.status.as_str())
        .bind(now_text)
        .bind(left)
        .bind(id.as_str())
        .bind(serde_json::json!(addresses).to_string())
        .execute(&mut **tx)
        .await?;
        if kept.rows_affected() == 0 {
            return Err(StoreError::Gone { what: "user", id: id.to_string() });
        }
        Ok(())
    }
    async fn keep_account(
        &self,
        tx: &mut Tx,
        owner: &OktaUserId,
        account: &AccountChange,
        now_text: &str,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO accounts (auth0_user_id, okta_user_id, email, connection, denied, blocked, denied_at, event_id,
                 published, lag_ms, sessions_owed, changed_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, coalesce(?7, iif(?5, ?12, NULL)), ?8, ?9, ?10, ?11, ?12)
             ON CONFLICT (auth0_user_id) DO UPDATE SET
                 okta_user_id = excluded.okta_user_id,
                 email = coalesce(excluded.email, email),
                 connection = coalesce(excluded.connection, connection),
                 event_id = iif(?7 IS NULL AND denied >= ?5, event_id, excluded.event_id),
                 published = iif(?7 IS NULL AND denied >= ?5, published, excluded.published),
                 lag_ms = iif(?7 IS NULL AND denied >= ?5, lag_ms, excluded.lag_ms),
                 denied_at = coalesce(?7, iif(denied >= ?5, denied_at, NULL), excluded.denied_at),
                 denied = excluded.denied, blocked = excluded.blocked, sessions_owed = excluded.sessions_owed,
                 unconfirmed = 0, changed_at = excluded.changed_at
             WHERE okta_user_id = excluded.okta_user_id OR denied = 0 OR excluded.denied = 1",
        )
        .bind(account.id.as_str())
        .bind(owner.as_str())
        .bind(account.email.as_ref().map(Address::as_str))
        .bind(&account.connection)
        .bind(account.denied)
        .bind(account.blocked)
        .bind(account.denied_at.map(timestamp_text))
        .bind(&account.event_id)
        .bind(account.published.map(timestamp_text))
        .bind(account.lag_ms)
        .bind(account.sessions_owed)
        .bind(now_text)
        .execute(&mut **tx)
        .await?;
        Ok(())
    }
}

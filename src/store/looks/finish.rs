//! Stores the result of a look in one transaction.

use super::super::write::{Tx, Write};
use super::super::{Store, StoreError, count, json_list};
use super::due::Selection;
use super::{AccountChange, Decision, Finished, LookFinish};
use crate::domain::{
    Address, Cause, DecisionOutcome, Lane, OktaUserId, Outcome, Timestamp, UserRead, clock, timestamp_text,
};

/// Settles the user's events up to the claimed one. Only events after the last settled number can be open.
const SETTLE_EVENTS: &str = "
    UPDATE event_users SET settled_at = ?1, outcome = ?2
    FROM (SELECT user_seq, settled_seq FROM users WHERE okta_user_id = ?3) u
    WHERE event_users.user_seq = u.user_seq AND event_users.due_seq > u.settled_seq
      AND event_users.due_seq <= ?4 AND settled_at IS NULL";

/// Settles the changes of accounts up to the claimed number.
const SETTLE_ACCOUNT_EVENTS: &str = "
    UPDATE account_events SET settled_at = ?1, outcome = ?2
    WHERE user_seq = (SELECT user_seq FROM users WHERE okta_user_id = ?3) AND due_seq <= ?4 AND settled_at IS NULL";

/// Clears the user's alarms that this look did not raise again.
const CLEAR_ALARMS: &str = "
    UPDATE alarms SET cleared_at = ?1
    WHERE subject = ?2 AND cleared_at IS NULL AND kind NOT IN (SELECT value FROM json_each(?3))";

/// Clears the guard's alarm once the guard holds no other user.
const CLEAR_GUARD_ALARM: &str = "
    UPDATE alarms SET cleared_at = ?1 WHERE kind = 'guard' AND cleared_at IS NULL
      AND NOT EXISTS (SELECT 1 FROM users WHERE outcome = 'held' AND why = 'guard' AND okta_user_id <> ?2)";

/// Clears the alarm about hidden addresses once Okta shows the addresses of all users.
const CLEAR_HIDDEN_ALARM: &str = "
    UPDATE alarms SET cleared_at = ?1 WHERE kind = 'role_too_narrow' AND subject = 'addresses' AND cleared_at IS NULL
      AND NOT EXISTS (SELECT 1 FROM users WHERE address_hidden = 1)";

/// Ends the look. ?1 is the time, ?2 whether it settles, ?3 the user and ?4 the claimed number.
///
/// `due_seq > ?4`: a reason arrived during the look and has set `due_at`. This look's failure neither delays it nor counts
/// as an attempt. An approval ends with a look that holds the user nevertheless. `?4 BETWEEN settled_seq AND due_seq`: a `forget` during the look must not bring the user back.
const END_LOOK: &str = "
    UPDATE users SET
        settled_seq = iif(?2, max(settled_seq, ?4), settled_seq),
        looked_seq = ?4,
        due_seq = iif(NOT ?2 AND due_seq = settled_seq, due_seq + 1, due_seq),
        due_since = CASE WHEN due_seq > ?4 THEN due_since WHEN ?2 THEN NULL ELSE coalesce(due_since, ?1) END,
        due_at = iif(due_seq > ?4, due_at, ?5),
        recheck_step = iif(due_seq > ?4, 0, ?6),
        cause = iif(due_seq = ?4 AND ?2 AND ?5 IS NOT NULL, 'recheck', cause),
        attempts = CASE WHEN ?2 OR due_seq > ?4 THEN 0 ELSE attempts + ?7 END,
        approved = iif(?2 OR (due_seq = ?4 AND ?8 = 'held'), 0, approved),
        since = iif(outcome IS ?8 AND why IS ?9, since, ?1),
        why = iif(due_seq > ?4 AND ?8 IN ('retry', 'snooze', 'failed'), NULL, ?9),
        depends_on = ?10,
        last_error = ?11,
        outcome = iif(due_seq > ?4 AND ?8 IN ('retry', 'snooze', 'failed'), NULL, ?8)
    WHERE okta_user_id = ?3 AND ?4 BETWEEN settled_seq AND due_seq
    RETURNING due_seq > ?4 AND due_at IS NOT NULL AND due_at <= ?1";

/// Gives an event that an earlier look settled as `unchanged` the outcome of the look that acted on it.
const SETTLE_BELATED_EVENT: &str = "
    UPDATE event_users SET settled_at = ?1, outcome = ?2
    WHERE user_seq = (SELECT user_seq FROM users WHERE okta_user_id = ?3) AND settled_at IS NOT NULL
      AND event_seq = (SELECT seq FROM events WHERE event_order = substr(?4, 15, 4) || substr(?4, 10, 4)
                         AND event_id = ?4)";

const ADD_ADDRESSES: &str = "
    INSERT OR IGNORE INTO addresses (user_seq, address, address_key, seen_at)
    SELECT user_seq, value ->> 0, value ->> 1, ?3 FROM users, json_each(?2) WHERE okta_user_id = ?1";

/// Notes which addresses of the user ?1 are among ?2, the ones that Okta shows now.
const REPLACE_ADDRESSES: &str = "
    WITH held AS MATERIALIZED (SELECT value FROM json_each(?2))
    UPDATE addresses SET replaced_at = iif(address_key IN (SELECT value FROM held), NULL, ?3)
    WHERE user_seq = (SELECT user_seq FROM users WHERE okta_user_id = ?1)
      AND (replaced_at IS NULL) <> (address_key IN (SELECT value FROM held))";

impl Store {
    /// Ends a look: stores outcome, decisions and accounts, and settles the user's events up to the claimed one.
    ///
    /// # Errors
    /// [`StoreError::Gone`] when the user was removed or forgotten during the look; nothing is stored then.
    pub async fn finish_look(&self, look: LookFinish<'_>, now: Timestamp) -> Result<Finished, StoreError> {
        let now_text = timestamp_text(now);
        let mut tx = self.begin(Write::FinishLook).await?;
        let is_forgotten = self.is_forgotten(&mut tx, look.user).await?;
        if let Some(read) = look.read {
            self.store_read(&mut tx, look.user, read, &now_text).await?;
        }
        if look.outcome.settles() {
            settle(&mut tx, &look, &now_text).await?;
        }
        let due_again = end_look(&mut tx, &look, now).await?;
        if let Some(event_id) = look.belated_event {
            sqlx::query(SETTLE_BELATED_EVENT)
                .bind(&now_text)
                .bind(look.outcome.as_str())
                .bind(look.user)
                .bind(event_id)
                .execute(&mut *tx)
                .await?;
        }
        for account in look.accounts {
            let named = account.email.as_ref().filter(|_| !is_forgotten);
            self.store_account(&mut tx, look.user, account, named, &now_text).await?;
        }
        if is_forgotten {
            let nameless: Vec<Decision> = look.decisions.iter().map(without_names).collect();
            self.append_decisions(&mut tx, &nameless, look.policy, now).await?;
        } else {
            self.append_decisions(&mut tx, look.decisions, look.policy, now).await?;
        }
        if look.conclusion.forget_guard {
            forget_guard(&mut tx, look.user).await?;
        }
        let woken = self.wake_others(&mut tx, &look, &now_text).await?;
        let mut raised = Vec::new();
        for alarm in look.alarms {
            if self.raise_in(&mut tx, alarm, now).await? {
                raised.push(alarm.kind);
            }
        }
        if is_forgotten {
            self.remove_settled(&mut tx, look.user).await?;
        }
        self.commit(tx).await?;
        Ok(Finished { due_again, woken, raised })
    }

    async fn wake_others(&self, tx: &mut Tx, look: &LookFinish<'_>, now_text: &str) -> Result<u64, StoreError> {
        let mut woken = 0;
        for (wakes, selection) in [
            (look.conclusion.wake.includes_dependents(), Selection::DependingOn(look.user)),
            (look.conclusion.wake.includes_sharers(), Selection::SharingWith(look.user)),
        ] {
            if wakes {
                let made = self.make_due_in(tx, selection, Lane::Reactivation, Cause::Neighbour, now_text).await?;
                woken += made.len();
            }
        }
        Ok(count(woken))
    }

    /// Stores what Okta returned for a user, with every address in it. Of a user who was forgotten, only the status.
    pub(super) async fn store_read(
        &self,
        tx: &mut Tx,
        id: &OktaUserId,
        read: &UserRead,
        now_text: &str,
    ) -> Result<(), StoreError> {
        let left = read.status.has_left();
        if self.is_forgotten(tx, id).await? {
            let kept = sqlx::query("UPDATE users SET status = ?, status_at = ?, left_seen = ? WHERE okta_user_id = ?")
                .bind(read.status.as_str())
                .bind(now_text)
                .bind(left)
                .bind(id)
                .execute(&mut **tx)
                .await?;
            return if kept.rows_affected() == 0 { Err(StoreError::gone_user(id)) } else { Ok(()) };
        }
        // For a deleted user Okta returns 404, without login and email: keep the old ones.
        let kept = sqlx::query(
            "UPDATE users SET login = coalesce(?1, login), login_key = iif(?1 IS NULL, login_key, ?2),
                 email = coalesce(?3, email), status = ?4, status_at = ?5, left_seen = ?6, address_hidden = ?7
             WHERE okta_user_id = ?8",
        )
        .bind(&read.login)
        .bind(read.login.as_deref().map(str::to_lowercase))
        .bind(read.email.as_ref().map(Address::as_str))
        .bind(read.status.as_str())
        .bind(now_text)
        .bind(left)
        .bind(read.address_hidden)
        .bind(id)
        .execute(&mut **tx)
        .await?;
        if kept.rows_affected() == 0 {
            return Err(StoreError::gone_user(id));
        }
        store_addresses(tx, id, read, now_text).await
    }

    async fn store_account(
        &self,
        tx: &mut Tx,
        owner: &OktaUserId,
        account: &AccountChange,
        email: Option<&Address>,
        now_text: &str,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO accounts (auth0_user_id, okta_user_id, email, connection, denied, blocked, denied_at, event_id,
                 published, lag_ms, sessions_owed, changed_at, mark_key)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, coalesce(?7, iif(?5, ?12, NULL)), ?8, ?9, ?10, ?11, ?12,
                 iif(?5, coalesce(?13, (SELECT metadata_key FROM installation)), NULL))
             ON CONFLICT (auth0_user_id) DO UPDATE SET
                 okta_user_id = excluded.okta_user_id,
                 email = coalesce(excluded.email, email),
                 connection = coalesce(excluded.connection, connection),
                 event_id = iif(?7 IS NULL AND denied >= ?5, event_id, excluded.event_id),
                 published = iif(?7 IS NULL AND denied >= ?5, published, excluded.published),
                 lag_ms = iif(?7 IS NULL AND denied >= ?5, lag_ms, excluded.lag_ms),
                 denied_at = coalesce(?7, iif(denied >= ?5, denied_at, NULL), excluded.denied_at),
                 denied = excluded.denied, blocked = excluded.blocked, sessions_owed = excluded.sessions_owed,
                 unconfirmed = 0, changed_at = excluded.changed_at, mark_key = excluded.mark_key
             WHERE okta_user_id = excluded.okta_user_id OR denied = 0 OR excluded.denied = 1",
        )
        .bind(account.id.as_str())
        .bind(owner.as_str())
        .bind(email.map(Address::as_str))
        .bind(&account.connection)
        .bind(account.denied)
        .bind(account.blocked)
        .bind(account.denied_at.map(timestamp_text))
        .bind(&account.event_id)
        .bind(account.published.map(timestamp_text))
        .bind(account.lag_ms)
        .bind(account.sessions_owed)
        .bind(now_text)
        .bind(&account.former_key)
        .execute(&mut **tx)
        .await?;
        Ok(())
    }
}

/// Adds the addresses of a user, and notes which of all are theirs now.
async fn store_addresses(tx: &mut Tx, id: &OktaUserId, read: &UserRead, now_text: &str) -> Result<(), StoreError> {
    let addresses: Vec<_> = read.addresses.iter().map(|address| (address.as_str(), address.key())).collect();
    sqlx::query(ADD_ADDRESSES)
        .bind(id)
        .bind(serde_json::json!(addresses).to_string())
        .bind(now_text)
        .execute(&mut **tx)
        .await?;
    let held: Vec<String> = read.held_addresses().iter().map(Address::key).collect();
    if !held.is_empty() {
        sqlx::query(REPLACE_ADDRESSES).bind(id).bind(json_list(held)).bind(now_text).execute(&mut **tx).await?;
    }
    Ok(())
}

/// A decision about a user who was forgotten: by id alone, and only if it changed an account or could not.
fn without_names(decision: &Decision) -> Decision {
    let nameless = Decision { email: None, ..decision.clone() };
    match decision.outcome {
        DecisionOutcome::Unchanged | DecisionOutcome::NoAccount | DecisionOutcome::Skipped => {
            Decision { okta_user_id: None, auth0_user_id: None, event_id: None, why: None, ..nameless }
        }
        _ => nameless,
    }
}

/// Clears alarms that no longer apply and settles the user's events.
async fn settle(tx: &mut Tx, look: &LookFinish<'_>, now_text: &str) -> Result<(), StoreError> {
    sqlx::query("UPDATE installation SET last_apply_ok_at = ?").bind(now_text).execute(&mut **tx).await?;
    sqlx::query(CLEAR_ALARMS)
        .bind(now_text)
        .bind(look.user)
        .bind(json_list(look.alarms.iter().map(|alarm| alarm.kind.as_str())))
        .execute(&mut **tx)
        .await?;
    sqlx::query(CLEAR_GUARD_ALARM).bind(now_text).bind(look.user).execute(&mut **tx).await?;
    sqlx::query(CLEAR_HIDDEN_ALARM).bind(now_text).execute(&mut **tx).await?;
    for sql in [SETTLE_EVENTS, SETTLE_ACCOUNT_EVENTS] {
        sqlx::query(sql)
            .bind(now_text)
            .bind(look.outcome.as_str())
            .bind(look.user)
            .bind(look.claimed_seq)
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

/// Stores the outcome. Returns whether the user is immediately due again.
async fn end_look(tx: &mut Tx, look: &LookFinish<'_>, now: Timestamp) -> Result<bool, StoreError> {
    let next_look = look.conclusion.next_look.or(match look.outcome {
        Outcome::Retry { after, .. } => Some(clock::add(now, *after)),
        Outcome::Snooze { until, .. } => Some(*until),
        _ => None,
    });
    let last_error = match look.outcome {
        Outcome::Retry { why, .. } | Outcome::Snooze { why, .. } | Outcome::Failed(why) => Some(why.as_str()),
        _ => None,
    };
    sqlx::query_scalar(END_LOOK)
        .bind(timestamp_text(now))
        .bind(look.outcome.settles())
        .bind(look.user)
        .bind(look.claimed_seq)
        .bind(next_look.map(timestamp_text))
        .bind(look.conclusion.recheck_step)
        .bind(u32::from(matches!(look.outcome, Outcome::Retry { .. })))
        .bind(look.outcome.as_str())
        .bind(look.outcome.why())
        .bind(look.depends_on)
        .bind(last_error)
        .fetch_optional(&mut **tx)
        .await?
        .ok_or_else(|| StoreError::gone_user(look.user))
}

async fn forget_guard(tx: &mut Tx, user: &OktaUserId) -> Result<(), StoreError> {
    for sql in [
        "UPDATE users SET guarded = 0 WHERE okta_user_id = ? AND guarded = 1",
        "DELETE FROM first_denials WHERE okta_user_id = ?",
    ] {
        sqlx::query(sql).bind(user).execute(&mut **tx).await?;
    }
    Ok(())
}

//! Working off: which users are due, what is known of one before a look, and what a look leaves behind.

use std::time::Duration;

use sqlx::{Row, Sqlite, Transaction};

use super::intake::read_time;
use super::{Alarm, Store, StoreError};
use crate::domain::{
    AccountId, Address, Cause, Lane, OktaUserId, Outcome, Status, Timestamp, Verdict, clock, timestamp_text,
};

/// No wait that we choose is longer, but for that of failed users. What is due later than this is so because a clock was
/// set back, and is due now.
const WAIT_MAX: Duration = Duration::from_secs(2 * 3600);
/// Failed users are tried daily.
const WAIT_FAILED_MAX: Duration = Duration::from_secs(25 * 3600);
/// How far back events still speak for or against what Okta answers.
const EVENTS_BACK: Duration = Duration::from_secs(3600);

/// A user whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueUser {
    /// Who.
    pub id: OktaUserId,
    /// How urgent.
    pub lane: Lane,
}

/// An event of a user: not settled yet, or received within the last hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventSeen {
    /// Okta's `uuid`.
    pub id: String,
    /// `eventType`.
    pub event_type: String,
    /// When it happened.
    pub published: Timestamp,
    /// When we read it.
    pub received_at: Timestamp,
    /// Who did it.
    pub actor: Option<String>,
    /// Is it still to be dealt with?
    pub open: bool,
}

/// An account that carries, or carried, our mark for a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkedAccount {
    /// Auth0's id.
    pub id: AccountId,
    /// Its address when we last saw it.
    pub email: Option<Address>,
    /// Does it carry the mark, as far as we know?
    pub denied: bool,
    /// Did we block it, or may we have?
    pub blocked: bool,
    /// Are its sessions still to be ended?
    pub sessions_owed: bool,
    /// A mark was sent to it and the answer is not known: it may carry one that `denied` does not tell of.
    pub unconfirmed: bool,
}

/// All that the store knows of a user when a look begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookStart {
    /// Who.
    pub id: OktaUserId,
    /// The look settles reasons up to this one.
    pub claimed_seq: i64,
    /// How urgent it was.
    pub lane: Lane,
    /// What made the user due last.
    pub cause: Cause,
    /// Failed attempts so far.
    pub attempts: u32,
    /// A person let this user through.
    pub approved: bool,
    /// Which later look this is.
    pub recheck_step: u32,
    /// The outcome before.
    pub outcome: Option<String>,
    /// The login when last read.
    pub login: Option<String>,
    /// The e-mail when last read.
    pub email: Option<String>,
    /// The status when last read.
    pub status: Option<Status>,
    /// Did the log or Okta ever say that this user was deactivated?
    pub left_seen: bool,
    /// Every address ever read for them.
    pub addresses: Vec<Address>,
    /// Accounts that carry, or carried, a mark for them.
    pub accounts: Vec<MarkedAccount>,
    /// Open events, and those of the last hour; oldest published first.
    pub events: Vec<EventSeen>,
}

/// What the guard says to a first denial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Go on.
    Admitted,
    /// The window is full: this many were let through in it.
    Refused(u64),
}

/// The guard's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardWindow {
    /// First denials let through in a window.
    pub denials_max: u64,
    /// How long the window is.
    pub span: Duration,
}

/// What is known of a user from Okta.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRead {
    /// The login; unknown for a deleted user.
    pub login: Option<String>,
    /// The e-mail; unknown for a deleted user.
    pub email: Option<Address>,
    /// The status.
    pub status: Status,
    /// All addresses that count for this user.
    pub addresses: Vec<Address>,
}

/// One decision: what was found, what was decided, what was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// The user it is about.
    pub okta_user_id: Option<String>,
    /// Their e-mail.
    pub email: Option<String>,
    /// The account, if one was found.
    pub auth0_user_id: Option<String>,
    /// [`Cause::as_str`].
    pub cause: String,
    /// The event that was the reason.
    pub event_id: Option<String>,
    /// Who did it in Okta, or `command`.
    pub actor: Option<String>,
    /// What Okta said.
    pub status: Option<String>,
    /// The verdict on it.
    pub verdict: Option<Verdict>,
    /// The account before.
    pub before: Option<String>,
    /// The account after.
    pub after: Option<String>,
    /// How it ended.
    pub outcome: String,
    /// Why, where there is a why.
    pub why: Option<String>,
    /// The remote's id of the request that wrote.
    pub request_id: Option<String>,
    /// From `published` to marked, for a first denial caused by an event after the first poll.
    pub lag_ms: Option<i64>,
}

/// What became of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountChange {
    /// Auth0's id.
    pub id: AccountId,
    /// Its address.
    pub email: Option<Address>,
    /// The connection of its primary identity.
    pub connection: Option<String>,
    /// Does it carry our mark for this user now?
    pub denied: bool,
    /// Is it blocked by us?
    pub blocked: bool,
    /// When it was denied, if that is new.
    pub denied_at: Option<Timestamp>,
    /// The event that was the reason, if the denial is new.
    pub event_id: Option<String>,
    /// When that was published.
    pub published: Option<Timestamp>,
    /// From then to the mark.
    pub lag_ms: Option<i64>,
    /// Are its sessions still to be ended?
    pub sessions_owed: bool,
}

/// What a look leaves behind.
#[derive(Clone, Debug)]
pub struct LookFinish<'a> {
    /// Who was looked at.
    pub user: &'a OktaUserId,
    /// [`LookStart::claimed_seq`].
    pub claimed_seq: i64,
    /// What Okta said, if it was asked and answered.
    pub read: Option<&'a UserRead>,
    /// How it ended.
    pub outcome: &'a Outcome,
    /// Because of whom, for skipped and held.
    pub depends_on: Option<&'a OktaUserId>,
    /// The next look, if one is to come without a new reason. A retry or a snooze says it itself if this is `None`; for
    /// [`Outcome::Failed`] there must be one.
    pub next_look: Option<Timestamp>,
    /// Which later look the next one is.
    pub recheck_step: u32,
    /// What was decided, account by account.
    pub decisions: &'a [Decision],
    /// What became of accounts.
    pub accounts: &'a [AccountChange],
    /// An event that was settled as `unchanged` and has its effect only now.
    pub belated_event: Option<&'a str>,
    /// Look at those who are skipped or held because of this user.
    pub wake_dependants: bool,
    /// Look at those who share an address: the account they share is open again, or somebody came back to it.
    pub wake_sharers: bool,
    /// The user is allowed: the guard forgets them.
    pub forget_guard: bool,
    /// What a person should know.
    pub alarms: &'a [Alarm],
    /// [`crate::domain::Policy::fingerprint`].
    pub policy: &'a str,
}

/// What is left after a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// A reason arrived while the look was under way.
    pub due_again: bool,
    /// Others were made due.
    pub woken: u64,
}

impl Store {
    /// The users whose turn it is, the most urgent first: at most `limit` of each lane.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn due(&self, now: Timestamp, limit: u32) -> Result<Vec<DueUser>, StoreError> {
        let rows = sqlx::query(
            "SELECT okta_user_id, lane FROM (
                 SELECT * FROM (SELECT okta_user_id, lane, due_at FROM users WHERE lane = 0 AND due_at <= ?1 ORDER BY due_at LIMIT ?4)
                 UNION ALL
                 SELECT * FROM (SELECT okta_user_id, lane, due_at FROM users WHERE lane = 1 AND due_at <= ?1 ORDER BY due_at LIMIT ?4)
                 UNION ALL
                 SELECT * FROM (SELECT okta_user_id, lane, due_at FROM users WHERE lane = 2 AND due_at <= ?1 ORDER BY due_at LIMIT ?4)
                 UNION ALL
                 SELECT * FROM (SELECT okta_user_id, lane, due_at FROM users
                                WHERE due_at > ?2 AND outcome IS NOT 'failed' LIMIT ?4)
                 UNION ALL
                 SELECT * FROM (SELECT okta_user_id, lane, due_at FROM users
                                WHERE lane IN (0, 1, 2) AND due_at > ?3 AND outcome IS 'failed' LIMIT ?4))
             ORDER BY lane, due_at, okta_user_id",
        )
        .bind(timestamp_text(now))
        .bind(timestamp_text(clock::add(now, WAIT_MAX)))
        .bind(timestamp_text(clock::add(now, WAIT_FAILED_MAX)))
        .bind(limit)
        .fetch_all(self.reader())
        .await
        .map_err(|error| self.error(error))?;
        rows.iter()
            .map(|row| {
                let id: String = row.try_get("okta_user_id").map_err(|error| self.error(error))?;
                let lane = row.try_get("lane").map_err(|error| self.error(error))?;
                Ok(DueUser { id: user_id(&id)?, lane: Lane::from_rank(lane) })
            })
            .collect()
    }

    /// When the next user with an open reason is due; later looks at settled users do not count.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn next_open_due(&self) -> Result<Option<Timestamp>, StoreError> {
        let text: Option<String> =
            sqlx::query_scalar("SELECT min(due_at) FROM users WHERE due_seq > settled_seq AND due_at IS NOT NULL")
                .fetch_one(self.reader())
                .await
                .map_err(|error| self.error(error))?;
        text.map(|text| read_time("the time of a look", &text)).transpose()
    }

    /// Everything that is known of a user, as one snapshot.
    ///
    /// # Errors
    /// [`StoreError::Gone`] when the user is not in the store (any more).
    pub async fn begin_look(&self, id: &OktaUserId, now: Timestamp) -> Result<LookStart, StoreError> {
        let sql = |error| self.error(error);
        let mut tx = self.reader().begin().await.map_err(sql)?;
        let row = sqlx::query(
            "SELECT due_seq, lane, cause, attempts, approved, recheck_step, outcome, login, email, status, left_seen
             FROM users WHERE okta_user_id = ?",
        )
        .bind(id.as_str())
        .fetch_optional(&mut *tx)
        .await
        .map_err(sql)?
        .ok_or_else(|| StoreError::Gone { what: "user", id: id.to_string() })?;
        let addresses: Vec<String> =
            sqlx::query_scalar("SELECT address FROM addresses WHERE okta_user_id = ? ORDER BY seen_at, address")
                .bind(id.as_str())
                .fetch_all(&mut *tx)
                .await
                .map_err(sql)?;
        let accounts = sqlx::query(
            "SELECT auth0_user_id, email, denied, blocked OR unconfirmed = 2 AS blocked, sessions_owed,
                    unconfirmed > 0 AS unconfirmed FROM accounts WHERE okta_user_id = ?
             ORDER BY auth0_user_id",
        )
        .bind(id.as_str())
        .fetch_all(&mut *tx)
        .await
        .map_err(sql)?;
        let events = sqlx::query(
            "SELECT e.event_id, e.event_type, e.published, e.received_at, e.actor, eu.settled_at IS NULL AS open
             FROM event_users eu JOIN events e ON e.seq = eu.event_seq
             WHERE eu.okta_user_id = ?1 AND e.state = 'recorded'
               AND (eu.settled_at IS NULL OR e.received_at > ?2)
             ORDER BY e.published DESC, e.seq DESC LIMIT 100",
        )
        .bind(id.as_str())
        .bind(timestamp_text(clock::sub(now, EVENTS_BACK)))
        .fetch_all(&mut *tx)
        .await
        .map_err(sql)?;

        let mut seen = Vec::with_capacity(events.len());
        for event in events.iter().rev() {
            seen.push(EventSeen {
                id: event.try_get("event_id").map_err(sql)?,
                event_type: event.try_get("event_type").map_err(sql)?,
                published: read_time("the time of an event", &event.try_get::<String, _>("published").map_err(sql)?)?,
                received_at: read_time(
                    "the time of an event",
                    &event.try_get::<String, _>("received_at").map_err(sql)?,
                )?,
                actor: event.try_get("actor").map_err(sql)?,
                open: event.try_get("open").map_err(sql)?,
            });
        }
        let mut marked = Vec::with_capacity(accounts.len());
        for account in accounts {
            marked.push(MarkedAccount {
                id: AccountId::new(account.try_get::<String, _>("auth0_user_id").map_err(sql)?),
                email: account.try_get::<Option<String>, _>("email").map_err(sql)?.as_deref().and_then(Address::parse),
                denied: account.try_get("denied").map_err(sql)?,
                blocked: account.try_get("blocked").map_err(sql)?,
                sessions_owed: account.try_get("sessions_owed").map_err(sql)?,
                unconfirmed: account.try_get("unconfirmed").map_err(sql)?,
            });
        }
        let cause: String = row.try_get("cause").map_err(sql)?;
        Ok(LookStart {
            id: id.clone(),
            claimed_seq: row.try_get("due_seq").map_err(sql)?,
            lane: Lane::from_rank(row.try_get("lane").map_err(sql)?),
            cause: Cause::parse(&cause).ok_or(StoreError::Unreadable { what: "a cause", value: cause })?,
            attempts: row.try_get("attempts").map_err(sql)?,
            approved: row.try_get("approved").map_err(sql)?,
            recheck_step: row.try_get("recheck_step").map_err(sql)?,
            outcome: row.try_get("outcome").map_err(sql)?,
            login: row.try_get("login").map_err(sql)?,
            email: row.try_get("email").map_err(sql)?,
            status: row.try_get::<Option<String>, _>("status").map_err(sql)?.map(|status| Status::parse(&status)),
            left_seen: row.try_get("left_seen").map_err(sql)?,
            addresses: addresses.iter().filter_map(|address| Address::parse(address)).collect(),
            accounts: marked,
            events: seen,
        })
    }

    /// Other users for whom one of these addresses was ever read, with the status last read for them.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn known_holders(
        &self,
        addresses: &[Address],
        except: &OktaUserId,
    ) -> Result<Vec<(OktaUserId, Option<Status>)>, StoreError> {
        let keys: Vec<String> = addresses.iter().map(Address::key).collect();
        let keys = serde_json::Value::from(keys).to_string();
        let rows: Vec<(String, Option<String>)> = sqlx::query_as(
            "SELECT DISTINCT u.okta_user_id, u.status FROM addresses a JOIN users u USING (okta_user_id)
             WHERE a.address_key IN (SELECT value FROM json_each(?)) AND a.okta_user_id <> ?
             ORDER BY u.okta_user_id LIMIT 200",
        )
        .bind(keys)
        .bind(except.as_str())
        .fetch_all(self.reader())
        .await
        .map_err(|error| self.error(error))?;
        rows.into_iter().map(|(id, status)| Ok((user_id(&id)?, status.as_deref().map(Status::parse)))).collect()
    }

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
        let mut tx = self.begin().await?;
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

    /// Notes, before a mark is sent, that the account may carry one from now on, and with or without a block of ours,
    /// and whether its sessions are to be ended after it: if the answer is lost and the user comes back meanwhile, the next look knows where to look.
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
        let done = sqlx::query(
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
        .execute(self.writer())
        .await
        .map_err(|error| self.error(error))?;
        if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Gone { what: "user", id: id.to_string() }) }
    }

    /// Ends a look: outcome, decisions, accounts, and the user's events up to the one that the look had claimed.
    ///
    /// # Errors
    /// [`StoreError::Gone`] when the user was removed (or forgotten) meanwhile; nothing is stored then.
    pub async fn finish_look(&self, look: LookFinish<'_>, now: Timestamp) -> Result<Finished, StoreError> {
        let sql = |error| self.error(error);
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
        let mut tx = self.begin().await?;
        if let Some(read) = look.read {
            self.keep_read(&mut tx, look.user, read, &now_text).await?;
        }
        // `due_seq > ?claimed`: a reason arrived during the look. It has set due_at itself, and starts afresh: it is not
        // kept waiting, and not given up, because of what this look met. How a look ended otherwise is shown until then.
        // `settled_seq <= ?claimed`: no look that a `forget` overtook brings the person back.
        let due_again: Option<bool> = sqlx::query_scalar(
            "UPDATE users SET
                 settled_seq = iif(?2, max(settled_seq, ?3), settled_seq),
                 looked_seq = ?3,
                 due_seq = iif(NOT ?2 AND due_seq = settled_seq, due_seq + 1, due_seq),
                 due_since = CASE WHEN due_seq > ?3 THEN due_since WHEN ?2 THEN NULL ELSE coalesce(due_since, ?1) END,
                 due_at = iif(due_seq > ?3, due_at, ?4),
                 recheck_step = iif(due_seq > ?3, 0, ?5),
                 cause = iif(due_seq = ?3 AND ?2 AND ?4 IS NOT NULL, 'recheck', cause),
                 attempts = CASE WHEN ?2 OR due_seq > ?3 THEN 0 ELSE attempts + coalesce(?6, 0) END,
                 approved = iif(?2, 0, approved),
                 since = iif(outcome IS ?7 AND why IS ?8, since, ?1),
                 why = iif(due_seq > ?3 AND ?7 IN ('retry', 'snooze', 'failed'), NULL, ?8),
                 depends_on = ?9,
                 last_error = ?10,
                 outcome = iif(due_seq > ?3 AND ?7 IN ('retry', 'snooze', 'failed'), NULL, ?7)
             WHERE okta_user_id = ?11 AND ?3 BETWEEN settled_seq AND due_seq
             RETURNING due_seq > ?3 AND due_at IS NOT NULL AND due_at <= ?1",
        )
        .bind(&now_text)
        .bind(settles)
        .bind(look.claimed_seq)
        .bind(next_look.map(timestamp_text))
        .bind(look.recheck_step)
        .bind(attempts)
        .bind(look.outcome.as_str())
        .bind(look.outcome.why())
        .bind(look.depends_on.map(OktaUserId::as_str))
        .bind(last_error)
        .bind(look.user.as_str())
        .fetch_optional(&mut *tx)
        .await
        .map_err(sql)?;
        let due_again = due_again.ok_or_else(|| StoreError::Gone { what: "user", id: look.user.to_string() })?;

        if settles {
            sqlx::query(
                "UPDATE event_users SET settled_at = ?, outcome = ?
                 WHERE okta_user_id = ? AND settled_at IS NULL AND due_seq <= ?",
            )
            .bind(&now_text)
            .bind(look.outcome.as_str())
            .bind(look.user.as_str())
            .bind(look.claimed_seq)
            .execute(&mut *tx)
            .await
            .map_err(sql)?;
            sqlx::query("UPDATE installation SET last_apply_ok_at = ?")
                .bind(&now_text)
                .execute(&mut *tx)
                .await
                .map_err(sql)?;
        }
        if let Some(event_id) = look.belated_event {
            sqlx::query(
                "UPDATE event_users SET settled_at = ?, outcome = ?
                 WHERE okta_user_id = ? AND settled_at IS NOT NULL AND event_seq = (SELECT seq FROM events WHERE event_id = ?)",
            )
            .bind(&now_text)
            .bind(look.outcome.as_str())
            .bind(look.user.as_str())
            .bind(event_id)
            .execute(&mut *tx)
            .await
            .map_err(sql)?;
        }
        for account in look.accounts {
            self.keep_account(&mut tx, look.user, account, &now_text).await?;
        }
        self.append_decisions(&mut tx, look.decisions, look.policy, now).await?;
        if look.forget_guard {
            sqlx::query("UPDATE users SET guarded = 0 WHERE okta_user_id = ? AND guarded = 1")
                .bind(look.user.as_str())
                .execute(&mut *tx)
                .await
                .map_err(sql)?;
            sqlx::query("DELETE FROM first_denials WHERE okta_user_id = ?")
                .bind(look.user.as_str())
                .execute(&mut *tx)
                .await
                .map_err(sql)?;
        }
        let mut woken = 0;
        if look.wake_dependants {
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
        if settles {
            // The newest look knows whether what an older one complained of still is so.
            let kinds = look.alarms.iter().map(|alarm| alarm.kind.as_str()).collect::<Vec<_>>();
            sqlx::query(
                "UPDATE alarms SET cleared_at = ?1 WHERE subject = ?2 AND cleared_at IS NULL
                   AND kind NOT IN (SELECT value FROM json_each(?3))",
            )
            .bind(&now_text)
            .bind(look.user.as_str())
            .bind(serde_json::Value::from(kinds).to_string())
            .execute(&mut *tx)
            .await
            .map_err(sql)?;
            sqlx::query(
                "UPDATE alarms SET cleared_at = ? WHERE kind = 'guard' AND cleared_at IS NULL
                   AND NOT EXISTS (SELECT 1 FROM users WHERE outcome = 'held' AND why = 'guard')",
            )
            .bind(&now_text)
            .execute(&mut *tx)
            .await
            .map_err(sql)?;
        }
        for alarm in look.alarms {
            self.raise_in(&mut tx, alarm, now).await?;
        }
        self.commit(tx).await?;
        Ok(Finished { due_again, woken: count(woken) })
    }

    /// What Okta said of a user, and every address in it.
    async fn keep_read(
        &self,
        tx: &mut Transaction<'static, Sqlite>,
        id: &OktaUserId,
        read: &UserRead,
        now_text: &str,
    ) -> Result<(), StoreError> {
        let left = matches!(read.status, Status::Deprovisioned | Status::Deleted);
        // A deleted user's answer is a 404: it says nothing of login and e-mail.
        let kept = sqlx::query(
            "UPDATE users SET login = coalesce(?, login), login_key = coalesce(?, login_key), email = coalesce(?, email),
                 status = ?, status_at = ?, left_seen = ?
             WHERE okta_user_id = ?",
        )
        .bind(&read.login)
        .bind(read.login.as_deref().map(str::to_lowercase))
        .bind(read.email.as_ref().map(Address::as_str))
        .bind(read.status.as_str())
        .bind(now_text)
        .bind(left)
        .bind(id.as_str())
        .execute(&mut **tx)
        .await
        .map_err(|error| self.error(error))?;
        if kept.rows_affected() == 0 {
            return Err(StoreError::Gone { what: "user", id: id.to_string() });
        }
        for address in &read.addresses {
            sqlx::query(
                "INSERT OR IGNORE INTO addresses (okta_user_id, address, address_key, seen_at) VALUES (?, ?, ?, ?)",
            )
            .bind(id.as_str())
            .bind(address.as_str())
            .bind(address.key())
            .bind(now_text)
            .execute(&mut **tx)
            .await
            .map_err(|error| self.error(error))?;
        }
        Ok(())
    }

    async fn keep_account(
        &self,
        tx: &mut Transaction<'static, Sqlite>,
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
        .await
        .map_err(|error| self.error(error))?;
        Ok(())
    }

    /// When the first good page was recorded: lag is told for events published after it.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn first_poll_at(&self) -> Result<Option<Timestamp>, StoreError> {
        let text: Option<String> = sqlx::query_scalar("SELECT first_poll_at FROM installation")
            .fetch_one(self.reader())
            .await
            .map_err(|error| self.error(error))?;
        text.map(|text| read_time("the time of the first poll", &text)).transpose()
    }

    /// How often the marks of an account were restored since `since`.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn restorations(&self, account: &AccountId, since: Timestamp) -> Result<u32, StoreError> {
        sqlx::query_scalar(
            "SELECT count(*) FROM decision_log WHERE auth0_user_id = ? AND at > ? AND outcome = 'restored'",
        )
        .bind(account.as_str())
        .bind(timestamp_text(since))
        .fetch_one(self.reader())
        .await
        .map_err(|error| self.error(error))
    }

    /// Gives each selected user a reason more. What failed is tried afresh, unless a sweep asks: that somebody has failed
    /// for a week shall not be hidden by a comparison every night. Returns who they are, with their new `due_seq`.
    pub(super) async fn make_due_in(
        &self,
        tx: &mut Transaction<'static, Sqlite>,
        selection: Selection<'_>,
        lane: Lane,
        cause: Cause,
        now_text: &str,
    ) -> Result<Vec<(String, i64)>, StoreError> {
        // One statement text for each selection: the texts are constants, the values are bound.
        macro_rules! make_due {
            ($which:literal) => {
                concat!(
                    "UPDATE users SET
                         due_since = iif(due_seq > settled_seq, due_since, ?1),
                         lane = iif(due_seq > settled_seq, min(lane, ?2), ?2),
                         due_seq = due_seq + 1, due_at = ?1, cause = ?3, recheck_step = 0,
                         attempts = iif(outcome IS 'failed' AND ?3 = 'sweep', attempts, 0),
                         since = iif(outcome IN ('retry', 'snooze') OR (outcome = 'failed' AND ?3 <> 'sweep'), ?1, since),
                         why = iif(outcome IN ('retry', 'snooze') OR (outcome = 'failed' AND ?3 <> 'sweep'), NULL, why),
                         outcome = iif(outcome IN ('retry', 'snooze') OR (outcome = 'failed' AND ?3 <> 'sweep'), NULL, outcome)
                     WHERE ",
                    $which,
                    " RETURNING okta_user_id, due_seq"
                )
            };
        }
        let (sql, value) = match selection {
            Selection::One(id) => (make_due!("okta_user_id = ?4"), id.as_str()),
            Selection::DependingOn(id) => (make_due!("depends_on = ?4 AND okta_user_id <> ?4"), id.as_str()),
            Selection::SharingWith(id) => (
                make_due!(
                    "okta_user_id <> ?4 AND (status IS NOT NULL OR left_seen = 1) AND okta_user_id IN (
                         SELECT other.okta_user_id FROM addresses mine JOIN addresses other USING (address_key)
                         WHERE mine.okta_user_id = ?4)"
                ),
                id.as_str(),
            ),
            Selection::Outcome(outcome) => (make_due!("outcome = ?4"), outcome),
            Selection::Why(why) => (make_due!("outcome = 'skipped' AND why = ?4"), why),
            // What is on its way already is left to its own time: a sweep is no reason to hurry.
            Selection::Swept(ids) => (
                make_due!(
                    "okta_user_id IN (SELECT value FROM json_each(?4)) AND (due_seq = settled_seq OR outcome IN ('held', 'failed'))"
                ),
                ids,
            ),
        };
        sqlx::query_as(sql)
            .bind(now_text)
            .bind(lane.rank())
            .bind(cause.as_str())
            .bind(value)
            .fetch_all(&mut **tx)
            .await
            .map_err(|error| self.error(error))
    }
}

/// Which users to make due.
#[derive(Clone, Copy, Debug)]
pub(super) enum Selection<'a> {
    /// This one.
    One(&'a OktaUserId),
    /// Those who are skipped or held because of this one.
    DependingOn(&'a OktaUserId),
    /// Those who were read before and share an address with this one.
    SharingWith(&'a OktaUserId),
    /// Those whose last look ended so.
    Outcome(&'a str),
    /// Those who are skipped for this reason.
    Why(&'a str),
    /// These, as a JSON list, if they are not due anyway.
    Swept(&'a str),
}

/// A number of things in memory, as it is told.
pub(super) fn count(things: usize) -> u64 {
    u64::try_from(things).unwrap_or(u64::MAX)
}

/// Reads a stored id.
pub(super) fn user_id(text: &str) -> Result<OktaUserId, StoreError> {
    OktaUserId::parse(text).ok_or_else(|| StoreError::Unreadable { what: "an Okta user id", value: text.to_owned() })
}

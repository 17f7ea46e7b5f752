//! Read-only queries for the commands: the SQL views and related rows.

use serde::Serialize;
use sqlx::FromRow;

use super::{AlarmRow, Store, StoreError, json_list};
use crate::domain::{Address, OktaUserId, OutcomeKind};

/// Users who left and are not denied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromRow, Serialize)]
pub struct LeftOpen {
    /// No account was found for them.
    pub unmatched: i64,
    /// An active user holds their address.
    pub shared_address: i64,
}

/// The one row of the view `status`.
#[derive(Clone, Debug, PartialEq, FromRow, Serialize)]
#[expect(missing_docs, reason = "the columns of the contract, as they are called there")]
pub struct StatusRow {
    pub version: String,
    pub okta_url: String,
    pub auth0_url: String,
    pub enforce: bool,
    pub first_run_at: String,
    pub last_poll_at: Option<String>,
    pub last_poll_ok_at: Option<String>,
    pub last_apply_ok_at: Option<String>,
    pub last_reconcile_ok_at: Option<String>,
    pub cursor_moved_at: Option<String>,
    pub pending: i64,
    pub failed: i64,
    pub held: i64,
    pub quarantined: i64,
    pub denied: i64,
    pub lag_p50_s: Option<f64>,
    pub lag_p99_s: Option<f64>,
    pub lag_max_s: Option<f64>,
    pub oldest_pending_at: Option<String>,
    pub last_okta_error: Option<String>,
    pub last_auth0_error: Option<String>,
    pub needs_attention: bool,
    pub enforcement: Option<String>,
    pub enforcement_checked_at: Option<String>,
    pub all_well: bool,
}

/// The health of a remote.
#[derive(Clone, Debug, PartialEq, Eq, FromRow, Serialize)]
pub struct RemoteRow {
    /// `okta` or `auth0`.
    pub remote: String,
    /// When it last recovered or first answered.
    pub ok_at: Option<String>,
    /// When it last failed.
    pub error_at: Option<String>,
    /// The kind of the last error.
    pub error_kind: Option<String>,
    /// Its message.
    pub error: Option<String>,
    /// When the present outage began.
    pub failing_since: Option<String>,
    /// When the next call is made that a rate limit holds back.
    pub next_call_at: Option<String>,
}

impl RemoteRow {
    /// Has it failed since its last good answer?
    pub fn is_failing(&self) -> bool {
        self.failing_since.is_some()
    }
}

/// A row of the view `recent_events`, with the reason for a quarantine.
#[derive(Clone, Debug, PartialEq, Eq, FromRow, Serialize)]
#[expect(missing_docs, reason = "the columns of the contract, as they are called there")]
pub struct EventRow {
    pub event_id: String,
    pub event_type: String,
    pub okta_user_id: Option<String>,
    pub login: Option<String>,
    pub actor: Option<String>,
    pub published: Option<String>,
    pub received_at: String,
    pub settled_at: Option<String>,
    pub outcome: String,
    pub why: Option<String>,
}

/// Which events [`Store::events`] shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventSelection {
    /// Events that no look has settled.
    Pending,
    /// Events that a look has settled.
    Settled,
    /// Events without effect.
    Ignored,
    /// Unreadable events.
    Quarantined,
}

/// An unreadable log entry, stored for an operator.
#[derive(Clone, Debug, PartialEq, Eq, FromRow, Serialize)]
pub struct QuarantinedRow {
    /// Okta's `uuid`, or a hash of the text of an entry without one.
    pub event_id: String,
    /// `eventType`, if readable.
    pub event_type: String,
    /// When it happened, if readable.
    pub published: Option<String>,
    /// When it was received.
    pub received_at: String,
    /// What is wrong with it.
    pub why: String,
    /// The entry as Okta sent it. May hold personal data.
    pub raw: String,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, FromRow, Serialize)]
pub struct UserRow {
    /// Okta's id.
    pub okta_user_id: String,
    /// The last login read.
    pub login: Option<String>,
    /// The last email read.
    pub email: Option<String>,
    /// The last status read.
    pub status: Option<String>,
    /// When the status was read.
    pub status_at: Option<String>,
    /// The last outcome.
    pub outcome: Option<OutcomeKind>,
    /// Its reason.
    pub why: Option<String>,
    /// Since when the user has had this outcome and reason.
    pub since: String,
    /// When the next look is due.
    pub due_at: Option<String>,
    /// What made the user due last.
    pub cause: String,
    /// Failed attempts so far.
    pub attempts: i64,
    /// The last error.
    pub last_error: Option<String>,
    /// Has an unsettled reason to look.
    pub open: bool,
}

/// The progress of a requested look.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Progress {
    /// Okta's id.
    #[sqlx(rename = "okta_user_id")]
    pub id: OktaUserId,
    /// The highest reason that a look has processed, settled or not.
    pub looked_seq: i64,
    /// The last email read, or else the login.
    pub name: Option<String>,
    /// The outcome.
    pub outcome: Option<OutcomeKind>,
    /// Its reason.
    pub why: Option<String>,
}

/// An account of a user, according to the state.
#[derive(Clone, Debug, PartialEq, FromRow, Serialize)]
pub struct AccountRow {
    /// Auth0's id.
    pub auth0_user_id: String,
    /// Its address.
    pub email: Option<String>,
    /// Its connection.
    pub connection: Option<String>,
    /// It carries our mark.
    pub denied: bool,
    /// We blocked it.
    pub blocked: bool,
    /// When it was denied.
    pub denied_at: Option<String>,
    /// The event that caused the denial.
    pub event_id: Option<String>,
    /// Seconds from `published` to the mark.
    pub lag_s: Option<f64>,
}

/// How far back the decision log reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq, FromRow, Serialize)]
pub struct KeptDecisions {
    /// The number of decisions deleted by retention, over all users.
    pub expired: i64,
    /// Time of the oldest stored decision.
    pub oldest_at: Option<String>,
}

/// A row of the view `decisions`, with the reason.
#[derive(Clone, Debug, PartialEq, Eq, FromRow, Serialize)]
#[expect(missing_docs, reason = "the columns of the contract, as they are called there")]
pub struct DecisionRow {
    pub id: i64,
    pub at: String,
    pub okta_user_id: Option<String>,
    pub email: Option<String>,
    pub auth0_user_id: Option<String>,
    pub cause: String,
    pub event_id: Option<String>,
    pub actor: Option<String>,
    pub status: Option<String>,
    pub verdict: Option<String>,
    pub before: Option<String>,
    pub after: Option<String>,
    pub outcome: String,
    pub why: Option<String>,
    pub request_id: Option<String>,
    pub version: String,
    pub policy: String,
}

/// The view `recent_events` plus reason and row numbers: at most `?2` rows that match `$which`, newest first.
macro_rules! events {
    ($($which:literal),+) => {
        concat!(
            "SELECT * FROM (
                 SELECT e.seq, e.event_id, e.event_type, u.okta_user_id, eu.login, e.actor, e.published, e.received_at,
                        eu.settled_at,
                        CASE WHEN e.state IN ('quarantined', 'dismissed') THEN e.state
                             WHEN u.okta_user_id IS NULL THEN 'ignored'
                             WHEN eu.outcome IS NOT NULL THEN eu.outcome
                             WHEN u.outcome IN ('held', 'failed', 'retry', 'snooze') THEN u.outcome
                             ELSE 'pending' END AS outcome,
                        e.why, eu.user_seq
                 FROM events e LEFT JOIN event_users eu ON eu.event_seq = e.seq
                      LEFT JOIN users u ON u.user_seq = eu.user_seq)
             WHERE ",
            $($which,)+
            " ORDER BY seq DESC LIMIT ?2"
        )
    };
}

/// The unsettled ones among them, found through the users that are due or held.
macro_rules! open_events {
    ($which:literal) => {
        events!(
            "seq IN (SELECT o.event_seq FROM users w JOIN event_users o ON o.user_seq = w.user_seq
                          AND o.due_seq > w.settled_seq
                     WHERE o.settled_at IS NULL AND w.user_seq IN (
                         SELECT user_seq FROM users WHERE due_at IS NOT NULL AND due_since IS NOT NULL
                         UNION SELECT user_seq FROM users WHERE outcome = 'held'))
             AND user_seq IS NOT NULL AND settled_at IS NULL AND ",
            $which
        )
    };
}

pub(super) const USER: &str = "SELECT okta_user_id, login, email, status, status_at, outcome, why, since, due_at, cause, attempts, \
                      last_error, due_seq > settled_seq AS open FROM users";

impl Store {
    /// The view `status`; `None` before the first run.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn status(&self) -> Result<Option<StatusRow>, StoreError> {
        Ok(sqlx::query_as("SELECT * FROM status").fetch_optional(self.reader()).await?)
    }

    /// Users that may have to be denied and wait for a look.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn denials_waiting(&self) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar(
            "SELECT count(*) FROM users WHERE due_at IS NOT NULL AND due_since IS NOT NULL AND lane = 0
             AND (outcome IS NULL OR outcome NOT IN ('held', 'failed'))",
        )
        .fetch_one(self.reader())
        .await?)
    }

    /// The users who left and are not denied, by reason. Exempt users have a separate alarm.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn left_open(&self) -> Result<LeftOpen, StoreError> {
        Ok(sqlx::query_as(
            "SELECT (SELECT count(*) FROM unmatched) AS unmatched,
                    (SELECT count(*) FROM users WHERE outcome = 'skipped' AND why LIKE 'shared_address%') AS shared_address",
        )
        .fetch_one(self.reader())
        .await?)
    }

    /// The health of both remotes.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn remotes(&self) -> Result<Vec<RemoteRow>, StoreError> {
        Ok(sqlx::query_as(
            "SELECT remote, ok_at, error_at, error_kind, error, failing_since, next_call_at FROM remotes ORDER BY remote DESC",
        )
        .fetch_all(self.reader())
        .await?)
    }

    /// The latest events, newest first; with `outcome`, only those with this outcome or state.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn recent_events(&self, outcome: Option<&str>, limit: u32) -> Result<Vec<EventRow>, StoreError> {
        // Unsettled events are rare, so they are found through their users; settled ones are found among the newest.
        Ok(sqlx::query_as(match outcome {
            None => events!("?1 IS NULL"),
            Some("quarantined") => {
                events!("seq IN (SELECT seq FROM events WHERE state = 'quarantined') AND outcome = ?1")
            }
            Some("pending" | "held" | "failed" | "retry" | "snooze") => open_events!("outcome = ?1"),
            Some(_) => events!("outcome = ?1"),
        })
        .bind(outcome)
        .bind(limit)
        .fetch_all(self.reader())
        .await?)
    }

    /// The latest events of a kind, newest first.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn events(&self, selection: EventSelection, limit: u32) -> Result<Vec<EventRow>, StoreError> {
        Ok(sqlx::query_as(match selection {
            EventSelection::Pending => open_events!("?1 IS NULL"),
            EventSelection::Settled => events!("?1 IS NULL AND settled_at IS NOT NULL AND outcome <> 'ignored'"),
            EventSelection::Ignored => events!("?1 IS NULL AND outcome = 'ignored'"),
            EventSelection::Quarantined => return self.recent_events(Some("quarantined"), limit).await,
        })
        .bind(None::<&str>)
        .bind(limit)
        .fetch_all(self.reader())
        .await?)
    }

    /// The quarantined events, newest first.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn quarantined(&self, limit: u32) -> Result<Vec<QuarantinedRow>, StoreError> {
        Ok(sqlx::query_as(
            "SELECT event_id, event_type, published, received_at, why, raw FROM events WHERE state = 'quarantined'
             ORDER BY seq DESC LIMIT ?",
        )
        .bind(limit)
        .fetch_all(self.reader())
        .await?)
    }

    /// The open alarms of a user and its accounts, oldest first.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn open_alarms_of(&self, id: &OktaUserId) -> Result<Vec<AlarmRow>, StoreError> {
        Ok(sqlx::query_as(
            "SELECT id, kind, subject, detail, remedy, raised_at, cleared_at FROM alarms
             WHERE cleared_at IS NULL AND (subject = ?1
                 OR subject IN (SELECT auth0_user_id FROM accounts WHERE okta_user_id = ?1))
             ORDER BY id LIMIT 1000",
        )
        .bind(id.as_str())
        .fetch_all(self.reader())
        .await?)
    }

    /// The id of the last decision and its chain value in hexadecimal; id 0 before the first decision. A value noted
    /// elsewhere proves later that no earlier decision was changed.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn last_chain(&self) -> Result<(i64, String), StoreError> {
        Ok(sqlx::query_as(
            "SELECT id, lower(hex(chain)) FROM (SELECT id, chain FROM decision_log ORDER BY id DESC LIMIT 1)
             UNION ALL SELECT last, lower(hex(chain)) FROM decision_log_root ORDER BY 1 DESC LIMIT 1",
        )
        .fetch_one(self.reader())
        .await?)
    }

    /// How far back the decision log reaches.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn kept_decisions(&self) -> Result<KeptDecisions, StoreError> {
        Ok(sqlx::query_as(
            "SELECT (SELECT last FROM decision_log_root) AS expired,
                    (SELECT at FROM decision_log WHERE outcome <> 'expired' ORDER BY id LIMIT 1) AS oldest_at",
        )
        .fetch_one(self.reader())
        .await?)
    }

    /// The events of a user, newest first.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn events_of(&self, id: &OktaUserId, limit: u32) -> Result<Vec<EventRow>, StoreError> {
        Ok(sqlx::query_as(events!("user_seq = (SELECT user_seq FROM users WHERE okta_user_id = ?1)"))
            .bind(id.as_str())
            .bind(limit)
            .fetch_all(self.reader())
            .await?)
    }

    /// The users that match `text`: an Okta id, a login or an address ever read (ignoring case), or an Auth0 id.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn find_users(&self, text: &str) -> Result<Vec<UserRow>, StoreError> {
        let key = Address::parse(text).map_or_else(|| text.trim().to_lowercase(), |address| address.key());
        Ok(sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "{USER} WHERE okta_user_id IN (
                 SELECT okta_user_id FROM users WHERE okta_user_id = ?1
                 UNION SELECT okta_user_id FROM users WHERE login_key = ?2
                 UNION SELECT okta_user_id FROM addresses JOIN users USING (user_seq) WHERE address_key = ?2
                 UNION SELECT okta_user_id FROM accounts WHERE auth0_user_id = ?1)
             ORDER BY okta_user_id LIMIT 100"
        )))
        .bind(text.trim())
        .bind(key)
        .fetch_all(self.reader())
        .await?)
    }

    /// Users whose last outcome is `outcome`, oldest `since` first.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn users_with_outcome(&self, outcome: OutcomeKind, limit: u32) -> Result<Vec<UserRow>, StoreError> {
        Ok(sqlx::query_as(sqlx::AssertSqlSafe(format!("{USER} WHERE outcome = ? ORDER BY since LIMIT ?")))
            .bind(outcome)
            .bind(limit)
            .fetch_all(self.reader())
            .await?)
    }

    /// Every address of a user.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn addresses_of(&self, id: &OktaUserId) -> Result<Vec<String>, StoreError> {
        Ok(sqlx::query_scalar(
            "SELECT address FROM users JOIN addresses USING (user_seq) WHERE okta_user_id = ? ORDER BY seen_at, address",
        )
        .bind(id.as_str())
        .fetch_all(self.reader())
        .await
        ?)
    }

    /// The accounts of a user.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn accounts_of(&self, id: &OktaUserId) -> Result<Vec<AccountRow>, StoreError> {
        Ok(sqlx::query_as(
            "SELECT auth0_user_id, email, connection, denied, blocked, denied_at, event_id, lag_ms / 1000.0 AS lag_s
             FROM accounts WHERE okta_user_id = ? ORDER BY auth0_user_id",
        )
        .bind(id.as_str())
        .fetch_all(self.reader())
        .await?)
    }

    /// The decisions on one user or on all, oldest first, after row `after`, at or after `since`.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn decisions(
        &self,
        of: Option<&OktaUserId>,
        since: Option<&str>,
        after: i64,
        limit: u32,
    ) -> Result<Vec<DecisionRow>, StoreError> {
        macro_rules! decisions {
            ($which:literal) => {
                concat!(
                    "SELECT id, at, okta_user_id, email, auth0_user_id, cause, event_id, actor, status, verdict, before,
                         after, outcome, why, request_id, version, policy
                     FROM decision_log
                     WHERE id > ?1 AND ",
                    $which,
                    " AND (?3 IS NULL OR at >= ?3) ORDER BY id LIMIT ?4"
                )
            };
        }
        Ok(sqlx::query_as(if of.is_some() { decisions!("okta_user_id = ?2") } else { decisions!("?2 IS NULL") })
            .bind(after)
            .bind(of.map(OktaUserId::as_str))
            .bind(since)
            .bind(limit)
            .fetch_all(self.reader())
            .await?)
    }

    /// The progress of the looks at these users.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn progress(&self, ids: &[OktaUserId]) -> Result<Vec<Progress>, StoreError> {
        Ok(sqlx::query_as(
            "SELECT okta_user_id, looked_seq, coalesce(email, login) AS name, outcome, why FROM users
             WHERE okta_user_id IN (SELECT value FROM json_each(?)) ORDER BY okta_user_id",
        )
        .bind(json_list(ids.iter().map(OktaUserId::as_str)))
        .fetch_all(self.reader())
        .await?)
    }
}

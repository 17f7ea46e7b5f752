//! The due queue: which users are due, and how they become due.

use std::time::Duration;

use sqlx::FromRow;

use super::super::types::StoredTime;
use super::super::write::Tx;
use super::super::{Requested, Store, StoreError};
use crate::domain::{Address, Cause, Lane, OktaUserId, OutcomeKind, Timestamp, clock, timestamp_text};

/// The longest wait that we schedule, except for failed users. A later due time means that the clock was set back; the user
/// is then due now.
const WAIT_MAX: Duration = Duration::from_secs(2 * 3600);
/// The longest wait of failed users, which are retried daily.
const WAIT_FAILED_MAX: Duration = Duration::from_secs(25 * 3600);

/// The due users, most urgent lane first, at most ?4 of each lane. ?2 and ?3 are the longest waits.
const DUE: &str = "
    SELECT okta_user_id, lane FROM (
        SELECT * FROM (SELECT okta_user_id, lane, due_at FROM users
                       WHERE lane = 0 AND due_at <= ?1 ORDER BY due_at LIMIT ?4)
        UNION ALL
        SELECT * FROM (SELECT okta_user_id, lane, due_at FROM users
                       WHERE lane = 1 AND due_at <= ?1 ORDER BY due_at LIMIT ?4)
        UNION ALL
        SELECT * FROM (SELECT okta_user_id, lane, due_at FROM users
                       WHERE lane = 2 AND due_at <= ?1 ORDER BY due_at LIMIT ?4)
        UNION ALL
        SELECT * FROM (SELECT okta_user_id, lane, due_at FROM users
                       WHERE lane IN (0, 1, 2) AND due_at > ?2 AND outcome IS NOT 'failed' LIMIT ?4)
        UNION ALL
        SELECT * FROM (SELECT okta_user_id, lane, due_at FROM users
                       WHERE lane IN (0, 1, 2) AND due_at > ?3 AND outcome IS 'failed' LIMIT ?4))
    ORDER BY lane, due_at, okta_user_id";

/// Gives the selected users one more reason. Resets a failed user, except for a reconcile (stored as `sweep`): a nightly
/// reconcile must not hide that a user has been failing for a week. ?1 is the time, ?2 the lane, ?3 the cause and
/// ?4 the value of the selection.
const MAKE_DUE: &str = "
    UPDATE users SET
        due_since = iif(due_seq > settled_seq, due_since, ?1),
        lane = iif(due_seq > settled_seq, min(lane, ?2), ?2),
        due_seq = due_seq + 1, due_at = ?1, cause = ?3, recheck_step = 0,
        attempts = iif(outcome IS 'failed' AND ?3 = 'sweep', attempts, 0),
        since = iif(outcome IN ('retry', 'snooze') OR (outcome = 'failed' AND ?3 <> 'sweep'), ?1, since),
        why = iif(outcome IN ('retry', 'snooze') OR (outcome = 'failed' AND ?3 <> 'sweep'), NULL, why),
        outcome = iif(outcome IN ('retry', 'snooze') OR (outcome = 'failed' AND ?3 <> 'sweep'), NULL, outcome)";

/// A due user.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct DueUser {
    /// Okta's id.
    #[sqlx(rename = "okta_user_id")]
    pub id: OktaUserId,
    /// The priority.
    pub lane: Lane,
}

/// Which users to make due.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) enum Selection<'a> {
    /// This user.
    One(&'a OktaUserId),
    /// Users skipped or held because of this one.
    DependingOn(&'a OktaUserId),
    /// Users read before that share an address with this one.
    SharingWith(&'a OktaUserId),
    /// Users whose last look had this outcome.
    Outcome(OutcomeKind),
    /// Users skipped for this reason.
    Why(&'a str),
    /// A JSON array of user ids. Users that are already due keep their time, since a reconcile is not urgent.
    Reconcile(&'a str),
}

impl<'a> Selection<'a> {
    /// The SQL condition and the value of its ?4.
    fn condition(self) -> (&'static str, &'a str) {
        match self {
            Self::One(id) => ("okta_user_id = ?4", id.as_str()),
            Self::DependingOn(id) => ("depends_on = ?4 AND okta_user_id <> ?4", id.as_str()),
            Self::SharingWith(id) => (
                "okta_user_id <> ?4 AND (status IS NOT NULL OR left_seen = 1) AND user_seq IN (
                     SELECT other.user_seq FROM addresses mine JOIN addresses other USING (address_key)
                     WHERE mine.user_seq = (SELECT user_seq FROM users WHERE okta_user_id = ?4))",
                id.as_str(),
            ),
            Self::Outcome(outcome) => ("outcome = ?4", outcome.as_str()),
            Self::Why(why) => ("outcome = 'skipped' AND why = ?4", why),
            Self::Reconcile(ids) => (
                "okta_user_id IN (SELECT value FROM json_each(?4))
                 AND (due_seq = settled_seq OR outcome IN ('held', 'failed'))",
                ids,
            ),
        }
    }
}

impl Store {
    /// The due users, most urgent first, at most `limit` per lane.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn due(&self, now: Timestamp, limit: u32) -> Result<Vec<DueUser>, StoreError> {
        Ok(sqlx::query_as(DUE)
            .bind(timestamp_text(now))
            .bind(timestamp_text(clock::add(now, WAIT_MAX)))
            .bind(timestamp_text(clock::add(now, WAIT_FAILED_MAX)))
            .bind(limit)
            .fetch_all(self.reader())
            .await?)
    }

    /// Addresses of deactivated users that are due in this lane: candidates for a batch.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn next_leavers(
        &self,
        lane: Lane,
        now: Timestamp,
        addresses_max: usize,
    ) -> Result<Vec<(OktaUserId, Address)>, StoreError> {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT u.okta_user_id, a.address FROM users u JOIN addresses a USING (user_seq)
             WHERE u.lane = ?1 AND u.due_at <= ?2 AND u.left_seen = 1
             ORDER BY u.due_at LIMIT ?3",
        )
        .bind(lane)
        .bind(timestamp_text(now))
        .bind(i64::try_from(addresses_max).unwrap_or(i64::MAX))
        .fetch_all(self.reader())
        .await?;
        Ok(rows.iter().filter_map(|(user, text)| Some((OktaUserId::parse(user)?, Address::parse(text)?))).collect())
    }

    /// When the next user with an open reason is due. Ignores re-checks of settled users.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn next_open_due(&self) -> Result<Option<Timestamp>, StoreError> {
        let next: Option<StoredTime> =
            sqlx::query_scalar("SELECT min(due_at) FROM users WHERE due_at IS NOT NULL AND due_since IS NOT NULL")
                .fetch_one(self.reader())
                .await?;
        Ok(next.map(Timestamp::from))
    }

    /// Gives each selected user one more reason. Returns them with their new `due_seq`.
    pub(in crate::store) async fn make_due_in(
        &self,
        tx: &mut Tx,
        selection: Selection<'_>,
        lane: Lane,
        cause: Cause,
        now_text: &str,
    ) -> Result<Vec<Requested>, StoreError> {
        let (condition, value) = selection.condition();
        let sql = format!("{MAKE_DUE} WHERE {condition} RETURNING okta_user_id, due_seq");
        Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .bind(now_text)
            .bind(lane)
            .bind(cause)
            .bind(value)
            .fetch_all(&mut **tx)
            .await?)
    }
}

//! Who is due, and how somebody becomes it.

use std::time::Duration;

use sqlx::Row;

use super::super::intake::read_time;
use super::super::write::Tx;
use super::super::{Store, StoreError};
use super::{DueUser, user_id};
use crate::domain::{Address, Cause, Lane, OktaUserId, Timestamp, clock, timestamp_text};

/// No wait that we choose is longer, but for that of failed users. What is due later than this is so because a clock was
/// set back, and is due now.
const WAIT_MAX: Duration = Duration::from_secs(2 * 3600);
/// Failed users are tried daily.
const WAIT_FAILED_MAX: Duration = Duration::from_secs(25 * 3600);

/// Which users to make due.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) enum Selection<'a> {
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
    Reconcile(&'a str),
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
                                WHERE lane IN (0, 1, 2) AND due_at > ?2 AND outcome IS NOT 'failed' LIMIT ?4)
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
        .await?;
        rows.iter()
            .map(|row| {
                let id: String = row.try_get("okta_user_id")?;
                let lane = row.try_get("lane")?;
                Ok(DueUser { id: user_id(&id)?, lane: Lane::from_rank(lane) })
            })
            .collect()
    }
    /// Addresses of those in this lane whose turn it is, or is next, and who left: what is searched for them can be searched
    /// for together.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn next_leavers(
        &self,
        lane: Lane,
        now: Timestamp,
        addresses_max: usize,
    ) -> Result<Vec<Address>, StoreError> {
        let texts: Vec<String> = sqlx::query_scalar(
            "SELECT a.address FROM users u JOIN addresses a USING (user_seq)
             WHERE u.lane = ?1 AND u.due_at <= ?2 AND u.left_seen = 1
             ORDER BY u.due_at LIMIT ?3",
        )
        .bind(lane.rank())
        .bind(timestamp_text(now))
        .bind(i64::try_from(addresses_max).unwrap_or(i64::MAX))
        .fetch_all(self.reader())
        .await?;
        Ok(texts.iter().filter_map(|text| Address::parse(text)).collect())
    }
    /// When the next user with an open reason is due; later looks at settled users do not count.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn next_open_due(&self) -> Result<Option<Timestamp>, StoreError> {
        let text: Option<String> =
            sqlx::query_scalar("SELECT min(due_at) FROM users WHERE due_at IS NOT NULL AND due_since IS NOT NULL")
                .fetch_one(self.reader())
                .await?;
        text.map(|text| read_time("the time of a look", &text)).transpose()
    }
    /// Gives each selected user a reason more. What failed is tried afresh, unless a sweep asks: that somebody has failed
    /// for a week shall not be hidden by a comparison every night. Returns who they are, with their new `due_seq`.
    pub(in crate::store) async fn make_due_in(
        &self,
        tx: &mut Tx,
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
                    "okta_user_id <> ?4 AND (status IS NOT NULL OR left_seen = 1) AND user_seq IN (
                         SELECT other.user_seq FROM addresses mine JOIN addresses other USING (address_key)
                         WHERE mine.user_seq = (SELECT user_seq FROM users WHERE okta_user_id = ?4))"
                ),
                id.as_str(),
            ),
            Selection::Outcome(outcome) => (make_due!("outcome = ?4"), outcome),
            Selection::Why(why) => (make_due!("outcome = 'skipped' AND why = ?4"), why),
            // What is on its way already is left to its own time: a sweep is no reason to hurry.
            Selection::Reconcile(ids) => (
                make_due!(
                    "okta_user_id IN (SELECT value FROM json_each(?4)) AND (due_seq = settled_seq OR outcome IN ('held', 'failed'))"
                ),
                ids,
            ),
        };
        Ok(sqlx::query_as(sql)
            .bind(now_text)
            .bind(lane.rank())
            .bind(cause.as_str())
            .bind(value)
            .fetch_all(&mut **tx)
            .await?)
    }
}

//! What is known before a look.

use std::time::Duration;

use sqlx::Row;

use super::super::intake::read_time;
use super::super::{Store, StoreError};
use super::{EventSeen, LookStart, MarkedAccount, user_id};
use crate::domain::{AccountId, Address, Cause, Lane, OktaUserId, Status, Timestamp, clock, timestamp_text};

/// How far back events still speak for or against what Okta answers.
const EVENTS_BACK: Duration = Duration::from_secs(3600);

impl Store {
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
}

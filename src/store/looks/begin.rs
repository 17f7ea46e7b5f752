//! What is known before a look.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use sqlx::Row;

use super::super::intake::read_time;
use super::super::{Store, StoreError};
use super::{LookStart, user_id};
use crate::domain::{
    AccountId, Address, Cause, EventSeen, Lane, MarkedAccount, OktaUserId, Status, Timestamp, clock, timestamp_text,
};

/// How far back events still speak for or against what Okta answers.
const EVENTS_BACK: Duration = Duration::from_secs(3600);

impl Store {
    /// Everything that is known of a user, as one snapshot: one statement is one.
    ///
    /// Of their events, the newest 100 that no look has settled, and of the last 30 to be recorded those of the last hour: a
    /// look costs the same behind any history.
    ///
    /// # Errors
    /// [`StoreError::Gone`] when the user is not in the store (any more).
    pub async fn begin_look(&self, id: &OktaUserId, now: Timestamp) -> Result<LookStart, StoreError> {
        // The limits stand in the text: SQLite prepares a statement anew for each value that is bound to one.
        let row = sqlx::query(
            "SELECT due_seq, lane, cause, attempts, approved, recheck_step, outcome, login, email, status, left_seen,
                    (SELECT first_poll_at FROM installation) AS first_poll_at,
                    (SELECT json_group_array(address ORDER BY seen_at, address)
                     FROM addresses a WHERE a.user_seq = users.user_seq) AS addresses,
                    (SELECT json_group_array(json_object('id', auth0_user_id, 'email', email, 'denied', denied,
                         'blocked', blocked OR unconfirmed = 2, 'sessions_owed', sessions_owed,
                         'unconfirmed', unconfirmed > 0) ORDER BY auth0_user_id)
                     FROM accounts WHERE okta_user_id = ?1) AS accounts,
                    (SELECT json_group_array(json_object('id', event_id, 'event_type', event_type, 'published', published,
                         'received_at', received_at, 'actor', actor, 'open', open) ORDER BY published, seq)
                     FROM (SELECT e.*, eu.settled_at IS NULL AS open
                           FROM (SELECT event_seq FROM (SELECT o.event_seq FROM event_users o
                                     WHERE o.user_seq = users.user_seq AND o.due_seq > users.settled_seq
                                       AND o.settled_at IS NULL ORDER BY o.due_seq DESC LIMIT 100)
                                 UNION
                                 SELECT event_seq FROM (SELECT l.event_seq FROM event_users l
                                     WHERE l.user_seq = users.user_seq ORDER BY l.due_seq DESC, l.event_seq DESC LIMIT 30)) few
                           CROSS JOIN event_users eu ON eu.event_seq = few.event_seq AND eu.user_seq = users.user_seq
                           CROSS JOIN events e ON e.seq = eu.event_seq
                           WHERE e.state = 'recorded' AND (eu.settled_at IS NULL OR e.received_at > ?2))) AS events
             FROM users WHERE okta_user_id = ?1",
        )
        .bind(id.as_str())
        .bind(timestamp_text(clock::sub(now, EVENTS_BACK)))
        .fetch_optional(self.reader())
        .await?
        .ok_or_else(|| StoreError::Gone { what: "user", id: id.to_string() })?;
        let text = |column: &str| row.try_get::<String, _>(column);
        let addresses: Vec<String> = list("addresses", &text("addresses")?)?;
        let accounts: Vec<AccountKnown> = list("accounts", &text("accounts")?)?;
        let events: Vec<EventKnown> = list("events", &text("events")?)?;
        let first_poll_at: Option<String> = row.try_get("first_poll_at")?;
        let cause = text("cause")?;
        Ok(LookStart {
            id: id.clone(),
            claimed_seq: row.try_get("due_seq")?,
            lane: Lane::from_rank(row.try_get("lane")?),
            cause: Cause::parse(&cause).ok_or(StoreError::Unreadable { what: "a cause", value: cause })?,
            attempts: row.try_get("attempts")?,
            approved: row.try_get("approved")?,
            recheck_step: row.try_get("recheck_step")?,
            outcome: row.try_get("outcome")?,
            login: row.try_get("login")?,
            email: row.try_get("email")?,
            status: row.try_get::<Option<String>, _>("status")?.map(|status| Status::parse(&status)),
            left_seen: row.try_get("left_seen")?,
            first_poll_at: first_poll_at.map(|text| read_time("the time of the first poll", &text)).transpose()?,
            addresses: addresses.iter().filter_map(|address| Address::parse(address)).collect(),
            accounts: accounts.into_iter().map(AccountKnown::marked).collect(),
            events: events.into_iter().map(EventKnown::seen).collect::<Result<_, _>>()?,
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
            "SELECT DISTINCT u.okta_user_id, u.status FROM addresses a JOIN users u USING (user_seq)
             WHERE a.address_key IN (SELECT value FROM json_each(?)) AND u.okta_user_id <> ?
             ORDER BY u.okta_user_id LIMIT 200",
        )
        .bind(keys)
        .bind(except.as_str())
        .fetch_all(self.reader())
        .await?;
        rows.into_iter().map(|(id, status)| Ok((user_id(&id)?, status.as_deref().map(Status::parse)))).collect()
    }
    /// How often the marks of an account were restored since `since`.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn restorations(&self, account: &AccountId, since: Timestamp) -> Result<u32, StoreError> {
        Ok(sqlx::query_scalar(
            "SELECT count(*) FROM decision_log WHERE auth0_user_id = ? AND at > ? AND outcome = 'restored'",
        )
        .bind(account.as_str())
        .bind(timestamp_text(since))
        .fetch_one(self.reader())
        .await?)
    }
}

/// A row of `accounts`, as the one statement gives it.
#[derive(Deserialize)]
struct AccountKnown {
    id: String,
    email: Option<String>,
    denied: u8,
    blocked: u8,
    sessions_owed: u8,
    unconfirmed: u8,
}

impl AccountKnown {
    fn marked(self) -> MarkedAccount {
        MarkedAccount {
            id: AccountId::new(self.id),
            email: self.email.as_deref().and_then(Address::parse),
            denied: self.denied != 0,
            blocked: self.blocked != 0,
            sessions_owed: self.sessions_owed != 0,
            unconfirmed: self.unconfirmed != 0,
        }
    }
}

/// A row of `events`, as the one statement gives it.
#[derive(Deserialize)]
struct EventKnown {
    id: String,
    event_type: String,
    published: String,
    received_at: String,
    actor: Option<String>,
    open: u8,
}

impl EventKnown {
    fn seen(self) -> Result<EventSeen, StoreError> {
        Ok(EventSeen {
            published: read_time("the time of an event", &self.published)?,
            received_at: read_time("the time of an event", &self.received_at)?,
            id: self.id,
            event_type: self.event_type,
            actor: self.actor,
            open: self.open != 0,
        })
    }
}

fn list<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<Vec<T>, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Unreadable { what, value: error.to_string() })
}

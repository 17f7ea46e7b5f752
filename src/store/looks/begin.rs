//! Reads everything a look needs to know from the state.

use std::time::Duration;

use sqlx::FromRow;
use sqlx::sqlite::SqliteConnection;

use super::super::types::StoredTime;
use super::super::{Store, StoreError, json_list};
use super::{LookStart, NamedAccount};
use crate::domain::{
    AccountId, Address, Change, EventSeen, MarkedAccount, OktaUserId, Status, Timestamp, clock, timestamp_text,
};

/// How old an event may be to still support or contradict Okta's answer.
const EVENTS_BACK: Duration = Duration::from_secs(3600);

const USER: &str = "
    SELECT user_seq, settled_seq, okta_user_id AS id, due_seq AS claimed_seq, lane,
           CASE WHEN cause = 'event' AND NOT EXISTS (SELECT 1 FROM event_users e WHERE e.user_seq = users.user_seq
                     AND e.due_seq > users.settled_seq AND e.settled_at IS NULL)
                AND EXISTS (SELECT 1 FROM account_events e WHERE e.user_seq = users.user_seq AND e.settled_at IS NULL)
                THEN 'account' ELSE cause END AS cause, attempts,
           iif(approved AND (approved_for = 'guard' OR approved_status IS status), approved_for, NULL) AS approved,
           recheck_step, outcome, login, email, status, status_at, left_at, returned_at,
           (SELECT first_poll_at FROM installation) AS first_poll_at,
           (SELECT okta_org_id FROM installation) AS okta_org,
           (SELECT EXISTS (SELECT 1 FROM installation i, health h WHERE h.action_key = i.metadata_key)) AS may_move_marks
    FROM users WHERE okta_user_id = ?";

const ACCOUNTS: &str = "
    SELECT auth0_user_id, email, denied, blocked OR unconfirmed = 2 AS blocked, sessions_owed,
           unconfirmed > 0 AS unconfirmed,
           denied AND coalesce(mark_key <> (SELECT metadata_key FROM installation), 0) AS unmoved
    FROM accounts WHERE okta_user_id = ? ORDER BY auth0_user_id";

/// The newest 100 events that no look has settled, and of the last 30 those received after ?3. The limits are
/// literals: SQLite re-prepares a statement when a bound LIMIT changes.
const EVENTS: &str = "
    WITH few AS (
        SELECT event_seq FROM (SELECT event_seq FROM event_users
            WHERE user_seq = ?1 AND due_seq > ?2 AND settled_at IS NULL ORDER BY due_seq DESC LIMIT 100)
        UNION
        SELECT event_seq FROM (SELECT event_seq FROM event_users
            WHERE user_seq = ?1 ORDER BY due_seq DESC, event_seq DESC LIMIT 30))
    SELECT e.event_id, e.event_type, e.published, e.received_at, e.actor, e.succeeded, eu.settled_at IS NULL AS open
    FROM few CROSS JOIN event_users eu ON eu.event_seq = few.event_seq AND eu.user_seq = ?1
         CROSS JOIN events e ON e.seq = eu.event_seq
    WHERE e.state = 'recorded' AND (eu.settled_at IS NULL OR e.received_at > ?3)
    ORDER BY e.published, e.seq";

#[derive(FromRow)]
struct SubjectRow {
    user_seq: i64,
    settled_seq: i64,
    #[sqlx(flatten)]
    start: LookStart,
}

#[derive(FromRow)]
struct MarkedRow {
    auth0_user_id: AccountId,
    email: Option<String>,
    denied: bool,
    blocked: bool,
    sessions_owed: bool,
    unconfirmed: bool,
    unmoved: bool,
}

impl From<MarkedRow> for MarkedAccount {
    fn from(row: MarkedRow) -> Self {
        Self {
            id: row.auth0_user_id,
            email: row.email.as_deref().and_then(Address::parse),
            denied: row.denied,
            blocked: row.blocked,
            sessions_owed: row.sessions_owed,
            unconfirmed: row.unconfirmed,
            unmoved: row.unmoved,
        }
    }
}

#[derive(FromRow)]
struct EventSeenRow {
    event_id: String,
    event_type: String,
    published: StoredTime,
    received_at: StoredTime,
    actor: Option<String>,
    open: bool,
    succeeded: bool,
}

impl From<EventSeenRow> for EventSeen {
    fn from(row: EventSeenRow) -> Self {
        Self {
            id: row.event_id,
            event_type: row.event_type,
            published: row.published.into(),
            received_at: row.received_at.into(),
            actor: row.actor,
            open: row.open,
            succeeded: row.succeeded,
        }
    }
}

impl Store {
    /// Everything the state knows about a user, as one snapshot.
    ///
    /// The number of events is bounded, so the cost of a look does not grow with the user's history.
    ///
    /// # Errors
    /// [`StoreError::Gone`] when the user is not in the state.
    pub async fn begin_look(&self, id: &OktaUserId, now: Timestamp) -> Result<LookStart, StoreError> {
        let mut tx = self.reader().begin().await?;
        let subject: Option<SubjectRow> = sqlx::query_as(USER).bind(id).fetch_optional(&mut *tx).await?;
        let SubjectRow { user_seq, settled_seq, mut start } = subject.ok_or_else(|| StoreError::gone_user(id))?;
        for (address, is_present) in addresses(&mut tx, user_seq).await? {
            if is_present {
                start.present_addresses.push(address.clone());
            }
            start.addresses.push(address);
        }
        let accounts: Vec<MarkedRow> = sqlx::query_as(ACCOUNTS).bind(id).fetch_all(&mut *tx).await?;
        start.accounts = accounts.into_iter().map(MarkedAccount::from).collect();
        let events: Vec<EventSeenRow> = sqlx::query_as(EVENTS)
            .bind(user_seq)
            .bind(settled_seq)
            .bind(timestamp_text(clock::sub(now, EVENTS_BACK)))
            .fetch_all(&mut *tx)
            .await?;
        start.events = events.into_iter().map(EventSeen::from).collect();
        start.named = named_accounts(&mut tx, user_seq, start.claimed_seq).await?;
        Ok(start)
    }

    /// Other users that ever had one of these addresses, with their last known status.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn known_holders(
        &self,
        addresses: &[Address],
        except: &OktaUserId,
    ) -> Result<Vec<(OktaUserId, Option<Status>, String)>, StoreError> {
        let keys: Vec<String> = addresses.iter().map(Address::key).collect();
        Ok(sqlx::query_as(
            "SELECT DISTINCT u.okta_user_id, u.status, a.address_key FROM addresses a JOIN users u USING (user_seq)
             WHERE a.address_key IN (SELECT value FROM json_each(?)) AND u.okta_user_id <> ?
             ORDER BY u.okta_user_id LIMIT 2000",
        )
        .bind(json_list(keys))
        .bind(except)
        .fetch_all(self.reader())
        .await?)
    }

    /// How often an account's marks were restored since `since`.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn restorations(&self, account: &AccountId, since: Timestamp) -> Result<u32, StoreError> {
        Ok(sqlx::query_scalar(
            "SELECT count(*) FROM decision_log WHERE auth0_user_id = ? AND at > ? AND outcome = 'restored'",
        )
        .bind(account)
        .bind(timestamp_text(since))
        .fetch_one(self.reader())
        .await?)
    }
}

/// The accounts that Auth0's events named since the last look that settled, the newest 50.
async fn named_accounts(
    connection: &mut SqliteConnection,
    user_seq: i64,
    claimed_seq: i64,
) -> Result<Vec<NamedAccount>, StoreError> {
    let rows: Vec<(AccountId, String, StoredTime)> = sqlx::query_as(
        "SELECT auth0_user_id, event_type, occurred_at FROM account_events
         WHERE user_seq = ? AND due_seq <= ? AND settled_at IS NULL ORDER BY due_seq DESC, event_id LIMIT 50",
    )
    .bind(user_seq)
    .bind(claimed_seq)
    .fetch_all(connection)
    .await?;
    let named = rows
        .into_iter()
        .filter_map(|(id, kind, at)| Some(NamedAccount { id, change: Change::parse(&kind)?, occurred_at: at.into() }));
    Ok(named.collect())
}

/// Every address ever read for a user, and whether it is one of theirs as far as is known.
async fn addresses(connection: &mut SqliteConnection, user_seq: i64) -> Result<Vec<(Address, bool)>, StoreError> {
    let rows: Vec<(String, bool)> = sqlx::query_as(
        "SELECT address, replaced_at IS NULL FROM addresses WHERE user_seq = ? ORDER BY seen_at, address",
    )
    .bind(user_seq)
    .fetch_all(connection)
    .await?;
    Ok(rows.iter().filter_map(|(text, is_present)| Some((Address::parse(text)?, *is_present))).collect())
}

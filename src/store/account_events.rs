//! The event stream of Auth0: where it resumes, and the changes of accounts that made a user due.
//!
//! As with a page of the System Log, the events that make users due and the offset are one transaction, and the offset moves by
//! compare-and-swap.

use aws_lc_rs::digest;
use serde::Serialize;
use sqlx::FromRow;

use super::types::OptionalTime;
use super::write::{Tx, Write};
use super::{Store, StoreError, count};
use crate::domain::{AccountEvent, Cause, Concerned, Lane, OktaUserId, Status, Timestamp, WatchMode, timestamp_text};

/// The users that one batch of events may concern: an address can be that of thousands.
const CONCERNED_MAX: u32 = 2000;

/// Where the stream resumes.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct StreamPosition {
    /// Rises with every write: the value that compare-and-swap compares.
    pub seq: i64,
    /// The offset after which to resume. `None`: by time, at `complete_at`.
    pub next: Option<String>,
    /// Every change before it was received. `None`: the stream was never open.
    #[sqlx(try_from = "OptionalTime")]
    pub complete_at: Option<Timestamp>,
}

/// How the watcher is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatcherState {
    /// The stream is open.
    Watching,
    /// The credential lacks the scope, or the tenant the endpoint.
    Unavailable,
    /// Other consumers use all connections that the tenant's plan has.
    Occupied,
    /// The stream cannot be opened for another reason.
    Failing,
}

impl WatcherState {
    /// The word in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Watching => "watching",
            Self::Unavailable => "unavailable",
            Self::Occupied => "occupied",
            Self::Failing => "failing",
        }
    }
}

/// A user whom an event makes due.
#[derive(Clone, Debug)]
pub struct DueByAccount<'a> {
    /// The event.
    pub event: &'a AccountEvent,
    /// [`seen_hash`] of it.
    pub seen: &'a str,
    /// The user.
    pub user: OktaUserId,
}

/// What to record of the stream.
#[derive(Clone, Debug)]
pub struct StreamPage<'a> {
    /// [`StreamPosition::seq`] before.
    pub expected_seq: i64,
    /// The offset of the last message; `None` if there was none yet.
    pub next: Option<&'a str>,
    /// The users to make due.
    pub due: &'a [DueByAccount<'a>],
}

/// A row of `account_events` in the JSON text of a batch.
#[derive(Serialize)]
struct EventRow<'a> {
    id: &'a str,
    user: &'a str,
    kind: &'static str,
    account: &'a str,
    at: String,
    seen: &'a str,
}

/// What an event names, in the JSON text of a batch.
#[derive(Serialize)]
struct NamedRow<'a> {
    keys: Vec<String>,
    ids: Vec<&'a str>,
    accounts: Vec<String>,
}

#[derive(FromRow)]
struct ConcernedRow {
    event: i64,
    okta_user_id: OktaUserId,
    status: Option<Status>,
    left_seen: bool,
    denied: bool,
    blocked: bool,
    unconfirmed: bool,
    seen: Option<String>,
}

const CONCERNED: &str = "
    WITH named (event, user_seq) AS MATERIALIZED (
        SELECT j.key, a.user_seq FROM json_each(?1) j CROSS JOIN json_each(j.value, '$.keys') k
             CROSS JOIN addresses a ON a.address_key = k.value
        UNION
        SELECT j.key, u.user_seq FROM json_each(?1) j CROSS JOIN json_each(j.value, '$.ids') k
             CROSS JOIN users u ON u.okta_user_id = k.value
        UNION
        SELECT j.key, u.user_seq FROM json_each(?1) j CROSS JOIN json_each(j.value, '$.accounts') k
             CROSS JOIN accounts a ON a.auth0_user_id = k.value CROSS JOIN users u ON u.okta_user_id = a.okta_user_id)
    SELECT n.event, u.okta_user_id, u.status, u.left_seen,
           coalesce(max(a.denied), 0) AS denied, coalesce(max(a.blocked), 0) AS blocked,
           coalesce(max(a.unconfirmed > 0), 0) AS unconfirmed,
           (SELECT e.seen FROM account_events e WHERE e.user_seq = n.user_seq
              AND e.auth0_user_id = json_extract(?1, '$[' || n.event || '].accounts[0]')
            ORDER BY e.due_seq DESC LIMIT 1) AS seen
    FROM named n CROSS JOIN users u ON u.user_seq = n.user_seq
         LEFT JOIN accounts a ON a.okta_user_id = u.okta_user_id AND a.auth0_user_id IN
             (SELECT value FROM json_each(?1, '$[' || n.event || '].accounts'))
    GROUP BY n.event, n.user_seq LIMIT ?2";

/// Records the events with the number that their users get. A repeated event is known already.
const INSERT_EVENTS: &str = "
    INSERT INTO account_events (event_id, user_seq, event_type, auth0_user_id, occurred_at, received_at, seen, due_seq)
    SELECT j.value ->> 'id', u.user_seq, j.value ->> 'kind', j.value ->> 'account', j.value ->> 'at', ?2, j.value ->> 'seen',
           u.due_seq + 1
    FROM json_each(?1) j CROSS JOIN users u ON u.okta_user_id = j.value ->> 'user' WHERE true
    ON CONFLICT DO NOTHING RETURNING user_seq";

/// Makes users due. A user whose look waits for its next attempt keeps that time: an account that changes every second
/// must not undo the backoff. A failed user is revived.
const MAKE_DUE: &str = "
    UPDATE users SET
        due_since = iif(due_seq > settled_seq, due_since, ?2),
        lane = iif(due_seq > settled_seq, min(lane, ?3), ?3),
        due_seq = due_seq + 1, cause = ?4, recheck_step = 0,
        due_at = iif(outcome IN ('retry', 'snooze') AND due_at IS NOT NULL, due_at, ?2),
        attempts = iif(outcome IS 'failed', 0, attempts),
        since = iif(outcome IS 'failed', ?2, since),
        why = iif(outcome IS 'failed', NULL, why),
        outcome = iif(outcome IS 'failed', NULL, outcome)
    WHERE user_seq IN (SELECT value FROM json_each(?1))";

const MOVE: &str = "
    UPDATE account_stream SET seq = seq + 1, next = coalesce(?2, next), complete_at = ?3, live_at = ?3,
        state = 'watching', detail = NULL
    WHERE seq = ?1";

/// Only a reconcile of all users finds what the stream did not show.
const MISS_RECONCILE: &str = "
    UPDATE installation SET unchecked = iif(unchecked_all, unchecked, ?1), unchecked_since = ?2, unchecked_all = 1";

/// A hash of what an account shows of itself.
pub fn seen_hash(event: &AccountEvent) -> String {
    let digest = digest::digest(&digest::SHA256, event.seen().as_bytes());
    digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

impl Store {
    /// Where the stream resumes.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn stream_position(&self) -> Result<StreamPosition, StoreError> {
        Ok(sqlx::query_as("SELECT seq, next, complete_at FROM account_stream").fetch_one(self.reader()).await?)
    }

    /// The users that each event may concern, in the order of the events.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn concerned_by(&self, events: &[AccountEvent]) -> Result<Vec<Vec<Concerned>>, StoreError> {
        let mut concerned: Vec<Vec<Concerned>> = events.iter().map(|_| Vec::new()).collect();
        let rows: Vec<NamedRow<'_>> = events
            .iter()
            .map(|event| NamedRow {
                keys: event.account.addresses().map(crate::domain::Address::key).collect(),
                ids: event.identity_ids().collect(),
                accounts: event.account_ids(),
            })
            .collect();
        let found: Vec<ConcernedRow> =
            sqlx::query_as(CONCERNED).bind(json(&rows)?).bind(CONCERNED_MAX).fetch_all(self.reader()).await?;
        for row in found {
            let Some(list) = usize::try_from(row.event).ok().and_then(|at| concerned.get_mut(at)) else { continue };
            list.push(Concerned {
                user: row.okta_user_id,
                status: row.status,
                left: row.left_seen,
                denied: row.denied,
                blocked: row.blocked,
                unconfirmed: row.unconfirmed,
                seen: row.seen,
            });
        }
        Ok(concerned)
    }

    /// Makes users due and moves the offset, in one transaction. Returns how many became due; a repeated event makes none
    /// due.
    ///
    /// # Errors
    /// [`StoreError::CheckpointMoved`] when another process moved the offset; nothing is stored then.
    pub async fn record_account_events(&self, page: StreamPage<'_>, now: Timestamp) -> Result<u64, StoreError> {
        let now_text = timestamp_text(now);
        let mut tx = self.begin(Write::RecordAccountEvents).await?;
        let mut made = 0;
        if !page.due.is_empty() {
            made = make_due(&mut tx, page.due, &now_text).await?;
        }
        let moved = sqlx::query(MOVE).bind(page.expected_seq).bind(page.next).bind(&now_text).execute(&mut *tx).await?;
        if moved.rows_affected() != 1 {
            return Err(StoreError::CheckpointMoved { expected: page.expected_seq });
        }
        self.commit(tx).await?;
        Ok(made)
    }

    /// Gives up the offset, and the time too unless `keep_time`. A reconcile is missing from now on: changes may have been
    /// missed.
    ///
    /// # Errors
    /// [`StoreError::CheckpointMoved`], as for a batch.
    pub async fn resume_by_time(
        &self,
        expected_seq: i64,
        keep_time: bool,
        why: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin(Write::ResumeByTime).await?;
        let moved = sqlx::query(
            "UPDATE account_stream SET seq = seq + 1, next = NULL, complete_at = iif(?2, complete_at, NULL) WHERE seq = ?1",
        )
        .bind(expected_seq)
        .bind(keep_time)
        .execute(&mut *tx)
        .await?;
        if moved.rows_affected() != 1 {
            return Err(StoreError::CheckpointMoved { expected: expected_seq });
        }
        sqlx::query(MISS_RECONCILE).bind(why).bind(timestamp_text(now)).execute(&mut *tx).await?;
        self.commit(tx).await
    }

    /// Notes that events could not be read, so that a reconcile is missing.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn miss_reconcile(&self, why: &str, now: Timestamp) -> Result<(), StoreError> {
        self.write(Write::NoteWatcher, sqlx::query(MISS_RECONCILE).bind(why).bind(timestamp_text(now))).await?;
        Ok(())
    }

    /// Notes that the watcher started in this mode. Its deadline counts from now.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn note_watcher_start(&self, mode: WatchMode, now: Timestamp) -> Result<(), StoreError> {
        let start = "UPDATE account_stream SET mode = ?, started_at = ?, state = NULL, detail = NULL";
        self.write(Write::NoteWatcher, sqlx::query(start).bind(mode.as_str()).bind(timestamp_text(now))).await?;
        Ok(())
    }

    /// Notes how the watcher is. The sign of life of an open stream comes with its offsets.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn note_watcher(&self, state: WatcherState, detail: Option<&str>) -> Result<(), StoreError> {
        let note = "UPDATE account_stream SET state = ?1, detail = ?2 WHERE state IS NOT ?1 OR detail IS NOT ?2";
        self.write(Write::NoteWatcher, sqlx::query(note).bind(state.as_str()).bind(detail)).await?;
        Ok(())
    }
}

async fn make_due(tx: &mut Tx, due: &[DueByAccount<'_>], now_text: &str) -> Result<u64, StoreError> {
    let rows: Vec<EventRow<'_>> = due
        .iter()
        .map(|due| EventRow {
            id: &due.event.id,
            user: due.user.as_str(),
            kind: due.event.change.as_str(),
            account: due.event.account.id.as_str(),
            at: timestamp_text(due.event.at),
            seen: due.seen,
        })
        .collect();
    let mut users: Vec<i64> =
        sqlx::query_scalar(INSERT_EVENTS).bind(json(&rows)?).bind(now_text).fetch_all(&mut **tx).await?;
    users.sort_unstable();
    users.dedup();
    if users.is_empty() {
        return Ok(0);
    }
    sqlx::query(MAKE_DUE)
        .bind(json(&users)?)
        .bind(now_text)
        .bind(Lane::Deactivation)
        .bind(Cause::Event)
        .execute(&mut **tx)
        .await?;
    Ok(count(users.len()))
}

fn json<T: Serialize>(rows: &[T]) -> Result<String, StoreError> {
    serde_json::to_string(rows)
        .map_err(|error| StoreError::Unreadable { what: "a batch of events", value: error.to_string() })
}

//! Intake: stores a page of events, makes its users due and moves the checkpoint, in one transaction.

use std::collections::HashSet;

use serde::Serialize;
use sqlx::FromRow;

use super::tombstones::Forgotten;
use super::types::StoredTime;
use super::write::{Tx, Write};
use super::{Store, StoreError};
use crate::domain::event::CREATED;
use crate::domain::{Event, Lane, Signal, Timestamp, timestamp_text};

/// Where polling continues.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Checkpoint {
    /// Rises by one with every page: the value that compare-and-swap compares.
    pub seq: i64,
    /// Path and query of the next page. `None`: resume by time, at `anchor_at`.
    pub next: Option<String>,
    /// The org and the filter that `next` belongs to.
    pub fingerprint: String,
    /// Okta's time when the log was last read to its end: everything persisted before it is stored.
    #[sqlx(try_from = "StoredTime")]
    pub anchor_at: Timestamp,
    /// When `next` last changed.
    #[sqlx(try_from = "StoredTime")]
    pub moved_at: Timestamp,
}

/// An unreadable log entry, stored as Okta sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantinedEvent {
    /// Okta's `uuid`, or a hash of the text: the same entry is quarantined once.
    pub event_id: String,
    /// The type, if readable.
    pub event_type: Option<String>,
    /// When it happened, if readable.
    pub published: Option<Timestamp>,
    /// The entry's text.
    pub raw: String,
    /// What is wrong with it.
    pub why: String,
}

/// A page to record.
#[derive(Clone, Debug)]
pub struct Page<'a> {
    /// [`Checkpoint::seq`] before the page was requested; 0 if there was none.
    pub expected_seq: i64,
    /// The readable entries, in log order.
    pub events: &'a [Event],
    /// The unreadable ones.
    pub quarantined: &'a [QuarantinedEvent],
    /// The next page.
    pub next: Option<&'a str>,
    /// [`Checkpoint::fingerprint`].
    pub fingerprint: &'a str,
    /// [`Checkpoint::anchor_at`] after this page.
    pub anchor_at: Timestamp,
    /// Users are denied before their activation, so their creation is a reason for a look.
    pub creation_matters: bool,
    /// The page counts as a good poll. Otherwise only its events count.
    pub is_good: bool,
}

/// The result of recording a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// The checkpoint's new step.
    pub seq: i64,
    /// New entries, unreadable ones included.
    pub new_events: u64,
    /// Users that they made due.
    pub made_due: u64,
    /// New unreadable entries.
    pub new_quarantined: u64,
}

/// An event in the JSON text of a page: one statement inserts the whole page.
#[derive(Serialize)]
struct EventRow<'a> {
    id: &'a str,
    event_type: &'a str,
    published: Option<String>,
    actor: Option<&'a str>,
    state: &'static str,
    why: Option<&'a str>,
    raw: Option<&'a str>,
    succeeded: bool,
    users: Vec<EventUserRow<'a>>,
}

#[derive(Serialize)]
struct EventUserRow<'a> {
    id: &'a str,
    login: Option<&'a str>,
    login_key: Option<String>,
    address: Option<String>,
    address_key: Option<String>,
    lane: i64,
    left_at: Option<String>,
    returned_at: Option<String>,
}

/// Okta reports one user per event. If an event names thousands, this many users of a page are as urgent as the event;
/// the others come after all live work, so that they do not delay the users of the next events.
const EXTRA_USERS_MAX: usize = 100;

/// The state of an event that makes no user due.
const IGNORED: &str = "ignored";

/// The last number of an event, and the page as binary JSON: parsed once, not by each statement.
const READ_PAGE: &str = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0), jsonb(?)";

// In the statements about a page, ?1 is the page, ?2 the time and ?3 the last number of an event before the page.

/// Numbers each entry by its place in the page, so that the next statements find it without its id. A known entry leaves
/// its number unused.
const INSERT_EVENTS: &str = "
    INSERT INTO events (seq, event_id, event_type, published, actor, received_at, state, why, raw, succeeded)
    SELECT ?3 + 1 + key, value ->> 'id', value ->> 'event_type', value ->> 'published', value ->> 'actor', ?2,
           value ->> 'state', value ->> 'why', value ->> 'raw', value ->> 'succeeded'
    FROM jsonb_each(?1) WHERE true ORDER BY key
    ON CONFLICT (event_order, event_id) DO NOTHING";

/// Makes the users of new events due. Resets failed looks. Any other outcome stays until a look changes it: a held
/// user stays held, and a skipped user keeps its `since`. An approval given before the user left or returned again ends.
const QUEUE_USERS: &str = "
    INSERT INTO users (okta_user_id, login, login_key, left_seen, left_at, returned_at, due_seq, settled_seq, due_at, lane,
        cause, due_since, since)
    SELECT u.value ->> 'id', max(u.value ->> 'login'), max(u.value ->> 'login_key'),
           max(u.value ->> 'left_at') IS NOT NULL, max(u.value ->> 'left_at'), max(u.value ->> 'returned_at'), i.seq_floor + count(*), i.seq_floor, ?2, min(u.value ->> 'lane'), 'event', ?2, ?2
    FROM jsonb_each(?1) j CROSS JOIN events e ON e.seq = ?3 + 1 + j.key
         CROSS JOIN jsonb_each(j.value, '$.users') u CROSS JOIN installation i
    WHERE e.state = 'recorded'
    GROUP BY u.value ->> 'id'
    ON CONFLICT (okta_user_id) DO UPDATE SET
        login = coalesce(login, excluded.login),
        login_key = iif(login IS NULL, excluded.login_key, login_key),
        left_seen = max(left_seen, excluded.left_seen),
        left_at = max(coalesce(left_at, excluded.left_at), coalesce(excluded.left_at, left_at)),
        returned_at = max(coalesce(returned_at, excluded.returned_at), coalesce(excluded.returned_at, returned_at)),
        lane = iif(due_seq > settled_seq, min(lane, excluded.lane), excluded.lane),
        due_since = iif(due_seq > settled_seq, due_since, excluded.due_since),
        due_seq = due_seq + excluded.due_seq - excluded.settled_seq,
        due_at = excluded.due_at, cause = 'event', attempts = 0, recheck_step = 0,
        approved = iif(excluded.left_at IS NULL AND excluded.returned_at IS NULL, approved, 0),
        since = iif(outcome IN ('retry', 'snooze', 'failed'), excluded.since, since),
        why = iif(outcome IN ('retry', 'snooze', 'failed'), NULL, why),
        outcome = iif(outcome IN ('retry', 'snooze', 'failed'), NULL, outcome)";

/// Adds the users of ignored events: every user that an event names is known.
const ADD_USERS_OF_IGNORED: &str = "
    INSERT INTO users (okta_user_id, due_seq, settled_seq, cause, since)
    SELECT DISTINCT u.value ->> 'id', i.seq_floor, i.seq_floor, 'event', ?2
    FROM jsonb_each(?1) j CROSS JOIN events e ON e.seq = ?3 + 1 + j.key
         CROSS JOIN jsonb_each(j.value, '$.users') u CROSS JOIN installation i
    WHERE e.state = 'ignored'
    ON CONFLICT (okta_user_id) DO NOTHING";

/// Links new events to their users. An event may name a user twice; the key keeps one row.
const LINK_USERS: &str = "
    INSERT OR IGNORE INTO event_users (event_seq, user_seq, login, due_seq, settled_at, outcome)
    SELECT e.seq, k.user_seq, u.value ->> 'login', k.due_seq,
           iif(e.state = 'ignored', ?2, NULL), iif(e.state = 'ignored', 'ignored', NULL)
    FROM jsonb_each(?1) j CROSS JOIN events e ON e.seq = ?3 + 1 + j.key
         CROSS JOIN jsonb_each(j.value, '$.users') u
         CROSS JOIN users k ON k.okta_user_id = u.value ->> 'id'";

const ADD_ADDRESSES: &str = "
    INSERT OR IGNORE INTO addresses (user_seq, address, address_key, seen_at)
    SELECT k.user_seq, u.value ->> 'address', u.value ->> 'address_key', ?2
    FROM jsonb_each(?1) j CROSS JOIN events e ON e.seq = ?3 + 1 + j.key
         CROSS JOIN jsonb_each(j.value, '$.users') u
         CROSS JOIN users k ON k.okta_user_id = u.value ->> 'id'
    WHERE e.state = 'recorded' AND u.value ->> 'address' IS NOT NULL";

const FIRST_CHECKPOINT: &str = "
    INSERT INTO checkpoint (id, seq, next, fingerprint, anchor_at, moved_at) VALUES (1, 1, ?1, ?2, ?3, ?4)
    ON CONFLICT DO NOTHING";

const MOVE_CHECKPOINT: &str = "
    UPDATE checkpoint SET seq = seq + 1, moved_at = iif(next IS ?1, moved_at, ?4), next = ?1, fingerprint = ?2,
        anchor_at = ?3
    WHERE seq = ?5";

const REANCHOR: &str = "
    UPDATE checkpoint SET seq = seq + 1, next = NULL, fingerprint = ?, anchor_at = ?, moved_at = ? WHERE seq = ?";

/// A page inside its transaction.
struct PageRows {
    json: Vec<u8>,
    now: String,
    /// The last number of an event before this page.
    before: i64,
}

impl PageRows {
    async fn read(tx: &mut Tx, rows: String, now: Timestamp) -> Result<Self, StoreError> {
        let (before, json) = sqlx::query_as(READ_PAGE).bind(rows).fetch_one(&mut **tx).await?;
        Ok(Self { json, now: timestamp_text(now), before })
    }

    /// Executes one of the statements about a page. Returns how many rows it changed.
    async fn execute(&self, tx: &mut Tx, sql: &'static str) -> Result<u64, StoreError> {
        let done = sqlx::query(sql).bind(&self.json).bind(&self.now).bind(self.before).execute(&mut **tx).await?;
        Ok(done.rows_affected())
    }

    async fn new_quarantined(&self, tx: &mut Tx) -> Result<u64, StoreError> {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM events WHERE seq > ? AND state = 'quarantined'")
            .bind(self.before)
            .fetch_one(&mut **tx)
            .await?;
        Ok(u64::try_from(count).unwrap_or(0))
    }
}

impl Store {
    /// The checkpoint, if a page was ever recorded.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn checkpoint(&self) -> Result<Option<Checkpoint>, StoreError> {
        let sql = "SELECT seq, next, fingerprint, anchor_at, moved_at FROM checkpoint";
        Ok(sqlx::query_as(sql).fetch_optional(self.reader()).await?)
    }

    /// When the event that arrived last was published.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn last_published(&self) -> Result<Option<Timestamp>, StoreError> {
        let at: Option<StoredTime> =
            sqlx::query_scalar("SELECT published FROM events WHERE published IS NOT NULL ORDER BY seq DESC LIMIT 1")
                .fetch_optional(self.reader())
                .await?;
        Ok(at.map(Timestamp::from))
    }

    /// Records a page: inserts new entries, makes their users due and moves the checkpoint, in one transaction.
    ///
    /// An event without news about a user who was forgotten is recorded without the user.
    ///
    /// Known entries (by Okta's `uuid`) change nothing, so a page may be recorded any number of times.
    ///
    /// # Errors
    /// [`StoreError::CheckpointMoved`] when another process recorded a page since `expected_seq` was read; nothing is
    /// stored then.
    pub async fn record_page(&self, page: Page<'_>, now: Timestamp) -> Result<Recorded, StoreError> {
        let mut tx = self.begin(Write::RecordPage).await?;
        let forgotten = self.end_tombstones(&mut tx, page.events).await?;
        let rows = event_rows(&page, &forgotten);
        let some_ignored = rows.iter().any(|row| row.state == IGNORED);
        let json = serde_json::to_string(&rows)
            .map_err(|error| StoreError::Unreadable { what: "a page", value: error.to_string() })?;
        let rows = PageRows::read(&mut tx, json, now).await?;
        let new_events = rows.execute(&mut tx, INSERT_EVENTS).await?;
        let mut made_due = 0;
        if new_events > 0 {
            made_due = rows.execute(&mut tx, QUEUE_USERS).await?;
            if some_ignored {
                rows.execute(&mut tx, ADD_USERS_OF_IGNORED).await?;
            }
            rows.execute(&mut tx, LINK_USERS).await?;
            rows.execute(&mut tx, ADD_ADDRESSES).await?;
        }
        let new_quarantined = rows.new_quarantined(&mut tx).await?;
        move_checkpoint(&mut tx, &page, &rows.now).await?;
        sqlx::query(
            "UPDATE installation SET first_poll_at = coalesce(first_poll_at, ?1), last_poll_at = ?1,
                 last_poll_ok_at = iif(?2, ?1, last_poll_ok_at)",
        )
        .bind(&rows.now)
        .bind(page.is_good)
        .execute(&mut *tx)
        .await?;
        self.commit(tx).await?;
        Ok(Recorded { seq: page.expected_seq + 1, new_events, made_due, new_quarantined })
    }

    /// Discards the stored cursor: the next page is requested by time, from `anchor_at`. Repeated events are recognized by
    /// id.
    ///
    /// # Errors
    /// [`StoreError::CheckpointMoved`], as for a page.
    pub async fn reanchor(
        &self,
        expected_seq: i64,
        fingerprint: &str,
        anchor_at: Timestamp,
        now: Timestamp,
    ) -> Result<i64, StoreError> {
        let mut tx = self.begin(Write::Reanchor).await?;
        let moved = sqlx::query(REANCHOR)
            .bind(fingerprint)
            .bind(timestamp_text(anchor_at))
            .bind(timestamp_text(now))
            .bind(expected_seq)
            .execute(&mut *tx)
            .await?;
        if moved.rows_affected() != 1 {
            return Err(StoreError::CheckpointMoved { expected: expected_seq });
        }
        self.commit(tx).await?;
        Ok(expected_seq + 1)
    }
}

/// Moves the checkpoint by compare-and-swap.
async fn move_checkpoint(tx: &mut Tx, page: &Page<'_>, now: &str) -> Result<(), StoreError> {
    let is_first = page.expected_seq == 0;
    let moved = sqlx::query(if is_first { FIRST_CHECKPOINT } else { MOVE_CHECKPOINT })
        .bind(page.next)
        .bind(page.fingerprint)
        .bind(timestamp_text(page.anchor_at))
        .bind(now);
    let moved = if is_first { moved } else { moved.bind(page.expected_seq) };
    if moved.execute(&mut **tx).await?.rows_affected() == 1 {
        Ok(())
    } else {
        Err(StoreError::CheckpointMoved { expected: page.expected_seq })
    }
}

/// The page's entries without duplicates. Of a readable and an unreadable copy, keeps the readable one.
fn event_rows<'a>(page: &Page<'a>, forgotten: &Forgotten) -> Vec<EventRow<'a>> {
    let mut ids = HashSet::new();
    let mut extra = EXTRA_USERS_MAX;
    let events = page.events.iter().map(|event| event_row(event, page.creation_matters, forgotten, &mut extra));
    let entries = events.chain(page.quarantined.iter().map(quarantined_row));
    entries.filter(|row| ids.insert(row.id)).collect()
}

/// `extra` is how many more users beyond the first of an event may still be urgent in this page.
fn event_row<'a>(event: &'a Event, creation_matters: bool, forgotten: &Forgotten, extra: &mut usize) -> EventRow<'a> {
    let signal = event.signal();
    let published = timestamp_text(event.published);
    let mut users = Vec::with_capacity(event.users.len());
    for (at, user) in event.users.iter().filter(|user| !forgotten.contains_key(&user.id)).enumerate() {
        let lane = if at > 0 && *extra == 0 { Lane::Reconcile } else { signal.lane() };
        *extra -= usize::from(at > 0 && *extra > 0);
        let address = user.address();
        users.push(EventUserRow {
            id: user.id.as_str(),
            login: user.login.as_deref(),
            // An address already identifies the user in searches.
            login_key: user.login.as_deref().filter(|_| address.is_none()).map(str::to_lowercase),
            address_key: address.as_ref().map(crate::domain::Address::key),
            address: address.map(|address| address.as_str().to_owned()),
            lane: lane.rank(),
            left_at: (signal == Signal::Left).then(|| published.clone()),
            returned_at: (signal == Signal::Returned).then(|| published.clone()),
        });
    }
    let is_ignored = signal == Signal::Irrelevant && !(creation_matters && event.event_type == CREATED);
    EventRow {
        id: &event.id,
        event_type: &event.event_type,
        published: Some(published),
        actor: event.actor.as_deref(),
        state: if is_ignored { IGNORED } else { "recorded" },
        why: None,
        raw: None,
        succeeded: event.succeeded,
        users,
    }
}

fn quarantined_row(entry: &QuarantinedEvent) -> EventRow<'_> {
    EventRow {
        id: &entry.event_id,
        event_type: entry.event_type.as_deref().unwrap_or(""),
        published: entry.published.map(timestamp_text),
        actor: None,
        state: "quarantined",
        why: Some(&entry.why),
        raw: Some(&entry.raw),
        succeeded: false,
        users: Vec::new(),
    }
}

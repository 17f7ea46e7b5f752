//! Taking in: a page of the log, the users that it makes due, and the checkpoint, in one transaction.

use std::collections::HashSet;

use serde::Serialize;
use sqlx::Row;

use super::write::Write;
use super::{Store, StoreError};
use crate::domain::clock;
use crate::domain::{Event, Signal, Timestamp, timestamp_text};

/// Where the log is read on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Rises by one with every page: the value that compare-and-swap compares.
    pub seq: i64,
    /// Path and query of the next page. `None`: start anew at `anchor_at`.
    pub next: Option<String>,
    /// Org and filter that `next` carries inside.
    pub fingerprint: String,
    /// Okta's time at the last good answer.
    pub anchor_at: Timestamp,
    /// When `next` last changed.
    pub moved_at: Timestamp,
}

/// An entry of the log that could not be read, kept as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantinedEvent {
    /// Okta's `uuid`, or one made of the text itself: the same entry is quarantined once.
    pub event_id: String,
    /// The type, if at least that could be read.
    pub event_type: Option<String>,
    /// When it happened, if that could be read.
    pub published: Option<Timestamp>,
    /// The entry.
    pub raw: String,
    /// What is wrong with it.
    pub why: String,
}

/// A page as it shall be recorded.
#[derive(Clone, Debug)]
pub struct Page<'a> {
    /// [`Checkpoint::seq`] as it was read before the page was asked for; 0 if there was none.
    pub expected_seq: i64,
    /// The entries that could be read, in log order.
    pub events: &'a [Event],
    /// Those that could not.
    pub quarantined: &'a [QuarantinedEvent],
    /// Where to go on.
    pub next: Option<&'a str>,
    /// What `next` carries inside.
    pub fingerprint: &'a str,
    /// Okta's time when it answered.
    pub server_time: Timestamp,
}

/// What recording a page came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// The checkpoint's new step.
    pub seq: i64,
    /// Entries that were not known before, unreadable ones included.
    pub new_events: u64,
    /// Users that became due by them.
    pub made_due: u64,
    /// Unreadable entries that were not known before.
    pub new_quarantined: u64,
}

/// An event as the one INSERT reads it, from one JSON text: a statement for the page, not one for each event.
#[derive(Serialize)]
struct EventRow<'a> {
    id: &'a str,
    event_type: &'a str,
    published: Option<String>,
    actor: Option<&'a str>,
    state: &'static str,
    why: Option<&'a str>,
    raw: Option<&'a str>,
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
    left: bool,
}

/// The state of an entry from which nothing follows.
const IGNORED: &str = "ignored";

impl Store {
    /// The checkpoint, if a page was ever recorded.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn checkpoint(&self) -> Result<Option<Checkpoint>, StoreError> {
        let row = sqlx::query("SELECT seq, next, fingerprint, anchor_at, moved_at FROM checkpoint")
            .fetch_optional(self.reader())
            .await?;
        row.map(|row| {
            let text = |column: &str| row.try_get::<String, _>(column);
            Ok(Checkpoint {
                seq: row.try_get("seq")?,
                next: row.try_get("next")?,
                fingerprint: text("fingerprint")?,
                anchor_at: read_time("the checkpoint's anchor", &text("anchor_at")?)?,
                moved_at: read_time("the checkpoint's time", &text("moved_at")?)?,
            })
        })
        .transpose()
    }

    /// Records a page: inserts what is new, makes its users due, moves the checkpoint. All of it or nothing.
    ///
    /// Entries that are known already (by Okta's `uuid`) change nothing, so a page may be recorded any number of times.
    ///
    /// # Errors
    /// [`StoreError::CheckpointMoved`] when somebody else recorded a page since `expected_seq` was read; nothing is stored
    /// then.
    pub async fn record_page(&self, page: Page<'_>, now: Timestamp) -> Result<Recorded, StoreError> {
        // An entry that stands twice in the page counts once; where only one of the two can be read, that one.
        let mut ids = HashSet::new();
        let rows: Vec<EventRow<'_>> = page
            .events
            .iter()
            .map(event_row)
            .chain(page.quarantined.iter().map(quarantined_row))
            .filter(|row| ids.insert(row.id))
            .collect();
        let some_ignored = rows.iter().any(|row| row.state == IGNORED);
        let rows = serde_json::to_string(&rows)
            .map_err(|error| StoreError::Unreadable { what: "a page", value: error.to_string() })?;
        let now_text = timestamp_text(now);

        let mut tx = self.begin(Write::RecordPage).await?;
        // Read once: each statement would else parse the text anew, and each `->>` the entry that it looks into.
        let (before, rows): (i64, Vec<u8>) =
            sqlx::query_as("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0), jsonb(?)")
                .bind(rows)
                .fetch_one(&mut *tx)
                .await?;
        // Each entry has its number by its place in the page, and so is found again without its id. One that is known
        // already leaves its number unused.
        let new_events = sqlx::query(
            "INSERT INTO events (seq, event_id, event_type, published, actor, received_at, state, why, raw)
             SELECT ?3 + 1 + key, value ->> 'id', value ->> 'event_type', value ->> 'published', value ->> 'actor', ?2,
                    value ->> 'state', value ->> 'why', value ->> 'raw'
             FROM jsonb_each(?1) WHERE true ORDER BY key
             ON CONFLICT (event_order, event_id) DO NOTHING",
        )
        .bind(&rows)
        .bind(&now_text)
        .bind(before)
        .execute(&mut *tx)
        .await?
        .rows_affected();

        let mut made_due = 0;
        if new_events > 0 {
            // What failed before is tried afresh. Any other outcome stands until a look ends otherwise: what is held is
            // held, and who was skipped or had no account has been so since then, whoever asks in between.
            made_due = sqlx::query(
                "INSERT INTO users (okta_user_id, login, login_key, left_seen, due_seq, settled_seq, due_at, lane, cause,
                     due_since, since)
                 SELECT u.value ->> 'id', max(u.value ->> 'login'), max(u.value ->> 'login_key'), max(u.value ->> 'left'),
                        i.seq_floor + count(*), i.seq_floor, ?2, min(u.value ->> 'lane'), 'event', ?2, ?2
                 FROM jsonb_each(?1) j CROSS JOIN events e ON e.seq = ?3 + 1 + j.key
                      CROSS JOIN jsonb_each(j.value, '$.users') u CROSS JOIN installation i
                 WHERE e.state = 'recorded'
                 GROUP BY u.value ->> 'id'
                 ON CONFLICT (okta_user_id) DO UPDATE SET
                     login = coalesce(login, excluded.login),
                     login_key = iif(login IS NULL, excluded.login_key, login_key),
                     left_seen = max(left_seen, excluded.left_seen),
                     lane = iif(due_seq > settled_seq, min(lane, excluded.lane), excluded.lane),
                     due_since = iif(due_seq > settled_seq, due_since, excluded.due_since),
                     due_seq = due_seq + excluded.due_seq - excluded.settled_seq,
                     due_at = excluded.due_at, cause = 'event', attempts = 0, recheck_step = 0,
                     since = iif(outcome IN ('retry', 'snooze', 'failed'), excluded.since, since),
                     why = iif(outcome IN ('retry', 'snooze', 'failed'), NULL, why),
                     outcome = iif(outcome IN ('retry', 'snooze', 'failed'), NULL, outcome)",
            )
            .bind(&rows)
            .bind(&now_text)
            .bind(before)
            .execute(&mut *tx)
            .await?
            .rows_affected();
            if some_ignored {
                // Whom an event is about is known, also where nothing follows from it.
                sqlx::query(
                    "INSERT INTO users (okta_user_id, due_seq, settled_seq, cause, since)
                     SELECT DISTINCT u.value ->> 'id', i.seq_floor, i.seq_floor, 'event', ?2
                     FROM jsonb_each(?1) j CROSS JOIN events e ON e.seq = ?3 + 1 + j.key
                          CROSS JOIN jsonb_each(j.value, '$.users') u CROSS JOIN installation i
                     WHERE e.state = 'ignored'
                     ON CONFLICT (okta_user_id) DO NOTHING",
                )
                .bind(&rows)
                .bind(&now_text)
                .bind(before)
                .execute(&mut *tx)
                .await?;
            }
            // A user may stand twice in one event: the key sees to it.
            sqlx::query(
                "INSERT OR IGNORE INTO event_users (event_seq, user_seq, login, due_seq, settled_at, outcome)
                 SELECT e.seq, k.user_seq, u.value ->> 'login', k.due_seq,
                        iif(e.state = 'ignored', ?2, NULL), iif(e.state = 'ignored', 'ignored', NULL)
                 FROM jsonb_each(?1) j CROSS JOIN events e ON e.seq = ?3 + 1 + j.key
                      CROSS JOIN jsonb_each(j.value, '$.users') u
                      CROSS JOIN users k ON k.okta_user_id = u.value ->> 'id'",
            )
            .bind(&rows)
            .bind(&now_text)
            .bind(before)
            .execute(&mut *tx)
            .await?;
            sqlx::query(
                "INSERT OR IGNORE INTO addresses (user_seq, address, address_key, seen_at)
                 SELECT k.user_seq, u.value ->> 'address', u.value ->> 'address_key', ?2
                 FROM jsonb_each(?1) j CROSS JOIN events e ON e.seq = ?3 + 1 + j.key
                      CROSS JOIN jsonb_each(j.value, '$.users') u
                      CROSS JOIN users k ON k.okta_user_id = u.value ->> 'id'
                 WHERE e.state = 'recorded' AND u.value ->> 'address' IS NOT NULL",
            )
            .bind(&rows)
            .bind(&now_text)
            .bind(before)
            .execute(&mut *tx)
            .await?;
        }
        let new_quarantined: i64 =
            sqlx::query_scalar("SELECT count(*) FROM events WHERE seq > ? AND state = 'quarantined'")
                .bind(before)
                .fetch_one(&mut *tx)
                .await?;

        let server_time = timestamp_text(page.server_time);
        let moved = if page.expected_seq == 0 {
            sqlx::query(
                "INSERT INTO checkpoint (id, seq, next, fingerprint, anchor_at, moved_at) VALUES (1, 1, ?, ?, ?, ?)
                 ON CONFLICT DO NOTHING",
            )
            .bind(page.next)
            .bind(page.fingerprint)
            .bind(&server_time)
            .bind(&now_text)
        } else {
            sqlx::query(
                "UPDATE checkpoint SET seq = seq + 1, moved_at = iif(next IS ?1, moved_at, ?4), next = ?1, fingerprint = ?2,
                     anchor_at = ?3
                 WHERE seq = ?5",
            )
            .bind(page.next)
            .bind(page.fingerprint)
            .bind(&server_time)
            .bind(&now_text)
            .bind(page.expected_seq)
        }
        .execute(&mut *tx)
        .await?;
        if moved.rows_affected() != 1 {
            return Err(StoreError::CheckpointMoved { expected: page.expected_seq });
        }
        sqlx::query(
            "UPDATE installation SET first_poll_at = coalesce(first_poll_at, ?1), last_poll_at = ?1, last_poll_ok_at = ?1",
        )
        .bind(&now_text)
        .execute(&mut *tx)
        .await?;
        self.commit(tx).await?;
        Ok(Recorded {
            seq: page.expected_seq + 1,
            new_events,
            made_due,
            new_quarantined: u64::try_from(new_quarantined).unwrap_or(0),
        })
    }

    /// Gives up the stored cursor: the next page is asked for by time, from `anchor_at` on. Events that come a second time
    /// are known by their ids.
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
        let moved = sqlx::query(
            "UPDATE checkpoint SET seq = seq + 1, next = NULL, fingerprint = ?, anchor_at = ?, moved_at = ? WHERE seq = ?",
        )
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

fn event_row(event: &Event) -> EventRow<'_> {
    let signal = Signal::of(&event.event_type);
    EventRow {
        id: &event.id,
        event_type: &event.event_type,
        published: Some(timestamp_text(event.published)),
        actor: event.actor.as_deref(),
        state: if signal == Signal::Irrelevant { IGNORED } else { "recorded" },
        why: None,
        raw: None,
        users: event
            .users
            .iter()
            .map(|user| {
                let address = user.address();
                EventUserRow {
                    id: user.id.as_str(),
                    login: user.login.as_deref(),
                    // A login that is an address is found by that.
                    login_key: user.login.as_deref().filter(|_| address.is_none()).map(str::to_lowercase),
                    address_key: address.as_ref().map(crate::domain::Address::key),
                    address: address.map(|address| address.as_str().to_owned()),
                    lane: signal.lane().rank(),
                    left: signal.is_evidence_of_leaving(),
                }
            })
            .collect(),
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
        users: Vec::new(),
    }
}

/// Reads a stored time.
pub(super) fn read_time(what: &'static str, text: &str) -> Result<Timestamp, StoreError> {
    clock::parse_timestamp(text).map_err(|_| StoreError::Unreadable { what, value: text.to_owned() })
}

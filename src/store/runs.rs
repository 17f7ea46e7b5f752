//! The run log and the health of the remotes.

use super::write::Write;
use super::{Store, StoreError};
use crate::domain::{Timestamp, timestamp_text};

/// The kind of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunKind {
    /// A daemon process, from start to exit.
    Run,
    /// A poll with new events, or the first failed poll after a good one.
    Poll,
    /// One `sync` pass.
    Sync,
    /// A reconcile.
    Reconcile,
    /// The removal of every mark.
    Purge,
}

impl RunKind {
    /// The word used in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Poll => "poll",
            Self::Sync => "sync",
            Self::Reconcile => "reconcile",
            Self::Purge => "purge",
        }
    }
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunCounts {
    /// Pages of events or users.
    pub pages: u64,
    /// New events.
    pub events: u64,
    /// Looks.
    pub looks: u64,
    /// Accounts written.
    pub writes: u64,
}

/// An error of a remote, as `status` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteError<'a> {
    /// `okta` or `auth0`.
    pub remote: &'static str,
    /// A stable word: `unauthorized`, `forbidden`, `unreachable` …
    pub kind: &'static str,
    /// The error message.
    pub text: &'a str,
    /// When the next call is made that a rate limit holds back.
    pub next_call_at: Option<Timestamp>,
}

/// Settled events, finished runs, cleared alarms and tombstones before ?1, at most ?2 of each.
///
/// Also addresses that Okta stopped showing for their user before ?1. Users who left, or may have, keep theirs: an account
/// with an old address may still appear.
const EXPIRE: [&str; 6] = [
    "DELETE FROM events WHERE seq IN (
         SELECT seq FROM events e WHERE received_at < ?1 AND state <> 'quarantined'
           AND NOT EXISTS (SELECT 1 FROM event_users eu WHERE eu.event_seq = e.seq AND eu.settled_at IS NULL)
         ORDER BY received_at LIMIT ?2)",
    "DELETE FROM account_events WHERE (event_id, user_seq) IN (
         SELECT event_id, user_seq FROM account_events WHERE received_at < ?1 AND settled_at IS NOT NULL LIMIT ?2)",
    "DELETE FROM run_log WHERE id IN (
         SELECT id FROM run_log WHERE started_at < ?1 AND finished_at IS NOT NULL LIMIT ?2)",
    "DELETE FROM alarms WHERE id IN (SELECT id FROM alarms WHERE cleared_at < ?1 LIMIT ?2)",
    "DELETE FROM tombstones WHERE digest IN (SELECT digest FROM tombstones WHERE forgotten_at < ?1 LIMIT ?2)",
    "DELETE FROM addresses WHERE (user_seq, address) IN (
         SELECT user_seq, address FROM addresses a JOIN users u USING (user_seq)
         WHERE a.replaced_at < ?1 AND u.left_seen = 0 AND u.due_since IS NULL
           AND (u.outcome IS NULL OR u.outcome IN ('applied', 'unchanged'))
           AND NOT EXISTS (SELECT 1 FROM accounts d WHERE d.okta_user_id = u.okta_user_id AND d.denied = 1)
         LIMIT ?2)",
];

impl Store {
    /// Records the start of a run. Returns its id for [`Store::finish_run`].
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn begin_run(&self, kind: RunKind, now: Timestamp) -> Result<i64, StoreError> {
        let done = self
            .write(
                Write::BeginRun,
                sqlx::query("INSERT INTO run_log (kind, started_at) VALUES (?, ?)")
                    .bind(kind.as_str())
                    .bind(timestamp_text(now)),
            )
            .await?;
        Ok(done.last_insert_rowid())
    }

    /// Records the result of a run.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn finish_run(
        &self,
        run: i64,
        counts: RunCounts,
        error: Option<&str>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let done = self.write(Write::FinishRun, sqlx::query(
            "UPDATE run_log SET finished_at = ?, ok = ?, pages = ?, events = ?, looks = ?, writes = ?, error = ? WHERE id = ?",
        )
        .bind(timestamp_text(now))
        .bind(error.is_none())
        .bind(count(counts.pages))
        .bind(count(counts.events))
        .bind(count(counts.looks))
        .bind(count(counts.writes))
        .bind(error)
        .bind(run)
        ).await?;
        if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Gone { what: "run", id: run.to_string() }) }
    }

    /// Records the time of a poll attempt, successful or not.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn note_poll(&self, now: Timestamp) -> Result<(), StoreError> {
        self.write(Write::NotePoll, sqlx::query("UPDATE installation SET last_poll_at = ?").bind(timestamp_text(now)))
            .await?;
        Ok(())
    }

    /// Records an error of a remote.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn note_remote_error(&self, failure: RemoteError<'_>, now: Timestamp) -> Result<(), StoreError> {
        self.write(
            Write::NoteRemoteError,
            sqlx::query(
                "UPDATE remotes SET error_at = ?1, error_kind = ?2, error = ?3, next_call_at = ?5,
                 failing_since = coalesce(failing_since, ?1) WHERE remote = ?4",
            )
            .bind(timestamp_text(now))
            .bind(failure.kind)
            .bind(failure.text)
            .bind(failure.remote)
            .bind(failure.next_call_at.map(timestamp_text)),
        )
        .await?;
        Ok(())
    }

    /// Records a good answer of a remote.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn note_remote_ok(&self, remote: &'static str, now: Timestamp) -> Result<(), StoreError> {
        self.write(
            Write::NoteRemoteOk,
            sqlx::query("UPDATE remotes SET ok_at = ?, failing_since = NULL, next_call_at = NULL WHERE remote = ?")
                .bind(timestamp_text(now))
                .bind(remote),
        )
        .await?;
        Ok(())
    }

    /// Deletes settled events, decisions, finished runs, cleared alarms and tombstones older than `before`, at most `limit`
    /// rows of each to keep the transaction short. Returns the number of deleted rows; zero when nothing is left to delete.
    ///
    /// Keeps users, their present addresses and accounts (they are current state), and unsettled events of any age.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn expire(&self, before: Timestamp, limit: u32, now: Timestamp) -> Result<u64, StoreError> {
        let before = timestamp_text(before);
        let mut tx = self.begin(Write::Expire).await?;
        let mut gone = self.expire_decisions(&mut tx, &before, limit, now).await?;
        for sql in EXPIRE {
            gone += sqlx::query(sql).bind(&before).bind(limit).execute(&mut *tx).await?.rows_affected();
        }
        self.commit(tx).await?;
        Ok(gone)
    }
}

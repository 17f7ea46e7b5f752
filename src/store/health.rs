//! What the daemon knows about its own health, and the facts that its obligations are judged by.

use std::sync::LazyLock;

use sqlx::FromRow;

use super::files::sibling;
use super::write::Write;
use super::{Store, StoreError};
use crate::domain::{Timestamp, timestamp_text};

/// A write-ahead log of this size is not normal: it is emptied from 16 MiB on, unless another connection reads.
const WAL_BYTES_MAX: u64 = 64 << 20;

/// The facts of the view `obligations`, as the migration has them: there is one definition, and only the comparison with
/// the current time differs between `sqlite3`, which has only the wall clock, and the daemon.
static FACTS: LazyLock<String> = LazyLock::new(|| {
    let migration = include_str!("../../migrations/0011_account_events.sql");
    let facts = migration.split_once("-- facts begin").and_then(|(_, rest)| rest.split_once("-- facts end"));
    format!(
        "WITH facts (rank, name, since, judged, late, detail, remedy) AS ({})
         SELECT name, deadline_s, late_since, since, judged, late, detail, remedy
         FROM facts JOIN obligation_deadlines USING (name) ORDER BY rank",
        facts.map_or("", |(facts, _)| facts)
    )
});

/// What is known about an obligation without the current time.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct ObligationFact {
    /// Its name.
    pub name: String,
    /// How old `since` may be.
    pub deadline_s: Option<i64>,
    /// The daemon found the deadline missed for this `since`, by its monotonic clock.
    pub late_since: Option<String>,
    /// When it was last kept, or what has waited for longest.
    pub since: Option<String>,
    /// `met`, `failed`, `unknown`, or `timed`: the age of `since` decides.
    pub judged: String,
    /// What a missed deadline means: `failed` or `unknown`.
    pub late: String,
    /// What is known.
    pub detail: String,
    /// What an operator can do.
    pub remedy: String,
}

/// The result of an evaluation, for processes that only read the state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// The loop that makes no progress, as a sentence.
    pub stuck: Option<String>,
    /// How far this machine's clock is ahead of the tenants', in seconds, and when that was compared.
    pub clock: Option<(f64, Timestamp)>,
    /// The size of the write-ahead log, if above the bound.
    pub wal_bytes: Option<u64>,
    /// A webhook is configured.
    pub webhook: bool,
    /// Deadlines in seconds by obligation, and for which `since` they were missed.
    pub deadlines: Vec<(String, Option<i64>, Option<String>)>,
}

/// The state of the Action, in more detail than [`super::Enforcement`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActionState {
    /// Our code runs, before all other Actions.
    Verified,
    /// Our code runs behind another Action.
    NotFirst,
    /// Other code runs under our name.
    OtherCode,
    /// Missing, not deployed or not bound.
    Missing,
    /// The credential lacks the scope to check.
    NoScope,
    /// Marks block logins without an Action.
    NotNeeded,
}

impl ActionState {
    /// The word used in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::NotFirst => "not_first",
            Self::OtherCode => "other_code",
            Self::Missing => "missing",
            Self::NoScope => "no_scope",
            Self::NotNeeded => "not_needed",
        }
    }
}

impl Store {
    /// The facts of every obligation, in the order of the view.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn obligation_facts(&self) -> Result<Vec<ObligationFact>, StoreError> {
        Ok(sqlx::query_as(sqlx::AssertSqlSafe(FACTS.as_str())).fetch_all(self.reader()).await?)
    }

    /// Stores an evaluation: a sign of life, and the proof that the state can be written.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn note_evaluation(&self, found: &Evaluation, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.begin(Write::NoteEvaluation).await?;
        sqlx::query(
            "UPDATE health SET running = 1, evaluated_at = ?1, stuck = ?2, clock_ahead_s = coalesce(?3, clock_ahead_s),
                 clock_checked_at = coalesce(?4, clock_checked_at), wal_bytes = ?5, webhook = ?6",
        )
        .bind(timestamp_text(now))
        .bind(found.stuck.as_deref())
        .bind(found.clock.map(|(ahead, _)| ahead))
        .bind(found.clock.map(|(_, at)| timestamp_text(at)))
        .bind(found.wal_bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)))
        .bind(found.webhook)
        .execute(&mut *tx)
        .await?;
        for (name, deadline_s, late_since) in &found.deadlines {
            sqlx::query(
                "UPDATE obligation_deadlines SET deadline_s = ?2, late_since = ?3
                 WHERE name = ?1 AND (deadline_s IS NOT ?2 OR late_since IS NOT ?3)",
            )
            .bind(name)
            .bind(deadline_s)
            .bind(late_since)
            .execute(&mut *tx)
            .await?;
        }
        self.commit(tx).await
    }

    /// The size of the write-ahead log if it is above its bound and cannot be emptied, because another connection reads.
    ///
    /// # Errors
    /// When the state cannot be used.
    pub async fn held_wal_bytes(&self) -> Result<Option<u64>, StoreError> {
        let size = std::fs::metadata(sibling(self.path(), "-wal")).map_or(0, |metadata| metadata.len());
        if size <= WAL_BYTES_MAX {
            return Ok(None);
        }
        // Copies what it can without waiting for a reader.
        let (_, frames, copied): (i64, i64, i64) =
            sqlx::query_as("PRAGMA wal_checkpoint(PASSIVE)").fetch_one(self.writer()).await?;
        // The next write begins at the start of the file then, and truncates it.
        Ok((copied < frames).then_some(size))
    }

    /// We hold the lock, so a daemon that the state calls running is dead.
    pub(super) async fn note_dead_daemon(&self) -> Result<(), StoreError> {
        let dead = "UPDATE health SET running = 0, stopped_at = evaluated_at, stuck = NULL WHERE running = 1";
        self.write(Write::NoteStopped, sqlx::query(dead)).await?;
        Ok(())
    }

    /// Records that the daemon ended.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn note_stopped(&self, now: Timestamp) -> Result<(), StoreError> {
        self.write(
            Write::NoteStopped,
            sqlx::query("UPDATE health SET running = 0, stopped_at = ?").bind(timestamp_text(now)),
        )
        .await?;
        Ok(())
    }

    /// Records the state of the Action.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn note_action(&self, action: ActionState, detail: &str, now: Timestamp) -> Result<(), StoreError> {
        self.write(
            Write::NoteAction,
            sqlx::query("UPDATE health SET action = ?, action_at = ?, action_detail = ?")
                .bind(action.as_str())
                .bind(timestamp_text(now))
                .bind((!detail.is_empty()).then_some(detail)),
        )
        .await?;
        Ok(())
    }
}

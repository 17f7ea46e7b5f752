//! Alarms: conditions that an operator must know about, raised once and open until cleared.

use sqlx::FromRow;

use super::write::{Tx, Write};
use super::{Store, StoreError};
use crate::domain::{Timestamp, timestamp_text};

/// The kinds of alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AlarmKind {
    /// More first denials than the guard allows.
    Guard,
    /// A user is held for another reason.
    Held,
    /// A user's looks keep failing.
    Failed,
    /// A System Log entry could not be parsed.
    Quarantined,
    /// An exempt user was deactivated.
    ExemptLeft,
    /// An account's marks were removed three times in a day.
    Restored,
    /// The cursor was discarded and polling resumed by timestamp.
    Reanchored,
    /// The log may have a gap: events may have expired before they were read.
    Gap,
    /// Okta returned a user status that this version does not know.
    UnknownStatus,
    /// A remote is unreachable or returns errors.
    RemoteDown,
    /// A remote rejects the credentials or lacks a scope.
    RemoteRefuses,
    /// The log's next link names another host.
    ForeignNext,
    /// The Action is not bound: marks have no effect.
    ActionMissing,
    /// No successful poll for too long.
    PollLate,
    /// A denial was written too long after the deactivation.
    DenialLate,
    /// The mirror in `user_metadata` could not be written; the mark is in force.
    MirrorRefused,
    /// Ending sessions is configured, but the tenant's plan lacks the endpoint.
    SessionsUnavailable,
    /// An account has a mark that we did not write and that names no user.
    ForeignFlag,
    /// Marks are still under a former metadata key.
    KeyChange,
    /// Our admin role in Okta hides users, or their addresses.
    RoleTooNarrow,
    /// A user waits for a look for too long.
    PendingLate,
    /// No reconcile has finished for too long.
    ReconcileLate,
    /// The Action could not be checked for too long.
    ActionUnknown,
    /// Notifications are refused or not delivered in time.
    NotificationsLate,
    /// This machine's clock differs from the tenants'.
    Clock,
    /// The state cannot be written, or its write-ahead log grows.
    State,
    /// A loop of the daemon makes no progress.
    Stuck,
    /// Auth0's event stream was not open for too long.
    EventsLate,
}

impl AlarmKind {
    /// Every kind.
    pub const ALL: [Self; 28] = [
        Self::Guard,
        Self::Held,
        Self::Failed,
        Self::Quarantined,
        Self::ExemptLeft,
        Self::Restored,
        Self::Reanchored,
        Self::Gap,
        Self::UnknownStatus,
        Self::RemoteDown,
        Self::RemoteRefuses,
        Self::ForeignNext,
        Self::ActionMissing,
        Self::PollLate,
        Self::DenialLate,
        Self::MirrorRefused,
        Self::SessionsUnavailable,
        Self::ForeignFlag,
        Self::KeyChange,
        Self::RoleTooNarrow,
        Self::PendingLate,
        Self::ReconcileLate,
        Self::ActionUnknown,
        Self::NotificationsLate,
        Self::Clock,
        Self::State,
        Self::Stuck,
        Self::EventsLate,
    ];

    /// The stable name used in the store, logs and webhooks.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Guard => "guard",
            Self::Held => "held",
            Self::Failed => "failed",
            Self::Quarantined => "quarantined",
            Self::ExemptLeft => "exempt_left",
            Self::Restored => "restored",
            Self::Reanchored => "reanchored",
            Self::Gap => "gap",
            Self::UnknownStatus => "unknown_status",
            Self::RemoteDown => "remote_down",
            Self::RemoteRefuses => "remote_refuses",
            Self::ForeignNext => "foreign_next",
            Self::ActionMissing => "action_missing",
            Self::PollLate => "poll_late",
            Self::DenialLate => "denial_late",
            Self::MirrorRefused => "mirror_refused",
            Self::SessionsUnavailable => "sessions_unavailable",
            Self::ForeignFlag => "foreign_flag",
            Self::KeyChange => "key_change",
            Self::RoleTooNarrow => "role_too_narrow",
            Self::PendingLate => "pending_late",
            Self::ReconcileLate => "reconcile_late",
            Self::ActionUnknown => "action_unknown",
            Self::NotificationsLate => "notifications_late",
            Self::Clock => "clock",
            Self::State => "state",
            Self::Stuck => "stuck",
            Self::EventsLate => "events_late",
        }
    }
}

/// An alarm to raise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// Happened once: delivered, but never open.
    pub momentary: bool,
    /// The kind.
    pub kind: AlarmKind,
    /// The user or account concerned; empty for the whole installation.
    pub subject: String,
    /// What happened.
    pub detail: String,
    /// What to do.
    pub remedy: String,
}

/// A stored alarm.
#[derive(Clone, Debug, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct AlarmRow {
    /// Its number.
    pub id: i64,
    /// [`AlarmKind::as_str`].
    pub kind: String,
    /// The user or account concerned; empty for the whole installation.
    pub subject: String,
    /// The e-mail or login of the user concerned, where it was read.
    #[sqlx(default)]
    #[serde(skip)]
    pub name: Option<String>,
    /// What happened.
    pub detail: String,
    /// What to do.
    pub remedy: String,
    /// When it was raised.
    pub raised_at: String,
    /// When it was cleared.
    pub cleared_at: Option<String>,
}

/// An alarm whose notification has not been delivered yet.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct PendingNotification {
    /// The alarm.
    #[sqlx(flatten)]
    pub alarm: AlarmRow,
    /// True if the pending notification is for the clear; the raise was delivered.
    pub over: bool,
}

impl Store {
    /// The oldest alarm with an undelivered notification: first for the raise, then for the clear. A momentary alarm has
    /// only the first.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn pending_notification(&self) -> Result<Option<PendingNotification>, StoreError> {
        Ok(sqlx::query_as(
            "SELECT id, kind, subject, detail, remedy, raised_at, cleared_at, told_at IS NOT NULL AS over FROM alarms
             WHERE told_at IS NULL OR (cleared_at IS NOT NULL AND told_over_at IS NULL) ORDER BY id LIMIT 1",
        )
        .fetch_optional(self.reader())
        .await?)
    }

    /// Marks the notification as delivered.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn mark_delivered(&self, pending: &PendingNotification, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.begin(Write::MarkDelivered).await?;
        mark_told(&mut tx, pending, now).await?;
        sqlx::query("UPDATE health SET refused = 0 WHERE refused > 0").execute(&mut *tx).await?;
        self.commit(tx).await
    }

    /// Gives up a notification that the webhook refuses, so that it does not block the next.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn skip_notification(
        &self,
        pending: &PendingNotification,
        refusal: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin(Write::SkipNotification).await?;
        mark_told(&mut tx, pending, now).await?;
        sqlx::query("UPDATE alarms SET refused_at = ? WHERE id = ?")
            .bind(timestamp_text(now))
            .bind(pending.alarm.id)
            .execute(&mut *tx)
            .await?;
        sqlx::query("UPDATE health SET refused = refused + 1, refused_at = ?, refusal = ?")
            .bind(timestamp_text(now))
            .bind(refusal)
            .execute(&mut *tx)
            .await?;
        self.commit(tx).await
    }

    /// Queues the refused notifications of open alarms again: the webhook may have been repaired.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn retry_refused(&self) -> Result<(), StoreError> {
        let mut tx = self.begin(Write::RetryRefused).await?;
        for statement in [
            "UPDATE alarms SET told_at = NULL, refused_at = NULL WHERE refused_at IS NOT NULL AND cleared_at IS NULL",
            "UPDATE health SET refused = 0 WHERE refused > 0",
        ] {
            sqlx::query(statement).execute(&mut *tx).await?;
        }
        self.commit(tx).await
    }

    /// Raises an alarm. If one of the same kind and subject is open, updates its detail instead.
    ///
    /// Returns whether a new alarm was created.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn raise_alarm(&self, alarm: &Alarm, now: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.begin(Write::RaiseAlarm).await?;
        let raised = self.raise_in(&mut tx, alarm, now).await?;
        self.commit(tx).await?;
        Ok(raised)
    }

    /// Clears the open alarm of this kind and subject. Returns whether there was one.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn clear_alarm(&self, kind: AlarmKind, subject: &str, now: Timestamp) -> Result<bool, StoreError> {
        let cleared = self
            .write(
                Write::ClearAlarm,
                sqlx::query("UPDATE alarms SET cleared_at = ? WHERE kind = ? AND subject = ? AND cleared_at IS NULL")
                    .bind(timestamp_text(now))
                    .bind(kind.as_str())
                    .bind(subject),
            )
            .await?;
        Ok(cleared.rows_affected() > 0)
    }

    /// Clears every open alarm of this kind.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn clear_alarms(&self, kind: AlarmKind, now: Timestamp) -> Result<u64, StoreError> {
        let cleared = self
            .write(
                Write::ClearAlarms,
                sqlx::query("UPDATE alarms SET cleared_at = ? WHERE kind = ? AND cleared_at IS NULL")
                    .bind(timestamp_text(now))
                    .bind(kind.as_str()),
            )
            .await?;
        Ok(cleared.rows_affected())
    }

    /// The open alarms, oldest first.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn open_alarms(&self) -> Result<Vec<AlarmRow>, StoreError> {
        Ok(sqlx::query_as(
            "SELECT id, kind, subject, detail, remedy, raised_at, cleared_at,
                    (SELECT coalesce(email, login) FROM users WHERE okta_user_id = subject) AS name
             FROM alarms WHERE cleared_at IS NULL ORDER BY id LIMIT 1000",
        )
        .fetch_all(self.reader())
        .await?)
    }

    pub(super) async fn raise_in(&self, tx: &mut Tx, alarm: &Alarm, now: Timestamp) -> Result<bool, StoreError> {
        let updated = sqlx::query(
            "UPDATE alarms SET detail = ?, remedy = ? WHERE kind = ? AND subject = ? AND cleared_at IS NULL",
        )
        .bind(&alarm.detail)
        .bind(&alarm.remedy)
        .bind(alarm.kind.as_str())
        .bind(&alarm.subject)
        .execute(&mut **tx)
        .await?;
        if updated.rows_affected() > 0 {
            return Ok(false);
        }
        sqlx::query(
            "INSERT INTO alarms (kind, subject, detail, remedy, raised_at, cleared_at) VALUES (?1, ?2, ?3, ?4, ?5, iif(?6, ?5, NULL))",
        )
            .bind(alarm.kind.as_str())
            .bind(&alarm.subject)
            .bind(&alarm.detail)
            .bind(&alarm.remedy)
            .bind(timestamp_text(now))
            .bind(alarm.momentary)
            .execute(&mut **tx)
            .await?;
        Ok(true)
    }
}

async fn mark_told(tx: &mut Tx, pending: &PendingNotification, now: Timestamp) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE alarms SET told_at = coalesce(told_at, ?1),
         told_over_at = iif(?2 OR cleared_at = raised_at, ?1, told_over_at) WHERE id = ?3",
    )
    .bind(timestamp_text(now))
    .bind(pending.over)
    .bind(pending.alarm.id)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Ends the alarm about quarantined events when none is left.
pub(super) async fn end_quarantine_alarm(tx: &mut Tx, now: Timestamp) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE alarms SET cleared_at = ? WHERE kind = 'quarantined' AND cleared_at IS NULL
           AND NOT EXISTS (SELECT 1 FROM events WHERE state = 'quarantined')",
    )
    .bind(timestamp_text(now))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

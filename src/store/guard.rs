//! What the guard admitted and what it holds, for the screens.

use serde::Serialize;
use sqlx::FromRow;

use super::{GuardWindow, Store, StoreError, UserRow, views};
use crate::domain::{DenialsMax, Timestamp, clock, timestamp_text};

/// Actors and names listed; their number is not limited by the state.
const LISTED_MAX: u32 = 3;

/// The guard: its limit, how much of it is used, and the users that it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GuardReport {
    /// First denials admitted per window.
    pub limit: u64,
    /// The limit as configured: a number, or a share of the known users.
    pub configured: String,
    /// Length of the window, in seconds.
    pub window_s: u64,
    /// First denials in the window that events caused.
    pub used: i64,
    /// First denials in the window that a reconcile caused.
    pub used_by_reconcile: i64,
    /// The first of either kind that is full; it closed the window.
    pub oldest_at: Option<String>,
    /// When that one leaves the window, and new users may be denied again.
    pub full_until: Option<String>,
    /// Users that it holds.
    pub held: i64,
    /// Since when it holds the first of them.
    pub held_since: Option<String>,
    /// Some of them, by name.
    pub names: Vec<String>,
    /// Who deactivated them in Okta, the most active first.
    pub actors: Vec<GuardActor>,
}

/// An actor in Okta's System Log, and how many of the held users the actor's events concern.
#[derive(Clone, Debug, PartialEq, Eq, FromRow, Serialize)]
pub struct GuardActor {
    /// As Okta names it; `None`: a reconcile found the users, without an event.
    pub actor: Option<String>,
    /// Held users.
    pub users: i64,
}

/// The newest unsettled event of each held user names the actor.
const ACTORS: &str = "
    SELECT actor, count(*) AS users FROM (
        SELECT (SELECT e.actor FROM event_users eu JOIN events e ON e.seq = eu.event_seq
                WHERE eu.user_seq = u.user_seq AND eu.settled_at IS NULL ORDER BY eu.due_seq DESC LIMIT 1) AS actor
        FROM users u WHERE u.outcome = 'held' AND u.why = 'guard')
    GROUP BY actor ORDER BY users DESC, actor LIMIT ?";

impl Store {
    /// What the guard admitted in its window that ends now, and what it holds.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn guard_report(&self, guard: GuardWindow, now: Timestamp) -> Result<GuardReport, StoreError> {
        let known: i64 = match guard.denials_max {
            DenialsMax::Users(_) => 0,
            DenialsMax::Share(_) => sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(self.reader()).await?,
        };
        let limit = guard.denials_max.of(u64::try_from(known).unwrap_or(0));
        let window_start = clock::sub(now, guard.span);
        let used: Vec<(bool, i64, Option<String>)> =
            sqlx::query_as("SELECT sweep, count(*), min(at) FROM first_denials WHERE at > ? GROUP BY sweep")
                .bind(timestamp_text(window_start))
                .fetch_all(self.reader())
                .await?;
        let count = |reconcile| used.iter().find(|(sweep, ..)| *sweep == reconcile).map_or(0, |(_, count, _)| *count);
        let is_full = |count: i64| u64::try_from(count).unwrap_or(0) >= limit;
        let oldest_at = used.iter().filter(|(_, count, _)| is_full(*count)).filter_map(|(.., at)| at.clone()).min();
        let opens = oldest_at.as_deref().and_then(|at| clock::parse_timestamp(at).ok());
        let (held, held_since): (i64, Option<String>) =
            sqlx::query_as("SELECT count(*), min(since) FROM users WHERE outcome = 'held' AND why = 'guard'")
                .fetch_one(self.reader())
                .await?;
        let names = sqlx::query_scalar(
            "SELECT coalesce(email, login, okta_user_id) FROM users WHERE outcome = 'held' AND why = 'guard'
             ORDER BY since, okta_user_id LIMIT ?",
        )
        .bind(LISTED_MAX)
        .fetch_all(self.reader())
        .await?;
        Ok(GuardReport {
            limit,
            configured: guard.denials_max.to_string(),
            window_s: guard.span.as_secs(),
            used: count(false),
            used_by_reconcile: count(true),
            full_until: opens.map(|at| timestamp_text(clock::add(at, guard.span))),
            oldest_at,
            held,
            held_since,
            names,
            actors: sqlx::query_as(ACTORS).bind(LISTED_MAX).fetch_all(self.reader()).await?,
        })
    }

    /// Users that are held for another reason than the guard, oldest `since` first.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn held_individually(&self, limit: u32) -> Result<Vec<UserRow>, StoreError> {
        Ok(sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "{} WHERE outcome = 'held' AND why <> 'guard' ORDER BY since LIMIT ?",
            views::USER
        )))
        .bind(limit)
        .fetch_all(self.reader())
        .await?)
    }
}

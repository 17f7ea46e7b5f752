//! The directory: lists every user of the org and learns their addresses, so that a user who is renamed before they leave is
//! still found by the old address.
//!
//! The listing makes no user due and reads nothing in Auth0. It shares the reconcile's part of Okta's rate limit and resumes
//! after the last stored page. Okta's plain listing leaves out deprovisioned users; the reconcile lists those.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::alarms::{ADDRESSES, DIRECTORY, NO_USERS};
use super::error::PassError;
use super::page_limit::PageLimit;
use super::smaller::AsksForLess;
use super::{CallError, Engine, Fatal};
use crate::domain::{OktaUser, Timestamp, clock};
use crate::http::pacing::Priority;
use crate::http::{Failure, Kind};
use crate::okta::{self, UserPage};
use crate::store::{Alarm, AlarmKind, Directory, StoreError};

/// A start lists the directory if the last complete listing is older: a nightly one was missed.
const STALE_AFTER: Duration = Duration::from_secs(36 * 3600);
/// The wait after a failure that names no time.
const RETRY_AFTER: Duration = Duration::from_secs(60);
/// The wait after an empty list: the org is empty, or our role is too narrow.
const EMPTY_AGAIN: Duration = Duration::from_secs(900);
/// An alarm is raised if no listing was complete for this long: two nights.
const OVERDUE_AFTER: Duration = Duration::from_secs(48 * 3600);

/// The result of a listing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Users listed, including those listed before a restart.
    pub users: u64,
    /// It reached the last page.
    pub done: bool,
}

impl Engine {
    /// Lists the directory from where the last attempt stopped, or from the start, until the end or until cancelled.
    ///
    /// # Errors
    /// When Okta or the state fails. The next call resumes after the last stored page.
    pub async fn list_directory(&self, stop: &CancellationToken) -> Result<Listed, PassError> {
        let org = self.org("directory").await?;
        let mut directory = self.store.directory().await?;
        if directory.started_at.is_none() {
            self.store.begin_directory(self.now()).await?;
            directory = Directory { next: None, listed: 0, ..directory };
            info!(event = "directory_began", "listing every user of the org");
        }
        let mut next = directory.next;
        let mut users = directory.listed;
        let mut limit = PageLimit::between(1, okta::USERS_MAX);
        while !stop.is_cancelled() {
            let page = match self.directory_page(next.as_deref(), limit.get()).await {
                Ok(page) => page,
                Err(error) if error.asks_for_less() && limit.shrink() => continue,
                Err(CallError::Failed(failure)) if next.is_some() && is_cursor_refused(&failure) => {
                    // Cursors expire. The next attempt lists from the start.
                    self.store.begin_directory(self.now()).await?;
                    return Err(failure.into());
                }
                Err(error) => return Err(error.into()),
            };
            self.bind_org(org).await?;
            limit.note_good();
            next = page.next;
            users = self.store.record_directory_page(&page.users, next.as_deref(), self.now()).await?;
            if page.unreadable > 0 {
                warn!(
                    event = "unreadable_users",
                    count = page.unreadable,
                    "Okta listed users that cannot be read; skipping them"
                );
            }
            if page.users.iter().any(OktaUser::hides_addresses) {
                self.raise(Alarm::addresses_hidden()).await?;
            }
            if next.is_none() {
                self.report_role(users).await?;
                info!(event = "directory_done", users, "listed every user of the org: {users} users");
                return Ok(Listed { users, done: true });
            }
        }
        Ok(Listed { users, done: false })
    }

    async fn directory_page(&self, cursor: Option<&str>, limit: u16) -> Result<UserPage, CallError> {
        let call = || self.okta.directory_page(cursor, limit);
        self.okta_breaker.call(okta::endpoints::USERS, Priority::Reconcile, "directory", call).await
    }

    /// Ends the alarms that the listing disproves. A service app without an admin role gets an empty list, not a refusal;
    /// if the log names users, the org is not empty.
    async fn report_role(&self, users: u64) -> Result<(), StoreError> {
        if users == 0 {
            if self.store.knows_present_users().await? {
                self.raise(Alarm::no_users_listed()).await?;
            }
            return Ok(());
        }
        self.store.clear_alarm(AlarmKind::RoleTooNarrow, NO_USERS, self.now()).await?;
        if self.store.hidden_users().await? == 0 {
            self.store.clear_alarm(AlarmKind::RoleTooNarrow, ADDRESSES, self.now()).await?;
        }
        Ok(())
    }

    /// Ends the alarms about what a listing found, when the org is no longer listed. Users who left are still read by looks, so
    /// the alarm about their addresses stays until Okta shows them.
    pub(super) async fn end_listing_alarms(&self) -> Result<(), StoreError> {
        self.store.clear_alarm(AlarmKind::RoleTooNarrow, NO_USERS, self.now()).await?;
        self.store.forget_hidden_listed().await?;
        if self.store.hidden_users().await? == 0 {
            self.store.clear_alarm(AlarmKind::RoleTooNarrow, ADDRESSES, self.now()).await?;
        }
        Ok(())
    }

    async fn raise(&self, alarm: Alarm) -> Result<(), StoreError> {
        if self.store.raise_alarm(&alarm, self.now()).await? {
            self.log_raised(alarm.kind, &alarm.subject);
        }
        Ok(())
    }

    /// Whether a start has to list the directory: no listing was ever complete, one was interrupted, or the last one is old.
    async fn is_directory_due(&self) -> Result<bool, StoreError> {
        let directory = self.store.directory().await?;
        let is_fresh = |at: Timestamp| clock::since(self.now(), at) < STALE_AFTER;
        Ok(directory.started_at.is_some() || !directory.complete_at.is_some_and(is_fresh))
    }

    /// Raises an alarm while no listing has been complete for two nights. The health check asks, so a listing that waits or
    /// fails cannot hide it.
    pub(super) async fn check_directory_age(&self) -> Result<(), StoreError> {
        let since = self.store.last_directory_or_start().await?;
        let is_late = since.is_some_and(|since| clock::since(self.now(), since) >= OVERDUE_AFTER);
        match since {
            Some(since) if is_late && self.options.directory => self.raise(Alarm::directory_late(since)).await,
            _ => {
                self.store.clear_alarm(AlarmKind::ReconcileLate, DIRECTORY, self.now()).await?;
                Ok(())
            }
        }
    }

    /// Lists the directory at the start if that is due, and at each tick of the reconcile's schedule.
    pub(super) async fn directory_loop(&self, stop: &CancellationToken) -> Result<(), Fatal> {
        if !self.options.directory {
            stop.cancelled().await;
            return Ok(());
        }
        let mut due = self.is_directory_due().await?;
        let mut failing = false;
        loop {
            let mut again = None;
            if due {
                match self.list_directory(stop).await {
                    Ok(listed) => {
                        due = !listed.done || listed.users == 0;
                        again = due.then_some(EMPTY_AGAIN);
                        failing = false;
                    }
                    Err(PassError::Store(error)) if error.is_configuration() => return Err(error.into()),
                    Err(error) => {
                        again = Some(match &error {
                            PassError::Paused { wait, .. } => *wait,
                            _ => RETRY_AFTER,
                        });
                        if !failing {
                            failing = true;
                            warn!(
                                event = "directory_failed",
                                "failed to list the users of the org: {error}; resuming later"
                            );
                        }
                    }
                }
            }
            let retry = async {
                match again {
                    Some(wait) => self.clock.sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.wakes.directory.notified() => due = true,
                () = retry => {}
            }
        }
    }
}

fn is_cursor_refused(failure: &Failure) -> bool {
    matches!(failure.kind, Kind::Rejected | Kind::NotFound)
}

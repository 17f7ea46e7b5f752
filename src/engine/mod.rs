//! The engine: polls the System Log, looks at due users, and reconciles users that the log missed.
//!
//! Four ideas carry everything here:
//!
//! 1. **A page of the log and its cursor are one transaction** ([`poller`]). The checkpoint never waits for Auth0 and never
//!    passes an event that is not on disk.
//! 2. **An event is a ping, not a command.** Log order is not causal order, so the engine obeys no event. An event makes a
//!    user due; a [look](sync_user) reads that user in Okta now, decides, and makes Auth0 agree. Deactivation,
//!    reactivation, deletion, reconcile and a manual sync of one user are the same code.
//! 3. **A look makes Auth0 agree; it does not replay changes.** It reads the accounts, computes the difference as a pure
//!    function, and writes only if there is one. A second look writes nothing.
//! 4. **Clients classify, the engine decides** ([`breaker`]). The engine decides whether to wait, retry, hold, or raise an
//!    alarm. Pending retries are in the store, not in memory.
//!
//! Wake-ups carry no data: a tick, a page with new events and a restart only wake a loop, which then reads its work from the
//! store. A lost wake-up therefore costs a second, never a user.

mod action_watch;
mod alarms;
pub mod applier;
pub mod breaker;
pub mod calls;
mod claims;
pub mod deploy;
pub mod directory;
pub mod error;
mod health_watch;
pub mod heartbeat;
pub mod inspect;
mod key_change;
pub mod metrics;
mod notifier;
mod page_limit;
pub mod pass;
pub mod poller;
pub mod purge;
pub mod reconciler;
pub mod request;
mod smaller;
#[cfg(test)]
mod stage;
pub mod supervisor;
pub mod sync_user;
mod ticks;
pub mod watcher;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tracing::info;

use crate::alert::Alert;
use crate::auth0::Auth0;
use crate::domain::{Clock, Rules, Timestamp, WatchMode};
use crate::http::pacing::Pacer;
use crate::http::{Deviation, Remote};
use crate::okta::Okta;
use crate::store::{AlarmKind, GuardWindow, Opened, Store, StoreError};

use breaker::CircuitBreaker;
use claims::Claims;
pub use error::{CallError, Fatal, PassError};
use heartbeat::Heartbeats;
use sync_user::batch::{RecentUsers, SearchCaches};

/// The part of the configuration that the engine needs.
#[derive(Clone, Debug)]
pub struct Options {
    /// What a decision depends on.
    pub rules: Rules,
    /// The code that the Action should have.
    pub action: crate::auth0::ShippedAction,
    /// Also use the case-insensitive search.
    pub search: bool,
    /// Write to Auth0 at all.
    pub enforce: bool,
    /// The number of concurrent looks.
    pub concurrency: usize,
    /// Attempts until a user counts as failed.
    pub max_attempts: u32,
    /// How many first denials the guard admits in a window.
    pub guard: GuardWindow,
    /// How far back the first poll reads the log.
    pub initial_lookback: Duration,
    /// How long settled events, decisions and runs are kept.
    pub retention: Duration,
    /// Whether the event stream of Auth0 is watched.
    pub events: WatchMode,
    /// List every user of the org.
    pub directory: bool,
    /// Origin of the org. A stored cursor is valid for one origin only.
    pub okta_url: String,
}

/// A progress report of the engine, for screens.
#[derive(Clone, Debug)]
pub enum Note {
    /// A pass through the log ended.
    Pass {
        /// The error that ended it early.
        error: Option<String>,
    },
    /// A page of the log was recorded.
    Page {
        /// Events that were new.
        new_events: u64,
    },
    /// A piece of Auth0's event stream was processed.
    Watched {
        /// Events about accounts.
        events: u64,
        /// Users that they made due.
        made_due: u64,
    },
    /// A connection to the event stream was opened, or ended.
    Stream {
        /// It is open.
        is_open: bool,
    },
    /// The looks at due users begin.
    Due {
        /// How many users are due so far.
        about: u64,
    },
    /// A look ended.
    Look(sync_user::Report),
    /// A reconcile finished a page of users.
    ReconcilePage {
        /// Users listed.
        listed: u64,
        /// Users queued for a look.
        made_due: u64,
    },
}

/// What wakes the loops.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    pub(crate) poll: Notify,
    pub(crate) apply: Notify,
    pub(crate) reconcile: Notify,
    pub(crate) directory: Notify,
    pub(crate) beat: Notify,
}

/// Both remotes, the store and the rules, wired together.
#[derive(Debug)]
pub struct Engine {
    pub(crate) okta: Okta,
    pub(crate) auth0: Auth0,
    pub(crate) store: Arc<Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: Options,
    pub(crate) okta_breaker: CircuitBreaker,
    pub(crate) auth0_breaker: CircuitBreaker,
    pub(crate) wakes: Wakes,
    pub(crate) claims: Arc<Claims>,
    /// For live looks, and for reconcile looks: neither waits for the other's calls.
    pub(crate) searches: [SearchCaches; 2],
    /// Users that a look read a moment ago.
    pub(crate) recent_users: RecentUsers,
    polling: poller::Polling,
    pub(crate) heartbeats: Arc<Heartbeats>,
    pub(crate) watch: health_watch::HealthWatch,
    /// It works on a copy of the state: no alarm is raised, whatever the copy says.
    pub(crate) is_dry_run: bool,
    pub(crate) metrics: metrics::Metrics,
    /// Where to send alarms and heartbeats.
    pub(crate) alert: Option<Alert>,
    policy_text: String,
    notes: std::sync::Mutex<Option<mpsc::UnboundedSender<Note>>>,
}

impl Engine {
    /// Wires the parts together. The pacers are those that the clients report to.
    pub fn new(
        okta: (Okta, Pacer),
        auth0: (Auth0, Pacer),
        store: Arc<Store>,
        clock: Arc<dyn Clock>,
        options: Options,
    ) -> Self {
        let heartbeats = Arc::new(Heartbeats::new(clock.as_ref()));
        Self {
            okta_breaker: CircuitBreaker::new(Remote::Okta, okta.1, store.clone(), clock.clone(), heartbeats.clone()),
            auth0_breaker: CircuitBreaker::new(
                Remote::Auth0,
                auth0.1,
                store.clone(),
                clock.clone(),
                heartbeats.clone(),
            ),
            okta: okta.0,
            auth0: auth0.0,
            wakes: Wakes::default(),
            claims: Arc::default(),
            searches: Default::default(),
            recent_users: RecentUsers::default(),
            polling: poller::Polling::default(),
            heartbeats,
            watch: health_watch::HealthWatch::default(),
            is_dry_run: false,
            metrics: metrics::Metrics::default(),
            policy_text: options.rules.policy.fingerprint(),
            alert: None,
            notes: std::sync::Mutex::default(),
            store,
            clock,
            options,
        }
    }

    /// Sends progress reports to `notes`.
    #[must_use]
    pub fn with_notes(self, notes: mpsc::UnboundedSender<Note>) -> Self {
        *self.lock_notes() = Some(notes);
        self
    }

    /// Works on a copy of the state that is thrown away.
    #[must_use]
    pub fn for_dry_run(self) -> Self {
        Self { is_dry_run: true, ..self }
    }

    /// Sends alarms and heartbeats to `alert`.
    #[must_use]
    pub fn with_alert(self, alert: Alert) -> Self {
        Self { alert: Some(alert), ..self }
    }

    /// Drops the sender, so that receivers see the end of the stream.
    pub fn close_notes(&self) {
        *self.lock_notes() = None;
    }

    fn lock_notes(&self) -> std::sync::MutexGuard<'_, Option<mpsc::UnboundedSender<Note>>> {
        self.notes.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Queues the work that configuration changes since the last run require.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn apply_config_changes(&self, opened: &Opened) -> Result<(), StoreError> {
        if opened.enforcement_switched_on {
            let due = self.store.enforcement_switched_on(self.now()).await?;
            info!(
                event = "enforcement_on",
                due, "enforcement enabled; re-queued users that were skipped while it was off"
            );
        }
        if opened.policy_changed {
            info!(event = "policy_changed", "deny policy changed; starting a full reconcile");
            self.request_reconcile_all("the policy changed").await?;
        }
        if !self.options.rules.end_sessions {
            // No look ends sessions now, so no look would clear the alarm.
            self.store.clear_alarm(AlarmKind::SessionsUnavailable, "", self.now()).await?;
        }
        if !self.options.directory {
            self.end_listing_alarms().await?;
        }
        Ok(())
    }

    /// The state it works on.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The circuit breaker of a remote.
    pub fn breaker(&self, remote: Remote) -> &CircuitBreaker {
        match remote {
            Remote::Okta => &self.okta_breaker,
            Remote::Auth0 => &self.auth0_breaker,
        }
    }

    /// The engine's clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// How far this machine's clock is from a remote's, by the `Date` of its last response. `None`: no response yet.
    pub fn clock_deviation(&self, remote: Remote) -> Option<Deviation> {
        match remote {
            Remote::Okta => self.okta.clock_deviation(),
            Remote::Auth0 => self.auth0.clock_deviation(),
        }
    }

    /// The counters since the start of the process.
    pub fn metrics(&self) -> &metrics::Metrics {
        &self.metrics
    }

    /// The heartbeats of the loops.
    pub fn heartbeats(&self) -> &Heartbeats {
        &self.heartbeats
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Sends a progress report. A missing receiver is not an error: reports are for screens.
    pub fn note(&self, note: Note) {
        if let Some(notes) = self.lock_notes().as_ref() {
            let _ = notes.send(note);
        }
    }
}

//! The work: poll the log, look at who is due, compare who nobody told of; and the waking and supervising of all three.
//!
//! Four ideas carry everything here:
//!
//! 1. **A page of the log and its cursor are one transaction** ([`poller`]). The checkpoint never waits for Auth0 and never
//!    passes an event that is not on disk.
//! 2. **An event is a ping, not a command.** Log order is not causal order, so no event is obeyed. It makes a user due; a
//!    [look](sync_user) reads that user in Okta now, decides, and makes Auth0 agree. A deactivation, a reactivation, a deletion, a
//!    sweep after an outage and "this one person, now" are the same code.
//! 3. **Auth0 is made to agree, not told to change.** A look reads the accounts, computes the difference as a pure
//!    function, and writes only if there is one. Looking again writes nothing.
//! 4. **Clients classify, the engine decides** ([`breaker`]). Whether to wait, to try again, to hold or to raise an alarm is
//!    decided here, and what is to be tried again stands in the store, not in memory.
//!
//! Activations take no input: a tick, a page with something new and a restart all only wake a loop, which then finds out
//! from the store what there is to do. So "we were told" and "we woke up anyway" are one path, and a lost wake-up costs a
//! second, never a person.

mod action_watch;
mod alarms;
pub mod applier;
pub mod breaker;
pub mod calls;
mod claims;
pub mod deploy;
pub mod error;
pub mod heartbeat;
pub mod inspect;
pub mod metrics;
mod notifier;
pub mod pass;
pub mod poller;
pub mod purge;
pub mod reconciler;
#[cfg(test)]
mod stage;
pub mod supervisor;
pub mod sync_user;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tracing::info;

use crate::alert::Alert;
use crate::auth0::Auth0;
use crate::domain::{Clock, Rules, Timestamp};
use crate::http::Remote;
use crate::http::pacing::Pacer;
use crate::okta::Okta;
use crate::store::{AlarmKind, GuardWindow, Opened, Store, StoreError};

use breaker::CircuitBreaker;
use claims::Claims;
pub use error::{CallError, Fatal, PassError};
use heartbeat::Heartbeats;
use sync_user::batch::SearchCaches;

/// How the work is done: the part of the configuration that the engine needs.
#[derive(Clone, Debug)]
pub struct Options {
    /// What a decision depends on.
    pub rules: Rules,
    /// The code that the Action should have.
    pub action_code: String,
    /// Also use the case-insensitive search.
    pub search: bool,
    /// Write to Auth0 at all.
    pub enforce: bool,
    /// Looks at the same time.
    pub concurrency: usize,
    /// Attempts until a user counts as failed.
    pub max_attempts: u32,
    /// How many first denials are let through in a window.
    pub guard: GuardWindow,
    /// How far back the log is read at the first start.
    pub initial_lookback: Duration,
    /// How long what is over is kept.
    pub retention: Duration,
    /// Origin of the org: part of what a stored cursor belongs to.
    pub okta_url: String,
}

/// What the engine says of itself while it works, for whoever shows progress.
#[derive(Clone, Debug)]
pub enum Note {
    /// A pass through the log came to its end, or did not.
    Pass {
        /// What kept it from its end.
        error: Option<String>,
    },
    /// A page of the log was recorded.
    Page {
        /// Entries that were new.
        new_events: u64,
    },
    /// Whoever is due is looked at from here on.
    Due {
        /// How many there are as yet.
        about: u64,
    },
    /// A look ended.
    Look(sync_user::Report),
    /// A reconcile has gone through a page of users.
    Swept {
        /// Users seen in it.
        listed: u64,
        /// Users made due by it.
        made_due: u64,
    },
}

/// What wakes the loops.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    pub(crate) poll: Notify,
    pub(crate) apply: Notify,
    pub(crate) reconcile: Notify,
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
    /// For live looks, and for sweeps: neither waits for the other's calls.
    pub(crate) searches: [SearchCaches; 2],
    /// Once in a process: the org that answers is the one that the state belongs to.
    pub(crate) org_bound: tokio::sync::OnceCell<()>,
    /// Has this process told of a next link to another host?
    pub(crate) foreign_next: std::sync::atomic::AtomicBool,
    pub(crate) heartbeats: Arc<Heartbeats>,
    pub(crate) metrics: metrics::Metrics,
    /// Whom to tell of alarms.
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
            org_bound: tokio::sync::OnceCell::new(),
            // An earlier life may have told of it.
            foreign_next: std::sync::atomic::AtomicBool::new(true),
            heartbeats,
            metrics: metrics::Metrics::default(),
            policy_text: options.rules.policy.fingerprint(),
            alert: None,
            notes: std::sync::Mutex::default(),
            store,
            clock,
            options,
        }
    }

    /// Also tells `notes` what happens.
    #[must_use]
    pub fn with_notes(self, notes: mpsc::UnboundedSender<Note>) -> Self {
        *self.lock_notes() = Some(notes);
        self
    }

    /// Also tells these addresses of alarms and of good passes.
    #[must_use]
    pub fn with_alert(self, alert: Alert) -> Self {
        Self { alert: Some(alert), ..self }
    }

    /// Tells nobody any more: whoever listened has logs everything.
    pub fn close_notes(&self) {
        *self.lock_notes() = None;
    }

    fn lock_notes(&self) -> std::sync::MutexGuard<'_, Option<mpsc::UnboundedSender<Note>>> {
        self.notes.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Takes up what changed since the last run: enforcement that was switched on, another policy.
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
            // Nobody asks for it any more, so no look would find out that it is over.
            self.store.clear_alarm(AlarmKind::SessionsUnavailable, "", self.now()).await?;
        }
        Ok(())
    }

    /// The state it works on.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The breaker of a remote: its pauses, its counts.
    pub fn breaker(&self, remote: Remote) -> &CircuitBreaker {
        match remote {
            Remote::Okta => &self.okta_breaker,
            Remote::Auth0 => &self.auth0_breaker,
        }
    }

    /// The clock that it works by.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// What it has counted since it started.
    pub fn metrics(&self) -> &metrics::Metrics {
        &self.metrics
    }

    /// The heartbeats of its loops.
    pub fn heartbeats(&self) -> &Heartbeats {
        &self.heartbeats
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Tells whoever listens. Nobody listening is no error: notes are for screens.
    pub fn note(&self, note: Note) {
        if let Some(notes) = self.lock_notes().as_ref() {
            let _ = notes.send(note);
        }
    }
}

//! Evaluates the obligations, raises the alarms of those that are missed, and ends them when they are met again.
//!
//! It runs as a separate task and measures by the monotonic clock: a waiting loop cannot keep it from running, and a
//! step of the wall clock neither hides a missed deadline nor makes one up.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::Engine;
use crate::domain::{Timestamp, clock};
use crate::health::{ALARMS, Deadlines, Health, Obligation, STUCK_AFTER, Stopwatches};
use crate::http::Remote;
use crate::store::{Alarm, AlarmKind, AlarmRow, Evaluation, StoreError};

/// How often the waiting loop stamps its heartbeat.
const STAMP_EVERY: Duration = Duration::from_secs(1);
/// The time between two evaluations.
const EVERY: Duration = Duration::from_secs(10);
/// The same until everything is known, so that a new daemon reports soon.
const EVERY_AT_FIRST: Duration = Duration::from_secs(1);
/// An older response says nothing about the clock now: it may have been set since.
const DEVIATION_AGE_MAX: Duration = Duration::from_secs(600);
/// A rate limit that has lasted for this long is an alarm, so that it is raised within five minutes.
const LIMIT_LASTS: Duration = Duration::from_secs(240);
/// The obligation that the file, its write-ahead log and failed writes concern.
const STATE: &str = "state";
const DAEMON: &str = "daemon";

/// What the evaluation remembers.
#[derive(Debug, Default)]
pub(crate) struct HealthWatch(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    watches: Stopwatches,
    /// Why the last evaluation could not be stored.
    write_error: Option<String>,
    /// A reader held the write-ahead log above its bound at the last evaluation.
    wal_held: bool,
    /// The file at the path was another one at the last evaluation.
    displaced: bool,
}

impl HealthWatch {
    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Evaluates until cancelled.
    pub(super) async fn health_loop(&self, deadlines: &Deadlines, stop: &CancellationToken) {
        if let Err(error) = self.store.retry_refused().await {
            warn!(event = "store_failed", %error, "failed to queue refused notifications again");
        }
        loop {
            self.heartbeats.health.stamp(self.clock.as_ref());
            let is_known = self.check_health(deadlines).await;
            let wait = if is_known { EVERY } else { EVERY_AT_FIRST };
            let next = self.clock.monotonic().saturating_add(wait);
            while self.clock.monotonic() < next {
                self.heartbeats.health.stamp(self.clock.as_ref());
                let left = next.saturating_sub(self.clock.monotonic());
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.clock.sleep(left.min(STAMP_EVERY)) => {}
                }
            }
        }
    }

    /// Evaluates once. Returns whether every obligation is known to be met or missed.
    pub async fn check_health(&self, deadlines: &Deadlines) -> bool {
        match self.evaluate(deadlines).await {
            Ok(obligations) => {
                if self.watch.lock().write_error.take().is_some() {
                    info!(event = "state_writable", "the state can be written again");
                }
                obligations.iter().all(|one| one.met.is_some())
            }
            Err(failure) => {
                let first = self.watch.lock().write_error.replace(failure.to_string()).is_none();
                if first {
                    error!(event = "state_failed", "failed to store a health evaluation: {failure}; retrying");
                }
                false
            }
        }
    }

    async fn evaluate(&self, deadlines: &Deadlines) -> Result<Vec<Obligation>, StoreError> {
        let now = self.now();
        let mut found = Evaluation {
            stuck: self.stuck_loop(),
            clock: self.clock_ahead(now),
            wal_bytes: self.held_wal().await?,
            webhook: self.alert.as_ref().is_some_and(crate::alert::Alert::has_webhook),
            deadlines: Vec::new(),
        };
        self.store.note_evaluation(&found, now).await?;
        let mut facts = self.store.obligation_facts().await?;
        let mut before = Vec::with_capacity(facts.len());
        for fact in &mut facts {
            before.push((fact.name.clone(), fact.deadline_s, fact.late_since.clone()));
            fact.deadline_s = deadlines.of(fact, now);
        }
        let timed: Vec<bool> = facts.iter().map(|fact| fact.judged == "timed").collect();
        let mut judged = self.watch.lock().watches.judge_all(facts, now, self.clock.monotonic());
        let late = |one: &Obligation, timed: bool| if timed && !one.is_met() { one.since.clone() } else { None };
        found.deadlines =
            judged.iter().zip(timed).map(|(one, timed)| (one.name.clone(), one.deadline_s, late(one, timed))).collect();
        if found.deadlines != before {
            self.store.note_evaluation(&found, now).await?;
        }
        self.judge_file(&mut judged);
        self.update_alarms(&judged, now).await?;
        self.update_limits(now).await?;
        self.check_directory_age().await?;
        self.update_key_change().await?;
        Ok(judged)
    }

    /// The health of the installation now, judged by the monotonic clock.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn health(&self) -> Result<Health, StoreError> {
        let facts = self.store.obligation_facts().await?;
        let mut judged = self.watch.lock().watches.judge_all(facts, self.now(), self.clock.monotonic());
        let write_error = self.watch.lock().write_error.clone();
        if let Some(error) = write_error {
            for one in &mut judged {
                match one.name.as_str() {
                    STATE => {
                        one.met = Some(false);
                        one.detail = format!("the state cannot be written: {error}");
                    }
                    // Its sign of life is a write; this process is alive.
                    DAEMON if self.stuck_loop().is_none() => one.met = Some(true),
                    _ => {}
                }
            }
        }
        self.judge_file(&mut judged);
        Health::with(&self.store, judged, self.options.guard, self.now()).await
    }

    /// The state itself does not say whether it is still the file at its path.
    fn judge_file(&self, judged: &mut [Obligation]) {
        let displaced = self.store.displacement();
        if std::mem::replace(&mut self.watch.lock().displaced, displaced.is_some()) != displaced.is_some() {
            match displaced {
                Some(what) => error!(event = "state_displaced", "{what}; restore it, then restart the daemon"),
                None => info!(event = "state_in_place", "the file of the state is at its path again"),
            }
        }
        if let (Some(what), Some(state)) = (displaced, judged.iter_mut().find(|one| one.name == STATE)) {
            state.met = Some(false);
            state.detail = format!("{what}: nothing that it writes now is kept at {}", self.store.path().display());
            "stop the daemon, put the file back (or a backup of it, `okta-auth0-sync backup`), and start the daemon"
                .clone_into(&mut state.remedy);
        }
    }

    /// Raises an alarm for each kind of call that a remote has limited for minutes, and ends those that are over.
    async fn update_limits(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut lasting = Vec::new();
        for remote in [Remote::Okta, Remote::Auth0] {
            for limit in self.breaker(remote).lasting_limits(LIMIT_LASTS).await? {
                let alarm = Alarm::limited(remote, &limit, self.store.denials_waiting().await?);
                if self.store.raise_alarm(&alarm, now).await? {
                    self.log_raised(alarm.kind, &alarm.subject);
                }
                lasting.push(limit.bucket.as_str());
            }
        }
        for open in self.store.open_alarms().await? {
            let is_limit = open.kind == AlarmKind::RemoteDown.as_str() && !is_remote(&open.subject);
            if is_limit && !lasting.contains(&open.subject.as_str()) {
                self.store.clear_alarm(AlarmKind::RemoteDown, &open.subject, now).await?;
            }
        }
        Ok(())
    }

    fn stuck_loop(&self) -> Option<String> {
        let (name, age) = self.heartbeats.slowest(self.clock.as_ref());
        // In minutes: the sentence is stored, and must not change at each evaluation.
        (age >= STUCK_AFTER).then(|| format!("the {name} has made no progress for {} min", age.as_secs() / 60))
    }

    /// How far this machine's clock is ahead of the tenants', by a recent response of the tenant that it differs more from.
    fn clock_ahead(&self, now: Timestamp) -> Option<(f64, Timestamp)> {
        let monotonic = self.clock.monotonic();
        let recent = [Remote::Okta, Remote::Auth0].into_iter().filter_map(|remote| {
            let deviation = self.clock_deviation(remote)?;
            let age = monotonic.saturating_sub(deviation.measured_at);
            (age <= DEVIATION_AGE_MAX).then(|| (deviation.ahead.as_secs_f64(), clock::sub(now, age)))
        });
        recent.max_by(|(one, _), (other, _)| one.abs().total_cmp(&other.abs()))
    }

    /// The size of a write-ahead log that a reader keeps from being emptied: seen twice, because every command reads for a
    /// moment.
    async fn held_wal(&self) -> Result<Option<u64>, StoreError> {
        let size = self.store.held_wal_bytes().await?;
        let before = std::mem::replace(&mut self.watch.lock().wal_held, size.is_some());
        Ok(size.filter(|_| before))
    }

    async fn update_alarms(&self, judged: &[Obligation], now: Timestamp) -> Result<(), StoreError> {
        let open = self.store.open_alarms().await?;
        for one in judged {
            let Some(kind) = alarm_kind(one) else { continue };
            let is_open = open.iter().find(|alarm| alarm.kind == kind.as_str() && alarm.subject.is_empty());
            match one.met {
                Some(true) => self.end_alarm(kind, is_open, now).await?,
                Some(false) => self.raise_missed(kind, one, is_open, now).await?,
                // An obligation that stays unknown beyond its deadline is as bad as a missed one. Before that, there is
                // nothing to report.
                None if is_overdue(one) => self.raise_missed(kind, one, is_open, now).await?,
                None => {}
            }
        }
        Ok(())
    }

    async fn raise_missed(
        &self,
        kind: AlarmKind,
        one: &Obligation,
        open: Option<&AlarmRow>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if open.is_some_and(|alarm| alarm.detail == one.detail) {
            return Ok(());
        }
        if self.store.raise_alarm(&Alarm::obligation(kind, one), now).await? {
            self.log_raised(kind, "");
        }
        Ok(())
    }

    async fn end_alarm(&self, kind: AlarmKind, open: Option<&AlarmRow>, now: Timestamp) -> Result<(), StoreError> {
        if open.is_some() && self.store.clear_alarm(kind, "", now).await? {
            info!(event = "alarm_over", kind = kind.as_str(), "alarm cleared");
        }
        Ok(())
    }
}

/// The subject of an alarm about a whole remote, and not about a kind of its calls.
fn is_remote(subject: &str) -> bool {
    matches!(subject, "okta" | "auth0")
}

/// The alarm that this evaluation raises and ends. The check of the Action itself reports what it sees.
fn alarm_kind(one: &Obligation) -> Option<AlarmKind> {
    match one.name.as_str() {
        "action" if one.met == Some(false) => None,
        "action" => Some(AlarmKind::ActionUnknown),
        name => ALARMS.iter().find(|(known, ..)| *known == name).and_then(|(.., kind)| *kind),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a deadline has at most days")]
fn is_overdue(one: &Obligation) -> bool {
    match (one.age_s, one.deadline_s) {
        (Some(age), Some(deadline)) => age > deadline as f64,
        _ => false,
    }
}

#[cfg(test)]
mod tests;

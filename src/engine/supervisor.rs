//! Runs the daemon's tasks and the schedule that wakes them. If one task exits unexpectedly, all stop.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio_cron_scheduler::{Job, JobScheduler};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::applier::Until;
use super::error::PassError;
use super::ticks::{Ticks, WakingTicks};
use super::{Engine, Fatal, Note};
use crate::domain::backoff::RECONCILES;
use crate::domain::{clock, decide};
use crate::failpoint;
use crate::health::Deadlines;

/// How often a waiting loop stamps its heartbeat. Between two stamps lies at most one call, which its timeouts bound: 45 s
/// for a page of the log, plus 20 s for each step to a token.
const STAMP_EVERY: Duration = Duration::from_secs(1);
/// How often rows older than the retention are removed.
const TIDY_EVERY: Duration = Duration::from_secs(3600);
/// How soon a missing reconcile that was incomplete is begun again.
const MISSING_AGAIN: Duration = Duration::from_secs(3600);
/// Keeps installations with the same schedule from polling in the same instant.
const JITTER_MAX_MS: u64 = 1000;

/// The schedules: six-field cron, UTC.
#[derive(Clone, Debug)]
pub struct Schedules {
    /// Polls of the System Log.
    pub poll: String,
    /// Reconciles.
    pub reconcile: String,
    /// The shortest time between two of them.
    pub reconcile_period: Duration,
}

impl Schedules {
    fn deadlines(&self) -> Result<Deadlines, Fatal> {
        Ok(Deadlines::new(self.poll.parse().map_err(refused)?, self.reconcile.parse().map_err(refused)?))
    }
}

impl Engine {
    /// Polls, applies and reconciles until cancelled, then finishes the running looks.
    ///
    /// # Errors
    /// When a task exited unexpectedly, or the state cannot be used at all.
    pub async fn run(self: &Arc<Self>, schedules: &Schedules, stop: CancellationToken) -> Result<(), Fatal> {
        let deadlines = schedules.deadlines()?;
        let ticks = self.ticks(schedules)?;
        let mut scheduler = self.schedule(&ticks).await?;
        let mut loops: JoinSet<(&'static str, Result<(), Fatal>)> = JoinSet::new();
        let (engine, token) = (self.clone(), stop.clone());
        loops.spawn(async move {
            engine.tick_loop(&ticks, &token).await;
            ("schedule", Ok(()))
        });
        let (engine, token) = (self.clone(), stop.clone());
        loops.spawn(async move { ("poller", engine.poll_loop(&token).await) });
        let (engine, token) = (self.clone(), stop.clone());
        loops.spawn(async move {
            ("applier", engine.apply(Until::Stopped, &token).await.map(|_| ()).map_err(Fatal::Store))
        });
        let (engine, token) = (self.clone(), stop.clone());
        let period = schedules.reconcile_period;
        loops.spawn(async move { ("reconciler", engine.reconcile_loop(period, &token).await) });

        let (engine, token) = (self.clone(), stop.clone());
        loops.spawn(async move { ("watcher", engine.watch_loop(&token).await) });

        let (engine, token) = (self.clone(), stop.clone());
        loops.spawn(async move { ("directory", engine.directory_loop(&token).await) });

        let (engine, token) = (self.clone(), stop.clone());
        loops.spawn(async move {
            engine.health_loop(&deadlines, &token).await;
            ("health check", Ok(()))
        });

        let (engine, token) = (self.clone(), stop.clone());
        loops.spawn(async move {
            engine.notify_loop(&token).await;
            ("notifier", Ok(()))
        });

        let (engine, token) = (self.clone(), stop.clone());
        loops.spawn(async move {
            engine.action_watch_loop(&token).await;
            ("Action watch", Ok(()))
        });

        let mut first_error = None;
        while let Some(ended) = loops.join_next().await {
            let Some(error) = task_exit_error(ended, stop.is_cancelled()) else { continue };
            // One cause can end several tasks.
            if first_error.is_none() {
                error!(event = "ended", %error, "a task exited unexpectedly; shutting down");
                first_error = Some(error);
            }
            stop.cancel();
        }
        if let Err(error) = scheduler.shutdown().await {
            warn!(%error, "the scheduler did not stop cleanly");
        }
        if let Err(error) = self.store.note_stopped(self.clock.now()).await {
            warn!(%error, "failed to record the end of the daemon");
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Starts the schedule. A tick only wakes a loop: work inside a job could overlap with itself, would be cut off at
    /// shutdown, and would lose its panics.
    async fn schedule(self: &Arc<Self>, jobs: &[WakingTicks]) -> Result<JobScheduler, Fatal> {
        let scheduler = JobScheduler::new().await.map_err(refused)?;
        for (ticks, wake) in jobs {
            let (engine, ticks, wake) = (self.clone(), ticks.clone(), *wake);
            let pattern = ticks.pattern().to_owned();
            let job = Job::new(pattern.as_str(), move |_, _| {
                ticks.record(engine.clock.as_ref());
                wake(&engine);
            });
            scheduler.add(job.map_err(refused)?).await.map_err(refused)?;
        }
        scheduler.start().await.map_err(refused)?;
        Ok(scheduler)
    }

    /// The schedules with the loop that each one wakes.
    fn ticks(&self, schedules: &Schedules) -> Result<[WakingTicks; 2], Fatal> {
        let clock = self.clock.as_ref();
        let poll = Ticks::new("poll", &schedules.poll, clock)?;
        let reconcile = Ticks::new("reconcile", &schedules.reconcile, clock)?;
        Ok([
            (Arc::new(poll), |engine| engine.wakes.poll.notify_one()),
            (Arc::new(reconcile), |engine| {
                engine.wakes.reconcile.notify_one();
                engine.wakes.directory.notify_one();
            }),
        ])
    }

    /// Polls at once, at each tick, and when an open circuit allows a probe.
    async fn poll_loop(&self, stop: &CancellationToken) -> Result<(), Fatal> {
        let jitter = Duration::from_millis(fastrand::u64(0..=JITTER_MAX_MS));
        let mut failing = false;
        loop {
            self.heartbeats.poller.stamp(self.clock.as_ref());
            failpoint::hang("poller").await;
            let mut again = None;
            let result = self.poll(stop).await;
            self.note(Note::Pass { error: result.as_ref().err().map(ToString::to_string) });
            match result {
                Ok(pass) => {
                    if pass.pages > 0 {
                        self.wakes.beat.notify_one();
                    }
                    if failing {
                        failing = false;
                        info!(event = "poll_back", "polling the System Log works again");
                    }
                    if pass.more {
                        continue;
                    }
                }
                Err(PassError::Store(error)) if error.is_configuration() => return Err(error.into()),
                Err(error) => {
                    if let PassError::Paused { wait, .. } = &error {
                        again = Some(*wait);
                    }
                    if !failing {
                        failing = true;
                        warn!(event = "poll_failed", "failed to poll the System Log: {error}; retrying");
                    }
                }
            }
            if !self.wait_for_tick(again, jitter, stop).await {
                return Ok(());
            }
        }
    }

    /// Waits for the next tick or for the time `again`. `false`: cancelled.
    async fn wait_for_tick(&self, again: Option<Duration>, jitter: Duration, stop: &CancellationToken) -> bool {
        let until = again.map(|wait| self.clock.monotonic().saturating_add(wait));
        loop {
            self.heartbeats.poller.stamp(self.clock.as_ref());
            let left = until.map(|until| until.saturating_sub(self.clock.monotonic()));
            if left.is_some_and(|left| left.is_zero()) {
                return true;
            }
            tokio::select! {
                () = stop.cancelled() => return false,
                () = self.wakes.poll.notified() => {
                    tokio::select! {
                        () = stop.cancelled() => return false,
                        () = self.clock.sleep(jitter) => return true,
                    }
                }
                () = self.clock.sleep(left.map_or(STAMP_EVERY, |left| left.min(STAMP_EVERY))) => {}
            }
        }
    }

    /// Reconciles at each tick, after a first start, and after an event was dismissed unread; catches up at the start if ticks
    /// were missed, resumes a reconcile that a restart interrupted, and removes old rows, whatever the reconcile does.
    async fn reconcile_loop(self: &Arc<Self>, period: Duration, stop: &CancellationToken) -> Result<(), Fatal> {
        let mut under_way = self.store.current_reconcile().await?.is_some();
        if !under_way && decide::is_reconcile_overdue(self.store.last_reconcile_or_start().await?, period, self.now()) {
            self.begin_nightly().await?;
            under_way = true;
        }
        let (mut failures, mut retry_at, mut tidy_at) = (0_u32, Duration::ZERO, Duration::ZERO);
        let (mut tried, mut forget_at) = (None, Duration::ZERO);
        loop {
            self.heartbeats.reconciler.stamp(self.clock.as_ref());
            failpoint::hang("reconciler").await;
            if self.clock.monotonic() >= tidy_at {
                self.tidy(stop).await;
                tidy_at = self.clock.monotonic().saturating_add(TIDY_EVERY);
            }
            if self.clock.monotonic() >= forget_at {
                tried = None;
            }
            if !under_way && let Some(begun) = self.begin_missing(tried.as_ref()).await? {
                // One that skips something does not count, and is not begun again at once.
                (tried, forget_at) = (Some(begun), self.clock.monotonic().saturating_add(MISSING_AGAIN));
                under_way = true;
            }
            if under_way && self.clock.monotonic() >= retry_at {
                match self.reconcile_noting(failures == 0, stop).await {
                    Ok(progress) => {
                        if failures > 0 {
                            info!(event = "reconcile_resumed", failures, "the reconcile continues");
                        }
                        failures = 0;
                        under_way = !progress.done;
                    }
                    Err(error) => {
                        failures = failures.saturating_add(1);
                        retry_at = self.clock.monotonic().saturating_add(RECONCILES.wait(failures, fastrand::f64()));
                        if failures == 1 {
                            warn!(event = "reconcile_failed", "reconcile interrupted: {error}; resuming with backoff");
                        }
                    }
                }
                if stop.is_cancelled() {
                    return Ok(());
                }
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.wakes.reconcile.notified() => {
                    if self.store.current_reconcile().await?.is_none() {
                        self.begin_nightly().await?;
                    }
                    under_way = true;
                }
                () = self.clock.sleep(STAMP_EVERY) => {}
            }
        }
    }

    /// Removes rows older than the retention, in small steps.
    async fn tidy(&self, stop: &CancellationToken) {
        let before = clock::sub(self.clock.now(), self.options.retention);
        while !stop.is_cancelled() {
            self.heartbeats.reconciler.stamp(self.clock.as_ref());
            match self.store.expire(before, 5000, self.clock.now()).await {
                Ok(0) => return,
                Ok(rows) => info!(event = "expired", rows, "removed rows older than the retention"),
                Err(error) => {
                    warn!(%error, "failed to remove rows older than the retention");
                    return;
                }
            }
        }
    }
}

/// Returns the error if the task exited without being asked to.
pub(crate) fn task_exit_error(
    ended: Result<(&'static str, Result<(), Fatal>), JoinError>,
    asked: bool,
) -> Option<Fatal> {
    match ended {
        Ok((_, Ok(()))) if asked => None,
        Ok((name, Ok(()))) => Some(Fatal::Ended(name, "no shutdown was requested".to_owned())),
        Ok((_, Err(error))) => Some(error),
        Err(panicked) => Some(Fatal::Ended("work", panicked.to_string())),
    }
}

fn refused(error: impl fmt::Display) -> Fatal {
    Fatal::Schedule(format!("was refused: {error}"))
}

#[cfg(test)]
mod tests;

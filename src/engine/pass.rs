//! One whole pass, for the commands `sync` and `reconcile`: reads to the end, then processes all due users.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::applier::{Applied, Until};
use super::poller::Pass;
use super::reconciler::ReconcileProgress;
use super::{Engine, Note, PassError};
use crate::store::{RunCounts, RunKind, StoreError};

/// How long a pass waits for a user whose next attempt is near, and for a remote whose calls are paused.
const PATIENCE: Duration = Duration::from_secs(15);
/// This many pauses in a row end the reading; the next reconcile resumes where it stopped.
const PAUSES_MAX: u32 = 4;

/// What a pass did.
#[derive(Debug, Default)]
pub struct Done {
    /// What the polls read.
    pub polled: Pass,
    /// What a reconcile listed; `None` for `sync`.
    pub reconcile: Option<ReconcileProgress>,
    /// The looks.
    pub applied: Applied,
    /// Why the log, or a listing, could not be read to its end.
    pub error: Option<String>,
    /// The operator stopped it.
    pub stopped: bool,
}

/// Polls to the end of the log, then processes all users who are due.
///
/// # Errors
/// When the state fails. [`Done`] has the failure of a remote.
pub async fn pass(engine: &Arc<Engine>, stop: &CancellationToken) -> Result<Done, StoreError> {
    let started = engine.clock().now();
    let run = engine.store().begin_run(RunKind::Sync, started).await?;
    let mut done = Done::default();
    while let Some(pass) = read(engine, stop, &mut done, || engine.poll(stop)).await? {
        done.add(pass);
        if !pass.more {
            break;
        }
    }
    done.applied = apply(engine, stop).await?;
    done.stopped = stop.is_cancelled();
    let counts = RunCounts {
        pages: done.polled.pages,
        events: done.polled.events,
        looks: done.applied.looks,
        writes: done.applied.writes,
    };
    engine.store().finish_run(run, counts, done.error.as_deref(), engine.clock().now()).await?;
    Ok(done)
}

/// Runs `step`, and again after each short pause of a remote. `None`: it failed, with the error in `done`, or the operator
/// stopped it.
///
/// # Errors
/// When the state fails.
async fn read<T, F>(
    engine: &Engine,
    stop: &CancellationToken,
    done: &mut Done,
    step: impl Fn() -> F,
) -> Result<Option<T>, StoreError>
where
    F: Future<Output = Result<T, PassError>>,
{
    let mut pauses = 0;
    while !stop.is_cancelled() {
        match step().await {
            Ok(read) => return Ok(Some(read)),
            Err(PassError::Store(error)) => return Err(error),
            Err(PassError::Paused { wait, .. }) if wait <= PATIENCE && pauses < PAUSES_MAX => {
                pauses += 1;
                tokio::select! {
                    () = engine.clock().sleep(wait) => {}
                    () = stop.cancelled() => {}
                }
            }
            Err(error) => {
                done.error = Some(error.to_string());
                break;
            }
        }
    }
    Ok(None)
}

impl Done {
    fn add(&mut self, pass: Pass) {
        self.polled.pages += pass.pages;
        self.polled.events += pass.events;
        self.polled.made_due += pass.made_due;
    }
}

/// Announces the number of due users, then processes them.
///
/// # Errors
/// When the state fails.
async fn apply(engine: &Arc<Engine>, stop: &CancellationToken) -> Result<Applied, StoreError> {
    let status = engine.store().status().await?;
    engine.note(Note::Due { about: status.map_or(0, |status| status.pending.unsigned_abs()) });
    engine.apply(Until::Idle(PATIENCE), stop).await
}

/// Lists the directory, if configured, and finishes the reconcile that is under way, then processes all users who are due.
///
/// # Errors
/// When the state fails. [`Done`] has the failure of a remote.
pub async fn reconcile(engine: &Arc<Engine>, stop: &CancellationToken) -> Result<Done, StoreError> {
    let mut done = Done::default();
    if engine.options.directory {
        read(engine, stop, &mut done, || engine.list_directory(stop)).await?;
    }
    let reconcile = read(engine, stop, &mut done, || engine.reconcile(stop)).await?;
    done.reconcile = Some(reconcile.unwrap_or_default());
    done.applied = apply(engine, stop).await?;
    done.stopped = stop.is_cancelled();
    Ok(done)
}

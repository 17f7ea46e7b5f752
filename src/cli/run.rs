//! `run`: the daemon.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Error, Exit, signals, wiring};
use crate::config::Config;
use crate::domain::{Clock, Timestamp};
use crate::engine::supervisor::{Schedules, task_exit_error};
use crate::engine::{Engine, Fatal, Note};
use crate::health::{Health, Level};
use crate::store::{RunCounts, RunKind};
use crate::systemd;

/// Runs until stopped by a signal.
///
/// # Errors
/// If it cannot start, or a task exits unexpectedly.
pub(crate) async fn run(config: Config, clock: Arc<dyn Clock>) -> Result<Exit, Error> {
    signals::ignore_hangup()?;
    let (notes, mut heard) = mpsc::unbounded_channel();
    let alert = wiring::alert(&config)?;
    let engine = wiring::engine(&config, &clock).await?.with_notes(notes);
    let engine = Arc::new(match alert {
        Some(alert) => engine.with_alert(alert),
        None => engine,
    });
    let monitor = match &config.http.listen {
        Some(listen) => Some(wiring::monitor(listen).await?),
        None => None,
    };
    let stop = stop_on_signal()?;
    let life = engine.store().begin_run(RunKind::Run, clock.now()).await?;
    info!(
        event = "started", version = env!("CARGO_PKG_VERSION"), okta = %config.okta.url, auth0 = %config.auth0.url,
        enforce = config.engine.enforce, state = %config.store.path.display(), "okta-auth0-sync is running"
    );
    if !config.engine.enforce {
        warn!(event = "not_enforcing", "enforce = false: nothing is written to Auth0");
    }
    let schedules = Schedules {
        poll: config.schedule.poll.pattern().to_owned(),
        reconcile: config.schedule.reconcile.pattern().to_owned(),
        reconcile_period: config.schedule.reconcile.period(),
    };
    let mut helpers: JoinSet<&'static str> = JoinSet::new();
    let reported = engine.clone();
    helpers.spawn(async move {
        while let Some(note) = heard.recv().await {
            if let Note::Pass { error } = note {
                report_status(&reported, error.as_deref()).await;
            }
        }
        "status line"
    });
    if let Some(interval) = systemd::watchdog_interval() {
        let notified = notify_watchdog(engine.clone(), clock.clone(), interval, stop.clone());
        helpers.spawn(async move {
            notified.await;
            "watchdog"
        });
    }
    if let Some(monitor) = monitor {
        let served = monitor.serve(engine.clone(), stop.clone());
        helpers.spawn(async move {
            served.await;
            "monitor"
        });
    }
    systemd::ready();
    let result = supervise(engine.run(&schedules, stop.clone()), helpers, &stop).await;
    let error = result.as_ref().err().map(ToString::to_string);
    if let Err(error) = engine.store().finish_run(life, RunCounts::default(), error.as_deref(), clock.now()).await {
        error!(%error, "could not record the end of this run");
    }
    engine.store().close().await;
    info!(event = "stopped", "okta-auth0-sync has stopped; work in progress was finished");
    result.map(|()| Exit::Done).map_err(Error::Fatal)
}

/// Runs the engine; shuts it down if a task beside it exits before that was requested. When the engine has stopped, the
/// tasks are aborted: monitoring connections are short-lived, and an aborted scrape is repeated.
async fn supervise(
    engine: impl Future<Output = Result<(), Fatal>>,
    mut helpers: JoinSet<&'static str>,
    stop: &CancellationToken,
) -> Result<(), Fatal> {
    tokio::pin!(engine);
    let mut first_error = None;
    loop {
        tokio::select! {
            result = &mut engine => return first_error.map_or(result, Err),
            Some(ended) = helpers.join_next() => {
                let ended = ended.map(|name| (name, Ok(())));
                if let Some(error) = task_exit_error(ended, stop.is_cancelled()) {
                    error!(event = "ended", %error, "a task exited unexpectedly; shutting down");
                    first_error.get_or_insert(error);
                    stop.cancel();
                }
            }
        }
    }
}

/// The first signal shuts down gracefully, the second exits immediately.
fn stop_on_signal() -> Result<CancellationToken, Error> {
    let first = || {
        systemd::stopping();
        info!(event = "stopping", "shutting down: finishing work in progress; a second signal stops immediately");
    };
    let second = || {
        warn!(
            event = "aborted",
            "exiting immediately: the state is consistent, the next start repeats unfinished looks"
        );
        std::process::exit(1);
    };
    signals::listen(first, second)
}

/// Notifies the watchdog as long as every loop makes progress. During shutdown systemd's stop timeout applies instead.
async fn notify_watchdog(engine: Arc<Engine>, clock: Arc<dyn Clock>, interval: Duration, stop: CancellationToken) {
    let mut stuck = false;
    while !stop.is_cancelled() {
        let (name, age) = engine.heartbeats().slowest(clock.as_ref());
        if age < interval / 2 {
            stuck = false;
            systemd::watchdog();
        } else if !stuck {
            stuck = true;
            error!(
                event = "wedged",
                seconds = age.as_secs(),
                "the {name} makes no progress; no longer notifying the watchdog"
            );
        }
        clock.sleep(interval / 8).await;
    }
}

async fn report_status(engine: &Engine, error: Option<&str>) {
    match (engine.health().await, error) {
        (Ok(health), None) => systemd::status(&line(&health, engine.clock().now())),
        // The error comes last because it may exceed the line length.
        (Ok(health), Some(error)) => {
            let line = line(&health, engine.clock().now());
            systemd::status(&format!("{line}; failed to poll the System Log: {error}"));
        }
        (Err(error), _) => systemd::status(&format!("cannot read the state: {error}")),
    }
}

fn line(health: &Health, now: Timestamp) -> String {
    let Some(status) = &health.status else { return health.headline(now).text };
    let mut line = format!("{} denied, {} pending", status.denied, status.pending);
    for (count, word) in [(status.failed, "failed"), (status.held, "held"), (status.quarantined, "quarantined")] {
        if count > 0 {
            line.push_str(&format!(", {count} {word}"));
        }
    }
    let headline = health.headline(now);
    if headline.level == Level::Bad {
        line.push_str(&format!("; {}: okta-auth0-sync status", headline.text));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn exited_or_panicked_helper_stops_the_daemon() {
        for panics in [false, true] {
            let stop = CancellationToken::new();
            let mut helpers = JoinSet::new();
            helpers.spawn(async move {
                assert!(!panics, "as if by a bug");
                "monitor"
            });
            let engine = async {
                stop.cancelled().await;
                Ok(())
            };
            let error = supervise(engine, helpers, &stop).await.unwrap_err();
            assert!(matches!(error, Fatal::Ended(..)), "{error}");
        }
    }

    #[tokio::test]
    async fn helper_may_exit_at_shutdown() {
        let stop = CancellationToken::new();
        stop.cancel();
        let mut helpers = JoinSet::new();
        helpers.spawn(async { "monitor" });
        let engine = async {
            tokio::task::yield_now().await;
            Ok(())
        };
        assert!(supervise(engine, helpers, &stop).await.is_ok());
    }
}

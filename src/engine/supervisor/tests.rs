//! Start, work and shutdown of the daemon's tasks.

use std::task::Poll;

use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::JoinHandle;

use super::super::heartbeat::Heartbeats;
use super::super::reconciler::Scope;
use super::super::stage::{CapturedLogs, Stage, create_user, soon, start_time, until};
use super::*;
use crate::domain::Clock;
use crate::domain::mark::MarkOptions;
use crate::domain::{ManualClock, timestamp_text};
use crate::http::Remote;
use crate::store::StoreError;
use okta_auth0_sync_sandbox::{Effect, Fault, NewUser, RateLimited};
use serde_json::json;

const PLAIN: MarkOptions = MarkOptions { mirror: true, block: false };
const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn nightly_reconcile_lists_recent_changes() {
    let stage = Stage::new(PLAIN).await;
    assert!(stage.engine.store().current_reconcile().await.unwrap().is_none());
    let now = stage.engine.clock().now();
    stage.engine.begin_nightly().await.unwrap();
    let reconcile = stage.engine.store().current_reconcile().await.unwrap().unwrap();
    let since = clock::parse_timestamp(&reconcile.scope).unwrap();
    assert!(
        clock::add(since, DAY) < now,
        "overlaps the reconcile before: {} at {}",
        reconcile.scope,
        timestamp_text(now)
    );
}

#[tokio::test]
async fn rows_beyond_retention_are_removed() {
    let stage = Stage::new(PLAIN).await;
    let (engine, stop) = (&stage.engine, CancellationToken::new());
    let okta = stage.sandbox.okta();
    okta.create_user(&NewUser::new("ann@example.com", "ann@example.com"));
    engine.poll(&stop).await.unwrap();
    engine.apply(Until::Idle(Duration::from_secs(1)), &stop).await.unwrap();
    let events = async || engine.store().recent_events(None, 100).await.unwrap().len();
    let before = events().await;
    assert!(before > 0);
    engine.tidy(&stop).await;
    assert_eq!(events().await, before);
    engine.clock().sleep(engine.options.retention).await;
    okta.create_user(&NewUser::new("bob@example.com", "bob@example.com"));
    engine.clock().sleep(Duration::from_secs(5)).await;
    engine.poll(&stop).await.unwrap();
    engine.apply(Until::Idle(Duration::from_secs(1)), &stop).await.unwrap();
    let cancelled = CancellationToken::new();
    cancelled.cancel();
    engine.tidy(&cancelled).await;
    assert_eq!(events().await, 2 * before, "removes nothing once cancelled");
    engine.tidy(&stop).await;
    assert_eq!(events().await, before);
}

#[test]
fn slowest_loop_is_named_with_its_age() {
    let clock = ManualClock::new(start_time());
    clock.advance(Duration::from_secs(7));
    let heartbeats = Heartbeats::new(&clock);
    assert_eq!(heartbeats.slowest(&clock).1, Duration::ZERO, "all loops start fresh");
    let second = Duration::from_millis(1001);
    for (fresh, slowest) in [
        (["poller", "applier", "watcher", "health check"], "reconciler"),
        (["poller", "reconciler", "watcher", "health check"], "applier"),
    ] {
        clock.advance(second);
        for name in fresh {
            heartbeats.stamp(name, &clock);
        }
        assert_eq!(heartbeats.slowest(&clock).0, slowest);
    }
    assert_eq!(heartbeats.slowest(&clock), ("applier", second));
    heartbeats.stamp("00u1", &clock);
    assert_eq!(heartbeats.slowest(&clock), ("applier", second), "a call for a user stamps no loop");
    assert_eq!(
        heartbeats.by_name().map(|(name, heartbeat)| (name, heartbeat.age(&clock))),
        [
            ("poller", Duration::ZERO),
            ("applier", second),
            ("reconciler", Duration::ZERO),
            ("watcher", Duration::ZERO),
            ("health check", Duration::ZERO),
        ]
    );
}

/// A running daemon with a manual clock. Only the test wakes its loops.
struct Daemon {
    stage: Stage,
    notes: UnboundedReceiver<Note>,
    stop: CancellationToken,
    running: JoinHandle<Result<(), Fatal>>,
}

const HOURLY: &str = "0 0 * * * *";
/// Never within a test.
const NEVER: &str = "0 0 0 29 2 *";

impl Daemon {
    async fn start(prepare: impl AsyncFnOnce(&Stage)) -> Self {
        Self::on_schedule(NEVER, prepare).await
    }

    async fn on_schedule(poll: &str, prepare: impl AsyncFnOnce(&Stage)) -> Self {
        let (sender, notes) = mpsc::unbounded_channel();
        let clock = ManualClock::new(start_time());
        let stage = Stage::with(PLAIN, clock, |engine, _| engine.with_notes(sender)).await;
        prepare(&stage).await;
        let (engine, stop) = (stage.engine.clone(), CancellationToken::new());
        let schedules = Schedules { poll: poll.to_owned(), reconcile: NEVER.to_owned(), reconcile_period: DAY };
        let running = tokio::spawn({
            let stop = stop.clone();
            async move { engine.run(&schedules, stop).await }
        });
        Self { stage, notes, stop, running }
    }

    /// Waits for the end of the next pass and returns its error.
    async fn pass(&mut self) -> Option<String> {
        loop {
            if let Note::Pass { error } = soon(self.notes.recv()).await.expect("the loops are running") {
                return error;
            }
        }
    }

    /// Wakes the poller and waits for the end of its pass.
    async fn pass_again(&mut self) -> Option<String> {
        self.stage.engine.wakes.poll.notify_one();
        self.pass_while_time_advances().await
    }

    async fn pass_while_time_advances(&mut self) -> Option<String> {
        let clock = self.stage.clock.clone();
        let advance_time = async {
            loop {
                clock.advance(Duration::from_millis(JITTER_MAX_MS));
                a_while().await;
            }
        };
        tokio::select! {
            error = self.pass() => error,
            () = advance_time => unreachable!("it never ends"),
        }
    }

    /// How long the poller waits now.
    fn pause(&self) -> Duration {
        self.stage.engine.breaker(Remote::Okta).open_for(&[]).unwrap().max(Duration::from_secs(1))
    }

    async fn end(self) -> Result<(), Fatal> {
        self.stop.cancel();
        soon(self.running).await.unwrap()
    }
}

/// Yields to the other tasks.
async fn a_while() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn clock_set_back_does_not_delay_polls() {
    // The scheduler ticks by the real clock: not within this test.
    let mut daemon = Daemon::on_schedule(HOURLY, async |_| ()).await;
    assert_eq!(daemon.pass().await, None);
    let clock = daemon.stage.clock.clone();
    clock.step_wall(jiff::SignedDuration::from_hours(-24));
    for _ in 0..3 {
        let before = clock.monotonic();
        let asked = || daemon.stage.sandbox.okta().journal().count("GET", "/api/v1/logs");
        let requests = asked();
        while asked() == requests {
            clock.advance(Duration::from_secs(1));
            a_while().await;
        }
        let waited = clock.monotonic().saturating_sub(before);
        assert_eq!(daemon.pass().await, None);
        assert!(waited <= Duration::from_secs(2 * 3600), "the next poll came after {waited:?}");
    }
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn loops_run_until_cancelled() {
    let mut daemon = Daemon::start(async |_| ()).await;
    let okta = daemon.stage.sandbox.okta().clone();
    assert_eq!(daemon.pass().await, None);
    a_while().await;
    while let Ok(note) = daemon.notes.try_recv() {
        assert!(!matches!(note, Note::Pass { .. }), "the next pass waits for a tick");
    }
    let ann = create_user(&okta, "ann@example.com", "ann@example.com");
    okta.deactivate(&ann);
    // The look may end before the pass: the first reconcile finds the user too.
    daemon.stage.engine.wakes.poll.notify_one();
    let clock = daemon.stage.clock.clone();
    let advance_time = async {
        loop {
            clock.advance(Duration::from_millis(JITTER_MAX_MS));
            a_while().await;
        }
    };
    let pass_and_look = async {
        let (mut passed, mut looked) = (false, false);
        while !(passed && looked) {
            match soon(daemon.notes.recv()).await.unwrap() {
                Note::Pass { error } => {
                    assert_eq!(error, None);
                    passed = true;
                }
                Note::Look(report) => {
                    assert_eq!(report.user, ann);
                    looked = true;
                }
                _ => {}
            }
        }
    };
    tokio::select! {
        () = pass_and_look => {}
        () = advance_time => unreachable!("it never ends"),
    }
    assert!(!daemon.running.is_finished());
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn foreign_org_stops_daemon_as_configuration_error() {
    let logs = CapturedLogs::new();
    let daemon = Daemon::start(async |stage| {
        stage.engine.store().bind_org("00oanother").await.unwrap();
    })
    .await;
    let fatal = soon(daemon.running).await.unwrap().unwrap_err();
    assert!(fatal.is_configuration(), "{fatal}");
    assert!(fatal.to_string().contains("00oanother"), "{fatal}");
    assert_eq!(logs.count("ended"), 1);
}

#[tokio::test]
async fn early_exit_and_panic_are_errors() {
    assert!(task_exit_error(Ok(("poller", Ok(()))), true).is_none());
    let unasked = task_exit_error(Ok(("poller", Ok(()))), false).unwrap();
    assert_eq!(unasked.to_string(), "the poller exited unexpectedly: no shutdown was requested");
    let failed = || Ok(("poller", Err(Fatal::Schedule("was refused".to_owned()))));
    assert!(task_exit_error(failed(), true).is_some() && task_exit_error(failed(), false).is_some());
    let defect = tokio::spawn(async { panic!("a defect") }).await;
    assert!(task_exit_error(defect, true).unwrap().to_string().contains("a defect"));
}

#[test]
fn only_configuration_errors_count_as_such() {
    assert!(Fatal::Schedule("was refused".to_owned()).is_configuration());
    assert!(!Fatal::Ended("poller", "panicked".to_owned()).is_configuration());
    assert!(!Fatal::Store(StoreError::Gone { what: "run", id: "7".to_owned() }).is_configuration());
}

#[tokio::test]
async fn invalid_schedule_is_refused() {
    let stage = Stage::new(PLAIN).await;
    let schedules =
        Schedules { poll: "every now and then".to_owned(), reconcile: NEVER.to_owned(), reconcile_period: DAY };
    let fatal = soon(stage.engine.run(&schedules, CancellationToken::new())).await.unwrap_err();
    assert!(fatal.is_configuration(), "{fatal}");
}

#[tokio::test]
async fn brief_store_failure_stops_nothing() {
    let logs = CapturedLogs::new();
    let mut daemon = Daemon::start(async |_| ()).await;
    assert_eq!(daemon.pass().await, None);
    daemon.stage.engine.store().close().await;
    for _ in 0..3 {
        assert!(daemon.pass_again().await.is_some());
    }
    assert_eq!(logs.count("poll_failed"), 1, "logged once: {}", logs.text());
    assert!(!daemon.running.is_finished());
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn failed_polls_are_logged_once() {
    let logs = CapturedLogs::new();
    let mut daemon = Daemon::start(async |stage| {
        stage.sandbox.okta().faults().add(Fault::everywhere(Effect::Drop));
    })
    .await;
    assert!(daemon.pass().await.is_some());
    // The open circuit allows a probe by then, so the poller polls without a tick.
    daemon.stage.clock.advance(daemon.pause());
    assert!(daemon.pass().await.is_some());
    assert_eq!(logs.count("poll_failed"), 1);

    daemon.stage.sandbox.okta().faults().clear();
    assert_eq!(daemon.pass_while_time_advances().await, None);
    assert_eq!(logs.count("poll_back"), 1);
    assert_eq!(daemon.pass_again().await, None);
    assert_eq!(logs.count("poll_back"), 1);
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn only_a_pass_with_pages_sends_a_heartbeat() {
    let stage = Stage::new(PLAIN).await;
    let (engine, stop) = (&stage.engine, CancellationToken::new());
    let is_woken = async || {
        let woken = engine.wakes.beat.notified();
        tokio::pin!(woken);
        std::future::poll_fn(|context| Poll::Ready(woken.as_mut().poll(context).is_ready())).await
    };
    stop.cancel();
    soon(engine.poll_loop(&stop)).await.unwrap();
    assert!(!is_woken().await, "cancelled before the first page");
    let stop = CancellationToken::new();
    let token = stop.clone();
    let (polling, ()) = tokio::join!(soon(engine.poll_loop(&stop)), async {
        until(|| stage.sandbox.okta().journal().count("GET", "/api/v1/logs") > 0).await;
        token.cancel();
    });
    polling.unwrap();
    assert!(is_woken().await);
}

#[tokio::test]
async fn restart_resumes_reconcile_then_expires_rows() {
    let daemon = Daemon::start(async |stage| {
        let (engine, stop) = (&stage.engine, CancellationToken::new());
        stage.sandbox.okta().create_user(&NewUser::new("ann@example.com", "ann@example.com"));
        engine.poll(&stop).await.unwrap();
        engine.apply(Until::Idle(Duration::ZERO), &stop).await.unwrap();
        stage.clock.advance(engine.options.retention + DAY);
        engine.begin_nightly().await.unwrap();
    })
    .await;
    let store = daemon.stage.engine.store().clone();
    assert!(!store.recent_events(None, 100).await.unwrap().is_empty());
    soon(async { while !store.recent_events(None, 100).await.unwrap().is_empty() {} }).await;
    // The long time is also a gap in the log, which starts a full reconcile.
    soon(async { while store.current_reconcile().await.unwrap().is_some() {} }).await;
    // The next tick starts the next reconcile.
    daemon.stage.sandbox.okta().journal().clear();
    daemon.stage.engine.wakes.reconcile.notify_one();
    until(|| daemon.stage.sandbox.okta().journal().count("GET", "/api/v1/users") > 0).await;
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn first_start_finds_users_who_left_before() {
    let mut daemon = Daemon::start(async |stage| {
        let user = create_user(stage.sandbox.okta(), "ann@example.com", "ann@example.com");
        stage.sandbox.auth0().create_user(json!({ "email": "ann@example.com", "email_verified": true }));
        stage.sandbox.okta().deactivate(&user);
        // Longer ago than the first start looks back, and than a nightly reconcile does.
        stage.clock.advance(200 * DAY);
    })
    .await;
    assert_eq!(daemon.pass().await, None);
    let store = daemon.stage.engine.store().clone();
    soon(async {
        while store.status().await.unwrap().unwrap().denied == 0 || store.unchecked().await.unwrap().is_some() {
            daemon.stage.clock.advance(Duration::from_secs(1));
            a_while().await;
        }
    })
    .await;
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn incomplete_first_reconcile_is_repeated_later() {
    let logs = CapturedLogs::new();
    let mut daemon = Daemon::start(async |stage| {
        create_user(stage.sandbox.okta(), "ann@example.com", "ann@example.com");
        stage.sandbox.auth0().faults().add(Fault::status("GET", "/api/v2/users", 400));
    })
    .await;
    assert_eq!(daemon.pass().await, None);
    let store = daemon.stage.engine.store().clone();
    let advance_until = async |daemon: &Daemon, event: &str, count: usize| {
        soon(async {
            while logs.count(event) < count {
                daemon.stage.clock.advance(Duration::from_secs(10));
                a_while().await;
            }
        })
        .await;
    };
    advance_until(&daemon, "reconcile_done", 1).await;
    let done_at = daemon.stage.clock.monotonic();
    assert!(store.unchecked().await.unwrap().is_some(), "it skipped something");
    advance_until(&daemon, "reconcile_began", 2).await;
    assert!(daemon.stage.clock.monotonic() - done_at > Duration::from_secs(1800), "not at once");
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn missed_reconcile_is_caught_up_at_start() {
    for (missed, expected) in [(3 * DAY, true), (DAY, false)] {
        let logs = CapturedLogs::new();
        let mut daemon = Daemon::start(async |stage| {
            let (engine, stop) = (&stage.engine, CancellationToken::new());
            engine.poll(&stop).await.unwrap();
            engine.begin_reconcile(Scope::All, "the test").await.unwrap();
            engine.reconcile(&stop).await.unwrap();
            stage.clock.advance(missed);
        })
        .await;
        assert_eq!(daemon.pass().await, None);
        // One before the machine was off, and one after.
        let begun = 1 + usize::from(expected);
        until(|| logs.count("reconcile_began") >= begun).await;
        a_while().await;
        assert_eq!(logs.count("reconcile_began"), begun, "{}", logs.text());
        daemon.end().await.unwrap();
    }
}

#[tokio::test]
async fn interrupted_reconcile_is_logged_once() {
    let logs = CapturedLogs::new();
    let mut daemon = Daemon::start(async |stage| {
        create_user(stage.sandbox.okta(), "ann@example.com", "ann@example.com");
        stage.engine.begin_nightly().await.unwrap();
        stage.sandbox.auth0().faults().add(Fault::status("GET", "/api/v2/users", 403));
    })
    .await;
    assert_eq!(daemon.pass().await, None);
    until(|| logs.count("reconcile_failed") > 0).await;
    for _ in 0..120 {
        daemon.stage.clock.advance(10 * Duration::from_secs(1));
        a_while().await;
    }
    let asked = daemon.stage.sandbox.auth0().journal().count("GET", "/api/v2/users");
    assert!(asked > 1 && asked < 60, "it is tried again, with backoff: {asked}");
    let store = daemon.stage.engine.store().clone();
    assert_eq!(logs.count("reconcile_failed"), 1);
    daemon.stage.sandbox.auth0().faults().clear();
    while store.current_reconcile().await.unwrap().is_some() {
        daemon.stage.clock.advance(10 * Duration::from_secs(1));
        a_while().await;
    }
    until(|| logs.count("reconcile_resumed") > 0).await;
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn stop_does_not_wait_for_a_rate_limit() {
    let limit = Effect::RateLimited(RateLimited::RetryAfter(Duration::from_secs(3600)));
    let mut daemon = Daemon::start(async |stage: &Stage| {
        stage.sandbox.auth0().faults().add(Fault::new("PATCH", "/api/v2/users", limit));
    })
    .await;
    assert_eq!(daemon.pass().await, None);
    // The first reconcile waits between its attempts, by the clock.
    soon(async {
        while daemon.stage.engine.store().unchecked().await.unwrap().is_some() {
            daemon.stage.clock.advance(Duration::from_millis(10));
            a_while().await;
        }
    })
    .await;
    let okta = daemon.stage.sandbox.okta().clone();
    let ann = create_user(&okta, "ann@example.com", "ann@example.com");
    daemon.stage.sandbox.auth0().create_user(json!({ "email": "ann@example.com" }));
    okta.deactivate(&ann);
    assert_eq!(daemon.pass_again().await, None);
    let journal = daemon.stage.sandbox.auth0().journal().clone();
    soon(async {
        while journal.count("PATCH", "/api/v2/users") == 0 {
            daemon.stage.clock.advance(Duration::from_millis(10));
            a_while().await;
        }
    })
    .await;
    // Without another second on the clock.
    daemon.end().await.unwrap();
}

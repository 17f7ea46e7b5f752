//! The circuit breaker with scripted calls and a manual clock.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use tokio::sync::oneshot;

use super::super::stage::{CapturedLogs, a_store};
use super::*;
use crate::domain::ManualClock;
use crate::http::pacing::Shares;
use crate::okta;
use crate::store::RemoteRow;

const SECOND: Duration = Duration::from_secs(1);

/// A breaker with its own state and clock.
struct BreakerHarness {
    breaker: CircuitBreaker,
    clock: Arc<ManualClock>,
    store: Arc<Store>,
    _folder: tempfile::TempDir,
}

/// A call for this user or loop, which fails with this kind or succeeds.
type Ask<'a> = (Endpoint, &'a str, Option<Kind>);

impl BreakerHarness {
    async fn new() -> Self {
        let clock = Arc::new(ManualClock::new("2026-11-23T10:00:00Z".parse().unwrap()));
        let (folder, store) = a_store(clock.now()).await;
        let (store, heartbeats) = (Arc::new(store), Arc::new(Heartbeats::new(clock.as_ref())));
        let pacer = Pacer::okta(Shares { ours: 1.0, reconcile: 0.5 });
        let breaker = CircuitBreaker::new(Remote::Okta, pacer, store.clone(), clock.clone(), heartbeats);
        Self { breaker, clock, store, _folder: folder }
    }

    async fn ask(&self, (endpoint, subject, kind): Ask<'_>) -> Result<(), CallError> {
        self.breaker
            .call(endpoint, Priority::Live, subject, || async move { kind.map_or(Ok(()), |kind| Err(failure(kind))) })
            .await
    }

    /// Does the breaker let a call pass?
    async fn reaches(&self, endpoint: Endpoint) -> bool {
        let made = Cell::new(false);
        let _ = self
            .breaker
            .call(endpoint, Priority::Live, "00u1", || {
                made.set(true);
                async { Ok(()) }
            })
            .await;
        made.get()
    }

    /// The wait of the remote's open circuit in seconds, and its failed probes.
    fn pause(&self) -> Option<(u64, u32)> {
        let now = self.clock.monotonic();
        let state = self.breaker.lock();
        let trip = state.circuits.get(&Scope::Remote).and_then(Circuit::trip);
        trip.map(|trip| (trip.until.saturating_sub(now).as_secs(), trip.probes))
    }

    fn wait_for_pause(&self) {
        self.clock.advance(self.breaker.open_for(&[]).unwrap());
    }

    async fn row(&self) -> RemoteRow {
        let remotes = self.store.remotes().await.unwrap();
        remotes.into_iter().find(|row| row.remote == "okta").unwrap()
    }

    async fn alarms(&self) -> Vec<String> {
        self.store.open_alarms().await.unwrap().into_iter().map(|alarm| alarm.kind).collect()
    }
}

fn failure(kind: Kind) -> Failure {
    Failure { kind, ..Failure::malformed(Remote::Okta, "GET /api/v1/logs", "broken on purpose") }
}

fn waits(result: Result<(), CallError>) -> u64 {
    match result.unwrap_err() {
        CallError::Paused { wait, .. } => wait.as_secs(),
        CallError::Failed(failure) => panic!("not paused: {failure}"),
    }
}

fn only_this_call_failed(result: Result<(), CallError>) -> bool {
    matches!(result.unwrap_err(), CallError::Failed(_))
}

/// Polls a call once. Is it still pending?
async fn is_under_way(mut call: Pin<&mut impl Future>) -> bool {
    poll_fn(|context| Poll::Ready(call.as_mut().poll(context).is_pending())).await
}

#[tokio::test]
async fn rate_limited_call_gives_up_after_four_attempts() {
    let harness = BreakerHarness::new().await;
    let made = Cell::new(0);
    for (asked_for, waited) in [(Some(7 * SECOND), 7), (None, 5), (Some(Duration::ZERO), 1)] {
        made.set(0);
        let limited = || {
            made.set(made.get() + 1);
            async move { Err::<(), _>(Failure { retry_after: asked_for, ..failure(Kind::RateLimited) }) }
        };
        let answer = harness.breaker.call(okta::endpoints::LOG, Priority::Live, "poller", limited).await;
        assert_eq!((made.get(), waits(answer)), (4, waited), "asked to wait {asked_for:?}");
    }
    assert_eq!(harness.breaker.counts(), Counts { ok: 0, failed: [(Kind::RateLimited, 12)].into() });
    assert_eq!(harness.breaker.open_for(&[okta::endpoints::LOG]), None);

    // Three refusals in a row, then a success.
    made.set(0);
    let at_last = || {
        made.set(made.get() + 1);
        let answer = if made.get() < 4 { Err(failure(Kind::RateLimited)) } else { Ok(made.get()) };
        async { answer }
    };
    assert_eq!(harness.breaker.call(okta::endpoints::LOG, Priority::Live, "poller", at_last).await.unwrap(), 4);
}

#[tokio::test]
async fn unauthorized_opens_breaker_then_probes() {
    let harness = BreakerHarness::new().await;
    assert_eq!(waits(harness.ask((okta::endpoints::LOG, "poller", Some(Kind::Unauthorized))).await), 60);
    assert_eq!(harness.pause(), Some((60, 1)));
    harness.clock.advance(59 * SECOND);
    assert!(!harness.reaches(okta::endpoints::USER).await, "no call passes an open circuit");

    // Exactly when the wait is over: the probe fails too, and the circuit opens again.
    harness.clock.advance(SECOND);
    assert_eq!(waits(harness.ask((okta::endpoints::USER, "00u1", Some(Kind::Unauthorized))).await), 60);
    assert_eq!(harness.pause(), Some((60, 2)));

    // And long after it.
    harness.clock.advance(100 * SECOND);
    assert_eq!(waits(harness.ask((okta::endpoints::USER, "00u1", Some(Kind::Unauthorized))).await), 60);
    assert_eq!(harness.pause(), Some((60, 3)));

    harness.clock.advance(60 * SECOND);
    {
        let (_answer, never) = oneshot::channel::<()>();
        let never = Cell::new(Some(never));
        let probe = harness.breaker.call(okta::endpoints::USER, Priority::Live, "00u1", || {
            let never = never.take().unwrap();
            async { never.await.map_err(|_| failure(Kind::Timeout)) }
        });
        tokio::pin!(probe);
        assert!(is_under_way(probe.as_mut()).await);
        assert!(!harness.reaches(okta::endpoints::LOG).await, "one probe at a time");
        assert_eq!(waits(harness.ask((okta::endpoints::LOG, "poller", None)).await), 1, "other callers wait a second");
    }
    assert!(harness.reaches(okta::endpoints::LOG).await, "after an abandoned probe the next call may probe");
    assert_eq!(harness.breaker.open_for(&[okta::endpoints::LOG, okta::endpoints::USER]), None);
}

#[tokio::test]
async fn calls_in_flight_do_not_extend_the_pause() {
    for kind in [Kind::Unauthorized, Kind::Unreachable] {
        let harness = BreakerHarness::new().await;
        let (fail, failing) = oneshot::channel::<()>();
        let failing = Cell::new(Some(failing));
        let late = harness.breaker.call(okta::endpoints::USER, Priority::Live, "00u1", || {
            let failing = failing.take().unwrap();
            async move {
                let _ = failing.await;
                Err::<(), _>(failure(kind))
            }
        });
        tokio::pin!(late);
        assert!(is_under_way(late.as_mut()).await);
        let began = waits(harness.ask((okta::endpoints::LOG, "poller", Some(kind))).await);
        let gone = Duration::from_millis(200);
        harness.clock.advance(gone);
        let before = harness.breaker.open_for(&[]).unwrap();
        assert_eq!(before, Duration::from_secs(began) - gone);
        fail.send(()).unwrap();
        assert!(late.await.is_err());
        assert_eq!(harness.breaker.open_for(&[]), Some(before), "{kind:?}");
        assert_eq!(harness.pause().unwrap().1, 1, "{kind:?}");
    }
}

#[tokio::test]
async fn probes_back_off_during_outage() {
    let seed = fastrand::u64(..);
    fastrand::seed(seed);
    let harness = BreakerHarness::new().await;
    let mut longest = 0;
    for probe in 1..=40 {
        assert!(harness.ask((okta::endpoints::LOG, "poller", Some(Kind::Unreachable))).await.is_err());
        let (wait, probes) = harness.pause().unwrap();
        assert_eq!(probes, probe, "seed {seed}");
        assert!(harness.breaker.open_for(&[]).unwrap() <= PROBES.ceiling(probe), "seed {seed}");
        longest = longest.max(wait);
        harness.wait_for_pause();
    }
    assert!(longest >= 8, "35 waits between 1 and 30 seconds, and none above 8: seed {seed}");
}

#[tokio::test]
async fn failures_of_three_users_open_the_remote() {
    for kind in [Kind::Server, Kind::Timeout, Kind::Malformed] {
        let harness = BreakerHarness::new().await;
        for _ in 0..5 {
            assert!(only_this_call_failed(harness.ask((okta::endpoints::USER, "00u1", Some(kind))).await));
        }
        assert!(only_this_call_failed(harness.ask((okta::endpoints::USER, "00u2", Some(kind))).await));
        harness.ask((okta::endpoints::USER, "00u3", None)).await.unwrap();
        assert!(
            only_this_call_failed(harness.ask((okta::endpoints::USER, "00u2", Some(kind))).await),
            "a success came in between"
        );
        assert!(only_this_call_failed(harness.ask((okta::endpoints::USER, "00u1", Some(kind))).await));
        assert_eq!(harness.pause(), None);
        assert_eq!(waits(harness.ask((okta::endpoints::USER, "00u3", Some(kind))).await), 1);
        assert_eq!(harness.pause(), Some((1, 1)));
        // The first call after the wait is the probe.
        harness.wait_for_pause();
        assert!(!only_this_call_failed(harness.ask((okta::endpoints::USER, "00u1", Some(kind))).await));
        assert_eq!(harness.pause().unwrap().1, 2);
    }
}

#[tokio::test]
async fn unreachable_opens_remote_unless_others_answer() {
    let harness = BreakerHarness::new().await;
    assert_eq!(waits(harness.ask((okta::endpoints::USER, "00u1", Some(Kind::Unreachable))).await), 1);
    harness.wait_for_pause();
    assert!(
        !only_this_call_failed(harness.ask((okta::endpoints::USER, "00u1", Some(Kind::Unreachable))).await),
        "still down"
    );
    harness.wait_for_pause();
    harness.ask((okta::endpoints::LOG, "poller", None)).await.unwrap();
    assert!(
        only_this_call_failed(harness.ask((okta::endpoints::USER, "00u1", Some(Kind::Unreachable))).await),
        "only this endpoint"
    );
    assert_eq!(harness.pause(), None);
    // Without a success since then, the whole remote may be down.
    assert!(!only_this_call_failed(harness.ask((okta::endpoints::USER, "00u1", Some(Kind::Unreachable))).await));
}

#[tokio::test]
async fn forbidden_opens_endpoint_or_remote_for_token() {
    let harness = BreakerHarness::new().await;
    for user in ["00u1", "00u2", "00u1"] {
        let refused = harness.ask((okta::endpoints::USERS, user, Some(Kind::Forbidden))).await;
        assert!(only_this_call_failed(refused), "{user}: two refused users are their own attempts");
    }
    assert!(harness.alarms().await.is_empty());
    // A success in between: the endpoint works.
    harness.ask((okta::endpoints::USERS, "00u4", None)).await.unwrap();
    for user in ["00u1", "00u2"] {
        assert!(only_this_call_failed(harness.ask((okta::endpoints::USERS, user, Some(Kind::Forbidden))).await));
    }
    assert_eq!(waits(harness.ask((okta::endpoints::USERS, "00u3", Some(Kind::Forbidden))).await), 60);
    assert_eq!(harness.breaker.open_for(&[okta::endpoints::USERS]), Some(60 * SECOND));
    assert_eq!(harness.breaker.open_for(&[okta::endpoints::USER]), None);
    assert!(!harness.reaches(okta::endpoints::USERS).await);
    assert!(harness.reaches(okta::endpoints::USER).await);
    assert_eq!(waits(harness.ask((okta::endpoints::LOG, "poller", Some(Kind::Forbidden))).await), 60, "a loop");

    let token = || async { Err::<(), _>(Failure { endpoint: "POST /oauth2/v1/token", ..failure(Kind::Forbidden) }) };
    assert_eq!(waits(harness.breaker.call(okta::endpoints::USER, Priority::Live, "poller", token).await), 60);
    assert_eq!(harness.breaker.open_for(&[]), Some(60 * SECOND));
}

#[tokio::test]
async fn rejected_and_not_found_close_the_circuit() {
    for kind in [Kind::NotFound, Kind::Rejected] {
        let harness = BreakerHarness::new().await;
        assert!(!only_this_call_failed(harness.ask((okta::endpoints::LOG, "poller", Some(Kind::Unreachable))).await));
        harness.wait_for_pause();
        assert!(only_this_call_failed(harness.ask((okta::endpoints::LOG, "poller", Some(kind))).await));
        assert_eq!(harness.breaker.open_for(&[okta::endpoints::LOG]), None);
        assert!(!harness.row().await.is_failing());
    }
}

#[tokio::test]
async fn every_call_is_counted_once() {
    let harness = BreakerHarness::new().await;
    for _ in 0..3 {
        harness.ask((okta::endpoints::LOG, "poller", None)).await.unwrap();
    }
    for _ in 0..2 {
        let _ = harness.ask((okta::endpoints::USER, "00u1", Some(Kind::NotFound))).await;
    }
    assert!(harness.breaker.call_best_effort(okta::endpoints::ORG, || async { Ok(()) }).await.is_ok());
    assert!(
        harness
            .breaker
            .call_best_effort(okta::endpoints::ORG, || async { Err::<(), _>(failure(Kind::Server)) })
            .await
            .is_err()
    );
    assert_eq!(harness.breaker.counts(), Counts { ok: 4, failed: [(Kind::NotFound, 2), (Kind::Server, 1)].into() });
}

#[tokio::test]
async fn outage_is_logged_at_start_and_end() {
    let harness = BreakerHarness::new().await;
    let logs = CapturedLogs::new();
    for _ in 0..3 {
        assert!(harness.ask((okta::endpoints::LOG, "poller", Some(Kind::Unreachable))).await.is_err());
        harness.wait_for_pause();
    }
    assert_eq!(logs.count("remote_down"), 1);
    harness.clock.advance(10 * SECOND);
    harness.ask((okta::endpoints::LOG, "poller", None)).await.unwrap();
    assert_eq!(logs.count("remote_back"), 1);
    assert!(logs.text().contains("failures=3"), "{}", logs.text());
    harness.ask((okta::endpoints::LOG, "poller", None)).await.unwrap();
    assert_eq!(logs.count("remote_back"), 1);
    // The next outage starts its own count.
    assert!(harness.ask((okta::endpoints::USER, "00u1", Some(Kind::Unauthorized))).await.is_err());
    harness.wait_for_pause();
    harness.ask((okta::endpoints::USER, "00u1", None)).await.unwrap();
    assert_eq!((logs.count("remote_refuses"), logs.count("remote_back")), (1, 2));
    assert!(logs.text().contains("failures=1"), "{}", logs.text());
}

#[tokio::test]
async fn failures_of_one_user_open_nothing() {
    let harness = BreakerHarness::new().await;
    let logs = CapturedLogs::new();
    assert!(only_this_call_failed(harness.ask((okta::endpoints::USER, "00u1", Some(Kind::Server))).await));
    assert_eq!(logs.count("remote_down"), 0);
    harness.clock.advance(2 * ALARM_AFTER);
    assert!(only_this_call_failed(harness.ask((okta::endpoints::USER, "00u1", Some(Kind::Server))).await));
    assert!(harness.alarms().await.is_empty());
    // The state shows the error until a call succeeds.
    assert_eq!(harness.row().await.error_kind.as_deref(), Some("server error"));
}

#[tokio::test]
async fn same_error_is_stored_every_30_seconds() {
    let harness = BreakerHarness::new().await;
    let unreachable = (okta::endpoints::LOG, "poller", Some(Kind::Unreachable));
    assert!(harness.ask(unreachable).await.is_err());
    let first = harness.row().await.error_at;
    harness.clock.advance(NOTE_EVERY - SECOND);
    assert!(harness.ask(unreachable).await.is_err());
    assert_eq!(harness.row().await.error_at, first);
    harness.wait_for_pause();
    harness.clock.advance(SECOND);
    assert!(harness.ask(unreachable).await.is_err());
    let second = harness.row().await.error_at;
    assert!(second > first);
    harness.wait_for_pause();
    assert!(harness.ask((okta::endpoints::LOG, "poller", Some(Kind::Unauthorized))).await.is_err());
    assert!(harness.row().await.error_at > second);
    assert_eq!(harness.row().await.error_kind.as_deref(), Some("unauthorized"));
}

#[tokio::test]
async fn refusal_alarms_at_once_outage_after_a_minute() {
    let harness = BreakerHarness::new().await;
    let unreachable = (okta::endpoints::LOG, "poller", Some(Kind::Unreachable));
    assert!(harness.ask(unreachable).await.is_err());
    harness.clock.advance(ALARM_AFTER - SECOND);
    assert!(harness.ask(unreachable).await.is_err());
    assert!(harness.alarms().await.is_empty());
    harness.wait_for_pause();
    harness.clock.advance(SECOND);
    assert!(harness.ask(unreachable).await.is_err());
    assert_eq!(harness.alarms().await, ["remote_down"]);
    harness.wait_for_pause();
    assert!(harness.ask((okta::endpoints::LOG, "poller", Some(Kind::Unauthorized))).await.is_err());
    assert_eq!(harness.alarms().await, ["remote_down", "remote_refuses"]);
    harness.wait_for_pause();
    harness.ask((okta::endpoints::LOG, "poller", None)).await.unwrap();
    assert!(harness.alarms().await.is_empty());
}

#[tokio::test]
async fn refused_endpoint_keeps_remote_unhealthy() {
    let harness = BreakerHarness::new().await;
    assert!(harness.ask((okta::endpoints::USERS, "reconciler", Some(Kind::Forbidden))).await.is_err());
    harness.clock.advance(SECOND);
    harness.ask((okta::endpoints::LOG, "poller", None)).await.unwrap();
    assert!(harness.row().await.is_failing());
    assert_eq!(harness.alarms().await, ["remote_refuses"]);
    harness.clock.advance(REFUSED_PROBE);
    harness.ask((okta::endpoints::USERS, "00u1", None)).await.unwrap();
    assert!(!harness.row().await.is_failing());
    assert!(harness.alarms().await.is_empty());
}

#[tokio::test]
async fn first_success_clears_errors_of_previous_run() {
    let harness = BreakerHarness::new().await;
    let error = RemoteError { remote: "okta", kind: "timed out", text: "left behind", next_call_at: None };
    harness.store.note_remote_error(error, harness.clock.now()).await.unwrap();
    let alarm = |kind| Alarm {
        momentary: false,
        kind,
        subject: "okta".to_owned(),
        detail: "left behind".to_owned(),
        remedy: String::new(),
    };
    for kind in [AlarmKind::RemoteDown, AlarmKind::RemoteRefuses] {
        harness.store.raise_alarm(&alarm(kind), harness.clock.now()).await.unwrap();
    }
    harness.clock.advance(SECOND);
    harness.ask((okta::endpoints::LOG, "poller", None)).await.unwrap();
    let first = harness.row().await;
    assert!(!first.is_failing());
    assert!(harness.alarms().await.is_empty());

    harness.clock.advance(SECOND);
    harness.ask((okta::endpoints::LOG, "poller", None)).await.unwrap();
    assert_eq!(harness.row().await.ok_at, first.ok_at, "a later success writes nothing");
    // After that, only an outage that this process saw lets it clear alarms.
    harness.store.raise_alarm(&alarm(AlarmKind::RemoteDown), harness.clock.now()).await.unwrap();
    assert!(harness.ask((okta::endpoints::LOG, "poller", Some(Kind::Unreachable))).await.is_err());
    harness.wait_for_pause();
    harness.ask((okta::endpoints::LOG, "poller", None)).await.unwrap();
    assert!(harness.row().await.ok_at > first.ok_at);
    assert_eq!(harness.alarms().await, ["remote_down"]);
}

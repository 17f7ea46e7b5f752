//! The breaker, with calls that fail as they are told to, on a clock that stands still until it is moved.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use tokio::sync::oneshot;

use super::super::stage::{Heard, a_store};
use super::*;
use crate::domain::ManualClock;
use crate::http::pacing::Shares;
use crate::okta;
use crate::store::RemoteRow;

const SECOND: Duration = Duration::from_secs(1);

/// The breaker to one remote, with a state of its own.
struct Gatehouse {
    breaker: CircuitBreaker,
    clock: Arc<ManualClock>,
    store: Arc<Store>,
    _folder: tempfile::TempDir,
}

/// A call for this user (or loop) that fails so, or comes back.
type Ask<'a> = (Endpoint, &'a str, Option<Kind>);

impl Gatehouse {
    async fn new() -> Self {
        let clock = Arc::new(ManualClock::new("2026-11-23T10:00:00Z".parse().unwrap()));
        let (folder, store) = a_store(clock.now()).await;
        let (store, heartbeats) = (Arc::new(store), Arc::new(Heartbeats::new(clock.as_ref())));
        let pacer = Pacer::okta(Shares { ours: 1.0, sweeps: 0.5 });
        let breaker = CircuitBreaker::new(Remote::Okta, pacer, store.clone(), clock.clone(), heartbeats);
        Self { breaker, clock, store, _folder: folder }
    }

    async fn ask(&self, (endpoint, subject, kind): Ask<'_>) -> Result<(), CallError> {
        self.breaker
            .call(endpoint, Priority::Live, subject, || async move { kind.map_or(Ok(()), |kind| Err(failure(kind))) })
            .await
    }

    /// Whether the call was made at all.
    async fn reaches(&self, endpoint: Endpoint) -> bool {
        let made = Cell::new(false);
        let _ = self
            .breaker
            .call(endpoint, Priority::Live, "somebody", || {
                made.set(true);
                async { Ok(()) }
            })
            .await;
        made.get()
    }

    /// How long everything is paused, in seconds; and how often that was probed.
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

fn waits(stopped: Result<(), CallError>) -> u64 {
    match stopped.unwrap_err() {
        CallError::Paused { wait, .. } => wait.as_secs(),
        CallError::Failed(failure) => panic!("nothing waits: {failure}"),
    }
}

fn is_this_calls_alone(stopped: Result<(), CallError>) -> bool {
    matches!(stopped.unwrap_err(), CallError::Failed(_))
}

/// Begins a call that does not come back yet.
async fn is_under_way(mut call: Pin<&mut impl Future>) -> bool {
    poll_fn(|context| Poll::Ready(call.as_mut().poll(context).is_pending())).await
}

#[tokio::test]
async fn a_rate_limit_is_tried_four_times_and_then_gives_way_without_a_pause_for_others() {
    let house = Gatehouse::new().await;
    let made = Cell::new(0);
    for (asked_for, waited) in [(Some(7 * SECOND), 7), (None, 5), (Some(Duration::ZERO), 1)] {
        made.set(0);
        let limited = || {
            made.set(made.get() + 1);
            async move { Err::<(), _>(Failure { retry_after: asked_for, ..failure(Kind::RateLimited) }) }
        };
        let answer = house.breaker.call(okta::endpoints::LOG, Priority::Live, "poller", limited).await;
        assert_eq!((made.get(), waits(answer)), (4, waited), "asked to wait {asked_for:?}");
    }
    assert_eq!(house.breaker.counts(), Counts { ok: 0, failed: [(Kind::RateLimited, 12)].into() });
    assert_eq!(house.breaker.open_for(&[okta::endpoints::LOG]), None);

    // Three refusals in a row, and then an answer.
    made.set(0);
    let at_last = || {
        made.set(made.get() + 1);
        let answer = if made.get() < 4 { Err(failure(Kind::RateLimited)) } else { Ok(made.get()) };
        async { answer }
    };
    assert_eq!(house.breaker.call(okta::endpoints::LOG, Priority::Live, "poller", at_last).await.unwrap(), 4);
}

#[tokio::test]
async fn a_refused_credential_pauses_everything_for_a_minute_and_one_call_at_a_time_finds_out_whether_it_is_over() {
    let house = Gatehouse::new().await;
    assert_eq!(waits(house.ask((okta::endpoints::LOG, "poller", Some(Kind::Unauthorized))).await), 60);
    assert_eq!(house.pause(), Some((60, 1)));
    house.clock.advance(59 * SECOND);
    assert!(!house.reaches(okta::endpoints::USER).await, "in the pause nobody passes");

    // At the very moment at which it has run out: the probe fails too, and the pause begins again.
    house.clock.advance(SECOND);
    assert_eq!(waits(house.ask((okta::endpoints::USER, "00u1", Some(Kind::Unauthorized))).await), 60);
    assert_eq!(house.pause(), Some((60, 2)));

    // Long after it has run out, too.
    house.clock.advance(100 * SECOND);
    assert_eq!(waits(house.ask((okta::endpoints::USER, "00u1", Some(Kind::Unauthorized))).await), 60);
    assert_eq!(house.pause(), Some((60, 3)));

    house.clock.advance(60 * SECOND);
    {
        let (_answer, never) = oneshot::channel::<()>();
        let never = Cell::new(Some(never));
        let probe = house.breaker.call(okta::endpoints::USER, Priority::Live, "00u1", || {
            let never = never.take().unwrap();
            async { never.await.map_err(|_| failure(Kind::Timeout)) }
        });
        tokio::pin!(probe);
        assert!(is_under_way(probe.as_mut()).await);
        assert!(!house.reaches(okta::endpoints::LOG).await, "one probe at a time");
        assert_eq!(waits(house.ask((okta::endpoints::LOG, "poller", None)).await), 1, "and others ask again soon");
    }
    assert!(house.reaches(okta::endpoints::LOG).await, "a probe that was abandoned lets the next one pass");
    assert_eq!(house.breaker.open_for(&[okta::endpoints::LOG, okta::endpoints::USER]), None);
}

#[tokio::test]
async fn calls_under_way_when_a_pause_began_neither_lengthen_nor_double_it() {
    for kind in [Kind::Unauthorized, Kind::Unreachable] {
        let house = Gatehouse::new().await;
        let (fail, told) = oneshot::channel::<()>();
        let told = Cell::new(Some(told));
        let late = house.breaker.call(okta::endpoints::USER, Priority::Live, "00u1", || {
            let told = told.take().unwrap();
            async move {
                let _ = told.await;
                Err::<(), _>(failure(kind))
            }
        });
        tokio::pin!(late);
        assert!(is_under_way(late.as_mut()).await);
        let began = waits(house.ask((okta::endpoints::LOG, "poller", Some(kind))).await);
        let gone = Duration::from_millis(200);
        house.clock.advance(gone);
        let before = house.breaker.open_for(&[]).unwrap();
        assert_eq!(before, Duration::from_secs(began) - gone);
        fail.send(()).unwrap();
        assert!(late.await.is_err());
        assert_eq!(house.breaker.open_for(&[]), Some(before), "{kind:?}");
        assert_eq!(house.pause().unwrap().1, 1, "{kind:?}");
    }
}

#[tokio::test]
async fn what_is_down_is_probed_less_and_less_often() {
    let seed = fastrand::u64(..);
    fastrand::seed(seed);
    let house = Gatehouse::new().await;
    let mut longest = 0;
    for probe in 1..=40 {
        assert!(house.ask((okta::endpoints::LOG, "poller", Some(Kind::Unreachable))).await.is_err());
        let (wait, probes) = house.pause().unwrap();
        assert_eq!(probes, probe, "seed {seed}");
        assert!(house.breaker.open_for(&[]).unwrap() <= PROBES.ceiling(probe), "seed {seed}");
        longest = longest.max(wait);
        house.wait_for_pause();
    }
    assert!(longest >= 8, "35 waits between 1 and 30 seconds, and none above 8: seed {seed}");
}

#[tokio::test]
async fn three_users_in_a_row_are_the_remotes_fault_and_one_is_not() {
    for kind in [Kind::Server, Kind::Timeout, Kind::Malformed] {
        let house = Gatehouse::new().await;
        for _ in 0..5 {
            assert!(is_this_calls_alone(house.ask((okta::endpoints::USER, "00u1", Some(kind))).await));
        }
        assert!(is_this_calls_alone(house.ask((okta::endpoints::USER, "00u2", Some(kind))).await));
        house.ask((okta::endpoints::USER, "00u3", None)).await.unwrap();
        assert!(
            is_this_calls_alone(house.ask((okta::endpoints::USER, "00u2", Some(kind))).await),
            "a success lies between"
        );
        assert!(is_this_calls_alone(house.ask((okta::endpoints::USER, "00u1", Some(kind))).await));
        assert_eq!(house.pause(), None);
        assert_eq!(waits(house.ask((okta::endpoints::USER, "00u3", Some(kind))).await), 1);
        assert_eq!(house.pause(), Some((1, 1)));
        // Whoever comes first when it has run out finds out for all.
        house.wait_for_pause();
        assert!(!is_this_calls_alone(house.ask((okta::endpoints::USER, "00u1", Some(kind))).await));
        assert_eq!(house.pause().unwrap().1, 2);
    }
}

#[tokio::test]
async fn no_connection_pauses_all_at_once_unless_it_is_one_endpoint_among_others_that_answer() {
    let house = Gatehouse::new().await;
    assert_eq!(waits(house.ask((okta::endpoints::USER, "00u1", Some(Kind::Unreachable))).await), 1);
    house.wait_for_pause();
    assert!(
        !is_this_calls_alone(house.ask((okta::endpoints::USER, "00u1", Some(Kind::Unreachable))).await),
        "still away"
    );
    house.wait_for_pause();
    house.ask((okta::endpoints::LOG, "poller", None)).await.unwrap();
    assert!(
        is_this_calls_alone(house.ask((okta::endpoints::USER, "00u1", Some(Kind::Unreachable))).await),
        "this one alone"
    );
    assert_eq!(house.pause(), None);
    // Nothing was answered since: now it may be all of them.
    assert!(!is_this_calls_alone(house.ask((okta::endpoints::USER, "00u1", Some(Kind::Unreachable))).await));
}

#[tokio::test]
async fn what_is_forbidden_pauses_its_endpoint_and_a_token_that_is_not_given_out_everything() {
    let house = Gatehouse::new().await;
    assert_eq!(waits(house.ask((okta::endpoints::USERS, "00u1", Some(Kind::Forbidden))).await), 60);
    assert_eq!(house.breaker.open_for(&[okta::endpoints::USERS]), Some(60 * SECOND));
    assert_eq!(house.breaker.open_for(&[okta::endpoints::USER]), None);
    assert!(!house.reaches(okta::endpoints::USERS).await);
    assert!(house.reaches(okta::endpoints::USER).await);

    let token = || async { Err::<(), _>(Failure { endpoint: "POST /oauth2/v1/token", ..failure(Kind::Forbidden) }) };
    assert_eq!(waits(house.breaker.call(okta::endpoints::LOG, Priority::Live, "poller", token).await), 60);
    assert_eq!(house.breaker.open_for(&[]), Some(60 * SECOND));
}

#[tokio::test]
async fn a_request_that_is_refused_or_finds_nothing_is_answered_by_a_remote_that_is_well() {
    for kind in [Kind::NotFound, Kind::Rejected] {
        let house = Gatehouse::new().await;
        assert!(!is_this_calls_alone(house.ask((okta::endpoints::LOG, "poller", Some(Kind::Unreachable))).await));
        house.wait_for_pause();
        assert!(is_this_calls_alone(house.ask((okta::endpoints::LOG, "poller", Some(kind))).await));
        assert_eq!(house.breaker.open_for(&[okta::endpoints::LOG]), None);
        assert!(!house.row().await.is_failing());
    }
}

#[tokio::test]
async fn every_call_is_counted_once() {
    let house = Gatehouse::new().await;
    for _ in 0..3 {
        house.ask((okta::endpoints::LOG, "poller", None)).await.unwrap();
    }
    for _ in 0..2 {
        let _ = house.ask((okta::endpoints::USER, "00u1", Some(Kind::NotFound))).await;
    }
    assert!(house.breaker.call_best_effort(okta::endpoints::ORG, || async { Ok(()) }).await.is_ok());
    assert!(
        house
            .breaker
            .call_best_effort(okta::endpoints::ORG, || async { Err::<(), _>(failure(Kind::Server)) })
            .await
            .is_err()
    );
    assert_eq!(house.breaker.counts(), Counts { ok: 4, failed: [(Kind::NotFound, 2), (Kind::Server, 1)].into() });
}

#[tokio::test]
async fn an_outage_is_told_once_when_it_begins_and_once_when_it_is_over() {
    let house = Gatehouse::new().await;
    let heard = Heard::new();
    for _ in 0..3 {
        assert!(house.ask((okta::endpoints::LOG, "poller", Some(Kind::Unreachable))).await.is_err());
        house.wait_for_pause();
    }
    assert_eq!(heard.count("remote_down"), 1);
    house.clock.advance(10 * SECOND);
    house.ask((okta::endpoints::LOG, "poller", None)).await.unwrap();
    assert_eq!(heard.count("remote_back"), 1);
    assert!(heard.text().contains("failures=3"), "{}", heard.text());
    house.ask((okta::endpoints::LOG, "poller", None)).await.unwrap();
    assert_eq!(heard.count("remote_back"), 1);
    // The next one counts anew.
    assert!(house.ask((okta::endpoints::USER, "00u1", Some(Kind::Unauthorized))).await.is_err());
    house.wait_for_pause();
    house.ask((okta::endpoints::USER, "00u1", None)).await.unwrap();
    assert_eq!((heard.count("remote_refuses"), heard.count("remote_back")), (1, 2));
    assert!(heard.text().contains("failures=1"), "{}", heard.text());
}

#[tokio::test]
async fn one_users_failures_begin_no_outage() {
    let house = Gatehouse::new().await;
    let heard = Heard::new();
    assert!(is_this_calls_alone(house.ask((okta::endpoints::USER, "00u1", Some(Kind::Server))).await));
    assert_eq!(heard.count("remote_down"), 0);
    house.clock.advance(2 * ALARM_AFTER);
    assert!(is_this_calls_alone(house.ask((okta::endpoints::USER, "00u1", Some(Kind::Server))).await));
    assert!(house.alarms().await.is_empty());
    // It is seen in the state, though, until something is answered.
    assert_eq!(house.row().await.error_kind.as_deref(), Some("server error"));
}

#[tokio::test]
async fn the_same_error_is_written_down_every_half_minute_and_another_one_at_once() {
    let house = Gatehouse::new().await;
    let unreachable = (okta::endpoints::LOG, "poller", Some(Kind::Unreachable));
    assert!(house.ask(unreachable).await.is_err());
    let first = house.row().await.error_at;
    house.clock.advance(NOTE_EVERY - SECOND);
    assert!(house.ask(unreachable).await.is_err());
    assert_eq!(house.row().await.error_at, first);
    house.wait_for_pause();
    house.clock.advance(SECOND);
    assert!(house.ask(unreachable).await.is_err());
    let second = house.row().await.error_at;
    assert!(second > first);
    house.wait_for_pause();
    assert!(house.ask((okta::endpoints::LOG, "poller", Some(Kind::Unauthorized))).await.is_err());
    assert!(house.row().await.error_at > second);
    assert_eq!(house.row().await.error_kind.as_deref(), Some("unauthorized"));
}

#[tokio::test]
async fn a_refusal_is_an_alarm_at_once_and_an_outage_when_it_has_lasted_a_minute() {
    let house = Gatehouse::new().await;
    let unreachable = (okta::endpoints::LOG, "poller", Some(Kind::Unreachable));
    assert!(house.ask(unreachable).await.is_err());
    house.clock.advance(ALARM_AFTER - SECOND);
    assert!(house.ask(unreachable).await.is_err());
    assert!(house.alarms().await.is_empty());
    house.wait_for_pause();
    house.clock.advance(SECOND);
    assert!(house.ask(unreachable).await.is_err());
    assert_eq!(house.alarms().await, ["remote_down"]);
    house.wait_for_pause();
    assert!(house.ask((okta::endpoints::LOG, "poller", Some(Kind::Unauthorized))).await.is_err());
    assert_eq!(house.alarms().await, ["remote_down", "remote_refuses"]);
    house.wait_for_pause();
    house.ask((okta::endpoints::LOG, "poller", None)).await.unwrap();
    assert!(house.alarms().await.is_empty());
}

#[tokio::test]
async fn while_one_endpoint_is_refused_the_remote_is_not_said_to_be_well() {
    let house = Gatehouse::new().await;
    assert!(house.ask((okta::endpoints::USERS, "00u1", Some(Kind::Forbidden))).await.is_err());
    house.clock.advance(SECOND);
    house.ask((okta::endpoints::LOG, "poller", None)).await.unwrap();
    assert!(house.row().await.is_failing());
    assert_eq!(house.alarms().await, ["remote_refuses"]);
    house.clock.advance(REFUSED_PROBE);
    house.ask((okta::endpoints::USERS, "00u1", None)).await.unwrap();
    assert!(!house.row().await.is_failing());
    assert!(house.alarms().await.is_empty());
}

#[tokio::test]
async fn the_first_answer_of_a_life_ends_what_the_last_life_left_and_later_ones_write_nothing() {
    let house = Gatehouse::new().await;
    let error = RemoteError { remote: "okta", kind: "timed out", text: "left behind" };
    house.store.note_remote_error(error, house.clock.now()).await.unwrap();
    let alarm = |kind| Alarm {
        momentary: false,
        kind,
        subject: "okta".to_owned(),
        detail: "left behind".to_owned(),
        remedy: String::new(),
    };
    for kind in [AlarmKind::RemoteDown, AlarmKind::RemoteRefuses] {
        house.store.raise_alarm(&alarm(kind), house.clock.now()).await.unwrap();
    }
    house.clock.advance(SECOND);
    house.ask((okta::endpoints::LOG, "poller", None)).await.unwrap();
    let first = house.row().await;
    assert!(!first.is_failing());
    assert!(house.alarms().await.is_empty());

    house.clock.advance(SECOND);
    house.ask((okta::endpoints::LOG, "poller", None)).await.unwrap();
    assert_eq!(house.row().await.ok_at, first.ok_at, "nothing to tell");
    // What somebody else raises meanwhile is not ours to end without an outage of ours.
    house.store.raise_alarm(&alarm(AlarmKind::RemoteDown), house.clock.now()).await.unwrap();
    assert!(house.ask((okta::endpoints::LOG, "poller", Some(Kind::Unreachable))).await.is_err());
    house.wait_for_pause();
    house.ask((okta::endpoints::LOG, "poller", None)).await.unwrap();
    assert!(house.row().await.ok_at > first.ok_at);
    assert_eq!(house.alarms().await, ["remote_down"]);
}

//! Tests the pacer on a manual clock against servers written from the remotes' documentation alone.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::domain::{ManualClock, clock};

mod load;

use load::{Load, Reply, Server, TokenServer, WindowServer, epoch, headers, ms, s, unix};

const HALF: Shares = Shares { ours: 0.5, reconcile: 0.25 };

fn random() -> fastrand::Rng {
    fastrand::Rng::with_seed(7)
}

fn auth0(ours: f64) -> State {
    State::auth0(Shares { ours, reconcile: 0.25 }, random())
}

fn okta(ours: f64) -> State {
    State::okta(Shares { ours, reconcile: 0.25 }, random())
}

#[test]
fn auth0_plans_reach_our_share_without_429() {
    // Free; Enterprise production; Enterprise non-production; Professional reads and writes (Auth0 docs: Rate Limit
    // Configurations).
    for (size, refill) in [(2, 2.0), (50, 16.0), (10, 2.0), (40, 500.0 / 60.0), (20, 200.0 / 60.0)] {
        for (workers, latency) in [(1, ms(20)), (4, ms(80))] {
            let mut server = TokenServer::new(size, refill);
            let mut load = Load::new(auth0(0.8), Bucket::Auth0Read, &vec![Priority::Live; workers], latency);
            let learning = load.run(s(180), &mut server);
            assert_eq!(learning.refused, 0, "size {size}, refill {refill}, {workers} workers: while learning");
            // An hour covers several relearning phases.
            let known = load.run(s(3600), &mut server);
            let share = known.rate(s(3600)) / (0.8 * refill);
            assert_eq!(known.refused, 0, "size {size}, refill {refill}, {workers} workers");
            // One worker cannot do more calls than its latency allows.
            assert!(
                (0.95..1.06).contains(&share),
                "size {size}, refill {refill}, {workers} workers: {share:.3} of our share"
            );
            let reserve = (f64::from(size) * 0.2).min(f64::from(size) - 1.0);
            assert!(server.lowest >= reserve - 0.01, "size {size}: only {} were left to other clients", server.lowest);
        }
    }
}

/// Makes three sequential calls for one user per `every`, for half an hour; returns the longest time a user took.
fn trickle(state: &mut State, server: &mut TokenServer, from: Duration, every: Duration) -> Duration {
    let (mut now, mut latest) = (from, Duration::ZERO);
    for user in 0..1800 / u32::try_from(every.as_secs()).unwrap() {
        let due_at = from + every * user;
        now = now.max(due_at);
        for _ in 0..3 {
            let (ticket, began) = (state.enqueue(Bucket::Auth0Read, Priority::Live), now);
            let meter = loop {
                match state.admit(ticket, began, now) {
                    Admission::Granted { meter } => break meter,
                    Admission::Wait(span) => now += span,
                    Admission::WaitForChange => panic!("no call is in flight"),
                }
            };
            let start = state.start_request(Bucket::Auth0Read, now);
            now += ms(10);
            let (status, headers) = server.call(now);
            assert!(status.is_success(), "refused");
            let rate_limit = RateLimitHeaders::read(status, &headers, clock::add(epoch(), now));
            now += ms(10);
            state.record_response(Bucket::Auth0Read, start, rate_limit, now);
            state.release(meter);
        }
        latest = latest.max(now - due_at);
    }
    latest
}

#[test]
fn demand_below_the_share_is_not_delayed() {
    for (size, refill, every, late) in
        [(50, 16.0, s(1), ms(200)), (40, 500.0 / 60.0, s(1), ms(200)), (10, 2.0, s(4), s(2)), (2, 2.0, s(4), s(4))]
    {
        let latest = trickle(&mut auth0(0.8), &mut TokenServer::new(size, refill), Duration::ZERO, every);
        assert!(latest <= late, "size {size}, refill {refill}: a user took {latest:?}");
    }
}

#[test]
fn idle_reconcile_does_not_delay_live_calls() {
    let mut server = TokenServer::new(50, 16.0);
    // The latency limits the workers to ten calls a second.
    let mut load = Load::new(auth0(0.8), Bucket::Auth0Read, &[Priority::Reconcile; 4], ms(400));
    load.run(s(300), &mut server);
    let alone = load.run(s(3600), &mut server);
    assert!(alone.rate(s(3600)) <= 16.0 * 0.8 * 0.25 * 1.05, "{alone:?}");

    // A reconcile with few calls, followed by live work that needs more than was measured.
    let mut load = Load::new(auth0(0.8), Bucket::Auth0Read, &[Priority::Reconcile], s(1));
    let mut server = TokenServer::new(50, 16.0);
    load.run(s(300), &mut server);
    let from = load.now;
    let latest = trickle(&mut load.state, &mut server, from, s(1));
    assert!(latest <= s(2), "a user took {latest:?}");
}

#[test]
fn stepwise_refill_is_learned() {
    let mut server = TokenServer { step: Some(s(1)), ..TokenServer::new(10, 2.0) };
    let mut load = Load::new(auth0(0.8), Bucket::Auth0Read, &[Priority::Live; 4], ms(50));
    load.run(s(180), &mut server);
    let known = load.run(s(3600), &mut server);
    assert_eq!(known.refused, 0);
    assert!(known.rate(s(3600)) >= 0.9 * 1.6, "{:.2} calls a second", known.rate(s(3600)));
}

#[test]
fn bucket_drained_by_others_causes_no_storm() {
    struct Crowded(TokenServer);
    impl Server for Crowded {
        fn call(&mut self, now: Duration) -> Reply {
            // Another client takes all tokens.
            self.0.call(now);
            self.0.level = 0.0;
            self.0.call(now)
        }
    }
    let mut load = Load::new(auth0(0.8), Bucket::Auth0Read, &[Priority::Live; 8], ms(50));
    let tally = load.run(s(600), &mut Crowded(TokenServer::new(2, 2.0)));
    assert_eq!(tally.live, 0);
    assert!((8..=600).contains(&tally.refused), "{tally:?}: at most one per second, and never none");
}

#[test]
fn plan_changes_are_relearned() {
    let mut load = Load::new(auth0(0.8), Bucket::Auth0Read, &[Priority::Live; 4], ms(50));
    load.run(s(300), &mut TokenServer::new(10, 8.0));
    let mut slow = TokenServer { at: load.now, ..TokenServer::new(10, 2.0) };
    load.run(s(1200), &mut slow);
    let tally = load.run(s(600), &mut slow);
    assert!(tally.refused <= 3, "{tally:?}");
    let mut fast = TokenServer { at: load.now, ..TokenServer::new(10, 8.0) };
    load.run(s(1200), &mut fast);
    let tally = load.run(s(600), &mut fast);
    assert!(tally.rate(s(600)) >= 0.95 * 0.8 * 8.0, "{tally:?}");
}

#[test]
fn reconcile_keeps_to_its_share() {
    let mut server = TokenServer::new(50, 16.0);
    let mut load = Load::new(auth0(0.8), Bucket::Auth0Read, &[Priority::Reconcile; 4], ms(20));
    load.run(s(300), &mut server);
    let alone = load.run(s(3600), &mut server);
    assert!(alone.rate(s(3600)) <= 16.0 * 0.8 * 0.25 * 1.05, "{alone:?}");
    assert!(alone.rate(s(3600)) >= 1.0, "{alone:?}");

    let both = [[Priority::Live; 4], [Priority::Reconcile; 4]].concat();
    let mut server = TokenServer::new(2, 2.0);
    let mut load = Load::new(auth0(0.8), Bucket::Auth0Read, &both, ms(20));
    load.run(s(300), &mut server);
    let mixed = load.run(s(600), &mut server);
    assert_eq!(mixed.reconcile, 0, "live work that never ends leaves nothing: {mixed:?}");
}

#[test]
fn buckets_with_equal_limits_share_a_meter() {
    let mut state = auth0(0.8);
    let answer = |limit: i64| {
        let headers = headers(Duration::ZERO, &[("x-ratelimit-limit", limit), ("x-ratelimit-remaining", limit - 1)]);
        RateLimitHeaders::read(StatusCode::OK, &headers, epoch())
    };
    for bucket in [Bucket::Auth0Read, Bucket::Auth0Write] {
        let start = state.start_request(bucket, Duration::ZERO);
        state.record_response(bucket, start, answer(2), ms(10));
    }
    let start = state.start_request(Bucket::Auth0Other, Duration::ZERO);
    state.record_response(Bucket::Auth0Other, start, answer(10), ms(10));
    let meter = |state: &mut State, bucket| {
        let ticket = state.enqueue(bucket, Priority::Live);
        match state.admit(ticket, ms(10), s(60)) {
            Admission::Granted { meter } => meter,
            wait => panic!("{bucket:?}: {wait:?}"),
        }
    };
    let read = meter(&mut state, Bucket::Auth0Read);
    state.release(read);
    assert_eq!(read, meter(&mut state, Bucket::Auth0Write));
    assert_ne!(read, meter(&mut state, Bucket::Auth0Other));
}

#[test]
fn okta_windows_reach_our_share_without_429() {
    for limit in [1, 2, 10, 50, 600] {
        for (workers, latency) in [(1, ms(50)), (4, ms(200))] {
            let mut server = WindowServer { limit, spent: 0, ends_at: Duration::ZERO };
            let mut load = Load::new(okta(0.9), Bucket::OktaUser, &vec![Priority::Live; workers], latency);
            let tally = load.run(s(3600), &mut server);
            assert_eq!(tally.refused, 0, "limit {limit}, {workers} workers");
            let ours = limit - ((f64::from(limit) * 0.1).ceil() as u32).min(limit - 1);
            // The reset is truncated to seconds on both sides: a window takes up to 62 s.
            let least = ours * (3600 / 62);
            let most = ours * (3600 / 60 + 2);
            assert!((least..=most).contains(&tally.live), "limit {limit}: {tally:?}, expected {least} to {most}");
        }
    }
}

#[test]
fn reconcile_leaves_most_of_a_window_to_others() {
    let mut server = WindowServer { limit: 100, spent: 0, ends_at: Duration::ZERO };
    let mut load = Load::new(okta(0.9), Bucket::OktaUser, &[Priority::Reconcile; 4], ms(50));
    let tally = load.run(s(600), &mut server);
    assert_eq!(tally.refused, 0);
    assert!((22 * 9..=23 * 11).contains(&tally.reconcile), "{tally:?}: a quarter of ninety a window");
}

#[test]
fn pause_after_429_is_as_asked_and_bounded() {
    type Case = (&'static str, &'static [(&'static str, i64)], u64, u64);
    let cases: [Case; 7] = [
        (
            "Okta, reset ahead",
            &[("x-rate-limit-limit", 50), ("x-rate-limit-remaining", 0), ("x-rate-limit-reset", 30)],
            30_000,
            32_000,
        ),
        (
            "Okta, reset far ahead",
            &[("x-rate-limit-limit", 50), ("x-rate-limit-remaining", 0), ("x-rate-limit-reset", 9999)],
            60_000,
            70_000,
        ),
        (
            "Okta, reset in the past",
            &[("x-rate-limit-limit", 50), ("x-rate-limit-remaining", 0), ("x-rate-limit-reset", -5)],
            1_000,
            7_000,
        ),
        ("Okta, no time given", &[], 1_000, 7_000),
        (
            "Okta, too many concurrent calls",
            &[("x-rate-limit-limit", 0), ("x-rate-limit-remaining", 0), ("x-rate-limit-reset", 50)],
            500,
            2_000,
        ),
        ("Retry-After", &[("retry-after", 50)], 50_000, 51_000),
        ("a long Retry-After is probed", &[("retry-after", 999_999)], 60_000, 61_000),
    ];
    for (name, pairs, least, most) in cases {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(name, value)| (*name, if name.ends_with("reset") { unix(Duration::ZERO) + value } else { *value }))
            .collect();
        let rate_limit =
            RateLimitHeaders::read(StatusCode::TOO_MANY_REQUESTS, &headers(Duration::ZERO, &pairs), epoch());
        let mut state = okta(0.9);
        let start = state.start_request(Bucket::OktaUser, Duration::ZERO);
        state.record_response(Bucket::OktaUser, start, rate_limit, Duration::ZERO);
        let ticket = state.enqueue(Bucket::OktaUser, Priority::Live);
        let mut now = Duration::ZERO;
        while let Admission::Wait(span) = state.admit(ticket, Duration::ZERO, now) {
            now += span;
            assert!(now <= s(4000), "{name}: unbounded");
        }
        assert!((ms(least)..=ms(most)).contains(&now), "{name}: {now:?}");
    }
}

#[test]
fn long_retry_after_is_probed_ever_less_often() {
    struct Wall;
    impl Server for Wall {
        fn call(&mut self, _: Duration) -> Reply {
            (StatusCode::TOO_MANY_REQUESTS, headers(Duration::ZERO, &[("retry-after", 86_400)]))
        }
    }
    for state in [okta(0.9), auth0(0.8)] {
        let mut load = Load::new(state, Bucket::OktaLog, &[Priority::Live; 6], ms(50));
        let tally = load.run(s(3600), &mut Wall);
        assert!((6..=8).contains(&tally.refused), "after 1, 3, 7, 15, 31 and 63 minutes: {tally:?}");
    }
}

#[test]
fn pauses_grow_when_429_names_no_time() {
    struct Wall;
    impl Server for Wall {
        fn call(&mut self, _: Duration) -> Reply {
            (StatusCode::TOO_MANY_REQUESTS, HeaderMap::new())
        }
    }
    for state in [okta(0.9), auth0(0.8)] {
        let mut load = Load::new(state, Bucket::OktaLog, &[Priority::Live; 6], ms(50));
        let tally = load.run(s(3600), &mut Wall);
        assert!((45..=90).contains(&tally.refused), "{tally:?}");
    }
}

#[test]
fn concurrency_error_halves_in_flight_limit() {
    let mut state = okta(0.9);
    let answer = |state: &mut State, status, limit: i64| {
        let pairs = [("x-rate-limit-limit", limit), ("x-rate-limit-remaining", limit), ("x-rate-limit-reset", 0)];
        let rate_limit = RateLimitHeaders::read(status, &headers(Duration::ZERO, &pairs), epoch());
        let start = state.start_request(Bucket::OktaUser, Duration::ZERO);
        state.record_response(Bucket::OktaUser, start, rate_limit, Duration::ZERO);
    };
    let grants = |state: &mut State| {
        let mut meters = Vec::new();
        loop {
            let ticket = state.enqueue(Bucket::OktaUser, Priority::Live);
            match state.admit(ticket, s(10), s(10)) {
                Admission::Granted { meter } => meters.push(meter),
                Admission::Wait(_) | Admission::WaitForChange => {
                    state.dequeue(ticket);
                    return meters;
                }
            }
        }
    };
    answer(&mut state, StatusCode::OK, 1000);
    let all = grants(&mut state);
    assert_eq!(all.len(), 16);
    answer(&mut state, StatusCode::TOO_MANY_REQUESTS, 0);
    all.into_iter().for_each(|meter| state.release(meter));
    let half = grants(&mut state);
    assert_eq!(half.len(), 8);
    half.into_iter().for_each(|meter| state.release(meter));
    for _ in 0..9 {
        answer(&mut state, StatusCode::OK, 1000);
    }
    assert_eq!(grants(&mut state).len(), 9);
}

/// Rate-limit headers with arbitrary values.
fn arbitrary_headers() -> impl Strategy<Value = Vec<(&'static str, i64)>> {
    let name = prop::sample::select(vec![
        "x-rate-limit-limit",
        "x-rate-limit-remaining",
        "x-rate-limit-reset",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "retry-after",
    ]);
    let value = prop_oneof![
        0_i64..5,
        0_i64..5000,
        any::<i64>(),
        (-100_i64..100).prop_map(|offset| unix(Duration::ZERO) + offset)
    ];
    prop::collection::vec((name, value), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_learned_bucket_gets_no_429(
        size in 2_u32..60, per_minute in 20_u32..1200, workers in 1_usize..6, latency in 1_u64..300
    ) {
        let mut server = TokenServer::new(size, f64::from(per_minute) / 60.0);
        let mut load = Load::new(auth0(0.8), Bucket::Auth0Read, &vec![Priority::Live; workers], ms(latency));
        load.run(s(300), &mut server);
        let tally = load.run(s(900), &mut server);
        prop_assert_eq!(tally.refused, 0);
        // The refill, plus what the bucket may have held at the start.
        prop_assert!(f64::from(tally.live) <= f64::from(per_minute) * 15.0 * 1.01 + f64::from(size));
        prop_assert!(tally.live > 0);
    }

    #[test]
    fn arbitrary_headers_cause_no_spin_or_hang(
        replies in prop::collection::vec((any::<bool>(), arbitrary_headers()), 1..40), is_okta: bool
    ) {
        struct Scripted(Vec<(bool, Vec<(&'static str, i64)>)>, usize);
        impl Server for Scripted {
            fn call(&mut self, now: Duration) -> Reply {
                let (is_refused, pairs) = &self.0[self.1 % self.0.len()];
                self.1 += 1;
                (if *is_refused { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::OK }, headers(now, pairs))
            }
        }
        let (state, bucket) = if is_okta { (okta(0.9), Bucket::OktaUser) } else { (auth0(0.8), Bucket::Auth0Read) };
        let mut load = Load::new(state, bucket, &[Priority::Live, Priority::Reconcile], ms(20));
        let mut server = Scripted(replies, 0);
        load.run(s(1800), &mut server);
        prop_assert!(server.1 > 0);
        // Each poll belongs to a call or ends a wait of at least 5 ms.
        prop_assert!(load.polls <= 1800 * 1000 / 5 * 2);
        for snapshot in load.state.snapshot(load.now) {
            prop_assert!(snapshot.remaining <= snapshot.limit);
        }
    }
}

#[test]
fn late_lower_limit_caps_remaining() {
    let mut state = okta(0.9);
    let mut answer = |status, pairs: &[(&'static str, i64)]| {
        let rate_limit = RateLimitHeaders::read(status, &headers(Duration::ZERO, pairs), epoch());
        let start = state.start_request(Bucket::OktaUser, Duration::ZERO);
        state.record_response(Bucket::OktaUser, start, rate_limit, Duration::ZERO);
        state.snapshot(Duration::ZERO).remove(0)
    };
    let window = |limit, remaining, reset| {
        [
            ("x-rate-limit-limit", limit),
            ("x-rate-limit-remaining", remaining),
            ("x-rate-limit-reset", unix(Duration::ZERO) + reset),
        ]
    };
    assert_eq!(answer(StatusCode::OK, &window(600, 600, 60)).remaining, Some(600));
    // Refused in the previous window, with a limit that has been lowered since.
    let snapshot = answer(StatusCode::TOO_MANY_REQUESTS, &window(1, 0, -10));
    assert_eq!((snapshot.limit, snapshot.remaining), (Some(1), Some(1)));
}

#[test]
fn slow_response_begins_no_new_window() {
    let mut state = okta(0.9);
    let mut call = |priority, sent: Duration, received: Duration, remaining: i64| {
        let ticket = state.enqueue(Bucket::OktaUser, priority);
        let Admission::Granted { meter } = state.admit(ticket, sent, sent) else { return false };
        let start = state.start_request(Bucket::OktaUser, sent);
        // The remote answers when it gets the request: the window ends 60 s after the first one.
        let pairs = [
            ("x-rate-limit-limit", 10),
            ("x-rate-limit-remaining", remaining),
            ("x-rate-limit-reset", unix(Duration::ZERO) + 60),
        ];
        let rate_limit = RateLimitHeaders::read(StatusCode::OK, &headers(sent, &pairs), epoch());
        state.record_response(Bucket::OktaUser, start, rate_limit, received);
        state.release(meter);
        true
    };
    assert!(call(Priority::Live, s(0), s(0), 9));
    assert!(call(Priority::Reconcile, s(1), s(9), 8));
    assert!(call(Priority::Reconcile, s(10), s(18), 7));
    assert!(!call(Priority::Reconcile, s(19), s(27), 6), "a third reconcile call in one window");
}

#[test]
fn one_call_probes_auth0_after_429() {
    let mut state = auth0(0.8);
    let mut refused = |now: Duration| {
        let pairs = [("x-ratelimit-limit", 50), ("x-ratelimit-remaining", 0), ("x-ratelimit-reset", unix(now) + 1)];
        let rate_limit = RateLimitHeaders::read(
            StatusCode::TOO_MANY_REQUESTS,
            &headers(now, &pairs),
            crate::domain::clock::add(epoch(), now),
        );
        let start = state.start_request(Bucket::Auth0Read, now);
        state.record_response(Bucket::Auth0Read, start, rate_limit, now);
        let tickets = [0, 1].map(|_| state.enqueue(Bucket::Auth0Read, Priority::Live));
        let mut later = now;
        let meter = loop {
            match state.admit(tickets[0], now, later) {
                Admission::Granted { meter } => break meter,
                Admission::Wait(span) => later += span,
                Admission::WaitForChange => panic!("no call is in flight"),
            }
        };
        // One call, and no second before its response.
        assert!(!matches!(state.admit(tickets[1], later, later), Admission::Granted { .. }));
        state.dequeue(tickets[1]);
        state.release(meter);
        later
    };
    let mut now = Duration::ZERO;
    let mut waits = Vec::new();
    for _ in 0..8 {
        let later = refused(now);
        waits.push((later - now).as_secs());
        now = later;
    }
    assert_eq!(waits[..6], [1, 2, 4, 8, 16, 32], "the reset is that of the next token, which other clients want too");
    assert!(waits[6..].iter().all(|wait| (64..=77).contains(wait)), "{waits:?}");
}

#[test]
fn huge_empty_bucket_is_probed_each_minute() {
    let mut state = auth0(0.8);
    let pairs = [("x-ratelimit-limit", i64::from(u32::MAX)), ("x-ratelimit-remaining", 0)];
    let mut now = Duration::ZERO;
    for _ in 0..3 {
        let rate_limit = RateLimitHeaders::read(StatusCode::OK, &headers(now, &pairs), epoch());
        let start = state.start_request(Bucket::Auth0Read, now);
        state.record_response(Bucket::Auth0Read, start, rate_limit, now);
        let tickets = [0, 1].map(|_| state.enqueue(Bucket::Auth0Read, Priority::Live));
        let Admission::Wait(span) = state.admit(tickets[0], now, now) else { panic!("the bucket is empty") };
        assert_eq!(span, s(70));
        now += span;
        let Admission::Granted { meter } = state.admit(tickets[0], now, now) else { panic!("one call probes") };
        assert!(!matches!(state.admit(tickets[1], now, now), Admission::Granted { .. }), "only one call probes");
        state.dequeue(tickets[1]);
        state.release(meter);
    }
}

#[test]
fn small_bucket_waits_for_response_not_time() {
    let mut state = auth0(0.8);
    let pairs = [("x-ratelimit-limit", 2), ("x-ratelimit-remaining", 1)];
    let rate_limit = RateLimitHeaders::read(StatusCode::OK, &headers(Duration::ZERO, &pairs), epoch());
    let start = state.start_request(Bucket::Auth0Read, Duration::ZERO);
    state.record_response(Bucket::Auth0Read, start, rate_limit, Duration::ZERO);
    let tickets = [0, 1].map(|_| state.enqueue(Bucket::Auth0Read, Priority::Live));
    let Admission::Granted { meter } = state.admit(tickets[0], s(60), s(60)) else { panic!("the bucket is full") };
    assert_eq!(
        state.admit(tickets[1], s(60), s(600)),
        Admission::WaitForChange,
        "two calls and the reserve need 2.4 tokens of 2"
    );
    state.release(meter);
    assert!(matches!(state.admit(tickets[1], s(60), s(600)), Admission::Granted { .. }));
}

fn pacer(shares: Shares) -> (Arc<ManualClock>, Pacer) {
    (Arc::new(ManualClock::new(epoch())), Pacer::okta(shares))
}

fn reply(pacer: &Pacer, clock: &ManualClock, limit: i64, remaining: i64) {
    let pairs = [
        ("x-rate-limit-limit", limit),
        ("x-rate-limit-remaining", remaining),
        ("x-rate-limit-reset", unix(clock.monotonic()) + 30),
    ];
    let headers = headers(clock.monotonic(), &pairs);
    pacer.start_request(Bucket::OktaUser, clock).record_response(StatusCode::OK, &headers, clock);
}

fn acquire(
    pacer: &Pacer,
    clock: &Arc<ManualClock>,
    priority: Priority,
    order: &Arc<Mutex<Vec<Priority>>>,
) -> tokio::task::JoinHandle<Permit> {
    let (pacer, clock, order) = (pacer.clone(), clock.clone(), order.clone());
    tokio::spawn(async move {
        let permit = pacer.acquire(Bucket::OktaUser, priority, clock.as_ref()).await;
        order.lock().unwrap().push(priority);
        permit
    })
}

/// Lets all tasks run until they wait.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn live_calls_overtake_queued_reconcile_calls() {
    let (clock, pacer) = pacer(HALF);
    reply(&pacer, &clock, 4, 2);
    let order = Arc::default();
    let reconcile = acquire(&pacer, &clock, Priority::Reconcile, &order);
    settle().await;
    let live = acquire(&pacer, &clock, Priority::Live, &order);
    settle().await;
    assert!(!reconcile.is_finished() && !live.is_finished(), "the window is spent");
    clock.advance(s(31));
    let _permits = (live.await.unwrap(), reconcile.await.unwrap());
    assert_eq!(*order.lock().unwrap(), [Priority::Live, Priority::Reconcile]);
    let snapshot = &pacer.snapshot(clock.as_ref())[0];
    assert_eq!((snapshot.waits, snapshot.waited, snapshot.in_flight), (2, s(62), 2));
}

#[tokio::test]
async fn long_wait_sends_a_heartbeat_each_second() {
    let (clock, pacer) = pacer(HALF);
    reply(&pacer, &clock, 4, 2);
    let heartbeats = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let waiting = tokio::spawn({
        let (clock, pacer, heartbeats) = (clock.clone(), pacer.clone(), heartbeats.clone());
        async move {
            let on_wait = || {
                heartbeats.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            };
            pacer.acquire_with_heartbeat(Bucket::OktaUser, Priority::Live, clock.as_ref(), on_wait).await
        }
    });
    settle().await;
    for second in 1..=20 {
        let before = heartbeats.load(std::sync::atomic::Ordering::Relaxed);
        clock.advance(s(1));
        settle().await;
        assert!(heartbeats.load(std::sync::atomic::Ordering::Relaxed) > before, "no heartbeat in second {second}");
        assert!(!waiting.is_finished(), "the window is spent");
    }
    clock.advance(s(11));
    let _permit = waiting.await.unwrap();
}

#[tokio::test]
async fn first_response_wakes_waiters() {
    let (clock, pacer) = pacer(HALF);
    let order = Arc::default();
    let first = pacer.acquire(Bucket::OktaUser, Priority::Live, clock.as_ref()).await;
    let second = acquire(&pacer, &clock, Priority::Live, &order);
    settle().await;
    assert!(!second.is_finished(), "one at a time until the limit is known");
    reply(&pacer, &clock, 10, 9);
    let _second = second.await.unwrap();
    drop(first);
}

#[tokio::test]
async fn cancelled_waiter_does_not_block_others() {
    let (clock, pacer) = pacer(HALF);
    let order = Arc::default();
    let permit = pacer.acquire(Bucket::OktaUser, Priority::Live, clock.as_ref()).await;
    let given_up = acquire(&pacer, &clock, Priority::Live, &order);
    let reconcile = acquire(&pacer, &clock, Priority::Reconcile, &order);
    settle().await;
    drop(permit);
    given_up.abort();
    let _ = given_up.await;
    let _reconcile = reconcile.await.unwrap();
}

#[test]
fn call_counted_in_two_buckets_gets_no_429() {
    struct Both(TokenServer, TokenServer, u32);
    impl Server for Both {
        fn call(&mut self, now: Duration) -> Reply {
            self.2 += 1;
            if self.2.is_multiple_of(2) { self.0.call(now) } else { self.1.call(now) }
        }
    }
    let mut server = Both(TokenServer::new(40, 8.0), TokenServer::new(10, 2.5), 0);
    let mut load = Load::new(auth0(0.8), Bucket::Auth0Read, &[Priority::Live; 4], ms(50));
    load.run(s(300), &mut server);
    let tally = load.run(s(900), &mut server);
    assert_eq!(tally.refused, 0);
    assert!(tally.rate(s(900)) >= 1.0, "{tally:?}");
}

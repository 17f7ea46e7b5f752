//! The pacer against servers that are written here from the remotes' documentation alone, on a clock of our own.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::domain::{ManualClock, clock};

mod load;

use load::{Load, Reply, Server, TokenServer, WindowServer, epoch, headers, ms, s, unix};

const HALF: Shares = Shares { ours: 0.5, sweeps: 0.25 };

fn random() -> fastrand::Rng {
    fastrand::Rng::with_seed(7)
}

fn auth0(ours: f64) -> State {
    State::auth0(Shares { ours, sweeps: 0.25 }, random())
}

fn okta(ours: f64) -> State {
    State::okta(Shares { ours, sweeps: 0.25 }, random())
}

#[test]
fn published_plans_of_auth0_are_used_to_our_share_without_a_refusal() {
    // Free; Enterprise production; Enterprise non-production; Professional reads and writes (Auth0 docs: Rate Limit
    // Configurations).
    for (size, refill) in [(2, 2.0), (50, 16.0), (10, 2.0), (40, 500.0 / 60.0), (20, 200.0 / 60.0)] {
        for (workers, latency) in [(1, ms(20)), (4, ms(80))] {
            let mut server = TokenServer::new(size, refill);
            let mut load = Load::new(auth0(0.8), Bucket::Auth0Read, &vec![Priority::Live; workers], latency);
            let learning = load.run(s(180), &mut server);
            assert_eq!(learning.refused, 0, "size {size}, refill {refill}, {workers} workers: while learning");
            // It takes an hour, in which what was learned is learned again several times.
            let known = load.run(s(3600), &mut server);
            let share = known.rate(s(3600)) / (0.8 * refill);
            assert_eq!(known.refused, 0, "size {size}, refill {refill}, {workers} workers");
            // One worker cannot do more calls than its latency allows.
            assert!(
                (0.95..1.06).contains(&share),
                "size {size}, refill {refill}, {workers} workers: {share:.3} of our share"
            );
            let reserve = (f64::from(size) * 0.2).min(f64::from(size) - 1.0);
            assert!(server.lowest >= reserve - 0.01, "size {size}: only {} were left to others", server.lowest);
        }
    }
}

/// A person every so often, for whom three calls are made one after the other, for half an hour; answers how long after
/// they came the latest was done.
fn trickle(state: &mut State, server: &mut TokenServer, from: Duration, every: Duration) -> Duration {
    let (mut now, mut latest) = (from, Duration::ZERO);
    for person in 0..1800 / u32::try_from(every.as_secs()).unwrap() {
        let came = from + every * person;
        now = now.max(came);
        for _ in 0..3 {
            let (ticket, began) = (state.enqueue(Bucket::Auth0Read, Priority::Live), now);
            let meter = loop {
                match state.admit(ticket, began, now) {
                    Admission::Granted { meter } => break meter,
                    Admission::Wait(span) => now += span,
                    Admission::WaitForChange => panic!("nothing is under way"),
                }
            };
            let departure = state.start_request(Bucket::Auth0Read, now);
            now += ms(10);
            let (status, headers) = server.call(now);
            assert!(status.is_success(), "refused");
            let advice = RateLimitHeaders::read(status, &headers, clock::add(epoch(), now));
            now += ms(10);
            state.record_response(Bucket::Auth0Read, departure, advice, now);
            state.release(meter);
        }
        latest = latest.max(now - came);
    }
    latest
}

#[test]
fn who_needs_less_than_the_share_is_not_held_back_however_long_it_goes_on() {
    for (size, refill, every, late) in
        [(50, 16.0, s(1), ms(200)), (40, 500.0 / 60.0, s(1), ms(200)), (10, 2.0, s(4), s(2)), (2, 2.0, s(4), s(4))]
    {
        let latest = trickle(&mut auth0(0.8), &mut TokenServer::new(size, refill), Duration::ZERO, every);
        assert!(latest <= late, "size {size}, refill {refill}: somebody was done {latest:?} after they came");
    }
}

#[test]
fn sweeps_that_need_not_wait_keep_to_their_part_and_hold_nobody_back() {
    let mut server = TokenServer::new(50, 16.0);
    // So slow a network that ten calls a second are all that they could make.
    let mut load = Load::new(auth0(0.8), Bucket::Auth0Read, &[Priority::Sweep; 4], ms(400));
    load.run(s(300), &mut server);
    let alone = load.run(s(3600), &mut server);
    assert!(alone.rate(s(3600)) <= 16.0 * 0.8 * 0.25 * 1.05, "{alone:?}");

    // One that needs little, before live work that needs more than was seen of it.
    let mut load = Load::new(auth0(0.8), Bucket::Auth0Read, &[Priority::Sweep], s(1));
    let mut server = TokenServer::new(50, 16.0);
    load.run(s(300), &mut server);
    let from = load.now;
    let latest = trickle(&mut load.state, &mut server, from, s(1));
    assert!(latest <= s(2), "somebody was done {latest:?} after they came");
}

#[test]
fn a_bucket_that_refills_once_a_second_is_not_overrun_for_long() {
    let mut server = TokenServer { step: Some(s(1)), ..TokenServer::new(10, 2.0) };
    let mut load = Load::new(auth0(0.8), Bucket::Auth0Read, &[Priority::Live; 4], ms(50));
    load.run(s(180), &mut server);
    let known = load.run(s(3600), &mut server);
    assert_eq!(known.refused, 0);
    assert!(known.rate(s(3600)) >= 0.9 * 1.6, "{:.2} calls a second", known.rate(s(3600)));
}

#[test]
fn others_that_drain_the_bucket_do_not_make_a_storm() {
    struct Crowded(TokenServer);
    impl Server for Crowded {
        fn call(&mut self, now: Duration) -> Reply {
            // Somebody else takes whatever is there.
            self.0.call(now);
            self.0.level = 0.0;
            self.0.call(now)
        }
    }
    let mut load = Load::new(auth0(0.8), Bucket::Auth0Read, &[Priority::Live; 8], ms(50));
    let tally = load.run(s(600), &mut Crowded(TokenServer::new(2, 2.0)));
    assert_eq!(tally.live, 0);
    assert!((8..=600).contains(&tally.refused), "{tally:?}: at most one a second, and never silent");
}

#[test]
fn a_slower_plan_is_noticed_and_a_faster_one_too() {
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
fn sweeps_have_their_part_and_no_more() {
    let mut server = TokenServer::new(50, 16.0);
    let mut load = Load::new(auth0(0.8), Bucket::Auth0Read, &[Priority::Sweep; 4], ms(20));
    load.run(s(300), &mut server);
    let alone = load.run(s(3600), &mut server);
    assert!(alone.rate(s(3600)) <= 16.0 * 0.8 * 0.25 * 1.05, "{alone:?}");
    assert!(alone.rate(s(3600)) >= 1.0, "{alone:?}");

    let both = [[Priority::Live; 4], [Priority::Sweep; 4]].concat();
    let mut server = TokenServer::new(2, 2.0);
    let mut load = Load::new(auth0(0.8), Bucket::Auth0Read, &both, ms(20));
    load.run(s(300), &mut server);
    let mixed = load.run(s(600), &mut server);
    assert_eq!(mixed.sweeps, 0, "live work that never ends leaves nothing: {mixed:?}");
}

#[test]
fn plans_that_count_all_calls_together_are_paced_together() {
    let mut state = auth0(0.8);
    let answer = |limit: i64| {
        let headers = headers(Duration::ZERO, &[("x-ratelimit-limit", limit), ("x-ratelimit-remaining", limit - 1)]);
        RateLimitHeaders::read(StatusCode::OK, &headers, epoch())
    };
    for bucket in [Bucket::Auth0Read, Bucket::Auth0Write] {
        let departure = state.start_request(bucket, Duration::ZERO);
        state.record_response(bucket, departure, answer(2), ms(10));
    }
    let departure = state.start_request(Bucket::Auth0Other, Duration::ZERO);
    state.record_response(Bucket::Auth0Other, departure, answer(10), ms(10));
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
fn windows_are_used_to_our_share_without_a_refusal() {
    for limit in [1, 2, 10, 50, 600] {
        for (workers, latency) in [(1, ms(50)), (4, ms(200))] {
            let mut server = WindowServer { limit, spent: 0, ends_at: Duration::ZERO };
            let mut load = Load::new(okta(0.9), Bucket::OktaUser, &vec![Priority::Live; workers], latency);
            let tally = load.run(s(3600), &mut server);
            assert_eq!(tally.refused, 0, "limit {limit}, {workers} workers");
            let ours = limit - ((f64::from(limit) * 0.1).ceil() as u32).min(limit - 1);
            // The reset is cut to seconds on both sides: a window costs us up to 62 s.
            let least = ours * (3600 / 62);
            let most = ours * (3600 / 60 + 2);
            assert!((least..=most).contains(&tally.live), "limit {limit}: {tally:?}, expected {least} to {most}");
        }
    }
}

#[test]
fn sweeps_leave_most_of_a_window_to_live_work() {
    let mut server = WindowServer { limit: 100, spent: 0, ends_at: Duration::ZERO };
    let mut load = Load::new(okta(0.9), Bucket::OktaUser, &[Priority::Sweep; 4], ms(50));
    let tally = load.run(s(600), &mut server);
    assert_eq!(tally.refused, 0);
    assert!((22 * 9..=23 * 11).contains(&tally.sweeps), "{tally:?}: a quarter of ninety a window");
}

/// What a refusal may name, and for how long it then pauses.
#[test]
fn a_refusal_pauses_as_long_as_it_asks_and_within_bounds() {
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
            "Okta, reset passed",
            &[("x-rate-limit-limit", 50), ("x-rate-limit-remaining", 0), ("x-rate-limit-reset", -5)],
            1_000,
            7_000,
        ),
        ("Okta, nothing named", &[], 1_000, 7_000),
        (
            "Okta, too many at once",
            &[("x-rate-limit-limit", 0), ("x-rate-limit-remaining", 0), ("x-rate-limit-reset", 50)],
            500,
            2_000,
        ),
        ("Retry-After", &[("retry-after", 90)], 90_000, 91_000),
        ("Retry-After beyond reason", &[("retry-after", 999_999)], 3_600_000, 3_600_000),
    ];
    for (name, pairs, least, most) in cases {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(name, value)| (*name, if name.ends_with("reset") { unix(Duration::ZERO) + value } else { *value }))
            .collect();
        let advice = RateLimitHeaders::read(StatusCode::TOO_MANY_REQUESTS, &headers(Duration::ZERO, &pairs), epoch());
        let mut state = okta(0.9);
        let departure = state.start_request(Bucket::OktaUser, Duration::ZERO);
        state.record_response(Bucket::OktaUser, departure, advice, Duration::ZERO);
        let ticket = state.enqueue(Bucket::OktaUser, Priority::Live);
        let mut now = Duration::ZERO;
        while let Admission::Wait(span) = state.admit(ticket, Duration::ZERO, now) {
            now += span;
            assert!(now <= s(4000), "{name}: for ever");
        }
        assert!((ms(least)..=ms(most)).contains(&now), "{name}: {now:?}");
    }
}

#[test]
fn refusals_without_a_time_become_rarer() {
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
fn too_many_at_once_halves_what_is_under_way_and_gives_it_back_slowly() {
    let mut state = okta(0.9);
    let answer = |state: &mut State, status, limit: i64| {
        let pairs = [("x-rate-limit-limit", limit), ("x-rate-limit-remaining", limit), ("x-rate-limit-reset", 0)];
        let advice = RateLimitHeaders::read(status, &headers(Duration::ZERO, &pairs), epoch());
        let departure = state.start_request(Bucket::OktaUser, Duration::ZERO);
        state.record_response(Bucket::OktaUser, departure, advice, Duration::ZERO);
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

/// Whatever a header says, however absurd.
fn absurd() -> impl Strategy<Value = Vec<(&'static str, i64)>> {
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
    fn any_bucket_is_paced_without_a_refusal_once_it_is_known(
        size in 2_u32..60, per_minute in 20_u32..1200, workers in 1_usize..6, latency in 1_u64..300
    ) {
        let mut server = TokenServer::new(size, f64::from(per_minute) / 60.0);
        let mut load = Load::new(auth0(0.8), Bucket::Auth0Read, &vec![Priority::Live; workers], ms(latency));
        load.run(s(300), &mut server);
        let tally = load.run(s(900), &mut server);
        prop_assert_eq!(tally.refused, 0);
        // What came back meanwhile, and what the bucket may have held when it was looked at first.
        prop_assert!(f64::from(tally.live) <= f64::from(per_minute) * 15.0 * 1.01 + f64::from(size));
        prop_assert!(tally.live > 0);
    }

    #[test]
    fn no_header_makes_it_spin_or_sleep_for_ever(
        replies in prop::collection::vec((any::<bool>(), absurd()), 1..40), is_okta: bool
    ) {
        struct Fool(Vec<(bool, Vec<(&'static str, i64)>)>, usize);
        impl Server for Fool {
            fn call(&mut self, now: Duration) -> Reply {
                let (is_refused, pairs) = &self.0[self.1 % self.0.len()];
                self.1 += 1;
                (if *is_refused { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::OK }, headers(now, pairs))
            }
        }
        let (state, bucket) = if is_okta { (okta(0.9), Bucket::OktaUser) } else { (auth0(0.8), Bucket::Auth0Read) };
        let mut load = Load::new(state, bucket, &[Priority::Live, Priority::Sweep], ms(20));
        let mut server = Fool(replies, 0);
        load.run(s(1800), &mut server);
        prop_assert!(server.1 > 0);
        // Every look is either a call's or the end of a wait of some milliseconds.
        prop_assert!(load.looks <= 1800 * 1000 / 5 * 2);
        for snapshot in load.state.snapshot(load.now) {
            prop_assert!(snapshot.remaining <= snapshot.limit);
        }
    }
}

#[test]
fn a_limit_that_shrinks_in_a_late_answer_shrinks_what_is_left_too() {
    let mut state = okta(0.9);
    let mut answer = |status, pairs: &[(&'static str, i64)]| {
        let advice = RateLimitHeaders::read(status, &headers(Duration::ZERO, pairs), epoch());
        let departure = state.start_request(Bucket::OktaUser, Duration::ZERO);
        state.record_response(Bucket::OktaUser, departure, advice, Duration::ZERO);
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
    // Refused in the window before this one, for a limit that has been lowered meanwhile.
    let snapshot = answer(StatusCode::TOO_MANY_REQUESTS, &window(1, 0, -10));
    assert_eq!((snapshot.limit, snapshot.remaining), (Some(1), Some(1)));
}

#[test]
fn after_a_refusal_by_auth0_one_call_finds_out_what_is_there() {
    let mut state = auth0(0.8);
    let mut refused = |now: Duration| {
        let pairs = [("x-ratelimit-limit", 50), ("x-ratelimit-remaining", 0), ("x-ratelimit-reset", unix(now) + 1)];
        let advice = RateLimitHeaders::read(
            StatusCode::TOO_MANY_REQUESTS,
            &headers(now, &pairs),
            crate::domain::clock::add(epoch(), now),
        );
        let departure = state.start_request(Bucket::Auth0Read, now);
        state.record_response(Bucket::Auth0Read, departure, advice, now);
        let tickets = [0, 1].map(|_| state.enqueue(Bucket::Auth0Read, Priority::Live));
        let mut later = now;
        let meter = loop {
            match state.admit(tickets[0], now, later) {
                Admission::Granted { meter } => break meter,
                Admission::Wait(span) => later += span,
                Admission::WaitForChange => panic!("nothing is under way"),
            }
        };
        // One, and no second before it is back.
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
    assert_eq!(waits[..6], [1, 2, 4, 8, 16, 32], "the reset names the next token, which others want too");
    assert!(waits[6..].iter().all(|wait| (64..=77).contains(wait)), "{waits:?}");
}

#[test]
fn a_bucket_said_to_be_huge_and_empty_is_asked_again_in_a_minute() {
    let mut state = auth0(0.8);
    let pairs = [("x-ratelimit-limit", i64::from(u32::MAX)), ("x-ratelimit-remaining", 0)];
    let mut now = Duration::ZERO;
    for _ in 0..3 {
        let advice = RateLimitHeaders::read(StatusCode::OK, &headers(now, &pairs), epoch());
        let departure = state.start_request(Bucket::Auth0Read, now);
        state.record_response(Bucket::Auth0Read, departure, advice, now);
        let tickets = [0, 1].map(|_| state.enqueue(Bucket::Auth0Read, Priority::Live));
        let Admission::Wait(span) = state.admit(tickets[0], now, now) else { panic!("it is empty") };
        assert_eq!(span, s(70));
        now += span;
        let Admission::Granted { meter } = state.admit(tickets[0], now, now) else { panic!("one call finds out") };
        assert!(!matches!(state.admit(tickets[1], now, now), Admission::Granted { .. }), "and no second");
        state.dequeue(tickets[1]);
        state.release(meter);
    }
}

#[test]
fn what_a_small_bucket_never_holds_is_not_waited_for_by_the_clock() {
    let mut state = auth0(0.8);
    let pairs = [("x-ratelimit-limit", 2), ("x-ratelimit-remaining", 1)];
    let advice = RateLimitHeaders::read(StatusCode::OK, &headers(Duration::ZERO, &pairs), epoch());
    let departure = state.start_request(Bucket::Auth0Read, Duration::ZERO);
    state.record_response(Bucket::Auth0Read, departure, advice, Duration::ZERO);
    let tickets = [0, 1].map(|_| state.enqueue(Bucket::Auth0Read, Priority::Live));
    let Admission::Granted { meter } = state.admit(tickets[0], s(60), s(60)) else { panic!("the bucket is full") };
    assert_eq!(
        state.admit(tickets[1], s(60), s(600)),
        Admission::WaitForChange,
        "two and the rest for others: 2.4 of 2"
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

/// Lets every task run until it waits.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn live_work_goes_first_though_it_came_last_and_a_turned_window_is_used_at_once() {
    let (clock, pacer) = pacer(HALF);
    reply(&pacer, &clock, 4, 2);
    let order = Arc::default();
    let sweep = acquire(&pacer, &clock, Priority::Sweep, &order);
    settle().await;
    let live = acquire(&pacer, &clock, Priority::Live, &order);
    settle().await;
    assert!(!sweep.is_finished() && !live.is_finished(), "the window is spent");
    clock.advance(s(31));
    let _permits = (live.await.unwrap(), sweep.await.unwrap());
    assert_eq!(*order.lock().unwrap(), [Priority::Live, Priority::Sweep]);
    let snapshot = &pacer.snapshot(clock.as_ref())[0];
    assert_eq!((snapshot.waits, snapshot.waited, snapshot.in_flight), (2, s(62), 2));
}

#[tokio::test]
async fn a_long_wait_tells_each_second_that_it_waits() {
    let (clock, pacer) = pacer(HALF);
    reply(&pacer, &clock, 4, 2);
    let told = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let waiting = tokio::spawn({
        let (clock, pacer, told) = (clock.clone(), pacer.clone(), told.clone());
        async move {
            let tell = || {
                told.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            };
            pacer.acquire_with_heartbeat(Bucket::OktaUser, Priority::Live, clock.as_ref(), tell).await
        }
    });
    settle().await;
    for second in 1..=20 {
        let before = told.load(std::sync::atomic::Ordering::Relaxed);
        clock.advance(s(1));
        settle().await;
        assert!(told.load(std::sync::atomic::Ordering::Relaxed) > before, "silent in second {second}");
        assert!(!waiting.is_finished(), "the window is spent");
    }
    clock.advance(s(11));
    let _permit = waiting.await.unwrap();
}

#[tokio::test]
async fn an_answer_wakes_whoever_waits_for_the_limit_to_be_known() {
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
async fn whoever_gives_up_waiting_does_not_hold_up_the_others() {
    let (clock, pacer) = pacer(HALF);
    let order = Arc::default();
    let permit = pacer.acquire(Bucket::OktaUser, Priority::Live, clock.as_ref()).await;
    let given_up = acquire(&pacer, &clock, Priority::Live, &order);
    let sweep = acquire(&pacer, &clock, Priority::Sweep, &order);
    settle().await;
    drop(permit);
    given_up.abort();
    let _ = given_up.await;
    let _sweep = sweep.await.unwrap();
}

#[test]
fn one_kind_of_call_that_is_counted_in_two_buckets_is_slow_but_not_refused_or_stuck() {
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

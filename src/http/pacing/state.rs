//! The queue of waiting calls and the meters that count them. Pure: the caller passes the time.

use std::collections::BTreeMap;
use std::time::Duration;

use super::meter::{MeterId, Readiness, RequestStart};
use super::rate_limit_headers::RateLimitHeaders;
use super::tokens::Tokens;
use super::window::Window;
use super::{Bucket, BucketSnapshot, Priority, Shares};

/// The shortest wait, so that a waiter never spins.
const WAIT_MIN: Duration = Duration::from_millis(5);
/// The longest wait before a waiter checks again.
const WAIT_MAX: Duration = Duration::from_secs(70);
/// The most concurrent calls to one remote. Okta allows few (a free org has 35 for all its clients), and Auth0's token
/// buckets are small.
const IN_FLIGHT_MAX: f64 = 16.0;

/// A limit expires if no response has shown it for this long.
const LIMIT_TTL: Duration = Duration::from_secs(120);

enum Meter {
    Window(Window),
    Tokens(Tokens),
}

/// Whether a waiter may go.
#[derive(Debug, PartialEq)]
pub(super) enum Admission {
    /// Yes; this meter counts the call.
    Granted { meter: MeterId },
    /// Check again after this time or the next change.
    Wait(Duration),
    /// Check again after the next change: another waiter is first, or calls are in flight.
    WaitForChange,
}

struct Waiter {
    bucket: Bucket,
    priority: Priority,
    has_waited: bool,
}

#[derive(Default)]
struct Counters {
    waits: u64,
    waited: Duration,
    refusals: u64,
}

pub(super) struct State {
    shares: Shares,
    is_okta: bool,
    random: fastrand::Rng,
    /// By ticket, so oldest first.
    waiters: BTreeMap<u64, Waiter>,
    tickets: u64,
    meters: BTreeMap<MeterId, Meter>,
    /// Auth0: the smallest limit that a bucket's responses showed, and when. Auth0 does not document for all calls which
    /// ones share a bucket: if it counts one [`Bucket`] in two, the smaller limit paces all of them.
    limits: BTreeMap<Bucket, (u32, Duration)>,
    counters: BTreeMap<Bucket, Counters>,
    in_flight: u32,
    /// Halved by a concurrency error, and raised step by step with each response.
    in_flight_max: f64,
}

impl State {
    pub(super) fn okta(shares: Shares, random: fastrand::Rng) -> Self {
        Self::new(shares, true, random)
    }

    pub(super) fn auth0(shares: Shares, random: fastrand::Rng) -> Self {
        Self::new(shares, false, random)
    }

    fn new(shares: Shares, is_okta: bool, random: fastrand::Rng) -> Self {
        let share = |value: f64| if value.is_finite() { value.clamp(0.01, 1.0) } else { 1.0 };
        Self {
            shares: Shares { ours: share(shares.ours), reconcile: share(shares.reconcile) },
            is_okta,
            random,
            waiters: BTreeMap::new(),
            tickets: 0,
            meters: BTreeMap::new(),
            limits: BTreeMap::new(),
            counters: BTreeMap::new(),
            in_flight: 0,
            in_flight_max: IN_FLIGHT_MAX,
        }
    }

    fn meter_id(&self, bucket: Bucket) -> MeterId {
        self.limits.get(&bucket).map_or(MeterId::Bucket(bucket), |(limit, _)| MeterId::Limit(*limit))
    }

    fn meter(&mut self, id: MeterId) -> &mut Meter {
        let (shares, is_okta) = (self.shares, self.is_okta);
        self.meters.entry(id).or_insert_with(|| {
            if is_okta { Meter::Window(Window::new(shares)) } else { Meter::Tokens(Tokens::new(shares)) }
        })
    }

    pub(super) fn enqueue(&mut self, bucket: Bucket, priority: Priority) -> u64 {
        self.tickets += 1;
        self.waiters.insert(self.tickets, Waiter { bucket, priority, has_waited: false });
        self.tickets
    }

    pub(super) fn dequeue(&mut self, ticket: u64) {
        self.waiters.remove(&ticket);
    }

    /// `began` is when the waiter was queued.
    pub(super) fn admit(&mut self, ticket: u64, began: Duration, now: Duration) -> Admission {
        let Some(waiter) = self.waiters.get(&ticket) else { return Admission::WaitForChange };
        let (bucket, priority, waited) = (waiter.bucket, waiter.priority, waiter.has_waited);
        let id = self.meter_id(bucket);
        let is_first = self
            .waiters
            .iter()
            .filter(|(_, other)| self.meter_id(other.bucket) == id)
            .min_by_key(|(ticket, other)| (other.priority, **ticket))
            .is_none_or(|(first, _)| *first == ticket);
        let has_room = f64::from(self.in_flight) < self.in_flight_max.floor().max(1.0);
        let turn = if is_first && has_room {
            match self.meter(id) {
                Meter::Window(window) => window.readiness(priority, now),
                Meter::Tokens(tokens) => tokens.readiness(priority, now),
            }
        } else {
            Readiness::NextResponse
        };
        match turn {
            Readiness::Ready => {
                match self.meter(id) {
                    Meter::Window(window) => window.grant(priority),
                    Meter::Tokens(tokens) => tokens.grant(priority, waited, now),
                }
                self.in_flight += 1;
                self.waiters.remove(&ticket);
                if waited {
                    let counters = self.counters.entry(bucket).or_default();
                    counters.waits += 1;
                    counters.waited += now.saturating_sub(began);
                }
                Admission::Granted { meter: id }
            }
            Readiness::After(_) | Readiness::NextResponse => {
                if let Some(waiter) = self.waiters.get_mut(&ticket) {
                    waiter.has_waited = true;
                }
                match turn {
                    Readiness::After(span) => Admission::Wait(span.clamp(WAIT_MIN, WAIT_MAX)),
                    Readiness::Ready | Readiness::NextResponse => Admission::WaitForChange,
                }
            }
        }
    }

    pub(super) fn release(&mut self, meter: MeterId) {
        self.in_flight = self.in_flight.saturating_sub(1);
        match self.meter(meter) {
            Meter::Window(window) => window.release(),
            Meter::Tokens(tokens) => tokens.release(),
        }
    }

    pub(super) fn start_request(&mut self, bucket: Bucket, now: Duration) -> RequestStart {
        let meter = self.meter_id(bucket);
        self.counters.entry(bucket).or_default();
        let responses_before = match self.meter(meter) {
            Meter::Window(_) => 0,
            Meter::Tokens(tokens) => tokens.start_request(),
        };
        RequestStart { meter, started_at: now, responses_before }
    }

    pub(super) fn record_response(
        &mut self,
        bucket: Bucket,
        start: RequestStart,
        headers: RateLimitHeaders,
        now: Duration,
    ) {
        if headers.refused {
            self.counters.entry(bucket).or_default().refusals += 1;
        }
        if self.is_okta {
            self.record_okta_response(start, headers, now);
        } else {
            self.record_auth0_response(bucket, start, headers, now);
        }
    }

    fn record_okta_response(&mut self, start: RequestStart, headers: RateLimitHeaders, now: Duration) {
        let spread = self.random.f64();
        // Limit 0 means too many concurrent calls, not too many a minute (Okta docs: Rate limits, "Concurrency").
        if headers.refused && headers.limit == Some(0) {
            self.in_flight_max = (f64::from(self.in_flight.max(2)).min(self.in_flight_max) / 2.0).max(1.0);
        } else if !headers.refused {
            // One more for each round of responses.
            self.in_flight_max = (self.in_flight_max + 1.0 / self.in_flight_max).min(IN_FLIGHT_MAX);
        }
        if let Meter::Window(window) = self.meter(start.meter) {
            window.record_response(headers, spread, start.started_at, now);
        }
    }

    fn record_auth0_response(&mut self, bucket: Bucket, start: RequestStart, headers: RateLimitHeaders, now: Duration) {
        let spread = self.random.f64();
        let before = start.meter;
        if let Some(limit) = headers.limit.filter(|limit| *limit > 0) {
            match self.limits.get(&bucket) {
                Some((smaller, seen_at)) if *smaller < limit && now.saturating_sub(*seen_at) < LIMIT_TTL => {
                    if let Meter::Tokens(tokens) = self.meter(before) {
                        tokens.uncount();
                        if headers.refused {
                            tokens.refuse(headers, spread, now);
                        }
                    }
                    return;
                }
                _ => {
                    self.limits.insert(bucket, (limit, now));
                }
            }
        }
        let after = self.meter_id(bucket);
        if before == after {
            if let Meter::Tokens(tokens) = self.meter(before) {
                tokens.record_response(start, headers, spread, now);
            }
            return;
        }
        // The response shows that another meter counts this call.
        if let Meter::Tokens(tokens) = self.meter(before) {
            tokens.uncount();
        }
        if let Meter::Tokens(tokens) = self.meter(after) {
            let responses_before = tokens.start_request();
            tokens.record_response(RequestStart { responses_before, ..start }, headers, spread, now);
        }
    }

    pub(super) fn lost(&mut self, start: RequestStart) {
        if let Meter::Tokens(tokens) = self.meter(start.meter) {
            tokens.lost();
        }
    }

    pub(super) fn pause(&self, bucket: Bucket, now: Duration) -> Option<Duration> {
        let until = match self.meters.get(&self.meter_id(bucket))? {
            Meter::Window(window) => window.paused_until(),
            Meter::Tokens(tokens) => tokens.paused_until(),
        };
        until.checked_sub(now).filter(|span| !span.is_zero())
    }

    pub(super) fn snapshot(&self, now: Duration) -> Vec<BucketSnapshot> {
        self.counters
            .iter()
            .map(|(bucket, counters)| {
                let mut snapshot = BucketSnapshot {
                    bucket: *bucket,
                    limit: None,
                    remaining: None,
                    reset_in: None,
                    calls_per_second: None,
                    in_flight: 0,
                    waits: counters.waits,
                    waited: counters.waited,
                    refusals: counters.refusals,
                };
                match self.meters.get(&self.meter_id(*bucket)) {
                    Some(Meter::Window(window)) => window.describe(&mut snapshot, now),
                    Some(Meter::Tokens(tokens)) => tokens.describe(&mut snapshot, now),
                    None => {}
                }
                snapshot
            })
            .collect()
    }
}

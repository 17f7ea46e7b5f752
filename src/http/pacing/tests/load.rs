//! Servers that count calls as the remotes' documentation describes, and workers that always have a call to make.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::super::meter;
use super::super::rate_limit_headers::RateLimitHeaders;
use super::super::state::{Admission, State};
use super::super::{Bucket, Priority};
use crate::domain::{Timestamp, clock};

pub(super) fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub(super) fn s(count: u64) -> Duration {
    Duration::from_secs(count)
}

pub(super) fn epoch() -> Timestamp {
    "2026-01-01T00:00:00.250Z".parse().unwrap()
}

/// Response headers as a remote sends them: a `Date` truncated to seconds, and the given ones.
pub(super) fn headers(now: Duration, pairs: &[(&'static str, i64)]) -> HeaderMap {
    let date = clock::add(epoch(), now).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let mut headers: HeaderMap =
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from(*value))).collect();
    headers.insert("date", HeaderValue::from_str(&date).unwrap());
    headers
}

pub(super) fn unix(now: Duration) -> i64 {
    clock::add(epoch(), now).as_second()
}

pub(super) type Reply = (StatusCode, HeaderMap);

pub(super) trait Server {
    fn call(&mut self, now: Duration) -> Reply;
}

/// A token bucket that refills continuously, or in steps of `step`.
pub(super) struct TokenServer {
    pub(super) size: f64,
    pub(super) refill: f64,
    pub(super) step: Option<Duration>,
    pub(super) level: f64,
    pub(super) at: Duration,
    pub(super) lowest: f64,
}

impl TokenServer {
    pub(super) fn new(size: u32, refill: f64) -> Self {
        let size = f64::from(size);
        Self { size, refill, step: None, level: size, at: Duration::ZERO, lowest: size }
    }
}

impl Server for TokenServer {
    fn call(&mut self, now: Duration) -> Reply {
        let until = match self.step {
            None => now,
            Some(step) => step.mul_f64((now.as_secs_f64() / step.as_secs_f64()).floor()),
        };
        let gained = until.saturating_sub(self.at).as_secs_f64() * self.refill;
        self.level = (self.level + gained).min(self.size);
        self.at = self.at.max(until);
        let is_refused = self.level < 1.0;
        if !is_refused {
            self.level -= 1.0;
            self.lowest = self.lowest.min(self.level);
        }
        let missing = (1.0 - self.level.fract()) / self.refill;
        let reset = unix(now + Duration::from_secs_f64(missing)) + 1;
        let status = if is_refused { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::OK };
        let pairs = [
            ("x-ratelimit-limit", self.size as i64),
            ("x-ratelimit-remaining", self.level as i64),
            ("x-ratelimit-reset", reset),
        ];
        (status, headers(now, &pairs))
    }
}

/// A window of a minute that starts with its first call.
pub(super) struct WindowServer {
    pub(super) limit: u32,
    pub(super) spent: u32,
    pub(super) ends_at: Duration,
}

impl Server for WindowServer {
    fn call(&mut self, now: Duration) -> Reply {
        if now >= self.ends_at {
            // Whole seconds, as in the header.
            let end = clock::add(epoch(), now + s(60)).as_second();
            let end = clock::since(Timestamp::from_second(end).unwrap(), epoch());
            (self.spent, self.ends_at) = (0, end);
        }
        let is_refused = self.spent == self.limit;
        if !is_refused {
            self.spent += 1;
        }
        let status = if is_refused { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::OK };
        let pairs = [
            ("x-rate-limit-limit", i64::from(self.limit)),
            ("x-rate-limit-remaining", i64::from(self.limit - self.spent)),
            ("x-rate-limit-reset", unix(self.ends_at)),
        ];
        (status, headers(now, &pairs))
    }
}

/// Workers that always have a call to make.
pub(super) struct Load {
    pub(super) state: State,
    pub(super) now: Duration,
    bucket: Bucket,
    /// The priority and state of each worker.
    workers: Vec<(Priority, WorkerState)>,
    latency: Duration,
    pub(super) polls: u64,
}

enum WorkerState {
    Waiting { ticket: u64, until: Duration },
    Sending { meter: meter::MeterId, start: meter::RequestStart, arrives: Duration },
    Receiving { meter: meter::MeterId, start: meter::RequestStart, rate_limit: RateLimitHeaders, at: Duration },
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Tally {
    pub(super) live: u32,
    pub(super) reconcile: u32,
    pub(super) refused: u32,
}

impl Tally {
    pub(super) fn rate(&self, span: Duration) -> f64 {
        f64::from(self.live + self.reconcile) / span.as_secs_f64()
    }
}

impl Load {
    pub(super) fn new(mut state: State, bucket: Bucket, priorities: &[Priority], latency: Duration) -> Self {
        let workers = priorities
            .iter()
            .map(|priority| {
                let ticket = state.enqueue(bucket, *priority);
                (*priority, WorkerState::Waiting { ticket, until: Duration::ZERO })
            })
            .collect();
        Self { state, now: Duration::ZERO, bucket, workers, latency, polls: 0 }
    }

    /// Runs the workers for `span`.
    pub(super) fn run(&mut self, span: Duration, server: &mut dyn Server) -> Tally {
        let (end, mut tally) = (self.now + span, Tally::default());
        loop {
            let (index, at) = self
                .workers
                .iter()
                .map(|(_, worker)| match worker {
                    WorkerState::Waiting { until, .. } => *until,
                    WorkerState::Sending { arrives, .. } => *arrives,
                    WorkerState::Receiving { at, .. } => *at,
                })
                .enumerate()
                .min_by_key(|(_, at)| *at)
                .unwrap();
            if at > end {
                self.now = end;
                return tally;
            }
            self.now = self.now.max(at);
            self.step(index, server, &mut tally);
        }
    }

    fn step(&mut self, index: usize, server: &mut dyn Server, tally: &mut Tally) {
        let now = self.now;
        let (priority, worker) = &mut self.workers[index];
        let mut wake = false;
        match worker {
            WorkerState::Waiting { ticket, .. } => {
                self.polls += 1;
                match self.state.admit(*ticket, now, now) {
                    Admission::Wait(span) => {
                        assert!(span >= ms(5) && span <= s(70), "a wait of {span:?}");
                        *worker = WorkerState::Waiting { ticket: *ticket, until: now + span };
                    }
                    Admission::WaitForChange => {
                        *worker = WorkerState::Waiting { ticket: *ticket, until: Duration::MAX };
                    }
                    Admission::Granted { meter } => {
                        let start = self.state.start_request(self.bucket, now);
                        *worker = WorkerState::Sending { meter, start, arrives: now + self.latency / 2 };
                        wake = true;
                    }
                }
            }
            WorkerState::Sending { meter, start, .. } => {
                let (status, headers) = server.call(now);
                match (status.is_success(), *priority) {
                    (false, _) => tally.refused += 1,
                    (true, Priority::Live) => tally.live += 1,
                    (true, Priority::Reconcile) => tally.reconcile += 1,
                }
                let rate_limit = RateLimitHeaders::read(status, &headers, clock::add(epoch(), now));
                let (meter, start, at) = (*meter, *start, now + self.latency / 2);
                *worker = WorkerState::Receiving { meter, start, rate_limit, at };
            }
            WorkerState::Receiving { meter, start, rate_limit, .. } => {
                self.state.record_response(self.bucket, *start, *rate_limit, now);
                self.state.release(*meter);
                *worker = WorkerState::Waiting { ticket: self.state.enqueue(self.bucket, *priority), until: now };
                wake = true;
            }
        }
        if wake {
            for (_, worker) in &mut self.workers {
                if let WorkerState::Waiting { until, .. } = worker {
                    *until = now;
                }
            }
        }
    }
}

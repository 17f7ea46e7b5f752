//! Pacing: how fast each remote may be called, by what its own headers say.
//!
//! The engine asks for a [`Permit`] before a call and drops it after; the client reports each call's departure and
//! answer through a [`InFlight`]. Between the two stand meters, which are plain state and know no time but what they are
//! told:
//!
//! * Okta counts calls in fixed windows of a minute, one for each bucket.
//! * Auth0 lets a token bucket drain, whose size is in the headers and whose refill is not.
//!
//! A share of each limit is left to others. Live work goes before sweeps, which have a share of that share.
//!
//! A refusal (429) pauses its meter for as long as the remote asks, so that one refusal does not become a storm. Every
//! pause is bounded: nobody sleeps for ever on a wrong reset.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use tokio::sync::Notify;

use crate::domain::Clock;

mod rate_limit_headers;
mod state;
mod tokens;
mod turn;
mod window;

use rate_limit_headers::RateLimitHeaders;
use state::{Admission, State};

/// Whoever waits looks up at least this often, and says that it still waits.
const WAIT_STEP: Duration = Duration::from_secs(1);

/// A kind of call that its remote counts by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bucket {
    /// Okta: `GET /api/v1/logs`.
    OktaLog,
    /// Okta: `GET /api/v1/users/{id}`.
    OktaUser,
    /// Okta: `GET /api/v1/users`.
    OktaUsers,
    /// Okta: everything else.
    OktaOther,
    /// Auth0: reading users.
    Auth0Read,
    /// Auth0: writing users.
    Auth0Write,
    /// Auth0: everything else.
    Auth0Other,
}

impl Bucket {
    /// The name used in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OktaLog => "okta_log",
            Self::OktaUser => "okta_user",
            Self::OktaUsers => "okta_users",
            Self::OktaOther => "okta_other",
            Self::Auth0Read => "auth0_read",
            Self::Auth0Write => "auth0_write",
            Self::Auth0Other => "auth0_other",
        }
    }
}

/// Whose call it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Somebody was deactivated, reactivated, or is asked about.
    Live,
    /// A comparison of many; waits for all live calls.
    Sweep,
}

/// How much of a remote's limits is ours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shares {
    /// Of each limit: 0 (exclusive) to 1.
    pub ours: f64,
    /// Of ours, for sweeps: 0 (exclusive) to 1.
    pub sweeps: f64,
}

/// What a bucket looks like now, for metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct BucketSnapshot {
    /// Which.
    pub bucket: Bucket,
    /// The limit, if an answer has shown one.
    pub limit: Option<u32>,
    /// What is thought to be left of it.
    pub remaining: Option<u32>,
    /// Until more is there, if it is known.
    pub reset_in: Option<Duration>,
    /// Sustained calls a second, if they have been learned (Auth0).
    pub calls_per_second: Option<f64>,
    /// Permits that are out now.
    pub in_flight: u32,
    /// How many calls had to wait so far.
    pub waits: u64,
    /// How long they waited, all together.
    pub waited: Duration,
    /// How many calls were refused (429) so far.
    pub refusals: u64,
}

/// Paces the calls to one remote.
#[derive(Clone)]
pub struct Pacer {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Pacer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pacer").finish_non_exhaustive()
    }
}

impl Pacer {
    /// For Okta's fixed windows.
    pub fn okta(shares: Shares) -> Self {
        Self::with(State::okta(shares, fastrand::Rng::new()))
    }

    /// For Auth0's token buckets.
    pub fn auth0(shares: Shares) -> Self {
        Self::with(State::auth0(shares, fastrand::Rng::new()))
    }

    fn with(state: State) -> Self {
        Self { shared: Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() }) }
    }

    /// Waits until a call may be made. Keep the permit until the call is over.
    ///
    /// Safe to abandon: whoever stops waiting leaves the queue. Hold no permit while waiting for another one of the same
    /// remote: the second may be waiting for the first to be dropped.
    pub async fn acquire(&self, bucket: Bucket, priority: Priority, clock: &dyn Clock) -> Permit {
        self.acquire_with_heartbeat(bucket, priority, clock, || {}).await
    }

    /// As [`Pacer::acquire`]; `waits` is called each time that the queue was looked at, at least once a second: a wait of
    /// an hour for a reset is progress, as long as somebody looks whether it is over.
    pub async fn acquire_with_heartbeat(
        &self,
        bucket: Bucket,
        priority: Priority,
        clock: &dyn Clock,
        on_wait: impl Fn(),
    ) -> Permit {
        let queued = Queued { shared: &self.shared, ticket: self.shared.lock().enqueue(bucket, priority) };
        let began = clock.monotonic();
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            // Registered before we look, so that a change between the look and the wait is not missed.
            changed.as_mut().enable();
            let admission = self.shared.lock().admit(queued.ticket, began, clock.monotonic());
            on_wait();
            match admission {
                Admission::Granted { meter } => {
                    return Permit { shared: self.shared.clone(), meter };
                }
                Admission::Wait(span) => {
                    tokio::select! {
                        () = changed => {}
                        () = clock.sleep(span.min(WAIT_STEP)) => {}
                    }
                }
                Admission::WaitForChange => changed.await,
            }
        }
    }

    /// Says that a call departs now. Drop the flight if no answer comes.
    pub fn start_request(&self, bucket: Bucket, clock: &dyn Clock) -> InFlight {
        let departure = self.shared.lock().start_request(bucket, clock.monotonic());
        InFlight { shared: self.shared.clone(), departure: Some(departure), bucket }
    }

    /// Every bucket that was used so far.
    pub fn snapshot(&self, clock: &dyn Clock) -> Vec<BucketSnapshot> {
        self.shared.lock().snapshot(clock.monotonic())
    }
}

/// A place in the queue; leaving it wakes the others.
struct Queued<'a> {
    shared: &'a Shared,
    ticket: u64,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.shared.lock().dequeue(self.ticket);
        self.shared.changed.notify_waiters();
    }
}

/// The leave to make one call. Drop it when the call is over.
#[must_use = "a permit that is dropped at once accounts for nothing"]
pub struct Permit {
    shared: Arc<Shared>,
    meter: turn::MeterId,
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("meter", &self.meter).finish()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.lock().release(self.meter);
        self.shared.changed.notify_waiters();
    }
}

/// A call under way.
pub struct InFlight {
    shared: Arc<Shared>,
    departure: Option<turn::Departure>,
    bucket: Bucket,
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlight").field("bucket", &self.bucket).finish_non_exhaustive()
    }
}

impl InFlight {
    /// Takes in what the answer says of the limit.
    pub fn record_response(mut self, status: StatusCode, headers: &HeaderMap, clock: &dyn Clock) {
        let advice = RateLimitHeaders::read(status, headers, clock.now());
        if let Some(departure) = self.departure.take() {
            self.shared.lock().record_response(self.bucket, departure, advice, clock.monotonic());
        }
        self.shared.changed.notify_waiters();
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(departure) = self.departure.take() {
            self.shared.lock().lost(departure);
        }
    }
}

#[cfg(test)]
mod tests;

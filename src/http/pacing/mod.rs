//! Paces calls to each remote by its own rate-limit headers.
//!
//! The engine acquires a [`Permit`] before a call and drops it after; the client reports each request and its response
//! through an [`InFlight`]. Meters decide when the next call may go. They are plain state and get the time from the
//! caller:
//!
//! * Okta counts calls in fixed windows of a minute, one for each bucket.
//! * Auth0 uses token buckets. Their size is in the headers, their refill rate is not.
//!
//! A share of each limit is left to other clients. Live calls go before those of a reconcile, which get a part of our share.
//!
//! A 429 pauses its meter for as long as the remote asks, so that it does not start a retry storm. If the remote asks for more
//! than a minute, one call probes the limit after a minute, then at doubling distances: a wrong header must not stop all
//! denials. Every pause is bounded, even if the reset is wrong.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use tokio::sync::Notify;

use crate::domain::Clock;

mod meter;
mod rate_limit_headers;
mod state;
mod tokens;
mod window;

use rate_limit_headers::RateLimitHeaders;
use state::{Admission, State};

/// A waiter checks again and calls `on_wait` at least this often.
const WAIT_STEP: Duration = Duration::from_secs(1);

/// A kind of call that the remote counts separately.
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

/// The priority of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// A user's status changed, or an operator asks for the user.
    Live,
    /// A reconcile; waits for all live calls.
    Reconcile,
}

/// How much of a remote's limits we use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shares {
    /// Our share of each limit: 0 (exclusive) to 1.
    pub ours: f64,
    /// The part of our share that a reconcile may use: 0 (exclusive) to 1.
    pub reconcile: f64,
}

/// The state of a bucket, for metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct BucketSnapshot {
    /// The bucket.
    pub bucket: Bucket,
    /// The limit, if a response has shown it.
    pub limit: Option<u32>,
    /// Estimated calls left.
    pub remaining: Option<u32>,
    /// Time until more calls are available, if known.
    pub reset_in: Option<Duration>,
    /// The learned sustained rate (Auth0).
    pub calls_per_second: Option<f64>,
    /// Permits in use.
    pub in_flight: u32,
    /// Calls that had to wait.
    pub waits: u64,
    /// Total time they waited.
    pub waited: Duration,
    /// Calls refused with 429.
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

    /// Waits until a call may be made. Hold the permit until the call has ended.
    ///
    /// Cancel-safe: dropping the future leaves the queue. Do not acquire a second permit for the same remote while
    /// holding one: the second may wait for the first to be dropped.
    pub async fn acquire(&self, bucket: Bucket, priority: Priority, clock: &dyn Clock) -> Permit {
        self.acquire_with_heartbeat(bucket, priority, clock, || {}).await
    }

    /// Like [`Pacer::acquire`], but calls `on_wait` after each check of the queue, at least once a second, so that a long
    /// wait for a reset still counts as progress.
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
            // Registered before the check, so that a change between the check and the wait is not missed.
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

    /// Records that a request is sent. Drop the [`InFlight`] if no response arrives.
    pub fn start_request(&self, bucket: Bucket, clock: &dyn Clock) -> InFlight {
        let start = self.shared.lock().start_request(bucket, clock.monotonic());
        InFlight { shared: self.shared.clone(), start: Some(start), bucket }
    }

    /// How long no call of this bucket may be made, if that is known.
    pub fn wait(&self, bucket: Bucket, clock: &dyn Clock) -> Option<Duration> {
        self.shared.lock().pause(bucket, clock.monotonic())
    }

    /// All buckets used so far.
    pub fn snapshot(&self, clock: &dyn Clock) -> Vec<BucketSnapshot> {
        self.shared.lock().snapshot(clock.monotonic())
    }
}

/// A waiter's ticket. Dropping it leaves the queue and wakes the others.
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

/// Permission for one call. Drop it when the call has ended.
#[must_use = "a permit that is dropped at once counts nothing"]
pub struct Permit {
    shared: Arc<Shared>,
    meter: meter::MeterId,
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

/// A request without a response yet.
pub struct InFlight {
    shared: Arc<Shared>,
    start: Option<meter::RequestStart>,
    bucket: Bucket,
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlight").field("bucket", &self.bucket).finish_non_exhaustive()
    }
}

impl InFlight {
    /// Records the rate-limit headers of the response.
    pub fn record_response(mut self, status: StatusCode, headers: &HeaderMap, clock: &dyn Clock) {
        let rate_limit = RateLimitHeaders::read(status, headers, clock.now());
        if let Some(start) = self.start.take() {
            self.shared.lock().record_response(self.bucket, start, rate_limit, clock.monotonic());
        }
        self.shared.changed.notify_waiters();
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(start) = self.start.take() {
            self.shared.lock().lost(start);
        }
    }
}

#[cfg(test)]
mod tests;

//! Rate limits that last: a 429 is kept for its kind of call until a call of that kind is answered, whatever other kinds get.

use std::collections::BTreeMap;
use std::time::Duration;

use tracing::{debug, warn};

use super::CircuitBreaker;
use crate::domain::{Timestamp, clock};
use crate::http::pacing::Bucket;
use crate::http::{Endpoint, Failure, Kind};
use crate::store::{RemoteError, StoreError};

/// A refused kind of call that no work needs any more ends this long after its wait: waiting work calls again at once.
const UNUSED: Duration = Duration::from_secs(120);
/// The wait that is assumed when neither the remote nor the pacer names one.
const WAIT_UNNAMED: Duration = Duration::from_secs(5);
/// The longest wait that a caller is asked for: it then waits in the pacer, which probes.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A kind of call that the remote refuses with 429.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What is counted together.
    pub bucket: Bucket,
    /// When it was first refused.
    pub since: Timestamp,
    /// When the next call is made.
    pub next_call_at: Timestamp,
    /// The last refusal.
    pub why: String,
    since_monotonic: Duration,
    until: Duration,
}

/// The kinds of calls that the remote refuses with 429.
#[derive(Debug, Default)]
pub(super) struct Limits(BTreeMap<Bucket, Limit>);

impl Limits {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A call of this kind was answered.
    pub(super) fn end(&mut self, bucket: Bucket) {
        self.0.remove(&bucket);
    }

    /// The one that has lasted for longest.
    pub(super) fn oldest(&self) -> Option<&Limit> {
        self.0.values().min_by_key(|limit| limit.since_monotonic)
    }

    fn refuse(&mut self, limit: Limit) {
        match self.0.get_mut(&limit.bucket) {
            Some(known) => {
                *known = Limit { since: known.since, since_monotonic: known.since_monotonic, ..limit };
            }
            None => {
                self.0.insert(limit.bucket, limit);
            }
        }
    }

    /// Ends those that no work waits for. Returns whether any ended.
    fn expire(&mut self, now: Duration) -> bool {
        let before = self.0.len();
        self.0.retain(|_, limit| now <= limit.until + UNUSED);
        self.0.len() < before
    }
}

impl CircuitBreaker {
    /// How long a refused caller waits before it asks the pacer again.
    pub(super) fn limit_wait(&self, endpoint: Endpoint, failure: &Failure) -> Duration {
        let paced = self.pacer.wait(endpoint.bucket, self.clock.as_ref());
        paced.or(failure.retry_after).unwrap_or(WAIT_UNNAMED).min(WAIT_MAX)
    }

    /// Records a 429 at once: the wait for the reset may be long, and `status` has to say what everything waits for.
    pub(super) async fn report_limit(&self, endpoint: Endpoint, failure: &Failure) {
        debug!(endpoint = failure.endpoint, "rate limited; waiting for the reset");
        let (now, monotonic) = (self.clock.now(), self.clock.monotonic());
        let paced = self.pacer.wait(endpoint.bucket, self.clock.as_ref());
        let wait = paced.or(failure.retry_after).unwrap_or(WAIT_UNNAMED);
        let limit = Limit {
            bucket: endpoint.bucket,
            since: now,
            next_call_at: clock::add(now, wait),
            why: failure.to_string(),
            since_monotonic: monotonic,
            until: monotonic.saturating_add(wait),
        };
        let is_noted = {
            let mut state = self.lock();
            state.limits.refuse(limit);
            state.should_note(Kind::RateLimited, Some(endpoint.bucket), monotonic)
        };
        if is_noted && let Err(error) = self.store_limit(now).await {
            warn!(%error, "failed to store the error of {}", self.remote);
        }
    }

    /// Stores the rate limit that has lasted for longest as the remote's error.
    pub(super) async fn store_limit(&self, now: Timestamp) -> Result<(), StoreError> {
        let Some(limit) = self.lock().limits.oldest().cloned() else { return Ok(()) };
        let error = RemoteError {
            remote: self.name(),
            kind: Kind::RateLimited.as_str(),
            text: &limit.why,
            next_call_at: Some(limit.next_call_at),
        };
        self.store.note_remote_error(error, now).await
    }

    /// The kinds of calls that the remote has refused for at least `span`. Ends those that no work waits for.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub(crate) async fn lasting_limits(&self, span: Duration) -> Result<Vec<Limit>, StoreError> {
        let monotonic = self.clock.monotonic();
        let (limits, is_over) = {
            let mut state = self.lock();
            let has_ended = state.limits.expire(monotonic);
            let is_over = has_ended && state.limits.is_empty() && state.circuits.is_empty();
            if is_over {
                state.noted = None;
            }
            let lasts = |limit: &&Limit| monotonic.saturating_sub(limit.since_monotonic) >= span;
            (state.limits.0.values().filter(lasts).cloned().collect(), is_over)
        };
        if is_over {
            self.store.note_remote_ok(self.name(), self.clock.now()).await?;
        }
        Ok(limits)
    }
}

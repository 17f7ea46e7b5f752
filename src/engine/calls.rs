//! Retries: one loop, with a policy.
//!
//! Clients never retry. Every caller that waits for a call or a pass to succeed does it here, for a bounded time.

use std::future::Future;
use std::time::Duration;

use tracing::{Instrument, debug_span};

use super::error::{CallError, PassError};
use crate::domain::Clock;
use crate::domain::backoff::PROBES;
use crate::http::pacing::{Pacer, Priority};
use crate::http::{Endpoint, Failure, Kind};

/// How often, and how long, a caller waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts, including the first.
    pub attempts_max: u32,
    /// An error that asks for a longer wait is returned.
    pub wait_max: Duration,
}

/// For a 429: the pacer holds back the next permit until the reset, so this policy does not wait.
pub const RATE_LIMITED: RetryPolicy = RetryPolicy { attempts_max: 4, wait_max: Duration::ZERO };

/// An error that says whether, and when, another attempt makes sense.
pub trait Retryable {
    /// The wait before the next attempt, after this many. `None`: the error is final.
    fn retry_after(&self, attempts: u32) -> Option<Duration>;
}

impl Retryable for Failure {
    fn retry_after(&self, _attempts: u32) -> Option<Duration> {
        (self.kind == Kind::RateLimited).then_some(Duration::ZERO)
    }
}

impl Retryable for CallError {
    fn retry_after(&self, attempts: u32) -> Option<Duration> {
        match self {
            Self::Paused { wait, .. } => Some(*wait),
            Self::Failed(failure) => matches!(failure.kind, Kind::Server | Kind::Timeout | Kind::Unreachable)
                .then(|| PROBES.wait(attempts, fastrand::f64())),
        }
    }
}

impl Retryable for PassError {
    fn retry_after(&self, _attempts: u32) -> Option<Duration> {
        match self {
            Self::Paused { wait, .. } => Some(*wait),
            Self::Failed(_) | Self::Store(_) => None,
        }
    }
}

/// Repeats `call` as `policy` and its errors allow.
///
/// # Errors
/// The last error.
pub async fn with_retries<T, E, F, Fut>(policy: RetryPolicy, clock: &dyn Clock, call: F) -> Result<T, E>
where
    E: Retryable,
    F: Fn() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let mut attempts = 0;
    loop {
        let error = match call().instrument(debug_span!("attempt", number = attempts + 1)).await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        attempts += 1;
        let wait = error.retry_after(attempts).filter(|wait| *wait <= policy.wait_max);
        let Some(wait) = wait.filter(|_| attempts < policy.attempts_max) else { return Err(error) };
        if !wait.is_zero() {
            clock.sleep(wait).await;
        }
    }
}

/// One call without a circuit breaker, for commands without a state. It waits for the rate limit like every call.
///
/// # Errors
/// The failure of the call.
pub async fn paced<T, F, Fut>(pacer: &Pacer, endpoint: Endpoint, clock: &dyn Clock, call: F) -> Result<T, Failure>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<T, Failure>>,
{
    with_retries(RATE_LIMITED, clock, || async {
        let _permit = pacer.acquire(endpoint.bucket, Priority::Live, clock).await;
        call().await
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use reqwest::StatusCode;
    use reqwest::header::HeaderMap;

    use super::*;
    use crate::domain::ManualClock;
    use crate::http::Remote;
    use crate::http::pacing::Shares;

    /// The result of a call that fails `refusals` times with `status`, and the number of attempts.
    async fn asked(refusals: u32, status: u16) -> (Result<(), Kind>, u32) {
        let clock = ManualClock::stepping("2026-11-23T10:00:00Z".parse().unwrap());
        let pacer = Pacer::auth0(Shares { ours: 1.0, reconcile: 1.0 });
        let calls = AtomicU32::new(0);
        let answer = paced(&pacer, crate::auth0::endpoints::ACCOUNT, &clock, || async {
            if calls.fetch_add(1, Ordering::Relaxed) == refusals {
                return Ok(());
            }
            let status = StatusCode::from_u16(status).unwrap();
            Err(Failure::of_answer(Remote::Auth0, "GET /x", status, &HeaderMap::new(), b"{}", clock.now()))
        })
        .await;
        (answer.map_err(|failure| failure.kind), calls.into_inner())
    }

    #[tokio::test]
    async fn retries_429_up_to_the_limit() {
        assert_eq!(asked(0, 429).await, (Ok(()), 1));
        assert_eq!(asked(RATE_LIMITED.attempts_max - 1, 429).await, (Ok(()), RATE_LIMITED.attempts_max));
        assert_eq!(asked(RATE_LIMITED.attempts_max, 429).await, (Err(Kind::RateLimited), RATE_LIMITED.attempts_max));
        assert_eq!(asked(1, 503).await, (Err(Kind::Server), 1), "other failures are returned at once");
    }
}

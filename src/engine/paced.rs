//! Single calls outside of looks, for commands that have no state: they wait their turn as all do.

use std::future::Future;

use crate::domain::Clock;
use crate::http::pacing::{Pacer, Priority};
use crate::http::{Endpoint, Failure, Kind};

/// A 429 names a reset, for which the pacer waits; after so many in a row it is the answer.
const RATE_LIMIT_ROUNDS: u32 = 3;

/// Makes a call when the remote's limits allow it.
///
/// # Errors
/// What the call failed with.
pub async fn paced<T, F, Fut>(pacer: &Pacer, endpoint: Endpoint, clock: &dyn Clock, call: F) -> Result<T, Failure>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<T, Failure>>,
{
    let mut round = 0;
    loop {
        let permit = pacer.acquire(endpoint.bucket, Priority::Live, clock).await;
        let answer = call().await;
        drop(permit);
        match answer {
            Err(failure) if failure.kind == Kind::RateLimited && round < RATE_LIMIT_ROUNDS => round += 1,
            answer => return answer,
        }
    }
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

    /// What comes of a call that is answered so until it is answered well, and how often it was made.
    async fn asked(refusals: u32, status: u16) -> (Result<(), Kind>, u32) {
        let clock = ManualClock::stepping("2026-11-23T10:00:00Z".parse().unwrap());
        let pacer = Pacer::auth0(Shares { ours: 1.0, sweeps: 1.0 });
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
    async fn a_limit_is_waited_for_and_a_limit_that_does_not_end_is_the_answer() {
        assert_eq!(asked(0, 429).await, (Ok(()), 1));
        assert_eq!(asked(RATE_LIMIT_ROUNDS, 429).await, (Ok(()), RATE_LIMIT_ROUNDS + 1));
        assert_eq!(asked(RATE_LIMIT_ROUNDS + 1, 429).await, (Err(Kind::RateLimited), RATE_LIMIT_ROUNDS + 1));
        assert_eq!(asked(1, 503).await, (Err(Kind::Server), 1), "what else fails is told");
    }
}

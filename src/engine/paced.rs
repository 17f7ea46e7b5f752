//! Single calls outside of looks, for commands that have no state: they wait their turn as all do.

use std::future::Future;

use crate::domain::Clock;
use crate::http::pacing::{Bucket, Pacer, Priority};
use crate::http::{Failure, Kind};

/// A 429 names a reset, for which the pacer waits; after so many in a row it is the answer.
const RATE_LIMIT_ROUNDS: u32 = 3;

/// Makes a call when the remote's limits allow it.
///
/// # Errors
/// What the call failed with.
pub async fn paced<T, F, Fut>(pacer: &Pacer, bucket: Bucket, clock: &dyn Clock, call: F) -> Result<T, Failure>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<T, Failure>>,
{
    let mut round = 0;
    loop {
        let permit = pacer.acquire(bucket, Priority::Live, clock).await;
        let answer = call().await;
        drop(permit);
        match answer {
            Err(failure) if failure.kind == Kind::RateLimited && round < RATE_LIMIT_ROUNDS => round += 1,
            answer => return answer,
        }
    }
}

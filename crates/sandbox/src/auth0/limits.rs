//! Auth0's rate limit: a token bucket that refills every millisecond.

use std::time::Duration;

use okta_auth0_sync_clock::Clock;
use okta_auth0_sync_clock::add;

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// The size of the bucket.
    pub burst: u32,
    /// The refill rate, in requests per second.
    pub refill_per_second: f64,
}

impl Default for Bucket {
    /// An Enterprise production tenant (Auth0 docs: rate limit configurations, 2026).
    fn default() -> Self {
        Self { burst: 50, refill_per_second: 16.0 }
    }
}

impl Bucket {
    /// A free tenant: two requests a second for the whole Management API.
    pub const FREE: Self = Self { burst: 2, refill_per_second: 2.0 };

    /// No limit in practice.
    pub const UNLIMITED: Self = Self { burst: 1_000_000_000, refill_per_second: 1e9 };
}

/// The rate-limit headers of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) limit: u32,
    pub(super) remaining: u32,
    /// Epoch seconds at which at least one request is possible, not at which the bucket is full.
    pub(super) reset: i64,
    pub(super) exceeded: bool,
}

/// The level of a bucket.
#[derive(Debug)]
pub(super) struct Level {
    bucket: Bucket,
    tokens: f64,
    at: Duration,
}

impl Level {
    /// A full bucket.
    pub(super) fn full(bucket: Bucket, now: Duration) -> Self {
        Self { bucket, tokens: f64::from(bucket.burst), at: now }
    }

    /// Takes one token, if there is one.
    pub(super) fn take(&mut self, clock: &dyn Clock) -> Standing {
        let now = clock.monotonic();
        let filled = now.saturating_sub(self.at).as_secs_f64() * self.bucket.refill_per_second;
        self.tokens = (self.tokens + filled).min(f64::from(self.bucket.burst));
        self.at = now;
        let exceeded = self.tokens < 1.0;
        if !exceeded {
            self.tokens -= 1.0;
        }
        // Saturating: the level is between 0 and `burst`.
        let remaining = self.tokens as u32;
        let missing = (self.tokens.floor() + 1.0 - self.tokens) / self.bucket.refill_per_second;
        let next = Duration::try_from_secs_f64(missing).unwrap_or(Duration::MAX);
        let reset = (add(clock.now(), next).as_millisecond() + 999).div_euclid(1000);
        Standing { limit: self.bucket.burst, remaining, reset, exceeded }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use okta_auth0_sync_clock::ManualClock;

    #[test]
    fn bucket_refills_every_millisecond() {
        let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
        let second = |at: &str| at.parse::<jiff::Timestamp>().unwrap().as_second();
        let mut level = Level::full(Bucket::FREE, clock.monotonic());
        let first = level.take(&clock);
        assert_eq!((first.limit, first.remaining, first.exceeded), (2, 1, false));
        assert_eq!(level.take(&clock).remaining, 0);
        let refused = level.take(&clock);
        assert!(refused.exceeded);
        assert_eq!(refused.reset, second("2026-01-01T00:00:01Z"), "half a second, rounded up");
        clock.advance(Duration::from_millis(499));
        assert!(level.take(&clock).exceeded);
        clock.advance(Duration::from_millis(1));
        assert!(!level.take(&clock).exceeded);
        clock.advance(Duration::from_secs(3600));
        assert_eq!(level.take(&clock).remaining, 1, "never more than the burst");
    }
}

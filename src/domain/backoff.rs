//! Exponential backoff with full jitter.

use std::time::Duration;

/// A backoff schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The ceiling of the first wait, and the shortest wait.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
}

/// After a failed look: from a second to an hour.
pub const LOOKS: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(3600) };

/// While a remote is down: from a second to half a minute.
pub const PROBES: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(30) };

/// While the event stream cannot be opened: from a second to a minute.
pub const STREAMS: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };

/// While a reconcile is interrupted: from a second to five minutes.
pub const RECONCILES: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(300) };

impl Backoff {
    /// The longest wait after the `attempt`-th failure (the first is 1): `first × 2^(attempt − 1)`, at most `longest`.
    pub fn ceiling(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(63);
        self.first
            .checked_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX))
            .unwrap_or(self.longest)
            .min(self.longest)
    }

    /// The wait after the `attempt`-th failure. `spread` is a random number from 0 to 1: full jitter, so that callers that
    /// failed together do not retry together. Never shorter than `first`, never longer than the ceiling.
    pub fn wait(&self, attempt: u32, spread: f64) -> Duration {
        let spread = if spread.is_finite() { spread.clamp(0.0, 1.0) } else { 1.0 };
        self.ceiling(attempt).mul_f64(spread).max(self.first)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn doubles_up_to_the_longest() {
        let seconds: Vec<u64> = (1..=14).map(|attempt| LOOKS.ceiling(attempt).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600]);
    }

    proptest! {
        #[test]
        fn wait_stays_between_first_and_longest(attempt: u32, spread: f64) {
            let wait = LOOKS.wait(attempt, spread);
            prop_assert!(wait >= LOOKS.first && wait <= LOOKS.longest);
        }

        #[test]
        fn the_ceiling_never_falls(attempt in 0_u32..u32::MAX) {
            prop_assert!(LOOKS.ceiling(attempt) <= LOOKS.ceiling(attempt + 1));
        }
    }
}

//! Okta's meter: so many calls in a window of 60 s from its first use (Okta docs: Rate limits).

use std::time::Duration;

use super::rate_limit_headers::RateLimitHeaders;
use super::turn::Turn;
use super::{BucketSnapshot, Priority, Shares};

/// The longest that a window can still last: 60 s, and something for a `Date` that is cut to the second.
const WINDOW_MAX: Duration = Duration::from_secs(70);
/// The reset is cut to the second, as is the `Date` that it is measured against.
const ROUNDING: Duration = Duration::from_secs(1);
/// Two resets less than this apart are those of one window.
const SAME_WINDOW: Duration = Duration::from_secs(3);
/// The pause after a refusal that names no time, doubled with each further one.
const PAUSE_UNNAMED: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Window {
    shares: Shares,
    /// `None` until an answer has shown it.
    limit: Option<u32>,
    /// Left in the present window, as the last answer had it.
    remaining: u32,
    /// When the present window ends. `None`: it has not begun.
    ends_at: Option<Duration>,
    paused_until: Duration,
    in_flight: u32,
    /// Granted to sweeps in the present window.
    swept: u32,
    /// Refusals since the last call that was let through.
    refusals: u32,
}

impl Window {
    pub(super) fn new(shares: Shares) -> Self {
        Self {
            shares,
            limit: None,
            remaining: 0,
            ends_at: None,
            paused_until: Duration::ZERO,
            in_flight: 0,
            swept: 0,
            refusals: 0,
        }
    }

    /// How many calls of a window are left to others. Never all of them.
    fn reserve(&self, limit: u32) -> u32 {
        let kept = (f64::from(limit) * (1.0 - self.shares.ours)).ceil();
        // A share of a u32 is within its range.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 ≤ kept ≤ limit ≤ u32::MAX")]
        let kept = kept as u32;
        kept.min(limit.saturating_sub(1))
    }

    /// How many calls of a window sweeps may make. Always at least one.
    fn sweeps_max(&self, limit: u32) -> u32 {
        let ours = f64::from(limit - self.reserve(limit));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 ≤ it ≤ limit ≤ u32::MAX")]
        let sweeps = (ours * self.shares.sweeps) as u32;
        sweeps.max(1)
    }

    /// A window that has ended is a fresh one, which begins with its first call.
    fn turn(&mut self, now: Duration) {
        if self.ends_at.is_some_and(|end| end <= now) {
            self.ends_at = None;
            self.remaining = self.limit.unwrap_or(0);
            self.swept = 0;
        }
    }

    /// May a call go?
    pub(super) fn turn_of(&mut self, priority: Priority, now: Duration) -> Turn {
        if now < self.paused_until {
            return Turn::After(self.paused_until - now);
        }
        self.turn(now);
        let until_end = self.ends_at.map_or(WINDOW_MAX, |end| end.saturating_sub(now));
        let Some(limit) = self.limit else {
            // One at a time until an answer has shown the limit.
            return if self.in_flight > 0 { Turn::NextAnswer } else { Turn::Now };
        };
        let is_spent = self.remaining.saturating_sub(self.in_flight) <= self.reserve(limit);
        let is_swept = priority == Priority::Sweep && self.swept >= self.sweeps_max(limit);
        if is_spent || is_swept { Turn::After(until_end) } else { Turn::Now }
    }

    pub(super) fn grant(&mut self, priority: Priority) {
        self.in_flight += 1;
        if priority == Priority::Sweep {
            self.swept += 1;
        }
    }

    pub(super) fn release(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// `spread` is a random number from 0 to 1.
    pub(super) fn record_response(&mut self, advice: RateLimitHeaders, spread: f64, now: Duration) {
        self.turn(now);
        if advice.refused {
            self.refusals = self.refusals.saturating_add(1);
            self.pause(advice, spread, now);
            if advice.limit == Some(0) {
                return;
            }
        } else {
            self.refusals = 0;
        }
        let (Some(limit), Some(remaining)) = (advice.limit.filter(|limit| *limit > 0), advice.remaining) else {
            return;
        };
        self.limit = Some(limit);
        // Whatever window this answer turns out to belong to: nothing holds more than its limit.
        self.remaining = self.remaining.min(limit);
        let remaining = remaining.min(limit);
        let end = match advice.reset_in {
            // A reset that has passed: whatever was spent was spent in a window that is over.
            Some(Duration::ZERO) if !advice.refused => {
                self.ends_at = None;
                self.remaining = limit;
                self.swept = 0;
                return;
            }
            None => now + WINDOW_MAX,
            Some(span) => now + (span + ROUNDING).min(WINDOW_MAX),
        };
        match self.ends_at {
            Some(known) if end.abs_diff(known) < SAME_WINDOW => {
                // Answers may overtake each other: within a window what is left only falls.
                self.remaining = self.remaining.min(remaining);
            }
            // An answer of the window before this one, overtaken by an answer of this one.
            Some(known) if end < known => {}
            _ => {
                if self.ends_at.is_some() {
                    self.swept = 0;
                }
                self.ends_at = Some(end);
                self.remaining = remaining;
            }
        }
    }

    fn pause(&mut self, advice: RateLimitHeaders, spread: f64, now: Duration) {
        let pause = if advice.limit == Some(0) {
            // Too many at once: a moment is enough, and not the same one for everybody. The reset means nothing here.
            advice
                .retry_after
                .unwrap_or_default()
                .max(Duration::from_millis(500) + Duration::from_millis(1500).mul_f64(spread))
        } else if let Some(span) = advice.retry_after {
            span.max(Duration::from_secs(1))
        } else if let Some(span) = advice.reset_in.filter(|span| !span.is_zero()) {
            (span + ROUNDING).min(WINDOW_MAX)
        } else {
            // Nothing named, or a reset that has passed already: not a storm, and not for ever.
            let doublings = self.refusals.saturating_sub(1).min(6);
            PAUSE_UNNAMED.saturating_mul(1 << doublings).mul_f64(1.0 + spread / 4.0).min(WINDOW_MAX)
        };
        self.paused_until = self.paused_until.max(now + pause);
    }

    pub(super) fn describe(&self, snapshot: &mut BucketSnapshot, now: Duration) {
        let turned = self.ends_at.is_some_and(|end| end <= now);
        snapshot.limit = self.limit;
        snapshot.remaining = self.limit.map(|limit| if turned { limit } else { self.remaining });
        snapshot.reset_in = self
            .ends_at
            .into_iter()
            .chain([self.paused_until])
            .max()
            .and_then(|at| at.checked_sub(now))
            .filter(|span| !span.is_zero());
        snapshot.in_flight = self.in_flight;
    }
}

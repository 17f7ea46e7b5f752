//! Okta's meter: a fixed window of 60 s that starts with its first call (Okta docs: Rate limits).

use std::time::Duration;

use super::meter::{Readiness, probed};
use super::rate_limit_headers::RateLimitHeaders;
use super::{BucketSnapshot, Priority, Shares};

/// The longest that a window can still last: 60 s plus a margin, since `Date` is truncated to seconds.
const WINDOW_MAX: Duration = Duration::from_secs(70);
/// The reset and the `Date` that it is measured against are both truncated to seconds.
const ROUNDING: Duration = Duration::from_secs(1);
/// Ends closer together than this are the end of the same window.
const SAME_WINDOW: Duration = Duration::from_secs(3);
/// The pause after a 429 without a time; doubles with each further one.
const PAUSE_UNNAMED: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Window {
    shares: Shares,
    /// `None` until a response has shown it.
    limit: Option<u32>,
    /// Calls left in the current window, by the last response.
    remaining: u32,
    /// When the current window ends. `None` if it has not started.
    ends_at: Option<Duration>,
    paused_until: Duration,
    in_flight: u32,
    /// Calls granted to a reconcile in the current window.
    reconcile_calls: u32,
    /// Consecutive 429s.
    refusals: u32,
    /// Pauses in a row after a 429 that says nothing about concurrency: one call at a time finds out whether it is over.
    pauses: u32,
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
            reconcile_calls: 0,
            refusals: 0,
            pauses: 0,
        }
    }

    /// Calls of a window that are left to other clients. Never all of them.
    fn reserve(&self, limit: u32) -> u32 {
        let reserve = (f64::from(limit) * (1.0 - self.shares.ours)).ceil();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 ≤ reserve ≤ limit ≤ u32::MAX")]
        let reserve = reserve as u32;
        reserve.min(limit.saturating_sub(1))
    }

    /// Calls of a window that a reconcile may make. At least one.
    fn reconcile_max(&self, limit: u32) -> u32 {
        let ours = f64::from(limit - self.reserve(limit));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 ≤ reconcile ≤ limit ≤ u32::MAX")]
        let reconcile = (ours * self.shares.reconcile) as u32;
        reconcile.max(1)
    }

    /// Resets the counts if the window has ended; the next one starts with its first call.
    fn roll_over(&mut self, now: Duration) {
        if self.ends_at.is_some_and(|end| end <= now) {
            self.ends_at = None;
            self.remaining = self.limit.unwrap_or(0);
            self.reconcile_calls = 0;
        }
    }

    /// When the next call may go.
    pub(super) fn readiness(&mut self, priority: Priority, now: Duration) -> Readiness {
        if now < self.paused_until {
            return Readiness::After(self.paused_until - now);
        }
        if self.pauses > 0 && self.in_flight > 0 {
            return Readiness::NextResponse;
        }
        self.roll_over(now);
        let until_end = self.ends_at.map_or(WINDOW_MAX, |end| end.saturating_sub(now));
        let Some(limit) = self.limit else {
            // One at a time until a response has shown the limit.
            return if self.in_flight > 0 { Readiness::NextResponse } else { Readiness::Ready };
        };
        let is_spent = self.remaining.saturating_sub(self.in_flight) <= self.reserve(limit);
        let is_reconcile_share_spent =
            priority == Priority::Reconcile && self.reconcile_calls >= self.reconcile_max(limit);
        if is_spent || is_reconcile_share_spent { Readiness::After(until_end) } else { Readiness::Ready }
    }

    pub(super) fn grant(&mut self, priority: Priority) {
        self.in_flight += 1;
        if priority == Priority::Reconcile {
            self.reconcile_calls += 1;
        }
    }

    pub(super) fn release(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// `sent` is when the request was sent; `spread` is a random number from 0 to 1.
    pub(super) fn record_response(&mut self, headers: RateLimitHeaders, spread: f64, sent: Duration, now: Duration) {
        self.roll_over(now);
        if headers.refused {
            self.refusals = self.refusals.saturating_add(1);
            // Calls that were in flight together are refused together.
            if headers.limit != Some(0) && now >= self.paused_until {
                self.pauses = self.pauses.saturating_add(1);
            }
            self.pause(headers, spread, now);
            if headers.limit == Some(0) {
                return;
            }
        } else {
            self.refusals = 0;
            self.pauses = 0;
        }
        let (Some(limit), Some(remaining)) = (headers.limit.filter(|limit| *limit > 0), headers.remaining) else {
            return;
        };
        self.limit = Some(limit);
        // Whichever window this response belongs to, no window holds more than its limit.
        self.remaining = self.remaining.min(limit);
        let remaining = remaining.min(limit);
        let span = match headers.reset_in {
            // A reset in the past: the calls were spent in a window that has ended.
            Some(Duration::ZERO) if !headers.refused => {
                self.ends_at = None;
                self.remaining = limit;
                self.reconcile_calls = 0;
                return;
            }
            None => WINDOW_MAX,
            Some(span) => (span + ROUNDING).min(WINDOW_MAX),
        };
        // The remote answered at some time between the request and now, so the window ends between these two.
        let (earliest_end, end) = (sent + span, now + span);
        match self.ends_at {
            Some(known) if earliest_end < known + SAME_WINDOW && known < end + SAME_WINDOW => {
                // Responses can overtake each other, so `remaining` only falls within a window.
                self.remaining = self.remaining.min(remaining);
            }
            // A late response from the previous window.
            Some(known) if end < known => {}
            _ => {
                if self.ends_at.is_some() {
                    self.reconcile_calls = 0;
                }
                self.ends_at = Some(end);
                self.remaining = remaining;
            }
        }
    }

    fn pause(&mut self, headers: RateLimitHeaders, spread: f64, now: Duration) {
        let pause = if headers.limit == Some(0) {
            // Too many concurrent calls: a short pause with jitter is enough. The reset means nothing here.
            headers
                .retry_after
                .unwrap_or_default()
                .max(Duration::from_millis(500) + Duration::from_millis(1500).mul_f64(spread))
        } else if let Some(span) = headers.retry_after {
            probed(span.max(Duration::from_secs(1)), self.pauses)
        } else if let Some(span) = headers.reset_in.filter(|span| !span.is_zero()) {
            (span + ROUNDING).min(WINDOW_MAX)
        } else {
            // No time given, or a reset in the past: back off, up to a bound.
            let doublings = self.refusals.saturating_sub(1).min(6);
            PAUSE_UNNAMED.saturating_mul(1 << doublings).mul_f64(1.0 + spread / 4.0).min(WINDOW_MAX)
        };
        self.paused_until = self.paused_until.max(now + pause);
    }

    /// Until when no call may be made because of a 429.
    pub(super) fn paused_until(&self) -> Duration {
        self.paused_until
    }

    pub(super) fn describe(&self, snapshot: &mut BucketSnapshot, now: Duration) {
        let has_ended = self.ends_at.is_some_and(|end| end <= now);
        snapshot.limit = self.limit;
        snapshot.remaining = self.limit.map(|limit| if has_ended { limit } else { self.remaining });
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

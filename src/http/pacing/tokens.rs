//! Auth0's meter: a token bucket. Its size is in the headers, its refill rate is not (Auth0 docs: Rate Limit Policy).
//!
//! The refill rate is learned from a provable lower bound: if `n` calls were made between two responses and the bucket
//! went from `a` to `b`, it regained at least `b − a + n` tokens, whether or not it overflowed and whichever other
//! clients used it. This yields two estimates:
//!
//! * the **floor** divides those tokens by the elapsed time plus one second, since some limits refill once a second. It
//!   projects the current level, so the level is never overestimated;
//! * the **rate** divides them by the elapsed time, for spans that are long enough.
//!
//! While learning, only the reserve for other clients limits us, so that the floor rises to the refill rate. Once the
//! floor stops rising although nearly every call has to wait, we settle on our share of the rate. If calls do not have
//! to wait, we measure our demand instead of the refill, and the bucket has enough for everyone. Plans and other clients
//! change, so after a while we learn again, as soon as live work could go faster; a reconcile never triggers that.

use std::collections::VecDeque;
use std::time::Duration;

use super::meter::{Readiness, RequestStart, probed};
use super::rate_limit_headers::RateLimitHeaders;
use super::{BucketSnapshot, Priority, Shares};

/// Calls per second: the lowest estimate, and the first one.
const RATE_MIN: f64 = 0.2;
const RATE_FIRST: f64 = 0.5;
/// Some limits refill once a second.
const REFILL_STEP: Duration = Duration::from_secs(1);
/// A reset further away than this belongs to a fixed window, which regains nothing before it ends.
const GRADUAL_RESET_MAX: Duration = Duration::from_secs(2);
/// Spans over which the refill rate is measured.
const SPAN_MAX: Duration = Duration::from_secs(60);
const SPAN_OF_RATE_MIN: Duration = Duration::from_secs(10);
/// Minimum distance between anchors, which bounds them to 121.
const ANCHOR_SPACING: Duration = Duration::from_millis(500);
/// Learning goes on while the floor rises by at least this factor.
const RISE: f64 = 1.02;
/// Learning ends when the floor has not risen for this long and this many calls.
const STABLE_FOR: Duration = Duration::from_secs(15);
const STABLE_CALLS: u32 = 20;
/// … of which at most one in this many did not have to wait. A saturated worker waits for each call, except for the
/// occasional token above the floor; a worker with little to do does not wait for the first call of each user.
const MAX_UNTHROTTLED_SHARE: u32 = 10;
/// How long learned estimates are kept at least.
const RELEARN_AFTER: Duration = Duration::from_secs(600);
/// The longest pause that does not come from `Retry-After`: after a 429, or because the estimated refill would take
/// longer.
const PAUSE_MAX: Duration = Duration::from_secs(70);
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// A response that later ones are measured against.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    started_at: Duration,
    /// Calls sent up to this response, including its own.
    started: u64,
    remaining: u32,
}

/// Calls that did not have to wait.
#[derive(Clone, Copy, Debug, Default)]
struct Unthrottled {
    live: u32,
    reconcile: u32,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The floor has not risen above `floor` since `since`, over `calls` calls.
    Learning { floor: f64, since: Duration, calls: u32, unthrottled: Unthrottled },
    /// We keep to our share, at least until `until`.
    Settled { until: Duration },
}

/// A local token bucket that spreads a share of the rate over single calls.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    level: f64,
    at: Duration,
}

impl Allowance {
    fn refill(&mut self, rate: f64, size: f64, now: Duration) {
        let gained = now.saturating_sub(self.at).as_secs_f64() * rate;
        self.level = (self.level + gained).min(size);
        self.at = self.at.max(now);
    }

    /// Time until it holds a whole token.
    fn wait(&self, rate: f64) -> Option<Duration> {
        wait_for(1.0 - self.level, rate)
    }
}

/// Time until `missing` tokens are regained at `rate` per second. Ignores rounding errors.
fn wait_for(missing: f64, rate: f64) -> Option<Duration> {
    (missing > 1e-6).then(|| Duration::try_from_secs_f64(missing / rate).unwrap_or(PAUSE_MAX))
}

#[derive(Debug)]
pub(super) struct Tokens {
    shares: Shares,
    limit: Option<u32>,
    /// Lower bound of the bucket's level at `level_at`.
    level: f64,
    level_at: Duration,
    /// Lower bound of the refill rate.
    floor: f64,
    /// The refill rate, measured over longer spans.
    rate: f64,
    phase: Phase,
    anchors: VecDeque<Anchor>,
    ours: Allowance,
    reconcile: Allowance,
    started: u64,
    responses: u64,
    in_flight: u32,
    /// When a call was last granted or answered.
    called_at: Duration,
    paused_until: Duration,
    refusals: u32,
    /// Pauses in a row after a 429.
    pauses: u32,
}

impl Tokens {
    pub(super) fn new(shares: Shares) -> Self {
        Self {
            shares,
            limit: None,
            level: 0.0,
            level_at: Duration::ZERO,
            floor: RATE_FIRST,
            rate: RATE_FIRST,
            phase: Phase::Learning { floor: 0.0, since: Duration::ZERO, calls: 0, unthrottled: Unthrottled::default() },
            anchors: VecDeque::new(),
            ours: Allowance { level: 1.0, at: Duration::ZERO },
            reconcile: Allowance { level: 1.0, at: Duration::ZERO },
            started: 0,
            responses: 0,
            in_flight: 0,
            called_at: Duration::ZERO,
            paused_until: Duration::ZERO,
            refusals: 0,
            pauses: 0,
        }
    }

    /// Tokens that are left to other clients. Never all of them.
    fn reserve(&self, limit: u32) -> f64 {
        (f64::from(limit) * (1.0 - self.shares.ours)).min(f64::from(limit) - 1.0)
    }

    /// Our share of the rate; the whole floor while learning.
    fn our_rate(&self) -> f64 {
        match self.phase {
            Phase::Learning { .. } => self.floor,
            Phase::Settled { .. } => self.rate * self.shares.ours,
        }
    }

    fn refill(&mut self, limit: u32, now: Duration) {
        if now > self.level_at {
            let gained = (now - self.level_at).as_secs_f64() * self.floor;
            self.level = (self.level + gained).min(f64::from(limit));
            self.level_at = now;
        }
        let (rate, size) = (self.our_rate(), (f64::from(limit) * self.shares.ours).max(1.0));
        self.ours.refill(rate, size, now);
        let reconcile = self.shares.reconcile;
        self.reconcile.refill(rate * reconcile, (size * reconcile).max(1.0), now);
    }

    /// When the next call may go.
    pub(super) fn readiness(&mut self, priority: Priority, now: Duration) -> Readiness {
        if now < self.paused_until {
            return Readiness::After(self.paused_until - now);
        }
        let Some(limit) = self.limit else {
            // One at a time until a response has shown the limit.
            return if self.in_flight > 0 { Readiness::NextResponse } else { Readiness::Ready };
        };
        self.refill(limit, now);
        // After a 429 the level is unknown, and waiting for the reserve to refill at the lowest estimate would take
        // minutes, so one call probes it.
        if self.refusals > 0 {
            return if self.in_flight > 0 { Readiness::NextResponse } else { Readiness::Ready };
        }
        let needed = 1.0 + self.reserve(limit) + f64::from(self.in_flight);
        // More than the bucket ever holds: only the end of a call in flight helps, not time.
        if needed > f64::from(limit) && self.in_flight > 0 {
            return Readiness::NextResponse;
        }
        let missing = needed - self.level;
        // A fixed window regains all tokens at once, at `level_at`.
        let until_refill = self.level_at.saturating_sub(now);
        let mut wait = wait_for(missing, self.floor).map(|span| span + until_refill);
        // With a huge empty bucket, or one that other clients drain, the low estimate would have us wait for hours, so
        // one call probes the level.
        let until_probe = (self.called_at + PAUSE_MAX).saturating_sub(now);
        if wait.is_some_and(|wait| wait > until_probe) {
            if self.in_flight > 0 {
                return Readiness::NextResponse;
            }
            wait = Some(until_probe).filter(|wait| !wait.is_zero());
        }
        if let Phase::Settled { until } = self.phase {
            let for_share = match priority {
                Priority::Live => self.ours.wait(self.our_rate()),
                Priority::Reconcile => {
                    self.ours.wait(self.our_rate()).max(self.reconcile.wait(self.our_rate() * self.shares.reconcile))
                }
            };
            if priority == Priority::Live && for_share.is_some() && now >= until {
                self.phase = Phase::Learning { floor: 0.0, since: now, calls: 0, unthrottled: Unthrottled::default() };
                self.anchors.clear();
            } else {
                wait = wait.max(for_share);
            }
        }
        wait.map_or(Readiness::Ready, Readiness::After)
    }

    /// `waited`: was the call held back before?
    pub(super) fn grant(&mut self, priority: Priority, waited: bool, now: Duration) {
        if !waited && let Phase::Learning { unthrottled, .. } = &mut self.phase {
            let count = match priority {
                Priority::Live => &mut unthrottled.live,
                Priority::Reconcile => &mut unthrottled.reconcile,
            };
            *count = count.saturating_add(1);
        }
        self.in_flight += 1;
        self.called_at = self.called_at.max(now);
        self.ours.level = (self.ours.level - 1.0).max(0.0);
        self.ours.at = self.ours.at.max(now);
        if priority == Priority::Reconcile {
            self.reconcile.level = (self.reconcile.level - 1.0).max(0.0);
            self.reconcile.at = self.reconcile.at.max(now);
        }
    }

    pub(super) fn release(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// A call departs; returns how many had been answered by now.
    pub(super) fn start_request(&mut self) -> u64 {
        self.started += 1;
        self.responses
    }

    /// A call turned out to be counted by another meter.
    pub(super) fn uncount(&mut self) {
        self.started = self.started.saturating_sub(1);
    }

    /// A call without a response may or may not have been counted, so nothing is measured across it.
    pub(super) fn lost(&mut self) {
        self.started = self.started.saturating_sub(1);
        self.anchors.clear();
    }

    /// `spread` is a random number from 0 to 1.
    pub(super) fn record_response(
        &mut self,
        start: RequestStart,
        headers: RateLimitHeaders,
        spread: f64,
        now: Duration,
    ) {
        // If another response was recorded while this call was in flight, this one may be older.
        let may_be_stale = self.responses > start.responses_before;
        self.responses += 1;
        self.called_at = self.called_at.max(now);
        let remaining = if headers.refused { Some(0) } else { headers.remaining };
        let limit = headers.limit.filter(|limit| *limit > 0).or(self.limit);
        if let (Some(limit), Some(remaining)) = (limit, remaining) {
            let is_new = self.limit.replace(limit) != Some(limit);
            let remaining = remaining.min(limit);
            self.refill(limit, now);
            let shown = f64::from(remaining);
            let projected = (self.level - 1.0).max(0.0);
            self.level = if is_new {
                self.ours = Allowance { level: (f64::from(limit) * self.shares.ours - 1.0).max(0.0), at: now };
                self.reconcile = Allowance { level: 1.0, at: now };
                shown
            } else if may_be_stale {
                shown.min(projected)
            } else if projected >= shown && projected < shown + 1.0 {
                // The header is truncated to whole tokens; the projection keeps the fraction.
                projected
            } else {
                shown
            };
            self.level_at = self.level_at.max(now);
            if let Some(reset) = headers.reset_in.filter(|reset| *reset > GRADUAL_RESET_MAX) {
                self.level_at = now + reset.min(PAUSE_MAX);
            }
            self.measure(start, remaining, now);
        }
        if headers.refused {
            self.refuse(headers, spread, now);
        } else {
            self.refusals = 0;
            self.pauses = 0;
        }
    }

    fn measure(&mut self, start: RequestStart, remaining: u32, now: Duration) {
        let Phase::Learning { floor: best, since, calls, unthrottled } = self.phase else { return };
        while self.anchors.front().is_some_and(|anchor| now.saturating_sub(anchor.started_at) > SPAN_MAX) {
            self.anchors.pop_front();
        }
        let (mut floor, mut rate) = (self.floor, None::<f64>);
        for anchor in &self.anchors {
            // Calls sent after the anchor's response and answered before this one was sent.
            let calls = start.responses_before.saturating_sub(anchor.started) + 1;
            #[expect(clippy::cast_precision_loss, reason = "no span holds 2^52 calls")]
            let gained = f64::from(remaining) - f64::from(anchor.remaining) + calls as f64;
            let span = now.saturating_sub(anchor.started_at);
            floor = floor.max(gained / (span + REFILL_STEP).as_secs_f64());
            if span >= SPAN_OF_RATE_MIN {
                rate = Some(rate.unwrap_or(RATE_MIN).max(gained / span.as_secs_f64()));
            }
        }
        self.floor = floor;
        self.rate = rate.unwrap_or(self.rate).max(floor);
        if self.anchors.back().is_none_or(|anchor| start.started_at >= anchor.started_at + ANCHOR_SPACING) {
            self.anchors.push_back(Anchor { started_at: start.started_at, started: self.started, remaining });
        }
        let is_stable = rate.is_some() && calls >= STABLE_CALLS && now.saturating_sub(since) >= STABLE_FOR;
        let is_idle = |unthrottled: u32| unthrottled.saturating_mul(MAX_UNTHROTTLED_SHARE) > calls;
        self.phase = if floor > best * RISE {
            Phase::Learning { floor, since: now, calls: 0, unthrottled: Unthrottled::default() }
        } else if !is_stable {
            Phase::Learning { floor: best, since, calls: calls.saturating_add(1), unthrottled }
        } else if is_idle(unthrottled.live) {
            Phase::Learning { floor: best, since: now, calls: 0, unthrottled: Unthrottled::default() }
        } else {
            // A reconcile keeps to its share of the measured rate even if only its calls were measured; live work that
            // needs more then learns again at once.
            let keep_for = if is_idle(unthrottled.reconcile) { Duration::ZERO } else { RELEARN_AFTER };
            Phase::Settled { until: now + keep_for }
        };
    }

    /// Handles a 429: pauses as asked, or until a probe, and halves the estimates.
    pub(super) fn refuse(&mut self, headers: RateLimitHeaders, spread: f64, now: Duration) {
        self.refusals = self.refusals.saturating_add(1);
        // Calls that were in flight together are refused together.
        if now >= self.paused_until {
            self.pauses = self.pauses.saturating_add(1);
        }
        let doubled = |span: Duration| span.saturating_mul(1 << self.refusals.saturating_sub(1).min(6)).min(PAUSE_MAX);
        let pause = if let Some(span) = headers.retry_after {
            probed(span.max(PAUSE_MIN), self.pauses)
        } else {
            // The reset is that of the next token, which other clients want too, so repeated 429s back off.
            doubled(headers.reset_in.filter(|span| !span.is_zero()).unwrap_or_default().max(PAUSE_MIN))
        };
        // Jitter: other clients were refused at the same moment and saw the same reset.
        self.paused_until = self.paused_until.max(now + pause.mul_f64(1.0 + spread / 10.0));
        if self.refusals == 1 {
            self.floor = (self.floor / 2.0).max(RATE_MIN);
            self.rate = (self.rate / 2.0).max(RATE_MIN);
        }
        self.anchors.clear();
        self.phase = Phase::Learning { floor: 0.0, since: now, calls: 0, unthrottled: Unthrottled::default() };
    }

    /// Until when no call may be made because of a 429.
    pub(super) fn paused_until(&self) -> Duration {
        self.paused_until
    }

    pub(super) fn describe(&self, snapshot: &mut BucketSnapshot, now: Duration) {
        snapshot.limit = self.limit;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 ≤ level ≤ limit ≤ u32::MAX")]
        let level = self.level as u32;
        snapshot.remaining = self.limit.map(|_| level);
        snapshot.reset_in = self.paused_until.checked_sub(now).filter(|span| !span.is_zero());
        snapshot.calls_per_second = self.limit.map(|_| self.our_rate());
        snapshot.in_flight = self.in_flight;
    }
}

//! Auth0's meter: a token bucket, whose size is in the headers and whose refill is not (Auth0 docs: Rate Limit Policy).
//!
//! So the refill is learned, from what is provable: if `n` calls were made between two answers and the bucket went from
//! `a` to `b`, then at least `b − a + n` tokens came back meanwhile, whether or not it overflowed and whoever else took
//! some. Two numbers follow:
//!
//! * the **floor** of the refill counts those tokens over a second more than the time between, since some limits refill
//!   once a second. It projects what is in the bucket now, which is thus never overestimated;
//! * the **rate** counts them over the time itself, for spans that are long enough.
//!
//! While learning, only what is left for others holds us back, so that the floor rises to the refill. When it rises no
//! more although nearly each call has to wait, we keep to our share of the rate. As long as calls need not wait, what is
//! measured is what we need and not what comes back, and the bucket has enough for all. Plans and neighbours change, so
//! after a while we learn again, as soon as live work would go faster; sweeps never ask for that.

use std::collections::VecDeque;
use std::time::Duration;

use super::rate_limit_headers::RateLimitHeaders;
use super::turn::{Departure, Turn};
use super::{BucketSnapshot, Priority, Shares};

/// Calls a second before anything is known, and the least that is ever believed.
const RATE_MIN: f64 = 0.2;
const RATE_FIRST: f64 = 0.5;
/// Some limits refill once a second.
const REFILL_STEP: Duration = Duration::from_secs(1);
/// A reset further away than this is a window's, in which nothing comes back before it ends.
const GRADUAL_RESET_MAX: Duration = Duration::from_secs(2);
/// Spans over which the refill is measured.
const SPAN_MAX: Duration = Duration::from_secs(60);
const SPAN_OF_RATE_MIN: Duration = Duration::from_secs(10);
/// Answers further apart than this become anchors of a measurement: at most 121 are kept.
const ANCHOR_SPACING: Duration = Duration::from_millis(500);
/// The floor has risen enough to go on learning.
const RISE: f64 = 1.02;
/// Learning ends when the floor has not risen for so long, in spite of so many calls.
const STILL_FOR: Duration = Duration::from_secs(15);
const STILL_CALLS: u32 = 20;
/// … of which at most one in so many went without waiting. Who works on without end waits each time, but for the token now
/// and then that comes back beyond the floor; who has a person to look at now and then does not wait for their first call.
const MAX_UNTHROTTLED_SHARE: u32 = 10;
/// How long what was learned is kept at least.
const RELEARN_AFTER: Duration = Duration::from_secs(600);
/// The longest pause that does not come from `Retry-After`: after a refusal, or because what an answer showed to be left
/// would take longer to come back by what is known of the refill.
const PAUSE_MAX: Duration = Duration::from_secs(70);
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// An answer that later ones are measured from.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    departed_at: Duration,
    /// Calls that had departed when it was answered, itself among them.
    departed: u64,
    remaining: u32,
}

/// Calls that need not wait.
#[derive(Clone, Copy, Debug, Default)]
struct Unthrottled {
    live: u32,
    sweeps: u32,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Since when has the floor not risen above `floor`, and through how many calls, so many of them unthrottled?
    Learning { floor: f64, since: Duration, calls: u32, unthrottled: Unthrottled },
    /// We keep to our share, at least until then.
    Settled { until: Duration },
}

/// A bucket of ours that refills steadily: what a share of a rate means in terms of single calls.
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

    /// Until a whole call is in it.
    fn wait(&self, rate: f64) -> Option<Duration> {
        wait_for(1.0 - self.level, rate)
    }
}

/// How long until `missing` has come back at `rate` a second. A hair's breadth is not worth a wait.
fn wait_for(missing: f64, rate: f64) -> Option<Duration> {
    (missing > 1e-6).then(|| Duration::try_from_secs_f64(missing / rate).unwrap_or(PAUSE_MAX))
}

#[derive(Debug)]
pub(super) struct Tokens {
    shares: Shares,
    limit: Option<u32>,
    /// What is at least in the bucket at `level_at`, by the answers so far.
    level: f64,
    level_at: Duration,
    /// The refill, at least.
    floor: f64,
    /// The refill, measured over longer spans.
    rate: f64,
    phase: Phase,
    anchors: VecDeque<Anchor>,
    ours: Allowance,
    sweeps: Allowance,
    departed: u64,
    answered: u64,
    in_flight: u32,
    /// When a call was last let through or answered.
    called_at: Duration,
    paused_until: Duration,
    refusals: u32,
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
            sweeps: Allowance { level: 1.0, at: Duration::ZERO },
            departed: 0,
            answered: 0,
            in_flight: 0,
            called_at: Duration::ZERO,
            paused_until: Duration::ZERO,
            refusals: 0,
        }
    }

    /// What is left to others, in tokens. Never all of them.
    fn reserve(&self, limit: u32) -> f64 {
        (f64::from(limit) * (1.0 - self.shares.ours)).min(f64::from(limit) - 1.0)
    }

    /// Our share of the rate; all of it while learning.
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
        let sweeps = self.shares.sweeps;
        self.sweeps.refill(rate * sweeps, (size * sweeps).max(1.0), now);
    }

    /// May a call go?
    pub(super) fn turn_of(&mut self, priority: Priority, now: Duration) -> Turn {
        if now < self.paused_until {
            return Turn::After(self.paused_until - now);
        }
        let Some(limit) = self.limit else {
            // One at a time until an answer has shown the limit.
            return if self.in_flight > 0 { Turn::NextAnswer } else { Turn::Now };
        };
        self.refill(limit, now);
        // After a refusal the bucket is as good as unknown, and to wait until the least that is believed of its refill has
        // filled what is left to others would take minutes: one call finds out.
        if self.refusals > 0 {
            return if self.in_flight > 0 { Turn::NextAnswer } else { Turn::Now };
        }
        let needed = 1.0 + self.reserve(limit) + f64::from(self.in_flight);
        // More than the bucket ever holds: no time brings that, only the end of a call that is under way.
        if needed > f64::from(limit) && self.in_flight > 0 {
            return Turn::NextAnswer;
        }
        let missing = needed - self.level;
        // A window's tokens come back all at once, at a moment that lies ahead.
        let until_refill = self.level_at.saturating_sub(now);
        let mut wait = wait_for(missing, self.floor).map(|span| span + until_refill);
        // An empty bucket that is said to be huge, or one that others empty, would have us wait for hours by the little
        // that is known of its refill: one call finds out how it is by now.
        let until_probe = (self.called_at + PAUSE_MAX).saturating_sub(now);
        if wait.is_some_and(|wait| wait > until_probe) {
            if self.in_flight > 0 {
                return Turn::NextAnswer;
            }
            wait = Some(until_probe).filter(|wait| !wait.is_zero());
        }
        if let Phase::Settled { until } = self.phase {
            let for_share = match priority {
                Priority::Live => self.ours.wait(self.our_rate()),
                Priority::Sweep => {
                    self.ours.wait(self.our_rate()).max(self.sweeps.wait(self.our_rate() * self.shares.sweeps))
                }
            };
            if priority == Priority::Live && for_share.is_some() && now >= until {
                self.phase = Phase::Learning { floor: 0.0, since: now, calls: 0, unthrottled: Unthrottled::default() };
                self.anchors.clear();
            } else {
                wait = wait.max(for_share);
            }
        }
        wait.map_or(Turn::Now, Turn::After)
    }

    /// `waited`: was the call held back before?
    pub(super) fn grant(&mut self, priority: Priority, waited: bool, now: Duration) {
        if !waited && let Phase::Learning { unthrottled, .. } = &mut self.phase {
            let count = match priority {
                Priority::Live => &mut unthrottled.live,
                Priority::Sweep => &mut unthrottled.sweeps,
            };
            *count = count.saturating_add(1);
        }
        self.in_flight += 1;
        self.called_at = self.called_at.max(now);
        self.ours.level = (self.ours.level - 1.0).max(0.0);
        self.ours.at = self.ours.at.max(now);
        if priority == Priority::Sweep {
            self.sweeps.level = (self.sweeps.level - 1.0).max(0.0);
            self.sweeps.at = self.sweeps.at.max(now);
        }
    }

    pub(super) fn release(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// A call departs; returns how many had been answered by now.
    pub(super) fn start_request(&mut self) -> u64 {
        self.departed += 1;
        self.answered
    }

    /// A call turned out to be counted by another meter.
    pub(super) fn not_counted(&mut self) {
        self.departed = self.departed.saturating_sub(1);
    }

    /// A call had no answer: it may or may not have been counted, so nothing is measured across it.
    pub(super) fn lost(&mut self) {
        self.departed = self.departed.saturating_sub(1);
        self.anchors.clear();
    }

    /// `spread` is a random number from 0 to 1.
    pub(super) fn record_response(
        &mut self,
        departure: Departure,
        advice: RateLimitHeaders,
        spread: f64,
        now: Duration,
    ) {
        // Was any other answer taken in while this call was under way? Then it may say what was true before that one.
        let may_be_stale = self.answered > departure.answered_before;
        self.answered += 1;
        self.called_at = self.called_at.max(now);
        let remaining = if advice.refused { Some(0) } else { advice.remaining };
        let limit = advice.limit.filter(|limit| *limit > 0).or(self.limit);
        if let (Some(limit), Some(remaining)) = (limit, remaining) {
            let is_new = self.limit.replace(limit) != Some(limit);
            let remaining = remaining.min(limit);
            self.refill(limit, now);
            let shown = f64::from(remaining);
            let projected = (self.level - 1.0).max(0.0);
            self.level = if is_new {
                self.ours = Allowance { level: (f64::from(limit) * self.shares.ours - 1.0).max(0.0), at: now };
                self.sweeps = Allowance { level: 1.0, at: now };
                shown
            } else if may_be_stale {
                shown.min(projected)
            } else if projected >= shown && projected < shown + 1.0 {
                // The header is cut to whole tokens; the projection knows the fraction.
                projected
            } else {
                shown
            };
            self.level_at = self.level_at.max(now);
            if let Some(reset) = advice.reset_in.filter(|reset| *reset > GRADUAL_RESET_MAX) {
                self.level_at = now + reset.min(PAUSE_MAX);
            }
            self.measure(departure, remaining, now);
        }
        if advice.refused {
            self.refuse(advice, spread, now);
        } else {
            self.refusals = 0;
        }
    }

    fn measure(&mut self, departure: Departure, remaining: u32, now: Duration) {
        let Phase::Learning { floor: best, since, calls, unthrottled } = self.phase else { return };
        while self.anchors.front().is_some_and(|anchor| now.saturating_sub(anchor.departed_at) > SPAN_MAX) {
            self.anchors.pop_front();
        }
        let (mut floor, mut rate) = (self.floor, None::<f64>);
        for anchor in &self.anchors {
            // Calls that departed after the anchor was answered, and were answered before this one departed.
            let calls = departure.answered_before.saturating_sub(anchor.departed) + 1;
            #[expect(clippy::cast_precision_loss, reason = "no span holds 2^52 calls")]
            let gained = f64::from(remaining) - f64::from(anchor.remaining) + calls as f64;
            let span = now.saturating_sub(anchor.departed_at);
            floor = floor.max(gained / (span + REFILL_STEP).as_secs_f64());
            if span >= SPAN_OF_RATE_MIN {
                rate = Some(rate.unwrap_or(RATE_MIN).max(gained / span.as_secs_f64()));
            }
        }
        self.floor = floor;
        self.rate = rate.unwrap_or(self.rate).max(floor);
        if self.anchors.back().is_none_or(|anchor| departure.departed_at >= anchor.departed_at + ANCHOR_SPACING) {
            self.anchors.push_back(Anchor { departed_at: departure.departed_at, departed: self.departed, remaining });
        }
        let is_still = rate.is_some() && calls >= STILL_CALLS && now.saturating_sub(since) >= STILL_FOR;
        let many = |unthrottled: u32| unthrottled.saturating_mul(MAX_UNTHROTTLED_SHARE) > calls;
        self.phase = if floor > best * RISE {
            Phase::Learning { floor, since: now, calls: 0, unthrottled: Unthrottled::default() }
        } else if !is_still {
            Phase::Learning { floor: best, since, calls: calls.saturating_add(1), unthrottled }
        } else if many(unthrottled.live) {
            Phase::Learning { floor: best, since: now, calls: 0, unthrottled: Unthrottled::default() }
        } else {
            // Sweeps keep to their part of what was measured, even if they alone were measured; live work that needs more
            // then learns again at once.
            let kept = if many(unthrottled.sweeps) { Duration::ZERO } else { RELEARN_AFTER };
            Phase::Settled { until: now + kept }
        };
    }

    /// We were too fast, or others were: wait as asked, and believe in half of what was learned.
    pub(super) fn refuse(&mut self, advice: RateLimitHeaders, spread: f64, now: Duration) {
        self.refusals = self.refusals.saturating_add(1);
        let doubled = |span: Duration| span.saturating_mul(1 << self.refusals.saturating_sub(1).min(6)).min(PAUSE_MAX);
        let pause = if let Some(span) = advice.retry_after {
            span.max(PAUSE_MIN)
        } else {
            // A reset names the next token, for which others wait too: who was refused again and again asks less often.
            doubled(advice.reset_in.filter(|span| !span.is_zero()).unwrap_or_default().max(PAUSE_MIN))
        };
        // Others were refused at the same moment and read the same reset.
        self.paused_until = self.paused_until.max(now + pause.mul_f64(1.0 + spread / 10.0));
        if self.refusals == 1 {
            self.floor = (self.floor / 2.0).max(RATE_MIN);
            self.rate = (self.rate / 2.0).max(RATE_MIN);
        }
        self.anchors.clear();
        self.phase = Phase::Learning { floor: 0.0, since: now, calls: 0, unthrottled: Unthrottled::default() };
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

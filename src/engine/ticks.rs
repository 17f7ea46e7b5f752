//! Bounds the time between two ticks of a schedule.
//!
//! The scheduler waits for a time of day. If the system clock is set back by an hour, it ticks an hour late. So each tick
//! has a deadline on the monotonic clock; when it passes, the loop is woken without a tick.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Engine, Fatal};
use crate::domain::{Clock, Timestamp, clock};

/// How often deadlines are checked.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// The longest time that a tick may be late; a frequent schedule has a period.
const GRACE_MAX: Duration = Duration::from_secs(600);
/// If the calendar has no further firing.
const UNSCHEDULED: Duration = Duration::from_secs(86_400);

/// The ticks of one schedule.
#[derive(Debug)]
pub(super) struct Ticks {
    name: &'static str,
    pattern: String,
    cron: Cron,
    /// When the next tick is missed, by [`Clock::monotonic`].
    deadline: Mutex<Duration>,
}

/// A schedule, and what wakes its loop.
pub(super) type WakingTicks = (Arc<Ticks>, fn(&Engine));

impl Ticks {
    /// Starts to wait for the first tick.
    pub(super) fn new(name: &'static str, pattern: &str, clock: &dyn Clock) -> Result<Self, Fatal> {
        // As the scheduler parses it.
        let cron = CronParser::builder().seconds(Seconds::Required).dom_and_dow(true).build().parse(pattern);
        let cron = cron.map_err(|error| Fatal::Schedule(format!("was refused: {error}")))?;
        let ticks = Self { name, pattern: pattern.to_owned(), cron, deadline: Mutex::default() };
        ticks.record(clock);
        Ok(ticks)
    }

    pub(super) fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Records a tick: the next one is expected at the next firing after now.
    pub(super) fn record(&self, clock: &dyn Clock) {
        let now = clock.now();
        let mut firings = self.firings(now);
        let until_next = firings.next().unwrap_or(UNSCHEDULED);
        let period = firings.next().map_or(GRACE_MAX, |second| second.saturating_sub(until_next));
        let deadline = clock.monotonic().saturating_add(until_next).saturating_add(period.min(GRACE_MAX));
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = deadline;
    }

    /// The time from `now` to each firing after it.
    fn firings(&self, now: Timestamp) -> impl Iterator<Item = Duration> {
        let start = DateTime::<Utc>::from_timestamp(now.as_second(), 0);
        start
            .into_iter()
            .flat_map(|start| self.cron.iter_after(start))
            .map_while(|at| Timestamp::from_second(at.timestamp()).ok())
            .map(move |at| clock::since(at, now))
    }

    fn is_missed(&self, clock: &dyn Clock) -> bool {
        clock.monotonic() >= *self.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Calls `wake` whenever a tick was missed, until cancelled.
    pub(super) async fn tick_loop(&self, ticks: &[WakingTicks], stop: &CancellationToken) {
        let clock = self.clock.as_ref();
        while !stop.is_cancelled() {
            for (ticks, wake) in ticks {
                if ticks.is_missed(clock) {
                    warn!(
                        event = "tick_missed",
                        schedule = ticks.name,
                        "schedule.{} did not tick in time (was the system clock set?); continuing by elapsed time",
                        ticks.name
                    );
                    ticks.record(clock);
                    wake(self);
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = clock.sleep(CHECK_EVERY) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ManualClock;

    fn missed_after(pattern: &str, seconds: u64) -> bool {
        let clock = ManualClock::new("2026-11-23T10:00:00.5Z".parse().unwrap());
        let ticks = Ticks::new("poll", pattern, &clock).unwrap();
        clock.step_wall(jiff::SignedDuration::from_hours(-1));
        clock.advance(Duration::from_secs(seconds));
        ticks.is_missed(&clock)
    }

    #[test]
    fn tick_is_missed_after_two_periods_at_most() {
        for (pattern, seconds) in [("*/15 * * * * *", 30), ("0 0 3 * * *", 17 * 3600 + 600)] {
            assert!(missed_after(pattern, seconds), "{pattern}");
            assert!(!missed_after(pattern, seconds - 1), "{pattern}");
        }
    }

    #[test]
    fn pause_in_a_schedule_is_not_a_missed_tick() {
        assert!(!missed_after("0 * 9 * * *", 22 * 3600));
    }
}

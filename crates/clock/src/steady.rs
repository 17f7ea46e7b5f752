//! A clock that ignores steps of the system clock until a remote confirms them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::SignedDuration;

use super::{Clock, Sleep, Timestamp, Waiting, add};

/// Smaller steps are followed at once: NTP makes them all the time.
const STEP_MIN: SignedDuration = SignedDuration::from_secs(2);

/// The time of day of another clock, carried on by its monotonic time when it is set.
///
/// Due times, retention and rate windows compare times of day. If an operator or a wrong time server sets the system clock
/// back by an hour, all of them would wait for an hour; if it is set forward, all would end at once. So this clock
/// continues with the time it had, until the time of a remote ([`Clock::confirm`]) is closer to the system's new time.
/// The same holds after a suspension, during which monotonic time stands still.
#[derive(Debug)]
pub struct SteadyClock {
    system: Arc<dyn Clock>,
    /// A time of day that was believed, and the monotonic time at that moment.
    believed: Mutex<(Timestamp, Duration)>,
}

impl SteadyClock {
    /// Starts with the time of day that `system` shows.
    pub fn new(system: Arc<dyn Clock>) -> Self {
        let believed = Mutex::new((system.now(), system.monotonic()));
        Self { system, believed }
    }

    /// The system's time of day if `accept` accepts it, else the time that follows from the monotonic clock, which
    /// `accept` gets.
    fn read(&self, accept: impl FnOnce(Timestamp, Timestamp) -> bool) -> (Timestamp, Timestamp) {
        let mut believed = self.believed.lock().unwrap_or_else(PoisonError::into_inner);
        let (wall, monotonic) = (self.system.now(), self.system.monotonic());
        let carried = add(believed.0, monotonic.saturating_sub(believed.1));
        if !accept(wall, carried) {
            return (carried, carried);
        }
        *believed = (wall, monotonic);
        (wall, carried)
    }
}

fn distance(one: Timestamp, other: Timestamp) -> SignedDuration {
    one.duration_since(other).abs()
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        self.read(|wall, carried| distance(wall, carried) < STEP_MIN).0
    }

    fn wall(&self) -> Timestamp {
        self.system.now()
    }

    fn confirm(&self, remote_time: Timestamp) -> Option<SignedDuration> {
        let (now, carried) = self.read(|wall, carried| distance(wall, remote_time) < distance(carried, remote_time));
        let step = now.duration_since(carried);
        (step.abs() >= STEP_MIN).then_some(step)
    }

    fn monotonic(&self) -> Duration {
        self.system.monotonic()
    }

    fn sleep(&self, span: Duration) -> Sleep<'_> {
        self.system.sleep(span)
    }

    fn waiting(&self) -> Waiting {
        self.system.waiting()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ManualClock;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    fn start() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn clocks() -> (Arc<ManualClock>, SteadyClock) {
        let system = Arc::new(ManualClock::new(start()));
        (system.clone(), SteadyClock::new(system))
    }

    #[test]
    fn step_is_ignored_until_a_remote_confirms_it() {
        for step in [HOUR, -HOUR] {
            let (system, clock) = clocks();
            system.step_wall(step);
            system.advance(Duration::from_secs(60));
            let right = add(start(), Duration::from_secs(60));
            assert_eq!((clock.now(), clock.wall()), (right, right + step), "{step}");
            assert_eq!(clock.monotonic(), Duration::from_secs(60), "no time passes in a step");
            assert_eq!(clock.confirm(right), None, "the remote agrees with the time before the step");
            assert_eq!(clock.now(), right);
            assert_eq!(clock.confirm(right + step), Some(step), "the remote agrees with the system");
            assert_eq!(clock.now(), right + step);
        }
    }

    #[test]
    fn wrong_clock_at_the_start_is_corrected() {
        let (system, clock) = clocks();
        let right = start() - 3 * HOUR;
        assert_eq!(clock.confirm(right), None, "the system has no better time");
        assert_eq!(clock.now(), start());
        system.step_wall(-3 * HOUR);
        assert_eq!(clock.confirm(right), Some(-3 * HOUR));
        assert_eq!(clock.now(), right);
    }

    #[test]
    fn small_corrections_are_followed_at_once() {
        let (system, clock) = clocks();
        for _ in 0..10 {
            system.step_wall(SignedDuration::from_millis(-900));
            assert_eq!(clock.now(), system.now());
        }
    }
}

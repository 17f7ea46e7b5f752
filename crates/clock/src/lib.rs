//! Time as a parameter: code that needs the time takes a [`Clock`].
//!
//! A test sets its clock and never sleeps; a sandbox can skip a week.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

mod steady;

pub use steady::SteadyClock;

/// A moment in UTC.
pub type Timestamp = jiff::Timestamp;

/// The future that [`Clock::sleep`] returns.
pub type Sleep<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// A source of time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The time of day in UTC. It may jump in either direction when the system clock is set; the time of a
    /// [`SteadyClock`] jumps only if a remote confirms the new time.
    fn now(&self) -> Timestamp;

    /// The time of day as the system clock shows it, right or wrong: to compare it with the time of a remote.
    fn wall(&self) -> Timestamp {
        self.now()
    }

    /// Takes the time of a trusted remote. Returns the step if the clock took the system's new time because of it.
    fn confirm(&self, remote_time: Timestamp) -> Option<jiff::SignedDuration> {
        let _ = remote_time;
        None
    }

    /// Time since a fixed moment of this process. It never runs backwards: use it to measure durations.
    fn monotonic(&self) -> Duration;

    /// Completes when `span` has passed on this clock.
    fn sleep(&self, span: Duration) -> Sleep<'_>;

    /// Marks a wait for something outside this process, until the guard is dropped. A stepping clock stops during the
    /// wait; the system clock ignores it.
    fn waiting(&self) -> Waiting {
        Waiting(None)
    }
}

/// See [`Clock::waiting`].
#[derive(Debug)]
pub struct Waiting(Option<Arc<AtomicUsize>>);

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(waiting) = &self.0 {
            waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// The system clock.
#[derive(Debug)]
pub struct SystemClock {
    started: std::time::Instant,
}

impl SystemClock {
    /// A clock whose [`Clock::monotonic`] starts at zero now.
    #[expect(clippy::disallowed_methods, reason = "only here the system is asked for the time")]
    pub fn new() -> Self {
        Self { started: std::time::Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "only here the system is asked for the time")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "only here the system is asked for the time")]
    fn sleep(&self, span: Duration) -> Sleep<'_> {
        Box::pin(tokio::time::sleep(span))
    }
}

/// A clock that stops until it is moved, for tests and sandboxes.
///
/// With [`ManualClock::stepping`] a sleeper moves the clock instead of waiting, so that a simulated week of backoff takes
/// no time. During a wait for a response ([`Clock::waiting`]) the clock stops, so that loops that wake every second do not
/// turn one request into hours; but for at most [`STANDSTILL_MAX`] of real time, because the response may itself wait for
/// this clock.
#[derive(Debug)]
pub struct ManualClock {
    /// The time of day and the monotonic time, which only grows.
    time: watch::Sender<(Timestamp, Duration)>,
    stepping: bool,
    /// Serializes steps: two concurrent sleepers of one second move the clock by one second, not two.
    step: Mutex<()>,
    waiting: Arc<AtomicUsize>,
}

/// How long, in real time, a stepping clock stops for a response.
const STANDSTILL_MAX: Duration = Duration::from_millis(200);

impl ManualClock {
    /// Starts at `now`; sleepers wait until the clock is moved past their deadline.
    pub fn new(now: Timestamp) -> Self {
        Self {
            time: watch::Sender::new((now, Duration::ZERO)),
            stepping: false,
            step: Mutex::new(()),
            waiting: Arc::default(),
        }
    }

    /// Starts at `now`; a sleeper moves the clock to the end of its sleep and continues at once.
    pub fn stepping(now: Timestamp) -> Self {
        Self { stepping: true, ..Self::new(now) }
    }

    /// Moves the clock forward by `span`.
    pub fn advance(&self, span: Duration) {
        self.time.send_modify(|(now, monotonic)| {
            *now = add(*now, span);
            *monotonic = monotonic.saturating_add(span);
        });
    }

    /// Sets the time of day without any time passing, as an operator or NTP does.
    pub fn step_wall(&self, step: jiff::SignedDuration) {
        self.time.send_modify(|(now, _)| *now = now.saturating_add(step).unwrap_or(*now));
    }

    /// Waits, in real time, until no wait for a response is left.
    #[expect(clippy::disallowed_methods, reason = "simulated time waits for real responses only here")]
    async fn stand_still(&self) {
        let began = std::time::Instant::now();
        while self.waiting.load(Ordering::SeqCst) > 0 && began.elapsed() < STANDSTILL_MAX {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Clock for ManualClock {
    fn waiting(&self) -> Waiting {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        Waiting(Some(self.waiting.clone()))
    }

    fn now(&self) -> Timestamp {
        self.time.borrow().0
    }

    fn monotonic(&self) -> Duration {
        self.time.borrow().1
    }

    fn sleep(&self, span: Duration) -> Sleep<'_> {
        let until = self.monotonic().saturating_add(span);
        Box::pin(async move {
            if self.stepping {
                // Let tasks that can run now run before time moves.
                tokio::task::yield_now().await;
                self.stand_still().await;
                let _one_at_a_time = self.step.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                let left = until.saturating_sub(self.monotonic());
                if !left.is_zero() {
                    self.advance(left);
                }
                return;
            }
            let mut time = self.time.subscribe();
            // The sender lives in `self`, so the channel cannot close while we wait.
            let _ = time.wait_for(|(_, monotonic)| *monotonic >= until).await;
        })
    }
}

/// `at + span`, saturating at the last representable moment.
pub fn add(at: Timestamp, span: Duration) -> Timestamp {
    jiff::SignedDuration::try_from(span).ok().and_then(|span| at.checked_add(span).ok()).unwrap_or(Timestamp::MAX)
}

/// `at - span`, saturating at the first representable moment.
pub fn sub(at: Timestamp, span: Duration) -> Timestamp {
    jiff::SignedDuration::try_from(span).ok().and_then(|span| at.checked_sub(span).ok()).unwrap_or(Timestamp::MIN)
}

/// The time from `earlier` to `later`; zero if `later` is not later.
pub fn since(later: Timestamp, earlier: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).unwrap_or(Duration::ZERO)
}

/// The text form of a time: UTC, RFC 3339, milliseconds, `Z`. Texts sort in order of time.
pub fn timestamp_text(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// Parses an RFC 3339 time.
///
/// # Errors
/// If `text` is not one.
pub fn parse_timestamp(text: &str) -> Result<Timestamp, jiff::Error> {
    text.parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        parse_timestamp(text).unwrap()
    }

    #[test]
    fn timestamp_texts_sort_in_order_of_time() {
        let earlier = timestamp_text(at("2026-11-23T10:00:00Z"));
        let later = timestamp_text(at("2026-11-23T10:00:00.01Z"));
        assert_eq!(earlier, "2026-11-23T10:00:00.000Z");
        assert_eq!(later, "2026-11-23T10:00:00.010Z");
        assert!(earlier < later);
    }

    #[test]
    fn system_clock_advances() {
        let clock = SystemClock::default();
        let began = clock.monotonic();
        assert!((0..1_000_000).any(|_| clock.monotonic() > began));
    }

    #[test]
    fn add_and_sub_saturate() {
        assert_eq!(add(at("2026-01-01T00:00:00Z"), Duration::MAX), Timestamp::MAX);
        assert_eq!(sub(at("2026-01-01T00:00:00Z"), Duration::MAX), Timestamp::MIN);
        assert_eq!(since(at("2026-01-01T00:00:00Z"), at("2026-01-01T00:00:01Z")), Duration::ZERO);
    }

    #[tokio::test]
    async fn stepping_clock_jumps_to_the_end_of_sleep() {
        let clock = ManualClock::stepping(at("2026-01-01T00:00:00Z"));
        clock.sleep(Duration::from_secs(3600)).await;
        assert_eq!(clock.now(), at("2026-01-01T01:00:00Z"));
    }

    #[tokio::test]
    async fn stepping_clock_stops_during_a_wait() {
        let clock = std::sync::Arc::new(ManualClock::stepping(at("2026-01-01T00:00:00Z")));
        let waiting = clock.waiting();
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep(Duration::from_secs(10)).await }
        });
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(clock.now(), at("2026-01-01T00:00:00Z"));
        drop(waiting);
        sleeper.await.unwrap();
        assert_eq!(clock.now(), at("2026-01-01T00:00:10Z"));
    }

    #[tokio::test]
    async fn stepping_clock_stops_for_a_bounded_time() {
        let clock = ManualClock::stepping(at("2026-01-01T00:00:00Z"));
        let _never = clock.waiting();
        let bounded = tokio::time::timeout(Duration::from_secs(30), clock.sleep(Duration::from_secs(10))).await;
        assert!(bounded.is_ok());
        assert_eq!(clock.now(), at("2026-01-01T00:00:10Z"));
    }

    #[test]
    fn dropped_guard_releases_the_clock() {
        let clock = ManualClock::stepping(at("2026-01-01T00:00:00Z"));
        let (one, other) = (clock.waiting(), clock.waiting());
        assert_eq!(clock.waiting.load(Ordering::SeqCst), 2);
        drop((one, other));
        assert_eq!(clock.waiting.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn manual_clock_holds_sleepers_until_moved() {
        let clock = std::sync::Arc::new(ManualClock::new(at("2026-01-01T00:00:00Z")));
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep(Duration::from_secs(10)).await }
        });
        clock.advance(Duration::from_secs(9));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(Duration::from_secs(60));
        sleeper.await.unwrap();
    }
}

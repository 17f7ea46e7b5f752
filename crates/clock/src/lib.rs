//! Time as a parameter: whoever needs the time is handed a [`Clock`].
//!
//! A test sets its clock and never sleeps; the sandbox can be told that a week has passed.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

/// A moment in UTC.
pub type Timestamp = jiff::Timestamp;

/// What a [`Clock`] hands out to be awaited.
pub type Sleep<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Where the time comes from.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The time of day, UTC. It may jump in either direction when somebody sets the machine's clock.
    fn now(&self) -> Timestamp;

    /// Time since some fixed moment of this process. It never runs backwards: spans are measured with it.
    fn monotonic(&self) -> Duration;

    /// Completes when `span` has passed on this clock.
    fn sleep(&self, span: Duration) -> Sleep<'_>;

    /// Says that something outside this process is being waited for, until the guard is dropped. A clock that moves by
    /// itself stands still meanwhile; the machine's clock does not care.
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

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    started: std::time::Instant,
}

impl SystemClock {
    /// A clock whose [`Clock::monotonic`] starts at zero now.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks the system")]
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
    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks the system")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks the system")]
    fn sleep(&self, span: Duration) -> Sleep<'_> {
        Box::pin(tokio::time::sleep(span))
    }
}

/// A clock that stands still until it is set: for tests, and for the sandbox's "a week passes".
///
/// With [`ManualClock::stepping`] a sleeper moves the clock itself instead of waiting, so that a simulated week of
/// back-off takes no time at all. While an answer is being waited for ([`Clock::waiting`]) time stands still, so that loops
/// that look around every second do not make hours of a request; but not for longer than [`STANDSTILL_MAX`] of real time,
/// for the answer may itself wait for this clock.
#[derive(Debug)]
pub struct ManualClock {
    /// Nanoseconds are kept by both; `monotonic` only ever grows.
    time: watch::Sender<(Timestamp, Duration)>,
    stepping: bool,
    /// Serialises steps, so that two sleepers of one second together move the clock by one second, not two.
    step: Mutex<()>,
    waiting: Arc<AtomicUsize>,
}

/// How long, in real time, a stepping clock stands still for an answer.
const STANDSTILL_MAX: Duration = Duration::from_millis(200);

impl ManualClock {
    /// Stands at `now`; sleepers wait until it is moved past their moment.
    pub fn new(now: Timestamp) -> Self {
        Self {
            time: watch::Sender::new((now, Duration::ZERO)),
            stepping: false,
            step: Mutex::new(()),
            waiting: Arc::default(),
        }
    }

    /// Stands at `now`; a sleeper moves the clock to the end of its own sleep and goes on at once.
    pub fn stepping(now: Timestamp) -> Self {
        Self { stepping: true, ..Self::new(now) }
    }

    /// Lets `span` pass.
    pub fn advance(&self, span: Duration) {
        self.time.send_modify(|(now, monotonic)| {
            *now = add(*now, span);
            *monotonic = monotonic.saturating_add(span);
        });
    }

    /// Waits, in real time, for whatever is being waited for outside.
    #[expect(clippy::disallowed_methods, reason = "the one place where simulated time waits for real answers")]
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
                // Others that can run now shall run before time moves on.
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

/// `at + span`, at most the last moment that can be represented.
pub fn add(at: Timestamp, span: Duration) -> Timestamp {
    jiff::SignedDuration::try_from(span).ok().and_then(|span| at.checked_add(span).ok()).unwrap_or(Timestamp::MAX)
}

/// `at - span`, at least the first moment that can be represented.
pub fn sub(at: Timestamp, span: Duration) -> Timestamp {
    jiff::SignedDuration::try_from(span).ok().and_then(|span| at.checked_sub(span).ok()).unwrap_or(Timestamp::MIN)
}

/// How long after `earlier` is `later`? Zero if it is not later at all.
pub fn since(later: Timestamp, earlier: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).unwrap_or(Duration::ZERO)
}

/// The one written form of a time: UTC, RFC 3339, milliseconds, `Z`. It sorts as text in the order of time.
pub fn timestamp_text(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// Reads any RFC 3339 time.
///
/// # Errors
/// When `text` is not one.
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
    fn written_times_have_milliseconds_and_sort_as_text() {
        let earlier = timestamp_text(at("2026-11-23T10:00:00Z"));
        let later = timestamp_text(at("2026-11-23T10:00:00.01Z"));
        assert_eq!(earlier, "2026-11-23T10:00:00.000Z");
        assert_eq!(later, "2026-11-23T10:00:00.010Z");
        assert!(earlier < later);
    }

    #[test]
    fn the_machines_clock_goes_on() {
        let clock = SystemClock::default();
        let began = clock.monotonic();
        assert!((0..1_000_000).any(|_| clock.monotonic() > began));
    }

    #[test]
    fn spans_saturate_instead_of_overflowing() {
        assert_eq!(add(at("2026-01-01T00:00:00Z"), Duration::MAX), Timestamp::MAX);
        assert_eq!(sub(at("2026-01-01T00:00:00Z"), Duration::MAX), Timestamp::MIN);
        assert_eq!(since(at("2026-01-01T00:00:00Z"), at("2026-01-01T00:00:01Z")), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_stepping_clock_moves_to_the_end_of_the_sleep() {
        let clock = ManualClock::stepping(at("2026-01-01T00:00:00Z"));
        clock.sleep(Duration::from_secs(3600)).await;
        assert_eq!(clock.now(), at("2026-01-01T01:00:00Z"));
    }

    #[tokio::test]
    async fn a_stepping_clock_stands_still_while_an_answer_is_waited_for() {
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
    async fn a_stepping_clock_does_not_wait_for_ever_for_an_answer() {
        let clock = ManualClock::stepping(at("2026-01-01T00:00:00Z"));
        let _never = clock.waiting();
        let bounded = tokio::time::timeout(Duration::from_secs(30), clock.sleep(Duration::from_secs(10))).await;
        assert!(bounded.is_ok());
        assert_eq!(clock.now(), at("2026-01-01T00:00:10Z"));
    }

    #[test]
    fn whoever_got_their_answer_holds_the_clock_no_longer() {
        let clock = ManualClock::stepping(at("2026-01-01T00:00:00Z"));
        let (one, other) = (clock.waiting(), clock.waiting());
        assert_eq!(clock.waiting.load(Ordering::SeqCst), 2);
        drop((one, other));
        assert_eq!(clock.waiting.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_standing_clock_holds_its_sleepers() {
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

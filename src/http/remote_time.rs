//! What the `Date` headers of the remotes say about the time, theirs and ours.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::SignedDuration;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;

use super::{Remote, headers};
use crate::domain::{Clock, Timestamp, clock};

/// `Date` is truncated to seconds.
const TRUNCATION: Duration = Duration::from_secs(1);

/// How far this machine's clock is from a remote's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deviation {
    /// Positive if this machine's clock is ahead. Zero if the difference is within the duration of the call.
    pub ahead: SignedDuration,
    /// When it was measured, by [`Clock::monotonic`].
    pub measured_at: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    date: Timestamp,
    deviation: Deviation,
}

/// The last reading of each remote's clock. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct RemoteTimes {
    last: Arc<Mutex<[Option<Reading>; 2]>>,
}

const fn index(remote: Remote) -> usize {
    match remote {
        Remote::Okta => 0,
        Remote::Auth0 => 1,
    }
}

impl RemoteTimes {
    fn lock(&self) -> MutexGuard<'_, [Option<Reading>; 2]> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the `Date` of a response to a call that took `took`.
    pub(super) fn record(
        &self,
        remote: Remote,
        status: StatusCode,
        headers: &HeaderMap,
        took: Duration,
        clock: &dyn Clock,
    ) -> Option<Timestamp> {
        // A gateway or proxy may have sent it, by its own clock.
        if status.is_server_error() || status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            return None;
        }
        let date = headers::date(headers)?;
        let latest = clock.wall();
        let earliest = clock::sub(latest, took.saturating_add(TRUNCATION));
        let nearest = date.clamp(earliest.min(latest), latest);
        let reading = if date < earliest { earliest } else { latest };
        let ahead = if nearest == date { SignedDuration::ZERO } else { reading.duration_since(date) };
        let deviation = Deviation { ahead, measured_at: clock.monotonic() };
        self.lock()[index(remote)] = Some(Reading { date, deviation });
        Some(date)
    }

    /// How far this machine's clock is from a remote's, by its last response. `None`: no response since the start.
    pub fn deviation(&self, remote: Remote) -> Option<Deviation> {
        self.lock()[index(remote)].map(|reading| reading.deviation)
    }

    /// The time of a remote's clock now, at most a second and the duration of a call too early. `None`: no response since
    /// the start.
    pub fn now(&self, remote: Remote, clock: &dyn Clock) -> Option<Timestamp> {
        let Reading { date, deviation } = self.lock()[index(remote)]?;
        Some(clock::add(date, clock.monotonic().saturating_sub(deviation.measured_at)))
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::{DATE, HeaderValue};

    use super::*;
    use crate::domain::ManualClock;

    const DATE_TEXT: &str = "Thu, 27 Aug 2020 18:19:50 GMT";

    /// The deviation that a response with this `Date` shows at `local`, after a call of 2 s.
    fn measured(local: &str) -> SignedDuration {
        let clock = ManualClock::new(local.parse().unwrap());
        let times = RemoteTimes::default();
        let headers = HeaderMap::from_iter([(DATE, HeaderValue::from_static(DATE_TEXT))]);
        times.record(Remote::Okta, StatusCode::OK, &headers, Duration::from_secs(2), &clock);
        times.deviation(Remote::Okta).unwrap().ahead
    }

    #[test]
    fn deviation_allows_for_the_duration_of_the_call() {
        for (local, seconds) in [
            ("2020-08-27T18:19:50Z", 0),
            ("2020-08-27T18:19:53Z", 0),
            ("2020-08-27T18:19:55Z", 2),
            ("2020-08-27T19:19:53Z", 3600),
            ("2020-08-27T18:19:40Z", -10),
        ] {
            assert_eq!(measured(local), SignedDuration::from_secs(seconds), "{local}");
        }
    }

    #[test]
    fn remote_time_advances_with_the_monotonic_clock() {
        let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
        let times = RemoteTimes::default();
        assert_eq!((times.now(Remote::Okta, &clock), times.deviation(Remote::Okta)), (None, None));
        let headers = HeaderMap::from_iter([(DATE, HeaderValue::from_static(DATE_TEXT))]);
        times.record(Remote::Okta, StatusCode::OK, &headers, Duration::ZERO, &clock);
        clock.step_wall(SignedDuration::from_hours(-7));
        clock.advance(Duration::from_secs(10));
        let expected = "2020-08-27T18:20:00Z".parse().unwrap();
        assert_eq!(times.now(Remote::Okta, &clock), Some(expected));
        assert_eq!(times.now(Remote::Auth0, &clock), None);
        times.record(Remote::Okta, StatusCode::BAD_GATEWAY, &HeaderMap::new(), Duration::ZERO, &clock);
        assert_eq!(times.now(Remote::Okta, &clock), Some(expected), "a gateway's answer is not the remote's");
    }
}

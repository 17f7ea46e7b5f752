//! Okta's rate limits: a number of requests per bucket, in a window that begins with the first of them.

use std::collections::HashMap;
use std::time::Duration;

use okta_auth0_sync_clock::Clock;

/// A rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Requests in a window.
    pub per_window: u32,
    /// How long a window lasts from its first request.
    pub window: Duration,
}

impl Limit {
    /// This many requests a minute.
    pub const fn per_minute(per_window: u32) -> Self {
        Self { per_window, window: Duration::from_secs(60) }
    }
}

/// The limit of each bucket.
///
/// The defaults are those that Okta published for a workforce org (docs "API endpoints and limits", 2025-12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `GET /api/v1/logs`.
    pub logs: Limit,
    /// `GET /api/v1/users/{id}`.
    pub user: Limit,
    /// The list of users, and writes.
    pub users: Limit,
    /// `POST /oauth2/v1/token`.
    pub token: Limit,
    /// Everything else together.
    pub other: Limit,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            logs: Limit::per_minute(120),
            user: Limit::per_minute(2_000),
            users: Limit::per_minute(600),
            token: Limit::per_minute(600),
            other: Limit::per_minute(1_200),
        }
    }
}

impl Limits {
    /// No limits in practice.
    pub fn unlimited() -> Self {
        let limit = Limit::per_minute(1_000_000_000);
        Self { logs: limit, user: limit, users: limit, token: limit, other: limit }
    }

    fn of(&self, bucket: Bucket) -> Limit {
        match bucket {
            Bucket::Logs => self.logs,
            Bucket::User => self.user,
            Bucket::Users => self.users,
            Bucket::Token => self.token,
            Bucket::Other => self.other,
        }
    }
}

/// The requests that are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Bucket {
    Logs,
    User,
    Users,
    Token,
    Other,
}

impl Bucket {
    pub(super) fn of(method: &str, segments: &[&str]) -> Self {
        match (method, segments) {
            (_, ["api", "v1", "logs"]) => Self::Logs,
            ("GET", ["api", "v1", "users", _]) => Self::User,
            (_, ["api", "v1", "users", ..]) => Self::Users,
            (_, ["oauth2", "v1", "token"]) => Self::Token,
            _ => Self::Other,
        }
    }
}

/// The rate-limit headers of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) limit: u32,
    pub(super) remaining: u32,
    /// Epoch seconds.
    pub(super) reset: i64,
    /// Whether this request exceeded the limit.
    pub(super) exceeded: bool,
}

#[derive(Debug)]
struct Window {
    began: Duration,
    reset: i64,
    used: u32,
}

/// The open windows.
#[derive(Debug)]
pub(super) struct Windows {
    pub(super) limits: Limits,
    open: HashMap<Bucket, Window>,
}

impl Windows {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, open: HashMap::new() }
    }

    /// Counts a request.
    pub(super) fn count(&mut self, bucket: Bucket, clock: &dyn Clock) -> Standing {
        let limit = self.limits.of(bucket);
        let now = clock.monotonic();
        let fresh = || {
            let reset = okta_auth0_sync_clock::add(clock.now(), limit.window);
            // The header has whole seconds: rounded up, so that no client returns a moment too early.
            Window { began: now, reset: (reset.as_millisecond() + 999).div_euclid(1000), used: 0 }
        };
        let window = self.open.entry(bucket).or_insert_with(fresh);
        if now.saturating_sub(window.began) >= limit.window {
            *window = fresh();
        }
        let exceeded = window.used >= limit.per_window;
        if !exceeded {
            window.used += 1;
        }
        let remaining = limit.per_window - window.used.min(limit.per_window);
        Standing { limit: limit.per_window, remaining, reset: window.reset, exceeded }
    }

    /// Closes every window.
    pub(super) fn clear(&mut self) {
        self.open.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use okta_auth0_sync_clock::ManualClock;

    #[test]
    fn a_window_begins_with_its_first_request() {
        let clock = ManualClock::new("2026-01-01T00:00:30.500Z".parse().unwrap());
        let mut windows = Windows::new(Limits {
            logs: Limit { per_window: 2, window: Duration::from_secs(60) },
            ..Limits::default()
        });
        let first = windows.count(Bucket::Logs, &clock);
        assert_eq!((first.limit, first.remaining, first.exceeded), (2, 1, false));
        assert_eq!(first.reset, "2026-01-01T00:01:31Z".parse::<jiff::Timestamp>().unwrap().as_second());
        clock.advance(Duration::from_secs(59));
        assert!(!windows.count(Bucket::Logs, &clock).exceeded);
        let refused = windows.count(Bucket::Logs, &clock);
        assert!(refused.exceeded);
        assert_eq!(refused.reset, first.reset);
        assert!(!windows.count(Bucket::User, &clock).exceeded, "buckets are counted apart");
        clock.advance(Duration::from_secs(1));
        assert!(!windows.count(Bucket::Logs, &clock).exceeded);
    }

    #[test]
    fn requests_fall_into_the_published_buckets() {
        for (method, path, bucket) in [
            ("GET", "api/v1/logs", Bucket::Logs),
            ("GET", "api/v1/users/00u1", Bucket::User),
            ("POST", "api/v1/users/00u1", Bucket::Users),
            ("GET", "api/v1/users", Bucket::Users),
            ("POST", "api/v1/users/00u1/lifecycle/activate", Bucket::Users),
            ("POST", "oauth2/v1/token", Bucket::Token),
            ("GET", ".well-known/okta-organization", Bucket::Other),
        ] {
            assert_eq!(Bucket::of(method, &path.split('/').collect::<Vec<_>>()), bucket, "{method} {path}");
        }
    }
}

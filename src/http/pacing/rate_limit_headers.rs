//! The rate-limit headers of a response.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::HeaderMap;

use super::super::headers;
use crate::domain::Timestamp;

/// The parsed headers. Okta writes `x-rate-limit-…`, Auth0 `x-ratelimit-…`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RateLimitHeaders {
    /// Whether the status is 429.
    pub(super) refused: bool,
    pub(super) limit: Option<u32>,
    pub(super) remaining: Option<u32>,
    /// Relative to the response's `Date`. Zero for a reset in the past.
    pub(super) reset_in: Option<Duration>,
    pub(super) retry_after: Option<Duration>,
}

impl RateLimitHeaders {
    pub(super) fn read(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Self {
        let either = |okta, auth0| headers::u32_header(headers, okta).or_else(|| headers::u32_header(headers, auth0));
        Self {
            refused: status == StatusCode::TOO_MANY_REQUESTS,
            limit: either("x-rate-limit-limit", "x-ratelimit-limit"),
            remaining: either("x-rate-limit-remaining", "x-ratelimit-remaining"),
            reset_in: headers::reset_in(headers, now),
            retry_after: headers::retry_after(headers, now),
        }
    }
}

//! Parses times in headers: `Date`, `Retry-After`, and rate-limit resets.
//!
//! Durations are measured against the response's own `Date`, so that a wrong local clock does not matter.

use std::time::Duration;

use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};

use crate::domain::{Timestamp, clock};

static HTTP_DATE: DateTimeParser = DateTimeParser::new();

/// The upper bound of `Retry-After`.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// `x-rate-limit-reset` (Okta) and `x-ratelimit-reset` (Auth0): both are UNIX seconds, UTC.
const RESETS: [HeaderName; 2] =
    [HeaderName::from_static("x-rate-limit-reset"), HeaderName::from_static("x-ratelimit-reset")];

/// The `Date` of a response (RFC 9110 §6.6.1).
pub fn date(headers: &HeaderMap) -> Option<Timestamp> {
    http_date(headers.get(DATE)?.to_str().ok()?)
}

/// An HTTP date in the form that servers send (IMF-fixdate, RFC 9110 §5.6.7).
fn http_date(text: &str) -> Option<Timestamp> {
    HTTP_DATE.parse_timestamp(text.trim()).ok()
}

/// `Retry-After` in either form (RFC 9110 §10.2.3), at most an hour. `now` replaces a missing `Date`.
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let span = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => clock::since(http_date(text)?, date(headers).unwrap_or(now)),
    };
    Some(span.min(RETRY_AFTER_MAX))
}

/// The time from the response's `Date` to the rate-limit reset. Zero if the reset has passed.
pub fn reset_in(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let reset = RESETS.iter().find_map(|name| headers.get(name))?;
    let reset = Timestamp::from_second(reset.to_str().ok()?.trim().parse().ok()?).ok()?;
    Some(clock::since(reset, date(headers).unwrap_or(now)))
}

/// Parses a header as an integer.
pub fn u32_header(headers: &HeaderMap, name: &'static str) -> Option<u32> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    const RECORDED: &str = "Thu, 27 Aug 2020 18:19:50 GMT";

    fn local() -> Timestamp {
        "2020-08-27T19:00:00Z".parse().unwrap()
    }

    #[test]
    fn reset_is_measured_against_the_date_header() {
        // Recorded from Okta: Date …18:19:50, reset 1598552424 = 18:20:24.
        let recorded = headers(&[("date", RECORDED), ("x-rate-limit-reset", "1598552424")]);
        assert_eq!(reset_in(&recorded, local()), Some(Duration::from_secs(34)));
        let undated = headers(&[("x-ratelimit-reset", "1598552424")]);
        assert_eq!(
            reset_in(&undated, local()),
            Some(Duration::ZERO),
            "without a Date the local clock decides, and the reset has passed"
        );
    }

    #[test]
    fn retry_after_parses_both_forms_with_a_bound() {
        for (value, expected) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("Thu, 27 Aug 2020 18:20:00 GMT", Some(10)),
            ("Thu, 27 Aug 2020 18:00:00 GMT", Some(0)),
            ("999999999", Some(3600)),
            ("soon", None),
            ("-3", None),
            ("18446744073709551616", None),
        ] {
            let headers = headers(&[("date", RECORDED), ("retry-after", value)]);
            assert_eq!(retry_after(&headers, local()), expected.map(Duration::from_secs), "{value}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), local()), None);
    }

    #[test]
    fn invalid_reset_is_ignored() {
        for value in ["", "x", "-99999999999999999999", "99999999999999999999"] {
            assert_eq!(reset_in(&headers(&[("x-rate-limit-reset", value)]), local()), None, "{value}");
        }
    }
}

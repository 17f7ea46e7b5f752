//! What follows when the event stream cannot be opened. Pure.

use std::time::Duration;

use crate::auth0::{StreamStart, endpoints};
use crate::domain::WatchMode;
use crate::engine::error::CallError;
use crate::http::{Failure, Kind};
use crate::store::WatcherState;

/// The scope that the stream needs.
pub(super) const SCOPE: &str = "read:events";
/// How soon a missing scope or endpoint is looked for again.
const UNAVAILABLE_AGAIN: Duration = Duration::from_secs(3600);
/// The wait after a 429 is between these, whatever the answer asks for.
const LIMITED_MIN: Duration = Duration::from_secs(1);
const LIMITED_MAX: Duration = Duration::from_secs(600);
/// The status with which Auth0 refuses an offset that has expired.
const GONE: u16 = 410;

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Wait; without a time, as the backoff says.
    Wait {
        /// The watcher's state.
        state: WatcherState,
        /// Why.
        why: String,
        /// How long.
        wait: Option<Duration>,
    },
    /// Give up the offset, or the time too.
    ResumeByTime {
        /// Resume at the last complete moment; otherwise now.
        keep_time: bool,
        /// Why.
        why: String,
    },
}

/// The error for a credential without the scope, without a call.
pub(super) fn missing_scope() -> CallError {
    let mut failure = endpoints::EVENTS.rejected(format!("the Auth0 credential lacks {SCOPE}"));
    failure.kind = Kind::Forbidden;
    failure.remedy = Some(format!("grant the application the Management API scope {SCOPE}"));
    CallError::Failed(failure)
}

/// What follows from this error.
pub(super) fn step_after(error: &CallError, start: &StreamStart, mode: WatchMode) -> Step {
    let failure = match error {
        CallError::Failed(failure) => failure,
        CallError::Paused { wait, why } => {
            return Step::Wait { state: WatcherState::Failing, why: why.clone(), wait: Some(*wait) };
        }
    };
    let why = failure.to_string();
    let is_resuming = *start != StreamStart::Now;
    match failure.kind {
        Kind::NotFound if failure.status == Some(GONE) && is_resuming => expired(failure, start),
        // An offset or a time that Auth0 does not accept.
        Kind::Rejected if is_resuming => expired(failure, start),
        Kind::Forbidden | Kind::NotFound => {
            // In `always`, the scope may be granted at any moment.
            let wait = if mode == WatchMode::Auto { UNAVAILABLE_AGAIN } else { LIMITED_MAX };
            Step::Wait { state: WatcherState::Unavailable, why, wait: Some(wait) }
        }
        Kind::RateLimited => {
            let wait = failure.retry_after.map(|wait| wait.clamp(LIMITED_MIN, LIMITED_MAX));
            let state = if is_about_connections(failure) { WatcherState::Occupied } else { WatcherState::Failing };
            Step::Wait { state, why, wait }
        }
        _ => Step::Wait { state: WatcherState::Failing, why, wait: None },
    }
}

fn expired(failure: &Failure, start: &StreamStart) -> Step {
    let keep_time = matches!(start, StreamStart::After(_));
    let what = if keep_time { "the offset" } else { "the time" };
    Step::ResumeByTime { keep_time, why: format!("Auth0 refused {what} at which its event stream resumes: {failure}") }
}

/// Whether the limit is that of open connections, which other consumers hold.
fn is_about_connections(failure: &Failure) -> bool {
    let text = failure.message.to_lowercase();
    text.contains("connection") || failure.code.as_deref().is_some_and(|code| code.contains("connection"))
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;
    use reqwest::header::HeaderMap;

    use super::*;
    use crate::http::Remote;

    fn step(status: u16, message: &str, headers: &[(&'static str, &str)], start: &StreamStart) -> Step {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let body = format!("{{\"message\":\"{message}\"}}");
        let status = StatusCode::from_u16(status).unwrap();
        let now = "2026-11-23T10:00:00Z".parse().unwrap();
        let failure = Failure::of_answer(Remote::Auth0, "GET /api/v2/events", status, &map, body.as_bytes(), now);
        step_after(&CallError::Failed(failure), start, WatchMode::Auto)
    }

    fn after() -> StreamStart {
        StreamStart::After("offset".to_owned())
    }

    #[test]
    fn expired_offset_resumes_by_time_then_now() {
        for status in [410, 400] {
            let resumes = |step: Step| match step {
                Step::ResumeByTime { keep_time, .. } => Some(keep_time),
                Step::Wait { .. } => None,
            };
            assert_eq!(resumes(step(status, "expired", &[], &after())), Some(true));
            let since = StreamStart::Since("2026-11-23T10:00:00Z".parse().unwrap());
            assert_eq!(resumes(step(status, "expired", &[], &since)), Some(false));
            assert_eq!(resumes(step(status, "expired", &[], &StreamStart::Now)), None, "it would never end");
        }
    }

    #[test]
    fn other_refusals_wait_in_their_state() {
        let state = |step: Step| match step {
            Step::Wait { state, wait, .. } => (state, wait.map(|wait| wait.as_secs())),
            Step::ResumeByTime { .. } => panic!("the offset is good"),
        };
        let retry = [("retry-after", "30")];
        for (status, message, headers, expected) in [
            (403, "Insufficient scope, expected any of: read:events", &[][..], (WatcherState::Unavailable, Some(3600))),
            (404, "Not Found", &[], (WatcherState::Unavailable, Some(3600))),
            (429, "too many concurrent connections", &retry, (WatcherState::Occupied, Some(30))),
            (429, "Global limit has been reached", &retry, (WatcherState::Failing, Some(30))),
            (429, "Global limit has been reached", &[("retry-after", "99999")], (WatcherState::Failing, Some(600))),
            (503, "down", &[], (WatcherState::Failing, None)),
            (401, "Invalid token", &[], (WatcherState::Failing, None)),
        ] {
            assert_eq!(state(step(status, message, headers, &after())), expected, "{status} {message}");
        }
    }
}

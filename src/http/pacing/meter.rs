//! Types that the pacer and its meters share.

use std::time::Duration;

use super::Bucket;

/// The first pause after a 429 with a long `Retry-After`; doubles with each further 429.
const FIRST_PROBE: Duration = Duration::from_secs(60);

/// The pause number `pauses` in a row, if the `Retry-After` of its 429 is `asked`.
///
/// Neither remote documents `Retry-After` for its limits on calls, which are over within a minute, and a wrong value would stop
/// all denials. So one call probes a longer pause early; if it is right, the probes cost a call each, at doubling distances.
pub(super) fn probed(asked: Duration, pauses: u32) -> Duration {
    asked.min(FIRST_PROBE.saturating_mul(1 << pauses.saturating_sub(1).min(6)))
}

/// The meter that counts a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum MeterId {
    /// One bucket alone. For Auth0, only until a response has shown its limit.
    Bucket(Bucket),
    /// Auth0: all buckets whose smallest observed limit is this one. A plan that counts all calls together shows the
    /// same limit for each; a plan that counts kinds of calls shows different limits (Auth0 docs: Rate Limit
    /// Configurations). Two kinds with equal limits share a meter, which is merely slower.
    Limit(u32),
}

/// When a request was sent, and by which meter it is counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestStart {
    pub(super) meter: MeterId,
    pub(super) started_at: Duration,
    /// Responses that this meter had recorded when the request was sent.
    pub(super) responses_before: u64,
}

/// When a meter lets the next call go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    /// At once.
    Ready,
    /// After this time at the earliest.
    After(Duration),
    /// After the response to a call in flight.
    NextResponse,
}

//! Types that the pacer and its meters share.

use std::time::Duration;

use super::Bucket;

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

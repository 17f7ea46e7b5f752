//! What a meter is asked, and what it answers.

use std::time::Duration;

use super::Bucket;

/// What counts a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum MeterId {
    /// One bucket by itself. For Auth0: as long as no answer has shown its limit.
    Bucket(Bucket),
    /// Auth0: all buckets whose answers show this limit as their smallest. Where a plan counts all calls together, all show the same one;
    /// where it counts kinds of calls, their limits differ (Auth0 docs: Rate Limit Configurations). Two kinds that
    /// happen to have equal limits are counted together, which is merely slower.
    Limit(u32),
}

/// A call under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Departure {
    pub(super) meter: MeterId,
    pub(super) departed_at: Duration,
    /// How many calls of this meter had been answered when this one departed.
    pub(super) answered_before: u64,
}

/// What a meter says to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Go.
    Now,
    /// Not before this span has passed.
    After(Duration),
    /// Not before a call that is under way has been answered.
    NextAnswer,
}

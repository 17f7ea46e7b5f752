//! A single event of the System Log that is too large to read.
//!
//! Okta's API can neither leave out fields of an event nor step over one. A polling request filters by persistence time, so
//! the poller requests the log from a later time, further and further, until the answer is readable. A full reconcile finds
//! the users of the other events in that span.

use std::time::Duration;

use tracing::error;

use super::Engine;
use crate::domain::Timestamp;
use crate::domain::clock::{self, timestamp_text};
use crate::engine::error::PassError;
use crate::http::{Failure, Kind};
use crate::store::{Alarm, Checkpoint};

/// The first span that is stepped over. Each further one is twice as long.
const FIRST_SPAN: Duration = Duration::from_secs(1);

/// The span of the log that is being stepped over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Skip {
    /// Everything persisted before this was read.
    from: Timestamp,
    span: Duration,
    /// Where the log was last requested.
    until: Timestamp,
}

impl Engine {
    /// Moves the checkpoint past an event that alone exceeds the largest body that we read. Returns whether it did: another
    /// failure says nothing about the event, and at the present there is nothing to step over.
    pub(super) async fn step_over_oversized(
        &self,
        failure: &Failure,
        checkpoint: Option<&Checkpoint>,
        fingerprint: &str,
    ) -> Result<bool, PassError> {
        let (Kind::TooLarge, Some(checkpoint)) = (failure.kind, checkpoint) else { return Ok(false) };
        let now = self.okta_now();
        let begun = *self.skip();
        let (from, span) = match begun {
            Some(skip) if skip.until >= now => return Ok(false),
            Some(skip) => (skip.from, skip.span.saturating_mul(2)),
            None => {
                // What was read last was persisted at the time of its publication, or later.
                let published = self.store.last_published().await?.filter(|at| *at <= now);
                (published.map_or(checkpoint.anchor_at, |at| at.max(checkpoint.anchor_at)), FIRST_SPAN)
            }
        };
        let until = clock::add(from, span).min(now);
        let alarm = Alarm::oversized_event(from, until);
        if self.store.raise_alarm(&alarm, self.now()).await? {
            error!(event = "oversized_event", from = %timestamp_text(from), "{failure}; {}", alarm.detail);
        }
        if begun.is_none() && !self.is_full_reconcile_running().await? {
            self.request_reconcile_all("an event of the System Log is too large to read").await?;
        }
        self.store.reanchor(checkpoint.seq, fingerprint, until, self.now()).await?;
        *self.skip() = Some(Skip { from, span, until });
        Ok(true)
    }
}

//! The interface between a tenant and the code that both stand-ins share.

use std::sync::Arc;

use okta_auth0_sync_clock::{Clock, ManualClock};

use super::faults::{Faults, RateLimited};
use super::inbox::Inbox;
use super::journal::Journal;
use super::message::{Inbound, Reply};

/// One of the two stand-ins.
pub(super) trait Tenant: Send + Sync + 'static {
    /// Does what the real API would do, and returns what it would answer.
    fn answer(&self, request: &Inbound) -> Reply;

    /// The tenant-specific part of `/_sandbox/`; `path` follows that prefix. `None` if it is unknown.
    fn control(&self, path: &[&str], request: &Inbound) -> Option<Reply>;

    /// The source of that part, whose head describes it.
    fn control_source(&self) -> &'static str;

    /// A 429 of this tenant.
    fn rate_limited(&self, kind: RateLimited) -> Reply;
}

/// The clock, faults, journal and inbox of one tenant.
#[derive(Clone, Debug)]
pub(super) struct TenantContext {
    pub(super) clock: Arc<dyn Clock>,
    /// The same clock, if `/_sandbox/clock` may move it.
    pub(super) manual_clock: Option<Arc<ManualClock>>,
    pub(super) faults: Faults,
    pub(super) journal: Journal,
    pub(super) inbox: Inbox,
}

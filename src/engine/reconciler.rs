//! Comparing: making those due of whom nobody told us. Never writes to Auth0 itself: a look does.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::poller::PassError;
use super::{Engine, Fatal};
use crate::store::StoreError;

impl Engine {
    pub(super) async fn request_reconcile_all(&self, reason: &str) -> Result<(), StoreError> {
        self.store.begin_sweep("all", reason, "deniable", self.clock.now()).await?;
        self.wakes.reconcile.notify_one();
        Ok(())
    }

    pub(super) async fn begin_nightly(&self) -> Result<(), Fatal> {
        Ok(())
    }

    pub(super) async fn go_on_reconciling(self: &Arc<Self>, _stop: &CancellationToken) -> Result<bool, PassError> {
        Ok(true)
    }
}

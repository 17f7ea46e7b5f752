//! A changed metadata key: marks move to the new key when the Action that reads it is in force, and not before.
//!
//! Until then the marks under the former keys stay, and each new denial is written under every key. So a user who left is
//! denied by whichever Action is bound.

use tracing::info;

use super::Engine;
use crate::store::{ActionState, Alarm, AlarmKind, StoreError};

impl Engine {
    /// Records whether the Action for the configured key is in force. If it is now, and was not, the marks move.
    pub(super) async fn note_action_key(&self, state: ActionState) -> Result<(), StoreError> {
        let is_bound = matches!(state, ActionState::Verified | ActionState::NotFirst | ActionState::NotNeeded);
        let before = self.store.may_move_marks().await?;
        let key = self.auth0.keys().current.as_str();
        self.store.note_action_key(is_bound.then_some(key)).await?;
        if !before && self.store.may_move_marks().await? && self.store.unmoved_marks().await?.is_some() {
            info!(
                event = "marks_move",
                key, "the Action for the metadata key {key} is in force; moving the marks to it"
            );
            self.request_reconcile_all("the Action for the new metadata key is in force").await?;
        }
        self.update_key_change().await
    }

    /// Checks the Action if marks wait for it: a reconcile moves them only if it is in force.
    pub(super) async fn look_at_action_if_marks_wait(&self) -> Result<(), StoreError> {
        if self.store.unmoved_marks().await?.is_some_and(|unmoved| !unmoved.may_move) {
            self.look_at_action().await?;
        }
        Ok(())
    }

    /// Raises the alarm about marks under a former metadata key, and ends it once every mark has moved.
    ///
    /// # Errors
    /// When the state cannot be used.
    pub async fn update_key_change(&self) -> Result<(), StoreError> {
        match self.store.unmoved_marks().await? {
            Some(unmoved) => {
                let alarm = Alarm::key_change(&unmoved);
                if self.store.raise_alarm(&alarm, self.now()).await? {
                    self.log_raised(alarm.kind, &alarm.subject);
                }
            }
            None => {
                self.store.clear_alarm(AlarmKind::KeyChange, "", self.now()).await?;
            }
        }
        Ok(())
    }
}

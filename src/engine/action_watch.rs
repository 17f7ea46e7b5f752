//! Checks at start and every hour that the Action is in force: a mark that no Action reads has no effect, and any tenant
//! administrator can unbind the Action.
//!
//! The daemon raises an alarm but never repairs the flow: it would fight with another tool that manages it, such as
//! Terraform.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Engine;
use super::error::CallError;
use crate::auth0::{self, Standing};
use crate::http::Kind;
use crate::store::{ActionState, Alarm, AlarmKind, Enforcement, StoreError};

const LOOK_EVERY: Duration = Duration::from_secs(3600);
/// After a check that failed for a temporary reason.
const AGAIN: Duration = Duration::from_secs(300);
/// Without this scope, the Action cannot be checked.
const SCOPE: &str = "read:actions";

impl Engine {
    /// Checks at once and then every hour.
    pub(super) async fn action_watch_loop(&self, stop: &CancellationToken) {
        let mut before = None;
        loop {
            let wait = match self.look_at_action().await {
                Ok(Some(now)) => {
                    if before.replace(now) != Some(now) {
                        log_enforcement(now);
                    }
                    LOOK_EVERY
                }
                Ok(None) => AGAIN,
                Err(error) => {
                    warn!(event = "store_failed", %error, "failed to store the state of the Action");
                    AGAIN
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.clock.sleep(wait) => {}
            }
        }
    }

    /// Checks the Action and stores the result. `None`: Auth0 did not answer; the stored result is unchanged.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn look_at_action(&self) -> Result<Option<Enforcement>, StoreError> {
        let standing = match self.action_standing().await {
            Ok(standing) => standing,
            Err(CallError::Failed(failure)) if failure.kind == Kind::Forbidden => None,
            Err(CallError::Failed(_) | CallError::Paused { .. }) => return Ok(None),
        };
        let now = self.now();
        let enforcement = match &standing {
            None => Enforcement::Unverified,
            Some(standing) if standing.is_verified() => Enforcement::Verified,
            Some(standing) if standing.is_in_force() => Enforcement::Unverified,
            Some(_) => Enforcement::Missing,
        };
        self.store.note_enforcement(enforcement, now).await?;
        let (state, detail) = action_state(standing.as_ref(), self.options.rules.mark.block);
        self.store.note_action(state, &detail, now).await?;
        self.note_action_key(state).await?;
        // Only an Action seen in the flow clears the alarm; losing the scope does not.
        match standing {
            // A block denies the login without any Action.
            Some(standing) if matches!(state, ActionState::Missing | ActionState::OtherCode) => {
                self.store.raise_alarm(&Alarm::action_missing(&standing), now).await?;
            }
            Some(_) => {
                self.store.clear_alarm(AlarmKind::ActionMissing, "", now).await?;
            }
            None => {}
        }
        Ok(Some(enforcement))
    }

    /// `None`: our credential lacks the scope.
    async fn action_standing(&self) -> Result<Option<Standing>, CallError> {
        let breaker = &self.auth0_breaker;
        let scopes = breaker.call_best_effort(auth0::endpoints::ACTIONS, || self.auth0.granted_scopes()).await?;
        if !scopes.is_empty() && !scopes.iter().any(|scope| scope == SCOPE) {
            return Ok(None);
        }
        let actions = breaker.call_best_effort(auth0::endpoints::ACTIONS, || self.auth0.actions()).await?;
        let flow = breaker.call_best_effort(auth0::endpoints::ACTIONS, || self.auth0.flow()).await?;
        Ok(Some(Standing::new(actions, flow, &self.options.action)))
    }
}

/// The state of the Action, and why it does not enforce the marks.
fn action_state(standing: Option<&Standing>, block: bool) -> (ActionState, String) {
    let Some(standing) = standing else {
        return (if block { ActionState::NotNeeded } else { ActionState::NoScope }, String::new());
    };
    let wrong: Vec<String> = standing.conditions().into_iter().filter(|one| !one.holds).map(|one| one.found).collect();
    let state = if block {
        ActionState::NotNeeded
    } else if standing.is_verified() {
        ActionState::Verified
    } else if standing.is_deployed && standing.position.is_some() {
        ActionState::NotFirst
    } else if standing.is_in_force() {
        ActionState::OtherCode
    } else {
        ActionState::Missing
    };
    let detail = if state == ActionState::Verified { String::new() } else { wrong.join("; ") };
    (state, detail)
}

fn log_enforcement(enforcement: Enforcement) {
    match enforcement {
        Enforcement::Verified => {
            info!(event = "action_verified", "the Action is in force, first in the post-login flow")
        }
        Enforcement::Unverified => info!(
            event = "action_unverified",
            "cannot verify that the Action is in force; `okta-auth0-sync action check` shows why (it needs read:actions)"
        ),
        Enforcement::Missing => {
            warn!(
                event = "action_missing",
                "no Action reads the marks; `okta-auth0-sync action check` shows what is missing"
            );
        }
    }
}

#[cfg(test)]
mod tests;

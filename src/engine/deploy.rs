//! Deploys the Action: creates, builds and deploys it, and binds it first in the post-login flow.
//!
//! A success response does not prove that a step took effect: Auth0 builds a draft some time later, reports a deployment as
//! undeployed, and may refuse a binding right after it (auth0/auth0-deploy-cli issues 385, 395, 524). So each step polls the
//! tenant for a bounded time, and the end reads everything back. Interruption is harmless: the next run starts from what it
//! finds.

use std::time::Duration;

use super::calls::paced;
use crate::auth0::endpoints::ACTIONS;
use crate::auth0::{Action, Auth0, BOUND_MAX, Bound, Build, ShippedAction, Standing, Step, Trigger};
use crate::domain::Clock;
use crate::domain::backoff::Backoff;
use crate::http::pacing::Pacer;
use crate::http::{Failure, Kind};

/// How long a build, a deployment or a binding may take. Builds of 30 to 45 s were seen (auth0-deploy-cli 524).
const PATIENCE: Duration = Duration::from_secs(120);
/// How often to poll: Auth0's smallest plan allows two calls a second in total.
const POLL_EVERY: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(5) };

/// Why the deployment failed.
#[derive(Debug, thiserror::Error)]
pub enum DeploymentError {
    /// A call failed.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// An Action for another trigger has the name.
    #[error(
        "an Action named {0} exists for a trigger other than post-login: rename or delete it in the Auth0 \
         dashboard (Actions, Library)"
    )]
    NameTaken(String),
    /// The flow is full.
    #[error("the post-login flow has {BOUND_MAX} Actions, the most that Auth0 allows: remove one first")]
    Full,
    /// Auth0 could not build the code.
    #[error("Auth0 failed to build the Action: its page in the dashboard (Actions, Library) shows the error")]
    BuildFailed,
    /// A step did not complete in time.
    #[error("{0} did not complete within {seconds} s: retry; completed steps are kept", seconds = PATIENCE.as_secs())]
    TooSlow(&'static str),
    /// The flow differs from what was written.
    #[error(
        "another tool (Terraform, the dashboard) changed the post-login flow at the same time: check the flow in the \
         dashboard (Actions, Triggers), then retry"
    )]
    Overwritten,
}

/// The deployment of the Action to one tenant.
#[derive(Debug)]
pub struct Deployment<'a> {
    auth0: &'a Auth0,
    pacer: &'a Pacer,
    clock: &'a dyn Clock,
    shipped: &'a ShippedAction,
}

impl<'a> Deployment<'a> {
    /// Makes no call.
    pub fn new(auth0: &'a Auth0, pacer: &'a Pacer, clock: &'a dyn Clock, shipped: &'a ShippedAction) -> Self {
        Self { auth0, pacer, clock, shipped }
    }

    async fn call<T, F: Future<Output = Result<T, Failure>>>(&self, call: impl Fn() -> F) -> Result<T, Failure> {
        paced(self.pacer, ACTIONS, self.clock, call).await
    }

    /// Reads the state of the Action.
    ///
    /// # Errors
    /// When a call fails. It needs `read:actions`.
    pub async fn look(&self) -> Result<Standing, Failure> {
        let actions = self.call(|| self.auth0.actions()).await?;
        let flow = self.call(|| self.auth0.flow()).await?;
        Ok(Standing::new(actions, flow, self.shipped))
    }

    /// Performs the missing steps, reports each to `on_step`, and reads the result back.
    ///
    /// # Errors
    /// When a step fails or does not complete in time. Earlier steps stay in effect.
    pub async fn carry_out(&self, found: &Standing, on_step: impl Fn(&str)) -> Result<Standing, DeploymentError> {
        if found.is_full() {
            return Err(DeploymentError::Full);
        }
        let mut action = found.action.clone();
        for step in found.steps() {
            action = match (step, action) {
                (Step::Create, _) | (Step::Update | Step::Deploy | Step::Bind, None) => {
                    let trigger = self.call(|| self.auth0.post_login()).await?;
                    let created =
                        self.call(|| self.auth0.create_action(&self.shipped.name, &self.shipped.code, &trigger)).await;
                    let created = created.map_err(|failure| match failure.status {
                        Some(409) => DeploymentError::NameTaken(self.shipped.name.clone()),
                        _ => failure.into(),
                    })?;
                    on_step("created");
                    Some(created)
                }
                (Step::Update, Some(action)) => {
                    let trigger = self.trigger_of(&action).await?;
                    let updated =
                        self.call(|| self.auth0.update_action(&action.id, &self.shipped.code, &trigger)).await?;
                    on_step("draft written");
                    Some(updated)
                }
                (Step::Deploy, Some(action)) => {
                    let deployed = self.deploy(action).await?;
                    on_step("built and deployed");
                    Some(deployed)
                }
                (Step::Bind, Some(action)) => {
                    self.bind(&action).await?;
                    on_step("bound, first in the post-login flow");
                    Some(action)
                }
            };
        }
        Ok(self.look().await?)
    }

    /// The trigger of an existing Action: the current version, and the Action's runtime while Auth0 still offers it.
    async fn trigger_of(&self, action: &Action) -> Result<Trigger, Failure> {
        let mut trigger = self.call(|| self.auth0.post_login()).await?;
        if let Some(runtime) = action.runtime.as_ref().filter(|runtime| trigger.runtimes.contains(runtime)) {
            trigger.runtime.clone_from(runtime);
        }
        Ok(trigger)
    }

    async fn deploy(&self, action: Action) -> Result<Action, DeploymentError> {
        let mut patience = Patience::new(self.clock);
        let mut asked_to = false;
        let mut current = action;
        loop {
            let runs = current.all_changes_deployed && current.deployed_code.is_some();
            match current.build {
                Build::Failed => return Err(DeploymentError::BuildFailed),
                Build::Built if runs => return Ok(current),
                Build::Built if !asked_to => match self.call(|| self.auth0.deploy_action(&current.id)).await {
                    Ok(()) => asked_to = true,
                    // "A draft must be in the 'built' state before it can be deployed": the earlier response was stale.
                    Err(failure) if failure.status == Some(400) => {}
                    Err(failure) if !is_passing(&failure) => return Err(failure.into()),
                    Err(_) => {}
                },
                Build::Built | Build::UnderWay => {}
            }
            if !patience.wait().await {
                let what = if asked_to { "the deployment" } else { "the build" };
                return Err(DeploymentError::TooSlow(what));
            }
            match self.call(|| self.auth0.action(&current.id)).await {
                Ok(now) => current = now,
                Err(failure) if is_passing(&failure) => {}
                Err(failure) => return Err(failure.into()),
            }
        }
    }

    /// Puts the Action first in the flow. A write replaces the whole flow, so this reads the flow right before and after it.
    async fn bind(&self, action: &Action) -> Result<(), DeploymentError> {
        let mut patience = Patience::new(self.clock);
        loop {
            let before = self.call(|| self.auth0.flow()).await?;
            let places = Standing::flow_with_first(&before, action);
            if places.len() > BOUND_MAX {
                return Err(DeploymentError::Full);
            }
            match self.call(|| self.auth0.set_flow(&places)).await {
                Ok(()) => {
                    let after = self.call(|| self.auth0.flow()).await?;
                    return if is_kept(&before, &after, action) { Ok(()) } else { Err(DeploymentError::Overwritten) };
                }
                // Right after its first deployment, this endpoint may not know the Action yet.
                Err(failure) if matches!(failure.status, Some(400 | 404 | 409)) || is_passing(&failure) => {
                    if !patience.wait().await {
                        return Err(failure.into());
                    }
                }
                Err(failure) => return Err(failure.into()),
            }
        }
    }
}

/// Is our Action first, and are all others there in their order?
fn is_kept(before: &[Bound], after: &[Bound], action: &Action) -> bool {
    let others = |flow: &[Bound]| -> Vec<String> {
        flow.iter().map(|bound| bound.action_id.clone()).filter(|id| *id != action.id).collect()
    };
    after.first().is_some_and(|bound| bound.action_id == action.id) && others(before) == others(after)
}

/// May the same call succeed in a moment?
fn is_passing(failure: &Failure) -> bool {
    matches!(failure.kind, Kind::Server | Kind::Timeout | Kind::Unreachable | Kind::RateLimited)
}

/// A bounded wait in growing steps.
struct Patience<'a> {
    clock: &'a dyn Clock,
    until: Duration,
    asked: u32,
}

impl<'a> Patience<'a> {
    fn new(clock: &'a dyn Clock) -> Self {
        Self { clock, until: clock.monotonic().saturating_add(PATIENCE), asked: 0 }
    }

    /// Waits for the next step. `false`: the time is up.
    async fn wait(&mut self) -> bool {
        let left = self.until.saturating_sub(self.clock.monotonic());
        if left.is_zero() {
            return false;
        }
        self.asked += 1;
        // Without jitter, since no other client waits for the same build.
        self.clock.sleep(POLL_EVERY.ceiling(self.asked).min(left)).await;
        true
    }
}

#[cfg(test)]
mod tests;

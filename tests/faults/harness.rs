//! Extends [`World`] for fault tests: real limits, concurrent looks, users with accounts, and injected faults.

use std::time::Duration;

use okta_auth0_sync::domain::{OktaUserId, Outcome};
use okta_auth0_sync::engine::PassError;
use okta_auth0_sync::engine::applier::Until;
use okta_auth0_sync::engine::poller::Pass;
use okta_auth0_sync::http::pacing::Shares;
use okta_auth0_sync::store::AlarmRow;
use okta_auth0_sync_sandbox::{Bucket, Effect, Fault, Limits, Recorded};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::world::{Network, Setup, World};

pub(crate) const LOGS: &str = "/api/v1/logs";
/// How long the breaker stays open after a refusal.
pub(crate) const REFUSED_FOR: Duration = Duration::from_secs(61);

pub(crate) fn s(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// The shares of the default configuration.
fn shares() -> Option<(Shares, Shares)> {
    Some((Shares { ours: 0.9, reconcile: 0.25 }, Shares { ours: 0.8, reconcile: 0.25 }))
}

/// An installation with the limits of real tenants.
pub(crate) async fn start() -> World {
    start_with(|_| ()).await
}

pub(crate) async fn start_with(change: impl FnOnce(&mut Setup)) -> World {
    World::at("2026-01-01T00:00:00Z", |setup| {
        setup.sandbox.okta.limits = Limits::default();
        setup.sandbox.auth0.bucket = Bucket::default();
        setup.options.concurrency = 4;
        setup.options.guard.denials_max = 10_000.into();
        setup.network.shares = shares();
        change(setup);
    })
    .await
}

/// A user with an account in both tenants.
pub(crate) struct User {
    pub(crate) okta: OktaUserId,
    pub(crate) account: String,
}

impl World {
    /// Restarts the engine with another network.
    pub(crate) async fn restart_network(&mut self, change: impl FnOnce(&mut Network)) {
        let mut network = Network { shares: shares(), ..Network::default() };
        change(&mut network);
        self.restart_with(network).await;
    }

    /// A user with an account in both tenants.
    pub(crate) fn member(&self, name: &str) -> User {
        let email = format!("{name}@example.com");
        User { okta: self.user(&email), account: self.auth0().create_user(json!({ "email": email })) }
    }

    /// A user with an account in both tenants, just deactivated.
    pub(crate) fn leaver(&self, name: &str) -> User {
        let user = self.member(name);
        self.okta().deactivate(&user.okta);
        user
    }

    pub(crate) async fn try_poll(&self) -> Result<Pass, PassError> {
        self.engine().poll(&CancellationToken::new()).await
    }

    /// Looks at all due users until none is due within an hour.
    pub(crate) async fn process_queue(&self) {
        self.engine().apply(Until::Idle(s(3600)), &CancellationToken::new()).await.unwrap();
    }

    pub(crate) async fn look(&self, user: &User) -> Outcome {
        let ids = std::slice::from_ref(&user.okta);
        self.engine().look_at(ids).await.unwrap().remove(0).outcome
    }

    pub(crate) fn denied(&self, user: &User) -> bool {
        self.mark(&user.account)["deactivated"] == "true"
    }

    /// Polls, processes the queue, and checks that all these users are denied.
    pub(crate) async fn denies(&self, users: &[User]) {
        self.try_poll().await.unwrap();
        self.process_queue().await;
        for user in users {
            assert!(self.denied(user), "{} is not denied", user.account);
        }
    }

    pub(crate) async fn alarms_of_kind(&self, kind: &str) -> Vec<AlarmRow> {
        let alarms = self.store().open_alarms().await.unwrap();
        alarms.into_iter().filter(|alarm| alarm.kind == kind).collect()
    }

    pub(crate) fn okta_calls(&self, method: &str, path: &str) -> usize {
        self.okta().journal().count(method, path)
    }

    pub(crate) fn auth0_calls(&self, method: &str, path: &str) -> usize {
        self.auth0().journal().count(method, path)
    }

    pub(crate) fn calls_total(&self) -> u64 {
        self.okta().journal().total() + self.auth0().journal().total()
    }

    /// The System Log requests.
    pub(crate) fn pages(&self) -> Vec<Recorded> {
        let requests = self.okta().journal().requests();
        requests.into_iter().filter(|request| request.path == LOGS).collect()
    }

    /// Injects a fault into the next `times` requests to Okta with this method and path.
    pub(crate) fn okta_fault(&self, method: &str, path: &str, effect: Effect, times: u32) {
        self.okta().faults().add(Fault::new(method, path, effect).times(times));
    }

    pub(crate) fn auth0_fault(&self, method: &str, path: &str, effect: Effect, times: u32) {
        self.auth0().faults().add(Fault::new(method, path, effect).times(times));
    }
}

/// Replaces the tenant's response.
pub(crate) fn answer(code: u16, body: Value) -> Effect {
    Effect::Status { code, body, headers: Vec::new() }
}

pub(crate) fn header(name: &str, value: &str) -> Effect {
    Effect::ReplaceHeader { name: name.to_owned(), value: Some(value.to_owned()) }
}

/// The reason why this pass was skipped.
pub(crate) fn paused(result: Result<Pass, PassError>) -> String {
    match result {
        Err(PassError::Paused { why, .. }) => why,
        other => panic!("not paused: {other:?}"),
    }
}

pub(crate) fn snoozed(outcome: Outcome) -> String {
    match outcome {
        Outcome::Snooze { why, .. } => why,
        other => panic!("not snoozed: {other:?}"),
    }
}

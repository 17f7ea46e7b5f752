//! The hourly check of the Action.

use super::super::stage::{CapturedLogs, Stage, soon, until};
use super::*;
use crate::auth0::{self, ACTION_NAME};
use crate::domain::mark::MarkOptions;
use okta_auth0_sync_sandbox::Fault;

const MARK: MarkOptions = MarkOptions { mirror: true, block: false };

async fn alarms(stage: &Stage) -> Vec<String> {
    stage.engine.store().open_alarms().await.unwrap().into_iter().map(|alarm| alarm.kind).collect()
}

async fn stored(stage: &Stage) -> (Option<String>, Option<String>) {
    let status = stage.engine.store().status().await.unwrap().unwrap();
    (status.enforcement, status.enforcement_checked_at)
}

#[tokio::test]
async fn unbinding_raises_alarm_and_binding_clears_it() {
    let stage = Stage::new(MARK).await;
    let (action, look) = (stage.sandbox.auth0().action(), || stage.engine.look_at_action());
    assert_eq!(stored(&stage).await, (None, None), "not looked yet");
    assert_eq!(look().await.unwrap(), Some(Enforcement::Verified));
    let (enforcement, at) = stored(&stage).await;
    assert_eq!(enforcement.as_deref(), Some("verified"));
    assert!(at.is_some_and(|at| at.starts_with("2026-11-23T10:")));
    assert!(alarms(&stage).await.is_empty());

    action.set_bound(false);
    assert_eq!(look().await.unwrap(), Some(Enforcement::Missing));
    assert_eq!(alarms(&stage).await, ["action_missing"]);
    let alarm = stage.engine.store().open_alarms().await.unwrap().remove(0);
    assert!(alarm.detail.contains("it denies no login"), "names what is missing: {}", alarm.detail);
    assert!(!alarm.detail.contains("the code runs"), "omits what is in order: {}", alarm.detail);
    assert_eq!(stored(&stage).await.0.as_deref(), Some("missing"));

    // Behind another Action it works, but an Action before it may fail.
    action.set_bound(true);
    action.install("other", "exports.onExecutePostLogin = async () => {};");
    action.place("other", Some(0));
    assert_eq!(look().await.unwrap(), Some(Enforcement::Unverified));
    assert!(alarms(&stage).await.is_empty());

    assert!(action.remove(ACTION_NAME));
    assert_eq!(look().await.unwrap(), Some(Enforcement::Missing));
}

#[tokio::test]
async fn missing_scope_changes_no_alarm() {
    let stage = Stage::new(MARK).await;
    let tenant = stage.sandbox.auth0();
    tenant.action().set_bound(false);
    tenant.set_granted_scope("read:users update:users");
    assert_eq!(stage.engine.look_at_action().await.unwrap(), Some(Enforcement::Unverified));
    assert!(alarms(&stage).await.is_empty());
    assert!(!tenant.journal().requests().iter().any(|request| request.path.contains("/actions/")), "made no call");

    // The scope is revoked while the old token is still valid.
    let stage = Stage::new(MARK).await;
    let tenant = stage.sandbox.auth0();
    tenant.action().set_bound(false);
    stage.engine.look_at_action().await.unwrap();
    tenant.set_granted_scope("read:users update:users");
    assert_eq!(stage.engine.look_at_action().await.unwrap(), Some(Enforcement::Unverified));
    assert_eq!(alarms(&stage).await, ["action_missing"]);
}

#[tokio::test]
async fn failed_check_opens_no_circuit() {
    let stage = Stage::new(MARK).await;
    assert_eq!(stage.engine.look_at_action().await.unwrap(), Some(Enforcement::Verified));
    let breaker = stage.engine.breaker(crate::http::Remote::Auth0);
    for (code, expected) in [(500, None), (403, Some(Enforcement::Unverified)), (401, None), (429, None)] {
        let fault = stage.sandbox.auth0().faults().add(Fault::status("GET", "/api/v2/actions", code));
        assert_eq!(stage.engine.look_at_action().await.unwrap(), expected, "{code}");
        assert_eq!(breaker.open_for(&[auth0::endpoints::PATCH, auth0::endpoints::ACTIONS]), None, "{code}");
        stage.sandbox.auth0().faults().remove(fault);
    }
    assert!(alarms(&stage).await.is_empty());
    assert!(stage.engine.store().remotes().await.unwrap().iter().all(|remote| !remote.is_failing()));
}

#[tokio::test]
async fn blocks_replace_missing_action_alarm() {
    let stage = Stage::new(MarkOptions { block: true, ..MARK }).await;
    stage.sandbox.auth0().action().set_bound(false);
    assert_eq!(stage.engine.look_at_action().await.unwrap(), Some(Enforcement::Missing));
    assert!(alarms(&stage).await.is_empty());
}

#[tokio::test]
async fn changed_enforcement_is_logged_once() {
    let (stage, logs) = (Stage::new(MARK).await, CapturedLogs::new());
    let (action, journal) = (stage.sandbox.auth0().action(), stage.sandbox.auth0().journal());
    let looks = async |seen| until(|| journal.count("GET", "/api/v2/actions/triggers") >= seen).await;
    let stop = CancellationToken::new();
    tokio::join!(soon(stage.engine.action_watch_loop(&stop)), async {
        looks(3).await;
        assert_eq!(logs.count("action_verified"), 1);
        action.set_bound(false);
        looks(7).await;
        assert_eq!((logs.count("action_verified"), logs.count("action_missing")), (1, 1));
        action.set_bound(true);
        action.install("other", "exports.onExecutePostLogin = async () => {};");
        action.place("other", Some(0));
        looks(11).await;
        stop.cancel();
    });
    assert_eq!(logs.count("action_unverified"), 1);
}

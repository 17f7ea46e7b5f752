//! What counts as evidence that a user left, through the whole pipe.

use std::time::Duration;

use okta_auth0_sync::domain::{OktaUserId, Status, timestamp_text};
use okta_auth0_sync_sandbox::{Effect, Fault, PathMatch};
use serde_json::json;

use crate::world::{HOUR, MINUTE, World};

impl World {
    /// Adds an event about a user to the log, as an org writes it that our role does not fully see.
    fn logs(&self, who: &OktaUserId, event_type: &str, result: &str) {
        let number = self.okta().log_entries().len();
        self.okta().push_log_entry(json!({
            "uuid": format!("pushed-{number}"), "published": timestamp_text(self.now()), "eventType": event_type,
            "target": [{ "type": "User", "id": who.as_str() }], "outcome": { "result": result },
        }));
    }
}

#[tokio::test]
async fn failed_deactivation_proves_nothing() {
    for result in ["FAILURE", "SKIPPED", "UNKNOWN"] {
        let world = World::new().await;
        let ann = world.user("ann@example.com");
        let account = world.account("ann@example.com");
        world.sync().await;
        // Our role loses sight of Ann, and somebody fails to deactivate her.
        world.okta().hide(&ann);
        world.passes(HOUR);
        world.logs(&ann, "user.lifecycle.deactivate", result);
        world.sync().await;
        assert_eq!(world.outcome(&ann).await, "held: vanished", "{result}");
        assert_eq!(world.alarms().await, [format!("held of {ann}")]);
        world.assert_open(&account);
    }
}

#[tokio::test]
async fn newest_evidence_wins() {
    let world = World::new().await;
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    world.leaves(&ann).await;
    world.assert_denied_for(&account, &ann);
    // She returns where our role does not see her: not a reason to deny her in silence.
    world.okta().hide(&ann);
    world.passes(HOUR);
    world.logs(&ann, "user.lifecycle.activate", "SUCCESS");
    world.sync().await;
    assert_eq!(world.outcome(&ann).await, "held: vanished");
    assert_eq!(world.alarms().await, [format!("held of {ann}")]);
    world.assert_denied_for(&account, &ann);
    // A failed attempt changes nothing; a successful one is newer than her return.
    world.passes(HOUR);
    world.logs(&ann, "user.lifecycle.deactivate", "FAILURE");
    world.sync().await;
    assert_eq!(world.outcome(&ann).await, "held: vanished");
    world.passes(HOUR);
    world.logs(&ann, "user.lifecycle.delete.initiated", "SUCCESS");
    world.sync().await;
    assert_eq!(world.outcome(&ann).await, "unchanged");
    assert!(world.alarms().await.is_empty());
    world.assert_denied_for(&account, &ann);
}

#[tokio::test]
async fn late_event_does_not_outweigh_newer_one() {
    let world = World::new().await;
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    world.sync().await;
    world.okta().hide(&ann);
    world.passes(HOUR);
    let before = world.now();
    world.passes(HOUR);
    world.logs(&ann, "user.lifecycle.delete.initiated", "SUCCESS");
    world.sync().await;
    world.assert_denied_for(&account, &ann);
    // An older return is persisted late.
    world.okta().push_log_entry(json!({
        "uuid": "late", "published": timestamp_text(before), "eventType": "user.lifecycle.activate",
        "target": [{ "type": "User", "id": ann.as_str() }], "outcome": { "result": "SUCCESS" },
    }));
    world.sync().await;
    assert_eq!(world.outcome(&ann).await, "unchanged");
    world.assert_denied_for(&account, &ann);
}

#[tokio::test]
async fn configured_status_is_followed_in_the_log() {
    let world = World::with(|setup| _ = setup.options.rules.policy.deny_statuses.insert(Status::LockedOut)).await;
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    world.sync().await;
    world.okta().set_status(&ann, "LOCKED_OUT", None);
    world.logs(&ann, "user.account.lock", "SUCCESS");
    world.sync().await;
    world.assert_denied_for(&account, &ann);
    world.okta().set_status(&ann, "ACTIVE", None);
    world.logs(&ann, "user.account.unlock_by_admin", "SUCCESS");
    world.sync().await;
    world.assert_open(&account);
}

#[tokio::test]
async fn denied_staged_user_is_followed_in_the_log() {
    let world = World::with(|setup| _ = setup.options.rules.policy.deny_statuses.insert(Status::Staged)).await;
    let account = world.account("ann@example.com");
    world.sync().await;
    let new = okta_auth0_sync_sandbox::NewUser::new("ann@example.com", "ann@example.com").staged();
    let ann = OktaUserId::parse(world.okta().create_user(&new).as_str()).unwrap();
    world.sync().await;
    world.assert_denied_for(&account, &ann);
    world.returns(&ann).await;
    world.assert_open(&account);
}

#[tokio::test]
async fn one_refused_user_delays_no_other() {
    let world = World::new().await;
    let users = ["ann", "bob", "cyd", "dan"].map(|name| world.user(&format!("{name}@example.com")));
    let accounts = ["ann", "bob", "cyd", "dan"].map(|name| world.account(&format!("{name}@example.com")));
    world.sync().await;
    let body = json!({ "errorCode": "E0000006", "errorSummary": "You do not have permission" });
    let effect = Effect::Status { code: 403, body, headers: Vec::new() };
    let path = PathMatch::Exact(format!("/api/v1/users/{}", users[0]));
    world.okta().faults().add(Fault { path, ..Fault::new("GET", "/api/v1/users", effect) });
    for who in &users {
        world.okta().deactivate(who);
    }
    world.sync().await;
    for (who, account) in users.iter().zip(&accounts).skip(1) {
        world.assert_denied_for(account, who);
    }
    assert!(world.outcome(&users[0]).await.starts_with("retry: "));
    assert!(world.alarms().await.is_empty(), "the endpoint works for all others");
    world.let_pass(12 * HOUR).await;
    assert!(world.outcome(&users[0]).await.starts_with("failed: "));
    assert_eq!(world.alarms().await, [format!("failed of {}", users[0])]);
    world.okta().faults().clear();
    world.let_pass(25 * HOUR + MINUTE + Duration::from_secs(1)).await;
    world.assert_denied_for(&accounts[0], &users[0]);
    assert!(world.alarms().await.is_empty());
}

#[tokio::test]
async fn wider_scope_starts_a_full_reconcile() {
    let mut world = World::with(|setup| setup.options.rules.connections = vec!["other".to_owned()]).await;
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    world.leaves(&ann).await;
    assert!(world.lets_in(&account), "out of scope");
    world.restart(|options| options.rules.connections.clear()).await;
    let run = world.store().current_reconcile().await.unwrap().unwrap();
    assert!(run.is_full(), "{run:?}");
    world.engine().reconcile(&tokio_util::sync::CancellationToken::new()).await.unwrap();
    world.settle().await;
    world.assert_denied_for(&account, &ann);
    world.restart(|_| ()).await;
    assert!(world.store().current_reconcile().await.unwrap().is_none(), "nothing changed");
}

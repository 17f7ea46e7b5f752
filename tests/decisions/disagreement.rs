//! When the log and Okta's answer do not say the same.

use okta_auth0_sync::domain::{Clock, clock};

use crate::world::{DAY, HOUR, MINUTE, SECOND, World};

/// Deactivated, and Okta still answers with the user as they were.
async fn stale(world: &World) -> (okta_auth0_sync::domain::OktaUserId, String) {
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    world.passes(DAY);
    world.sync().await;
    world.okta().deactivate(&ann);
    world.okta().set_status(&ann, "ACTIVE", None);
    world.sync().await;
    world.assert_open(&account);
    (ann, account)
}

#[tokio::test]
async fn contradiction_rechecks_5s_1m_5m_30m() {
    let world = World::new().await;
    let (ann, account) = stale(&world).await;
    for (step, wait) in [5 * SECOND, MINUTE, 5 * MINUTE, 30 * MINUTE].into_iter().enumerate() {
        let due_at = world.row(&ann).await.due_at.unwrap().parse().unwrap();
        assert_eq!(clock::since(due_at, world.clock.now()), wait, "step {step}");
        world.passes(wait - SECOND);
        assert!(world.settle().await.is_empty(), "not before its time");
        world.passes(SECOND);
        assert_eq!(world.settle().await.len(), 1);
    }
    assert_eq!(world.row(&ann).await.due_at, None, "then Okta is believed");
    world.assert_open(&account);
}

#[tokio::test]
async fn late_denial_names_original_event() {
    let world = World::new().await;
    let (ann, account) = stale(&world).await;
    world.okta().set_status(&ann, "DEPROVISIONED", None);
    world.let_pass(6 * SECOND).await;
    world.assert_denied_for(&account, &ann);
    let events = world.store().events_of(&ann, 10).await.unwrap();
    let event = events.iter().find(|event| event.event_type == "user.lifecycle.deactivate").unwrap();
    assert_eq!(event.outcome, "applied");
    assert_eq!(world.mark(&account)["event_id"], event.event_id.as_str());
    assert!(world.let_pass(2 * HOUR).await.is_empty());
}

#[tokio::test]
async fn stale_denial_lifts_once_okta_catches_up() {
    let world = World::new().await;
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    world.leaves(&ann).await;
    world.passes(DAY);
    world.okta().activate(&ann);
    world.okta().set_status(&ann, "DEPROVISIONED", None);
    world.sync().await;
    world.assert_denied_for(&account, &ann);
    world.okta().set_status(&ann, "ACTIVE", None);
    world.let_pass(6 * SECOND).await;
    world.assert_open(&account);
}

#[tokio::test]
async fn contradicting_hold_is_rechecked() {
    let mut world = World::with(|setup| setup.options.guard.denials_max = 0.into()).await;
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    world.leaves(&ann).await;
    world.passes(DAY);
    world.okta().activate(&ann);
    world.okta().set_status(&ann, "DEPROVISIONED", None);
    world.sync().await;
    assert_eq!(world.outcome(&ann).await, "held: guard");
    world.okta().set_status(&ann, "ACTIVE", None);
    world.let_pass(6 * SECOND).await;
    assert_eq!(world.outcome(&ann).await, "unchanged");
    assert!(world.alarms().await.is_empty());
    world.assert_open(&account);
    world.restart(|_| ()).await;
    assert!(world.settle().await.is_empty());
}

#[tokio::test]
async fn flapping_import_ends_as_okta_does() {
    for ends_active in [true, false] {
        let world = World::new().await;
        let ann = world.user("ann@example.com");
        let account = world.account("ann@example.com");
        world.passes(DAY);
        world.sync().await;
        for round in 0..6 {
            world.okta().deactivate(&ann);
            if round % 2 == 0 {
                world.sync().await;
            }
            world.okta().import_activate(&ann);
            if round % 3 == 0 {
                world.sync().await;
            }
        }
        if !ends_active {
            world.okta().deactivate(&ann);
        }
        world.sync().await;
        world.let_pass(HOUR).await;
        assert_eq!(world.lets_in(&account), ends_active);
        assert_eq!(world.row(&ann).await.due_at, None);
    }
}

#[tokio::test]
async fn unordered_events_change_nothing() {
    let world = World::new().await;
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    world.sync().await;
    world.okta().hold_log();
    world.okta().deactivate(&ann);
    world.passes(MINUTE);
    world.okta().activate(&ann);
    world.passes(MINUTE);
    world.okta().deactivate(&ann);
    world.okta().release_log(true);
    world.sync().await;
    world.assert_denied_for(&account, &ann);
    for entry in world.okta().log_entries() {
        world.okta().repeat_log_entry(entry["uuid"].as_str().unwrap());
    }
    world.sync().await;
    world.let_pass(HOUR).await;
    world.assert_denied_for(&account, &ann);
    assert_eq!(world.writes(), 1);
}

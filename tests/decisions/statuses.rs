//! The verdict for each Okta status, and what a 404 means.

use okta_auth0_sync::domain::{Policy, Status};
use okta_auth0_sync_sandbox::{DeleteOrder, Fault};

use crate::world::{DAY, HOUR, MINUTE, SECOND, World, outcomes};

#[tokio::test]
async fn every_status_reaches_its_verdict() {
    let world = World::new().await;
    let (ann, bob) = (world.user("ann@example.com"), world.user("bob@example.com"));
    let (anns, bobs) = (world.account("ann@example.com"), world.account("bob@example.com"));
    for (status, denied_stays, open_stays) in [
        ("ACTIVE", false, true),
        ("PROVISIONED", false, true),
        ("RECOVERY", false, true),
        ("PASSWORD_EXPIRED", false, true),
        ("LOCKED_OUT", false, true),
        ("STAGED", true, true),
        ("SUSPENDED", true, true),
        ("HIBERNATING", true, true),
        ("DEPROVISIONED", true, false),
    ] {
        world.okta().set_status(&ann, "DEPROVISIONED", None);
        world.okta().set_status(&bob, "ACTIVE", None);
        world.request(&ann).await;
        world.request(&bob).await;
        world.assert_denied_for(&anns, &ann);
        world.assert_open(&bobs);
        world.okta().set_status(&ann, status, None);
        world.okta().set_status(&bob, status, None);
        world.request(&ann).await;
        world.request(&bob).await;
        assert_eq!(!world.lets_in(&anns), denied_stays, "{status} on a denied account");
        assert_eq!(world.lets_in(&bobs), open_stays, "{status} on an open account");
        let alarmed = world.alarms().await.iter().any(|alarm| alarm.starts_with("unknown_status"));
        assert_eq!(alarmed, status == "HIBERNATING", "{status}");
    }
}

#[tokio::test]
async fn suspension_denies_if_configured() {
    let world = World::with(|setup| {
        setup.options.rules.policy =
            Policy { deny_statuses: [Status::Suspended, Status::Deprovisioned].into(), ..Policy::default() };
    })
    .await;
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    world.okta().suspend(&ann);
    world.sync().await;
    world.assert_denied_for(&account, &ann);
    assert_eq!(world.mark(&account)["status"], "SUSPENDED");
    world.okta().unsuspend(&ann);
    world.sync().await;
    world.assert_open(&account);
}

#[tokio::test]
async fn transitioning_status_decides_and_rechecks() {
    let world = World::new().await;
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    world.sync().await;
    world.okta().set_status(&ann, "ACTIVE", Some("DEPROVISIONED"));
    world.request(&ann).await;
    world.assert_denied_for(&account, &ann);
    // 5 s, 1, 5, 30 min, and every 30 min after that.
    let looks = world.let_pass(5 * HOUR).await.len();
    assert!((12..=14).contains(&looks), "{looks}");
    assert!(world.row(&ann).await.due_at.is_some());
    world.okta().set_status(&ann, "DEPROVISIONED", None);
    world.let_pass(HOUR).await;
    assert_eq!(world.row(&ann).await.due_at, None, "settled: no more looks");
    world.assert_denied_for(&account, &ann);
}

#[tokio::test]
async fn vanished_user_is_held_until_approved() {
    let world = World::new().await;
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    world.sync().await;
    world.okta().hide(&ann);
    world.request(&ann).await;
    assert_eq!(world.outcome(&ann).await, "held: vanished");
    assert_eq!(world.alarms().await, [format!("held of {ann}")]);
    world.assert_open(&account);
    world.let_pass(2 * DAY).await;
    world.reconcile().await;
    assert_eq!(world.outcome(&ann).await, "held: vanished");
    world.approve(&ann).await;
    world.assert_denied_for(&account, &ann);
    assert_eq!(world.mark(&account)["status"], "DELETED");
    assert!(world.alarms().await.is_empty());
    // Once approved, it stays approved.
    world.reconcile().await;
    assert_eq!(outcomes(&world.request(&ann).await), ["unchanged"]);
}

#[tokio::test]
async fn narrowed_okta_role_denies_no_user() {
    let world = World::new().await;
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    world.leaves(&ann).await;
    world.passes(DAY);
    world.returns(&ann).await;
    world.let_pass(2 * HOUR).await;
    world.okta().hide(&ann);
    world.request(&ann).await;
    assert_eq!(world.outcome(&ann).await, "held: vanished");
    world.assert_open(&account);
    world.okta().show(&ann);
    world.reconcile().await;
    assert_eq!(world.outcome(&ann).await, "unchanged");
}

#[tokio::test]
async fn deleted_deactivated_user_stays_denied() {
    let world = World::new().await;
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    world.leaves(&ann).await;
    world.passes(DAY);
    world.okta().delete(&ann);
    world.sync().await;
    world.assert_denied_for(&account, &ann);
    world.reconcile().await;
    world.assert_denied_for(&account, &ann);
    assert_eq!(world.writes(), 1);
}

#[tokio::test]
async fn unknown_deleted_user_denied_by_event_address() {
    for order in [DeleteOrder::DeactivateFirst, DeleteOrder::InitiatedFirst] {
        let world = World::with(|setup| setup.sandbox.okta.delete_order = order).await;
        let ann = world.user("ann@example.com");
        let account = world.account("ann@example.com");
        // The first poll comes after all of it.
        world.passes(MINUTE);
        world.okta().delete(&ann);
        world.sync().await;
        world.assert_denied_for(&account, &ann);
        assert_eq!(world.outcome(&ann).await, "applied");
        assert_eq!(world.row(&ann).await.status.as_deref(), Some("DELETED"));
    }
}

#[tokio::test]
async fn deletion_is_denied_once_log_confirms() {
    let world = World::new().await;
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    world.sync().await;
    world.okta().hold_log();
    world.okta().delete(&ann);
    world.request(&ann).await;
    assert_eq!(world.outcome(&ann).await, "held: vanished");
    world.okta().release_log(false);
    world.sync().await;
    world.assert_denied_for(&account, &ann);
}

#[tokio::test]
async fn new_user_costs_one_call_to_okta() {
    let world = World::new().await;
    world.account("ann@example.com");
    world.sync().await;
    world.clear_journals();
    world.user("ann@example.com");
    world.poll().await;
    let polled = world.calls();
    world.let_pass(2 * HOUR).await;
    assert_eq!(world.calls(), (polled.0 + 1, 3), "Auth0 is searched for marks that a lost state wrote, under any key");
    world.passes(SECOND);
}

#[tokio::test]
async fn newly_denying_status_reaches_existing_users() {
    let mut world = World::new().await;
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    world.okta().suspend(&ann);
    world.sync().await;
    world.assert_open(&account);
    world
        .restart(|options| {
            options.rules.policy.deny_statuses.insert(Status::Suspended);
        })
        .await;
    // The start triggers this reconcile.
    world.engine().reconcile(&tokio_util::sync::CancellationToken::new()).await.unwrap();
    world.settle().await;
    world.assert_denied_for(&account, &ann);
}

#[tokio::test]
async fn log_departure_outweighs_stale_active() {
    for (back, held) in [(None, false), (Some(HOUR / 2), true)] {
        let world = World::new().await;
        let ann = world.user("ann@example.com");
        let account = world.account("ann@example.com");
        world.sync().await;
        world.passes(DAY);
        world.okta().deactivate(&ann);
        // Okta's user API lags behind its log.
        world.okta().set_status(&ann, "ACTIVE", None);
        world.sync().await;
        world.assert_open(&account);
        if let Some(later) = back {
            // The user has returned since then, according to the log too.
            world.passes(later);
            world.okta().set_status(&ann, "DEPROVISIONED", None);
            world.okta().activate(&ann);
            world.sync().await;
        }
        world.okta().hide(&ann);
        world.request(&ann).await;
        assert_eq!(world.outcome(&ann).await == "held: vanished", held, "{}", world.outcome(&ann).await);
        assert_eq!(world.lets_in(&account), held);
    }
}

#[tokio::test]
async fn late_poll_does_not_hold_departed_user() {
    let world = World::new().await;
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    world.sync().await;
    world.passes(DAY);
    let fault = world.okta().faults().add(Fault::status("GET", &format!("/api/v1/users/{ann}"), 503));
    world.okta().deactivate(&ann);
    world.poll().await;
    world.let_pass(3 * HOUR).await;
    world.okta().delete(&ann);
    world.okta().faults().remove(fault);
    world.request(&ann).await;
    world.assert_denied_for(&account, &ann);
}

//! First denials beyond the guard's limit wait for an operator, never for time.

use okta_auth0_sync::domain::OktaUserId;
use okta_auth0_sync_sandbox::Fault;

use crate::world::{DAY, HOUR, World};

async fn guarded(denials_max: u64, users: usize) -> (World, Vec<OktaUserId>) {
    let world = World::with(|setup| setup.options.guard.denials_max = denials_max.into()).await;
    let users: Vec<OktaUserId> = (0..users)
        .map(|number| {
            let address = format!("p{number}@example.com");
            world.account(&address);
            world.user(&address)
        })
        .collect();
    (world, users)
}

fn denied(world: &World) -> usize {
    world.auth0().users().iter().filter(|user| !world.lets_in(user["user_id"].as_str().unwrap())).count()
}

#[tokio::test]
async fn denials_over_limit_held_until_approved() {
    let (mut world, users) = guarded(2, 5).await;
    users.iter().for_each(|who| world.okta().deactivate(who));
    world.sync().await;
    assert_eq!(denied(&world), 2);
    assert_eq!(world.alarms().await, ["guard"]);
    world.let_pass(2 * DAY).await;
    world.restart(|_| ()).await;
    world.settle().await;
    world.reconcile().await;
    assert_eq!(denied(&world), 2, "neither time nor a restart nor a comparison opens it");
    world.approve_without_a_look(None).await;
    world.settle().await;
    assert_eq!(denied(&world), 5);
    assert!(world.alarms().await.is_empty());
}

#[tokio::test]
async fn approval_rechecks_and_releases_active_users() {
    let (world, users) = guarded(0, 3).await;
    users.iter().for_each(|who| world.okta().deactivate(who));
    world.sync().await;
    world.returns(&users[0]).await;
    assert_eq!(world.outcome(&users[0]).await, "unchanged", "Allow clears it");
    world.okta().set_status(&users[1], "ACTIVE", None);
    world.approve_without_a_look(None).await;
    world.settle().await;
    assert_eq!(denied(&world), 1);
    // A user who was released is guarded again the next time.
    world.leaves(&users[0]).await;
    assert_eq!(world.outcome(&users[0]).await, "held: guard");
}

#[tokio::test]
async fn failures_do_not_use_up_guard() {
    let (mut world, users) = guarded(0, 1).await;
    world.leaves(&users[0]).await;
    assert_eq!(world.outcome(&users[0]).await, "held: guard");
    world.restart(|options| options.guard.denials_max = 1.into()).await;
    world.auth0().faults().add(Fault::status("GET", "/api/v2/users-by-email", 500).times(2));
    world.request(&users[0]).await;
    assert!(world.outcome(&users[0]).await.starts_with("retry"));
    world.let_pass(HOUR).await;
    assert_eq!(world.outcome(&users[0]).await, "held: guard");
    assert_eq!(denied(&world), 0);
    // Approved while Auth0 fails: the approval is kept until it is used.
    world.auth0().faults().add(Fault::status("GET", "/api/v2/users-by-email", 500).times(2));
    world.approve(&users[0]).await;
    world.let_pass(HOUR).await;
    assert_eq!(denied(&world), 1);
}

#[tokio::test]
async fn event_and_reconcile_limits_differ() {
    let (world, users) = guarded(2, 6).await;
    world.sync().await;
    users[..3].iter().for_each(|who| world.okta().deactivate(who));
    world.sync().await;
    assert_eq!(denied(&world), 2);
    users[3..].iter().for_each(|who| world.okta().deactivate_silently(who));
    world.reconcile().await;
    assert_eq!(denied(&world), 4);
    world.passes(2 * HOUR);
    world.auth0().journal().clear();
    world.reconcile().await;
    assert_eq!(world.writes(), 0);
}

#[tokio::test]
async fn new_window_admits_and_repairs_do_not_count() {
    let (world, users) = guarded(1, 3).await;
    world.leaves(&users[0]).await;
    for user in world.auth0().users() {
        world.auth0().set_user(user["user_id"].as_str().unwrap(), |user| {
            user["app_metadata"] = serde_json::json!({});
        });
    }
    world.reconcile().await;
    assert_eq!(denied(&world), 1);
    world.leaves(&users[1]).await;
    assert_eq!(world.outcome(&users[1]).await, "held: guard");
    world.passes(2 * HOUR);
    world.leaves(&users[2]).await;
    assert_eq!(denied(&world), 2);
    assert_eq!(world.outcome(&users[1]).await, "held: guard");
}

#[tokio::test]
async fn user_without_account_uses_no_guard() {
    let (world, users) = guarded(1, 1).await;
    for number in 0..5 {
        let nobody = world.user(&format!("nobody{number}@example.com"));
        world.leaves(&nobody).await;
        assert_eq!(world.outcome(&nobody).await, "no_account");
    }
    world.leaves(&users[0]).await;
    assert_eq!(denied(&world), 1);
}

#[tokio::test]
async fn share_counts_known_users() {
    let (mut world, users) = guarded(200, 8).await;
    world.restart(|options| options.guard.denials_max = "25%".parse().unwrap()).await;
    for who in &users {
        world.request(who).await;
    }
    users.iter().for_each(|who| world.okta().deactivate(who));
    world.sync().await;
    assert_eq!(denied(&world), 2, "a quarter of eight");
    let health = world.engine().health().await.unwrap();
    let guard = health.guard.unwrap();
    assert_eq!((guard.limit, guard.used, guard.held), (2, 2, 6));
    assert!(guard.usage().starts_with("2 of 2 (25%) first denials in 1h are used until "), "{}", guard.usage());
}

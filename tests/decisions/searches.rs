//! Batched searches: one search serves many users and misses none, however it ends.

use okta_auth0_sync::domain::OktaUserId;
use okta_auth0_sync_sandbox::{Fault, PathMatch};
use serde_json::json;

use crate::world::World;

/// Creates this number of users, each with an account that only the search finds.
fn users(world: &World, count: usize) -> Vec<(OktaUserId, String)> {
    let one = |number: usize| {
        let address = format!("person{number}@example.com");
        let account = json!({ "connection": "google-oauth2", "email": address.to_uppercase() });
        (world.user(&address), world.auth0().create_user(account))
    };
    (0..count).map(one).collect()
}

async fn all_leave(world: &World, users: &[(OktaUserId, String)]) {
    users.iter().for_each(|(user, _)| world.okta().deactivate(user));
    world.sync().await;
    users.iter().for_each(|(user, account)| world.assert_denied_for(account, user));
}

fn searches(world: &World) -> usize {
    world.auth0().journal().requests().iter().filter(|request| request.path == "/api/v2/users").count()
}

/// The number of Okta searches for the holders of addresses.
fn holder_searches(world: &World) -> usize {
    world.okta().journal().requests().iter().filter(|request| request.path == "/api/v1/users").count()
}

#[tokio::test]
async fn simultaneous_leavers_are_batched() {
    let world = World::new().await;
    let users = users(&world, 45);
    all_leave(&world, &users).await;
    assert_eq!((searches(&world), world.writes()), (3, 45), "twenty addresses a search");
    assert_eq!(holder_searches(&world), 3, "who else holds an address is asked for twenty of them, too");
}

#[tokio::test]
async fn batch_search_finds_other_holder() {
    let world = World::new().await;
    let users = users(&world, 9);
    let (shared, account) = &users[5];
    let colleague = world.user_called("colleague@example.com", "PERSON5@example.com");
    world.sync().await;
    users.iter().for_each(|(user, _)| world.okta().deactivate(user));
    world.sync().await;
    assert_eq!(holder_searches(&world), 1);
    assert_eq!(world.outcome(shared).await, format!("skipped: shared_address: {colleague}"));
    world.assert_open(account);
    // When the colleague leaves too, no account is kept open for them any more.
    world.okta().deactivate(&colleague);
    world.sync().await;
    assert!(!world.lets_in(account));
    for (user, account) in users.iter().filter(|(user, _)| user != shared) {
        world.assert_denied_for(account, user);
    }
}

#[tokio::test]
async fn failed_batch_falls_back_to_single() {
    for (of_okta, path) in [(false, "/api/v2/users"), (true, "/api/v1/users")] {
        let world = World::new().await;
        let users = users(&world, 3);
        let search = Fault { path: PathMatch::Exact(path.to_owned()), ..Fault::status("GET", "", 503) }.times(1);
        if of_okta { world.okta().faults() } else { world.auth0().faults() }.add(search);
        all_leave(&world, &users).await;
        assert_eq!(world.writes(), 3, "{path}");
    }
}

#[tokio::test]
async fn overfull_batch_falls_back_to_single() {
    let world = World::new().await;
    let users = users(&world, 2);
    let more = |_| world.auth0().create_user(json!({ "connection": "google-oauth2", "email": "PERSON0@example.com" }));
    let accounts: Vec<String> = (0..110).map(more).collect();
    all_leave(&world, &users).await;
    accounts.iter().for_each(|account| world.assert_denied_for(account, &users[0].0));
}

#[tokio::test]
async fn stale_batch_results_are_refreshed() {
    let world = World::new().await;
    let users = users(&world, 2);
    users.iter().for_each(|(user, _)| world.okta().deactivate(user));
    world.poll().await;
    world.engine().look_at(&[users[0].0.clone()]).await.unwrap();
    // Signs up while the other look waits.
    let late = world.auth0().create_user(json!({ "connection": "acme-saml", "email": "PERSON1@example.com" }));
    world.passes(crate::world::MINUTE);
    world.settle().await;
    world.assert_denied_for(&late, &users[1].0);
}

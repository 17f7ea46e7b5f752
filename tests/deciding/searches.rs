//! One search for many: nobody is missed by it, whatever becomes of it.

use okta_auth0_sync::domain::OktaUserId;
use okta_auth0_sync::sandbox::{Fault, PathMatch};
use serde_json::json;

use super::world::World;

/// So many people, each with an account that only the search finds.
fn people(world: &World, count: usize) -> Vec<(OktaUserId, String)> {
    let one = |number: usize| {
        let address = format!("person{number}@example.com");
        let account = json!({ "connection": "google-oauth2", "email": address.to_uppercase() });
        (world.person(&address), world.auth0().create_user(account))
    };
    (0..count).map(one).collect()
}

async fn all_leave(world: &World, people: &[(OktaUserId, String)]) {
    people.iter().for_each(|(person, _)| world.okta().deactivate(person));
    world.sync().await;
    people.iter().for_each(|(person, account)| world.assert_denied_for(account, person));
}

fn searches(world: &World) -> usize {
    world.auth0().journal().requests().iter().filter(|request| request.path == "/api/v2/users").count()
}

#[tokio::test]
async fn many_who_leave_at_once_are_searched_for_together() {
    let world = World::new().await;
    let people = people(&world, 45);
    all_leave(&world, &people).await;
    assert_eq!((searches(&world), world.writes()), (3, 45), "twenty addresses a search");
}

#[tokio::test]
async fn a_search_for_many_that_fails_leaves_each_to_their_own() {
    let world = World::new().await;
    let people = people(&world, 3);
    let search = PathMatch::Exact("/api/v2/users".to_owned());
    world.auth0().faults().add(Fault { path: search, ..Fault::status("GET", "", 503) }.times(1));
    all_leave(&world, &people).await;
    assert_eq!(world.writes(), 3);
}

#[tokio::test]
async fn more_hits_than_a_page_are_searched_for_one_by_one() {
    let world = World::new().await;
    let people = people(&world, 2);
    let more = |_| world.auth0().create_user(json!({ "connection": "google-oauth2", "email": "PERSON0@example.com" }));
    let accounts: Vec<String> = (0..110).map(more).collect();
    all_leave(&world, &people).await;
    accounts.iter().for_each(|account| world.assert_denied_for(account, &people[0].0));
}

#[tokio::test]
async fn what_was_searched_long_ago_is_searched_again() {
    let world = World::new().await;
    let people = people(&world, 2);
    people.iter().for_each(|(person, _)| world.okta().deactivate(person));
    world.poll().await;
    world.engine().look_at(&[people[0].0.clone()]).await.unwrap();
    // Signs up while the other waits.
    let late = world.auth0().create_user(json!({ "connection": "acme-saml", "email": "PERSON1@example.com" }));
    world.passes(super::world::MINUTE);
    world.settle().await;
    world.assert_denied_for(&late, &people[1].0);
}

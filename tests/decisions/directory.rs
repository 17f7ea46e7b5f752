//! The directory: users who are renamed before they leave, users whose addresses Okta hides, and users without an account.

use okta_auth0_sync::domain::OktaUserId;
use okta_auth0_sync_sandbox::{Effect, Fault};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::world::{DAY, MINUTE, World};

const USERS: &str = "/api/v1/users";

/// A world in which the log no longer names the users: they were created before the log is first read.
async fn after_years(users: &[&str]) -> (World, Vec<OktaUserId>) {
    let world = World::new().await;
    let users = users.iter().map(|email| world.user(email)).collect();
    world.passes(30 * DAY);
    world.poll().await;
    (world, users)
}

/// `okta_user_id: why` of each row of the view.
async fn unmatched(world: &World) -> Vec<String> {
    let options = SqliteConnectOptions::new().filename(world.folder.path().join("state.db")).read_only(true);
    let mut state = options.connect().await.unwrap();
    let rows = sqlx::query_scalar("SELECT okta_user_id || ': ' || why FROM unmatched ORDER BY since, okta_user_id")
        .fetch_all(&mut state)
        .await
        .unwrap();
    state.close().await.unwrap();
    rows
}

#[tokio::test]
async fn renamed_before_leaving_is_denied() {
    let (world, users) = after_years(&["ann@example.com"]).await;
    let old = world.account("ann@example.com");
    assert_eq!(world.list_directory().await, 1);
    world.okta().change_profile(&users[0], "former-0815@example.com", "former-0815@example.com");
    world.leaves(&users[0]).await;
    world.assert_denied_for(&old, &users[0]);
    assert_eq!(unmatched(&world).await, [""; 0]);
    world.returns(&users[0]).await;
    world.assert_open(&old);
}

#[tokio::test]
async fn renamed_a_year_before_leaving_is_denied() {
    let (world, users) = after_years(&["ann.lee@example.com"]).await;
    let old = world.account("ann.lee@example.com");
    world.list_directory().await;
    world.okta().change_profile(&users[0], "ann.smith@example.com", "ann.smith@example.com");
    for _ in 0..12 {
        world.passes(30 * DAY);
        world.list_directory().await;
        world.sync().await;
    }
    world.leaves(&users[0]).await;
    world.assert_denied_for(&old, &users[0]);
}

#[tokio::test]
async fn renamed_unlisted_user_is_unmatched() {
    let (world, users) = after_years(&["ann@example.com"]).await;
    let old = world.account("ann@example.com");
    world.okta().change_profile(&users[0], "former@example.com", "former@example.com");
    world.list_directory().await;
    world.leaves(&users[0]).await;
    world.assert_open(&old);
    assert_eq!(unmatched(&world).await, [format!("{}: no_account", users[0])]);
    // The account appears after all, and the reconcile still searches, a year later.
    world.passes(400 * DAY);
    let late = world.account("former@example.com");
    world.reconcile().await;
    world.assert_denied_for(&late, &users[0]);
    assert_eq!(unmatched(&world).await, [""; 0]);
}

#[tokio::test]
async fn old_address_of_another_user_is_not_denied() {
    let (world, users) = after_years(&["ann@example.com"]).await;
    let account = world.account("ann@example.com");
    world.list_directory().await;
    world.okta().change_profile(&users[0], "ann.lee@example.com", "ann.lee@example.com");
    let renamed = world.account("ann.lee@example.com");
    let namesake = world.user("ann@example.com");
    world.list_directory().await;
    world.leaves(&users[0]).await;
    world.assert_denied_for(&renamed, &users[0]);
    world.assert_open(&account);
    assert_eq!(world.outcome(&users[0]).await, format!("skipped: shared_address: {namesake}"));
    // The namesake leaves too: the account is theirs.
    world.leaves(&namesake).await;
    world.assert_denied_for(&account, &namesake);
}

#[tokio::test]
async fn listing_makes_no_user_due_and_no_write() {
    let (world, users) = after_years(&["ann@example.com", "bob@example.com"]).await;
    world.account("ann@example.com");
    world.clear_journals();
    assert_eq!(world.list_directory().await, 2);
    assert_eq!(world.settle().await.len(), 0);
    let (okta, auth0) = world.calls();
    assert_eq!((okta, auth0), (1, 0));
    assert_eq!(world.row(&users[1]).await.email.as_deref(), Some("bob@example.com"));
    // Nothing changes in the second night.
    assert_eq!(world.list_directory().await, 2);
    assert_eq!(world.settle().await.len(), 0);
}

/// The numbers of docs/performance.md. 100,000 users take 500 calls; they are not listed here.
#[tokio::test]
async fn listing_costs_one_call_per_200_users() {
    let world = World::new().await;
    let mut users = 0;
    for (count, calls) in [(1_000, 5), (10_000, 50)] {
        for number in users..count {
            world.user(&format!("user{number}@example.com"));
        }
        users = count;
        world.clear_journals();
        assert_eq!(world.list_directory().await, count);
        assert_eq!(world.okta().journal().count("GET", USERS), calls, "{count} users");
    }
}

#[tokio::test]
async fn profile_update_of_present_user_is_cheap() {
    let (world, users) = after_years(&["ann@example.com"]).await;
    world.account("ann@example.com");
    world.list_directory().await;
    world.okta().change_profile(&users[0], "ann.lee@example.com", "ann.lee@example.com");
    world.poll().await;
    world.clear_journals();
    assert_eq!(world.settle().await.len(), 1);
    assert_eq!(world.calls(), (1, 0));
    let known = world.store().known(&users).await.unwrap();
    assert_eq!(known[&users[0]].addresses.len(), 2);
}

#[tokio::test]
async fn interrupted_listing_resumes_after_restart() {
    let mut world = World::new().await;
    for number in 0..450 {
        world.user(&format!("user{number}@example.com"));
    }
    world.passes(30 * DAY);
    world.poll().await;
    world.okta().faults().add(Fault::status("GET", USERS, 400).skip(2).times(1));
    let error = world.engine().list_directory(&tokio_util::sync::CancellationToken::new()).await.unwrap_err();
    assert!(error.to_string().contains("400"), "{error}");
    assert_eq!(world.store().directory().await.unwrap().listed, 0, "a refused cursor starts over");
    world.okta().faults().add(Fault::status("GET", USERS, 503).skip(2).times(1));
    world.engine().list_directory(&tokio_util::sync::CancellationToken::new()).await.unwrap_err();
    let directory = world.store().directory().await.unwrap();
    assert_eq!((directory.listed, directory.complete_at), (400, None));
    world.restart(|_| ()).await;
    world.passes(5 * MINUTE);
    world.clear_journals();
    assert_eq!(world.list_directory().await, 450);
    assert_eq!(world.okta().journal().count("GET", USERS), 1);
    let directory = world.store().directory().await.unwrap();
    assert!(directory.complete_at.is_some() && directory.started_at.is_none(), "{directory:?}");
}

#[tokio::test]
async fn replaced_addresses_of_present_users_expire() {
    let (world, users) = after_years(&["ann@example.com", "bob@example.com"]).await;
    world.list_directory().await;
    for (user, name) in users.iter().zip(["ann.lee@example.com", "bob.lee@example.com"]) {
        world.okta().change_profile(user, name, name);
    }
    world.list_directory().await;
    world.leaves(&users[1]).await;
    world.passes(401 * DAY);
    let before = okta_auth0_sync::domain::clock::sub(world.now(), 400 * DAY);
    while world.store().expire(before, 100, world.now()).await.unwrap() > 0 {}
    let known = world.store().known(&users).await.unwrap();
    let addresses = |user: &OktaUserId| -> Vec<String> {
        known[user].addresses.iter().map(|address| address.as_str().to_owned()).collect()
    };
    assert_eq!(addresses(&users[0]), ["ann.lee@example.com"]);
    assert_eq!(addresses(&users[1]), ["bob@example.com", "bob.lee@example.com"], "an account may still appear");
}

#[tokio::test]
async fn hidden_addresses_raise_alarm_and_are_unmatched() {
    let world = World::new().await;
    let users: Vec<OktaUserId> =
        ["ann", "bob"].iter().map(|name| world.user_called(name, &format!("{name}@example.com"))).collect();
    let account = world.account("ann@example.com");
    world.okta().hide_names(true);
    for who in &users {
        world.leaves(who).await;
    }
    world.assert_open(&account);
    assert_eq!(unmatched(&world).await, users.iter().map(|who| format!("{who}: address_hidden")).collect::<Vec<_>>());
    assert_eq!(world.alarms().await, ["role_too_narrow of addresses"]);
    // Nothing is forgotten: the reconcile denies once the role is wide enough.
    world.reconcile().await;
    assert_eq!(world.alarms().await, ["role_too_narrow of addresses"]);
    world.okta().hide_names(false);
    world.reconcile().await;
    world.assert_denied_for(&account, &users[0]);
    assert_eq!(world.alarms().await, [""; 0]);
    assert_eq!(unmatched(&world).await, [format!("{}: no_account", users[1])]);
}

#[tokio::test]
async fn listing_of_hidden_addresses_raises_alarm() {
    let (world, users) = after_years(&["ann@example.com", "bob@example.com"]).await;
    let account = world.account("ann@example.com");
    world.list_directory().await;
    world.okta().hide_names(true);
    world.list_directory().await;
    assert_eq!(world.alarms().await, ["role_too_narrow of addresses"]);
    // What was learned before is kept.
    world.leaves(&users[0]).await;
    world.assert_denied_for(&account, &users[0]);
    world.okta().hide_names(false);
    world.request(&users[0]).await;
    world.list_directory().await;
    assert_eq!(world.alarms().await, [""; 0]);
}

#[tokio::test]
async fn alarm_about_addresses_ends_without_listing() {
    for known_before in [false, true] {
        let (mut world, users) = after_years(&["ann@example.com", "bob@example.com"]).await;
        let account = world.account("ann@example.com");
        if known_before {
            world.list_directory().await;
        }
        world.okta().hide_names(true);
        world.list_directory().await;
        world.leaves(&users[0]).await;
        world.restart(|options| options.directory = false).await;
        assert_eq!(world.alarms().await, ["role_too_narrow of addresses"], "ann left, and her addresses are hidden");
        world.okta().hide_names(false);
        world.reconcile().await;
        world.assert_denied_for(&account, &users[0]);
        assert_eq!(world.alarms().await, [""; 0], "known before: {known_before}");
    }
}

#[tokio::test]
async fn role_without_users_raises_alarm() {
    let (world, users) = after_years(&["ann@example.com"]).await;
    world.okta().hide(&users[0]);
    assert_eq!(world.list_directory().await, 0);
    assert_eq!(world.alarms().await, [""; 0], "the org may be empty");
    // The log names a user.
    world.okta().hide(world.user("bob@example.com"));
    world.poll().await;
    assert_eq!(world.list_directory().await, 0);
    assert_eq!(world.alarms().await, ["role_too_narrow of users"]);
    assert_eq!(world.store().directory().await.unwrap().complete_at, None, "an empty listing is not complete");
    world.okta().show(&users[0]);
    assert_eq!(world.list_directory().await, 1);
    assert_eq!(world.alarms().await, [""; 0]);
}

#[tokio::test]
async fn oversized_user_page_is_listed_in_smaller_ones() {
    let names: Vec<String> = (0..60).map(|number| format!("user{number:02}@example.com")).collect();
    let (world, users) = after_years(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let account = world.account("user59@example.com");
    // A proxy that cuts large bodies: a page of all users does not pass.
    world.okta().faults().add(Fault::new("GET", USERS, Effect::CutBodyOver(8_000)));
    assert_eq!(world.list_directory().await, 60);
    for user in &users {
        world.okta().deactivate_silently(user);
    }
    world.reconcile().await;
    world.assert_denied_for(&account, &users[59]);
}

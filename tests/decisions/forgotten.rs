//! Users whom `forget` removed, and what happens to them in both tenants afterwards.

use okta_auth0_sync::domain::OktaUserId;

use crate::world::{DAY, MINUTE, World};

/// The actor of the stand-in's events.
const ACTOR: &str = "admin@sandbox.example";

async fn forget(world: &World, who: &OktaUserId) {
    let policy = world.options.rules.fingerprint();
    world.store().forget(who, "a test", &policy, world.now()).await.unwrap();
}

/// Whether the state has a name or an address of the user.
async fn is_named(world: &World, who: &OktaUserId, email: &str) -> bool {
    let rows = world.store().find_users(who.as_str()).await.unwrap();
    let named = rows.iter().any(|row| row.login.is_some() || row.email.is_some());
    named || !world.store().find_users(email).await.unwrap().is_empty()
}

async fn compare_everything(world: &World) {
    world.list_directory().await;
    world.reconcile().await;
}

#[tokio::test]
async fn forgotten_leaver_who_returns_is_admitted() {
    for by_the_log in [true, false] {
        let world = World::new().await;
        let (ann, account) = (world.user("ann@example.com"), world.account("ann@example.com"));
        world.leaves(&ann).await;
        forget(&world, &ann).await;
        compare_everything(&world).await;
        world.assert_denied_for(&account, &ann);
        assert!(!is_named(&world, &ann, "ann@example.com").await, "a reconcile does not record the names again");
        world.passes(2 * DAY);
        if by_the_log {
            world.returns(&ann).await;
            world.assert_open(&account);
            // The event is news, so the tombstone ends: the user is a user again.
            world.leaves(&ann).await;
            world.assert_denied_for(&account, &ann);
            assert!(is_named(&world, &ann, "ann@example.com").await);
        } else {
            world.okta().set_status(&ann, "ACTIVE", None);
            compare_everything(&world).await;
            world.assert_open(&account);
            assert!(!is_named(&world, &ann, "ann@example.com").await, "no event ended the tombstone");
            compare_everything(&world).await;
            world.assert_open(&account);
        }
    }
}

#[tokio::test]
async fn forgotten_active_user_is_denied_on_leaving() {
    for by_the_log in [true, false] {
        let world = World::new().await;
        let (bob, account) = (world.user("bob@example.com"), world.account("bob@example.com"));
        world.sync().await;
        compare_everything(&world).await;
        forget(&world, &bob).await;
        world.passes(DAY);
        compare_everything(&world).await;
        assert!(!is_named(&world, &bob, "bob@example.com").await);
        if by_the_log {
            world.leaves(&bob).await;
        } else {
            world.okta().deactivate_silently(&bob);
            compare_everything(&world).await;
        }
        world.assert_denied_for(&account, &bob);
        assert_eq!(is_named(&world, &bob, "bob@example.com").await, by_the_log);
    }
}

#[tokio::test]
async fn forgotten_actor_appears_by_new_events_only() {
    let world = World::new().await;
    let (admin, ann) = (world.user(ACTOR), world.user("ann@example.com"));
    let bob = world.user("bob@example.com");
    world.leaves(&ann).await;
    let actors = async |of: &OktaUserId| -> Vec<Option<String>> {
        world.store().events_of(of, 10).await.unwrap().into_iter().map(|event| event.actor).collect()
    };
    assert!(actors(&ann).await.contains(&Some(ACTOR.to_owned())));
    forget(&world, &admin).await;
    let entries = world.okta().log_entries();
    for entry in &entries {
        world.okta().repeat_log_entry(entry["uuid"].as_str().unwrap());
    }
    world.passes(MINUTE);
    world.sync().await;
    compare_everything(&world).await;
    assert!(actors(&ann).await.iter().all(Option::is_none), "old events are not news");
    // Who deactivated a user is evidence about that user; the administrator still gets no record.
    world.leaves(&bob).await;
    assert!(actors(&bob).await.contains(&Some(ACTOR.to_owned())));
    assert!(!is_named(&world, &admin, ACTOR).await);
}

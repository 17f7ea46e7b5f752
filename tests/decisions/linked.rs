//! Linked accounts, and accounts that carry the Okta id: which account is denied when an identity of it is the user's.

use serde_json::json;

use crate::world::{World, outcomes};

const CORPORATE: &str = "ann@example.com";
const PRIVATE: &str = "ann@home.example";

/// A private account into which an account at the corporate address is linked.
fn linked(world: &World) -> String {
    let primary = world.auth0().create_user(json!({ "connection": "google-oauth2", "email": PRIVATE }));
    let corporate = world.account(CORPORATE);
    assert!(world.auth0().link(&primary, &corporate));
    primary
}

#[tokio::test]
async fn linked_corporate_identity_denies_primary() {
    let world = World::new().await;
    let ann = world.user(CORPORATE);
    let primary = linked(&world);
    world.leaves(&ann).await;
    world.assert_denied_for(&primary, &ann);
    // Another user may hold the private address by now, so each reconcile looks.
    assert_eq!(outcomes(&world.reconcile().await), ["unchanged"]);
    assert_eq!(world.writes(), 1);
    world.returns(&ann).await;
    world.assert_open(&primary);
}

#[tokio::test]
async fn linked_spelling_is_found() {
    let world = World::new().await;
    let ann = world.user("Ann@Example.com");
    let primary = world.auth0().create_user(json!({ "connection": "google-oauth2", "email": PRIVATE }));
    let saml = world.auth0().create_user(json!({ "connection": "acme-saml", "email": "Ann@Example.com" }));
    assert!(world.auth0().link(&primary, &saml));
    world.leaves(&ann).await;
    world.assert_denied_for(&primary, &ann);
}

#[tokio::test]
async fn reconcile_finds_account_linked_after_leaving() {
    let world = World::new().await;
    let ann = world.user(CORPORATE);
    world.leaves(&ann).await;
    let primary = linked(&world);
    world.reconcile().await;
    world.assert_denied_for(&primary, &ann);
}

#[tokio::test]
async fn leavers_of_a_batch_are_found_by_identity() {
    let world = World::new().await;
    let users: Vec<_> = (0..5).map(|number| world.user(&format!("user{number}@example.com"))).collect();
    let primaries: Vec<String> = (0..5)
        .map(|number| {
            let email = format!("user{number}@home.example");
            let primary = world.auth0().create_user(json!({ "connection": "google-oauth2", "email": email }));
            let corporate = world.account(&format!("user{number}@example.com"));
            assert!(world.auth0().link(&primary, &corporate));
            primary
        })
        .collect();
    users.iter().for_each(|user| world.okta().deactivate(user));
    world.sync().await;
    users.iter().zip(&primaries).for_each(|(user, primary)| world.assert_denied_for(primary, user));
}

#[tokio::test]
async fn okta_id_matches_whatever_the_address() {
    for id in ["okta|{}", "okta|acme-okta|{}", "oidc|acme-okta|{}"] {
        let world = World::with(|setup| setup.options.rules.trusted_connections = vec!["acme-okta".to_owned()]).await;
        let ann = world.user(CORPORATE);
        let account = world.auth0().create_user(json!({
            "connection": "acme-okta", "user_id": id.replace("{}", ann.as_str()), "email": "maiden@old.example",
        }));
        let other = world.account("maiden@old.example");
        world.leaves(&ann).await;
        world.assert_denied_for(&account, &ann);
        world.assert_open(&other);
        world.returns(&ann).await;
        world.assert_open(&account);
    }
}

#[tokio::test]
async fn hidden_address_is_matched_by_okta_id() {
    let world = World::new().await;
    let ann = world.user_called("ann", CORPORATE);
    let account = world.auth0().create_user(json!({
        "connection": "acme-okta", "user_id": format!("okta|{ann}"), "email": CORPORATE,
    }));
    world.okta().hide_names(true);
    world.leaves(&ann).await;
    world.assert_denied_for(&account, &ann);
}

#[tokio::test]
async fn active_holder_of_primary_address_keeps_access() {
    let world = World::new().await;
    let ann = world.user(CORPORATE);
    let bob = world.user(PRIVATE);
    let primary = linked(&world);
    world.leaves(&ann).await;
    world.assert_open(&primary);
    assert_eq!(world.outcome(&ann).await, format!("skipped: shared_address: {bob}"));
    world.leaves(&bob).await;
    assert!(!world.lets_in(&primary));
}

#[tokio::test]
async fn active_holder_of_linked_address_keeps_access() {
    let world = World::new().await;
    let (ann, bob) = (world.user(PRIVATE), world.user(CORPORATE));
    let primary = linked(&world);
    world.leaves(&ann).await;
    world.assert_open(&primary);
    assert_eq!(world.outcome(&ann).await, format!("skipped: shared_address: {bob}"));
}

#[tokio::test]
async fn reused_address_opens_no_okta_account() {
    let world = World::new().await;
    let ann = world.user(CORPORATE);
    let account = world.auth0().create_user(json!({
        "connection": "acme-okta", "user_id": format!("okta|{ann}"), "email": CORPORATE,
    }));
    world.okta().change_profile(&ann, "former@example.com", "former@example.com");
    world.user(CORPORATE);
    world.leaves(&ann).await;
    world.assert_denied_for(&account, &ann);
}

#[tokio::test]
async fn unverified_linked_address_is_out_of_scope() {
    for verified in [false, true] {
        let world = World::with(|setup| setup.options.rules.require_verified_email = true).await;
        let ann = world.user(CORPORATE);
        let primary = world.auth0().create_user(json!({
            "connection": "google-oauth2", "email": PRIVATE, "email_verified": !verified,
        }));
        let corporate = world.auth0().create_user(json!({ "email": CORPORATE, "email_verified": verified }));
        assert!(world.auth0().link(&primary, &corporate));
        world.leaves(&ann).await;
        assert_eq!(world.lets_in(&primary), !verified, "the address that matches counts, not the primary's");
    }
}

#[tokio::test]
async fn denied_account_linked_later_denies_its_primary() {
    let world = World::new().await;
    let ann = world.user(CORPORATE);
    let account = world.account(CORPORATE);
    world.leaves(&ann).await;
    // Its owner changes the address before linking: only the store and the identity's id lead to it.
    world.auth0().set_user(&account, |user| user["email"] = json!("ann@elsewhere.example"));
    let primary = world.auth0().create_user(json!({ "connection": "google-oauth2", "email": PRIVATE }));
    assert!(world.auth0().link(&primary, &account));
    assert!(world.lets_in(&primary), "Auth0 discards the secondary's mark");
    world.reconcile().await;
    world.assert_denied_for(&primary, &ann);
    world.returns(&ann).await;
    world.assert_open(&primary);
    assert!(world.store().accounts_of(&ann).await.unwrap().iter().all(|account| !account.denied));
}

#[tokio::test]
async fn deleted_denied_account_is_recorded_as_gone() {
    let world = World::new().await;
    let ann = world.user(CORPORATE);
    let account = world.account(CORPORATE);
    world.leaves(&ann).await;
    assert!(world.auth0().delete_user(&account));
    world.reconcile().await;
    assert!(world.store().accounts_of(&ann).await.unwrap().iter().all(|account| !account.denied));
    assert_eq!(world.alarms().await, [""; 0]);
}

//! The addresses that match a user, and what happens when two users share one.

use okta_auth0_sync::domain::OktaUserId;
use serde_json::json;

use crate::world::{DAY, HOUR, MINUTE, World};

#[tokio::test]
async fn old_address_counts_if_ever_seen() {
    let world = World::new().await;
    let ann = world.user("ann@example.com");
    let (old, new) = (world.account("ann@example.com"), world.account("ann.smith@example.com"));
    world.sync().await;
    world.okta().change_profile(&ann, "ann.smith@example.com", "ann.smith@example.com");
    world.leaves(&ann).await;
    world.assert_denied_for(&old, &ann);
    world.assert_denied_for(&new, &ann);
    world.returns(&ann).await;
    world.assert_open(&old);
    world.assert_open(&new);
}

#[tokio::test]
async fn address_change_while_denied_keeps_denial() {
    let world = World::new().await;
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    world.leaves(&ann).await;
    world.auth0().set_user(&account, |user| user["email"] = json!("elsewhere@example.net"));
    world.reconcile().await;
    world.assert_denied_for(&account, &ann);
    world.auth0().set_user(&account, |user| user["app_metadata"] = json!({}));
    world.reconcile().await;
    world.assert_denied_for(&account, &ann);
    world.returns(&ann).await;
    world.assert_open(&account);
}

#[tokio::test]
async fn reassigned_account_is_skipped_not_denied() {
    let world = World::new().await;
    let (ann, bob) = (world.user("ann@example.com"), world.user("bob@example.com"));
    let account = world.account("ann@example.com");
    world.leaves(&ann).await;
    world.auth0().set_user(&account, |user| {
        user["email"] = json!("bob@example.com");
        user["app_metadata"] = json!({});
        user["user_metadata"] = json!({});
    });
    world.reconcile().await;
    world.assert_open(&account);
    assert_eq!(world.outcome(&ann).await, format!("skipped: shared_address: {bob}"));
}

#[tokio::test]
async fn address_change_after_return_stays_open() {
    let world = World::new().await;
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    world.leaves(&ann).await;
    world.okta().activate(&ann);
    world.okta().change_profile(&ann, "anna@example.com", "anna@example.com");
    world.sync().await;
    world.assert_open(&account);
}

#[tokio::test]
async fn login_without_at_sign_is_not_searched() {
    let world = World::new().await;
    let ann = world.user_called("ann", "ann@example.com");
    let nobody = world.user_called("svc-backup", "not an address");
    let account = world.account("ann@example.com");
    world.leaves(&ann).await;
    world.leaves(&nobody).await;
    world.assert_denied_for(&account, &ann);
    assert_eq!(world.outcome(&nobody).await, "skipped: no_address");
}

#[tokio::test]
async fn searches_login_and_email() {
    let world = World::new().await;
    let ann = world.user_called("ann@corp.example", "ann@example.com");
    let accounts = [world.account("ann@corp.example"), world.account("ann@example.com")];
    world.leaves(&ann).await;
    for account in &accounts {
        world.assert_denied_for(account, &ann);
    }
}

#[tokio::test]
async fn address_match_ignores_case() {
    let world = World::new().await;
    let ann = world.user("Ann.Smith@Example.com");
    // A database keeps lower case; a social connection keeps what its provider wrote.
    let database = world.account("ANN.SMITH@example.com");
    let social = |id: &str, email: &str| {
        world.auth0().create_user(json!({ "user_id": id, "connection": "google-oauth2", "email": email }))
    };
    let as_okta = social("google-oauth2|1", "Ann.Smith@Example.com");
    let lower = social("google-oauth2|2", "ann.smith@example.com");
    let third = social("google-oauth2|3", "ANN.Smith@EXAMPLE.com");
    world.leaves(&ann).await;
    for account in [&database, &as_okta, &lower, &third] {
        world.assert_denied_for(account, &ann);
    }
    let world = World::with(|setup| setup.options.search = false).await;
    let ann = world.user("ann@example.com");
    let odd = world.auth0().create_user(json!({ "connection": "google-oauth2", "email": "Ann@Example.com" }));
    world.leaves(&ann).await;
    world.assert_open(&odd);
    assert_eq!(world.outcome(&ann).await, "no_account", "without the search only exact and lower case are found");
}

#[tokio::test]
async fn query_syntax_in_addresses_is_escaped() {
    let world = World::new().await;
    let bystander = world.account("bystander@example.com");
    for (number, address) in [
        "ann+tag@example.com",
        "o'hara@example.com",
        "jörg.müßig@exämple.de",
        "李@例子.中国",
        "\"quoted\"@example.com",
        "back\\slash@example.com",
        "a*b?c@example.com",
        "x@example.com\"OR\"email:*",
        "tilde~2^5@example.com",
        "(paren)[brack]{brace}@example.com",
        "amp&and=or|not!@example.com",
        "percent%40%22@example.com",
        "colon:email@example.com",
        "-minus/slash#hash;semi,comma@example.com",
        "AND@OR.NOT",
    ]
    .into_iter()
    .enumerate()
    {
        let ann = world.user(address);
        let account = world.auth0().create_user(json!({
            "user_id": format!("acme-saml|{number}"), "connection": "acme-saml", "email": address,
        }));
        world.leaves(&ann).await;
        world.assert_denied_for(&account, &ann);
        world.assert_open(&bystander);
        assert!(world.reconcile().await.iter().all(|report| report.writes == 0), "{address}");
        world.returns(&ann).await;
        world.assert_open(&account);
    }
    assert!(world.alarms().await.is_empty());
}

/// Two users with one e-mail and one account.
async fn pair(world: &World) -> (OktaUserId, OktaUserId, String) {
    let ann = world.user_called("ann", "team@example.com");
    let bob = world.user_called("bob", "TEAM@example.com");
    let account = world.account("team@example.com");
    world.sync().await;
    // Long enough that the activation does not contradict the events that follow.
    world.passes(HOUR);
    (ann, bob, account)
}

#[tokio::test]
async fn shared_account_denied_after_last_user_leaves() {
    for swap in [false, true] {
        let world = World::new().await;
        let (mut ann, mut bob, account) = pair(&world).await;
        if swap {
            std::mem::swap(&mut ann, &mut bob);
        }
        world.leaves(&ann).await;
        world.assert_open(&account);
        assert_eq!(world.outcome(&ann).await, format!("skipped: shared_address: {bob}"));
        world.passes(HOUR);
        world.leaves(&bob).await;
        assert!(!world.lets_in(&account));
        // Whichever user the mark names: when either returns, the account is open or held for an operator.
        let owner = OktaUserId::parse(world.mark(&account)["okta_user_id"].as_str().unwrap()).unwrap();
        let other = if owner == ann { bob.clone() } else { ann.clone() };
        world.returns(&owner).await;
        world.assert_open(&account);
        assert_eq!(world.outcome(&other).await, format!("skipped: shared_address: {owner}"));
        world.leaves(&owner).await;
        assert!(!world.lets_in(&account));
        world.let_pass(HOUR).await;
        let owner = OktaUserId::parse(world.mark(&account)["okta_user_id"].as_str().unwrap()).unwrap();
        let other = if owner == ann { bob.clone() } else { ann.clone() };
        // The user whom the mark does not name returns.
        world.returns(&other).await;
        world.assert_denied_for(&account, &owner);
        assert_eq!(world.outcome(&owner).await, format!("held: address_reused: {other}"));
        world.approve(&owner).await;
        world.assert_open(&account);
        assert_eq!(world.outcome(&owner).await, format!("skipped: shared_address: {other}"));
    }
}

#[tokio::test]
async fn simultaneous_leave_denies_shared_account_once() {
    let world = World::new().await;
    let (ann, bob, account) = pair(&world).await;
    world.okta().deactivate(&ann);
    world.okta().deactivate(&bob);
    world.sync().await;
    assert!(!world.lets_in(&account));
    assert_eq!(world.writes(), 1);
    world.passes(DAY);
    world.okta().activate(&ann);
    world.okta().activate(&bob);
    world.sync().await;
    world.let_pass(HOUR).await;
    // The other user is active and holds the address: an operator decides, in whichever order the looks ran.
    let owner = OktaUserId::parse(world.mark(&account)["okta_user_id"].as_str().unwrap()).unwrap();
    if !world.lets_in(&account) {
        assert!(world.outcome(&owner).await.starts_with("held: address_reused"));
        world.approve(&owner).await;
    }
    world.assert_open(&account);
}

#[tokio::test]
async fn skipped_user_is_rechecked() {
    let world = World::new().await;
    let (ann, _, _) = pair(&world).await;
    world.leaves(&ann).await;
    let looks = |reports: Vec<okta_auth0_sync::engine::sync_user::Report>| {
        reports.into_iter().filter(|report| report.user == ann).count()
    };
    assert_eq!(looks(world.let_pass(MINUTE).await), 1);
    assert_eq!(looks(world.let_pass(3 * HOUR).await), 0);
    assert_eq!(looks(world.reconcile().await), 1);
}

#[tokio::test]
async fn reused_address_holds_denied_user() {
    let world = World::new().await;
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    world.leaves(&ann).await;
    world.passes(DAY);
    let anna = world.user_called("anna", "ann@example.com");
    world.sync().await;
    assert_eq!(world.outcome(&ann).await, format!("held: address_reused: {anna}"));
    world.assert_denied_for(&account, &ann);
    world.let_pass(DAY).await;
    world.reconcile().await;
    world.assert_denied_for(&account, &ann);
    world.approve(&ann).await;
    world.assert_open(&account);
    world.reconcile().await;
    world.assert_open(&account);
    // The new user leaves too.
    world.leaves(&anna).await;
    assert!(!world.lets_in(&account));
}

/// Ann left and returned, and Anna holds her address: whether the account is opened for Ann is asked.
async fn returned_to_a_reused_address(world: &World) -> (OktaUserId, String) {
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    world.leaves(&ann).await;
    world.passes(DAY);
    let anna = world.user_called("anna", "ann@example.com");
    world.returns(&ann).await;
    assert_eq!(world.outcome(&ann).await, format!("held: address_reused: {anna}"));
    world.assert_denied_for(&account, &ann);
    (ann, account)
}

#[tokio::test]
async fn approval_does_not_open_for_a_new_leaver() {
    for polled in ["before the approval", "before the look", "not yet"] {
        let world = World::new().await;
        let (ann, account) = returned_to_a_reused_address(&world).await;
        world.passes(HOUR);
        match polled {
            "before the approval" => {
                world.okta().deactivate(&ann);
                world.poll().await;
                assert_eq!(world.approve_without_a_look(Some(&ann)).await, 0, "there is news that no look has judged");
            }
            "before the look" => {
                assert_eq!(world.approve_without_a_look(Some(&ann)).await, 1);
                world.okta().deactivate(&ann);
                world.poll().await;
            }
            _ => {
                assert_eq!(world.approve_without_a_look(Some(&ann)).await, 1);
                world.okta().deactivate(&ann);
            }
        }
        world.settle().await;
        world.assert_denied_for(&account, &ann);
        assert!(world.outcome(&ann).await.starts_with("held: address_reused"), "{polled}: asked again");
    }
}

#[tokio::test]
async fn two_held_users_do_not_requeue_each_other() {
    let world = World::new().await;
    let ann = world.user_called("ann@example.com", "ann@example.com");
    let bob = world.user_called("bob@example.com", "bob@example.com");
    let (anns, bobs) = (world.account("ann@example.com"), world.account("bob@example.com"));
    world.okta().deactivate(&ann);
    world.okta().deactivate(&bob);
    world.sync().await;
    world.assert_denied_for(&anns, &ann);
    world.assert_denied_for(&bobs, &bob);
    world.let_pass(2 * HOUR).await;
    // Each returns with the other's address as second e-mail: each blocks the other's mark.
    world.okta().set_status(&ann, "ACTIVE", None);
    world.okta().set_status(&bob, "ACTIVE", None);
    world.okta().change_profile(&ann, "ann@example.com", "bob@example.com");
    world.okta().change_profile(&bob, "bob@example.com", "ann@example.com");
    world.request(&ann).await;
    world.request(&bob).await;
    assert_eq!(world.outcome(&ann).await, format!("held: address_reused: {bob}"));
    assert_eq!(world.outcome(&bob).await, format!("held: address_reused: {ann}"));
    assert!(world.let_pass(DAY).await.is_empty(), "at rest");
    assert!(world.request(&ann).await.len() <= 2);
    assert!(world.reconcile().await.len() <= 4);
    world.approve(&ann).await;
    world.approve(&bob).await;
    world.assert_open(&anns);
    world.assert_open(&bobs);
}

#[tokio::test]
async fn skipped_user_denied_when_other_holder_leaves() {
    for way in ["guard", "failing", "suspended"] {
        let mut world = World::new().await;
        let (ann, bob, account) = pair(&world).await;
        world.leaves(&ann).await;
        match way {
            "guard" => {
                world.restart(|options| options.guard.denials_max = 0.into()).await;
                world.leaves(&bob).await;
                assert_ne!(world.approve_without_a_look(None).await, 0);
                world.settle().await;
                assert!(!world.lets_in(&account));
            }
            "suspended" => {
                world.okta().suspend(&bob);
                world.sync().await;
                // No user with the verdict Allow holds the address any more.
                world.assert_denied_for(&account, &ann);
            }
            _ => {
                world.okta().deactivate(&bob);
                world.poll().await;
                // Only calls about Bob fail; they do not keep Ann's account open.
                let fault = okta_auth0_sync_sandbox::Fault::status("GET", &format!("/api/v1/users/{bob}"), 500);
                world.okta().faults().add(fault.times(2));
                world.settle().await;
                world.let_pass(MINUTE).await;
                assert!(!world.lets_in(&account));
            }
        }
    }
}

#[tokio::test]
async fn other_holder_known_from_log_despite_lag() {
    let world = World::with(|setup| setup.sandbox.okta.search_lag = DAY).await;
    let ann = world.user_called("ann", "team@example.com");
    let account = world.account("team@example.com");
    world.sync().await;
    world.passes(2 * DAY);
    // Two more users have just taken the address; one of them has left again.
    let gone = world.user("team@example.com");
    world.sync().await;
    world.okta().change_profile(&gone, "gone@example.com", "gone@example.com");
    world.leaves(&gone).await;
    let bob = world.user("team@example.com");
    world.sync().await;
    world.leaves(&ann).await;
    world.assert_open(&account);
    assert_eq!(world.outcome(&ann).await, format!("skipped: shared_address: {bob}"));
    // A user who once had the address and now has another one keeps no account open.
    world.passes(HOUR);
    world.okta().change_profile(&bob, "bob@example.com", "bob@example.com");
    world.sync().await;
    world.let_pass(HOUR).await;
    world.reconcile().await;
    world.assert_denied_for(&account, &ann);
}
